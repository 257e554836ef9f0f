//! Limits how often one address may present a wrong token. Pure: callers pass the time.
//!
//! Only wrong tokens are counted. A valid token is accepted from any address, also from that of an attacker.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;

/// Wrong tokens that an address may present at once.
const BURST: u32 = 20;
/// Time after which one more is allowed.
const PACE: Duration = Duration::from_secs(6);
/// Maximum number of addresses that are remembered.
const MOST: usize = 4096;

/// The wrong tokens of the last minutes, by address.
#[derive(Debug, Default)]
pub struct Throttle {
    addresses: HashMap<IpAddr, Failures>,
}

#[derive(Debug, Clone, Copy)]
struct Failures {
    /// When the full burst is available again.
    full: Instant,
    /// Whether a refusal was logged since then.
    is_logged: bool,
}

/// A wrong token too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooMany {
    /// After this time the next wrong one is answered with 401 again.
    pub wait: Duration,
    /// Whether it is the first one since the full burst was available.
    pub is_first: bool,
}

impl Throttle {
    /// Counts a wrong token of an address.
    ///
    /// # Errors
    ///
    /// [`TooMany`].
    pub fn failed(&mut self, address: IpAddr, now: Instant) -> Result<(), TooMany> {
        let address = site(address);
        let failures = self.addresses.get(&address).copied().filter(|failures| failures.full > now);
        let mut failures = failures.unwrap_or(Failures { full: now, is_logged: false });
        let full = failures.full + PACE;
        let wait = (full - now).saturating_sub(PACE * BURST);
        let answer = if wait > Duration::ZERO {
            let is_first = !std::mem::replace(&mut failures.is_logged, true);
            Err(TooMany { wait, is_first })
        } else {
            failures.full = full;
            Ok(())
        };
        self.make_room(&address, now);
        self.addresses.insert(address, failures);
        answer
    }

    /// Forgets addresses whose burst is full again, and if there are none, the one that is nearest to it.
    fn make_room(&mut self, address: &IpAddr, now: Instant) {
        if self.addresses.len() < MOST || self.addresses.contains_key(address) {
            return;
        }
        self.addresses.retain(|_, failures| failures.full > now);
        if self.addresses.len() >= MOST {
            let nearest = self.addresses.iter().min_by_key(|(_, failures)| failures.full);
            if let Some(nearest) = nearest.map(|(address, _)| *address) {
                self.addresses.remove(&nearest);
            }
        }
    }
}

/// The addresses of one IPv6 /64 network belong to one site or one machine, and count as one.
pub(in crate::fleet) fn site(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, 0])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn twenty_wrong_tokens_at_once_and_then_one_every_six_seconds() {
        let (begun, mut throttle) = (Instant::now(), Throttle::default());
        let one = address("192.0.2.1");
        for n in 0..20 {
            assert_eq!(throttle.failed(one, begun), Ok(()), "{n}");
        }
        let too_many = |seconds, is_first| Err(TooMany { wait: Duration::from_secs(seconds), is_first });
        for (seconds, from, answer) in [
            (0, "192.0.2.1", too_many(6, true)),
            (0, "192.0.2.1", too_many(6, false)),
            (0, "::ffff:192.0.2.1", too_many(6, false)),
            (0, "192.0.2.2", Ok(())),
            (5, "192.0.2.1", too_many(1, false)),
            (6, "192.0.2.1", Ok(())),
            (6, "192.0.2.1", too_many(6, false)),
            (1000, "192.0.2.1", Ok(())),
        ] {
            assert_eq!(
                throttle.failed(address(from), begun + Duration::from_secs(seconds)),
                answer,
                "{from}"
            );
        }
    }

    #[test]
    fn one_ipv6_network_counts_as_one_address() {
        let (now, mut throttle) = (Instant::now(), Throttle::default());
        for n in 0..20 {
            assert_eq!(throttle.failed(address(&format!("2001:db8:1:2::{n:x}")), now), Ok(()));
        }
        assert!(throttle.failed(address("2001:db8:1:2:ffff::1"), now).is_err());
        assert_eq!(throttle.failed(address("2001:db8:1:3::1"), now), Ok(()));
    }

    /// Whoever has many addresses fills no memory, and frees no address that is blocked.
    #[test]
    fn the_memory_is_bounded() {
        let (now, mut throttle) = (Instant::now(), Throttle::default());
        let blocked = address("192.0.2.1");
        let answers: Vec<_> = (0..21).map(|_| throttle.failed(blocked, now).is_ok()).collect();
        assert_eq!(answers.iter().filter(|is_ok| **is_ok).count(), 20);
        for n in 0..10_000_u32 {
            assert_eq!(throttle.failed(IpAddr::from((0x0a00_0000 + n).to_be_bytes()), now), Ok(()));
        }
        assert_eq!(throttle.addresses.len(), MOST);
        assert!(throttle.failed(blocked, now).is_err());
    }
}

//! Finds the client behind trusted proxies, from `X-Forwarded-For`. Pure.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use axum::http::{HeaderMap, HeaderName};

/// The header to which each proxy appends the address of its peer.
const FORWARDED: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The addresses of a network, `192.0.2.0/24`, or one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    /// With all bits after the prefix zero; IPv4 addresses as IPv6 ones.
    bits: u128,
    prefix: u32,
}

/// A text that is no network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoNetwork;

impl FromStr for Network {
    type Err = NoNetwork;

    fn from_str(text: &str) -> Result<Self, NoNetwork> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| NoNetwork)?;
        let (before, most) = if address.is_ipv4() { (96, 32) } else { (0, 128) };
        let prefix = match prefix {
            // u32::from_str accepts "+8".
            Some(prefix) if prefix.bytes().all(|byte| byte.is_ascii_digit()) => {
                prefix.parse().map_err(|_| NoNetwork)?
            }
            Some(_) => return Err(NoNetwork),
            None => most,
        };
        if prefix > most {
            return Err(NoNetwork);
        }
        let prefix = prefix + before;
        Ok(Self { bits: bits(address) & mask(prefix), prefix })
    }
}

impl Network {
    /// Returns `true` if the network has the address.
    #[must_use]
    pub fn has(self, address: IpAddr) -> bool {
        bits(address) & mask(self.prefix) == self.bits
    }
}

/// Returns whether one of these networks has the address.
pub(super) fn is_in(networks: &[Network], address: IpAddr) -> bool {
    networks.iter().any(|network| network.has(address))
}

fn bits(address: IpAddr) -> u128 {
    let as_v6 = match address.to_canonical() {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    };
    Ipv6Addr::to_bits(as_v6)
}

fn mask(prefix: u32) -> u128 {
    u128::MAX.checked_shl(128 - prefix).unwrap_or(0)
}

/// Returns the address of the client of a trusted proxy: the last one in `X-Forwarded-For` that is not itself a trusted
/// proxy. What stands before it was written by the client and may be invented. An entry that is no address ends the search,
/// so the result is then the proxy that wrote it.
pub(super) fn client(peer: IpAddr, proxies: &[Network], headers: &HeaderMap) -> IpAddr {
    let values = headers.get_all(FORWARDED).iter().rev();
    let entries = values.flat_map(|value| value.to_str().unwrap_or("?").rsplit(','));
    let mut client = peer;
    for entry in entries {
        let Some(address) = address(entry.trim()) else { break };
        client = address;
        if !is_in(proxies, address) {
            break;
        }
    }
    client
}

/// Reads an address, which some proxies write with a port.
fn address(text: &str) -> Option<IpAddr> {
    let in_brackets = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    let alone = || in_brackets.unwrap_or(text).parse::<IpAddr>().ok();
    let address = alone().or_else(|| text.parse::<SocketAddr>().ok().map(|with_port| with_port.ip()))?;
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_read_exactly() {
        for (text, inside, outside) in [
            ("127.0.0.1", "127.0.0.1", "127.0.0.2"),
            ("192.0.2.0/24", "192.0.2.255", "192.0.3.0"),
            ("192.0.2.77/24", "::ffff:192.0.2.1", "192.0.1.255"),
            ("2001:db8::/32", "2001:db8:1::1", "2001:db9::1"),
            ("0.0.0.0/0", "198.51.100.1", "2001:db8::1"),
            ("::1", "::1", "::2"),
        ] {
            let network: Network = text.parse().unwrap();
            assert!(network.has(inside.parse().unwrap()), "{text} {inside}");
            assert!(!network.has(outside.parse().unwrap()), "{text} {outside}");
        }
        for text in ["", "here", "1.2.3.4/33", "::/129", "1.2.3.4/", "1.2.3.4/+8", "1.2.3.4/-1", "1.2.3/8"] {
            assert_eq!(text.parse::<Network>(), Err(NoNetwork), "{text}");
        }
    }

    #[test]
    fn the_client_is_the_last_address_that_no_trusted_proxy_has() {
        let proxies: Vec<Network> = ["127.0.0.1", "10.0.0.0/8"].map(|text| text.parse().unwrap()).into();
        for (why, lines, expected) in [
            ("no header", vec![], "127.0.0.1"),
            ("one client", vec!["192.0.2.1"], "192.0.2.1"),
            ("invented by the client", vec!["198.51.100.9, 192.0.2.1"], "192.0.2.1"),
            ("two proxies", vec!["198.51.100.9, 192.0.2.1, 10.1.2.3"], "192.0.2.1"),
            ("several lines", vec!["192.0.2.1", "10.1.2.3"], "192.0.2.1"),
            ("invented in a line of its own", vec!["198.51.100.9", "192.0.2.1"], "192.0.2.1"),
            ("only proxies", vec!["10.0.0.2, 10.0.0.1"], "10.0.0.2"),
            ("with a port", vec!["192.0.2.1:5000"], "192.0.2.1"),
            ("IPv6", vec!["2001:db8::1"], "2001:db8::1"),
            ("IPv6 with a port", vec!["[2001:db8::1]:443"], "2001:db8::1"),
            ("IPv6 in brackets", vec!["[2001:db8::1]"], "2001:db8::1"),
            ("no address", vec!["192.0.2.1, unknown"], "127.0.0.1"),
            ("no address before a proxy", vec!["unknown, 10.1.2.3"], "10.1.2.3"),
            ("empty", vec![""], "127.0.0.1"),
        ] {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(FORWARDED, line.parse().unwrap());
            }
            let peer = "127.0.0.1".parse().unwrap();
            assert_eq!(client(peer, &proxies, &headers), expected.parse::<IpAddr>().unwrap(), "{why}");
        }
    }
}

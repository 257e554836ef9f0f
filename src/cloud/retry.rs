//! Delays after failures: they grow, have jitter, and are never shorter than the cloud asked for.

use std::time::Duration;

use backoff::ExponentialBackoff;
use backoff::backoff::Backoff as _;

#[derive(Debug)]
pub(super) struct Retry {
    backoff: ExponentialBackoff,
    /// Failures in a row.
    pub(super) failures: u32,
}

impl Retry {
    /// Creates delays from 15 s (or `longest`, if that is shorter) up to `longest`. Each varies by ± 30 %, so that the
    /// devices of a fleet whose cloud was down do not all return at the same moment.
    pub(super) fn up_to(longest: Duration) -> Self {
        let first = Duration::from_secs(15).min(longest);
        let mut backoff = ExponentialBackoff {
            initial_interval: first,
            max_interval: longest,
            multiplier: 2.0,
            randomization_factor: 0.3,
            max_elapsed_time: None,
            ..ExponentialBackoff::default()
        };
        backoff.reset();
        Self { backoff, failures: 0 }
    }

    pub(super) fn success(&mut self) {
        self.backoff.reset();
        self.failures = 0;
    }

    /// Counts a failure, and returns how long to wait now.
    pub(super) fn failure(&mut self, asked: Option<Duration>) -> Duration {
        self.failures = self.failures.saturating_add(1);
        let next = self.backoff.next_backoff().unwrap_or(self.backoff.max_interval);
        asked.map_or(next, |asked| asked.max(next))
    }
}

/// Returns a random time of up to a second, so that devices that were answered at the same moment do not poll at the same
/// moment.
pub(super) fn moment() -> Duration {
    let mut once = ExponentialBackoff {
        initial_interval: Duration::from_millis(500),
        randomization_factor: 1.0,
        max_elapsed_time: None,
        ..ExponentialBackoff::default()
    };
    once.reset();
    once.next_backoff().unwrap_or_default()
}

/// Returns `interval` plus a random part of up to 10 %.
#[must_use]
pub fn with_jitter(interval: Duration) -> Duration {
    let mut once = ExponentialBackoff {
        initial_interval: interval.mul_f64(1.05),
        max_interval: interval.mul_f64(1.05),
        randomization_factor: 0.05 / 1.05,
        max_elapsed_time: None,
        ..ExponentialBackoff::default()
    };
    once.reset();
    once.next_backoff().unwrap_or(interval)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_up_to_the_interval_and_respect_the_cloud() {
        let mut retry = Retry::up_to(Duration::from_secs(60));
        let waits: Vec<_> = (0..6).map(|_| retry.failure(None).as_secs_f64()).collect();
        for (wait, centre) in waits.iter().zip([15.0, 30.0, 60.0, 60.0, 60.0, 60.0]) {
            assert!((centre * 0.69..centre * 1.31).contains(wait), "{waits:?}");
        }
        assert_eq!(retry.failures, 6);
        assert_eq!(retry.failure(Some(Duration::from_secs(600))), Duration::from_secs(600));
        let short = Some(Duration::from_secs(1));
        assert!(retry.failure(short) > Duration::from_secs(40), "it asks for less than the delay");
        retry.success();
        assert!(retry.failure(None) < Duration::from_secs(20));
    }

    #[test]
    fn a_moment_is_at_most_a_second() {
        let moments: Vec<_> = (0..100).map(|_| moment()).collect();
        assert!(moments.iter().all(|moment| *moment <= Duration::from_secs(1)), "{moments:?}");
        assert!(moments.iter().any(|moment| *moment != moments[0]), "{moments:?}");
    }

    #[test]
    fn jitter_only_adds() {
        for _ in 0..100 {
            let wait = with_jitter(Duration::from_secs(100)).as_secs_f64();
            assert!((99.9..110.1).contains(&wait), "{wait}");
        }
    }
}

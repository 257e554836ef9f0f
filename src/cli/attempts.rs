//! Decides how often a change is sent again after its connection was lost. Each time it has the same key, so that the server does it once.

use std::time::Duration;

use tokio::time::Instant;

use crate::host;

/// The time before each repetition.
const WAITS: [Duration; 5] = [
    Duration::from_millis(200),
    Duration::from_millis(800),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
];

/// No repetition begins later than this after the first request.
const NO_LATER: Duration = Duration::from_secs(60);

/// Bytes of a key.
const KEY: usize = 16;

/// What a failure says about the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failed {
    /// The server answered, or the same request fails for ever.
    ForGood,
    /// The request did not reach the server.
    Before,
    /// The request may have reached the server, which may have done it.
    HalfWay,
}

/// The attempts of one request.
#[derive(Debug)]
pub(super) struct Attempts {
    /// `None` for a request that changes nothing. It is not repeated here.
    key: Option<String>,
    begun: Instant,
    waits: std::slice::Iter<'static, Duration>,
    is_half_done: bool,
}

impl Attempts {
    pub(super) fn new(is_change: bool) -> Self {
        // Without a key of its own a request is sent once.
        let key = is_change.then(|| host::random_hex(KEY).ok()).flatten();
        Self { key, begun: Instant::now(), waits: WAITS.iter(), is_half_done: false }
    }

    /// Returns the key of the request.
    pub(super) fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// Returns the time after which the request is sent again; `None` if it is not.
    pub(super) fn after(&mut self, failed: Failed) -> Option<Duration> {
        self.is_half_done |= failed == Failed::HalfWay;
        let is_open = self.key.is_some() && self.is_half_done && failed != Failed::ForGood;
        let wait = self.waits.next().filter(|_| is_open)?;
        (self.begun.elapsed() + *wait < NO_LATER).then_some(*wait)
    }

    /// Returns whether a request may have been done whose answer was lost.
    pub(super) fn is_half_done(&self) -> bool {
        self.is_half_done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_change_is_repeated_only_after_its_connection_was_lost_half_way() {
        use Failed::{Before, ForGood, HalfWay};
        for (is_change, failures, expected) in [
            (true, &[Before][..], 0),
            (true, &[ForGood], 0),
            (true, &[HalfWay, ForGood], 1),
            (true, &[HalfWay, Before, Before, Before, Before, Before], 5),
            (true, &[HalfWay, HalfWay, HalfWay, HalfWay, HalfWay, HalfWay, HalfWay], 5),
            (false, &[HalfWay], 0),
        ] {
            let mut attempts = Attempts::new(is_change);
            assert_eq!(attempts.key().is_some(), is_change);
            let repeated = failures.iter().map_while(|failed| attempts.after(*failed)).count();
            assert_eq!(repeated, expected, "{failures:?}");
            assert_eq!(attempts.is_half_done(), failures.contains(&HalfWay));
        }
        let mut late = Attempts::new(true);
        tokio::time::advance(NO_LATER).await;
        assert_eq!(late.after(HalfWay), None, "an operator does not wait for ever");
    }
}

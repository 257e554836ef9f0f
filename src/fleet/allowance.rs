//! Limits how often one device may make a costly request: a burst at once, and then a steady rate. Pure: callers pass the
//! time.

use std::time::Duration;

use tokio::time::Instant;

/// Requests that a device may make at once. An update of many services sends several in a row.
const BURST: u32 = 60;
/// Time after which one more is allowed. The agent reports at most every 10 s, other supervisors at most every second.
const PACE: Duration = Duration::from_secs(1);

/// The allowance of one device for one kind of request.
#[derive(Debug)]
pub(super) struct Allowance {
    /// When the full burst is available again.
    full: Instant,
    /// Whether a refusal was logged since then.
    is_logged: bool,
}

/// A request too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooOften {
    /// After this time the next one is accepted.
    pub(super) wait: Duration,
    /// Whether it is the first refusal since the full burst was available.
    pub(super) is_first: bool,
}

impl Allowance {
    pub(super) fn new(now: Instant) -> Self {
        Self { full: now, is_logged: false }
    }

    /// Takes one request.
    ///
    /// # Errors
    ///
    /// [`TooOften`] when none is left.
    pub(super) fn take(&mut self, now: Instant) -> Result<(), TooOften> {
        if self.full <= now {
            *self = Self::new(now);
        }
        let full = self.full + PACE;
        let wait = (full - now).saturating_sub(PACE * BURST);
        if wait > Duration::ZERO {
            let is_first = !std::mem::replace(&mut self.is_logged, true);
            return Err(TooOften { wait, is_first });
        }
        self.full = full;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_and_then_one_a_second() {
        let begun = Instant::now();
        let at = |millis: u64| begun + Duration::from_millis(millis);
        let mut allowance = Allowance::new(begun);
        for n in 0..60 {
            assert_eq!(allowance.take(begun), Ok(()), "{n}");
        }
        let too_often = |millis, is_first| Err(TooOften { wait: Duration::from_millis(millis), is_first });
        for (now, answer) in [
            (0, too_often(1000, true)),
            (0, too_often(1000, false)),
            (999, too_often(1, false)),
            (1000, Ok(())),
            (1000, too_often(1000, false)),
            (3000, Ok(())),
            (3000, Ok(())),
            (3000, too_often(1000, false)),
        ] {
            assert_eq!(allowance.take(at(now)), answer, "at {now}");
        }
        // A device that was quiet for long has its full burst again, not more, and its next refusal is logged again.
        for n in 0..60 {
            assert_eq!(allowance.take(at(100_000)), Ok(()), "{n}");
        }
        assert_eq!(allowance.take(at(100_000)), too_often(1000, true));
    }
}

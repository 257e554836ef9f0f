//! Limits how often one device may make a costly request: a burst at once, and then a steady rate. Pure: callers pass the
//! time.

use std::time::Duration;

use tokio::time::Instant;

/// How often a device may make a kind of request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// Requests at once.
    burst: u32,
    /// Time after which one more is allowed.
    each: Duration,
}

/// An update of many services sends several reports in a row. The agent reports at most every 10 s, other supervisors at
/// most every second.
pub(super) const USUAL: Pace = Pace { burst: 60, each: Duration::from_secs(1) };

/// Changes of tags. An agent sends all that wait at once, so a device that must wait loses none.
pub(super) const TAGS: Pace = Pace { burst: 20, each: Duration::from_secs(900) };

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
    pub(super) fn take(&mut self, now: Instant, pace: Pace) -> Result<(), TooOften> {
        if self.full <= now {
            *self = Self::new(now);
        }
        let full = self.full + pace.each;
        let wait = (full - now).saturating_sub(pace.each * pace.burst);
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
            assert_eq!(allowance.take(begun, USUAL), Ok(()), "{n}");
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
            assert_eq!(allowance.take(at(now), USUAL), answer, "at {now}");
        }
        // A device that was quiet for long has its full burst again, not more, and its next refusal is logged again.
        for n in 0..60 {
            assert_eq!(allowance.take(at(100_000), USUAL), Ok(()), "{n}");
        }
        assert_eq!(allowance.take(at(100_000), USUAL), too_often(1000, true));
    }
}

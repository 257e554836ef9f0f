//! Counts how long an update has waited for a clock that can be trusted.

use std::time::Duration;

use tokio::time::Instant;

use crate::model::{Clock, ClockNote};
use crate::plan::CLOCK_PATIENCE;

/// Saves of the count are this far apart, to spare the disk. A power cut may lose as much of it.
const SAVE_EVERY: Duration = Duration::from_secs(600);

/// The part of the wait that is not in the ledger yet.
#[derive(Debug, Default)]
pub(super) struct ClockWait {
    since: Option<Instant>,
}

impl ClockWait {
    /// Adds the time of a wait that goes on to `note`. Returns `true` if `note` must be saved.
    pub(super) fn count(&mut self, is_waiting: bool, note: &mut ClockNote) -> bool {
        let passed = self.since.get_or_insert_with(Instant::now).elapsed();
        if !is_waiting {
            self.since = None;
        } else if passed >= SAVE_EVERY {
            note.waited += passed;
            self.since = Some(Instant::now());
            return true;
        }
        false
    }
}

/// Ends a wait: a trusted clock resets its count. A count that is used up drops the time that was seen before, because
/// that time was wrong: the clock never came back to it. Returns `true` if `note` must be saved.
pub(super) fn settle(clock: &Clock, note: &mut ClockNote) -> bool {
    let is_trusted = *clock == Clock::Trusted;
    if is_trusted && !note.waited.is_zero() {
        note.waited = Duration::ZERO;
        return true;
    }
    let has_waited_enough = !is_trusted && note.waited >= CLOCK_PATIENCE && note.seen_at.is_some();
    if has_waited_enough {
        note.seen_at = None;
    }
    has_waited_enough
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_the_time_of_a_wait_is_counted() {
        let (mut wait, mut note) = (ClockWait::default(), ClockNote::default());
        assert!(!wait.count(true, &mut note));
        tokio::time::sleep(SAVE_EVERY / 2).await;
        assert!(!wait.count(false, &mut note), "the wait is over");
        tokio::time::sleep(SAVE_EVERY * 10).await;
        assert!(!wait.count(true, &mut note), "another one begins");
        tokio::time::sleep(SAVE_EVERY).await;
        assert!(wait.count(true, &mut note));
        assert!(note.waited >= SAVE_EVERY && note.waited < SAVE_EVERY * 2, "{:?}", note.waited);
    }

    #[test]
    fn a_clock_that_never_became_right_drops_the_time_that_was_seen() {
        let wrong = Clock::Untrusted("it is 1970".into());
        let note = |waited| ClockNote { waited, seen_at: Some("2026-01-01T00:00:00Z".into()) };
        let mut waits = note(CLOCK_PATIENCE - Duration::from_secs(1));
        assert!(!settle(&wrong, &mut waits) && waits.seen_at.is_some());
        let mut has_waited = note(CLOCK_PATIENCE);
        assert!(settle(&wrong, &mut has_waited) && has_waited.seen_at.is_none());
        assert!(!settle(&wrong, &mut has_waited), "there is nothing more to save");
        assert!(settle(&Clock::Trusted, &mut has_waited) && has_waited.waited.is_zero());
    }
}

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

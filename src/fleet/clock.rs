//! The only place where the fleet server reads the wall clock.

use jiff::{Timestamp, TimestampRound, Unit};

/// Now, to the millisecond.
pub(super) fn now() -> Timestamp {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one place of the fleet server that reads the clock"
    )]
    let now = Timestamp::now();
    now.round(TimestampRound::new().smallest(Unit::Millisecond)).unwrap_or(now)
}

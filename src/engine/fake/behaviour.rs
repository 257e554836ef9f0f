//! The behaviour of containers in the fake engine.

use std::time::Duration;

use crate::model::Health;

/// What a container of an image does after its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Behaviour {
    #[default]
    Runs,
    /// Keeps exiting, and the engine restarts it.
    Crashes,
    /// As [`Crashes`](Self::Crashes), but it runs for this time first.
    CrashesAfter(Duration),
    /// Exits at once with this code.
    Exits(i64),
    /// Its healthcheck says so.
    Reports(Health),
}

//! What containers of the engine in memory do.

use std::time::Duration;

use crate::model::Health;

/// What a container of an image does once it is started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Behaviour {
    #[default]
    Runs,
    /// Keeps exiting and is restarted by the engine.
    Crashes,
    /// As [`Crashes`](Self::Crashes), but each time it runs for so long first.
    CrashesAfter(Duration),
    /// Exits at once with this code.
    Exits(i64),
    /// Its healthcheck says so.
    Reports(Health),
}

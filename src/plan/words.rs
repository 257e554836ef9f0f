//! Words that several messages share.

use std::time::Duration;

use crate::model::{ContainerState, Health, LastEnd, ObservedService};

/// A duration for people: whole minutes, else whole seconds, and milliseconds below one second.
pub(super) fn duration(time: Duration) -> String {
    match (time.as_secs(), time.as_millis()) {
        (0, millis) => format!("{millis} ms"),
        (seconds, _) if seconds % 60 == 0 => format!("{} min", seconds / 60),
        (seconds, _) => format!("{seconds} s"),
    }
}

/// How a container ended, whose exit code is known.
pub(super) fn end(seen: &ObservedService, code: i64) -> String {
    seen.last_end.clone().unwrap_or_else(|| LastEnd::with_code(code)).to_string()
}

/// What is wrong with a container that is to run.
pub(super) fn trouble(seen: &ObservedService) -> String {
    match seen.state {
        ContainerState::Running if seen.health == Health::Unhealthy => "its healthcheck fails".to_owned(),
        ContainerState::Running => "its healthcheck has not passed yet".to_owned(),
        ContainerState::Created => "it is created and not started yet".to_owned(),
        ContainerState::Paused => "it is paused; `docker unpause` continues it".to_owned(),
        ContainerState::Restarting => match &seen.last_end {
            Some(end) => format!("it {end}; the engine starts it again"),
            None => "it has ended; the engine starts it again".to_owned(),
        },
        ContainerState::Exited { code } => format!("it {}", end(seen, code)),
        ContainerState::Removing => "it is being removed".to_owned(),
        ContainerState::Dead => "the engine cannot remove it completely".to_owned(),
    }
}

/// Whole MiB, rounded up, so that a small size is not shown as 0.
///
/// Not `model::quantity::bytes`: a message compares what is needed with what is free, and both would be "1.5 GiB".
pub(super) fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}

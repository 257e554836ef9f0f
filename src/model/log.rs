//! Lines that containers write, and how far they were read.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::ContainerId;

/// Nanoseconds since 1970, as the engine recorded them.
pub type LogTime = u64;

/// A line that a container wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    pub at: LogTime,
    pub is_stderr: bool,
    pub text: String,
}

/// A line for the cloud: of a service, or of the agent itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogMessage {
    pub text: String,
    /// Milliseconds since 1970.
    pub at_ms: u64,
    /// The cloud's number of the service; `None` for a message of the agent.
    pub service: Option<u64>,
    pub is_stderr: bool,
}

/// How far the log of a container was read: up to the `seen`-th line of this time. Some log drivers record the same time for
/// several lines.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogCursor {
    pub at: LogTime,
    pub seen: u32,
}

impl LogCursor {
    /// Returns the cursor after a further line, which was written at this time.
    #[must_use]
    pub fn after(self, at: LogTime) -> Self {
        if at == self.at { Self { at, seen: self.seen.saturating_add(1) } } else { Self { at, seen: 1 } }
    }
}

/// How far the logs of all containers were read.
pub type LogCursors = BTreeMap<ContainerId, LogCursor>;

/// What was uploaded since the agent started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogCounts {
    /// Lines that were sent, and their bytes before compression.
    pub lines: u64,
    pub bytes: u64,
    /// Lines that were read and then dropped, because the buffer was full.
    pub dropped: u64,
    /// How often lines of a service were skipped without being read, because it wrote too many.
    pub gaps: u64,
    /// Lines that were sent shortly before a connection broke. Some of them may be lost.
    pub uncertain: u64,
    /// Lines that a cloud that had become silent has not confirmed, so that they are sent again.
    pub repeated: u64,
    /// Lines that wait for the connection to the cloud now.
    pub waiting: u64,
    /// Connections that failed.
    pub failures: u64,
}

/// Whether logs are uploaded, and why not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LogState {
    /// The cloud has not said yet whether it wants logs, or there is no target yet.
    #[default]
    Unknown,
    /// `logs.upload` is `off`.
    OffBySetting,
    /// `logs.upload` is `auto`, and each request costs money.
    OffOnMeteredLink,
    /// The variable `BALENA_SUPERVISOR_LOG_CONTROL` is false.
    OffByVariable,
    /// The fleet server does not want them now, because no operator follows them.
    NotWanted,
    /// They are uploaded when there are some.
    On,
}

impl LogState {
    /// Returns the stable word of the status document and of the metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::OffBySetting => "off_by_setting",
            Self::OffOnMeteredLink => "off_on_metered_link",
            Self::OffByVariable => "off_by_variable",
            Self::NotWanted => "not_wanted",
            Self::On => "on",
        }
    }

    /// Returns why no logs are uploaded, for people; `None` if they are.
    #[must_use]
    pub fn why_not(self) -> Option<&'static str> {
        match self {
            Self::Unknown => Some("the cloud has not said yet whether it wants them"),
            Self::OffBySetting => Some("logs.upload is off"),
            Self::OffOnMeteredLink => {
                Some("each request costs money here (cloud.poll_wait is 0s), and logs.upload is auto")
            }
            Self::OffByVariable => Some("BALENA_SUPERVISOR_LOG_CONTROL is false"),
            Self::NotWanted => Some("the cloud does not want them now: no operator follows them"),
            Self::On => None,
        }
    }
}

/// How a device uploads logs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LogUpload {
    /// While the cloud wants them, unless the link costs money.
    #[default]
    Auto,
    /// While the cloud wants them.
    On,
    Off,
}

/// Which lines of a service are uploaded: its variable `BALENA_LOGS_LEVEL` (docs/dev/protocol.md, "Log streaming").
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LogLevel {
    None,
    Errors,
    #[default]
    All,
}

impl LogLevel {
    /// Reads the value of the variable. An unknown value means all lines.
    #[must_use]
    pub fn of(value: Option<&str>) -> Self {
        match value.map(|value| value.trim().to_ascii_lowercase()).as_deref() {
            Some("none") => Self::None,
            Some("err" | "error") => Self::Errors,
            Some(_) | None => Self::All,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_same_time_are_counted() {
        let first = LogCursor::default().after(7);
        assert_eq!(first, LogCursor { at: 7, seen: 1 });
        assert_eq!(first.after(7), LogCursor { at: 7, seen: 2 });
        assert_eq!(first.after(7).after(8), LogCursor { at: 8, seen: 1 });
    }

    #[test]
    fn levels() {
        for (value, level) in [
            (None, LogLevel::All),
            (Some("none"), LogLevel::None),
            (Some(" None "), LogLevel::None),
            (Some("err"), LogLevel::Errors),
            (Some("error"), LogLevel::Errors),
            (Some("debug"), LogLevel::All),
            (Some(""), LogLevel::All),
        ] {
            assert_eq!(LogLevel::of(value), level, "{value:?}");
        }
    }
}

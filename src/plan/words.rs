//! Words that several messages share.

use std::time::Duration;

/// A duration for people: whole minutes, else whole seconds, and milliseconds below one second.
pub(super) fn duration(time: Duration) -> String {
    match (time.as_secs(), time.as_millis()) {
        (0, millis) => format!("{millis} ms"),
        (seconds, _) if seconds % 60 == 0 => format!("{} min", seconds / 60),
        (seconds, _) => format!("{seconds} s"),
    }
}

/// Whole MiB, rounded up, so that a small size is not shown as 0.
pub(super) fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}

/// How often something happened: "once", "2 times".
pub(super) fn times(count: u32) -> String {
    if count == 1 { "once".to_owned() } else { format!("{count} times") }
}

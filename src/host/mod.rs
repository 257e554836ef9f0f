//! The machine: its clock, its chance, its ports and disks, its service manager, and the folders in which
//! apps lock their updates. Knows nothing of what they are used for.

mod clock;
mod condition;
mod disk;
mod locks;
mod paths;
mod ports;
mod routes;

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::model::text::one_line;

pub use clock::{trust, window};
pub use condition::{Memory, Unit, ask, is_clock_synced, keeps_journal, memory, power, unit};
pub use disk::{Disk, disk_of, free};
pub use locks::{Locks, MOST_BYTES, MOST_FILES, Space, space};
pub use paths::{Bounds, Led, leads_to};
pub use ports::listeners;
pub use routes::{Route, routes};

/// The wall clock. It jumps, and starts at 1970 on a board without a battery: shown, and asked for windows
/// only while [`trust`] believes it.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the one room that reads the wall clock")]
pub fn now() -> Timestamp {
    Timestamp::now()
}

/// How long ago this machine booted, the time it slept included. Nobody sets this clock, so it never
/// jumps; zero where the kernel does not say.
#[must_use]
pub fn uptime() -> Duration {
    let text = std::fs::read_to_string("/proc/uptime").unwrap_or_default();
    parse_uptime(&text).unwrap_or_default()
}

/// `350735.47 234388.90`: seconds since boot, to the hundredth, and seconds of idling.
fn parse_uptime(text: &str) -> Option<Duration> {
    let (seconds, hundredths) = text.split_whitespace().next()?.split_once('.')?;
    let hundredths: u64 = hundredths.parse().ok().filter(|n| *n < 100)?;
    Some(Duration::from_secs(seconds.parse().ok()?) + Duration::from_millis(hundredths * 10))
}

/// RFC 3339 in UTC, whole seconds, of the moment `ahead` from now.
#[must_use]
pub fn time_in(ahead: Duration) -> String {
    let ahead = SignedDuration::try_from(ahead).unwrap_or_default();
    let then = now().checked_add(ahead).unwrap_or(Timestamp::MAX);
    format!("{then:.0}")
}

/// `bytes` random bytes in lower-case hex.
///
/// # Errors
///
/// The system's own, when it has no randomness to give.
pub fn random_hex(bytes: usize) -> Result<String, getrandom::Error> {
    let mut random = vec![0; bytes];
    getrandom::fill(&mut random)?;
    Ok(random.iter().map(|b| format!("{b:02x}")).collect())
}

/// What tells this boot from every other one; empty where the kernel does not say.
#[must_use]
pub fn boot_id() -> String {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    text.trim().to_owned()
}

/// Bytes of memory that this process has; `None` where the kernel does not say.
#[must_use]
pub fn own_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let kib = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.trim().strip_suffix(" kB")?;
    kib.parse::<u64>().ok().map(|kib| kib * 1024)
}

/// Raises the number of files that this process may open as far as it may, and returns it.
///
/// The usual limit of 1024 is for programs that use `select`; one that does not may raise it up to the hard limit.
#[cfg(feature = "server")]
#[must_use]
pub fn raise_open_files() -> usize {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        limit.current = limit.maximum;
        // Where it is not allowed, the limit stays as it is.
        let _ = setrlimit(Resource::Nofile, limit);
    }
    let most = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from(most).unwrap_or(usize::MAX)
}

/// Tells systemd that the service is up. Without systemd nothing happens.
pub fn notify_ready() {
    notify(&[sd_notify::NotifyState::Ready]);
}

/// Tells systemd what the service does, in a line.
pub fn notify_status(status: &str) {
    // A line break would begin another of systemd's words, such as MAINPID or STOPPING.
    notify(&[sd_notify::NotifyState::Status(&one_line(status))]);
}

/// Tells systemd that the service is on its way down.
pub fn notify_stopping() {
    notify(&[sd_notify::NotifyState::Stopping]);
}

/// Tells systemd's watchdog that the service still gets on.
pub fn notify_watchdog() {
    notify(&[sd_notify::NotifyState::Watchdog]);
}

/// How often systemd wants to hear from the service; `None` without a watchdog.
#[must_use]
pub fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled()
}

fn notify(states: &[sd_notify::NotifyState<'_>]) {
    // Not being heard by systemd is no reason to stop working.
    let _ = sd_notify::notify(states);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_says_of_its_uptime() {
        for (text, millis) in [
            ("350735.47 234388.90\n", Some(350_735_470)),
            ("0.05 0.00\n", Some(50)),
            ("", None),
            ("12\n", None),
            ("12.345 1.00\n", None),
            ("-1.00 0.00\n", None),
        ] {
            assert_eq!(parse_uptime(text), millis.map(Duration::from_millis), "{text:?}");
        }
        assert!(uptime() > Duration::ZERO, "this machine has booted");
        assert!(own_memory().is_some_and(|bytes| bytes > 1 << 20), "this process has memory");
    }
}

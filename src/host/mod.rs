//! The machine: clock, random numbers, ports, disks, service manager, and the folders in which apps lock their updates.
//! Does not know what they are used for.

mod address;
mod clock;
mod condition;
mod disk;
mod hardware;
mod locks;
mod needs;
mod output;
mod paths;
mod ports;
mod routes;

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::model::text::one_line;

pub use address::reached_at;
pub use clock::{trust, window};
pub use condition::{Memory, Unit, ask, end_run, is_clock_synced, keeps_journal, memory, power, unit};
pub use disk::{Disk, disk_of, free};
pub use hardware::Machine;
pub use locks::{Locks, MOST_BYTES, MOST_FILES, Space, space};
pub use needs::lacks;
pub use output::output;
pub use paths::{Bounds, Led, PathError, leads_to};
pub use ports::listeners;
pub use routes::{Route, routes};

/// Reads the wall clock. It can jump, and starts at 1970 on a board without a battery. So it is only shown, and opens
/// windows only while [`trust`] accepts it.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the one room that reads the wall clock")]
pub fn now() -> Timestamp {
    Timestamp::now()
}

/// Returns the time since this machine booted, including sleep. This clock cannot be set, so it never jumps. Zero if the
/// kernel does not report it.
#[must_use]
pub fn uptime() -> Duration {
    let text = std::fs::read_to_string("/proc/uptime").unwrap_or_default();
    parse_uptime(&text).unwrap_or_default()
}

/// Parses `350735.47 234388.90`: seconds since boot, to the hundredth, and seconds of idling.
fn parse_uptime(text: &str) -> Option<Duration> {
    let (seconds, hundredths) = text.split_whitespace().next()?.split_once('.')?;
    let hundredths: u64 = hundredths.parse().ok().filter(|n| *n < 100)?;
    Some(Duration::from_secs(seconds.parse().ok()?) + Duration::from_millis(hundredths * 10))
}

/// Formats the moment `ahead` from now in UTC, in RFC 3339 with whole seconds.
#[must_use]
pub fn time_in(ahead: Duration) -> String {
    let ahead = SignedDuration::try_from(ahead).unwrap_or_default();
    let then = now().checked_add(ahead).unwrap_or(Timestamp::MAX);
    format!("{then:.0}")
}

/// Returns the width of a terminal in columns; `None` if this is none, or if it does not know.
#[must_use]
pub fn terminal_columns(of: impl std::os::fd::AsFd) -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(of).ok()?;
    Some(usize::from(size.ws_col)).filter(|columns| *columns > 0)
}

/// Returns `bytes` random bytes in lower-case hex.
///
/// # Errors
///
/// The system's error if it has no random bytes.
pub fn random_hex(bytes: usize) -> Result<String, getrandom::Error> {
    let mut random = vec![0; bytes];
    getrandom::fill(&mut random)?;
    Ok(random.iter().map(|b| format!("{b:02x}")).collect())
}

/// Returns the name and version of the operating system, e.g. `Debian GNU/Linux 12 (bookworm)`.
#[must_use]
pub fn os_name() -> Option<String> {
    let text = std::fs::read_to_string("/etc/os-release").ok()?;
    let name = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="))?;
    Some(one_line(name.trim().trim_matches(['"', '\'']))).filter(|name| !name.is_empty())
}

/// Returns the id of this boot; empty if the kernel does not report it.
#[must_use]
pub fn boot_id() -> String {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    text.trim().to_owned()
}

/// Returns the memory of this process in bytes; `None` if the kernel does not report it.
#[must_use]
pub fn own_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let kib = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.trim().strip_suffix(" kB")?;
    kib.parse::<u64>().ok().map(|kib| kib * 1024)
}

/// Raises the limit of open files of this process to the hard limit, and returns it.
///
/// The default limit of 1024 is for programs that use `select`. A program that does not use it may raise the limit.
#[cfg(feature = "server")]
#[must_use]
pub fn raise_open_files() -> usize {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        limit.current = limit.maximum;
        // If this fails, the limit stays as it is.
        let _ = setrlimit(Resource::Nofile, limit);
    }
    let most = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from(most).unwrap_or(usize::MAX)
}

/// Notifies systemd that the service is ready. Does nothing without systemd.
pub fn notify_ready() {
    notify(&[sd_notify::NotifyState::Ready]);
}

/// Sends systemd a status line.
pub fn notify_status(status: &str) {
    // A line break would begin another assignment, such as MAINPID or STOPPING.
    notify(&[sd_notify::NotifyState::Status(&one_line(status))]);
}

/// Notifies systemd that the service is stopping.
pub fn notify_stopping() {
    notify(&[sd_notify::NotifyState::Stopping]);
}

/// Notifies systemd's watchdog that the service still works.
pub fn notify_watchdog() {
    notify(&[sd_notify::NotifyState::Watchdog]);
}

/// Returns how often systemd's watchdog must be notified; `None` without a watchdog.
#[must_use]
pub fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled()
}

fn notify(states: &[sd_notify::NotifyState<'_>]) {
    // The service works without systemd, so a failure is ignored.
    let _ = sd_notify::notify(states);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_uptime_is_parsed() {
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

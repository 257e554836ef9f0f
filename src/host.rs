//! The machine: its clock, its chance, its service manager. Knows nothing of what they are used for.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// The wall clock. Only shown, never decided upon: it jumps, and starts at 1970 on a board without a battery.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the one room that reads the wall clock")]
pub fn now() -> Timestamp {
    Timestamp::now()
}

/// RFC 3339 in UTC, whole seconds, of the moment `ahead` from now.
#[must_use]
pub fn time_in(ahead: Duration) -> String {
    let ahead = SignedDuration::try_from(ahead).unwrap_or_default();
    let then = now().checked_add(ahead).unwrap_or(Timestamp::MAX);
    then.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
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

/// Time since the device booted, with what it slept; zero where the kernel does not say.
#[must_use]
pub fn uptime() -> Duration {
    let text = std::fs::read_to_string("/proc/uptime").unwrap_or_default();
    let seconds = text.split_whitespace().next().and_then(|word| word.parse().ok());
    seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()).unwrap_or_default()
}

/// Tells systemd that the service is up. Without systemd nothing happens.
pub fn notify_ready() {
    notify(&[sd_notify::NotifyState::Ready]);
}

/// Tells systemd what the service does, in a line.
pub fn notify_status(status: &str) {
    notify(&[sd_notify::NotifyState::Status(status)]);
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

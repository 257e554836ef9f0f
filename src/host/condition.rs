//! Reads the condition of this machine: memory, power supply, service manager.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

/// Longest time to wait for another program.
const ASK_WITHIN: Duration = Duration::from_secs(5);

/// The machine's memory, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    pub total: u64,
    /// Bytes that programs can still use without swapping.
    pub available: u64,
}

/// Returns the machine's memory; `None` if the kernel does not report it.
#[must_use]
pub fn memory() -> Option<Memory> {
    parse_memory(&std::fs::read_to_string("/proc/meminfo").ok()?)
}

fn parse_memory(text: &str) -> Option<Memory> {
    let bytes = |name: &str| {
        let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
        let kib: u64 = rest.trim().strip_suffix("kB")?.trim().parse().ok()?;
        kib.checked_mul(1024)
    };
    Some(Memory { total: bytes("MemTotal:")?, available: bytes("MemAvailable:")? })
}

/// Returns the throttling register of a Raspberry Pi's firmware: bit 0 is too little voltage now, bit 16 at any time since
/// the boot. `None` on other boards.
#[must_use]
pub fn power() -> Option<u32> {
    let text = std::fs::read_to_string("/sys/devices/platform/soc/soc:firmware/get_throttled").ok()?;
    u32::from_str_radix(text.trim().trim_start_matches("0x"), 16).ok()
}

/// Returns whether the journal survives a reboot; `None` without systemd.
#[must_use]
pub fn keeps_journal() -> Option<bool> {
    has_systemd().then(|| Path::new("/var/log/journal").is_dir())
}

/// Returns whether NTP has set the clock; `None` if systemd does not say.
pub async fn is_clock_synced() -> Option<bool> {
    if !has_systemd() {
        return None;
    }
    let answer = ask("timedatectl", &["show", "--property=NTPSynchronized", "--value"]).await.ok()?;
    match answer.trim() {
        "yes" => Some(true),
        "no" => Some(false),
        _ => None,
    }
}

/// Orders systemd to end the run of this machine, `reboot` or `poweroff`, and does not wait for it.
///
/// systemctl asks logind over D-Bus, which allows it to root without a capability.
///
/// # Errors
///
/// Why systemd does not do it.
pub async fn end_run(how: &str) -> Result<(), String> {
    ask("systemctl", &["--no-block", "--no-wall", how]).await.map(drop)
}

/// The state of a systemd unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// `loaded`, `not-found`, `masked`, ...
    pub load: String,
    /// `active`, `inactive`, `failed`, ...
    pub active: String,
    /// `enabled`, `disabled`, ...; empty if it has no file.
    pub enabled: String,
}

/// Returns the state of `unit`; `None` without systemd.
pub async fn unit(unit: &str) -> Option<Unit> {
    if !has_systemd() {
        return None;
    }
    let properties = "--property=LoadState,ActiveState,UnitFileState";
    Some(parse_unit(&ask("systemctl", &["show", properties, unit]).await.ok()?))
}

fn parse_unit(text: &str) -> Unit {
    let value = |name: &str| {
        let found = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        found.unwrap_or_default().to_owned()
    };
    Unit { load: value("LoadState"), active: value("ActiveState"), enabled: value("UnitFileState") }
}

fn has_systemd() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

/// Runs another program for at most 5 s, and returns what it prints.
///
/// # Errors
///
/// A line that says why there is no output.
pub async fn ask(program: &str, arguments: &[&str]) -> Result<String, String> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    let output = match tokio::time::timeout(ASK_WITHIN, command.output()).await {
        Ok(Ok(output)) => output,
        Ok(Err(error)) => return Err(format!("{program} cannot be run: {error}")),
        Err(_) => return Err(format!("{program} did not answer within {} s", ASK_WITHIN.as_secs())),
    };
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{program} failed: {}", said.lines().next().unwrap_or("it printed no reason")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meminfo_is_parsed() {
        let text = "MemTotal:        1000 kB\nMemFree:          10 kB\nMemAvailable:    500 kB\n";
        assert_eq!(parse_memory(text), Some(Memory { total: 1_024_000, available: 512_000 }));
        for bad in ["", "MemTotal: 1000 kB\n", "MemTotal: x kB\nMemAvailable: 1 kB\n", "MemTotal: 1\n"] {
            assert_eq!(parse_memory(bad), None, "{bad:?}");
        }
        let ours = memory().unwrap();
        assert!(ours.available <= ours.total && ours.total > 0);
    }

    #[test]
    fn the_state_of_a_unit_is_parsed() {
        let unit = parse_unit("LoadState=loaded\nActiveState=active\nUnitFileState=enabled\n");
        assert_eq!(unit, Unit { load: "loaded".into(), active: "active".into(), enabled: "enabled".into() });
        assert_eq!(parse_unit("LoadState=not-found\nActiveState=inactive\nUnitFileState=\n").enabled, "");
    }

    #[tokio::test]
    async fn the_output_of_a_program_is_returned() {
        assert_eq!(ask("echo", &["so"]).await, Ok("so\n".to_owned()));
        assert_eq!(ask("false", &[]).await, Err("false failed: it printed no reason".to_owned()));
        assert!(
            ask("no-such-program", &[]).await.unwrap_err().starts_with("no-such-program cannot be run: ")
        );
    }
}

//! How loaded this machine is: processors, memory, disk, temperature, power supply.

use std::path::Path;

use super::files;

const MIB: u64 = 1 << 20;

/// Maximum number of bytes of a serial number, and of the path of a block device.
const LONGEST_WORD: usize = 64;

/// Kinds of thermal zones that are near the processor, the best first.
const NEAR_CPU: [&str; 4] = ["cpu", "x86_pkg_temp", "soc", "acpitz"];

/// Times of all processors since the boot, in ticks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct CpuTimes {
    all: u64,
    idle: u64,
}

impl CpuTimes {
    /// Returns the percentage of time in which the processors worked since `before`; `None` if no time has passed.
    pub(super) fn usage_since(self, before: Self) -> Option<u64> {
        let all = self.all.checked_sub(before.all).filter(|ticks| *ticks > 0)?;
        let busy = all.saturating_sub(self.idle.saturating_sub(before.idle));
        u64::try_from((u128::from(busy) * 100 + u128::from(all) / 2) / u128::from(all)).ok()
    }
}

/// Parses `cpu  user nice system idle iowait irq softirq steal …` of `/proc/stat`.
pub(super) fn cpu_times(root: &Path) -> Option<CpuTimes> {
    let text = files::text(&root.join("proc/stat"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let ticks: Option<Vec<u64>> = line.split_whitespace().take(8).map(|word| word.parse().ok()).collect();
    let ticks = ticks.filter(|ticks| ticks.len() >= 5)?;
    let all = ticks.iter().try_fold(0_u64, |sum, ticks| sum.checked_add(*ticks))?;
    Some(CpuTimes { all, idle: ticks[3].checked_add(ticks[4])? })
}

/// Returns used and total memory in MiB. What the kernel would give up for programs is not used.
pub(super) fn memory(root: &Path) -> Option<(u64, u64)> {
    let text = files::text(&root.join("proc/meminfo"))?;
    let kib = |name: &str| {
        let rest = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
    };
    let total = kib("MemTotal")?;
    let unused = ["MemFree", "Buffers", "Cached", "SReclaimable"].map(|name| kib(name).unwrap_or(0));
    let used = unused.iter().fold(total, |left, kib| left.saturating_sub(*kib));
    kib("MemFree")?;
    Some((used / 1024, total / 1024))
}

/// Returns used and total MiB of the disk of `path`.
pub(super) fn storage(path: &Path) -> Option<(u64, u64)> {
    let disk = rustix::fs::statvfs(path).ok().filter(|disk| disk.f_blocks > 0)?;
    let bytes = |blocks: u64| blocks.checked_mul(disk.f_frsize);
    let used = bytes(disk.f_blocks.checked_sub(disk.f_bfree)?)?;
    Some((used / MIB, bytes(disk.f_blocks)? / MIB))
}

/// Returns the device of the mount that `path` is on.
pub(super) fn block_device(root: &Path, path: &Path) -> Option<String> {
    let text = files::text(&root.join("proc/self/mountinfo"))?;
    let mount = |line: &str| {
        let (place, device) = line.split_once(" - ")?;
        let (place, device) = (place.split(' ').nth(4)?.replace("\\040", " "), device.split(' ').nth(1)?);
        path.starts_with(&place).then(|| (place.len(), device.to_owned()))
    };
    // Of mounts at the same place, the last one covers the others.
    let (_, device) = text.lines().filter_map(mount).max_by_key(|(length, _)| *length)?;
    let is_good = |c: char| c.is_ascii_alphanumeric() || "/_-.+:".contains(c);
    (device.starts_with("/dev/") && device.len() <= LONGEST_WORD && device.chars().all(is_good))
        .then_some(device)
}

/// Returns the temperature of the processor in whole degrees Celsius.
pub(super) fn temperature(root: &Path) -> Option<i64> {
    let zones = files::entries(&root.join("sys/class/thermal")).into_iter();
    let is_zone =
        |path: &Path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("thermal_zone"));
    let ranked = zones.filter(|path| is_zone(path)).filter_map(|path| {
        let kind = files::word(&path.join("type"), LONGEST_WORD)?.to_ascii_lowercase();
        let rank = NEAR_CPU.iter().position(|near| kind.contains(near)).unwrap_or(NEAR_CPU.len());
        let degrees = files::number(&path.join("temp"))?;
        (-50_000..=150_000).contains(&degrees).then_some((rank, degrees))
    });
    let (_, degrees) = ranked.min_by_key(|(rank, _)| *rank)?;
    Some((degrees + 500).div_euclid(1000))
}

/// Returns the serial number of the board.
pub(super) fn cpu_id(root: &Path) -> Option<String> {
    let files =
        ["proc/device-tree/serial-number", "proc/device-tree/product-sn", "sys/devices/soc0/serial_number"];
    let found = files.iter().find_map(|path| files::word(&root.join(path), LONGEST_WORD))?;
    Some(found.to_ascii_lowercase())
}

/// Returns whether the power supply of a Raspberry Pi has been too weak since the boot; `None` on other boards.
pub(super) fn is_undervolted(root: &Path) -> Option<bool> {
    let sensors = files::entries(&root.join("sys/class/hwmon"));
    let is_volt = |path: &&std::path::PathBuf| {
        files::word(&path.join("name"), LONGEST_WORD).as_deref() == Some("rpi_volt")
    };
    if let Some(alarm) =
        sensors.iter().find(is_volt).and_then(|path| files::number(&path.join("in0_lcrit_alarm")))
    {
        return Some(alarm != 0);
    }
    let register = files::word(&root.join("sys/devices/platform/soc/soc:firmware/get_throttled"), 16)?;
    let bits = u32::from_str_radix(register.trim_start_matches("0x"), 16).ok()?;
    // Bit 0: now; bit 16: since the boot.
    Some(bits & 0x1_0001 != 0)
}

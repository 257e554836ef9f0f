//! Reads the resource limits of a service: processors, memory, processes, disks.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use super::at::{At, Fields, Notes, is_nothing};
use super::deploy;
use super::quantities::{MOST_PIDS, PIDS, cpus, memory, nonzero, whole};
use crate::model::{DiskLimits, Refusal, ServiceSpec};
use crate::wire::units;

const MICROS: &str = "microseconds as a whole number, or a duration, e.g. \"50ms\"";

/// The engine's default of `cpu_rt_period`, in microseconds.
const USUAL_RT_PERIOD: i64 = 1_000_000;

/// Reads the limits of a service into `spec`, whose memory limit must be read before.
pub(super) fn read(fields: &Fields<'_>, spec: &mut ServiceSpec, notes: &mut Notes) {
    let limits = &mut spec.limits;
    limits.nano_cpus = fields.filled("cpus", notes, cpus).flatten();
    limits.cpu_shares = positive(fields.filled("cpu_shares", notes, |at| {
        let accepts = "a weight from 2 to 262144; the default is 1024";
        whole(at, accepts, 0..=262_144).and_then(|n| if n == 1 { Err(at.wrong(accepts)) } else { Ok(n) })
    }));
    limits.cpu_period = nonzero(fields.filled("cpu_period", notes, |at| micros(at, 1_000..=1_000_000)));
    limits.cpu_quota = nonzero(fields.filled("cpu_quota", notes, quota));
    limits.cpu_rt_period = nonzero(fields.filled("cpu_rt_period", notes, |at| micros(at, 1..=1_000_000)));
    limits.cpu_rt_runtime = nonzero(fields.filled("cpu_rt_runtime", notes, |at| micros(at, 1..=1_000_000)));
    limits.cpuset = fields.filled("cpuset", notes, cpuset);
    limits.memory_reservation = fields.filled("mem_reservation", notes, memory).filter(|bytes| *bytes > 0);
    limits.memory_swap = nonzero(fields.filled("memswap_limit", notes, size_or_none));
    limits.swappiness =
        fields.filled("mem_swappiness", notes, |at| whole(at, "percent, from 0 to 100", 0..=100));
    limits.is_oom_kill_disabled = fields.with("oom_kill_disable", notes, |at| at.flag()).unwrap_or_default();
    limits.oom_score_adj =
        nonzero(fields.filled("oom_score_adj", notes, |at| {
            whole(at, "a whole number from -1000 to 1000", -1000..=1000)
        }));
    limits.pids = nonzero(fields.filled("pids_limit", notes, |at| whole(at, PIDS, -1..=MOST_PIDS)));
    limits.shm_size = fields.filled("shm_size", notes, |at| at.size()).filter(|bytes| *bytes > 0);
    if let Some(at) = fields.get("blkio_config") {
        limits.disks = disks(&at, notes);
    }
    if let Some(at) = fields.get("deploy") {
        deploy::read(&at, fields.get("restart").is_some(), spec, notes);
    }
    check(fields, spec, notes);
}

/// Refuses combinations that the engine refuses.
fn check(fields: &Fields<'_>, spec: &ServiceSpec, notes: &mut Notes) {
    let limits = &spec.limits;
    let mut refuse = |key: &str, why: &str| {
        notes.refuse(Refusal { path: format!("{}.{key}", fields.path), why: why.to_owned() });
    };
    if limits.nano_cpus.is_some() && (limits.cpu_quota.is_some() || limits.cpu_period.is_some()) {
        refuse("cpus", "it cannot be combined with cpu_quota and cpu_period: remove the one or the others");
    }
    let period = limits.cpu_rt_period.unwrap_or(USUAL_RT_PERIOD);
    if limits.cpu_rt_runtime.is_some_and(|runtime| runtime > period) {
        refuse("cpu_rt_runtime", "it is more than cpu_rt_period: write less");
    }
    let memory = spec.memory_limit.unwrap_or(0);
    if let Some(swap) = limits.memory_swap {
        if memory == 0 {
            refuse("memswap_limit", "it includes mem_limit: write mem_limit, too");
        } else if u64::try_from(swap).is_ok_and(|swap| swap < memory) {
            refuse("memswap_limit", "it is the sum of memory and swap: write at least as much as mem_limit");
        }
    }
    if memory > 0 && limits.memory_reservation.is_some_and(|reserved| reserved > memory) {
        refuse("mem_reservation", "it is more than mem_limit: write less");
    }
}

fn positive(number: Option<i64>) -> Option<u64> {
    number.and_then(|n| u64::try_from(n).ok()).filter(|n| *n > 0)
}

fn micros(at: &At<'_>, range: RangeInclusive<i64>) -> Result<i64, Refusal> {
    let text = at.value.as_str().unwrap_or_default();
    let number = match whole(at, MICROS, 0..=i64::MAX) {
        Ok(number) => number,
        Err(_) if text.ends_with('s') => {
            let time = units::duration(text).map_err(|bad| at.refusal(bad))?;
            i64::try_from(time.as_micros()).map_err(|_| at.wrong(MICROS))?
        }
        Err(wrong) => return Err(wrong),
    };
    if number == 0 || range.contains(&number) {
        return Ok(number);
    }
    Err(at.wrong(&format!("from {} to {} microseconds", range.start(), range.end())))
}

fn quota(at: &At<'_>) -> Result<i64, Refusal> {
    match whole(at, MICROS, -1..=-1) {
        Ok(unlimited) => Ok(unlimited),
        Err(_) => micros(at, 1_000..=i64::MAX),
    }
}

/// Reads a list of processor numbers and ranges.
fn cpuset(at: &At<'_>) -> Result<String, Refusal> {
    let text = at.scalar()?;
    let number =
        |part: &str| part.len() <= 4 && part.parse::<u16>().is_ok_and(|n| n < 8192) && !part.starts_with('+');
    let is_part = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number_of = |text: &str| text.parse::<u16>().unwrap_or_default();
        number(first) && number(last) && number_of(first) <= number_of(last)
    };
    if text.split(',').all(is_part) { Ok(text) } else { Err(at.wrong("processors, e.g. \"0-1,3\"")) }
}

/// Reads bytes, or -1 for no limit.
fn size_or_none(at: &At<'_>) -> Result<i64, Refusal> {
    match whole(at, "", -1..=-1) {
        Ok(unlimited) => Ok(unlimited),
        Err(_) => i64::try_from(at.size()?).map_err(|_| at.wrong("a size, or -1 for no limit")),
    }
}

/// Reads `blkio_config`.
fn disks(at: &At<'_>, notes: &mut Notes) -> DiskLimits {
    let mut disks = DiskLimits::default();
    for (key, field) in notes.keep(at.map()).unwrap_or_default() {
        let rate = |at: &At<'_>| at.size();
        match key {
            "weight" => {
                let weight = notes.keep(weight(&field)).and_then(|n| u16::try_from(n).ok());
                disks.weight = weight.filter(|weight| *weight > 0);
            }
            "weight_device" => disks.weights = by_path(&field, "weight", weight, notes),
            "device_read_bps" => disks.read_bytes = by_path(&field, "rate", rate, notes),
            "device_write_bps" => disks.write_bytes = by_path(&field, "rate", rate, notes),
            "device_read_iops" => disks.read_operations = by_path(&field, "rate", rate, notes),
            "device_write_iops" => disks.write_operations = by_path(&field, "rate", rate, notes),
            _ if is_nothing(field.value) || key.starts_with("x-") => {}
            _ => notes.refuse(field.unknown(
                "it is not known: write weight, weight_device, device_read_bps, device_write_bps, \
                 device_read_iops or device_write_iops",
            )),
        }
    }
    disks
}

/// Reads a weight; 0 is the engine's default.
fn weight(at: &At<'_>) -> Result<u64, Refusal> {
    let accepts = "a weight from 10 to 1000";
    match whole(at, accepts, 0..=1000)? {
        low @ 1..=9 => Err(at.wrong(&format!("{accepts}, not {low}"))),
        weight => u64::try_from(weight).map_err(|_| at.wrong(accepts)),
    }
}

/// Reads a list of maps with `path` and the field `name`.
fn by_path(
    at: &At<'_>,
    name: &str,
    read: impl Fn(&At<'_>) -> Result<u64, Refusal>,
    notes: &mut Notes,
) -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    for item in notes.keep(at.list()).unwrap_or_default() {
        let (mut path, mut value) = (None, None);
        for (key, field) in notes.keep(item.map()).unwrap_or_default() {
            match key {
                "path" => path = notes.keep(field.text()).filter(|path| path.starts_with('/')),
                _ if key == name => value = notes.keep(read(&field)),
                _ => notes.refuse(field.unknown(format_args!("it is not known: write path and {name}"))),
            }
        }
        match path.zip(value) {
            Some((path, value)) => drop(found.insert(path.to_owned(), value)),
            None => notes.refuse(item.refusal(format_args!("it needs an absolute path and {name}"))),
        }
    }
    found
}

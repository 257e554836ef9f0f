//! Reads numbers and amounts: whole numbers, processors, memory.

use std::ops::RangeInclusive;

use serde_json::Value;

use super::at::At;
use crate::model::Refusal;
use crate::wire::units;

/// The smallest memory limit that the engine accepts, in bytes.
const LEAST_MEMORY: u64 = 6 << 20;

const CPUS: &str = "the number of processors, e.g. 0.5; the engine's minimum is 0.01";
pub(super) const PIDS: &str = "the number of processes and threads, 4194304 at most, or -1 for no limit";

/// The most processes that Linux has (PID_MAX_LIMIT).
pub(super) const MOST_PIDS: i64 = 4_194_304;

/// Drops 0, which is the engine's default everywhere.
pub(super) fn nonzero(number: Option<i64>) -> Option<i64> {
    number.filter(|n| *n != 0)
}

/// Reads a whole number within a range, also from a text.
pub(super) fn whole(at: &At<'_>, accepts: &str, range: RangeInclusive<i64>) -> Result<i64, Refusal> {
    let number = match at.value {
        Value::Number(number) => number.as_i64(),
        Value::String(text) => text.parse().ok().filter(|_| !text.starts_with('+')),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    };
    number.filter(|n| range.contains(n)).ok_or_else(|| at.wrong(accepts))
}

/// Reads billionths of a processor; 0 is no limit.
pub(super) fn cpus(at: &At<'_>) -> Result<Option<u64>, Refusal> {
    let text = match at.value {
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.clone(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => return Err(at.wrong(CPUS)),
    };
    match units::billionths(&text) {
        Some(0) => Ok(None),
        Some(nanos) if (10_000_000..=1_000_000_000_000_000).contains(&nanos) => Ok(Some(nanos)),
        Some(_) | None => Err(at.wrong(CPUS)),
    }
}

/// Reads a memory limit in bytes; 0 is no limit.
pub(super) fn memory(at: &At<'_>) -> Result<u64, Refusal> {
    match at.size()? {
        bytes if bytes != 0 && bytes < LEAST_MEMORY => {
            Err(at.wrong("6m or more, which is the engine's minimum"))
        }
        bytes => Ok(bytes),
    }
}

//! Reads the healthcheck of a service.

use std::time::Duration;

use serde_json::Value;

use super::at::{At, Notes, is_nothing};
use super::strings;
use crate::model::{Healthcheck, Probe, Refusal};

const TEST: &str = "a shell line, or a list that begins with \"CMD\", \"CMD-SHELL\" or \"NONE\"";

/// Reads `healthcheck`; `None` if it sets nothing.
pub(super) fn read(at: &At<'_>, notes: &mut Notes) -> Option<Healthcheck> {
    let mut check = Healthcheck {
        probe: Probe::Inherit,
        interval: None,
        timeout: None,
        start_period: None,
        start_interval: None,
        retries: None,
    };
    let mut is_disabled = false;
    for (key, field) in notes.keep(at.map())? {
        match key {
            "test" => check.probe = notes.keep(probe(&field)).unwrap_or(Probe::Inherit),
            "interval" => check.interval = notes.keep(time(&field)).flatten(),
            "timeout" => check.timeout = notes.keep(time(&field)).flatten(),
            "start_period" => check.start_period = notes.keep(time(&field)).flatten(),
            "retries" => {
                let read =
                    field.whole("the number of failures in a row that make it unhealthy").and_then(|n| {
                        u32::try_from(n)
                            .ok()
                            .filter(|n| *n <= 1_000_000)
                            .ok_or_else(|| field.wrong("1000000 at most"))
                    });
                check.retries = notes.keep(read).filter(|n| *n > 0);
            }
            "disable" => is_disabled = notes.keep(field.flag()).unwrap_or_default(),
            "start_interval" => check.start_interval = notes.keep(time(&field)).flatten(),
            _ if is_nothing(field.value) || key.starts_with("x-") => {}
            _ => notes.refuse(field.unknown(
                "it is not a field of a healthcheck: write test, interval, timeout, start_period, \
                 start_interval, retries or disable",
            )),
        }
    }
    if is_disabled || check.probe == Probe::Disabled {
        return Some(Healthcheck {
            probe: Probe::Disabled,
            interval: None,
            timeout: None,
            start_period: None,
            start_interval: None,
            retries: None,
        });
    }
    let says_nothing = check.probe == Probe::Inherit
        && check.interval.is_none()
        && check.timeout.is_none()
        && check.start_period.is_none()
        && check.start_interval.is_none()
        && check.retries.is_none();
    (!says_nothing).then_some(check)
}

fn probe(at: &At<'_>) -> Result<Probe, Refusal> {
    if let Value::String(text) = at.value {
        let line = at.content()?;
        return if text.trim().is_empty() { Ok(Probe::Inherit) } else { Ok(Probe::Shell(line.to_owned())) };
    }
    let words = strings(at)?;
    match words.split_first() {
        None => Ok(Probe::Inherit),
        Some((first, rest)) => match (first.as_str(), rest) {
            ("NONE", []) => Ok(Probe::Disabled),
            ("CMD", [_, ..]) => Ok(Probe::Command(rest.to_vec())),
            ("CMD-SHELL", [line]) => Ok(Probe::Shell(line.clone())),
            _ => Err(at.wrong(TEST)),
        },
    }
}

/// Reads a time; 0 is the engine's default. The engine accepts none between 0 and 1 ms.
fn time(at: &At<'_>) -> Result<Option<Duration>, Refusal> {
    match at.duration()? {
        Duration::ZERO => Ok(None),
        short if short < Duration::from_millis(1) => Err(at.wrong("1ms or more")),
        time => Ok(Some(time)),
    }
}

//! Reads the section `deploy`, as far as it makes sense on one device.

use serde_json::Value;

use super::at::{At, Notes, is_nothing};
use super::isolation::requests;
use super::quantities::{MOST_PIDS, PIDS, cpus, memory, nonzero, whole};
use crate::model::{RestartPolicy, ServiceSpec};

/// Reads `deploy`. Limits and reservations are honoured as in compose. Replicas and placement have no meaning on one
/// device.
pub(super) fn read(at: &At<'_>, has_restart: bool, spec: &mut ServiceSpec, notes: &mut Notes) {
    for (key, field) in notes.keep(at.map()).unwrap_or_default() {
        match key {
            "resources" => {
                for (key, field) in notes.keep(field.map()).unwrap_or_default() {
                    match key {
                        "limits" => resource_limits(&field, spec, notes),
                        "reservations" => reservations(&field, spec, notes),
                        _ if is_nothing(field.value) => {}
                        _ => notes.refuse(field.unknown("it is not known: write limits or reservations")),
                    }
                }
            }
            "restart_policy" if has_restart => {
                notes.warn(field.refusal("not honoured: the field restart is used instead"));
            }
            "restart_policy" => restart_policy(&field, spec, notes),
            "replicas" if field.value == &Value::from(1) => {}
            "replicas" => notes.warn(field.refusal("not honoured: a device runs one of each service")),
            "mode" if field.value.as_str() == Some("replicated") => {}
            "labels" | "placement" | "update_config" | "rollback_config" | "mode" | "endpoint_mode" => {
                notes.warn(field.refusal("not honoured: it is for a cluster, and this is one device"));
            }
            _ if is_nothing(field.value) || key.starts_with("x-") => {}
            _ => notes.refuse(field.unknown("it is not a field of deploy: write resources")),
        }
    }
}

/// Sets the value of a field that can be in two places. Refuses two different values.
fn same<T: PartialEq>(at: &At<'_>, other: &mut Option<T>, read: Option<T>, notes: &mut Notes) {
    match (&other, read) {
        (_, None) => {}
        (Some(one), Some(read)) if *one != read => {
            notes.refuse(at.refusal("the service itself has another value: remove one of the two"));
        }
        (_, Some(read)) => *other = Some(read),
    }
}

fn resource_limits(at: &At<'_>, spec: &mut ServiceSpec, notes: &mut Notes) {
    for (key, field) in notes.keep(at.map()).unwrap_or_default() {
        match key {
            "cpus" => {
                let read = notes.keep(cpus(&field)).flatten();
                same(&field, &mut spec.limits.nano_cpus, read, notes);
            }
            "memory" => {
                let read = notes.keep(memory(&field)).filter(|bytes| *bytes > 0);
                same(&field, &mut spec.memory_limit, read, notes);
            }
            "pids" => {
                let read = nonzero(notes.keep(whole(&field, PIDS, -1..=MOST_PIDS)));
                same(&field, &mut spec.limits.pids, read, notes);
            }
            _ if is_nothing(field.value) => {}
            _ => notes.refuse(field.refusal("it is not a limit: write cpus, memory or pids")),
        }
    }
}

fn reservations(at: &At<'_>, spec: &mut ServiceSpec, notes: &mut Notes) {
    for (key, field) in notes.keep(at.map()).unwrap_or_default() {
        match key {
            "memory" => {
                let read = notes.keep(memory(&field)).filter(|bytes| *bytes > 0);
                same(&field, &mut spec.limits.memory_reservation, read, notes);
            }
            "devices" => spec.isolation.device_requests.extend(requests(&field, notes)),
            "cpus" => notes.warn(field.refusal("not honoured: processors are not reserved on one device")),
            _ if is_nothing(field.value) => {}
            _ => notes.refuse(field.unknown("it is not supported: write memory or devices")),
        }
    }
}

fn restart_policy(at: &At<'_>, spec: &mut ServiceSpec, notes: &mut Notes) {
    let (mut condition, mut retries) = ("any", 0);
    for (key, field) in notes.keep(at.map()).unwrap_or_default() {
        match key {
            "condition" => {
                // Compose also takes the words of the field restart.
                condition = match field.value.as_str() {
                    Some("none" | "no") => "none",
                    Some("on-failure") => "on-failure",
                    Some("unless-stopped") => "unless-stopped",
                    Some("any" | "always") => "any",
                    Some(_) | None => {
                        notes.refuse(field.wrong("\"none\", \"on-failure\" or \"any\""));
                        "any"
                    }
                }
            }
            "max_attempts" => {
                let read = whole(&field, "how often it is started again", 0..=i64::from(i32::MAX));
                retries = notes.keep(read).and_then(|n| u32::try_from(n).ok()).unwrap_or_default();
            }
            "delay" | "window" => notes.warn(field.refusal("not honoured: the engine's own waits hold")),
            _ if is_nothing(field.value) => {}
            _ => notes.refuse(field.unknown("it is not known: write condition and max_attempts")),
        }
    }
    spec.restart = match condition {
        "none" => RestartPolicy::No,
        "on-failure" => RestartPolicy::OnFailure { retries },
        "unless-stopped" => RestartPolicy::UnlessStopped,
        _ => RestartPolicy::Always,
    };
}

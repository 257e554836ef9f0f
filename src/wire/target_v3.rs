//! Parses the body of `GET /device/v3/:uuid/state` into a [`Target`] (docs/dev/protocol.md, "Target state").
//!
//! If the body itself is invalid, parsing fails, and the device keeps its last target. If one app is invalid, only that
//! app is refused. The apps of the host and of the balena supervisor are left out. Apps of the classes `app` and `block`
//! run like any other, because on a host without balenaOS nothing else would run them.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::bounds::{self, Taken};
use super::cloud_variables::{self, number, yes_or_no};
use super::compose::{self, Contents, Form};
use super::policy;
use super::state_v3::{AppState, DeviceState, ReleaseState};
use crate::model::text::{cleaned, one_line};
use crate::model::{
    App, AppId, Commit, DeviceUuid, LeftAlone, MoveOrder, POLL_BOUNDS, POLL_INTERVAL, Policy, Refusal,
    RefusedApp, Release, Target, TargetApp, WantedApp,
};

/// Maximum number of bytes of a body.
const LONGEST: usize = 4 << 20;
/// The cloud's own limit for names, in characters.
const LONGEST_NAME: usize = 255;
/// The variables that order a move to another cloud, after `BALENA_` or `RESIN_`, without which balena's API takes none.
pub const MOVE_ENDPOINT: &str = "COTTER_MOVE_ENDPOINT";
pub const MOVE_FLEET: &str = "COTTER_MOVE_FLEET";
pub const MOVE_KEY: &str = "COTTER_MOVE_KEY";

/// The apps that hold the balena supervisor itself, by architecture (docs/dev/protocol.md, "Apps to leave out").
const SUPERVISORS: [&str; 5] = [
    "52e35121417640b1b28a680504e4039b", // amd64
    "900de4f3cbac4b9bbd232885a35e407b", // aarch64
    "2e66a95795c149959c69472a8c2f92b8", // armv7hf
    "531b357e155c480cbec0fdd33041a1f5", // i386
    "6822565f766e413e96d9bebe2227cdcc", // rpi
];

/// The architectures in the names of such apps, e.g. `aarch64-supervisor`, and the names of the supervisor's service.
const ARCHITECTURES: [&str; 7] = ["amd64", "aarch64", "armv7hf", "armv5e", "i386", "i386-nlp", "rpi"];
const SUPERVISOR_SERVICES: [&str; 3] = ["main", "balena-supervisor", "core"];

/// Why a body is not a valid target.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{why}", place(.path))]
pub struct TargetError {
    /// The path in our device's entry, e.g. `config.NAME`; empty for the complete body.
    pub path: String,
    pub why: String,
}

/// Returns where in the target an error is, if not in all of it.
fn place(path: &str) -> String {
    if path.is_empty() { String::new() } else { format!("at {path:?}: ") }
}

/// Parses a body of at most 4 MiB. Refuses apps that ask for more than `policy` allows. Bounds the poll interval to
/// 1 s … 24 h, and ignores one that is not a number.
///
/// # Errors
///
/// [`TargetError`] if the body is too long, has too many values or apps, is not JSON, or does not name exactly `device`, if
/// anything outside of the apps has a wrong type, and if the uuid of an app is invalid. An error within an app makes it
/// [`TargetApp::Refused`], with paths relative to its release, e.g. `services.web.composition.ports[0]`.
pub fn parse(body: &[u8], device: &DeviceUuid, policy: &Policy) -> Result<Target, TargetError> {
    let bounds = &policy.limits;
    let values = bounds::values(body);
    if values > bounds.values {
        let why = format!(
            "the body has {values} values, and this device accepts {}: make the release smaller, or raise limits.values on \
             the device",
            bounds.values
        );
        return Err(error("", &why));
    }
    let state = device_state(body, device)?;
    if state.apps.len() > bounds.apps {
        let why = format!(
            "there are {} apps, and this device accepts {}: remove some, or raise limits.apps on the device",
            state.apps.len(),
            bounds.apps
        );
        return Err(error("apps", &why));
    }
    let (mut apps, mut taken, mut left_alone) = (BTreeMap::new(), Taken::default(), Vec::new());
    let is_only = state.apps.len() == 1;
    for (uuid, raw) in state.apps {
        let id =
            AppId::parse(&uuid).map_err(|bad| error(&format!("apps.{}", short(&uuid)), &bad.to_string()))?;
        match why_foreign(&uuid, &raw, is_only) {
            Some(why) => left_alone.push(LeftAlone { name: app_name(&raw, &id), uuid, why }),
            None => {
                apps.insert(id.clone(), app(id, raw, policy, &mut taken));
            }
        }
    }
    Ok(Target {
        device_name: name_of(&state.name, device.as_str()),
        apps,
        poll_interval: poll_interval(&state.config),
        is_lock_overridden: is_lock_overridden(&state.config),
        has_logs: yes_or_no(&state.config, "SUPERVISOR_LOG_CONTROL").unwrap_or(true),
        has_instant_updates: yes_or_no(&state.config, "SUPERVISOR_INSTANT_UPDATE_TRIGGER").unwrap_or(true),
        has_metrics: yes_or_no(&state.config, "SUPERVISOR_HARDWARE_METRICS").unwrap_or(true),
        has_vpn: yes_or_no(&state.config, "SUPERVISOR_VPN_CONTROL").unwrap_or(true),
        moves_to: move_order(&state.config),
        variables: cloud_variables::answers(&state.config, policy.has_vpn),
        left_alone,
    })
}

fn device_state(body: &[u8], device: &DeviceUuid) -> Result<DeviceState, TargetError> {
    if body.len() > LONGEST {
        let why = format!(
            "the body has {} bytes, and {LONGEST} are accepted: make the release smaller",
            body.len()
        );
        return Err(error("", &why));
    }
    // serde_json limits the depth to 128, which keeps the stack safe.
    let value: Value = serde_json::from_slice(body)
        .map_err(|bad| error("", &format!("the body is not valid JSON: {bad}")))?;
    let Value::Object(mut devices) = value else {
        return Err(error("", "the body is not an object: check that the endpoint is a balena API"));
    };
    let others = devices.len();
    match devices.remove(device.as_str()) {
        Some(state) if others == 1 => typed(state).map_err(|bad| error(&bad.path, &bad.why)),
        Some(_) => Err(error("", &format!("the body names {others} devices: it must name exactly {device}"))),
        None => Err(error("", &format!("the body does not name {device}: check the device's uuid and key"))),
    }
}

/// Returns why we must not run an app: it is the host's, or the balena supervisor's. `None` if we may run it.
/// `is_only`: whether it is the target's only app, which is that of the device's fleet.
fn why_foreign(uuid: &str, raw: &Value, is_only: bool) -> Option<&'static str> {
    if SUPERVISORS.contains(&uuid) || !is_only && is_own_supervisor(raw) {
        Some("it is balena's supervisor, in whose place this agent runs")
    } else if raw.get("is_host").and_then(Value::as_bool).unwrap_or(false) {
        Some("it is an operating system for the host, which its owner updates")
    } else {
        None
    }
}

/// Returns the name of an app, or its uuid if the name cannot be read.
fn app_name(raw: &Value, id: &AppId) -> String {
    let given = raw.get("name").and_then(Value::as_str);
    given.map_or_else(|| id.to_string(), |given| name_of(given, id.as_str()))
}

/// Returns whether an app is a supervisor that the operators of an openBalena publish themselves. It has another uuid, but
/// the API finds it by the end of its name, and the supervisor by the name of its service.
fn is_own_supervisor(raw: &Value) -> bool {
    let name = raw.get("name").and_then(Value::as_str).unwrap_or_default();
    let is_named =
        name.strip_suffix("-supervisor").is_some_and(|architecture| ARCHITECTURES.contains(&architecture));
    let releases =
        raw.get("releases").and_then(Value::as_object).into_iter().flat_map(|releases| releases.values());
    let mut services =
        releases.filter_map(|release| release.get("services")?.as_object()).flat_map(|all| all.keys());
    is_named && services.any(|service| SUPERVISOR_SERVICES.contains(&service.as_str()))
}

fn app(id: AppId, raw: Value, policy: &Policy, taken: &mut Taken) -> TargetApp {
    let named: Vec<String> = match raw.get("releases").and_then(Value::as_object) {
        Some(releases) => releases.keys().map(|commit| short(commit)).collect(),
        None => Vec::new(),
    };
    let name = app_name(&raw, &id);
    let refused = |refusals| {
        let release = named.first().cloned().unwrap_or_default();
        TargetApp::Refused(RefusedApp { name, release, refusals })
    };
    if named.len() > 1 {
        let why = format!(
            "there are {} releases, but an app has one at most: {}",
            named.len(),
            short(&named.join(", "))
        );
        return refused(vec![Refusal { path: "releases".into(), why }]);
    }
    let state: AppState = match typed(raw) {
        Ok(state) => state,
        Err(mut refusal) => {
            let prefix = named.first().map(|commit| format!("releases.{commit}.")).unwrap_or_default();
            refusal.path = refusal.path.strip_prefix(&prefix).unwrap_or(&refusal.path).to_owned();
            return refused(vec![refusal]);
        }
    };
    let app = App { number: state.id, name: name_of(&state.name, id.as_str()), id };
    match state.releases.into_iter().next() {
        None => TargetApp::Wanted(WantedApp { app, release: None, warnings: Vec::new() }),
        Some((commit, given)) => match release(&commit, &given, policy, taken) {
            Ok((release, warnings)) => TargetApp::Wanted(WantedApp { app, release: Some(release), warnings }),
            Err(refusals) => refused(refusals),
        },
    }
}

/// Reads a release. Returns it with its warnings, or all refusals.
fn release(
    commit: &str,
    given: &ReleaseState,
    policy: &Policy,
    taken: &mut Taken,
) -> Result<(Release, Vec<Refusal>), Vec<Refusal>> {
    let refused = bounds::unread(given, &policy.limits, *taken);
    if !refused.is_empty() {
        return Err(refused);
    }
    let (contents, mut notes) = compose::read(given, Form::Target);
    notes.refusals.extend(policy::violations(&contents, Form::Target, policy));
    notes.refusals.extend(bounds::exceeded(&contents, Form::Target, &policy.limits, *taken));
    if notes.refusals.is_empty() {
        *taken = taken.and(&contents);
    }
    let Contents { services, networks, volumes, trial, windows } = contents;
    let commit = Commit::parse(commit).map_err(|bad| {
        notes.refusals.insert(0, Refusal { path: "releases".into(), why: bad.to_string() });
    });
    match commit {
        Ok(commit) if notes.refusals.is_empty() => Ok((
            Release { commit, number: given.id, services, networks, volumes, trial, windows },
            notes.warnings,
        )),
        Ok(_) | Err(()) => Err(notes.refusals),
    }
}

/// Deserializes a value. An error has the path of the value with the wrong type.
fn typed<T: DeserializeOwned>(value: Value) -> Result<T, Refusal> {
    serde_path_to_error::deserialize(value).map_err(|bad| {
        let path = bad.path().to_string();
        let path = if path == "." { String::new() } else { path };
        // The value may be a secret.
        let is_private = ["environment", "config"].iter().any(|part| path.split('.').any(|p| p == *part));
        let why = if is_private { "it must be a text".to_owned() } else { short(&bad.inner().to_string()) };
        Refusal { path: short(&path), why }
    })
}

/// Returns the poll interval that the cloud asks for, within its bounds.
fn poll_interval(config: &BTreeMap<String, String>) -> Option<Duration> {
    let wanted = number(config, POLL_INTERVAL)?;
    Some(Duration::from_millis(wanted.clamp(POLL_BOUNDS.0, POLL_BOUNDS.1)))
}

/// Returns whether the cloud overrides update locks. Ignores a value that is neither yes nor no.
fn is_lock_overridden(config: &BTreeMap<String, String>) -> bool {
    let first = yes_or_no(config, "SUPERVISOR_OVERRIDE_LOCK");
    // The older name (docs/dev/protocol.md, "Update locks").
    first.or_else(|| yes_or_no(config, "OVERRIDE_LOCK")).unwrap_or(false)
}

/// Returns the order to move to another cloud.
fn move_order(config: &BTreeMap<String, String>) -> Option<MoveOrder> {
    let value = |name: &str| {
        let named = ["BALENA", "RESIN"].iter().find_map(|prefix| config.get(&format!("{prefix}_{name}")));
        named.map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
    };
    let endpoint = value(MOVE_ENDPOINT)?;
    let (fleet, key) = (value(MOVE_FLEET).unwrap_or_default(), value(MOVE_KEY).unwrap_or_default());
    Some(MoveOrder { endpoint, fleet, key })
}

fn error(path: &str, why: &str) -> TargetError {
    TargetError { path: path.to_owned(), why: why.to_owned() }
}

/// Shortens a text for a message to one line of 200 characters.
fn short(text: &str) -> String {
    one_line(&text.chars().take(200).collect::<String>())
}

/// Returns the name of a device or an app without invisible characters, such as a joiner that an emoji keyboard left,
/// because it is shown in tables and logs; its uuid if nothing is left.
fn name_of(given: &str, uuid: &str) -> String {
    let clean = cleaned(given, LONGEST_NAME);
    if clean.is_empty() { uuid.to_owned() } else { clean }
}

#[cfg(test)]
#[path = "target_v3_tests.rs"]
mod tests;

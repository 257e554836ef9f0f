//! The connection to the cloud, step by step.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use super::{Finding, error, ok, skip, skip_rest, warning};
use crate::api::{StatusDocument, VariableStatus};
use crate::cloud::{Answered, CloudError, Probe, probe};
use crate::config::{Config, Joining};
use crate::host;
use crate::http::Failure;
use crate::model::quantity::{counted, times};
use crate::model::{Identity, Moves, Registration};

/// Longest time for one step.
const WITHIN: Duration = Duration::from_secs(10);
/// Difference of the clocks, in seconds, that is still fine.
const SLACK: u64 = 120;
/// With a greater difference, in seconds, valid certificates may seem invalid.
const DAY: u64 = 24 * 3600;

/// Environment variables that configure a proxy, in upper or lower case.
const PROXIES: [&str; 3] = ["HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY"];

#[derive(Debug)]
pub(super) struct Way {
    /// `None`: no cloud is set.
    pub(super) probe: Option<Result<Probe, CloudError>>,
    /// The variable that configures a proxy.
    pub(super) proxy: Option<String>,
    /// When the answer arrived.
    pub(super) at: Timestamp,
}

pub(super) async fn observe(
    config: &Config,
    remembered: Option<&Identity>,
    environment: &BTreeMap<String, String>,
) -> Way {
    let set = |name: &&&str| {
        let is_set = |name: &str| environment.get(name).is_some_and(|value| !value.is_empty());
        is_set(name) || is_set(&name.to_lowercase())
    };
    let proxy = PROXIES.iter().find(set).map(|name| (*name).to_owned());
    let probe = match &config.cloud {
        None => None,
        Some(cloud) => {
            let given = match &cloud.joining {
                Joining::Known { uuid, key } => Some(Identity {
                    uuid: uuid.clone(),
                    device_key: key.clone(),
                    registered: Some(Registration { endpoint: cloud.endpoint.clone(), device_id: None }),
                    moves: Moves::default(),
                }),
                Joining::Register { .. } | Joining::Remembered => None,
            };
            let (endpoint, identity) = in_force(&cloud.endpoint, given, remembered);
            let place = (endpoint.as_str(), cloud.authority.as_deref());
            Some(probe(place, identity.as_ref(), cloud.request_timeout.min(WITHIN)).await)
        }
    };
    Way { probe, proxy, at: host::now() }
}

/// Returns the endpoint of the cloud in force, and who the device is there: after a move, also one back to the first cloud, with
/// the key of the move. `given` has the settings' key.
fn in_force(
    settings: &str,
    given: Option<Identity>,
    remembered: Option<&Identity>,
) -> (String, Option<Identity>) {
    if let Some(moved) = remembered.filter(|identity| identity.moves.in_force(settings).is_some()) {
        let (there, endpoint) = moved.in_force(settings);
        return (endpoint, Some(there));
    }
    // Never send the key of another cloud to this one.
    let is_its = |i: &&Identity| i.registered.as_ref().is_some_and(|at| at.endpoint == settings);
    (settings.to_owned(), given.or_else(|| remembered.filter(is_its).cloned()))
}

pub(super) fn judge(way: &Way, status: Option<&StatusDocument>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let why = match &way.probe {
        None => "no cloud is set",
        Some(Err(_)) => "TLS cannot be set up",
        Some(Ok(_)) => "the cloud does not answer",
    };
    match &way.probe {
        None => {}
        Some(Err(failed)) => findings.push(unanswered(failed)),
        Some(Ok(probe)) => {
            match &way.proxy {
                Some(proxy) => {
                    let why = format!("{proxy} is set: requests go through a proxy");
                    findings.extend(["cloud-name", "cloud-connects"].map(|id| skip(id, why.clone())));
                }
                None => findings.extend(steps(probe)),
            }
            match &probe.answer {
                Ok(answered) => findings.extend([answer(answered), clock(answered, way.at)]),
                Err(failed) => findings.push(unanswered(failed)),
            }
        }
    }
    findings.push(contact(status));
    findings.push(logs(status));
    findings.push(vpn(status));
    findings.push(variables(status));
    skip_rest("cloud", &mut findings, why);
    findings
}

fn steps(probe: &Probe) -> Vec<Finding> {
    let (id, host) = ("cloud-name", &probe.host);
    let name = match &probe.addresses {
        Ok(addresses) => ok(id, format!("{host} is {}", addresses.join(", "))),
        Err(why) => {
            let remedy = "is the network up? `resolvectl status` or /etc/resolv.conf shows the resolver";
            error(id, format!("{host}: {why}"), remedy)
        }
    };
    let id = "cloud-connects";
    let connection = match &probe.connection {
        None => skip(id, "there is no address to connect to"),
        Some(Ok(address)) => ok(id, address.clone()),
        Some(Err(why)) => {
            let evidence = format!("{host}, port {}: {why}", probe.port);
            error(id, evidence, "does a firewall block it, or is the cloud down?")
        }
    };
    vec![name, connection]
}

fn answer(answered: &Answered) -> Finding {
    let id = "cloud-answers";
    if answered.is_known {
        return ok(id, "it accepts this device's key");
    }
    ok(id, "it answers; whether it accepts this device is known once the agent has registered")
}

fn unanswered(failed: &CloudError) -> Finding {
    let evidence = failed.to_string();
    let remedy = match failed {
        CloudError::Unreachable { why: Failure::Unreachable(broken), .. } if broken.is_by_certificate() => {
            "is the clock right (host-clock)? Is ca-certificates installed? Is the authority of a private cloud \
             named by cloud.ca_file, or in /usr/local/share/ca-certificates?"
        }
        CloudError::Unreachable { .. } => "see cloud-name and cloud-connects; running services keep running",
        CloudError::Deleted { .. } => {
            "an operator of the fleet restores it with that command; if it must not come back, stop the agent"
        }
        CloudError::Denied { .. } | CloudError::Unknown { .. } => {
            "was the device deleted there? Then it needs a new identity: `cotter join --force` with a new config.json, or, if \
             it registers itself, another state_dir"
        }
        CloudError::Redirected { .. } => {
            "if the cloud has moved, set cloud.endpoint to its new address; otherwise a proxy or portal intercepts the request"
        }
        CloudError::Conflict { .. }
        | CloudError::NotAdmitted { .. }
        | CloudError::NumbersOnly { .. }
        | CloudError::Refused { .. } => "see the cloud's own log; the agent tries again by itself",
    };
    error("cloud-answers", evidence, remedy)
}

fn clock(answered: &Answered, at: Timestamp) -> Finding {
    let id = "cloud-clock";
    let Some(date) = &answered.date else { return skip(id, "the cloud's answer has no time") };
    let theirs = httpdate::parse_http_date(date).ok().and_then(|date| Timestamp::try_from(date).ok());
    let Some(theirs) = theirs else {
        return skip(id, format!("the cloud's time cannot be read: {date:?}"));
    };
    let seconds = at.as_second().saturating_sub(theirs.as_second());
    let (apart, side) = (seconds.unsigned_abs(), if seconds < 0 { "behind" } else { "ahead of" });
    let evidence = format!("ours is {apart} s {side} the cloud's");
    let remedy = "set the clock: timedatectl set-ntp true";
    if apart <= SLACK {
        ok(id, evidence)
    } else if apart <= DAY {
        warning(id, evidence, remedy)
    } else {
        error(id, evidence, remedy)
    }
}

fn contact(status: Option<&StatusDocument>) -> Finding {
    let id = "cloud-contact";
    let Some(status) = status else { return skip(id, "the agent does not answer") };
    let Some(cloud) = &status.cloud else { return skip(id, "the agent has no cloud") };
    let last = cloud.last_contact.as_deref().unwrap_or("never");
    match &cloud.error {
        Some(why) => {
            let evidence =
                format!("last contact {last}, failed {} since: {why}", times(cloud.failures.max(1)));
            let remedy = "see the checks above; `cotter update` polls at once";
            // It runs its last target until the cloud answers again. One that never had contact has none.
            if cloud.is_deleted || cloud.last_contact.is_none() {
                error(id, evidence, remedy)
            } else {
                warning(id, evidence, remedy)
            }
        }
        None if cloud.last_contact.is_none() => skip(id, "the agent has not polled yet"),
        None => ok(id, format!("last contact {last}")),
    }
}

/// What is not to be uploaded is no fault. What a service writes too much of is, and what a broken connection may have lost is not:
/// nothing can be done about it.
fn logs(status: Option<&StatusDocument>) -> Finding {
    let id = "cloud-logs";
    let Some(status) = status else { return skip(id, "the agent does not answer") };
    let Some(cloud) = &status.cloud else { return skip(id, "the agent has no cloud") };
    let logs = &cloud.logs;
    if logs.why_not.is_some() {
        return skip(id, logs.line());
    }
    if logs.error.is_some() {
        let remedy = "see the checks above and the cloud's own log; the agent tries again by itself, and the lines wait in the engine's logs";
        return warning(id, logs.line(), remedy);
    }
    if logs.suppressed > 0 || logs.gaps > 0 {
        let remedy = "let the services write less, or set BALENA_LOGS_LEVEL of one to error; `cotter logs` has the rest";
        return warning(id, logs.line(), remedy);
    }
    ok(id, format!("{}, {}", logs.line(), counted(logs.sent, "line")))
}

/// The device works without the tunnel. Only what the cloud orders through it does not.
fn vpn(status: Option<&StatusDocument>) -> Finding {
    let id = "cloud-vpn";
    let Some(status) = status else { return skip(id, "the agent does not answer") };
    let Some(vpn) = status.cloud.as_ref().and_then(|cloud| cloud.vpn.as_ref()) else {
        return skip(id, "vpn.enabled is \"no\", the default");
    };
    match (&vpn.address, &vpn.why, &vpn.remedy) {
        (Some(address), ..) => ok(id, format!("connected, as {address}")),
        (None, Some(why), _) if vpn.state == "turned_off" => skip(id, why),
        (None, Some(why), Some(remedy)) => warning(id, why, remedy),
        (None, ..) => skip(id, format!("it is {}", vpn.state)),
    }
}

/// A bad value weakens the device, and its owner can correct it. What has no effect here is listed, and is no fault.
fn variables(status: Option<&StatusDocument>) -> Finding {
    let id = "cloud-variables";
    let Some(status) = status else { return skip(id, "the agent does not answer") };
    if status.variables.is_empty() {
        return skip(id, "the cloud has sent none");
    }
    let lines: Vec<_> = status
        .variables
        .iter()
        .filter(|variable| !variable.is_honoured())
        .map(VariableStatus::line)
        .collect();
    let honoured = status.variables.len() - lines.len();
    let evidence = [vec![format!("{honoured} have their effect")], lines].concat().join("; ");
    let is_wrong = |variable: &VariableStatus| ["bad_value", "unknown"].contains(&variable.standing.as_str());
    if status.variables.iter().any(is_wrong) {
        let remedy = "correct or remove the variables at the fleet or the device in the cloud; docs/balena.md lists all";
        warning(id, evidence, remedy)
    } else {
        ok(id, evidence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{DeviceUuid, Move};

    fn identity(key: &str, at: &str, moves: Moves) -> Identity {
        Identity {
            uuid: DeviceUuid::parse("ab".repeat(16)).unwrap(),
            device_key: key.to_owned(),
            registered: Some(Registration { endpoint: at.to_owned(), device_id: None }),
            moves,
        }
    }

    #[test]
    fn the_cloud_in_force_gets_its_own_key() {
        let moved = |from: &str, to: &str| {
            let (from, to) = (from.to_owned(), to.to_owned());
            let done =
                Some(Move { from, to, device_key: "of-the-move".to_owned(), apps: Default::default() });
            Moves { done, begun: None }
        };
        for (why, given, remembered, expected) in [
            ("nothing is known", None, None, ("a", None)),
            ("not moved", None, Some(identity("first", "a", Moves::default())), ("a", Some("first"))),
            ("another cloud's", None, Some(identity("first", "z", Moves::default())), ("a", None)),
            ("the settings' key", Some("given"), None, ("a", Some("given"))),
            (
                "moved",
                Some("given"),
                Some(identity("first", "a", moved("a", "b"))),
                ("b", Some("of-the-move")),
            ),
            ("moved back", None, Some(identity("first", "a", moved("a", "a"))), ("a", Some("of-the-move"))),
            (
                "moved back, with the settings' key",
                Some("given"),
                Some(identity("first", "a", moved("a", "a"))),
                ("a", Some("of-the-move")),
            ),
            ("the settings name a third", None, Some(identity("first", "z", moved("z", "b"))), ("a", None)),
        ] {
            let given = given.map(|key| identity(key, "a", Moves::default()));
            let (endpoint, identity) = in_force("a", given, remembered.as_ref());
            let key = identity.as_ref().map(|identity| identity.device_key.as_str());
            assert_eq!((endpoint.as_str(), key), expected, "{why}");
        }
    }
}

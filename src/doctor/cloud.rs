//! The connection to the cloud, step by step.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use super::{Finding, error, ok, skip, skip_rest, warning};
use crate::api::StatusDocument;
use crate::cloud::{Answered, CloudError, Probe, probe};
use crate::config::{Config, Joining};
use crate::host;
use crate::http::Failure;
use crate::model::quantity::times;
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
            let moved = remembered.map(|identity| identity.in_force(&cloud.endpoint));
            let moved = moved.filter(|(_, endpoint)| *endpoint != cloud.endpoint);
            let endpoint = moved.as_ref().map_or(&cloud.endpoint, |(_, endpoint)| endpoint);
            // Never send the key of another cloud to this one.
            let is_its =
                |i: &&Identity| i.registered.as_ref().is_some_and(|at| at.endpoint == cloud.endpoint);
            let there = moved.as_ref().map(|(identity, _)| identity);
            let identity = there.or(given.as_ref()).or(remembered.filter(is_its));
            Some(
                probe((endpoint, cloud.authority.as_deref()), identity, cloud.request_timeout.min(WITHIN))
                    .await,
            )
        }
    };
    Way { probe, proxy, at: host::now() }
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

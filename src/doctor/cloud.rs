//! The way to the cloud, step by step.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use super::{Finding, error, ok, skip, skip_rest, warning};
use crate::api::StatusDocument;
use crate::cloud::{Answered, CloudError, Knock, knock};
use crate::config::{Config, Joining};
use crate::host;
use crate::model::{Identity, Registration};

/// Longest time for one step.
const WITHIN: Duration = Duration::from_secs(10);
/// Seconds by which clocks may differ.
const SLACK: u64 = 120;
/// With more than this, certificates of servers seem invalid.
const DAY: u64 = 24 * 3600;

/// Variables that send requests another way; either case is heeded.
const PROXIES: [&str; 3] = ["HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY"];

#[derive(Debug)]
pub(super) struct Way {
    /// `None`: no cloud is set.
    pub(super) knock: Option<Result<Knock, CloudError>>,
    /// A proxy that requests go through.
    pub(super) proxy: Option<String>,
    /// When the answer was here.
    pub(super) at: Timestamp,
}

pub(super) async fn look(
    config: &Config,
    remembered: Option<&Identity>,
    environment: &BTreeMap<String, String>,
) -> Way {
    let set = |name: &&&str| {
        let is_set = |name: &str| environment.get(name).is_some_and(|value| !value.is_empty());
        is_set(name) || is_set(&name.to_lowercase())
    };
    let proxy = PROXIES.iter().find(set).map(|name| (*name).to_owned());
    let knock = match &config.cloud {
        None => None,
        Some(cloud) => {
            let given = match &cloud.joining {
                Joining::Known { uuid, key } => Some(Identity {
                    uuid: uuid.clone(),
                    device_key: key.clone(),
                    registered: Some(Registration { endpoint: cloud.endpoint.clone(), device_id: None }),
                }),
                Joining::Register { .. } | Joining::Remembered => None,
            };
            // The key of another cloud is not shown to this one.
            let is_its =
                |i: &&Identity| i.registered.as_ref().is_some_and(|at| at.endpoint == cloud.endpoint);
            let identity = given.as_ref().or(remembered.filter(is_its));
            Some(knock(&cloud.endpoint, identity, cloud.request_timeout.min(WITHIN)).await)
        }
    };
    Way { knock, proxy, at: host::now() }
}

pub(super) fn judge(way: &Way, status: Option<&StatusDocument>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let why = match &way.knock {
        None => "no cloud is set",
        Some(Err(_)) => "there is no TLS",
        Some(Ok(_)) => "the cloud does not answer",
    };
    match &way.knock {
        None => {}
        Some(Err(failed)) => findings.push(unanswered(failed)),
        Some(Ok(knock)) => {
            match &way.proxy {
                Some(proxy) => {
                    let why = format!("{proxy} is set: requests go through a proxy");
                    findings.extend(["cloud-name", "cloud-connects"].map(|id| skip(id, why.clone())));
                }
                None => findings.extend(steps(knock)),
            }
            match &knock.answer {
                Ok(answered) => findings.extend([answer(answered), clock(answered, way.at)]),
                Err(failed) => findings.push(unanswered(failed)),
            }
        }
    }
    findings.push(contact(status));
    skip_rest("cloud", &mut findings, why);
    findings
}

fn steps(knock: &Knock) -> Vec<Finding> {
    let (id, host) = ("cloud-name", &knock.host);
    let name = match &knock.addresses {
        Ok(addresses) => ok(id, format!("{host} is {}", addresses.join(", "))),
        Err(why) => {
            let remedy = "is the network up? `resolvectl status` or /etc/resolv.conf name the resolver";
            error(id, format!("{host}: {why}"), remedy)
        }
    };
    let id = "cloud-connects";
    let connection = match &knock.connection {
        None => skip(id, "there is no address to connect to"),
        Some(Ok(address)) => ok(id, address.clone()),
        Some(Err(why)) => {
            let told = format!("{host}, port {}: {why}", knock.port);
            error(id, told, "does a firewall stand between, and does the cloud run?")
        }
    };
    vec![name, connection]
}

fn answer(answered: &Answered) -> Finding {
    let id = "cloud-answers";
    if answered.is_known {
        return ok(id, "it accepts this device's key");
    }
    ok(id, "it does; whether it accepts this device is seen when the agent registers")
}

fn unanswered(failed: &CloudError) -> Finding {
    let told = failed.to_string();
    let remedy = match failed {
        CloudError::Unreachable { why, .. } if why.to_string().contains("ertificate") => {
            "is the clock right (host-clock)? Is ca-certificates installed, or the authority of a site's own cloud \
             in /usr/local/share/ca-certificates?"
        }
        CloudError::Unreachable { .. } => "see cloud-name and cloud-connects; what runs goes on meanwhile",
        CloudError::Deleted { .. } => {
            "an operator of the fleet brings it back with the command above; if it is not to come back, stop the agent"
        }
        CloudError::Denied { .. } | CloudError::Unknown { .. } => {
            "was the device deleted there? Then it needs a new identity: `cotter join --force` with a new config.json, or, if \
             it registers itself, another state_dir"
        }
        CloudError::Redirected { .. } => {
            "has the cloud moved? Then cloud.endpoint is its new address. Else a proxy or a portal stands between"
        }
        CloudError::Conflict { .. } | CloudError::Refused { .. } => {
            "the cloud's operator must look; the agent tries again by itself"
        }
    };
    error("cloud-answers", told, remedy)
}

fn clock(answered: &Answered, at: Timestamp) -> Finding {
    let id = "cloud-clock";
    let Some(date) = &answered.date else { return skip(id, "the cloud does not tell its time") };
    let theirs = httpdate::parse_http_date(date).ok().and_then(|date| Timestamp::try_from(date).ok());
    let Some(theirs) = theirs else {
        return skip(id, format!("the cloud's time cannot be read: {date:?}"));
    };
    let seconds = at.as_second().saturating_sub(theirs.as_second());
    let (apart, side) = (seconds.unsigned_abs(), if seconds < 0 { "behind" } else { "ahead of" });
    let told = format!("ours is {apart} s {side} the cloud's");
    let remedy = "set the clock: timedatectl set-ntp true";
    if apart <= SLACK {
        ok(id, told)
    } else if apart <= DAY {
        warning(id, told, remedy)
    } else {
        error(id, told, remedy)
    }
}

fn contact(status: Option<&StatusDocument>) -> Finding {
    let id = "cloud-contact";
    let Some(status) = status else { return skip(id, "the agent does not answer") };
    let Some(cloud) = &status.cloud else { return skip(id, "the agent has no cloud") };
    let last = cloud.last_contact.as_deref().unwrap_or("never");
    match &cloud.error {
        Some(why) => {
            let told = format!("last contact {last}, failed {} times since: {why}", cloud.failures.max(1));
            warning(id, told, "see the checks above; `cotter update` tries again at once")
        }
        None if cloud.last_contact.is_none() => skip(id, "the agent has not polled yet"),
        None => ok(id, format!("last contact {last}")),
    }
}

//! Looks a device over and says what is wrong with it, and what to do.
//!
//! Works whether the agent runs or not. It reads the settings, the state folder, the machine, the engine
//! and the agent's status, and knocks at the cloud; it changes none of them. Each area looks first and
//! then judges what it saw, and judging is pure.

mod agent;
mod bundle;
mod cloud;
mod config;
mod engine;
mod host;
mod state;
mod tar;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::config::{Config, Given};
use crate::store::Look;

pub use bundle::{Page, archive, pages};

/// Every check: its stable id, and what it asks. The word before the first `-` is its area.
pub const CHECKS: &[(&str, &str)] = &[
    ("config-valid", "can the settings be read, and are they accepted?"),
    ("config-writers", "may only root change the settings?"),
    ("config-cloud", "is a cloud set, and is it asked over TLS?"),
    ("config-policy", "does the policy keep releases from what root can do?"),
    ("state-folder", "is the state folder there, for its owner only, and may it be written?"),
    ("state-disk", "is there room on its disk?"),
    ("state-copies", "are both mirrors of the store whole?"),
    ("state-damage", "was the store ever damaged?"),
    ("state-identity", "does the device know who it is, or how to register?"),
    ("state-key", "is the provisioning key gone once the device is registered?"),
    ("host-clock", "can the clock be believed?"),
    ("host-time-sync", "does NTP set the clock?"),
    ("host-zones", "are the time zones of the maintenance windows known?"),
    ("host-memory", "is there memory left?"),
    ("host-power", "is the supply of a Raspberry Pi strong enough?"),
    ("host-journal", "does the journal outlive a boot?"),
    ("engine-socket", "is there a socket, and may we use it?"),
    ("engine-answers", "does the engine answer?"),
    ("engine-version", "is it new enough?"),
    ("engine-storage", "does its storage driver share layers?"),
    ("engine-disk", "is there room for the next release?"),
    ("engine-inodes", "may its disk have more files?"),
    ("engine-log-rotation", "do logs end that nobody limits?"),
    ("engine-live-restore", "do services run on while it restarts?"),
    ("engine-memory-limits", "do memory limits of releases work?"),
    ("engine-warnings", "does it miss something itself?"),
    ("engine-images", "do images lie about that nobody uses?"),
    ("engine-instances", "are there containers of other instances?"),
    ("agent-unit", "is the agent's unit enabled and active?"),
    ("agent-answers", "does the agent answer?"),
    ("agent-alone", "is it the agent of these settings, and the only one?"),
    ("agent-version", "is it of the version that is installed?"),
    ("agent-sockets", "may only those use its sockets who should?"),
    ("agent-trouble", "does it reach the engine and the store?"),
    ("agent-waits", "does something wait for a person?"),
    ("agent-lock-folders", "are the lock folders of the services there?"),
    ("agent-lock-space", "does the kernel bound what services put into them?"),
    ("cloud-name", "is the name of the cloud's host known?"),
    ("cloud-connects", "can it be connected to?"),
    ("cloud-answers", "does it answer, and accept this device?"),
    ("cloud-clock", "do its clock and ours agree?"),
    ("cloud-contact", "has the agent reached it of late?"),
];

/// How a check ended, from the best to the worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// It could not be asked here, or was not to be.
    Skip,
    Ok,
    /// The device works, and something makes it weaker.
    Warning,
    /// Something does not work.
    Error,
}

impl Level {
    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Skip => "skip",
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// What one check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub id: &'static str,
    pub level: Level,
    /// What was seen, in a line.
    pub evidence: String,
    /// What to do; absent where nothing is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

fn found(id: &'static str, level: Level, evidence: impl Into<String>, remedy: Option<&str>) -> Finding {
    // The system's own words may have several lines.
    let evidence = evidence.into().split_whitespace().collect::<Vec<_>>().join(" ");
    Finding { id, level, evidence, remedy: remedy.map(str::to_owned) }
}

fn ok(id: &'static str, evidence: impl Into<String>) -> Finding {
    found(id, Level::Ok, evidence, None)
}

fn skip(id: &'static str, evidence: impl Into<String>) -> Finding {
    found(id, Level::Skip, evidence, None)
}

fn warning(id: &'static str, evidence: impl Into<String>, remedy: &str) -> Finding {
    found(id, Level::Warning, evidence, Some(remedy))
}

fn error(id: &'static str, evidence: impl Into<String>, remedy: &str) -> Finding {
    found(id, Level::Error, evidence, Some(remedy))
}

/// Skips every check of `area` that has no finding yet.
fn skip_rest(area: &str, findings: &mut Vec<Finding>, why: &str) {
    let is_left = |id: &str, findings: &[Finding]| findings.iter().all(|finding| finding.id != id);
    for (id, _) in CHECKS.iter().filter(|(id, _)| area_of(id) == area) {
        if is_left(id, findings) {
            findings.push(skip(id, why));
        }
    }
}

fn area_of(id: &str) -> &str {
    id.split('-').next().unwrap_or(id)
}

/// What to look over.
#[derive(Debug, Clone, Default)]
pub struct Subject {
    pub given: Given,
    pub environment: BTreeMap<String, String>,
    /// Ids of checks that are not to be run. Without any of its checks, engine or cloud is not asked at all.
    pub left_out: BTreeSet<&'static str>,
}

/// The ids that `name` stands for: a check's own, or all of its area.
#[must_use]
pub fn ids(name: &str) -> Vec<&'static str> {
    CHECKS.iter().map(|(id, _)| *id).filter(|id| *id == name || area_of(id) == name).collect()
}

/// Runs the checks: one finding for each, in the order of [`CHECKS`]. Takes half a minute at most, where
/// neither cloud nor engine answers.
pub async fn examine(subject: &Subject) -> Vec<Finding> {
    let loaded = Config::load(&subject.given, &subject.environment);
    let mut all = config::judge(&config::look(&subject.given), loaded.as_ref());
    let wants = |area: &str| ids(area).iter().any(|id| !subject.left_out.contains(id));
    let Ok(config) = &loaded else {
        all.extend(host::judge(&host::look(None, None).await));
        for area in ["state", "engine", "agent", "cloud"] {
            skip_rest(area, &mut all, "the settings are not accepted: see config-valid");
        }
        return in_order(all, &subject.left_out);
    };
    let store = crate::store::look(&config.state_dir).map_err(|e| e.to_string());
    let seen = store.as_ref();
    let engine = async { if wants("engine") { Some(Box::pin(engine::look(config)).await) } else { None } };
    let (agent, engine) = tokio::join!(Box::pin(agent::look(config)), engine);
    all.extend(state::judge(&state::look(config, seen)));
    all.extend(host::judge(&host::look(Some(config), seen.ok()).await));
    all.extend(engine.iter().flat_map(engine::judge));
    all.extend(agent::judge(&agent, seen.ok()));
    if wants("cloud") {
        let identity = seen.ok().and_then(|look| look.identity.as_ref());
        let cloud = Box::pin(cloud::look(config, identity, &subject.environment)).await;
        all.extend(cloud::judge(&cloud, agent.status.as_ref().ok()));
    }
    in_order(all, &subject.left_out)
}

/// One finding for each check, in their order.
fn in_order(mut all: Vec<Finding>, left_out: &BTreeSet<&'static str>) -> Vec<Finding> {
    let one = |(id, _): &(&'static str, &str)| {
        if left_out.contains(id) {
            return skip(id, "left out by --dont-run");
        }
        let at = all.iter().position(|finding| finding.id == *id);
        at.map_or_else(|| skip(id, "it was not looked at"), |at| all.swap_remove(at))
    };
    CHECKS.iter().map(one).collect()
}

/// A look at a store that could be opened, or why it could not.
type Seen<'a> = Result<&'a Look, &'a String>;

/// Bytes as people read them.
fn bytes(bytes: u64) -> String {
    let mib = bytes >> 20;
    match mib {
        0 => format!("{} KiB", bytes >> 10),
        1..=9_999 => format!("{mib} MiB"),
        _ => format!("{} GiB", mib >> 10),
    }
}

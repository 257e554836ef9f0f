//! Checks a device and suggests fixes.
//!
//! Works whether the agent runs or not. It reads the settings, the state folder, the machine, the engine and the
//! agent's status, and polls the cloud once. It changes nothing. Each area has a function `observe` that does the I/O
//! and a pure function `judge` that makes findings of the observation.

mod agent;
mod bundle;
mod cloud;
mod config;
mod engine;
mod host;
mod state;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::config::{Config, Given};
use crate::store::Inspection;

pub use bundle::{Page, archive, pages};

/// Every check: its stable id, and the question that it answers. The word before the first `-` is its area.
pub const CHECKS: &[(&str, &str)] = &[
    ("config-valid", "can the settings be read, and are they accepted?"),
    ("config-writers", "may only root change the settings?"),
    ("config-cloud", "is a cloud set, and is it reached over TLS?"),
    ("config-policy", "does the policy keep releases from what root can do?"),
    ("state-folder", "does the state folder exist, only for its owner, and is it writable?"),
    ("state-disk", "is there space on the disk of the state folder?"),
    ("state-copies", "are both mirrors of the store intact?"),
    ("state-damage", "was the store ever damaged?"),
    ("state-identity", "does the device have an identity, or a way to register?"),
    ("state-key", "was the provisioning key removed after the registration?"),
    ("host-clock", "can the clock be trusted?"),
    ("host-time-sync", "does NTP set the clock?"),
    ("host-zones", "are the time zones of the maintenance windows known?"),
    ("host-memory", "is enough memory available?"),
    ("host-power", "is the power supply of a Raspberry Pi strong enough?"),
    ("host-journal", "does the journal survive a reboot?"),
    ("engine-socket", "does the engine's socket exist, and may we use it?"),
    ("engine-answers", "does the engine answer?"),
    ("engine-version", "is the engine new enough?"),
    ("engine-storage", "does the engine's storage driver share layers?"),
    ("engine-disk", "is there space for the next release?"),
    ("engine-inodes", "can more files be created on the engine's disk?"),
    ("engine-log-rotation", "are logs limited for services that set no limit?"),
    ("engine-live-restore", "do services keep running while the engine restarts?"),
    ("engine-memory-limits", "do memory limits of releases work?"),
    ("engine-warnings", "does the engine report warnings?"),
    ("engine-images", "are there unused images?"),
    ("engine-instances", "are there containers of other instances?"),
    ("agent-unit", "is the agent's unit enabled and active?"),
    ("agent-answers", "does the agent answer?"),
    ("agent-alone", "is it the agent of these settings, and the only one?"),
    ("agent-version", "does the agent run in the installed version?"),
    ("agent-sockets", "can only root and group cotter use the agent's sockets?"),
    ("agent-trouble", "does the agent reach the engine and the store?"),
    ("agent-waits", "does something wait for an operator?"),
    ("agent-lock-folders", "do the lock folders of the services exist?"),
    ("agent-lock-space", "does the kernel limit the size of the lock folders?"),
    ("cloud-name", "can the name of the cloud be resolved?"),
    ("cloud-connects", "can a connection to the cloud be opened?"),
    ("cloud-answers", "does the cloud answer, and accept this device?"),
    ("cloud-clock", "do the clocks of cloud and device agree?"),
    ("cloud-contact", "did the agent's last poll reach the cloud?"),
    ("cloud-logs", "do logs reach the cloud, as far as they should?"),
    ("cloud-vpn", "is the VPN of the cloud connected, if the owner has it on?"),
    ("cloud-variables", "does every configuration variable of the cloud have an effect here?"),
];

/// How a check ended, from the best to the worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// The check could not run here, or was left out.
    Skip,
    Ok,
    /// The device works, but something weakens it.
    Warning,
    /// Something does not work.
    Error,
}

impl Level {
    /// The level as one word.
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
    /// What was observed, in one line.
    pub evidence: String,
    /// What to do. Absent if nothing is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

fn found(id: &'static str, level: Level, evidence: impl Into<String>, remedy: Option<&str>) -> Finding {
    // Messages of the system may have several lines.
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

/// The area of a check: the word before the first `-` of its id.
#[must_use]
pub fn area_of(id: &str) -> &str {
    id.split('-').next().unwrap_or(id)
}

/// The device to check.
#[derive(Debug, Clone, Default)]
pub struct Subject {
    pub given: Given,
    pub environment: BTreeMap<String, String>,
    /// Ids of checks to leave out. If all checks of the engine or the cloud are left out, it gets no request.
    pub left_out: BTreeSet<&'static str>,
}

/// Returns the ids that `name` selects: the check of this id, or all checks of this area.
#[must_use]
pub fn ids(name: &str) -> Vec<&'static str> {
    CHECKS.iter().map(|(id, _)| *id).filter(|id| *id == name || area_of(id) == name).collect()
}

/// Runs the checks. Returns one finding for each, in the order of [`CHECKS`]. Takes half a minute at most, if neither
/// cloud nor engine answers.
pub async fn examine(subject: &Subject) -> Vec<Finding> {
    let loaded = Config::load(&subject.given, &subject.environment);
    let mut all = config::judge(&config::observe(&subject.given), loaded.as_ref());
    let wants = |area: &str| ids(area).iter().any(|id| !subject.left_out.contains(id));
    let Ok(config) = &loaded else {
        all.extend(host::judge(&host::observe(None, None).await));
        for area in ["state", "engine", "agent", "cloud"] {
            skip_rest(area, &mut all, "the settings are not accepted: see config-valid");
        }
        return in_order(all, &subject.left_out);
    };
    let store = crate::store::inspect(&config.state_dir).map_err(|e| e.to_string());
    let seen = store.as_ref();
    let engine = async { if wants("engine") { Some(Box::pin(engine::observe(config)).await) } else { None } };
    let (agent, engine) = tokio::join!(Box::pin(agent::observe(config)), engine);
    all.extend(state::judge(&state::observe(config, seen)));
    all.extend(host::judge(&host::observe(Some(config), seen.ok()).await));
    all.extend(engine.iter().flat_map(engine::judge));
    all.extend(agent::judge(&agent, seen.ok()));
    if wants("cloud") {
        let identity = seen.ok().and_then(|store| store.identity.as_ref());
        let cloud = Box::pin(cloud::observe(config, identity, &subject.environment)).await;
        all.extend(cloud::judge(&cloud, agent.status.as_ref().ok()));
    }
    in_order(all, &subject.left_out)
}

/// Returns one finding for each check, in the order of [`CHECKS`].
fn in_order(mut all: Vec<Finding>, left_out: &BTreeSet<&'static str>) -> Vec<Finding> {
    let one = |(id, _): &(&'static str, &str)| {
        if left_out.contains(id) {
            return skip(id, "left out by --dont-run");
        }
        let at = all.iter().position(|finding| finding.id == *id);
        at.map_or_else(|| skip(id, "it was not checked"), |at| all.swap_remove(at))
    };
    CHECKS.iter().map(one).collect()
}

/// The inspected store, or why its folder could not be read.
type Seen<'a> = Result<&'a Inspection, &'a String>;

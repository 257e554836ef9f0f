//! What the fleet wants of this device.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{App, AppId, Release};

/// The resolved target of one device. Absence of a target is never a `Target`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub device_name: String,
    /// The device's apps. Apps that are not ours to run (the host's, the balena supervisor's) are not in it.
    pub apps: BTreeMap<AppId, TargetApp>,
    /// The cloud's wish for the time between polls, when it has one.
    pub poll_interval: Option<Duration>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetApp {
    Wanted(WantedApp),
    Refused(RefusedApp),
}

/// An app whose release, if any, we can run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedApp {
    pub app: App,
    /// `None`: the app has no release, and nothing of it runs.
    pub release: Option<Release>,
    /// Fields that we do not honour but that do not stand in the way.
    pub warnings: Vec<Refusal>,
}

/// An app left exactly as it is, because its release asks for what we do not support.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedApp {
    /// As the target gives it; its uuid when even that cannot be read.
    pub name: String,
    /// As the target names it; it need not be a valid commit.
    pub release: String,
    pub refusals: Vec<Refusal>,
}

/// What we would not accept, and where.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Refusal {
    /// E.g. `services.web.composition.ports[0]`.
    pub path: String,
    pub why: String,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.path, self.why)
    }
}

//! Releases: what an app consists of at one commit.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{AppId, Commit, NetworkName, ServiceName, ServiceSpec, SpecHash, VolumeName, Window};

/// Which app something belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct App {
    pub id: AppId,
    /// The cloud's numeric id; it stands in names of containers, networks and volumes.
    pub number: u64,
    pub name: String,
}

/// An immutable set of services with their networks and volumes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    pub commit: Commit,
    /// The cloud's numeric id.
    pub number: u64,
    pub services: BTreeMap<ServiceName, ServiceSpec>,
    pub networks: BTreeMap<NetworkName, NetworkSpec>,
    pub volumes: BTreeMap<VolumeName, VolumeSpec>,
    /// What the author says of its trial.
    #[serde(default)]
    pub trial: TrialSpec,
    /// When it may be swapped: label `io.cotter.update.window` of any service. Empty: as the device's
    /// settings say.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub windows: BTreeSet<Window>,
}

/// How a release proves itself; `None` is as the device's settings say.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrialSpec {
    /// Label `io.cotter.trial.soak`, the longest of all services: how long all must be well.
    pub soak: Option<Duration>,
    /// Label `io.cotter.trial.deadline`, the longest of all services: how long that may take.
    pub deadline: Option<Duration>,
}

/// What tells one trial from another: the same commit with another environment is another release to try.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseKey {
    pub commit: Commit,
    pub specs: BTreeMap<ServiceName, SpecHash>,
}

impl Release {
    /// The key of this release.
    #[must_use]
    pub fn key(&self) -> ReleaseKey {
        let specs = self.services.iter().map(|(name, spec)| (name.clone(), spec.hash.clone())).collect();
        ReleaseKey { commit: self.commit.clone(), specs }
    }
}

/// A network of an app.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkSpec {
    /// Short hash of the author's config; `None` when there is no config. It ends the engine's name
    /// of the network, so that an old and a new config stand side by side.
    pub config_hash: Option<String>,
    /// Empty: `bridge`.
    pub driver: String,
    pub driver_opts: BTreeMap<String, String>,
    pub is_internal: bool,
    pub has_ipv6: bool,
    pub labels: BTreeMap<String, String>,
    pub subnets: Vec<Subnet>,
    /// Who hands out addresses. Empty: `default`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub ipam_driver: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ipam_options: BTreeMap<String, String>,
}

/// One address range of a network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subnet {
    pub subnet: Option<String>,
    pub gateway: Option<String>,
    pub ip_range: Option<String>,
    /// Addresses of others in it, by name: the engine hands them out to nobody.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub aux_addresses: BTreeMap<String, String>,
}

/// A volume of an app.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeSpec {
    /// Empty: `local`.
    pub driver: String,
    pub driver_opts: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
}

impl VolumeSpec {
    /// The path of the host that the volume is, if its options make it one.
    #[must_use]
    pub fn bound_path(&self) -> Option<&str> {
        let is_bind = |options: &String| options.split(',').any(|o| matches!(o.trim(), "bind" | "rbind"));
        let is_local = self.driver.is_empty() || self.driver == "local";
        let device = self.driver_opts.get("device").map_or("", String::as_str);
        (is_local && self.driver_opts.get("o").is_some_and(is_bind)).then_some(device)
    }
}

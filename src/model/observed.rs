//! What the engine says is there. Only things that bear our instance's label, but for images.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use super::names::Names;
use super::{
    AppId, Commit, ContainerId, ImageRef, Namespace, NetworkId, NetworkName, ServiceName, SpecHash,
    VolumeName,
};

/// One look at the engine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observed {
    pub services: Vec<ObservedService>,
    pub networks: Vec<ObservedNetwork>,
    /// Every reference under which the engine holds an image, whoever pulled it: digests and tags.
    pub images: BTreeSet<ImageRef>,
    /// Containers of ours that could not be removed and were put aside under another name: nothing but
    /// their removal is ever tried.
    pub parked: Vec<ObservedService>,
}

/// A container of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedService {
    pub container: ContainerId,
    pub app: AppId,
    pub service: ServiceName,
    /// The release for which it was created; a later one with the same spec keeps it.
    pub release: Commit,
    pub spec: SpecHash,
    /// As the container was created with it.
    pub image: String,
    /// From SIGTERM to SIGKILL, as its author wished when it was created.
    pub grace: Duration,
    pub state: ContainerState,
    pub health: Health,
    /// Whether a network that it is on was removed, and made anew without it: it cannot be started again.
    pub is_cut_off: bool,
    /// How often the engine has restarted it since we started it; only looked up while it is on trial.
    pub restarts: u64,
    /// The engine's word on it, e.g. "Up 3 minutes (healthy)".
    pub status: String,
    /// Published ports: container port to host ports. Empty while it does not run.
    pub ports: BTreeMap<u16, BTreeSet<u16>>,
    /// The networks that it is on, by the engine's names of them: those on which it was started last, which may
    /// be gone, and `None` for one that it has never met.
    pub networks: BTreeMap<String, Option<NetworkId>>,
    /// The containers whose namespaces it was created to join; they may be gone.
    pub joins: BTreeMap<Namespace, ContainerId>,
}

impl Observed {
    /// Whether a container can never start again, because one that it was created to join is gone.
    #[must_use]
    pub fn is_orphan(&self, seen: &ObservedService) -> bool {
        let is_here = |id: &ContainerId| self.services.iter().any(|s| s.container == *id);
        seen.joins.values().any(|id| !is_here(id))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContainerState {
    /// Never started.
    Created,
    Running,
    Paused,
    /// Exited and about to be started again by the engine.
    Restarting,
    Exited {
        code: i64,
    },
    /// The engine is removing it.
    Removing,
    /// The engine failed to remove it, or can never start it again.
    Dead,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// It has no healthcheck.
    Unchecked,
    Starting,
    Healthy,
    Unhealthy,
}

/// A volume, as the engine has it.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ObservedVolume {
    /// The engine's name of it.
    pub name: String,
    pub driver: String,
    pub options: BTreeMap<String, String>,
}

impl fmt::Debug for ObservedVolume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObservedVolume")
            .field("name", &self.name)
            .field("driver", &self.driver)
            .field("options", &Names(&self.options))
            .finish()
    }
}

/// A network of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedNetwork {
    pub id: NetworkId,
    pub app: AppId,
    pub network: NetworkName,
    /// As [`super::NetworkSpec::config_hash`].
    pub config_hash: Option<String>,
    /// The engine's name of it.
    pub name: String,
    /// Its address ranges, those among them that the engine has chosen.
    pub subnets: Vec<String>,
}

/// A named volume of ours. No look tells of it: only who is to remove it asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnVolume {
    /// As the engine calls it.
    pub id: String,
    pub app: AppId,
    pub volume: VolumeName,
    /// Containers that mount it, whoever made them and whether or not they run.
    pub used_by: BTreeSet<ContainerId>,
}

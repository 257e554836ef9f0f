//! What the engine reports. Except for images, only things with the label of our instance.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use super::names::Names;
use super::{
    AppId, Commit, ContainerId, ImageRef, LastEnd, Namespace, NetworkId, NetworkName, NetworkSpec,
    ServiceName, SpecHash, Target, VolumeName,
};

/// An observation of the engine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observed {
    pub services: Vec<ObservedService>,
    pub networks: Vec<ObservedNetwork>,
    /// Every reference of every image of the engine, whoever pulled it: digests and tags.
    pub images: BTreeSet<ImageRef>,
    /// Containers of ours that could not be removed and were parked under another name. Only their removal is tried.
    pub parked: Vec<ObservedService>,
    /// Containers of a balena supervisor that ran on this host before: see [`Observed::take_over`].
    pub originals: Vec<ObservedService>,
    /// Networks of a balena supervisor that ran on this host before: see [`Observed::take_over`].
    pub original_networks: Vec<OriginalNetwork>,
}

/// A container of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedService {
    pub container: ContainerId,
    pub app: AppId,
    pub service: ServiceName,
    /// The release for which it was created. A later release with the same spec keeps it.
    pub release: Commit,
    pub spec: SpecHash,
    /// The image reference with which it was created.
    pub image: String,
    /// The time from SIGTERM to SIGKILL, as its author set it when it was created.
    pub grace: Duration,
    pub state: ContainerState,
    pub health: Health,
    /// Whether one of its networks was removed and created again without it. Then it cannot be started again.
    pub is_cut_off: bool,
    /// How often the engine has restarted it since we started it. It is requested only during a trial.
    pub restarts: u64,
    /// How it ended last, as far as that is known: the engine forgets it when the container runs again.
    pub last_end: Option<LastEnd>,
    /// The engine's text, e.g. "Up 3 minutes (healthy)".
    pub status: String,
    /// Published ports: container port to host ports. Empty while it does not run.
    pub ports: BTreeMap<u16, BTreeSet<u16>>,
    /// Its networks by name, each with the id of the network at its last start, which may not exist any more. `None`: it
    /// has not been started with this network.
    pub networks: BTreeMap<String, Option<NetworkId>>,
    /// The containers whose namespaces it was created to join. They may not exist any more.
    pub joins: BTreeMap<Namespace, ContainerId>,
    /// When it was created, in seconds since 1970; 0 if the engine does not report it.
    pub created: i64,
    /// The mark of its access to the supervisor API when it was created: [`super::Introduction::mark`].
    pub introduced: Option<String>,
    /// Whether that access is outdated, e.g. because the key was changed. Then it is created again before its next
    /// start.
    pub is_outdated: bool,
}

impl Observed {
    /// Counts the containers that a balena supervisor left as ours, if `target` has their app with a release. No release
    /// has their spec, so each of them is stopped when its service is swapped, and then removed. Those of other apps stay
    /// as they are. The networks of these apps count as ours, too.
    pub fn take_over(&mut self, target: Option<&Target>) {
        let is_wanted = |seen: &ObservedService| {
            let app = target.and_then(|target| target.apps.get(&seen.app));
            app.is_some_and(|app| app.release().is_some())
        };
        let originals = std::mem::take(&mut self.originals);
        self.services.extend(originals.into_iter().filter(is_wanted));
        let owned = |network: OriginalNetwork| {
            let is_of = |id: &AppId, number: Option<u64>| {
                id.as_str() == network.of || number.is_some_and(|number| number.to_string() == network.of)
            };
            let (id, app) = target?.apps.iter().find(|(id, app)| is_of(id, app.number()))?;
            app.release().is_some().then(|| network.of_app(id))
        };
        let networks = std::mem::take(&mut self.original_networks);
        self.networks.extend(networks.into_iter().filter_map(owned));
    }

    /// Returns `true` if a container can never start again, because one that it joins does not exist any more.
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
    /// Exited, and the engine is about to start it again.
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

/// A volume, as the engine reports it.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ObservedVolume {
    /// Its name on the engine.
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
    /// Its name on the engine.
    pub name: String,
    /// Its address ranges, including those that the engine has chosen.
    pub subnets: Vec<String>,
    /// The host's own address on it. `None` if it has none, or if the network is not a bridge of the engine.
    pub gateway: Option<IpAddr>,
    /// Whether a balena supervisor created it. Then it is removed only to make room for another one.
    pub is_original: bool,
}

impl ObservedNetwork {
    /// Returns `true` if it is a balena supervisor's and has the name on the engine that this network of the app would
    /// have, although it is another one.
    #[must_use]
    pub fn takes_the_name_of(&self, name: &NetworkName, spec: &NetworkSpec) -> bool {
        let is_same = self.config_hash == spec.config_hash;
        self.is_original
            && is_named_by_number(&self.name)
            && self.network == *name
            && spec.config_hash.is_none()
            && !is_same
    }
}

/// Returns `true` for a name of the form `NUMBER_name`.
fn is_named_by_number(name: &str) -> bool {
    name.split_once('_').is_some_and(|(of, _)| of.parse::<u64>().is_ok())
}

/// A network that a balena supervisor created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OriginalNetwork {
    /// The uuid of its app or, in names of older supervisors, the number.
    pub of: String,
    pub id: NetworkId,
    pub network: NetworkName,
    /// Whether it has no config: then it is the same as a network of ours with its name.
    pub is_plain: bool,
    /// Its name on the engine.
    pub name: String,
    pub subnets: Vec<String>,
    pub gateway: Option<IpAddr>,
}

impl OriginalNetwork {
    fn of_app(self, app: &AppId) -> ObservedNetwork {
        let Self { id, network, is_plain, name, subnets, gateway, .. } = self;
        // Ours are named by the number, so containers could not join one with another name. No config of a release has this
        // hash.
        let config_hash = (!is_plain || !is_named_by_number(&name)).then(|| "original".to_owned());
        let app = app.clone();
        ObservedNetwork { id, app, network, config_hash, name, subnets, gateway, is_original: true }
    }
}

/// A named volume of ours. It is not part of an observation, and requested only before a removal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnVolume {
    /// Its name on the engine.
    pub id: String,
    pub app: AppId,
    pub volume: VolumeName,
    /// All containers that mount it, whoever created them and whether or not they run.
    pub used_by: BTreeSet<ContainerId>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_network_that_has_our_name_is_as_good_as_ours() {
        for (name, is_plain, is_ours) in
            [("7_lan", true, true), ("7_lan", false, false), ("0abc_lan", true, false), ("lan", true, false)]
        {
            let found = OriginalNetwork {
                of: "7".to_owned(),
                id: NetworkId::parse("n1").unwrap(),
                network: NetworkName::parse("lan").unwrap(),
                is_plain,
                name: name.to_owned(),
                subnets: Vec::new(),
                gateway: None,
            };
            let owned = found.of_app(&AppId::parse("ab".repeat(16)).unwrap());
            assert_eq!(owned.config_hash.is_none(), is_ours, "{name} {is_plain}");
        }
    }
}

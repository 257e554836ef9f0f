//! Networks and volumes of the fake engine.

use std::collections::{BTreeMap, BTreeSet};

use crate::engine::{EngineError, docker_spec};
use crate::model::{
    App, AppId, ContainerId, Instance, NetworkId, NetworkName, NetworkSpec, ObservedNetwork, ObservedService,
    ObservedVolume, VolumeName, VolumeSpec,
};

use super::inside::Inside;
use super::is_up;

impl Inside {
    pub(super) fn create_network(
        &mut self,
        app: &App,
        network: &NetworkName,
        spec: &NetworkSpec,
        name: String,
    ) -> Result<(), EngineError> {
        self.made += 1;
        let Ok(id) = NetworkId::parse(format!("n{}", self.made)) else { return Ok(()) };
        // The caller checks for the name first: the engine itself accepts two networks of one name.
        if !self.is_late && self.observed.networks.iter().any(|n| n.name == name) {
            return Ok(());
        }
        if self.observed.networks.iter().any(|n| spec.overlaps(&n.subnets)) {
            let message = "Pool overlaps with other one on this address space".to_owned();
            return Err(EngineError::Refused { call: "create-network", status: 403, message });
        }
        self.observed.networks.push(ObservedNetwork {
            id,
            app: app.id.clone(),
            network: network.clone(),
            config_hash: spec.config_hash.clone(),
            name,
            subnets: spec.ranges(),
            gateway: None,
            is_original: false,
        });
        Ok(())
    }

    pub(super) fn remove_network(&mut self, id: &NetworkId) -> Result<(), EngineError> {
        let is_on = |seen: &&ObservedService| seen.networks.values().any(|on| on.as_ref() == Some(id));
        if self.everything().filter(is_on).any(|seen| is_up(seen.state)) {
            let message = "network has active endpoints".to_owned();
            return Err(EngineError::Refused { call: "remove-network", status: 403, message });
        }
        self.observed.networks.retain(|n| n.id != *id);
        Ok(())
    }

    pub(super) fn volumes_of(
        &self,
        instance: &Instance,
        app: &App,
        names: &BTreeSet<VolumeName>,
    ) -> BTreeMap<VolumeName, ObservedVolume> {
        let here = self.volumes.iter().filter(|((of, name), _)| *of == app.id && names.contains(name));
        let observed = |((_, name), spec): (&(AppId, VolumeName), &VolumeSpec)| {
            let request = docker_spec::volume(instance, app, name, spec);
            let (full_name, driver) = (request.name.unwrap_or_default(), request.driver.unwrap_or_default());
            let options = spec.driver_opts.clone();
            (name.clone(), ObservedVolume { name: full_name, driver, options })
        };
        here.map(observed).collect()
    }

    /// The current networks of a container: those that it is bound to, and else those with the same name.
    pub(super) fn meet(
        &self,
        known: &BTreeMap<String, Option<NetworkId>>,
    ) -> Result<BTreeMap<String, Option<NetworkId>>, String> {
        let meet = |(name, id): (&String, &Option<NetworkId>)| {
            let is_it = |n: &&ObservedNetwork| id.as_ref().map_or(n.name == *name, |id| n.id == *id);
            let mut found = self.observed.networks.iter().filter(is_it);
            let (found, other) = (found.next(), found.next());
            if other.is_some() {
                return Err(format!("{name} is ambiguous: 2 matches"));
            }
            let missing = || id.as_ref().map_or(name.as_str(), |id| id.as_str()).to_owned();
            Ok((name.clone(), Some(found.ok_or_else(missing)?.id.clone())))
        };
        known.iter().map(meet).collect()
    }

    /// Connects a stopped container to networks of these names.
    pub(super) fn reconnect(
        &mut self,
        id: &ContainerId,
        names: BTreeMap<String, Option<NetworkId>>,
    ) -> Result<(), EngineError> {
        let refused = |message| Err(EngineError::Refused { call: "reconnect", status: 404, message });
        if let Err(name) = self.meet(&names) {
            return refused(format!("network {name} not found"));
        }
        match self.find(id) {
            Some(seen) => seen.networks = names,
            None => return refused(format!("No such container: {id}")),
        }
        Ok(())
    }
}

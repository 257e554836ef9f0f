//! The state of the fake engine, and the effect of each call.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

use crate::engine::{EngineError, NewContainer, docker_spec};
use crate::model::{
    AppId, ContainerId, ContainerState, Health, HeldPort, ImageRef, Instance, LastEnd, MountSource,
    NetworkId, Observed, ObservedService, Probe, ServiceName, ServiceSpec, VolumeName, VolumeSpec,
};

use super::{Behaviour, Fault, is_up, mounts};

#[derive(Debug, Default)]
pub(super) struct Inside {
    pub(super) observed: Observed,
    pub(super) names: BTreeMap<ContainerId, String>,
    pub(super) specs: BTreeMap<ContainerId, ServiceSpec>,
    pub(super) volumes: BTreeMap<(AppId, VolumeName), VolumeSpec>,
    pub(super) registry: BTreeSet<ImageRef>,
    pub(super) unreachable: BTreeSet<ImageRef>,
    /// Images whose pulls fail: the bytes that each pull costs, and what the engine says.
    pub(super) broken: BTreeMap<ImageRef, (u64, String)>,
    /// Whether registries accept a login only, and no token.
    pub(super) takes_no_token: bool,
    pub(super) behaviours: BTreeMap<ImageRef, Behaviour>,
    pub(super) faults: BTreeMap<usize, Fault>,
    /// Calls that always fail.
    pub(super) never: BTreeSet<String>,
    /// Calls that the engine takes for wrong.
    pub(super) wrong: BTreeSet<String>,
    pub(super) slow: BTreeMap<ImageRef, Duration>,
    pub(super) calls: Vec<String>,
    pub(super) swaps: usize,
    /// When containers crash that do so after some time.
    pub(super) ends: BTreeMap<ContainerId, Instant>,
    pub(super) made: u64,
    /// The number of the last start of each container.
    pub(super) starts: BTreeMap<ContainerId, u64>,
    has_started: u64,
    /// The services whose containers the engine has restarted by itself.
    pub(super) restarted: Vec<(AppId, ServiceName)>,
    pub(super) layers: BTreeMap<ImageRef, BTreeSet<String>>,
    pub(super) architecture: Option<String>,
    pub(super) is_down: bool,
    /// Calls that are still to be executed, although their caller is gone.
    pub(super) late: Vec<LateCall>,
    /// Whether such a call is being executed.
    pub(super) is_late: bool,
    /// Services that had two running containers at once.
    pub(super) doubles: Vec<String>,
    /// The published ports of each started container: its own and the host's.
    published: BTreeMap<ContainerId, Vec<(u16, HeldPort)>>,
}

/// A call that the engine has not executed yet, and whose caller is gone.
pub(super) struct LateCall {
    pub(super) verb: &'static str,
    /// The container, or whatever else the call is about.
    pub(super) what: String,
    pub(super) due: Instant,
    pub(super) act: Box<dyn FnOnce(&mut Inside) + Send>,
}

impl fmt::Debug for LateCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.verb, self.what)
    }
}

/// The engine's names of the networks of a new container. It has met none of them yet.
pub(super) fn unmet(instance: &Instance, new: NewContainer<'_>) -> BTreeMap<String, Option<NetworkId>> {
    let (_, endpoints) = docker_spec::endpoints(instance, new);
    endpoints.into_iter().map(|(name, _)| (name, None)).collect()
}

/// The first host port for containers that name none.
const FIRST_PICKED: u16 = 49153;

impl Inside {
    pub(super) fn find(&mut self, id: &ContainerId) -> Option<&mut ObservedService> {
        let Observed { services, parked, .. } = &mut self.observed;
        services.iter_mut().chain(parked).find(|s| s.container == *id)
    }

    /// All containers, including parked ones.
    pub(super) fn everything(&self) -> impl Iterator<Item = &ObservedService> {
        self.observed.services.iter().chain(&self.observed.parked)
    }

    /// The containers that mount a volume.
    pub(super) fn users(&self, app: &AppId, volume: &VolumeName) -> BTreeSet<ContainerId> {
        let mounts = |seen: &&ObservedService| {
            let spec = self.specs.get(&seen.container);
            seen.app == *app
                && spec.is_some_and(|spec| {
                    spec.mounts.iter().any(|m| m.source == MountSource::Volume(volume.clone()))
                })
        };
        self.everything().filter(mounts).map(|seen| seen.container.clone()).collect()
    }

    pub(super) fn observed(&self) -> Observed {
        let mut observed = self.observed.clone();
        for seen in &mut observed.services {
            seen.last_end = last_end(seen.state);
            seen.is_cut_off = seen.networks.iter().any(|(name, id)| {
                let mut named = observed.networks.iter().filter(|n| n.name == *name).peekable();
                id.is_some() && named.peek().is_some() && named.all(|n| id.as_ref() != Some(&n.id))
            });
            let ports = self.published.get(&seen.container).filter(|_| has_ports(seen.state));
            for (port, held) in ports.into_iter().flatten() {
                seen.ports.entry(*port).or_default().insert(held.port);
            }
        }
        observed
    }

    pub(super) fn create(&mut self, instance: &Instance, new: NewContainer<'_>) -> Result<(), EngineError> {
        let refused = |status, message: String| Err(EngineError::Refused { call: "create", status, message });
        let NewContainer { app, release, service, spec, .. } = new;
        if !self.observed.images.contains(&spec.image) {
            return refused(404, format!("No such image: {}", spec.image));
        }
        let name = docker_spec::container_name(instance, app, service, spec);
        let partial = format!("{name}{}", docker_spec::PARTIAL);
        let networks = unmet(instance, new);
        let is_taken = |n: &String| *n == name || (networks.len() > 1 && *n == partial);
        if self.names.values().any(is_taken) {
            return refused(409, format!("The container name {name} is already in use"));
        }
        self.made += 1;
        let Ok(container) = ContainerId::parse(format!("{:064x}", self.made)) else {
            return refused(500, "no id".to_owned());
        };
        for mount in &spec.mounts {
            if let MountSource::Volume(name) = &mount.source {
                let config = new.volumes.get(name).cloned().unwrap_or_default();
                // An existing one stays as it is.
                self.volumes.entry((app.id.clone(), name.clone())).or_insert(config);
            }
        }
        self.names.insert(container.clone(), name);
        self.specs.insert(container.clone(), spec.clone());
        self.observed.services.push(ObservedService {
            container,
            app: app.id.clone(),
            service: service.clone(),
            release: release.clone(),
            spec: spec.hash.clone(),
            image: spec.image.to_string(),
            grace: Duration::from_secs(docker_spec::grace_seconds(spec)),
            state: ContainerState::Created,
            health: Health::Unchecked,
            is_cut_off: false,
            restarts: 0,
            last_end: None,
            status: "Created".to_owned(),
            ports: BTreeMap::new(),
            networks,
            joins: docker_spec::joins(new),
            created: 0,
            introduced: new.introduction.mark(),
            is_outdated: false,
        });
        Ok(())
    }

    pub(super) fn start(&mut self, id: &ContainerId) -> Result<(), EngineError> {
        let spec = self.specs.get(id).cloned();
        let is_forever = spec.as_ref().is_some_and(|spec| spec.restart.is_forever());
        let probe = spec.as_ref().and_then(|spec| spec.healthcheck.as_ref()).map(|check| &check.probe);
        let is_checked = matches!(probe, Some(Probe::Command(_) | Probe::Shell(_)));
        let behaviours = self.behaviours.clone();
        let refused = |message| Err(EngineError::Refused { call: "start", status: 404, message });
        let Some(known) = self.find(id).map(|seen| seen.networks.clone()) else {
            return refused(format!("No such container: {id}"));
        };
        let networks = match self.meet(&known) {
            Ok(networks) => networks,
            Err(name) => return refused(format!("network {name} not found")),
        };
        let app = self.find(id).map(|seen| seen.app.clone());
        if let Some((app, spec)) = app.as_ref().zip(spec.as_ref()) {
            mounts::mount(app, spec, &self.volumes)?;
        }
        self.check_joins(id)?;
        self.has_started += 1;
        let number = self.has_started;
        let Some(seen) = self.find(id).filter(|seen| !is_up(seen.state)) else { return Ok(()) };
        seen.networks = networks;
        let image = ImageRef::parse(&seen.image).ok();
        let behaviour = image.and_then(|i| behaviours.get(&i).copied()).unwrap_or_default();
        let ends_after = if let Behaviour::CrashesAfter(time) = behaviour { Some(time) } else { None };
        (seen.state, seen.health, seen.status) = match behaviour {
            Behaviour::Runs if is_checked => {
                (ContainerState::Running, Health::Healthy, "Up (healthy)".to_owned())
            }
            Behaviour::Runs | Behaviour::CrashesAfter(_) => {
                (ContainerState::Running, Health::Unchecked, "Up".to_owned())
            }
            Behaviour::Crashes if is_forever => {
                (ContainerState::Restarting, Health::Unchecked, "Restarting (1)".to_owned())
            }
            Behaviour::Crashes => {
                (ContainerState::Exited { code: 1 }, Health::Unchecked, "Exited (1)".to_owned())
            }
            Behaviour::Exits(code) => {
                (ContainerState::Exited { code }, Health::Unchecked, format!("Exited ({code})"))
            }
            Behaviour::Reports(health) => (ContainerState::Running, health, format!("Up ({health:?})")),
        };
        let is_restarted = seen.state == ContainerState::Restarting;
        let whose = is_restarted.then(|| (seen.app.clone(), seen.service.clone()));
        self.restarted.extend(whose);
        self.ends.extend(ends_after.map(|time| (id.clone(), Instant::now() + time)));
        self.starts.insert(id.clone(), number);
        self.publish(id);
        self.note_double(id);
        Ok(())
    }

    /// Refuses to start a container that joins one that does not run.
    fn check_joins(&mut self, id: &ContainerId) -> Result<(), EngineError> {
        let refused = |status, message| Err(EngineError::Refused { call: "start", status, message });
        let joins: Vec<_> = self.find(id).into_iter().flat_map(|seen| seen.joins.clone()).collect();
        for (kind, other) in joins {
            match self.find(&other).map(|seen| seen.state) {
                None => return refused(404, format!("No such container: {other}")),
                Some(ContainerState::Running) => {}
                Some(_) => {
                    let kind = kind.as_str();
                    return refused(409, format!("cannot join {kind} of a non running container: {other}"));
                }
            }
        }
        Ok(())
    }

    /// Notes if another container of the service runs at the same time as the one that was just started.
    fn note_double(&mut self, id: &ContainerId) {
        let up: Vec<_> = self.everything().filter(|seen| is_up(seen.state)).collect();
        let Some(seen) = up.iter().find(|seen| seen.container == *id) else { return };
        let is_other = |other: &&&ObservedService| {
            other.app == seen.app && other.service == seen.service && other.container != *id
        };
        if let Some(other) = up.iter().find(is_other) {
            let double = format!("{} of {} beside {}", seen.service, seen.release, other.release);
            self.doubles.push(double);
        }
    }

    fn publish(&mut self, id: &ContainerId) {
        let ports = self.specs.get(id).map_or(&[][..], |spec| &spec.ports);
        let by = self.names.get(id).cloned().unwrap_or_default();
        let is_taken = |port| self.published.values().flatten().any(|(_, held)| held.port == port);
        let mut free = (FIRST_PICKED..=u16::MAX).filter(|port| !is_taken(*port));
        let held = ports.iter().filter_map(|port| {
            let (host_ip, protocol, by) = (port.host_ip.clone(), port.protocol, by.clone());
            let host_port = port.host_port.or_else(|| free.next())?;
            let container = Some(id.clone());
            Some((port.container_port, HeldPort { host_ip, port: host_port, protocol, container, by }))
        });
        let held = held.collect();
        self.published.insert(id.clone(), held);
    }

    /// Ends a running container, and the engine does not restart it.
    pub(super) fn end(&mut self, id: &ContainerId, code: i64) {
        if let Some(seen) = self.find(id).filter(|seen| is_up(seen.state)) {
            (seen.state, seen.health) = (ContainerState::Exited { code }, Health::Unchecked);
            seen.status = format!("Exited ({code})");
            self.published.remove(id);
        }
    }

    /// Starts the engine after an outage that ended all containers.
    pub(super) fn come_up(&mut self) {
        self.is_down = false;
        let ran: Vec<_> =
            self.everything().filter(|seen| is_up(seen.state)).map(|s| s.container.clone()).collect();
        ran.iter().for_each(|id| self.end(id, 137));
        for id in ran {
            if self.specs.get(&id).is_some_and(|spec| spec.restart.is_forever()) {
                // A container that cannot be started stays down, as on a real engine.
                let _ = self.start(&id);
            }
        }
    }

    /// Applies the passed time to all containers.
    pub(super) fn grow_old(&mut self) {
        let is_over = |end: &Instant| *end <= Instant::now();
        for seen in self.observed.services.iter_mut().filter(|seen| seen.state == ContainerState::Running) {
            if self.ends.get(&seen.container).is_some_and(is_over) {
                let is_forever = self.specs.get(&seen.container).is_some_and(|s| s.restart.is_forever());
                (seen.state, seen.status) = if is_forever {
                    self.restarted.push((seen.app.clone(), seen.service.clone()));
                    (ContainerState::Restarting, "Restarting (1)".to_owned())
                } else {
                    (ContainerState::Exited { code: 1 }, "Exited (1)".to_owned())
                };
            }
        }
    }

    /// Parks a container under another name.
    pub(super) fn park(&mut self, id: &ContainerId) {
        let Some(at) = self.observed.services.iter().position(|s| s.container == *id) else { return };
        let seen = self.observed.services.remove(at);
        self.observed.parked.push(seen);
        self.names.insert(id.clone(), docker_spec::parked_name(id.as_str()));
    }

    pub(super) fn remove(&mut self, id: &ContainerId) -> Result<(), EngineError> {
        if self.find(id).is_some_and(|seen| is_up(seen.state)) {
            let message = "You cannot remove a running container".to_owned();
            return Err(EngineError::Refused { call: "remove", status: 409, message });
        }
        self.forget(id);
        Ok(())
    }

    pub(super) fn forget(&mut self, id: &ContainerId) {
        self.names.remove(id);
        self.specs.remove(id);
        self.published.remove(id);
        self.observed.services.retain(|s| s.container != *id);
        self.observed.parked.retain(|s| s.container != *id);
    }

    /// The host ports that running containers publish.
    pub(super) fn published(&self) -> Vec<HeldPort> {
        let running = self.everything().filter(|seen| has_ports(seen.state));
        let held = running.flat_map(|seen| self.published.get(&seen.container).into_iter().flatten());
        held.map(|(_, held)| held.clone()).collect()
    }
}

/// Returns `true` if a container holds its ports. They are free while it waits for a restart.
fn has_ports(state: ContainerState) -> bool {
    matches!(state, ContainerState::Running | ContainerState::Paused)
}

/// How a container in this state has ended; `None` for one that has not.
pub(super) fn last_end(state: ContainerState) -> Option<LastEnd> {
    match state {
        ContainerState::Exited { code } => Some(LastEnd::with_code(code)),
        ContainerState::Restarting => Some(LastEnd::with_code(1)),
        ContainerState::Created
        | ContainerState::Running
        | ContainerState::Paused
        | ContainerState::Removing
        | ContainerState::Dead => None,
    }
}

//! A device in memory, with a script of faults: for tests that need a fault at a given call.
//!
//! It passes the same contract tests as the real engine (`tests/engine_contract.rs`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::{Stream, stream};
use tokio::sync::{mpsc, watch};

use crate::model::{
    App, AppId, ContainerId, ContainerState, Health, ImageRef, Instance, MountSource, NetworkId, NetworkMode,
    NetworkName, NetworkSpec, Observed, ObservedNetwork, ObservedService, Probe, ServiceSpec, VolumeName,
};

use super::{EngineError, Inspect, NewContainer, Operate, docker_spec};

/// What goes wrong with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Refused with status 500, and nothing happened.
    Error,
    /// Refused with status 500, but it did happen.
    ErrorAfter,
    /// The engine is gone for this call.
    Unreachable,
    /// The call never returns.
    Hang,
}

/// What a container of an image does once it is started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Behaviour {
    #[default]
    Runs,
    /// Keeps exiting and is restarted by the engine.
    Crashes,
    /// Exits at once with this code.
    Exits(i64),
    /// Its healthcheck says so.
    Reports(Health),
}

/// An engine in memory.
#[derive(Debug)]
pub struct Fake {
    instance: Instance,
    inside: Mutex<Inside>,
    changed: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Inside {
    observed: Observed,
    names: BTreeMap<ContainerId, String>,
    specs: BTreeMap<ContainerId, ServiceSpec>,
    volumes: BTreeSet<VolumeName>,
    registry: BTreeSet<ImageRef>,
    unreachable: BTreeSet<ImageRef>,
    behaviours: BTreeMap<ImageRef, Behaviour>,
    faults: BTreeMap<usize, Fault>,
    calls: Vec<String>,
    made: u64,
}

impl Fake {
    /// An engine that holds nothing.
    #[must_use]
    pub fn new(instance: Instance) -> Self {
        Self { instance, inside: Mutex::new(Inside::default()), changed: watch::Sender::new(0) }
    }

    /// Puts an image into the registry, and says what its containers do.
    pub fn publish(&self, image: &ImageRef, behaviour: Behaviour) {
        let mut inside = self.inside();
        inside.registry.insert(image.clone());
        inside.behaviours.insert(image.clone(), behaviour);
    }

    /// Takes an image out of the registry; the engine keeps it if it has it.
    pub fn unpublish(&self, image: &ImageRef) {
        self.inside().registry.remove(image);
    }

    /// Makes the registry of an image one that does not answer.
    pub fn cut_registry(&self, image: &ImageRef) {
        self.inside().unreachable.insert(image.clone());
    }

    /// Makes the `n`-th call from now on (0 is the next) go wrong.
    pub fn fail(&self, n: usize, fault: Fault) {
        let mut inside = self.inside();
        let at = inside.calls.len() + n;
        inside.faults.insert(at, fault);
    }

    /// The calls that changed something or tried to, and the looks, in their order.
    #[must_use]
    pub fn calls(&self) -> Vec<String> {
        self.inside().calls.clone()
    }

    /// Names of the volumes that were ever created.
    #[must_use]
    pub fn volumes(&self) -> BTreeSet<VolumeName> {
        self.inside().volumes.clone()
    }

    /// On how many networks a container is.
    #[must_use]
    pub fn networks_of(&self, id: &ContainerId) -> usize {
        self.inside().specs.get(id).map_or(0, |spec| attached(spec).count())
    }

    /// Makes a container look as if the power went while it was created.
    pub fn cut_short(&self, id: &ContainerId) {
        let mut inside = self.inside();
        if let Some(name) = inside.names.get_mut(id) {
            name.push_str(docker_spec::PARTIAL);
        }
        if let Some(seen) = inside.find(id) {
            seen.state = ContainerState::Dead;
        }
    }

    /// Does what somebody else would do behind our back, and lets the event be seen.
    pub fn meddle(&self, change: impl FnOnce(&mut Vec<ObservedService>)) {
        self.meddle_unheard(change);
        self.tell();
    }

    /// As [`meddle`](Self::meddle), but without an event.
    pub fn meddle_unheard(&self, change: impl FnOnce(&mut Vec<ObservedService>)) {
        let mut inside = self.inside();
        change(&mut inside.observed.services);
        let left: BTreeSet<_> = inside.observed.services.iter().map(|s| s.container.clone()).collect();
        inside.names.retain(|id, _| left.contains(id));
        inside.specs.retain(|id, _| left.contains(id));
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self) {
        self.changed.send_modify(|n| *n += 1);
    }

    /// Makes a call: notes it, lets its fault happen, else does `act`.
    async fn call<T>(
        &self,
        name: &'static str,
        what: &str,
        act: impl FnOnce(&mut Inside) -> Result<T, EngineError> + Send,
    ) -> Result<T, EngineError> {
        let refused = || EngineError::Refused { call: name, status: 500, message: "scripted".to_owned() };
        let fault = {
            let mut inside = self.inside();
            let at = inside.calls.len();
            inside.calls.push(format!("{name} {what}").trim_end().to_owned());
            inside.faults.remove(&at)
        };
        match fault {
            None => {
                let done = act(&mut self.inside());
                if matches!(name, "start" | "stop" | "remove") {
                    self.tell();
                }
                done
            }
            Some(Fault::Error) => Err(refused()),
            Some(Fault::ErrorAfter) => act(&mut self.inside()).and_then(|_| Err(refused())),
            Some(Fault::Unreachable) => {
                Err(EngineError::Unreachable { socket: "fake".to_owned(), why: "scripted".to_owned() })
            }
            Some(Fault::Hang) => {
                tokio::time::sleep(EngineError::DEADLINE).await;
                Err(EngineError::Timeout { call: name, seconds: EngineError::DEADLINE.as_secs() })
            }
        }
    }
}

/// The networks of the app that a container is on.
fn attached(spec: &ServiceSpec) -> impl Iterator<Item = &NetworkName> {
    let attached = match &spec.network_mode {
        NetworkMode::Networks(attached) => Some(attached),
        NetworkMode::Host | NetworkMode::None | NetworkMode::Bridge => None,
    };
    attached.into_iter().flat_map(BTreeMap::keys)
}

/// What the engine takes for running: it neither removes such a container nor its networks.
fn is_up(state: ContainerState) -> bool {
    matches!(state, ContainerState::Running | ContainerState::Paused | ContainerState::Restarting)
}

impl Inside {
    fn find(&mut self, id: &ContainerId) -> Option<&mut ObservedService> {
        self.observed.services.iter_mut().find(|s| s.container == *id)
    }

    fn create(&mut self, instance: &Instance, new: NewContainer<'_>) -> Result<(), EngineError> {
        let refused = |status, message: String| Err(EngineError::Refused { call: "create", status, message });
        let NewContainer { app, release, service, spec, .. } = new;
        if !self.observed.images.contains(&spec.image) {
            return refused(404, format!("No such image: {}", spec.image));
        }
        let name = docker_spec::container_name(instance, app, service, spec);
        let partial = format!("{name}{}", docker_spec::PARTIAL);
        let is_taken = |n: &String| *n == name || (attached(spec).count() > 1 && *n == partial);
        if self.names.values().any(is_taken) {
            return refused(409, format!("The container name {name} is already in use"));
        }
        self.made += 1;
        let Ok(container) = ContainerId::parse(format!("{:064x}", self.made)) else {
            return refused(500, "no id".to_owned());
        };
        self.volumes.extend(spec.mounts.iter().filter_map(|m| match &m.source {
            MountSource::Volume(name) => Some(name.clone()),
            MountSource::Anonymous => None,
        }));
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
            restarts: 0,
            status: "Created".to_owned(),
            ports: BTreeMap::new(),
        });
        Ok(())
    }

    fn has_network(&self, app: &AppId, name: &NetworkName) -> bool {
        self.observed.networks.iter().any(|n| n.app == *app && n.network == *name)
    }

    fn start(&mut self, id: &ContainerId) -> Result<(), EngineError> {
        let spec = self.specs.get(id).cloned();
        let is_forever = spec.as_ref().is_some_and(|spec| spec.restart.is_forever());
        let probe = spec.as_ref().and_then(|spec| spec.healthcheck.as_ref()).map(|check| &check.probe);
        let is_checked = matches!(probe, Some(Probe::Command(_) | Probe::Shell(_)));
        let behaviours = self.behaviours.clone();
        let refused = |message| Err(EngineError::Refused { call: "start", status: 404, message });
        let Some(app) = self.find(id).map(|seen| seen.app.clone()) else {
            return refused(format!("No such container: {id}"));
        };
        let mut networks = spec.iter().flat_map(attached);
        if let Some(name) = networks.find(|name| !self.has_network(&app, name)) {
            return refused(format!("network {name} not found"));
        }
        let Some(seen) = self.find(id).filter(|seen| !is_up(seen.state)) else { return Ok(()) };
        let image = ImageRef::parse(&seen.image).ok();
        let behaviour = image.and_then(|i| behaviours.get(&i).copied()).unwrap_or_default();
        (seen.state, seen.health, seen.status) = match behaviour {
            Behaviour::Runs if is_checked => {
                (ContainerState::Running, Health::Healthy, "Up 1 second (healthy)".to_owned())
            }
            Behaviour::Runs => (ContainerState::Running, Health::Unchecked, "Up 1 second".to_owned()),
            Behaviour::Crashes if is_forever => {
                (ContainerState::Restarting, Health::Unchecked, "Restarting (1) 1 second ago".to_owned())
            }
            Behaviour::Crashes => {
                (ContainerState::Exited { code: 1 }, Health::Unchecked, "Exited (1) 1 second ago".to_owned())
            }
            Behaviour::Exits(code) => {
                (ContainerState::Exited { code }, Health::Unchecked, format!("Exited ({code}) 1 second ago"))
            }
            Behaviour::Reports(health) => {
                (ContainerState::Running, health, format!("Up 1 second ({health:?})"))
            }
        };
        Ok(())
    }

    fn remove(&mut self, id: &ContainerId) -> Result<(), EngineError> {
        if self.find(id).is_some_and(|seen| is_up(seen.state)) {
            let message = "You cannot remove a running container".to_owned();
            return Err(EngineError::Refused { call: "remove", status: 409, message });
        }
        self.names.remove(id);
        self.specs.remove(id);
        self.observed.services.retain(|s| s.container != *id);
        Ok(())
    }
}

impl Inspect for Fake {
    async fn observe(&self) -> Result<Observed, EngineError> {
        self.call("list", "", |inside| Ok(inside.observed.clone())).await
    }

    async fn restarts(&self, id: &ContainerId) -> Result<u64, EngineError> {
        self.call("inspect", id.as_str(), |inside| {
            let count = inside.find(id).map_or(0, |seen| match seen.state {
                ContainerState::Restarting => 5,
                ContainerState::Created
                | ContainerState::Running
                | ContainerState::Paused
                | ContainerState::Exited { .. }
                | ContainerState::Removing
                | ContainerState::Dead => 0,
            });
            Ok(count)
        })
        .await
    }

    fn events(&self) -> impl Stream<Item = Result<(), EngineError>> + Send {
        stream::unfold(self.changed.subscribe(), |mut changed| async move {
            changed.changed().await.ok().map(|()| (Ok(()), changed))
        })
    }
}

impl Operate for Fake {
    async fn pull(&self, image: &ImageRef, progress: mpsc::Sender<u8>) -> Result<(), EngineError> {
        let _ = progress.try_send(50);
        self.call("pull", &image.to_string(), |inside| {
            if inside.unreachable.contains(image) {
                return Err(EngineError::of_pull(&image.to_string(), "connect: connection refused"));
            }
            if inside.registry.contains(image) {
                inside.observed.images.insert(image.clone());
                return Ok(());
            }
            Err(EngineError::of_pull(&image.to_string(), "manifest unknown"))
        })
        .await
    }

    async fn create_network(
        &self,
        app: &App,
        name: &NetworkName,
        spec: &NetworkSpec,
    ) -> Result<(), EngineError> {
        self.call("create-network", name.as_str(), |inside| {
            inside.made += 1;
            let Ok(id) = NetworkId::parse(format!("n{}", inside.made)) else { return Ok(()) };
            let (app, network, config_hash) = (app.id.clone(), name.clone(), spec.config_hash.clone());
            let same =
                |n: &ObservedNetwork| n.app == app && n.network == network && n.config_hash == config_hash;
            if !inside.observed.networks.iter().any(same) {
                inside.observed.networks.push(ObservedNetwork { id, app, network, config_hash });
            }
            Ok(())
        })
        .await
    }

    async fn remove_network(&self, id: &NetworkId) -> Result<(), EngineError> {
        self.call("remove-network", id.as_str(), |inside| {
            let is_used = inside.observed.services.iter().filter(|seen| is_up(seen.state)).any(|seen| {
                let spec = inside.specs.get(&seen.container);
                let mut networks = inside.observed.networks.iter().filter(|n| n.id == *id);
                networks
                    .any(|n| n.app == seen.app && spec.is_some_and(|s| attached(s).any(|a| *a == n.network)))
            });
            if is_used {
                let message = "network has active endpoints".to_owned();
                return Err(EngineError::Refused { call: "remove-network", status: 403, message });
            }
            inside.observed.networks.retain(|n| n.id != *id);
            Ok(())
        })
        .await
    }

    async fn create(&self, new: NewContainer<'_>) -> Result<(), EngineError> {
        let what = format!("{}@{}", new.service, new.release);
        self.call("create", &what, |inside| inside.create(&self.instance, new)).await
    }

    async fn start(&self, id: &ContainerId) -> Result<(), EngineError> {
        self.call("start", id.as_str(), |inside| inside.start(id)).await
    }

    async fn stop(&self, id: &ContainerId, _grace: Duration) -> Result<(), EngineError> {
        self.call("stop", id.as_str(), |inside| {
            if let Some(seen) = inside.find(id).filter(|seen| is_up(seen.state)) {
                seen.state = ContainerState::Exited { code: 0 };
                seen.health = Health::Unchecked;
                seen.status = "Exited (0) 1 second ago".to_owned();
            }
            Ok(())
        })
        .await
    }

    async fn remove(&self, id: &ContainerId) -> Result<(), EngineError> {
        self.call("remove", id.as_str(), |inside| inside.remove(id)).await
    }

    async fn remove_image(&self, image: &ImageRef) -> Result<(), EngineError> {
        self.call("remove-image", &image.to_string(), |inside| {
            let is_used = inside.observed.services.iter().any(|seen| seen.image == image.to_string());
            if !is_used {
                inside.observed.images.remove(image);
            }
            Ok(())
        })
        .await
    }
}

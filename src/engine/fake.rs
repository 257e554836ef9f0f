//! A device in memory, with a script of faults: for tests that need a fault at a given call.
//!
//! It passes the same contract tests as the real engine (`tests/engine_contract.rs`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::{Stream, stream};
use tokio::sync::{mpsc, watch};

use crate::model::{
    App, ContainerId, ContainerState, Health, ImageRef, Instance, MountSource, NetworkId, NetworkMode,
    NetworkName, NetworkSpec, Observed, ObservedNetwork, ObservedService, VolumeName,
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
    policies: BTreeMap<ContainerId, bool>,
    volumes: BTreeSet<VolumeName>,
    registry: BTreeSet<ImageRef>,
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

    /// Does what somebody else would do behind our back, and lets the event be seen.
    pub fn meddle(&self, change: impl FnOnce(&mut Vec<ObservedService>)) {
        {
            let mut inside = self.inside();
            change(&mut inside.observed.services);
            let left: BTreeSet<_> = inside.observed.services.iter().map(|s| s.container.clone()).collect();
            inside.names.retain(|id, _| left.contains(id));
        }
        self.tell();
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
                if !matches!(name, "list" | "inspect") {
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
        if let NetworkMode::Networks(attached) = &spec.network_mode {
            let has = |name: &NetworkName| self.observed.networks.iter().any(|n| n.network == *name);
            if let Some(name) = attached.keys().find(|name| !has(name)) {
                return refused(404, format!("network {name} not found"));
            }
        }
        let name = docker_spec::container_name(instance, app, service, spec);
        if self.names.values().any(|n| *n == name) {
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
        self.policies.insert(container.clone(), spec.restart.is_forever());
        self.observed.services.push(ObservedService {
            container,
            app: app.id.clone(),
            service: service.clone(),
            release: release.clone(),
            spec: spec.hash.clone(),
            image: spec.image.to_string(),
            grace: spec.stop_grace.unwrap_or(Duration::from_secs(10)),
            state: ContainerState::Created,
            health: Health::Unchecked,
            restarts: 0,
            status: "Created".to_owned(),
            ports: BTreeMap::new(),
        });
        Ok(())
    }

    fn start(&mut self, id: &ContainerId) -> Result<(), EngineError> {
        let is_forever = self.policies.get(id).copied().unwrap_or_default();
        let behaviours = self.behaviours.clone();
        let Some(seen) = self.find(id) else {
            let message = format!("No such container: {id}");
            return Err(EngineError::Refused { call: "start", status: 404, message });
        };
        let image = ImageRef::parse(&seen.image).ok();
        let behaviour = image.and_then(|i| behaviours.get(&i).copied()).unwrap_or_default();
        (seen.state, seen.health, seen.status) = match behaviour {
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
        let is_running =
            |s: &ObservedService| matches!(s.state, ContainerState::Running | ContainerState::Paused);
        if self.find(id).is_some_and(|s| is_running(s)) {
            let message = "You cannot remove a running container".to_owned();
            return Err(EngineError::Refused { call: "remove", status: 409, message });
        }
        self.names.remove(id);
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
            if let Some(seen) = inside.find(id).filter(|s| !matches!(s.state, ContainerState::Created)) {
                seen.state = ContainerState::Exited { code: 0 };
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
            inside.observed.images.remove(image);
            Ok(())
        })
        .await
    }
}

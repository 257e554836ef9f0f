//! A device in memory, with a script of faults: for tests that need a fault at a given call.
//!
//! It passes the same contract tests as the real engine (`tests/engine_contract`).

mod behaviour;
mod inside;
mod inspect;
mod late;
mod mounts;
mod networks;
mod operate;
mod outage;

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::model::{ContainerId, ContainerState, ImageRef, Instance, ObservedService, VolumeName};

pub use behaviour::Behaviour;
use inside::Inside;

use super::EngineError;

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
    /// The engine is gone for this call and all later ones, until [`Fake::revive`].
    Down,
    /// From this call on the engine answers nobody, until [`Fake::thaw`]: what it was asked happens
    /// then, for those who still wait.
    Freeze,
    /// As [`Freeze`](Self::Freeze), but this call has happened before.
    FreezeAfter,
    /// As [`FreezeAfter`](Self::FreezeAfter), but of the several calls that creating a container takes only the first
    /// has happened.
    FreezeMidway,
    /// The caller hears nothing and gives up at its deadline, if it lives for so long. The engine does what it was
    /// asked all the same, after this time, and lets no other call on the same container in between.
    Late(Duration),
}

/// An engine in memory.
#[derive(Debug)]
pub struct Fake {
    instance: Instance,
    inside: Mutex<Inside>,
    changed: watch::Sender<u64>,
    /// Changes when another call outlives its caller.
    outlived: watch::Sender<u64>,
    is_frozen: watch::Sender<bool>,
}

impl Fake {
    /// An engine that holds nothing.
    #[must_use]
    pub fn new(instance: Instance) -> Self {
        let inside = Mutex::new(Inside::default());
        Self {
            instance,
            inside,
            changed: watch::Sender::new(0),
            outlived: watch::Sender::new(0),
            is_frozen: watch::Sender::new(false),
        }
    }

    /// Puts an image into the registry, and says what its containers do.
    pub fn publish(&self, image: &ImageRef, behaviour: Behaviour) {
        let mut inside = self.inside();
        inside.registry.insert(image.clone());
        inside.behaviours.insert(image.clone(), behaviour);
    }

    /// Says of which layers an image is made; without it, it has none.
    pub fn make_of(&self, image: &ImageRef, layers: &[&str]) {
        let layers = layers.iter().map(|&layer| layer.to_owned()).collect();
        self.inside().layers.insert(image.clone(), layers);
    }

    /// Makes it an engine on another machine; without it, it is on `amd64`.
    pub fn move_to(&self, architecture: &str) {
        self.inside().architecture = Some(architecture.to_owned());
    }

    /// From now on registries take the login and no token.
    pub fn take_no_tokens(&self) {
        self.inside().takes_no_token = true;
    }

    /// Makes every pull of an image cost so many bytes and fail with this message.
    pub fn break_image(&self, image: &ImageRef, bytes: u64, message: &str) {
        self.inside().broken.insert(image.clone(), (bytes, message.to_owned()));
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

    /// How often a start followed a stop in one call.
    #[must_use]
    pub fn swaps(&self) -> usize {
        self.inside().swaps
    }

    /// Names of the volumes that were ever created.
    #[must_use]
    pub fn volumes(&self) -> BTreeSet<VolumeName> {
        self.inside().volumes.keys().map(|(_, name)| name.clone()).collect()
    }

    /// On how many networks a container is.
    #[must_use]
    pub fn networks_of(&self, id: &ContainerId) -> usize {
        self.inside().find(id).map_or(0, |seen| seen.networks.len())
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
        let left: BTreeSet<_> = inside.everything().map(|s| s.container.clone()).collect();
        inside.names.retain(|id, _| left.contains(id));
        inside.specs.retain(|id, _| left.contains(id));
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self) {
        self.changed.send_modify(|n| *n += 1);
    }

    /// Makes a call: notes it, lets its fault happen, else does `act`, once the engine has ended an earlier call on
    /// the same thing.
    async fn call<T>(
        &self,
        name: &'static str,
        what: &str,
        act: impl FnOnce(&mut Inside) -> Result<T, EngineError> + Send + 'static,
    ) -> Result<T, EngineError> {
        let refused = || EngineError::Refused { call: name, status: 500, message: "scripted".to_owned() };
        let gone = || EngineError::Unreachable { socket: "fake".to_owned(), why: "scripted".to_owned() };
        let late = || EngineError::Timeout { call: name, seconds: EngineError::DEADLINE.as_secs() };
        let fault = {
            let mut inside = self.inside();
            let at = inside.calls.len();
            let call = format!("{name} {what}").trim_end().to_owned();
            let never = inside.never.contains(&call).then_some(Fault::Error);
            let is_wrong = inside.wrong.contains(&call);
            inside.calls.push(call);
            if is_wrong {
                let message = "invalid parameter".to_owned();
                return Err(EngineError::Refused { call: name, status: 400, message });
            }
            inside.finish_late_calls();
            inside.grow_old();
            inside.faults.remove(&at).or(never)
        };
        let (mut act, mut done) = (Some(act), None);
        if matches!(fault, Some(Fault::FreezeAfter | Fault::FreezeMidway)) {
            done = act.take().map(|act| act(&mut self.inside()));
        }
        if fault == Some(Fault::FreezeMidway) && name == "create" {
            self.inside().cut_last_short();
        }
        match fault {
            Some(Fault::Down) => self.go_down(),
            Some(Fault::Freeze | Fault::FreezeAfter | Fault::FreezeMidway) => self.freeze(),
            Some(Fault::Late(after)) => {
                let act = act.take();
                self.outlive(name, what, after, move |inside| drop(act.map(|act| act(inside))));
                tokio::time::sleep(EngineError::DEADLINE).await;
                return Err(late());
            }
            Some(Fault::Error | Fault::ErrorAfter | Fault::Unreachable | Fault::Hang) | None => {}
        }
        if tokio::time::timeout(EngineError::DEADLINE, self.wait_for_late_calls(name, what)).await.is_err() {
            return Err(late());
        }
        let mut thawed = self.is_frozen.subscribe();
        if tokio::time::timeout(EngineError::DEADLINE, thawed.wait_for(|frozen| !frozen)).await.is_err() {
            return Err(late());
        }
        if self.inside().is_down {
            return Err(gone());
        }
        let Some(act) = act else { return done.unwrap_or_else(|| Err(gone())) };
        match fault {
            None
            | Some(Fault::Down | Fault::Freeze | Fault::FreezeAfter | Fault::FreezeMidway | Fault::Late(_)) =>
            {
                let done = act(&mut self.inside());
                if matches!(name, "start" | "stop" | "fence" | "kill" | "remove" | "remove-by-force") {
                    self.tell();
                }
                done
            }
            Some(Fault::Error) => Err(refused()),
            Some(Fault::ErrorAfter) => act(&mut self.inside()).and_then(|_| Err(refused())),
            Some(Fault::Unreachable) => Err(gone()),
            Some(Fault::Hang) => {
                tokio::time::sleep(EngineError::DEADLINE).await;
                Err(late())
            }
        }
    }
}

impl Fake {
    /// Makes a call on one container.
    async fn call_on(
        &self,
        name: &'static str,
        id: &ContainerId,
        act: impl FnOnce(&mut Inside, &ContainerId) -> Result<(), EngineError> + Send + 'static,
    ) -> Result<(), EngineError> {
        let container = id.clone();
        self.call(name, id.as_str(), move |inside| act(inside, &container)).await
    }
}

fn gone() -> EngineError {
    EngineError::Unreachable { socket: "fake".to_owned(), why: "scripted".to_owned() }
}

/// What the engine takes for running: it neither removes such a container nor its networks.
fn is_up(state: ContainerState) -> bool {
    matches!(state, ContainerState::Running | ContainerState::Paused | ContainerState::Restarting)
}

#[cfg(test)]
mod tests;

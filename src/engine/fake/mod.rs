//! A fake engine in memory, for tests that need a fault at a given call.
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
mod written;

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::model::{ContainerId, ContainerState, ImageRef, Instance, LogLine, ObservedService, VolumeName};

pub use behaviour::Behaviour;
use inside::Inside;
use written::Written;

use super::EngineError;

/// A fault of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The call is refused with status 500, and has no effect.
    Error,
    /// The call is refused with status 500, but has its effect.
    ErrorAfter,
    /// The engine is unreachable for this call.
    Unreachable,
    /// The call never returns.
    Hang,
    /// The engine is unreachable for this call and all later ones, until [`Fake::revive`].
    Down,
    /// From this call on the engine does not answer, until [`Fake::thaw`]. The calls whose callers still wait then have
    /// their effect.
    Freeze,
    /// As [`Freeze`](Self::Freeze), but this call has its effect first.
    FreezeAfter,
    /// As [`FreezeAfter`](Self::FreezeAfter), but only the first of the calls that create a container has its effect.
    FreezeMidway,
    /// The caller gets no answer and gives up at its deadline. The engine executes the call nevertheless, after this
    /// time, and no other call on the same container before it.
    Late(Duration),
}

/// An engine in memory.
#[derive(Debug)]
pub struct Fake {
    instance: Instance,
    inside: Mutex<Inside>,
    changed: watch::Sender<u64>,
    /// Changes whenever a call outlives its caller.
    outlived: watch::Sender<u64>,
    is_frozen: watch::Sender<bool>,
    written: Arc<Written>,
}

impl Fake {
    /// An empty engine.
    #[must_use]
    pub fn new(instance: Instance) -> Self {
        let inside = Mutex::new(Inside::default());
        Self {
            instance,
            inside,
            changed: watch::Sender::new(0),
            outlived: watch::Sender::new(0),
            is_frozen: watch::Sender::new(false),
            written: Arc::default(),
        }
    }

    /// Adds an image to the registry, with the behaviour of its containers.
    pub fn publish(&self, image: &ImageRef, behaviour: Behaviour) {
        let mut inside = self.inside();
        inside.registry.insert(image.clone());
        inside.behaviours.insert(image.clone(), behaviour);
    }

    /// Sets the layers of an image. Without a call it has none.
    pub fn make_of(&self, image: &ImageRef, layers: &[&str]) {
        let layers = layers.iter().map(|&layer| layer.to_owned()).collect();
        self.inside().layers.insert(image.clone(), layers);
    }

    /// Sets the architecture of the engine's machine. Without a call it is `amd64`.
    pub fn move_to(&self, architecture: &str) {
        self.inside().architecture = Some(architecture.to_owned());
    }

    /// From now on registries accept a login and no token.
    pub fn take_no_tokens(&self) {
        self.inside().takes_no_token = true;
    }

    /// Makes every pull of an image cost so many bytes and fail with this message.
    pub fn break_image(&self, image: &ImageRef, bytes: u64, message: &str) {
        self.inside().broken.insert(image.clone(), (bytes, message.to_owned()));
    }

    /// Removes an image from the registry, but not from the engine.
    pub fn unpublish(&self, image: &ImageRef) {
        self.inside().registry.remove(image);
    }

    /// Sets a fault for the `n`-th call from now on (0 is the next).
    pub fn fail(&self, n: usize, fault: Fault) {
        let mut inside = self.inside();
        let at = inside.calls.len() + n;
        inside.faults.insert(at, fault);
    }

    /// The changing calls and the observations so far, in their order.
    #[must_use]
    pub fn calls(&self) -> Vec<String> {
        self.inside().calls.clone()
    }

    /// The number of calls that stopped one container and started another.
    #[must_use]
    pub fn swaps(&self) -> usize {
        self.inside().swaps
    }

    /// The names of all volumes that were ever created.
    #[must_use]
    pub fn volumes(&self) -> BTreeSet<VolumeName> {
        self.inside().volumes.keys().map(|(_, name)| name.clone()).collect()
    }

    /// The number of networks of a container.
    #[must_use]
    pub fn networks_of(&self, id: &ContainerId) -> usize {
        self.inside().find(id).map_or(0, |seen| seen.networks.len())
    }

    /// Makes a change that does not come from the agent, with its event.
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

    /// Adds a line to the log of a container, which need not exist.
    pub fn write(&self, container: &ContainerId, line: LogLine) {
        self.written.write(container, line);
    }

    /// Ends all readers of a container's log, as the end of the container does.
    pub fn end_log(&self, container: &ContainerId) {
        self.written.end(container);
    }

    /// Refuses to open the log of a container from now on, with this message.
    pub fn refuse_log(&self, container: &ContainerId, message: &'static str) {
        self.written.refuse(container, message);
    }

    /// The number of times that the log of a container was opened.
    #[must_use]
    pub fn logs_opened(&self, container: &ContainerId) -> usize {
        self.written.opened(container)
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self) {
        self.changed.send_modify(|n| *n += 1);
    }

    /// Notes a call, and returns its fault.
    fn note(&self, name: &'static str, what: &str) -> Result<Option<Fault>, EngineError> {
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
        Ok(inside.faults.remove(&at).or(never))
    }

    /// Makes a call: notes it, and applies its fault or else `act`, after earlier calls on the same thing have finished.
    async fn call<T>(
        &self,
        name: &'static str,
        what: &str,
        act: impl FnOnce(&mut Inside) -> Result<T, EngineError> + Send + 'static,
    ) -> Result<T, EngineError> {
        let refused = || EngineError::Refused { call: name, status: 500, message: "scripted".to_owned() };
        let late = || EngineError::Timeout { call: name, seconds: EngineError::DEADLINE.as_secs() };
        let fault = self.note(name, what)?;
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
    EngineError::Unreachable { socket: "fake".to_owned(), cause: io::Error::other("scripted").into() }
}

/// The states that the engine treats as running: it removes neither such a container nor its networks.
fn is_up(state: ContainerState) -> bool {
    matches!(state, ContainerState::Running | ContainerState::Paused | ContainerState::Restarting)
}

#[cfg(test)]
mod tests;

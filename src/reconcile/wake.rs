//! What wakes the reconciler.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::engine::{EngineError, Operate};
use crate::model::{ByService, Delivered, ImageRef, Weight};

use super::orders::Command;
use super::{Memory, Reconciler, Surroundings, Unweighed, facts};

/// Why the reconciler woke up.
pub(super) enum Event {
    Target(Arc<Delivered>),
    Progress(ImageRef, u8),
    PullEnded(ImageRef, Result<u64, EngineError>),
    Weighed(ImageRef, Result<Weight, Unweighed>),
    Command(Command),
    /// The engine told of a change; its restarts so far.
    Heard(ByService),
    /// A file changed, or it is time.
    Look,
    /// Nobody will ever send a target again.
    Closed,
}

pub(super) struct Inputs {
    pub(super) target: watch::Receiver<Option<Arc<Delivered>>>,
    pub(super) engine: watch::Receiver<ByService>,
    pub(super) progress: mpsc::Receiver<(ImageRef, u8)>,
    pub(super) commands: mpsc::Receiver<Command>,
}

impl<E: Operate + 'static, M: Memory, S: Surroundings> Reconciler<E, M, S> {
    pub(super) async fn next_event(&mut self, inputs: &mut Inputs, due: Instant) -> Event {
        tokio::select! {
            biased;
            changed = inputs.target.changed() => {
                let delivered = inputs.target.borrow_and_update().clone();
                match (changed, delivered) {
                    (Err(_), _) => Event::Closed,
                    (Ok(()), Some(delivered)) => Event::Target(delivered),
                    (Ok(()), None) => Event::Look,
                }
            }
            (image, result) = self.pulls.next_end() => Event::PullEnded(image, result),
            (image, result) = self.weighing.next_end() => Event::Weighed(image, result),
            Some((image, percent)) = inputs.progress.recv() => Event::Progress(image, percent),
            Some(command) = inputs.commands.recv() => Event::Command(command),
            // A watcher that is gone for good must not spin the loop: the resync goes on without it.
            Ok(()) = inputs.engine.changed() => Event::Heard(inputs.engine.borrow_and_update().clone()),
            () = tokio::time::sleep_until(due) => Event::Look,
            () = facts::change(&*self.surroundings, &self.watched_files) => Event::Look,
        }
    }
}

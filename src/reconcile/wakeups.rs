//! Waits for the next event that starts a cycle.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::engine::Operate;
use crate::model::{Delivered, ImageRef, ImageSize, PullProgress};

use super::events::EngineNews;
use super::orders::Command;
use super::pulls::Ended;
use super::{HostAccess, Memory, Reconciler, Unmeasured};

/// Why the reconciler woke up.
pub(super) enum Wakeup {
    Target(Arc<Delivered>),
    Progress(ImageRef, PullProgress),
    PullEnded(Ended),
    Measured(ImageRef, Result<ImageSize, Unmeasured>),
    Command(Command),
    /// The engine reported a change. Contains what it has reported so far.
    Engine(EngineNews),
    /// A watched file changed, or the next cycle is due.
    Due,
    /// All senders of targets are dropped.
    Closed,
}

/// What the loop does after a wakeup.
pub(super) enum Next {
    /// Begins a cycle.
    Cycle,
    /// Waits for the next wakeup.
    Wait,
    /// Ends.
    End,
}

pub(super) struct Inputs {
    pub(super) target: watch::Receiver<Option<Arc<Delivered>>>,
    pub(super) engine: watch::Receiver<EngineNews>,
    pub(super) progress: mpsc::Receiver<(ImageRef, PullProgress)>,
    pub(super) commands: mpsc::Receiver<Command>,
}

impl<E: Operate + 'static, M: Memory, H: HostAccess> Reconciler<E, M, H> {
    pub(super) async fn next_wakeup(&mut self, inputs: &mut Inputs, due: Instant) -> Wakeup {
        tokio::select! {
            biased;
            changed = inputs.target.changed() => {
                let delivered = inputs.target.borrow_and_update().clone();
                match (changed, delivered) {
                    (Err(_), _) => Wakeup::Closed,
                    (Ok(()), Some(delivered)) => Wakeup::Target(delivered),
                    (Ok(()), None) => Wakeup::Due,
                }
            }
            ended = self.pulls.next_end() => Wakeup::PullEnded(ended),
            (image, result) = self.facts.image_sizes.next_end() => Wakeup::Measured(image, result),
            Some((image, progress)) = inputs.progress.recv() => Wakeup::Progress(image, progress),
            Some(command) = inputs.commands.recv() => Wakeup::Command(command),
            // A closed channel is always ready and would spin the loop. Without the watcher, the resync goes on.
            Ok(()) = inputs.engine.changed() => Wakeup::Engine(inputs.engine.borrow_and_update().clone()),
            () = tokio::time::sleep_until(due) => Wakeup::Due,
            () = self.lock_folders.changed(&*self.host) => Wakeup::Due,
        }
    }

    pub(super) async fn handle(&mut self, wakeup: Wakeup) -> Next {
        match wakeup {
            Wakeup::Closed => return Next::End,
            Wakeup::Target(delivered) => self.take_target(delivered).await,
            Wakeup::Progress(image, progress) => {
                self.note_progress(&image, progress).await;
                self.publish();
                return Next::Wait;
            }
            Wakeup::PullEnded(ended) => self.end_pull(ended).await,
            Wakeup::Measured(image, result) => self.end_measurement(image, result),
            Wakeup::Command((order, answer)) => self.take_order(&order, answer).await,
            Wakeup::Engine(news) => {
                self.failures.note_ends(news.ends);
                self.outbox.counters.counts.restarts = news.restarts;
            }
            Wakeup::Due => {}
        }
        Next::Cycle
    }
}

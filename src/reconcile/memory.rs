//! Saves the ledger and the target, and tries again while the store refuses them.

use std::time::Duration;

use tokio::task::JoinError;
use tokio::time::Instant;
use tracing::warn;

use crate::engine::Operate;
use crate::model::{Alert, EventKind, Ledger, StoredTarget, with_causes};
use crate::store::StoreError;

use super::{HostAccess, Reconciler};

/// Saves what must survive a power cut. The store implements it; tests replace it.
pub trait Memory: Send {
    /// Saves the target before it is acted on.
    ///
    /// # Errors
    ///
    /// Why the target is not on disk. It is then saved together with the next save that succeeds.
    fn save_target(&mut self, record: &StoredTarget) -> impl Future<Output = Result<(), SaveError>> + Send;

    /// Saves the ledger. Durable when it returns `Ok`; writes nothing if nothing changed.
    ///
    /// # Errors
    ///
    /// As for the target.
    fn save_ledger(&mut self, ledger: &Ledger) -> impl Future<Output = Result<(), SaveError>> + Send;
}

/// Why a save is not on disk yet, sorted by when to try again.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// The store refused. Its own error says when to try again.
    #[error(transparent)]
    Store(#[from] StoreError),

    /// The disk did not answer in time. The save may still succeed.
    #[error("the disk has not answered for {} s", waited.as_secs())]
    Late { waited: Duration },

    /// The disk has not answered an earlier save yet, so this one was not begun.
    #[error("the disk has not answered an earlier save yet")]
    Busy,

    /// The thread that saves ended before its answer: the agent stops.
    #[error("the agent ends")]
    Ended(#[source] JoinError),
}

impl SaveError {
    /// How long to wait before the next attempt: 1 s to 300 s.
    #[must_use]
    pub fn retry_after(&self) -> Duration {
        match self {
            // `None`: only another content can be saved. It comes with the next change; this is the latest attempt.
            Self::Store(error) => error.retry_after().unwrap_or(SAVE_AGAIN),
            Self::Late { .. } | Self::Busy | Self::Ended(_) => SAVE_AGAIN,
        }
    }
}

/// Time between two attempts to save, unless the store says otherwise.
const SAVE_AGAIN: Duration = Duration::from_secs(60);

/// Saves the target and the ledger, and knows when to try again.
pub(super) struct Saver<M> {
    memory: M,
    /// Why the last save failed.
    error: Option<String>,
    /// When to try again; set while `error` is.
    again: Option<Instant>,
}

impl<M: Memory> Saver<M> {
    pub(super) fn new(memory: M) -> Self {
        Self { memory, error: None, again: None }
    }

    /// Why the last save failed; `None` if it succeeded.
    pub(super) fn error(&self) -> Option<&String> {
        self.error.as_ref()
    }

    /// Saves the target. Returns an event if the store began or ceased to fail.
    pub(super) async fn save_target(&mut self, record: &StoredTarget) -> Option<EventKind> {
        let saved = self.memory.save_target(record).await;
        self.note(saved)
    }

    /// Saves the ledger. Returns an event if the store began or ceased to fail.
    pub(super) async fn save_ledger(&mut self, ledger: &Ledger) -> Option<EventKind> {
        let saved = self.memory.save_ledger(ledger).await;
        self.note(saved)
    }

    fn note(&mut self, saved: Result<(), SaveError>) -> Option<EventKind> {
        let Err(error) = saved else {
            self.again = None;
            self.error.take()?;
            return Some(EventKind::Store { error: None });
        };
        self.again = Some(Instant::now() + error.retry_after());
        let why = with_causes(&error);
        let is_new = self.error.as_ref() != Some(&why);
        if is_new {
            let alert = Alert::StoreFailing.as_str();
            warn!(alert, error = %why, "store cannot be written; going on without it");
        }
        self.error = Some(why.clone());
        is_new.then_some(EventKind::Store { error: Some(why) })
    }

    /// Returns the time until a failed save is tried again.
    pub(super) fn until_next(&self) -> Duration {
        self.again.map_or(Duration::MAX, |due| due.saturating_duration_since(Instant::now()))
    }
}

impl<E: Operate + 'static, M: Memory, H: HostAccess> Reconciler<E, M, H> {
    /// Saves the ledger. A store that refuses it is reported, and the agent goes on.
    pub(super) async fn save_ledger(&mut self) {
        let change = self.saver.save_ledger(&self.ledger).await;
        change.into_iter().for_each(|kind| self.emit(kind));
    }

    /// Tries a failed save again, once that is due.
    pub(super) async fn save_outstanding(&mut self) {
        if self.saver.until_next().is_zero() {
            self.save_ledger().await;
        }
    }
}

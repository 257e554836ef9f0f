//! The ledger and the target on their way to the store, which may refuse them for a while.

use std::time::Duration;

use tokio::task::JoinError;
use tokio::time::Instant;
use tracing::warn;

use crate::engine::Operate;
use crate::model::{Alert, EventKind, Ledger, StoredTarget, with_causes};
use crate::store::StoreError;

use super::{HostAccess, Reconciler};

/// What must outlive a power cut. The store is the real one.
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

impl<E: Operate + 'static, M: Memory, H: HostAccess> Reconciler<E, M, H> {
    pub(super) fn note_store(&mut self, saved: Result<(), SaveError>) {
        match saved {
            Ok(()) => {
                self.save_again = None;
                if self.store_error.take().is_some() {
                    self.emit(EventKind::Store { error: None });
                }
            }
            Err(error) => {
                self.save_again = Some(Instant::now() + error.retry_after());
                let why = with_causes(&error);
                if self.store_error.as_ref() != Some(&why) {
                    let alert = Alert::StoreFailing.as_str();
                    warn!(alert, error = %why, "store cannot be written; going on without it");
                    self.emit(EventKind::Store { error: Some(why.clone()) });
                }
                self.store_error = Some(why);
            }
        }
    }

    pub(super) async fn save_ledger(&mut self) {
        let saved = self.memory.save_ledger(&self.ledger).await;
        self.note_store(saved);
    }

    /// Saves what the disk refused before, once that is due.
    pub(super) async fn save_outstanding(&mut self) {
        if self.until_save().is_zero() {
            self.save_ledger().await;
        }
    }

    pub(super) fn until_save(&self) -> Duration {
        self.save_again.map_or(Duration::MAX, |due| due.saturating_duration_since(Instant::now()))
    }
}

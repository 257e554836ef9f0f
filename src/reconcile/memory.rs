//! The ledger and the target on their way to the store, which may refuse them for a while.

use std::time::Duration;

use tokio::time::Instant;
use tracing::warn;

use crate::engine::Operate;
use crate::model::{Alert, EventKind, Ledger, StoredTarget};

use super::{HostAccess, Reconciler};

/// What must outlive a power cut. The store is the real one.
pub trait Memory: Send {
    /// Saves the target before it is acted on.
    ///
    /// # Errors
    ///
    /// Why it could not be saved; it is then saved with the next thing that can be.
    fn save_target(&mut self, record: &StoredTarget) -> impl Future<Output = Result<(), String>> + Send;

    /// Saves the ledger. Durable when it returns `Ok`; writes nothing if nothing changed.
    ///
    /// # Errors
    ///
    /// As for the target.
    fn save_ledger(&mut self, ledger: &Ledger) -> impl Future<Output = Result<(), String>> + Send;
}

/// Longest time between two attempts to save what could not be saved.
const SAVE_AGAIN: Duration = Duration::from_secs(60);

impl<E: Operate + 'static, M: Memory, H: HostAccess> Reconciler<E, M, H> {
    pub(super) fn note_store(&mut self, saved: Result<(), String>) {
        match saved {
            Ok(()) => {
                self.save_again = None;
                if self.store_error.take().is_some() {
                    self.emit(EventKind::Store { error: None });
                }
            }
            Err(why) => {
                self.save_again = Some(Instant::now() + SAVE_AGAIN);
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

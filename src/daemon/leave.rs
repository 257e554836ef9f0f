//! Undoes what an agent has set up, while no agent runs: its apps, and who the device is.

use crate::config::Config;
use crate::engine::EngineError;
use crate::model::Ledger;
use crate::reconcile::{self, Removed};
use crate::store::{Store, StoreError};

/// Returns how many containers and networks this agent has on the engine.
///
/// # Errors
///
/// As [`EngineError`] says.
pub async fn count_apps(config: &Config) -> Result<Removed, EngineError> {
    reconcile::count_apps(&super::engine(config)).await
}

/// Stops and removes all containers and networks of this agent. Volumes and images stay.
///
/// # Errors
///
/// As [`EngineError`] says.
pub async fn remove_apps(config: &Config) -> Result<Removed, EngineError> {
    reconcile::remove_apps(&super::engine(config)).await
}

/// Removes the identity and the last target from the store, and with `has_no_apps` what is remembered of apps.
///
/// # Errors
///
/// [`StoreError::InUse`] while an agent runs.
pub fn forget_device(config: &Config, has_no_apps: bool) -> Result<(), StoreError> {
    let (store, _) = Store::open(&config.state_dir)?;
    if has_no_apps {
        // The images are still there, and are ours.
        let Ledger { clock, images, .. } = store.load().ledger;
        store.save_ledger(&Ledger { clock, images, ..Ledger::default() })?;
    }
    store.forget_device()
}

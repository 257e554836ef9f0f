//! Undoes what an agent has set up, while no agent runs: its apps, and who the device is.

use crate::cloud::{Client, CloudError};
use crate::config::Config;
use crate::engine::EngineError;
use crate::model::{Identity, Ledger};
use crate::reconcile::{self, Removed};
use crate::store::{Store, StoreError};
use crate::vpn::{self, Ended};

use super::vpn::files;

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

/// Deletes the record of this device at its fleet server. Returns `false` if its cloud has no such request: only a Cotter fleet
/// server has.
///
/// # Errors
///
/// If the cloud cannot be reached, or cannot do it now.
pub async fn delete_record(config: &Config, identity: &Identity) -> Result<bool, CloudError> {
    let Some(cloud) = &config.cloud else { return Ok(false) };
    let (there, endpoint) = identity.in_force(&cloud.endpoint);
    let http = super::http(config);
    let http = http.map_err(|why| CloudError::Unreachable { endpoint: endpoint.clone(), why })?;
    Client::new(http, &endpoint, cloud.request_timeout).delete(&there.uuid, &there.device_key).await
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

/// Ends the tunnel to the VPN of the cloud. Returns whether there was one.
///
/// # Errors
///
/// If the settings of openvpn cannot be removed, so that it would start again.
pub async fn end_vpn(config: &Config) -> Result<Ended, String> {
    vpn::end_for_good(&files(&config.runtime_dir, String::new())).await
}

//! What the agent remembers: who it is and the target that was in force, and how both and the ledger are saved.

use tracing::warn;

use crate::config::{CloudConfig, Config, Joining};
use crate::host;
use crate::model::{
    Delivered, DeviceUuid, Identity, Ledger, Policy, Registration as Known, StoredTarget, with_causes,
};
use crate::reconcile::Memory;
use crate::store::{Recovery, Remembered, Store, StoreError};
use crate::wire::target_v3;

use super::DaemonError;

/// Who this device is: as the settings say, else as remembered, else new, but only if nothing that
/// is merely out of sight may say it.
pub(super) async fn identity(
    config: &Config,
    store: &Store,
    remembered: &Remembered,
    notes: &[Recovery],
) -> Result<Identity, DaemonError> {
    let given = config.cloud.as_ref().and_then(|cloud| match &cloud.joining {
        Joining::Known { uuid, key } => Some((uuid.clone(), key.clone())),
        Joining::Register { .. } | Joining::Remembered => None,
    });
    let identity = match (given, &remembered.identity) {
        (Some((uuid, device_key)), _) => {
            let endpoint = config.cloud.as_ref().map(|c| c.endpoint.clone()).unwrap_or_default();
            Identity { uuid, device_key, registered: Some(Known { endpoint, device_id: None }) }
        }
        (None, Some(identity)) => identity.clone(),
        (None, None) if config.cloud.as_ref().is_some_and(|cloud| cloud.joining == Joining::Remembered) => {
            return Err(DaemonError::NotJoined);
        }
        (None, None) => loop {
            if let Some(why) = out_of_sight(notes) {
                let (folder, why) = (config.state_dir.clone(), why.to_owned());
                return Err(DaemonError::IdentityUnknown { folder, why });
            }
            let uuid = host::random_hex(16).map_err(DaemonError::Random)?;
            let Ok(uuid) = DeviceUuid::parse(uuid) else { continue };
            let device_key = host::random_hex(16).map_err(DaemonError::Random)?;
            break Identity { uuid, device_key, registered: None };
        },
    };
    if remembered.identity.as_ref() != Some(&identity)
        && let Err(error) = save_identity(store, &identity).await
    {
        warn!(%error, "identity is not on disk yet");
    }
    Ok(identity)
}

/// Why nothing of the store could be read, though it may be there.
fn out_of_sight(notes: &[Recovery]) -> Option<&str> {
    notes.iter().find_map(|note| {
        if let Recovery::Unavailable { from: None, why } = note { Some(why.as_str()) } else { None }
    })
}

/// The target that was last received, if it is this cloud's and can still be read. Without a cloud
/// it is in force whoever gave it.
pub(super) fn remembered_target(
    cloud: Option<&CloudConfig>,
    uuid: &DeviceUuid,
    policy: &Policy,
    remembered: &Remembered,
) -> Option<Delivered> {
    let record = remembered.target.as_ref()?;
    if let Some(cloud) = cloud.filter(|cloud| cloud.endpoint != record.endpoint) {
        let (of, now) = (&record.endpoint, &cloud.endpoint);
        warn!(of, now, "the target in the store is another cloud's; waiting for this one's");
        return None;
    }
    match target_v3::parse(record.body.as_bytes(), uuid, policy) {
        Ok(target) => Some(Delivered { target, record: None }),
        Err(error) => {
            warn!(%error, "the target in the store cannot be read; waiting for the cloud's");
            None
        }
    }
}

impl Memory for Store {
    async fn save_target(&mut self, record: &StoredTarget) -> Result<(), String> {
        let record = record.clone();
        beside(self, move |store| store.save_target(&record)).await
    }

    async fn save_ledger(&mut self, ledger: &Ledger) -> Result<(), String> {
        let ledger = ledger.clone();
        beside(self, move |store| store.save_ledger(&ledger)).await
    }
}

/// Saves in a thread of its own: a disk may take its time, and all else here shares one thread.
async fn beside(
    store: &Store,
    save: impl FnOnce(&Store) -> Result<(), StoreError> + Send + 'static,
) -> Result<(), String> {
    let store = store.clone();
    match tokio::task::spawn_blocking(move || save(&store)).await {
        Ok(saved) => saved.map_err(|error| with_causes(&error)),
        Err(error) => Err(format!("the agent ends: {error}")),
    }
}

pub(super) async fn save_identity(store: &Store, identity: &Identity) -> Result<(), String> {
    let identity = identity.clone();
    beside(store, move |store| store.save_identity(&identity)).await
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    /// There is one thread for all else: a save that held it would wait for what can never come.
    #[tokio::test]
    async fn what_the_disk_delays_delays_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(folder.path()).unwrap();
        let (meanwhile, heard) = mpsc::channel();
        let slow = beside(&store, move |_| {
            heard.recv_timeout(Duration::from_secs(20)).expect("the runtime goes on");
            Ok(())
        });
        let (saved, ()) = tokio::join!(slow, async { meanwhile.send(()).unwrap() });
        assert_eq!(saved, Ok(()));
    }
}

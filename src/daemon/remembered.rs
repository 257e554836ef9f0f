//! What the agent begins with: who it is, and the target that was in force.

use tracing::warn;

use crate::config::{CloudConfig, Config, Joining};
use crate::host;
use crate::model::{Delivered, DeviceUuid, Identity, Policy, Registration as Known};
use crate::store::{Recovery, Remembered, Store};
use crate::wire::target_v3;

use super::{DaemonError, told};

/// Who this device is: as the settings say, else as remembered, else new, but only if nothing that
/// is merely out of sight may say it.
pub(super) fn identity(
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
        && let Err(error) = store.save_identity(&identity)
    {
        warn!(error = %told(&error), "identity is not on disk yet");
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

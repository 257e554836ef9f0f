//! Registers the device with its cloud, and then removes the provisioning key.

use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::cloud::{self, Client, Registration};
use crate::config::{CloudConfig, Joining, KeyFile};
use crate::host;
use crate::model::{FleetRef, Identity, Registration as Known, with_causes};
use crate::store::Store;

use super::Wires;
use super::persistence::save_identity;

/// Time between two attempts to save a new identity, or to read the provisioning key.
const AGAIN: Duration = Duration::from_secs(10);

/// Longest time between two requests that ask the cloud whether it knows a device whose provisioning key is left.
const LONGEST: Duration = Duration::from_secs(3600);

/// Registers the device if its cloud does not know it, and tries until it succeeds. Returns `false` when `stop` was
/// cancelled.
pub(super) async fn register(
    client: &Client,
    cloud: &CloudConfig,
    identity: &mut Identity,
    store: &Store,
    wires: &Wires,
    stop: &CancellationToken,
) -> bool {
    let is_known = identity.registered.as_ref().is_some_and(|known| known.endpoint == cloud.endpoint);
    let Joining::Register { fleet, key_file } = &cloud.joining else { return true };
    if is_known {
        return true;
    }
    // The identity is saved first. If a power cut lost it after the registration, the cloud would keep a stray device.
    while let Err(error) = save_identity(store, identity).await {
        let why = format!("registration waits until the identity is on disk: {}", with_causes(&error));
        if !wait_after(why, wires, stop).await {
            return false;
        }
    }
    let registered = loop {
        if let Err(error) = key_file.read() {
            if !wait_after(format!("registration: {error}"), wires, stop).await {
                return false;
            }
            continue;
        }
        let report_failure = |error: &cloud::CloudError, failures, wait| {
            wires.cloud.send_modify(|report| {
                report.error = Some(format!("registration: {error}"));
                report.failures = failures;
                report.polls.failed += 1;
                report.next_poll = Some(host::time_in(wait));
                report.is_deleted = error.says_deleted();
            });
        };
        let device = introduction(cloud, fleet, identity);
        match cloud::register(client, device, || key_file.read().ok(), report_failure, &wires.poll_now, stop)
            .await
        {
            Some(registered) => break registered,
            None => return false,
        }
    };
    identity.registered = Some(Known { endpoint: cloud.endpoint.clone(), device_id: registered.device_id });
    match save_identity(store, identity).await {
        Ok(()) => forget(key_file).await,
        // The key stays for the next start, which registers again. The cloud then answers that it knows the device.
        Err(error) => warn!(error = with_causes(&error), "registration is not on disk yet"),
    }
    true
}

/// Publishes why registration waits, and waits. Returns `false` when `stop` was cancelled.
async fn wait_after(why: String, wires: &Wires, stop: &CancellationToken) -> bool {
    wires.cloud.send_modify(|report| {
        report.error = Some(why);
        report.failures = report.failures.saturating_add(1);
        report.polls.failed += 1;
        report.next_poll = Some(host::time_in(AGAIN));
    });
    tokio::select! {
        biased;
        () = stop.cancelled() => false,
        () = wires.poll_now.notified() => true,
        () = tokio::time::sleep(AGAIN) => true,
    }
}

/// Removes the provisioning key of a registered device, while the device already polls.
///
/// A key that is left is one of an older version, one that could not be removed, or one that an owner put there because
/// the device was deleted in its cloud. So the cloud is asked first. A device that it does not know registers again,
/// under the same uuid, as balena's agent does.
pub(super) async fn drop_key(
    client: &Client,
    cloud: &CloudConfig,
    identity: &Identity,
    (store, poll_now): (&Store, &Notify),
    stop: &CancellationToken,
) {
    let Joining::Register { fleet, key_file } = &cloud.joining else { return };
    let mut wait = AGAIN;
    while key_file.has_key() {
        let known = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            known = client.find(&identity.uuid, &identity.device_key) => known,
        };
        match known {
            Ok(Some(_)) => return forget(key_file).await,
            Ok(None) => {
                let Ok(key) = key_file.read() else { return };
                let device = introduction(cloud, fleet, identity);
                let again = cloud::register_once(client, device, &key).await;
                return match again {
                    Ok(registered) => {
                        info!(uuid = %identity.uuid, "device registered again");
                        let endpoint = cloud.endpoint.clone();
                        let registered = Some(Known { endpoint, device_id: registered.device_id });
                        if save_identity(store, &Identity { registered, ..identity.clone() }).await.is_ok() {
                            forget(key_file).await;
                        }
                        poll_now.notify_one();
                    }
                    Err(error) => {
                        warn!(%error, "the cloud does not know this device, and does not take it back")
                    }
                };
            }
            Err(_) => {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(wait) => wait = (wait * 2).min(LONGEST),
                }
            }
        }
    }
}

fn introduction<'a>(cloud: &'a CloudConfig, fleet: &'a FleetRef, identity: &'a Identity) -> Registration<'a> {
    Registration {
        fleet,
        device_type: &cloud.device_type,
        device_name: cloud.device_name.as_deref(),
        tags: &cloud.tags,
        uuid: &identity.uuid,
        device_key: &identity.device_key,
    }
}

/// Removes the provisioning key from the disk. Logs what to do if that fails.
async fn forget(key_file: &KeyFile) {
    let (file, path) = (key_file.clone(), key_file.path().display().to_string());
    let forgotten = tokio::task::spawn_blocking(move || file.forget()).await;
    match forgotten.unwrap_or_else(|error| Err(std::io::Error::other(error))) {
        Ok(()) => info!(path, "provisioning key removed: the device is registered"),
        Err(error) => warn!(
            path,
            %error,
            "the provisioning key cannot be removed; remove it, or whoever takes this device can register others"
        ),
    }
}

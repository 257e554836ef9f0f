//! Registers the device with a cloud (docs/dev/protocol.md, "Registration").

use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::client::{Client, Registration};
use super::error::CloudError;
use super::retry::Retry;

/// The result of a registration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Registered {
    /// The cloud's numeric id.
    pub device_id: Option<u64>,
}

/// Registers the device. Tries again after failures until it succeeds, and at once when `hurry` is notified. Calls `on_failure`
/// with each error, the number of failures in a row, and the time to the next attempt. Returns `None` if `stop` was cancelled.
///
/// The caller has saved the identity before, so a lost answer makes no second device: the cloud then answers 409, and a
/// look-up with the device's own key finds this device. The provisioning key is read before each attempt; one that cannot
/// be read leaves that of the attempt before.
pub async fn register(
    client: &Client,
    device: Registration<'_>,
    read_key: impl Fn() -> Option<String>,
    mut on_failure: impl FnMut(&CloudError, u32, Duration),
    hurry: &Notify,
    stop: &CancellationToken,
) -> Option<Registered> {
    let mut retry = Retry::up_to(Duration::from_secs(300));
    let mut key = String::new();
    loop {
        // Its owner may have corrected it.
        key = read_key().unwrap_or(key);
        let answer = tokio::select! {
            biased;
            () = stop.cancelled() => return None,
            answer = register_once(client, device, &key) => answer,
        };
        let error = match answer {
            Ok(registered) => {
                info!(uuid = %device.uuid, "device registered");
                return Some(registered);
            }
            Err(error) => error,
        };
        let wait = retry.failure(error.retry_after());
        warn!(error = %error, retry_after_s = wait.as_secs(), "registration failed");
        on_failure(&error, retry.failures, wait);
        tokio::select! {
            biased;
            () = stop.cancelled() => return None,
            () = hurry.notified() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// Tries once to register the device, or to find its registration.
///
/// # Errors
///
/// See [`CloudError`].
pub async fn register_once(
    client: &Client,
    device: Registration<'_>,
    provisioning_key: &str,
) -> Result<Registered, CloudError> {
    let id = match client.register(device, provisioning_key).await {
        Ok(made) => made.id,
        Err(conflict @ CloudError::Conflict { .. }) => {
            client.find(device.uuid, device.device_key).await?.ok_or(conflict)?
        }
        Err(other) => return Err(other),
    };
    Ok(Registered { device_id: Some(id) })
}

//! Becoming known to a cloud (docs/dev/protocol.md, "Registration").

use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::client::{Client, CloudError, Registration};
use super::retry::Retry;

/// What the cloud said of the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Registered {
    /// The cloud's numeric id.
    pub device_id: Option<u64>,
}

/// Registers the device, for as long as it takes, and tries again at once when `hurry` is told; `None` when `stop`
/// was cancelled.
///
/// The caller has its identity on disk before, so that an answer that is lost makes no second
/// device: the cloud then says 409, and a look-up with the device's own key tells that it is us.
pub async fn register(
    client: &Client,
    device: Registration<'_>,
    provisioning_key: &str,
    mut told: impl FnMut(&CloudError, u32),
    hurry: &Notify,
    stop: &CancellationToken,
) -> Option<Registered> {
    let mut retry = Retry::up_to(Duration::from_secs(300));
    loop {
        let answer = tokio::select! {
            biased;
            () = stop.cancelled() => return None,
            answer = register_once(client, device, provisioning_key) => answer,
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
        told(&error, retry.failures);
        tokio::select! {
            biased;
            () = stop.cancelled() => return None,
            () = hurry.notified() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// Tries once to register the device, or to learn that it is registered.
///
/// # Errors
///
/// As [`CloudError`] says.
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

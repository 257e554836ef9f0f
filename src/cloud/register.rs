//! Becoming known to a cloud (protocol.md 1.2).

use std::time::Duration;

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

/// Registers the device, for as long as it takes; `None` when `stop` was cancelled.
///
/// The caller has its identity on disk before, so that an answer that is lost makes no second
/// device: the cloud then says 409, and a look-up with the device's own key tells that it is us.
pub async fn register(
    client: &Client,
    device: Registration<'_>,
    provisioning_key: &str,
    mut told: impl FnMut(&CloudError, u32),
    stop: &CancellationToken,
) -> Option<Registered> {
    let mut retry = Retry::up_to(Duration::from_secs(300));
    loop {
        let answer = tokio::select! {
            biased;
            () = stop.cancelled() => return None,
            answer = once(client, device, provisioning_key) => answer,
        };
        let error = match answer {
            Ok(device_id) => {
                info!(uuid = %device.uuid, "device registered");
                return Some(Registered { device_id });
            }
            Err(error) => error,
        };
        let wait = retry.failure(error.retry_after());
        warn!(error = %error, retry_after_s = wait.as_secs(), "registration failed");
        told(&error, retry.failures);
        tokio::select! {
            biased;
            () = stop.cancelled() => return None,
            () = tokio::time::sleep(wait) => {}
        }
    }
}

async fn once(
    client: &Client,
    device: Registration<'_>,
    provisioning_key: &str,
) -> Result<Option<u64>, CloudError> {
    match client.register(device, provisioning_key).await {
        Ok(made) => Ok(Some(made.id)),
        Err(conflict @ CloudError::Conflict { .. }) => {
            match client.find(device.uuid, device.device_key).await? {
                Some(id) => Ok(Some(id)),
                None => Err(conflict),
            }
        }
        Err(other) => Err(other),
    }
}

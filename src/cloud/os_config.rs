//! Asks a balena cloud for the configuration of an operating system, which says where its VPN is.

use super::client::Client;
use super::error::CloudError;
use crate::http::{Method, StatusCode};

/// Most bytes of an answer.
const LONGEST: usize = 256 << 10;

impl Client {
    /// Asks `GET /os/v1/config`. Returns `None` if the cloud has no such request, as a Cotter fleet server.
    ///
    /// # Errors
    ///
    /// If the cloud does not answer, or not with a body of at most 256 KiB.
    pub async fn os_config(&self, device_key: &str) -> Result<Option<Vec<u8>>, CloudError> {
        let call = "request for the settings of the VPN";
        let answer = self.sent(call, self.request(Method::GET, "os/v1/config").bearer(device_key)).await?;
        match answer.status() {
            StatusCode::OK => self.body(call, answer, LONGEST).await.map(Some),
            StatusCode::NOT_FOUND => Ok(None),
            _ => Err(self.refused(call, answer).await),
        }
    }
}

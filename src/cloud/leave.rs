//! Lets this device delete its own record at a Cotter fleet server. No other cloud has such a request.

use super::client::{Client, DELETED, reason};
use super::error::CloudError;
use crate::http::{Method, Request, StatusCode};
use crate::model::DeviceUuid;

impl Client {
    /// Asks the cloud to delete this device: `DELETE /device/v3/:uuid`. Returns `false` if it does not know this request.
    ///
    /// # Errors
    ///
    /// If the cloud cannot be reached, or cannot do it now.
    pub async fn delete(&self, uuid: &DeviceUuid, device_key: &str) -> Result<bool, CloudError> {
        let call = "deletion of the device";
        let url = format!("{}/device/v3/{uuid}", self.endpoint());
        let request = Request::new(Method::DELETE, url, self.timeout()).bearer(device_key);
        let answer = self.http().send(request).await.map_err(|failure| self.failed(call, failure))?;
        let (status, is_deleted) = (answer.status(), answer.header(&DELETED) == Some("deleted"));
        match status {
            _ if status.is_success() => Ok(is_deleted),
            StatusCode::CONFLICT => {
                let (endpoint, request) = (self.endpoint().to_owned(), call);
                let message = reason(answer).await;
                Err(CloudError::Refused { endpoint, request, status: 409, message, retry_after: None })
            }
            StatusCode::TOO_MANY_REQUESTS => Err(self.refused(call, answer).await),
            _ if status.is_server_error() => Err(self.refused(call, answer).await),
            _ => Ok(false),
        }
    }
}

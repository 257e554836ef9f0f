//! Requests and what their answers mean (protocol.md 1 and 10).

use std::time::Duration;

use reqwest::header::{DATE, ETAG, IF_NONE_MATCH, RETRY_AFTER};
use reqwest::{Response, StatusCode};
use serde::Deserialize;
use serde_json::json;
use tracing::warn;

use crate::model::{DeviceUuid, Identity};
use crate::wire::report_v3::{DeviceReport, ReportBody};

use super::knock::Answered;

/// A cloud's API.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    endpoint: String,
}

/// More than any target that is accepted (4 MiB), so that the reader says what is wrong with those between.
const LONGEST_BODY: usize = 8 * 1024 * 1024;

/// Why a request did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CloudError {
    /// No answer: name, route, TLS or time.
    #[error("cloud {endpoint} cannot be reached: {why}")]
    Unreachable { endpoint: String, why: String },
    /// 401 or 403: the key is not accepted for this.
    #[error(
        "cloud {endpoint} does not accept our key for {request} (status {status}); is the device deleted, or the key another cloud's?"
    )]
    Denied { endpoint: String, request: &'static str, status: u16 },
    /// 409: the uuid or the key is known already.
    #[error("cloud {endpoint} knows the uuid or the key already: {message}")]
    Conflict { endpoint: String, message: String },
    /// Any other answer than the ones the protocol has.
    #[error("cloud {endpoint} answered {request} with status {status}{}", shown(.message))]
    Refused {
        endpoint: String,
        request: &'static str,
        status: u16,
        message: String,
        retry_after: Option<Duration>,
    },
    /// 403 or 304 with a header of Cotter's own: an operator deleted this device.
    #[error(
        "this device was deleted from its fleet at {endpoint}; an operator must allow it again: `cotter device allow {uuid} --restore`"
    )]
    Deleted { endpoint: String, uuid: DeviceUuid },
    /// 304 though we named no etag: what it says to a device it does not know (protocol.md 10.3).
    #[error("cloud {endpoint} does not know this device; was it deleted there?")]
    Unknown { endpoint: String },
}

fn shown(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(": {message}") }
}

impl CloudError {
    /// How long the cloud asked us to wait.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            Self::Unreachable { .. }
            | Self::Denied { .. }
            | Self::Conflict { .. }
            | Self::Deleted { .. }
            | Self::Unknown { .. } => None,
        }
    }
}

/// The answer to a poll.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    Unchanged,
    Changed { etag: Option<String>, body: Vec<u8> },
}

/// The answer to a registration.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Device {
    pub id: u64,
}

/// What a device says when it registers. Only these fields: a version would be checked against
/// the fleet's and may be refused (protocol.md 1.2).
#[derive(Debug, Clone, Copy)]
pub struct Registration<'a> {
    pub fleet: u64,
    pub device_type: &'a str,
    pub device_name: Option<&'a str>,
    pub uuid: &'a DeviceUuid,
    pub device_key: &'a str,
}

impl Client {
    /// A client for the API at `endpoint`; nothing is sent yet.
    ///
    /// # Errors
    ///
    /// When TLS cannot be set up, which is a matter of the machine.
    pub fn new(endpoint: &str, timeout: Duration) -> Result<Self, CloudError> {
        // An error means that it is installed already.
        drop(rustls::crypto::ring::default_provider().install_default());
        let agent = concat!("cotter/", env!("CARGO_PKG_VERSION"));
        let builder = || reqwest::Client::builder().timeout(timeout).user_agent(agent);
        // Without certificates of authorities no client is made, and that must not keep an agent from
        // running what it knows: https then fails, and is told, until they are there.
        let http = builder().build().or_else(|error| {
            warn!(%error, "no certificates of authorities; https fails until ca-certificates is installed");
            builder().tls_certs_only([]).build()
        });
        let http =
            http.map_err(|e| CloudError::Unreachable { endpoint: endpoint.to_owned(), why: told(&e) })?;
        Ok(Self { http, endpoint: endpoint.to_owned() })
    }

    /// Base URL of the API.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// `POST /device/register`.
    ///
    /// # Errors
    ///
    /// [`CloudError::Conflict`] when the uuid or the key is known.
    pub async fn register(
        &self,
        device: Registration<'_>,
        provisioning_key: &str,
    ) -> Result<Device, CloudError> {
        let mut body = json!({
            "application": device.fleet,
            "device_type": device.device_type,
            "uuid": device.uuid,
            "api_key": device.device_key,
        });
        if let Some(name) = device.device_name {
            body["device_name"] = name.into();
        }
        let request = self.http.post(format!("{}/device/register", self.endpoint));
        let answer = self.sent(request.bearer_auth(provisioning_key).json(&body)).await?;
        self.check_not_deleted(device.uuid, &answer)?;
        if answer.status() != StatusCode::CREATED {
            return Err(self.refused("registration", answer).await);
        }
        answer.json().await.map_err(|e| self.unreachable(&e))
    }

    /// Whether the cloud knows the device under this very key; its numeric id then.
    ///
    /// # Errors
    ///
    /// When there is no answer to tell.
    pub async fn find(&self, uuid: &DeviceUuid, device_key: &str) -> Result<Option<u64>, CloudError> {
        #[derive(Deserialize)]
        struct Rows {
            d: Vec<Device>,
        }
        // OData wants `$ = '` raw and spaces escaped (protocol.md 10.1).
        let url = format!("{}/v7/device?$select=id&$filter=uuid%20eq%20'{uuid}'", self.endpoint);
        let answer = self.sent(self.http.get(url).bearer_auth(device_key)).await?;
        match answer.status() {
            StatusCode::OK => {
                let rows: Rows = answer.json().await.map_err(|e| self.unreachable(&e))?;
                Ok(rows.d.first().map(|device| device.id))
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Ok(None),
            _ => Err(self.refused("look-up of the device", answer).await),
        }
    }

    /// `GET /device/v3/:uuid/state`: the target, unless it still is the one of `etag`.
    ///
    /// # Errors
    ///
    /// As [`CloudError`] says.
    pub async fn state(
        &self,
        uuid: &DeviceUuid,
        device_key: &str,
        etag: Option<&str>,
    ) -> Result<State, CloudError> {
        let url = format!("{}/device/v3/{uuid}/state", self.endpoint);
        let mut request = self.http.get(url).bearer_auth(device_key);
        if let Some(etag) = etag {
            request = request.header(IF_NONE_MATCH, etag);
        }
        let answer = self.sent(request).await?;
        self.check_not_deleted(uuid, &answer)?;
        match answer.status() {
            StatusCode::NOT_MODIFIED if etag.is_some() => Ok(State::Unchanged),
            StatusCode::NOT_MODIFIED => Err(CloudError::Unknown { endpoint: self.endpoint.clone() }),
            StatusCode::OK => {
                let etag = answer.headers().get(ETAG).and_then(|e| e.to_str().ok()).map(str::to_owned);
                Ok(State::Changed { etag, body: self.body(answer).await? })
            }
            _ => Err(self.refused("poll", answer).await),
        }
    }

    /// Asks as a poll does, and leaves the target unread; for a device that no cloud has accepted, any page.
    pub(super) async fn knock(&self, identity: Option<&Identity>) -> Result<Answered, CloudError> {
        let known = identity.filter(|identity| identity.registered.is_some());
        let answer = match known {
            Some(Identity { uuid, device_key, .. }) => {
                let url = format!("{}/device/v3/{uuid}/state", self.endpoint);
                let answer = self.sent(self.http.get(url).bearer_auth(device_key)).await?;
                self.check_not_deleted(uuid, &answer)?;
                answer
            }
            None => self.sent(self.http.get(format!("{}/ping", self.endpoint))).await?,
        };
        let date = answer.headers().get(DATE).and_then(|date| date.to_str().ok()).map(str::to_owned);
        match answer.status() {
            StatusCode::NOT_MODIFIED if known.is_some() => {
                Err(CloudError::Unknown { endpoint: self.endpoint.clone() })
            }
            StatusCode::OK => Ok(Answered { is_known: known.is_some(), date }),
            _ if known.is_none() => Ok(Answered { is_known: false, date }),
            _ => Err(self.refused("poll", answer).await),
        }
    }

    /// `PATCH /device/v3/state`.
    ///
    /// # Errors
    ///
    /// [`CloudError::Denied`] may only mean that the report names something the cloud does not
    /// have any more (protocol.md 1.6).
    pub async fn report(
        &self,
        uuid: &DeviceUuid,
        device_key: &str,
        report: &DeviceReport,
    ) -> Result<(), CloudError> {
        let body = ReportBody::from([(uuid.to_string(), report.clone())]);
        let request = self.http.patch(format!("{}/device/v3/state", self.endpoint));
        let answer = self.sent(request.bearer_auth(device_key).json(&body)).await?;
        if answer.status().is_success() { Ok(()) } else { Err(self.refused("report", answer).await) }
    }

    /// Our fleet server says with a header what a balena API does not say at all.
    fn check_not_deleted(&self, uuid: &DeviceUuid, answer: &Response) -> Result<(), CloudError> {
        if answer.headers().get("cotter-device").is_some_and(|device| device == "deleted") {
            return Err(CloudError::Deleted { endpoint: self.endpoint.clone(), uuid: uuid.clone() });
        }
        Ok(())
    }

    /// Reads a body up to [`LONGEST_BODY`], so that no answer costs more memory than the device has.
    async fn body(&self, mut answer: Response) -> Result<Vec<u8>, CloudError> {
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(|e| self.unreachable(&e))? {
            body.extend_from_slice(&chunk);
            if body.len() > LONGEST_BODY {
                let message = format!("its target has more than {LONGEST_BODY} bytes and is not read");
                let (endpoint, status) = (self.endpoint.clone(), answer.status().as_u16());
                return Err(CloudError::Refused {
                    endpoint,
                    request: "poll",
                    status,
                    message,
                    retry_after: None,
                });
            }
        }
        Ok(body)
    }

    async fn sent(&self, request: reqwest::RequestBuilder) -> Result<Response, CloudError> {
        request.send().await.map_err(|e| self.unreachable(&e))
    }

    fn unreachable(&self, error: &reqwest::Error) -> CloudError {
        CloudError::Unreachable { endpoint: self.endpoint.clone(), why: told(error) }
    }

    async fn refused(&self, request: &'static str, answer: Response) -> CloudError {
        let (endpoint, status) = (self.endpoint.clone(), answer.status());
        let retry_after = answer.headers().get(RETRY_AFTER).and_then(|v| v.to_str().ok()).and_then(seconds);
        let text = answer.text().await.unwrap_or_default();
        let message: String = text.lines().next().unwrap_or_default().chars().take(200).collect();
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                CloudError::Denied { endpoint, request, status: status.as_u16() }
            }
            StatusCode::CONFLICT => CloudError::Conflict { endpoint, message },
            _ => CloudError::Refused { endpoint, request, status: status.as_u16(), message, retry_after },
        }
    }
}

/// `Retry-After` in seconds; a date is not read, and an hour is the most that is believed.
fn seconds(text: &str) -> Option<Duration> {
    text.trim().parse().ok().map(|s: u64| Duration::from_secs(s.min(3600)))
}

/// The error with its causes but without the URL, which is told beside it.
fn told(error: &reqwest::Error) -> String {
    let mut causes = Vec::new();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        causes.push(cause.to_string());
        source = cause.source();
    }
    if error.is_timeout() {
        return "no answer in time".to_owned();
    }
    causes.pop().unwrap_or_else(|| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_in_seconds_and_bounded() {
        assert_eq!(seconds("60"), Some(Duration::from_secs(60)));
        assert_eq!(seconds("999999"), Some(Duration::from_secs(3600)));
        assert_eq!(seconds("Wed, 21 Oct 2026 07:28:00 GMT"), None);
    }
}

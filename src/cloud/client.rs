//! Sends requests to a cloud and interprets the answers (docs/dev/protocol.md, "Registration", "Target state" and
//! "Reports").

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::answers::{Admitted, Answered, Device, Polled, State, Taken};
use super::error::{CloudError, REGISTRATION};
use crate::http::header::{DATE, ETAG, HeaderName, IF_NONE_MATCH};
use crate::http::{Answer, Failure, Http, Method, Request, StatusCode};
use crate::model::text::cleaned;
use crate::model::{DeviceUuid, FleetRef, Identity};
use crate::wire::report_v3::{DeviceReport, ReportBody};

/// A cloud's API.
#[derive(Debug, Clone)]
pub struct Client {
    http: Http,
    endpoint: String,
    /// Longest time for one request, with redirects and the complete body of the answer.
    timeout: Duration,
}

/// Maximum number of bytes of a target that are read. The parser accepts 4 MiB and can name the size of a body in between.
const LONGEST_TARGET: usize = 8 << 20;

/// Maximum number of bytes of any other answer.
const LONGEST_ANSWER: usize = 64 << 10;

/// What an answer tells that no cloud gives.
const NO_CLOUD: &str = "no cloud answers so, but a portal or a proxy may";

/// The header with which our fleet server says that an operator deleted the device.
pub(super) const DELETED: HeaderName = HeaderName::from_static("cotter-device");

/// The header with which our fleet server says that it takes an account in a report.
const TAKES: HeaderName = HeaderName::from_static("cotter-takes");

/// The header with which our fleet server says whether it wants the logs of this device now.
const LOGS: HeaderName = HeaderName::from_static("cotter-logs");

/// How long the answer to a poll may wait for a new target, and whether the cloud honours it (RFC 7240).
const PREFER: HeaderName = HeaderName::from_static("prefer");
const APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// Longest etag in bytes. A longer one is not sent back, so every poll returns the complete target.
pub(super) const LONGEST_ETAG: usize = 1024;

/// The fields of a registration. There are no others: a version would be compared with the fleet's and could be refused
/// (docs/dev/protocol.md, "Registration").
#[derive(Debug, Clone, Copy)]
pub struct Registration<'a> {
    pub fleet: &'a FleetRef,
    pub device_type: &'a str,
    pub device_name: Option<&'a str>,
    /// Only for a Cotter fleet server.
    pub tags: &'a BTreeMap<String, String>,
    pub uuid: &'a DeviceUuid,
    pub device_key: &'a str,
}

impl Client {
    /// Creates a client for the API at `endpoint`, and sends nothing yet. `timeout` is the longest time for one request,
    /// with redirects and the complete body of its answer.
    #[must_use]
    pub fn new(http: Http, endpoint: &str, timeout: Duration) -> Self {
        Self { http, endpoint: endpoint.to_owned(), timeout }
    }

    /// Returns the base URL of the API.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Asks a Cotter fleet server which fleet this provisioning key is for: `GET /device/register`. Changes nothing there.
    /// Returns `None` if the cloud is none.
    ///
    /// # Errors
    ///
    /// [`CloudError::NotAdmitted`] if the key is not for `fleet` or registers no more devices, [`CloudError::Denied`] if it
    /// is unknown.
    pub async fn may_register(
        &self,
        fleet: &FleetRef,
        provisioning_key: &str,
    ) -> Result<Option<Admitted>, CloudError> {
        #[derive(Deserialize)]
        struct Why {
            error: String,
        }
        let call = "question for the fleet";
        let request = self.request(Method::GET, "device/register").query("fleet", fleet.to_string());
        let answer = self.sent(call, request.bearer(provisioning_key)).await?;
        let (status, is_ours) = (answer.status(), answer.header(&TAKES) == Some("names"));
        if is_ours && status == StatusCode::OK {
            let Admitted { number, name, target } = self.read(call, answer).await?;
            let target = target.map(|target| cleaned(&target, 64));
            return Ok(Some(Admitted { number, name: cleaned(&name, 255), target }));
        }
        let is_no = matches!(status, StatusCode::UNAUTHORIZED | StatusCode::NOT_FOUND);
        if is_ours && is_no {
            let Why { error } = self.read(call, answer).await?;
            let message = cleaned(&error, 500);
            let message =
                if message.is_empty() { "it refuses, and does not say why".to_owned() } else { message };
            let (endpoint, is_other_fleet) = (self.endpoint.clone(), status == StatusCode::NOT_FOUND);
            return Err(CloudError::NotAdmitted { endpoint, message, is_other_fleet });
        }
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(self.refused(call, answer).await),
            _ if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
                Err(self.refused(call, answer).await)
            }
            // No cloud has such a question, except ours. A portal that wants a login answers everything.
            _ if status.is_success() => Err(self.invalid(call, status, NO_CLOUD.to_owned())),
            _ => Ok(None),
        }
    }

    /// Finds out of an address that is no Cotter fleet server whether a cloud answers there, and whether it knows this
    /// provisioning key. A registration without a device is sent, which registers none.
    ///
    /// # Errors
    ///
    /// [`CloudError::Denied`] if it does not know the key; otherwise as [`CloudError`] says.
    pub async fn try_key(&self, provisioning_key: &str) -> Result<(), CloudError> {
        let answer = self.sent("/ping", self.request(Method::GET, "ping")).await?;
        if answer.status() != StatusCode::OK {
            return Err(self.refused("/ping", answer).await);
        }
        let call = REGISTRATION;
        let request = self.request(Method::POST, "device/register").bearer(provisioning_key);
        let answer = self.sent(call, request.json(b"{}".to_vec())).await?;
        match answer.status() {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(self.refused(call, answer).await),
            status if status.is_success() => Err(self.invalid(call, status, NO_CLOUD.to_owned())),
            _ => Ok(()),
        }
    }

    /// Registers the device: `POST /device/register`. Where the fleet has a name, or the device tags, asks first whether
    /// the cloud is a Cotter fleet server.
    ///
    /// # Errors
    ///
    /// [`CloudError::Conflict`] if the uuid or the key is registered already, [`CloudError::NumbersOnly`].
    pub async fn register(
        &self,
        device: Registration<'_>,
        provisioning_key: &str,
    ) -> Result<Device, CloudError> {
        let number = match device.fleet {
            FleetRef::Number(number) if device.tags.is_empty() => *number,
            FleetRef::Number(_) | FleetRef::Name(_) => {
                let admitted = self.may_register(device.fleet, provisioning_key).await?;
                admitted.ok_or_else(|| CloudError::NumbersOnly { endpoint: self.endpoint.clone() })?.number
            }
        };
        let mut body = json!({
            "application": number,
            "device_type": device.device_type,
            "uuid": device.uuid,
            "api_key": device.device_key,
        });
        if let Some(name) = device.device_name {
            body["device_name"] = name.into();
        }
        if !device.tags.is_empty() {
            body["tags"] = json!(device.tags);
        }
        let call = REGISTRATION;
        let request = self.request(Method::POST, "device/register").bearer(provisioning_key);
        let answer = self.sent(call, request.json(body.to_string().into_bytes())).await?;
        self.check_not_deleted(device.uuid, &answer)?;
        if answer.status() != StatusCode::CREATED {
            return Err(self.refused(call, answer).await);
        }
        self.read(call, answer).await
    }

    /// Returns the numeric id of the device if the cloud has it with exactly this key.
    ///
    /// # Errors
    ///
    /// If the answer says neither that it has nor that it has not.
    pub async fn find(&self, uuid: &DeviceUuid, device_key: &str) -> Result<Option<u64>, CloudError> {
        #[derive(Deserialize)]
        struct Rows {
            d: Vec<Device>,
        }
        // OData needs `$` and `=` unescaped. `Url` escapes the apostrophes (docs/dev/protocol.md, "Looking a device up").
        let call = "look-up of the device";
        let path = format!("v7/device?$select=id&$filter=uuid%20eq%20'{uuid}'");
        let answer = self.sent(call, self.request(Method::GET, &path).bearer(device_key)).await?;
        match answer.status() {
            StatusCode::OK => {
                let rows: Rows = self.read(call, answer).await?;
                Ok(rows.d.first().map(|device| device.id))
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Ok(None),
            _ => Err(self.refused(call, answer).await),
        }
    }

    pub(super) fn http(&self) -> &Http {
        &self.http
    }

    /// Returns the longest time for one request.
    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Polls: `GET /device/v3/:uuid/state`. Returns the target if it differs from that of `etag`. Asks the cloud to `wait`
    /// for a new one, in whole seconds; most clouds do not.
    ///
    /// # Errors
    ///
    /// As [`CloudError`] says.
    pub async fn state(
        &self,
        uuid: &DeviceUuid,
        device_key: &str,
        etag: Option<&str>,
        wait: Option<Duration>,
    ) -> Result<Polled, CloudError> {
        let call = "poll";
        let mut request = self.request(Method::GET, &target_of(uuid)).bearer(device_key);
        if let Some(etag) = etag {
            request = request.header(IF_NONE_MATCH, etag);
        }
        if let Some(wait) = wait {
            request = request.header(PREFER, &format!("wait={}", wait.as_secs()));
        }
        let answer = self.sent(call, request).await?;
        self.check_not_deleted(uuid, &answer)?;
        let is_honoured = answer.header(&APPLIED).is_some_and(|applied| applied.starts_with("wait"));
        // A balena API has no such header, and takes logs at any time.
        let wants_logs = answer.header(&LOGS).is_none_or(|wants| wants == "on");
        let sent = answer.header(&ETAG).map(str::to_owned);
        let state = match answer.status() {
            StatusCode::NOT_MODIFIED if etag.is_some() => State::Unchanged { etag: sent },
            StatusCode::NOT_MODIFIED => return Err(CloudError::Unknown { endpoint: self.endpoint.clone() }),
            StatusCode::OK => {
                let etag = sent.filter(|etag| etag.len() <= LONGEST_ETAG);
                State::Changed { etag, body: self.body(call, answer, LONGEST_TARGET).await? }
            }
            _ => return Err(self.refused(call, answer).await),
        };
        Ok(Polled { state, is_honoured, wants_logs })
    }

    /// Polls without reading the target. A device that is not registered requests `/ping` instead.
    pub(super) async fn probe(&self, identity: Option<&Identity>) -> Result<Answered, CloudError> {
        let known = identity.filter(|identity| identity.registered.is_some());
        let request = match known {
            Some(Identity { uuid, device_key, .. }) => {
                self.request(Method::GET, &target_of(uuid)).bearer(device_key)
            }
            None => self.request(Method::GET, "ping"),
        };
        let answer = self.sent("poll", request).await?;
        if let Some(Identity { uuid, .. }) = known {
            self.check_not_deleted(uuid, &answer)?;
        }
        let date = answer.header(&DATE).map(str::to_owned);
        match answer.status() {
            StatusCode::NOT_MODIFIED if known.is_some() => {
                Err(CloudError::Unknown { endpoint: self.endpoint.clone() })
            }
            StatusCode::OK => Ok(Answered { is_known: known.is_some(), date }),
            _ if known.is_none() => Ok(Answered { is_known: false, date }),
            _ => Err(self.refused("poll", answer).await),
        }
    }

    /// Reports: `PATCH /device/v3/state`.
    ///
    /// # Errors
    ///
    /// [`CloudError::Denied`] may also mean that the report names something that the cloud no longer has
    /// (docs/dev/protocol.md, "Reports: rules for apps").
    pub async fn report(
        &self,
        uuid: &DeviceUuid,
        device_key: &str,
        report: &DeviceReport,
    ) -> Result<Taken, CloudError> {
        let call = "report";
        let body = ReportBody::from([(uuid.to_string(), report.clone())]);
        let body = serde_json::to_vec(&body).unwrap_or_default();
        let request = self.request(Method::PATCH, "device/v3/state").bearer(device_key).json(body);
        let answer = self.sent(call, request).await?;
        if !answer.status().is_success() {
            return Err(self.refused(call, answer).await);
        }
        Ok(Taken { takes_accounts: answer.header(&TAKES) == Some("account") })
    }

    /// Checks the header with which our fleet server says that the device was deleted. A balena API has no such header.
    fn check_not_deleted(&self, uuid: &DeviceUuid, answer: &Answer) -> Result<(), CloudError> {
        if answer.header(&DELETED) == Some("deleted") {
            return Err(CloudError::Deleted { endpoint: self.endpoint.clone(), uuid: uuid.clone() });
        }
        Ok(())
    }

    pub(super) fn request(&self, method: Method, path: &str) -> Request {
        Request::new(method, format!("{}/{path}", self.endpoint), self.timeout)
    }

    pub(super) async fn sent(&self, call: &'static str, request: Request) -> Result<Answer, CloudError> {
        self.http.send(request).await.map_err(|failure| self.failed(call, failure))
    }

    /// Reads a short JSON answer.
    pub(super) async fn read<T: DeserializeOwned>(
        &self,
        call: &'static str,
        answer: Answer,
    ) -> Result<T, CloudError> {
        let status = answer.status();
        let body = self.body(call, answer, LONGEST_ANSWER).await?;
        serde_json::from_slice(&body)
            .map_err(|error| self.invalid(call, status, format!("its answer cannot be parsed: {error}")))
    }

    pub(super) async fn body(
        &self,
        call: &'static str,
        answer: Answer,
        most: usize,
    ) -> Result<Vec<u8>, CloudError> {
        let status = answer.status();
        answer.body(most).await.map_err(|failure| match failure {
            Failure::TooLong(_) => self.invalid(call, status, format!("{failure} and is not read")),
            Failure::NoUrl(_) | Failure::Unreachable(_) | Failure::Late | Failure::Redirected { .. } => {
                self.failed(call, failure)
            }
        })
    }

    /// Makes the error for an answer with a valid status and an invalid body.
    pub(super) fn invalid(&self, request: &'static str, status: StatusCode, message: String) -> CloudError {
        let (endpoint, status) = (self.endpoint.clone(), status.as_u16());
        CloudError::Refused { endpoint, request, status, message, retry_after: None }
    }

    pub(super) fn failed(&self, request: &'static str, failure: Failure) -> CloudError {
        let endpoint = self.endpoint.clone();
        match failure {
            Failure::Redirected { .. } => {
                CloudError::Redirected { endpoint, request, why: failure.to_string() }
            }
            Failure::NoUrl(_) | Failure::Unreachable(_) | Failure::Late | Failure::TooLong(_) => {
                CloudError::Unreachable { endpoint, why: failure }
            }
        }
    }

    pub(super) async fn refused(&self, request: &'static str, answer: Answer) -> CloudError {
        let (endpoint, status, retry_after) = (self.endpoint.clone(), answer.status(), answer.retry_after());
        let message = reason(answer).await;
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                CloudError::Denied { endpoint, request, status: status.as_u16() }
            }
            StatusCode::CONFLICT => CloudError::Conflict { endpoint, message },
            _ => CloudError::Refused { endpoint, request, status: status.as_u16(), message, retry_after },
        }
    }
}

/// Returns the first line of an answer, which says why a request is refused.
pub(super) async fn reason(answer: Answer) -> String {
    let text = answer.beginning().await;
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().next().unwrap_or_default();
    line.chars().filter(|c| !c.is_control()).take(200).collect()
}

/// Returns the path of a device's target.
fn target_of(uuid: &DeviceUuid) -> String {
    format!("device/v3/{uuid}/state")
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;

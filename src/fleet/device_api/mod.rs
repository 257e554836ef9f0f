//! The API for devices: the balena device protocol, with the answers of the real API. It decides nothing, and accepts
//! device keys, not the operator's token.
//!
//! The key is in the head of a request. A request is admitted once its key is verified, and only then is its body read: see
//! [`crate::listen`].

mod leave;
mod logs;
mod prefer;
mod record;
mod register;
mod state;
mod tags;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::RawQuery;
use axum::http::header::{AUTHORIZATION, RETRY_AFTER};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, delete, get, patch, post};

use super::records::{ActError, Records};
use super::secret;
use crate::fleet::policy::KeyHash;
use crate::listen::{self, Busy, Rank, Received, Unread, Visit};
use crate::model::DeviceUuid;

/// The header that tells a device that an operator deleted it. Sent only to a request with the device's key. A header,
/// because the real API's answers to a deleted device have no body.
const DELETED: [(&str, &str); 1] = [("cotter-device", "deleted")];

/// The header that tells a device that a report may have an account: see docs/protocol.md.
const TAKES_ACCOUNTS: [(&str, &str); 1] = [("cotter-takes", "account")];

/// The header that tells a device that the fleet's name and tags may be given at registration. Balena's API has no such
/// header.
const TAKES_NAMES: [(&str, &str); 1] = [("cotter-takes", "names")];

/// Maximum number of bytes of a registration and of a report.
const LARGEST_REGISTRATION: usize = 64 * 1024;
const LARGEST_REPORT: usize = 512 * 1024;

/// The routes of devices.
pub(super) fn table() -> [(&'static str, MethodRouter<Arc<Records>>); 9] {
    [
        ("/ping", get(async || "OK")),
        ("/device/register", get(register::may_register).post(register::register)),
        ("/device/v3/{uuid}", delete(leave::leave)),
        ("/device/v3/{uuid}/state", get(state::get)),
        ("/device/v3/state", patch(state::patch)),
        ("/device/v3/tags", patch(tags::patch)),
        ("/device/v2/{uuid}/log-stream", post(logs::stream)),
        ("/v7/device", get(register::own_id)),
        ("/v7/device_tag", get(tags::get)),
    ]
}

pub(super) fn routes() -> Router<Arc<Records>> {
    table().into_iter().fold(Router::new(), |router, (path, route)| router.route(path, route))
}

/// Returns the hashed key of a request: a bearer token, or else `?apikey=`.
fn key_of(headers: &HeaderMap, RawQuery(query): &RawQuery) -> Option<KeyHash> {
    let bearer = || {
        let (scheme, key) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(key.trim())
    };
    let in_query = || query.as_deref()?.split('&').find_map(|pair| pair.strip_prefix("apikey="));
    secret::hash_given(bearer().or_else(in_query)?)
}

/// Why a request with a valid key is not served.
enum NotServed {
    Busy,
    /// The device may try again after this time.
    TooOften(Duration),
    Unread(Unread),
}

impl From<Busy> for NotServed {
    fn from(_: Busy) -> Self {
        Self::Busy
    }
}

impl IntoResponse for NotServed {
    fn into_response(self) -> Response {
        let try_again = |status: StatusCode, seconds: u64| (status, [(RETRY_AFTER, seconds)]).into_response();
        match self {
            Self::Busy | Self::Unread(Unread::Busy) => {
                try_again(StatusCode::SERVICE_UNAVAILABLE, listen::RETRY_AFTER)
            }
            // Whole seconds, at least 1.
            Self::TooOften(wait) => try_again(StatusCode::TOO_MANY_REQUESTS, wait.as_secs() + 1),
            Self::Unread(Unread::TooLarge) => StatusCode::PAYLOAD_TOO_LARGE.into_response(),
            Self::Unread(Unread::TooSlow) => StatusCode::REQUEST_TIMEOUT.into_response(),
            Self::Unread(Unread::Broken) => StatusCode::BAD_REQUEST.into_response(),
        }
    }
}

/// Reads the body of a request with a valid key.
async fn read(visit: &Visit, body: Body, largest: usize) -> Result<Received, NotServed> {
    visit.admit(Rank::Ordinary)?.read(body, largest).await.map_err(NotServed::Unread)
}

/// The answer of the real API to a missing or unknown key.
/// Returns the uuid of the device that has the key.
async fn device_of(records: &Arc<Records>, key: &KeyHash) -> Option<DeviceUuid> {
    let find = || records.world().device_with_key(key).map(|device| device.uuid.clone());
    if let Some(uuid) = find() {
        return Some(uuid);
    }
    records.refresh_for_unknown().await;
    find()
}

fn key_required() -> Response {
    (StatusCode::UNAUTHORIZED, axum::Json(serde_json::json!({ "error": "API key required" }))).into_response()
}

/// The answer if an act failed because of the server itself.
fn failed(error: &dyn std::error::Error) -> Response {
    super::operator_api::log_failure(error);
    StatusCode::INTERNAL_SERVER_ERROR.into_response()
}

/// The answer if an act was not written. That the database is lost is in the log already.
fn not_written(error: &ActError) -> Response {
    if matches!(error, ActError::Store(error) if error.is_of_database()) {
        return (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, listen::RETRY_AFTER)]).into_response();
    }
    failed(error)
}

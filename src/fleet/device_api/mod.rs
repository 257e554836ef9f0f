//! The balena device protocol, as devices speak it. It asks no operator's token, and
//! decides nothing: keys, uuids and the answers that the real API gives.
//!
//! Keys stand in the head of a request. A request is admitted once its key is known, and only then its body is read:
//! see [`crate::listen`].

mod register;
mod state;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::RawQuery;
use axum::http::header::{AUTHORIZATION, RETRY_AFTER};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, patch, post};

use super::records::Records;
use super::secret;
use crate::fleet::policy::KeyHash;
use crate::listen::{self, Busy, Rank, Received, Unread, Visit};

/// Tells a device, and no stranger, that an operator deleted it. A header, because the real API's answers to a
/// device that is gone have no body that says so.
const DELETED: [(&str, &str); 1] = [("cotter-device", "deleted")];

/// The largest registration and the largest report, in bytes.
const LARGEST_REGISTRATION: usize = 64 * 1024;
const LARGEST_REPORT: usize = 512 * 1024;

/// The routes of devices.
pub(super) fn table() -> [(&'static str, MethodRouter<Arc<Records>>); 5] {
    [
        ("/ping", get(async || "OK")),
        ("/device/register", post(register::register)),
        ("/device/v3/{uuid}/state", get(state::get)),
        ("/device/v3/state", patch(state::patch)),
        ("/v7/device", get(register::own_id)),
    ]
}

pub(super) fn routes() -> Router<Arc<Records>> {
    table().into_iter().fold(Router::new(), |router, (path, route)| router.route(path, route))
}

/// The key of a request, hashed: a bearer token, else `?apikey=`.
fn key_of(headers: &HeaderMap, RawQuery(query): &RawQuery) -> Option<KeyHash> {
    let bearer = || {
        let (scheme, key) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(key.trim())
    };
    let in_query = || query.as_deref()?.split('&').find_map(|pair| pair.strip_prefix("apikey="));
    secret::hash_given(bearer().or_else(in_query)?)
}

/// Why a request whose key is known is not served.
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
            // Whole seconds, and never none.
            Self::TooOften(wait) => try_again(StatusCode::TOO_MANY_REQUESTS, wait.as_secs() + 1),
            Self::Unread(Unread::TooLarge) => StatusCode::PAYLOAD_TOO_LARGE.into_response(),
            Self::Unread(Unread::TooSlow) => StatusCode::REQUEST_TIMEOUT.into_response(),
            Self::Unread(Unread::Broken) => StatusCode::BAD_REQUEST.into_response(),
        }
    }
}

/// Reads the body of a request whose key is known.
async fn read(visit: &Visit, body: Body, largest: usize) -> Result<Received, NotServed> {
    visit.admit(Rank::Ordinary)?.read(body, largest).await.map_err(NotServed::Unread)
}

/// What the real API answers when there is no key, or one that nobody has.
fn key_required() -> Response {
    (StatusCode::UNAUTHORIZED, axum::Json(serde_json::json!({ "error": "API key required" }))).into_response()
}

/// An act that failed for a reason of the server's own.
fn failed(error: &dyn std::error::Error) -> Response {
    super::operator_api::log_failure(error);
    StatusCode::INTERNAL_SERVER_ERROR.into_response()
}

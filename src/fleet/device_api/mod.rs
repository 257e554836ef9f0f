//! The balena device protocol, as devices speak it. It asks no operator's token, and
//! decides nothing: keys, uuids and the answers that the real API gives.

mod register;
mod state;

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, RawQuery};
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, patch, post};

use super::records::Records;
use super::secret;
use crate::fleet::policy::KeyHash;

/// Tells a device, and no stranger, that an operator deleted it. A header, because the real API's answers to a
/// device that is gone have no body that says so.
const DELETED: [(&str, &str); 1] = [("cotter-device", "deleted")];

/// The largest report, in bytes.
const LARGEST_REPORT: usize = 512 * 1024;

pub(super) fn routes() -> Router<Arc<Records>> {
    Router::new()
        .route("/ping", get(async || "OK"))
        .route("/device/register", post(register::register).layer(DefaultBodyLimit::max(64 * 1024)))
        .route("/device/v3/{uuid}/state", get(state::get))
        .route("/device/v3/state", patch(state::patch).layer(DefaultBodyLimit::max(LARGEST_REPORT)))
        .route("/v7/device", get(register::own_id))
}

/// The key of a request, hashed: a bearer token, else `?apikey=`.
fn key_of(headers: &HeaderMap, RawQuery(query): &RawQuery) -> Option<KeyHash> {
    let bearer = || {
        let (scheme, key) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(key.trim())
    };
    let in_query = || query.as_deref()?.split('&').find_map(|pair| pair.strip_prefix("apikey="));
    let key = bearer().or_else(in_query)?;
    (!key.is_empty()).then(|| secret::hash(key))
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

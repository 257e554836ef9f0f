//! The answers of both sockets, as JSON.

use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use super::document::SCHEMA_VERSION;
use crate::listen::RETRY_AFTER;
use crate::model::text;

/// The result of an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControlAnswer {
    pub schema_version: u32,
    /// `done`, `refused`, `held` (by a hold or a lock), `not_found`, `bad_request`, `busy`, `stopping` or `engine`
    /// (which fails); of a request that is no order: `no_such_method`, `too_large`, `too_slow` or
    /// `unsupported_media_type`.
    pub code: String,
    /// A line for the operator.
    pub message: String,
    /// The lock that was given or renewed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
}

/// A document, sent as JSON that is safe to show on a terminal.
#[derive(Debug)]
pub(super) struct Json<T>(pub(super) T);

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        written(serde_json::to_string(&self.0))
    }
}

/// The response with a document. One function for all types keeps the binary small.
fn written(document: serde_json::Result<String>) -> Response {
    match document {
        Ok(document) => ([(header::CONTENT_TYPE, "application/json")], text::json(&document)).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// An answer with its HTTP status.
pub(super) type Reply = (StatusCode, Json<ControlAnswer>);

/// Makes an answer; its code decides the HTTP status.
pub(super) fn reply(code: &str, message: String) -> Reply {
    let status = match code {
        "done" => StatusCode::OK,
        "not_found" => StatusCode::NOT_FOUND,
        "bad_request" => StatusCode::BAD_REQUEST,
        "no_such_method" => StatusCode::METHOD_NOT_ALLOWED,
        "too_slow" => StatusCode::REQUEST_TIMEOUT,
        "too_large" => StatusCode::PAYLOAD_TOO_LARGE,
        "unsupported_media_type" => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "stopping" | "busy" => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::CONFLICT,
    };
    let code = code.to_owned();
    (status, Json(ControlAnswer { schema_version: SCHEMA_VERSION, code, message, id: None }))
}

/// The answer to a request for which there is no place, with `Retry-After`.
pub(super) fn busy(why: &str) -> ([(HeaderName, u64); 1], Reply) {
    (
        [(header::RETRY_AFTER, RETRY_AFTER)],
        reply("busy", format!("the agent is busy: {why}; try again in {RETRY_AFTER} s")),
    )
}

//! What the sockets answer, and how it is written.

use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use super::document::SCHEMA_VERSION;
use crate::listen::RETRY_AFTER;
use crate::model::text;

/// What became of an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControlAnswer {
    pub schema_version: u32,
    /// `done`, `refused`, `held` (by a hold or a lock), `not_found`, `bad_request`, `busy`, `stopping` or `engine`
    /// (which fails); of a request that is no order: `no_such_method`, `too_large`, `too_slow` or
    /// `unsupported_media_type`.
    pub code: String,
    /// A line for the operator.
    pub message: String,
    /// Of the lock that was given or renewed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
}

/// A document, written as JSON that may be shown on a terminal.
#[derive(Debug)]
pub(super) struct Json<T>(pub(super) T);

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        written(serde_json::to_string(&self.0))
    }
}

/// One way for all documents.
fn written(document: serde_json::Result<String>) -> Response {
    match document {
        Ok(document) => ([(header::CONTENT_TYPE, "application/json")], text::json(&document)).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

pub(super) type Told = (StatusCode, Json<ControlAnswer>);

/// An answer with the status that goes with its code.
pub(super) fn told(code: &str, message: String) -> Told {
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

/// The answer to a request that finds no place, with the time after which to try again.
pub(super) fn busy(why: &str) -> ([(HeaderName, u64); 1], Told) {
    (
        [(header::RETRY_AFTER, RETRY_AFTER)],
        told("busy", format!("the agent is busy: {why}; try again in {RETRY_AFTER} s")),
    )
}

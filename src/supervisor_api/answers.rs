//! The responses of the API, in the shapes that clients of balena's know.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::model::Answer;

/// A text.
pub(super) fn text(status: StatusCode, text: &str) -> Response {
    (status, [(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text.to_owned()).into_response()
}

/// A document.
pub(super) fn document(status: StatusCode, document: &Value) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json; charset=utf-8")], document.to_string())
        .into_response()
}

/// A document of version 2 for a success.
pub(super) fn success(mut fields: Value) -> Response {
    fields["status"] = "success".into();
    document(StatusCode::OK, &fields)
}

/// A document of version 2 for a failure.
pub(super) fn failed(status: StatusCode, why: &str) -> Response {
    document(status, &json!({ "status": "failed", "message": why }))
}

/// A failure of a row of version 1 that answers with `Data` and `Error`.
pub(super) fn failed_v1(status: StatusCode, why: &str) -> Response {
    document(status, &json!({ "Data": "", "Error": why }))
}

/// The response to a refused order: 423 for a lock or a hold, 404 for an unknown app or service, otherwise 503.
pub(super) fn not_followed(answer: &Answer) -> Response {
    match answer {
        Answer::Held(why) => failed(StatusCode::LOCKED, why),
        Answer::NotFound(why) => text(StatusCode::NOT_FOUND, why),
        Answer::Refused(why) | Answer::Done(why) => failed(StatusCode::SERVICE_UNAVAILABLE, why),
    }
}

//! `/healthz` and `/readyz`, for whoever watches the process. They need no key, and tell nothing about fleets.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};

use super::records::Records;

pub(super) fn table() -> [(&'static str, MethodRouter<Arc<Records>>); 2] {
    [("/healthz", get(async || "OK")), ("/readyz", get(ready))]
}

pub(super) fn routes() -> Router<Arc<Records>> {
    table().into_iter().fold(Router::new(), |router, (path, route)| router.route(path, route))
}

/// Whether acts can be written. Polls are answered from memory in any case.
async fn ready(State(records): State<Arc<Records>>) -> Response {
    match records.work().failure() {
        None if !records.is_in_place() => {
            let words = "the file of the records is gone from the data folder; do not restart the server: \
                         `cotter-fleet backup` still copies what it has open";
            (StatusCode::SERVICE_UNAVAILABLE, words).into_response()
        }
        None => "OK".into_response(),
        Some(_) => {
            let words = "the records cannot be written; the log of cotter-fleet says why";
            (StatusCode::SERVICE_UNAVAILABLE, words).into_response()
        }
    }
}

//! `/metrics` and `/metrics/targets`, for Prometheus.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;

use crate::exposition;
use crate::fleet::metrics::{self, Scraped};
use crate::fleet::records::Records;

pub(super) async fn page(State(records): State<Arc<Records>>) -> impl IntoResponse {
    let text = metrics::page(&records.world(), |device| records.last_seen(device).1);
    ([(CONTENT_TYPE, exposition::CONTENT_TYPE)], text)
}

pub(super) async fn targets(State(records): State<Arc<Records>>) -> Json<Vec<Scraped>> {
    Json(metrics::targets(&records.world()))
}

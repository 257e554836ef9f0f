//! `/metrics` and `/metrics/targets`, for Prometheus.

use axum::Json;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;

use super::desk::Desk;
use crate::exposition;
use crate::fleet::metrics::{self, Scraped};

pub(super) async fn page(records: Desk) -> impl IntoResponse {
    let text = metrics::page(&records.world(), |device| records.last_seen(device).1);
    ([(CONTENT_TYPE, exposition::CONTENT_TYPE)], text)
}

pub(super) async fn targets(records: Desk) -> Json<Vec<Scraped>> {
    Json(metrics::targets(&records.world()))
}

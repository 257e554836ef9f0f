//! `/metrics` and `/metrics/targets`, for Prometheus.

use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};

use super::answer::ApiError;
use super::desk::Desk;
use super::pages;
use crate::exposition;
use crate::fleet::metrics;

pub(super) async fn page(records: Desk) -> Result<Response, ApiError> {
    let made = tokio::task::spawn_blocking(move || {
        let world = records.world();
        let (parked, logs) = (records.parked(), records.logs());
        metrics::page(&world, records.requests(), records.work(), (parked, logs), |device| {
            records.last_seen(&world, device).1
        })
    });
    let text = made.await.map_err(|error| ApiError::failed(&error))?;
    Ok(([(CONTENT_TYPE, exposition::CONTENT_TYPE)], text).into_response())
}

pub(super) async fn targets(records: Desk) -> Result<Response, ApiError> {
    pages::beside(&records, |_, world| Ok(metrics::targets(world))).await
}

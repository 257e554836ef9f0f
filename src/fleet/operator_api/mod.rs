//! The API of operators: JSON under `/api/v1`, and metrics at `/metrics`, with a bearer token.
//!
//! It finds things by the names that people use (a fleet's name, the beginning of a uuid), calls the policy and returns its
//! result. It decides nothing.

mod answer;
mod barred;
mod devices;
mod fleets;
mod keys;
mod metrics;
mod pages;
mod releases;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Extension, Request, State};
use axum::http::Method;
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};

pub(super) use answer::{log_failure, no_such_method, no_such_route};

use super::policy::KeyHash;
use super::records::Records;
use super::secret;
use crate::listen::{Rank, Visit};
use answer::ApiError;

/// The largest request, in bytes. A release must also fit into one record of the store.
const LARGEST_REQUEST: usize = 256 * 1024;

/// The routes below `/api/v1`.
pub(super) fn table() -> [(&'static str, MethodRouter<Arc<Records>>); 25] {
    [
        ("/fleets", get(fleets::list).post(fleets::create)),
        ("/fleets/{fleet}", get(fleets::show).patch(fleets::patch)),
        ("/fleets/{fleet}/rename", post(fleets::rename)),
        ("/fleets/{fleet}/delete", post(fleets::delete)),
        ("/fleets/{fleet}/pin", post(fleets::pin)),
        ("/fleets/{fleet}/track-latest", post(fleets::track_latest)),
        ("/fleets/{fleet}/provisioning-keys", get(keys::list).post(keys::create)),
        ("/fleets/{fleet}/provisioning-keys/{key}/revoke", post(keys::revoke)),
        ("/fleets/{fleet}/releases", get(releases::list_of).post(releases::create)),
        ("/devices", get(devices::list)),
        ("/devices/pin", post(devices::pin_many)),
        ("/devices/track-fleet", post(devices::track_many)),
        ("/devices/tags", post(devices::tag_many)),
        ("/devices/delete", post(devices::delete_many)),
        ("/devices/{device}", get(devices::show).delete(devices::delete)),
        ("/devices/{device}/pin", post(devices::pin)),
        ("/devices/{device}/track-fleet", post(devices::track_fleet)),
        ("/devices/{device}/tags", post(devices::tag)),
        ("/devices/{device}/move", post(devices::move_to)),
        ("/devices/{device}/rename", post(devices::rename)),
        ("/barred-devices", get(barred::list)),
        ("/barred-devices/{device}/allow", post(barred::allow)),
        ("/releases", get(releases::list)),
        ("/releases/{release}", get(releases::show).patch(releases::patch).delete(releases::delete)),
        ("/openapi.json", get(openapi)),
    ]
}

pub(super) fn routes(token: KeyHash) -> Router<Arc<Records>> {
    table()
        .into_iter()
        .fold(Router::new(), |router, (path, route)| router.route(path, route))
        .fallback(no_such_route)
        .method_not_allowed_fallback(no_such_method)
        .layer(middleware::from_fn_with_state(token, only_operators))
}

/// The routes of Prometheus, which are at the root of the server.
pub(super) fn table_of_metrics() -> [(&'static str, MethodRouter<Arc<Records>>); 2] {
    [("/metrics", get(metrics::page)), ("/metrics/targets", get(metrics::targets))]
}

pub(super) fn routes_of_metrics(token: KeyHash) -> Router<Arc<Records>> {
    table_of_metrics()
        .into_iter()
        .fold(Router::new(), |router, (path, route)| router.route(path, route))
        .route_layer(middleware::from_fn_with_state(token, only_operators))
}

async fn openapi() -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json")], include_str!("../../../docs/openapi-fleet.json"))
}

/// Admits operators, who have places of their own, before the body is read.
async fn only_operators(
    State(token): State<KeyHash>,
    Extension(visit): Extension<Visit>,
    mut request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let bearer = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let given = bearer.and_then(|value| value.strip_prefix("Bearer ")).and_then(secret::hash_given);
    if given != Some(token) {
        return Err(ApiError::not_permitted());
    }
    let admitted = visit.admit(Rank::Privileged).map_err(|_| ApiError::busy())?;
    request.extensions_mut().insert(admitted);
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let response = next.run(request).await;
    if method != Method::GET {
        let status = response.status().as_u16();
        tracing::info!(%method, path, status, "operator request");
    }
    Ok(response)
}

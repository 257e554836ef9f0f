//! What operators ask and order, as JSON under `/api/v1`, with a bearer token.
//!
//! It names things as people do (a fleet's name, the beginning of a uuid), asks the
//! policy, and tells what became of it. It decides nothing.

mod answer;
mod barred;
mod devices;
mod fleets;
mod keys;
mod releases;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Extension, Request, State};
use axum::http::Method;
use axum::http::header::AUTHORIZATION;
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{get, post};

pub(super) use answer::{log_failure, no_such_method, no_such_route};

use super::policy::KeyHash;
use super::records::Records;
use super::secret;
use crate::listen::{Rank, Visit};
use answer::ApiError;

/// The largest request. A release must also fit into one record of the store.
const LARGEST_REQUEST: usize = 256 * 1024;

pub(super) fn routes(token: KeyHash) -> Router<Arc<Records>> {
    Router::new()
        .route("/fleets", get(fleets::list).post(fleets::create))
        .route("/fleets/{fleet}", get(fleets::show))
        .route("/fleets/{fleet}/pin", post(fleets::pin))
        .route("/fleets/{fleet}/track-latest", post(fleets::track_latest))
        .route("/fleets/{fleet}/provisioning-keys", get(keys::list).post(keys::create))
        .route("/fleets/{fleet}/provisioning-keys/{key}/revoke", post(keys::revoke))
        .route("/fleets/{fleet}/releases", get(releases::list_of).post(releases::create))
        .route("/devices", get(devices::list))
        .route("/devices/pin", post(devices::pin_many))
        .route("/devices/track-fleet", post(devices::track_many))
        .route("/devices/delete", post(devices::delete_many))
        .route("/devices/{device}", get(devices::show).delete(devices::delete))
        .route("/devices/{device}/pin", post(devices::pin))
        .route("/devices/{device}/track-fleet", post(devices::track_fleet))
        .route("/devices/{device}/tags", post(devices::tag))
        .route("/devices/{device}/move", post(devices::move_to))
        .route("/devices/{device}/rename", post(devices::rename))
        .route("/barred-devices", get(barred::list))
        .route("/barred-devices/{device}/allow", post(barred::allow))
        .route("/releases", get(releases::list))
        .route("/releases/{release}", get(releases::show).patch(releases::patch).delete(releases::delete))
        .fallback(no_such_route)
        .method_not_allowed_fallback(no_such_method)
        .layer(middleware::from_fn_with_state(token, only_operators))
}

/// Lets operators in, who have places of their own, before anything of the body is read.
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

//! The API of operators: JSON under `/api/v1`, and metrics at `/metrics`, with a bearer token.
//!
//! It finds things by the names that people use (a fleet's name, the beginning of a uuid), calls the policy and returns its
//! result. It decides nothing.

//!
//! Each route has its permission in `table`, and sees and changes records only through a `desk`.

mod answer;
mod audit;
mod backup;
mod barred;
mod checking;
mod chosen;
mod codes;
mod conditions;
mod desk;
mod devices;
mod document;
mod etag;
mod exchange;
mod fleets;
mod keys;
mod logs;
mod membership;
mod metrics;
mod migration;
mod needs;
mod overview;
mod pages;
mod reason;
mod release_rows;
mod releases;
mod repeat;
mod rollouts;
mod stream;
mod table;
mod users;
mod variables;
mod way;
mod webhooks;

use std::net::IpAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Extension, Request, State};
use axum::http::Method;
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};

pub use document::openapi_document;

pub(super) use answer::{log_failure, no_such_method, no_such_route};
pub(super) use chosen::Chosen;
pub(super) use needs::OfPage;
pub(super) use overview::{DeviceRow, DeviceRows, Moves, Selection};
pub(super) use release_rows::ReleaseRows;
pub(super) use repeat::{HEADER as IDEMPOTENCY_KEY, id_of as repeat_id};
pub(super) use table::{table, table_of_metrics};

use super::gate::Gate;
use super::records::Records;
use crate::listen::{Rank, Visit};
use answer::ApiError;
use way::Route;

/// The largest request, in bytes. A release must also fit into one record of the store.
const LARGEST_REQUEST: usize = 256 * 1024;

pub(super) fn routes(gate: &Arc<Gate>) -> Router<Arc<Records>> {
    guarded(table(), gate)
        .fallback(no_such_route)
        .method_not_allowed_fallback(no_such_method)
        .layer(middleware::from_fn_with_state(Arc::clone(gate), only_operators))
}

pub(super) fn routes_of_metrics(gate: &Arc<Gate>) -> Router<Arc<Records>> {
    guarded(table_of_metrics(), gate)
        .route_layer(middleware::from_fn_with_state(Arc::clone(gate), only_operators))
}

/// The routes of this API and of the dashboard's own questions, for a request that the dashboard makes inside the process. Its
/// caller is known: the request brings [`Caller`](super::gate::Caller), the gate and its place as extensions.
pub(super) fn routes_inside(gate: &Arc<Gate>) -> Router<Arc<Records>> {
    guarded(table().into_iter().chain(table::table_of_pages()).collect(), gate)
        .fallback(no_such_route)
        .method_not_allowed_fallback(no_such_method)
}

fn guarded(table: Vec<Route>, gate: &Arc<Gate>) -> Router<Arc<Records>> {
    table.into_iter().fold(Router::new(), |router, (path, ways)| {
        ways.into_iter().fold(router, |router, way| router.route(path, way.guarded(gate)))
    })
}

async fn openapi() -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json")], include_str!("../../../docs/openapi-fleet.json"))
}

/// Admits operators, who have places of their own, before the body is read.
async fn only_operators(
    State(gate): State<Arc<Gate>>,
    Extension(visit): Extension<Visit>,
    mut request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let bearer = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let caller = gate.sign_in(bearer.and_then(|value| value.strip_prefix("Bearer ")), client_of(&visit))?;
    let turns = gate.enter(&caller).ok_or_else(|| ApiError::too_many(&caller))?;
    let admitted = visit.admit(Rank::Privileged).map_err(|_| ApiError::busy())?;
    admitted.hold(turns);
    let (user, token) = (caller.by.user.clone().unwrap_or_default(), caller.by.token.clone());
    request.extensions_mut().insert(admitted);
    request.extensions_mut().insert(caller);
    request.extensions_mut().insert(gate);
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let response = next.run(request).await;
    if method != Method::GET {
        let status = response.status().as_u16();
        tracing::info!(%method, path, status, user, token, "operator request");
    }
    Ok(response)
}

/// The address of the client, for the limit of wrong tokens and the audit trail.
fn client_of(visit: &Visit) -> Option<IpAddr> {
    visit.client()
}

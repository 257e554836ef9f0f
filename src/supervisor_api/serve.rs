//! Lets a request in: from the right network, with a key, at a bounded pace. Then answers it.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::listen::{Network, Rank, Visit};
use crate::model::{ApiClient, Door};

use super::Supervisor;
use super::actions::{self, Acting};
use super::answers::{failed, text};
use super::keys;
use super::request::Parameters;
use super::rows::Row;
use super::shown::{self, Shown};

/// How long a refusal takes. A client in a loop is slowed down by it.
const REFUSED_AFTER: Duration = Duration::from_millis(250);

/// What a door needs to answer.
#[derive(Debug, Clone)]
struct Seat {
    supervisor: Supervisor,
    peers: Arc<[Network]>,
}

/// The routes of a door.
pub(super) fn router(supervisor: Supervisor, door: &Door) -> Router {
    let peers = door.peers.iter().filter_map(|range| range.parse().ok()).collect();
    Router::new().fallback(answer).with_state(Seat { supervisor, peers })
}

async fn answer(State(seat): State<Seat>, request: Request) -> Response {
    match answered(seat, request).await {
        Ok(response) => response,
        Err(refusal) => {
            tokio::time::sleep(REFUSED_AFTER).await;
            refusal
        }
    }
}

/// Returns the response; `Err` if the request is refused before it is understood.
async fn answered(Seat { supervisor, peers }: Seat, request: Request) -> Result<Response, Response> {
    let (head, body) = request.into_parts();
    let unauthorized = || text(StatusCode::UNAUTHORIZED, "Unauthorized");
    let visit = head.extensions.get::<Visit>().ok_or_else(unauthorized)?;
    // Another machine may reach the address of a bridge through this one. It has another address.
    let is_of_network = visit.client().is_some_and(|client| peers.iter().any(|network| network.has(client)));
    if !is_of_network {
        return Err(unauthorized());
    }
    let row = Row::of(&head.method, head.uri.path());
    if let Some(row) = row.filter(|row| row.is_open()) {
        return Ok(open(&supervisor, row));
    }
    let client = keys::key(head.uri.query(), &head.headers).and_then(|key| {
        let view = supervisor.view.borrow();
        keys::client(&view, key).cloned()
    });
    let client = client.ok_or_else(unauthorized)?;
    let Some(row) = row else {
        let asked: String = format!("Cannot {} {}", head.method, head.uri.path()).chars().take(200).collect();
        return Err(text(StatusCode::NOT_FOUND, &asked));
    };
    let taken = supervisor.paces.take(&supervisor.view.borrow(), &client, row.is_change());
    let _place = taken.map_err(|much| {
        let why = failed(StatusCode::TOO_MANY_REQUESTS, &much.to_string());
        ([(header::RETRY_AFTER, much.seconds())], why).into_response()
    })?;
    let admitted = visit.admit(Rank::Ordinary);
    let admitted =
        admitted.map_err(|_| failed(StatusCode::SERVICE_UNAVAILABLE, "all places are taken; try again"))?;
    let parameters = match Parameters::read(&admitted, head.uri.query(), &head.headers, body).await {
        Ok(parameters) => parameters,
        Err(response) => return Ok(response),
    };
    Ok(act(&supervisor, client, row, &parameters).await)
}

/// Answers a row that needs no key.
fn open(supervisor: &Supervisor, row: Row) -> Response {
    let is_well = row != Row::Healthy || supervisor.report.borrow().engine_error.is_none();
    if is_well { text(StatusCode::OK, "OK") } else { text(StatusCode::INTERNAL_SERVER_ERROR, "Unhealthy") }
}

/// Answers a row for a service.
async fn act(supervisor: &Supervisor, client: ApiClient, row: Row, parameters: &Parameters) -> Response {
    if let Row::Missing(why) = row {
        return failed(StatusCode::NOT_IMPLEMENTED, &format!("not supported: {why}"));
    }
    if row.is_change() {
        return actions::act(Acting { supervisor, client, parameters }, row).await;
    }
    let (report, view) = (supervisor.report.borrow().clone(), supervisor.view.borrow().clone());
    shown::show(&Shown { supervisor, report: &report, view: &view, client: &client }, row, parameters)
}

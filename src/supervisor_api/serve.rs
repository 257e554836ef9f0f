//! Lets a request in: from the right network, with a key, at a bounded pace. Then answers it.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use tokio::sync::mpsc;

use crate::listen::{Network, Rank, Visit};
use crate::model::OfService;

use super::Supervisor;
use super::actions::Acting;
use super::answers::{failed, text};
use super::caller::Caller;
use super::entrance::Entrance;
use super::journal;
use super::keys;
use super::request::Parameters;
use super::rows::{Keyed, Open, Row};
use super::shown::Shown;
use super::tags;

/// Delay of a refusal, which slows down a client that retries in a loop.
const REFUSED_AFTER: Duration = Duration::from_millis(250);

/// What a door needs to answer.
#[derive(Debug, Clone)]
struct Seat {
    supervisor: Supervisor,
    restarts: mpsc::Sender<OfService>,
    peers: Arc<[Network]>,
    /// Whether the cloud asks here, and no service.
    is_of_cloud: bool,
}

/// The routes of a door. `restarts` takes services whose containers are to be created again.
pub(super) fn router(
    supervisor: Supervisor,
    restarts: mpsc::Sender<OfService>,
    entrance: &Entrance,
) -> Router {
    let is_of_cloud = entrance.device.is_some();
    let peers = entrance.door.peers.iter().filter_map(|range| range.parse().ok()).collect();
    Router::new().fallback(answer).with_state(Seat { supervisor, restarts, peers, is_of_cloud })
}

async fn answer(State(seat): State<Seat>, request: Request) -> Response {
    match answered(seat, request).await {
        Ok(response) => response,
        Err(refusal) => {
            tokio::time::sleep(REFUSED_AFTER).await;
            *refusal
        }
    }
}

/// Returns the response; `Err` if the request is refused before it is understood.
async fn answered(seat: Seat, request: Request) -> Result<Response, Box<Response>> {
    let Seat { supervisor, restarts, peers, is_of_cloud } = seat;
    let (head, body) = request.into_parts();
    let unauthorized = || Box::new(text(StatusCode::UNAUTHORIZED, "Unauthorized"));
    let visit = head.extensions.get::<Visit>().ok_or_else(unauthorized)?;
    // Another machine may reach the address of a bridge through this one. It has another address.
    let is_of_network = visit.client().is_some_and(|client| peers.iter().any(|network| network.has(client)));
    if !is_of_network {
        return Err(unauthorized());
    }
    let row = match Row::of(&head.method, head.uri.path()) {
        Some(Row::Open(row)) => return Ok(open(&supervisor, row)),
        Some(Row::Keyed(row)) => Some(row),
        None => None,
    };
    // The key of the cloud is good at the VPN only, and that of a service not there.
    let key = keys::key(head.uri.query(), &head.headers).ok_or_else(unauthorized)?;
    let caller = if is_of_cloud {
        keys::is_of_cloud(&supervisor.cloud.key.borrow(), key).then_some(Caller::Cloud)
    } else {
        keys::client(&supervisor.view.borrow(), key).cloned().map(Caller::Service)
    };
    let caller = caller.ok_or_else(unauthorized)?;
    let Some(row) = row else {
        let asked: String = format!("Cannot {} {}", head.method, head.uri.path()).chars().take(200).collect();
        return Err(Box::new(text(StatusCode::NOT_FOUND, &asked)));
    };
    let taken = supervisor.paces.take(&supervisor.view.borrow(), &caller, row.is_change());
    let place = taken.map_err(|much| {
        let why = failed(StatusCode::TOO_MANY_REQUESTS, &much.to_string());
        Box::new(([(header::RETRY_AFTER, much.seconds())], why).into_response())
    })?;
    let admitted = visit.admit(Rank::Ordinary);
    let busy = |_| Box::new(failed(StatusCode::SERVICE_UNAVAILABLE, "all places are taken; try again"));
    let admitted = admitted.map_err(busy)?;
    let parameters = match Parameters::read(&admitted, head.uri.query(), &head.headers, body).await {
        Ok(parameters) => parameters,
        Err(refusal) => return Ok(*refusal),
    };
    Ok(match row {
        Keyed::Missing(why) => failed(StatusCode::NOT_IMPLEMENTED, &format!("not supported: {why}")),
        Keyed::Tags => tags::read(&supervisor).await,
        Keyed::SetTags => tags::set(&supervisor, &parameters).await,
        // The place is taken for as long as the journal is read.
        Keyed::Journal => journal::read(&supervisor, &parameters, (&caller, place)).await,
        Keyed::Change(change) => {
            let acting =
                Acting { supervisor: &supervisor, restarts: &restarts, caller, parameters: &parameters };
            acting.act(change).await
        }
        Keyed::Show(show) => {
            let (report, view) = (supervisor.report.borrow().clone(), supervisor.view.borrow().clone());
            let shown = Shown { supervisor: &supervisor, report: &report, view: &view, caller: &caller };
            shown.show(show, &parameters)
        }
    })
}

/// Answers a row that needs no key. The device is not healthy while the engine does not answer.
fn open(supervisor: &Supervisor, row: Open) -> Response {
    match row {
        Open::Healthy if supervisor.report.borrow().engine_error.is_some() => {
            text(StatusCode::INTERNAL_SERVER_ERROR, "Unhealthy")
        }
        Open::Ping | Open::Healthy => text(StatusCode::OK, "OK"),
    }
}

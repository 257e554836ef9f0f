//! Serves the control socket: an operator's orders, one POST each.
//!
//! | route | body | order |
//! | --- | --- | --- |
//! | `/v1/retry` | `{"app"?}` | try again what was rejected or put off |
//! | `/v1/rollback` | `{"app"?}` | take the wanted release back |
//! | `/v1/hold` | `{"reason"?}` | swap nothing |
//! | `/v1/unhold` | – | go on |
//! | `/v1/update` | `{"force"?}` | ask the cloud for the target now; let what is wanted pass locks and windows |
//! | `/v1/services/stop` | `{"service", "app"?, "force"?}` | keep a service stopped |
//! | `/v1/services/start` | as above | let it run again |
//! | `/v1/services/restart` | as above | stop it and start it |
//! | `/v1/locks` | `{"reason", "owner"?, "ttl_s"}` | a new lock; its `id` stands in the answer |
//! | `/v1/locks` | `{"id", "ttl_s"}` | let a lock end so much later than now |
//! | `/v1/locks/release` | `{"id"}` | end a lock |
//! | `/v1/purge` | `{"app"?, "volume"?, "force"?, "dry_run"?}` | remove volumes; without an app only tell them |
//!
//! Every answer is a [`super::ControlAnswer`]. Who may connect may order; the socket's mode is the only guard.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{MethodRouter, post};
use tokio::net::UnixListener;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::answer::{Json, Told, told};
use super::server::{ADMISSION, LINGER, no_such_method, not_found};
use super::wishes::{
    self, Body, HoldWish, LARGEST_BODY, LockName, LockWish, Nothing, OfApp, PurgeWish, ServiceWish,
    UpdateWish,
};
use crate::listen::{self, Limits};
use crate::model::{Answer, Hold, Lease, Order, Purge};

/// Where orders go, and what an order needs to know of the host.
#[derive(Debug, Clone)]
pub struct Control {
    /// To the reconciler, each with where its answer goes.
    pub orders: mpsc::Sender<(Order, oneshot::Sender<Answer>)>,
    /// Makes the agent poll; absent when no cloud is set.
    pub poll_now: Option<Arc<Notify>>,
    /// Wall-clock time in words, to be shown only.
    pub time_in: fn(Duration) -> String,
    /// Since the device booted.
    pub uptime: fn() -> Duration,
    /// This boot of the device.
    pub boot_id: String,
    /// An id that nobody has had and nobody guesses; `None` when the system has no randomness.
    pub new_id: fn() -> Option<String>,
}

/// What the control socket allows. Its mode lets root alone in; a system that opens it to others gives them few places.
const LIMITS: Limits = Limits {
    ordinary: 4,
    privileged: 16,
    per_user: 2,
    spare: 8,
    head: Duration::from_secs(10),
    idle: Duration::from_secs(30),
    stalled: Duration::from_secs(30),
    response: Some(Duration::from_secs(60)),
    body: Duration::from_secs(10),
    ordinary_bodies: 4 * LARGEST_BODY,
    privileged_bodies: 16 * LARGEST_BODY,
    linger: LINGER,
};

/// The routes of the control socket; all are asked by POST.
pub(super) fn routes() -> [(&'static str, MethodRouter<Control>); 11] {
    [
        ("/v1/retry", post(retry)),
        ("/v1/rollback", post(rollback)),
        ("/v1/hold", post(hold)),
        ("/v1/unhold", post(unhold)),
        ("/v1/update", post(update)),
        ("/v1/services/stop", post(stop_service)),
        ("/v1/services/start", post(start_service)),
        ("/v1/services/restart", post(restart_service)),
        ("/v1/locks", post(lock)),
        ("/v1/locks/release", post(release_lock)),
        ("/v1/purge", post(purge)),
    ]
}

/// Serves until `stop` is cancelled. Whoever connects is bounded in number and time.
pub async fn serve_control(listener: UnixListener, control: Control, stop: CancellationToken) {
    let router = routes().into_iter().fold(Router::new(), |router, (path, route)| router.route(path, route));
    let router = router.method_not_allowed_fallback(no_such_method).fallback(not_found).with_state(control);
    listen::serve(listener.into(), router, LIMITS, ADMISSION, stop, "control").await;
}

async fn retry(State(control): State<Control>, Body(of): Body<OfApp>) -> Result<Told, Told> {
    let app = wishes::app(of.app)?;
    Ok(give(&control, Order::Retry { app }).await)
}

async fn rollback(State(control): State<Control>, Body(of): Body<OfApp>) -> Result<Told, Told> {
    let app = wishes::app(of.app)?;
    Ok(give(&control, Order::Rollback { app }).await)
}

async fn hold(State(control): State<Control>, Body(wish): Body<HoldWish>) -> Result<Told, Told> {
    let reason = wishes::reason(wish.reason)?;
    let reason = if reason.is_empty() { "no reason given".to_owned() } else { reason };
    let since = (control.time_in)(Duration::ZERO);
    Ok(give(&control, Order::Hold(Hold { reason, since })).await)
}

async fn unhold(State(control): State<Control>, Body(Nothing {}): Body<Nothing>) -> Told {
    give(&control, Order::Unhold).await
}

async fn update(State(control): State<Control>, Body(wish): Body<UpdateWish>) -> Told {
    let mut said = Vec::new();
    if wish.force {
        let forced = give(&control, Order::Force { app: None }).await;
        if forced.0 != StatusCode::OK {
            return forced;
        }
        said.push(forced.1.0.message);
    }
    match &control.poll_now {
        Some(poll_now) => {
            poll_now.notify_one();
            said.push("the cloud is asked for the target now".to_owned());
        }
        None if wish.force => {}
        None => return told("refused", "no cloud is set that could be asked".to_owned()),
    }
    told("done", said.join("; "))
}

async fn stop_service(State(control): State<Control>, Body(wish): Body<ServiceWish>) -> Result<Told, Told> {
    let (service, is_forced) = wishes::service(wish)?;
    let since = (control.time_in)(Duration::ZERO);
    Ok(give(&control, Order::Stop { service, is_forced, since }).await)
}

async fn start_service(State(control): State<Control>, Body(wish): Body<ServiceWish>) -> Result<Told, Told> {
    let (service, _) = wishes::service(wish)?;
    Ok(give(&control, Order::Start { service }).await)
}

async fn restart_service(
    State(control): State<Control>,
    Body(wish): Body<ServiceWish>,
) -> Result<Told, Told> {
    let (service, is_forced) = wishes::service(wish)?;
    Ok(give(&control, Order::Restart { service, is_forced }).await)
}

async fn lock(State(control): State<Control>, Body(wish): Body<LockWish>) -> Result<Told, Told> {
    let until = (control.uptime)().saturating_add(wishes::ttl(wish.ttl_s)?);
    let (id, order) = match wish.id {
        Some(_) if wish.reason.is_some() || wish.owner.is_some() => {
            let why = "a lock that is renewed keeps its reason and owner; leave them out";
            return Err(told("bad_request", why.to_owned()));
        }
        Some(id) => {
            let id = wishes::name("a lock's id", id)?;
            (id.clone(), Order::Renew { id, until })
        }
        None => {
            let reason = wishes::reason(wish.reason)?;
            if reason.is_empty() {
                return Err(told("bad_request", "a lock needs a reason: others will ask for it".to_owned()));
            }
            let owner = wishes::owner(wish.owner)?;
            let owner = if owner.is_empty() { "somebody".to_owned() } else { owner };
            let Some(id) = (control.new_id)() else {
                return Err(told(
                    "refused",
                    "the system gives no randomness for an id; try again".to_owned(),
                ));
            };
            let boot_id = control.boot_id.clone();
            (id.clone(), Order::Lock(Lease { id, owner, reason, boot_id, until }))
        }
    };
    let (status, Json(mut answer)) = give(&control, order).await;
    answer.id = (status == StatusCode::OK).then_some(id);
    Ok((status, Json(answer)))
}

async fn release_lock(State(control): State<Control>, Body(lock): Body<LockName>) -> Result<Told, Told> {
    let id = wishes::name("a lock's id", lock.id)?;
    Ok(give(&control, Order::Unlock { id }).await)
}

async fn purge(State(control): State<Control>, Body(wish): Body<PurgeWish>) -> Result<Told, Told> {
    let app = wishes::app(wish.app)?;
    let volume = wish.volume.map(|volume| wishes::name("a volume's name", volume)).transpose()?;
    if app.is_none() && (volume.is_some() || !wish.dry_run) {
        let why = "name the app whose volumes are meant; without one only dry_run is done";
        return Err(told("bad_request", why.to_owned()));
    }
    let (is_forced, is_dry) = (wish.force, wish.dry_run);
    Ok(give(&control, Order::Purge(Purge { app, volume, is_forced, is_dry })).await)
}

/// Hands an order to the reconciler and waits until it is followed. Who stops waiting takes it back.
async fn give(control: &Control, order: Order) -> Told {
    let (answer, answered) = oneshot::channel();
    if control.orders.send((order, answer)).await.is_err() {
        return stopping();
    }
    match answered.await {
        Ok(Answer::Done(message)) => told("done", message),
        Ok(Answer::Refused(message)) => told("refused", message),
        Ok(Answer::Held(message)) => told("held", message),
        Ok(Answer::NotFound(message)) => told("not_found", message),
        Err(_) => stopping(),
    }
}

fn stopping() -> Told {
    told("stopping", "the agent is stopping; nothing was changed".to_owned())
}

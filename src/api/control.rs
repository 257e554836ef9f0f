//! Serves the control socket: an operator's orders, one POST each.
//!
//! | route | body | order |
//! | --- | --- | --- |
//! | `/v1/retry` | `{"app"?}` | try rejected releases and postponed steps again |
//! | `/v1/rollback` | `{"app"?}` | reject the wanted release, and roll back to the good one |
//! | `/v1/hold` | `{"reason"?}` | stop all swaps |
//! | `/v1/unhold` | – | allow swaps again |
//! | `/v1/update` | `{"force"?}` | ask the cloud for the target now; let the wanted releases pass locks and windows |
//! | `/v1/services/stop` | `{"service", "app"?, "force"?}` | stop a service until it is started by an order |
//! | `/v1/services/start` | as above | start a stopped service |
//! | `/v1/services/restart` | as above | stop a service and start it |
//! | `/v1/locks` | `{"reason", "owner"?, "ttl_s"}` | make a lock; the answer has its `id` |
//! | `/v1/locks` | `{"id", "ttl_s"}` | renew a lock: it ends `ttl_s` from now |
//! | `/v1/locks/release` | `{"id"}` | end a lock |
//! | `/v1/purge` | `{"app"?, "volume"?, "force"?, "dry_run"?}` | remove volumes; without an app, only list them |
//!
//! Every answer is a [`super::ControlAnswer`]. Everyone who may connect may give orders: the mode of the socket is the
//! only guard.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{MethodRouter, post};
use tokio::net::UnixListener;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::answer::{Json, Reply, reply};
use super::requests::{
    self, AppRequest, Body, HoldRequest, LARGEST_BODY, LockName, LockRequest, Nothing, PurgeRequest,
    ServiceRequest, UpdateRequest,
};
use super::server::{ADMISSION, LINGER, no_such_method, not_found};
use crate::listen::{self, Limits};
use crate::model::{Answer, Hold, Lease, Order, Purge};

/// The channel for orders, and what an order needs to know about the host.
#[derive(Debug, Clone)]
pub struct Control {
    /// To the reconciler; each order comes with the sender for its answer.
    pub orders: mpsc::Sender<(Order, oneshot::Sender<Answer>)>,
    /// Makes the agent poll at once. `None` if no cloud is configured.
    pub poll_now: Option<Arc<Notify>>,
    /// Wakes the mover, which may wait to try a move to another cloud again.
    pub move_now: Arc<Notify>,
    /// The wall-clock time after a duration, as text for people.
    pub time_in: fn(Duration) -> String,
    /// Time since the device booted.
    pub uptime: fn() -> Duration,
    /// This boot of the device.
    pub boot_id: String,
    /// A new id that cannot be guessed. `None` if the system has no random numbers.
    pub new_id: fn() -> Option<String>,
}

/// Limits of the control socket. By default only root may connect. A system that lets others connect gives them few
/// places.
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

/// The routes of the control socket. All take POST.
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

/// Serves the control socket until `stop` is cancelled. Connections are limited in number and time.
pub async fn serve_control(listener: UnixListener, control: Control, stop: CancellationToken) {
    let router = routes().into_iter().fold(Router::new(), |router, (path, route)| router.route(path, route));
    let router = router.method_not_allowed_fallback(no_such_method).fallback(not_found).with_state(control);
    listen::serve(listener.into(), router, LIMITS, ADMISSION, stop, "control").await;
}

async fn retry(State(control): State<Control>, Body(of): Body<AppRequest>) -> Result<Reply, Reply> {
    let app = requests::app(of.app)?;
    Ok(give(&control, Order::Retry { app }).await)
}

async fn rollback(State(control): State<Control>, Body(of): Body<AppRequest>) -> Result<Reply, Reply> {
    let app = requests::app(of.app)?;
    Ok(give(&control, Order::Rollback { app }).await)
}

async fn hold(State(control): State<Control>, Body(request): Body<HoldRequest>) -> Result<Reply, Reply> {
    let reason = requests::reason(request.reason)?;
    let reason = if reason.is_empty() { "no reason given".to_owned() } else { reason };
    let since = (control.time_in)(Duration::ZERO);
    Ok(give(&control, Order::Hold(Hold { reason, since })).await)
}

async fn unhold(State(control): State<Control>, Body(Nothing {}): Body<Nothing>) -> Reply {
    give(&control, Order::Unhold).await
}

async fn update(State(control): State<Control>, Body(request): Body<UpdateRequest>) -> Reply {
    let mut done = Vec::new();
    if request.force {
        let forced = give(&control, Order::Force { app: None }).await;
        if forced.0 != StatusCode::OK {
            return forced;
        }
        done.push(forced.1.0.message);
    }
    match &control.poll_now {
        Some(poll_now) => {
            poll_now.notify_one();
            control.move_now.notify_one();
            done.push("asking the cloud for the target now".to_owned());
        }
        None if request.force => {}
        None => return reply("refused", "no cloud is configured".to_owned()),
    }
    reply("done", done.join("; "))
}

async fn stop_service(
    State(control): State<Control>,
    Body(request): Body<ServiceRequest>,
) -> Result<Reply, Reply> {
    let (service, is_forced) = requests::service(request)?;
    let since = (control.time_in)(Duration::ZERO);
    Ok(give(&control, Order::Stop { service, is_forced, since }).await)
}

async fn start_service(
    State(control): State<Control>,
    Body(request): Body<ServiceRequest>,
) -> Result<Reply, Reply> {
    let (service, _) = requests::service(request)?;
    Ok(give(&control, Order::Start { service }).await)
}

async fn restart_service(
    State(control): State<Control>,
    Body(request): Body<ServiceRequest>,
) -> Result<Reply, Reply> {
    let (service, is_forced) = requests::service(request)?;
    Ok(give(&control, Order::Restart { service, is_forced }).await)
}

async fn lock(State(control): State<Control>, Body(request): Body<LockRequest>) -> Result<Reply, Reply> {
    let until = (control.uptime)().saturating_add(requests::ttl(request.ttl_s)?);
    let (id, order) = match request.id {
        Some(_) if request.reason.is_some() || request.owner.is_some() => {
            let why = "a lock that is renewed keeps its reason and owner; leave them out";
            return Err(reply("bad_request", why.to_owned()));
        }
        Some(id) => {
            let id = requests::name("a lock's id", id)?;
            (id.clone(), Order::Renew { id, until })
        }
        None => {
            let reason = requests::reason(request.reason)?;
            if reason.is_empty() {
                return Err(reply(
                    "bad_request",
                    "a lock needs a reason, so that others know why updates wait".to_owned(),
                ));
            }
            let owner = requests::owner(request.owner)?;
            let owner = if owner.is_empty() { "unknown".to_owned() } else { owner };
            let Some(id) = (control.new_id)() else {
                return Err(reply(
                    "refused",
                    "the system has no random numbers for an id; try again".to_owned(),
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

async fn release_lock(State(control): State<Control>, Body(lock): Body<LockName>) -> Result<Reply, Reply> {
    let id = requests::name("a lock's id", lock.id)?;
    Ok(give(&control, Order::Unlock { id }).await)
}

async fn purge(State(control): State<Control>, Body(request): Body<PurgeRequest>) -> Result<Reply, Reply> {
    let app = requests::app(request.app)?;
    let volume = request.volume.map(|volume| requests::name("a volume's name", volume)).transpose()?;
    if app.is_none() && (volume.is_some() || !request.dry_run) {
        let why = "name the app whose volumes to remove; without an app only dry_run works";
        return Err(reply("bad_request", why.to_owned()));
    }
    let (is_forced, is_dry) = (request.force, request.dry_run);
    Ok(give(&control, Order::Purge(Purge { app, volume, is_forced, is_dry, is_of_unused: false })).await)
}

/// Hands an order to the reconciler and waits for its answer. A client that disconnects before takes the order back.
async fn give(control: &Control, order: Order) -> Reply {
    let (answer, answered) = oneshot::channel();
    if control.orders.send((order, answer)).await.is_err() {
        return stopping();
    }
    match answered.await {
        Ok(Answer::Done(message)) => reply("done", message),
        Ok(Answer::Refused(message)) => reply("refused", message),
        Ok(Answer::Held(message)) => reply("held", message),
        Ok(Answer::NotFound(message)) => reply("not_found", message),
        Err(_) => stopping(),
    }
}

fn stopping() -> Reply {
    reply("stopping", "the agent is stopping; nothing was changed".to_owned())
}

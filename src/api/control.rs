//! Serves the control socket: an operator's orders, one POST each.
//!
//! | route | body | order |
//! | --- | --- | --- |
//! | `/v1/retry` | `{"app"?}` | try again what was rejected or put off |
//! | `/v1/rollback` | `{"app"?}` | take the wanted release back |
//! | `/v1/hold` | `{"reason"?}` | swap nothing |
//! | `/v1/unhold` | – | go on |
//! | `/v1/update` | – | ask the cloud for the target now |
//!
//! Every answer is a [`ControlAnswer`]. Who may connect may order; the socket's mode is the only guard.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use tokio::net::UnixListener;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::document::SCHEMA_VERSION;
use crate::model::{Answer, Hold, Order};

/// Longest reason of a hold, in characters.
const REASON: usize = 200;

/// Where orders go.
#[derive(Debug, Clone)]
pub struct Control {
    /// To the reconciler, each with where its answer goes.
    pub orders: mpsc::Sender<(Order, oneshot::Sender<Answer>)>,
    /// Makes the agent poll; absent when no cloud is set.
    pub poll_now: Option<Arc<Notify>>,
    /// Wall-clock time in words, to be shown only.
    pub time_in: fn(Duration) -> String,
}

/// What became of an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControlAnswer {
    pub schema_version: u32,
    /// `done`, `refused`, `held`, `not_found`, `bad_request` or `stopping`.
    pub code: String,
    /// A line for the operator.
    pub message: String,
}

/// Body of `/v1/retry` and `/v1/rollback`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OfApp {
    /// Uuid or name.
    pub app: Option<String>,
}

/// Body of `/v1/hold`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HoldWish {
    /// At most 200 characters.
    pub reason: Option<String>,
}

type Told = (StatusCode, Json<ControlAnswer>);

/// Serves until `stop` is cancelled.
pub async fn serve_control(listener: UnixListener, control: Control, stop: CancellationToken) {
    let routes = Router::new()
        .route("/v1/retry", post(retry))
        .route("/v1/rollback", post(rollback))
        .route("/v1/hold", post(hold))
        .route("/v1/unhold", post(unhold))
        .route("/v1/update", post(update))
        .with_state(control);
    let served = axum::serve(listener, routes).with_graceful_shutdown(stop.cancelled_owned()).await;
    if let Err(error) = served {
        warn!(%error, "control socket ended");
    }
}

async fn retry(State(control): State<Control>, body: Option<Json<OfApp>>) -> Told {
    let app = body.and_then(|Json(of)| of.app);
    give(&control, Order::Retry { app }).await
}

async fn rollback(State(control): State<Control>, body: Option<Json<OfApp>>) -> Told {
    let app = body.and_then(|Json(of)| of.app);
    give(&control, Order::Rollback { app }).await
}

async fn hold(State(control): State<Control>, body: Option<Json<HoldWish>>) -> Told {
    let reason = body.and_then(|Json(wish)| wish.reason).unwrap_or_default();
    // It is shown in one line.
    let reason = reason.split(char::is_control).collect::<Vec<_>>().join(" ").trim().to_owned();
    if reason.chars().count() > REASON {
        return told("bad_request", format!("a reason has {REASON} characters at most"));
    }
    let reason = if reason.is_empty() { "no reason given".to_owned() } else { reason };
    let since = (control.time_in)(Duration::ZERO);
    give(&control, Order::Hold(Hold { reason, since })).await
}

async fn unhold(State(control): State<Control>) -> Told {
    give(&control, Order::Unhold).await
}

async fn update(State(control): State<Control>) -> Told {
    let Some(poll_now) = &control.poll_now else {
        return told("refused", "no cloud is set that could be asked".to_owned());
    };
    poll_now.notify_one();
    told("done", "the cloud is asked for the target now".to_owned())
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

fn told(code: &str, message: String) -> Told {
    let status = match code {
        "done" => StatusCode::OK,
        "not_found" => StatusCode::NOT_FOUND,
        "bad_request" => StatusCode::BAD_REQUEST,
        "stopping" => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::CONFLICT,
    };
    (status, Json(ControlAnswer { schema_version: SCHEMA_VERSION, code: code.to_owned(), message }))
}

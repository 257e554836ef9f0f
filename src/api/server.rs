//! Serves the status socket and the metrics, and creates both sockets.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{Method, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::exposition;
use crate::listen::{self, Admission, Limits, Listener};

use super::Inherited;
use super::answer::{Json, Reply, busy, reply};
use super::document::{HistoryDocument, Now, StatusDocument, document, history};
use super::events::events;
use super::forecast::{PlanDocument, plan_document};
use super::logs::log;
use super::metrics::{Around, metrics};
use super::sources::Sources;

/// Why a socket could not be created.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error("another agent answers at {0}; stop it, or give this one another instance and runtime_dir")]
    InUse(PathBuf),
    #[error("socket {path} cannot be created ({why}); is runtime_dir a folder that we may write?")]
    Impossible { path: PathBuf, why: String },
}

/// Returns the socket `path`: the one that systemd created, or a new one with `mode`. Creates its folder if it is
/// missing.
///
/// Replaces a socket that a dead agent left. A socket that answers is an error.
///
/// # Errors
///
/// As [`BindError`] says.
pub async fn bind(inherited: &mut Inherited, path: &Path, mode: u32) -> Result<UnixListener, BindError> {
    let impossible = |e: io::Error| BindError::Impossible { path: path.to_path_buf(), why: e.to_string() };
    if let Some(listener) = inherited.take(path) {
        listener.set_nonblocking(true).map_err(impossible)?;
        return UnixListener::from_std(listener).map_err(impossible);
    }
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(impossible)?;
    }
    if UnixStream::connect(path).await.is_ok() {
        return Err(BindError::InUse(path.to_path_buf()));
    }
    if std::fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_socket()) {
        std::fs::remove_file(path).map_err(impossible)?;
    }
    let listener = UnixListener::bind(path).map_err(impossible)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(impossible)?;
    Ok(listener)
}

/// Limits of the status socket: enough for every program of a device, and no more than it can bear. Root has places of
/// its own, so that `cotter status` works whatever others do.
const LIMITS: Limits = Limits {
    ordinary: 24,
    privileged: 24,
    per_user: 12,
    spare: 16,
    head: Duration::from_secs(10),
    idle: Duration::from_secs(30),
    stalled: Duration::from_secs(30),
    // Events and logs have no end.
    response: None,
    body: Duration::from_secs(10),
    ordinary_bodies: 0,
    privileged_bodies: 0,
    linger: LINGER,
};

/// Limits of the metrics. Over TCP no client is privileged, and every response has an end.
const METRICS_LIMITS: Limits = Limits { response: Some(Duration::from_secs(60)), ..LIMITS };

/// How long a closing connection waits for the other side.
pub(super) const LINGER: Duration = Duration::from_secs(2);

/// Requests to the sockets of the agent are admitted by the user of the peer.
pub(super) const ADMISSION: Admission = Admission::ByUser { busy: all_taken };

fn all_taken() -> Response {
    busy("all places for requests are taken by others").into_response()
}

/// The time between two attempts to listen at an address that is in use.
const LISTEN_AGAIN: Duration = Duration::from_secs(60);

/// The routes of the status socket. All take GET.
pub(super) fn routes() -> [(&'static str, MethodRouter<Sources>); 7] {
    [
        ("/v1/status", get(status)),
        ("/v1/plan", get(plan)),
        ("/v1/history", get(get_history)),
        ("/v1/events", get(events)),
        ("/v1/logs", get(log)),
        ("/v1/metrics", get(get_metrics)),
        ("/v1/openapi.json", get(openapi)),
    ]
}

/// Serves the status socket until `stop` is cancelled. Connections are limited in number and time.
pub async fn serve(listener: UnixListener, sources: Sources, stop: CancellationToken) {
    let router = routes().into_iter().fold(Router::new(), |router, (path, route)| router.route(path, route));
    let router = router.method_not_allowed_fallback(no_such_method).fallback(not_found).with_state(sources);
    listen::serve(listener.into(), router, LIMITS, ADMISSION, stop, "status").await;
}

/// Serves the metrics, and nothing else, at a TCP address until `stop` is cancelled. While another program listens
/// there, it tries again every minute, and the device works without metrics.
pub async fn serve_metrics(address: SocketAddr, sources: Sources, stop: CancellationToken) {
    let listener = loop {
        match Listener::tcp(address) {
            Ok(listener) => break listener,
            Err(error) => warn!(%address, %error, "metrics cannot be served; trying again every minute"),
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = tokio::time::sleep(LISTEN_AGAIN) => {}
        }
    };
    let router = Router::new().route("/metrics", get(get_metrics)).fallback(not_found).with_state(sources);
    listen::serve(listener, router, METRICS_LIMITS, ADMISSION, stop, "metrics").await;
}

/// The answer for an unknown path.
pub(super) async fn not_found(method: Method, uri: Uri) -> Reply {
    let asked: String = format!("{method} {}", uri.path()).chars().take(200).collect();
    reply("not_found", format!("there is no {asked}; see /v1/openapi.json on the status socket"))
}

/// The answer for a method that a path does not take. The header `Allow` lists those that it takes.
pub(super) async fn no_such_method(method: Method, uri: Uri) -> Reply {
    let asked: String = format!("{} does not take {method}", uri.path()).chars().take(200).collect();
    reply("no_such_method", format!("{asked}; see /v1/openapi.json on the status socket"))
}

async fn openapi() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], include_str!("../../docs/openapi.json"))
}

async fn get_history(State(sources): State<Sources>) -> Json<HistoryDocument> {
    Json(history(&sources.report.borrow()))
}

async fn plan(State(sources): State<Sources>) -> Json<PlanDocument> {
    let forecast = sources.forecaster.forecast().await;
    Json(plan_document(&forecast, &sources.report.borrow()))
}

async fn get_metrics(State(sources): State<Sources>) -> impl IntoResponse {
    let cloud = sources.cloud.as_ref().map(|cloud| cloud.borrow().clone());
    let delivered = sources.target.borrow().clone();
    let around = Around {
        instance: &sources.who.instance,
        uuid: &sources.who.uuid,
        name: delivered.as_ref().map(|delivered| delivered.target.device_name.as_str()),
        cloud: cloud.as_ref(),
        uptime: (sources.uptime)(),
        memory: (sources.memory)(),
    };
    let text = metrics(&sources.report.borrow(), around);
    ([(header::CONTENT_TYPE, exposition::CONTENT_TYPE)], text)
}

async fn status(State(sources): State<Sources>) -> Json<StatusDocument> {
    let delivered = sources.target.borrow().clone();
    let name = delivered.as_ref().map(|d| d.target.device_name.clone());
    let cloud = sources.cloud.as_ref().map(|cloud| cloud.borrow().clone());
    let report = sources.report.borrow().clone();
    let now = Now { boot_id: &sources.boot_id, uptime: (sources.uptime)() };
    let mut document = document(&sources.who, name, &report, cloud.as_ref(), now);
    document.has_new_target =
        delivered.as_ref().map(Arc::as_ptr) != report.delivered.as_ref().map(Arc::as_ptr);
    document.is_busy |= document.has_new_target;
    Json(document)
}

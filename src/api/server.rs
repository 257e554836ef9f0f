//! Serves the status socket; makes both.

use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::model::{CloudReport, Delivered, Report};

use super::Inherited;
use super::document::{HistoryDocument, Now, StatusDocument, Who, document, history};

/// Where what is served comes from.
#[derive(Debug, Clone)]
pub struct Sources {
    pub who: Who,
    pub report: watch::Receiver<Report>,
    /// Absent when no cloud is set.
    pub cloud: Option<watch::Receiver<CloudReport>>,
    pub target: watch::Receiver<Option<Arc<Delivered>>>,
    /// Since the device booted.
    pub uptime: fn() -> Duration,
    /// This boot of the device.
    pub boot_id: String,
}

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error("another agent answers at {0}; stop it, or give this one another instance and runtime_dir")]
    InUse(PathBuf),
    #[error("socket {path} cannot be made ({why}); is runtime_dir a folder that we may write?")]
    Impossible { path: PathBuf, why: String },
}

/// The socket `path`: the one that systemd made, else made here with `mode`, and its folder if it is
/// missing.
///
/// A socket that a dead agent left is replaced; one that answers is respected.
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

/// Serves until `stop` is cancelled.
pub async fn serve(listener: UnixListener, sources: Sources, stop: CancellationToken) {
    let routes = Router::new()
        .route("/v1/status", get(status))
        .route("/v1/history", get(told_history))
        .with_state(sources);
    let served = axum::serve(listener, routes).with_graceful_shutdown(stop.cancelled_owned()).await;
    if let Err(error) = served {
        warn!(%error, "status socket ended");
    }
}

async fn told_history(State(sources): State<Sources>) -> Json<HistoryDocument> {
    Json(history(&sources.report.borrow()))
}

async fn status(State(sources): State<Sources>) -> Json<StatusDocument> {
    let name = sources.target.borrow().as_ref().map(|d| d.target.device_name.clone());
    let cloud = sources.cloud.as_ref().map(|cloud| cloud.borrow().clone());
    let report = sources.report.borrow().clone();
    let now = Now { boot_id: &sources.boot_id, uptime: (sources.uptime)() };
    Json(document(&sources.who, name, &report, cloud.as_ref(), now))
}

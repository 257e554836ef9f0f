//! Opens the records, listens, serves, and stops.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Extension, MatchedPath, Request, State};
use axum::middleware::{self, Next};
use axum::response::Response;
use jiff::Timestamp;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::certificate::{Renewal, TlsError};
use super::courier::Courier;
use super::database::SharedSightings;
use super::gate::Gate;
use super::records::{Records, SHARE_SIGHTINGS};
use super::settings::{OPERATORS, SPARE};
use super::store_error::StoreError;
use super::{
    Config, clock, confirmations, deliveries, device_api, health, operator_api, pages, recovery, rollouts,
    secret,
};
use crate::listen::{self, Admission, Ended, Limits, Listener};
use crate::model::DeviceUuid;
use crate::ownership::{self, NotOurs};
use crate::postgres::Address;

/// The limits for clients. With the kernel's buffers, which `listen` keeps small, one connection takes at most 0.2 MiB
/// (168 KiB in the kernel were measured, for clients that send and never read). So 1,024 of them and the bodies fit into
/// the 512 MiB of the unit.
///
/// There is no limit by address, because behind a proxy all clients have the same one. But connections that are closed to
/// make room are chosen by address, so one client with many connections cannot displace the others.
const LIMITS: Limits = Limits {
    // Replaced by the setting `connections`.
    ordinary: 0,
    privileged: OPERATORS,
    per_user: 0,
    spare: SPARE,
    head: Duration::from_secs(10),
    // Longer than the default time between two polls, so that a device keeps its connection.
    idle: Duration::from_secs(75),
    stalled: Duration::from_secs(30),
    response: Some(Duration::from_secs(120)),
    body: Duration::from_secs(30),
    ordinary_bodies: 32 << 20,
    // An import has up to 16 MiB, and needs an admin's token before it is read.
    privileged_bodies: 24 << 20,
    linger: Duration::from_secs(10),
};

/// How often the times of the last polls are saved.
const SAVE_SIGHTINGS: Duration = Duration::from_secs(300);

/// The token's file in the data folder.
const TOKEN_FILE: &str = "operator.token";

/// A fleet server that listens. It answers once it runs.
pub struct Server {
    listener: Listener,
    address: SocketAddr,
    routes: Router,
    limits: Limits,
    records: Arc<Records>,
    gate: Arc<Gate>,
    /// Maximum number of records of the audit trail, and how long they are kept.
    audit: (u64, Duration),
    shared: Option<SharedSightings>,
    renewal: Option<Renewal>,
    courier: Courier,
}

/// Why the server did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    #[error(transparent)]
    Store(#[from] StoreError),

    #[error("cannot use the data folder {}; correct that, or name another one with --data-dir", path.display())]
    Folder {
        path: PathBuf,
        #[source]
        source: NotOurs,
    },

    #[error("cannot use the operator's token in {}", path.display())]
    Token {
        path: PathBuf,
        #[source]
        source: io::Error,
    },

    #[error("cannot use store_password_file = {}", path.display())]
    Password {
        path: PathBuf,
        #[source]
        source: io::Error,
    },

    #[error(transparent)]
    Tls(#[from] TlsError),

    #[error("cannot listen on {address}; if another server uses it, choose another address with --listen")]
    Listen {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },

    #[error("the server cannot be started")]
    Start(#[source] io::Error),
}

impl FleetError {
    /// Returns whether another process uses the data folder.
    #[must_use]
    pub fn is_in_use(&self) -> bool {
        matches!(self, Self::Store(StoreError::InUse { .. }))
    }

    /// Returns whether this user may not use the data folder, or other users have access that only an operator can
    /// correct.
    #[must_use]
    pub fn is_not_ours(&self) -> bool {
        matches!(self, Self::Folder { .. } | Self::Token { .. } | Self::Store(StoreError::NotOurs(_)))
    }

    /// Returns whether the database cannot be used: `Some(true)` if that passes by itself.
    #[must_use]
    pub fn database_passes(&self) -> Option<bool> {
        match self {
            Self::Store(StoreError::Database(error)) => Some(error.passes()),
            Self::Password { .. } => Some(false),
            Self::Store(_)
            | Self::Folder { .. }
            | Self::Token { .. }
            | Self::Tls(_)
            | Self::Listen { .. }
            | Self::Start(_) => None,
        }
    }
}

impl Server {
    /// Opens the data folder and listens. Creates the folder and the operator's token if they are missing.
    ///
    /// Port 0 chooses a free port; [`Server::address`] returns it.
    ///
    /// # Errors
    ///
    /// [`FleetError`]; each says what to change.
    pub async fn open(config: Config) -> Result<Self, FleetError> {
        let renewal = match config.tls {
            Some(files) => Some(Renewal::open(files).map_err(FleetError::Start)??),
            None => None,
        };
        let dir = config.data_dir.clone();
        make_private(&dir).map_err(|source| FleetError::Folder { path: dir.clone(), source })?;
        let store = database(config.store, config.store_password_file.as_deref())?;
        let shared = store.clone().map(SharedSightings::new).transpose().map_err(FleetError::Start)?;
        let opening = tokio::task::spawn_blocking(move || {
            let logs = (config.logs, config.log_bytes);
            Records::open(dir, store.as_ref(), config.poll_interval, config.connections, config.room, logs)
        });
        let records = opening.await.map_err(|error| FleetError::Start(io::Error::other(error)))??;
        let records = Arc::new(records);
        if config.paused {
            records.pause();
        }
        let path = config.data_dir.join(TOKEN_FILE);
        let token = secret::operator_token(&path)
            .map_err(|source| FleetError::Token { path: path.clone(), source })?;
        let gate = Arc::new(Gate::new(Arc::clone(&records), &token, &config.data_dir));
        let listen_error = |source| FleetError::Listen { address: config.listen, source };
        let listener = Listener::tcp(config.listen).map_err(listen_error)?;
        let listener =
            listener.with_tls(renewal.as_ref().map(Renewal::tls)).behind(config.trusted_proxies.into());
        let address = listener.address().map_err(listen_error)?;
        let courier = Courier::new().map_err(|failure| FleetError::Start(io::Error::other(failure)))?;
        let routes = Router::new()
            .merge(device_api::routes())
            .merge(operator_api::routes_of_metrics(&gate))
            .nest("/api/v1", operator_api::routes(&gate).layer(Extension(courier.clone())))
            .fallback(operator_api::no_such_route)
            .method_not_allowed_fallback(operator_api::no_such_method)
            .merge(health::routes())
            .merge(pages::routes(&gate, renewal.is_some(), &courier))
            .layer(middleware::from_fn_with_state(Arc::clone(&records), counted))
            .with_state(Arc::clone(&records));
        tracing::info!(
            url = %format_args!("{}://{address}", if renewal.is_some() { "https" } else { "http" }),
            token_file = %path.display(),
            poll_interval_s = config.poll_interval.as_secs_f64(),
            "fleet server is listening"
        );
        if config.paused {
            tracing::warn!("paused: devices keep their targets until the server runs without `paused`");
        }
        if records.is_new() {
            let dir = config.data_dir.display();
            tracing::info!(%dir, "the records are new and empty; if there should be some, name their folder or restore a backup");
        }
        if !address.ip().is_loopback() && renewal.is_none() {
            tracing::warn!(
                "other machines can reach this server, but it has no TLS: keys and tokens cross the network unencrypted"
            );
        }
        let limits = Limits { ordinary: config.connections, ..LIMITS };
        let audit = (config.audit_entries, config.audit_time);
        Ok(Self { listener, address, routes, limits, records, gate, audit, shared, renewal, courier })
    }

    /// Returns the address that it listens on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop` is cancelled, and then for up to 10 s the requests in progress. Every act that was answered is on
    /// disk already, so nothing is left to save.
    pub async fn run(self, stop: CancellationToken) {
        let stopped = stop.clone();
        let serving =
            listen::serve(self.listener, self.routes, self.limits, Admission::ByRoutes, stop, "fleet");
        // Polls that wait are answered at once when the server stops.
        let (parked, logs) = (Arc::clone(self.records.parked()), Arc::clone(&self.records.logs));
        let serving = async {
            let ends = async {
                stopped.cancelled().await;
                parked.close();
                logs.close();
            };
            tokio::join!(serving, ends).0
        };
        let renewals = async {
            match self.renewal {
                Some(renewal) => renewal.keep().await,
                None => std::future::pending().await,
            }
        };
        let ended = tokio::select! {
            ended = serving => ended,
            never = keep_up(&self.records, &self.gate, self.audit) => match never {},
            never = rollouts::keep_up(&self.records) => match never {},
            never = deliveries::keep_up(&self.records, &self.courier) => match never {},
            never = confirmations::keep_up(&self.records, &self.courier) => match never {},
            never = recovery::keep_up(&self.records) => match never {},
            never = renewals => match never {},
            never = share_sightings(&self.records, self.shared) => match never {},
        };
        if ended == Ended::Cut {
            tracing::warn!("stopped with requests in progress");
        }
        save_sightings(&self.records, &self.gate).await;
        tracing::info!("fleet server stopped");
    }
}

/// Returns the database with its password.
pub(super) fn database(
    store: Option<Address>,
    password: Option<&Path>,
) -> Result<Option<Address>, FleetError> {
    let (Some(address), Some(path)) = (&store, password) else { return Ok(store) };
    let password = secret::password(path);
    let password = password.map_err(|source| FleetError::Password { path: path.to_owned(), source })?;
    Ok(Some(address.clone().with_password(&password)))
}

/// Counts a request by the route that it matched.
async fn counted(State(records): State<Arc<Records>>, request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let method = request.method().clone();
    let response = next.run(request).await;
    let waited = response.headers().contains_key("preference-applied");
    let took = (!waited).then(|| begun.elapsed());
    let route = route.as_ref().map_or("none", MatchedPath::as_str);
    records.requests().count(route, method.as_str(), response.status().as_u16(), took);
    response
}

/// Saves now and then when each device polled last and each token was used last, and drops old records of the audit trail.
async fn keep_up(records: &Arc<Records>, gate: &Arc<Gate>, audit: (u64, Duration)) -> Infallible {
    loop {
        drop_old_audit(records, audit).await;
        tokio::time::sleep(SAVE_SIGHTINGS).await;
        save_sightings(records, gate).await;
    }
}

/// Exchanges with other servers, every [`SHARE_SIGHTINGS`], when each device polled last.
async fn share_sightings(records: &Arc<Records>, shared: Option<SharedSightings>) -> Infallible {
    let Some(mut shared) = shared else { return std::future::pending().await };
    let mut published = Timestamp::MIN;
    loop {
        let of_task = Arc::clone(records);
        let exchanging = tokio::task::spawn_blocking(move || {
            let now = clock::now();
            let seen = of_task.seen_here(Some(now)).into_iter().filter(|(_, at)| *at >= published);
            let seen: Vec<_> = seen.map(|(uuid, at)| (uuid.to_string(), at)).collect();
            match shared.exchange(&seen) {
                Ok(elsewhere) => {
                    published = now;
                    let known = elsewhere
                        .into_iter()
                        .filter_map(|(uuid, at)| Some((DeviceUuid::parse(uuid).ok()?, at)));
                    known.for_each(|(uuid, at)| of_task.saw_elsewhere(&uuid, at));
                }
                Err(error) => tracing::debug!(%error, "the times of polls are not shared with other servers"),
            }
            (shared, published)
        });
        match exchanging.await {
            Ok(after) => (shared, published) = after,
            Err(_) => return std::future::pending().await,
        }
        tokio::time::sleep(SHARE_SIGHTINGS).await;
    }
}

async fn drop_old_audit(records: &Arc<Records>, (entries, time): (u64, Duration)) {
    let before = clock::now().checked_sub(time).unwrap_or(Timestamp::MIN);
    loop {
        match records.drop_old_audit(entries, before).await {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => {
                tracing::warn!(%error, "old records of the audit trail are not dropped");
                return;
            }
        }
    }
}

async fn save_sightings(records: &Arc<Records>, gate: &Arc<Gate>) {
    let (records, gate) = (Arc::clone(records), Arc::clone(gate));
    let saved =
        tokio::task::spawn_blocking(move || records.save_sightings().and_then(|()| gate.save())).await;
    if let Ok(Err(error)) = saved {
        tracing::warn!(%error, "the times of the last polls and uses are not saved");
    }
}

/// Makes the data folder and its content private. Does not correct the mode of a token that other users can read, so that
/// it is refused: they may know it.
fn make_private(dir: &Path) -> Result<(), NotOurs> {
    if let Some(mode) = ownership::take_folder(dir)? {
        let mode = format!("{mode:o}");
        tracing::warn!(path = %dir.display(), mode, "other users had access to the data folder; it is private now");
    }
    let failed = |source| NotOurs::Io { path: dir.to_owned(), source };
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if !path.ends_with(TOKEN_FILE) {
            ownership::close(&path)?;
        }
    }
    Ok(())
}

//! Builds the agent's rooms, starts its tasks and stops them. Only wiring.
//!
//! | task | reads | writes |
//! | --- | --- | --- |
//! | poller | the cloud, `poll_now` | `target`, `cloud` |
//! | watcher | the engine's events | `wakeups` |
//! | reconciler | `target`, `wakeups`, `orders` | engine, store, `report`, `outlook`, `events`, `api_view` |
//! | reporter | `report` | the cloud |
//! | logs | `report`, `events`, `cloud`, the engine's logs | the cloud |
//! | status | `report`, `cloud`, `target`, `outlook`, `events`, the engine's logs | the status socket |
//! | metrics | as status, but for logs | a TCP address, if one is set |
//! | control | the control socket | `orders`, `poll_now`, `move_now` |
//! | supervisor API | `api_view`, `report`, the doors of containers, the journal | `orders`, `poll_now`, `tags` |
//! | tags | `tags`, the cloud | the cloud, the file of tags |
//! | VPN | `target`, the cloud, openvpn | openvpn's files, `vpn` |
//! | systemd | `report` | systemd's status line |
//! | lock folders | the lock folders | – |
//! | data root | the engine, once, if the reporter wants it | the reporter |

mod apps_api;
mod data_root;
mod host_access;
mod joining;
mod leave;
mod lock_folders;
mod logs;
mod moving;
mod persistence;
mod signals;
mod systemd;
mod tags;
mod talk;
mod uploads;
mod vpn;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixListener;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::api::{self, Control, Forecaster, Inherited, Logs, Sources, Who};
use crate::config::{Config, ConfigError, Joining};
use crate::engine::{Docker, DockerSettings};
use crate::host;
use crate::http::{Failure, Http};
use crate::model::{
    Alert, ApiKey, ApiView, CloudReport, Delivered, Events, Identity, Ledger, Report, VpnState, WindowState,
    exposed_host,
};
use crate::ownership::{self, User};
use crate::reconcile::{self, Channels, Command, EngineNews, Settings, Situation};
use crate::store::{Recovery, Store, StoreError};
use crate::supervisor_api::TagRequest;
pub use crate::vpn::Ended as VpnEnded;
pub use host_access::Host;
pub use leave::{count_apps, delete_record, end_vpn, forget_device, remove_apps};

use data_root::DataRoot;
use persistence::{Disk, identity, saved_target};
use tags::TagTask;
use talk::{Besides, Talk};
use vpn::Vpn;

/// Longest time from SIGTERM to the end. The unit allows more.
const STOP_WITHIN: Duration = Duration::from_secs(20);

/// Why the agent cannot start. Later errors are part of its status and pass.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Socket(#[from] api::BindError),
    #[error("TLS cannot be set up")]
    Tls(#[from] Failure),
    /// The agent must not make a new identity: the cloud would get a second device.
    #[error(
        "the state folder {} cannot be read ({why}), and with it who this device is; \
         free space or repair the disk, or set cloud.uuid and cloud.device_key_file",
        folder.display()
    )]
    IdentityUnknown { folder: PathBuf, why: String },
    #[error("the system gives no randomness for a new identity: {0}")]
    Random(getrandom::Error),
    #[error(
        "a task of the agent ended by itself; this is a mistake in Cotter, please report it with the log"
    )]
    TaskEnded,
    #[error(
        "cloud.endpoint is set, but this device is not known to any cloud yet; set cloud.fleet and cloud.provisioning_key_file, or cloud.uuid and cloud.device_key_file"
    )]
    NotJoined,
    /// A device that was never registered has no provisioning key.
    #[error(transparent)]
    NoKey(ConfigError),
    #[error("signals cannot be caught: {0}")]
    Signals(std::io::Error),
}

/// The channels between the tasks.
struct Wires {
    target: watch::Sender<Option<Arc<Delivered>>>,
    cloud: watch::Sender<CloudReport>,
    wakeups: watch::Sender<EngineNews>,
    report: watch::Sender<Report>,
    outlook: watch::Sender<Option<Arc<Situation>>>,
    events: watch::Sender<Events>,
    api_view: watch::Sender<ApiView>,
    vpn: watch::Sender<VpnState>,
    /// The key that reports give the cloud for its requests to the supervisor API.
    cloud_key: watch::Sender<Option<ApiKey>>,
    orders: mpsc::Sender<Command>,
    tags: mpsc::Sender<TagRequest>,
    poll_now: Arc<Notify>,
    move_now: Arc<Notify>,
}

impl Wires {
    /// Returns channels that are empty but for this report.
    fn new(report: Report, orders: mpsc::Sender<Command>, tags: mpsc::Sender<TagRequest>) -> Self {
        Self {
            target: watch::Sender::new(None),
            cloud: watch::Sender::new(CloudReport::default()),
            wakeups: watch::Sender::new(EngineNews::default()),
            report: watch::Sender::new(report),
            outlook: watch::Sender::new(None),
            events: watch::Sender::new(Events::default()),
            api_view: watch::Sender::new(ApiView::default()),
            vpn: watch::Sender::new(VpnState::default()),
            cloud_key: watch::Sender::new(None),
            orders,
            tags,
            poll_now: Arc::new(Notify::new()),
            move_now: Arc::new(Notify::new()),
        }
    }
}

/// Runs the agent until SIGTERM or SIGINT, or SIGHUP while `check` finds the settings right, so that
/// systemd starts it again with them. Containers go on running when it ends, however it ends.
///
/// # Errors
///
/// Only for what stands in the way of starting.
pub async fn run(config: Config, check: impl Fn() -> Result<(), ConfigError>) -> Result<(), DaemonError> {
    // The store comes first: an agent that cannot open it leaves no socket behind.
    let (store, notes) = Store::open(&config.state_dir)?;
    let sockets = sockets(&config).await?;
    log_start(&config, &notes);
    let remembered = store.load();
    let identity = identity(&config, &store, &remembered, &notes).await?;
    check_key(&config, &identity)?;
    info!(version = env!("CARGO_PKG_VERSION"), uuid = %identity.uuid, instance = config.instance.as_str(), "agent started");

    let settings = config.cloud.as_ref().map(|cloud| cloud.endpoint.clone()).unwrap_or_default();
    let cloud = config.cloud.clone().map(|cloud| Talk::present(cloud, &identity));
    let apps = identity.moves.in_force(&settings).map(|moved| moved.apps.clone()).unwrap_or_default();
    let in_force = saved_target(cloud.as_ref(), (&identity.uuid, &apps), &config.policy, &remembered);
    let (orders, orders_heard) = mpsc::channel(8);
    let (tags, tags_asked) = mpsc::channel(8);
    let wires = Wires::new(Report::remembered(&remembered.ledger, in_force.is_some()), orders, tags);
    let etag = in_force.as_ref().and(remembered.target.as_ref()).and_then(|t| t.etag.clone());
    let wanted_interval = in_force.as_ref().and_then(|delivered| delivered.target.poll_interval);
    wires.target.send_replace(in_force.map(Arc::new));

    let (stop, mut tasks) = (CancellationToken::new(), JoinSet::new());
    let who = Who { instance: config.instance.as_str().to_owned(), uuid: identity.uuid.to_string() };
    let http = http(&config)?;
    let login =
        watch::Sender::new(cloud.as_ref().map(|cloud| talk::login(cloud, &identity.in_force(&settings).0)));
    let host = Host::new(&config.runtime_dir, http.clone(), login.subscribe(), config.policy.clone());
    let host = host.introduced_as(apps_api::device_facts(&config, config.cloud.as_ref(), &identity.uuid));
    let docker = Arc::new(engine(&config));
    let logs = logs::source(Arc::clone(&docker), wires.report.subscribe(), stop.clone());
    spawn_sockets(&mut tasks, sockets, (who, logs), &config, &wires, &stop);
    let memory = (Disk::new(store.clone()), remembered.ledger);
    let logs = uploads::task(Arc::clone(&docker), &config);
    let tags = TagTask::new(tags_asked, &config.state_dir);
    let inspected = Arc::clone(&docker);
    spawn_reconciler(&mut tasks, &config, (docker, host), &wires, orders_heard, memory, &stop);
    tasks.spawn(systemd::publish_status(wires.report.subscribe(), stop.clone()));
    tasks.spawn(lock_folders::watch(host_access::services_dir(&config.runtime_dir), stop.clone()));
    if let Some(settings) = config.cloud {
        let (metrics, data_root) = (config.metrics_listen, Arc::new(DataRoot::default()));
        tasks.spawn(Arc::clone(&data_root).find(inspected, stop.clone()));
        let vpn = Vpn::new(&config.runtime_dir, config.vpn, config.supervisor_port);
        let (policy, besides) = (config.policy, Besides { logs, tags, vpn });
        let talk =
            Talk { http, metrics, data_root, settings, policy, identity, store, wires, login, besides };
        tasks.spawn(talk.run((etag, wanted_interval), stop.clone()));
    } else {
        warn!("no cloud is set; what was last received goes on running");
        let vpn = Vpn::new(&config.runtime_dir, config.vpn, config.supervisor_port);
        tasks.spawn(keep_open(wires, vpn, stop.clone()));
    }
    host::notify_ready();
    run_until_signalled(tasks, check, &stop).await
}

/// Checks that a device that is not registered yet has a key for it.
fn check_key(config: &Config, identity: &Identity) -> Result<(), DaemonError> {
    if let (None, Some(Joining::Register { key_file, .. })) =
        (&identity.registered, config.cloud.as_ref().map(|cloud| &cloud.joining))
    {
        key_file.read().map_err(DaemonError::NoKey)?;
    }
    Ok(())
}

/// Logs what was found when store and settings were read.
fn log_start(config: &Config, notes: &[Recovery]) {
    for note in notes {
        if note.is_trouble() {
            warn!(alert = Alert::StoreRecovered.as_str(), %note, "store repaired");
        } else {
            info!("{note}");
        }
    }
    if let Ok(Some(doubt)) = ownership::doubt(&config.state_dir, User::us()) {
        warn!(path = %config.state_dir.display(), %doubt, "others could replace the state folder");
    }
    if let Some(cloud) = config.cloud.as_ref().filter(|cloud| exposed_host(&cloud.endpoint).is_some()) {
        warn!(endpoint = %cloud.endpoint, "the cloud is asked without TLS: this device's key goes there in the clear");
    }
    for window in &config.plan.windows {
        if let WindowState::Unknown(why) = host::window(window, host::now()) {
            warn!(%window, %why, "cannot tell whether the maintenance window is open");
        }
    }
}

/// Waits for the signal to stop, then for the tasks to end.
async fn run_until_signalled(
    mut tasks: JoinSet<()>,
    check: impl Fn() -> Result<(), ConfigError>,
    stop: &CancellationToken,
) -> Result<(), DaemonError> {
    tokio::select! {
        signalled = signals::wait(check) => signalled?,
        // Every task runs until `stop` is cancelled. When one ends by itself, the agent ends and systemd restarts it.
        _ = tasks.join_next() => return Err(DaemonError::TaskEnded),
    }
    info!("stopping");
    host::notify_stopping();
    stop.cancel();
    let all = async { while tasks.join_next().await.is_some() {} };
    if tokio::time::timeout(STOP_WITHIN, all).await.is_err() {
        warn!("a task did not end in time and is left");
    }
    info!("stopped");
    Ok(())
}

/// The status and the control socket.
async fn sockets(config: &Config) -> Result<(UnixListener, UnixListener), DaemonError> {
    let mut inherited = Inherited::from_systemd();
    let status = api::bind(&mut inherited, &config.runtime_dir.join("status.sock"), 0o660).await?;
    let control = api::bind(&mut inherited, &config.runtime_dir.join("control.sock"), 0o600).await?;
    for path in inherited.left() {
        let (path, folder) = (path.display(), config.runtime_dir.display());
        warn!(%path, %folder, "systemd listens at a socket that is not in runtime_dir; it is not served");
    }
    Ok((status, control))
}

/// Serves the status and the control socket, and the API of apps.
fn spawn_sockets(
    tasks: &mut JoinSet<()>,
    (status, control): (UnixListener, UnixListener),
    (who, logs): (Who, Logs),
    config: &Config,
    wires: &Wires,
    stop: &CancellationToken,
) {
    let has_cloud = config.cloud.is_some();
    let outlook = wires.outlook.subscribe();
    let sources = Sources {
        who,
        report: wires.report.subscribe(),
        cloud: has_cloud.then(|| wires.cloud.subscribe()),
        target: wires.target.subscribe(),
        forecaster: Forecaster::new(move || reconcile::forecast(&outlook)),
        events: wires.events.subscribe(),
        run: host::random_hex(4).unwrap_or_default().into(),
        readers: api::Readers::of_events(),
        stop: stop.clone(),
        memory: host::own_memory,
        uptime: host::uptime,
        boot_id: host::boot_id(),
        logs,
    };
    if let Some(address) = config.metrics_listen {
        tasks.spawn(api::serve_metrics(address, sources.clone(), stop.clone()));
    }
    tasks.spawn(api::serve(status, sources, stop.clone()));
    let poll_now = has_cloud.then(|| Arc::clone(&wires.poll_now));
    let orders = Control {
        orders: wires.orders.clone(),
        poll_now,
        move_now: Arc::clone(&wires.move_now),
        time_in: host::time_in,
        uptime: host::uptime,
        boot_id: host::boot_id(),
        new_id: || host::random_hex(8).ok(),
    };
    tasks.spawn(api::serve_control(control, orders, stop.clone()));
    apps_api::spawn(tasks, wires.api_view.subscribe(), config, wires, stop);
}

fn http(config: &Config) -> Result<Http, Failure> {
    Http::trusting(config.cloud.as_ref().and_then(|cloud| cloud.authority.as_deref()))
}

fn engine(config: &Config) -> Docker {
    Docker::new(DockerSettings {
        socket: config.engine_socket.clone(),
        instance: config.instance.clone(),
        services_dir: host_access::services_dir(&config.runtime_dir),
        stall_timeout: config.stall_timeout,
    })
}

fn spawn_reconciler(
    tasks: &mut JoinSet<()>,
    config: &Config,
    (engine, host): (Arc<Docker>, Host),
    wires: &Wires,
    orders: mpsc::Receiver<Command>,
    (store, ledger): (Disk, Ledger),
    stop: &CancellationToken,
) {
    let channels = Channels {
        target: wires.target.subscribe(),
        engine: wires.wakeups.subscribe(),
        commands: orders,
        report: wires.report.clone(),
        outlook: wires.outlook.clone(),
        events: wires.events.clone(),
        api_view: wires.api_view.clone(),
    };
    let settings = Settings {
        plan: Arc::new(config.plan.clone()),
        resync: config.resync,
        boot_id: host::boot_id().into(),
    };
    tasks.spawn(reconcile::watch_engine(Arc::clone(&engine), wires.wakeups.clone(), stop.clone()));
    let reconciled = reconcile::run(engine, Arc::new(host), store, ledger, settings, channels, stop.clone());
    tasks.spawn(async move {
        tokio::select! {
            () = reconciled => {}
            () = systemd::beat() => {}
        }
    });
}

/// Ends the tunnel to a former cloud, and keeps the channels open: a reconciler whose target channel closes would end.
async fn keep_open(wires: Wires, vpn: Vpn, stop: CancellationToken) {
    stop.run_until_cancelled(vpn.end()).await;
    stop.cancelled().await;
    drop(wires);
}

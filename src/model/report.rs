//! The report of the device, for the cloud, the status socket and the command line.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::{
    AppId, Attempted, Commit, ContainerId, Counts, Delivered, DownloadProgress, Evidence, FileLock, Halt,
    Happening, Health, History, Hold, Lease, Ledger, LogCounts, LogState, Reason, ServiceName, VpnState,
    Waiting, What,
};

/// The current state of the device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Whether a target is known, from the cloud or from the store.
    pub has_target: bool,
    pub apps: BTreeMap<AppId, AppReport>,
    pub waiting: Vec<Waiting>,
    /// Set while an operator holds the device.
    pub hold: Option<Hold>,
    /// The leases in the ledger. Some may have ended meanwhile and must not be shown.
    pub leases: Vec<Lease>,
    /// The lock files of apps at the last observation.
    pub file_locks: BTreeMap<AppId, BTreeMap<ServiceName, FileLock>>,
    /// The history of releases.
    pub history: Arc<History>,
    /// Why services failed: those of rejected releases, and those that do not run well now.
    pub evidence: Vec<Evidence>,
    /// Why the engine cannot be observed; `None` if it can.
    pub engine_error: Option<String>,
    /// Why the store cannot be written; `None` if it can.
    pub store_error: Option<String>,
    /// Whether there is something to do now.
    pub is_busy: bool,
    /// The target on which this report is based.
    pub delivered: Option<Arc<Delivered>>,
    /// Counters since the agent started.
    pub counts: Counts,
}

impl Report {
    /// The name of an app, if it is known.
    #[must_use]
    pub fn app_name(&self, app: &AppId) -> Option<&str> {
        self.apps.get(app).map(|app| app.name.as_str()).filter(|name| !name.is_empty())
    }

    /// The evidence that is not past: of each service, if a release was accepted after the one that it is of was rejected.
    pub fn present_evidence(&self) -> impl Iterator<Item = &Evidence> {
        self.evidence.iter().filter(|one| {
            let mut of_app = self.history.all().iter().rev().filter(|it| it.app == one.app);
            // Without a rejection it is of a service that fails now.
            let is_rejected = |it: &&Happening| it.what == What::Rejected && it.release == one.release;
            let Some(at) = of_app.clone().position(|it| is_rejected(&it)) else { return true };
            let is_past = of_app.by_ref().take(at).any(|it| it.what == What::Accepted);
            let is_failing = |wait: &&Waiting| {
                matches!(wait.reason, Reason::Unhealthy | Reason::Degraded)
                    && wait.app.as_ref() == Some(&one.app)
                    && wait.service.as_ref().is_none_or(|service| *service == one.service)
            };
            !is_past || self.waiting.iter().any(|wait| is_failing(&wait))
        })
    }

    /// Makes the report for the time before the first observation of the engine, from the ledger. Without it, a held
    /// device would show no hold for the first moments after a restart.
    #[must_use]
    pub fn remembered(ledger: &Ledger, has_target: bool) -> Self {
        Self {
            has_target,
            hold: ledger.hold.clone(),
            leases: ledger.leases.clone(),
            history: Arc::clone(&ledger.history),
            evidence: ledger.evidence.all().to_vec(),
            ..Self::default()
        }
    }
}

/// One app of the target.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AppReport {
    pub name: String,
    /// The release that should run.
    pub target: Option<Commit>,
    /// The release of which all services run.
    pub current: Option<Commit>,
    pub update: BTreeMap<Commit, UpdateStatus>,
    /// The services, during a swap those of both releases.
    pub services: Vec<ServiceReport>,
    /// Services that an operator stopped.
    pub stopped_by_operator: BTreeMap<ServiceName, Halt>,
    /// The release that an operator lets pass locks and windows.
    pub forced: Option<Commit>,
}

impl Report {
    /// All downloads as one, each image once; `None` if there are none.
    #[must_use]
    pub fn download(&self) -> Option<DownloadProgress> {
        let services = self.apps.values().flat_map(|app| &app.services);
        let images: BTreeMap<_, _> =
            services.filter_map(|service| Some((&service.image, service.progress?))).collect();
        DownloadProgress::sum(images.into_values())
    }
}

/// The state of a release on this device: the six words of the protocol (docs/dev/protocol.md, "Reports: words").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpdateStatus {
    Rejected,
    Aborted,
    Downloading,
    Downloaded,
    ApplyingChanges,
    Done,
}

impl UpdateStatus {
    /// The word of the protocol, in its spelling.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rejected => "rejected",
            Self::Aborted => "aborted",
            Self::Downloading => "downloading",
            Self::Downloaded => "downloaded",
            Self::ApplyingChanges => "applying changes",
            Self::Done => "done",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceReport {
    pub service: ServiceName,
    pub release: Commit,
    pub image: String,
    pub status: ServiceStatus,
    /// The engine's status text, if there is a container.
    pub detail: String,
    /// When its container began to be in this state, as time since the device booted.
    pub since: Option<Duration>,
    /// Its container, if there is one.
    pub container: Option<ContainerId>,
    pub health: Health,
    /// While it downloads, or waits for its download.
    pub progress: Option<DownloadProgress>,
}

/// The state of a service, in the words of the protocol (docs/dev/protocol.md, "Reports: words").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServiceStatus {
    Downloading,
    Downloaded,
    Installed,
    Running,
    Paused,
    Restarting,
    Exited,
    Removing,
    Dead,
}

impl ServiceStatus {
    /// The word of the protocol, in its spelling.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Downloading => "Downloading",
            Self::Downloaded => "Downloaded",
            Self::Installed => "Installed",
            Self::Running => "Running",
            Self::Paused => "paused",
            Self::Restarting => "restarting",
            Self::Exited => "exited",
            Self::Removing => "removing",
            Self::Dead => "Dead",
        }
    }
}

/// The state of the connection to the cloud.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CloudReport {
    pub endpoint: String,
    /// RFC 3339, UTC: time of the last successful poll.
    pub last_contact: Option<String>,
    pub next_poll: Option<String>,
    /// Why the next poll is later than usual; `None` if it is not.
    pub pause: Option<String>,
    pub error: Option<String>,
    /// Failed polls in a row.
    pub failures: u32,
    /// Polls since the agent started.
    pub polls: Attempted,
    /// When it answered last, as time since the device booted.
    pub heard_at: Option<Duration>,
    /// Whether the cloud says that it does not have this device any more.
    pub is_deleted: bool,
    /// Whether the cloud has taken a report of the present state.
    pub is_reported: bool,
    /// Why the last report failed; `None` if it did not.
    pub report_error: Option<String>,
    /// The move to another cloud that this one ordered.
    pub moving: Option<MoveReport>,
    /// How the tunnel to its VPN is.
    pub vpn: VpnState,
    /// Whether the cloud wants logs now. Only our own fleet server says it; `None`: it has not answered yet.
    pub wants_logs: Option<bool>,
    /// Whether logs are uploaded, and why not.
    pub log_state: LogState,
    /// Why logs cannot be uploaded now; `None` if they can, or are not to be uploaded.
    pub log_error: Option<String>,
    /// What was uploaded. A change of it alone wakes no reader.
    pub logs: LogCounts,
}

/// A move to another cloud, as it stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MoveReport {
    /// The other cloud.
    pub to: String,
    /// Whether the device is there now.
    pub is_done: bool,
    /// Why the last attempt failed; `None` while the first one is made.
    pub why: Option<String>,
}

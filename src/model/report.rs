//! What we tell: the cloud, the status socket and the command line say the same.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::{
    AppId, Attempted, Commit, Counts, Delivered, FileLock, Halt, Health, History, Hold, Lease, Ledger,
    ServiceName, Waiting,
};

/// The device as it is now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Whether a target is known at all, from the cloud or from the store.
    pub has_target: bool,
    pub apps: BTreeMap<AppId, AppReport>,
    pub waiting: Vec<Waiting>,
    /// Why nothing is swapped, when an operator holds the device.
    pub hold: Option<Hold>,
    /// As the ledger has them: who shows them leaves out those that have ended meanwhile.
    pub leases: Vec<Lease>,
    /// Lock files of apps that stood at the last look.
    pub file_locks: BTreeMap<AppId, BTreeMap<ServiceName, FileLock>>,
    /// What became of releases.
    pub history: Arc<History>,
    /// Why the engine cannot be looked at, when it cannot.
    pub engine_error: Option<String>,
    /// What went wrong with the store, when something did.
    pub store_error: Option<String>,
    /// Whether there is something to do now.
    pub is_busy: bool,
    /// The target that this was made for.
    pub delivered: Option<Arc<Delivered>>,
    /// What this agent has done since it started.
    pub counts: Counts,
}

impl Report {
    /// The report until the first observation of the engine: what the ledger alone knows. Without it, a device
    /// that is held would show no hold for the first moments after a restart.
    #[must_use]
    pub fn remembered(ledger: &Ledger, has_target: bool) -> Self {
        Self {
            has_target,
            hold: ledger.hold.clone(),
            leases: ledger.leases.clone(),
            history: Arc::clone(&ledger.history),
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
    /// The release that runs whole.
    pub current: Option<Commit>,
    pub update: BTreeMap<Commit, UpdateStatus>,
    /// Services by release; while a release is swapped, of both.
    pub services: Vec<ServiceReport>,
    /// Services of it that an operator stopped.
    pub halted: BTreeMap<ServiceName, Halt>,
    /// The release that an operator lets pass locks and windows.
    pub forced: Option<Commit>,
}

/// The state of a release on this device; the six words of the wire (docs/dev/protocol.md, "Reports: words").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpdateStatus {
    Rejected,
    Aborted,
    Downloading,
    Downloaded,
    ApplyingChanges,
    Done,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceReport {
    pub service: ServiceName,
    pub release: Commit,
    pub image: String,
    pub status: ServiceStatus,
    /// The engine's own words, when there is a container.
    pub detail: String,
    pub health: Health,
    /// Percent, while it downloads.
    pub progress: Option<u8>,
}

/// The words of the wire for a service, case and all (docs/dev/protocol.md, "Reports: words").
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
    /// As the API spells it.
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

/// How it stands with the cloud.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CloudReport {
    pub endpoint: String,
    /// RFC 3339, UTC; of the last answer that told us the target.
    pub last_contact: Option<String>,
    pub next_poll: Option<String>,
    pub error: Option<String>,
    /// Failed polls in a row.
    pub failures: u32,
    /// Polls since the agent started, and those of them that failed.
    pub polls: Attempted,
    /// When it was heard from last, as time since the device booted.
    pub heard_at: Option<Duration>,
}

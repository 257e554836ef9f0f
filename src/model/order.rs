//! Orders of an operator to the agent, and their answers.

use std::time::Duration;

use super::{ApiKey, AppId, Hold, Lease, Power, ServiceName};

/// An operator's order. Apps are named by uuid or name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// Try rejected releases and postponed steps again; `None`: of every app.
    Retry { app: Option<String> },
    /// Reject the wanted release and roll back to the good one; `None`: of the only app.
    Rollback { app: Option<String> },
    /// Swap nothing until [`Order::Unhold`].
    Hold(Hold),
    /// Allow swaps again.
    Unhold,
    /// Stop a service, whatever its restart policy, until it is started by an order or its spec changes.
    Stop { service: OfService, is_forced: bool, since: String },
    /// Start a service that an operator stopped.
    Start { service: OfService },
    /// Stop a service and start it again.
    Restart { service: OfService, is_forced: bool },
    /// Make a lease.
    Lock(Lease),
    /// Set the end of the lease with this id to `until` (time since boot), even if that is earlier than before.
    Renew { id: String, until: Duration },
    /// End a lease.
    Unlock { id: String },
    /// Remove volumes. Which ones exist is asked from the engine; the ledger does not know them.
    Purge(Purge),
    /// Let the wanted release pass locks and windows; `None`: of every app.
    Force { app: Option<String> },
    /// Stop and start all services of an app.
    RestartApp { app: AppId, is_forced: bool },
    /// Give a service another key for the supervisor API. Its container is created again before its next start.
    NewKey { app: AppId, service: ServiceName, key: ApiKey },
    /// Reboot the host or switch it off.
    Power { power: Power, is_forced: bool },
}

/// Which volumes to remove.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Purge {
    /// Uuid or name; `None`: only list all volumes.
    pub app: Option<String>,
    /// Its name in the compose file; `None`: all volumes of the app.
    pub volume: Option<String>,
    /// Whether to ignore locks.
    pub is_forced: bool,
    /// Whether to list only what would be removed.
    pub is_dry: bool,
    /// Whether to leave out volumes that a container mounts or that a known release declares.
    pub is_of_unused: bool,
}

/// A service, with its app if the name is not unique.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfService {
    /// Uuid or name; `None`: the only app that has such a service.
    pub app: Option<String>,
    pub service: String,
}

impl Order {
    /// The command's name: the journal's field `order`.
    #[must_use]
    pub fn verb(&self) -> &'static str {
        match self {
            Self::Retry { .. } => "retry",
            Self::Rollback { .. } => "rollback",
            Self::Hold(_) => "hold",
            Self::Unhold => "unhold",
            Self::Stop { .. } => "stop",
            Self::Start { .. } => "start",
            Self::Restart { .. } => "restart",
            Self::Lock(_) => "lock",
            Self::Renew { .. } => "renew",
            Self::Unlock { .. } => "unlock",
            Self::Force { .. } => "force",
            Self::Purge(_) => "purge",
            Self::RestartApp { .. } => "restart",
            Self::NewKey { .. } => "new key",
            Self::Power { power, .. } => power.verb(),
        }
    }
}

/// The answer to an order, with a line for the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Done, or there was nothing to do.
    Done(String),
    /// It cannot be done, and nothing was changed.
    Refused(String),
    /// It waits for the end of a hold or a lock, and nothing was changed.
    Held(String),
    /// No app, service or lock has this name.
    NotFound(String),
}

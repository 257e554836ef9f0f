//! What an operator asks of the agent of a device, and what it answers.

use std::time::Duration;

use super::{Hold, Lease};

/// An operator's order. Apps are named by uuid or name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// Try again what was rejected or put off; `None`: of every app.
    Retry { app: Option<String> },
    /// Take the wanted release back; `None`: of the only app.
    Rollback { app: Option<String> },
    /// Swap nothing until [`Order::Unhold`].
    Hold(Hold),
    /// Go on.
    Unhold,
    /// Keep a service stopped, whatever its restart policy, until it is started or its spec changes.
    Stop { service: OfService, is_forced: bool, since: String },
    /// Start a service that an operator stopped.
    Start { service: OfService },
    /// Stop a service and start it again.
    Restart { service: OfService, is_forced: bool },
    /// Give a lease.
    Lock(Lease),
    /// Let the lease with this id end at `until` (time since boot), whenever it ended before.
    Renew { id: String, until: Duration },
    /// End a lease.
    Unlock { id: String },
    /// Remove volumes. What they are follows from the engine, and nothing of it from the ledger.
    Purge(Purge),
    /// Let the wanted release pass locks and windows; `None`: of every app.
    Force { app: Option<String> },
}

/// Which volumes to remove.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Purge {
    /// Uuid or name; `None`: only tell what there is.
    pub app: Option<String>,
    /// By its name in the compose file; `None`: all of the app.
    pub volume: Option<String>,
    /// Whether to pass over locks.
    pub is_forced: bool,
    /// Whether only to tell what would be removed.
    pub is_dry: bool,
}

/// A service, and its app where that is not clear.
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
        }
    }
}

/// What became of an order, each with a line for the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Done, or there was nothing to do.
    Done(String),
    /// It cannot be done, and nothing was changed.
    Refused(String),
    /// It waits for the end of a hold or a lock, and nothing was changed.
    Held(String),
    /// No app, service or lock is called so.
    NotFound(String),
}

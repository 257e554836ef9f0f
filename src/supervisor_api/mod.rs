//! The HTTP API that apps made for balena expect inside their containers (docs/balena.md has its rows).
//!
//! It listens only where containers connect: at the host's address on each network with a service that asks for it, and on
//! loopback for services that have the network of the host. A client is known by its key, and by the range of its address.
//! A service acts on its own app; what it may do beyond that is the owner's choice. While the VPN of the cloud is
//! connected, it listens at the address of the tunnel as well, for the server of the VPN with the key of the cloud, and only
//! for them.
//!
//! The room reads channels and passes orders to the reconciler, as the control socket does. It touches neither engine nor
//! store.

mod actions;
mod answers;
mod caller;
mod doors;
mod entrance;
mod journal;
mod keys;
mod pace;
mod request;
mod rows;
mod serve;
mod shown;
mod tags;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot, watch};

use crate::model::{Answer, ApiKey, ApiView, Order, Report, VpnState};

use pace::Paces;

pub use doors::run;
pub use journal::{Journal, OpenJournal};
pub use tags::TagRequest;

/// The channels and functions from which the API answers.
#[derive(Debug, Clone)]
pub struct Supervisor {
    pub view: watch::Receiver<ApiView>,
    pub report: watch::Receiver<Report>,
    /// To the reconciler; each order comes with the sender for its answer.
    pub orders: mpsc::Sender<(Order, oneshot::Sender<Answer>)>,
    /// Makes the agent poll at once. `None` if no cloud is configured.
    pub poll_now: Option<Arc<Notify>>,
    /// To the task that talks to the cloud. `None` if no cloud is configured.
    pub tags: Option<mpsc::Sender<TagRequest>>,
    pub journal: OpenJournal,
    pub cloud: CloudAccess,
    /// What the owner lets services do beyond their own app.
    pub allowed: Allowed,
    pub port: u16,
    pub version: &'static str,
    /// The operating system; empty if it is not known.
    pub os_version: String,
    /// The wall-clock time after a duration, as text for people.
    pub time_in: fn(Duration) -> String,
    pub new_key: fn() -> Option<ApiKey>,
    /// How many requests each service has sent recently.
    paces: Arc<Paces>,
    /// Places for readers of the journal.
    journals: journal::Seats,
}

/// How the cloud asks, through its VPN.
#[derive(Debug, Clone)]
pub struct CloudAccess {
    pub state: watch::Receiver<VpnState>,
    /// The key that reports give the cloud; `None` before there is one.
    pub key: watch::Receiver<Option<ApiKey>>,
    /// The network interface of the tunnel.
    pub device: String,
    /// Whether services may ask at all: `policy.supervisor_api`.
    pub is_for_services: bool,
}

/// What the owner lets services do beyond their own app.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowed {
    /// `policy.reboot`
    pub reboot: bool,
    /// `policy.other_apps`
    pub other_apps: bool,
    /// `policy.balena_api`: with it, a service could also change the device's tags itself, through the cloud's API.
    pub tags: bool,
    /// `policy.features`: with it, a service may also mount the journal.
    pub journal: bool,
}

/// The channels of [`Supervisor`].
#[derive(Debug)]
pub struct Wires {
    pub view: watch::Receiver<ApiView>,
    pub report: watch::Receiver<Report>,
    pub orders: mpsc::Sender<(Order, oneshot::Sender<Answer>)>,
    pub poll_now: Option<Arc<Notify>>,
    pub tags: Option<mpsc::Sender<TagRequest>>,
    pub journal: OpenJournal,
    pub cloud: CloudAccess,
}

impl Supervisor {
    /// Returns an API that serves nothing until [`run`].
    #[must_use]
    pub fn new(
        wires: Wires,
        allowed: Allowed,
        (port, os_version): (u16, String),
        time_in: fn(Duration) -> String,
        new_key: fn() -> Option<ApiKey>,
    ) -> Self {
        let Wires { view, report, orders, poll_now, tags, journal, cloud } = wires;
        let version = env!("CARGO_PKG_VERSION");
        let paces = Arc::default();
        Self {
            view,
            report,
            orders,
            poll_now,
            tags,
            journal,
            cloud,
            allowed,
            port,
            version,
            os_version,
            time_in,
            new_key,
            paces,
            journals: journal::Seats::default(),
        }
    }
}

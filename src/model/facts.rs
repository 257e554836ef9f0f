//! What a decision may need to know besides target, engine and ledger: what the host and the registry say.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{AppId, ContainerId, ImageRef, Protocol, ServiceName, Window};

/// What is known of the surroundings. An absent fact stands in nothing's way.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// Lock files of apps that stand now, whoever runs. Ours are not among them.
    pub locks: BTreeMap<AppId, BTreeMap<ServiceName, FileLock>>,
    /// Apps in whose folders our own lock files stand.
    pub own_locks: BTreeSet<AppId>,
    /// Services that have said that their predecessor may go.
    pub handed_over: BTreeSet<(AppId, ServiceName)>,
    /// The state of every window that somebody asked for.
    pub windows: BTreeMap<Window, WindowState>,
    /// Whether the clock can be believed.
    pub clock: Clock,
    /// Since the device booted; no clock that jumps changes it.
    pub uptime: Duration,
    /// Bytes free for images, on the engine's disk.
    pub free: Option<u64>,
    /// The engine's architecture as images name it, e.g. `amd64`, `arm64`, `arm`.
    pub architecture: Option<String>,
    /// Host ports in use, whoever holds them.
    pub ports: Vec<HeldPort>,
    /// Images that were asked for at their registry; one that it did not tell of weighs nothing.
    pub weights: BTreeMap<ImageRef, Weight>,
    /// The layers that the engine has, once it was asked.
    pub layers: Option<BTreeSet<String>>,
}

/// A lock file that an app has made (protocol.md 3.5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileLock {
    /// As the app sees it, e.g. `/tmp/balena/updates.lock`.
    pub path: String,
}

/// Whether the wall clock can be believed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Clock {
    #[default]
    Trusted,
    /// Why not, in words.
    Untrusted(String),
}

/// Whether a maintenance window is open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WindowState {
    Open,
    Closed {
        opens_in: Duration,
    },
    /// The device does not know its time zone; why, in words.
    Unknown(String),
}

/// A host port that is in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldPort {
    /// Empty: all addresses.
    pub host_ip: String,
    pub port: u16,
    pub protocol: Protocol,
    /// The container that publishes it; `None`: a program of the host.
    pub container: Option<ContainerId>,
    /// For people: the container's name, or the kind of program.
    pub by: String,
}

/// What a registry says of an image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Weight {
    /// Its layers by the digest of their uncompressed content, with their compressed bytes.
    pub layers: BTreeMap<String, u64>,
    /// Architectures that it is made for, as images name them; empty: it does not say.
    pub architectures: BTreeSet<String>,
}

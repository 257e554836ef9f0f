//! The normalised spec of a service.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::label::is_yes;
use super::names::Names;
use super::{
    ContentFile, Healthcheck, ImageRef, Isolation, Limits, Logging, Namespace, NetworkName, Platform,
    Resolver, ServiceName, SpecHash, VolumeName,
};

/// A service of a release: everything that is needed to create its container.
///
/// Two specs with the same `hash` make the same container. `None` and empty fields mean the default of the image or of
/// the engine.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceSpec {
    /// Hash of the author's normalised spec, without what the agent adds.
    pub hash: SpecHash,
    /// Numeric ids of the cloud. They are reported and logged, and never compared.
    pub service_id: u64,
    pub image_id: u64,
    pub image: ImageRef,
    /// `false`: the container is created but not started.
    pub is_running: bool,
    /// The platform of its image; `None`: the device's own. Not part of the hash, so a change does not replace a running
    /// container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    pub command: Option<Vec<String>>,
    pub entrypoint: Option<Vec<String>>,
    pub environment: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
    pub ports: Vec<PortMapping>,
    pub mounts: Vec<Mount>,
    /// Target path to mount options, in the engine's form ("size=1m").
    pub tmpfs: BTreeMap<String, String>,
    pub network_mode: NetworkMode,
    pub restart: RestartPolicy,
    pub depends_on: BTreeMap<ServiceName, Condition>,
    pub user: Option<String>,
    pub working_dir: Option<String>,
    pub hostname: Option<String>,
    pub healthcheck: Option<Healthcheck>,
    /// The time from SIGTERM to SIGKILL. `None`: the engine's default of 10 s.
    pub stop_grace: Option<Duration>,
    pub stop_signal: Option<String>,
    /// Bytes.
    pub memory_limit: Option<u64>,
    pub cap_add: BTreeSet<String>,
    pub cap_drop: BTreeSet<String>,
    pub devices: Vec<Device>,
    pub is_privileged: bool,
    pub is_read_only: bool,
    pub has_init: Option<bool>,
    pub has_tty: bool,
    /// Resource limits by the names of `setrlimit(2)` in lower case, e.g. `nofile`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ulimits: BTreeMap<String, Ulimit>,
    /// Lines for the container's hosts file in the engine's form: `name:address`, sorted. The address may be
    /// `host-gateway`.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub extra_hosts: BTreeSet<String>,
    #[serde(default, skip_serializing_if = "Limits::is_default")]
    pub limits: Limits,
    #[serde(default, skip_serializing_if = "Isolation::is_default")]
    pub isolation: Isolation,
    #[serde(default, skip_serializing_if = "Resolver::is_default")]
    pub resolver: Resolver,
    /// `None`: the engine's `local` driver, which rotates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logging: Option<Logging>,
    /// Annotations for the engine's runtime.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Keeps its standard input open.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub has_stdin: bool,
    /// Files that are written into its container before it starts for the first time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<ContentFile>,
    /// How it takes over from its predecessor: label `io.balena.update.strategy`.
    #[serde(default, skip_serializing_if = "Strategy::is_default")]
    pub strategy: Strategy,
}

/// Shows only a few fields, because others may be secret.
impl fmt::Debug for ServiceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceSpec")
            .field("hash", &self.hash)
            .field("image", &self.image)
            .field("environment", &Names(&self.environment))
            .finish_non_exhaustive()
    }
}

/// How a service takes over from its predecessor (docs/dev/protocol.md, "Update strategies").
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    /// All images are pulled before the predecessor stops.
    #[default]
    DownloadThenKill,
    /// The predecessor stops before the image is pulled, for a host with little memory.
    KillThenDownload,
    /// The predecessor and its image are removed before the new image is pulled, for a host with a small disk. A rollback
    /// needs a pull, too.
    DeleteThenDownload,
    /// The successor runs at the same time as its predecessor, which stops when the successor says so or after
    /// `timeout`.
    HandOver { timeout: Duration },
}

impl Strategy {
    /// Returns `true` for the default strategy.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::DownloadThenKill
    }
}

/// A resource limit of a container's processes; -1: no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ulimit {
    pub soft: i64,
    pub hard: i64,
}

impl ServiceSpec {
    /// Returns `true` if it asks for a feature by a label, named without `io.balena.features.`.
    #[must_use]
    pub fn has_feature(&self, name: &str) -> bool {
        let mut labels = self.labels.iter();
        labels.any(|(label, value)| {
            label.strip_prefix("io.balena.features.").is_some_and(|label| label == name) && is_yes(value)
        })
    }

    /// Returns the volumes that it mounts.
    pub fn volumes(&self) -> impl Iterator<Item = &VolumeName> {
        self.mounts.iter().filter_map(|mount| match &mount.source {
            MountSource::Volume(name) => Some(name),
            MountSource::Anonymous | MountSource::Host(_) | MountSource::EngineSocket => None,
        })
    }

    /// Returns the services of the release whose namespaces it joins.
    pub fn joins(&self) -> impl Iterator<Item = (Namespace, &ServiceName)> {
        let network = match &self.network_mode {
            NetworkMode::Service(name) => Some(name),
            NetworkMode::Networks(_) | NetworkMode::Host | NetworkMode::None | NetworkMode::Bridge => None,
        };
        let Isolation { ipc_of, pid_of, .. } = &self.isolation;
        [(Namespace::Network, network), (Namespace::Ipc, ipc_of.as_ref()), (Namespace::Pid, pid_of.as_ref())]
            .into_iter()
            .filter_map(|(kind, name)| Some((kind, name?)))
    }

    /// Returns a host port that it publishes. Only one container can have it at a time.
    #[must_use]
    pub fn host_port(&self) -> Option<u16> {
        self.ports.iter().find_map(|port| port.host_port)
    }

    /// Returns a fixed address on a network. Only one container can have it at a time.
    #[must_use]
    pub fn own_address(&self) -> Option<&str> {
        let NetworkMode::Networks(attachments) = &self.network_mode else { return None };
        let mut addresses =
            attachments.values().flat_map(|a| [&a.ipv4_address, &a.ipv6_address, &a.mac_address]);
        addresses.find_map(|address| address.as_deref())
    }

    /// Makes a spec with only an image, and the defaults of compose for everything else.
    #[must_use]
    pub fn bare(hash: SpecHash, image: ImageRef) -> Self {
        Self {
            hash,
            service_id: 0,
            image_id: 0,
            image,
            is_running: true,
            platform: None,
            command: None,
            entrypoint: None,
            environment: BTreeMap::new(),
            labels: BTreeMap::new(),
            ports: Vec::new(),
            mounts: Vec::new(),
            tmpfs: BTreeMap::new(),
            network_mode: NetworkMode::Networks(BTreeMap::new()),
            restart: RestartPolicy::Always,
            depends_on: BTreeMap::new(),
            user: None,
            working_dir: None,
            hostname: None,
            healthcheck: None,
            stop_grace: None,
            stop_signal: None,
            memory_limit: None,
            cap_add: BTreeSet::new(),
            cap_drop: BTreeSet::new(),
            devices: Vec::new(),
            is_privileged: false,
            is_read_only: false,
            has_init: None,
            has_tty: false,
            ulimits: BTreeMap::new(),
            extra_hosts: BTreeSet::new(),
            limits: Limits::default(),
            isolation: Isolation::default(),
            resolver: Resolver::default(),
            logging: None,
            annotations: BTreeMap::new(),
            has_stdin: false,
            files: Vec::new(),
            strategy: Strategy::default(),
        }
    }
}

/// A port of the container, published on the host.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PortMapping {
    /// Empty: all addresses of the host.
    pub host_ip: String,
    /// `None`: the engine picks a free one.
    pub host_port: Option<u16>,
    pub container_port: u16,
    pub protocol: Protocol,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    Tcp,
    Udp,
}

/// A mount, other than a tmpfs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Mount {
    pub source: MountSource,
    /// Absolute path in the container.
    pub target: String,
    pub is_read_only: bool,
    #[serde(default, skip_serializing_if = "MountOptions::is_default")]
    pub options: MountOptions,
}

/// Options of a mount. An empty field means the engine's default.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default)]
pub struct MountOptions {
    /// A new volume does not get the image's content of that path.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub has_no_copy: bool,
    /// Mounts only this folder of the volume.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subpath: Option<String>,
    /// Propagation of a host path, e.g. `rslave`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub propagation: Option<String>,
    /// A missing host path is an error; otherwise the engine creates a folder there.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub must_exist: bool,
}

impl MountOptions {
    /// Returns `true` if it sets nothing.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MountSource {
    /// A volume of the app. It is kept until it is purged.
    Volume(VolumeName),
    /// A volume without a name. It is removed with its container.
    Anonymous,
    /// An absolute path of the host, without a slash at its end.
    Host(String),
    /// The socket of our engine.
    EngineSocket,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NetworkMode {
    /// Networks of the app. Never empty: it is `default` if the author names none.
    Networks(BTreeMap<NetworkName, NetworkAttachment>),
    /// The host's own network.
    Host,
    /// Only a loopback.
    None,
    /// The engine's default bridge.
    Bridge,
    /// The network of another service of the release, with its addresses, ports and names.
    Service(ServiceName),
}

#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkAttachment {
    /// Additional names of this service on the network.
    pub aliases: BTreeSet<String>,
    pub ipv4_address: Option<String>,
    pub ipv6_address: Option<String>,
    /// Additional link-local addresses.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub link_local_ips: BTreeSet<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac_address: Option<String>,
    /// The network with the highest priority is connected first; absent: 0.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub priority: i64,
    /// The network with the highest priority has the default route; absent: 0.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub gateway_priority: i64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub driver_opts: BTreeMap<String, String>,
}

impl fmt::Debug for NetworkAttachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NetworkAttachment")
            .field("aliases", &self.aliases)
            .field("ipv4_address", &self.ipv4_address)
            .field("ipv6_address", &self.ipv6_address)
            .field("driver_opts", &Names(&self.driver_opts))
            .finish_non_exhaustive()
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
fn is_zero(number: &i64) -> bool {
    *number == 0
}

/// When the engine starts an exited container again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RestartPolicy {
    No,
    Always,
    UnlessStopped,
    /// After a non-zero exit, at most `retries` times; 0: no limit.
    OnFailure {
        retries: u32,
    },
}

impl RestartPolicy {
    /// Returns `true` if a container that exited by itself must run again, whatever its exit code.
    #[must_use]
    pub fn is_forever(self) -> bool {
        matches!(self, Self::Always | Self::UnlessStopped)
    }
}

/// The condition under which a service that depends on another one starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Condition {
    #[serde(rename = "service_started")]
    Started,
    #[serde(rename = "service_healthy")]
    Healthy,
    #[serde(rename = "service_completed_successfully")]
    Completed,
}

/// A device node of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    pub host_path: String,
    pub container_path: String,
    /// Some of `r`, `w`, `m`.
    pub permissions: String,
}

//! The namespaces and security options of a service, and how it resolves names.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use super::ServiceName;
use super::names::Names;

/// Namespaces, security options and device rules of a container. An empty field means the engine's default.
///
/// Its serialised form is part of the spec hash, so empty fields are left out of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Isolation {
    /// `none`, `private`, `shareable` or `host`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipc: Option<String>,
    /// The service whose memory it shares.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipc_of: Option<ServiceName>,
    /// It sees the processes of the host.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub has_host_pid: bool,
    /// The service whose processes it sees.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid_of: Option<ServiceName>,
    /// It uses the host's name.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub has_host_uts: bool,
    /// Its users are those of the host, even if the engine maps users.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub has_host_users: bool,
    /// `host` or `private`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup_parent: Option<String>,
    /// E.g. `no-new-privileges`, `seccomp=unconfined`.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub security: BTreeSet<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub sysctls: BTreeMap<String, String>,
    /// Groups of its processes, in addition to those of its user.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub groups: BTreeSet<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime: Option<String>,
    /// Rules for devices, e.g. `c 188:* rwm`.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub device_rules: BTreeSet<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub device_requests: Vec<DeviceRequest>,
}

impl Isolation {
    /// Returns `true` if it sets nothing.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// The namespaces of another container that a container may join.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Namespace {
    Network,
    Ipc,
    Pid,
}

impl Namespace {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Network, Self::Ipc, Self::Pid];

    /// The stable name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Network => "network",
            Self::Ipc => "ipc",
            Self::Pid => "pid",
        }
    }
}

/// Devices that a driver of the engine provides, e.g. graphics processors.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeviceRequest {
    /// Empty: the engine chooses by the capabilities.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub driver: String,
    /// -1: all. `None` if there are `ids`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<i64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ids: Vec<String>,
    /// All of them together.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub capabilities: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, String>,
}

impl fmt::Debug for DeviceRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceRequest")
            .field("driver", &self.driver)
            .field("options", &Names(&self.options))
            .finish_non_exhaustive()
    }
}

/// How a container resolves names. Empty: the engine's default.
///
/// Its serialised form is part of the spec hash, so empty fields are left out of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resolver {
    /// The domain of the container's own name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domainname: Option<String>,
    /// Addresses of name servers, in the order in which they are asked.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub servers: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub search: Vec<String>,
    /// As in resolv.conf(5), e.g. `ndots:2`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
}

impl Resolver {
    /// Returns `true` if it sets nothing.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// The log driver of a container.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Logging {
    /// Empty: the engine's default.
    pub driver: String,
    pub options: BTreeMap<String, String>,
}

impl fmt::Debug for Logging {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Logging")
            .field("driver", &self.driver)
            .field("options", &Names(&self.options))
            .finish()
    }
}

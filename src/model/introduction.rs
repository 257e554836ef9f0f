//! The variables that a new container gets about its device, and what the supervisor API knows of its clients.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{AppId, ContainerId, ContainerState, ServiceName};

/// The variables that a new container gets in addition to its author's. None of them is part of the spec hash.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Introduction {
    /// Variables, with their values. Some are secret.
    pub variables: Vec<(String, String)>,
    /// Its access to the supervisor API, if it has one.
    pub access: Option<Access>,
}

impl Introduction {
    /// Returns a text that changes whenever the container must be created again to reach the supervisor API. It is no
    /// secret.
    #[must_use]
    pub fn mark(&self) -> Option<String> {
        self.access.as_ref().map(Access::mark)
    }
}

/// Shows only names, because values may be secret.
impl fmt::Debug for Introduction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.variables.iter().map(|(name, _)| name).collect();
        f.debug_struct("Introduction").field("variables", &names).field("mark", &self.mark()).finish()
    }
}

/// How a service reaches the supervisor API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    pub address: IpAddr,
    pub port: u16,
    pub key: ApiKey,
}

impl Access {
    /// As [`Introduction::mark`].
    #[must_use]
    pub fn mark(&self) -> String {
        format!("{}:{}#{}", self.address, self.port, self.key.id)
    }
}

/// The key of a service for the supervisor API.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiKey {
    /// Tells keys apart, and is no secret.
    pub id: String,
    /// Secret: not in the `Debug` output.
    pub secret: String,
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiKey").field("id", &self.id).finish_non_exhaustive()
    }
}

/// The facts of the device that containers get.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct DeviceFacts {
    pub uuid: String,
    pub device_type: String,
    /// As balena writes it: `amd64`, `aarch64`, `armv7hf`, `i386`.
    pub architecture: String,
    /// The name and version of the operating system; empty if it is not known.
    pub os_version: String,
    /// The port of the supervisor API. `None`: the owner does not allow it.
    pub supervisor_port: Option<u16>,
    /// Whether the cloud may ask the supervisor API through its VPN.
    pub has_vpn: bool,
    /// The URL of the cloud's API, and the device's key for it. `None`: no cloud, or the owner does not allow it.
    pub cloud: Option<(String, String)>,
}

/// Without the key.
impl fmt::Debug for DeviceFacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceFacts").field("uuid", &self.uuid).finish_non_exhaustive()
    }
}

/// What the supervisor API knows of the containers. It is empty while no service asks for the API.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ApiView {
    /// Where it listens.
    pub doors: BTreeSet<Door>,
    /// Who may ask.
    pub clients: Vec<ApiClient>,
    /// All containers of the wanted apps.
    pub containers: Vec<ApiContainer>,
}

/// An address of the host that only the containers of one network reach.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Door {
    pub address: IpAddr,
    /// The address ranges of those who may connect.
    pub peers: Vec<String>,
}

impl Door {
    /// The one of services that have the network of the host.
    #[must_use]
    pub fn loopback() -> Self {
        Self { address: IpAddr::from([127, 0, 0, 1]), peers: vec!["127.0.0.0/8".to_owned()] }
    }
}

/// A service that has a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiClient {
    pub app: AppId,
    pub service: ServiceName,
    pub key: ApiKey,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiContainer {
    pub app: AppId,
    pub service: ServiceName,
    pub id: ContainerId,
    /// The image reference with which it was created.
    pub image: String,
    pub state: ContainerState,
    /// Seconds since 1970; 0 if it is not known.
    pub created: i64,
}

/// A way to end the run of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Power {
    Reboot,
    Off,
}

impl Power {
    /// The command's name.
    #[must_use]
    pub fn verb(self) -> &'static str {
        match self {
            Self::Reboot => "reboot",
            Self::Off => "shutdown",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_debug_output_has_a_key() {
        let key = ApiKey { id: "a1".into(), secret: "hunter2".into() };
        let access = Some(Access { address: IpAddr::from([10, 0, 0, 1]), port: 1, key: key.clone() });
        let introduction = Introduction { variables: vec![("K".into(), "hunter2".into())], access };
        let facts = DeviceFacts { cloud: Some(("u".into(), "hunter2".into())), ..DeviceFacts::default() };
        assert!(!format!("{key:?} {introduction:?} {facts:?}").contains("hunter2"));
        assert_eq!(introduction.mark().as_deref(), Some("10.0.0.1:1#a1"));
    }
}

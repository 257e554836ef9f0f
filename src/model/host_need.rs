//! What of its host a service cannot start without.

use std::collections::BTreeSet;
use std::fmt;

use super::ServiceSpec;

/// A thing of the host that the engine looks for when it starts a container.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum HostNeed {
    /// A device node, by its path.
    Device(String),
    /// A kernel setting, by its name, e.g. `net.core.somaxconn`.
    Setting(String),
}

impl HostNeed {
    /// All needs of a service that the host can be asked for.
    ///
    /// Settings of one network interface are left out: a container has other interfaces than its host.
    #[must_use]
    pub fn of(spec: &ServiceSpec) -> BTreeSet<Self> {
        let disks = &spec.limits.disks;
        let limited =
            [&disks.read_bytes, &disks.write_bytes, &disks.read_operations, &disks.write_operations];
        let limited = limited.into_iter().flat_map(|rates| rates.keys().cloned());
        // A privileged container has all devices of the host, and the engine looks for none of them.
        let devices =
            spec.devices.iter().filter(|_| !spec.is_privileged).map(|device| device.host_path.clone());
        let is_common = |name: &&String| {
            let is_of_interface = name.contains(".conf.") || name.contains(".neigh.");
            !is_of_interface || name.contains(".all.") || name.contains(".default.")
        };
        let settings = spec.isolation.sysctls.keys().filter(is_common).cloned().map(Self::Setting);
        devices.chain(limited).map(Self::Device).chain(settings).collect()
    }
}

impl fmt::Display for HostNeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device(path) => write!(f, "device {path}"),
            Self::Setting(name) => write!(f, "kernel setting {name}"),
        }
    }
}

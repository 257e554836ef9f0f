//! What a device is and how loaded it is, as a balena API shows it. A field is absent if the kernel does not report it.

use std::fmt;
use std::net::IpAddr;

/// What the device is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hardware {
    /// The version of the operating system in the form that a balena API compares, e.g. `12.0.0+debian`.
    pub os_version: Option<String>,
    /// `dev` or `prod`.
    pub os_variant: Option<String>,
    /// Those of its network interfaces, without loopback and the networks of containers.
    pub addresses: Vec<IpAddr>,
    /// In upper case.
    pub macs: Vec<String>,
    /// Whether its power supply has been too weak since the boot.
    pub is_undervolted: Option<bool>,
    /// How the cloud asks the supervisor API through its VPN. `None`: not at all.
    pub supervisor: Option<ReportedAccess>,
}

/// What the cloud needs to ask the supervisor API.
#[derive(Clone, PartialEq, Eq)]
pub struct ReportedAccess {
    pub port: u16,
    /// Secret.
    pub key: String,
}

/// Without the key.
impl fmt::Debug for ReportedAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReportedAccess").field("port", &self.port).finish_non_exhaustive()
    }
}

/// How loaded the device is: what balena calls its hardware metrics.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Load {
    /// Percent of all processors, since the sample before.
    pub cpu_usage: Option<u64>,
    /// Degrees Celsius.
    pub cpu_temp: Option<i64>,
    /// The serial number of the board, in lower case.
    pub cpu_id: Option<String>,
    /// MiB that programs use.
    pub memory_usage: Option<u64>,
    /// MiB.
    pub memory_total: Option<u64>,
    /// MiB of the disk that holds the engine's images and volumes.
    pub storage_usage: Option<u64>,
    pub storage_total: Option<u64>,
    /// The device of that disk, e.g. `/dev/mmcblk0p2`.
    pub storage_block_device: Option<String>,
}

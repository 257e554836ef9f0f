//! The lines of an export, which are the lines of an import, too: fleets, releases, devices and variables as JSON.
//!
//! docs/moving.md, "The lines of an export", describes them for people and for other programs.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Composition;
use crate::model::ReleaseStatus;

/// The version of the lines. Fields may be added within one.
pub const EXPORT_VERSION: u32 = 1;

/// Maximum number of bytes of the file of an import. 100,000 devices took 450 MB while they were imported, and the unit of the server has 512.
pub const LARGEST_IMPORT: usize = 16 << 20;

/// The first line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExportHead {
    /// [`EXPORT_VERSION`].
    pub cotter_export: u32,
    /// Whether the values of secret variables are in it.
    #[serde(default)]
    pub secrets: bool,
}

/// Every other line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum ExportLine {
    Fleet(ExportedFleet),
    Release(Box<ExportedRelease>),
    Device(ExportedDevice),
    Variable(ExportedVariable),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExportedFleet {
    pub name: String,
    /// Absent in an import: a new one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uuid: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registry: Option<String>,
    /// `false`: the fleet is pinned to its target.
    #[serde(default = "super::yes")]
    pub is_tracking_latest: bool,
    /// The commit of the release for devices that are not pinned. If it is absent in an import, a fleet that tracks latest
    /// has its latest release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Services that are in no release any more, and may have variables.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub former_services: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExportedRelease {
    /// Name of its fleet.
    pub fleet: String,
    pub commit: String,
    #[serde(default = "super::success")]
    pub status: ReleaseStatus,
    #[serde(default = "super::yes")]
    pub is_final: bool,
    #[serde(default = "super::yes")]
    pub is_passing_tests: bool,
    #[serde(default)]
    pub is_invalidated: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_timestamp: Option<Timestamp>,
    /// Image by service, each with its digest.
    pub images: BTreeMap<String, String>,
    pub composition: Composition,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build_log: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExportedDevice {
    pub uuid: String,
    pub name: String,
    pub device_type: String,
    /// Name of its fleet.
    pub fleet: String,
    /// The commit that it is pinned to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pin: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
}

/// A variable of a fleet or of a device.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExportedVariable {
    /// Name of the fleet that has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fleet: Option<String>,
    /// Uuid of the device that has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// The service that it is for; absent: all services.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    pub name: String,
    /// Absent if it is secret, unless the export has secrets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub secret: bool,
}

/// Does not show the value, because it may be secret.
impl fmt::Debug for ExportedVariable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { fleet, device, service, name, value: _, secret } = self;
        f.debug_struct("ExportedVariable")
            .field("fleet", fleet)
            .field("device", device)
            .field("service", service)
            .field("name", name)
            .field("secret", secret)
            .finish_non_exhaustive()
    }
}

/// What an import did, or with `dry_run` would do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportView {
    pub dry_run: bool,
    pub created: ImportCounts,
    /// Things that were on the server already, exactly so.
    pub unchanged: ImportCounts,
    /// Secret variables that the file names without a value, and the server does not have. They were not created.
    pub without_value: Vec<String>,
}

/// Numbers of things.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportCounts {
    pub fleets: usize,
    pub releases: usize,
    pub devices: usize,
    pub variables: usize,
}

//! The body of `PATCH /device/v3/state`, field by field (docs/dev/protocol.md, "Reports").

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::account::Account;

/// The complete body: exactly one device, by uuid.
pub type ReportBody = BTreeMap<String, DeviceReport>;

/// The state of a device. Every field is optional: the cloud keeps the value of an absent one.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct DeviceReport {
    /// At most 50 characters; longer is cut by the API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// Complete or absent: the cloud treats an image that a present `apps` does not have as deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub apps: Option<BTreeMap<String, AppReport>>,
    /// For our own fleet server only.
    #[serde(default, rename = "cotter", skip_serializing_if = "Option::is_none")]
    pub account: Option<Account>,
    /// What the device is and how loaded it is, by the names of the API: `os_version`, `cpu_temp`, ….
    #[serde(flatten)]
    pub device: BTreeMap<String, Value>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct AppReport {
    /// The commit of the release that runs completely. The cloud shows it as running.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release_uuid: Option<String>,
    #[serde(default)]
    pub releases: BTreeMap<String, ReleaseReport>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ReleaseReport {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update_status: Option<UpdateStatus>,
    #[serde(default)]
    pub services: BTreeMap<String, ServiceReport>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UpdateStatus {
    Rejected,
    Aborted,
    Downloading,
    Downloaded,
    #[serde(rename = "applying changes")]
    ApplyingChanges,
    Done,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceReport {
    pub image: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// Whole percent. Written even when null, because an omitted one keeps its old value.
    #[serde(default)]
    pub download_progress: Option<i64>,
}

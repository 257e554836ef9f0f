//! The JSON of requests for all devices that match.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PinMany {
    pub filter: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fleet: Option<String>,
    pub release: String,
    #[serde(default)]
    pub dry_run: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrackMany {
    pub filter: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fleet: Option<String>,
    #[serde(default)]
    pub dry_run: bool,
}

/// Which devices to delete: those that match every field. At least a filter or a key is required.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DeleteMany {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fleet: Option<String>,
    /// Name or id of the provisioning key that they registered with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provisioning_key: Option<String>,
    /// The expected number of devices. If another number matches, none is deleted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected: Option<usize>,
    pub dry_run: bool,
}

/// Sends devices to another cloud, or cancels that: those that are named, or all that match.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MigrateMany {
    /// Names or uuids, or the first 4 or more digits of uuids. Not together with a filter.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fleet: Option<String>,
    /// Where to; absent: cancels the order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order: Option<MigrationOrder>,
    pub dry_run: bool,
}

/// The order to move to another cloud.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MigrationOrder {
    /// Base URL of its API.
    pub to: String,
    /// The fleet there: its number, or at a Cotter fleet server its name.
    pub fleet: String,
    /// A provisioning key of that fleet. No answer contains it.
    pub key: String,
}

/// A device's move to another cloud.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MigrationView {
    pub to: String,
    /// The fleet there.
    pub fleet: String,
    pub ordered: jiff::Timestamp,
    /// `ordered`, `failing` (and the device stays), or `moved`.
    pub state: String,
    /// Why the device is not there yet, as it reports; empty if it says nothing.
    pub why: String,
}

/// Tags of all devices that match.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TagMany {
    pub filter: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fleet: Option<String>,
    #[serde(default)]
    pub set: BTreeMap<String, String>,
    #[serde(default)]
    pub remove: Vec<String>,
    #[serde(default)]
    pub dry_run: bool,
}

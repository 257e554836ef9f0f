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

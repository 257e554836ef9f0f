//! The JSON of provisioning keys.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// What is said of a new provisioning key. All may be left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CreateKey {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// How long it can register devices, "30d"; from 1 minute to 10 years.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_in: Option<String>,
    /// Maximum number of devices that it can register in total.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uses: Option<u64>,
    /// Maximum number of devices that it can register per minute; 60 if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_minute: Option<u32>,
}

/// A new provisioning key, which is shown only now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyCreated {
    pub fleet: String,
    pub provisioning_key: String,
    pub details: KeyView,
}

/// A provisioning key, without the key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyView {
    /// The first 12 hex digits of its SHA-256.
    pub id: String,
    pub fleet: String,
    pub name: Option<String>,
    /// `active`, `expired`, `used_up` or `revoked`.
    pub state: String,
    /// How many devices it has registered, and how many it may; null: any number.
    pub uses: u64,
    pub most_uses: Option<u64>,
    pub per_minute: u32,
    /// Devices that registered with it and still exist.
    pub devices: usize,
    pub created: Timestamp,
    pub expires: Option<Timestamp>,
    pub revoked: Option<Timestamp>,
    pub last_used: Option<Timestamp>,
}

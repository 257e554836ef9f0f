//! The body of `GET /device/v3/:uuid/state`, field by field (docs/dev/protocol.md, "Target state").

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

/// The complete body: exactly one device, by uuid.
pub type StateBody = BTreeMap<String, DeviceState>;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeviceState {
    pub name: String,
    /// Device configuration; values are strings.
    #[serde(default)]
    pub config: BTreeMap<String, String>,
    /// App uuid to [`AppState`]; kept raw, so that one invalid app does not affect the others.
    #[serde(default)]
    pub apps: BTreeMap<String, Value>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AppState {
    #[serde(deserialize_with = "number")]
    pub id: u64,
    pub name: String,
    #[serde(default = "fleet_class")]
    pub class: String,
    #[serde(default)]
    pub is_host: bool,
    /// Commit to release. Absent when the fleet has no target release; at most one is ever sent.
    #[serde(default, deserialize_with = "null_is_absent", skip_serializing_if = "BTreeMap::is_empty")]
    pub releases: BTreeMap<String, ReleaseState>,
}

#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct ReleaseState {
    #[serde(deserialize_with = "number")]
    pub id: u64,
    #[serde(default, deserialize_with = "null_is_absent")]
    pub services: BTreeMap<String, ServiceState>,
    /// Compose configs of the release's networks and volumes, as stored.
    #[serde(default, deserialize_with = "null_is_absent")]
    pub networks: BTreeMap<String, Value>,
    #[serde(default, deserialize_with = "null_is_absent")]
    pub volumes: BTreeMap<String, Value>,
}

/// Prints only names, because values may be secret.
impl fmt::Debug for ReleaseState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let services: Vec<_> = self.services.keys().collect();
        f.debug_struct("ReleaseState")
            .field("id", &self.id)
            .field("services", &services)
            .finish_non_exhaustive()
    }
}

#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceState {
    #[serde(deserialize_with = "number")]
    pub id: u64,
    #[serde(deserialize_with = "number")]
    pub image_id: u64,
    pub image: String,
    /// Not sent by the API; absent is true.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub running: bool,
    #[serde(default, deserialize_with = "null_is_absent")]
    pub environment: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "null_is_absent")]
    pub labels: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contract: Option<Value>,
    /// The compose service without `build`; its `environment` and `labels` are not merged into ours.
    #[serde(default, deserialize_with = "null_is_absent", skip_serializing_if = "Map::is_empty")]
    pub composition: Map<String, Value>,
}

impl fmt::Debug for ServiceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceState")
            .field("id", &self.id)
            .field("image", &self.image)
            .finish_non_exhaustive()
    }
}

fn fleet_class() -> String {
    "fleet".to_owned()
}

fn yes() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's skip_serializing_if wants a reference")]
fn is_yes(value: &bool) -> bool {
    *value
}

/// Reads `null` as absent, as in compose files.
fn null_is_absent<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Ids are numbers, or strings of digits (docs/dev/protocol.md, "Target state").
fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        Number(u64),
        Text(String),
    }
    match Either::deserialize(deserializer) {
        Ok(Either::Number(n)) => Ok(n),
        Ok(Either::Text(text)) => text.parse().map_err(|_| not_an_id()),
        Err(_) => Err(not_an_id()),
    }
}

fn not_an_id<E: serde::de::Error>() -> E {
    E::custom("an id must be a whole number of 0 or more")
}

//! The identity of this device in its cloud.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{DeviceUuid, Moves};

/// Made once on the device, and then never changed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub uuid: DeviceUuid,
    /// Secret: everyone who has it can act as this device. Never logged, and not in the `Debug` output.
    pub device_key: String,
    /// Where the device is registered; `None` until a cloud has accepted it.
    pub registered: Option<Registration>,
    /// Its moves to other clouds.
    #[serde(default, skip_serializing_if = "Moves::is_none")]
    pub moves: Moves,
}

/// A registration of the device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registration {
    /// Base URL of the API that accepted it.
    pub endpoint: String,
    /// The cloud's numeric id, if it sent one.
    pub device_id: Option<u64>,
}

impl Identity {
    /// Returns who the device is, and its cloud, if the settings have this endpoint.
    #[must_use]
    pub fn in_force(&self, settings: &str) -> (Self, String) {
        let Some(moved) = self.moves.in_force(settings) else { return (self.clone(), settings.to_owned()) };
        let registered = Some(Registration { endpoint: moved.to.clone(), device_id: None });
        let there = Self { device_key: moved.device_key.clone(), registered, ..self.clone() };
        (there, moved.to.clone())
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("uuid", &self.uuid)
            .field("device_key", &"(secret)")
            .field("registered", &self.registered)
            .field("moves", &self.moves)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_leaves_the_key_out() {
        let uuid = DeviceUuid::parse("ab".repeat(16)).unwrap();
        let identity =
            Identity { uuid, device_key: "hunter2".into(), registered: None, moves: Moves::default() };
        assert!(!format!("{identity:?} {identity:#?}").contains("hunter2"));
    }
}

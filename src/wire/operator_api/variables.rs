//! The JSON of variables.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Variables of a fleet or of a device to set and to remove: all of them, or none.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ChangeVariables {
    /// Only for this service; without it, for all services.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    pub set: BTreeMap<String, String>,
    /// Whether those that are set are secret. One that is secret stays it until it is removed.
    pub secret: bool,
    pub remove: Vec<String>,
    pub dry_run: bool,
}

/// Does not show values, because they may be secret.
impl fmt::Debug for ChangeVariables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { service, set, secret, remove, dry_run } = self;
        f.debug_struct("ChangeVariables")
            .field("service", service)
            .field("set", &set.keys())
            .field("secret", secret)
            .field("remove", remove)
            .field("dry_run", dry_run)
            .finish()
    }
}

/// A variable, and where it is set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VariableView {
    pub name: String,
    /// Absent if it is secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    pub secret: bool,
    /// Name of the fleet that has it, or that the device with it is in.
    pub fleet: String,
    /// Uuid of the device that has it; absent if the fleet has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Name of the device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_name: Option<String>,
    /// The service that it is for; absent: all services.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// In the list of a device: whether another row of the list has the same name and wins for every service that this one
    /// is for.
    pub overridden: bool,
}

/// What a change of variables did, or with `dry_run` would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VariablesChanged {
    pub dry_run: bool,
    /// How many devices get another environment for a service of their target, and restart it.
    pub devices: usize,
    /// These devices, in a dry run.
    #[serde(default)]
    pub restarts: Vec<RestartView>,
}

/// The services of a device that get another environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestartView {
    pub uuid: String,
    pub name: String,
    pub services: Vec<String>,
}

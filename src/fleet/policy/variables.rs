//! The variables of fleets and devices, and which of them a service of a device gets.
//!
//! A variable is set at one of four levels. Where several have the same name, the lowest row that has it wins:
//!
//! | level | reaches |
//! | --- | --- |
//! | fleet | every service of every device of the fleet |
//! | service of a fleet | this service on every device of the fleet |
//! | device | every service of the device |
//! | service of a device | this service of the device |

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use imbl::OrdMap;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::model::{DeviceUuid, ServiceName};

/// The fleet, by number, or the device that has variables.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum VariableHolder {
    Fleet(u64),
    Device(DeviceUuid),
}

/// The value of a variable. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Variable {
    pub value: String,
    /// Only devices get the value of a secret variable.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_secret: bool,
}

impl fmt::Debug for Variable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Variable").field("is_secret", &self.is_secret).finish_non_exhaustive()
    }
}

/// Variables by name.
pub type VariableMap = BTreeMap<String, Variable>;

/// All variables of a fleet or of a device: one record.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Variables {
    /// Those of all services.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub all: VariableMap,
    /// Those of one service. No map is empty.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub services: BTreeMap<ServiceName, VariableMap>,
    /// Differs after each change. It tells clients that a secret value has changed without telling anything about it. Records
    /// of older versions have 0.
    pub revision: u64,
}

/// Identifies equal variables: the first 16 bytes of a SHA-256.
pub type VariableDigest = [u8; 16];

impl Variables {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.all.is_empty() && self.services.is_empty()
    }

    /// Returns the variables of a service, or those of all services.
    #[must_use]
    pub fn of(&self, service: Option<&ServiceName>) -> Option<&VariableMap> {
        match service {
            Some(service) => self.services.get(service),
            None => Some(&self.all),
        }
    }

    /// Returns every variable, with its service if it is not for all of them.
    pub fn iter(&self) -> impl Iterator<Item = (Option<&ServiceName>, &String, &Variable)> {
        let of_services = self.services.iter().flat_map(|(service, variables)| {
            variables.iter().map(move |(name, variable)| (Some(service), name, variable))
        });
        self.all.iter().map(|(name, variable)| (None, name, variable)).chain(of_services)
    }

    /// Every text is preceded by its length, so that no two different sets give the same bytes.
    fn digest(&self) -> VariableDigest {
        let mut hash = Sha256::new();
        let mut add = |text: &str| {
            hash.update(u64::try_from(text.len()).unwrap_or(u64::MAX).to_le_bytes());
            hash.update(text.as_bytes());
        };
        for (service, name, Variable { value, is_secret: _ }) in self.iter() {
            // No service has the empty name.
            add(service.map_or("", ServiceName::as_str));
            add(name);
            add(value);
        }
        let mut digest = VariableDigest::default();
        digest.copy_from_slice(&hash.finalize()[..16]);
        digest
    }
}

/// The variables of a holder.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) variables: Variables,
    digest: VariableDigest,
}

/// All variables, by holder. A holder without variables is not in it.
#[derive(Debug, Clone, Default)]
pub(super) struct AllVariables {
    pub(super) by_holder: OrdMap<VariableHolder, Arc<Held>>,
}

impl AllVariables {
    pub(super) fn put(&mut self, holder: VariableHolder, variables: Variables) {
        if variables.is_empty() {
            self.drop(&holder);
        } else {
            let digest = variables.digest();
            self.by_holder.insert(holder, Arc::new(Held { variables, digest }));
        }
    }

    pub(super) fn drop(&mut self, holder: &VariableHolder) {
        self.by_holder.remove(holder);
    }

    pub(super) fn held(&self, holder: &VariableHolder) -> Option<&Held> {
        self.by_holder.get(holder).map(AsRef::as_ref)
    }
}

/// The variables that reach one device.
#[derive(Debug, Clone, Copy)]
pub struct VariableLevels<'a> {
    pub(super) fleet: Option<&'a Held>,
    pub(super) device: Option<&'a Held>,
}

impl<'a> VariableLevels<'a> {
    /// Identifies the variables of the fleet; `None` if it has none.
    #[must_use]
    pub fn of_fleet(&self) -> Option<VariableDigest> {
        self.fleet.map(|held| held.digest)
    }

    /// Identifies the device's own variables; `None` if it has none.
    #[must_use]
    pub fn of_device(&self) -> Option<VariableDigest> {
        self.device.map(|held| held.digest)
    }

    /// Returns the maps that reach a service, the weakest first.
    fn maps(self, service: &ServiceName) -> impl DoubleEndedIterator<Item = &'a VariableMap> {
        let holders = [self.fleet, self.device].into_iter().flatten();
        holders.flat_map(move |Held { variables, .. }| {
            [Some(&variables.all), variables.services.get(service)].into_iter().flatten()
        })
    }

    /// Returns the environment of a service.
    #[must_use]
    pub fn environment(self, service: &ServiceName) -> BTreeMap<String, String> {
        let all = self.maps(service).flatten();
        all.map(|(name, variable)| (name.clone(), variable.value.clone())).collect()
    }

    /// Returns the value that a service gets.
    #[must_use]
    pub fn value(self, service: &ServiceName, name: &str) -> Option<&'a str> {
        self.maps(service).rev().find_map(|map| map.get(name)).map(|variable| variable.value.as_str())
    }

    /// Returns whether the value that a service gets is that of a secret variable.
    #[must_use]
    pub fn is_secret(self, service: &ServiceName, name: &str) -> bool {
        self.maps(service).rev().find_map(|map| map.get(name)).is_some_and(|variable| variable.is_secret)
    }

    /// Returns the names of all variables that reach a service.
    #[must_use]
    pub fn names(self, service: &ServiceName) -> BTreeSet<&'a str> {
        self.maps(service).flat_map(BTreeMap::keys).map(String::as_str).collect()
    }
}

//! The settings and credentials with which a device joins a cloud.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::{DeviceUuid, FleetRef};

/// How a device joins a cloud.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enrolment {
    /// Base URL of the API.
    pub endpoint: String,
    pub admission: Admission,
    pub device_type: Option<String>,
    pub device_name: Option<String>,
    /// A registry that accepts the device's key.
    pub registry: Option<String>,
    pub poll_interval: Option<Duration>,
    /// Tags that a Cotter fleet server gives the device when it registers.
    pub tags: BTreeMap<String, String>,
    /// The certificate of the authority that signed the cloud's, as PEM.
    pub authority: Option<String>,
}

/// The credentials with which a device joins.
#[derive(Clone, PartialEq, Eq)]
pub enum Admission {
    /// The cloud has registered this device already.
    Known { uuid: DeviceUuid, key: String },
    /// It registers with a key of the fleet.
    Register { fleet: FleetRef, key: String },
}

impl fmt::Debug for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Known { uuid, .. } => f.debug_struct("Known").field("uuid", uuid).finish_non_exhaustive(),
            Self::Register { fleet, .. } => {
                f.debug_struct("Register").field("fleet", fleet).finish_non_exhaustive()
            }
        }
    }
}

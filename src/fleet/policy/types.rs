//! The records of the fleet server, as they are stored.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Bar, ProvisioningKey};
use crate::model::{AppId, Commit, DeviceUuid, ImageRef, ReleaseStatus, ServiceName};
use crate::wire::report_v3::UpdateStatus;

/// SHA-256 of a key, as 64 hex digits. Keys themselves are never stored.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeyHash(pub String);

impl KeyHash {
    /// The first 12 digits: enough to name a key, and of no use to whoever wants to guess it.
    #[must_use]
    pub fn id(&self) -> &str {
        self.0.get(..12).unwrap_or(&self.0)
    }
}

/// A set of devices that are meant to run the same app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fleet {
    pub number: u64,
    pub uuid: AppId,
    pub name: String,
    /// Whether release events move `target`. A fleet pin is `false`.
    pub is_tracking_latest: bool,
    /// Number of the release that devices without a pin of their own get.
    pub target: Option<u64>,
    pub created: Timestamp,
    /// Numbers of the services ever released, so that they stay the same over releases.
    pub services: BTreeMap<ServiceName, u64>,
}

/// A device that has registered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    pub number: u64,
    pub uuid: DeviceUuid,
    pub name: String,
    pub device_type: String,
    /// Number of its fleet.
    pub fleet: u64,
    pub key: KeyHash,
    /// Number of the release it is pinned to.
    pub pin: Option<u64>,
    pub tags: BTreeMap<String, String>,
    pub created: Timestamp,
    pub reported: Reported,
    /// The provisioning key that it registered with. Records of older versions do not say it.
    #[serde(default)]
    pub provisioned_by: Option<KeyHash>,
}

/// What a device said of itself, merged over its reports.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Reported {
    /// When its last report that changed something came.
    pub at: Option<Timestamp>,
    /// The plain fields, by their wire name (`os_version`, `cpu_temp`, ...).
    pub fields: BTreeMap<String, Value>,
    /// Number of the release that it says it runs whole. Kept when the device moves.
    pub running: Option<u64>,
    pub update_status: Option<UpdateStatus>,
    pub services: Vec<ReportedService>,
}

/// One service of one release, as a device reports it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportedService {
    /// Number of the release.
    pub release: u64,
    pub service: ServiceName,
    /// One of the words of the wire; others are not stored.
    pub status: Option<String>,
    /// Percent.
    pub progress: Option<i64>,
}

/// What a fleet can run. Its content never changes; its flags do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    pub number: u64,
    /// Number of its fleet.
    pub fleet: u64,
    pub commit: Commit,
    pub status: ReleaseStatus,
    /// A release that is not final is a draft.
    pub is_final: bool,
    pub is_invalidated: bool,
    pub is_passing_tests: bool,
    /// When its build began; "latest" is by this.
    pub start_timestamp: Timestamp,
    pub content: Arc<Content>,
}

impl Release {
    /// Whether a fleet that tracks latest may move to it.
    #[must_use]
    pub fn is_trackable(&self) -> bool {
        self.status == ReleaseStatus::Success
            && self.is_final
            && !self.is_invalidated
            && self.is_passing_tests
    }
}

/// The services, networks and volumes of a release.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    pub services: BTreeMap<ServiceName, Image>,
    /// Compose configs, as the author wrote them.
    pub networks: BTreeMap<String, Value>,
    pub volumes: BTreeMap<String, Value>,
}

/// One service of a release: its image and its compose service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// Number of the service; the same over all releases of the fleet.
    pub service: u64,
    /// Number of the image; the same in releases that share the image of a service.
    pub number: u64,
    /// Exact: with its digest.
    pub image: ImageRef,
    /// The compose service without `build`.
    pub composition: Map<String, Value>,
}

/// The last number given, by noun. Numbers are never used twice.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    pub fleet: u64,
    pub device: u64,
    pub release: u64,
    pub service: u64,
    pub image: u64,
}

impl Change {
    /// This device as it will be, if this is the change that says so.
    #[must_use]
    pub fn device(&self, uuid: &DeviceUuid) -> Option<&Device> {
        if let Self::PutDevice(device) = self {
            Some(device).filter(|device| device.uuid == *uuid)
        } else {
            None
        }
    }
}

/// One record that an act would write or remove.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    Counters(Counters),
    PutFleet(Fleet),
    PutDevice(Device),
    PutRelease(Release),
    PutKey(ProvisioningKey),
    /// The device goes. Its uuid and its key are barred by a [`Change::PutBar`] beside this.
    DropDevice(DeviceUuid),
    DropRelease(u64),
    /// A device key that no device may use again. Only older versions wrote it, at a deletion.
    RetireKey(KeyHash),
    PutBar(Bar),
    /// The uuid and the key of this deleted device may be used again.
    DropBar(DeviceUuid),
}

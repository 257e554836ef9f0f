//! The stored records of the fleet server, and the changes of records.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Compact, PastRelease, PinnedTo, VariableHolder, Variables};
use crate::fleet::access::{AccessChange, Entry};
use crate::fleet::key_hash::KeyHash;
use crate::fleet::repeats::Repeat;
use crate::fleet::rollout::{Rollout, RolloutExposure};
use crate::fleet::webhook::WebhookChange;
use crate::model::{AppId, Commit, DeviceUuid, ImageRef, ReleaseStatus, ServiceName};
use crate::wire::account::Account;
use crate::wire::report_v3::UpdateStatus;

/// A set of devices that should run the same app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fleet {
    pub number: u64,
    pub uuid: AppId,
    pub name: String,
    /// Whether release events change `target`. `false` while the fleet is pinned.
    pub is_tracking_latest: bool,
    /// Number of the release for devices that are not pinned.
    pub target: Option<u64>,
    pub created: Timestamp,
    /// The number of each service that was ever released, so that it is the same in all releases.
    pub services: BTreeMap<ServiceName, u64>,
    /// Where images of its services are pushed to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registry: Option<String>,
    /// Who pinned it: read it with [`Fleet::pinned`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pinned: Option<PinnedTo>,
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
    /// Number of the release that it is pinned to.
    pub pin: Option<u64>,
    pub tags: BTreeMap<String, String>,
    pub created: Timestamp,
    /// The provisioning key with which it registered. Records of older versions do not have it.
    #[serde(default)]
    pub provisioned_by: Option<KeyHash>,
    /// Where it is to move, until that is cancelled: its target says so for as long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub departure: Option<Departure>,
    /// Who pinned it: read it with [`Device::pinned`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pinned: Option<PinnedTo>,
}

/// The order to move to another cloud.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Departure {
    /// Base URL of its API.
    pub to: String,
    /// The fleet there.
    pub fleet: String,
    /// A provisioning key of that fleet. Only the device gets it.
    pub key: String,
    pub ordered: Timestamp,
}

impl fmt::Debug for Departure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { to, fleet, key: _, ordered } = self;
        f.debug_struct("Departure")
            .field("to", to)
            .field("fleet", fleet)
            .field("ordered", ordered)
            .finish_non_exhaustive()
    }
}

/// The merged reports of a device. A record of its own, because devices report often, and only operators change a device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Reported {
    /// The time of the last report that changed something.
    pub at: Option<Timestamp>,
    /// Plain fields by their names on the wire (`os_version`, `cpu_temp`, ...).
    pub fields: BTreeMap<String, Value>,
    /// Number of the release that it reports as running completely. Kept if the device moves.
    pub running: Option<u64>,
    pub update_status: Option<UpdateStatus>,
    /// Number of the release that `update_status` is about.
    pub update_of: Option<u64>,
    pub services: Vec<ReportedService>,
    /// What it waits for, and how services failed. Only Cotter's own agent reports it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub account: Option<Arc<Account>>,
    /// The last releases that it accepted or rejected, oldest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<PastRelease>,
}

impl Reported {
    /// Returns the reports without these releases, which are deleted; `None` if they name none of them.
    pub(super) fn without_releases(&self, gone: &BTreeSet<u64>) -> Option<Self> {
        let names_one = self.running.is_some_and(|running| gone.contains(&running))
            || self.services.iter().any(|service| gone.contains(&service.release))
            || self.history.iter().any(|past| gone.contains(&past.release));
        names_one.then(|| {
            let mut reported = self.clone();
            reported.running = reported.running.filter(|running| !gone.contains(running));
            reported.services.retain(|service| !gone.contains(&service.release));
            reported.history.retain(|past| !gone.contains(&past.release));
            reported
        })
    }
}

/// A device's report of one service of one release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportedService {
    /// Number of the release.
    pub release: u64,
    pub service: ServiceName,
    /// One of the known words of the protocol; others are not stored.
    pub status: Option<String>,
    /// Percent.
    pub progress: Option<i64>,
}

/// A release that a fleet can run. Its content never changes; its flags do.
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
    /// When its build began. The latest release is the one with the greatest value.
    pub start_timestamp: Timestamp,
    pub content: Arc<Content>,
    /// The end of the log of its build, if that failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build_log: Option<Arc<str>>,
}

impl Release {
    /// Returns whether it can become the target of a fleet that tracks latest.
    #[must_use]
    pub fn is_trackable(&self) -> bool {
        self.status == ReleaseStatus::Success
            && self.is_final
            && !self.is_invalidated
            && self.is_passing_tests
    }

    /// Returns whether it is only the record of a build that failed. Such a release never becomes successful.
    #[must_use]
    pub fn has_no_images(&self) -> bool {
        self.content.services.is_empty()
    }
}

/// The services, networks and volumes of a release.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    pub services: BTreeMap<ServiceName, Image>,
    /// Compose configs, exactly as the author wrote them.
    pub networks: Compact<BTreeMap<String, Value>>,
    pub volumes: Compact<BTreeMap<String, Value>>,
}

/// One service of a release: its image and its compose service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// Number of the service; the same in all releases of the fleet.
    pub service: u64,
    /// Number of the image; the same in all releases in which the service has this image.
    pub number: u64,
    /// The image, with its digest.
    pub image: ImageRef,
    /// The compose service without `build`.
    pub composition: Compact<Map<String, Value>>,
}

/// The last number that was used, by kind of record. Numbers are never used twice.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    pub fleet: u64,
    pub device: u64,
    pub release: u64,
    pub service: u64,
    pub image: u64,
    /// Records of older versions do not have it.
    #[serde(default)]
    pub rollout: u64,
    /// Of messages to webhooks. Records of older versions do not have it.
    #[serde(default)]
    pub message: u64,
}

/// A key with which devices register in one fleet. Records of older versions have no fields after `created`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProvisioningKey {
    pub hash: KeyHash,
    pub fleet: u64,
    pub created: Timestamp,
    #[serde(default)]
    pub name: Option<String>,
    /// The moment from which it registers no more devices.
    #[serde(default)]
    pub expires: Option<Timestamp>,
    /// Maximum number of registrations in total; `None`: any number.
    #[serde(default)]
    pub most_uses: Option<u64>,
    /// How many devices it has registered.
    #[serde(default)]
    pub uses: u64,
    /// `None`: [`super::USUAL_PER_MINUTE`].
    #[serde(default)]
    pub per_minute: Option<u32>,
    #[serde(default)]
    pub revoked: Option<Timestamp>,
    #[serde(default)]
    pub last_used: Option<Timestamp>,
    /// The moment up to which past registrations have used up the rate. Each registration adds 60 s / rate. Registrations
    /// are refused while this is more than a minute ahead.
    #[serde(default)]
    pub rate_used_until: Option<Timestamp>,
}

/// Why a key can never register a device again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyEnd {
    Revoked(Timestamp),
    Expired(Timestamp),
    UsedUp(u64),
}

impl KeyEnd {
    /// Its name in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Revoked(_) => "revoked",
            Self::Expired(_) => "expired",
            Self::UsedUp(_) => "used_up",
        }
    }
}

impl fmt::Display for KeyEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Revoked(at) => write!(f, "was revoked at {at}"),
            Self::Expired(at) => write!(f, "expired at {at}"),
            Self::UsedUp(1) => write!(f, "has registered the one device that it may register"),
            Self::UsedUp(all) => write!(f, "has registered all {all} devices that it may register"),
        }
    }
}

/// A device that was deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bar {
    pub device: Device,
    /// When it was deleted.
    pub at: Timestamp,
}

/// All bars, by uuid and by key.
#[derive(Debug, Clone, Default)]
pub(super) struct Bars {
    by_uuid: OrdMap<DeviceUuid, Arc<Bar>>,
    keys: OrdSet<KeyHash>,
}

impl Bars {
    pub(super) fn put(&mut self, bar: Bar) {
        self.drop(&bar.device.uuid);
        self.keys.insert(bar.device.key.clone());
        self.by_uuid.insert(bar.device.uuid.clone(), Arc::new(bar));
    }

    pub(super) fn drop(&mut self, uuid: &DeviceUuid) {
        if let Some(bar) = self.by_uuid.remove(uuid) {
            self.keys.remove(&bar.device.key);
        }
    }

    pub(super) fn has_key(&self, key: &KeyHash) -> bool {
        self.keys.contains(key)
    }

    pub(super) fn of(&self, uuid: &DeviceUuid) -> Option<&Bar> {
        self.by_uuid.get(uuid).map(AsRef::as_ref)
    }

    pub(super) fn count(&self) -> usize {
        self.by_uuid.len()
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Bar> {
        self.by_uuid.values().map(AsRef::as_ref)
    }
}

/// One record that an act writes or removes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    Counters(Counters),
    PutFleet(Fleet),
    PutDevice(Device),
    /// The merged reports of this device.
    PutReports(DeviceUuid, Reported),
    PutRelease(Release),
    PutKey(ProvisioningKey),
    /// Deletes the device and its reports. A [`Change::PutBar`] in the same act bars its uuid and key.
    DropDevice(DeviceUuid),
    DropRelease(u64),
    DropKey(KeyHash),
    DropFleet(u64),
    /// A device key that no device may use again. Only older versions wrote it, when a device was deleted.
    RetireKey(KeyHash),
    PutBar(Bar),
    /// Allows the uuid and the key of this deleted device again.
    DropBar(DeviceUuid),
    /// A user or a token.
    Access(AccessChange),
    /// A record of the audit trail. It is on disk only.
    Audit(Box<Entry>),
    /// Removes a record of the audit trail.
    DropAudit(u64),
    /// A request that is not done again.
    PutRepeat(Box<Repeat>),
    /// A request that is forgotten, by its id.
    DropRepeat(String),
    /// All variables of this fleet or device. Without any, the record is removed. [`Change::DropFleet`] and
    /// [`Change::DropDevice`] remove it, too.
    PutVariables(VariableHolder, Variables),
    PutRollout(Box<Rollout>),
    DropRollout(u64),
    /// What a rollout has noted of a device.
    PutMember(DeviceUuid, RolloutExposure),
    /// A webhook, or a message that waits for its delivery.
    Webhook(WebhookChange),
}

//! Deleted devices: their uuids and keys stay barred until an operator allows them again.
//!
//! So a device that was stolen and then deleted cannot come back by itself, even where whoever has it
//! also has a provisioning key. What is kept of it is enough to put it back as it was.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Change, Device, KeyHash, Refusal, Reported, World};
use crate::model::{DeviceUuid, ReleaseStatus};

/// The most bars that are kept. Deleting is refused beyond it: to drop the oldest bar would let that device
/// come back unseen. 100,000 bars take about 60 MB of memory.
const MOST_BARS: usize = 100_000;

/// A device that was deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bar {
    /// As it was, without its reports.
    pub device: Device,
    /// When it was deleted.
    pub at: Timestamp,
}

/// The bars, by uuid and by key.
#[derive(Debug, Clone, Default)]
pub(super) struct Bars {
    by_uuid: BTreeMap<DeviceUuid, Bar>,
    keys: BTreeSet<KeyHash>,
}

impl Bars {
    pub(super) fn put(&mut self, bar: Bar) {
        self.drop(&bar.device.uuid);
        self.keys.insert(bar.device.key.clone());
        self.by_uuid.insert(bar.device.uuid.clone(), bar);
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
        self.by_uuid.get(uuid)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Bar> {
        self.by_uuid.values()
    }
}

impl World {
    /// Deletes devices and bars their uuids and keys: all of them, or none. What runs on them is not touched.
    ///
    /// # Errors
    ///
    /// [`Refusal::TooManyBars`].
    pub fn delete_devices(&self, devices: &[&Device], now: Timestamp) -> Result<Vec<Change>, Refusal> {
        let room = MOST_BARS.saturating_sub(self.bars.by_uuid.len());
        if devices.len() > room {
            return Err(Refusal::TooManyBars { most: MOST_BARS, room });
        }
        let gone = |device: &&Device| {
            let barred = Device { reported: Reported::default(), ..(*device).clone() };
            [Change::DropDevice(device.uuid.clone()), Change::PutBar(Bar { device: barred, at: now })]
        };
        Ok(devices.iter().flat_map(gone).collect())
    }

    /// Lets the uuid and the key of a deleted device register again.
    #[must_use]
    pub fn allow_device(&self, bar: &Bar) -> Vec<Change> {
        vec![Change::DropBar(bar.device.uuid.clone())]
    }

    /// Puts a deleted device back as it was: it is known again at its next poll, and needs no provisioning key.
    ///
    /// Its pin is left out when that release is gone or not successful any more, and its name gets a number
    /// when another device has it by now.
    ///
    /// # Errors
    ///
    /// [`Refusal::NoSuchFleet`].
    pub fn restore_device(&self, bar: &Bar) -> Result<Vec<Change>, Refusal> {
        let device = &bar.device;
        if !self.fleets.contains_key(&device.fleet) {
            return Err(Refusal::NoSuchFleet { given: device.fleet.to_string() });
        }
        let is_pinnable = |number: &u64| {
            let release = self.releases.get(number);
            release.is_some_and(|r| r.fleet == device.fleet && r.status == ReleaseStatus::Success)
        };
        let pin = device.pin.filter(is_pinnable);
        let restored = Device { pin, name: self.free_name(&device.name), ..device.clone() };
        Ok(vec![Change::DropBar(device.uuid.clone()), Change::PutDevice(restored)])
    }

    /// The deleted devices, by uuid.
    pub fn bars(&self) -> impl Iterator<Item = &Bar> {
        self.bars.all()
    }

    /// The bar of a uuid.
    #[must_use]
    pub fn bar(&self, uuid: &DeviceUuid) -> Option<&Bar> {
        self.bars.of(uuid)
    }
}

//! Acts on devices: register, rename, pin, track the fleet, tag, move.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;

use super::rules::{bad, check_device_name, check_device_type, check_range, check_tag, check_tag_count};
use super::{Change, Counters, Device, Fleet, KeyHash, Refusal, Release, Reported, World};
use crate::model::DeviceUuid;

/// The beginning of the keys of tags that a device may set itself.
pub const OWN_TAGS: &str = "device.";

/// Maximum number of tags that a device sets itself, so that it always has room for an operator's.
const MOST_OWN_TAGS: u64 = 50;

const OWN_ACCEPTS: &str = "a device itself sets only tags whose key begins with \"device.\"; others are an operator's: `cotter device tag`";

/// The values of a new device.
#[derive(Debug, Clone)]
pub struct NewDevice {
    pub uuid: DeviceUuid,
    /// The name that the device asks for.
    pub name: String,
    pub device_type: String,
    pub key: KeyHash,
    /// The provisioning key with which it registers. The key belongs to a fleet.
    pub by: KeyHash,
    /// The present time.
    pub created: Timestamp,
    /// The tags that it asks for.
    pub tags: BTreeMap<String, String>,
}

/// Tags to set and tags to remove.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tagging {
    pub set: BTreeMap<String, String>,
    pub remove: Vec<String>,
}

impl World {
    /// Registers a device, and returns its number. If another device has its name already, it gets that name with a number
    /// appended, because all devices from one image ask for the same name. A device that an import announced in this fleet
    /// takes its place, with the name, the pin and the tags that it has there.
    ///
    /// # Errors
    ///
    /// In this order: [`Refusal::NoSuchKey`], [`Refusal::KeyEnded`]; [`Refusal::Barred`] for the uuid or the key of
    /// a deleted device; [`Refusal::UuidTaken`], [`Refusal::KeyTaken`] (so is the key of a device that an older
    /// version deleted, as on openBalena); [`Refusal::BadText`] for its type, its name or a tag;
    /// [`Refusal::OutOfRange`] for too many tags; [`Refusal::TooManyRegistrations`].
    pub fn register(&self, new: NewDevice) -> Result<(u64, Vec<Change>), Refusal> {
        let key = self.keys.get(&new.by);
        let key = key.ok_or_else(|| Refusal::NoSuchKey { given: new.by.id().to_owned() })?;
        self.check_active(key, new.created)?;
        if self.bars.of(&new.uuid).is_some() || self.bars.has_key(&new.key) {
            return Err(Refusal::Barred { uuid: new.uuid });
        }
        let expected = self.devices.get(&new.uuid);
        if expected.is_some_and(|device| !device.key.is_of_expected() || device.fleet != key.fleet) {
            return Err(Refusal::UuidTaken { uuid: new.uuid });
        }
        if self.is_key_taken(&new.key) {
            return Err(Refusal::KeyTaken);
        }
        check_device_type(&new.device_type)?;
        check_device_name(&new.name)?;
        for (key, value) in &new.tags {
            check_tag(key, value)?;
        }
        check_tag_count(new.tags.len())?;
        let used = key.used(new.created)?;
        if let Some(expected) = expected {
            let device = Device {
                device_type: new.device_type,
                key: new.key,
                provisioned_by: Some(new.by),
                ..Device::clone(expected)
            };
            return Ok((device.number, vec![Change::PutKey(used), Change::PutDevice(device)]));
        }
        let number = self.counters.device + 1;
        let device = Device {
            number,
            uuid: new.uuid,
            name: self.free_name(&new.name),
            device_type: new.device_type,
            fleet: key.fleet,
            key: new.key,
            pin: None,
            tags: new.tags,
            created: new.created,
            provisioned_by: Some(new.by),
            departure: None,
            pinned: None,
        };
        let counters = Counters { device: number, ..self.counters };
        Ok((number, vec![Change::Counters(counters), Change::PutKey(used), Change::PutDevice(device)]))
    }

    /// Renames a device.
    ///
    /// # Errors
    ///
    /// [`Refusal::BadText`], [`Refusal::NameTaken`].
    pub fn rename_device(&self, device: &Device, name: String) -> Result<Vec<Change>, Refusal> {
        if device.name == name {
            return Ok(Vec::new());
        }
        check_device_name(&name)?;
        // Names are unique on the server, because they identify devices in commands. openBalena accepts duplicates.
        let other = self.devices_named(&name).next().map(|other| other.uuid.clone());
        if let Some(uuid) = other {
            return Err(Refusal::NameTaken { name, uuid });
        }
        Ok(put_if_changed(device, Device { name, ..device.clone() }))
    }

    /// Returns whether a device has this name.
    #[must_use]
    pub fn has_device_named(&self, name: &str) -> bool {
        self.devices_named(name).next().is_some()
    }

    /// Returns `name` if no device has it, or else `name` with a number appended that makes it unique: the lowest one, if
    /// none of the devices with lower numbers was deleted or renamed.
    pub(super) fn free_name(&self, name: &str) -> String {
        if !self.has_device_named(name) {
            return name.to_owned();
        }
        let short: String = name.chars().take(240).collect();
        let numbered = |n: u64| format!("{short}-{n}");
        let is_taken = |n: u64| self.has_device_named(&numbered(n));
        // All devices of one image ask for the same name, so do not look at each number: double it until one is free, and
        // then close in on the first free one between the last two.
        let (mut taken, mut free) = (1, 2);
        while is_taken(free) {
            (taken, free) = (free, free * 2);
        }
        while taken + 1 < free {
            let middle = taken.midpoint(free);
            if is_taken(middle) { taken = middle } else { free = middle }
        }
        numbered(free)
    }

    /// Pins devices to a release: all of them, or none if one of them may not be pinned.
    ///
    /// # Errors
    ///
    /// [`Refusal::OtherFleet`] for the first device of another fleet, [`Refusal::NotSuccessful`].
    pub fn pin_devices(&self, devices: &[&Device], release: &Release) -> Result<Vec<Change>, Refusal> {
        for device in devices {
            self.check_target(release.number, device.fleet)?;
        }
        Ok(set_pins(devices, Some(release.number)))
    }

    /// Unpins devices, so that they follow their fleets again.
    #[must_use]
    pub fn track_fleet(&self, devices: &[&Device]) -> Vec<Change> {
        set_pins(devices, None)
    }

    /// Sets and removes tags. Removing a tag that does not exist is not an error.
    ///
    /// # Errors
    ///
    /// [`Refusal::BadText`]; [`Refusal::OutOfRange`] for more tags than a device may have.
    pub fn tag_device(&self, device: &Device, tagging: &Tagging) -> Result<Vec<Change>, Refusal> {
        self.tag_devices(&[device], tagging)
    }

    /// Sets tags of a device that asks for it itself: only those whose key begins with [`OWN_TAGS`], because others decide
    /// what it runs, where operators pin or roll out by them.
    ///
    /// # Errors
    ///
    /// As [`World::tag_device`].
    pub fn tag_itself(&self, device: &Device, set: BTreeMap<String, String>) -> Result<Vec<Change>, Refusal> {
        if let Some(key) = set.keys().find(|key| !key.starts_with(OWN_TAGS)) {
            return Err(bad("tag key of a device's own", key, OWN_ACCEPTS));
        }
        let others = device.tags.keys().filter(|key| key.starts_with(OWN_TAGS) && !set.contains_key(*key));
        let own = u64::try_from(others.count() + set.len()).ok();
        check_range("number of tags that a device sets itself", own, 0..=MOST_OWN_TAGS)?;
        self.tag_device(device, &Tagging { set, remove: Vec::new() })
    }

    /// As [`World::tag_device`], for devices: all of them, or none if one of them may not have these tags.
    ///
    /// # Errors
    ///
    /// As [`World::tag_device`].
    pub fn tag_devices(&self, devices: &[&Device], tagging: &Tagging) -> Result<Vec<Change>, Refusal> {
        for (key, value) in &tagging.set {
            check_tag(key, value)?;
        }
        // Each is compared with each tag of each device.
        check_tag_count(tagging.remove.len())?;
        let mut changes = Vec::new();
        for device in devices {
            let mut changed = Device::clone(device);
            changed.tags.retain(|key, _| !tagging.remove.contains(key));
            changed.tags.extend(tagging.set.clone());
            if changed.tags.len() > device.tags.len() {
                check_tag_count(changed.tags.len())?;
            }
            changes.extend(put_if_changed(device, changed));
        }
        Ok(changes)
    }

    /// Moves a device to another fleet and unpins it. Tags, the running release and the variables of all its services stay;
    /// those of single services go, as on openBalena. Moving a device to its own fleet changes nothing, and keeps the pin.
    #[must_use]
    pub fn move_device(&self, device: &Device, fleet: &Fleet) -> Vec<Change> {
        if device.fleet == fleet.number {
            return Vec::new();
        }
        let before = self.reported(&device.uuid);
        // What it waits for and how services failed is of the old fleet, whose releases may have the same commits.
        let account = before.account.as_ref().map(|account| Arc::new(account.without_releases()));
        let reported = Reported { services: Vec::new(), update_status: None, account, ..before.clone() };
        let reports = (reported != *before).then(|| Change::PutReports(device.uuid.clone(), reported));
        let moved = Change::PutDevice(Device { fleet: fleet.number, pin: None, ..device.clone() });
        std::iter::once(moved).chain(reports).chain(self.variables_after_a_move(device)).collect()
    }

    /// Records the report of a device.
    #[must_use]
    pub fn report(&self, device: &Device, reported: Reported) -> Vec<Change> {
        if reported == *self.reported(&device.uuid) {
            return Vec::new();
        }
        vec![Change::PutReports(device.uuid.clone(), self.with_history(device, reported))]
    }
}

fn set_pins(devices: &[&Device], pin: Option<u64>) -> Vec<Change> {
    devices.iter().flat_map(|device| put_if_changed(device, Device { pin, ..(*device).clone() })).collect()
}

fn put_if_changed(before: &Device, after: Device) -> Vec<Change> {
    if after == *before { Vec::new() } else { vec![Change::PutDevice(after)] }
}

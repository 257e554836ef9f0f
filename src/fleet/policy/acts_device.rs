//! Acts on devices: register, pin, track the fleet, tag, move, delete.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::acts_fleet::check_name;
use super::filter::{TAG_KEY_ACCEPTS, is_tag_key};
use super::{Change, Counters, Device, Fleet, KeyHash, Refusal, Release, Reported, World};
use crate::model::DeviceUuid;
use crate::model::text::is_one_line;

/// What a new device needs from outside.
#[derive(Debug, Clone)]
pub struct NewDevice {
    pub uuid: DeviceUuid,
    pub name: String,
    pub device_type: String,
    /// Number of its fleet.
    pub fleet: u64,
    pub key: KeyHash,
    pub created: Timestamp,
}

/// Tags to set and tags to take away.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tagging {
    pub set: BTreeMap<String, String>,
    pub remove: Vec<String>,
}

impl World {
    /// Registers a device, and gives its number.
    ///
    /// # Errors
    ///
    /// [`Refusal::UuidTaken`], then [`Refusal::KeyTaken`] (the key of a deleted device
    /// stays taken, as on openBalena), [`Refusal::BadName`], [`Refusal::NoSuchFleet`].
    pub fn register(&self, new: NewDevice) -> Result<(u64, Vec<Change>), Refusal> {
        if self.devices.contains_key(&new.uuid) {
            return Err(Refusal::UuidTaken { uuid: new.uuid });
        }
        if self.is_key_taken(&new.key) {
            return Err(Refusal::KeyTaken);
        }
        check_name("device", &new.name)?;
        if !self.fleets.contains_key(&new.fleet) {
            return Err(Refusal::NoSuchFleet { given: new.fleet.to_string() });
        }
        let number = self.counters.device + 1;
        let device = Device {
            number,
            uuid: new.uuid,
            name: new.name,
            device_type: new.device_type,
            fleet: new.fleet,
            key: new.key,
            pin: None,
            tags: BTreeMap::new(),
            created: new.created,
            reported: Reported::default(),
        };
        let counters = Counters { device: number, ..self.counters };
        Ok((number, vec![Change::Counters(counters), Change::PutDevice(device)]))
    }

    /// Pins devices to a release: all of them, or none when one may not be.
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

    /// Takes the pin from devices, so that they follow their fleets again.
    #[must_use]
    pub fn track_fleet(&self, devices: &[&Device]) -> Vec<Change> {
        set_pins(devices, None)
    }

    /// Sets and removes tags. Removing a tag that is not there is no error.
    ///
    /// # Errors
    ///
    /// [`Refusal::BadTag`].
    pub fn tag_device(&self, device: &Device, tagging: &Tagging) -> Result<Vec<Change>, Refusal> {
        for (key, value) in &tagging.set {
            if !is_tag_key(key) {
                let accepts = TAG_KEY_ACCEPTS;
                return Err(Refusal::BadTag { part: "key", given: key.chars().take(64).collect(), accepts });
            }
            if value.len() > 255 || value.contains([',', '=', '!']) || !is_one_line(value) {
                let given = value.chars().take(64).collect();
                let accepts = "a value has at most 255 bytes and no ',', '=', '!', control character or invisible character";
                return Err(Refusal::BadTag { part: "value", given, accepts });
            }
        }
        let mut changed = device.clone();
        changed.tags.retain(|key, _| !tagging.remove.contains(key));
        changed.tags.extend(tagging.set.clone());
        Ok(put_if_changed(device, changed))
    }

    /// Moves a device to another fleet. Its pin goes, tags and the running release stay.
    /// Moving a device to the fleet it is in changes nothing, and keeps the pin.
    #[must_use]
    pub fn move_device(&self, device: &Device, fleet: &Fleet) -> Vec<Change> {
        if device.fleet == fleet.number {
            return Vec::new();
        }
        let reported = Reported { services: Vec::new(), update_status: None, ..device.reported.clone() };
        put_if_changed(device, Device { fleet: fleet.number, pin: None, reported, ..device.clone() })
    }

    /// Forgets a device. What runs on it is not touched; its key stays taken.
    #[must_use]
    pub fn delete_device(&self, device: &Device) -> Vec<Change> {
        vec![Change::DropDevice(device.uuid.clone()), Change::RetireKey(device.key.clone())]
    }

    /// Records what a device told.
    #[must_use]
    pub fn report(&self, device: &Device, reported: Reported) -> Vec<Change> {
        put_if_changed(device, Device { reported, ..device.clone() })
    }
}

fn set_pins(devices: &[&Device], pin: Option<u64>) -> Vec<Change> {
    devices.iter().flat_map(|device| put_if_changed(device, Device { pin, ..(*device).clone() })).collect()
}

fn put_if_changed(before: &Device, after: Device) -> Vec<Change> {
    if after == *before { Vec::new() } else { vec![Change::PutDevice(after)] }
}

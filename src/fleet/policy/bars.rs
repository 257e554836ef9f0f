//! Deleted devices. Their uuids and keys stay barred until an operator allows them again.
//!
//! So a stolen device that was deleted cannot register again, even if the thief also has a provisioning key. The record
//! that is kept is enough to restore the device.

use jiff::Timestamp;

use super::{Bar, Change, Device, Refusal, World};
use crate::model::{DeviceUuid, ReleaseStatus};

/// Maximum number of bars. If all are used, no device can be deleted, because dropping the oldest bar would let that device register
/// again unnoticed. 100,000 bars take about 60 MB of memory.
const MOST_BARS: usize = 100_000;

/// Once there are so many bars, no device may delete itself: the others are for operators. Otherwise devices that register and
/// leave again and again would use up all of them.
const MOST_BARS_OF_DEVICES: usize = MOST_BARS / 2;

impl World {
    /// Deletes a device at its own request, as [`World::delete_devices`] does.
    ///
    /// # Errors
    ///
    /// [`Refusal::TooManyBars`].
    pub fn delete_itself(&self, device: &Device, now: Timestamp) -> Result<Vec<Change>, Refusal> {
        if self.bars.count() >= MOST_BARS_OF_DEVICES {
            return Err(Refusal::TooManyBars { most: MOST_BARS_OF_DEVICES, room: 0 });
        }
        self.delete_devices(&[device], now)
    }

    /// Deletes devices and bars their uuids and keys: all of them, or none. The containers on them keep running.
    ///
    /// # Errors
    ///
    /// [`Refusal::TooManyBars`].
    pub fn delete_devices(&self, devices: &[&Device], now: Timestamp) -> Result<Vec<Change>, Refusal> {
        let room = MOST_BARS.saturating_sub(self.bars.count());
        if devices.len() > room {
            return Err(Refusal::TooManyBars { most: MOST_BARS, room });
        }
        let gone = |device: &&Device| {
            let bar = Bar { device: Device::clone(device), at: now };
            [Change::DropDevice(device.uuid.clone()), Change::PutBar(bar)]
        };
        Ok(devices.iter().flat_map(gone).collect())
    }

    /// Lets the uuid and the key of a deleted device register again.
    #[must_use]
    pub fn allow_device(&self, bar: &Bar) -> Vec<Change> {
        vec![Change::DropBar(bar.device.uuid.clone())]
    }

    /// Restores a deleted device, so that its next poll is accepted. It needs no provisioning key.
    ///
    /// Drops its pin if that release was deleted or is no longer successful, and appends a number to its name if another
    /// device has that name by now.
    ///
    /// # Errors
    ///
    /// [`Refusal::FleetGone`].
    pub fn restore_device(&self, bar: &Bar) -> Result<Vec<Change>, Refusal> {
        let device = &bar.device;
        if !self.fleets.contains_key(&device.fleet) {
            return Err(Refusal::FleetGone { uuid: device.uuid.clone() });
        }
        let is_pinnable = |number: &u64| {
            let release = self.releases.get(number);
            release.is_some_and(|r| r.fleet == device.fleet && r.status == ReleaseStatus::Success)
        };
        let pin = device.pin.filter(is_pinnable);
        let restored = Device { pin, name: self.free_name(&device.name), ..device.clone() };
        Ok(vec![Change::DropBar(device.uuid.clone()), Change::PutDevice(restored)])
    }

    /// Returns the deleted devices with a uuid after this one, by uuid.
    pub fn bars_after(&self, after: Option<&DeviceUuid>) -> impl Iterator<Item = &Bar> {
        let after = after.cloned();
        self.bars.all().filter(move |bar| after.as_ref().is_none_or(|after| bar.device.uuid > *after))
    }

    /// Returns the bar of a uuid.
    #[must_use]
    pub fn bar(&self, uuid: &DeviceUuid) -> Option<&Bar> {
        self.bars.of(uuid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::standing::tests::world as site;

    #[test]
    fn devices_that_leave_take_at_most_half_of_the_bars() {
        let mut world = site(|_| ());
        let device = Device::clone(world.devices.values().next().expect("a device"));
        for number in 0..MOST_BARS_OF_DEVICES as u64 {
            assert!(number > 0 || world.delete_itself(&device, Timestamp::UNIX_EPOCH).is_ok());
            let uuid = DeviceUuid::parse(format!("{:032x}", number + (1 << 40))).unwrap();
            let bar = Bar { device: Device { uuid, ..device.clone() }, at: Timestamp::UNIX_EPOCH };
            world.apply(Change::PutBar(bar));
        }
        let refused = world.delete_itself(&device, Timestamp::UNIX_EPOCH).unwrap_err();
        assert_eq!(refused, Refusal::TooManyBars { most: MOST_BARS_OF_DEVICES, room: 0 });
        let changes = world.delete_devices(&[&device], Timestamp::UNIX_EPOCH).expect("operators still can");
        assert_eq!(changes.len(), 2);
    }
}

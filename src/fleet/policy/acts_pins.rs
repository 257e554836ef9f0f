//! Notes who pins a device or a fleet, and tells it.

use std::sync::Arc;

use super::{Change, Device, Fleet, Pinned, PinnedTo, World};

impl World {
    /// Notes who pins the devices and fleets that these changes of this world pin.
    pub fn note_pins(&self, changes: &mut [Change], pinned: Pinned) {
        let by = Arc::new(pinned);
        let noted = |release| PinnedTo::new(release, Arc::clone(&by));
        for change in changes {
            if let Change::PutDevice(device) = change {
                let before = self.device(&device.uuid).and_then(|before| before.pin);
                if before != device.pin {
                    device.pinned = device.pin.map(noted);
                }
            } else if let Change::PutFleet(fleet) = change {
                let before = self.fleet(fleet.number).and_then(Fleet::pin);
                if before != fleet.pin() {
                    fleet.pinned = fleet.pin().map(noted);
                }
            }
        }
    }
}

impl Device {
    /// Returns who pinned it, if it is pinned and that is known.
    #[must_use]
    pub fn pinned(&self) -> Option<&Pinned> {
        self.pinned.as_ref()?.by(self.pin)
    }
}

impl Fleet {
    /// Returns the release that it is pinned to.
    #[must_use]
    pub fn pin(&self) -> Option<u64> {
        self.target.filter(|_| !self.is_tracking_latest)
    }

    /// As [`Device::pinned`].
    #[must_use]
    pub fn pinned(&self) -> Option<&Pinned> {
        self.pinned.as_ref()?.by(self.pin())
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::fleet::policy::FleetPatch;
    use crate::fleet::standing::tests::world;

    fn pinned(by: &str) -> Pinned {
        Pinned { at: Timestamp::UNIX_EPOCH, by: by.to_owned(), why: Some("a test".to_owned()) }
    }

    #[test]
    fn a_pin_names_who_made_it_until_there_is_another_one() {
        let mut world = world(|_| {});
        let act = |world: &mut World, by: &str, mut changes: Vec<Change>| {
            world.note_pins(&mut changes, pinned(by));
            changes.into_iter().for_each(|change| world.apply(change));
            let device = world.find_device("board").unwrap();
            device.pinned().map(|pinned| pinned.by.clone())
        };
        let device = |world: &World| world.find_device("board").unwrap().clone();
        let pin = |world: &World, commit: &str| {
            world.pin_devices(&[&device(world)], world.find_release(None, commit).unwrap()).unwrap()
        };
        let changes = pin(&world, "one");
        assert_eq!(act(&mut world, "anna", changes).as_deref(), Some("anna"));
        let changes = world.rename_device(&device(&world), "new".to_owned()).unwrap();
        act_on(&mut world, changes);
        let changes = world.rename_device(world.find_device("new").unwrap(), "board".to_owned()).unwrap();
        assert_eq!(act(&mut world, "ben", changes).as_deref(), Some("anna"), "it is still her pin");
        let changes = pin(&world, "two");
        assert_eq!(act(&mut world, "ben", changes).as_deref(), Some("ben"));
        // The server itself, e.g. a rollout, names nobody.
        let changes = pin(&world, "one");
        act_on(&mut world, changes);
        assert_eq!(device(&world).pinned(), None);
        let changes = world.track_fleet(&[&device(&world)]);
        assert_eq!(act(&mut world, "anna", changes), None);
    }

    fn act_on(world: &mut World, changes: Vec<Change>) {
        changes.into_iter().for_each(|change| world.apply(change));
    }

    #[test]
    fn a_fleet_names_who_pinned_it() {
        let mut world = world(|_| {});
        let fleet = |world: &World| world.find_fleet("lab").unwrap().clone();
        let mut changes = world.pin_fleet(&fleet(&world), world.find_release(None, "one").unwrap()).unwrap();
        world.note_pins(&mut changes, pinned("anna"));
        act_on(&mut world, changes);
        assert_eq!(fleet(&world).pinned(), Some(&pinned("anna")));
        let patch = FleetPatch { is_tracking_latest: Some(true), target: None };
        let mut changes = world.patch_fleet(&fleet(&world), patch).unwrap();
        world.note_pins(&mut changes, pinned("ben"));
        act_on(&mut world, changes);
        assert_eq!(fleet(&world).pinned(), None);
    }

    #[test]
    fn records_of_older_versions_have_no_name() {
        let world = world(|_| {});
        let mut old = serde_json::to_value(world.find_device("board").unwrap()).unwrap();
        assert!(old.get("pinned").is_none(), "and an older version reads what is not pinned: {old}");
        old["pin"] = 1.into();
        let old: Device = serde_json::from_value(old).unwrap();
        assert_eq!((old.pin, old.pinned()), (Some(1), None));
    }
}

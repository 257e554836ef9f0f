//! Counts devices, in one pass over all of them. Pure.

use std::collections::{BTreeMap, HashMap};

use super::policy::{Device, KeyHash, World};
use super::standing::{self, Contact};
use crate::wire::operator_api::DeviceState;

/// The devices of each fleet by state.
pub(super) type States = BTreeMap<u64, BTreeMap<DeviceState, usize>>;

/// How many devices are in which state; of one fleet, or of each.
pub(super) fn states(world: &World, only: Option<u64>, contact: impl Fn(&Device) -> Contact) -> States {
    let mut states = States::new();
    for device in world.devices().filter(|device| only.is_none_or(|fleet| fleet == device.fleet)) {
        let state = standing::of(world, device, contact(device)).state;
        *states.entry(device.fleet).or_default().entry(state).or_default() += 1;
    }
    states
}

/// How many devices are pinned to each release, and how many run it, as they report.
#[derive(Debug, Default)]
pub(super) struct Uses {
    pub(super) pinned: HashMap<u64, usize>,
    pub(super) running: HashMap<u64, usize>,
}

impl Uses {
    pub(super) fn of(world: &World) -> Self {
        let mut uses = Self::default();
        for device in world.devices() {
            if let Some(pin) = device.pin {
                *uses.pinned.entry(pin).or_default() += 1;
            }
            if let Some(running) = world.reported(&device.uuid).running {
                *uses.running.entry(running).or_default() += 1;
            }
        }
        uses
    }
}

/// How many devices registered with each provisioning key.
pub(super) fn by_key(world: &World) -> HashMap<&KeyHash, usize> {
    let mut devices = HashMap::new();
    for key in world.devices().filter_map(|device| device.provisioned_by.as_ref()) {
        *devices.entry(key).or_default() += 1;
    }
    devices
}

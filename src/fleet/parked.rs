//! Polls that wait for a change of their device's target. It knows no target: it wakes whoever a change may concern, and the
//! poll then looks for itself.
//!
//! A poll first enters, then reads the records, and then waits. A change is first applied and then announced, so none is
//! missed in between.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::locks::locked;
use super::policy::{Change, VariableHolder};
use super::pulse::Pulse;
use crate::model::DeviceUuid;

/// The fraction of connections that other requests always have: one in this many.
const OTHERS: usize = 8;

/// All polls that wait.
#[derive(Debug)]
pub(super) struct Parked {
    room: Mutex<Room>,
    most: usize,
    pulse: Pulse,
}

#[derive(Debug, Default)]
struct Room {
    waiting: HashMap<DeviceUuid, Waiting>,
    entered: u64,
    is_closed: bool,
}

#[derive(Debug)]
struct Waiting {
    number: u64,
    fleet: u64,
    wake: oneshot::Sender<Woken>,
}

/// Why a wait is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Woken {
    /// A change may concern the device.
    Changed,
    /// The time is over, the device polls on another connection, its logs are wanted, or the server stops.
    Over,
}

/// The place of a poll that waits; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    parked: Arc<Parked>,
    uuid: DeviceUuid,
    number: u64,
    woken: oneshot::Receiver<Woken>,
}

impl Parked {
    /// Makes room for as many polls as leave one in eight of `connections` to other requests.
    pub(super) fn new(connections: usize) -> Arc<Self> {
        let most = connections - connections.div_ceil(OTHERS);
        Arc::new(Self { room: Mutex::default(), most, pulse: Pulse::default() })
    }

    /// Returns what announces every change to open pages.
    pub(super) fn pulse(&self) -> &Pulse {
        &self.pulse
    }

    /// Takes the place of this device, which is in this fleet. A poll of the same device that waits already is over: its
    /// connection may be lost. Returns `None` if all places are taken, or if the server stops.
    pub(super) fn enter(self: &Arc<Self>, uuid: &DeviceUuid, fleet: u64) -> Option<Place> {
        let mut room = locked(&self.room);
        if room.is_closed || (room.waiting.len() >= self.most && !room.waiting.contains_key(uuid)) {
            return None;
        }
        room.entered += 1;
        let number = room.entered;
        let (wake, woken) = oneshot::channel();
        if let Some(before) = room.waiting.insert(uuid.clone(), Waiting { number, fleet, wake }) {
            before.end(Woken::Over);
        }
        drop(room);
        Some(Place { parked: Arc::clone(self), uuid: uuid.clone(), number, woken })
    }

    /// Wakes the devices whose target these changes may have changed. Call it after they are applied.
    pub(super) fn changed(&self, changes: &[Change]) {
        let mut room = locked(&self.room);
        for change in changes {
            match change {
                Change::PutDevice(device) => room.wake(&device.uuid),
                Change::DropDevice(uuid) => room.wake(uuid),
                Change::PutVariables(VariableHolder::Device(uuid), _) => room.wake(uuid),
                Change::PutVariables(VariableHolder::Fleet(fleet), _) => room.wake_fleet(*fleet),
                Change::PutFleet(fleet) => room.wake_fleet(fleet.number),
                Change::DropFleet(fleet) => room.wake_fleet(*fleet),
                // It may be over, or pulled back.
                Change::PutRollout(rollout) if !rollout.phase.keeps_release() => {
                    room.wake_fleet(rollout.fleet);
                }
                Change::PutMember(uuid, _) => room.wake(uuid),
                // The content of a release never changes, and none is dropped that is a target. The rest is not a part of
                // any target.
                Change::Counters(_)
                | Change::PutRollout(_)
                | Change::DropRollout(_)
                | Change::PutReports(..)
                | Change::PutRelease(_)
                | Change::DropRelease(_)
                | Change::PutKey(_)
                | Change::DropKey(_)
                | Change::RetireKey(_)
                | Change::PutBar(_)
                | Change::DropBar(_)
                | Change::Access(_)
                | Change::Audit(_)
                | Change::PutRepeat(_)
                | Change::DropRepeat(_)
                | Change::Webhook(_)
                | Change::DropAudit(_) => {}
            }
        }
    }

    /// Ends the wait of a device, so that it gets an answer at once.
    pub(super) fn end(&self, uuid: &DeviceUuid) {
        if let Some(waiting) = locked(&self.room).waiting.remove(uuid) {
            waiting.end(Woken::Over);
        }
    }

    /// Wakes all devices, because the records were read again from the disk.
    pub(super) fn all_changed(&self) {
        for (_, waiting) in locked(&self.room).waiting.drain() {
            waiting.end(Woken::Changed);
        }
    }

    /// Ends all waits. From now on no poll waits.
    pub(super) fn close(&self) {
        self.pulse.end();
        let mut room = locked(&self.room);
        room.is_closed = true;
        for (_, waiting) in room.waiting.drain() {
            waiting.end(Woken::Over);
        }
    }

    /// Returns whether a poll of this device waits.
    pub(super) fn has(&self, uuid: &DeviceUuid) -> bool {
        locked(&self.room).waiting.contains_key(uuid)
    }

    /// Returns how many polls may wait.
    pub(super) fn most(&self) -> usize {
        self.most
    }

    /// Returns how many polls wait.
    pub(super) fn count(&self) -> usize {
        locked(&self.room).waiting.len()
    }
}

impl Room {
    fn wake(&mut self, uuid: &DeviceUuid) {
        if let Some(waiting) = self.waiting.remove(uuid) {
            waiting.end(Woken::Changed);
        }
    }

    fn wake_fleet(&mut self, fleet: u64) {
        for (_, waiting) in self.waiting.extract_if(|_, waiting| waiting.fleet == fleet) {
            waiting.end(Woken::Changed);
        }
    }
}

impl Waiting {
    fn end(self, why: Woken) {
        // An error means that its client has gone.
        let _gone = self.wake.send(why);
    }
}

impl Place {
    /// Waits for a change or for the deadline.
    pub(super) async fn wait(mut self, deadline: Instant) -> Woken {
        match timeout_at(deadline, &mut self.woken).await {
            Ok(woken) => woken.unwrap_or(Woken::Over),
            Err(_) => Woken::Over,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut room = locked(&self.parked.room);
        if room.waiting.get(&self.uuid).is_some_and(|waiting| waiting.number == self.number) {
            room.waiting.remove(&self.uuid);
        }
    }
}

#[cfg(test)]
#[path = "parked_tests.rs"]
mod tests;

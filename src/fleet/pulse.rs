//! Announces to open pages of the dashboard that something of a fleet has changed. It does not say what: the page looks for
//! itself.

use std::collections::{BTreeMap, BTreeSet};

use tokio::sync::watch;

use super::policy::{Change, VariableHolder, World};
use crate::model::DeviceUuid;

/// The number of the last change, of all and of each fleet. The numbers begin anew with each start of the server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Beats {
    pub(super) last: u64,
    of_all: u64,
    of_fleet: BTreeMap<u64, u64>,
    /// Whether the server stops.
    pub(super) is_over: bool,
}

impl Beats {
    /// Returns the number of the last change of a fleet, or of anything.
    pub(super) fn of(&self, fleet: Option<u64>) -> u64 {
        let Some(fleet) = fleet else { return self.last };
        self.of_fleet.get(&fleet).copied().unwrap_or_default().max(self.of_all)
    }
}

/// Where changes are announced.
#[derive(Debug)]
pub(super) struct Pulse(watch::Sender<Beats>);

impl Default for Pulse {
    fn default() -> Self {
        Self(watch::Sender::new(Beats::default()))
    }
}

impl Pulse {
    /// Announces a change of these fleets. Call it after the change is applied.
    pub(super) fn beat(&self, fleets: &BTreeSet<u64>) {
        self.0.send_modify(|beats| {
            beats.last += 1;
            let last = beats.last;
            beats.of_fleet.extend(fleets.iter().map(|fleet| (*fleet, last)));
        });
    }

    /// Announces that anything may have changed.
    pub(super) fn beat_all(&self) {
        self.0.send_modify(|beats| {
            beats.last += 1;
            beats.of_all = beats.last;
        });
    }

    /// Ends all that follow, because the server stops.
    pub(super) fn end(&self) {
        self.0.send_modify(|beats| beats.is_over = true);
    }

    pub(super) fn follow(&self) -> watch::Receiver<Beats> {
        self.0.subscribe()
    }
}

/// Returns the fleets that these changes are about, by the world that they left.
pub(super) fn fleets_of(world: &World, changes: &[Change]) -> BTreeSet<u64> {
    let of_device = |uuid: &DeviceUuid| world.device(uuid).map(|device| device.fleet);
    let fleet = |change: &Change| match change {
        Change::PutFleet(fleet) => Some(fleet.number),
        Change::DropFleet(number) => Some(*number),
        Change::PutDevice(device) => Some(device.fleet),
        Change::PutReports(uuid, _) | Change::PutMember(uuid, _) => of_device(uuid),
        Change::PutRelease(release) => Some(release.fleet),
        Change::PutKey(key) => Some(key.fleet),
        Change::PutBar(bar) => Some(bar.device.fleet),
        Change::PutVariables(VariableHolder::Fleet(number), _) => Some(*number),
        Change::PutVariables(VariableHolder::Device(uuid), _) => of_device(uuid),
        Change::PutRollout(rollout) => Some(rollout.fleet),
        // The record in the audit trail has the fleets of the act, also those that a device or a release has left.
        Change::Audit(_)
        | Change::DropDevice(_)
        | Change::DropRelease(_)
        | Change::DropKey(_)
        | Change::DropBar(_)
        | Change::DropRollout(_)
        | Change::Counters(_)
        | Change::RetireKey(_)
        | Change::Access(_)
        | Change::Webhook(_)
        | Change::PutRepeat(_)
        | Change::DropRepeat(_)
        | Change::DropAudit(_) => None,
    };
    let mut fleets: BTreeSet<u64> = changes.iter().filter_map(fleet).collect();
    for change in changes {
        if let Change::Audit(entry) = change {
            fleets.extend(&entry.fleets);
        }
    }
    fleets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_hears_of_its_own_fleet_and_of_what_may_be_any() {
        let pulse = Pulse::default();
        let follower = pulse.follow();
        let of = |fleet| follower.borrow().of(fleet);
        pulse.beat(&BTreeSet::from([1]));
        assert_eq!((of(None), of(Some(1)), of(Some(2))), (1, 1, 0));
        pulse.beat(&BTreeSet::from([2]));
        assert_eq!((of(None), of(Some(1)), of(Some(2))), (2, 1, 2));
        pulse.beat_all();
        assert_eq!((of(None), of(Some(1)), of(Some(2))), (3, 3, 3));
    }
}

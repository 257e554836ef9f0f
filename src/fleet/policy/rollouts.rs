//! The rollouts of all fleets, and the devices that they expose.

use std::sync::Arc;

use imbl::OrdMap;

use super::{Change, Device};
use crate::fleet::rollout::{ExposedDevice, Rollout, RolloutExposure};
use crate::model::DeviceUuid;

/// All rollouts and members.
#[derive(Debug, Clone, Default)]
pub(super) struct AllRollouts {
    by_number: OrdMap<u64, Arc<Rollout>>,
    /// The newest rollout of each fleet.
    newest: OrdMap<u64, u64>,
    exposed: OrdMap<DeviceUuid, Arc<RolloutExposure>>,
}

impl AllRollouts {
    pub(super) fn put(&mut self, rollout: Rollout) {
        let newest = self.newest.get(&rollout.fleet).copied().unwrap_or_default();
        self.newest.insert(rollout.fleet, newest.max(rollout.number));
        self.by_number.insert(rollout.number, Arc::new(rollout));
    }

    pub(super) fn drop(&mut self, number: u64) {
        if let Some(rollout) = self.by_number.remove(&number)
            && self.newest.get(&rollout.fleet) == Some(&number)
        {
            self.newest.remove(&rollout.fleet);
        }
    }

    pub(super) fn expose(&mut self, uuid: DeviceUuid, exposed: RolloutExposure) {
        self.exposed.insert(uuid, Arc::new(exposed));
    }

    pub(super) fn forget(&mut self, uuid: &DeviceUuid) {
        self.exposed.remove(uuid);
    }

    pub(super) fn of_number(&self, number: u64) -> Option<&Arc<Rollout>> {
        self.by_number.get(&number)
    }

    pub(super) fn newest(&self, fleet: u64) -> Option<&Arc<Rollout>> {
        self.by_number.get(self.newest.get(&fleet)?)
    }

    pub(super) fn member(&self, device: &Device) -> Option<(&Rollout, &ExposedDevice)> {
        let exposed = self.exposed.get(&device.uuid)?;
        let rollout = self.newest(device.fleet).filter(|rollout| rollout.number == exposed.rollout)?;
        Some((rollout, &exposed.member))
    }

    /// Returns the rollouts with a number after this one, oldest first.
    pub(super) fn after(&self, after: u64) -> impl Iterator<Item = &Arc<Rollout>> {
        self.by_number.range(after.saturating_add(1)..).map(|(_, rollout)| rollout)
    }

    /// Returns the rollouts with a number before this one, newest first.
    pub(super) fn before(&self, before: u64) -> impl Iterator<Item = &Arc<Rollout>> {
        self.by_number.range(..before).rev().map(|(_, rollout)| rollout)
    }

    /// Returns a change for each record.
    pub(super) fn records(&self) -> impl Iterator<Item = Change> + '_ {
        let rollouts =
            self.by_number.values().map(|rollout| Change::PutRollout(Box::new(rollout.as_ref().clone())));
        let exposed = self
            .exposed
            .iter()
            .map(|(uuid, exposed)| Change::PutMember(uuid.clone(), exposed.as_ref().clone()));
        rollouts.chain(exposed)
    }
}

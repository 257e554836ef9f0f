//! The release that a device should run, and the rollouts that may decide it.

use std::sync::Arc;

use super::{Device, Refusal, Release, World};
use crate::fleet::rollout::{ExposedDevice, Rollout};

impl World {
    /// Returns the release that a device should run: its own pin, else that of a rollout that exposes it, else its fleet's
    /// target, else none.
    #[must_use]
    pub fn target_of(&self, device: &Device) -> Option<&Arc<Release>> {
        let of_rollout = || self.membership(device).and_then(|(rollout, member)| rollout.release_for(member));
        let of_fleet = || self.fleet(device.fleet).and_then(|fleet| fleet.target);
        self.release(device.pin.or_else(of_rollout).or_else(of_fleet)?)
    }

    /// Returns the target of a fleet that tracks latest: the trackable release with the newest start timestamp, and of two
    /// with the same one, the one that was created later.
    #[must_use]
    pub fn latest_trackable(&self, fleet: u64) -> Option<&Arc<Release>> {
        self.releases_of(fleet)
            .filter(|release| release.is_trackable())
            .max_by_key(|release| (release.start_timestamp, release.number))
    }

    /// Returns the newest rollout of a fleet, whether it is over or not.
    #[must_use]
    pub fn rollout(&self, fleet: u64) -> Option<&Arc<Rollout>> {
        self.rollouts.newest(fleet)
    }

    /// Returns the rollout of a fleet that is not over.
    #[must_use]
    pub fn open_rollout(&self, fleet: u64) -> Option<&Arc<Rollout>> {
        self.rollout(fleet).filter(|rollout| !rollout.phase.is_over())
    }

    /// Returns the rollouts with a number after this one, oldest first.
    pub fn rollouts_after(&self, after: u64) -> impl Iterator<Item = &Arc<Rollout>> {
        self.rollouts.after(after)
    }

    /// Returns the rollouts with a number before this one, newest first.
    pub fn rollouts_before(&self, before: u64) -> impl Iterator<Item = &Arc<Rollout>> {
        self.rollouts.before(before)
    }

    /// Returns the newest rollout of a device's fleet, and what it has noted of the device, if it is exposed.
    #[must_use]
    pub fn membership(&self, device: &Device) -> Option<(&Rollout, &ExposedDevice)> {
        self.rollouts.member(device)
    }

    /// Refuses an act on a release that a rollout gives to devices.
    pub(super) fn check_not_rolled_out(&self, release: &Release, act: &'static str) -> Result<(), Refusal> {
        match self.open_rollout(release.fleet) {
            Some(rollout)
                if rollout.release == release.number || rollout.barriers.contains(&release.number) =>
            {
                Err(Refusal::RolledOut { commit: release.commit.clone(), act, rollout: rollout.number })
            }
            Some(_) | None => Ok(()),
        }
    }
}

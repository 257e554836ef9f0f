//! Acts on rollouts. When a rollout advances is decided in `src/fleet/rollout`.

use jiff::Timestamp;

use super::{Change, Counters, Device, Fleet, FleetPatch, Refusal, Release, ReleasePatch, World};
use crate::fleet::rollout::{
    Cause, Definition, ExposedDevice, Group, Halt, Pause, Phase, Rollout, RolloutExposure, Share, position,
};
use crate::model::{DeviceUuid, ReleaseStatus};

/// Maximum number of rollouts of a fleet that are kept. The oldest ones go.
const MOST_KEPT: usize = 50;

/// A rollout that is to begin.
#[derive(Debug, Clone)]
pub struct NewRollout {
    pub definition: Definition,
    /// Whether it takes the place of one that is not over.
    pub supersedes: bool,
    pub who: String,
}

/// What a person does with a rollout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Steering {
    Pause,
    Resume,
    /// Lets a wave begin. `wave` is its index: an approval is for one wave, so that a second click does not approve the next
    /// one. Nor does it overrule a webhook, unless `without_webhook` says so.
    Approve {
        wave: usize,
        without_webhook: bool,
    },
    /// Ends it. Devices get their fleet's target again.
    Abort,
    /// Returns all devices that have the release to the target of their fleet.
    PullBack,
    /// Gives the release to the whole fleet at once, but not to halted segments.
    Complete,
}

impl World {
    /// Begins a rollout of a release to its fleet.
    ///
    /// # Errors
    ///
    /// [`Refusal`]: of a definition, a release or a fleet for which it would make no sense.
    pub fn start_rollout(
        &self,
        fleet: &Fleet,
        release: &Release,
        new: NewRollout,
        now: Timestamp,
    ) -> Result<(Rollout, Vec<Change>), Refusal> {
        let NewRollout { definition, supersedes, who } = new;
        definition.check().map_err(|error| Refusal::BadRollout { why: error.to_string() })?;
        self.check_target(release.number, fleet.number)?;
        self.check_end(fleet, release)?;
        self.check_matches(fleet, &definition)?;
        self.check_confirm(fleet, &definition)?;
        let mut changes = Vec::new();
        if let Some(open) = self.open_rollout(fleet.number) {
            if !supersedes {
                return Err(Refusal::RolloutGoesOn { fleet: fleet.name.clone(), rollout: open.number });
            }
            let mut old = open.as_ref().clone();
            old.end(Phase::Aborted { why: format!("superseded by {who}") }, now);
            changes.push(Change::PutRollout(Box::new(old)));
        }
        let counters = Counters { rollout: self.counters.rollout + 1, ..self.counters };
        let mut rollout = Rollout::new(counters.rollout, fleet.number, release.number, definition, now);
        for commit in &rollout.definition.barriers {
            let barrier = self.find_release(Some(fleet.number), commit.as_str())?;
            self.check_target(barrier.number, fleet.number)?;
            rollout.barriers.push(barrier.number);
        }
        rollout.before = fleet.target;
        rollout.base = self.base_rate(fleet.number);
        changes.push(Change::Counters(counters));
        changes.push(Change::PutRollout(Box::new(rollout.clone())));
        let kept: Vec<u64> = self.rollouts_of(fleet.number).map(|rollout| rollout.number).collect();
        let surplus = (kept.len() + 1).saturating_sub(MOST_KEPT);
        changes.extend(kept.into_iter().take(surplus).map(Change::DropRollout));
        Ok((rollout, changes))
    }

    fn rollouts_of(&self, fleet: u64) -> impl Iterator<Item = &Rollout> {
        self.rollouts_after(0).map(AsRef::as_ref).filter(move |rollout| rollout.fleet == fleet)
    }

    /// Returns the share of devices that failed in the newest rollout of a fleet that was completed.
    fn base_rate(&self, fleet: u64) -> Option<Share> {
        let completed = self.rollouts_of(fleet).filter(|rollout| rollout.phase == Phase::Completed).last()?;
        Share::of_counts(completed.tally.failures(), completed.tally.verdicts())
    }

    /// Refuses a rollout that could not end with the release as the target of its fleet.
    fn check_end(&self, fleet: &Fleet, release: &Release) -> Result<(), Refusal> {
        let refused = |why: &str| {
            let (fleet, commit) = (fleet.name.clone(), release.commit.clone());
            Err(Refusal::CannotRollOut { fleet, commit, why: why.to_owned() })
        };
        if fleet.target == Some(release.number) {
            return refused("the fleet runs it already");
        }
        if release.is_invalidated {
            return refused("it is invalidated: `cotter release validate` it first");
        }
        if !fleet.is_tracking_latest {
            return Ok(());
        }
        let newest = self.latest_trackable(fleet.number);
        let is_newest = newest.is_none_or(|newest| {
            (newest.start_timestamp, newest.number) < (release.start_timestamp, release.number)
        });
        if is_newest && release.is_passing_tests {
            return Ok(());
        }
        refused(
            "the fleet tracks latest, and would not keep it: `cotter fleet pin` it to what it runs now first",
        )
    }

    fn check_matches(&self, fleet: &Fleet, definition: &Definition) -> Result<(), Refusal> {
        let filters = definition.filter.iter();
        let waves = definition.waves.iter().filter_map(|wave| match &wave.group {
            Group::Tags(filter) => Some(filter),
            Group::Share(_) | Group::Number(_) => None,
        });
        let of_fleet = || self.devices().filter(|device| device.fleet == fleet.number);
        for filter in filters.chain(waves) {
            if !of_fleet().any(|device| filter.matches(&device.tags)) {
                return Err(Refusal::NoDeviceMatches { filter: filter.to_string() });
            }
        }
        Ok(())
    }

    /// Does with the rollout of a fleet what a person wants.
    ///
    /// # Errors
    ///
    /// [`Refusal::NoRollout`], [`Refusal::NotNow`].
    pub fn steer_rollout(
        &self,
        fleet: &Fleet,
        steering: &Steering,
        who: &str,
        now: Timestamp,
    ) -> Result<Vec<Change>, Refusal> {
        let open = self.open_rollout(fleet.number);
        let open = open.ok_or_else(|| Refusal::NoRollout { fleet: fleet.name.clone() })?;
        let mut rollout = open.as_ref().clone();
        let number = rollout.number;
        let not_now = |why: &'static str| Err(Refusal::NotNow { rollout: number, why });
        let is_back = matches!(rollout.phase, Phase::Halted { is_pulled_back: true, .. });
        match steering {
            Steering::Pause if rollout.phase == Phase::Running => {
                rollout.phase = Phase::Paused { why: Pause::Person { who: who.to_owned() } };
            }
            Steering::Pause => return not_now("it does not run"),
            Steering::Resume | Steering::Approve { .. } if is_back => {
                return not_now("it was pulled back: abort it, and start another one");
            }
            Steering::Approve { wave, without_webhook } => {
                if let Err(why) = approve(&mut rollout, *wave, *without_webhook) {
                    return not_now(why);
                }
            }
            Steering::Resume if rollout.phase == Phase::Running => return not_now("it runs already"),
            Steering::Resume if (rollout.phase == Phase::Paused { why: Pause::Approval }) => {
                return not_now("it waits for an approval: `cotter rollout approve` it");
            }
            Steering::Resume => rollout.resume(now),
            Steering::PullBack if is_back => return not_now("it is pulled back already"),
            Steering::PullBack => {
                let (failures, verdicts) = (rollout.tally.failures(), rollout.tally.verdicts());
                let cause = Cause::Person { who: who.to_owned() };
                let why = Halt { cause, failures, verdicts, evidence: Vec::new() };
                rollout.phase = Phase::Halted { why, is_pulled_back: true };
            }
            Steering::Abort => rollout.end(Phase::Aborted { why: format!("aborted by {who}") }, now),
            Steering::Complete if is_back => {
                return not_now("it was pulled back: abort it, and start another one");
            }
            Steering::Complete => return self.complete_rollout(rollout, now),
        }
        Ok(vec![Change::PutRollout(Box::new(rollout))])
    }

    /// Returns the changes that store a decision of the rollout of a fleet. If the decision completes the rollout, but the
    /// fleet cannot get the release, they pause it.
    #[must_use]
    pub fn changes_for_decision(
        &self,
        mut rollout: Rollout,
        members: Vec<(DeviceUuid, ExposedDevice)>,
        now: Timestamp,
    ) -> Vec<Change> {
        let number = rollout.number;
        let is_here =
            |uuid: &DeviceUuid| self.device(uuid).is_some_and(|device| device.fleet == rollout.fleet);
        let mut changes: Vec<Change> = members
            .into_iter()
            .filter(|(uuid, _)| is_here(uuid))
            .map(|(uuid, member)| Change::PutMember(uuid, RolloutExposure { rollout: number, member }))
            .collect();
        if rollout.phase == Phase::Completed {
            match self.complete_rollout(rollout.clone(), now) {
                Ok(end) => {
                    changes.extend(end);
                    return changes;
                }
                Err(refusal) => {
                    rollout.phase = Phase::Paused { why: Pause::CannotEnd { why: refusal.to_string() } };
                }
            }
        }
        if self.rollout(rollout.fleet).is_none_or(|stored| **stored != rollout) {
            changes.push(Change::PutRollout(Box::new(rollout)));
        }
        changes
    }

    /// Ends a rollout because its fleet has got another target. `None` while it has the one with which the rollout began.
    #[must_use]
    pub fn ended_by_target(&self, rollout: &Rollout, now: Timestamp) -> Option<Change> {
        let target = self.fleet(rollout.fleet).and_then(|fleet| fleet.target);
        if target == rollout.before {
            return None;
        }
        let commit = target.and_then(|number| self.release(number)).map(|release| release.commit.to_string());
        let mut ended = rollout.clone();
        let phase = if target == Some(rollout.release) {
            Phase::Completed
        } else {
            let commit = commit.as_deref().unwrap_or("none");
            Phase::Aborted { why: format!("the target of the fleet is {commit} now") }
        };
        ended.end(phase, now);
        Some(Change::PutRollout(Box::new(ended)))
    }

    /// Makes the release the target of the fleet. Devices of halted segments, and those that take part in no rollout, are pinned
    /// to what they should run now. A rollout to some devices pins these to the release, and leaves the fleet as it is.
    fn complete_rollout(&self, mut rollout: Rollout, now: Timestamp) -> Result<Vec<Change>, Refusal> {
        rollout.end(Phase::Completed, now);
        let Some(fleet) = self.fleet(rollout.fleet) else {
            return Ok(vec![Change::PutRollout(Box::new(rollout))]);
        };
        let mut changes = Vec::new();
        let of_fleet = self.devices().filter(|device| device.fleet == fleet.number && device.pin.is_none());
        for device in of_fleet {
            let stays = self.target_of(device).map(|target| target.number);
            let is_everywhere = rollout.definition.filter.is_none();
            let pin = match self.gets_release(&rollout, device) {
                true if is_everywhere => None,
                true => Some(rollout.release),
                false if is_everywhere => stays,
                // It has the fleet's target in any case.
                false => stays.filter(|stays| Some(*stays) != fleet.target),
            };
            let pinned = pin.map(|pin| Device { pin: Some(pin), ..device.clone() });
            changes.extend(pinned.map(Change::PutDevice));
        }
        if rollout.definition.filter.is_none() {
            if let Some(release) = self.release(rollout.release) {
                self.check_end(fleet, release)?;
            }
            changes.extend(self.target_changes(fleet, rollout.release)?);
        }
        changes.push(Change::PutRollout(Box::new(rollout)));
        Ok(changes)
    }

    /// Returns `true` if a device gets the release at the end of a rollout.
    fn gets_release(&self, rollout: &Rollout, device: &Device) -> bool {
        if rollout.halted.keys().any(|segment| segment.has(&device.tags)) {
            return false;
        }
        let is_member = self.membership(device).is_some_and(|(of, _)| of.number == rollout.number);
        let is_in = rollout.definition.filter.as_ref().is_none_or(|filter| filter.matches(&device.tags));
        is_member || is_in && position(rollout.number, device.uuid.as_str(), &device.tags).is_some()
    }

    /// Lets a fleet run a release, tracking or pinned as it is. A draft becomes final if the fleet tracks latest.
    fn target_changes(&self, fleet: &Fleet, release: u64) -> Result<Vec<Change>, Refusal> {
        let patch = FleetPatch { is_tracking_latest: None, target: Some(Some(release)) };
        match self.release(release) {
            Some(draft) if fleet.is_tracking_latest && !draft.is_final => {
                self.patch_release(draft, ReleasePatch { is_final: Some(true), ..ReleasePatch::default() })
            }
            Some(_) | None => self.patch_fleet(fleet, patch),
        }
    }

    /// Returns `true` if a release may still be given to devices.
    #[must_use]
    pub fn may_be_rolled_out(&self, release: u64) -> bool {
        self.release(release)
            .is_some_and(|release| release.status == ReleaseStatus::Success && !release.is_invalidated)
    }
}

/// Lets a wave of a rollout begin.
///
/// # Errors
///
/// Why not.
fn approve(rollout: &mut Rollout, wave: usize, without_webhook: bool) -> Result<(), &'static str> {
    let awaited = rollout.awaited().map(|(awaited, _)| awaited);
    match &rollout.phase {
        Phase::Running if awaited.is_none() => Err("it runs already, and waits for no approval"),
        Phase::Running | Phase::Paused { why: Pause::Approval } if awaited != Some(wave) => {
            Err("another wave waits than the one to approve: `cotter rollout show` it")
        }
        Phase::Running if !without_webhook => Err(
            "this wave waits for its webhook, and for no approval: `cotter rollout approve --without-webhook` \
                 begins it without",
        ),
        Phase::Running => {
            rollout.confirm();
            Ok(())
        }
        Phase::Paused { why: Pause::Approval } if without_webhook => {
            Err("this wave waits for an approval, and for no webhook so far: approve it first")
        }
        Phase::Paused { why: Pause::Approval } => {
            rollout.approve();
            Ok(())
        }
        Phase::Paused { .. } | Phase::Halted { .. } | Phase::Completed | Phase::Aborted { .. } => {
            Err("it does not wait for an approval: `cotter rollout resume` it")
        }
    }
}

#[cfg(test)]
#[path = "acts_rollout_tests.rs"]
mod tests;

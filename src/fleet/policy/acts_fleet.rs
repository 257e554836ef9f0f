//! Acts on fleets: create, pin, track latest, and the raw PATCH that both use.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::rules::{check_fleet_name, checked_registry};
use super::{Change, Counters, Fleet, KeyHash, NewKey, Refusal, Release, World};
use crate::model::{AppId, DeviceUuid, ReleaseStatus};

/// The values of a new fleet.
#[derive(Debug, Clone)]
pub struct NewFleet {
    pub uuid: AppId,
    pub name: String,
    pub created: Timestamp,
    /// Its first provisioning key.
    pub key: KeyHash,
    pub registry: Option<String>,
}

/// The API's raw `PATCH application`. A field that is `None` stays as it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FleetPatch {
    /// Does not change the target by itself; the next release event does.
    pub is_tracking_latest: Option<bool>,
    /// Number of a release, or no release.
    pub target: Option<Option<u64>>,
}

impl World {
    /// Creates a fleet that tracks latest, with one provisioning key.
    ///
    /// # Errors
    ///
    /// [`Refusal::BadText`], [`Refusal::FleetNameTaken`].
    pub fn create_fleet(&self, new: NewFleet) -> Result<Vec<Change>, Refusal> {
        check_fleet_name(&new.name)?;
        let registry = checked_registry(new.registry.as_deref())?;
        if self.fleet_named(&new.name).is_some() {
            return Err(Refusal::FleetNameTaken { name: new.name });
        }
        let number = self.counters.fleet + 1;
        let fleet = Fleet {
            number,
            uuid: new.uuid,
            name: new.name,
            is_tracking_latest: true,
            target: None,
            created: new.created,
            services: BTreeMap::new(),
            registry,
            pinned: None,
        };
        let key = self.create_key(&fleet, NewKey::plain(new.key, new.created))?;
        let counters = Change::Counters(Counters { fleet: number, ..self.counters });
        Ok([counters, Change::PutFleet(fleet)].into_iter().chain(key).collect())
    }

    /// Renames a fleet. Everything else names it by its number, and stays.
    ///
    /// # Errors
    ///
    /// [`Refusal::BadText`], [`Refusal::FleetNameTaken`].
    pub fn rename_fleet(&self, fleet: &Fleet, name: String) -> Result<Vec<Change>, Refusal> {
        if fleet.name == name {
            return Ok(Vec::new());
        }
        check_fleet_name(&name)?;
        if self.fleet_named(&name).is_some() {
            return Err(Refusal::FleetNameTaken { name });
        }
        Ok(vec![Change::PutFleet(Fleet { name, ..fleet.clone() })])
    }

    /// Deletes a fleet with its releases and its provisioning keys, and with its devices if that is wanted: these are barred
    /// as deleted devices are.
    ///
    /// # Errors
    ///
    /// [`Refusal::FleetHasDevices`], [`Refusal::TooManyBars`].
    pub fn delete_fleet(
        &self,
        fleet: &Fleet,
        with_devices: bool,
        now: Timestamp,
    ) -> Result<Vec<Change>, Refusal> {
        let devices: Vec<_> = self.devices().filter(|device| device.fleet == fleet.number).collect();
        if !devices.is_empty() && !with_devices {
            return Err(Refusal::FleetHasDevices { fleet: fleet.name.clone(), devices: devices.len() });
        }
        let releases: BTreeSet<u64> = self.releases_of(fleet.number).map(|release| release.number).collect();
        let mut changes = self.delete_devices(&devices, now)?;
        // One that was moved away may still run a release of this fleet.
        let elsewhere = |uuid: &DeviceUuid| self.devices.get(uuid).is_some_and(|d| d.fleet != fleet.number);
        changes.extend(self.forget_releases(&releases, elsewhere));
        changes.extend(self.keys_of(fleet.number).map(|key| Change::DropKey(key.hash.clone())));
        changes.extend(releases.iter().map(|number| Change::DropRelease(*number)));
        let rollouts = self.rollouts_after(0).filter(|rollout| rollout.fleet == fleet.number);
        changes.extend(rollouts.map(|rollout| Change::DropRollout(rollout.number)));
        changes.push(Change::DropFleet(fleet.number));
        Ok(changes)
    }

    /// Sets where images of a fleet's services are pushed to. An empty text removes the setting.
    ///
    /// # Errors
    ///
    /// [`Refusal::BadText`].
    pub fn set_registry(&self, fleet: &Fleet, registry: &str) -> Result<Vec<Change>, Refusal> {
        let registry = checked_registry(Some(registry))?;
        let changed = Fleet { registry, ..fleet.clone() };
        Ok(if changed == *fleet { Vec::new() } else { vec![Change::PutFleet(changed)] })
    }

    /// Pins a fleet: it stops tracking, and this release becomes its target.
    ///
    /// # Errors
    ///
    /// As [`World::patch_fleet`].
    pub fn pin_fleet(&self, fleet: &Fleet, release: &Release) -> Result<Vec<Change>, Refusal> {
        let patch = FleetPatch { is_tracking_latest: Some(false), target: Some(Some(release.number)) };
        self.patch_fleet(fleet, patch)
    }

    /// Lets a fleet track latest from now on, and sets its target to the newest trackable release at once. Without a
    /// trackable release its target stays.
    ///
    /// # Errors
    ///
    /// None at present; as [`World::patch_fleet`].
    pub fn track_latest(&self, fleet: &Fleet) -> Result<Vec<Change>, Refusal> {
        let latest = self.latest_trackable(fleet.number).map(|release| Some(release.number));
        self.patch_fleet(fleet, FleetPatch { is_tracking_latest: Some(true), target: latest })
    }

    /// Sets a fleet's two policy fields, as openBalena's `PATCH application` does.
    ///
    /// # Errors
    ///
    /// [`Refusal::NotSuccessful`], [`Refusal::OtherFleet`], [`Refusal::NoSuchRelease`].
    pub fn patch_fleet(&self, fleet: &Fleet, patch: FleetPatch) -> Result<Vec<Change>, Refusal> {
        if let Some(Some(number)) = patch.target {
            self.check_target(number, fleet.number)?;
        }
        let changed = Fleet {
            is_tracking_latest: patch.is_tracking_latest.unwrap_or(fleet.is_tracking_latest),
            target: patch.target.unwrap_or(fleet.target),
            ..fleet.clone()
        };
        Ok(if changed == *fleet { Vec::new() } else { vec![Change::PutFleet(changed)] })
    }

    /// Checks the rule for every pin of a fleet or device: it needs a successful release of that fleet. A draft or
    /// invalidated release is allowed.
    pub(super) fn check_target(&self, release: u64, fleet: u64) -> Result<(), Refusal> {
        let Some(release) = self.releases.get(&release) else {
            return Err(Refusal::NoSuchRelease { given: release.to_string() });
        };
        if release.fleet != fleet {
            return Err(self.other_fleet(release, fleet));
        }
        if release.status != ReleaseStatus::Success {
            return Err(Refusal::NotSuccessful { commit: release.commit.clone(), status: release.status });
        }
        Ok(())
    }
}

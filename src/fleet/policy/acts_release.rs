//! Acts on releases: create, finalise, invalidate, delete; and how they change a fleet's target.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::{Change, Compact, Content, Counters, Fleet, Image, Refusal, Release, Room, World};
use crate::model::{Commit, DeviceUuid, ImageRef, ReleaseStatus, ServiceName};

/// Maximum number of services of all releases of a fleet. Their names are in the record of the fleet.
const MOST_SERVICES: usize = 5000;

/// The values of a new release.
#[derive(Debug, Clone)]
pub struct NewRelease {
    pub commit: Commit,
    pub status: ReleaseStatus,
    pub is_final: bool,
    pub is_passing_tests: bool,
    pub start_timestamp: Timestamp,
    pub services: BTreeMap<ServiceName, NewService>,
    pub networks: BTreeMap<String, Value>,
    pub volumes: BTreeMap<String, Value>,
    /// The end of the log of its build, if that failed.
    pub build_log: Option<String>,
}

/// The values of a service of a new release.
#[derive(Debug, Clone)]
pub struct NewService {
    /// The image, with its digest.
    pub image: ImageRef,
    /// The compose service. `build` is removed.
    pub composition: Map<String, Value>,
}

/// The fields of a release that can change. A field that is `None` stays as it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReleasePatch {
    pub status: Option<ReleaseStatus>,
    /// `Some(false)` is refused on a final release.
    pub is_final: Option<bool>,
    pub is_invalidated: Option<bool>,
    pub is_passing_tests: Option<bool>,
}

impl World {
    /// Creates a release and returns its number. If it is trackable, it may become the target of a tracking fleet. The
    /// record of a failed build of the same commit gives way to it.
    ///
    /// # Errors
    ///
    /// [`Refusal::CommitTaken`]; [`Refusal::NoImages`] for a release without services that did not fail;
    /// [`Refusal::TooManyServices`].
    pub fn create_release(&self, fleet: &Fleet, new: NewRelease) -> Result<(u64, Vec<Change>), Refusal> {
        if new.services.is_empty() && new.status != ReleaseStatus::Failed {
            return Err(Refusal::NoImages { commit: new.commit });
        }
        let mut changes = Vec::new();
        if let Some(same) = self.release_of(fleet.number, &new.commit) {
            if !same.has_no_images() {
                return Err(Refusal::CommitTaken { commit: new.commit });
            }
            changes.push(Change::DropRelease(same.number));
        }
        let mut counters = Counters { release: self.counters.release + 1, ..self.counters };
        let mut fleet = fleet.clone();
        let mut services = BTreeMap::new();
        for (name, service) in new.services {
            let image = self.number_service(&mut counters, &mut fleet, &name, service);
            services.insert(name, image);
        }
        self.bound_services(&mut fleet, &services)?;
        let release = Release {
            number: counters.release,
            fleet: fleet.number,
            commit: new.commit,
            status: new.status,
            is_final: new.is_final,
            is_invalidated: false,
            is_passing_tests: new.is_passing_tests,
            start_timestamp: new.start_timestamp,
            content: Arc::new(Content {
                services,
                networks: Compact::of(&new.networks),
                volumes: Compact::of(&new.volumes),
            }),
            build_log: new.build_log.map(Into::into),
        };
        if release.is_trackable() {
            self.follow(&mut fleet, &release);
        }
        let number = release.number;
        changes.extend([Change::Counters(counters), Change::PutFleet(fleet), Change::PutRelease(release)]);
        Ok((number, changes))
    }

    /// Changes the flags of a release, and the target of a tracking fleet if another release is newest now.
    ///
    /// # Errors
    ///
    /// [`Refusal::FinalIsForGood`]; [`Refusal::NoImages`] if it is the record of a failed build; [`Refusal::InUse`] for a status other than success
    /// while the release is a target or a pin.
    pub fn patch_release(&self, release: &Release, patch: ReleasePatch) -> Result<Vec<Change>, Refusal> {
        if release.is_final && patch.is_final == Some(false) {
            return Err(Refusal::FinalIsForGood { commit: release.commit.clone() });
        }
        if release.has_no_images() && patch.status.is_some_and(|status| status != ReleaseStatus::Failed) {
            return Err(Refusal::NoImages { commit: release.commit.clone() });
        }
        let changed = Release {
            status: patch.status.unwrap_or(release.status),
            is_final: patch.is_final.unwrap_or(release.is_final),
            is_invalidated: patch.is_invalidated.unwrap_or(release.is_invalidated),
            is_passing_tests: patch.is_passing_tests.unwrap_or(release.is_passing_tests),
            ..release.clone()
        };
        if changed == *release {
            return Ok(Vec::new());
        }
        if changed.status != ReleaseStatus::Success {
            self.check_unused(release, "be marked other than successful")?;
            self.check_not_rolled_out(release, "be marked other than successful")?;
        }
        let mut changes = Vec::new();
        if let Some(fleet) = self.fleets.get(&release.fleet) {
            let mut moved = Fleet::clone(fleet);
            self.follow(&mut moved, &changed);
            if moved != **fleet {
                changes.push(Change::PutFleet(moved));
            }
        }
        changes.push(Change::PutRelease(changed));
        Ok(changes)
    }

    /// Deletes a release. A device that still runs it then runs an unknown release.
    ///
    /// # Errors
    ///
    /// [`Refusal::InUse`] while it is the target of its fleet or a device is pinned to it.
    pub fn delete_release(&self, release: &Release) -> Result<Vec<Change>, Refusal> {
        self.check_unused(release, "be deleted")?;
        self.check_not_rolled_out(release, "be deleted")?;
        let gone = BTreeSet::from([release.number]);
        let reports = self.forget_releases(&gone, |_| true);
        Ok(std::iter::once(Change::DropRelease(release.number)).chain(reports).collect())
    }

    /// Removes deleted releases from the reports of the devices that are `meant`.
    pub(super) fn forget_releases(
        &self,
        gone: &BTreeSet<u64>,
        meant: impl Fn(&DeviceUuid) -> bool,
    ) -> impl Iterator<Item = Change> {
        let reports = self.reports.iter().filter(move |(uuid, _)| meant(uuid));
        reports.filter_map(|(uuid, reported)| {
            Some(Change::PutReports(uuid.clone(), reported.without_releases(gone)?))
        })
    }

    /// Sets a tracking fleet's target to the newest trackable release, with `event` as it will be after the act. If none is
    /// left, the target stays.
    fn follow(&self, fleet: &mut Fleet, event: &Release) {
        if !fleet.is_tracking_latest {
            return;
        }
        let others =
            self.releases_of(fleet.number).map(Arc::as_ref).filter(|release| release.number != event.number);
        let newest = others
            .chain(std::iter::once(event))
            .filter(|release| release.is_trackable())
            .max_by_key(|release| (release.start_timestamp, release.number));
        if let Some(newest) = newest {
            fleet.target = Some(newest.number);
        }
    }

    fn check_unused(&self, release: &Release, act: &'static str) -> Result<(), Refusal> {
        let fleet_target = self.fleets.values().any(|fleet| fleet.target == Some(release.number));
        let pinned: Vec<_> = self
            .devices()
            .filter(|device| device.pin == Some(release.number))
            .map(|device| device.uuid.clone())
            .collect();
        if fleet_target || !pinned.is_empty() {
            return Err(Refusal::InUse { commit: release.commit.clone(), act, fleet_target, pinned });
        }
        Ok(())
    }

    /// Checks that there is room for the releases that an act creates in a fleet.
    ///
    /// # Errors
    ///
    /// [`Refusal::TooManyReleases`], [`Refusal::ReleasesTooLarge`].
    pub fn check_room(&self, room: Room, fleet: &Fleet, changes: &[Change]) -> Result<(), Refusal> {
        let mut taken = self.taken.clone();
        for change in changes {
            if let Change::PutRelease(release) = change {
                taken.add(release);
            } else if let Change::DropRelease(number) = change {
                taken.remove(self.release(*number).map(Arc::as_ref));
            }
        }
        let of_fleet = taken.of(fleet.number);
        if of_fleet.releases > room.releases {
            return Err(Refusal::TooManyReleases { fleet: fleet.name.clone(), most: room.releases });
        }
        let too_large = |whose: String, most: usize, setting| Refusal::ReleasesTooLarge {
            fleet: fleet.name.clone(),
            whose,
            most_mib: most >> 20,
            setting,
        };
        if of_fleet.bytes > room.of_a_fleet {
            return Err(too_large(format!("fleet {}", fleet.name), room.of_a_fleet, "fleet_releases_mib"));
        }
        if taken.all.bytes > room.of_all {
            return Err(too_large("all fleets".to_owned(), room.of_all, "all_releases_mib"));
        }
        Ok(())
    }

    pub(super) fn other_fleet(&self, release: &Release, fleet: u64) -> Refusal {
        let name = |number| self.fleet(number).map_or_else(String::new, |fleet| fleet.name.clone());
        Refusal::OtherFleet {
            commit: release.commit.clone(),
            belongs_to: name(release.fleet),
            wanted: name(fleet),
        }
    }

    /// Forgets the numbers of services that no release has any more if a fleet has too many. Numbers are never used twice, so
    /// such a service gets another one when it comes back.
    fn bound_services(&self, fleet: &mut Fleet, new: &BTreeMap<ServiceName, Image>) -> Result<(), Refusal> {
        let before = self.fleet(fleet.number).map_or(0, |fleet| fleet.services.len());
        if fleet.services.len() <= MOST_SERVICES || fleet.services.len() == before {
            return Ok(());
        }
        let mut used: BTreeSet<&ServiceName> = new.keys().collect();
        used.extend(self.releases_of(fleet.number).flat_map(|release| release.content.services.keys()));
        fleet.services.retain(|name, _| used.contains(name));
        if fleet.services.len() > MOST_SERVICES {
            return Err(Refusal::TooManyServices { fleet: fleet.name.clone(), most: MOST_SERVICES });
        }
        Ok(())
    }

    /// Returns the numbers of a service and of its image: those of earlier releases, or else new ones.
    fn number_service(
        &self,
        counters: &mut Counters,
        fleet: &mut Fleet,
        name: &ServiceName,
        new: NewService,
    ) -> Image {
        let service = *fleet.services.entry(name.clone()).or_insert_with(|| {
            counters.service += 1;
            counters.service
        });
        let known = self
            .releases_of(fleet.number)
            .filter_map(|release| release.content.services.get(name))
            .find(|image| image.image == new.image)
            .map(|image| image.number);
        let number = known.unwrap_or_else(|| {
            counters.image += 1;
            counters.image
        });
        let mut composition = new.composition;
        composition.remove("build");
        Image { service, number, image: new.image, composition: Compact::of(&composition) }
    }
}

//! All records in memory: look-ups, the resolved target, and applying changes.

use std::ops::Bound;
use std::sync::{Arc, LazyLock};

use imbl::{OrdMap, OrdSet};

use super::matches::{begins, only_one};
use super::rollouts::AllRollouts;
use super::room::AllTaken;
use super::rules::SHORTEST_PREFIX;
use super::types::Bars;
use super::variables::AllVariables;
use super::webhooks::AllWebhooks;
use super::{
    Bar, Change, Choice, Counters, Device, Fleet, KeyHash, ProvisioningKey, Refusal, Release, Reported,
    VariableHolder,
};
use crate::fleet::access::Accounts;
use crate::fleet::repeats::Repeats;
use crate::model::{Commit, DeviceUuid};

/// All records of the fleet server. A clone is a snapshot: it costs the same however many records there are, and later
/// changes do not reach it.
#[derive(Debug, Clone, Default)]
pub struct World {
    pub(super) counters: Counters,
    pub(super) fleets: OrdMap<u64, Arc<Fleet>>,
    pub(super) releases: OrdMap<u64, Arc<Release>>,
    pub(super) taken: AllTaken,
    pub(super) devices: OrdMap<DeviceUuid, Arc<Device>>,
    pub(super) reports: OrdMap<DeviceUuid, Arc<Reported>>,
    pub(super) keys: OrdMap<KeyHash, Arc<ProvisioningKey>>,
    pub(super) bars: Bars,
    pub(super) accounts: Accounts,
    /// The number of the newest record of the audit trail.
    audited: u64,
    /// How far in the log of changes these records are, in a store that several servers share.
    pub(super) position: Option<u64>,
    pub(super) variables: AllVariables,
    pub(super) repeats: Repeats,
    pub(super) rollouts: AllRollouts,
    pub(super) webhooks: AllWebhooks,
    /// Keys of devices that were deleted by older versions.
    pub(super) retired: OrdSet<KeyHash>,
    /// Devices by key, for requests without a uuid.
    by_key: OrdMap<KeyHash, DeviceUuid>,
    /// Devices by name. Several, because records of older versions may have a name twice.
    by_name: OrdMap<String, Vec<DeviceUuid>>,
    by_fleet_uuid: OrdMap<String, u64>,
    by_fleet_name: OrdMap<String, u64>,
    /// Releases by fleet, oldest first.
    of_fleet: OrdSet<(u64, u64)>,
    by_commit: OrdMap<(u64, Commit), u64>,
}

/// What a device without reports reported.
static NOTHING: LazyLock<Reported> = LazyLock::new(Reported::default);

impl World {
    /// Makes the world of these records.
    #[must_use]
    pub fn of(changes: Vec<Change>) -> Self {
        let mut world = Self::default();
        for change in changes {
            world.apply(change);
        }
        world
    }

    /// Applies one change. It must come from an act on this world, or from the store.
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::Counters(counters) => self.counters = counters,
            Change::PutFleet(fleet) => self.put_fleet(fleet),
            Change::PutDevice(device) => self.put_device(device),
            Change::PutReports(uuid, reported) => {
                self.reports.insert(uuid, Arc::new(reported));
            }
            Change::PutRelease(release) => self.put_release(release),
            Change::PutKey(key) => {
                self.keys.insert(key.hash.clone(), Arc::new(key));
            }
            Change::DropDevice(uuid) => {
                self.reports.remove(&uuid);
                self.rollouts.forget(&uuid);
                self.variables.drop(&VariableHolder::Device(uuid.clone()));
                if let Some(device) = self.devices.remove(&uuid) {
                    self.by_key.remove(&device.key);
                    self.drop_name(&device.name, &uuid);
                }
            }
            Change::DropRelease(number) => self.drop_release(number),
            Change::DropKey(hash) => {
                self.keys.remove(&hash);
            }
            Change::DropFleet(number) => {
                self.variables.drop(&VariableHolder::Fleet(number));
                if let Some(fleet) = self.fleets.remove(&number) {
                    self.by_fleet_uuid.remove(fleet.uuid.as_str());
                    self.by_fleet_name.remove(&fleet.name);
                }
            }
            Change::RetireKey(hash) => {
                self.retired.insert(hash);
            }
            Change::PutRepeat(repeat) => self.repeats.put(*repeat),
            Change::DropRepeat(id) => self.repeats.drop(&id),
            Change::PutBar(bar) => self.bars.put(bar),
            Change::DropBar(uuid) => self.bars.drop(&uuid),
            Change::Access(change) => self.accounts.apply(change),
            Change::Audit(entry) => self.audited = self.audited.max(entry.number),
            Change::DropAudit(_) => {}
            Change::PutVariables(holder, variables) => self.variables.put(holder, variables),
            Change::PutRollout(rollout) => self.rollouts.put(*rollout),
            Change::DropRollout(number) => self.rollouts.drop(number),
            Change::PutMember(uuid, exposed) => self.rollouts.expose(uuid, exposed),
            Change::Webhook(change) => self.webhooks.apply(change),
        }
    }

    fn put_release(&mut self, release: Release) {
        self.of_fleet.insert((release.fleet, release.number));
        self.by_commit.insert((release.fleet, release.commit.clone()), release.number);
        self.taken.add(&release);
        let before = self.releases.insert(release.number, Arc::new(release));
        self.taken.remove(before.as_deref());
    }

    fn drop_release(&mut self, number: u64) {
        let Some(release) = self.releases.remove(&number) else { return };
        self.taken.remove(Some(&release));
        self.of_fleet.remove(&(release.fleet, number));
        let commit = (release.fleet, release.commit.clone());
        // The release of a build that succeeded may have its place already.
        if self.by_commit.get(&commit) == Some(&number) {
            self.by_commit.remove(&commit);
        }
    }

    fn put_fleet(&mut self, fleet: Fleet) {
        if let Some(before) = self.fleets.get(&fleet.number) {
            self.by_fleet_name.remove(&before.name);
        }
        self.by_fleet_name.insert(fleet.name.clone(), fleet.number);
        self.by_fleet_uuid.insert(fleet.uuid.to_string(), fleet.number);
        self.fleets.insert(fleet.number, Arc::new(fleet));
    }

    fn put_device(&mut self, device: Device) {
        let before = self.devices.get(&device.uuid).map(Arc::clone);
        if before.as_ref().is_none_or(|before| before.name != device.name) {
            if let Some(before) = &before {
                self.drop_name(&before.name, &before.uuid);
            }
            let mut named = self.by_name.get(&device.name).cloned().unwrap_or_default();
            named.push(device.uuid.clone());
            self.by_name.insert(device.name.clone(), named);
        }
        if let Some(before) = before.as_ref().filter(|before| before.key != device.key) {
            self.by_key.remove(&before.key);
        }
        if before.is_none_or(|before| before.key != device.key) {
            self.by_key.insert(device.key.clone(), device.uuid.clone());
        }
        self.devices.insert(device.uuid.clone(), Arc::new(device));
    }

    fn drop_name(&mut self, name: &str, uuid: &DeviceUuid) {
        let Some(mut named) = self.by_name.remove(name) else { return };
        named.retain(|other| other != uuid);
        if !named.is_empty() {
            self.by_name.insert(name.to_owned(), named);
        }
    }

    /// Returns the users and tokens.
    #[must_use]
    pub fn accounts(&self) -> &Accounts {
        &self.accounts
    }

    /// Returns the number of the newest record of the audit trail; 0 if there is none.
    #[must_use]
    pub fn audited(&self) -> u64 {
        self.audited
    }

    /// Returns all fleets, oldest first.
    pub fn fleets(&self) -> impl Iterator<Item = &Fleet> {
        self.fleets.values().map(AsRef::as_ref)
    }

    /// Returns all devices, by uuid.
    pub fn devices(&self) -> impl Iterator<Item = &Device> {
        self.devices.values().map(AsRef::as_ref)
    }

    /// Returns the devices with a uuid after this one, by uuid.
    pub fn devices_after(&self, after: Option<&DeviceUuid>) -> impl Iterator<Item = &Device> {
        let begin: Bound<DeviceUuid> = after.cloned().map_or(Bound::Unbounded, Bound::Excluded);
        self.devices.range((begin, Bound::Unbounded)).map(|(_, device)| device.as_ref())
    }

    /// Returns what a device reported, merged.
    #[must_use]
    pub fn reported(&self, uuid: &DeviceUuid) -> &Reported {
        self.reports.get(uuid).map_or(&*NOTHING, AsRef::as_ref)
    }

    /// Returns all releases, oldest first.
    pub fn releases(&self) -> impl Iterator<Item = &Arc<Release>> {
        self.releases.values()
    }

    /// Returns the releases with a number after this one, of one fleet or of all, oldest first.
    pub fn releases_after(
        &self,
        fleet: Option<u64>,
        after: u64,
    ) -> Box<dyn Iterator<Item = &Arc<Release>> + '_> {
        let begin = after.saturating_add(1);
        match fleet {
            Some(fleet) => {
                let numbers = self.of_fleet.range((fleet, begin)..=(fleet, u64::MAX));
                Box::new(numbers.filter_map(|(_, number)| self.releases.get(number)))
            }
            None => Box::new(self.releases.range(begin..).map(|(_, release)| release)),
        }
    }

    /// Returns the releases of one fleet, oldest first.
    pub fn releases_of(&self, fleet: u64) -> impl Iterator<Item = &Arc<Release>> {
        let numbers = self.of_fleet.range((fleet, 0)..=(fleet, u64::MAX));
        numbers.filter_map(|(_, number)| self.releases.get(number))
    }

    /// Returns the release of a fleet with exactly this commit.
    #[must_use]
    pub fn release_of(&self, fleet: u64, commit: &Commit) -> Option<&Arc<Release>> {
        self.releases.get(self.by_commit.get(&(fleet, commit.clone()))?)
    }

    #[must_use]
    pub fn fleet(&self, number: u64) -> Option<&Fleet> {
        self.fleets.get(&number).map(AsRef::as_ref)
    }

    #[must_use]
    pub fn release(&self, number: u64) -> Option<&Arc<Release>> {
        self.releases.get(&number)
    }

    #[must_use]
    pub fn device(&self, uuid: &DeviceUuid) -> Option<&Device> {
        self.devices.get(uuid).map(AsRef::as_ref)
    }

    /// Returns the device with this key.
    #[must_use]
    pub fn device_with_key(&self, key: &KeyHash) -> Option<&Device> {
        self.device(self.by_key.get(key)?)
    }

    /// Returns the devices with this name: none or one, but for records of older versions.
    pub(super) fn devices_named(&self, name: &str) -> impl Iterator<Item = &Device> {
        self.by_name.get(name).into_iter().flatten().filter_map(|uuid| self.device(uuid))
    }

    /// Returns the provisioning key with this hash.
    #[must_use]
    pub fn provisioning_key(&self, hash: &KeyHash) -> Option<&ProvisioningKey> {
        self.keys.get(hash).map(AsRef::as_ref)
    }

    /// Returns whether a device has this key, or had it when an older version deleted it.
    pub(super) fn is_key_taken(&self, key: &KeyHash) -> bool {
        self.by_key.contains_key(key) || self.retired.contains(key) || self.keys.contains_key(key)
    }

    /// Returns the fleet with this uuid.
    #[must_use]
    pub fn fleet_with_uuid(&self, uuid: &str) -> Option<&Fleet> {
        self.fleet(*self.by_fleet_uuid.get(uuid)?)
    }

    /// Returns the fleet with this name.
    pub(super) fn fleet_named(&self, name: &str) -> Option<&Fleet> {
        self.fleet(*self.by_fleet_name.get(name)?)
    }

    /// Finds a fleet by name, uuid or number.
    ///
    /// # Errors
    ///
    /// [`Refusal::NoSuchFleet`].
    pub fn find_fleet(&self, text: &str) -> Result<&Fleet, Refusal> {
        self.fleet_named(text)
            .or_else(|| self.fleet_with_uuid(text))
            .or_else(|| self.fleet(text.parse().ok()?))
            .ok_or_else(|| Refusal::NoSuchFleet { given: text.to_owned() })
    }

    /// Finds a device by uuid, a prefix of it (4 or more), or name, if only one matches.
    ///
    /// # Errors
    ///
    /// [`Refusal::NoSuchDevice`], [`Refusal::Ambiguous`].
    pub fn find_device(&self, text: &str) -> Result<&Device, Refusal> {
        if let Some(device) = DeviceUuid::parse(text).ok().and_then(|uuid| self.device(&uuid)) {
            return Ok(device);
        }
        // A device name never looks like the beginning of a uuid, but records of older versions may have such names.
        let fits = self
            .devices_named(text)
            .chain(self.devices().filter(|device| begins(device.uuid.as_str(), text) && device.name != text));
        only_one("device", text, fits, |device| format!("{} ({})", device.uuid, device.name))?
            .ok_or_else(|| Refusal::NoSuchDevice { given: text.to_owned() })
    }

    /// Finds a deleted device, as [`World::find_device`] finds others.
    ///
    /// # Errors
    ///
    /// [`Refusal::NoSuchBar`], [`Refusal::Ambiguous`].
    pub fn find_bar(&self, text: &str) -> Result<&Bar, Refusal> {
        if let Some(bar) = DeviceUuid::parse(text).ok().and_then(|uuid| self.bars.of(&uuid)) {
            return Ok(bar);
        }
        let is_it = |Bar { device, .. }: &&Bar| device.name == text || begins(device.uuid.as_str(), text);
        let label = |bar: &&Bar| format!("{} ({})", bar.device.uuid, bar.device.name);
        only_one("deleted device", text, self.bars.all().filter(is_it), label)?
            .ok_or_else(|| Refusal::NoSuchBar { given: text.to_owned() })
    }

    /// Finds a provisioning key by name, id or a prefix of that (4 or more), in one fleet or in all.
    ///
    /// # Errors
    ///
    /// [`Refusal::NoSuchKey`], [`Refusal::Ambiguous`].
    pub fn find_key(&self, fleet: Option<u64>, text: &str) -> Result<&ProvisioningKey, Refusal> {
        let is_it = |key: &&ProvisioningKey| {
            fleet.is_none_or(|fleet| fleet == key.fleet)
                && (key.name.as_deref() == Some(text) || begins(&key.hash.0, text))
        };
        let label = |key: &&ProvisioningKey| {
            let fleet = self.fleets.get(&key.fleet).map_or("?", |fleet| fleet.name.as_str());
            format!("{} of {fleet}", key.label())
        };
        only_one("provisioning key", text, self.keys.values().map(AsRef::as_ref).filter(is_it), label)?
            .ok_or_else(|| Refusal::NoSuchKey { given: text.to_owned() })
    }

    /// Finds a release by commit or by a prefix of it (4 or more), in one fleet or in all.
    ///
    /// # Errors
    ///
    /// [`Refusal::NoSuchRelease`], [`Refusal::Ambiguous`]; and [`Refusal::OtherFleet`] if `fleet` has no such release but
    /// another fleet has.
    pub fn find_release(&self, fleet: Option<u64>, text: &str) -> Result<&Arc<Release>, Refusal> {
        if let Some(found) = self.find_among(text, |release| fleet.is_none_or(|f| f == release.fleet))? {
            return Ok(found);
        }
        if let (Some(fleet), Some(other)) = (fleet, self.find_among(text, |_| true).ok().flatten()) {
            return Err(self.other_fleet(other, fleet));
        }
        Err(Refusal::NoSuchRelease { given: text.to_owned() })
    }

    pub(super) fn find_among(
        &self,
        text: &str,
        may: impl Fn(&Release) -> bool,
    ) -> Result<Option<&Arc<Release>>, Refusal> {
        let of_fleet = || self.releases.values().filter(|release| may(release));
        let mut exact = of_fleet().filter(|release| release.commit.as_str() == text).peekable();
        let label = |release: &&Arc<Release>| {
            let fleet = self.fleets.get(&release.fleet).map_or("?", |fleet| fleet.name.as_str());
            format!("{} of {fleet}", release.commit)
        };
        if exact.peek().is_some() {
            return only_one("release", text, exact, label);
        }
        if text.len() < SHORTEST_PREFIX {
            return Ok(None);
        }
        let fits = of_fleet().filter(|release| release.commit.as_str().starts_with(text));
        only_one("release", text, fits, label)
    }

    /// Returns the devices of a list or a bulk act.
    #[must_use]
    pub fn matching(&self, choice: &Choice) -> Vec<&Device> {
        self.devices().filter(|device| choice.matches(device)).collect()
    }
}

//! All records in memory: look-ups, the resolved target, and applying changes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::rules::SHORTEST_PREFIX;
use super::types::Bars;
use super::{Bar, Change, Choice, Counters, Device, Fleet, KeyHash, ProvisioningKey, Refusal, Release};
use crate::fleet::access::Accounts;
use crate::model::DeviceUuid;

/// All records of the fleet server.
#[derive(Debug, Clone, Default)]
pub struct World {
    pub(super) counters: Counters,
    pub(super) fleets: BTreeMap<u64, Fleet>,
    pub(super) releases: BTreeMap<u64, Arc<Release>>,
    pub(super) devices: BTreeMap<DeviceUuid, Device>,
    pub(super) keys: BTreeMap<KeyHash, ProvisioningKey>,
    pub(super) bars: Bars,
    accounts: Accounts,
    /// Keys of devices that were deleted by older versions.
    retired: BTreeSet<KeyHash>,
    /// Devices by key, for requests without a uuid.
    by_key: BTreeMap<KeyHash, DeviceUuid>,
    by_fleet_uuid: BTreeMap<String, u64>,
}

impl World {
    /// Applies one change. It must come from an act on this world, or from the store.
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::Counters(counters) => self.counters = counters,
            Change::PutFleet(fleet) => {
                self.by_fleet_uuid.insert(fleet.uuid.to_string(), fleet.number);
                self.fleets.insert(fleet.number, fleet);
            }
            Change::PutDevice(device) => {
                self.by_key.insert(device.key.clone(), device.uuid.clone());
                self.devices.insert(device.uuid.clone(), device);
            }
            Change::PutRelease(release) => {
                self.releases.insert(release.number, Arc::new(release));
            }
            Change::PutKey(key) => {
                self.keys.insert(key.hash.clone(), key);
            }
            Change::DropDevice(uuid) => {
                if let Some(device) = self.devices.remove(&uuid) {
                    self.by_key.remove(&device.key);
                }
            }
            Change::DropRelease(number) => {
                self.releases.remove(&number);
            }
            Change::DropKey(hash) => {
                self.keys.remove(&hash);
            }
            Change::DropFleet(number) => {
                if let Some(fleet) = self.fleets.remove(&number) {
                    self.by_fleet_uuid.remove(fleet.uuid.as_str());
                }
            }
            Change::RetireKey(hash) => {
                self.retired.insert(hash);
            }
            Change::PutBar(bar) => self.bars.put(bar),
            Change::DropBar(uuid) => self.bars.drop(&uuid),
            Change::Access(change) => self.accounts.apply(change),
            Change::Audit(_) | Change::DropAudit(_) => {}
        }
    }

    /// Returns the release that `device` should run: its own pin, else its fleet's target, else none.
    #[must_use]
    pub fn target_of(&self, device: &Device) -> Option<&Arc<Release>> {
        let fleet_target = || self.fleets.get(&device.fleet).and_then(|fleet| fleet.target);
        self.releases.get(&device.pin.or_else(fleet_target)?)
    }

    /// Returns the target of a fleet that tracks latest: the trackable release with the newest start timestamp, and of two
    /// with the same one, the one that was created later.
    #[must_use]
    pub fn latest_trackable(&self, fleet: u64) -> Option<&Arc<Release>> {
        self.releases_of(fleet)
            .filter(|release| release.is_trackable())
            .max_by_key(|release| (release.start_timestamp, release.number))
    }

    /// Returns the users and tokens.
    #[must_use]
    pub fn accounts(&self) -> &Accounts {
        &self.accounts
    }

    /// Returns all fleets, oldest first.
    pub fn fleets(&self) -> impl Iterator<Item = &Fleet> {
        self.fleets.values()
    }

    /// Returns all devices, by uuid.
    pub fn devices(&self) -> impl Iterator<Item = &Device> {
        self.devices.values()
    }

    /// Returns all releases, oldest first.
    pub fn releases(&self) -> impl Iterator<Item = &Arc<Release>> {
        self.releases.values()
    }

    /// Returns the releases of one fleet, oldest first.
    pub fn releases_of(&self, fleet: u64) -> impl Iterator<Item = &Arc<Release>> {
        self.releases.values().filter(move |release| release.fleet == fleet)
    }

    #[must_use]
    pub fn fleet(&self, number: u64) -> Option<&Fleet> {
        self.fleets.get(&number)
    }

    #[must_use]
    pub fn release(&self, number: u64) -> Option<&Arc<Release>> {
        self.releases.get(&number)
    }

    #[must_use]
    pub fn device(&self, uuid: &DeviceUuid) -> Option<&Device> {
        self.devices.get(uuid)
    }

    /// Returns the device with this key.
    #[must_use]
    pub fn device_with_key(&self, key: &KeyHash) -> Option<&Device> {
        self.devices.get(self.by_key.get(key)?)
    }

    /// Returns the provisioning key with this hash.
    #[must_use]
    pub fn provisioning_key(&self, hash: &KeyHash) -> Option<&ProvisioningKey> {
        self.keys.get(hash)
    }

    /// Returns whether a device has this key, or had it when an older version deleted it.
    pub(super) fn is_key_taken(&self, key: &KeyHash) -> bool {
        self.by_key.contains_key(key) || self.retired.contains(key) || self.keys.contains_key(key)
    }

    /// Returns the fleet with this uuid.
    #[must_use]
    pub fn fleet_with_uuid(&self, uuid: &str) -> Option<&Fleet> {
        self.fleets.get(self.by_fleet_uuid.get(uuid)?)
    }

    /// Finds a fleet by name, uuid or number.
    ///
    /// # Errors
    ///
    /// [`Refusal::NoSuchFleet`].
    pub fn find_fleet(&self, text: &str) -> Result<&Fleet, Refusal> {
        let named = self.fleets.values().find(|fleet| fleet.name == text);
        named
            .or_else(|| self.fleet_with_uuid(text))
            .or_else(|| self.fleets.get(&text.parse().ok()?))
            .ok_or_else(|| Refusal::NoSuchFleet { given: text.to_owned() })
    }

    /// Finds a device by uuid, a prefix of it (4 or more), or name, if only one matches.
    ///
    /// # Errors
    ///
    /// [`Refusal::NoSuchDevice`], [`Refusal::Ambiguous`].
    pub fn find_device(&self, text: &str) -> Result<&Device, Refusal> {
        if let Some(device) = DeviceUuid::parse(text).ok().and_then(|uuid| self.devices.get(&uuid)) {
            return Ok(device);
        }
        let is_it = |device: &&Device| device.name == text || begins(device.uuid.as_str(), text);
        let fits = self.devices.values().filter(is_it);
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
        only_one("provisioning key", text, self.keys.values().filter(is_it), label)?
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
        self.devices.values().filter(|device| choice.matches(device)).collect()
    }

    pub(super) fn other_fleet(&self, release: &Release, fleet: u64) -> Refusal {
        let name = |number| self.fleets.get(&number).map_or_else(String::new, |f: &Fleet| f.name.clone());
        Refusal::OtherFleet {
            commit: release.commit.clone(),
            belongs_to: name(release.fleet),
            wanted: name(fleet),
        }
    }
}

/// Returns whether `text` is a prefix of `id` that is long enough.
pub(super) fn begins(id: &str, text: &str) -> bool {
    text.len() >= SHORTEST_PREFIX && id.starts_with(text)
}

/// Returns the only match, or none.
pub(super) fn only_one<T>(
    what: &'static str,
    given: &str,
    mut fits: impl Iterator<Item = T>,
    label: impl Fn(&T) -> String,
) -> Result<Option<T>, Refusal> {
    let Some(first) = fits.next() else { return Ok(None) };
    let Some(second) = fits.next() else { return Ok(Some(first)) };
    let matches = [first, second].iter().map(&label).chain(fits.take(3).map(|more| label(&more))).collect();
    Err(Refusal::Ambiguous { what, given: given.to_owned(), matches })
}

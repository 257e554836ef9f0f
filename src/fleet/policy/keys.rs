//! Provisioning keys: they register devices in a fleet, with limits of number, rate and time.
//!
//! Callers pass the time. A key is never deleted: a revoked one still shows which devices registered with it.

use jiff::{SignedDuration, Timestamp};

use super::rules::{check_key_name, check_range, shown};
use super::{Change, Fleet, KeyEnd, KeyHash, ProvisioningKey, Refusal, World};

/// The default of registrations per minute.
pub const USUAL_PER_MINUTE: u32 = 60;

/// The accepted values of an operator's limits.
const PER_MINUTE: std::ops::RangeInclusive<u64> = 1..=6_000;
const USES: std::ops::RangeInclusive<u64> = 1..=1_000_000;

const MINUTE: i64 = 60_000_000;

/// The values of a new provisioning key.
#[derive(Debug, Clone)]
pub struct NewKey {
    pub hash: KeyHash,
    pub created: Timestamp,
    pub name: Option<String>,
    /// How long it can register devices; `None`: until it is revoked.
    pub expires_in: Option<SignedDuration>,
    pub most_uses: Option<u64>,
    pub per_minute: Option<u32>,
}

impl NewKey {
    /// Makes a key without a name, and without limits other than the default rate.
    #[must_use]
    pub fn plain(hash: KeyHash, created: Timestamp) -> Self {
        Self { hash, created, name: None, expires_in: None, most_uses: None, per_minute: None }
    }
}

impl ProvisioningKey {
    fn new(new: NewKey, fleet: u64) -> Self {
        let NewKey { hash, created, name, expires_in, most_uses, per_minute } = new;
        // A time that is too far ahead to be represented counts as no end.
        let expires = expires_in.and_then(|wait| created.checked_add(wait).ok());
        Self {
            hash,
            fleet,
            created,
            name,
            expires,
            most_uses,
            uses: 0,
            per_minute,
            revoked: None,
            last_used: None,
            rate_used_until: None,
        }
    }

    /// Returns why it can register no more devices; `None` if it can.
    #[must_use]
    pub fn end(&self, now: Timestamp) -> Option<KeyEnd> {
        let expired = self.expires.filter(|expires| *expires <= now);
        let used_up = self.most_uses.filter(|most| *most <= self.uses);
        let revoked = self.revoked.map(KeyEnd::Revoked);
        revoked.or(expired.map(KeyEnd::Expired)).or(used_up.map(KeyEnd::UsedUp))
    }

    /// Returns how many devices it can register per minute.
    #[must_use]
    pub fn rate(&self) -> u32 {
        self.per_minute.unwrap_or(USUAL_PER_MINUTE)
    }

    /// Formats its id, and its name if it has one.
    #[must_use]
    pub fn label(&self) -> String {
        match &self.name {
            Some(name) => format!("{} ({name})", self.hash.id()),
            None => self.hash.id().to_owned(),
        }
    }

    /// Returns the key after one more registration.
    ///
    /// The registrations of one minute may come at once. After that, one is accepted per 60 s / rate.
    ///
    /// # Errors
    ///
    /// [`Refusal::TooManyRegistrations`].
    pub(super) fn used(&self, now: Timestamp) -> Result<Self, Refusal> {
        let (micros, rate) = (now.as_microsecond(), self.rate());
        let cost = MINUTE / i64::from(rate.max(1));
        // If it is more than a minute ahead, the clock was set back. Begin to count again.
        let ahead = |until: &i64| (micros..=micros.saturating_add(MINUTE)).contains(until);
        let until = self.rate_used_until.map(Timestamp::as_microsecond).filter(ahead).unwrap_or(micros);
        let until = until.saturating_add(cost);
        let excess = until.saturating_sub(micros).saturating_sub(MINUTE);
        if excess > 0 {
            let retry_after_s = u64::try_from(excess).unwrap_or(0).div_ceil(1_000_000).max(1);
            return Err(Refusal::TooManyRegistrations { key: self.label(), rate, retry_after_s });
        }
        let rate_used_until = Timestamp::from_microsecond(until).ok();
        Ok(Self { uses: self.uses + 1, last_used: Some(now), rate_used_until, ..self.clone() })
    }
}

impl World {
    /// Adds a new key that registers devices in a fleet. Earlier keys stay valid.
    ///
    /// # Errors
    ///
    /// [`Refusal::BadText`] for its name, [`Refusal::KeyNameTaken`], [`Refusal::OutOfRange`] for a limit.
    pub fn create_key(&self, fleet: &Fleet, new: NewKey) -> Result<Vec<Change>, Refusal> {
        if let Some(name) = &new.name {
            check_key_name(name)?;
            if self.keys_of(fleet.number).any(|key| key.name.as_ref() == Some(name)) {
                return Err(Refusal::KeyNameTaken { name: name.clone(), fleet: fleet.name.clone() });
            }
        }
        check_range("number of uses", new.most_uses, USES)?;
        check_range("number of registrations per minute", new.per_minute.map(u64::from), PER_MINUTE)?;
        Ok(vec![Change::PutKey(ProvisioningKey::new(new, fleet.number))])
    }

    /// Revokes a key for ever. One that was revoked before keeps its time.
    #[must_use]
    pub fn revoke_key(&self, key: &ProvisioningKey, now: Timestamp) -> Vec<Change> {
        if key.revoked.is_some() {
            return Vec::new();
        }
        vec![Change::PutKey(ProvisioningKey { revoked: Some(now), ..key.clone() })]
    }

    /// Returns the provisioning keys of a fleet, oldest first.
    #[must_use]
    pub fn keys_by_age(&self, fleet: &Fleet) -> Vec<&ProvisioningKey> {
        let mut keys: Vec<_> = self.keys_of(fleet.number).collect();
        keys.sort_by_key(|key| (key.created, &key.hash));
        keys
    }

    /// Returns the fleet of a key with which a device is about to join the fleet `given`: its name, its number or its uuid.
    ///
    /// # Errors
    ///
    /// [`Refusal::KeyEnded`]; [`Refusal::NotOfKey`] for another fleet, whether there is one or not: a key must not tell its
    /// holder which other fleets there are.
    pub fn admits(
        &self,
        key: &ProvisioningKey,
        given: Option<&str>,
        now: Timestamp,
    ) -> Result<&Fleet, Refusal> {
        self.check_active(key, now)?;
        let fleet = self.fleet(key.fleet);
        let fleet = fleet.ok_or_else(|| Refusal::NoSuchFleet { given: key.fleet.to_string() })?;
        let is_it = |given: &str| {
            given == fleet.name || given == fleet.uuid.as_str() || given.parse() == Ok(fleet.number)
        };
        match given {
            Some(given) if !is_it(given) => Err(Refusal::NotOfKey {
                given: shown(given),
                fleet: fleet.name.clone(),
                number: fleet.number,
            }),
            Some(_) | None => Ok(fleet),
        }
    }

    pub(super) fn keys_of(&self, fleet: u64) -> impl Iterator<Item = &ProvisioningKey> {
        self.keys.values().map(AsRef::as_ref).filter(move |key| key.fleet == fleet)
    }

    pub(super) fn check_active(&self, key: &ProvisioningKey, now: Timestamp) -> Result<(), Refusal> {
        let Some(why) = key.end(now) else { return Ok(()) };
        let fleet = self.fleets.get(&key.fleet).map_or_else(String::new, |fleet| fleet.name.clone());
        Err(Refusal::KeyEnded { key: key.label(), fleet, why })
    }
}

//! What a token for some fleets sees of the world, and which fleets an act changes.

use std::collections::BTreeSet;
use std::ops::Deref;
use std::sync::Arc;

use super::matches::{begins, only_one};
use super::{
    Bar, Change, Choice, Device, Fleet, ProvisioningKey, Refusal, Release, VariableHolder, Variables, World,
};
use crate::fleet::access::{AccessChange, Scope, Thing};
use crate::fleet::rollout::Rollout;
use crate::fleet::webhook::{Webhook, WebhookChange};
use crate::model::DeviceUuid;

/// The world as a token sees it. Lists and searches are those of [`World`], without what is out of its scope. The rules of
/// the policy, such as the one that names are unique, see all of it through [`Deref`].
#[derive(Debug)]
pub struct Sight<W> {
    world: W,
    scope: Arc<Scope>,
}

impl<W: Deref<Target = World>> Deref for Sight<W> {
    type Target = World;

    fn deref(&self) -> &World {
        &self.world
    }
}

impl<W: Deref<Target = World>> Sight<W> {
    pub fn new(world: W, scope: Arc<Scope>) -> Self {
        Self { world, scope }
    }

    #[must_use]
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    pub fn fleets(&self) -> impl Iterator<Item = &Fleet> {
        self.world.fleets().filter(|fleet| self.scope.has(fleet.number))
    }

    pub fn devices(&self) -> impl Iterator<Item = &Device> {
        self.world.devices().filter(|device| self.scope.has(device.fleet))
    }

    pub fn devices_after(&self, after: Option<&DeviceUuid>) -> impl Iterator<Item = &Device> {
        self.world.devices_after(after).filter(|device| self.scope.has(device.fleet))
    }

    pub fn releases(&self) -> impl Iterator<Item = &Arc<Release>> {
        self.world.releases().filter(|release| self.scope.has(release.fleet))
    }

    pub fn releases_after(&self, fleet: Option<u64>, after: u64) -> impl Iterator<Item = &Arc<Release>> {
        self.world.releases_after(fleet, after).filter(|release| self.scope.has(release.fleet))
    }

    pub fn rollouts_before(&self, before: u64) -> impl Iterator<Item = &Arc<Rollout>> {
        self.world.rollouts_before(before).filter(|rollout| self.scope.has(rollout.fleet))
    }

    pub fn bars_after(&self, after: Option<&DeviceUuid>) -> impl Iterator<Item = &Bar> {
        self.world.bars_after(after).filter(|bar| self.scope.has(bar.device.fleet))
    }

    pub fn variable_holders(
        &self,
        from: Option<&VariableHolder>,
    ) -> impl Iterator<Item = (&VariableHolder, &Variables)> {
        let fleet = |holder: &VariableHolder| match holder {
            VariableHolder::Fleet(number) => Some(*number),
            VariableHolder::Device(uuid) => self.world.device(uuid).map(|device| device.fleet),
        };
        let holders = self.world.variable_holders(from);
        holders.filter(move |(holder, _)| fleet(holder).is_some_and(|fleet| self.scope.has(fleet)))
    }

    /// As [`World::matching`], of the fleets in scope.
    #[must_use]
    pub fn matching(&self, choice: &Choice) -> Vec<&Device> {
        let mut devices = self.world.matching(choice);
        devices.retain(|device| self.scope.has(device.fleet));
        devices
    }

    /// As [`World::find_fleet`].
    ///
    /// # Errors
    ///
    /// Also [`Refusal::OutOfScope`].
    pub fn find_fleet(&self, text: &str) -> Result<&Fleet, Refusal> {
        let found = self.world.find_fleet(text).ok().filter(|fleet| self.scope.has(fleet.number));
        found.ok_or_else(|| self.missing("fleet", text, Refusal::NoSuchFleet { given: text.to_owned() }))
    }

    /// As [`World::find_device`].
    ///
    /// # Errors
    ///
    /// Also [`Refusal::OutOfScope`].
    pub fn find_device(&self, text: &str) -> Result<&Device, Refusal> {
        if *self.scope == Scope::All {
            return self.world.find_device(text);
        }
        let exact = DeviceUuid::parse(text).ok().and_then(|uuid| self.world.device(&uuid));
        if let Some(device) = exact.filter(|device| self.scope.has(device.fleet)) {
            return Ok(device);
        }
        let fits = self.devices().filter(|device| device.name == text || begins(device.uuid.as_str(), text));
        let missing = Refusal::NoSuchDevice { given: text.to_owned() };
        only_one("device", text, fits, |device| format!("{} ({})", device.uuid, device.name))?
            .ok_or_else(|| self.missing("device", text, missing))
    }

    /// As [`World::find_bar`].
    ///
    /// # Errors
    ///
    /// Also [`Refusal::OutOfScope`].
    pub fn find_bar(&self, text: &str) -> Result<&Bar, Refusal> {
        if *self.scope == Scope::All {
            return self.world.find_bar(text);
        }
        let fits = self.bars_after(None).filter(|Bar { device, .. }| {
            device.uuid.as_str() == text || device.name == text || begins(device.uuid.as_str(), text)
        });
        let label = |bar: &&Bar| format!("{} ({})", bar.device.uuid, bar.device.name);
        let missing = Refusal::NoSuchBar { given: text.to_owned() };
        only_one("deleted device", text, fits, label)?
            .ok_or_else(|| self.missing("deleted device", text, missing))
    }

    /// As [`World::find_key`].
    ///
    /// # Errors
    ///
    /// Also [`Refusal::OutOfScope`].
    pub fn find_key(&self, fleet: Option<u64>, text: &str) -> Result<&ProvisioningKey, Refusal> {
        let found = match (fleet, &*self.scope) {
            (Some(fleet), scope) if scope.has(fleet) => return self.world.find_key(Some(fleet), text),
            (None, Scope::All) => return self.world.find_key(None, text),
            (Some(_), _) => None,
            // The name of a key is unique in its fleet.
            (None, Scope::Fleets(fleets)) => {
                let mut found = fleets.iter().filter_map(|fleet| {
                    let found = self.world.find_key(Some(*fleet), text);
                    (!matches!(found, Err(Refusal::NoSuchKey { .. }))).then_some(found)
                });
                let first = found.next().transpose()?;
                if let (Some(first), Some(second)) = (first, found.next().transpose()?) {
                    let matches = [first, second].map(ProvisioningKey::label).to_vec();
                    return Err(Refusal::Ambiguous {
                        what: "provisioning key",
                        given: text.to_owned(),
                        matches,
                    });
                }
                first
            }
        };
        let missing = Refusal::NoSuchKey { given: text.to_owned() };
        found.ok_or_else(|| self.missing("provisioning key", text, missing))
    }

    /// As [`World::find_release`].
    ///
    /// # Errors
    ///
    /// Also [`Refusal::OutOfScope`], but not if a fleet of the scope is named: then there is no such release in it.
    pub fn find_release(&self, fleet: Option<u64>, text: &str) -> Result<&Arc<Release>, Refusal> {
        if *self.scope == Scope::All {
            return self.world.find_release(fleet, text);
        }
        let may = |release: &Release| {
            self.scope.has(release.fleet) && fleet.is_none_or(|fleet| fleet == release.fleet)
        };
        if let Some(found) = self.world.find_among(text, may)? {
            return Ok(found);
        }
        let missing = Refusal::NoSuchRelease { given: text.to_owned() };
        let is_known = fleet.is_some_and(|fleet| self.scope.has(fleet));
        Err(if is_known { missing } else { self.missing("release", text, missing) })
    }

    /// Checks that an act changed nothing out of scope. Searches have found nothing there, so it finds a mistake of ours.
    ///
    /// # Errors
    ///
    /// [`Refusal::OutOfScope`].
    pub fn check(&self, changes: &[Change]) -> Result<(), Refusal> {
        if *self.scope == Scope::All {
            return Ok(());
        }
        let is_within = |change: &Change| {
            let (thing, fleets) = self.world.touched(change);
            thing.is_none() || (!fleets.is_empty() && fleets.iter().all(|fleet| self.scope.has(*fleet)))
        };
        match changes.iter().all(is_within) {
            true => Ok(()),
            false => Err(Refusal::OutOfScope { what: "record", given: String::new(), fleets: self.names() }),
        }
    }

    /// Returns a refusal of the policy without what is out of scope.
    #[must_use]
    pub fn concealed(&self, refusal: Refusal) -> Refusal {
        if let Refusal::NameTaken { name, uuid } = &refusal
            && self.world.device(uuid).is_some_and(|device| !self.scope.has(device.fleet))
        {
            return Refusal::NameTakenBeyond { name: name.clone() };
        }
        refusal
    }

    /// A token for some fleets must not learn whether other fleets have what it names.
    fn missing(&self, what: &'static str, given: &str, missing: Refusal) -> Refusal {
        match *self.scope {
            Scope::All => missing,
            Scope::Fleets(_) => Refusal::OutOfScope { what, given: given.to_owned(), fleets: self.names() },
        }
    }

    /// The names of the fleets in scope that exist.
    fn names(&self) -> Vec<String> {
        self.fleets().map(|fleet| fleet.name.clone()).collect()
    }
}

impl World {
    /// Returns the things and the fleets that these changes of this world are about, for the audit trail: the first `most`
    /// things, and how many there are.
    #[must_use]
    pub fn things(&self, changes: &[Change], most: usize) -> (Vec<Thing>, usize, BTreeSet<u64>) {
        let (mut things, mut count, mut fleets) = (Vec::<Thing>::new(), 0, BTreeSet::new());
        let mut last = None;
        for change in changes {
            let (thing, of) = self.touched(change);
            fleets.extend(of);
            if thing.is_none() || thing == last {
                continue;
            }
            count += 1;
            things.extend(thing.clone().filter(|_| count <= most));
            last = thing;
        }
        (things, count, fleets)
    }

    /// Returns the thing that a change is about, and the fleets that it belongs to before and after.
    fn touched(&self, change: &Change) -> (Option<Thing>, Vec<u64>) {
        let of_release =
            |release: &Release| (thing("release", release.commit.as_str(), None), vec![release.fleet]);
        let of_key = |key: &ProvisioningKey| {
            (thing("provisioning key", key.hash.id(), key.name.as_deref()), vec![key.fleet])
        };
        let nothing = (None, Vec::new());
        match change {
            Change::PutFleet(fleet) => {
                (thing("fleet", fleet.uuid.as_str(), Some(&fleet.name)), vec![fleet.number])
            }
            Change::DropFleet(number) => self.fleet(*number).map_or((None, vec![*number]), |fleet| {
                (thing("fleet", fleet.uuid.as_str(), Some(&fleet.name)), vec![*number])
            }),
            Change::PutDevice(device) => {
                let before = self.device(&device.uuid).map(|before| before.fleet);
                let (thing, fleets) = of_device(device);
                (thing, fleets.into_iter().chain(before).collect())
            }
            Change::DropDevice(uuid) => self.device(uuid).map_or(nothing, of_device),
            Change::PutBar(bar) => of_device(&bar.device),
            Change::DropBar(uuid) => self.bar(uuid).map_or(nothing, |bar| of_device(&bar.device)),
            Change::PutRelease(release) => of_release(release),
            Change::DropRelease(number) => {
                self.release(*number).map_or(nothing, |release| of_release(release))
            }
            Change::PutKey(key) => of_key(key),
            Change::DropKey(hash) => self.provisioning_key(hash).map_or(nothing, of_key),
            Change::PutVariables(VariableHolder::Fleet(number), _) => {
                self.fleet(*number).map_or(nothing, |fleet| {
                    (thing("fleet", fleet.uuid.as_str(), Some(&fleet.name)), vec![*number])
                })
            }
            Change::PutVariables(VariableHolder::Device(uuid), _) => {
                self.device(uuid).map_or(nothing, of_device)
            }
            Change::Access(AccessChange::PutUser(user)) => (thing("user", &user.name, None), Vec::new()),
            Change::Access(AccessChange::PutToken(token)) => {
                (thing("token", token.hash.id(), Some(&token.name)), Vec::new())
            }
            Change::PutRollout(rollout) => self.rollout_thing(rollout),
            Change::Webhook(WebhookChange::Put(webhook)) => of_webhook(webhook),
            Change::Webhook(WebhookChange::Drop(name)) => self.webhook(name).map_or(nothing, of_webhook),
            // Reports change when a release that they name is deleted, also those of a device that was moved away.
            Change::PutReports(..)
            | Change::Counters(_)
            | Change::DropRollout(_)
            | Change::PutMember(..)
            | Change::Webhook(WebhookChange::PutMessage(_) | WebhookChange::DropMessage(_))
            | Change::RetireKey(_)
            | Change::PutRepeat(_)
            | Change::DropRepeat(_)
            | Change::Audit(_)
            | Change::DropAudit(_) => nothing,
        }
    }
}

impl World {
    /// A rollout is named by its release.
    fn rollout_thing(&self, rollout: &Rollout) -> (Option<Thing>, Vec<u64>) {
        let commit = self.release(rollout.release).map(|release| release.commit.to_string());
        (thing("rollout", &rollout.number.to_string(), commit.as_deref()), vec![rollout.fleet])
    }
}

fn of_webhook(webhook: &Webhook) -> (Option<Thing>, Vec<u64>) {
    let fleets = match &webhook.scope {
        Scope::All => Vec::new(),
        Scope::Fleets(fleets) => fleets.iter().copied().collect(),
    };
    (thing("webhook", &webhook.name, None), fleets)
}

fn of_device(device: &Device) -> (Option<Thing>, Vec<u64>) {
    (thing("device", device.uuid.as_str(), Some(&device.name)), vec![device.fleet])
}

fn thing(kind: &str, id: &str, name: Option<&str>) -> Option<Thing> {
    Some(Thing { kind: kind.to_owned(), id: id.to_owned(), name: name.map(str::to_owned) })
}

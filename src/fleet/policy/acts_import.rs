//! The act of an import: creates what is missing, and refuses what is on the server already and differs. All of it is checked
//! before anything is changed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;

use super::rules::{
    check_device_name, check_device_type, check_fleet_name, check_tag, check_tag_count, checked_registry,
};
use super::{
    Change, Content, Counters, Device, Fleet, FleetPatch, KeyHash, NewRelease, Refusal, Release,
    ReleasePatch, VariableChange, VariableHolder, World,
};
use crate::model::{AppId, Commit, DeviceUuid, Refusal as Place, ServiceName};

/// A fleet of an import.
#[derive(Debug, Clone)]
pub struct ImportedFleet {
    /// The one that the file gives, or else a new one.
    pub uuid: AppId,
    pub is_uuid_given: bool,
    pub name: String,
    pub registry: Option<String>,
    pub is_tracking_latest: bool,
    pub target: Option<Commit>,
    pub former_services: Vec<ServiceName>,
}

/// A release of an import.
#[derive(Debug, Clone)]
pub struct ImportedRelease {
    /// Name of its fleet.
    pub fleet: String,
    pub is_invalidated: bool,
    pub new: NewRelease,
}

/// A device of an import.
#[derive(Debug, Clone)]
pub struct ImportedDevice {
    pub uuid: DeviceUuid,
    pub name: String,
    pub device_type: String,
    /// Name of its fleet.
    pub fleet: String,
    pub pin: Option<Commit>,
    pub tags: BTreeMap<String, String>,
}

/// The fleet, by name, or the device that has a variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImportedHolder {
    Fleet(String),
    Device(DeviceUuid),
}

/// A variable of an import.
#[derive(Clone)]
pub struct ImportedVariable {
    pub holder: ImportedHolder,
    pub service: Option<ServiceName>,
    pub name: String,
    /// Absent for a secret of an export without secrets.
    pub value: Option<String>,
    pub is_secret: bool,
}

/// A line of an import.
#[derive(Clone)]
pub enum Imported {
    Fleet(ImportedFleet),
    Release(Box<ImportedRelease>),
    Device(ImportedDevice),
    Variable(ImportedVariable),
}

/// Numbers of things.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ImportCount {
    pub fleets: usize,
    pub releases: usize,
    pub devices: usize,
    pub variables: usize,
}

/// What an import does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImportOutcome {
    pub created: ImportCount,
    pub unchanged: ImportCount,
    /// Secret variables without a value that the server does not have.
    pub without_value: Vec<String>,
}

impl World {
    /// Imports these lines, each with its number, at the time `now`. The order of the lines matters only for releases of one
    /// fleet. A fleet of the import has the target that its line names, whatever releases are created with it.
    ///
    /// # Errors
    ///
    /// [`Refusal::NotImported`], with every line that is refused.
    pub fn import(
        &self,
        lines: &[(usize, Imported)],
        now: Timestamp,
    ) -> Result<(ImportOutcome, Vec<Change>), Refusal> {
        let mut import = Import {
            world: self.clone(),
            changes: Vec::new(),
            outcome: ImportOutcome::default(),
            created: BTreeSet::new(),
            now,
        };
        let mut refusals = Vec::new();
        for pass in [Import::fleet, Import::release, Import::target, Import::device, Import::variable] {
            for (number, line) in lines {
                if let Err(refusal) = pass(&mut import, line) {
                    refusals.push(Place { path: format!("line {number}"), why: refusal.to_string() });
                }
            }
        }
        if refusals.is_empty() {
            return Ok((import.outcome, newest(import.changes)));
        }
        Err(Refusal::NotImported { refusals })
    }
}

/// An import under way.
struct Import {
    /// The world with the changes so far.
    world: World,
    changes: Vec<Change>,
    outcome: ImportOutcome,
    /// The fleets that it creates.
    created: BTreeSet<u64>,
    now: Timestamp,
}

impl Import {
    fn apply(&mut self, changes: Vec<Change>) {
        changes.iter().for_each(|change| self.world.apply(change.clone()));
        self.changes.extend(changes);
    }

    fn fleet(&mut self, line: &Imported) -> Result<(), Refusal> {
        let Imported::Fleet(asked) = line else { return Ok(()) };
        let named = self.world.fleet_named(&asked.name);
        let found = named.or_else(|| self.world.fleet_with_uuid(asked.uuid.as_str()));
        if let Some(found) = found {
            let target = found.target.and_then(|number| self.world.release(number)).map(|r| &r.commit);
            let is_target_same =
                target == asked.target.as_ref() || asked.target.is_none() && !asked.is_uuid_given;
            let fields = [
                ("name", found.name == asked.name),
                ("uuid", found.uuid == asked.uuid || !asked.is_uuid_given),
                ("registry", found.registry == asked.registry),
                ("is_tracking_latest", found.is_tracking_latest == asked.is_tracking_latest),
                ("target", is_target_same),
            ];
            same(format!("fleet {}", found.name), fields)?;
            self.outcome.unchanged.fleets += 1;
            return Ok(());
        }
        check_fleet_name(&asked.name)?;
        let number = self.world.counters.fleet + 1;
        let mut counters = Counters { fleet: number, ..self.world.counters };
        let services = asked.former_services.iter().map(|service| {
            counters.service += 1;
            (service.clone(), counters.service)
        });
        let services = services.collect();
        let fleet = Fleet {
            number,
            uuid: asked.uuid.clone(),
            name: asked.name.clone(),
            is_tracking_latest: asked.is_tracking_latest,
            target: None,
            created: self.now,
            services,
            registry: checked_registry(asked.registry.as_deref())?,
            pinned: None,
        };
        self.apply(vec![Change::Counters(counters), Change::PutFleet(fleet)]);
        self.created.insert(number);
        self.outcome.created.fleets += 1;
        Ok(())
    }

    fn release(&mut self, line: &Imported) -> Result<(), Refusal> {
        let Imported::Release(asked) = line else { return Ok(()) };
        let ImportedRelease { fleet, is_invalidated, new } = &**asked;
        let fleet = self.fleet_of(fleet)?;
        if let Some(found) = self.world.release_of(fleet.number, &new.commit) {
            let fields = [
                ("status", found.status == new.status),
                ("is_final", found.is_final == new.is_final),
                ("is_passing_tests", found.is_passing_tests == new.is_passing_tests),
                ("is_invalidated", found.is_invalidated == *is_invalidated),
                ("start_timestamp", found.start_timestamp == new.start_timestamp),
                ("content", is_content(&found.content, new)),
            ];
            same(format!("release {} of {}", found.commit, fleet.name), fields)?;
            self.outcome.unchanged.releases += 1;
            return Ok(());
        }
        let (number, changes) = self.world.create_release(&fleet, new.clone())?;
        self.apply(changes);
        if *is_invalidated && let Some(release) = self.world.release(number).cloned() {
            let patch = ReleasePatch { is_invalidated: Some(true), ..ReleasePatch::default() };
            let changes = self.world.patch_release(&release, patch)?;
            self.apply(changes);
        }
        self.outcome.created.releases += 1;
        Ok(())
    }

    /// Sets the target of a fleet, which the releases of the import may have changed.
    fn target(&mut self, line: &Imported) -> Result<(), Refusal> {
        let Imported::Fleet(asked) = line else { return Ok(()) };
        // What is wrong with the line itself was said before.
        let Ok(fleet) = self.fleet_of(&asked.name) else { return Ok(()) };
        let target = match &asked.target {
            Some(commit) => Some(self.commit_of(fleet.number, commit)?.number),
            None if !asked.is_uuid_given => return Ok(()),
            None => None,
        };
        let patch = FleetPatch { target: Some(target), ..FleetPatch::default() };
        let changes = self.world.patch_fleet(&fleet, patch)?;
        self.apply(changes);
        Ok(())
    }

    fn device(&mut self, line: &Imported) -> Result<(), Refusal> {
        let Imported::Device(asked) = line else { return Ok(()) };
        let fleet = self.fleet_of(&asked.fleet)?;
        let pin = asked.pin.as_ref().map(|commit| self.commit_of(fleet.number, commit)).transpose()?;
        let pin = pin.map(|release| release.number);
        if let Some(found) = self.world.device(&asked.uuid) {
            let fields = [
                ("name", found.name == asked.name),
                ("device_type", found.device_type == asked.device_type),
                ("fleet", found.fleet == fleet.number),
                ("pin", found.pin == pin),
                ("tags", found.tags == asked.tags),
            ];
            same(format!("device {}", found.uuid), fields)?;
            self.outcome.unchanged.devices += 1;
            return Ok(());
        }
        if self.world.bar(&asked.uuid).is_some() {
            return Err(Refusal::Barred { uuid: asked.uuid.clone() });
        }
        check_device_name(&asked.name)?;
        check_device_type(&asked.device_type)?;
        asked.tags.iter().try_for_each(|(key, value)| check_tag(key, value))?;
        check_tag_count(asked.tags.len())?;
        if let Some(other) = self.world.devices_named(&asked.name).next() {
            return Err(Refusal::NameTaken { name: asked.name.clone(), uuid: other.uuid.clone() });
        }
        if let Some(pin) = pin {
            self.world.check_target(pin, fleet.number)?;
        }
        let number = self.world.counters.device + 1;
        let device = Device {
            number,
            uuid: asked.uuid.clone(),
            name: asked.name.clone(),
            device_type: asked.device_type.clone(),
            fleet: fleet.number,
            key: KeyHash::of_expected(asked.uuid.as_str()),
            pin,
            tags: asked.tags.clone(),
            created: self.now,
            provisioned_by: None,
            departure: None,
            pinned: None,
        };
        let counters = Counters { device: number, ..self.world.counters };
        self.apply(vec![Change::Counters(counters), Change::PutDevice(device)]);
        self.outcome.created.devices += 1;
        Ok(())
    }

    fn variable(&mut self, line: &Imported) -> Result<(), Refusal> {
        let Imported::Variable(asked) = line else { return Ok(()) };
        let ImportedVariable { holder, service, name, value, is_secret } = asked;
        let (of, given) = match holder {
            ImportedHolder::Fleet(fleet) => {
                (VariableHolder::Fleet(self.fleet_of(fleet)?.number), fleet.clone())
            }
            ImportedHolder::Device(uuid) => (VariableHolder::Device(uuid.clone()), uuid.to_string()),
        };
        let label = || match service {
            Some(service) => format!("{name} of service {service} of {given}"),
            None => format!("{name} of {given}"),
        };
        let found = self.world.variables(&of).of(service.as_ref()).and_then(|map| map.get(name));
        if let Some(found) = found {
            let fields = [
                ("secret", found.is_secret == *is_secret),
                ("value", value.as_ref().is_none_or(|value| *value == found.value)),
            ];
            same(format!("variable {}", label()), fields)?;
            self.outcome.unchanged.variables += 1;
            return Ok(());
        }
        let Some(value) = value else {
            self.outcome.without_value.push(label());
            return Ok(());
        };
        let change = VariableChange {
            service: service.clone(),
            set: BTreeMap::from([(name.clone(), value.clone())]),
            is_secret: *is_secret,
            remove: BTreeSet::new(),
        };
        let changes = match &of {
            VariableHolder::Fleet(_) => {
                self.world.change_fleet_variables(&self.fleet_of(&given)?, &change)?
            }
            VariableHolder::Device(uuid) => {
                let device = self.world.device(uuid);
                let device = device.ok_or_else(|| Refusal::NoSuchDevice { given: given.clone() })?;
                self.world.change_device_variables(device, &change)?
            }
        };
        self.apply(changes);
        self.outcome.created.variables += 1;
        Ok(())
    }

    fn fleet_of(&self, name: &str) -> Result<Fleet, Refusal> {
        let found = self.world.fleet_named(name).cloned();
        found.ok_or_else(|| Refusal::NoSuchFleet { given: name.to_owned() })
    }

    fn commit_of(&self, fleet: u64, commit: &Commit) -> Result<Arc<Release>, Refusal> {
        let found = self.world.release_of(fleet, commit).cloned();
        found.ok_or_else(|| Refusal::NoSuchRelease { given: commit.to_string() })
    }
}

fn is_content(found: &Content, new: &NewRelease) -> bool {
    let is_service = |(name, image): (&ServiceName, &super::Image)| {
        new.services.get(name).is_some_and(|new| {
            let mut composition = new.composition.clone();
            composition.remove("build");
            new.image == image.image && composition == image.composition.value()
        })
    };
    found.services.len() == new.services.len()
        && found.services.iter().all(is_service)
        && found.networks.value() == new.networks
        && found.volumes.value() == new.volumes
}

/// Refuses a thing that the server has already, if one of these fields is not as in the file.
fn same<const N: usize>(thing: String, fields: [(&'static str, bool); N]) -> Result<(), Refusal> {
    let fields: Vec<_> = fields.into_iter().filter(|(_, is_same)| !is_same).map(|(name, _)| name).collect();
    if fields.is_empty() { Ok(()) } else { Err(Refusal::Differs { thing, fields }) }
}

/// Leaves out the changes of a record that a later one replaces.
fn newest(changes: Vec<Change>) -> Vec<Change> {
    let (mut counters, mut fleets, mut releases) = (false, BTreeSet::new(), BTreeSet::new());
    let mut holders = BTreeSet::new();
    let mut kept: Vec<Change> = Vec::with_capacity(changes.len());
    for change in changes.into_iter().rev() {
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "an import changes no record of another kind twice"
        )]
        let is_newest = match &change {
            Change::Counters(_) => !std::mem::replace(&mut counters, true),
            Change::PutFleet(fleet) => fleets.insert(fleet.number),
            Change::PutRelease(release) => releases.insert(release.number),
            Change::PutVariables(holder, _) => holders.insert(holder.clone()),
            _ => true,
        };
        if is_newest {
            kept.push(change);
        }
    }
    kept.reverse();
    kept
}

//! Acts on variables: set and remove; and look-ups. Names and values are checked as balena does.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use super::rules::{bad, check_range};
use super::{
    Change, Device, Fleet, Refusal, Variable, VariableHolder, VariableLevels, VariableMap, Variables, World,
};
use crate::model::ServiceName;

/// Maximum number of variables of one fleet or device, those of its services included. A service gets those of both, which is less than
/// a device accepts unless its owner sets `limits.variables`.
const MOST: u64 = 200;

/// Maximum number of bytes of all names and values of one fleet or device. The variables of all services are in the target once per
/// service, and a device reads no target of more than 4 MiB.
const LARGEST: u64 = 64 * 1024;

/// Maximum number of bytes of a value.
const LONGEST_VALUE: usize = 32 * 1024;

const NAME_ACCEPTS: &str =
    "it has 1 to 255 of the letters a to z, A to Z, digits and '_', and does not begin with a digit";
const NAME_RESERVED: &str = "BALENA, RESIN and USER, and all names that begin with BALENA_ or RESIN_, are reserved: the agent sets \
                             them; choose another";
const VALUE_IS_LONG: &str =
    "its value has more than 32,768 bytes; put large content into the image or a volume";
const VALUE_HAS_LINES: &str = "its value contains a line break, which balena's API does not accept, either; encode it, e.g. \
                               with base64";
const VALUE_HAS_NUL: &str = "its value contains the character NUL, which no environment can have; encode it, e.g. with \
                             base64";

/// Variables to set and to remove, of a service or of all.
#[derive(Debug, Clone, Default)]
pub struct VariableChange {
    pub service: Option<ServiceName>,
    pub set: BTreeMap<String, String>,
    /// Makes those that are set secret. One that is secret stays it until it is removed.
    pub is_secret: bool,
    pub remove: BTreeSet<String>,
}

/// What a fleet or a device without variables has.
static NO_VARIABLES: Variables = Variables { all: BTreeMap::new(), services: BTreeMap::new(), revision: 0 };

impl World {
    /// Returns the variables of a fleet or a device.
    #[must_use]
    pub fn variables(&self, holder: &VariableHolder) -> &Variables {
        self.variables.held(holder).map_or(&NO_VARIABLES, |held| &held.variables)
    }

    /// Returns the variables that reach a device.
    #[must_use]
    pub fn variables_for(&self, device: &Device) -> VariableLevels<'_> {
        VariableLevels {
            fleet: self.variables.held(&VariableHolder::Fleet(device.fleet)),
            device: self.variables.held(&VariableHolder::Device(device.uuid.clone())),
        }
    }

    /// Returns the fleets and devices that have variables, from this one on: fleets by number, then devices by uuid.
    pub fn variable_holders(
        &self,
        from: Option<&VariableHolder>,
    ) -> impl Iterator<Item = (&VariableHolder, &Variables)> {
        let begin = from.cloned().map_or(Bound::Unbounded, Bound::Included);
        let held = self.variables.by_holder.range((begin, Bound::Unbounded));
        held.map(|(holder, held)| (holder, &held.variables))
    }

    /// Sets and removes variables of a fleet: all of them, or none.
    ///
    /// # Errors
    ///
    /// [`Refusal::NoSuchService`] for a service that no release of the fleet ever had; [`Refusal::BadText`] for a name,
    /// [`Refusal::BadVariable`] for a value; [`Refusal::NoSuchVariable`] for one that cannot be removed;
    /// [`Refusal::OutOfRange`] for too many or too much.
    pub fn change_fleet_variables(
        &self,
        fleet: &Fleet,
        change: &VariableChange,
    ) -> Result<Vec<Change>, Refusal> {
        self.change_variables(fleet, VariableHolder::Fleet(fleet.number), change)
    }

    /// As [`World::change_fleet_variables`], of a device.
    ///
    /// # Errors
    ///
    /// As [`World::change_fleet_variables`].
    pub fn change_device_variables(
        &self,
        device: &Device,
        change: &VariableChange,
    ) -> Result<Vec<Change>, Refusal> {
        let fleet = self.fleet(device.fleet);
        let fleet = fleet.ok_or_else(|| Refusal::NoSuchFleet { given: device.fleet.to_string() })?;
        self.change_variables(fleet, VariableHolder::Device(device.uuid.clone()), change)
    }

    fn change_variables(
        &self,
        fleet: &Fleet,
        holder: VariableHolder,
        change: &VariableChange,
    ) -> Result<Vec<Change>, Refusal> {
        let before = self.variables(&holder);
        // A service may be forgotten, and its variables can still be removed.
        if let Some(service) =
            change.service.as_ref().filter(|service| !before.services.contains_key(*service))
        {
            check_service(fleet, service)?;
        }
        let mut after = before.clone();
        let map = match &change.service {
            Some(service) => after.services.entry(service.clone()).or_default(),
            None => &mut after.all,
        };
        for name in &change.remove {
            if map.remove(name).is_none() {
                return Err(Refusal::NoSuchVariable { name: Self::shown_variable(name) });
            }
        }
        set(map, change)?;
        after.services.retain(|_, variables| !variables.is_empty());
        check_size(before, &after)?;
        // A secret that is set counts as a change: the answer must not tell whether it is the value from before.
        let map = after.of(change.service.as_ref());
        let sets_secret =
            change.set.keys().any(|name| map.and_then(|map| map.get(name)).is_some_and(|v| v.is_secret));
        if after == *before && !sets_secret {
            return Ok(Vec::new());
        }
        after.revision = self.audited() + 1;
        Ok(vec![Change::PutVariables(holder, after)])
    }

    /// Returns the name of a variable for a message. What cannot be one is not shown, because it may have the value in it.
    #[must_use]
    pub fn shown_variable(name: &str) -> String {
        let is_name = check_name(name).is_ok();
        if is_name { super::rules::shown(name) } else { "(not a name)".to_owned() }
    }

    /// Returns a device's variables without those of the services of its fleet, which it leaves; `None` if they stay the
    /// same.
    pub(super) fn variables_after_a_move(&self, device: &Device) -> Option<Change> {
        let holder = VariableHolder::Device(device.uuid.clone());
        let before = self.variables(&holder);
        let revision = self.audited() + 1;
        let after = Variables { all: before.all.clone(), services: BTreeMap::new(), revision };
        (!before.services.is_empty()).then_some(Change::PutVariables(holder, after))
    }
}

fn set(map: &mut VariableMap, VariableChange { set, is_secret, .. }: &VariableChange) -> Result<(), Refusal> {
    for (name, value) in set {
        check_name(name)?;
        check_value(name, value)?;
        let is_secret = *is_secret || map.get(name).is_some_and(|before| before.is_secret);
        map.insert(name.clone(), Variable { value: value.clone(), is_secret });
    }
    Ok(())
}

fn check_service(fleet: &Fleet, service: &ServiceName) -> Result<(), Refusal> {
    if fleet.services.contains_key(service) {
        return Ok(());
    }
    let known = fleet.services.keys().map(ToString::to_string).collect();
    Err(Refusal::NoSuchService { given: service.to_string(), fleet: fleet.name.clone(), known })
}

fn check_name(name: &str) -> Result<(), Refusal> {
    let is_good = (1..=255).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && !name.starts_with(|c: char| c.is_ascii_digit());
    if !is_good {
        return Err(Refusal::BadVariableName { accepts: NAME_ACCEPTS });
    }
    let is_reserved = ["BALENA", "RESIN", "USER"].contains(&name)
        || ["BALENA_", "RESIN_"].iter().any(|prefix| name.starts_with(prefix));
    if is_reserved { Err(bad("variable name", name, NAME_RESERVED)) } else { Ok(()) }
}

/// Checks a value. It may be secret, so no message contains it.
fn check_value(name: &str, value: &str) -> Result<(), Refusal> {
    let why = if value.len() > LONGEST_VALUE {
        VALUE_IS_LONG
    } else if value.contains(['\n', '\r']) {
        VALUE_HAS_LINES
    } else if value.contains('\0') {
        VALUE_HAS_NUL
    } else {
        return Ok(());
    };
    Err(Refusal::BadVariable { name: name.to_owned(), why })
}

/// Checks the number and size of variables that became more.
fn check_size(before: &Variables, after: &Variables) -> Result<(), Refusal> {
    let measured = |variables: &Variables| {
        let bytes = variables.iter().map(|(_, name, variable)| name.len() + size(variable)).sum();
        (number(variables.iter().count()), number(bytes))
    };
    let (count_before, bytes_before) = measured(before);
    let (count, bytes) = measured(after);
    if count > count_before {
        check_range("number of variables of a fleet or device", Some(count), 0..=MOST)?;
    }
    if bytes > bytes_before {
        // The error does not say the size, because secret values are part of it.
        if bytes > LARGEST {
            return Err(Refusal::VariablesTooLarge { most: LARGEST });
        }
    }
    Ok(())
}

/// Returns the size of a value. That of a secret one is rounded up, so that it cannot be measured by filling up the rest.
fn size(Variable { value, is_secret }: &Variable) -> usize {
    if *is_secret { value.len().next_multiple_of(256) } else { value.len() }
}

fn number(size: usize) -> u64 {
    u64::try_from(size).unwrap_or(u64::MAX)
}

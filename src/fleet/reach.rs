//! Which services of which devices a change of variables restarts. Pure.
//!
//! A device restarts a service if the environment of its container changes: the variables that reach it, over those that the
//! release's author wrote. It also restarts a service that joins the namespace of such a one, as the spec hash says
//! (`src/wire/spec_hash.rs`).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;

use super::policy::{Device, Release, VariableHolder, VariableLevels, World};
use super::render;
use crate::model::{DeviceUuid, ServiceName};
use crate::wire::compose::{self, Form};

/// The services of a device that are restarted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Restart {
    pub(super) uuid: DeviceUuid,
    pub(super) name: String,
    pub(super) services: Rc<BTreeSet<ServiceName>>,
}

/// A service of a release, as its author wrote it.
struct Written {
    name: ServiceName,
    environment: BTreeMap<String, String>,
    joins: Vec<ServiceName>,
}

impl Written {
    /// Returns the value that its container gets.
    fn value<'a>(&'a self, variables: VariableLevels<'a>, name: &str) -> Option<&'a str> {
        variables.value(&self.name, name).or_else(|| self.environment.get(name).map(String::as_str))
    }
}

/// The variables that a request sets or removes. A secret one of them counts as changed in any case: the answer must not tell
/// whether its value is the same as before.
#[derive(Debug, Clone, Default)]
pub(super) struct Named {
    pub(super) names: BTreeSet<String>,
    pub(super) service: Option<ServiceName>,
}

/// Returns the restarts after variables of `holder` have changed between two worlds which are equal otherwise.
pub(super) fn restarts(
    before: &World,
    after: &World,
    holder: &VariableHolder,
    named: &Named,
) -> Vec<Restart> {
    let mut releases: HashMap<u64, Vec<Written>> = HashMap::new();
    // Most devices have no variables of their own, so the answer is the same for all of them with the same target.
    let mut known = HashMap::new();
    let mut found = Vec::new();
    for device in devices(after, holder) {
        let Some(release) = after.target_of(device) else { continue };
        let (was, is) = (before.variables_for(device), after.variables_for(device));
        let services = known.entry((release.number, was.of_device(), is.of_device())).or_insert_with(|| {
            let written = releases.entry(release.number).or_insert_with(|| read(release));
            Rc::new(changed(written, was, is, named))
        });
        if !services.is_empty() {
            let (uuid, name) = (device.uuid.clone(), device.name.clone());
            found.push(Restart { uuid, name, services: Rc::clone(services) });
        }
    }
    found
}

fn devices<'a>(world: &'a World, holder: &'a VariableHolder) -> Box<dyn Iterator<Item = &'a Device> + 'a> {
    match holder {
        VariableHolder::Fleet(fleet) => Box::new(world.devices().filter(move |d| d.fleet == *fleet)),
        VariableHolder::Device(uuid) => Box::new(world.device(uuid).into_iter()),
    }
}

fn read(release: &Release) -> Vec<Written> {
    let (mut contents, _) = compose::read(&render::release_state(release, |_| BTreeMap::new()), Form::Target);
    let written = |name: &ServiceName| match contents.services.remove(name) {
        Some(spec) => Written {
            name: name.clone(),
            joins: spec.joins().map(|(_, joined)| joined.clone()).collect(),
            environment: spec.environment,
        },
        None => Written { name: name.clone(), environment: BTreeMap::new(), joins: Vec::new() },
    };
    release.content.services.keys().map(written).collect()
}

fn changed(
    written: &[Written],
    before: VariableLevels<'_>,
    after: VariableLevels<'_>,
    named: &Named,
) -> BTreeSet<ServiceName> {
    let differs = |service: &&Written| {
        let mut names = before.names(&service.name);
        names.extend(after.names(&service.name));
        let is_named = |name: &str| {
            named.names.contains(name) && named.service.as_ref().is_none_or(|of| *of == service.name)
        };
        let is_secret = |levels: VariableLevels<'_>, name| levels.is_secret(&service.name, name);
        names.into_iter().any(|name| {
            (is_named(name) && (is_secret(before, name) || is_secret(after, name)))
                || service.value(before, name) != service.value(after, name)
        })
    };
    let mut found: BTreeSet<_> = written.iter().filter(differs).map(|service| service.name.clone()).collect();
    loop {
        let count = found.len();
        let joining = written.iter().filter(|service| service.joins.iter().any(|name| found.contains(name)));
        let joining: Vec<_> = joining.map(|service| service.name.clone()).collect();
        found.extend(joining);
        if found.len() == count {
            return found;
        }
    }
}

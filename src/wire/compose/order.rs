//! Checks that all services of a release can be started in the order of their dependencies.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::at::Notes;
use super::{Form, paths, refusal, shared};
use crate::model::{Condition, ServiceName, ServiceSpec};
use crate::wire::state_v3::ReleaseState;

type Services = BTreeMap<ServiceName, ServiceSpec>;

/// Drops the dependencies that are not required and that the release does not have, with a warning.
pub(super) fn drop_optional(services: &mut Services, release: &ReleaseState, form: Form, notes: &mut Notes) {
    for (name, spec) in services {
        let given = release.services.get(name.as_str()).and_then(|given| given.composition.get("depends_on"));
        spec.depends_on.retain(|other, _| {
            let required = given.and_then(|all| all.get(other.as_str())).and_then(|one| one.get("required"));
            if required != Some(&Value::Bool(false)) {
                return true;
            }
            let is_here = release.services.contains_key(other.as_str());
            let why = if is_here {
                "not honoured: a dependency that the release has is required"
            } else {
                "not honoured: the release has no such service, so nothing waits for it"
            };
            let path = format!("{}.depends_on.{other}.required", paths(name.as_str(), form).composition);
            notes.warn(refusal(path, why));
            is_here
        });
    }
}

/// Refuses unknown dependencies, waits that never end, and one cycle if there is any.
///
/// `is_named` returns whether the release has a service of this name, even one that could not be read.
pub(super) fn check(services: &Services, is_named: impl Fn(&str) -> bool, form: Form, notes: &mut Notes) {
    let path = |service: &ServiceName| format!("{}.depends_on", paths(service.as_str(), form).composition);
    for (name, spec) in services {
        for (other, condition) in &spec.depends_on {
            let path = format!("{}.{other}", path(name));
            if !is_named(other.as_str()) {
                let why = format_args!("there is no service {other} in the release: add it, or remove this");
                notes.refuse(refusal(path, why));
                continue;
            }
            let is_endless = services.get(other).is_some_and(|other| other.restart.is_forever());
            if *condition == Condition::Completed && is_endless {
                let why = format_args!(
                    "{other} never completes, because it is restarted whenever it ends: give {other} \
                     restart: \"no\" or \"on-failure\" (the default is \"always\")"
                );
                notes.refuse(refusal(path, why));
            }
        }
    }
    if let Some(cycle) = cycle(services) {
        let names: Vec<&str> = cycle.iter().map(|name| name.as_str()).collect();
        let why = format!("services wait for each other: {}: remove one dependency", names.join(" → "));
        // A service that joins another one waits for it, too.
        let first = services.get(cycle[0]).filter(|spec| !spec.depends_on.contains_key(cycle[1]));
        let joined = first.and_then(|spec| spec.joins().find(|(_, other)| *other == cycle[1]));
        let path = match joined {
            Some((kind, _)) => shared::path(cycle[0], kind, form),
            None => path(cycle[0]),
        };
        notes.refuse(refusal(path, why));
    }
}

/// Returns some cycle, beginning and ending with the same service. Visits each dependency once.
fn cycle(services: &Services) -> Option<Vec<&ServiceName>> {
    let waits_for = |name| {
        let spec = services.get(name).into_iter();
        spec.flat_map(|spec| spec.depends_on.keys().chain(spec.joins().map(|(_, other)| other)))
    };
    let (mut done, mut open) = (BTreeSet::new(), BTreeSet::new());
    for root in services.keys() {
        let mut walk = Vec::new();
        if !done.contains(root) {
            open.insert(root);
            walk.push((root, waits_for(root)));
        }
        while let Some((name, rest)) = walk.last_mut() {
            match rest.next() {
                None => {
                    open.remove(*name);
                    done.insert(*name);
                    walk.pop();
                }
                Some(other) if open.contains(other) => {
                    let start = walk.iter().position(|(name, _)| *name == other)?;
                    return Some(walk[start..].iter().map(|(name, _)| *name).chain([other]).collect());
                }
                Some(other) if !done.contains(other) => {
                    open.insert(other);
                    walk.push((other, waits_for(other)));
                }
                Some(_) => {}
            }
        }
    }
    None
}

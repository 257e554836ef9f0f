//! Services that join a namespace of another service of the release. Checks which fields can be combined with that, and
//! makes the other service start first.

use std::collections::BTreeMap;

use super::at::{At, Fields, Notes, is_nothing};
use super::{Contents, Form, paths, refusal};
use crate::model::{Condition, Namespace, NetworkMode, Refusal, ServiceName, ServiceSpec, SpecHash};
use crate::wire::spec_hash;

/// The fields of a service that belong to its network namespace, which is then that of the other service.
const OF_NETWORK: &[&str] =
    &["ports", "hostname", "domainname", "dns", "dns_search", "dns_opt", "extra_hosts", "mac_address"];

/// Parses `service:NAME`; `None` for any other text.
pub(super) fn service_of(at: &At<'_>, text: &str) -> Option<Result<ServiceName, Refusal>> {
    if text.starts_with("container:") {
        let why = "a container outside of the release cannot be joined: write \"service:NAME\" with a service of the release";
        return Some(Err(at.refusal(why)));
    }
    let name = text.strip_prefix("service:")?;
    Some(ServiceName::parse(name).map_err(|bad| at.refusal(bad)))
}

/// Refuses fields that the engine refuses together with the network of another service, or that would have no effect.
pub(super) fn conflicts(fields: &Fields<'_>, spec: &ServiceSpec, notes: &mut Notes) {
    if let NetworkMode::Service(other) = &spec.network_mode {
        for key in OF_NETWORK {
            let Some(at) = fields.get(key).filter(|at| !is_nothing(at.value)) else { continue };
            notes.refuse(at.refusal(format_args!(
                "it cannot be combined with network_mode service:{other}: write it in {other}, or remove it"
            )));
        }
        for name in spec.isolation.sysctls.keys().filter(|name| name.starts_with("net.")) {
            let why =
                format_args!("with network_mode service:{other} it would change {other}: set it in {other}");
            notes.refuse(refusal(format!("{}.sysctls.{name}", fields.path), why));
        }
    }
    if let Some(other) = &spec.isolation.ipc_of
        && let Some(at) = fields.get("shm_size").filter(|at| !is_nothing(at.value))
    {
        notes.warn(at.refusal(format_args!("not honoured: the memory is that of {other}")));
    }
}

/// Refuses services that cannot be joined.
pub(super) fn check(contents: &Contents, is_named: impl Fn(&str) -> bool, form: Form, notes: &mut Notes) {
    for (name, spec) in &contents.services {
        for (kind, other) in spec.joins() {
            let path = path(name, kind, form);
            let Some(of) = contents.services.get(other) else {
                if !is_named(other.as_str()) {
                    let why =
                        format_args!("there is no service {other} in the release: add it, or remove this");
                    notes.refuse(refusal(path, why));
                }
                continue;
            };
            if kind == Namespace::Ipc && of.isolation.ipc.as_deref() != Some("shareable") {
                let why = format_args!("{other} does not share its memory: give it ipc: shareable");
                notes.refuse(refusal(path, why));
            } else if spec.depends_on.get(other) == Some(&Condition::Completed) {
                let why = format_args!(
                    "{other} must run while this service joins it: remove the condition \
                     service_completed_successfully from depends_on"
                );
                notes.refuse(refusal(path, why));
            }
        }
    }
}

/// Returns the path of the field with which a service joins another one.
pub(super) fn path(service: &ServiceName, kind: Namespace, form: Form) -> String {
    let field = match kind {
        Namespace::Network => "network_mode",
        Namespace::Ipc => "ipc",
        Namespace::Pid => "pid",
    };
    format!("{}.{field}", paths(service.as_str(), form).composition)
}

/// Makes each service that joins another one depend on it, so that it starts later.
pub(super) fn depend(services: &mut BTreeMap<ServiceName, ServiceSpec>) {
    for spec in services.values_mut() {
        let others: Vec<_> = spec.joins().map(|(_, other)| other.clone()).collect();
        for other in others {
            spec.depends_on.entry(other).or_insert(Condition::Started);
        }
    }
}

/// Computes the hash of every service. The hash of a joined service is part of those that join it, so it comes first. A
/// cycle is refused elsewhere; its services get hashes without those of the others.
pub(super) fn hashes(contents: &mut Contents) {
    let Contents { services, networks, volumes, .. } = contents;
    let mut done: BTreeMap<ServiceName, SpecHash> = BTreeMap::new();
    // How many joins of a service have no hash yet, and who joins a service.
    let (mut open, mut joined): (BTreeMap<_, usize>, BTreeMap<_, Vec<&ServiceName>>) = Default::default();
    for (name, spec) in &*services {
        let others = spec.joins().map(|(_, other)| other).filter(|other| services.contains_key(*other));
        let count = open.entry(name).or_default();
        for other in others {
            *count += 1;
            joined.entry(other).or_default().push(name);
        }
    }
    let mut due: Vec<_> = services.iter().filter(|(name, _)| open.get(name) == Some(&0)).collect();
    while let Some((name, spec)) = due.pop() {
        done.insert(name.clone(), spec_hash::of_service(spec, networks, volumes, &done));
        for by in joined.remove(name).unwrap_or_default() {
            let Some(count) = open.get_mut(by) else { continue };
            *count -= 1;
            if *count == 0 {
                due.extend(services.get_key_value(by));
            }
        }
    }
    for (name, spec) in services {
        spec.hash = match done.remove(name) {
            Some(hash) => hash,
            None => spec_hash::of_service(spec, networks, volumes, &BTreeMap::new()),
        };
    }
}

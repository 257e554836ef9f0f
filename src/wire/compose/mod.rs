//! Reads the compose fields of a release into [`ServiceSpec`]s, networks and volumes.
//!
//! No field is dropped silently. Each is honoured, or gives a warning or a refusal, with its path and what to do (the
//! reason: docs/dev/protocol.md, "Compose fields on balena devices"). All warnings and refusals are collected, so that an
//! author can correct a release in one go. The device and `cotter release create` use the same code, so they accept the
//! same releases.
//!
//! `null` counts as absent everywhere. So does an empty value of a field that we do not honour.

pub(super) mod at;
mod configs;
mod declared;
mod deploy;
pub(super) mod features;
mod fields;
mod healthcheck;
mod isolation;
mod limits;
mod links;
mod log_options;
mod mounts;
mod networking;
mod order;
mod ports;
mod quantities;
mod ranges;
mod repeated;
mod resources;
mod service;
mod shared;
mod texts;
mod trial;
mod update;

#[cfg(test)]
mod doc_tests;
#[cfg(test)]
mod engine_tests;
#[cfg(test)]
mod more_tests;
#[cfg(test)]
mod shared_tests;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use at::At;
pub use at::Notes;
use serde_json::Value;

use super::state_v3::ReleaseState;
use crate::model::{
    Condition, MountSource, NetworkMode, NetworkName, NetworkSpec, Refusal, ReleaseLimits, RestartPolicy,
    ServiceName, ServiceSpec, TrialSpec, VolumeName, VolumeSpec, Window,
};
use ports::HostPorts;
pub(super) use ports::any_host_port;
pub(super) use service::Paths;

/// The content of a release.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Contents {
    pub services: BTreeMap<ServiceName, ServiceSpec>,
    pub networks: BTreeMap<NetworkName, NetworkSpec>,
    pub volumes: BTreeMap<VolumeName, VolumeSpec>,
    pub trial: TrialSpec,
    pub windows: BTreeSet<Window>,
}

/// Where the compose fields of a service are. The paths in refusals and warnings depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A device's target: `services.web.composition.ports`.
    Target,
    /// A compose file: `services.web.ports`.
    File,
}

/// Reads a release. The contents are complete only if the notes have no refusal.
///
/// In a target, adds volumes and networks that are used but not declared, without config; in a file they are refused, as
/// Compose does. `default` exists only if a service uses it.
/// A service without `restart` gets `always`, as on balena devices.
#[must_use]
pub fn read(release: &ReleaseState, form: Form) -> (Contents, Notes) {
    let mut notes = Notes::default();
    let mut contents = Contents::default();
    for (name, value) in &release.networks {
        let path = format!("networks.{name}");
        let spec = declared::network(&path, value, &mut notes);
        let key = NetworkName::parse(name).map_err(|bad| refusal(path, bad));
        contents.networks.extend(notes.keep(key).map(|key| (key, spec)));
    }
    for (name, value) in &release.volumes {
        let path = format!("volumes.{name}");
        let spec = declared::volume(&path, value, &mut notes);
        let key = VolumeName::parse(name).map_err(|bad| refusal(path, bad));
        contents.volumes.extend(notes.keep(key).map(|key| (key, spec)));
    }
    let mut ports = 0;
    for (name, given) in &release.services {
        let paths = paths(name, form);
        let key = ServiceName::parse(name).map_err(|bad| refusal(paths.service.clone(), bad));
        let (key, spec) = (notes.keep(key), service::read(given, &paths, &mut notes));
        ports += spec.as_ref().map_or(0, |spec| spec.ports.len());
        if ports > ReleaseLimits::HIGHEST.ports {
            let most = ReleaseLimits::HIGHEST.ports;
            let why = format_args!(
                "its services publish more than {most} ports, which no device accepts: use fewer"
            );
            notes.refuse(refusal("ports".to_owned(), why));
            break;
        }
        contents.services.extend(key.zip(spec));
    }
    if form == Form::File {
        check_declared(&contents, &mut notes);
    }
    declare_used(&mut contents);
    links::apply(release, &mut contents, form, &mut notes);
    end_what_is_waited_for(release, &mut contents.services);
    let is_named = |name: &str| release.services.contains_key(name);
    order::drop_optional(&mut contents.services, release, form, &mut notes);
    order::check(&contents.services, is_named, form, &mut notes);
    shared::check(&contents, is_named, form, &mut notes);
    check_host_ports(&contents.services, form, &mut notes);
    check_addresses(&contents, form, &mut notes);
    ranges::check(&contents.networks, &mut notes);
    shared::depend(&mut contents.services);
    if repeated::check(&contents, &mut notes) {
        shared::hashes(&mut contents);
    }
    update::strategies(&mut contents.services, &mut notes);
    contents.windows = update::windows(&contents.services, &mut notes);
    contents.trial = trial::spec(&contents.services, &mut notes);
    (contents, notes)
}

/// Returns the paths of a service and of its compose fields.
pub(super) fn paths(service: &str, form: Form) -> Paths {
    let service = format!("services.{service}");
    let composition = match form {
        Form::Target => format!("{service}.composition"),
        Form::File => service.clone(),
    };
    Paths { service, composition, form }
}

fn refusal(path: String, why: impl std::fmt::Display) -> Refusal {
    Refusal { path, why: why.to_string() }
}

/// A service without `restart` whose end another one waits for runs once, because the usual `always` would never let it
/// end.
fn end_what_is_waited_for(release: &ReleaseState, services: &mut BTreeMap<ServiceName, ServiceSpec>) {
    let is_end = |(_, condition): &(&ServiceName, &Condition)| **condition == Condition::Completed;
    let waited_for: BTreeSet<ServiceName> = services
        .values()
        .flat_map(|spec| spec.depends_on.iter().filter(is_end).map(|(name, _)| name.clone()))
        .collect();
    for name in waited_for {
        let composition = release.services.get(name.as_str()).map(|service| &service.composition);
        let says = |field: &str| {
            composition.and_then(|composition| composition.get(field)).is_some_and(|value| !value.is_null())
        };
        let has_policy = composition
            .and_then(|composition| composition.get("deploy")?.get("restart_policy"))
            .is_some_and(|value| !value.is_null());
        if !says("restart")
            && !has_policy
            && let Some(spec) = services.get_mut(&name)
        {
            spec.restart = RestartPolicy::No;
        }
    }
}

/// Refuses networks and volumes that are used but not declared: a slip of the pen would make an empty volume.
fn check_declared(contents: &Contents, notes: &mut Notes) {
    let Contents { services, networks, volumes, .. } = contents;
    for (name, spec) in services {
        for mount in &spec.mounts {
            if let MountSource::Volume(volume) = &mount.source
                && !volumes.contains_key(volume)
            {
                let why = format_args!(
                    "there is no volume {volume}: declare it under volumes, or correct the name"
                );
                notes.refuse(refusal(format!("services.{name}.volumes"), why));
            }
        }
        let NetworkMode::Networks(attachments) = &spec.network_mode else { continue };
        for network in attachments.keys() {
            if network.as_str() != networking::DEFAULT && !networks.contains_key(network) {
                let why = format_args!(
                    "there is no network {network}: declare it under networks, or correct the name"
                );
                notes.refuse(refusal(format!("services.{name}.networks.{network}"), why));
            }
        }
    }
}

/// Adds the networks and volumes that are used but not declared, and removes an unused `default`.
fn declare_used(contents: &mut Contents) {
    let Contents { services, networks, volumes, .. } = contents;
    let mut is_default_used = false;
    for spec in services.values() {
        for mount in &spec.mounts {
            if let MountSource::Volume(name) = &mount.source {
                volumes.entry(name.clone()).or_default();
            }
        }
        if let NetworkMode::Networks(attachments) = &spec.network_mode {
            for name in attachments.keys() {
                is_default_used |= name.as_str() == networking::DEFAULT;
                networks.entry(name.clone()).or_default();
            }
        }
    }
    if !is_default_used {
        networks.retain(|name, _| name.as_str() != networking::DEFAULT);
    }
}

/// Refuses a host port that two running services publish.
fn check_host_ports(services: &BTreeMap<ServiceName, ServiceSpec>, form: Form, notes: &mut Notes) {
    let mut taken = HostPorts::default();
    for (name, spec) in services.iter().filter(|(_, spec)| spec.is_running) {
        // One refusal per service is enough.
        if let Some(port) = spec.ports.iter().fold(None, |found, port| {
            let is_free = taken.take(port);
            found.or((!is_free).then_some(port))
        }) {
            let number = port.host_port.unwrap_or_default();
            let path = format!("{}.ports", paths(name.as_str(), form).composition);
            notes.refuse(refusal(
                path,
                format_args!("host port {number} is published by another service, too: choose another one"),
            ));
        }
    }
}

/// Refuses a fixed address on a network without a declared subnet, because the engine would.
fn check_addresses(contents: &Contents, form: Form, notes: &mut Notes) {
    for (service, spec) in &contents.services {
        let NetworkMode::Networks(attachments) = &spec.network_mode else { continue };
        for (network, attachment) in attachments {
            let is_fixed = attachment.ipv4_address.is_some() || attachment.ipv6_address.is_some();
            if is_fixed && contents.networks.get(network).is_none_or(|spec| spec.subnets.is_empty()) {
                let path = format!("{}.networks.{network}", paths(service.as_str(), form).composition);
                notes.refuse(refusal(
                    path,
                    format_args!(
                        "a fixed address needs a subnet: write one under networks.{network}.ipam.config"
                    ),
                ));
            }
        }
    }
}

/// Reads a list of texts. Numbers and bools count as texts.
fn strings(at: &At<'_>) -> Result<Vec<String>, Refusal> {
    let text = |item: At<'_>| match item.value {
        Value::String(_) | Value::Number(_) | Value::Bool(_) => item.scalar(),
        Value::Null | Value::Array(_) | Value::Object(_) => Err(item.wrong("a text")),
    };
    at.list()?.into_iter().map(text).collect()
}

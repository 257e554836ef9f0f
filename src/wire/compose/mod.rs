//! A release's compose fields → [`ServiceSpec`]s, networks and volumes.
//!
//! Nothing is dropped in silence: a field is honoured, or it is a warning, or
//! it is a refusal, each with its path and what to do (why: docs/dev/protocol.md,
//! "Compose fields on balena devices"). All of them are collected, so that an
//! author mends a release in one go. The same code serves the device and
//! `cotter release create`: what one accepts the other accepts.
//!
//! `null` is absent everywhere, and so is an empty value of a field that we do
//! not honour.

pub(super) mod at;
mod declared;
mod deploy;
pub(super) mod features;
mod fields;
mod healthcheck;
mod isolation;
mod limits;
mod mounts;
mod networking;
mod order;
mod ports;
mod resources;
mod service;
mod shared;
mod texts;
mod trial;
mod update;

#[cfg(test)]
mod doc_tests;
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
    MountSource, NetworkMode, NetworkName, NetworkSpec, Refusal, ServiceName, ServiceSpec, TrialSpec,
    VolumeName, VolumeSpec, Window,
};
use ports::HostPorts;
pub(super) use service::Paths;

/// What a release consists of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Contents {
    pub services: BTreeMap<ServiceName, ServiceSpec>,
    pub networks: BTreeMap<NetworkName, NetworkSpec>,
    pub volumes: BTreeMap<VolumeName, VolumeSpec>,
    pub trial: TrialSpec,
    pub windows: BTreeSet<Window>,
}

/// Where the compose fields of a service stand; it shows in the paths of notes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A device's target: `services.web.composition.ports`.
    Target,
    /// A compose file: `services.web.ports`.
    File,
}

/// Reads a release. The contents are whole only when the notes hold no refusal.
///
/// Volumes and networks that are used but not declared are added, without
/// config; `default` is there only when a service is on it. An app's absent
/// `restart` is `always`, as on balena devices.
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
    for (name, given) in &release.services {
        let paths = paths(name, form);
        let key = ServiceName::parse(name).map_err(|bad| refusal(paths.service.clone(), bad));
        let (key, spec) = (notes.keep(key), service::read(given, &paths, &mut notes));
        contents.services.extend(key.zip(spec));
    }
    declare_used(&mut contents);
    let is_named = |name: &str| release.services.contains_key(name);
    order::check(&contents.services, is_named, form, &mut notes);
    shared::check(&contents, is_named, form, &mut notes);
    check_host_ports(&contents.services, form, &mut notes);
    check_addresses(&contents, form, &mut notes);
    check_ranges(&contents.networks, &mut notes);
    shared::depend(&mut contents.services);
    shared::hashes(&mut contents);
    update::strategies(&mut contents.services, &mut notes);
    contents.windows = update::windows(&contents.services, &mut notes);
    contents.trial = trial::spec(&contents.services, &mut notes);
    (contents, notes)
}

/// Where a service and its fields stand.
pub(super) fn paths(service: &str, form: Form) -> Paths {
    let service = format!("services.{service}");
    let composition = match form {
        Form::Target => format!("{service}.composition"),
        Form::File => service.clone(),
    };
    Paths { service, composition }
}

fn refusal(path: String, why: impl std::fmt::Display) -> Refusal {
    Refusal { path, why: why.to_string() }
}

/// Adds the networks and volumes that are used but not declared, and takes an unused `default` away.
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

/// Two services that run cannot publish one port of the host.
fn check_host_ports(services: &BTreeMap<ServiceName, ServiceSpec>, form: Form, notes: &mut Notes) {
    let mut taken = HostPorts::default();
    for (name, spec) in services.iter().filter(|(_, spec)| spec.is_running) {
        // a second refusal of the same service would say the same
        if let Some(port) = spec.ports.iter().fold(None, |found, port| {
            let is_free = taken.take(port);
            found.or((!is_free).then_some(port))
        }) {
            let told = port.host_port.unwrap_or_default();
            let path = format!("{}.ports", paths(name.as_str(), form).composition);
            notes.refuse(refusal(
                path,
                format_args!("host port {told} is published by another service too: choose another one"),
            ));
        }
    }
}

/// The engine takes only one of two networks that have addresses in common.
fn check_ranges(networks: &BTreeMap<NetworkName, NetworkSpec>, notes: &mut Notes) {
    let usual: Vec<_> = networks.iter().filter(|(_, spec)| spec.ipam_driver.is_empty()).collect();
    for (n, (name, spec)) in usual.iter().enumerate() {
        if let Some((other, _)) = usual[..n].iter().find(|(_, other)| spec.overlaps(&other.ranges())) {
            let why = format_args!("it has addresses in common with network {other}: give it another subnet");
            notes.refuse(refusal(format!("networks.{name}.ipam.config"), why));
        }
    }
}

/// A fixed address needs a network with a subnet of its own, or the engine refuses it.
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

/// A list of texts; numbers and bools count as texts.
fn strings(at: &At<'_>) -> Result<Vec<String>, Refusal> {
    let text = |item: At<'_>| match item.value {
        Value::String(_) | Value::Number(_) | Value::Bool(_) => item.scalar(),
        Value::Null | Value::Array(_) | Value::Object(_) => Err(item.wrong("a text")),
    };
    at.list()?.into_iter().map(text).collect()
}

//! Translates our specs into the engine's requests. Pure.

mod host;
mod network;
mod versions;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use bollard::models::{ContainerCreateBody, EndpointSettings, HealthConfig, NetworkingConfig};
use sha2::{Digest, Sha256};

use crate::model::{
    App, ContainerId, Healthcheck, Instance, Namespace, NetworkName, NetworkSpec, PortMapping, Probe,
    Protocol, ServiceName, ServiceSpec, UNNAMED, VolumeName, is_own_label,
};

use super::NewContainer;
pub(super) use host::add_image_volumes;

pub(super) use network::{endpoints, network, volume};
pub(super) use versions::{Api, lacks, passed_over_by_podman};

/// The labels by which we recognise our own. The `io.balena.*` labels are for other software
/// (docs/dev/protocol.md, "Labels of containers"); Cotter does not read them.
pub(super) mod label {
    pub(crate) const INSTANCE: &str = "io.cotter.instance";
    pub(crate) const APP: &str = "io.cotter.app";
    pub(crate) const SERVICE: &str = "io.cotter.service";
    pub(crate) const RELEASE: &str = "io.cotter.release";
    pub(crate) const SPEC: &str = "io.cotter.spec";
    /// Whole seconds from the stop signal to SIGKILL.
    pub(crate) const GRACE: &str = "io.cotter.grace";
    /// The containers whose namespaces it joins, e.g. `network:<container id>`, separated by commas.
    pub(crate) const JOINS: &str = "io.cotter.joins";
    /// The address and key of the supervisor API that it has; empty if none.
    pub(crate) const INTRODUCED: &str = "io.cotter.introduced";
    pub(crate) const NETWORK: &str = "io.cotter.network";
    pub(crate) const NETWORK_CONFIG: &str = "io.cotter.network-config";
    pub(crate) const VOLUME: &str = "io.cotter.volume";
    /// Of balena: what its supervisor manages, and of which app.
    pub(crate) const SUPERVISED: &str = "io.balena.supervised";
    pub(crate) const APP_UUID: &str = "io.balena.app-uuid";
}

/// The suffix of the name of a container that is not connected to all its networks yet.
pub(super) const PARTIAL: &str = ".partial";

/// The prefix of the name of a parked container; the first digits of its id follow.
pub(super) const PARKED: &str = "parked-";

/// The name of a parked container. No container is created under such a name.
pub(super) fn parked_name(id: &str) -> String {
    format!("{PARKED}{}", id.get(..12).unwrap_or(id))
}

/// The instance of a host with only one. Its names need no prefix.
const DEFAULT_INSTANCE: &str = "default";

/// Returns `true` for the instance whose volumes have the names that balena's supervisor gives them.
pub(super) fn has_names_of_balena(instance: &Instance) -> bool {
    instance.as_str() == DEFAULT_INSTANCE
}

/// The prefix of all our names on an engine with several instances.
fn prefix(instance: &Instance) -> String {
    if instance.as_str() == DEFAULT_INSTANCE { String::new() } else { format!("{instance}_") }
}

/// Makes a name with the app's number in it. balena's volumes and networks have the same names, so data survives a
/// migration.
pub(super) fn container_name(
    instance: &Instance,
    app: &App,
    service: &ServiceName,
    spec: &ServiceSpec,
) -> String {
    format!("{}{}_{service}_{}", prefix(instance), app.number, spec.hash.short())
}

pub(super) fn network_name(instance: &Instance, app: &App, name: &NetworkName, spec: &NetworkSpec) -> String {
    let end = spec.config_hash.as_ref().map_or(String::new(), |hash| format!("_{hash}"));
    format!("{}{}_{name}{end}", prefix(instance), app.number)
}

/// The name of a volume to which neither the release nor the image gives one. It is the same for each container of the
/// service, so that the data of a path stays with it over updates.
pub(super) fn unnamed_volume(service: &ServiceName, path: &str) -> Option<VolumeName> {
    let path = path.trim_end_matches('/');
    let words: Vec<&str> =
        path.split(|c: char| !c.is_ascii_alphanumeric()).filter(|w| !w.is_empty()).collect();
    let readable: String = words.join("-").chars().take(60).collect();
    let hash: String = Sha256::digest(path.as_bytes()).iter().take(4).map(|b| format!("{b:02x}")).collect();
    VolumeName::parse(format!("{service}{UNNAMED}{readable}-{hash}")).ok()
}

pub(super) fn volume_name(instance: &Instance, app: &App, name: &VolumeName) -> String {
    format!("{}{}_{name}", prefix(instance), app.number)
}

/// The time from SIGTERM to SIGKILL in whole seconds. The engine's default is 10 s.
pub(super) fn grace_seconds(spec: &ServiceSpec) -> u64 {
    spec.stop_grace.map_or(10, |grace| grace.as_secs() + u64::from(grace.subsec_nanos() > 0))
}

/// The author's labels, except those by which we recognise our own.
fn of_author(labels: &BTreeMap<String, String>) -> HashMap<String, String> {
    let kept = labels.iter().filter(|(name, _)| !is_own_label(name));
    kept.map(|(name, value)| (name.clone(), value.clone())).collect()
}

fn owned(app: &App, instance: &Instance) -> HashMap<String, String> {
    HashMap::from([
        (label::INSTANCE.to_owned(), instance.as_str().to_owned()),
        (label::APP.to_owned(), app.id.to_string()),
        (label::SUPERVISED.to_owned(), "true".to_owned()),
        ("io.balena.app-id".to_owned(), app.number.to_string()),
        (label::APP_UUID.to_owned(), app.id.to_string()),
    ])
}

/// The engine on which a container is created.
#[derive(Debug, Clone, Copy)]
pub(super) struct Host<'a> {
    pub(super) instance: &'a Instance,
    /// The engine's own socket, for containers that mount it.
    pub(super) socket: &'a Path,
    pub(super) is_podman: bool,
}

/// Makes the request for a container, and the list of networks to which it must be connected after its creation.
///
/// Engines before API 1.44 accept only one network at creation.
pub(super) fn container(
    host: Host<'_>,
    new: NewContainer<'_>,
) -> (ContainerCreateBody, Vec<(String, EndpointSettings)>) {
    let NewContainer { spec, .. } = new;
    let (network_mode, mut endpoints) = network::endpoints(host.instance, new);
    let first = if endpoints.is_empty() { None } else { Some(endpoints.remove(0)) };
    let body = ContainerCreateBody {
        image: Some(spec.image.to_string()),
        cmd: spec.command.clone(),
        entrypoint: spec.entrypoint.clone(),
        env: Some(spec.environment.iter().map(|(k, v)| format!("{k}={v}")).collect()),
        labels: Some(container_labels(host.instance, new)),
        user: spec.user.clone(),
        working_dir: spec.working_dir.clone(),
        hostname: spec.hostname.clone(),
        domainname: spec.resolver.domainname.clone(),
        open_stdin: spec.has_stdin.then_some(true),
        tty: Some(spec.has_tty),
        healthcheck: spec.healthcheck.as_ref().map(healthcheck),
        stop_signal: spec.stop_signal.clone(),
        stop_timeout: i64::try_from(grace_seconds(spec)).ok(),
        exposed_ports: Some(spec.ports.iter().map(port_key).collect()),
        host_config: Some(host::config(host, new, network_mode)),
        networking_config: first.map(|(name, endpoint)| NetworkingConfig {
            endpoints_config: Some(HashMap::from([(name, endpoint)])),
        }),
        ..ContainerCreateBody::default()
    };
    (body, endpoints)
}

/// The containers whose namespaces a new container joins, by kind.
pub(super) fn joins(new: NewContainer<'_>) -> BTreeMap<Namespace, ContainerId> {
    let joined = new.spec.joins().filter_map(|(kind, name)| Some((kind, new.joined.get(name)?.clone())));
    joined.collect()
}

fn container_labels(instance: &Instance, new: NewContainer<'_>) -> HashMap<String, String> {
    let NewContainer { app, release, service, spec, .. } = new;
    let mut labels = of_author(&spec.labels);
    labels.extend(owned(app, instance));
    let joins: Vec<_> = joins(new).iter().map(|(kind, id)| format!("{}:{id}", kind.as_str())).collect();
    labels.extend([
        // Each of our labels is always set: otherwise the engine would use a label of the image, which its author controls.
        (label::JOINS.to_owned(), joins.join(",")),
        (label::INTRODUCED.to_owned(), new.introduction.mark().unwrap_or_default()),
        (label::SERVICE.to_owned(), service.to_string()),
        (label::RELEASE.to_owned(), release.to_string()),
        (label::SPEC.to_owned(), spec.hash.to_string()),
        (label::GRACE.to_owned(), grace_seconds(spec).to_string()),
        ("io.balena.service-name".to_owned(), service.to_string()),
        ("io.balena.service-id".to_owned(), spec.service_id.to_string()),
    ]);
    labels
}

fn port_key(port: &PortMapping) -> String {
    let protocol = match port.protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    };
    format!("{}/{protocol}", port.container_port)
}

fn nanoseconds(duration: Option<std::time::Duration>) -> Option<i64> {
    duration.and_then(|d| i64::try_from(d.as_nanos()).ok())
}

fn healthcheck(check: &Healthcheck) -> HealthConfig {
    let test = match &check.probe {
        Probe::Inherit => None,
        Probe::Disabled => Some(vec!["NONE".to_owned()]),
        Probe::Command(words) => Some([vec!["CMD".to_owned()], words.clone()].concat()),
        Probe::Shell(line) => Some(vec!["CMD-SHELL".to_owned(), line.clone()]),
    };
    HealthConfig {
        test,
        interval: nanoseconds(check.interval),
        timeout: nanoseconds(check.timeout),
        start_period: nanoseconds(check.start_period),
        retries: check.retries.map(i64::from),
        start_interval: nanoseconds(check.start_interval),
    }
}

//! Our spec in the engine's words. Pure.

use std::collections::HashMap;

use bollard::models::{
    ContainerCreateBody, DeviceMapping, EndpointIpamConfig, EndpointSettings, HealthConfig, HostConfig, Ipam,
    IpamConfig, Mount, MountType, NetworkCreateRequest, NetworkingConfig, PortBinding, PortMap,
    ResourcesUlimits, RestartPolicy, RestartPolicyNameEnum, VolumeCreateRequest,
};

use crate::model::{
    App, Healthcheck, Instance, MountSource, NetworkAttachment, NetworkMode, NetworkName, NetworkSpec,
    PortMapping, Probe, Protocol, RestartPolicy as Restart, ServiceName, ServiceSpec, VolumeName, VolumeSpec,
};

use super::NewContainer;

/// Labels by which we know our own. The `io.balena.*` ones are for software that looks for those
/// (protocol.md 3.2); nothing of ours reads them.
pub(super) mod label {
    pub(crate) const INSTANCE: &str = "io.cotter.instance";
    pub(crate) const APP: &str = "io.cotter.app";
    pub(crate) const SERVICE: &str = "io.cotter.service";
    pub(crate) const RELEASE: &str = "io.cotter.release";
    pub(crate) const SPEC: &str = "io.cotter.spec";
    /// Whole seconds from the stop signal to SIGKILL.
    pub(crate) const GRACE: &str = "io.cotter.grace";
    pub(crate) const NETWORK: &str = "io.cotter.network";
    pub(crate) const NETWORK_CONFIG: &str = "io.cotter.network-config";
    pub(crate) const VOLUME: &str = "io.cotter.volume";
}

/// A container that is not connected to all its networks yet is called so.
pub(super) const PARTIAL: &str = ".partial";

/// A container that was put aside is called so, with the first digits of its id.
pub(super) const PARKED: &str = "parked-";

/// The name of a container that was put aside: no container of ours is ever created under it.
pub(super) fn parked_name(id: &str) -> String {
    format!("{PARKED}{}", id.get(..12).unwrap_or(id))
}

/// The instance of a host that has only one: it needs no prefix.
const DEFAULT_INSTANCE: &str = "default";

/// What every name of ours begins with on an engine that several instances share.
fn prefix(instance: &Instance) -> String {
    if instance.as_str() == DEFAULT_INSTANCE { String::new() } else { format!("{instance}_") }
}

/// Names carry the app's number, as balena's volumes and networks do, so that data survives a migration.
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

pub(super) fn volume_name(instance: &Instance, app: &App, name: &VolumeName) -> String {
    format!("{}{}_{name}", prefix(instance), app.number)
}

/// SIGTERM to SIGKILL, in the engine's unit; its own default is 10 s.
pub(super) fn grace_seconds(spec: &ServiceSpec) -> u64 {
    spec.stop_grace.map_or(10, |grace| grace.as_secs() + u64::from(grace.subsec_nanos() > 0))
}

fn owned(app: &App, instance: &Instance) -> HashMap<String, String> {
    HashMap::from([
        (label::INSTANCE.to_owned(), instance.as_str().to_owned()),
        (label::APP.to_owned(), app.id.to_string()),
        ("io.balena.supervised".to_owned(), "true".to_owned()),
        ("io.balena.app-id".to_owned(), app.number.to_string()),
        ("io.balena.app-uuid".to_owned(), app.id.to_string()),
    ])
}

/// The container, and the networks to which it must be connected after it was created.
///
/// Engines before API 1.44 take one network at creation, so the others come after.
pub(super) fn container(
    instance: &Instance,
    new: NewContainer<'_>,
) -> (ContainerCreateBody, Vec<(String, EndpointSettings)>) {
    let NewContainer { app, spec, .. } = new;
    let (network_mode, mut endpoints) = networks(instance, new);
    let first = if endpoints.is_empty() { None } else { Some(endpoints.remove(0)) };
    let body = ContainerCreateBody {
        image: Some(spec.image.to_string()),
        cmd: spec.command.clone(),
        entrypoint: spec.entrypoint.clone(),
        env: Some(spec.environment.iter().map(|(k, v)| format!("{k}={v}")).collect()),
        labels: Some(container_labels(instance, new)),
        user: spec.user.clone(),
        working_dir: spec.working_dir.clone(),
        hostname: spec.hostname.clone(),
        tty: Some(spec.has_tty),
        healthcheck: spec.healthcheck.as_ref().map(healthcheck),
        stop_signal: spec.stop_signal.clone(),
        stop_timeout: i64::try_from(grace_seconds(spec)).ok(),
        exposed_ports: Some(spec.ports.iter().map(port_key).collect()),
        host_config: Some(host_config(instance, app, spec, network_mode)),
        networking_config: first.map(|(name, endpoint)| NetworkingConfig {
            endpoints_config: Some(HashMap::from([(name, endpoint)])),
        }),
        ..ContainerCreateBody::default()
    };
    (body, endpoints)
}

fn container_labels(instance: &Instance, new: NewContainer<'_>) -> HashMap<String, String> {
    let NewContainer { app, release, service, spec, .. } = new;
    let mut labels: HashMap<_, _> = spec.labels.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
    labels.extend(owned(app, instance));
    labels.extend([
        (label::SERVICE.to_owned(), service.to_string()),
        (label::RELEASE.to_owned(), release.to_string()),
        (label::SPEC.to_owned(), spec.hash.to_string()),
        (label::GRACE.to_owned(), grace_seconds(spec).to_string()),
        ("io.balena.service-name".to_owned(), service.to_string()),
        ("io.balena.service-id".to_owned(), spec.service_id.to_string()),
    ]);
    labels
}

fn host_config(instance: &Instance, app: &App, spec: &ServiceSpec, network_mode: String) -> HostConfig {
    HostConfig {
        network_mode: Some(network_mode),
        port_bindings: Some(port_bindings(&spec.ports)),
        restart_policy: Some(restart_policy(spec.restart)),
        mounts: Some(spec.mounts.iter().map(|m| mount(instance, app, m)).collect()),
        tmpfs: Some(spec.tmpfs.iter().map(|(k, v)| (k.clone(), v.clone())).collect()),
        memory: spec.memory_limit.and_then(|bytes| i64::try_from(bytes).ok()),
        cap_add: Some(spec.cap_add.iter().cloned().collect()),
        cap_drop: Some(spec.cap_drop.iter().cloned().collect()),
        devices: Some(
            spec.devices
                .iter()
                .map(|d| DeviceMapping {
                    path_on_host: Some(d.host_path.clone()),
                    path_in_container: Some(d.container_path.clone()),
                    cgroup_permissions: Some(d.permissions.clone()),
                })
                .collect(),
        ),
        privileged: Some(spec.is_privileged),
        readonly_rootfs: Some(spec.is_read_only),
        init: spec.has_init,
        extra_hosts: Some(spec.extra_hosts.iter().cloned().collect()),
        ulimits: Some(
            spec.ulimits
                .iter()
                .map(|(name, limit)| ResourcesUlimits {
                    name: Some(name.clone()),
                    soft: Some(limit.soft),
                    hard: Some(limit.hard),
                })
                .collect(),
        ),
        ..HostConfig::default()
    }
}

/// `always` is applied as `unless-stopped`, so that a predecessor that we stopped stays stopped when
/// the engine starts again.
fn restart_policy(policy: Restart) -> RestartPolicy {
    let (name, count) = match policy {
        Restart::No => (RestartPolicyNameEnum::NO, None),
        Restart::Always | Restart::UnlessStopped => (RestartPolicyNameEnum::UNLESS_STOPPED, None),
        Restart::OnFailure { retries } => (RestartPolicyNameEnum::ON_FAILURE, Some(i64::from(retries))),
    };
    RestartPolicy { name: Some(name), maximum_retry_count: count }
}

fn port_key(port: &PortMapping) -> String {
    let protocol = match port.protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    };
    format!("{}/{protocol}", port.container_port)
}

fn port_bindings(ports: &[PortMapping]) -> PortMap {
    let mut bindings = PortMap::new();
    for port in ports {
        let binding = PortBinding {
            host_ip: Some(port.host_ip.clone()),
            host_port: Some(port.host_port.map_or(String::new(), |p| p.to_string())),
        };
        bindings
            .entry(port_key(port))
            .or_insert_with(|| Some(Vec::new()))
            .get_or_insert_default()
            .push(binding);
    }
    bindings
}

fn mount(instance: &Instance, app: &App, mount: &crate::model::Mount) -> Mount {
    Mount {
        typ: Some(MountType::VOLUME),
        source: match &mount.source {
            MountSource::Volume(name) => Some(volume_name(instance, app, name)),
            MountSource::Anonymous => None,
        },
        target: Some(mount.target.clone()),
        read_only: Some(mount.is_read_only),
        ..Mount::default()
    }
}

fn networks(instance: &Instance, new: NewContainer<'_>) -> (String, Vec<(String, EndpointSettings)>) {
    let attached = match &new.spec.network_mode {
        NetworkMode::Host => return ("host".to_owned(), Vec::new()),
        NetworkMode::None => return ("none".to_owned(), Vec::new()),
        NetworkMode::Bridge => return ("bridge".to_owned(), Vec::new()),
        NetworkMode::Networks(attached) => attached,
    };
    let unconfigured = NetworkSpec::default();
    let endpoint = |(name, attachment): (&NetworkName, &NetworkAttachment)| {
        let spec = new.networks.get(name).unwrap_or(&unconfigured);
        let mut aliases: Vec<_> = attachment.aliases.iter().cloned().collect();
        aliases.push(new.service.to_string());
        let has_address = attachment.ipv4_address.is_some() || attachment.ipv6_address.is_some();
        let settings = EndpointSettings {
            aliases: Some(aliases),
            ipam_config: has_address.then(|| EndpointIpamConfig {
                ipv4_address: attachment.ipv4_address.clone(),
                ipv6_address: attachment.ipv6_address.clone(),
                ..EndpointIpamConfig::default()
            }),
            ..EndpointSettings::default()
        };
        (network_name(instance, new.app, name, spec), settings)
    };
    let endpoints: Vec<_> = attached.iter().map(endpoint).collect();
    let mode = endpoints.first().map_or("none".to_owned(), |(name, _)| name.clone());
    (mode, endpoints)
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
        start_interval: None,
    }
}

fn or_default(driver: &str, default: &str) -> String {
    if driver.is_empty() { default.to_owned() } else { driver.to_owned() }
}

pub(super) fn network(
    instance: &Instance,
    app: &App,
    name: &NetworkName,
    spec: &NetworkSpec,
) -> NetworkCreateRequest {
    let mut labels: HashMap<_, _> = spec.labels.clone().into_iter().collect();
    labels.extend(owned(app, instance));
    labels.insert(label::NETWORK.to_owned(), name.to_string());
    if let Some(hash) = &spec.config_hash {
        labels.insert(label::NETWORK_CONFIG.to_owned(), hash.clone());
    }
    let range = |s: &crate::model::Subnet| IpamConfig {
        subnet: s.subnet.clone(),
        gateway: s.gateway.clone(),
        ip_range: s.ip_range.clone(),
        auxiliary_addresses: None,
    };
    NetworkCreateRequest {
        name: network_name(instance, app, name, spec),
        driver: Some(or_default(&spec.driver, "bridge")),
        internal: Some(spec.is_internal),
        enable_ipv6: Some(spec.has_ipv6),
        options: Some(spec.driver_opts.clone().into_iter().collect()),
        labels: Some(labels),
        ipam: (!spec.subnets.is_empty())
            .then(|| Ipam { config: Some(spec.subnets.iter().map(range).collect()), ..Ipam::default() }),
        ..NetworkCreateRequest::default()
    }
}

pub(super) fn volume(
    instance: &Instance,
    app: &App,
    name: &VolumeName,
    spec: &VolumeSpec,
) -> VolumeCreateRequest {
    let mut labels: HashMap<_, _> = spec.labels.clone().into_iter().collect();
    labels.extend(owned(app, instance));
    labels.insert(label::VOLUME.to_owned(), name.to_string());
    VolumeCreateRequest {
        name: Some(volume_name(instance, app, name)),
        driver: Some(or_default(&spec.driver, "local")),
        driver_opts: Some(spec.driver_opts.clone().into_iter().collect()),
        labels: Some(labels),
        cluster_volume_spec: None,
    }
}

//! Translates what a container gets from its host: limits, devices, mounts, namespaces. Pure.

use std::collections::BTreeMap;

use bollard::models::{
    ContainerCreateBody, DeviceMapping, DeviceRequest, HostConfig, HostConfigCgroupnsModeEnum,
    HostConfigLogConfig, Mount, MountBindOptions, MountBindOptionsPropagationEnum, MountType,
    MountVolumeOptions, PortBinding, PortMap, ResourcesBlkioWeightDevice, ResourcesUlimits, RestartPolicy,
    RestartPolicyNameEnum, ThrottleDevice,
};

use crate::model::{
    Isolation, Limits, Logging, MountOptions, MountSource, Namespace, PortMapping, RestartPolicy as Restart,
    ServiceSpec,
};

use super::{Host, port_key, unnamed_volume, volume_name};
use crate::engine::NewContainer;

pub(super) fn config(on: Host<'_>, new: NewContainer<'_>, network_mode: String) -> HostConfig {
    let NewContainer { spec, .. } = new;
    let bound: Vec<String> = spec.mounts.iter().filter_map(bind).collect();
    let mut host = HostConfig {
        network_mode: Some(network_mode),
        port_bindings: Some(port_bindings(&spec.ports)),
        restart_policy: Some(restart_policy(spec.restart)),
        binds: (!bound.is_empty()).then_some(bound),
        mounts: Some(spec.mounts.iter().filter_map(|m| mount(on, new, m)).collect()),
        tmpfs: Some(spec.tmpfs.iter().map(|(k, v)| (k.clone(), v.clone())).collect()),
        memory: signed(spec.memory_limit),
        cap_add: Some(spec.cap_add.iter().cloned().collect()),
        cap_drop: Some(spec.cap_drop.iter().cloned().collect()),
        devices: Some(devices(spec)),
        privileged: Some(spec.is_privileged),
        readonly_rootfs: Some(spec.is_read_only),
        init: spec.has_init,
        extra_hosts: Some(spec.extra_hosts.iter().cloned().collect()),
        ulimits: Some(ulimits(spec)),
        log_config: Some(log_config(spec.logging.as_ref(), on.is_podman)),
        dns: some(&spec.resolver.servers),
        dns_search: some(&spec.resolver.search),
        dns_options: some(&spec.resolver.options),
        annotations: (!spec.annotations.is_empty()).then(|| spec.annotations.clone().into_iter().collect()),
        ..HostConfig::default()
    };
    limit(&mut host, &spec.limits);
    isolate(&mut host, &spec.isolation, on.is_podman);
    for (kind, id) in super::joins(new) {
        match kind {
            // The network mode says it already.
            Namespace::Network => {}
            Namespace::Ipc => host.ipc_mode = Some(format!("container:{id}")),
            Namespace::Pid => host.pid_mode = Some(format!("container:{id}")),
        }
    }
    host
}

fn some(texts: &[String]) -> Option<Vec<String>> {
    (!texts.is_empty()).then(|| texts.to_vec())
}

fn signed(bytes: Option<u64>) -> Option<i64> {
    bytes.and_then(|bytes| i64::try_from(bytes).ok())
}

fn limit(host: &mut HostConfig, limits: &Limits) {
    host.nano_cpus = signed(limits.nano_cpus);
    host.cpu_shares = signed(limits.cpu_shares);
    host.cpu_period = limits.cpu_period;
    host.cpu_quota = limits.cpu_quota;
    host.cpu_realtime_period = limits.cpu_rt_period;
    host.cpu_realtime_runtime = limits.cpu_rt_runtime;
    host.cpuset_cpus.clone_from(&limits.cpuset);
    host.memory_reservation = signed(limits.memory_reservation);
    host.memory_swap = limits.memory_swap;
    host.memory_swappiness = limits.swappiness;
    host.oom_kill_disable = limits.is_oom_kill_disabled.then_some(true);
    host.oom_score_adj = limits.oom_score_adj;
    host.pids_limit = limits.pids;
    host.shm_size = signed(limits.shm_size);
    let disks = &limits.disks;
    host.blkio_weight = disks.weight;
    let weights = disks.weights.iter().map(|(path, weight)| ResourcesBlkioWeightDevice {
        path: Some(path.clone()),
        weight: usize::try_from(*weight).ok(),
    });
    host.blkio_weight_device = (!disks.weights.is_empty()).then(|| weights.collect());
    host.blkio_device_read_bps = rates(&disks.read_bytes);
    host.blkio_device_write_bps = rates(&disks.write_bytes);
    host.blkio_device_read_iops = rates(&disks.read_operations);
    host.blkio_device_write_iops = rates(&disks.write_operations);
}

fn rates(by_path: &BTreeMap<String, u64>) -> Option<Vec<ThrottleDevice>> {
    let rate = |(path, rate): (&String, &u64)| ThrottleDevice {
        path: Some(path.clone()),
        rate: i64::try_from(*rate).ok(),
    };
    (!by_path.is_empty()).then(|| by_path.iter().map(rate).collect())
}

/// The engine does not know this value: Docker's command line turns it into two empty lists, and podman has a value of
/// its own.
const ALL_PATHS: &str = "systempaths=unconfined";
const ALL_PATHS_OF_PODMAN: &str = "unmask=ALL";

fn isolate(host: &mut HostConfig, isolation: &Isolation, is_podman: bool) {
    let shared = |is_shared: bool| is_shared.then(|| "host".to_owned());
    host.ipc_mode.clone_from(&isolation.ipc);
    host.pid_mode = shared(isolation.has_host_pid);
    host.uts_mode = shared(isolation.has_host_uts);
    host.userns_mode = shared(isolation.has_host_users);
    host.cgroupns_mode = isolation.cgroup.as_deref().map(|mode| match mode {
        "host" => HostConfigCgroupnsModeEnum::HOST,
        _ => HostConfigCgroupnsModeEnum::PRIVATE,
    });
    host.cgroup_parent.clone_from(&isolation.cgroup_parent);
    let mut options: Vec<_> = isolation.security.iter().filter(|o| *o != ALL_PATHS).cloned().collect();
    let is_open = isolation.security.contains(ALL_PATHS);
    options.extend((is_open && is_podman).then(|| ALL_PATHS_OF_PODMAN.to_owned()));
    host.security_opt = some(&options);
    if is_open {
        (host.masked_paths, host.readonly_paths) = (Some(Vec::new()), Some(Vec::new()));
    }
    host.sysctls = (!isolation.sysctls.is_empty()).then(|| isolation.sysctls.clone().into_iter().collect());
    host.group_add = some(&isolation.groups.iter().cloned().collect::<Vec<_>>());
    host.runtime.clone_from(&isolation.runtime);
    host.device_cgroup_rules = some(&isolation.device_rules.iter().cloned().collect::<Vec<_>>());
    let requests = isolation.device_requests.iter().map(|request| DeviceRequest {
        driver: Some(request.driver.clone()),
        count: request.count,
        device_ids: some(&request.ids),
        capabilities: Some(vec![request.capabilities.clone()]),
        options: Some(request.options.clone().into_iter().collect()),
    });
    host.device_requests = (!isolation.device_requests.is_empty()).then(|| requests.collect());
}

/// Uses the `local` driver unless the author names another one: it rotates, so that an app that writes much does not fill
/// a small disk. podman has no such driver; its own keeps one file of limited size.
fn log_config(logging: Option<&Logging>, is_podman: bool) -> HostConfigLogConfig {
    match logging {
        None => {
            let (driver, files) =
                if is_podman { ("k8s-file", None) } else { ("local", Some(("max-file", "3"))) };
            let options = [("max-size", "10m")].into_iter().chain(files);
            let options = options.map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
            HostConfigLogConfig { typ: Some(driver.to_owned()), config: Some(options) }
        }
        Some(logging) => HostConfigLogConfig {
            typ: Some(logging.driver.clone()),
            config: Some(logging.options.clone().into_iter().collect()),
        },
    }
}

fn devices(spec: &ServiceSpec) -> Vec<DeviceMapping> {
    let device = |d: &crate::model::Device| DeviceMapping {
        path_on_host: Some(d.host_path.clone()),
        path_in_container: Some(d.container_path.clone()),
        cgroup_permissions: Some(d.permissions.clone()),
    };
    spec.devices.iter().map(device).collect()
}

fn ulimits(spec: &ServiceSpec) -> Vec<ResourcesUlimits> {
    let ulimit = |(name, limit): (&String, &crate::model::Ulimit)| ResourcesUlimits {
        name: Some(name.clone()),
        soft: Some(limit.soft),
        hard: Some(limit.hard),
    };
    spec.ulimits.iter().map(ulimit).collect()
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

/// Writes a mount of a host path as a bind, for which the engine creates a missing folder. All other mounts are
/// [`mount`]s.
fn bind(mount: &crate::model::Mount) -> Option<String> {
    let MountSource::Host(path) = &mount.source else { return None };
    if mount.options.must_exist {
        return None;
    }
    let mode = if mount.is_read_only { "ro" } else { "rw" };
    let more = mount.options.propagation.as_ref().map(|how| format!(",{how}")).unwrap_or_default();
    Some(format!("{path}:{}:{mode}{more}", mount.target))
}

/// Mounts the volumes that the image names and the release does not, so that their content outlives the container.
pub(in crate::engine) fn add_image_volumes(
    body: &mut ContainerCreateBody,
    on: Host<'_>,
    new: NewContainer<'_>,
    paths: &[String],
) {
    let mounts = body.host_config.get_or_insert_default().mounts.get_or_insert_default();
    mounts.extend(paths.iter().filter_map(|path| {
        let mount_of = crate::model::Mount {
            source: MountSource::Anonymous,
            target: path.clone(),
            is_read_only: false,
            options: MountOptions::default(),
        };
        mount(on, new, &mount_of)
    }));
}

fn mount(on: Host<'_>, new: NewContainer<'_>, mount: &crate::model::Mount) -> Option<Mount> {
    let NewContainer { app, service, .. } = new;
    let (kind, source) = match &mount.source {
        MountSource::Volume(name) => (MountType::VOLUME, Some(volume_name(on.instance, app, name))),
        MountSource::Anonymous => {
            let name = unnamed_volume(service, &mount.target)?;
            (MountType::VOLUME, Some(volume_name(on.instance, app, &name)))
        }
        MountSource::EngineSocket => (MountType::BIND, Some(on.socket.display().to_string())),
        MountSource::Host(path) if mount.options.must_exist => (MountType::BIND, Some(path.clone())),
        MountSource::Host(_) => return None,
    };
    let MountOptions { has_no_copy, subpath, propagation, must_exist: _ } = &mount.options;
    Some(Mount {
        typ: Some(kind),
        source,
        target: Some(mount.target.clone()),
        read_only: Some(mount.is_read_only),
        volume_options: (*has_no_copy || subpath.is_some()).then(|| MountVolumeOptions {
            no_copy: Some(*has_no_copy),
            subpath: subpath.clone(),
            ..MountVolumeOptions::default()
        }),
        bind_options: propagation
            .as_deref()
            .and_then(spread)
            .map(|how| MountBindOptions { propagation: Some(how), ..MountBindOptions::default() }),
        ..Mount::default()
    })
}

fn spread(word: &str) -> Option<MountBindOptionsPropagationEnum> {
    match word {
        "private" => Some(MountBindOptionsPropagationEnum::PRIVATE),
        "rprivate" => Some(MountBindOptionsPropagationEnum::RPRIVATE),
        "shared" => Some(MountBindOptionsPropagationEnum::SHARED),
        "rshared" => Some(MountBindOptionsPropagationEnum::RSHARED),
        "slave" => Some(MountBindOptionsPropagationEnum::SLAVE),
        "rslave" => Some(MountBindOptionsPropagationEnum::RSLAVE),
        _ => None,
    }
}

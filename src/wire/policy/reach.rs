//! Lists everything of the host that a release can reach.
//!
//! Every struct is destructured field by field, so a new field does not compile before it is decided which switch covers
//! it, or that none has to. `docs/compose.md` has the same decisions, field by field.

use super::{Reach, is_in, network, volume};
use crate::model::{
    DiskLimits, Isolation, Limits, Logging, Mount, MountOptions, MountSource, Resolver, ServiceSpec, Switch,
    Ulimit,
};
use crate::wire::compose::{Contents, Form, features, paths};

/// Something that a release can reach, with the path of the field in the release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) at: String,
    pub(super) reach: Reach,
}

/// Capabilities that Docker and podman give every container by default (Docker 20.10, podman 4.3).
const USUAL_CAPABILITIES: &str =
    "CHOWN DAC_OVERRIDE FOWNER FSETID KILL NET_BIND_SERVICE SETFCAP SETGID SETPCAP SETUID SYS_CHROOT";

/// Limits of setrlimit(2) that bound what a process uses. `nice` and `rtprio` are not among them, because they let it run
/// before the host's own processes.
const BOUNDING_ULIMITS: &str =
    "as core cpu data fsize locks memlock msgqueue nofile nproc rss rttime sigpending stack";

/// Drivers that keep logs on the engine's disk, or nowhere. Empty: the engine's default, which is its owner's choice.
const PLAIN_LOGS: [&str; 4] = ["", "local", "json-file", "none"];

/// Harmless options of these drivers. Others name files of the host (`path`, with podman) or use memory of the engine
/// (`max-buffer-size`).
const LOG_OPTIONS: &str = "compress env env-regex labels labels-regex max-file max-size mode tag";

/// Propagation modes in which mounts of the container do not appear on the host.
const INWARD: [&str; 4] = ["private", "rprivate", "slave", "rslave"];

/// Returns everything of the host that a release can reach.
pub(super) fn list(contents: &Contents, form: Form) -> Vec<Found> {
    let Contents { services, networks, volumes, trial: _, windows: _ } = contents;
    let mut found = Vec::new();
    for (name, spec) in services {
        let paths = paths(name.as_str(), form);
        service(&paths.composition, spec, &mut found);
        mounted(&paths.composition, spec, &mut found);
        labels(&paths.service, spec, &mut found);
    }
    let mut add = |at: String, reach| found.push(Found { at, reach });
    for (name, spec) in networks {
        for (field, switch) in network::of_network(spec) {
            add(format!("networks.{name}.{field}"), Reach::By(switch));
        }
    }
    for (name, spec) in volumes {
        for (field, reach) in volume::of_volume(spec) {
            add(format!("volumes.{name}.{field}"), reach);
        }
    }
    found
}

fn service(at: &str, spec: &ServiceSpec, found: &mut Vec<Found>) {
    let ServiceSpec {
        // Used by the cloud and the agent only.
        hash: _,
        service_id: _,
        image_id: _,
        is_running: _,
        depends_on: _,
        strategy: _,
        // Effective only inside the container.
        image: _,
        platform: _,
        command: _,
        entrypoint: _,
        environment: _,
        user: _,
        working_dir: _,
        hostname: _,
        healthcheck: _,
        restart: _,
        stop_grace: _,
        stop_signal: _,
        cap_drop: _,
        is_read_only: _,
        has_init: _,
        has_tty: _,
        has_stdin: _,
        files: _,
        extra_hosts: _,
        resolver: Resolver { domainname: _, servers: _, search: _, options: _ },
        // Shares of the host that all containers have: its memory, and ports that are not taken.
        memory_limit: _,
        tmpfs: _,
        ports: _,
        // Handled by other functions.
        labels: _,
        mounts: _,
        network_mode,
        cap_add,
        devices,
        is_privileged,
        ulimits,
        limits,
        isolation,
        logging,
        annotations,
    } = spec;
    let mut by = |field: &str, is_asked: bool, switch| add_if(is_asked, found, at, field, switch);
    by("privileged", *is_privileged, Switch::Privileged);
    by("cap_add", cap_add.iter().any(|cap| !is_in(USUAL_CAPABILITIES, cap)), Switch::Capabilities);
    by("devices", !devices.is_empty(), Switch::Devices);
    by("annotations", !annotations.is_empty(), Switch::Runtimes);
    by("logging", logging.as_ref().is_some_and(leaves), Switch::Drivers);
    for (field, switch) in network::of_service(network_mode) {
        by(field, true, switch);
    }
    by("ulimits", ulimits.iter().any(goes_first), Switch::Capabilities);
    shares(limits, &mut by);
    isolated(isolation, &mut by);
}

/// Adds a field that the release uses, with its switch.
fn add_if(is_used: bool, found: &mut Vec<Found>, at: &str, field: &str, switch: Switch) {
    if is_used {
        found.push(Found { at: format!("{at}.{field}"), reach: Reach::By(switch) });
    }
}

/// Returns `true` if a limit lets processes run before those of the host.
fn goes_first((name, limit): (&String, &Ulimit)) -> bool {
    let Ulimit { soft, hard } = limit;
    !is_in(BOUNDING_ULIMITS, name) && (*soft, *hard) != (0, 0)
}

/// Adds the mounts of the author, except those by labels.
fn mounted(at: &str, spec: &ServiceSpec, found: &mut Vec<Found>) {
    let mut add = |reach| found.push(Found { at: format!("{at}.volumes"), reach });
    for mount in spec.mounts.iter().filter(|mount| !features::is_of_label(spec, mount)) {
        let Mount { source, target: _, is_read_only: _, options } = mount;
        let MountOptions { has_no_copy: _, subpath: _, propagation, must_exist: _ } = options;
        if propagation.as_ref().is_some_and(|how| !INWARD.contains(&how.as_str())) {
            add(Reach::By(Switch::Capabilities));
        }
        match source {
            // A volume is looked at where it is declared.
            MountSource::Volume(_) | MountSource::Anonymous => {}
            MountSource::Host(path) => add(Reach::Path(path.clone())),
            MountSource::EngineSocket => add(Reach::By(Switch::DockerSocket)),
        }
    }
}

/// The labels that give parts of the host.
fn labels(at: &str, spec: &ServiceSpec, found: &mut Vec<Found>) {
    for label in features::asked(spec) {
        let switch = match label {
            "balena-socket" => Switch::DockerSocket,
            "supervisor-api" => Switch::SupervisorApi,
            "balena-api" => Switch::BalenaApi,
            _ if features::of_paths().any(|known| known == label) => Switch::Features,
            // `gpu` is a request for a device; the others give nothing.
            _ => continue,
        };
        found.push(Found { at: format!("{at}.labels.io.balena.features.{label}"), reach: Reach::By(switch) });
    }
}

/// Whether logs go further than the engine's own disk.
fn leaves(logging: &Logging) -> bool {
    let Logging { driver, options } = logging;
    !PLAIN_LOGS.contains(&driver.as_str()) || options.keys().any(|option| !is_in(LOG_OPTIONS, option))
}

fn shares(limits: &Limits, by: &mut impl FnMut(&str, bool, Switch)) {
    let Limits {
        // Shares of the host that all containers have.
        nano_cpus: _,
        cpu_shares: _,
        cpu_period: _,
        cpu_quota: _,
        cpuset: _,
        memory_reservation: _,
        memory_swap: _,
        swappiness: _,
        pids: _,
        shm_size: _,
        cpu_rt_period,
        cpu_rt_runtime,
        is_oom_kill_disabled,
        oom_score_adj,
        disks,
    } = limits;
    by("cpu_rt_period", cpu_rt_period.is_some(), Switch::Capabilities);
    by("cpu_rt_runtime", cpu_rt_runtime.is_some(), Switch::Capabilities);
    by("oom_kill_disable", *is_oom_kill_disabled, Switch::Capabilities);
    by("oom_score_adj", oom_score_adj.is_some_and(|score| score < 0), Switch::Capabilities);
    let DiskLimits { weight: _, weights, read_bytes, write_bytes, read_operations, write_operations } = disks;
    let by_device = [weights, read_bytes, write_bytes, read_operations, write_operations];
    by("blkio_config", by_device.iter().any(|paths| !paths.is_empty()), Switch::Devices);
}

fn isolated(isolation: &Isolation, by: &mut impl FnMut(&str, bool, Switch)) {
    let Isolation {
        // Of another service of the release, or of the container alone.
        ipc_of: _,
        pid_of: _,
        groups: _,
        sysctls,
        ipc,
        has_host_pid,
        has_host_uts,
        has_host_users,
        cgroup,
        cgroup_parent,
        security,
        runtime,
        device_rules,
        device_requests,
    } = isolation;
    let is_open = |word: &Option<String>, closed: &[&str]| {
        word.as_ref().is_some_and(|word| !closed.contains(&word.as_str()))
    };
    by("security_opt", security.iter().any(|option| option != "no-new-privileges"), Switch::Privileged);
    by("pid", *has_host_pid, Switch::HostNamespaces);
    by("ipc", is_open(ipc, &["none", "private", "shareable"]), Switch::HostNamespaces);
    by("uts", *has_host_uts, Switch::HostNamespaces);
    by("userns_mode", *has_host_users, Switch::HostNamespaces);
    by("cgroup", is_open(cgroup, &["private"]), Switch::HostNamespaces);
    by("cgroup_parent", cgroup_parent.is_some(), Switch::HostNamespaces);
    by("device_cgroup_rules", !device_rules.is_empty(), Switch::Devices);
    by("gpus", !device_requests.is_empty(), Switch::Devices);
    // Not even `runc`: the engine's owner may have made a stricter one the default.
    by("runtime", runtime.is_some(), Switch::Runtimes);
    by("sysctls", !sysctls.keys().all(|name| is_of_container(name)), Switch::HostNetwork);
}

/// Whether a setting of the kernel is the container's own on every kernel. Those of netfilter were the whole machine's
/// up to Linux 5.12, written from any container, and so was the one that is named.
fn is_of_container(name: &str) -> bool {
    let Some(of_network) = name.strip_prefix("net.") else {
        // The reader lets in only those of the namespaces for messages and names.
        return true;
    };
    let is_ip = ["ipv4.", "ipv6."].iter().any(|prefix| {
        let rest = of_network.strip_prefix(prefix);
        rest.is_some_and(|rest| {
            !rest.starts_with("netfilter")
                && !rest.starts_with("vs.")
                && rest != "tcp_allowed_congestion_control"
        })
    });
    is_ip || matches!(of_network, "core.somaxconn" | "unix.max_dgram_qlen")
}

//! Whether a device's owner lets a release have what it asks for. Pure.

use std::collections::BTreeMap;

use super::compose::{Contents, Form, features, paths};
use crate::model::{
    MountSource, NetworkMode, Policy, Refusal, ServiceName, ServiceSpec, VolumeName, VolumeSpec,
};

/// Sockets by which an engine is reached: who has one can do what root can.
const SOCKETS: &[&str] = &[
    "/var/run/docker.sock",
    "/run/docker.sock",
    "/var/run/balena.sock",
    "/var/run/balena-engine.sock",
    "/run/balena-engine.sock",
    "/run/containerd/containerd.sock",
];

/// What of a release the owner of the device does not allow, each with the setting that would.
#[must_use]
pub fn violations(contents: &Contents, form: Form, policy: &Policy) -> Vec<Refusal> {
    let mut found = Vec::new();
    for (name, spec) in &contents.services {
        service(name, spec, form, policy, &mut found);
    }
    volumes(&contents.volumes, policy, &mut found);
    found
}

fn service(name: &ServiceName, spec: &ServiceSpec, form: Form, policy: &Policy, found: &mut Vec<Refusal>) {
    let paths = paths(name.as_str(), form);
    let isolation = &spec.isolation;
    let is_unprotected =
        isolation.security.iter().any(|o| o != "no-new-privileges" && !o.starts_with("label="));
    let checks = [
        ("privileged", spec.is_privileged, "privileged", policy.has_privileged),
        ("security_opt", is_unprotected, "privileged", policy.has_privileged),
        ("network_mode", spec.network_mode == NetworkMode::Host, "host_network", policy.has_host_network),
        ("pid", isolation.has_host_pid, "host_namespaces", policy.has_host_namespaces),
        ("ipc", isolation.ipc.as_deref() == Some("host"), "host_namespaces", policy.has_host_namespaces),
        ("uts", isolation.has_host_uts, "host_namespaces", policy.has_host_namespaces),
        ("userns_mode", isolation.has_host_users, "host_namespaces", policy.has_host_namespaces),
        (
            "cgroup",
            isolation.cgroup.as_deref() == Some("host"),
            "host_namespaces",
            policy.has_host_namespaces,
        ),
        ("cgroup_parent", isolation.cgroup_parent.is_some(), "host_namespaces", policy.has_host_namespaces),
        ("devices", !spec.devices.is_empty(), "devices", policy.has_devices),
        ("device_cgroup_rules", !isolation.device_rules.is_empty(), "devices", policy.has_devices),
        ("gpus", !isolation.device_requests.is_empty(), "devices", policy.has_devices),
        ("cap_add", !spec.cap_add.is_empty(), "capabilities", policy.has_capabilities),
    ];
    for (field, is_asked, setting, is_allowed) in checks {
        if is_asked && !is_allowed {
            found.push(Refusal { path: format!("{}.{field}", paths.composition), why: unset(setting) });
        }
    }
    for label in features::asked(spec) {
        let setting = match label {
            "balena-socket" if !policy.has_docker_socket => "docker_socket",
            _ if !policy.has_features && features::of_paths().any(|known| known == label) => "features",
            _ => continue,
        };
        let path = format!("{}.labels.io.balena.features.{label}", paths.service);
        found.push(Refusal { path, why: unset(setting) });
    }
    for mount in &spec.mounts {
        let MountSource::Host(source) = &mount.source else { continue };
        if features::is_of_label(spec, mount) {
            continue;
        }
        let path = format!("{}.volumes", paths.composition);
        if !policy.has_docker_socket && has_socket(source) {
            found.push(Refusal { path, why: unset("docker_socket") });
        } else if !policy.has_path(source) {
            found.push(Refusal { path, why: no_path(source) });
        }
    }
}

/// Whether an engine's socket is at a path or below it.
fn has_socket(path: &str) -> bool {
    let folder = format!("{}/", path.trim_end_matches('/'));
    SOCKETS.iter().any(|socket| *socket == path || socket.starts_with(&folder))
}

fn volumes(volumes: &BTreeMap<VolumeName, VolumeSpec>, policy: &Policy, found: &mut Vec<Refusal>) {
    for (name, spec) in volumes {
        let Some(device) = spec.bound_path() else { continue };
        let path = format!("volumes.{name}.driver_opts.device");
        if !policy.has_docker_socket && has_socket(device) {
            found.push(Refusal { path, why: unset("docker_socket") });
        } else if !policy.has_path(device) {
            found.push(Refusal { path, why: no_path(device) });
        }
    }
}

fn unset(setting: &str) -> String {
    format!(
        "this device does not let releases have it: remove it, or set policy.{setting} = \"yes\" on the device"
    )
}

/// Host paths that apps get by a label instead (protocol.md 3.4).
const BY_LABEL: &[(&str, &str)] = &[
    ("/var/run/docker.sock", "balena-socket"),
    ("/run/docker.sock", "balena-socket"),
    ("/var/run/balena.sock", "balena-socket"),
    ("/var/run/balena-engine.sock", "balena-socket"),
    ("/run/dbus", "dbus"),
    ("/var/run/dbus", "dbus"),
    ("/sys", "sysfs"),
    ("/proc", "procfs"),
    ("/lib/modules", "kernel-modules"),
    ("/lib/firmware", "firmware"),
    ("/var/log/journal", "journal-logs"),
    ("/run/log/journal", "journal-logs"),
    ("/etc/machine-id", "journal-logs"),
];

/// Why a path of the host is not mounted, and what to write instead.
fn no_path(source: &str) -> String {
    let short: String = source.chars().take(60).collect();
    let instead = match BY_LABEL.iter().find(|(path, _)| *path == source) {
        Some((_, label)) => {
            format!("give the service the label \"io.balena.features.{label}\": \"1\" instead")
        }
        None => "use a named volume, or put the files into the image".to_owned(),
    };
    format!(
        "{short:?} is a path of the host, which is not mounted: {instead}, or add it to policy.host_paths on \
         the device"
    )
}

#[cfg(test)]
#[path = "policy_tests.rs"]
mod tests;

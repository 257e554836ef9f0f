//! Refuses a release that asks for more than the device's owner allows. Pure.
//!
//! `reach` lists everything of the host that a release can reach, each with the setting that covers it. Anything that is
//! not known to be harmless is listed. The policy then allows or refuses each.

mod network;
mod reach;
mod volume;

use std::collections::{BTreeMap, HashSet};

use super::compose::{Contents, Form, features, paths};
use crate::model::{
    MountSource, Policy, Refusal, ServiceSpec, Switch, VolumeName, VolumeSpec, is_at_or_below,
};

use reach::Found;

/// Something of the host that a release can reach.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Reach {
    /// Covered by a switch.
    By(Switch),
    /// A path of the host, as written in the release.
    Path(String),
}

/// Returns `true` if `word` is one of the words in `list`.
fn is_in(list: &str, word: &str) -> bool {
    list.split_ascii_whitespace().any(|known| known == word)
}

/// Returns everything in a release that the policy does not allow, each with the setting that would allow it.
#[must_use]
pub fn violations(contents: &Contents, form: Form, policy: &Policy) -> Vec<Refusal> {
    let (mut refusals, mut known) = (Vec::new(), HashSet::new());
    for Found { at, reach } in reach::list(contents, form) {
        let why = match &reach {
            Reach::By(switch) if policy.allows(*switch) => continue,
            Reach::By(switch) => unset(switch.as_str()),
            Reach::Path(path)
                if !policy.allows(Switch::DockerSocket) && policy.names_socket(&plain(path)) =>
            {
                unset(Switch::DockerSocket.as_str())
            }
            Reach::Path(path) if policy.has_path(path) => continue,
            Reach::Path(path) => no_path(path),
        };
        let refusal = Refusal { path: at, why };
        if known.insert((refusal.path.clone(), refusal.why.clone())) {
            refusals.push(refusal);
        }
    }
    if refusals.is_empty() && !policy.has_path("/") {
        refusals.extend(replaceable(contents, form));
    }
    refusals
}

/// Returns the paths of the host that a service mounts by its author's fields, each with `true` if the service can write
/// there.
#[must_use]
pub fn host_paths(spec: &ServiceSpec, volumes: &BTreeMap<VolumeName, VolumeSpec>) -> Vec<(String, bool)> {
    let mut found = Vec::new();
    for mount in spec.mounts.iter().filter(|mount| !features::is_of_label(spec, mount)) {
        let (path, is_fixed) = match &mount.source {
            MountSource::Host(path) => (path.as_str(), false),
            MountSource::Volume(name) => {
                let Some(volume) = volumes.get(name) else { continue };
                let Some(path) = volume.bound_path() else { continue };
                (path, volume.is_read_only())
            }
            MountSource::Anonymous | MountSource::EngineSocket => continue,
        };
        found.push((plain(path), !mount.is_read_only && !is_fixed));
    }
    found
}

/// Refuses a path of the host that a service of the release could replace by a link, because it can write to a folder
/// above it. The engine follows links at each start of a container, including its own restarts, so such a link could lead
/// anywhere.
fn replaceable(contents: &Contents, form: Form) -> Option<Refusal> {
    let Contents { services, volumes, .. } = contents;
    let mut mounted = Vec::new();
    for (name, spec) in services {
        mounted.extend(host_paths(spec, volumes).into_iter().map(|path| (name, path)));
    }
    let above = |path: &str| {
        mounted
            .iter()
            .find(|(_, (folder, is_writable))| *is_writable && folder != path && is_at_or_below(path, folder))
    };
    mounted.iter().find_map(|(service, (path, _))| {
        let (writer, (folder, _)) = above(path)?;
        let why = format!(
            "{path:?} is in {folder:?}, where {writer} can write: it could create a link there that leads out of what \
             this device lets releases mount. Mount {folder:?} read-only, or nothing below it"
        );
        Some(Refusal { path: format!("{}.volumes", paths(service.as_str(), form).composition), why })
    })
}

/// Normalizes an absolute path: removes empty parts and `.`.
fn plain(path: &str) -> String {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    format!("/{}", parts.join("/"))
}

fn unset(setting: &str) -> String {
    format!("this device does not allow it: remove it, or set policy.{setting} = \"yes\" on the device")
}

/// Host paths that services get by a label instead (docs/dev/protocol.md, "Feature labels").
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

/// Says that a path of the host may not be mounted, and what to use instead.
fn no_path(source: &str) -> String {
    let short: String = source.chars().take(60).collect();
    let instead = match BY_LABEL.iter().find(|(path, _)| *path == source) {
        Some((_, label)) => {
            format!("give the service the label \"io.balena.features.{label}\": \"1\" instead")
        }
        None => "use a named volume, or put the files into the image".to_owned(),
    };
    format!(
        "{short:?} is a path of the host that releases may not mount: {instead}, or add it to \
         policy.host_paths on the device"
    )
}

#[cfg(test)]
mod tests;

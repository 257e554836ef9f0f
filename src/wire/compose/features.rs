//! Reads the labels with which an author asks for parts of the host (docs/dev/protocol.md, "Feature labels").

use super::at::Notes;
use super::refusal;
use crate::model::{DeviceRequest, Mount, MountOptions, MountSource, NetworkMode, ServiceSpec, is_yes};

const PREFIX: &str = "io.balena.features.";

/// A path of the host, with its path in the container.
struct Place {
    host: &'static str,
    target: &'static str,
    is_read_only: bool,
    /// It is a file. If it is missing, it must not be mounted, because the engine would create a folder.
    must_exist: bool,
}

impl Place {
    fn mount(&self) -> Mount {
        Mount {
            source: MountSource::Host(self.host.to_owned()),
            target: self.target.to_owned(),
            is_read_only: self.is_read_only,
            options: MountOptions { must_exist: self.must_exist, ..MountOptions::default() },
        }
    }
}

const fn at(host: &'static str, target: &'static str) -> Place {
    Place { host, target, is_read_only: false, must_exist: false }
}

const fn read_only(path: &'static str, must_exist: bool) -> Place {
    Place { host: path, target: path, is_read_only: true, must_exist }
}

/// The mounts of each label.
const PLACES: &[(&str, &[Place])] = &[
    ("dbus", &[at("/run/dbus", "/host/run/dbus")]),
    ("sysfs", &[at("/sys", "/sys")]),
    ("procfs", &[at("/proc", "/proc")]),
    ("kernel-modules", &[at("/lib/modules", "/lib/modules")]),
    ("firmware", &[at("/lib/firmware", "/lib/firmware")]),
    (
        "journal-logs",
        &[
            read_only("/var/log/journal", false),
            read_only("/run/log/journal", false),
            read_only("/etc/machine-id", true),
        ],
    ),
];

/// The paths of the engine's socket in the container.
const SOCKETS: &[&str] = &["/host/run/balena-engine.sock", "/var/run/balena.sock", "/var/run/docker.sock"];

/// Labels without an effect here.
const MISSING: &[&str] = &["host-os.board-rev", "extra-firmware"];

/// The labels that mount paths of the host, without their prefix.
pub(in crate::wire) fn of_paths() -> impl Iterator<Item = &'static str> {
    PLACES.iter().map(|(label, _)| *label)
}

/// Returns the labels of a service that are switched on, without their prefix.
pub(in crate::wire) fn asked(spec: &ServiceSpec) -> impl Iterator<Item = &str> {
    let labels = spec.labels.iter().filter(|(_, value)| is_yes(value));
    labels.filter_map(|(name, _)| name.strip_prefix(PREFIX))
}

/// Returns whether a mount is one that a label of `spec` grants, or less than that.
pub(in crate::wire) fn is_of_label(spec: &ServiceSpec, mount: &Mount) -> bool {
    let is_asked = |label: &str| asked(spec).any(|asked| asked == label);
    if mount.source == MountSource::EngineSocket {
        return is_asked("balena-socket");
    }
    let places = PLACES.iter().filter(|(label, _)| is_asked(label)).flat_map(|(_, places)| *places);
    places.map(Place::mount).any(|given| {
        let is_same = given.source == mount.source && given.target == mount.target;
        is_same && mount.is_read_only >= given.is_read_only && mount.options.propagation.is_none()
    })
}

/// Adds the mounts that the labels of a service ask for. A mount of the author at the same path stays instead.
pub(super) fn read(service: &str, spec: &mut ServiceSpec, notes: &mut Notes) {
    let asked: Vec<String> = asked(spec).map(str::to_owned).collect();
    for label in &asked {
        if MISSING.contains(&label.as_str()) {
            let path = format!("{service}.labels.{PREFIX}{label}");
            notes.warn(refusal(path, "not honoured: this agent does not have it"));
        }
        if label == "supervisor-api" && spec.network_mode == NetworkMode::None {
            let path = format!("{service}.labels.{PREFIX}{label}");
            notes.warn(refusal(
                path,
                "not honoured: the service has no network by which it could reach the API",
            ));
        }
        let places = PLACES.iter().find(|(known, _)| known == label).map_or(&[][..], |(_, places)| *places);
        for place in places {
            add(spec, place.mount());
        }
        if label == "balena-socket" {
            for target in SOCKETS {
                let (source, target) = (MountSource::EngineSocket, (*target).to_owned());
                add(spec, Mount { source, target, is_read_only: false, options: MountOptions::default() });
            }
            let address = format!("unix://{}", SOCKETS[0]);
            spec.environment.entry("DOCKER_HOST".to_owned()).or_insert(address);
        }
        if label == "gpu" && spec.isolation.device_requests.is_empty() {
            let capabilities = vec!["gpu".to_owned()];
            let request = DeviceRequest { count: Some(1), capabilities, ..DeviceRequest::default() };
            spec.isolation.device_requests.push(request);
        }
    }
    spec.mounts.sort_by(|a, b| a.target.cmp(&b.target));
}

fn add(spec: &mut ServiceSpec, mount: Mount) {
    let is_taken = spec.mounts.iter().any(|other| other.target == mount.target)
        || spec.tmpfs.contains_key(&mount.target);
    if !is_taken {
        spec.mounts.push(mount);
    }
}

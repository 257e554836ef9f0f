//! The policy of a device's owner: which parts of the host releases may use.

use super::ReleaseLimits;

/// A part of the host that the owner's settings allow to releases, or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Switch {
    /// `privileged`, options that remove protection, and file systems that the engine mounts for a volume.
    Privileged,
    /// The host's own network and its interfaces, and address ranges that are not private.
    HostNetwork,
    /// The host's processes, shared memory, name, users and cgroups.
    HostNamespaces,
    /// The engine's socket.
    DockerSocket,
    /// Devices of the host, including disks and graphics processors.
    Devices,
    /// Capabilities beyond the engine's default ones, and options that have the same effect.
    Capabilities,
    /// The paths behind the labels `io.balena.features.*`.
    Features,
    /// Network shares as volumes.
    NetworkVolumes,
    /// Drivers for volumes, networks and logs other than the engine's basic ones.
    Drivers,
    /// A runtime other than the engine's default, and annotations, which the runtime reads.
    Runtimes,
    /// The supervisor API, for a service's own app: label `io.balena.features.supervisor-api`.
    SupervisorApi,
    /// The device's key for its cloud: label `io.balena.features.balena-api`.
    BalenaApi,
    /// Reboot and shutdown of the host, by the supervisor API.
    Reboot,
    /// Other apps of the device, by the supervisor API.
    OtherApps,
}

impl Switch {
    /// All of them, in the order of the settings file.
    pub const ALL: [Self; 14] = [
        Self::Privileged,
        Self::HostNetwork,
        Self::HostNamespaces,
        Self::DockerSocket,
        Self::Devices,
        Self::Capabilities,
        Self::Features,
        Self::NetworkVolumes,
        Self::Drivers,
        Self::Runtimes,
        Self::SupervisorApi,
        Self::BalenaApi,
        Self::Reboot,
        Self::OtherApps,
    ];

    /// The name of its setting in the section `policy`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Privileged => "privileged",
            Self::HostNetwork => "host_network",
            Self::HostNamespaces => "host_namespaces",
            Self::DockerSocket => "docker_socket",
            Self::Devices => "devices",
            Self::Capabilities => "capabilities",
            Self::Features => "features",
            Self::NetworkVolumes => "network_volumes",
            Self::Drivers => "drivers",
            Self::Runtimes => "runtimes",
            Self::SupervisorApi => "supervisor_api",
            Self::BalenaApi => "balena_api",
            Self::Reboot => "reboot",
            Self::OtherApps => "other_apps",
        }
    }

    /// Returns `true` if a release that may use it can do everything that root can on the host.
    #[must_use]
    pub fn is_root_equal(self) -> bool {
        match self {
            Self::Privileged
            | Self::HostNamespaces
            | Self::DockerSocket
            | Self::Devices
            | Self::Capabilities
            | Self::Features
            | Self::Runtimes => true,
            Self::HostNetwork
            | Self::NetworkVolumes
            | Self::Drivers
            | Self::SupervisorApi
            | Self::BalenaApi
            | Self::Reboot
            | Self::OtherApps => false,
        }
    }
}

/// What releases may use of their device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// In the order of [`Switch::ALL`].
    pub allowed: Vec<Switch>,
    /// Absolute paths. Everything at or below them may be mounted.
    pub host_paths: Vec<String>,
    /// The socket of this device's engine.
    pub engine_socket: String,
    /// Limits for their size.
    pub limits: ReleaseLimits,
    /// Whether the owner has turned on the VPN of the cloud. No preset does.
    pub has_vpn: bool,
}

/// What a balena device allows.
impl Default for Policy {
    fn default() -> Self {
        Self::balena()
    }
}

/// Folders of the system. A program that can write into one of them can become root.
const SYSTEM: &[&str] = &[
    "/bin",
    "/boot",
    "/dev",
    "/etc",
    "/home",
    "/lib",
    "/proc",
    "/root",
    "/run",
    "/sbin",
    "/sys",
    "/usr",
    "/var/lib/cotter",
    "/var/lib/docker",
    "/var/run",
    "/var/spool/cron",
];

/// Sockets of engines, and folders with such sockets. A program that has one can do everything that root can.
const ENGINES: &[&str] = &[
    "/run/balena-engine.sock",
    "/run/balena-engine",
    "/run/balena.sock",
    "/run/buildkit",
    "/run/containerd",
    "/run/crio",
    "/run/docker.sock",
    "/run/docker",
    "/run/podman",
];

impl Policy {
    /// What a balena device allows: everything except paths of the host, which are available there only by labels.
    #[must_use]
    pub fn balena() -> Self {
        Self { allowed: Switch::ALL.to_vec(), ..Self::strict() }
    }

    /// Nothing of the host.
    #[must_use]
    pub fn strict() -> Self {
        let engine_socket = "/var/run/docker.sock".to_owned();
        let limits = ReleaseLimits::default();
        Self { allowed: Vec::new(), host_paths: Vec::new(), engine_socket, limits, has_vpn: false }
    }

    /// Returns `true` if releases may use it.
    #[must_use]
    pub fn allows(&self, switch: Switch) -> bool {
        self.allowed.contains(&switch)
    }

    /// Returns `true` if a path of the host may be mounted. A path with `..` may not.
    #[must_use]
    pub fn has_path(&self, path: &str) -> bool {
        let is_plain = path.split('/').all(|part| part != "..");
        is_plain && self.host_paths.iter().any(|prefix| is_at_or_below(path, prefix))
    }

    /// Returns the sockets of engines, and the folders that contain only such sockets: this device's own, and the usual
    /// ones.
    pub fn sockets(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.engine_socket.as_str()).chain(ENGINES.iter().copied())
    }

    /// Returns `true` if the socket of an engine is, or could be, at or below a path of the host. Only the text is
    /// compared, and `/var/run` counts as `/run`.
    #[must_use]
    pub fn names_socket(&self, path: &str) -> bool {
        let plain = in_run(path);
        let is_above = self.sockets().any(|socket| {
            let socket = in_run(socket);
            is_at_or_below(&socket, &plain) || is_at_or_below(&plain, &socket)
        });
        is_above || is_at_or_below("/var/run", path)
    }

    /// Returns the settings with which a release can do everything that root can, as in the settings file: `privileged`,
    /// `host_paths (/etc)`.
    #[must_use]
    pub fn root_equal(&self) -> Vec<String> {
        let switches = self.allowed.iter().filter(|switch| switch.is_root_equal());
        let mut found: Vec<_> = switches.map(|switch| switch.as_str().to_owned()).collect();
        let is_of_system = |path: &&String| SYSTEM.iter().any(|folder| is_at_or_below(folder, path));
        found.extend(self.host_paths.iter().find(is_of_system).map(|path| format!("host_paths ({path})")));
        found
    }
}

/// Returns `true` if `path` is `folder` or below it.
#[must_use]
pub fn is_at_or_below(path: &str, folder: &str) -> bool {
    let folder = folder.trim_end_matches('/');
    path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Replaces `/var/run`, which is a link, by `/run`.
fn in_run(path: &str) -> String {
    match path.strip_prefix("/var/run") {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => format!("/run{rest}"),
        Some(_) | None => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_paths(paths: &[&str]) -> Policy {
        Policy { host_paths: paths.iter().map(|path| (*path).to_owned()).collect(), ..Policy::strict() }
    }

    #[test]
    fn a_path_is_allowed_by_a_folder_above_it_and_not_by_a_similar_name() {
        for (path, prefixes, is_in) in [
            ("/srv/app", &["/srv"][..], true),
            ("/srv", &["/srv"], true),
            ("/srv", &["/srv/"], true),
            ("/srv/app", &["/"], true),
            ("/srvice", &["/srv"], false),
            ("/etc", &["/srv", "/opt"], false),
            ("/opt/x", &["/srv", "/opt"], true),
            ("/srv/../etc", &["/srv"], false),
            ("/srv", &[], false),
        ] {
            assert_eq!(with_paths(prefixes).has_path(path), is_in, "{path} {prefixes:?}");
        }
    }

    #[test]
    fn sockets_of_engines_are_known_by_their_names() {
        let policy = Policy { engine_socket: "/opt/engine/e.sock".into(), ..Policy::strict() };
        for (path, is_one) in [
            ("/var/run/docker.sock", true),
            ("/run/docker.sock", true),
            ("/run", true),
            ("/var", true),
            ("/", true),
            ("/run/docker/containerd", true),
            ("/var/run/podman/podman.sock", true),
            ("/opt/engine/e.sock", true),
            ("/opt/engine", true),
            ("/opt", true),
            ("/opt/engines", false),
            ("/run/dbus", false),
            ("/var/runs", false),
            ("/srv/run", false),
        ] {
            assert_eq!(policy.names_socket(path), is_one, "{path}");
        }
    }

    #[test]
    fn settings_that_are_equal_to_root_are_listed() {
        assert_eq!(Policy::strict().root_equal(), Vec::<String>::new());
        assert_eq!(
            Policy::balena().root_equal(),
            [
                "privileged",
                "host_namespaces",
                "docker_socket",
                "devices",
                "capabilities",
                "features",
                "runtimes"
            ]
        );
        for (paths, expected) in [
            (&["/srv", "/media"][..], None),
            (&["/var/log", "/etc/app"], None),
            (&["/srv", "/var"], Some("host_paths (/var)")),
            (&["/"], Some("host_paths (/)")),
            (&["/etc/"], Some("host_paths (/etc/)")),
        ] {
            assert_eq!(with_paths(paths).root_equal().first().map(String::as_str), expected, "{paths:?}");
        }
    }
}

//! What the owner of a device lets releases have of it.

use super::Bounds;

/// What releases may have of their device. By default what they may have on a balena device: all but
/// paths of the host, which only labels give there.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a setting of its own")]
pub struct Policy {
    /// `privileged`, and security options that take protection away.
    pub has_privileged: bool,
    /// `network_mode: host`.
    pub has_host_network: bool,
    /// The host's processes, shared memory, name and users.
    pub has_host_namespaces: bool,
    /// The engine's socket, with which an app can do what root can.
    pub has_docker_socket: bool,
    /// Devices of the host, graphics processors among them.
    pub has_devices: bool,
    /// Capabilities beyond the engine's usual ones.
    pub has_capabilities: bool,
    /// The paths behind the labels `io.balena.features.*`, other than the engine's socket.
    pub has_features: bool,
    /// Absolute paths; what is at or below them may be mounted.
    pub host_paths: Vec<String>,
    /// How much they may have.
    pub bounds: Bounds,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            has_privileged: true,
            has_host_network: true,
            has_host_namespaces: true,
            has_docker_socket: true,
            has_devices: true,
            has_capabilities: true,
            has_features: true,
            host_paths: Vec::new(),
            bounds: Bounds::default(),
        }
    }
}

impl Policy {
    /// Whether a path of the host may be mounted. A path with `..` in it never may.
    #[must_use]
    pub fn has_path(&self, path: &str) -> bool {
        let is_plain = path.split('/').all(|part| part != "..");
        is_plain && self.host_paths.iter().any(|prefix| is_at_or_below(path, prefix))
    }
}

fn is_at_or_below(path: &str, prefix: &str) -> bool {
    let prefix = prefix.trim_end_matches('/');
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_let_in_by_a_whole_folder_above_it() {
        let policy = |paths: &[&str]| Policy {
            host_paths: paths.iter().map(|path| (*path).to_owned()).collect(),
            ..Policy::default()
        };
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
            assert_eq!(policy(prefixes).has_path(path), is_in, "{path} {prefixes:?}");
        }
    }
}

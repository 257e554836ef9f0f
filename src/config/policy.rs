//! The section `policy`: what the device's owner allows releases to use.

use std::path::Path;

use super::ConfigError;
use super::sources::RawPolicy;
use crate::model::{Policy, ReleaseLimits, Switch};

/// Returns the policy of a preset. Single settings override it.
pub(super) fn preset(name: &str) -> Option<Policy> {
    match name {
        "balena" => Some(Policy::balena()),
        "strict" => Some(Policy::strict()),
        _ => None,
    }
}

pub(super) fn policy(
    raw: RawPolicy,
    engine_socket: &Path,
    limits: ReleaseLimits,
    has_vpn: bool,
) -> Result<Policy, ConfigError> {
    let given = raw.preset.as_deref().unwrap_or("balena");
    let Some(preset) = preset(given) else {
        let accepts = "balena or strict".to_owned();
        return Err(ConfigError::Value { key: "policy.preset", given: given.to_owned(), accepts });
    };
    let mut allowed = Vec::new();
    for switch in Switch::ALL {
        let (key, given) = match switch {
            Switch::Privileged => ("policy.privileged", &raw.privileged),
            Switch::HostNetwork => ("policy.host_network", &raw.host_network),
            Switch::HostNamespaces => ("policy.host_namespaces", &raw.host_namespaces),
            Switch::DockerSocket => ("policy.docker_socket", &raw.docker_socket),
            Switch::Devices => ("policy.devices", &raw.devices),
            Switch::Capabilities => ("policy.capabilities", &raw.capabilities),
            Switch::Features => ("policy.features", &raw.features),
            Switch::NetworkVolumes => ("policy.network_volumes", &raw.network_volumes),
            Switch::Drivers => ("policy.drivers", &raw.drivers),
            Switch::Runtimes => ("policy.runtimes", &raw.runtimes),
            Switch::SupervisorApi => ("policy.supervisor_api", &raw.supervisor_api),
            Switch::BalenaApi => ("policy.balena_api", &raw.balena_api),
            Switch::Reboot => ("policy.reboot", &raw.reboot),
            Switch::OtherApps => ("policy.other_apps", &raw.other_apps),
        };
        if yes(key, given.as_deref())?.unwrap_or(preset.allows(switch)) {
            allowed.push(switch);
        }
    }
    let host_paths = paths("policy.host_paths", raw.host_paths)?;
    Ok(Policy { allowed, host_paths, engine_socket: engine_socket.display().to_string(), limits, has_vpn })
}

/// Parses a setting that is `yes` or `no`.
pub(super) fn yes(key: &'static str, given: Option<&str>) -> Result<Option<bool>, ConfigError> {
    match given {
        None => Ok(None),
        Some("yes") => Ok(Some(true)),
        Some("no") => Ok(Some(false)),
        Some(other) => {
            Err(ConfigError::Value { key, given: other.to_owned(), accepts: "yes or no".to_owned() })
        }
    }
}

/// Parses absolute paths that are separated by commas.
fn paths(key: &'static str, given: Option<String>) -> Result<Vec<String>, ConfigError> {
    let given = given.unwrap_or_default();
    let paths: Vec<_> = given.split(',').map(str::trim).filter(|path| !path.is_empty()).collect();
    if paths.iter().all(|path| path.starts_with('/') && path.split('/').all(|part| part != "..")) {
        return Ok(paths.into_iter().map(str::to_owned).collect());
    }
    let accepts = "absolute paths such as /srv,/media, separated by commas, or empty".to_owned();
    Err(ConfigError::Value { key, given, accepts })
}

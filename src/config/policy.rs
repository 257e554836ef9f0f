//! The section `policy`: what the device's owner lets releases have.

use super::ConfigError;
use super::sources::RawPolicy;
use crate::model::{Bounds, Policy};

pub(super) fn policy(raw: RawPolicy, bounds: Bounds) -> Result<Policy, ConfigError> {
    Ok(Policy {
        bounds,
        has_privileged: yes("policy.privileged", raw.privileged)?,
        has_host_network: yes("policy.host_network", raw.host_network)?,
        has_host_namespaces: yes("policy.host_namespaces", raw.host_namespaces)?,
        has_docker_socket: yes("policy.docker_socket", raw.docker_socket)?,
        has_devices: yes("policy.devices", raw.devices)?,
        has_capabilities: yes("policy.capabilities", raw.capabilities)?,
        has_features: yes("policy.features", raw.features)?,
        host_paths: paths("policy.host_paths", raw.host_paths)?,
    })
}

fn yes(key: &'static str, given: Option<String>) -> Result<bool, ConfigError> {
    match given.as_deref() {
        None | Some("yes") => Ok(true),
        Some("no") => Ok(false),
        Some(other) => {
            Err(ConfigError::Value { key, given: other.to_owned(), accepts: "yes or no".to_owned() })
        }
    }
}

/// Absolute paths with commas between them.
fn paths(key: &'static str, given: Option<String>) -> Result<Vec<String>, ConfigError> {
    let given = given.unwrap_or_default();
    let paths: Vec<_> = given.split(',').map(str::trim).filter(|path| !path.is_empty()).collect();
    if paths.iter().all(|path| path.starts_with('/') && path.split('/').all(|part| part != "..")) {
        return Ok(paths.into_iter().map(str::to_owned).collect());
    }
    let accepts = "absolute paths such as /srv,/media, with commas between them, or empty".to_owned();
    Err(ConfigError::Value { key, given, accepts })
}

//! The section `limits`: how much releases may have.

use super::sources::RawLimits;
use super::{ConfigError, bytes_within, count};
use crate::model::ReleaseLimits;

pub(super) fn limits(raw: RawLimits) -> Result<ReleaseLimits, ConfigError> {
    let most = ReleaseLimits::HIGHEST;
    let environment = bytes_within("limits.environment", raw.environment, 1 << 10, most.environment as u64)?;
    Ok(ReleaseLimits {
        apps: count("limits.apps", raw.apps, 1..=most.apps)?,
        services: count("limits.services", raw.services, 1..=most.services)?,
        networks: count("limits.networks", raw.networks, 1..=most.networks)?,
        volumes: count("limits.volumes", raw.volumes, 1..=most.volumes)?,
        ports: count("limits.ports", raw.ports, 1..=most.ports)?,
        labels: count("limits.labels", raw.labels, 1..=most.labels)?,
        variables: count("limits.variables", raw.variables, 1..=most.variables)?,
        environment: usize::try_from(environment).unwrap_or(most.environment),
        values: count("limits.values", raw.values, 1000..=most.values)?,
    })
}

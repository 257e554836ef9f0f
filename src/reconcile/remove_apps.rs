//! Removes all apps of a device that leaves its cloud. The agent does not run then, so there is no other writer.

use crate::engine::{EngineError, Operate};

/// What was removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Removed {
    pub containers: usize,
    pub networks: usize,
}

/// Returns how much [`remove_apps`] would remove now.
///
/// # Errors
///
/// As [`EngineError`] says.
pub async fn count_apps<E: Operate>(engine: &E) -> Result<Removed, EngineError> {
    let observed = engine.observe().await?;
    let containers = observed.services.len() + observed.parked.len();
    Ok(Removed { containers, networks: observed.networks.len() })
}

/// Stops and removes all containers of our instance, and its networks. Volumes and images stay. May be repeated after an
/// error.
///
/// # Errors
///
/// As [`EngineError`] says. What was removed before stays removed.
pub async fn remove_apps<E: Operate>(engine: &E) -> Result<Removed, EngineError> {
    let observed = engine.observe().await?;
    let mut removed = Removed::default();
    for seen in observed.services.iter().chain(&observed.parked) {
        engine.stop(&seen.container, seen.grace).await?;
        engine.remove(&seen.container).await?;
        removed.containers += 1;
    }
    for network in &observed.networks {
        engine.remove_network(&network.id).await?;
        removed.networks += 1;
    }
    Ok(removed)
}

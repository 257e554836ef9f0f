//! Our containers for people who look for a fault: only the fields listed here, because what an author writes may be
//! secret. Changes nothing.

use serde::Serialize;

use crate::model::ContainerId;

use super::EngineError;
use super::answers::{Inspected, Summary};
use super::docker::{CONTAINERS, Docker, in_query};
use super::docker_spec::label;

/// A container of ours, without its command, the values of its environment, and labels that are not ours.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Inspection {
    pub name: String,
    pub id: String,
    pub app: String,
    pub service: String,
    pub release: String,
    pub spec: String,
    /// As it was given at creation.
    pub image: String,
    pub image_id: String,
    pub created: String,
    pub status: String,
    pub exit_code: i64,
    pub was_out_of_memory: bool,
    pub started_at: String,
    pub finished_at: String,
    pub restarts: i64,
    /// Empty without a healthcheck.
    pub health: String,
    pub failed_probes: i64,
    pub restart_policy: String,
    pub log_driver: String,
    pub network_mode: String,
    pub networks: Vec<String>,
    /// Ports of the container, such as `8080/tcp`.
    pub ports: Vec<String>,
    pub mounts: Vec<Mounted>,
    /// Names of variables.
    pub environment: Vec<String>,
    /// Bytes; 0: none.
    pub memory_limit: i64,
    pub is_privileged: bool,
}

/// A mount of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Mounted {
    pub kind: String,
    /// A volume's name, or a path of the host.
    pub source: String,
    pub target: String,
    pub is_writable: bool,
}

impl Docker {
    /// Every container of our instance: a call for each, and one for the list.
    ///
    /// # Errors
    ///
    /// As [`EngineError`] says. A container that is removed meanwhile is left out.
    pub async fn inspections(&self) -> Result<Vec<Inspection>, EngineError> {
        let ours = in_query(&self.ours());
        let list = self.call("list", EngineError::DEADLINE, |client| async move {
            client.read::<Vec<Summary>>(CONTAINERS, &[("all", "true"), ("filters", &ours)]).await
        });
        let mut all = Vec::new();
        for id in list.await?.into_iter().filter_map(|listed| ContainerId::parse(listed.id).ok()) {
            let seen = self.inspect(&id).await?;
            if !seen.id.is_empty() {
                all.push(inspection(seen));
            }
        }
        all.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }
}

fn inspection(seen: Inspected) -> Inspection {
    let Inspected { host_config: host, state, .. } = seen;
    let config = seen.config.unwrap_or_default();
    let health = state.health.unwrap_or_default();
    let networks = seen.network_settings.and_then(|settings| settings.networks).unwrap_or_default();
    let mut labels = config.labels.unwrap_or_default();
    let mut ours = |name: &str| labels.remove(name).unwrap_or_default();
    let name_of = |variable: String| variable.split('=').next().unwrap_or_default().to_owned();
    let mounts = seen.mounts.into_iter().flatten().map(|mount| Mounted {
        kind: mount.kind,
        source: if mount.name.is_empty() { mount.source } else { mount.name },
        target: mount.destination,
        is_writable: mount.is_writable,
    });
    Inspection {
        name: seen.name.trim_start_matches('/').to_owned(),
        id: seen.id,
        app: ours(label::APP),
        service: ours(label::SERVICE),
        release: ours(label::RELEASE),
        spec: ours(label::SPEC),
        image: config.image,
        image_id: seen.image,
        created: seen.created,
        status: state.status,
        exit_code: state.exit_code,
        was_out_of_memory: state.was_out_of_memory,
        started_at: state.started_at,
        finished_at: state.finished_at,
        restarts: seen.restart_count,
        health: health.status,
        failed_probes: health.failing_streak,
        restart_policy: host.restart_policy.name,
        log_driver: host.log_config.driver,
        network_mode: host.network_mode,
        networks: networks.into_keys().collect(),
        ports: config.exposed_ports.unwrap_or_default().into_keys().collect(),
        mounts: mounts.collect(),
        environment: config.env.unwrap_or_default().into_iter().map(name_of).collect(),
        memory_limit: host.memory,
        is_privileged: host.privileged,
    }
}

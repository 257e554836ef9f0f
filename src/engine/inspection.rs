//! Our containers as people may see them: what is listed here and nothing else, because what an author writes
//! may be secret. Changes nothing.

use bollard::models::{ContainerInspectResponse, ContainerSummary};
use bollard::query_parameters::{InspectContainerOptions, ListContainersOptions};
use serde::Serialize;

use super::EngineError;
use super::docker::Docker;
use super::docker_spec::label;

/// A container of ours, without commands, without values of its environment, and without labels that are
/// not ours.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Inspection {
    pub name: String,
    pub id: String,
    pub app: String,
    pub service: String,
    pub release: String,
    pub spec: String,
    /// As it was created with it.
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
    /// `8080/tcp`, of the container.
    pub ports: Vec<String>,
    pub mounts: Vec<Mounted>,
    /// Names of variables.
    pub environment: Vec<String>,
    /// Bytes; 0: none.
    pub memory_limit: i64,
    pub is_privileged: bool,
}

/// Something that is mounted into a container.
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
    /// As [`EngineError`] says. One that goes meanwhile is left out.
    pub async fn inspections(&self) -> Result<Vec<Inspection>, EngineError> {
        let options = ListContainersOptions { all: true, filters: Some(self.ours()), ..Default::default() };
        let list = self.call("list", EngineError::DEADLINE, |client| async move {
            client.list_containers(Some(options)).await
        });
        let mut all = Vec::new();
        for id in list.await?.into_iter().filter_map(|ContainerSummary { id, .. }| id) {
            let call = self.call("inspect", EngineError::DEADLINE, |client| async move {
                client.inspect_container(&id, None::<InspectContainerOptions>).await
            });
            match call.await {
                Ok(seen) => all.push(inspection(seen)),
                Err(EngineError::Refused { status: 404, .. }) => {}
                Err(error) => return Err(error),
            }
        }
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }
}

fn inspection(seen: ContainerInspectResponse) -> Inspection {
    let config = seen.config.unwrap_or_default();
    let host = seen.host_config.unwrap_or_default();
    let state = seen.state.unwrap_or_default();
    let health = state.health.unwrap_or_default();
    let networks = seen.network_settings.and_then(|settings| settings.networks).unwrap_or_default();
    let mut labels = config.labels.unwrap_or_default();
    let mut ours = |name: &str| labels.remove(name).unwrap_or_default();
    let name_of = |variable: String| variable.split('=').next().unwrap_or_default().to_owned();
    let mounts = seen.mounts.unwrap_or_default().into_iter().map(|mount| Mounted {
        kind: mount.typ.map_or_else(String::new, |kind| kind.to_string()),
        source: mount.name.or(mount.source).unwrap_or_default(),
        target: mount.destination.unwrap_or_default(),
        is_writable: mount.rw.unwrap_or_default(),
    });
    let policy = host.restart_policy.and_then(|policy| policy.name);
    Inspection {
        name: seen.name.unwrap_or_default().trim_start_matches('/').to_owned(),
        id: seen.id.unwrap_or_default(),
        app: ours(label::APP),
        service: ours(label::SERVICE),
        release: ours(label::RELEASE),
        spec: ours(label::SPEC),
        image: config.image.unwrap_or_default(),
        image_id: seen.image.unwrap_or_default(),
        created: seen.created.map(|at| at.to_string()).unwrap_or_default(),
        status: state.status.map_or_else(String::new, |status| status.to_string()),
        exit_code: state.exit_code.unwrap_or_default(),
        was_out_of_memory: state.oom_killed.unwrap_or_default(),
        started_at: state.started_at.unwrap_or_default(),
        finished_at: state.finished_at.unwrap_or_default(),
        restarts: seen.restart_count.unwrap_or_default(),
        health: health.status.map_or_else(String::new, |status| status.to_string()),
        failed_probes: health.failing_streak.unwrap_or_default(),
        restart_policy: policy.map_or_else(String::new, |policy| policy.to_string()),
        log_driver: host.log_config.and_then(|log| log.typ).unwrap_or_default(),
        network_mode: host.network_mode.unwrap_or_default(),
        networks: networks.into_keys().collect(),
        ports: config.exposed_ports.unwrap_or_default(),
        mounts: mounts.collect(),
        environment: config.env.unwrap_or_default().into_iter().map(name_of).collect(),
        memory_limit: host.memory.unwrap_or_default(),
        is_privileged: host.privileged.unwrap_or_default(),
    }
}

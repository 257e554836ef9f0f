//! What an engine is like, for people who look after it. Changes nothing.

use std::collections::{BTreeMap, BTreeSet};

use bollard::models::{ContainerSummary, ImageSummary, SystemInfo, SystemVersion};
use bollard::query_parameters::{ListContainersOptions, ListImagesOptions};
use serde::Serialize;

use super::docker::Docker;
use super::docker_spec::label;
use super::{EngineError, look};

/// An engine and what is on it, whoever owns it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Survey {
    pub version: String,
    /// The newest API that it speaks, e.g. `1.41`.
    pub api: String,
    pub storage_driver: String,
    /// The log driver of containers whose author names none.
    pub log_driver: String,
    pub has_live_restore: bool,
    /// `1` or `2`; empty where it is not told.
    pub cgroup_version: String,
    pub has_memory_limit: bool,
    /// Its own words on what this machine lacks.
    pub warnings: Vec<String>,
    pub data_root: String,
    /// As images name it: `amd64`, `arm64`, `arm`, ...
    pub architecture: String,
    pub kernel: String,
    pub operating_system: String,
    /// How many containers each instance of Cotter has.
    pub instances: BTreeMap<String, usize>,
    /// Images that have no name and that no container uses.
    pub nameless_images: usize,
    /// Their bytes, layers that they share counted each time.
    pub nameless_bytes: u64,
}

impl Docker {
    /// Looks at the engine as a whole: four calls.
    ///
    /// # Errors
    ///
    /// As [`EngineError`] says.
    pub async fn survey(&self) -> Result<Survey, EngineError> {
        let containers = ListContainersOptions { all: true, ..ListContainersOptions::default() };
        let call = self.call("survey", EngineError::DEADLINE, |client| async move {
            let (version, info) = (client.version().await?, client.info().await?);
            let containers = client.list_containers(Some(containers)).await?;
            Ok((version, info, containers, client.list_images(None::<ListImagesOptions>).await?))
        });
        let (version, info, containers, images) = call.await?;
        Ok(survey(version, info, &containers, &images))
    }
}

fn survey(
    version: SystemVersion,
    info: SystemInfo,
    containers: &[ContainerSummary],
    images: &[ImageSummary],
) -> Survey {
    let mut instances = BTreeMap::new();
    for labels in containers.iter().filter_map(|c| c.labels.as_ref()) {
        if let Some(instance) = labels.get(label::INSTANCE) {
            *instances.entry(instance.clone()).or_insert(0) += 1;
        }
    }
    let used: BTreeSet<&str> = containers.iter().filter_map(|c| c.image_id.as_deref()).collect();
    let has_name = |names: &[String]| names.iter().any(|name| !name.starts_with("<none>"));
    let is_nameless = |image: &&ImageSummary| {
        !has_name(&image.repo_tags) && !has_name(&image.repo_digests) && !used.contains(image.id.as_str())
    };
    let nameless: Vec<_> = images.iter().filter(is_nameless).collect();
    Survey {
        version: version.version.unwrap_or_default(),
        api: version.api_version.unwrap_or_default(),
        storage_driver: info.driver.unwrap_or_default(),
        log_driver: info.logging_driver.unwrap_or_default(),
        has_live_restore: info.live_restore_enabled.unwrap_or_default(),
        cgroup_version: info.cgroup_version.map_or_else(String::new, |version| version.to_string()),
        has_memory_limit: info.memory_limit.unwrap_or_default(),
        warnings: info.warnings.unwrap_or_default(),
        data_root: info.docker_root_dir.unwrap_or_default(),
        architecture: look::architecture(&info.architecture.unwrap_or_default()).to_owned(),
        kernel: info.kernel_version.unwrap_or_default(),
        operating_system: info.operating_system.unwrap_or_default(),
        instances,
        nameless_images: nameless.len(),
        nameless_bytes: nameless.iter().map(|image| u64::try_from(image.size).unwrap_or(0)).sum(),
    }
}

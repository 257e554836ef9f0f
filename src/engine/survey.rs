//! Facts about an engine for `cotter check` and support bundles. Changes nothing.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::answers::{Image, Info, Summary, Version};
use super::docker::{CONTAINERS, Docker, IMAGES, INFO};
use super::docker_spec::label;
use super::{EngineError, observed};

/// An engine and what exists on it, whoever created it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Survey {
    pub version: String,
    /// The newest API that it speaks, e.g. `1.41`.
    pub api: String,
    pub storage_driver: String,
    /// The log driver of containers that set none.
    pub log_driver: String,
    pub has_live_restore: bool,
    /// The version of cgroups, `1` or `2`; empty if the engine does not report it.
    pub cgroup_version: String,
    pub has_memory_limit: bool,
    /// Its own warnings about what this machine lacks.
    pub warnings: Vec<String>,
    pub data_root: String,
    /// As images name it: `amd64`, `arm64`, `arm`, ...
    pub architecture: String,
    pub kernel: String,
    pub operating_system: String,
    /// The number of containers of each instance of Cotter.
    pub instances: BTreeMap<String, usize>,
    /// The number of images without a name that no container uses.
    pub nameless_images: usize,
    /// Their size in bytes. Shared layers are counted each time.
    pub nameless_bytes: u64,
}

impl Docker {
    /// Collects the facts with four calls.
    ///
    /// # Errors
    ///
    /// As [`EngineError`] says.
    pub async fn survey(&self) -> Result<Survey, EngineError> {
        let call = self.call("survey", EngineError::DEADLINE, |client| async move {
            let version: Version = client.read("/version", &[]).await?;
            let info: Info = client.read(INFO, &[]).await?;
            let containers: Vec<Summary> = client.read(CONTAINERS, &[("all", "true")]).await?;
            Ok(survey(version, info, &containers, &client.read::<Vec<Image>>(IMAGES, &[]).await?))
        });
        call.await
    }
}

fn survey(version: Version, info: Info, containers: &[Summary], images: &[Image]) -> Survey {
    let mut instances = BTreeMap::new();
    for labels in containers.iter().filter_map(|container| container.labels.as_ref()) {
        if let Some(instance) = labels.get(label::INSTANCE) {
            *instances.entry(instance.clone()).or_insert(0) += 1;
        }
    }
    let used: BTreeSet<&str> = containers.iter().map(|container| &*container.image_id).collect();
    let has_name =
        |names: &Option<Vec<String>>| names.iter().flatten().any(|name| !name.starts_with("<none>"));
    let is_nameless = |image: &&Image| {
        !has_name(&image.repo_tags) && !has_name(&image.repo_digests) && !used.contains(image.id.as_str())
    };
    let nameless: Vec<_> = images.iter().filter(is_nameless).collect();
    Survey {
        version: version.version,
        api: version.api_version,
        storage_driver: info.driver,
        log_driver: info.logging_driver,
        has_live_restore: info.live_restore_enabled,
        cgroup_version: info.cgroup_version,
        has_memory_limit: info.memory_limit,
        warnings: info.warnings.unwrap_or_default(),
        data_root: info.docker_root_dir,
        architecture: observed::architecture(&info.architecture).to_owned(),
        kernel: info.kernel_version,
        operating_system: info.operating_system,
        instances,
        nameless_images: nameless.len(),
        nameless_bytes: nameless.iter().map(|image| u64::try_from(image.size).unwrap_or(0)).sum(),
    }
}

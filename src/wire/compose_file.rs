//! The compose file of a new release: resolved, so that nothing in it depends on the author's machine.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::bounds::{self, Taken};
use super::compose::{self, Form};
use super::policy;
use super::state_v3::{ReleaseState, ServiceState};
use crate::model::{ImageRef, Policy, Refusal, ReleaseLimits};

/// The parts of a compose file, as JSON.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ComposeFile {
    /// The services' fields by name; each has an `image`.
    pub services: BTreeMap<String, Map<String, Value>>,
    pub networks: BTreeMap<String, Value>,
    pub volumes: BTreeMap<String, Value>,
}

/// Removes the extension fields (`x-...`) of services, networks and volumes. Neither Compose nor a device reads them.
pub fn drop_extensions(file: &mut ComposeFile) {
    let drop_from = |fields: &mut Map<String, Value>| fields.retain(|name, _| !name.starts_with("x-"));
    file.services.values_mut().for_each(drop_from);
    let configs = file.networks.values_mut().chain(file.volumes.values_mut());
    configs.filter_map(Value::as_object_mut).for_each(drop_from);
}

/// Rewrites what Compose and balena devices understand differently, so that devices do as Compose does. Returns a warning
/// for each change.
pub fn as_compose_means(file: &mut ComposeFile) -> Vec<Refusal> {
    let (mut warnings, mut room) = (Vec::new(), ReleaseLimits::HIGHEST.ports);
    for (name, fields) in &mut file.services {
        let Some(ports) = fields.get_mut("ports") else { continue };
        let changed = compose::any_host_port(&format!("services.{name}.ports"), ports, &mut room);
        warnings.extend(changed.into_iter().map(|path| Refusal {
            path,
            why: "it is published on any free port of the device, as with Compose: write both ports (\"80:80\") for a \
                  fixed one"
                .into(),
        }));
    }
    warnings
}

/// Checks whether devices accept the file with the resolved `images` of its services. Uses the code with which devices
/// read their target. Returns warnings.
///
/// With `device`, what this device's settings forbid is refused, too; without, it is a warning if some device could allow
/// it.
///
/// # Errors
///
/// All refusals, with paths of the file, e.g. `services.web.ports[0]`.
pub fn check(
    file: &ComposeFile,
    images: &BTreeMap<String, ImageRef>,
    device: Option<&Policy>,
) -> Result<Vec<Refusal>, Vec<Refusal>> {
    let mut refusals = Vec::new();
    let mut release = ReleaseState {
        id: 0,
        services: BTreeMap::new(),
        networks: file.networks.clone(),
        volumes: file.volumes.clone(),
    };
    for (name, composition) in &file.services {
        let Some(image) = images.get(name) else {
            let why = "its image was not resolved: check the image's name and the registry".into();
            refusals.push(Refusal { path: format!("services.{name}.image"), why });
            continue;
        };
        release.services.insert(name.clone(), service(image, composition));
    }
    let most = device.map_or(&ReleaseLimits::HIGHEST, |policy| &policy.limits);
    refusals.extend(bounds::unread(&release, most, Taken::default()));
    if !refusals.is_empty() {
        return Err(refusals);
    }
    let (contents, mut notes) = compose::read(&release, Form::File);
    let exceeded = |bounds: &ReleaseLimits| bounds::exceeded(&contents, Form::File, bounds, Taken::default());
    match device {
        Some(policy) => {
            notes.refusals.extend(policy::violations(&contents, Form::File, policy));
            notes.refusals.extend(exceeded(&policy.limits));
        }
        // No setting of a device can accept more.
        None => notes.refusals.extend(exceeded(&ReleaseLimits::HIGHEST)),
    }
    if !notes.refusals.is_empty() {
        return Err(notes.refusals);
    }
    if device.is_some() {
        return Ok(notes.warnings);
    }
    let mut allowed = policy::violations(&contents, Form::File, &Policy::default());
    allowed.extend(exceeded(&ReleaseLimits::default()));
    let mut warnings = notes.warnings;
    warnings.extend(allowed.into_iter().map(|Refusal { path, why }| Refusal {
        path,
        why: format!("devices refuse it unless their settings allow it: {why}"),
    }));
    Ok(warnings)
}

/// Makes a service as it would be in a target.
fn service(image: &ImageRef, composition: &Map<String, Value>) -> ServiceState {
    ServiceState {
        id: 0,
        image_id: 0,
        image: image.to_string(),
        running: true,
        environment: BTreeMap::new(),
        labels: BTreeMap::new(),
        contract: None,
        composition: composition.clone(),
    }
}

#[cfg(test)]
#[path = "compose_file_tests.rs"]
mod tests;

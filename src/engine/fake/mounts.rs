//! Volumes that the fake engine cannot mount, and its error.

use std::collections::BTreeMap;

use crate::engine::EngineError;
use crate::engine::secrets::Secrets;
use crate::model::{AppId, ServiceSpec, VolumeName, VolumeSpec};

/// Refuses to start a container that mounts a network file system. The message quotes the options, as Docker's does,
/// and they are hidden as for a real engine.
pub(super) fn mount(
    app: &AppId,
    spec: &ServiceSpec,
    volumes: &BTreeMap<(AppId, VolumeName), VolumeSpec>,
) -> Result<(), EngineError> {
    for name in spec.volumes() {
        let Some(volume) = volumes.get(&(app.clone(), name.clone())) else { continue };
        let option = |name: &str| volume.driver_opts.get(name).map_or("", String::as_str);
        if option("type") != "cifs" {
            continue;
        }
        let message = format!(
            "error while mounting volume '/volumes/{name}/_data': failed to mount local volume: mount \
             {}:/volumes/{name}/_data, data: {}: no such device",
            option("device"),
            option("o"),
        );
        let message = Secrets::of_service(spec, [volume]).hide(&message);
        return Err(EngineError::Refused { call: "start", status: 500, message });
    }
    Ok(())
}

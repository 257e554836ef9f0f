//! Copies names, tags, variables and pins of devices that have arrived, and orders the others to move.

use std::collections::BTreeMap;

use serde_json::json;

use super::carry::{Carrying, Place};
use crate::cli::client::Client;
use crate::cli::openbalena_error::BalenaError;
use crate::wire::operator_api::{
    BulkView, DeviceView, ExportedDevice, ExportedVariable, MigrateMany, MigrationOrder,
};

/// Devices that are sent by one request.
const AT_ONCE: usize = 1000;

/// The devices that are not there yet.
#[derive(Debug, Default)]
pub(super) struct Missing {
    /// Uuids of those that the target of the fleet suits.
    pub(super) ready: Vec<String>,
    /// Uuids of those that are pinned to another release.
    pub(super) pinned: Vec<String>,
}

impl Carrying<'_> {
    /// Brings names, tags, variables and pins of the devices that are there. Returns the others.
    pub(super) async fn devices(&mut self) -> Result<Missing, BalenaError> {
        let mut missing = Missing::default();
        let target = self.source.fleet.as_ref().and_then(|fleet| fleet.target.as_ref());
        for (uuid, device) in &self.source.devices {
            let known = self.there.devices.get(uuid);
            let Some((id, name, pin)) = known.map(|known| (known.id, known.name.clone(), known.pin)) else {
                match &device.pin {
                    Some(pin) if Some(pin) != target => missing.pinned.push(uuid.clone()),
                    Some(_) | None => missing.ready.push(uuid.clone()),
                }
                continue;
            };
            if name != device.name {
                let (what, body) =
                    (format!("name of device {}", device.name), json!({ "device_name": device.name }));
                let may_set = self.overwrite;
                self.differing(&what, may_set, ("device", id), &body).await?;
            }
            self.tags(id, device).await?;
            for variable in self.source.of_devices.get(uuid).into_iter().flatten() {
                self.device_variable(id, &device.name, variable).await?;
            }
            self.pin(id, pin, device).await?;
        }
        Ok(missing)
    }

    async fn tags(&mut self, id: u64, device: &ExportedDevice) -> Result<(), BalenaError> {
        for (key, value) in &device.tags {
            let what = format!("tag {key} of device {}", device.name);
            let known = self.there.tags.get(&(id, key.clone())).cloned();
            let place = Place { resource: "device_tag", key: ("tag_key", key), holder: ("device", id) };
            self.text(&what, place, value, known, self.overwrite).await?;
        }
        Ok(())
    }

    async fn device_variable(
        &mut self,
        id: u64,
        device: &str,
        variable: &ExportedVariable,
    ) -> Result<(), BalenaError> {
        let (name, value) = (&variable.name, variable.value.as_deref().unwrap_or_default());
        let what = format!("variable {name} of device {device}");
        let (resource, holder, known, what) = match &variable.service {
            None => {
                let known = self.there.of_devices.get(&(id, name.clone())).cloned();
                ("device_environment_variable", ("device", id), known, what)
            }
            Some(service) => {
                let number = self.service(service).await?;
                let Some(install) = self.there.installs.get(&(id, number)).copied() else {
                    self.failed
                        .push(format!("{what}, service {service}: the device has no such service there yet"));
                    return Ok(());
                };
                let known = self.there.of_installs.get(&(install, name.clone())).cloned();
                let what = format!("{what}, service {service}");
                ("device_service_environment_variable", ("service_install", install), known, what)
            }
        };
        let place = Place { resource, key: ("name", name), holder };
        self.text(&what, place, value, known, self.overwrite).await
    }

    async fn pin(&mut self, id: u64, there: Option<u64>, device: &ExportedDevice) -> Result<(), BalenaError> {
        let release = match &device.pin {
            None => None,
            Some(commit) => {
                let known = self.there.releases.get(commit).filter(|release| release.status == "success");
                let Some(release) = known else {
                    self.failed.push(format!("pin of device {}: release {commit} is not there", device.name));
                    return Ok(());
                };
                Some(release.id)
            }
        };
        if release == there {
            return Ok(());
        }
        let pin = device.pin.as_deref().unwrap_or("no release");
        let what = format!("pin of device {}: {pin}", device.name);
        // A device that has just come has no pin.
        let may_set = self.overwrite || there.is_none();
        self.differing(&what, may_set, ("device", id), &json!({ "is_pinned_on__release": release })).await
    }

    /// Orders devices there that are not ordered there yet. Returns how many devices are on their way.
    pub(super) async fn send(&mut self, client: &Client, wanted: &[String]) -> anyhow::Result<usize> {
        let fleet = self.source.fleet.as_ref().map(|fleet| fleet.name.as_str());
        let devices: Vec<DeviceView> = client.list(&["devices"], &[("fleet", fleet)], None).await?;
        let (to, number) = (self.api.address(), self.there.application.to_string());
        let is_ordered = |device: &DeviceView| {
            device.migration.as_ref().is_some_and(|order| order.to == to && order.fleet == number)
        };
        let known: BTreeMap<&str, &DeviceView> =
            devices.iter().map(|device| (device.uuid.as_str(), device)).collect();
        let (ordered, new): (Vec<&String>, Vec<&String>) = wanted
            .iter()
            .filter(|uuid| known.contains_key(uuid.as_str()))
            .partition(|uuid| known.get(uuid.as_str()).is_some_and(|device| is_ordered(device)));
        if new.is_empty() {
            return Ok(ordered.len());
        }
        let what = format!("{} there", crate::model::quantity::counted(new.len(), "device"));
        if self.api.is_dry {
            self.api.note("would send", &what);
            return Ok(ordered.len() + new.len());
        }
        let key = self.api.provisioning_key(self.there.application).await?;
        for part in new.chunks(AT_ONCE) {
            let order = MigrationOrder { to: to.clone(), fleet: number.clone(), key: key.clone() };
            let devices = part.iter().map(|uuid| (*uuid).clone()).collect();
            let asked = MigrateMany { devices, order: Some(order), ..MigrateMany::default() };
            let _sent: BulkView = client.post(&["devices", "migrate"], &asked).await?;
        }
        self.api.note("sent", &what);
        Ok(ordered.len() + new.len())
    }
}

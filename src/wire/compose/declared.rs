//! Reads the networks and volumes that a release declares.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::Value;

use super::at::{At, Notes, is_nothing};
use super::networking::DEFAULT;
use super::texts;
use crate::model::{NetworkSpec, Refusal, Subnet, VolumeSpec};
use crate::wire::spec_hash;

/// Reads a network. `null` is a network without config.
pub(super) fn network(path: &str, value: &Value, notes: &mut Notes) -> NetworkSpec {
    let mut spec = NetworkSpec::default();
    for (key, field) in config(path, value, notes) {
        match key {
            "driver" => spec.driver = driver(&field, "bridge", notes),
            "driver_opts" => spec.driver_opts = texts::map(&field, notes),
            "labels" => spec.labels = labels(&field, notes),
            "internal" => spec.is_internal = notes.keep(field.flag()).unwrap_or_default(),
            "enable_ipv6" => spec.has_ipv6 = notes.keep(field.flag()).unwrap_or_default(),
            "enable_ipv4" => {
                if notes.keep(field.flag()) == Some(false) {
                    notes.refuse(field.refusal("a network without IPv4 is not supported: remove it"));
                }
            }
            "ipam" => ipam(&field, &mut spec, notes),
            "attachable" => notes.warn(field.refusal("it has no effect on one device")),
            _ => other(key, &field, notes),
        }
    }
    if matches!(spec.driver.as_str(), "host" | "none" | "null" | "overlay") {
        notes.refuse(Refusal {
            path: format!("{path}.driver"),
            why: format!(
                "the driver {:?} is not for a network of a release: leave it out, or give the services \
                 network_mode host or none",
                spec.driver
            ),
        });
    }
    spec.config_hash = spec_hash::of_network(&spec);
    spec
}

/// Reads a volume. `null` is a volume without config.
pub(super) fn volume(path: &str, value: &Value, notes: &mut Notes) -> VolumeSpec {
    let mut spec = VolumeSpec::default();
    for (key, field) in config(path, value, notes) {
        match key {
            "driver" => spec.driver = driver(&field, "local", notes),
            "driver_opts" => spec.driver_opts = texts::map(&field, notes),
            "labels" => spec.labels = labels(&field, notes),
            _ => other(key, &field, notes),
        }
    }
    if spec.bound_path().is_some_and(|device| !device.starts_with('/')) {
        notes.refuse(Refusal {
            path: format!("{path}.driver_opts.device"),
            why: "it is not an absolute path of the host: write one, or remove driver_opts".into(),
        });
    }
    spec
}

fn config<'v>(path: &str, value: &'v Value, notes: &mut Notes) -> Vec<(&'v str, At<'v>)> {
    let at = At::new(path, value);
    if value.is_null() { Vec::new() } else { notes.keep(at.map()).unwrap_or_default() }
}

fn labels(at: &At<'_>, notes: &mut Notes) -> BTreeMap<String, String> {
    texts::without_own(texts::labels(at, notes), &at.path, notes)
}

/// Reads the driver. Returns an empty text for the default one, so that naming it changes nothing.
fn driver(at: &At<'_>, usual: &str, notes: &mut Notes) -> String {
    let given = notes.keep(at.text()).unwrap_or_default();
    if given == usual || (usual == "bridge" && given == DEFAULT) { String::new() } else { given.to_owned() }
}

fn other(key: &str, at: &At<'_>, notes: &mut Notes) {
    match key {
        _ if is_nothing(at.value) || key.starts_with("x-") => {}
        "external" | "name" => notes.refuse(at.refusal(
            "networks and volumes outside of the release are not used: remove it, and the app gets its own",
        )),
        _ => notes.refuse(at.refusal("it is not supported: remove it")),
    }
}

fn ipam(at: &At<'_>, spec: &mut NetworkSpec, notes: &mut Notes) {
    let mut subnets = Vec::new();
    for (key, field) in notes.keep(at.map()).unwrap_or_default() {
        match key {
            "driver" if field.value.as_str() == Some(DEFAULT) => {}
            "driver" => spec.ipam_driver = notes.keep(field.text()).unwrap_or_default().to_owned(),
            "options" => spec.ipam_options = texts::map(&field, notes),
            "config" => {
                for item in notes.keep(field.list()).unwrap_or_default() {
                    subnets.push(subnet(&item, notes));
                }
            }
            _ if is_nothing(field.value) => {}
            _ => notes.refuse(field.unknown("it is not supported: write config, driver and options only")),
        }
    }
    subnets.retain(|subnet| *subnet != Subnet::default());
    spec.subnets = subnets;
}

fn subnet(at: &At<'_>, notes: &mut Notes) -> Subnet {
    let mut subnet = Subnet::default();
    for (key, field) in notes.keep(at.map()).unwrap_or_default() {
        match key {
            "subnet" => subnet.subnet = notes.keep(range(&field)),
            "ip_range" => subnet.ip_range = notes.keep(range(&field)),
            "aux_addresses" => {
                for (name, field) in notes.keep(field.map()).unwrap_or_default() {
                    let read = address(&field);
                    subnet.aux_addresses.extend(notes.keep(read).map(|ip| (name.to_owned(), ip)));
                }
            }
            "gateway" => subnet.gateway = notes.keep(address(&field)),
            _ if is_nothing(field.value) => {}
            _ => notes.refuse(
                field.unknown("it is not supported: write subnet, gateway, ip_range and aux_addresses only"),
            ),
        }
    }
    if subnet.subnet.is_none() && subnet != Subnet::default() {
        notes.refuse(at.refusal("it has no subnet: write one, e.g. \"172.28.0.0/16\""));
    }
    subnet
}

fn address(at: &At<'_>) -> Result<String, Refusal> {
    let ip = at.text()?.parse::<IpAddr>();
    ip.map(|ip| ip.to_string()).map_err(|_| at.wrong("an address, e.g. \"172.28.0.1\""))
}

/// `address/prefix`.
fn range(at: &At<'_>) -> Result<String, Refusal> {
    let accepts = "an address range, e.g. \"172.28.0.0/16\"";
    let text = at.text()?;
    let (ip, prefix) = text.split_once('/').ok_or_else(|| at.wrong(accepts))?;
    let ip: IpAddr = ip.parse().map_err(|_| at.wrong(accepts))?;
    let longest = if ip.is_ipv4() { 32 } else { 128 };
    match prefix.parse::<u8>() {
        Ok(prefix) if prefix <= longest => Ok(format!("{ip}/{prefix}")),
        Ok(_) | Err(_) => Err(at.wrong(accepts)),
    }
}

//! Which networks a service is on, and the networks and volumes that a release declares.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde_json::{Map, Value};

use super::at::{At, Notes, is_nothing, members};
use super::texts;
use crate::model::{NetworkAttachment, NetworkMode, NetworkName, NetworkSpec, Refusal, Subnet, VolumeSpec};
use crate::wire::spec_hash;

/// The network of services that name none.
pub(super) const DEFAULT: &str = "default";

/// Reads `network_mode` and `networks` of a service.
pub(super) fn mode(mode: Option<&At<'_>>, networks: Option<&At<'_>>, notes: &mut Notes) -> NetworkMode {
    let mut attachments = networks.map(|at| attachments(at, notes)).unwrap_or_default();
    let word = mode.and_then(|at| notes.keep(at.text()).map(|text| (at, text)));
    let alone = match word {
        Some((_, "host")) => Some(NetworkMode::Host),
        Some((_, "none")) => Some(NetworkMode::None),
        Some((_, "bridge")) => Some(NetworkMode::Bridge),
        Some((at, text)) if text.starts_with("service:") || text.starts_with("container:") => {
            notes.refuse(at.refusal(
                "sharing another container's network is not supported: put both services on one network \
                 and reach the other by its name",
            ));
            None
        }
        Some((at, text)) => {
            if let Some(name) = notes.keep(NetworkName::parse(text).map_err(|bad| at.refusal(bad))) {
                attachments.entry(name).or_default();
            }
            None
        }
        None => None,
    };
    if let Some(alone) = alone {
        if let (false, Some((at, text))) = (attachments.is_empty(), word) {
            notes.refuse(at.refusal(format_args!("{text} does not go with networks: remove one of the two")));
        }
        return alone;
    }
    if attachments.is_empty() {
        attachments.extend(NetworkName::parse(DEFAULT).map(|name| (name, NetworkAttachment::default())));
    }
    NetworkMode::Networks(attachments)
}

fn attachments(at: &At<'_>, notes: &mut Notes) -> BTreeMap<NetworkName, NetworkAttachment> {
    let mut found = BTreeMap::new();
    if let Value::Array(_) = at.value {
        for item in notes.keep(at.list()).unwrap_or_default() {
            let name = item.text().and_then(|text| name(&item, text));
            found.extend(notes.keep(name).map(|name| (name, NetworkAttachment::default())));
        }
        return found;
    }
    let Value::Object(map) = at.value else {
        notes.refuse(at.wrong("a list of networks, or a map of networks"));
        return found;
    };
    for (key, value) in map {
        let item = At::new(format!("{}.{key}", at.path), value);
        let Some(name) = notes.keep(name(&item, key)) else { continue };
        let attachment =
            if value.is_null() { NetworkAttachment::default() } else { attachment(&item, notes) };
        found.insert(name, attachment);
    }
    found
}

fn name(at: &At<'_>, text: &str) -> Result<NetworkName, Refusal> {
    NetworkName::parse(text).map_err(|bad| at.refusal(bad))
}

fn attachment(at: &At<'_>, notes: &mut Notes) -> NetworkAttachment {
    let mut attachment = NetworkAttachment::default();
    for (key, field) in notes.keep(at.map()).unwrap_or_default() {
        match key {
            "aliases" => {
                for alias in notes.keep(field.list()).unwrap_or_default() {
                    attachment.aliases.extend(notes.keep(host_name(&alias)));
                }
            }
            "ipv4_address" => {
                let read = field.text().and_then(|text| {
                    text.parse::<Ipv4Addr>().map_err(|_| field.wrong("an IPv4 address, e.g. \"172.28.0.10\""))
                });
                attachment.ipv4_address = notes.keep(read).map(|ip| ip.to_string());
            }
            "ipv6_address" => {
                let read = field.text().and_then(|text| {
                    text.parse::<Ipv6Addr>().map_err(|_| field.wrong("an IPv6 address, e.g. \"fd00::10\""))
                });
                attachment.ipv6_address = notes.keep(read).map(|ip| ip.to_string());
            }
            "priority" | "gw_priority" => {
                notes.warn(field.refusal("the order of networks is not honoured"));
            }
            _ if is_nothing(field.value) || key.starts_with("x-") => {}
            _ => notes.refuse(
                field.refusal("it is not supported: write aliases, ipv4_address or ipv6_address only"),
            ),
        }
    }
    attachment
}

/// A name for a hosts file: neither empty nor with blanks.
pub(super) fn host_name(at: &At<'_>) -> Result<String, Refusal> {
    let text = at.text()?;
    let is_fine = !text.is_empty()
        && text.len() <= 253
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'));
    if is_fine {
        Ok(text.to_owned())
    } else {
        Err(at.wrong("a host name: letters, digits, '.', '-' and '_'"))
    }
}

/// Reads a network that the release declares. `null` is one without config.
pub(super) fn network(path: &str, value: &Value, notes: &mut Notes) -> NetworkSpec {
    let mut spec = NetworkSpec::default();
    for (key, field) in config(path, value, notes) {
        match key {
            "driver" => spec.driver = driver(&field, "bridge", notes),
            "driver_opts" => spec.driver_opts = texts::map(&field, notes),
            "labels" => spec.labels = texts::labels(&field, notes),
            "internal" => spec.is_internal = notes.keep(field.flag()).unwrap_or_default(),
            "enable_ipv6" => spec.has_ipv6 = notes.keep(field.flag()).unwrap_or_default(),
            "enable_ipv4" if field.value == &Value::Bool(true) => {}
            "ipam" => spec.subnets = ipam(&field, notes),
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

/// Reads a volume that the release declares. `null` is one without config.
pub(super) fn volume(path: &str, value: &Value, notes: &mut Notes) -> VolumeSpec {
    let mut spec = VolumeSpec::default();
    for (key, field) in config(path, value, notes) {
        match key {
            "driver" => spec.driver = driver(&field, "local", notes),
            "driver_opts" => spec.driver_opts = texts::map(&field, notes),
            "labels" => spec.labels = texts::labels(&field, notes),
            _ => other(key, &field, notes),
        }
    }
    let is_bind = |options: &String| options.split(',').any(|o| matches!(o.trim(), "bind" | "rbind"));
    if spec.driver.is_empty() && spec.driver_opts.get("o").is_some_and(is_bind) {
        notes.refuse(Refusal {
            path: format!("{path}.driver_opts.o"),
            why: "a path of the host is not mounted, because the device's files are not part of a release: \
                  remove driver_opts"
                .into(),
        });
    }
    spec
}

fn config<'v>(path: &str, value: &'v Value, notes: &mut Notes) -> Vec<(&'v str, At<'v>)> {
    let at = At::new(path, value);
    if value.is_null() { Vec::new() } else { notes.keep(at.map()).unwrap_or_default() }
}

/// The driver; empty for the usual one, so that naming it changes nothing.
fn driver(at: &At<'_>, usual: &str, notes: &mut Notes) -> String {
    let given = notes.keep(at.text()).unwrap_or_default();
    if given == usual || (usual == "bridge" && given == DEFAULT) { String::new() } else { given.to_owned() }
}

fn other(key: &str, at: &At<'_>, notes: &mut Notes) {
    match key {
        _ if is_nothing(at.value) || key.starts_with("x-") => {}
        "external" | "name" => notes.refuse(
            at.refusal("what is outside of the release is not used: remove it, and the app gets its own"),
        ),
        _ => notes.refuse(at.refusal("it is not supported: remove it")),
    }
}

fn ipam(at: &At<'_>, notes: &mut Notes) -> Vec<Subnet> {
    let mut subnets = Vec::new();
    for (key, field) in notes.keep(at.map()).unwrap_or_default() {
        match key {
            "driver" if field.value.as_str() == Some(DEFAULT) => {}
            "config" => {
                for item in notes.keep(field.list()).unwrap_or_default() {
                    subnets.push(subnet(&item, notes));
                }
            }
            _ if is_nothing(field.value) => {}
            _ => notes.refuse(field.refusal("it is not supported: write config only")),
        }
    }
    subnets.retain(|subnet| *subnet != Subnet::default());
    subnets
}

fn subnet(at: &At<'_>, notes: &mut Notes) -> Subnet {
    let mut subnet = Subnet::default();
    for (key, field) in notes.keep(at.map()).unwrap_or_default() {
        match key {
            "subnet" => subnet.subnet = notes.keep(range(&field)),
            "ip_range" => subnet.ip_range = notes.keep(range(&field)),
            "gateway" => {
                let read = field.text().and_then(|text| {
                    text.parse::<IpAddr>().map_err(|_| field.wrong("an address, e.g. \"172.28.0.1\""))
                });
                subnet.gateway = notes.keep(read).map(|ip| ip.to_string());
            }
            _ if is_nothing(field.value) => {}
            _ => notes.refuse(field.refusal("it is not supported: write subnet, gateway and ip_range only")),
        }
    }
    if subnet.subnet.is_none() && subnet != Subnet::default() {
        notes.refuse(at.refusal("it has no subnet: write one, e.g. \"172.28.0.0/16\""));
    }
    subnet
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

/// The names in `links` that are not simply the names of services.
pub(super) fn links(at: &At<'_>, notes: &mut Notes) {
    for item in notes.keep(at.list()).unwrap_or_default() {
        match notes.keep(item.text()) {
            Some(text) if text.split_once(':').is_some_and(|(service, alias)| service != alias) => {
                notes.refuse(item.refusal(
                    "other names by links are not supported: write them as aliases of the other service's \
                     network",
                ));
            }
            Some(_) => notes.warn(item.refusal("it is not needed: services find each other by name")),
            None => {}
        }
    }
}

/// `extra_hosts` as `name:address`, from a list or a map.
pub(super) fn extra_hosts(at: &At<'_>, notes: &mut Notes) -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    match at.value {
        Value::Array(_) => {
            for item in notes.keep(at.list()).unwrap_or_default() {
                let split = item.text().and_then(|text| {
                    text.split_once('=')
                        .or_else(|| text.split_once(':'))
                        .ok_or_else(|| item.wrong("\"name=address\""))
                });
                let Some((name, address)) = notes.keep(split) else { continue };
                lines.extend(notes.keep(host_line(&item, name, address)));
            }
        }
        Value::Object(map) => extra_hosts_map(&at.path, map, &mut lines, notes),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            notes.refuse(at.wrong("a list of \"name=address\", or a map of names to addresses"));
        }
    }
    lines
}

fn extra_hosts_map(path: &str, map: &Map<String, Value>, lines: &mut BTreeSet<String>, notes: &mut Notes) {
    for (name, field) in members(path, map) {
        for address in notes.keep(field.text_or_list()).unwrap_or_default() {
            let line = address.text().and_then(|text| host_line(&address, name, text));
            lines.extend(notes.keep(line));
        }
    }
}

fn host_line(at: &At<'_>, name: &str, address: &str) -> Result<String, Refusal> {
    let bare = address.strip_prefix('[').and_then(|a| a.strip_suffix(']')).unwrap_or(address);
    let name_value = Value::String(name.to_owned());
    host_name(&At::new(at.path.clone(), &name_value))?;
    if bare == "host-gateway" {
        return Ok(format!("{name}:{bare}"));
    }
    let ip: IpAddr =
        bare.parse().map_err(|_| at.wrong("\"name=address\" with an IP address or host-gateway"))?;
    Ok(format!("{name}:{ip}"))
}

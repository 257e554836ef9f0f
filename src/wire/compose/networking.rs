//! Reads the networks of a service, and the names that it can resolve.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde_json::{Map, Value};

use super::at::{At, Fields, Notes, is_nothing, members, parent};
use super::quantities::whole;
use super::{shared, texts};
use crate::model::{NetworkAttachment, NetworkMode, NetworkName, Refusal, ServiceSpec};

/// The network of services without `networks`.
pub(super) const DEFAULT: &str = "default";

/// Reads `network_mode` and `networks` of a service.
pub(super) fn mode(mode: Option<&At<'_>>, networks: Option<&At<'_>>, notes: &mut Notes) -> NetworkMode {
    let mut attachments = networks.map(|at| attachments(at, notes)).unwrap_or_default();
    let word = mode.and_then(|at| notes.keep(at.text()).map(|text| (at, text)));
    let alone = match word {
        Some((_, "host")) => Some(NetworkMode::Host),
        Some((_, "none")) => Some(NetworkMode::None),
        Some((_, "bridge")) => Some(NetworkMode::Bridge),
        Some((at, text)) => match shared::service_of(at, text) {
            Some(read) => notes.keep(read).map(NetworkMode::Service),
            None => {
                if let Some(name) = notes.keep(NetworkName::parse(text).map_err(|bad| at.refusal(bad))) {
                    attachments.entry(name).or_default();
                }
                None
            }
        },
        None => None,
    };
    if let Some(alone) = alone {
        if let (false, Some((at, text))) = (attachments.is_empty(), word) {
            notes.refuse(
                at.refusal(format_args!("{text} cannot be combined with networks: remove one of the two")),
            );
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
    let path = parent(&at.path);
    for (key, value) in map {
        let item = At::new(format!("{path}.{key}"), value);
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
            "link_local_ips" => {
                for item in notes.keep(field.list()).unwrap_or_default() {
                    let read = item.text().and_then(|text| {
                        text.parse::<IpAddr>().map_err(|_| item.wrong("an address, e.g. \"169.254.8.8\""))
                    });
                    attachment.link_local_ips.extend(notes.keep(read).map(|ip| ip.to_string()));
                }
            }
            "mac_address" => attachment.mac_address = notes.keep(mac(&field)),
            "driver_opts" => attachment.driver_opts = texts::map(&field, notes),
            "priority" => {
                attachment.priority = notes.keep(order(&field)).unwrap_or_default();
            }
            "gw_priority" => {
                attachment.gateway_priority = notes.keep(order(&field)).unwrap_or_default();
            }
            _ if is_nothing(field.value) || key.starts_with("x-") => {}
            _ => notes.refuse(field.unknown(
                "it is not supported: write aliases, ipv4_address, ipv6_address, link_local_ips, \
                     mac_address, driver_opts, priority or gw_priority only",
            )),
        }
    }
    attachment
}

fn order(at: &At<'_>) -> Result<i64, Refusal> {
    whole(at, "a whole number; the highest comes first", -1_000_000..=1_000_000)
}

/// Reads a MAC address, in lower case with colons.
fn mac(at: &At<'_>) -> Result<String, Refusal> {
    let text = at.text()?.to_ascii_lowercase();
    let parts: Vec<&str> = text.split([':', '-']).collect();
    let is_part = |part: &&str| part.len() == 2 && part.chars().all(|c| c.is_ascii_hexdigit());
    if parts.len() == 6 && parts.iter().all(is_part) {
        Ok(parts.join(":"))
    } else {
        Err(at.wrong("a MAC address, e.g. \"02:42:ac:11:65:43\""))
    }
}

/// Reads `mac_address` of a service, which is for its first network.
pub(super) fn mac_address(fields: &Fields<'_>, spec: &mut ServiceSpec, notes: &mut Notes) {
    let Some(at) = fields.get("mac_address").filter(|at| !is_nothing(at.value)) else { return };
    let Some(address) = notes.keep(mac(&at)) else { return };
    let attachments = match &mut spec.network_mode {
        NetworkMode::Networks(attachments) => attachments,
        // `shared::conflicts` refuses it.
        NetworkMode::Service(_) => return,
        NetworkMode::Host | NetworkMode::None | NetworkMode::Bridge => {
            return notes.refuse(at.refusal("it needs a network of the release: remove it, or network_mode"));
        }
    };
    // The first of those with the highest priority, which is connected first.
    let first = attachments.values_mut().rev().max_by_key(|attachment| attachment.priority);
    if let Some(first) = first {
        first.mac_address.get_or_insert(address);
    }
}

/// Reads a host name for a hosts file.
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

/// Reads the name that a service has itself, which Linux bounds.
pub(super) fn own_name(at: &At<'_>) -> Result<String, Refusal> {
    match host_name(at)? {
        name if name.len() > LONGEST_OWN_NAME => {
            let (bytes, most) = (name.len(), LONGEST_OWN_NAME);
            Err(at.refusal(format_args!("it has {bytes} characters, and Linux accepts {most}: shorten it")))
        }
        name => Ok(name),
    }
}

/// Maximum number of bytes of a host's own name (HOST_NAME_MAX of Linux).
const LONGEST_OWN_NAME: usize = 64;

/// Reads `extra_hosts` as `name:address`, from a list or a map.
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

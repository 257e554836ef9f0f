//! Reads published ports: the short form with ranges, integers, and the long form.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde_json::Value;

use super::Form;
use super::at::{At, Notes, digits};
use crate::model::{PortMapping, Protocol, Refusal};

const SHORT: &str = "\"[address:][host port[-end]:]container port[-end][/tcp|/udp]\", e.g. \"8080:80\"";
const ONE: &str = "a port from 1 to 65535";
/// Maximum number of ports of a service. With more, the engine's proxies alone would fill the memory of a small device.
const MOST: usize = 20_000;

/// Reads `ports`, sorted. Refuses every invalid entry, and every port that is published twice.
///
/// An entry of the short form with a container port only, such as `"80"`, is a different thing to its authors: Compose
/// publishes it on any free port of the host, and balena devices on the same port. So in a target it is the same port; a
/// file says what it means by [`any_host_port`].
pub(super) fn read(at: &At<'_>, form: Form, notes: &mut Notes) -> Vec<PortMapping> {
    let mut ports = BTreeSet::new();
    let mut on_host = HostPorts::default();
    for item in notes.keep(at.list()).unwrap_or_default() {
        let entry = match item.value {
            Value::String(text) => short(&item, text).map(|entry| entry.settled(form)),
            Value::Number(_) => {
                item.whole(ONE).and_then(|port| Ok(Entry::only(one(&item, port)?).settled(form)))
            }
            Value::Object(_) => long(&item, notes),
            Value::Null | Value::Bool(_) | Value::Array(_) => Err(item.wrong(SHORT)),
        };
        let Some(entry) = notes.keep(entry) else { continue };
        let mut mappings = entry.mappings();
        let added = mappings.try_for_each(|port| add(&mut ports, &mut on_host, &item, port));
        notes.keep(added);
    }
    ports.into_iter().collect()
}

/// Rewrites each entry that names only a container port, so that devices publish it on any free port of the host, as
/// Compose does. Returns the paths of these entries. Takes the rewritten ports from `room`, and rewrites no entry for which
/// there is none: such a release has too many ports for any device.
pub(in crate::wire) fn any_host_port(path: &str, ports: &mut Value, room: &mut usize) -> Vec<String> {
    let mut found = Vec::new();
    let Value::Array(items) = ports else { return found };
    let mut rewritten = Vec::with_capacity(items.len());
    for (n, item) in std::mem::take(items).into_iter().enumerate() {
        let text = match &item {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => String::new(),
        };
        let (range, protocol) = text.split_once('/').unwrap_or((&text, "tcp"));
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        match (first.parse::<u16>(), last.parse::<u16>()) {
            (Ok(first), Ok(last)) if first <= last && usize::from(last - first) < MOST.min(*room) => {
                *room -= usize::from(last - first) + 1;
                let any = |port: u16| serde_json::json!({ "target": port, "protocol": protocol });
                rewritten.extend((first..=last).map(any));
                found.push(format!("{path}[{n}]"));
            }
            _ => rewritten.push(item),
        }
    }
    *items = rewritten;
    found
}

fn add(
    ports: &mut BTreeSet<PortMapping>,
    on_host: &mut HostPorts,
    at: &At<'_>,
    port: PortMapping,
) -> Result<(), Refusal> {
    if ports.len() >= MOST {
        return Err(at.refusal(format_args!("a service may publish {MOST} ports at most: publish fewer")));
    }
    if !on_host.take(&port) {
        let number = port.host_port.unwrap_or_default();
        return Err(at.refusal(format_args!("host port {number} is published twice: remove one")));
    }
    let number = port.container_port;
    if !ports.insert(port) {
        return Err(at.refusal(format_args!("container port {number} is published twice: remove one")));
    }
    Ok(())
}

/// The host ports that are taken, with their addresses.
#[derive(Default)]
pub(super) struct HostPorts {
    taken: BTreeMap<(u16, Protocol), Addresses>,
}

impl HostPorts {
    /// Takes the host port of `port`. Returns `false` if it is taken already. A port that the engine chooses is always free.
    pub(super) fn take(&mut self, port: &PortMapping) -> bool {
        let Some(number) = port.host_port else { return true };
        let addresses = self.taken.entry((number, port.protocol)).or_default();
        let is_free = !addresses.meet(&port.host_ip);
        addresses.take(&port.host_ip);
        is_free
    }
}

/// The addresses on which a port is taken.
#[derive(Default)]
struct Addresses {
    all: BTreeSet<String>,
    has_v4: bool,
    has_v6: bool,
}

impl Addresses {
    fn take(&mut self, ip: &str) {
        self.has_v4 |= !ip.contains(':');
        self.has_v6 |= ip.contains(':');
        self.all.insert(ip.to_owned());
    }

    /// Returns whether one port cannot be on this address, too. An empty one is every address.
    fn meet(&self, ip: &str) -> bool {
        let has = |ip: &str| self.all.contains(ip);
        match ip {
            "" => !self.all.is_empty(),
            "0.0.0.0" => self.has_v4,
            "::" => self.has_v6 || has(""),
            _ => has(ip) || has("") || has(if ip.contains(':') { "::" } else { "0.0.0.0" }),
        }
    }
}

/// One entry: two ranges of the same width.
struct Entry {
    host_ip: String,
    host: Option<(u16, u16)>,
    container: (u16, u16),
    protocol: Protocol,
}

impl Entry {
    fn only(port: u16) -> Self {
        Self { host_ip: String::new(), host: None, container: (port, port), protocol: Protocol::Tcp }
    }

    /// As a balena device publishes it: without a host port, on the same one.
    fn settled(mut self, form: Form) -> Self {
        if form == Form::Target && self.host.is_none() && self.host_ip.is_empty() {
            self.host = Some(self.container);
        }
        self
    }

    fn mappings(&self) -> impl Iterator<Item = PortMapping> {
        let first_host = self.host.map(|(first, _)| first);
        let mapping = move |port: u16| PortMapping {
            host_ip: self.host_ip.clone(),
            host_port: first_host.map(|first| first + (port - self.container.0)),
            container_port: port,
            protocol: self.protocol,
        };
        (self.container.0..=self.container.1).map(mapping)
    }
}

fn short(at: &At<'_>, text: &str) -> Result<Entry, Refusal> {
    let (rest, protocol) = match text.rsplit_once('/') {
        None => (text, Protocol::Tcp),
        Some((rest, word)) => (rest, protocol(at, word)?),
    };
    let (rest, container) = rest.rsplit_once(':').map_or((None, rest), |(rest, last)| (Some(rest), last));
    let (ip, host) = match rest {
        None => (None, ""),
        Some(rest) => rest.rsplit_once(':').map_or((None, rest), |(ip, host)| (Some(ip), host)),
    };
    let container = range(at, container)?;
    let host = if host.is_empty() { None } else { Some(range(at, host)?) };
    // ":80" is invalid; only "address::80" leaves the host port to the engine.
    if host.is_none() && rest.is_some() && ip.is_none_or(str::is_empty) {
        return Err(at.wrong(SHORT));
    }
    check_widths(at, host, container)?;
    Ok(Entry { host_ip: ip.map_or(Ok(String::new()), |ip| address(at, ip))?, host, container, protocol })
}

fn check_widths(at: &At<'_>, host: Option<(u16, u16)>, container: (u16, u16)) -> Result<(), Refusal> {
    let width = |(first, last): (u16, u16)| last - first;
    match host {
        Some(host) if width(host) != width(container) => {
            Err(at.wrong("as many host ports as container ports"))
        }
        Some(_) | None => Ok(()),
    }
}

fn long(at: &At<'_>, notes: &mut Notes) -> Result<Entry, Refusal> {
    let mut entry = Entry::only(1);
    let mut has_target = false;
    for (key, field) in at.map()? {
        match key {
            "target" => {
                entry.container.0 = one(&field, field.whole(ONE)?)?;
                entry.container.1 = entry.container.0;
                has_target = true;
            }
            "published" if field.value.as_str() == Some("") => {}
            "published" => {
                let port = one(&field, field.whole(ONE)?)?;
                entry.host = Some((port, port));
            }
            "host_ip" => entry.host_ip = address(&field, field.text()?)?,
            "protocol" => entry.protocol = protocol(&field, field.text()?)?,
            "mode" | "name" | "app_protocol" => notes.warn(field.refusal("it has no effect on one device")),
            _ => {
                return Err(field
                    .unknown("it is not a field of a port: write target, published, host_ip and protocol"));
            }
        }
    }
    if !has_target {
        return Err(at.refusal("it has no target: write the container's port as target"));
    }
    Ok(entry)
}

fn protocol(at: &At<'_>, word: &str) -> Result<Protocol, Refusal> {
    match word.to_ascii_lowercase().as_str() {
        "tcp" => Ok(Protocol::Tcp),
        "udp" => Ok(Protocol::Udp),
        _ => Err(at.wrong("a port with /tcp or /udp")),
    }
}

/// Reads an address without brackets. An empty one means all.
fn address(at: &At<'_>, text: &str) -> Result<String, Refusal> {
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
    let is_bracketed = bare.is_some();
    let bare = bare.unwrap_or(text);
    if bare.is_empty() && !is_bracketed {
        return Ok(String::new());
    }
    match bare.parse::<IpAddr>() {
        Ok(ip) if ip.is_ipv6() || !is_bracketed => Ok(ip.to_string()),
        Ok(_) | Err(_) => Err(at.wrong("an address of the host before the ports, IPv6 in brackets")),
    }
}

fn range(at: &At<'_>, text: &str) -> Result<(u16, u16), Refusal> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let number = |part: &str| digits(part).filter(|_| !part.is_empty()).ok_or_else(|| at.wrong(SHORT));
    let (first, last) = (one(at, number(first)?)?, one(at, number(last)?)?);
    if last < first {
        return Err(
            at.refusal(format_args!("the range {first}-{last} runs backwards: put the lower port first"))
        );
    }
    Ok((first, last))
}

fn one(at: &At<'_>, port: u64) -> Result<u16, Refusal> {
    match u16::try_from(port) {
        Ok(port) if port > 0 => Ok(port),
        Ok(_) | Err(_) => Err(at.wrong("ports from 1 to 65535")),
    }
}

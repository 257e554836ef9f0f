//! Computes the hash that identifies a container's configuration: from what the author wrote, never from what we inject.
//!
//! The input is a canonical JSON: keys sorted, lists in a fixed order, and without values that have their default. So a
//! field that is added to [`ServiceSpec`] later changes no present hash. Changing the JSON of an existing spec would
//! restart every container of every device. The literals in the tests guard against that; if it must ever happen,
//! `VERSION` goes up.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::model::{
    Healthcheck, Mount, MountSource, NetworkAttachment, NetworkMode, NetworkName, NetworkSpec, PortMapping,
    Probe, Protocol, RestartPolicy, ServiceName, ServiceSpec, SpecHash, VolumeName, VolumeSpec,
};

/// Version of the hash, which is written before its digits.
const VERSION: u32 = 1;

/// Computes the hash of a service. It includes the configs of the networks and volumes that the service uses, and the
/// hashes of the services whose namespaces it joins: if one of them is replaced, its own container must be, too.
///
/// Not part of it: the hash itself, the cloud's numeric ids, the registry and
/// tag of an image that has a digest, and `is_running`: stopping a service does
/// not make it another one.
#[must_use]
pub fn of_service(
    spec: &ServiceSpec,
    networks: &BTreeMap<NetworkName, NetworkSpec>,
    volumes: &BTreeMap<VolumeName, VolumeSpec>,
    others: &BTreeMap<ServiceName, SpecHash>,
) -> SpecHash {
    let mut fields = Fields::default();
    fields.text("image", &spec.image.identity());
    fields.put("command", spec.command.as_deref().map(list));
    fields.put("entrypoint", spec.entrypoint.as_deref().map(list));
    fields.texts("environment", &spec.environment);
    fields.texts("labels", &spec.labels);
    fields.sorted("ports", spec.ports.iter().map(port));
    fields.sorted("mounts", spec.mounts.iter().map(mount));
    fields.texts("tmpfs", &spec.tmpfs);
    network_mode(&mut fields, &spec.network_mode, networks);
    fields.put("volumes", used_volumes(spec, volumes));
    fields.put("restart", restart(spec.restart));
    fields.optional("user", spec.user.as_deref());
    fields.optional("working_dir", spec.working_dir.as_deref());
    fields.optional("hostname", spec.hostname.as_deref());
    fields.put("healthcheck", spec.healthcheck.as_ref().map(healthcheck));
    fields.put("stop_grace", spec.stop_grace.map(nanos));
    fields.optional("stop_signal", spec.stop_signal.as_deref());
    fields.put("memory_limit", spec.memory_limit.map(Value::from));
    fields.sorted("cap_add", spec.cap_add.iter().map(|cap| Value::from(cap.as_str())));
    fields.sorted("cap_drop", spec.cap_drop.iter().map(|cap| Value::from(cap.as_str())));
    fields.sorted(
        "devices",
        spec.devices
            .iter()
            .map(|device| list(&[&device.host_path, &device.container_path, &device.permissions])),
    );
    fields.flag("privileged", spec.is_privileged);
    fields.flag("read_only", spec.is_read_only);
    fields.put("init", spec.has_init.map(Value::from));
    fields.flag("tty", spec.has_tty);
    let ulimits = spec.ulimits.iter();
    fields.put(
        "ulimits",
        object(ulimits.map(|(name, limit)| {
            (name.as_str(), Value::from(vec![Value::from(limit.soft), Value::from(limit.hard)]))
        })),
    );
    fields.sorted("extra_hosts", spec.extra_hosts.iter().map(|host| Value::from(host.as_str())));
    fields.put("limits", serialised(&spec.limits));
    fields.put("isolation", serialised(&spec.isolation));
    fields.put("resolver", serialised(&spec.resolver));
    fields.put("logging", spec.logging.as_ref().and_then(serialised));
    fields.texts("annotations", &spec.annotations);
    fields.flag("stdin", spec.has_stdin);
    fields.sorted("files", spec.files.iter().filter_map(|file| serde_json::to_value(file).ok()));
    let joined =
        spec.joins().filter_map(|(_, name)| Some((name.as_str(), others.get(name)?.as_str().into())));
    fields.put("joined", object(joined));
    SpecHash::from_sha256(VERSION, sha256(&Value::Object(fields.map)))
}

/// Returns the first eight hex digits of the hash of a network's config; `None` if it has none.
#[must_use]
pub fn of_network(spec: &NetworkSpec) -> Option<String> {
    let config = Value::Object(network_config(spec));
    let has_config = config.as_object().is_some_and(|map| !map.is_empty());
    has_config.then(|| sha256(&config).iter().take(4).map(|byte| format!("{byte:02x}")).collect())
}

/// What leaves its defaults out by itself; `None` when nothing is left.
fn serialised(part: &impl serde::Serialize) -> Option<Value> {
    let value = serde_json::to_value(part).ok()?;
    value.as_object().is_some_and(|map| !map.is_empty()).then_some(value)
}

/// A JSON object whose defaults are left out.
#[derive(Default)]
struct Fields {
    map: Map<String, Value>,
}

impl Fields {
    fn put(&mut self, key: &str, value: Option<Value>) {
        self.map.extend(value.map(|value| (key.to_owned(), value)));
    }

    fn text(&mut self, key: &str, text: &str) {
        self.put(key, (!text.is_empty()).then(|| Value::from(text)));
    }

    /// Unlike [`Fields::text`], an empty text is not an absent one.
    fn optional(&mut self, key: &str, text: Option<&str>) {
        self.put(key, text.map(Value::from));
    }

    fn flag(&mut self, key: &str, flag: bool) {
        self.put(key, flag.then_some(Value::Bool(true)));
    }

    fn texts(&mut self, key: &str, texts: &BTreeMap<String, String>) {
        self.put(key, object(texts.iter().map(|(name, text)| (name.as_str(), Value::from(text.as_str())))));
    }

    /// A list whose order has no meaning.
    fn sorted(&mut self, key: &str, values: impl Iterator<Item = Value>) {
        let sorted: BTreeMap<String, Value> = values.map(|value| (canonical(&value), value)).collect();
        let is_empty = sorted.is_empty();
        self.put(key, (!is_empty).then(|| sorted.into_values().collect()));
    }
}

fn object<'k>(members: impl Iterator<Item = (&'k str, Value)>) -> Option<Value> {
    let map: Map<String, Value> = members.map(|(key, value)| (key.to_owned(), value)).collect();
    (!map.is_empty()).then_some(Value::Object(map))
}

fn list<T: AsRef<str>>(texts: &[T]) -> Value {
    texts.iter().map(|text| Value::from(text.as_ref())).collect()
}

fn mount(mount: &Mount) -> Value {
    let (kind, name) = match &mount.source {
        MountSource::Volume(name) => ("volume", name.as_str()),
        MountSource::Anonymous => ("anonymous", ""),
        MountSource::Host(path) => ("host", path.as_str()),
        MountSource::EngineSocket => ("engine-socket", ""),
    };
    let is_read_only = if mount.is_read_only { "ro" } else { "rw" };
    let texts = [kind, name, &mount.target, is_read_only].into_iter().map(Value::from);
    texts.chain(serialised(&mount.options)).collect()
}

fn port(port: &PortMapping) -> Value {
    let host = port.host_port.map(|port| port.to_string()).unwrap_or_default();
    let protocol = match port.protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    };
    list(&[&port.host_ip, host.as_str(), &port.container_port.to_string(), protocol])
}

/// How the service is on the network, with the configs of the networks it is on.
fn network_mode(fields: &mut Fields, mode: &NetworkMode, networks: &BTreeMap<NetworkName, NetworkSpec>) {
    let attachments = match mode {
        NetworkMode::Host => return fields.text("network_mode", "host"),
        NetworkMode::None => return fields.text("network_mode", "none"),
        NetworkMode::Bridge => return fields.text("network_mode", "bridge"),
        NetworkMode::Service(name) => return fields.text("network_mode", &format!("service:{name}")),
        NetworkMode::Networks(attachments) => attachments,
    };
    let attached = |(name, attachment): (&NetworkName, &NetworkAttachment)| {
        let mut on = Fields::default();
        on.sorted("aliases", attachment.aliases.iter().map(|alias| Value::from(alias.as_str())));
        on.optional("ipv4_address", attachment.ipv4_address.as_deref());
        on.optional("ipv6_address", attachment.ipv6_address.as_deref());
        on.sorted("link_local_ips", attachment.link_local_ips.iter().map(|ip| Value::from(ip.as_str())));
        on.optional("mac_address", attachment.mac_address.as_deref());
        on.put("priority", (attachment.priority != 0).then(|| attachment.priority.into()));
        let gateway_priority = attachment.gateway_priority;
        on.put("gw_priority", (gateway_priority != 0).then(|| gateway_priority.into()));
        on.texts("driver_opts", &attachment.driver_opts);
        let config = networks.get(name).map(network_config).unwrap_or_default();
        on.put("config", (!config.is_empty()).then_some(Value::Object(config)));
        (name.to_string(), Value::Object(on.map))
    };
    let map: Map<String, Value> = attachments.iter().map(attached).collect();
    // the usual case, alone on `default` and without any config, is the one left out
    let is_usual = map.len() == 1 && map.get("default") == Some(&Value::Object(Map::new()));
    fields.put("networks", (!is_usual).then_some(Value::Object(map)));
}

fn network_config(spec: &NetworkSpec) -> Map<String, Value> {
    let mut fields = Fields::default();
    fields.text("driver", &spec.driver);
    fields.texts("driver_opts", &spec.driver_opts);
    fields.texts("labels", &spec.labels);
    fields.flag("internal", spec.is_internal);
    fields.flag("ipv6", spec.has_ipv6);
    let part = |text: &Option<String>| text.clone().unwrap_or_default();
    fields.sorted(
        "subnets",
        spec.subnets.iter().map(|subnet| {
            let texts = [part(&subnet.subnet), part(&subnet.gateway), part(&subnet.ip_range)];
            texts.into_iter().map(Value::from).chain(serialised(&subnet.aux_addresses)).collect()
        }),
    );
    fields.text("ipam_driver", &spec.ipam_driver);
    fields.texts("ipam_options", &spec.ipam_options);
    fields.map
}

/// The configs of the volumes that the service mounts, where they have any.
fn used_volumes(spec: &ServiceSpec, volumes: &BTreeMap<VolumeName, VolumeSpec>) -> Option<Value> {
    let used: BTreeSet<&VolumeName> = spec
        .mounts
        .iter()
        .filter_map(|mount| match &mount.source {
            MountSource::Volume(name) => Some(name),
            MountSource::Anonymous | MountSource::Host(_) | MountSource::EngineSocket => None,
        })
        .collect();
    let with_config = used.into_iter().filter_map(|name| {
        let volume = volumes.get(name)?;
        let mut fields = Fields::default();
        fields.text("driver", &volume.driver);
        fields.texts("driver_opts", &volume.driver_opts);
        fields.texts("labels", &volume.labels);
        (!fields.map.is_empty()).then(|| (name.as_str(), Value::Object(fields.map)))
    });
    object(with_config)
}

/// `always` is the default.
fn restart(policy: RestartPolicy) -> Option<Value> {
    match policy {
        RestartPolicy::Always => None,
        RestartPolicy::No => Some("no".into()),
        RestartPolicy::UnlessStopped => Some("unless-stopped".into()),
        RestartPolicy::OnFailure { retries } => Some(format!("on-failure:{retries}").into()),
    }
}

fn healthcheck(check: &Healthcheck) -> Value {
    let mut fields = Fields::default();
    fields.put(
        "test",
        match &check.probe {
            Probe::Inherit => None,
            Probe::Disabled => Some(list(&["NONE"])),
            Probe::Command(words) => Some(list(&[&["CMD".to_owned()][..], words].concat())),
            Probe::Shell(line) => Some(list(&["CMD-SHELL", line])),
        },
    );
    fields.put("interval", check.interval.map(nanos));
    fields.put("timeout", check.timeout.map(nanos));
    fields.put("start_period", check.start_period.map(nanos));
    fields.put("start_interval", check.start_interval.map(nanos));
    fields.put("retries", check.retries.map(Value::from));
    Value::Object(fields.map)
}

/// As a text, because a JSON number does not hold every count of nanoseconds.
fn nanos(time: Duration) -> Value {
    Value::from(time.as_nanos().to_string())
}

fn sha256(value: &Value) -> [u8; 32] {
    Sha256::digest(canonical(value).as_bytes()).into()
}

/// JSON without blanks, keys sorted by their bytes, whatever order the map keeps.
fn canonical(value: &Value) -> String {
    match value {
        Value::Object(map) => {
            let sorted: BTreeMap<&String, &Value> = map.iter().collect();
            let member = |(key, value): (&String, &Value)| {
                format!("{}:{}", Value::from(key.as_str()), canonical(value))
            };
            format!("{{{}}}", sorted.into_iter().map(member).collect::<Vec<_>>().join(","))
        }
        Value::Array(items) => {
            format!("[{}]", items.iter().map(canonical).collect::<Vec<_>>().join(","))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.to_string(),
    }
}

#[cfg(test)]
#[path = "spec_hash_tests.rs"]
mod tests;

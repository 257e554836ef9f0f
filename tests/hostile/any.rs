//! Any release, made of bytes: fields and values in which a release can reach for the host, in any combination. The
//! fuzz target `policy` chooses the bytes; a test here lets chance choose some.

use std::collections::BTreeMap;

use cotter::config::{Config, Given};
use cotter::engine::requests;
use cotter::model::{DeviceUuid, Instance, Policy, TargetApp};
use cotter::wire::target_v3;
use serde_json::{Map, Value, json};

use crate::harmless;
#[cfg(test)]
use crate::support::Chance;

const INSTANCE: &str = "any";
const DEVICE: &str = "0123456789abcdef0123456789abcdef";
const IMAGE: &str =
    "127.0.0.1:5000/a/b@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

const SERVICE: &[&str] = &[
    "annotations",
    "blkio_config",
    "cap_add",
    "cap_drop",
    "cgroup",
    "cgroup_parent",
    "command",
    "cpu_rt_period",
    "cpu_rt_runtime",
    "cpuset",
    "depends_on",
    "deploy",
    "device_cgroup_rules",
    "devices",
    "dns",
    "domainname",
    "entrypoint",
    "environment",
    "external_links",
    "extra_hosts",
    "gpus",
    "group_add",
    "healthcheck",
    "hostname",
    "init",
    "ipc",
    "isolation",
    "labels",
    "links",
    "logging",
    "mac_address",
    "mem_limit",
    "network_mode",
    "networks",
    "oom_kill_disable",
    "oom_score_adj",
    "pid",
    "pids_limit",
    "platform",
    "ports",
    "privileged",
    "read_only",
    "restart",
    "runtime",
    "secrets",
    "security_opt",
    "shm_size",
    "stop_signal",
    "storage_opt",
    "sysctls",
    "tmpfs",
    "tty",
    "ulimits",
    "use_api_socket",
    "user",
    "userns_mode",
    "uts",
    "volumes",
    "volumes_from",
    "working_dir",
];

const NETWORK: &[&str] =
    &["driver", "driver_opts", "enable_ipv6", "external", "internal", "ipam", "labels", "name"];

const VOLUME: &[&str] = &["driver", "driver_opts", "external", "labels", "name"];

/// Words, keys and values alike: the same text means other things in other places.
const WORDS: &[&str] = &[
    "",
    "host",
    "HOST",
    "none",
    "private",
    "shareable",
    "bridge",
    "true",
    "false",
    "yes",
    "1",
    "0",
    "-1",
    "-1000",
    "1g",
    "default",
    "other",
    "web",
    "net",
    "data",
    "data:/data",
    "data:/data:ro",
    "data:/data:rshared",
    "/",
    "/:/host",
    "/etc",
    "/etc:/x",
    "/etc:/x:ro,z",
    "/srv/../etc:/x",
    "./x:/x",
    "~/x:/x",
    "/proc/1/root:/x",
    "/dev:/dev",
    "/var/run/docker.sock",
    "/var/run/docker.sock:/s",
    "/run:/run",
    "/sys:/sys",
    "/tmp/balena",
    "/dev/vda",
    "/dev/vda:/dev/x:rwm",
    "/dev/fuse",
    "b *:* rwm",
    "ALL",
    "SYS_ADMIN",
    "cap_sys_admin",
    "NET_ADMIN",
    "MKNOD",
    "seccomp=unconfined",
    "seccomp:unconfined",
    "apparmor=unconfined",
    "label=disable",
    "label:disable",
    "label=type:spc_t",
    "systempaths=unconfined",
    "no-new-privileges",
    "no-new-privileges=false",
    "credentialspec=file://x",
    "runc",
    "io.containerd.runc.v2",
    "kata",
    "nvidia",
    "service:other",
    "container:x",
    "service:web",
    "macvlan",
    "ipvlan",
    "overlay",
    "weave",
    "parent",
    "eth0",
    "br0",
    "com.docker.network.bridge.name",
    "com.docker.network.driver.mtu",
    "com.docker.network.bridge.host_binding_ipv4",
    "1400",
    "driver",
    "options",
    "config",
    "subnet",
    "gateway",
    "10.9.0.0/16",
    "8.8.8.0/24",
    "0.0.0.0/0",
    "fd00::/64",
    "2001:db8::/64",
    "dhcp",
    "local",
    "LOCAL",
    "sshfs",
    "type",
    "device",
    "o",
    "bind",
    "rbind",
    "rw,bind",
    " bind",
    "tmpfs",
    "size=1m",
    "size=1m,uid=0",
    "size=1m,bind",
    "ext4",
    "nfs",
    "cifs",
    "addr=127.0.0.1",
    "lowerdir=/etc:/opt",
    "Type",
    "Device",
    "O",
    "size",
    "source",
    "target",
    "volume",
    "read_only",
    "bind",
    "propagation",
    "rshared",
    "create_host_path",
    "subpath",
    "../..",
    "npipe",
    "cluster",
    "image",
    "permissions",
    "path",
    "rate",
    "device_read_bps",
    "weight_device",
    "weight",
    "journald",
    "syslog",
    "fluentd",
    "json-file",
    "syslog-address",
    "unixgram:///dev/log",
    "max-size",
    "resources",
    "reservations",
    "limits",
    "devices",
    "capabilities",
    "gpu",
    "count",
    "all",
    "memlock",
    "rtprio",
    "nofile",
    "soft",
    "hard",
    "kernel.core_pattern",
    "net.ipv4.ip_forward",
    "kernel.shm_rmid_forced",
    "|/x",
    "io.balena.features.balena-socket",
    "io.balena.features.dbus",
    "io.balena.features.sysfs",
    "io.balena.features.kernel-modules",
    "io.balena.features.gpu",
    "io.balena.features.journal-logs",
    "io.resin.features.balena-socket",
    "io.cotter.joins",
    "io.cotter.instance",
    "io.cotter.app",
    "IO.COTTER.SPEC",
    "test",
    "CMD",
    "a:b",
    "h:host-gateway",
    "80:80",
    "[::]:80:80/udp",
    "mode",
    "published",
    "protocol",
];

/// Bytes, one choice after the other; zeros when they have ended.
struct Choices<'a>(&'a [u8]);

impl Choices<'_> {
    fn below(&mut self, bound: usize) -> usize {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        usize::from(*first) % bound
    }

    fn word(&mut self) -> String {
        WORDS[self.below(WORDS.len())].to_owned()
    }

    fn value(&mut self, depth: usize) -> Value {
        match self.below(if depth == 0 { 5 } else { 8 }) {
            0 | 1 => self.word().into(),
            2 => json!(self.below(2) == 1),
            3 => json!(self.below(256) as i64 - 128),
            4 => Value::Null,
            5 | 6 => (0..=self.below(3)).map(|_| self.value(depth - 1)).collect(),
            _ => Value::Object((0..=self.below(4)).map(|_| (self.word(), self.value(depth - 1))).collect()),
        }
    }

    fn fields(&mut self, names: &[&str]) -> Map<String, Value> {
        let count = self.below(4);
        (0..count).map(|_| (names[self.below(names.len())].to_owned(), self.value(3))).collect()
    }
}

/// The release that some bytes stand for, as a cloud sends it.
pub fn release(bytes: &[u8]) -> Value {
    let mut choices = Choices(bytes);
    let service = |choices: &mut Choices<'_>| {
        let labels =
            if choices.below(4) == 0 { json!({ choices.word(): choices.word() }) } else { json!({}) };
        json!({ "id": 1, "image_id": 1, "image": IMAGE, "environment": {}, "labels": labels,
            "composition": choices.fields(SERVICE) })
    };
    let mut web = service(&mut choices);
    let networks = json!({ "net": choices.fields(NETWORK) });
    let volumes = json!({ "data": choices.fields(VOLUME) });
    // What is declared is also used.
    if web["composition"]["volumes"].is_null() {
        web["composition"]["volumes"] = json!(["data:/data"]);
    }
    let services = json!({ "web": web, "other": service(&mut choices) });
    json!({ "id": 1, "services": services, "networks": networks, "volumes": volumes })
}

/// An owner who says "no" to every switch that the shipped settings have.
pub fn owner_who_allows_nothing() -> Policy {
    let shipped = include_str!("../../config/agent.toml");
    let (_, policy) = shipped.split_once("[policy]\n").expect("the settings have a policy");
    let lines = policy.split("\n[").next().into_iter().flat_map(str::lines);
    let switches = lines.filter_map(|line| line.trim_start_matches("# ").split_once(" = \"yes\""));
    let variable =
        |(switch, _): (&str, &str)| (format!("COTTER_POLICY_{}", switch.to_uppercase()), "no".to_owned());
    let environment: BTreeMap<_, _> = switches.map(variable).collect();
    assert!(environment.len() >= 7, "{environment:?}");
    let given = Given { file: Some("/dev/null".into()), ..Given::default() };
    Config::load(&given, &environment).expect("settings").policy
}

/// What of the host a release reaches under this policy, in words; `None` when it is refused.
pub fn reached(release: &Value, policy: &Policy) -> Option<Vec<String>> {
    let apps = json!({ DEVICE: { "id": 1, "name": "a", "releases": { "abc": release } } });
    let body = json!({ DEVICE: { "name": "d", "apps": apps } }).to_string();
    let device = DeviceUuid::parse(DEVICE).expect("a uuid");
    let target = target_v3::parse(body.as_bytes(), &device, policy).ok()?;
    let app = target.apps.into_values().next()?;
    let TargetApp::Wanted(wanted) = app else { return None };
    let asked =
        requests(&Instance::parse(INSTANCE).expect("an instance"), &wanted.app, wanted.release.as_ref()?);
    let mut found = Vec::new();
    let all = |kind: &str| asked[kind].as_array().cloned().unwrap_or_default();
    for container in all("containers") {
        found.extend(harmless::host_config(&container["HostConfig"], "runc"));
        found.extend(foreign_labels(&container, &["spec", "app", "service", "release", "instance", "grace"]));
    }
    for network in all("networks") {
        found.extend(harmless::network(&network));
        found.extend(foreign_labels(&network, &["instance", "app", "network", "network-config"]));
    }
    for volume in all("volumes") {
        found.extend(harmless::volume(volume["Driver"].as_str().unwrap_or_default(), &volume["DriverOpts"]));
        found.extend(foreign_labels(&volume, &["instance", "app", "volume"]));
    }
    Some(found)
}

/// Labels of ours that are not those that we give, or that an author has written over.
fn foreign_labels(body: &Value, own: &[&str]) -> Vec<String> {
    let labels = body["Labels"].as_object().into_iter().flatten();
    let ours = labels.filter_map(|(name, value)| {
        let rest = name.strip_prefix("io.cotter.")?;
        // By these an author speaks to the agent.
        let is_authors = rest.starts_with("trial.") || rest.starts_with("update.");
        let is_fine = match rest {
            "instance" => value == INSTANCE,
            "app" => value == DEVICE,
            // Empty, they take the place of a label of the image.
            "joins" | "introduced" => value == "",
            rest => is_authors || own.contains(&rest),
        };
        (!is_fine).then(|| format!("label {name}={value}"))
    });
    ours.collect()
}

/// Some of what the fuzzer tries, with the compiler that everybody has.
#[cfg(test)]
#[test]
fn no_release_by_chance_reaches_the_host_where_the_owner_allows_nothing() {
    let policy = owner_who_allows_nothing();
    let (mut chance, seed) = Chance::seeded("COTTER_RELEASE_SEED");
    let (mut accepted, mut refused) = (0, 0);
    for _ in 0..20_000 {
        let bytes: Vec<u8> = (0..64).map(|_| u8::try_from(chance.below(256)).expect("a byte")).collect();
        let release = release(&bytes);
        match reached(&release, &policy) {
            None => refused += 1,
            Some(found) if found.is_empty() => accepted += 1,
            Some(found) => panic!("COTTER_RELEASE_SEED={seed}: {}\n{release:#}", found.join("\n")),
        }
    }
    assert!(accepted > 100 && refused > 100, "{accepted} were accepted and {refused} refused");
}

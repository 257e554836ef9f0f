//! `docs/compose.md` says of every field what the code does with it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use serde_json::{Value, json};

use super::fields::{HARMLESS, HONOURED, REFUSED};
use super::*;
use crate::model::Policy;
use crate::wire::policy;

/// The fields of a part of the Compose Specification, e.g. of `service`.
fn fields_of(part: &str) -> BTreeSet<String> {
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/compose_fields.txt")).unwrap();
    let field = |line: &str| Some(line.strip_prefix(part)?.strip_prefix('.')?.to_owned());
    let fields = text.lines().filter_map(field).filter(|field| !field.contains('.'));
    fields.collect()
}

/// The rows of a section: field to verdict.
fn table(section: &str) -> BTreeMap<String, String> {
    column(section, 2)
}

/// A column of a section's table, by field.
fn column(section: &str, n: usize) -> BTreeMap<String, String> {
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/compose.md")).unwrap();
    let (_, after) = text.split_once(&format!("\n## {section}\n")).unwrap();
    let section = after.split("\n## ").next().unwrap().split("\n### ").next().unwrap();
    let mut rows = BTreeMap::new();
    for line in section.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        let twice = rows.insert(cells[1].trim_matches('`').to_owned(), cells[n].to_owned());
        assert_eq!(twice, None, "{line}");
    }
    rows
}

fn assert_has_all(rows: &BTreeMap<String, String>, part: &str) {
    let fields = fields_of(part);
    assert!(fields.len() >= 5, "{part}: {fields:?}");
    let missing: Vec<_> = fields.iter().filter(|field| !rows.contains_key(*field)).collect();
    assert!(missing.is_empty(), "docs/compose.md has no row for these fields of {part}: {missing:?}");
}

#[test]
fn every_field_of_a_project_and_of_a_build_is_documented() {
    assert_has_all(&table("Top level"), "project");
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/compose.md")).unwrap();
    let (_, after) = text.split_once("\n### Building images\n").unwrap();
    let section = after.split("\n## ").next().unwrap();
    let missing: Vec<_> = fields_of("service.build")
        .into_iter()
        .filter(|field| !section.contains(&format!("`{field}`")))
        .collect();
    assert!(missing.is_empty(), "docs/compose.md, \"Building images\", does not name {missing:?}");
}

fn verdict(notes: &Notes, path: &str) -> &'static str {
    let has_note = |list: &[Refusal]| list.iter().any(|note| note.path.starts_with(path));
    if has_note(&notes.refusals) {
        "refused"
    } else if has_note(&notes.warnings) {
        "warned"
    } else {
        "honoured"
    }
}

#[test]
fn every_field_of_a_service_has_its_row() {
    let rows = table("Services");
    assert_has_all(&rows, "service");
    let mut known = BTreeMap::new();
    known.extend(HONOURED.iter().map(|field| ((*field).to_owned(), "honoured".to_owned())));
    known.extend(HARMLESS.iter().map(|(field, _)| ((*field).to_owned(), "warned".to_owned())));
    known.extend(REFUSED.iter().map(|(field, _)| ((*field).to_owned(), "refused".to_owned())));
    assert_eq!(known.len(), HONOURED.len() + HARMLESS.len() + REFUSED.len(), "a field stands in two lists");
    assert_eq!(rows, known);
}

/// A value for each field that `service` reads.
const VALUES: &str = r#"{
        "annotations": {"a": "b"}, "blkio_config": {"weight": 300}, "cap_add": ["NET_ADMIN"], "cap_drop": ["ALL"], "cgroup": "private",
        "cgroup_parent": "a", "command": "a", "configs": [{"target": "/a", "content": "a"}], "cpu_period": 2000, "cpu_quota": 2000, "cpu_rt_period": 2000,
        "cpu_rt_runtime": 2000, "cpu_shares": 5, "cpus": 1, "cpuset": "0", "depends_on": ["db"],
        "deploy": {"resources": {"limits": {"pids": 5}}}, "device_cgroup_rules": ["c 1:* r"], "devices": ["/dev/a"],
        "dns": "1.1.1.1", "dns_opt": ["a"], "dns_search": "a", "domainname": "a", "entrypoint": "a",
        "environment": {"A": "b"}, "extra_hosts": ["a=1.1.1.1"], "gpus": "all", "group_add": ["a"],
        "healthcheck": {"test": "a"}, "hostname": "a", "init": true, "ipc": "host", "labels": {"a": "b"},
        "logging": {"driver": "none"}, "mac_address": "02:42:ac:11:65:43", "mem_limit": "64m",
        "mem_reservation": "64m", "mem_swappiness": 1, "memswap_limit": -1, "network_mode": "host",
        "networks": ["a"], "oom_kill_disable": true, "oom_score_adj": 1, "pid": "host", "pids_limit": 5, "platform": "linux/arm64",
        "ports": ["80:80"], "privileged": true, "read_only": true, "restart": "no", "runtime": "a",
        "security_opt": ["no-new-privileges"], "shm_size": "1m", "stdin_open": true, "stop_grace_period": "1s",
        "stop_signal": "INT", "sysctls": {"net.a": 1}, "tmpfs": "/a", "tty": true, "ulimits": {"core": 0},
        "user": "a", "userns_mode": "host", "uts": "host", "volumes": ["a:/a"], "working_dir": "/a"
    }"#;

/// None of them may be passed over in silence.
#[test]
fn what_is_called_honoured_changes_the_service() {
    let values: Value = serde_json::from_str(VALUES).unwrap();
    let read_web = |composition: Value| {
        let service = |c: Value| json!({"id": 1, "image_id": 2, "image": "a", "composition": c});
        let services = json!({"web": service(composition), "db": service(json!({}))});
        let state = serde_json::from_value(json!({"id": 1, "services": services})).unwrap();
        let (contents, notes) = read(&state, Form::Target);
        (contents.services[&ServiceName::parse("web").unwrap()].clone(), notes)
    };
    let (bare, _) = read_web(json!({}));
    for field in HONOURED.iter().filter(|field| !matches!(**field, "image" | "links")) {
        let value = values.get(field).unwrap_or_else(|| panic!("no value for {field}"));
        let mut composition = json!({*field: value});
        if *field == "memswap_limit" {
            composition["mem_limit"] = json!("64m");
        }
        let (spec, notes) = read_web(composition);
        assert_eq!(notes, Notes::default(), "{field}");
        assert!(spec != bare, "{field} changes nothing");
        let says_when_or_which = matches!(*field, "depends_on" | "platform");
        assert!(spec.hash != bare.hash || says_when_or_which, "{field} changes no hash");
    }
}

#[test]
fn every_field_of_a_network_and_of_a_volume_has_its_row() {
    let values = json!({
        "attachable": true, "driver": "macvlan", "driver_opts": {"a": "b"}, "enable_ipv4": false, "enable_ipv6": true,
        "external": true, "internal": true, "ipam": {"driver": "a"}, "labels": {"a": "b"}, "name": "a",
    });
    for (title, section, fields) in [("Networks", "networks", "network"), ("Volumes", "volumes", "volume")] {
        let rows = table(title);
        assert_has_all(&rows, fields);
        for (field, row) in rows {
            let given = json!({"id": 1, section: {"n": {&field: values[&field]}}});
            let (contents, notes) = read(&serde_json::from_value(given).unwrap(), Form::Target);
            let path = format!("{section}.n.{field}");
            assert_eq!(verdict(&notes, &path), row, "{path}");
            let plain = json!({"id": 1, section: {"n": {}}});
            let (plain, _) = read(&serde_json::from_value(plain).unwrap(), Form::Target);
            assert_eq!(contents != plain, row == "honoured", "{path}");
        }
    }
}

/// The settings by which an owner would allow what `release` asks for, when all of them say no.
fn settings_for(release: &Value) -> BTreeSet<String> {
    let (contents, notes) = read(&serde_json::from_value(release.clone()).unwrap(), Form::File);
    assert_eq!(notes.refusals, [], "{release}");
    let found = policy::violations(&contents, Form::File, &Policy::strict());
    let setting = |refusal: &Refusal| {
        let (_, after) = refusal.why.split_once("policy.").expect("a setting");
        after.split(|c: char| !c.is_ascii_lowercase() && c != '_').next().unwrap().to_owned()
    };
    found.iter().map(setting).collect()
}

/// What reaches furthest, for each field that does not reach it with its value above.
const FURTHEST: &str = r#"{
    "blkio_config": [{"device_write_iops": [{"path": "/dev/a", "rate": 1}]}],
    "cgroup": ["host"], "network_mode": ["bridge"], "oom_score_adj": [-1], "security_opt": [["label:disable"]],
    "deploy": [{"resources": {"reservations": {"devices": [{"driver": "cdi", "device_ids": ["a"]}]}}}],
    "labels": [{"io.balena.features.dbus": "1"}, {"io.balena.features.balena-socket": "1"}, {"io.balena.features.gpu": "1"},
        {"io.balena.features.supervisor-api": "1"}, {"io.balena.features.balena-api": "1"}],
    "logging": [{"driver": "syslog"}, {"options": {"path": "/a"}}],
    "networks": [{"a": {"driver_opts": {"a": "b"}}}],
    "ulimits": [{"rtprio": 1}],
    "volumes": [["/a:/a"], ["/run/docker.sock:/a"], ["/a:/a:rshared"]],
    "command": ["$(cat /etc/shadow)"], "cpu_shares": [262144], "cpuset": ["0-8191"], "dns": ["127.0.0.1"],
    "extra_hosts": [["a=host-gateway"]], "group_add": [["0", "docker"]], "hostname": ["localhost"],
    "ports": [["0.0.0.0:22:22"]], "pids_limit": [-1], "stop_signal": ["KILL"], "user": ["root"],
    "sysctls": [{"net.netfilter.nf_conntrack_max": 1}, {"kernel.shmmax": "1", "net.ipv4.ip_forward": "1", "fs.mqueue.msg_max": "1"}],
    "tmpfs": ["/a:suid,dev,exec"], "shm_size": ["1t"], "cap_drop": [["CHOWN"]], "healthcheck": [{"test": ["CMD", "/a"]}]
}"#;

fn settings_named(cell: &str) -> BTreeSet<String> {
    match cell {
        "–" | "a share" => BTreeSet::new(),
        named => named.split(", ").map(|word| word.trim_matches('`').to_owned()).collect(),
    }
}

#[test]
fn every_field_of_a_service_tells_what_of_the_host_it_reaches() {
    let values: Value = serde_json::from_str(VALUES).unwrap();
    let furthest: Value = serde_json::from_str(FURTHEST).unwrap();
    for (field, cell) in column("Services", 3) {
        let mut reached = BTreeSet::new();
        let more = furthest.get(&field).and_then(Value::as_array).cloned().unwrap_or_default();
        for value in values.get(&field).into_iter().chain(&more) {
            let mut composition = json!({&field: value});
            if field == "memswap_limit" {
                composition["mem_limit"] = json!("64m");
            }
            let service =
                |composition| json!({"id": 1, "image_id": 2, "image": "a", "composition": composition});
            let services = json!({"web": service(composition), "db": service(json!({}))});
            let declared = json!({"a": null});
            let release = json!({"id": 1, "services": services, "networks": declared, "volumes": declared});
            reached.extend(settings_for(&release));
        }
        assert_eq!(reached, settings_named(&cell), "{field}");
    }
}

#[test]
fn every_field_of_a_network_and_of_a_volume_tells_what_of_the_host_it_reaches() {
    let values = json!({
        "networks": {
            "driver": ["macvlan", "ipvlan", "weave"], "driver_opts": [{"com.docker.network.bridge.name": "br0"}, {"parent": "a"}],
            "ipam": [{"driver": "dhcp"}, {"options": {"a": "b"}}, {"config": [{"subnet": "8.8.8.0/24"}]}],
            "labels": [{"a": "b"}], "internal": [true, false], "enable_ipv6": [true], "attachable": [true],
        },
        "volumes": {
            "driver": ["rclone"], "labels": [{"a": "b"}],
            "driver_opts": [
                {"type": "overlay", "device": "overlay", "o": "lowerdir=/etc:/opt"}, {"type": "ext4", "device": "/dev/a"},
                {"type": "none", "device": "/etc", "o": "bind"}, {"type": "none", "device": "/run", "o": "rbind"},
                {"type": "none", "device": "/a", "o": "bind,rshared"}, {"type": "nfs", "device": ":/", "o": "addr=10.0.0.1"},
            ],
        },
    });
    for (title, section) in [("Networks", "networks"), ("Volumes", "volumes")] {
        for (field, cell) in column(title, 3) {
            let mut reached = BTreeSet::new();
            for value in values[section].get(&field).and_then(Value::as_array).into_iter().flatten() {
                reached.extend(settings_for(&json!({"id": 1, section: {"n": {&field: value}}})));
            }
            assert_eq!(reached, settings_named(&cell), "{section}.{field}");
        }
    }
}

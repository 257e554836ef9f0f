//! A policy that allows nothing, and any release: of what is accepted, the engine is asked for nothing of the host.
//!
//! Releases are made by chance, of harmless and of hostile fields. Those that are accepted are created with an engine that
//! only writes down what it is asked for, and each word of its requests is held against lists that stand here by
//! themselves: what they do not know is wrong.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cotter::engine::{Docker, DockerSettings, NewContainer, Operate};
use cotter::model::{
    App, AppId, ContainerId, DeviceUuid, Instance, Introduction, Policy, Release, TargetApp, WantedApp,
};
use cotter::wire::target_v3;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use serde_json::{Map, Value, json};

const DEVICE: &str = "0123456789abcdef0123456789abcdef";
const SERVICES: &str = "/run/cotter/services/";

type Requests = Arc<Mutex<Vec<(String, Value)>>>;

/// An engine that has nothing, does nothing, and says yes to all.
fn engine(socket: &Path) -> Requests {
    let listener = UnixListener::bind(socket).unwrap();
    let requests = Requests::default();
    let heard = Arc::clone(&requests);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, heard) = (stream.unwrap(), Arc::clone(&heard));
            std::thread::spawn(move || serve(&stream, &heard));
        }
    });
    requests
}

fn serve(stream: &UnixStream, requests: &Requests) {
    let (mut reader, mut writer) = (BufReader::new(stream), stream);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        let call = line.split(' ').nth(1).unwrap().to_owned();
        let mut length = 0;
        loop {
            line.clear();
            reader.read_line(&mut line).unwrap();
            if line.trim().is_empty() {
                break;
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        let (status, answer) = answer(&call);
        requests.lock().unwrap().push((call, serde_json::from_slice(&body).unwrap_or_default()));
        let answer = answer.to_string();
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            answer.len()
        );
        writer.write_all((head + &answer).as_bytes()).unwrap();
    }
}

fn answer(call: &str) -> (&'static str, Value) {
    let id = "a".repeat(64);
    if call.contains("/version") {
        (
            "200 OK",
            json!({"Version": "28.0.0", "ApiVersion": "1.48", "MinAPIVersion": "1.24", "Os": "linux", "Arch": "amd64"}),
        )
    } else if call.contains("/volumes/create") {
        (
            "201 Created",
            json!({"Name": "v", "Driver": "local", "Mountpoint": "/", "Labels": {}, "Scope": "local", "Options": {}}),
        )
    } else if call.contains("/create") {
        ("201 Created", json!({"Id": id, "Warning": "", "Warnings": []}))
    } else if call.contains("/networks?") {
        ("200 OK", json!([]))
    } else {
        ("200 OK", json!({}))
    }
}

/// Values of a service's fields: some harmless, most not.
const FIELDS: &[(&str, &[&str])] = &[
    ("annotations", &[r#"{"org.systemd.property.DeviceAllow": "[('/dev/sda', 'rwm')]"}"#]),
    ("blkio_config", &[r#"{"weight": 300}"#, r#"{"device_read_bps": [{"path": "/dev/sda", "rate": 1}]}"#]),
    (
        "cap_add",
        &[
            r#"["CHOWN", "NET_BIND_SERVICE"]"#,
            r#"["SYS_ADMIN"]"#,
            r#"["KILL", "ALL"]"#,
            r#"["cap_sys_module"]"#,
        ],
    ),
    ("cap_drop", &[r#"["ALL"]"#]),
    ("cgroup", &[r#""private""#, r#""host""#]),
    ("cgroup_parent", &[r#""/""#]),
    ("command", &[r#""sleep 9""#]),
    ("cpus", &["0.5"]),
    ("cpu_rt_runtime", &["900000"]),
    (
        "deploy",
        &[
            r#"{"resources": {"limits": {"pids": 5}}}"#,
            r#"{"resources": {"reservations": {"devices": [{"driver": "cdi", "device_ids": ["a.b/c=all"]}]}}}"#,
        ],
    ),
    ("device_cgroup_rules", &[r#"["a *:* rwm"]"#]),
    ("devices", &[r#"["/dev/mem"]"#, r#"[{"source": "/dev/sda", "target": "/dev/x"}]"#]),
    ("dns", &[r#"["127.0.0.1"]"#]),
    ("environment", &[r#"{"BALENA_APP_ID": "9", "LD_PRELOAD": "/x"}"#]),
    ("extra_hosts", &[r#"["h=host-gateway"]"#]),
    ("gpus", &[r#""all""#]),
    ("group_add", &[r#"["0"]"#]),
    ("healthcheck", &[r#"{"test": "true"}"#]),
    ("init", &["true"]),
    ("ipc", &[r#""shareable""#, r#""host""#, r#""service:other""#]),
    (
        "labels",
        &[
            r#"{"io.balena.features.dbus": "1"}"#,
            r#"{"io.resin.features.procfs": "true"}"#,
            r#"{"io.balena.features.balena-socket": "on"}"#,
            r#"{"io.balena.features.gpu": "1"}"#,
            r#"{"io.cotter.joins": "evil", "io.cotter.instance": "evil", "io.cotter.more": "evil", "a": "b"}"#,
            r#"["io.cotter.spec=evil", "io.balena.app-id=evil", "io.resin.supervised=evil"]"#,
        ],
    ),
    (
        "logging",
        &[
            r#"{"driver": "json-file", "options": {"max-size": "1m"}}"#,
            r#"{"driver": "none"}"#,
            r#"{"driver": "syslog", "options": {"syslog-address": "unixgram:///dev/log"}}"#,
            r#"{"driver": "journald"}"#,
            r#"{"driver": "json-file", "options": {"path": "/etc/cron.d/x"}}"#,
            r#"{"options": {"max-buffer-size": "9g", "mode": "non-blocking"}}"#,
        ],
    ),
    ("mac_address", &[r#""02:42:ac:11:65:43""#]),
    ("mem_limit", &[r#""64m""#]),
    ("network_mode", &[r#""none""#, r#""host""#, r#""bridge""#, r#""service:other""#, r#""host1""#]),
    (
        "networks",
        &[
            r#"["lan"]"#,
            r#"{"lan": {"aliases": ["host"], "driver_opts": {"com.docker.network.endpoint.ifname": "e0"}}}"#,
            r#"{"lan": {"driver_opts": {"com.docker.network.endpoint.sysctls": "net.ipv4.conf.IFNAME.log_martians=1"}}}"#,
            r#"{"lan": {"driver_opts": {"parent": "eth0"}}}"#,
        ],
    ),
    ("oom_kill_disable", &["true"]),
    ("oom_score_adj", &["-1000", "500"]),
    ("pid", &[r#""host""#, r#""service:other""#]),
    ("pids_limit", &["-1"]),
    ("ports", &[r#"["80:80"]"#]),
    ("privileged", &["true", "false"]),
    ("read_only", &["true"]),
    ("runtime", &[r#""runc""#, r#""nvidia""#, r#""/bin/sh""#, r#""io.containerd.kata.v2""#]),
    (
        "security_opt",
        &[
            r#"["no-new-privileges:true"]"#,
            r#"["no-new-privileges:false"]"#,
            r#"["seccomp=unconfined"]"#,
            r#"["seccomp={}"]"#,
            r#"["apparmor=unconfined"]"#,
            r#"["label:disable"]"#,
            r#"["label=level:s0:c1", "no-new-privileges"]"#,
            r#"["systempaths=unconfined"]"#,
        ],
    ),
    ("stop_signal", &[r#""INT""#]),
    (
        "sysctls",
        &[
            r#"{"net.netfilter.nf_conntrack_max": 1}"#,
            r#"{"net.ipv4.ip_forward": 1}"#,
            r#"{"kernel.shmmax": 1}"#,
        ],
    ),
    ("tmpfs", &[r#"["/t:size=1m,suid"]"#]),
    (
        "ulimits",
        &[
            r#"{"nofile": 9}"#,
            r#"{"rtprio": 99}"#,
            r#"{"nice": {"soft": 0, "hard": 40}}"#,
            r#"{"memlock": -1}"#,
        ],
    ),
    ("user", &[r#""root""#]),
    ("userns_mode", &[r#""host""#]),
    ("uts", &[r#""host""#]),
    (
        "volumes",
        &[
            r#"["v:/v"]"#,
            r#"["v:/v:ro", "/anonymous"]"#,
            r#"["/:/host"]"#,
            r#"["/etc:/etc:ro"]"#,
            r#"["/var/run/docker.sock:/s"]"#,
            r#"[{"type": "bind", "source": "/srv", "target": "/s", "bind": {"create_host_path": false, "propagation": "rshared"}}]"#,
            r#"[{"type": "volume", "source": "v", "target": "/v", "volume": {"subpath": "a/b"}}]"#,
            r#"["/run/dbus:/host/run/dbus"]"#,
        ],
    ),
    ("working_dir", &[r#""/a""#]),
];

/// Parts from which options of volumes and networks are put together.
const KINDS: &[&str] = &[
    "", "none", "bind", "tmpfs", "nfs", "cifs", "overlay", "ext4", "proc", "sysfs", "9p", "TMPFS", "tmpfs ",
];
const PLACES: &[&str] = &[
    "",
    "tmpfs",
    "/",
    "/etc",
    "/dev/vda",
    "overlay",
    ":/x",
    "/srv/../etc",
    "//etc",
    "proc",
    "/var/run/docker.sock",
];
const WORDS: &[&str] = &[
    "bind",
    "rbind",
    " bind",
    "Bind",
    "ro",
    "rw",
    "size=1m",
    "mode=1777",
    "uid=1",
    "lowerdir=/etc:/opt",
    "addr=10.0.0.1",
    "loop",
    "remount",
    "move",
    "rshared",
    "rslave",
    "suid",
    "dev",
    "exec",
    "trans=unix",
    "mpol=bind",
    "x",
    "nosuid",
    "noexec",
];
const VOLUME_DRIVERS: &[&str] = &["", "local", "LOCAL", "local-persist", "nfs"];
const NETWORK_DRIVERS: &[&str] = &["", "bridge", "macvlan", "ipvlan", "Bridge", "weave", "default"];
const NETWORK_OPTIONS: &[&str] = &[
    "com.docker.network.bridge.name",
    "com.docker.network.bridge.enable_icc",
    "com.docker.network.driver.mtu",
    "parent",
    "mtu",
    "com.docker.network.bridge.trusted_host_interfaces",
    "com.docker.network.bridge.gateway_mode_ipv4",
    "interface_name",
    "com.docker.network.bridge.inhibit_ipv4",
    "COM.docker.network.driver.mtu",
    "x",
];
const RANGES: &[&str] = &[
    "10.9.0.0/16",
    "8.8.8.0/24",
    "0.0.0.0/1",
    "192.168.0.0/15",
    "fd00:1::/64",
    "2001:db8::/64",
    "172.31.0.0/24",
];

fn service() -> impl Strategy<Value = Value> {
    let field = (0..FIELDS.len(), any::<prop::sample::Index>());
    let few = prop::collection::vec(field, 0..=3);
    few.prop_map(|chosen| {
        let mut map = Map::new();
        for (n, which) in chosen {
            let (name, values) = FIELDS[n];
            map.insert(name.to_owned(), serde_json::from_str(values[which.index(values.len())]).unwrap());
        }
        map.entry("volumes").or_insert(json!(["v:/v"]));
        if !map.contains_key("network_mode") {
            map.entry("networks").or_insert(json!(["lan"]));
        }
        Value::Object(map)
    })
}

fn pick(from: &'static [&'static str]) -> impl Strategy<Value = &'static str> {
    prop::sample::select(from)
}

fn volume() -> impl Strategy<Value = Value> {
    let words = prop::collection::vec(pick(WORDS), 0..=3);
    let odd = prop::option::weighted(0.1, "[a-z]{1,6}");
    let driver = prop_oneof![4 => Just(""), 1 => pick(VOLUME_DRIVERS)];
    let kind = prop_oneof![Just("tmpfs"), pick(KINDS)];
    (driver, kind, pick(PLACES), words, odd).prop_map(|(driver, kind, place, words, odd)| {
        let words = words.join(",");
        let given = [("type", kind), ("device", place), ("o", words.as_str())];
        let mut options: BTreeMap<String, &str> = BTreeMap::new();
        options
            .extend(given.into_iter().filter(|(_, value)| !value.is_empty()).map(|(k, v)| (k.to_owned(), v)));
        options.extend(odd.map(|key| (key, "/etc")));
        json!({"driver": driver, "driver_opts": options, "labels": {"io.cotter.volume": "evil", "a": "b"}})
    })
}

fn network() -> impl Strategy<Value = Value> {
    let options = prop::collection::vec(pick(NETWORK_OPTIONS), 0..=1);
    let ipam = (prop::option::of(pick(RANGES)), prop::option::weighted(0.1, pick(&["dhcp", "null"])));
    let driver = prop_oneof![4 => Just(""), 1 => pick(NETWORK_DRIVERS)];
    (driver, options, ipam).prop_map(|(driver, options, (range, ipam))| {
        let options: BTreeMap<_, _> = options.into_iter().map(|key| (key, "1")).collect();
        let ranges: Vec<_> = range.into_iter().map(|range| json!({"subnet": range})).collect();
        json!({
            "driver": driver, "driver_opts": options, "labels": {"io.cotter.network": "evil"},
            "ipam": {"driver": ipam.unwrap_or("default"), "config": ranges},
        })
    })
}

/// The half of the releases have a plain volume and a plain network, so that what is asked of services decides.
fn release() -> impl Strategy<Value = Value> {
    let volume = prop_oneof![Just(json!({})), volume()];
    let network = prop_oneof![Just(json!({})), network()];
    (service(), service(), volume, network).prop_map(|(web, other, volume, network)| {
        let service = |composition: Value| json!({"id": 1, "image_id": 1, "image": "r.example/a:1", "composition": composition});
        json!({
            "id": 1,
            "services": {"web": service(web), "other": service(other)},
            "volumes": {"v": volume},
            "networks": {"lan": network},
        })
    })
}

/// The release, if a device whose policy allows nothing accepts it.
fn accepted(release: &Value) -> Option<Release> {
    let body = json!({DEVICE: {"name": "d", "apps": {DEVICE: {"id": 7, "name": "demo", "releases": {"abc": release}}}}});
    let device = DeviceUuid::parse(DEVICE).unwrap();
    let target = target_v3::parse(body.to_string().as_bytes(), &device, &Policy::strict()).unwrap();
    match target.apps.into_values().next().unwrap() {
        TargetApp::Wanted(WantedApp { release, .. }) => release,
        TargetApp::Refused(_) => None,
    }
}

/// What the engine is asked for when the release is created.
fn asked(docker: &Docker, requests: &Requests, release: &Release) -> Vec<(String, Value)> {
    requests.lock().unwrap().clear();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let app = App { id: AppId::parse(DEVICE).unwrap(), number: 7, name: "demo".into() };
    let joined = ContainerId::parse("b".repeat(64)).unwrap();
    let joined = release.services.keys().map(|name| (name.clone(), joined.clone())).collect();
    runtime.block_on(async {
        for (name, spec) in &release.networks {
            docker.create_network(&app, name, spec).await.unwrap();
        }
        for (service, spec) in &release.services {
            let (networks, volumes) = (&release.networks, &release.volumes);
            let release = &release.commit;
            docker
                .create(NewContainer {
                    app: &app,
                    release,
                    service,
                    spec,
                    networks,
                    volumes,
                    joined: &joined,
                    introduction: &Introduction::default(),
                })
                .await
                .unwrap();
        }
    });
    requests.lock().unwrap().clone()
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) | Value::Number(_) => false,
        Value::String(text) => text.is_empty(),
        Value::Array(all) => all.is_empty(),
        Value::Object(all) => all.is_empty(),
    }
}

fn texts(value: &Value) -> Vec<&str> {
    value.as_array().into_iter().flatten().map(|text| text.as_str().unwrap()).collect()
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().into_iter().flatten().map(|(key, _)| key.as_str()).collect()
}

fn all_in<'a>(words: impl IntoIterator<Item = &'a str>, list: &str) -> bool {
    words.into_iter().all(|word| list.split_ascii_whitespace().any(|known| known == word))
}

/// What is wrong with a member of a container's `HostConfig`.
fn is_of_the_host(key: &str, value: &Value) -> bool {
    let text = value.as_str().unwrap_or_default();
    let is_other = |text: &str| text.strip_prefix("container:").is_some_and(|id| id == "b".repeat(64));
    let is_fine = match key {
        // Of the container alone, or a share that all have.
        "PortBindings" | "RestartPolicy" | "Tmpfs" | "Memory" | "MemoryReservation" | "MemorySwap"
        | "MemorySwappiness" | "CapDrop" | "ReadonlyRootfs" | "Init" | "ExtraHosts" | "Dns"
        | "DnsOptions" | "DnsSearch" | "NanoCpus" | "CpuShares" | "CpuPeriod" | "CpuQuota" | "CpusetCpus"
        | "PidsLimit" | "ShmSize" | "BlkioWeight" | "GroupAdd" => true,
        "NetworkMode" => text == "none" || text.starts_with("lab_7_") || is_other(text),
        "Binds" => texts(value).iter().all(|bind| bind.starts_with(SERVICES) && !bind.contains("..")),
        "Mounts" => value.as_array().unwrap().iter().all(|mount| {
            let is_volume = mount["Type"] == "volume" && is_nothing(&mount["BindOptions"]);
            let source = mount["Source"].as_str().unwrap_or_default();
            is_volume
                && (source.is_empty() || source.starts_with("lab_7_"))
                && all_in(keys(&mount["VolumeOptions"]), "NoCopy Subpath")
        }),
        "CapAdd" => all_in(
            texts(value),
            "CHOWN DAC_OVERRIDE FOWNER FSETID KILL NET_BIND_SERVICE SETFCAP SETGID SETPCAP SETUID SYS_CHROOT",
        ),
        "Ulimits" => value
            .as_array()
            .unwrap()
            .iter()
            .all(|limit| !matches!(limit["Name"].as_str().unwrap(), "rtprio" | "nice")),
        "LogConfig" => {
            all_in([value["Type"].as_str().unwrap()], "local json-file none")
                && all_in(keys(&value["Config"]), "max-size max-file compress mode")
        }
        "OomScoreAdj" => value.as_i64().unwrap() >= 0,
        "IpcMode" => matches!(text, "none" | "private" | "shareable") || is_other(text),
        "PidMode" => is_other(text),
        "CgroupnsMode" => text == "private",
        "SecurityOpt" => texts(value) == ["no-new-privileges"],
        "Sysctls" => keys(value).iter().all(|key| matches!(*key, "net.ipv4.ip_forward" | "kernel.shmmax")),
        // Everything else, also what no version of the engine has yet: only when it asks for nothing.
        _ => is_nothing(value),
    };
    !is_fine
}

/// The labels of ours have values of ours, and no other name begins like theirs.
fn labels_are_ours(labels: &Value) -> bool {
    let ours = "io.cotter.instance io.cotter.app io.cotter.service io.cotter.release io.cotter.spec io.cotter.grace \
                io.cotter.joins io.cotter.introduced io.cotter.network io.cotter.network-config io.cotter.volume";
    let labels = labels.as_object().unwrap();
    let named = labels.keys().filter(|name| name.starts_with("io.cotter."));
    all_in(named.map(String::as_str), ours)
        && labels.values().all(|value| value != "evil")
        && labels["io.cotter.instance"] == "lab"
}

/// What of a request reaches the host.
fn reached((call, body): &(String, Value)) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut check = |is_fine: bool, what: &str| {
        if !is_fine {
            wrong.push(format!("{what} of {call}: {body}"));
        }
    };
    if call.contains("/containers/create") {
        let known = "Image Cmd Entrypoint Env Labels User WorkingDir Hostname Domainname OpenStdin Tty Healthcheck StopSignal \
                     StopTimeout ExposedPorts HostConfig NetworkingConfig";
        check(all_in(keys(body), known), "a member");
        for (key, value) in body["HostConfig"].as_object().unwrap() {
            check(!is_of_the_host(key, value), key);
        }
        check(labels_are_ours(&body["Labels"]), "a label");
        for end in
            body["NetworkingConfig"]["EndpointsConfig"].as_object().into_iter().flatten().map(|(_, end)| end)
        {
            check(all_in(keys(&end["DriverOpts"]), "com.docker.network.endpoint.ifname"), "an end");
        }
    } else if call.contains("/networks/create") {
        let options = "com.docker.network.bridge.enable_icc com.docker.network.driver.mtu mtu";
        check(body["Driver"] == "bridge", "the driver");
        check(all_in(keys(&body["Options"]), options), "an option");
        check(is_nothing(&body["IPAM"]["Driver"]), "the addresses");
        for range in body["IPAM"]["Config"].as_array().into_iter().flatten() {
            check(
                all_in([range["Subnet"].as_str().unwrap()], "10.9.0.0/16 fd00:1::/64 172.31.0.0/24"),
                "a range",
            );
        }
        check(labels_are_ours(&body["Labels"]), "a label");
    } else if call.contains("/volumes/create") {
        let options = &body["DriverOpts"];
        let words = options["o"].as_str().unwrap_or_default().split(',').filter(|word| !word.is_empty());
        let is_tmpfs = options["type"] == "tmpfs"
            && all_in(keys(options), "type device o")
            && all_in(words, "ro rw size=1m mode=1777 uid=1 nosuid noexec");
        check(body["Driver"] == "local" && (is_nothing(options) || is_tmpfs), "the options");
        check(labels_are_ours(&body["Labels"]), "a label");
    }
    wrong
}

#[test]
fn of_what_a_strict_policy_accepts_the_engine_is_asked_for_nothing_of_the_host() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("engine.sock");
    let requests = engine(&socket);
    let docker = || {
        Docker::new(DockerSettings {
            socket: socket.clone(),
            instance: Instance::parse("lab").unwrap(),
            services_dir: PathBuf::from(SERVICES.trim_end_matches('/')),
            stall_timeout: Duration::from_secs(30),
        })
    };
    let seen = Mutex::new((0, BTreeSet::new()));
    let mut runner = TestRunner::new(Config { cases: 4000, failure_persistence: None, ..Config::default() });
    let outcome = runner.run(&release(), |release| {
        let Some(read) = accepted(&release) else { return Ok(()) };
        let calls = asked(&docker(), &requests, &read);
        let wrong: Vec<_> = calls.iter().flat_map(reached).collect();
        if !wrong.is_empty() {
            return Err(TestCaseError::fail(format!("{wrong:#?}")));
        }
        let mut seen = seen.lock().unwrap();
        seen.0 += calls.iter().filter(|(call, _)| call.contains("/create")).count();
        for service in release["services"].as_object().unwrap().values() {
            seen.1.extend(keys(&service["composition"]).into_iter().map(str::to_owned));
        }
        Ok(())
    });
    if let Err(failed) = outcome {
        panic!("{failed}");
    }
    let (created, fields) = seen.into_inner().unwrap();
    assert!(created > 1000, "{created} requests are too few to show anything");
    for field in
        ["volumes", "networks", "security_opt", "cap_add", "logging", "labels", "ipc", "tmpfs", "sysctls"]
    {
        assert!(fields.contains(field), "{field} was never accepted: {fields:?}");
    }
}

/// The test above would see it.
#[test]
fn what_reaches_the_host_is_seen() {
    let container = |host: Value| {
        let body = json!({"HostConfig": host, "Labels": {"io.cotter.instance": "lab"}});
        reached(&("/v1.48/containers/create?name=x".to_owned(), body)).len()
    };
    assert_eq!(container(json!({"Binds": [format!("{SERVICES}7/web:/tmp/balena")], "Privileged": false})), 0);
    for host in [
        json!({"Binds": ["/etc:/etc"]}),
        json!({"Privileged": true}),
        json!({"NetworkMode": "host"}),
        json!({"Mounts": [{"Type": "bind", "Source": "/etc", "Target": "/etc"}]}),
        json!({"Devices": [{"PathOnHost": "/dev/mem"}]}),
        json!({"CapAdd": ["CHOWN", "SYS_ADMIN"]}),
        json!({"SecurityOpt": ["no-new-privileges", "seccomp=unconfined"]}),
        json!({"MaskedPaths": ["x"]}),
        json!({"OomScoreAdj": -1}),
        json!({"SomethingNew": "x"}),
    ] {
        assert_eq!(container(host.clone()), 1, "{host}");
    }
    let volume = |options: Value| {
        let body = json!({"Driver": "local", "DriverOpts": options, "Labels": {"io.cotter.instance": "lab"}});
        reached(&("/v1.48/volumes/create".to_owned(), body)).len()
    };
    assert_eq!(volume(json!({"type": "tmpfs", "device": "tmpfs", "o": "size=1m"})), 0);
    assert_eq!(volume(json!({"type": "tmpfs", "device": "/etc", "o": "bind"})), 1);
}

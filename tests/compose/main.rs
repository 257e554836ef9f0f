//! What an author asks for is what the app finds: compose fields, read as a device reads them, created on the
//! real engine, and looked at from inside of the container.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod cases;
mod generated;
mod owner;
#[path = "../support/mod.rs"]
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use cases::{CASES, Case, FIRST, PRELUDE};
use cotter::engine::{Docker, DockerSettings, EngineError, Inspect, NewContainer, Operate};
use cotter::model::{
    App, AppId, Commit, ContainerId, ContainerState, DeviceUuid, Instance, Introduction, NetworkMode, Policy,
    Release, ServiceName, ServiceSpec, TargetApp,
};
use cotter::wire::target_v3;
use serde_json::{Value, json};
use support::{Differences, Lab, Podman};

const DEVICE: &str = "0123456789abcdef0123456789abcdef";
/// How long all containers together may take to end by themselves.
const PATIENCE: Duration = Duration::from_secs(60);

/// A lab with the image and an engine of an instance of its own.
struct Bench {
    lab: Lab,
    image: String,
    instance: String,
    engine: Docker,
    app: App,
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.lab.docker().try_run(&["rm", "--force", &self.name("plain")]);
        // Containers go with the lab, after this; an image in use is only untagged by force.
        for id in self.lab.docker().ids("container", &self.instance) {
            self.lab.docker().try_run(&["rm", "--force", "--volumes", &id]);
        }
        self.lab.docker().try_run(&["rmi", &self.image]);
    }
}

impl Bench {
    fn new(name: &str, number: u64) -> Self {
        Self::on(Lab::new(name), number)
    }

    /// On the engine of a lab.
    fn on(lab: Lab, number: u64) -> Self {
        let instance = lab.instance("a");
        let image = format!("cotter.test/busybox:{instance}");
        make_image(&lab, &image);
        let engine = Docker::new(DockerSettings {
            socket: lab.docker().socket().to_owned(),
            instance: Instance::parse(&instance).unwrap(),
            services_dir: lab.dir().join("services"),
            stall_timeout: Duration::from_secs(30),
        });
        fs::create_dir(lab.dir().join("shared")).unwrap();
        fs::write(lab.dir().join("shared/greeting"), "hello from the host\n").unwrap();
        let app = App { id: AppId::parse(DEVICE).unwrap(), number, name: "demo".into() };
        Self { lab, image, instance, engine, app }
    }

    fn name(&self, what: &str) -> String {
        format!("{}-{what}", self.instance)
    }

    /// A case's text with what only this machine knows.
    fn filled(&self, text: &str) -> String {
        let host = |kind: &str| fs::read_link(format!("/proc/self/ns/{kind}")).unwrap().display().to_string();
        let disk = || {
            let mut all: Vec<_> =
                fs::read_dir("/sys/block").unwrap().map(|e| e.unwrap().file_name()).collect();
            all.sort();
            all.iter().map(|name| format!("/dev/{}", name.display())).find(|path| Path::new(path).exists())
        };
        text.replace("{DISK}", &disk().expect("a machine has a disk"))
            .replace("{DIR}", &self.lab.dir().display().to_string())
            .replace("{HOST_IPC}", &host("ipc"))
            .replace("{HOST_NET}", &host("net"))
            .replace("{HOST_UTS}", &host("uts"))
            .replace("{HOST_PID}", &host("pid"))
    }

    /// The release as the device reads it from its target; panics with the refusals.
    fn release(&self, services: &Value, networks: &Value, volumes: &Value) -> Release {
        let target = json!({DEVICE: {"name": "d", "apps": {DEVICE: {
            "id": self.app.number, "name": "demo",
            "releases": {"abc123": {"id": 1, "services": services, "networks": networks, "volumes": volumes}},
        }}}});
        let policy = Policy { host_paths: vec![self.lab.dir().display().to_string()], ..Policy::default() };
        let device = DeviceUuid::parse(DEVICE).unwrap();
        let target = target_v3::parse(target.to_string().as_bytes(), &device, &policy).unwrap();
        match target.apps.into_values().next().unwrap() {
            TargetApp::Wanted(wanted) => wanted.release.unwrap(),
            TargetApp::Refused(refused) => panic!("{:#?}", refused.refusals),
        }
    }

    fn service(&self, case: &Case) -> Value {
        let mut fields: Value = serde_json::from_str(&self.filled(case.fields)).expect(case.why);
        let map = fields.as_object_mut().unwrap();
        map.entry("restart").or_insert(json!("no"));
        map.entry("network_mode").or_insert(if fields_on_networks(case) {
            Value::Null
        } else {
            json!("none")
        });
        if !case.script.is_empty() {
            map.insert("entrypoint".into(), json!(["/bin/busybox", "sh", "-c"]));
            map.insert("command".into(), json!([format!("{PRELUDE}{}", self.filled(case.script))]));
        }
        json!({"id": 1, "image_id": 1, "image": self.image, "composition": fields})
    }

    async fn create(&self, release: &Release, service: &ServiceName) -> Result<(), EngineError> {
        let joined = self.joined(&release.services[service]).await;
        let new = NewContainer {
            app: &self.app,
            release: &release.commit,
            service,
            spec: &release.services[service],
            networks: &release.networks,
            volumes: &release.volumes,
            joined: &joined,
            introduction: &Introduction::default(),
        };
        self.engine.create(new).await
    }

    /// The containers whose namespaces `spec` joins.
    async fn joined(&self, spec: &ServiceSpec) -> BTreeMap<ServiceName, ContainerId> {
        let seen = self.engine.observe().await.unwrap().services;
        let id = |name: &ServiceName| seen.iter().find(|s| s.service == *name).unwrap().container.clone();
        spec.joins().map(|(_, name)| (name.clone(), id(name))).collect()
    }

    async fn create_networks(&self, release: &Release) {
        for (name, spec) in &release.networks {
            let create = async || self.engine.create_network(&self.app, name, spec).await;
            support::until_interfaces_stay(create).await.unwrap();
        }
    }

    /// The networks of this instance, each by its name in the release and what `format` tells of it.
    fn networks_with(&self, format: &str) -> Vec<String> {
        let format = format!("{{{{index .Labels \"io.cotter.network\"}}}} {format}");
        let ids = self.lab.docker().ids("network", &self.instance);
        let mut answer: Vec<_> = ids
            .iter()
            .map(|id| self.lab.docker().run(&["network", "inspect", "--format", &format, id]))
            .collect();
        answer.sort();
        answer
    }

    /// Starts every container that was created; what did not start.
    async fn start_all(&self) -> Vec<(&'static str, String)> {
        let mut wrong = Vec::new();
        for seen in self.engine.observe().await.unwrap().services {
            if let Err(error) = self.engine.start(&seen.container).await {
                wrong.push((why(&seen.service), error.to_string()));
                self.engine.remove_by_force(&seen.container).await.unwrap();
            }
        }
        wrong
    }

    /// Waits until every container has ended by itself.
    async fn all_ended(&self) {
        for _ in 0..PATIENCE.as_millis() / 200 {
            let services = self.engine.observe().await.unwrap().services;
            if services.iter().all(|seen| matches!(seen.state, ContainerState::Exited { .. })) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        panic!("{:#?}", self.engine.observe().await.unwrap().services);
    }

    fn logs(&self, service: &str) -> String {
        let all = self.lab.docker().containers(&self.instance);
        let container = all.iter().find(|c| c.service() == service).unwrap_or_else(|| panic!("no {service}"));
        self.lab.docker().logs(&container.id).replace('\r', "")
    }
}

/// Debian's busybox with its commands, a few users and groups, and a file where volumes are mounted.
fn make_image(lab: &Lab, image: &str) {
    let root = lab.dir().join("root");
    for folder in ["bin", "etc", "seeded", "tmp"] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
    fs::write(root.join("etc/passwd"), "root:x:0:0::/:/bin/sh\napp:x:1000:1000::/:/bin/sh\n").unwrap();
    fs::write(root.join("etc/group"), "root:x:0:\nvideo:x:44:\napp:x:1000:\n").unwrap();
    fs::write(root.join("seeded/seed"), "seed\n").unwrap();
    fs::copy("/bin/busybox", root.join("bin/busybox"))
        .expect("busybox-static is here: scripts/prepare.sh installs it");
    let commands = std::process::Command::new("/bin/busybox").arg("--list").output().unwrap();
    for command in String::from_utf8(commands.stdout).unwrap().lines().filter(|c| *c != "busybox") {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(command)).unwrap();
    }
    let (archive, root) = (lab.dir().join("root.tar").display().to_string(), root.display().to_string());
    let packed = std::process::Command::new("tar")
        .args(["--owner=0", "--group=0", "-C", &root, "-cf", &archive, "."])
        .status();
    assert!(packed.unwrap().success());
    let label = format!("LABEL io.cotter.demo={}", lab.parts.label);
    lab.docker().run(&["import", "--change", &label, &archive, image]);
}

fn fields_on_networks(case: &Case) -> bool {
    ["\"networks\"", "\"mac_address\""].iter().any(|field| case.fields.contains(field))
}

fn name_of(n: usize) -> String {
    format!("case-{n:02}")
}

/// Networks and volumes that cases are on, each with a config of its own.
fn networks(number: u64) -> Value {
    // Two runs of this test at a time have other ranges, and so has what usually stands on an engine.
    let third = number % 250;
    json!({
        "ranged": {"ipam": {"config": [{
            "subnet": format!("10.213.{third}.0/24"), "gateway": format!("10.213.{third}.1"),
            "ip_range": format!("10.213.{third}.128/25"), "aux_addresses": {
                "router": format!("10.213.{third}.128"), "camera": format!("10.213.{third}.129"),
                "printer": format!("10.213.{third}.130"),
            },
        }]}},
        "inner": {"internal": true},
        "other": {"driver_opts": {"com.docker.network.driver.mtu": "1400"}},
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_asked_for_is_what_the_app_finds() {
    assert!(CASES.len() >= 60, "{} cases", CASES.len());
    let number = u64::from(std::process::id());
    let bench = Bench::new("compose", number);
    let wrong = looked_at(&bench, number).await;
    let answer: Vec<_> = wrong.iter().map(|(why, answer)| format!("{why}\n{answer}")).collect();
    assert!(answer.is_empty(), "{} of {}:\n{}", answer.len(), CASES.len(), answer.join("\n"));
    assert_eq!(
        bench.networks_with("{{.Internal}} {{.IPAM.Driver}} {{json .Options}}"),
        [
            "inner true default {}",
            "other false default {\"com.docker.network.driver.mtu\":\"1400\"}",
            "ranged false default {}",
        ]
    );
}

/// What podman does otherwise is listed in docs/engines.md, and nothing else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_podman_too_but_for_what_is_listed() {
    let Some((podman, lab)) = Podman::with_lab("compose-podman") else { return };
    let number = u64::from(std::process::id()) + 1;
    let wrong: BTreeMap<_, _> = looked_at(&Bench::on(lab, number), number).await.into_iter().collect();
    let differences = Differences::listed("What an app finds", &podman);
    for case in CASES {
        differences.note(
            case.why,
            !wrong.contains_key(case.why),
            wrong.get(case.why).map_or("", |answer| answer),
        );
    }
    differences.assert_as_listed();
}

/// Every case, created and looked at: which was not as its author means it, and what was found.
async fn looked_at(bench: &Bench, number: u64) -> Vec<(&'static str, String)> {
    let third = (number % 250).to_string();
    let services: serde_json::Map<String, Value> = CASES
        .iter()
        .enumerate()
        .map(|(n, case)| {
            let text = bench.service(case).to_string().replace("{THIRD}", &third);
            (name_of(n), serde_json::from_str(&text).unwrap())
        })
        .collect();
    let volumes =
        json!({"small": {"driver_opts": {"type": "tmpfs", "device": "tmpfs", "o": "size=1m,uid=1000"}}});
    let release = bench.release(&Value::Object(services.clone()), &networks(number), &volumes);
    bench.create_networks(&release).await;
    let mut wrong = Vec::new();
    // A few at a time, so that they don't take all of a small machine's memory.
    let names: Vec<_> = release.services.keys().cloned().collect();
    for service in &names {
        if let Err(error) = bench.create(&release, service).await {
            wrong.push((why(service), error.to_string()));
        }
    }
    wrong.extend(bench.start_all().await);
    bench.all_ended().await;

    // The next look finds what is wanted: there is nothing to do.
    let again = bench.release(&Value::Object(services), &networks(number), &volumes);
    let seen: BTreeMap<_, _> =
        bench.engine.observe().await.unwrap().services.into_iter().map(|s| (s.service, s.spec)).collect();
    let mut wanted: BTreeMap<_, _> =
        again.services.iter().map(|(n, s)| (n.clone(), s.hash.clone())).collect();
    let hashes: BTreeSet<_> = wanted.values().collect();
    assert_eq!(hashes.len(), wanted.len(), "no two of them are the same");
    wanted.retain(|service, _| wrong.iter().all(|(which, _)| *which != why(service)));
    assert_eq!(seen, wanted);
    wrong.extend(differences(bench, &third));
    wrong
}

/// The cases whose containers did not find what was asked for.
fn differences(bench: &Bench, third: &str) -> Vec<(&'static str, String)> {
    let mut wrong = Vec::new();
    let containers = bench.lab.docker().containers(&bench.instance);
    for container in &containers {
        let n: usize = container.service().trim_start_matches("case-").parse().unwrap();
        let case = &CASES[n];
        let expected = bench.filled(case.expected).replace("{THIRD}", third);
        if case.why == FIRST {
            let mode = container.raw.pointer("/HostConfig/NetworkMode").and_then(Value::as_str).unwrap();
            if !mode.contains("_other_") {
                wrong.push((case.why, format!("  it is on {mode}")));
            }
        }
        let found = match case.pointer {
            "" => bench.lab.docker().logs(&container.id).replace('\r', "").trim_end().to_owned(),
            pointer => container.raw.pointer(pointer).unwrap_or(&Value::Null).to_string(),
        };
        if found != expected {
            wrong.push((case.why, format!("  expected {expected:?}\n  found    {found:?}")));
        }
    }
    wrong
}

fn why(service: &ServiceName) -> &'static str {
    let n: usize = service.as_str().trim_start_matches("case-").parse().unwrap();
    CASES[n].why
}

/// What this engine is too old or too small for is an error in words, and no other app than the author's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_engine_cannot_do_is_reported() {
    let bench = Bench::new("compose-not", u64::from(std::process::id()) + 7);
    let version = bench.lab.docker().run(&["version", "--format", "{{.Server.APIVersion}}"]);
    let minor: u32 = version.split('.').nth(1).unwrap().parse().unwrap();
    let has_nvidia = bench.lab.docker().run(&["info", "--format", "{{json .Runtimes}}"]).contains("nvidia");
    for (fields, answer, is_noted) in [
        (
            r#"{"networks": {"a": null, "b": {"mac_address": "02:42:ac:11:65:43"}}}"#,
            "mac_address of a second network needs an engine with API 1.44",
            minor < 44,
        ),
        (
            r#"{"volumes": [{"source": "v", "target": "/v", "volume": {"subpath": "a"}}]}"#,
            "volume.subpath needs an engine with API 1.45",
            minor < 45,
        ),
        (
            r#"{"volumes": [{"type": "bind", "source": "{DIR}/nowhere", "target": "/n", "bind": {"create_host_path": false}}]}"#,
            "bind source path does not exist",
            true,
        ),
        (r#"{"runtime": "nothing-of-the-kind"}"#, "nothing-of-the-kind", true),
        (r#"{"cpus": 4096}"#, "CPUs", true),
        (r#"{"gpus": "all"}"#, "could not select device driver", !has_nvidia),
    ] {
        let case = Case { why: fields, fields, script: "echo started", pointer: "", expected: "" };
        let release = bench.release(&json!({"web": bench.service(&case)}), &json!({}), &json!({}));
        bench.create_networks(&release).await;
        let web = ServiceName::parse("web").unwrap();
        let result = match bench.create(&release, &web).await {
            Ok(()) => {
                let seen = bench.engine.observe().await.unwrap().services.pop().unwrap();
                let started = bench.engine.start(&seen.container).await;
                bench.engine.remove_by_force(&seen.container).await.unwrap();
                started
            }
            Err(error) => Err(error),
        };
        match result {
            Err(error) => assert!(is_noted && error.to_string().contains(answer), "{fields}: {error}"),
            Ok(()) => assert!(!is_noted, "{fields}: no note says so"),
        }
    }
}

/// Where the engine cannot run privileged containers at all, as within some virtual machines, it says so to us
/// as it does to its own client.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn privileged_containers_have_every_capability() {
    let bench = Bench::new("compose-root", u64::from(std::process::id()) + 11);
    let plain = bench.lab.docker().try_run(&[
        "run",
        "--rm",
        "--privileged",
        "--network",
        "none",
        "--name",
        &bench.name("plain"),
        &bench.image,
        "/bin/true",
    ]);
    let fields = r#"{"privileged": true}"#;
    let case = Case { why: "", fields, script: "status CapEff; status Seccomp", pointer: "", expected: "" };
    let release = bench.release(&json!({"web": bench.service(&case)}), &json!({}), &json!({}));
    bench.create(&release, &ServiceName::parse("web").unwrap()).await.unwrap();
    let seen = bench.engine.observe().await.unwrap().services.pop().unwrap();
    let started = bench.engine.start(&seen.container).await;
    if !plain.status.success() {
        let answer = String::from_utf8_lossy(&plain.stderr);
        assert!(started.is_err(), "docker run --privileged fails here, and this does not: {answer}");
        eprintln!("privileged containers were not looked into: this engine cannot run any: {answer}");
        return;
    }
    started.unwrap();
    bench.all_ended().await;
    let logs = bench.logs("web");
    let (capabilities, seccomp) = logs.trim().split_once('\n').unwrap();
    assert!(u64::from_str_radix(capabilities, 16).unwrap() & (1 << 21) != 0, "SYS_ADMIN: {capabilities}");
    assert_eq!(seccomp, "0");
}

/// Services find each other by name and by alias, on the networks they share and on no other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_find_each_other() {
    let bench = Bench::new("compose-net", u64::from(std::process::id()) + 13);
    let service = |fields: &'static str, script: &'static str| {
        bench.service(&Case { why: fields, fields, script, pointer: "", expected: "" })
    };
    let ask = "for name in db database store hidden; do \
               nslookup $name 127.0.0.11 >/dev/null 2>&1 && echo $name; done; true";
    let services = json!({
        "db": service(r#"{"networks": {"back": {"aliases": ["database", "store"]}}}"#, "sleep 20"),
        "hidden": service(r#"{"networks": ["elsewhere"]}"#, "sleep 20"),
        "web": service(r#"{"networks": ["back", "front"]}"#, ask),
    });
    let release = bench.release(&services, &json!({}), &json!({}));
    bench.create_networks(&release).await;
    let order = ["db", "hidden", "web"].map(|name| ServiceName::parse(name).unwrap());
    for service in &order {
        assert!(matches!(release.services[service].network_mode, NetworkMode::Networks(_)));
        bench.create(&release, service).await.unwrap();
        let seen = bench.engine.observe().await.unwrap().services;
        let id = seen.iter().find(|s| s.service == *service).unwrap().container.clone();
        bench.engine.start(&id).await.unwrap();
    }
    let is_over = || {
        let containers = bench.lab.docker().containers(&bench.instance);
        containers.iter().any(|c| c.service() == "web" && !c.running).then_some(())
    };
    support::eventually("web has asked", Duration::from_secs(20), is_over);
    assert_eq!(bench.logs("web").trim(), "db\ndatabase\nstore");
    assert_eq!(Commit::parse("abc123").unwrap(), release.commit);
}

/// Who joins another service has its addresses, its processes and its memory, and nothing else of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_share_their_namespaces() {
    let bench = Bench::new("compose-share", u64::from(std::process::id()) + 17);
    let service = |fields: &'static str, script: &'static str| {
        bench.service(&Case { why: fields, fields, script, pointer: "", expected: "" })
    };
    let look = "for kind in net ipc pid uts mnt; do readlink /proc/self/ns/$kind; done; \
                ip -4 -o addr show | tr -s ' ' | cut -d' ' -f4";
    let services = json!({
        "door": service(
            r#"{"networks": ["default"], "ipc": "shareable"}"#,
            "for kind in net ipc pid uts mnt; do readlink /proc/self/ns/$kind; done; \
             ip -4 -o addr show | tr -s ' ' | cut -d' ' -f4; exec sleep 30",
        ),
        "net": service(r#"{"network_mode": "service:door"}"#, look),
        "ipc": service(r#"{"ipc": "service:door"}"#, look),
        "pid": service(r#"{"pid": "service:door"}"#, look),
    });
    let release = bench.release(&services, &json!({}), &json!({}));
    bench.create_networks(&release).await;
    for service in ["door", "net", "ipc", "pid"].map(|name| ServiceName::parse(name).unwrap()) {
        bench.create(&release, &service).await.unwrap();
        let seen = bench.engine.observe().await.unwrap().services;
        let seen = seen.iter().find(|s| s.service == service).unwrap();
        assert_eq!(seen.spec, release.services[&service].hash);
        bench.engine.start(&seen.container).await.unwrap();
    }
    let lines = |name: &str| {
        for _ in 0..100 {
            let all: Vec<_> = bench.logs(name).lines().map(str::to_owned).collect();
            if all.len() >= 6 {
                return all;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("{name} says no more than {:?}", bench.logs(name));
    };
    let door = lines("door");
    assert_eq!(door.len(), 7, "loopback and one network: {door:?}");
    for (name, shared) in [("net", "net"), ("ipc", "ipc"), ("pid", "pid")] {
        let found = lines(name);
        for (n, kind) in ["net", "ipc", "pid", "uts", "mnt"].iter().enumerate() {
            // Who shares a network has its name, too, but not by the namespace.
            assert_eq!(found[n] == door[n], *kind == shared, "{name} {kind}: {found:?} {door:?}");
        }
        assert_eq!(found[5..] == door[5..], name == "net", "{name}: {found:?}");
    }
}

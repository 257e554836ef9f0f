//! A hostile release on a device whose owner allows nothing: what is accepted must hold in what the engine shows.

use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::evil::Evil;
use crate::lab::{Victim, app, polite, service, uuid};
use crate::reach;
use crate::support::{Lab, eventually};

/// What is to become of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// Refused, and the reason names a setting of the owner.
    Refused,
    /// Refused, because no release may be written like that under any policy.
    Invalid,
    /// Refused, rejected, or harmless: nothing of the host is in reach.
    Held,
}

use Verdict::{Held, Invalid, Refused};

/// An attack: what it is, the service's composition, the release's networks and its volumes.
struct Attack {
    what: String,
    verdict: Verdict,
    composition: Value,
    networks: Value,
    volumes: Value,
}

fn by_service(verdict: Verdict, composition: Value) -> Attack {
    Attack { what: composition.to_string(), verdict, composition, networks: json!({}), volumes: json!({}) }
}

fn by_volume(verdict: Verdict, config: Value) -> Attack {
    let composition = json!({ "volumes": ["data:/data"] });
    let what = format!("volume {config}");
    Attack { what, verdict, composition, networks: json!({}), volumes: json!({ "data": config }) }
}

fn by_network(verdict: Verdict, config: Value) -> Attack {
    let composition = json!({ "networks": ["net"] });
    let what = format!("network {config}");
    Attack { what, verdict, composition, networks: json!({ "net": config }), volumes: json!({}) }
}

/// A volume of the local driver with these options.
fn local(kind: &str, device: &str, options: &str) -> Value {
    json!({ "driver_opts": { "type": kind, "device": device, "o": options } })
}

fn volumes() -> Vec<Attack> {
    let mut attacks: Vec<_> = [
        local("overlay", "overlay", "lowerdir=/etc:/opt"),
        local("overlay", "overlay", "lowerdir=/etc,upperdir=/srv/u,workdir=/srv/w"),
        local("ext4", "/dev/vda", ""),
        local("ext4", "/dev/vda", "ro"),
        local("ext4", "/srv/image.ext4", "loop"),
        local("none", "/etc", "bind"),
        local("none", "/etc", "rbind"),
        local("none", "/etc", "rw,bind"),
        local("none", "/etc", " bind"),
        local("none", "/etc", "BIND"),
        local("bind", "/etc", "bind"),
        local("", "/etc", "bind"),
        local("tmpfs", "/etc", "bind"),
        local("none", "/proc/1/root", "bind"),
        local("none", "/srv/../etc", "bind"),
        local("proc", "proc", ""),
        local("sysfs", "sysfs", ""),
        local("cgroup", "cgroup", "memory"),
        local("cgroup2", "cgroup2", ""),
        local("devtmpfs", "devtmpfs", ""),
        local("devpts", "devpts", ""),
        local("mqueue", "mqueue", ""),
        local("debugfs", "debugfs", ""),
        local("tracefs", "tracefs", ""),
        local("securityfs", "securityfs", ""),
        local("bpf", "bpf", ""),
        local("fuse", "x", "fd=3,rootmode=40000,user_id=0,group_id=0"),
        local("9p", "x", "trans=virtio"),
        local("virtiofs", "x", ""),
        local("hugetlbfs", "x", ""),
        local("nfs", ":/", "addr=127.0.0.1"),
        local("nfs4", ":/", "addr=127.0.0.1"),
        local("cifs", "//127.0.0.1/c", "username=u,password=geheim"),
        local("ceph", "127.0.0.1:/", "name=a"),
        json!({ "driver_opts": { "device": "/etc", "o": "bind" } }),
        json!({ "driver_opts": { "Type": "none", "Device": "/etc", "O": "bind" } }),
        json!({ "driver_opts": { "type": "ext4", "device": "/dev/vda" } }),
        json!({ "driver": "local-persist", "driver_opts": { "mountpoint": "/etc" } }),
        json!({ "driver": "vieux/sshfs", "driver_opts": { "sshcmd": "a@127.0.0.1:/" } }),
        json!({ "driver": "LOCAL", "driver_opts": { "type": "ext4", "device": "/dev/vda" } }),
        json!({ "driver": "" , "driver_opts": { "type": "ext4", "device": "/dev/vda" } }),
    ]
    .into_iter()
    .map(|config| by_volume(Refused, config))
    .collect();
    attacks.push(by_volume(Invalid, local("tmpfs", "tmpfs", "size=1m,bind")));
    attacks.extend(
        [
            json!({}),
            Value::Null,
            local("tmpfs", "tmpfs", "size=1m,mode=0700,uid=1000,gid=1000"),
            local("tmpfs", "tmpfs", "size=1m,suid,dev,exec"),
            local("tmpfs", "tmpfs", "size=1m,context=system_u:object_r:x"),
            json!({ "driver_opts": { "size": "1g" } }),
            json!({ "driver_opts": { "type": "tmpfs", "device": "tmpfs", "o": "size=1m", "x": "y" } }),
            json!({ "labels": { "io.cotter.instance": "default", "io.cotter.app": "x" } }),
        ]
        .into_iter()
        .map(|config| by_volume(Held, config)),
    );
    attacks
}

fn networks() -> Vec<Attack> {
    let option = |name: &str, value: &str| json!({ "driver_opts": { name: value } });
    let mut attacks: Vec<_> = [
        option("com.docker.network.bridge.name", "br0"),
        option("com.docker.network.bridge.name", "cotterevil0"),
        option("com.docker.network.bridge.inhibit_ipv4", "true"),
        option("com.docker.network.bridge.gateway_mode_ipv4", "routed"),
        option("com.docker.network.bridge.trusted_host_interfaces", "eth0"),
        option("com.docker.network.host_ipv4", "127.0.0.1"),
        option("parent", "eth0"),
        option("unknown.option", "x"),
        json!({ "driver": "macvlan", "driver_opts": { "parent": "eth0" } }),
        json!({ "driver": "macvlan" }),
        json!({ "driver": "ipvlan", "driver_opts": { "parent": "eth0", "ipvlan_mode": "l3" } }),
        json!({ "driver": "ipvlan" }),
        json!({ "driver": "macvtap" }),
        json!({ "driver": "weaveworks/net-plugin" }),
        json!({ "driver": "Bridge", "driver_opts": { "com.docker.network.bridge.name": "br0" } }),
        json!({ "ipam": { "driver": "dhcp" } }),
        json!({ "ipam": { "options": { "foo": "bar" } } }),
    ]
    .into_iter()
    .map(|config| by_network(Refused, config))
    .collect();
    attacks.extend(
        [
            json!({}),
            option("com.docker.network.driver.mtu", "1400"),
            option("com.docker.network.bridge.host_binding_ipv4", "0.0.0.0"),
            option("com.docker.network.container_iface_prefix", "eth"),
            // Routes of the host would go to a container. These are unassigned, but they might be a name server's.
            json!({ "ipam": { "config": [{ "subnet": "203.0.113.0/24" }] } }),
            json!({ "ipam": { "config": [{ "subnet": "198.51.0.0/16" }] } }),
            json!({ "ipam": { "config": [{ "subnet": "169.254.77.0/24" }] } }),
            json!({ "ipam": { "config": [{ "subnet": "2001:db8:77::/64" }] }, "enable_ipv6": true }),
            json!({ "labels": { "io.cotter.instance": "default" } }),
        ]
        .into_iter()
        .map(|config| by_network(Held, config)),
    );
    attacks
}

fn services() -> Vec<Attack> {
    let refused = [
        json!({ "privileged": true }),
        json!({ "privileged": "true" }),
        json!({ "network_mode": "host" }),
        json!({ "pid": "host" }),
        json!({ "ipc": "host" }),
        json!({ "uts": "host" }),
        json!({ "userns_mode": "host" }),
        json!({ "cgroup": "host" }),
        json!({ "cgroup_parent": "/system.slice" }),
        json!({ "cap_add": ["ALL"] }),
        json!({ "cap_add": ["sys_admin"] }),
        json!({ "devices": ["/dev/vda:/dev/vda"] }),
        json!({ "devices": [{ "source": "/dev/vda", "target": "/dev/x", "permissions": "rwm" }] }),
        json!({ "device_cgroup_rules": ["b *:* rwm"] }),
        json!({ "gpus": "all" }),
        json!({ "deploy": { "resources": { "reservations": { "devices": [{ "capabilities": ["gpu"] }] } } } }),
        json!({ "security_opt": ["seccomp=unconfined"] }),
        json!({ "security_opt": ["seccomp:unconfined"] }),
        json!({ "security_opt": ["apparmor=unconfined"] }),
        json!({ "security_opt": ["systempaths=unconfined"] }),
        json!({ "security_opt": ["label=disable"] }),
        json!({ "security_opt": ["label:disable"] }),
        json!({ "security_opt": ["label=type:spc_t"] }),
        json!({ "security_opt": ["no-new-privileges=false"] }),
        json!({ "runtime": "runc" }),
        json!({ "runtime": "sysbox-runc" }),
        json!({ "oom_score_adj": -1000 }),
        json!({ "oom_kill_disable": true }),
        json!({ "annotations": { "run.oci.keep_original_groups": "1" } }),
        json!({ "logging": { "driver": "syslog", "options": { "syslog-address": "unixgram:///dev/log" } } }),
        json!({ "logging": { "driver": "fluentd", "options": { "fluentd-address": "unix:///run/docker.sock" } } }),
        json!({ "logging": { "driver": "journald" } }),
        json!({ "logging": { "driver": "gelf", "options": { "gelf-address": "udp://127.0.0.1:9" } } }),
        json!({ "volumes": ["/:/host"] }),
        json!({ "volumes": ["/etc:/host:ro"] }),
        json!({ "volumes": ["/var/run/docker.sock:/var/run/docker.sock"] }),
        json!({ "volumes": ["/proc/1/root:/host"] }),
        json!({ "volumes": [{ "type": "bind", "source": "/etc", "target": "/x" }] }),
        json!({ "volumes": [{ "type": "bind", "source": "/etc", "target": "/x", "bind": { "propagation": "rshared" } }] }),
        json!({ "volumes": ["/dev:/dev"] }),
        json!({ "labels": { "io.balena.features.balena-socket": "1" } }),
        json!({ "labels": { "io.balena.features.dbus": "true" } }),
        json!({ "labels": { "io.balena.features.sysfs": "1" } }),
        json!({ "labels": { "io.balena.features.procfs": "1" } }),
        json!({ "labels": { "io.balena.features.kernel-modules": "1" } }),
        json!({ "labels": { "io.balena.features.firmware": "1" } }),
        json!({ "labels": { "io.balena.features.journal-logs": "1" } }),
        json!({ "labels": { "io.balena.features.gpu": "1" } }),
        json!({ "labels": { "io.resin.features.resin-socket": "1" } }),
    ];
    let held = [
        json!({ "pid": "container:x" }),
        json!({ "ipc": "container:x" }),
        json!({ "network_mode": "container:x" }),
        json!({ "network_mode": "HOST" }),
        json!({ "network_mode": "docker0" }),
        json!({ "volumes": [{ "type": "npipe", "source": "/etc", "target": "/x" }] }),
        json!({ "volumes": [{ "type": "cluster", "source": "/etc", "target": "/x" }] }),
        json!({ "volumes": ["/x"] }),
        json!({ "volumes": [{ "type": "tmpfs", "target": "/x", "tmpfs": { "size": "1m" } }] }),
        json!({ "tmpfs": ["/x:exec,dev,suid,size=1m"] }),
        json!({ "sysctls": { "kernel.core_pattern": "|/x" } }),
        json!({ "sysctls": { "net.ipv4.ip_forward": "1" } }),
        json!({ "group_add": ["0", "6"] }),
        json!({ "user": "0:0" }),
        json!({ "cap_drop": ["NET_RAW"] }),
        json!({ "blkio_config": { "device_read_bps": [{ "path": "/dev/vda", "rate": "1mb" }] } }),
        json!({ "extra_hosts": ["h:host-gateway"] }),
        json!({ "hostname": "a;b" }),
        json!({ "security_opt": ["no-new-privileges"] }),
        json!({ "storage_opt": { "size": "1G" } }),
        json!({ "volumes_from": ["container:x"] }),
        json!({ "use_api_socket": true }),
        json!({ "links": ["x:y"] }),
        json!({ "external_links": ["x"] }),
        json!({ "credential_spec": { "file": "x" } }),
        json!({ "logging": { "driver": "local", "options": { "max-size": "1m" } } }),
        json!({ "labels": { "io.cotter.instance": "default" } }),
    ];
    let refused = refused.into_iter().map(|composition| by_service(Refused, composition));
    let invalid = by_service(Invalid, json!({ "volumes": ["/srv/../etc:/x"] }));
    refused
        .chain([invalid])
        .chain(held.into_iter().map(|composition| by_service(Held, composition)))
        .collect()
}

/// One app for each attack, numbered from `first`.
fn apps(image: &str, attacks: &[Attack], first: usize) -> Map<String, Value> {
    let app = |(n, attack): (usize, &Attack)| {
        let number = first + n;
        let services = json!({ "web": service(image, &attack.composition) });
        (uuid(number), app(number + 1, "evil", &services, &attack.networks, &attack.volumes))
    };
    attacks.iter().enumerate().map(app).collect()
}

/// Plays attacks on an owner who allows nothing; what went through, in words.
fn play(lab: &Lab, attacks: &[Attack], prepare: impl Fn(&mut Victim<'_>)) -> Vec<String> {
    let cloud = Evil::at("127.0.0.1", polite(&json!({})));
    let mut victim = Victim::prepare(lab, &cloud.url(), "till");
    victim.allow_nothing();
    prepare(&mut victim);
    victim.agent.start_again();
    victim.until_it_answers();
    let mut all = apps(lab.image("r1"), attacks, 1);
    let good = json!({ "web": service(lab.image("r1"), &json!({})) });
    all.insert(uuid(0), app(1000, "good", &good, &json!({}), &json!({})));
    cloud.rule(polite(&Value::Object(all)));
    // Each app has come to an end, or waits for something that only a person can change.
    let mut last = Value::Null;
    eventually("every app has its answer", Duration::from_secs(180), || {
        let status = victim.agent.status()?;
        let is_answered = |number: usize| {
            let waits = status["waiting"].as_array().into_iter().flatten();
            let mut of = waits.filter(|w| w["app"] == uuid(number)).peekable();
            let reasons = ["refused", "rejected", "backoff", "degraded", "insufficient_disk"];
            let has_reason = of.any(|w| reasons.iter().any(|reason| w["reason"] == *reason));
            let apps = status["apps"].as_array().into_iter().flatten();
            let is_done = apps.filter(|a| a["uuid"] == uuid(number)).any(|a| a["update"] == "done");
            has_reason || is_done
        };
        let is_over = (0..=attacks.len()).all(is_answered);
        last = status;
        is_over.then_some(())
    });
    let own = victim.agent.dir().display().to_string();
    let mut through = reach::of(lab, victim.agent.instance(), &own);
    let waiting = last["waiting"].as_array().cloned().unwrap_or_default();
    for (n, attack) in attacks.iter().enumerate() {
        let refusal = waiting.iter().find(|w| w["app"] == uuid(n + 1) && w["reason"] == "refused");
        let why = refusal.and_then(|w| w["why"].as_str()).unwrap_or_default();
        if attack.verdict != Held && refusal.is_none() {
            through.push(format!("not refused ({:?}): {}", n + 1, attack.what));
        } else if attack.verdict == Refused && !why.contains("policy.") {
            through.push(format!("refused without a setting: {}: {why}", attack.what));
        }
        if why.contains("geheim") {
            through.push(format!("a secret is shown: {why}"));
        }
    }
    assert_eq!(
        last["apps"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|a| a["uuid"] == uuid(0) && a["update"] == "done")
            .count(),
        1,
        "the harmless app runs"
    );
    assert!(!victim.agent.log().contains("geheim"), "a secret is in the log");
    victim.cage.assert_held(victim.agent.program());
    through
}

#[test]
fn no_volume_reaches_the_host_where_the_owner_allows_nothing() {
    let lab = Lab::new("volumes");
    let through = play(&lab, &volumes(), |_| {});
    assert!(through.is_empty(), "{} went through:\n{}", through.len(), through.join("\n"));
}

#[test]
fn no_network_reaches_the_host_where_the_owner_allows_nothing() {
    let lab = Lab::new("networks");
    let before = std::fs::read_dir("/sys/class/net").unwrap().count();
    let through = play(&lab, &networks(), |_| {});
    assert!(through.is_empty(), "{} went through:\n{}", through.len(), through.join("\n"));
    assert!(!std::path::Path::new("/sys/class/net/cotterevil0").exists(), "{before}");
}

#[test]
fn no_field_of_a_service_reaches_the_host_where_the_owner_allows_nothing() {
    let lab = Lab::new("services");
    let through = play(&lab, &services(), |_| {});
    assert!(through.is_empty(), "{} went through:\n{}", through.len(), through.join("\n"));
}

#[test]
fn one_preset_allows_nothing_at_once() {
    let lab = Lab::new("preset");
    let cloud = Evil::at("127.0.0.1", polite(&json!({})));
    let mut victim = Victim::prepare(&lab, &cloud.url(), "till");
    victim.agent.set("policy.preset=strict");
    victim.agent.start_again();
    victim.until_it_answers();
    let attacks = [
        by_service(Refused, json!({ "privileged": true })),
        by_service(Refused, json!({ "runtime": "runc" })),
        by_service(Refused, json!({ "labels": { "io.balena.features.balena-socket": "1" } })),
        by_volume(Refused, local("ext4", "/dev/vda", "")),
        by_network(Refused, json!({ "driver": "macvlan" })),
    ];
    cloud.rule(polite(&Value::Object(apps(lab.image("r1"), &attacks, 1))));
    for (n, attack) in attacks.iter().enumerate() {
        let why = victim.refusal(&uuid(n + 1));
        assert!(why.contains("policy."), "{}: {why}", attack.what);
    }
    assert!(victim.agent.containers().is_empty());
}

#[test]
fn labels_of_ours_are_never_an_authors() {
    let lab = Lab::new("labels");
    let cloud = Evil::at("127.0.0.1", polite(&json!({})));
    let mut victim = Victim::start(&lab, &cloud, "till");
    // Each of these made the agent mistake what it made itself.
    let ours = json!({
        "io.cotter.instance": "default", "io.cotter.app": "stranger", "io.cotter.service": "other",
        "io.cotter.release": "other", "io.cotter.spec": "v1:0", "io.cotter.joins": "other", "io.cotter.anything": "1",
        "io.balena.supervised": "false", "io.balena.app-uuid": "x", "io.balena.service-name": "other",
        "IO.COTTER.JOINS": "other",
    });
    let mut web = service(lab.image("r1"), &json!({ "labels": ours }));
    web["labels"] = ours.clone();
    let services = json!({ "web": web, "other": service(lab.image("r2"), &json!({})) });
    let networks = json!({ "net": { "labels": ours } });
    let volumes = json!({ "data": { "labels": ours } });
    let apps = json!({
        uuid(1): app(1, "evil", &services, &networks, &volumes),
        uuid(2): app(2, "good", &json!({ "web": service(lab.image("r3"), &json!({})) }), &json!({}), &json!({})),
    });
    cloud.rule(polite(&apps));
    eventually("the other app runs", Duration::from_secs(60), || {
        let status = victim.agent.status()?;
        let good = status["apps"].as_array()?.iter().find(|a| a["uuid"] == uuid(2))?.clone();
        (good["update"] == "done").then_some(())
    });
    // No loop of create and remove: between two moments nothing changes.
    let quiet = || {
        let log = victim.agent.log();
        (log.matches("what=create").count(), log.matches("what=remove").count(), victim.agent.standing())
    };
    eventually("it comes to rest", Duration::from_secs(60), || {
        let before = quiet();
        victim.agent.until_polled(3);
        (quiet() == before).then_some(())
    });
    for container in victim.agent.containers() {
        for (label, value) in &container.labels {
            let is_ours = label.to_lowercase().starts_with("io.cotter.");
            assert!(
                !is_ours || !["stranger", "v1:0", "default"].contains(&value.as_str()),
                "{label}={value}"
            );
            // Empty, it takes the place of a label of the image.
            assert!(label != "io.cotter.joins" || value.is_empty(), "{label}={value}");
        }
    }
    for kind in ["network", "volume"] {
        let foreign = lab.docker().run(&[kind, "ls", "--quiet", "--filter", "label=io.cotter.app=stranger"]);
        assert_eq!(foreign, "", "{kind}");
    }
    victim.assert_on_duty(&cloud);
}

#[test]
fn a_link_on_the_host_leads_out_of_no_allowed_path() {
    let lab = Lab::new("links");
    let allowed = lab.dir().join("allowed");
    std::fs::create_dir_all(allowed.join("real")).unwrap();
    for (link, to) in [
        ("root", "/"),
        ("etc", "/etc"),
        ("up", "../.."),
        ("proc", "/proc/1/root"),
        ("real/deeper", "/etc"),
        ("socket", "/var/run/docker.sock"),
        ("run", "/var/run"),
    ] {
        std::os::unix::fs::symlink(to, allowed.join(link)).unwrap();
    }
    // A link that stays inside is the owner's business.
    std::os::unix::fs::symlink("real", allowed.join("inside")).unwrap();
    let cloud = Evil::at("127.0.0.1", polite(&json!({})));
    let mut victim = Victim::prepare(&lab, &cloud.url(), "till");
    victim.allow_nothing();
    victim.agent.set(&format!("policy.host_paths={}", allowed.display()));
    victim.agent.start_again();
    victim.until_it_answers();
    let at = allowed.display();
    let mut attacks = Vec::new();
    for path in [
        "root",
        "root/etc",
        "etc",
        "up",
        "proc",
        "real/deeper",
        "socket",
        "run",
        "run/docker.sock",
        "root/srv",
    ] {
        attacks.push(by_service(Refused, json!({ "volumes": [format!("{at}/{path}:/x")] })));
        attacks.push(by_service(
            Refused,
            json!({ "volumes": [{ "type": "bind", "source": format!("{at}/{path}"), "target": "/x" }] }),
        ));
        attacks.push(by_volume(Refused, local("none", &format!("{at}/{path}"), "bind")));
    }
    let mut all = apps(lab.image("r1"), &attacks, 1);
    let fine = json!({ "web": service(lab.image("r1"), &json!({ "volumes": [format!("{at}/real:/x")] })) });
    all.insert(uuid(0), app(1000, "good", &fine, &json!({}), &json!({})));
    cloud.rule(polite(&Value::Object(all)));
    eventually("what is allowed runs", Duration::from_secs(60), || {
        let status = victim.agent.status()?;
        let good = status["apps"].as_array()?.iter().find(|a| a["uuid"] == uuid(0))?.clone();
        (good["update"] == "done").then_some(())
    });
    victim.agent.until_polled(2);
    let reached: Vec<_> = victim
        .agent
        .containers()
        .iter()
        .flat_map(|c| c.raw["Mounts"].as_array().cloned().unwrap_or_default())
        .filter_map(|mount| mount["Source"].as_str().map(str::to_owned))
        .filter(|source| source.starts_with(&allowed.display().to_string()) && !source.ends_with("/real"))
        .collect();
    assert_eq!(reached, Vec::<String>::new());
    let options: Vec<_> = lab
        .docker()
        .ids("volume", victim.agent.instance())
        .iter()
        .map(|id| lab.docker().run(&["volume", "inspect", "--format", "{{json .Options}}", id]))
        .filter(|options| options.contains("allowed"))
        .collect();
    assert_eq!(options, Vec::<String>::new());
    victim.cage.assert_held(victim.agent.program());
}

#[test]
fn a_link_that_is_made_between_two_releases_is_seen() {
    let lab = Lab::new("later-link");
    let allowed = lab.dir().join("allowed");
    std::fs::create_dir_all(allowed.join("data")).unwrap();
    let cloud = Evil::at("127.0.0.1", polite(&json!({})));
    let mut victim = Victim::prepare(&lab, &cloud.url(), "till");
    victim.allow_nothing();
    victim.agent.set(&format!("policy.host_paths={}", allowed.display()));
    victim.agent.start_again();
    victim.until_it_answers();
    let release = |commit: &str, image: &str, path: &str| {
        let mounts = json!({ "volumes": [format!("{}/{path}:/x", allowed.display())] });
        let services = json!({ "web": service(image, &mounts) });
        json!({ uuid(1): app(1, commit, &services, &json!({}), &json!({})) })
    };
    cloud.rule(polite(&release("one", lab.image("r1"), "data")));
    eventually("the first release is done", Duration::from_secs(60), || {
        (victim.agent.status_value("/apps/0/update") == "done").then_some(())
    });
    // What the first one could do from inside of its container.
    std::os::unix::fs::symlink("/", allowed.join("data/x")).unwrap();
    cloud.rule(polite(&release("two", lab.image("r2"), "data/x/etc")));
    eventually("the second release has its answer", Duration::from_secs(60), || {
        // Of one moment: a moment later the first release may still be done, and the second be the target.
        let app = victim.agent.status_value("/apps/0");
        let waiting = victim.agent.status_value("/waiting").to_string();
        let is_over = waiting.contains("policy.host_paths") || app["update"] == "rejected";
        assert!(app["update"] != "done" || app["target"] != "two", "the host's root is mounted");
        is_over.then_some(())
    });
    // It was looked at when it was decided. What of a restart: the same path, another thing behind it?
    cloud.rule(polite(&release("one", lab.image("r1"), "data")));
    eventually("the first release goes on", Duration::from_secs(60), || {
        let app = victim.agent.status_value("/apps/0");
        (app["target"] == "one" && app["update"] == "done").then_some(())
    });
    for container in victim.agent.containers() {
        for mount in container.raw["Mounts"].as_array().into_iter().flatten() {
            assert!(!mount["Source"].as_str().unwrap_or_default().contains("data/x"), "{mount}");
        }
    }
    victim.cage.assert_held(victim.agent.program());
}

#[test]
fn a_password_in_options_of_a_volume_is_shown_nowhere() {
    let lab = Lab::new("password");
    let cloud = Evil::at("127.0.0.1", polite(&json!({})));
    // As an owner who allows what there is to allow.
    let mut victim = Victim::prepare(&lab, &cloud.url(), "till");
    for switch in crate::lab::switches() {
        victim.agent.set(&format!("policy.{switch}=yes"));
    }
    victim.agent.start_again();
    victim.until_it_answers();
    let secret = "geheim-7f3a";
    let options = [
        local("cifs", "//127.0.0.1/share", &format!("username=u,password={secret}")),
        local("nfs", &format!(":/{secret}"), &format!("addr=127.0.0.1,soft,timeo=1,retry=0,x={secret}")),
        local("cifs", &format!("//u:{secret}@127.0.0.1/share"), "guest"),
        json!({ "driver": "no-such-plugin", "driver_opts": { "token": secret } }),
        local("tmpfs", "tmpfs", &format!("size=1m,password={secret}")),
        local("no-such-filesystem", secret, ""),
    ];
    let attacks: Vec<_> = options.into_iter().map(|config| by_volume(Held, config)).collect();
    cloud.rule(polite(&Value::Object(apps(lab.image("r1"), &attacks, 1))));
    eventually("each has its answer", Duration::from_secs(120), || {
        let waiting = victim.agent.status_value("/waiting");
        let has = |n: usize| waiting.as_array().into_iter().flatten().any(|w| w["app"] == uuid(n + 1));
        (0..attacks.len()).all(has).then_some(())
    });
    victim.agent.until_polled(3);
    let mut printed = vec![("the log".to_owned(), victim.agent.log())];
    for words in [
        &["status"][..],
        &["status", "--json"],
        &["explain"],
        &["explain", "--json"],
        &["history"],
        &["events"],
        &["events", "--json"],
        &["plan"],
        &["plan", "--json"],
    ] {
        let out = victim.agent.cli(words);
        printed.push((
            words.join(" "),
            String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned(),
        ));
    }
    printed.push(("reports".to_owned(), cloud.asked().iter().map(crate::evil::Asked::text).collect()));
    let bundle = lab.dir().join("bundle.tar");
    let mut command = crate::support::Program::cotter();
    command.args(["support-bundle", "--config"]).arg(victim.agent.settings_file());
    command.current_dir(lab.dir()).arg("--output").arg(&bundle);
    let out = command.output().unwrap();
    printed.push((
        "the bundle's own words".to_owned(),
        String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned(),
    ));
    let tar =
        std::fs::read(&bundle).unwrap_or_else(|e| panic!("no bundle ({e}): {}", printed.last().unwrap().1));
    printed.push(("the bundle".to_owned(), String::from_utf8_lossy(&tar).into_owned()));
    // The same volume once more: what exists is compared with what is wanted, and neither is shown.
    let leaks: Vec<_> = printed
        .iter()
        .filter(|(_, text)| text.contains(secret))
        .map(|(what, text)| {
            let at = text.find(secret).unwrap_or_default();
            let near: String =
                text[..at].chars().rev().take(120).collect::<Vec<_>>().into_iter().rev().collect();
            format!("{what}: …{near}")
        })
        .collect();
    assert!(leaks.is_empty(), "{}", leaks.join("\n"));
    victim.cage.assert_held(victim.agent.program());
}

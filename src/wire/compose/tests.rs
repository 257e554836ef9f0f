//! One service's fields as JSON → the spec's field as text, or the refusals and warnings with their paths.

use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::model::Strategy as How;

const IMAGE: &str = "r.example/web@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

fn release(value: Value) -> ReleaseState {
    serde_json::from_value(value).unwrap()
}

/// A release with the service `web`, and `db` without any field.
fn web(composition: &Value) -> (Contents, Notes) {
    let service =
        |composition: &Value| json!({"id": 1, "image_id": 2, "image": IMAGE, "composition": composition});
    let services = json!({"web": service(composition), "db": service(&json!({}))});
    read(&release(json!({"id": 3, "services": services})), Form::Target)
}

/// The spec of `web`; panics with the refusals if there are any.
fn spec(composition: &Value) -> ServiceSpec {
    let (contents, notes) = web(composition);
    assert_eq!(notes.refusals, [], "{composition}");
    contents.services[&ServiceName::parse("web").unwrap()].clone()
}

/// Refusals, each as `path: why`, with the usual beginning of the path as `~`.
fn refusals(composition: &Value) -> Vec<String> {
    texts(&web(composition).1.refusals)
}

fn warnings(composition: &Value) -> Vec<String> {
    let (_, notes) = web(composition);
    assert_eq!(notes.refusals, [], "{composition}");
    texts(&notes.warnings)
}

fn texts(notes: &[Refusal]) -> Vec<String> {
    notes.iter().map(|note| note.to_string().replace("services.web.composition", "~")).collect()
}

/// A part of a spec as JSON, for comparing with literals.
fn shown(part: &impl serde::Serialize) -> Value {
    serde_json::to_value(part).unwrap()
}

fn ports(composition: &Value) -> String {
    let port = |p: &crate::model::PortMapping| {
        let host = p.host_port.map_or("?".to_owned(), |port| port.to_string());
        format!("{}|{host}|{}|{:?}", p.host_ip, p.container_port, p.protocol).to_lowercase()
    };
    spec(composition).ports.iter().map(port).collect::<Vec<_>>().join(" ")
}

#[test]
fn ports_that_are_accepted() {
    for (given, mappings) in [
        (json!(["80"]), "|80|80|tcp"),
        (json!([80]), "|80|80|tcp"),
        (json!(["8080:80"]), "|8080|80|tcp"),
        (json!(["8080:80/udp"]), "|8080|80|udp"),
        (json!(["127.0.0.1:8080:80"]), "127.0.0.1|8080|80|tcp"),
        (json!(["127.0.0.1::8080"]), "127.0.0.1|?|8080|tcp"),
        (json!(["[::1]:8080:80"]), "::1|8080|80|tcp"),
        (json!(["9000-9001:80-81"]), "|9000|80|tcp |9001|81|tcp"),
        (json!(["127.0.0.1:9000-9001:9000-9001/tcp"]), "127.0.0.1|9000|9000|tcp 127.0.0.1|9001|9001|tcp"),
        (json!(["3000-3001"]), "|3000|3000|tcp |3001|3001|tcp"),
        (json!(["65535:65535"]), "|65535|65535|tcp"),
        (json!(["53:53/tcp", "53:53/udp"]), "|53|53|tcp |53|53|udp"),
        (json!(["0.0.0.0:80:80", "[::]:80:80"]), "0.0.0.0|80|80|tcp ::|80|80|tcp"),
        (json!([{"target": 80}]), "|?|80|tcp"),
        (
            json!([{"target": 80, "published": "8080", "host_ip": "::1", "protocol": "udp"}]),
            "::1|8080|80|udp",
        ),
        (json!([]), ""),
        (json!(null), ""),
    ] {
        assert_eq!(ports(&json!({"ports": given})), mappings, "{given}");
    }
}

#[test]
fn ports_that_are_refused() {
    let short = "\"[address:][host port[-end]:]container port[-end][/tcp|/udp]\", e.g. \"8080:80\"";
    for (given, why) in [
        (json!("0"), "\"0\" is not accepted: write ports from 1 to 65535".to_owned()),
        (json!(70000), "70000 is not accepted: write ports from 1 to 65535".into()),
        (json!("0:80"), "\"0:80\" is not accepted: write ports from 1 to 65535".into()),
        (json!("8080:70000"), "\"8080:70000\" is not accepted: write ports from 1 to 65535".into()),
        (json!("80/sctp"), "\"80/sctp\" is not accepted: write a port with /tcp or /udp".into()),
        (json!("1-3:1-2"), "\"1-3:1-2\" is not accepted: write as many host ports as container ports".into()),
        (
            json!("8000-8010:80"),
            "\"8000-8010:80\" is not accepted: write as many host ports as container ports".into(),
        ),
        (json!("9-8"), "the range 9-8 runs backwards: put the lower port first".into()),
        (json!(":80"), format!("\":80\" is not accepted: write {short}")),
        (json!("::80"), format!("\"::80\" is not accepted: write {short}")),
        (json!(""), format!("\"\" is not accepted: write {short}")),
        (json!("80:"), format!("\"80:\" is not accepted: write {short}")),
        (json!("${PORT}:80"), format!("\"${{PORT}}:80\" is not accepted: write {short}")),
        (json!(null), format!("null is not accepted: write {short}")),
        (json!(80.5), "80.5 is not accepted: write a port from 1 to 65535".into()),
        (json!(-1), "-1 is not accepted: write a port from 1 to 65535".into()),
        (
            json!("host:80:80"),
            "\"host:80:80\" is not accepted: write an address of the host before the ports, IPv6 in brackets"
                .into(),
        ),
        (
            json!("[1.2.3.4]:80:80"),
            "\"[1.2.3.4]:80:80\" is not accepted: write an address of the host before the ports, IPv6 in \
             brackets"
                .into(),
        ),
    ] {
        assert_eq!(refusals(&json!({"ports": [given]})), [format!("~.ports[0]: {why}")], "{given}");
    }
    for (given, expected) in [
        (json!("80:80"), "~.ports: \"80:80\" is not accepted: write a list"),
        (json!([{"published": 1}]), "~.ports[0]: it has no target: write the container's port as target"),
        (
            json!([{"target": 1, "published": "1-2"}]),
            "~.ports[0].published: \"1-2\" is not accepted: write a port from 1 to 65535",
        ),
        (json!(["1:1", "1:2"]), "~.ports[1]: host port 1 is published twice: remove one"),
        (json!(["1:1", "127.0.0.1:1:2"]), "~.ports[1]: host port 1 is published twice: remove one"),
        (json!(["1", "1"]), "~.ports[1]: host port 1 is published twice: remove one"),
        (json!(["1-20001"]), "~.ports[0]: a service may publish 20000 ports at most: publish fewer"),
    ] {
        assert_eq!(refusals(&json!({"ports": given})), [expected], "{given}");
    }
    let all = refusals(&json!({"ports": ["x", "80", "y"], "cpus": "all"}));
    let paths: Vec<_> = all.iter().map(|text| text.split(": ").next().unwrap()).collect();
    assert_eq!(paths, ["~.ports[0]", "~.ports[2]", "~.cpus"], "all of them are reported");
}

#[test]
fn commands() {
    for (given, words) in [
        (json!("sh -c \"sleep 100000\""), json!(["sh", "-c", "sleep 100000"])),
        (json!("echo $HOME | cat"), json!(["echo", "$HOME", "|", "cat"])),
        (json!(["sh", "-c", "a b"]), json!(["sh", "-c", "a b"])),
        (json!(["sleep", 5]), json!(["sleep", "5"])),
        (json!(""), json!([])),
        (json!(null), json!(null)),
    ] {
        let spec = spec(&json!({"command": given, "entrypoint": given}));
        assert_eq!(shown(&spec.command), words, "{given}");
        assert_eq!(shown(&spec.entrypoint), words, "{given}");
    }
    assert_eq!(
        refusals(&json!({"command": "echo 'a", "entrypoint": 5})),
        [
            "~.command: a quote is not closed: close it, or write the command as a list of texts",
            "~.entrypoint: 5 is not accepted: write a text or a list of texts",
        ]
    );
}

#[test]
fn volumes_and_tmpfs() {
    for (given, mounts, tmpfs) in [
        (json!({"volumes": ["data:/data"]}), json!([[{"volume": "data"}, "/data", false]]), json!({})),
        (json!({"volumes": ["data:/data/:ro"]}), json!([[{"volume": "data"}, "/data", true]]), json!({})),
        (json!({"volumes": ["data:/data:rw"]}), json!([[{"volume": "data"}, "/data", false]]), json!({})),
        (json!({"volumes": ["/tmp/x"]}), json!([["anonymous", "/tmp/x", false]]), json!({})),
        (
            json!({"volumes": [{"type": "volume", "source": "d", "target": "/d", "read_only": true}]}),
            json!([[{"volume": "d"}, "/d", true]]),
            json!({}),
        ),
        (
            json!({"volumes": [{"type": "volume", "target": "/d"}]}),
            json!([["anonymous", "/d", false]]),
            json!({}),
        ),
        (
            json!({"volumes": [{"type": "tmpfs", "target": "/t", "tmpfs": {"size": "1m", "mode": 493}}]}),
            json!([]),
            json!({"/t": "size=1048576,mode=755"}),
        ),
        (
            json!({"volumes": [{"type": "tmpfs", "target": "/t", "tmpfs": {"mode": "01770"}}]}),
            json!([]),
            json!({"/t": "mode=1770"}),
        ),
        (json!({"tmpfs": "/run"}), json!([]), json!({"/run": ""})),
        (
            json!({"tmpfs": ["/run:size=64m,mode=1777,noexec", "/tmp"]}),
            json!([]),
            json!({"/run": "size=67108864,mode=1777,noexec", "/tmp": ""}),
        ),
    ] {
        let spec = spec(&given);
        let found: Vec<_> = spec.mounts.iter().map(|m| json!([m.source, m.target, m.is_read_only])).collect();
        assert_eq!(Value::from(found), mounts, "{given}");
        assert_eq!(shown(&spec.tmpfs), tmpfs, "{given}");
    }
}

#[test]
fn volumes_that_are_refused() {
    let host = "is a path relative to the compose file, which devices do not have: use a named volume, put the \
                files into the image, or mount small files read-only (\":ro\"), and `cotter release create` takes their content \
                into the release";
    for (given, expected) in [
        (json!(["./a:/a"]), format!("~.volumes[0]: \"./a\" {host}")),
        (json!(["~/a:/a"]), format!("~.volumes[0]: \"~/a\" {host}")),
        (json!([{"type": "bind", "source": "./a", "target": "/e"}]), format!("~.volumes[0]: \"./a\" {host}")),
        (
            json!(["/etc/../root:/etc"]),
            "~.volumes[0]: \"/etc/../root:/etc\" is not accepted: write an absolute path of the host, without \"..\""
                .into(),
        ),
        (
            json!([{"type": "bind", "source": "a", "target": "/e"}]),
            "~.volumes[0]: a map is not accepted: write an absolute path of the host as source".into(),
        ),
        (json!(["a:/x", "b:/x/"]), "~.volumes[1]: \"/x\" is mounted twice: remove one".into()),
        (
            json!(["a:x"]),
            "~.volumes[0]: \"a:x\" is not accepted: write an absolute path in the container, other than \"/\" \
             and without \"..\""
                .into(),
        ),
        (
            json!(["a:/x:ro,magic"]),
            "~.volumes[0]: \"a:/x:ro,magic\" is not accepted: write \"ro\", \"rw\" or \"nocopy\" as the mode of a \
             volume"
                .into(),
        ),
        (
            json!(["a"]),
            "~.volumes[0]: \"a\" is not accepted: write \"volume:/path\", \"volume:/path:ro\" or \"/path\""
                .into(),
        ),
        (
            json!([{"type": "npipe", "source": "a", "target": "/a"}]),
            "~.volumes[0].type: \"npipe\" is not accepted: write \"volume\", \"tmpfs\" or \"bind\"".into(),
        ),
        (
            json!([{"source": "a", "target": "/a", "volume": {"subpath": "../b"}}]),
            "~.volumes[0].volume.subpath: \"../b\" is not accepted: write a path within the volume, without \"..\""
                .into(),
        ),
        (
            json!([{"source": "-a", "target": "/a"}]),
            "~.volumes[0]: \"-a\" is not a volume name: it must be letters, digits, '_', '.' and '-', beginning \
             with a letter or digit, 255 at most"
                .into(),
        ),
    ] {
        assert_eq!(refusals(&json!({"volumes": given})), [expected], "{given}");
    }
    assert_eq!(refusals(&json!({"tmpfs": ["/a:size=many", "/b:exec=1", "c"], "volumes": ["/d"]})).len(), 3);
}

#[test]
fn networks() {
    for (given, mode) in [
        (
            json!({}),
            json!({"networks": {"default": {"aliases": [], "ipv4_address": null, "ipv6_address": null}}}),
        ),
        (json!({"network_mode": "host"}), json!("host")),
        (json!({"network_mode": "none"}), json!("none")),
        (json!({"network_mode": "bridge"}), json!("bridge")),
        (
            json!({"network_mode": "back"}),
            json!({"networks": {"back": {"aliases": [], "ipv4_address": null, "ipv6_address": null}}}),
        ),
        (
            json!({"networks": ["back"]}),
            json!({"networks": {"back": {"aliases": [], "ipv4_address": null, "ipv6_address": null}}}),
        ),
        (
            json!({"networks": {"a": null, "b": {"aliases": ["w", "x"]}}}),
            json!({"networks": {
                "a": {"aliases": [], "ipv4_address": null, "ipv6_address": null},
                "b": {"aliases": ["w", "x"], "ipv4_address": null, "ipv6_address": null},
            }}),
        ),
    ] {
        assert_eq!(shown(&spec(&given).network_mode), mode, "{given}");
    }
    for (given, expected) in [
        (
            json!({"network_mode": "container:x"}),
            "~.network_mode: a container outside of the release cannot be joined: write \"service:NAME\" with a \
             service of the release",
        ),
        (
            json!({"network_mode": "host", "networks": ["a"]}),
            "~.network_mode: host cannot be combined with networks: remove one of the two",
        ),
        (
            json!({"networks": {"a": {"ipv4_address": "10.0.0.5"}}}),
            "~.networks.a: a fixed address needs a subnet: write one under networks.a.ipam.config",
        ),
        (
            json!({"networks": {"a": {"ipv4_address": "10.0.0.500"}}}),
            "~.networks.a.ipv4_address: \"10.0.0.500\" is not accepted: write an IPv4 address, e.g. \
             \"172.28.0.10\"",
        ),
        (
            json!({"networks": {"a": {"interface_name": "eth9"}}}),
            "~.networks.a.interface_name: it is not supported: write aliases, ipv4_address, ipv6_address, \
             link_local_ips, mac_address, driver_opts, priority or gw_priority only",
        ),
        (
            json!({"networks": "a"}),
            "~.networks: \"a\" is not accepted: write a list of networks, or a map of networks",
        ),
    ] {
        assert_eq!(refusals(&given), [expected], "{given}");
    }
}

#[test]
fn restart_policies() {
    for (given, policy) in [
        (json!(null), json!("always")),
        (json!("always"), json!("always")),
        (json!("No"), json!("no")),
        (json!(false), json!("no")),
        (json!("unless-stopped"), json!("unless_stopped")),
        (json!("on-failure"), json!({"on_failure": {"retries": 0}})),
        (json!("on-failure:3"), json!({"on_failure": {"retries": 3}})),
    ] {
        assert_eq!(shown(&spec(&json!({"restart": given})).restart), policy, "{given}");
    }
    for bad in [
        json!("sometimes"),
        json!("on-failure:"),
        json!("on-failure:-1"),
        json!("on-failure:9999999999"),
        json!(true),
    ] {
        assert_eq!(refusals(&json!({"restart": bad})).len(), 1, "{bad}");
    }
}

#[test]
fn dependencies() {
    for (given, conditions) in [
        (json!(["db"]), json!({"db": "service_started"})),
        (json!({"db": null}), json!({"db": "service_started"})),
        (json!({"db": {"condition": "service_healthy", "required": true}}), json!({"db": "service_healthy"})),
    ] {
        assert_eq!(shown(&spec(&json!({"depends_on": given})).depends_on), conditions, "{given}");
    }
    assert_eq!(
        warnings(&json!({"depends_on": {"db": {"required": false, "restart": true}}})),
        [
            "~.depends_on.db.restart: not honoured: a service is not restarted with its dependency",
            "~.depends_on.db.required: not honoured: a dependency that the release has is required",
        ]
    );
    for (given, expected) in [
        (
            json!(["missing"]),
            "~.depends_on.missing: there is no service missing in the release: add it, or remove this",
        ),
        (json!(["web"]), "~.depends_on: services wait for each other: web → web: remove one dependency"),
        (
            json!({"db": {"condition": "later"}}),
            "~.depends_on.db.condition: \"later\" is not accepted: write \"service_started\", \
             \"service_healthy\" or \"service_completed_successfully\"",
        ),
    ] {
        assert_eq!(refusals(&json!({"depends_on": given})), [expected], "{given}");
    }
}

#[test]
fn a_service_that_another_one_waits_for_until_it_has_ended_runs_once() {
    let read_db = |db: Value| {
        let service =
            |composition: Value| json!({"id": 1, "image_id": 1, "image": "a", "composition": composition});
        let waiting = json!({"depends_on": {"db": {"condition": "service_completed_successfully"}}});
        let services = json!({"db": service(db), "web": service(waiting)});
        let (contents, notes) = read(&release(json!({"id": 1, "services": services})), Form::File);
        (contents.services[&ServiceName::parse("db").unwrap()].restart, texts(&notes.refusals))
    };
    assert_eq!(read_db(json!({})), (RestartPolicy::No, Vec::new()));
    let on_failure = RestartPolicy::OnFailure { retries: 0 };
    assert_eq!(read_db(json!({"restart": "on-failure"})), (on_failure, Vec::new()));
    let endless = "services.web.depends_on.db: db never completes, because it is restarted whenever it ends: give db restart: \
                   \"no\" or \"on-failure\" (the default is \"always\")";
    assert_eq!(read_db(json!({"restart": "always"})), (RestartPolicy::Always, vec![endless.to_owned()]));
}

#[test]
fn a_command_has_no_comments() {
    for (given, words) in [
        ("app --channel #general --x", vec!["app", "--channel", "#general", "--x"]),
        ("a#b '# c' \"# d\" \\#e", vec!["a#b", "# c", "# d", "#e"]),
        ("#first", vec!["#first"]),
    ] {
        let wanted: Vec<String> = words.into_iter().map(str::to_owned).collect();
        assert_eq!(spec(&json!({"command": given})).command, Some(wanted), "{given}");
    }
}

#[test]
fn cycles_are_named() {
    let service =
        |on: &[&str]| json!({"id": 1, "image_id": 1, "image": "a", "composition": {"depends_on": on}});
    let services = json!({
        "a": service(&["b"]), "b": service(&["c", "e"]), "c": service(&["d"]), "d": service(&["b"]), "e": service(&[]),
    });
    let (_, notes) = read(&release(json!({"id": 1, "services": services})), Form::File);
    assert_eq!(
        texts(&notes.refusals),
        ["services.b.depends_on: services wait for each other: b → c → d → b: remove one dependency"]
    );
}

#[test]
fn two_ways_to_one_service_are_no_cycle_and_hide_none() {
    let service =
        |on: &[&str]| json!({"id": 1, "image_id": 1, "image": "a", "composition": {"depends_on": on}});
    let mut services = json!({
        "a": service(&["b", "c"]), "b": service(&["d"]), "c": service(&["d"]), "d": service(&[]),
    });
    let (_, notes) = read(&release(json!({"id": 1, "services": services})), Form::Target);
    assert_eq!(notes, Notes::default());
    services["x"] = service(&["a", "y"]);
    services["y"] = service(&["x"]);
    let (_, notes) = read(&release(json!({"id": 1, "services": services})), Form::File);
    assert_eq!(
        texts(&notes.refusals),
        ["services.x.depends_on: services wait for each other: x → y → x: remove one dependency"]
    );
}

#[test]
fn healthchecks() {
    let check = |probe: Value, interval: Value, retries: Value| json!({"probe": probe, "interval": interval, "timeout": null, "start_period": null, "retries": retries});
    let ten = json!({"secs": 10, "nanos": 0});
    for (given, wanted) in [
        (
            json!({"test": "curl -f x || exit 1"}),
            check(json!({"shell": "curl -f x || exit 1"}), json!(null), json!(null)),
        ),
        (
            json!({"test": ["CMD", "true"], "interval": "10s"}),
            check(json!({"command": ["true"]}), ten.clone(), json!(null)),
        ),
        (
            json!({"test": ["CMD-SHELL", "a b"], "retries": 5}),
            check(json!({"shell": "a b"}), json!(null), json!(5)),
        ),
        (json!({"test": ["NONE"]}), check(json!("disabled"), json!(null), json!(null))),
        (json!({"disable": true, "interval": "10s"}), check(json!("disabled"), json!(null), json!(null))),
        (json!({"interval": "10s"}), check(json!("inherit"), ten, json!(null))),
        (json!({}), json!(null)),
        (json!({"interval": "0s"}), json!(null)),
    ] {
        assert_eq!(shown(&spec(&json!({"healthcheck": given})).healthcheck), wanted, "{given}");
    }
    let given = json!({"healthcheck": {"timeout": "2s", "start_period": "1m30s"}});
    let times = spec(&given).healthcheck.map(|c| (c.timeout, c.start_period)).unwrap();
    assert_eq!(shown(&times), json!([{"secs": 2, "nanos": 0}, {"secs": 90, "nanos": 0}]));
    let given = json!({"healthcheck": {"start_interval": "1s"}});
    assert_eq!(spec(&given).healthcheck.unwrap().start_interval, Some(Duration::from_secs(1)));
    for (bad, path) in [
        (json!({"test": ["RUN", "x"]}), "~.healthcheck.test"),
        (json!({"test": ["CMD"]}), "~.healthcheck.test"),
        (json!({"interval": 30}), "~.healthcheck.interval"),
        (json!({"interval": "10us"}), "~.healthcheck.interval"),
        (json!({"retries": "many"}), "~.healthcheck.retries"),
        (json!({"tset": "x"}), "~.healthcheck.tset"),
        (json!([]), "~.healthcheck"),
    ] {
        let found = refusals(&json!({"healthcheck": bad}));
        assert_eq!(found.iter().map(|t| t.split(": ").next().unwrap()).collect::<Vec<_>>(), [path], "{bad}");
    }
}

#[test]
fn plain_values() {
    let empty = json!({"user": "", "working_dir": "", "hostname": "", "stop_signal": "", "network_mode": ""});
    assert_eq!(spec(&empty), spec(&json!({})), "an empty text is absent");
    assert_eq!(spec(&json!({"tty": "false"})), spec(&json!({})), "flags may be texts");
    assert!(spec(&json!({"tty": "true"})).has_tty);
    let spec = spec(&json!({
        "user": 1000, "working_dir": "/srv", "hostname": "h", "stop_grace_period": "1m30s", "stop_signal": "term",
        "mem_limit": "64m", "cap_add": ["CAP_net_admin"], "cap_drop": ["all"], "init": false, "tty": true,
        "read_only": true, "privileged": true, "devices": ["/dev/a", "/dev/b:/dev/c:r", {"source": "/dev/d", "permissions": "rw"}],
        "ulimits": {"nofile": {"soft": 1024, "hard": 2048}, "nproc": "-1"}, "extra_hosts": {"a": "1.2.3.4", "b": "[::1]"},
    }));
    assert_eq!(spec.user.as_deref(), Some("1000"));
    assert_eq!(spec.working_dir.as_deref(), Some("/srv"));
    assert_eq!(spec.hostname.as_deref(), Some("h"));
    assert_eq!(shown(&spec.stop_grace), json!({"secs": 90, "nanos": 0}));
    assert_eq!(spec.stop_signal.as_deref(), Some("SIGTERM"));
    assert_eq!(spec.memory_limit, Some(67_108_864));
    assert_eq!((shown(&spec.cap_add), shown(&spec.cap_drop)), (json!(["NET_ADMIN"]), json!(["ALL"])));
    assert_eq!(spec.has_init, Some(false));
    assert!(spec.has_tty && spec.is_read_only && spec.is_privileged && spec.is_running);
    let devices: Vec<_> = spec
        .devices
        .iter()
        .map(|d| format!("{}>{}>{}", d.host_path, d.container_path, d.permissions))
        .collect();
    assert_eq!(devices, ["/dev/a>/dev/a>rwm", "/dev/b>/dev/c>r", "/dev/d>/dev/d>rw"]);
    assert_eq!(
        shown(&spec.ulimits),
        json!({"nofile": {"soft": 1024, "hard": 2048}, "nproc": {"soft": -1, "hard": -1}})
    );
    assert_eq!(shown(&spec.extra_hosts), json!(["a:1.2.3.4", "b:::1"]));
    assert_eq!((spec.service_id, spec.image_id), (1, 2));
}

#[test]
fn plain_values_that_are_refused() {
    for (field, bad) in [
        ("working_dir", json!("srv")),
        ("hostname", json!("a b")),
        ("stop_grace_period", json!(10)),
        ("stop_grace_period", json!("10 parsecs")),
        ("stop_signal", json!("SIGNIFICANT")),
        ("stop_signal", json!(65)),
        ("mem_limit", json!("64q")),
        ("mem_limit", json!("1m")),
        ("mem_limit", json!(-5)),
        ("cap_add[0]", json!(["FLY"])),
        ("cap_drop", json!("ALL")),
        ("devices[0]", json!(["vendor.com/gpu=all"])),
        ("devices[0].owner", json!([{"source": "/dev/a", "owner": "me"}])),
        ("devices[0]", json!([{"target": "/dev/a"}])),
        ("devices[0]", json!(["/dev/a:/dev/b:x"])),
        ("devices[1]", json!(["/dev/a", "/dev/a"])),
        ("init", json!("perhaps")),
        ("tty", json!(1)),
        ("ulimits.flies", json!({"flies": 1})),
        ("ulimits.nofile", json!({"nofile": {"soft": 1}})),
        ("ulimits.nofile", json!({"nofile": "many"})),
        ("volumes[0].tmpfs.mode", json!([{"type": "tmpfs", "target": "/t", "tmpfs": {"mode": "0799"}}])),
        ("volumes[0].tmpfs.mode", json!([{"type": "tmpfs", "target": "/t", "tmpfs": {"mode": 99999}}])),
        ("ulimits.nofile", json!({"nofile": {"soft": 2, "hard": 1}})),
        ("extra_hosts[0]", json!(["a"])),
        ("extra_hosts.a", json!({"a": "nowhere"})),
    ] {
        let key = field.split(['[', '.']).next().unwrap();
        let found = refusals(&json!({key: bad}));
        let paths: Vec<_> = found.iter().map(|text| text.split(": ").next().unwrap().to_owned()).collect();
        assert_eq!(paths, [format!("~.{field}")], "{bad}");
    }
}

#[test]
fn fields_that_are_not_honoured() {
    for (given, expected) in [
        (json!({"build": "."}), vec!["~.build: not honoured: images are built before a release is made"]),
        (json!({"x-mine": {"a": 1}}), vec![]),
        (json!({"expose": []}), vec![]),
        (json!({"links": ["db"]}), vec!["~.links[0]: it is not needed: services find each other by name"]),
        (
            json!({"network_mode": "host", "ports": ["80:80"]}),
            vec!["~.ports: not honoured: with network_mode host every port is a port of the host"],
        ),
        (
            json!({"environment": ["A", "B="]}),
            vec!["~.environment[0]: it has no value and is left out: write one, or \"\" for an empty one"],
        ),
        (json!({"volumes": ["a:/a:z"]}), vec!["~.volumes[0]: the mode \"z\" has no effect here"]),
    ] {
        assert_eq!(warnings(&given), expected, "{given}");
    }
    for (given, expected) in [
        (
            json!({"sysctls": {"vm.swappiness": 1}}),
            vec![
                "~.sysctls.vm.swappiness: a container does not have its own value of it: set it on the host, and remove it here",
            ],
        ),
        (json!({"sysctls": {}, "dns": null, "pid": ""}), vec![]),
        (
            json!({"pid": "container:db"}),
            vec![
                "~.pid: a container outside of the release cannot be joined: write \"service:NAME\" with a service of the release",
            ],
        ),
        (json!({"networkMode": "host"}), vec!["~.networkMode: unknown field: write network_mode"]),
        (json!({"prots": ["80"]}), vec!["~.prots: unknown field: correct its name, or remove it"]),
        (
            json!({"links": ["gone:database"]}),
            vec!["~.links[0]: there is no service gone in the release: add it, or remove the link"],
        ),
    ] {
        assert_eq!(refusals(&given), expected, "{given}");
    }
}

#[test]
fn environment_and_labels_are_overlaid() {
    let state = json!({"id": 3, "services": {"web": {
        "id": 1, "image_id": 2, "image": "a",
        "environment": {"CLASH": "target", "LATE": "t"},
        "labels": {"clash": "target", "io.resin.features.dbus": "1"},
        "composition": {
            "environment": ["COMPOSE=1", "CLASH=compose", "EQ=a=b", "LATE"],
            "labels": {"clash": "compose", "n": 5, "flag": true, "io.balena.features.dbus": "0"},
        },
    }}});
    let (contents, notes) = read(&release(state), Form::Target);
    assert_eq!((notes.refusals, notes.warnings), (vec![], vec![]));
    let spec = contents.services.values().next().unwrap();
    assert_eq!(
        shown(&spec.environment),
        json!({"CLASH": "target", "COMPOSE": "1", "EQ": "a=b", "LATE": "t"})
    );
    assert_eq!(
        shown(&spec.labels),
        json!({"clash": "target", "flag": "true", "io.balena.features.dbus": "0", "n": "5"})
    );
}

#[test]
fn a_refused_value_of_the_environment_is_not_shown() {
    let all =
        refusals(&json!({"environment": {"KEY": ["s3cret"], "": "s3cret", "A": "s3cret\u{0}"}})).join("\n");
    assert_eq!(all.lines().count(), 3);
    assert!(!all.contains("s3cret"), "{all}");
}

#[test]
fn networks_and_volumes_of_a_release() {
    let (contents, notes) = read(
        &release(json!({
            "id": 1,
            "services": {"web": {"id": 1, "image_id": 1, "image": "a", "composition": {
                "networks": {"back": {"ipv4_address": "172.28.0.10"}, "plain": null}, "volumes": ["used:/u"],
            }}},
            "networks": {
                "default": {},
                "back": {"driver": "bridge", "ipam": {"config": [{"subnet": "172.28.0.0/16", "gateway": "172.28.0.1"}]}},
                "plain": {"driver": "bridge", "external": false},
            },
            "volumes": {"data": null, "named": {"driver": "local", "labels": {"a": "b"}}},
        })),
        Form::Target,
    );
    assert_eq!(notes, Notes::default());
    let found: Vec<_> = contents.networks.iter().map(|(n, s)| format!("{n} {:?}", s.config_hash)).collect();
    assert_eq!(found, ["back Some(\"d0a933e2\")", "plain None"], "no default, because nothing is on it");
    let found: Vec<_> =
        contents.volumes.iter().map(|(n, s)| format!("{n} {:?} {:?}", s.driver, s.labels)).collect();
    assert_eq!(found, ["data \"\" {}", "named \"\" {\"a\": \"b\"}", "used \"\" {}"]);
}

#[test]
fn networks_and_volumes_that_are_refused() {
    for (part, given, expected) in [
        (
            "networks",
            json!({"external": true}),
            "networks.n.external: networks and volumes outside of the release are not used: remove it, and the app gets its own",
        ),
        (
            "volumes",
            json!({"name": "x"}),
            "volumes.n.name: networks and volumes outside of the release are not used: remove it, and the app gets its own",
        ),
        (
            "networks",
            json!({"ipam": {"config": [{"subnet": "10.0.0.0"}]}}),
            "networks.n.ipam.config[0].subnet: \"10.0.0.0\" is not accepted: write an address range, e.g. \"172.28.0.0/16\"",
        ),
        (
            "networks",
            json!({"ipam": {"config": [{"gateway": "10.0.0.1"}]}}),
            "networks.n.ipam.config[0]: it has no subnet: write one, e.g. \"172.28.0.0/16\"",
        ),
        (
            "networks",
            json!({"ipam": {"pools": {"a": "b"}}}),
            "networks.n.ipam.pools: it is not supported: write config, driver and options only",
        ),
        ("networks", json!("x"), "networks.n: \"x\" is not accepted: write a map"),
        (
            "networks",
            json!({"driver": "overlay"}),
            "networks.n.driver: the driver \"overlay\" is not for a network of a release: leave it out, or give the services network_mode host or none",
        ),
        (
            "volumes",
            json!({"driver_opts": {"type": "none", "o": "bind", "device": "etc"}}),
            "volumes.n.driver_opts.device: it is not an absolute path of the host: write one, or remove driver_opts",
        ),
    ] {
        let (_, notes) = read(&release(json!({"id": 1, part: {"n": given}})), Form::Target);
        assert_eq!(first_of(&notes), expected, "{given}");
    }
}

fn first_of(notes: &Notes) -> String {
    notes.refusals.first().map(ToString::to_string).unwrap_or_default()
}

#[test]
fn two_services_cannot_have_one_host_port() {
    let state = |running: bool| {
        let service = json!({"id": 1, "image_id": 1, "image": "a", "composition": {"ports": ["80:80"]}});
        let mut other = service.clone();
        other["running"] = json!(running);
        release(json!({"id": 1, "services": {"a": service, "b": other}}))
    };
    let (_, notes) = read(&state(true), Form::Target);
    assert_eq!(
        texts(&notes.refusals),
        [
            "services.b.composition.ports: host port 80 is published by another service, too: choose another one"
        ]
    );
    assert_eq!(read(&state(false), Form::Target).1, Notes::default(), "one of them does not run");
}

#[test]
fn the_list_of_refusals_is_bounded() {
    let many: Vec<Value> = (0..500).map(|_| json!("x")).collect();
    let (_, notes) = web(&json!({"ports": many}));
    assert_eq!(notes.refusals.len(), 65);
    assert_eq!(notes.refusals[64].why, "there are more, which are not listed");
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-z0-9:/.,=$ -]{0,12}".prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(any_key(), inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// Keys that mean something somewhere, and others.
fn any_key() -> impl Strategy<Value = String> {
    let known = "ports volumes tmpfs networks network_mode restart depends_on healthcheck test interval target \
                 published source type read_only command environment labels devices ulimits extra_hosts mem_limit \
                 cap_add stop_signal condition aliases ipam config subnet driver driver_opts size nofile soft hard \
                 web default sysctls cpus cpu_quota deploy resources limits memory pids reservations logging options \
                 gpus count device_ids blkio_config weight_device path weight dns security_opt device_cgroup_rules \
                 mac_address annotations volume nocopy subpath bind propagation mode memswap_limit ipc pid uts priority";
    let known: Vec<String> = known.split_ascii_whitespace().map(str::to_owned).collect();
    prop_oneof![prop::sample::select(known), "[a-z]{1,6}", any::<String>()]
}

proptest! {
    /// Nothing panics, and what is accepted has a hash.
    #[test]
    fn any_json_is_answered(
        composition in prop::collection::btree_map(any_key(), any_json(), 0..6),
        network in any_json(),
        volume in any_json(),
    ) {
        let composition: serde_json::Map<_, _> = composition.into_iter().collect();
        let state = release(json!({
            "id": 1,
            "services": {"web": {"id": 1, "image_id": 1, "image": "a", "composition": composition}},
            "networks": {"n": network},
            "volumes": {"v": volume},
        }));
        let (contents, _) = read(&state, Form::Target);
        for spec in contents.services.values() {
            prop_assert!(!spec.hash.as_str().ends_with(&"0".repeat(64)));
        }
    }

    #[test]
    fn rendered_ports_come_back(
        ip in prop_oneof![Just(String::new()), Just("127.0.0.1:".to_owned()), Just("[fe80::1]:".to_owned())],
        host in 1_u16..60_000, container in 1_u16..60_000, more in 0_u16..20, is_udp in any::<bool>(),
    ) {
        let protocol = if is_udp { "udp" } else { "tcp" };
        let text = format!("{ip}{host}-{}:{container}-{}/{protocol}", host + more, container + more);
        let spec = spec(&json!({"ports": [text]}));
        prop_assert_eq!(spec.ports.len(), usize::from(more) + 1);
        let last = spec.ports.last().unwrap();
        prop_assert_eq!((last.host_port, last.container_port), (Some(host + more), container + more));
        prop_assert_eq!(&last.host_ip, ip.trim_end_matches(':').trim_matches(['[', ']']));
    }
}

/// With these labels, and other fields.
fn labelled(labels: &[(&str, &str)], mut fields: Value) -> Value {
    fields["labels"] = labels.iter().copied().collect::<BTreeMap<_, _>>().into_iter().collect();
    fields
}

#[test]
fn strategies_that_are_accepted() {
    let strategy = "io.balena.update.strategy";
    let timeout = "io.balena.update.handover-timeout";
    let day = Duration::from_secs(86_400);
    for (labels, expected) in [
        (&[][..], How::DownloadThenKill),
        (&[(strategy, "download-then-kill")], How::DownloadThenKill),
        (&[(strategy, "kill-then-download")], How::KillThenDownload),
        (&[("io.resin.update.strategy", "kill-then-download")], How::KillThenDownload),
        (&[(strategy, "delete-then-download")], How::DeleteThenDownload),
        (&[(strategy, "hand-over")], How::HandOver { timeout: Duration::from_secs(60) }),
        (
            &[(strategy, "hand-over"), (timeout, "1500")],
            How::HandOver { timeout: Duration::from_millis(1500) },
        ),
        (&[(strategy, "hand-over"), (timeout, "0")], How::HandOver { timeout: Duration::ZERO }),
        (&[(strategy, "hand-over"), (timeout, "86400000")], How::HandOver { timeout: day }),
        // Nobody asks for it.
        (&[(timeout, "soon")], How::DownloadThenKill),
    ] {
        let given =
            labelled(labels, json!({"ports": [{"target": 80}], "networks": {"default": {"aliases": ["w"]}}}));
        assert_eq!(spec(&given).strategy, expected, "{labels:?}");
        assert_eq!(warnings(&given), Vec::<String>::new(), "{labels:?}");
    }
    let unknown = labelled(&[(strategy, "blue-green")], json!({}));
    assert_eq!(spec(&unknown).strategy, How::DownloadThenKill);
    assert_eq!(
        warnings(&unknown),
        ["services.web.labels.io.balena.update.strategy: \"blue-green\" is unknown, so \
          download-then-kill is used: write download-then-kill, kill-then-download, delete-then-download or hand-over"]
    );
}

#[test]
fn hand_over_is_refused_where_two_cannot_stand_side_by_side() {
    let strategy = ("io.balena.update.strategy", "hand-over");
    let beside = "hand-over lets the old and the new container run side by side, and only one of them";
    for (fields, why) in [
        (json!({"ports": [{"target": 80}, "8080:81"]}), "can publish host port 8080"),
        (json!({"devices": ["/dev/ttyUSB0:/dev/modem"]}), "should use the device /dev/ttyUSB0"),
        (json!({"networks": {"lan": {"ipv4_address": "172.28.0.10"}}}), "can have the address 172.28.0.10"),
        (json!({"networks": {"lan": {"ipv6_address": "fd00::10"}}}), "can have the address fd00::10"),
    ] {
        let of_lan = json!({"ipam": {"config": [{"subnet": "172.28.0.0/16"}]}});
        let read_with = |labels: &[(&str, &str)]| {
            let web = json!({
                "id": 1, "image_id": 2, "image": IMAGE, "composition": labelled(labels, fields.clone())
            });
            let given = json!({"id": 3, "services": {"web": web}, "networks": {"lan": of_lan}});
            texts(&read(&release(given), Form::Target).1.refusals)
        };
        assert_eq!(
            read_with(&[strategy]),
            [format!("services.web.labels.io.balena.update.strategy: {beside} {why}: remove one of the two")],
            "{fields}"
        );
        assert_eq!(read_with(&[(strategy.0, "kill-then-download")]), Vec::<String>::new(), "{fields}");
    }
    for bad in ["", "soon", "-1", "1.5", "10s", "86400001", "99999999999999999999"] {
        let given = labelled(&[strategy, ("io.balena.update.handover-timeout", bad)], json!({}));
        assert_eq!(
            refusals(&given),
            [format!(
                "services.web.labels.io.balena.update.handover-timeout: {bad:?} is not accepted: write \
                 milliseconds, from 0 to 86400000 (24 hours)"
            )]
        );
    }
}

#[test]
fn windows_of_all_services_count_together() {
    let label = "io.cotter.update.window";
    let service = |windows: &str| {
        let composition = labelled(&[(label, windows)], json!({}));
        json!({"id": 1, "image_id": 2, "image": IMAGE, "composition": composition})
    };
    let read_with = |web: &str, db: &str| {
        let services = json!({"web": service(web), "db": service(db)});
        read(&release(json!({"id": 3, "services": services})), Form::File)
    };
    let (contents, notes) = read_with("02:00-04:00; Sun 22:00-06:00 Europe/Zurich", "02:00-04:00 UTC");
    assert_eq!(notes, Notes::default());
    let windows: Vec<_> = contents.windows.iter().map(ToString::to_string).collect();
    assert_eq!(windows, ["Sun 22:00-06:00 Europe/Zurich", "02:00-04:00 UTC"]);
    assert_eq!(read_with("", " ; ").0.windows.len(), 0);
    assert_eq!(
        texts(&read_with("02:00-04:00", "at night").1.refusals),
        [
            "services.db.labels.io.cotter.update.window: \"at night\" is not a maintenance window: its days must \
          be like Mon-Fri or Sat,Sun"
        ]
    );
}

/// A name or a word that people, logs or the engine read has no invisible characters. What only the container reads
/// may have any.
#[test]
fn names_and_words_have_no_invisible_characters() {
    let seen = "it has a line break or an invisible character: remove it";
    let name = "its name has a line break or an invisible character: remove it";
    for (given, expected) in [
        (json!({"logging": {"driver": "x\n<3>forged\u{1b}[2J"}}), format!("~.logging.driver: {seen}")),
        (
            json!({"logging": {"options": {"a\u{202e}": "1"}}}),
            format!(r"~.logging.options.a\u{{202e}}: {name}"),
        ),
        (json!({"user": "1000\u{200b}"}), format!("~.user: {seen}")),
        (json!({"runtime": "runc\u{2028}"}), format!("~.runtime: {seen}")),
        (json!({"cgroup_parent": "a\tb"}), format!("~.cgroup_parent: {seen}")),
        (json!({"security_opt": ["label=a\u{2066}"]}), format!("~.security_opt[0]: {seen}")),
        (json!({"tmpfs": ["/a\u{9b}"]}), format!("~.tmpfs[0]: {seen}")),
        (json!({"labels": {"a\nb": "c"}}), format!(r"~.labels.a\nb: {name}")),
        (json!({"environment": ["A\u{200f}=1"]}), format!("~.environment[0]: {name}")),
        (json!({"hostname": "a\u{ad}"}), format!("~.hostname: {seen}")),
        (json!({"restart": "\u{202e}on"}), r#"~.restart: "\u{202e}on" is not accepted: "#.to_owned()),
    ] {
        let found = refusals(&given);
        assert!(found.len() == 1 && found[0].starts_with(&expected), "{found:?} instead of {expected}");
    }
    let free = json!({
        "command": ["sh", "-c", "echo a\necho \u{202e}b"], "environment": {"A": "one\ntwo\t\u{1b}[1m"},
        "labels": {"a": "b\nc"}, "healthcheck": {"test": "true\nfalse"},
        "security_opt": ["seccomp={\n\t\"defaultAction\": \"SCMP_ACT_ALLOW\"\n}"],
    });
    assert_eq!(refusals(&free), Vec::<String>::new());
}

/// What stands at a wrong place may be a secret, and is not shown.
#[test]
fn what_stands_where_options_belong_is_not_shown() {
    for given in [
        json!({"logging": {"driver": "syslog", "options": "password=hunter2"}}),
        json!({"environment": "A=hunter2"}),
        json!({"labels": "hunter2"}),
    ] {
        let found = refusals(&given);
        assert!(found.len() == 1 && !found[0].contains("hunter2"), "{found:?}");
    }
    for part in ["volumes", "networks"] {
        let given = json!({"id": 3, "services": {}, part: {"a": {"driver_opts": "o=password=hunter2"}}});
        let refused = texts(&read(&release(given), Form::Target).1.refusals);
        assert_eq!(refused, [format!("{part}.a.driver_opts: it must be a map of names to values")]);
    }
}

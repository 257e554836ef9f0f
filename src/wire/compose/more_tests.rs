//! Limits, namespaces, names and labels of a service as JSON → the spec's part, or the refusals.

use serde_json::{Value, json};

use super::*;

fn web(composition: &Value) -> (ServiceSpec, Notes) {
    let state: ReleaseState = serde_json::from_value(json!({"id": 3, "services": {"web": {
        "id": 1, "image_id": 2, "image": "r.example/web:1", "composition": composition,
    }}}))
    .unwrap();
    let (contents, notes) = read(&state, Form::Target);
    (contents.services.into_values().next().unwrap(), notes)
}

fn spec(composition: &Value) -> ServiceSpec {
    let (spec, notes) = web(composition);
    assert_eq!(notes, Notes::default(), "{composition}");
    spec
}

fn texts(notes: &[Refusal]) -> Vec<String> {
    notes.iter().map(|note| note.to_string().replace("services.web.composition", "~")).collect()
}

fn shown(part: &impl serde::Serialize) -> Value {
    serde_json::to_value(part).unwrap()
}

#[test]
fn limits() {
    for (given, limits) in [
        (json!({}), json!({})),
        (json!({"cpus": 0.5}), json!({"nano_cpus": 500_000_000})),
        (json!({"cpus": "1.25"}), json!({"nano_cpus": 1_250_000_000})),
        (json!({"cpus": 0, "cpu_shares": 0, "pids_limit": 0, "shm_size": 0, "oom_score_adj": 0}), json!({})),
        (json!({"cpu_shares": "73"}), json!({"cpu_shares": 73})),
        (
            json!({"cpu_period": "50ms", "cpu_quota": "25ms"}),
            json!({"cpu_period": 50_000, "cpu_quota": 25_000}),
        ),
        (json!({"cpu_quota": -1}), json!({"cpu_quota": -1})),
        (
            json!({"cpu_rt_runtime": "400ms", "cpu_rt_period": 950_000}),
            json!({"cpu_rt_runtime": 400_000, "cpu_rt_period": 950_000}),
        ),
        (json!({"cpuset": "0-1,3"}), json!({"cpuset": "0-1,3"})),
        (json!({"cpuset": 0}), json!({"cpuset": "0"})),
        (json!({"mem_reservation": "32m"}), json!({"memory_reservation": 33_554_432})),
        (json!({"mem_limit": "64m", "memswap_limit": "128m"}), json!({"memory_swap": 134_217_728})),
        (json!({"mem_limit": "64m", "memswap_limit": -1}), json!({"memory_swap": -1})),
        (json!({"mem_swappiness": 0}), json!({"swappiness": 0})),
        (json!({"oom_kill_disable": true}), json!({"is_oom_kill_disabled": true})),
        (json!({"oom_score_adj": "-1000"}), json!({"oom_score_adj": -1000})),
        (json!({"pids_limit": -1}), json!({"pids": -1})),
        (
            json!({"blkio_config": {
                "weight": 300, "weight_device": [{"path": "/dev/sda", "weight": 400}],
                "device_read_bps": [{"path": "/dev/sda", "rate": "12mb"}],
                "device_write_iops": [{"path": "/dev/sda", "rate": 30}, {"path": "/dev/sdb", "rate": "40"}],
            }}),
            json!({"disks": {
                "weight": 300, "weights": {"/dev/sda": 400}, "read_bytes": {"/dev/sda": 12_582_912},
                "write_operations": {"/dev/sda": 30, "/dev/sdb": 40},
            }}),
        ),
        (json!({"blkio_config": {"weight": 0}}), json!({})),
        (json!({"shm_size": "256m"}), json!({"shm_size": 268_435_456})),
        (
            json!({"deploy": {"replicas": 1, "resources": {
                "limits": {"cpus": "0.5", "memory": "64m", "pids": 9}, "reservations": {"memory": "32m"},
            }}}),
            json!({"nano_cpus": 500_000_000, "pids": 9, "memory_reservation": 33_554_432}),
        ),
        (
            json!({"cpus": 0.5, "deploy": {"resources": {"limits": {"cpus": "0.50"}}}}),
            json!({"nano_cpus": 500_000_000}),
        ),
    ] {
        assert_eq!(shown(&spec(&given).limits), limits, "{given}");
    }
    let given = json!({"deploy": {"resources": {"limits": {"memory": "64m"}}}});
    assert_eq!(spec(&given).memory_limit, Some(67_108_864));
}

#[test]
fn limits_that_are_refused() {
    for (given, why) in [
        (json!({"cpus": "half"}), "~.cpus: \"half\" is not accepted"),
        (json!({"cpus": 0.001}), "~.cpus: 0.001 is not accepted"),
        (json!({"cpus": -1}), "~.cpus: -1 is not accepted"),
        (
            json!({"cpus": 1, "cpu_quota": 50_000}),
            "~.cpus: it cannot be combined with cpu_quota and cpu_period",
        ),
        (json!({"cpu_shares": 300_000}), "~.cpu_shares: 300000 is not accepted"),
        (json!({"cpu_period": 5}), "~.cpu_period: 5 is not accepted: write from 1000 to 1000000"),
        (json!({"cpu_quota": "12parsecs"}), "~.cpu_quota: \"12parsecs\" is not a duration"),
        (json!({"cpuset": "0-"}), "~.cpuset: \"0-\" is not accepted"),
        (json!({"cpuset": "zero"}), "~.cpuset: \"zero\" is not accepted"),
        (json!({"memswap_limit": "64m"}), "~.memswap_limit: it includes mem_limit"),
        (
            json!({"mem_limit": "64m", "memswap_limit": "32m"}),
            "~.memswap_limit: it is the sum of memory and swap",
        ),
        (
            json!({"mem_limit": "64m", "mem_reservation": "65m"}),
            "~.mem_reservation: it is more than mem_limit",
        ),
        (json!({"mem_swappiness": 101}), "~.mem_swappiness: 101 is not accepted"),
        (json!({"oom_score_adj": 1001}), "~.oom_score_adj: 1001 is not accepted"),
        (json!({"pids_limit": -2}), "~.pids_limit: -2 is not accepted"),
        (json!({"blkio_config": {"weight": 5}}), "~.blkio_config.weight: 5 is not accepted"),
        (json!({"blkio_config": {"speed": 5}}), "~.blkio_config.speed: it is not known"),
        (
            json!({"blkio_config": {"device_read_bps": [{"path": "sda", "rate": 1}]}}),
            "~.blkio_config.device_read_bps[0]: it needs an absolute path",
        ),
        (json!({"shm_size": "big"}), "~.shm_size: \"big\" is not a size"),
        (
            json!({"cpus": 1, "deploy": {"resources": {"limits": {"cpus": "2"}}}}),
            "~.deploy.resources.limits.cpus: the service itself has another value",
        ),
        (
            json!({"deploy": {"resources": {"limit": {}, "bounds": {"cpus": 1}}}}),
            "~.deploy.resources.bounds:",
        ),
        (json!({"deploy": {"endpoints": 1}}), "~.deploy.endpoints: it is not a field of deploy"),
    ] {
        let refusals = texts(&web(&given).1.refusals);
        assert_eq!(refusals.len(), 1, "{given}: {refusals:?}");
        assert!(refusals[0].starts_with(why), "{given}: {refusals:?}");
    }
}

#[test]
fn fields_of_deploy_without_a_meaning_here_are_reported() {
    let given = json!({"restart": "no", "deploy": {
        "mode": "global", "replicas": 2, "placement": {"constraints": ["a"]}, "restart_policy": {"condition": "any"},
        "resources": {"reservations": {"cpus": "1"}},
    }});
    let (spec, notes) = web(&given);
    assert_eq!((notes.refusals, spec.restart), (vec![], crate::model::RestartPolicy::No));
    assert_eq!(
        texts(&notes.warnings),
        [
            "~.deploy.mode: not honoured: it is for a cluster, and this is one device",
            "~.deploy.placement: not honoured: it is for a cluster, and this is one device",
            "~.deploy.replicas: not honoured: a device runs one of each service",
            "~.deploy.resources.reservations.cpus: not honoured: processors are not reserved on one device",
            "~.deploy.restart_policy: not honoured: the field restart is used instead",
        ]
    );
    for (policy, restart) in [
        (json!({"condition": "none"}), json!("no")),
        (json!({"condition": "any"}), json!("always")),
        (json!({"condition": "no"}), json!("no")),
        (json!({"condition": "always"}), json!("always")),
        (json!({"condition": "unless-stopped"}), json!("unless_stopped")),
        (json!({}), json!("always")),
        (json!({"condition": "on-failure", "max_attempts": 3}), json!({"on_failure": {"retries": 3}})),
    ] {
        let given = json!({"deploy": {"restart_policy": policy}});
        assert_eq!(shown(&web(&given).0.restart), restart, "{given}");
    }
}

#[test]
fn isolation() {
    let gpu = json!([{"count": -1, "capabilities": ["gpu"]}]);
    for (given, isolation) in [
        (json!({}), json!({})),
        (json!({"ipc": "shareable"}), json!({"ipc": "shareable"})),
        (
            json!({"pid": "host", "uts": "host", "userns_mode": "host", "pidx": null}),
            json!({"has_host_pid": true, "has_host_uts": true, "has_host_users": true}),
        ),
        (json!({"pid": "", "uts": null}), json!({})),
        (
            json!({"cgroup": "private", "cgroup_parent": "/a"}),
            json!({"cgroup": "private", "cgroup_parent": "/a"}),
        ),
        (
            json!({"security_opt": ["no-new-privileges", "apparmor:unconfined", "label=disable", "systempaths=unconfined"]}),
            json!({"security": ["apparmor=unconfined", "label=disable", "no-new-privileges", "systempaths=unconfined"]}),
        ),
        (
            json!({"security_opt": ["seccomp={\"defaultAction\": \"SCMP_ACT_ALLOW\"}"]}),
            json!({"security": ["seccomp={\"defaultAction\": \"SCMP_ACT_ALLOW\"}"]}),
        ),
        (json!({"sysctls": {"net.ipv4.ip_forward": 1}}), json!({"sysctls": {"net.ipv4.ip_forward": "1"}})),
        (
            json!({"sysctls": ["kernel.shmmax=1", "fs.mqueue.msg_max=2"]}),
            json!({"sysctls": {"kernel.shmmax": "1", "fs.mqueue.msg_max": "2"}}),
        ),
        (json!({"group_add": ["video", 44]}), json!({"groups": ["44", "video"]})),
        (json!({"runtime": "nvidia"}), json!({"runtime": "nvidia"})),
        (
            json!({"device_cgroup_rules": ["c 188:* rwm", "a *:* r"]}),
            json!({"device_rules": ["a *:* r", "c 188:* rwm"]}),
        ),
        (json!({"gpus": "all"}), json!({"device_requests": gpu})),
        (
            json!({"gpus": [{"driver": "nvidia", "device_ids": ["0", "1"], "options": {"a": "b"}}]}),
            json!({"device_requests": [{"driver": "nvidia", "ids": ["0", "1"], "capabilities": ["gpu"], "options": {"a": "b"}}]}),
        ),
        (
            json!({"deploy": {"resources": {"reservations": {"devices": [{"count": "all", "capabilities": ["gpu"]}]}}}}),
            json!({"device_requests": gpu}),
        ),
        (
            json!({"labels": {"io.balena.features.gpu": "on"}}),
            json!({"device_requests": [{"count": 1, "capabilities": ["gpu"]}]}),
        ),
    ] {
        assert_eq!(shown(&web(&given).0.isolation), isolation, "{given}");
    }
}

#[test]
fn isolation_that_is_refused() {
    for (given, why) in [
        (json!({"ipc": "mine"}), "~.ipc: \"mine\" is not accepted"),
        (json!({"ipc": "container:x"}), "~.ipc: a container outside of the release cannot be joined"),
        (json!({"pid": "container:x"}), "~.pid: a container outside of the release cannot be joined"),
        (json!({"pid": "private"}), "~.pid: \"private\" is not accepted: write \"host\" or \"service:NAME\""),
        (json!({"pid": "service:"}), "~.pid: "),
        (json!({"uts": "host", "hostname": "h"}), "~.uts: it cannot be combined with hostname"),
        (json!({"cgroup": "mine"}), "~.cgroup: \"mine\" is not accepted"),
        (json!({"security_opt": ["seccomp=./p.json"]}), "~.security_opt[0]: a profile cannot be a file"),
        (json!({"security_opt": ["fly"]}), "~.security_opt[0]: \"fly\" is not accepted"),
        (json!({"sysctls": {"net.a": 1}, "network_mode": "host"}), "~.sysctls.net.a: with network_mode host"),
        (json!({"sysctls": {"net.a": ""}}), "~.sysctls.net.a: it has no value"),
        (json!({"group_add": ["a:b"]}), "~.group_add[0]: \"a:b\" is not accepted"),
        (
            json!({"device_cgroup_rules": ["c 188 rwm"]}),
            "~.device_cgroup_rules[0]: \"c 188 rwm\" is not accepted",
        ),
        (json!({"gpus": 1}), "~.gpus: 1 is not accepted"),
        (
            json!({"gpus": [{"count": 1, "device_ids": ["0"]}]}),
            "~.gpus[0]: count cannot be combined with device_ids",
        ),
        (json!({"mac_address": "02:42"}), "~.mac_address: \"02:42\" is not accepted"),
        (
            json!({"mac_address": "02:42:ac:11:65:43", "network_mode": "host"}),
            "~.mac_address: it needs a network of the release",
        ),
        (json!({"dns": "dns.google"}), "~.dns: \"dns.google\" is not accepted"),
        (json!({"dns_search": ["a b"]}), "~.dns_search[0]: \"a b\" is not accepted"),
        (json!({"dns_opt": ["a b"]}), "~.dns_opt[0]: \"a b\" is not accepted"),
        (json!({"domainname": "a b"}), "~.domainname: \"a b\" is not accepted"),
        (json!({"logging": {"path": "x"}}), "~.logging.path: it is not a field of logging"),
        (json!({"logging": "none"}), "~.logging: \"none\" is not accepted: write a map"),
    ] {
        let refusals = texts(&web(&given).1.refusals);
        assert_eq!(refusals.len(), 1, "{given}: {refusals:?}");
        assert!(refusals[0].starts_with(why), "{given}: {refusals:?}");
    }
}

#[test]
fn names_logging_and_the_rest() {
    let spec = spec(&json!({
        "domainname": "lan", "dns": ["9.9.9.9", "9.9.9.9", "::1"], "dns_search": ".", "dns_opt": ["ndots:2"],
        "logging": {"driver": "json-file", "options": {"max-size": "1m", "max-file": 2}},
        "annotations": {"a": 1}, "stdin_open": true,
        "networks": {"a": null, "b": {"priority": 9}}, "mac_address": "02:42:AC:11:65:43",
    }));
    assert_eq!(
        shown(&spec.resolver),
        json!({"domainname": "lan", "servers": ["9.9.9.9", "::1"], "search": ["."], "options": ["ndots:2"]})
    );
    assert_eq!(
        shown(&spec.logging),
        json!({"driver": "json-file", "options": {"max-size": "1m", "max-file": "2"}})
    );
    assert_eq!((shown(&spec.annotations), spec.has_stdin), (json!({"a": "1"}), true));
    let NetworkMode::Networks(attachments) = spec.network_mode else { panic!("on networks") };
    let addresses: Vec<_> =
        attachments.iter().map(|(n, a)| format!("{n} {:?} {}", a.mac_address, a.priority)).collect();
    assert_eq!(addresses, ["a None 0", "b Some(\"02:42:ac:11:65:43\") 9"], "on the one connected first");
}

#[test]
fn mounts_of_the_host_and_options_of_volumes() {
    for (given, mounts) in [
        (json!(["/srv/:/s:ro"]), json!([{"source": {"host": "/srv"}, "target": "/s", "is_read_only": true}])),
        (json!(["/:/host"]), json!([{"source": {"host": "/"}, "target": "/host", "is_read_only": false}])),
        (
            json!(["/m:/m:rw,rslave"]),
            json!([{"source": {"host": "/m"}, "target": "/m", "is_read_only": false, "options": {"propagation": "rslave"}}]),
        ),
        (
            json!([{"type": "bind", "source": "/m", "target": "/m", "bind": {"create_host_path": false, "propagation": "rshared"}}]),
            json!([{"source": {"host": "/m"}, "target": "/m", "is_read_only": false,
                "options": {"propagation": "rshared", "must_exist": true}}]),
        ),
        (
            json!(["v:/v:nocopy"]),
            json!([{"source": {"volume": "v"}, "target": "/v", "is_read_only": false, "options": {"has_no_copy": true}}]),
        ),
        (
            json!([{"source": "v", "target": "/v", "volume": {"nocopy": true, "subpath": "a/b"}}]),
            json!([{"source": {"volume": "v"}, "target": "/v", "is_read_only": false,
                "options": {"has_no_copy": true, "subpath": "a/b"}}]),
        ),
    ] {
        assert_eq!(shown(&spec(&json!({"volumes": given})).mounts), mounts, "{given}");
    }
}

/// The mounts that labels make, each as `source>target`.
fn of_labels(labels: &Value, volumes: &Value) -> Vec<String> {
    let spec = spec(&json!({"labels": labels, "volumes": volumes}));
    let found = |mount: &crate::model::Mount| {
        let source = match &mount.source {
            MountSource::Host(path) => path.clone(),
            MountSource::EngineSocket => "socket".to_owned(),
            MountSource::Volume(name) => format!("volume {name}"),
            MountSource::Anonymous => "anonymous".to_owned(),
        };
        format!("{source}>{}{}", mount.target, if mount.is_read_only { " ro" } else { "" })
    };
    spec.mounts.iter().map(found).collect()
}

#[test]
fn labels_give_parts_of_the_host() {
    for (label, mounts) in [
        ("dbus", &["/run/dbus>/host/run/dbus"][..]),
        ("sysfs", &["/sys>/sys"]),
        ("procfs", &["/proc>/proc"]),
        ("kernel-modules", &["/lib/modules>/lib/modules"]),
        ("firmware", &["/lib/firmware>/lib/firmware"]),
        (
            "journal-logs",
            &[
                "/etc/machine-id>/etc/machine-id ro",
                "/run/log/journal>/run/log/journal ro",
                "/var/log/journal>/var/log/journal ro",
            ],
        ),
        (
            "balena-socket",
            &[
                "socket>/host/run/balena-engine.sock",
                "socket>/var/run/balena.sock",
                "socket>/var/run/docker.sock",
            ],
        ),
    ] {
        for (value, is_asked) in
            [("1", true), ("True", true), ("ON", true), ("0", false), ("", false), ("yes", false)]
        {
            let labels = json!({format!("io.balena.features.{label}"): value});
            let expected = if is_asked { mounts } else { &[] };
            assert_eq!(of_labels(&labels, &json!([])), expected, "{label} {value}");
        }
    }
    let labels = json!({"io.balena.features.sysfs": "1"});
    assert_eq!(of_labels(&labels, &json!(["v:/sys"])), ["volume v>/sys"], "the author's own stays");
    let environment = |given: Value| {
        let labels = json!({"io.balena.features.balena-socket": "1"});
        shown(&spec(&json!({"labels": labels, "environment": given})).environment)
    };
    assert_eq!(environment(json!({})), json!({"DOCKER_HOST": "unix:///host/run/balena-engine.sock"}));
    assert_eq!(environment(json!({"DOCKER_HOST": "x"})), json!({"DOCKER_HOST": "x"}));
}

#[test]
fn labels_without_an_effect_here_are_reported() {
    for label in ["host-os.board-rev", "extra-firmware"] {
        let label = format!("io.balena.features.{label}");
        let (_, notes) = web(&json!({"labels": {&label: "1"}}));
        let why = "not honoured: this agent does not have it";
        assert_eq!(texts(&notes.warnings), [format!("services.web.labels.{label}: {why}")]);
        assert_eq!(web(&json!({"labels": {&label: "0"}})).1, Notes::default());
    }
    for label in ["supervisor-api", "balena-api"] {
        let label = format!("io.balena.features.{label}");
        assert_eq!(web(&json!({"labels": {&label: "1"}})).1, Notes::default());
    }
    let label = "io.balena.features.supervisor-api";
    let (_, notes) = web(&json!({"network_mode": "none", "labels": {label: "1"}}));
    assert!(texts(&notes.warnings)[0].contains("no network by which"), "{:?}", notes.warnings);
}

#[test]
fn a_label_that_only_the_agent_writes_is_left_out() {
    let own = json!({"io.cotter.joins": "network:1", "io.resin.supervised": "0", "io.cotter.trial.soak": "1s", "a": "b"});
    let service = json!({"id": 1, "image_id": 2, "image": "a", "labels": {"io.cotter.spec": "v1:0"}, "composition": {
        "labels": own, "networks": ["n"], "volumes": ["v:/v"],
    }});
    let state = json!({"id": 1, "services": {"web": service}, "networks": {"n": {"labels": own}}, "volumes": {"v": {
        "labels": ["io.cotter.volume=other", "a=b"],
    }}});
    let (contents, notes) = read(&serde_json::from_value(state).unwrap(), Form::Target);
    let why = "not honoured: this name is reserved for labels of the agent; choose another one";
    let found: Vec<_> = notes.warnings.iter().map(|w| w.path.as_str()).collect();
    assert_eq!(
        found,
        [
            "networks.n.labels.io.cotter.joins",
            "volumes.v.labels.io.cotter.volume",
            "services.web.labels.io.balena.supervised",
            "services.web.labels.io.cotter.joins",
            "services.web.labels.io.cotter.spec",
        ]
    );
    assert!(notes.warnings.iter().all(|warning| warning.why == why) && notes.refusals.is_empty());
    let web = &contents.services[&ServiceName::parse("web").unwrap()];
    assert_eq!(web.labels.keys().collect::<Vec<_>>(), ["a", "io.cotter.trial.soak"]);
    let network = &contents.networks[&NetworkName::parse("n").unwrap()];
    assert_eq!(
        network.labels.keys().collect::<Vec<_>>(),
        ["a", "io.cotter.trial.soak", "io.resin.supervised"]
    );
    assert_eq!(contents.volumes[&VolumeName::parse("v").unwrap()].labels.keys().collect::<Vec<_>>(), ["a"]);
}

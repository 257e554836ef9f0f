//! What a device's owner does not allow is refused with its path and the setting.

use serde_json::{Value, json};

use super::*;
use crate::wire::compose;
use crate::wire::state_v3::ReleaseState;

fn read(composition: &Value, volumes: &Value) -> Contents {
    let image = "r.example/web:1";
    let state: ReleaseState = serde_json::from_value(json!({
        "id": 9,
        "services": {"web": {"id": 1, "image_id": 2, "image": image, "composition": composition}},
        "volumes": volumes,
    }))
    .unwrap();
    let (contents, notes) = compose::read(&state, Form::Target);
    assert_eq!(notes.refusals, [], "{composition}");
    contents
}

/// The violations of a service, as text.
fn violated(composition: &Value, policy: &Policy) -> Vec<String> {
    let contents = read(composition, &json!({}));
    violations(&contents, Form::Target, policy)
        .iter()
        .map(|refusal| refusal.to_string().replace("services.web.composition", "~"))
        .collect()
}

#[test]
fn what_is_asked_for_is_refused_by_a_policy_of_nothing_and_allowed_by_default() {
    for (composition, path, setting) in [
        (json!({"privileged": true}), "~.privileged", "privileged"),
        (json!({"security_opt": ["seccomp:unconfined"]}), "~.security_opt", "privileged"),
        (json!({"security_opt": ["label:disable"]}), "~.security_opt", "privileged"),
        (json!({"security_opt": ["label=type:spc_t"]}), "~.security_opt", "privileged"),
        (json!({"security_opt": ["apparmor=docker-default"]}), "~.security_opt", "privileged"),
        (json!({"security_opt": ["no-new-privileges:false"]}), "~.security_opt", "privileged"),
        (
            json!({"security_opt": ["no-new-privileges", "systempaths=unconfined"]}),
            "~.security_opt",
            "privileged",
        ),
        (json!({"network_mode": "host"}), "~.network_mode", "host_network"),
        (json!({"network_mode": "bridge"}), "~.network_mode", "host_network"),
        (
            json!({"networks": {"lan": {"driver_opts": {"com.docker.network.endpoint.sysctls": "net.a=1"}}}}),
            "~.networks",
            "host_network",
        ),
        (json!({"pid": "host"}), "~.pid", "host_namespaces"),
        (json!({"ipc": "host"}), "~.ipc", "host_namespaces"),
        (json!({"uts": "host"}), "~.uts", "host_namespaces"),
        (json!({"userns_mode": "host"}), "~.userns_mode", "host_namespaces"),
        (json!({"cgroup": "host"}), "~.cgroup", "host_namespaces"),
        (json!({"cgroup_parent": "/x"}), "~.cgroup_parent", "host_namespaces"),
        (json!({"devices": ["/dev/ttyUSB0"]}), "~.devices", "devices"),
        (
            json!({"blkio_config": {"device_read_bps": [{"path": "/dev/sda", "rate": "1m"}]}}),
            "~.blkio_config",
            "devices",
        ),
        (
            json!({"deploy": {"resources": {"reservations": {"devices": [{"capabilities": ["gpu"]}]}}}}),
            "~.gpus",
            "devices",
        ),
        (json!({"device_cgroup_rules": ["c 188:* rwm"]}), "~.device_cgroup_rules", "devices"),
        (json!({"gpus": "all"}), "~.gpus", "devices"),
        (json!({"labels": {"io.balena.features.gpu": "1"}}), "~.gpus", "devices"),
        (json!({"cap_add": ["NET_ADMIN"]}), "~.cap_add", "capabilities"),
        (json!({"cap_add": ["CHOWN", "ALL"]}), "~.cap_add", "capabilities"),
        (json!({"cap_add": ["MKNOD"]}), "~.cap_add", "capabilities"),
        (json!({"oom_score_adj": -1}), "~.oom_score_adj", "capabilities"),
        (json!({"oom_kill_disable": true}), "~.oom_kill_disable", "capabilities"),
        (json!({"cpu_rt_runtime": 2000}), "~.cpu_rt_runtime", "capabilities"),
        (json!({"cpu_rt_period": 2000}), "~.cpu_rt_period", "capabilities"),
        (json!({"ulimits": {"rtprio": 99}}), "~.ulimits", "capabilities"),
        (json!({"ulimits": {"nice": {"soft": 0, "hard": 40}}}), "~.ulimits", "capabilities"),
        (json!({"sysctls": {"net.netfilter.nf_conntrack_max": 1}}), "~.sysctls", "host_network"),
        (json!({"sysctls": {"net.nf_conntrack_max": 1}}), "~.sysctls", "host_network"),
        (json!({"sysctls": {"net.ipv4.vs.drop_entry": 1}}), "~.sysctls", "host_network"),
        (json!({"sysctls": {"net.ipv4.netfilter.ip_conntrack_max": 1}}), "~.sysctls", "host_network"),
        (json!({"sysctls": {"net.ipv4.tcp_allowed_congestion_control": "x"}}), "~.sysctls", "host_network"),
        (json!({"sysctls": {"net.bridge.bridge-nf-call-iptables": 0}}), "~.sysctls", "host_network"),
        (json!({"runtime": "runc"}), "~.runtime", "runtimes"),
        (json!({"runtime": "nvidia"}), "~.runtime", "runtimes"),
        (json!({"runtime": "/var/lib/docker/volumes/1_data/_data/shim"}), "~.runtime", "runtimes"),
        (
            json!({"annotations": {"org.systemd.property.DevicePolicy": "'auto'"}}),
            "~.annotations",
            "runtimes",
        ),
        (json!({"logging": {"driver": "syslog"}}), "~.logging", "drivers"),
        (json!({"logging": {"driver": "journald"}}), "~.logging", "drivers"),
        (json!({"logging": {"driver": "k8s-file", "options": {"path": "/etc/x"}}}), "~.logging", "drivers"),
        (json!({"logging": {"driver": "json-file", "options": {"path": "/etc/x"}}}), "~.logging", "drivers"),
        (json!({"logging": {"options": {"syslog-address": "unix:///x"}}}), "~.logging", "drivers"),
        (
            json!({"logging": {"driver": "local", "options": {"mode": "non-blocking", "max-buffer-size": "9g"}}}),
            "~.logging",
            "drivers",
        ),
        (
            json!({"labels": {"io.balena.features.balena-socket": "1"}}),
            "services.web.labels.io.balena.features.balena-socket",
            "docker_socket",
        ),
        (
            json!({"labels": {"io.resin.features.dbus": "true"}}),
            "services.web.labels.io.balena.features.dbus",
            "features",
        ),
    ] {
        let why = format!(
            "{path}: this device does not allow it: remove it, or set policy.{setting} = \"yes\" on \
             the device"
        );
        assert_eq!(violated(&composition, &Policy::strict()), [why], "{composition}");
        assert_eq!(violated(&composition, &Policy::default()), Vec::<String>::new(), "{composition}");
    }
    for harmless in [
        json!({}),
        json!({"security_opt": ["no-new-privileges:true"], "cap_drop": ["ALL"], "ipc": "private"}),
        json!({"cap_drop": ["ALL"], "cap_add": ["NET_BIND_SERVICE", "CAP_CHOWN"], "cgroup": "private"}),
        json!({"ulimits": {"nofile": 65536, "memlock": -1, "rtprio": 0}, "oom_score_adj": 500}),
        json!({"sysctls": {"net.core.somaxconn": 9, "net.ipv4.ip_forward": 1, "kernel.shmmax": 9, "fs.mqueue.msg_max": 9}}),
        json!({"logging": {"driver": "json-file", "options": {"max-size": "1m", "tag": "x"}}}),
        json!({"blkio_config": {"weight": 300}, "cpu_shares": 5, "mem_limit": "64m", "ports": ["80:80"]}),
        json!({"networks": {"lan": {"driver_opts": {"com.docker.network.endpoint.ifname": "lan0"}}}}),
        json!({"labels": {"io.balena.features.dbus": "0", "io.balena.features.balena-socket": "no"}}),
        json!({"volumes": ["data:/data", "/scratch"], "tmpfs": ["/run"]}),
    ] {
        assert_eq!(violated(&harmless, &Policy::strict()), Vec::<String>::new(), "{harmless}");
    }
}

#[test]
fn paths_of_the_host_are_let_in_by_prefix() {
    let with = |paths: &[&str]| Policy {
        host_paths: paths.iter().map(|path| (*path).to_owned()).collect(),
        ..Policy::default()
    };
    let bind = |source: &str| json!({"volumes": [format!("{source}:/x")]});
    let rest = "or add it to policy.host_paths on the device";
    for (source, why) in [
        ("/srv/app", "use a named volume, or put the files into the image"),
        ("/run/dbus", "give the service the label \"io.balena.features.dbus\": \"1\" instead"),
        (
            "/var/run/docker.sock",
            "give the service the label \"io.balena.features.balena-socket\": \"1\" instead",
        ),
    ] {
        assert_eq!(
            violated(&bind(source), &with(&["/media"])),
            [format!(
                "~.volumes: {source:?} is a path of the host that releases may not mount: {why}, {rest}"
            )]
        );
    }
    assert_eq!(violated(&bind("/srv/app"), &with(&["/srv"])), Vec::<String>::new());
    assert_eq!(violated(&bind("/srv2"), &with(&["/srv"])).len(), 1);
    assert_eq!(violated(&bind("/"), &with(&["/srv"])).len(), 1);
    let allowed = Switch::ALL.into_iter().filter(|switch| *switch != Switch::DockerSocket).collect();
    let no_socket = Policy { allowed, ..with(&["/"]) };
    assert_eq!(violated(&bind("/run/docker.sock"), &with(&["/run"])), Vec::<String>::new());
    for above in ["/run/docker.sock", "/run/docker.sock/", "/run", "/var", "/"] {
        let found = violated(&bind(above), &no_socket);
        assert_eq!(found.len(), 1, "{above}: a path does not let the socket in");
        assert!(found[0].contains("policy.docker_socket"), "{found:?}");
    }
    assert_eq!(violated(&bind("/srv/run"), &no_socket), Vec::<String>::new());
}

/// The violations of a volume with these options, under a policy that allows only `/srv`.
fn of_volume(volume: &Value) -> Vec<String> {
    let contents = read(&json!({"volumes": ["v:/v"]}), &json!({"v": volume}));
    assert_eq!(violations(&contents, Form::File, &with_paths(&["/"], &Switch::ALL)), [], "{volume}");
    let found = violations(&contents, Form::File, &with_paths(&["/srv"], &[]));
    let word = |refusal: &Refusal| {
        let setting = refusal.why.split("policy.").nth(1).unwrap().split([' ', '=']).next().unwrap();
        format!("{}: {setting}", refusal.path.strip_prefix("volumes.v.").unwrap())
    };
    found.iter().map(word).collect()
}

fn with_paths(paths: &[&str], switches: &[Switch]) -> Policy {
    let host_paths = paths.iter().map(|path| (*path).to_owned()).collect();
    Policy { host_paths, allowed: switches.to_vec(), ..Policy::strict() }
}

#[test]
fn a_volume_of_the_local_driver_mounts_what_is_listed_and_nothing_else() {
    let options = |kind: &str, device: &str, o: &str| {
        let all = [("type", kind), ("device", device), ("o", o)];
        let given: serde_json::Map<_, _> =
            all.into_iter().filter(|(_, v)| !v.is_empty()).map(|(k, v)| (k.to_owned(), json!(v))).collect();
        json!({"driver_opts": given})
    };
    for (kind, device, o, expected) in [
        ("", "", "", &[][..]),
        ("tmpfs", "tmpfs", "size=1m,mode=1777,uid=1000,gid=1000,noexec", &[]),
        ("tmpfs", "/etc", "", &[]),
        ("none", "/srv/x", "bind", &[]),
        ("none", "/srv/x", "rbind,ro,nosuid,rslave", &[]),
        ("none", "/etc", "bind", &["driver_opts.device: host_paths"]),
        // With the word `bind` the type means nothing to the kernel.
        ("nfs", "/etc", "addr=1.2.3.4,rbind", &["driver_opts.device: host_paths", "driver_opts: privileged"]),
        ("tmpfs", "/etc", "size=1m,bind", &["driver_opts.device: host_paths", "driver_opts: privileged"]),
        ("none", "/run/docker.sock", "bind", &["driver_opts.device: docker_socket"]),
        ("none", "//var/./run//docker.sock", "bind", &["driver_opts.device: docker_socket"]),
        ("none", "/srv/x", "bind,rshared", &["driver_opts: capabilities"]),
        ("none", "/srv/x", "bind,remount", &["driver_opts: privileged"]),
        ("none", "/srv/x", "bind,move", &["driver_opts: privileged"]),
        ("overlay", "overlay", "lowerdir=/etc:/opt", &["driver_opts: privileged"]),
        ("ext4", "/dev/vda", "", &["driver_opts: devices"]),
        ("ext4", "/dev/vda", "ro,noatime", &["driver_opts: devices"]),
        ("ext4", "/dev/vda", "journal_path=/dev/vdb", &["driver_opts: privileged"]),
        ("ext4", "/srv/disk.img", "loop", &["driver_opts: privileged"]),
        ("nfs", ":/export", "addr=10.0.0.1,rw,vers=4.1,soft", &["driver_opts: network_volumes"]),
        ("cifs", "//10.0.0.1/x", "username=a,password=b", &["driver_opts: network_volumes"]),
        ("nfs", ":/export", "addr=10.0.0.1,fsc=/x", &["driver_opts: privileged"]),
        ("proc", "proc", "", &["driver_opts: privileged"]),
        ("sysfs", "sysfs", "ro", &["driver_opts: privileged"]),
        ("9p", "/srv/socket", "trans=unix", &["driver_opts: privileged"]),
        ("fuse", "x", "fd=3", &["driver_opts: privileged"]),
        ("TMPFS", "tmpfs", "", &["driver_opts: privileged"]),
        ("tmpfs", "tmpfs", "mpol=bind", &["driver_opts: privileged"]),
        ("tmpfs", "tmpfs", "size=1m, mode=0700", &["driver_opts: privileged"]),
        ("", "/etc", "", &["driver_opts: privileged"]),
        ("", "", "rw", &["driver_opts: privileged"]),
    ] {
        assert_eq!(of_volume(&options(kind, device, o)), expected, "{kind} {device} {o}");
    }
    let contents = read(&json!({}), &json!({"v": options("none", "/srv/../etc", "bind")}));
    let found = violations(&contents, Form::File, &with_paths(&["/"], &Switch::ALL));
    assert_eq!(found.len(), 1, "a path with `..` is never mounted");
    let other = json!({"driver": "local-persist", "driver_opts": {"mountpoint": "/etc"}});
    assert_eq!(of_volume(&other), ["driver: drivers"]);
    assert_eq!(of_volume(&json!({"driver_opts": {"mountpoint": "/etc"}})), ["driver_opts: privileged"]);
    assert_eq!(of_volume(&json!({"driver_opts": {"size": "1g"}})), Vec::<String>::new());
}

#[test]
fn a_network_names_nothing_of_the_host() {
    let settings = |network: &Value| {
        let state = json!({"id": 9, "networks": {"n": network}, "services": {"web": {
            "id": 1, "image_id": 2, "image": "r.example/web:1", "composition": {"networks": ["n"]},
        }}});
        let (contents, notes) = compose::read(&serde_json::from_value(state).unwrap(), Form::File);
        assert_eq!(notes.refusals, [], "{network}");
        assert_eq!(violations(&contents, Form::File, &Policy::balena()), [], "{network}");
        let found = violations(&contents, Form::File, &Policy::strict());
        let word = |refusal: &Refusal| {
            let setting = refusal.why.split("policy.").nth(1).unwrap().split([' ', '=']).next().unwrap();
            format!("{}: {setting}", refusal.path.strip_prefix("networks.n.").unwrap())
        };
        found.iter().map(word).collect::<Vec<_>>()
    };
    let with = |option: &str| json!({"driver_opts": {option: "br0"}});
    let range = |range: &str| json!({"ipam": {"config": [{"subnet": range}]}});
    for (network, expected) in [
        (json!({}), &[][..]),
        (json!({"internal": true, "enable_ipv6": true, "labels": {"a": "b"}}), &[]),
        (with("com.docker.network.driver.mtu"), &[]),
        (with("com.docker.network.bridge.enable_icc"), &[]),
        (with("com.docker.network.bridge.name"), &["driver_opts: host_network"]),
        (with("com.docker.network.bridge.trusted_host_interfaces"), &["driver_opts: host_network"]),
        (with("com.docker.network.bridge.gateway_mode_ipv4"), &["driver_opts: host_network"]),
        (with("parent"), &["driver_opts: host_network"]),
        (with("com.docker.network.bridge.NAME"), &["driver_opts: host_network"]),
        (
            json!({"driver": "macvlan", "driver_opts": {"parent": "eth0"}}),
            &["driver: host_network", "driver_opts: host_network"],
        ),
        (json!({"driver": "ipvlan"}), &["driver: host_network"]),
        (json!({"driver": "weave"}), &["driver: drivers"]),
        (json!({"ipam": {"driver": "dhcp"}}), &["ipam.driver: drivers"]),
        (json!({"ipam": {"options": {"a": "b"}}}), &["ipam.driver: drivers"]),
        (range("172.28.0.0/16"), &[]),
        (range("fd00:7::/64"), &[]),
        (range("8.8.8.0/24"), &["ipam.config: host_network"]),
        (range("0.0.0.0/1"), &["ipam.config: host_network"]),
        (range("2001:db8::/64"), &["ipam.config: host_network"]),
    ] {
        assert_eq!(settings(&network), expected, "{network}");
    }
}

#[test]
fn a_path_that_a_service_could_replace_by_a_link_is_not_mounted() {
    let violated = |volumes: Value, named: Value| {
        let policy = with_paths(&["/srv", "/media"], &[]);
        let contents = read(&json!({"volumes": volumes}), &named);
        violations(&contents, Form::File, &policy).iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let bound = |o: &str| json!({"v": {"driver_opts": {"type": "none", "o": o, "device": "/srv//a/."}}});
    let below_a = [
        "services.web.volumes: \"/srv/a/x\" is in \"/srv/a\", where web can write: it could create a link there that leads \
         out of what this device lets releases mount. Mount \"/srv/a\" read-only, or nothing below it",
    ];
    let none: [&str; 0] = [];
    for (volumes, named, expected) in [
        (json!(["/srv/a:/a", "/srv/a/x:/x:ro"]), json!({}), &below_a[..]),
        (json!(["/srv/a/x:/x:ro", "/srv/a:/a"]), json!({}), &below_a),
        (json!(["v:/a", "/srv/a/x:/x"]), bound("bind"), &below_a),
        (json!(["/srv/a:/a:ro", "/srv/a/x:/x"]), json!({}), &none),
        (json!(["/srv/a:/a", "/srv/a:/b"]), json!({}), &none),
        (json!(["/srv/a:/a", "/srv/ab:/b"]), json!({}), &none),
        (json!(["v:/a:ro", "/srv/a/x:/x"]), bound("bind"), &none),
        (json!(["v:/a", "/srv/a/x:/x"]), bound("bind,rw,ro"), &none),
        (json!(["v:/a", "/srv/a/x:/x"]), bound("bind,ro,rw"), &below_a),
    ] {
        assert_eq!(violated(volumes.clone(), named), expected, "{volumes}");
    }
    // Where everything may be mounted no link leads further.
    let contents = read(&json!({"volumes": ["/srv:/a", "/srv/x:/x"]}), &json!({}));
    assert_eq!(violations(&contents, Form::File, &with_paths(&["/"], &[Switch::DockerSocket])), []);
}

#[test]
fn a_label_gives_what_it_gives_and_no_more() {
    let label = |label: &str, volume: &str| json!({"labels": {format!("io.balena.features.{label}"): "1"}, "volumes": [volume]});
    let policy = Policy::balena();
    for (composition, is_allowed) in [
        (label("journal-logs", "/etc/machine-id:/etc/machine-id:ro"), true),
        (label("journal-logs", "/etc/machine-id:/etc/machine-id"), false),
        (label("journal-logs", "/var/log/journal:/var/log/journal"), false),
        (label("sysfs", "/sys:/sys"), true),
        (label("sysfs", "/sys:/sys:ro"), true),
        (label("sysfs", "/sys:/sys:rshared"), false),
        (label("sysfs", "/sys:/other"), false),
        (label("dbus", "/sys:/sys"), false),
    ] {
        assert_eq!(violated(&composition, &policy).is_empty(), is_allowed, "{composition}");
    }
}

//! The hashes here were computed by another program (Python's json and hashlib) from the canonical JSON. A change
//! of one restarts that container on every device.

use serde_json::json;

use super::*;
use crate::wire::compose::{self, Form};
use crate::wire::state_v3::ReleaseState;

const IMAGE: &str = "r.example/web@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

/// The hash of `web` in a release with `db` beside it.
fn hash(image: &str, composition: &Value, networks: &Value, volumes: &Value) -> String {
    let state: ReleaseState = serde_json::from_value(json!({
        "id": 9,
        "services": {
            "web": {"id": 1, "image_id": 2, "image": image, "composition": composition},
            "db": {"id": 3, "image_id": 4, "image": IMAGE},
        },
        "networks": networks,
        "volumes": volumes,
    }))
    .unwrap();
    let (contents, notes) = compose::read(&state, Form::Target);
    assert_eq!(notes.refusals, []);
    let web = contents.services.iter().find(|(name, _)| name.as_str() == "web").unwrap();
    web.1.hash.to_string()
}

fn plain(composition: &Value) -> String {
    hash(IMAGE, composition, &json!({}), &json!({}))
}

#[test]
fn golden_hashes() {
    for (composition, wanted) in [
        (json!({}), "v1:77cde23a12854ac830545e4279f73253c2d04901afcc6f220476341a9217121d"),
        (
            json!({"network_mode": "host"}),
            "v1:87f69ab98a05260fbf761764ae07c9b79c829f6443e5af68ecef99eb0607b976",
        ),
        (
            json!({"healthcheck": {"test": "curl x"}, "restart": "no"}),
            "v1:10bb6379f7ea0b04db63e8fc4e3170354f5dc9f6830765c2ee4b21c5e3ff7a86",
        ),
    ] {
        assert_eq!(plain(&composition), wanted, "{composition}");
    }
    assert_eq!(
        hash("alpine", &json!({}), &json!({}), &json!({})),
        "v1:0cedf3c51f192e1de33c5b47f9bb3e424ed534ee4c21082f8f32b75ac54bd2d6"
    );
}

#[test]
fn golden_hashes_of_limits_and_the_like() {
    for (composition, wanted) in [
        (
            json!({
                "cpus": "0.5", "cpu_shares": 512, "cpuset": "0", "mem_reservation": "16m", "memswap_limit": "128m",
                "mem_swappiness": 10, "oom_kill_disable": true, "oom_score_adj": -500, "pids_limit": 64,
                "shm_size": "1m", "mem_limit": "64m",
            }),
            "v1:1ea427d6483dd748cab9cc1f3666689676a6bfeb7149503ff00c9d3859757f43",
        ),
        (
            json!({"cpu_period": "50ms", "cpu_quota": 25_000}),
            "v1:590f2ddf4d32535b0e299835331fd4aa5c62205c2d69cec5b8787989e3dffcdf",
        ),
        (
            json!({
                "ipc": "shareable", "pid": "host", "cgroup_parent": "/x", "runtime": "crun", "gpus": "all",
                "security_opt": ["seccomp:unconfined", "no-new-privileges:true"], "group_add": ["audio", 44],
                "sysctls": ["net.core.somaxconn=256"], "device_cgroup_rules": ["c  188:* rwm"],
            }),
            "v1:dd0e66e5c7d38a3a2d81c652fc6e3ab49a4b4465eb6e890f79a6bc53fc2b7372",
        ),
        (
            json!({
                "domainname": "lan", "dns": ["9.9.9.9", "1.1.1.1"], "dns_search": "lan", "dns_opt": ["ndots:2"],
                "logging": {"driver": "json-file", "options": {"max-size": "1m"}}, "annotations": ["a=b"],
                "stdin_open": true,
            }),
            "v1:2fac288aa09b934a187ed912abaf8dfe30f5f05552cb8bd7cecd8d45d5ae374e",
        ),
        (
            json!({"healthcheck": {"start_interval": "1s", "start_period": "5s"}}),
            "v1:fe704ab79aad04964ed4919cecedba0ecdf6e3843aecb1fcbbd6a00f49733b2c",
        ),
        (
            json!({"volumes": [
                "/srv:/s:ro",
                {"source": "a", "target": "/a", "volume": {"nocopy": true, "subpath": "b"}},
            ]}),
            "v1:b291e993393cdca7f822b8503130cdf0e3fba9a125f0eb212a86ed87bcacb2d2",
        ),
        (
            json!({"networks": {"default": {
                "mac_address": "02-42-AC-11-65-43", "priority": 5, "gw_priority": 1,
                "link_local_ips": ["169.254.8.8"], "driver_opts": {"x": 1},
            }}}),
            "v1:2fb619e9d8c41208d10c84e45b9549c99e2ad1c054f6a08099191c0485f4a012",
        ),
    ] {
        assert_eq!(plain(&composition), wanted, "{composition}");
    }
}

#[test]
fn golden_hashes_of_services_that_join_another_one() {
    for (composition, wanted) in [
        (
            json!({"network_mode": "service:db"}),
            "v1:676a484c6698a41b3f8a2abf608a0f89368df22c9a7d3c390aae8917758e4bfa",
        ),
        (json!({"pid": "service:db"}), "v1:85d2bd82471fd0d92533e03cff1949e1e32e38d4a33b837c9619f6bf115ecf83"),
    ] {
        assert_eq!(plain(&composition), wanted, "{composition}");
    }
}

#[test]
fn golden_hash_of_everything() {
    let composition = json!({
        "command": "sh -c 'a b'", "entrypoint": ["/bin/sh"], "environment": {"A": 1, "U": "é\"\n"},
        "labels": ["l=x"], "ports": ["8080:80", "127.0.0.1:9000:9000", {"target": 81, "protocol": "udp"}],
        "volumes": ["named:/n", "data:/data:ro", "/tmp/x"], "tmpfs": "/run:size=1m",
        "networks": {"back": {"aliases": ["w"], "ipv4_address": "172.28.0.10"}},
        "restart": "on-failure:3", "depends_on": {"db": {"condition": "service_healthy"}},
        "user": 1000, "working_dir": "/srv", "hostname": "h",
        "healthcheck": {"test": ["CMD", "true"], "interval": "10s", "retries": 3},
        "stop_grace_period": "1m30s", "stop_signal": "INT", "mem_limit": "64m",
        "cap_add": ["NET_ADMIN"], "cap_drop": ["all"], "devices": ["/dev/a:/dev/b:r"],
        "privileged": true, "read_only": true, "init": false, "tty": true,
        "ulimits": {"nofile": {"soft": 1024, "hard": 2048}}, "extra_hosts": ["a=1.2.3.4"],
    });
    let networks =
        json!({"back": {"ipam": {"config": [{"subnet": "172.28.0.0/16", "gateway": "172.28.0.1"}]}}});
    let volumes = json!({"named": {"labels": {"a": "b"}}});
    assert_eq!(
        hash(IMAGE, &composition, &networks, &volumes),
        "v1:caf34f8d4291485aa29648874fe07d515bde7669e8181b548a6be0e8c5024ea6"
    );
}

#[test]
fn other_words_for_the_same_make_the_same_hash() {
    for (one, other) in [
        (
            json!({}),
            json!({"restart": "always", "tty": false, "networks": ["default"], "ports": [], "user": ""}),
        ),
        (json!({"ports": ["1:1", "2:2"]}), json!({"ports": ["2:2/tcp", {"target": 1, "published": 1}]})),
        (json!({"environment": ["A=1"]}), json!({"environment": {"A": 1}})),
        (json!({"volumes": ["a:/a", "b:/b"]}), json!({"volumes": ["b:/b/", "a:/a:rw"]})),
        (json!({"stop_grace_period": "90s"}), json!({"stop_grace_period": "1m30s"})),
        (json!({"mem_limit": "64m"}), json!({"mem_limit": 67_108_864})),
        (json!({"command": "a b"}), json!({"command": ["a", "b"]})),
        (json!({"cap_add": ["NET_ADMIN"]}), json!({"cap_add": ["CAP_NET_ADMIN"]})),
        (json!({"depends_on": ["db"]}), json!({})),
        (json!({"container_name": "x", "image": "y", "build": "z"}), json!({})),
    ] {
        assert_eq!(plain(&one), plain(&other), "{one} {other}");
    }
    let other_place = IMAGE.replace("r.example/web", "mirror.example:5000/v2/web");
    assert_eq!(
        hash(&other_place, &json!({}), &json!({}), &json!({})),
        plain(&json!({})),
        "the digest counts"
    );
}

#[test]
fn every_difference_makes_another_hash() {
    let mut seen = BTreeMap::new();
    for composition in [
        json!({}),
        json!({"command": []}),
        json!({"command": "a"}),
        json!({"entrypoint": "a"}),
        json!({"environment": {"A": "1"}}),
        json!({"labels": {"A": "1"}}),
        json!({"ports": [{"target": 80}]}),
        json!({"ports": ["80:80"]}),
        json!({"ports": ["80/udp"]}),
        json!({"volumes": ["/a"]}),
        json!({"volumes": ["a:/a"]}),
        json!({"volumes": ["a:/a:ro"]}),
        json!({"tmpfs": "/a"}),
        json!({"tmpfs": "/a:size=1m"}),
        json!({"networks": ["a"]}),
        json!({"networks": ["a", "default"]}),
        json!({"networks": {"a": {"aliases": ["b"]}}}),
        json!({"networks": {"default": {"aliases": ["b"]}}}),
        json!({"network_mode": "none"}),
        json!({"network_mode": "bridge"}),
        json!({"restart": "on-failure"}),
        json!({"restart": "unless-stopped"}),
        json!({"user": "a"}),
        json!({"working_dir": "/a"}),
        json!({"hostname": "a"}),
        json!({"healthcheck": {"disable": true}}),
        json!({"healthcheck": {"timeout": "1s"}}),
        json!({"healthcheck": {"start_period": "1s"}}),
        json!({"stop_grace_period": "0s"}),
        json!({"stop_signal": "INT"}),
        json!({"mem_limit": "1g"}),
        json!({"cap_add": ["ALL"]}),
        json!({"cap_drop": ["ALL"]}),
        json!({"devices": ["/dev/a"]}),
        json!({"privileged": true}),
        json!({"read_only": true}),
        json!({"init": true}),
        json!({"init": false}),
        json!({"tty": true}),
        json!({"ulimits": {"core": 0}}),
        json!({"extra_hosts": ["a=1.1.1.1"]}),
        json!({"cpus": 1}),
        json!({"deploy": {"resources": {"limits": {"cpus": "2"}}}}),
        json!({"cpu_shares": 2}),
        json!({"blkio_config": {"weight": 20}}),
        json!({"cpu_period": 1000}),
        json!({"cpu_quota": 1000}),
        json!({"cpu_rt_period": 1000}),
        json!({"cpu_rt_runtime": 1000}),
        json!({"cpuset": "0"}),
        json!({"mem_reservation": "8m"}),
        json!({"mem_limit": "8m", "memswap_limit": "8m"}),
        json!({"mem_limit": "8m", "memswap_limit": -1}),
        json!({"mem_swappiness": 0}),
        json!({"mem_swappiness": 1}),
        json!({"oom_kill_disable": true}),
        json!({"oom_score_adj": 1}),
        json!({"pids_limit": 1}),
        json!({"pids_limit": -1}),
        json!({"shm_size": 1}),
        json!({"ipc": "private"}),
        json!({"ipc": "host"}),
        json!({"pid": "host"}),
        json!({"uts": "host"}),
        json!({"userns_mode": "host"}),
        json!({"cgroup": "host"}),
        json!({"cgroup_parent": "a"}),
        json!({"security_opt": ["no-new-privileges"]}),
        json!({"sysctls": {"net.a": 1}}),
        json!({"group_add": [1]}),
        json!({"runtime": "a"}),
        json!({"device_cgroup_rules": ["a *:* r"]}),
        json!({"gpus": "all"}),
        json!({"gpus": [{"count": 1}]}),
        json!({"domainname": "a"}),
        json!({"dns": "1.1.1.1"}),
        json!({"dns": ["1.1.1.1", "2.2.2.2"]}),
        json!({"dns": ["2.2.2.2", "1.1.1.1"]}),
        json!({"dns_search": "a"}),
        json!({"dns_opt": ["a"]}),
        json!({"logging": {"driver": "none"}}),
        json!({"annotations": {"a": "1"}}),
        json!({"stdin_open": true}),
        json!({"mac_address": "02:42:ac:11:65:43"}),
        json!({"volumes": ["/a:/a"]}),
        json!({"volumes": ["/a:/a:rslave"]}),
        json!({"volumes": [{"type": "bind", "source": "/a", "target": "/a", "bind": {"create_host_path": false}}]}),
        json!({"labels": {"io.balena.features.sysfs": "1"}}),
    ] {
        if let Some(other) = seen.insert(plain(&composition), composition.clone()) {
            panic!("{composition} has the hash of {other}");
        }
    }
}

#[test]
fn the_configs_of_what_it_uses_count_and_no_others() {
    let composition = json!({"networks": ["n"], "volumes": ["v:/v"]});
    let of = |networks: Value, volumes: Value| hash(IMAGE, &composition, &networks, &volumes);
    let bare = of(json!({}), json!({}));
    assert_eq!(of(json!({"n": {}}), json!({"v": null})), bare);
    assert_eq!(of(json!({"m": {"internal": true}}), json!({"w": {"driver": "x"}})), bare, "not its own");
    assert_ne!(of(json!({"n": {"internal": true}}), json!({})), bare);
    assert_ne!(of(json!({}), json!({"v": {"driver": "x"}})), bare);
    let ranges = |range: Value| of(json!({"n": {"ipam": {"config": [range]}}}), json!({}));
    let plain = ranges(json!({"subnet": "10.9.0.0/24"}));
    assert_ne!(ranges(json!({"subnet": "10.9.0.0/24", "aux_addresses": {"a": "10.9.0.9"}})), plain);
    assert_ne!(of(json!({"n": {"ipam": {"driver": "x"}}}), json!({})), bare);
    assert_ne!(of(json!({"n": {"ipam": {"options": {"x": "1"}}}}), json!({})), bare);
}

#[test]
fn whether_it_runs_and_its_numbers_do_not_count() {
    let of = |service: Value| {
        let state = json!({"id": 1, "services": {"web": service}});
        let (contents, _) = compose::read(&serde_json::from_value(state).unwrap(), Form::Target);
        contents.services.into_values().next().unwrap().hash
    };
    assert_eq!(
        of(json!({"id": 1, "image_id": 2, "image": IMAGE})),
        of(json!({"id": 8, "image_id": 9, "image": IMAGE, "running": false}))
    );
}

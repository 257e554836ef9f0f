//! What a device's owner does not allow is refused with its path and the setting.

use serde_json::{Value, json};

use super::*;
use crate::model::Bounds;
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

fn told(composition: &Value, policy: &Policy) -> Vec<String> {
    let contents = read(composition, &json!({}));
    violations(&contents, Form::Target, policy)
        .iter()
        .map(|refusal| refusal.to_string().replace("services.web.composition", "~"))
        .collect()
}

fn nothing() -> Policy {
    Policy {
        has_privileged: false,
        has_host_network: false,
        has_host_namespaces: false,
        has_docker_socket: false,
        has_devices: false,
        has_capabilities: false,
        has_features: false,
        host_paths: Vec::new(),
        bounds: Bounds::default(),
    }
}

#[test]
fn what_is_asked_for_is_refused_by_a_policy_of_nothing_and_allowed_by_default() {
    for (composition, path, setting) in [
        (json!({"privileged": true}), "~.privileged", "privileged"),
        (json!({"security_opt": ["seccomp:unconfined"]}), "~.security_opt", "privileged"),
        (json!({"network_mode": "host"}), "~.network_mode", "host_network"),
        (json!({"pid": "host"}), "~.pid", "host_namespaces"),
        (json!({"ipc": "host"}), "~.ipc", "host_namespaces"),
        (json!({"uts": "host"}), "~.uts", "host_namespaces"),
        (json!({"userns_mode": "host"}), "~.userns_mode", "host_namespaces"),
        (json!({"cgroup": "host"}), "~.cgroup", "host_namespaces"),
        (json!({"cgroup_parent": "/x"}), "~.cgroup_parent", "host_namespaces"),
        (json!({"devices": ["/dev/ttyUSB0"]}), "~.devices", "devices"),
        (json!({"device_cgroup_rules": ["c 188:* rwm"]}), "~.device_cgroup_rules", "devices"),
        (json!({"gpus": "all"}), "~.gpus", "devices"),
        (json!({"labels": {"io.balena.features.gpu": "1"}}), "~.gpus", "devices"),
        (json!({"cap_add": ["NET_ADMIN"]}), "~.cap_add", "capabilities"),
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
            "{path}: this device does not let releases have it: remove it, or set policy.{setting} = \"yes\" on \
             the device"
        );
        assert_eq!(told(&composition, &nothing()), [why], "{composition}");
        assert_eq!(told(&composition, &Policy::default()), Vec::<String>::new(), "{composition}");
    }
    for harmless in [
        json!({}),
        json!({"security_opt": ["no-new-privileges:true"], "cap_drop": ["ALL"], "ipc": "private"}),
        json!({"labels": {"io.balena.features.dbus": "0", "io.balena.features.balena-socket": "no"}}),
        json!({"volumes": ["data:/data", "/scratch"], "tmpfs": ["/run"]}),
    ] {
        assert_eq!(told(&harmless, &nothing()), Vec::<String>::new(), "{harmless}");
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
            told(&bind(source), &with(&["/media"])),
            [format!("~.volumes: {source:?} is a path of the host, which is not mounted: {why}, {rest}")]
        );
    }
    assert_eq!(told(&bind("/srv/app"), &with(&["/srv"])), Vec::<String>::new());
    assert_eq!(told(&bind("/srv2"), &with(&["/srv"])).len(), 1);
    assert_eq!(told(&bind("/"), &with(&["/srv"])).len(), 1);
    let no_socket = Policy { has_docker_socket: false, ..with(&["/"]) };
    assert_eq!(told(&bind("/run/docker.sock"), &with(&["/run"])), Vec::<String>::new());
    for above in ["/run/docker.sock", "/run/docker.sock/", "/run", "/var", "/"] {
        let found = told(&bind(above), &no_socket);
        assert_eq!(found.len(), 1, "{above}: a path does not let the socket in");
        assert!(found[0].contains("policy.docker_socket"), "{found:?}");
    }
    assert_eq!(told(&bind("/srv/run"), &no_socket), Vec::<String>::new());
}

#[test]
fn a_volume_that_is_a_path_of_the_host_is_one() {
    let options = json!({"v": {"driver_opts": {"type": "none", "o": "bind,ro", "device": "/srv/x"}}});
    let contents = read(&json!({"volumes": ["v:/v"]}), &options);
    let told = violations(&contents, Form::File, &Policy::default());
    assert_eq!(told.iter().map(|r| r.path.as_str()).collect::<Vec<_>>(), ["volumes.v.driver_opts.device"]);
    let policy = Policy { host_paths: vec!["/srv".into()], ..Policy::default() };
    assert_eq!(violations(&contents, Form::File, &policy), []);
    let options = json!({"v": {"driver_opts": {"type": "none", "o": "rbind", "device": "/var/run"}}});
    let policy = Policy { host_paths: vec!["/".into()], has_docker_socket: false, ..Policy::default() };
    assert_eq!(violations(&read(&json!({"volumes": ["v:/v"]}), &options), Form::File, &policy).len(), 1);
}

use serde_json::json;

use super::*;

fn images(names: &[&str]) -> BTreeMap<String, ImageRef> {
    names.iter().map(|name| ((*name).to_owned(), ImageRef::parse(name).unwrap())).collect()
}

fn file(value: serde_json::Value) -> ComposeFile {
    let section = |name: &str| serde_json::from_value(value[name].clone()).unwrap_or_default();
    ComposeFile {
        services: serde_json::from_value(value["services"].clone()).unwrap(),
        networks: section("networks"),
        volumes: section("volumes"),
    }
}

#[test]
fn what_devices_refuse_is_refused_here() {
    let web = json!({"image": "a", "ports": ["0"], "pid": "container:db", "depends_on": ["db"]});
    let given = file(json!({"services": {"web": web}}));
    let found: Vec<_> =
        check(&given, &images(&["web"]), None).unwrap_err().iter().map(ToString::to_string).collect();
    assert_eq!(
        found,
        [
            "services.web.ports[0]: \"0\" is not accepted: write ports from 1 to 65535",
            "services.web.pid: a container outside of the release cannot be joined: write \"service:NAME\" with a service of the release",
            "services.web.depends_on.db: there is no service db in the release: add it, or remove this",
        ]
    );
    let found = check(&given, &images(&[]), None).unwrap_err();
    assert_eq!(
        found[0].to_string(),
        "services.web.image: its image was not resolved: check the image's name and the registry"
    );
}

#[test]
fn what_only_some_devices_allow_is_a_warning() {
    let web = json!({"image": "a", "volumes": ["/srv:/srv"], "privileged": true});
    let given = file(json!({"services": {"web": web}}));
    let found = check(&given, &images(&["web"]), None).unwrap();
    let found: Vec<_> = found.iter().map(ToString::to_string).collect();
    assert_eq!(
        found,
        [
            "services.web.volumes: devices refuse it unless their settings allow it: \"/srv\" is a path of the \
          host that releases may not mount: use a named volume, or put the files into the image, or add it to \
          policy.host_paths on the device"
        ]
    );
}

#[test]
fn what_the_settings_of_a_device_forbid_is_refused_for_it() {
    let web = json!({"image": "a", "volumes": ["/srv:/srv"], "privileged": true});
    let given = file(json!({"services": {"web": web}}));
    let refused = check(&given, &images(&["web"]), Some(&Policy::strict())).unwrap_err();
    let paths: Vec<_> = refused.iter().map(|refusal| refusal.path.as_str()).collect();
    assert_eq!(paths, ["services.web.privileged", "services.web.volumes"]);
    let allowed = Policy { host_paths: vec!["/srv".into()], ..Policy::default() };
    assert_eq!(check(&given, &images(&["web"]), Some(&allowed)), Ok(Vec::new()));
}

#[test]
fn a_port_without_a_host_port_means_what_it_means_to_compose() {
    let web = json!({"image": "a", "ports": ["80", 81, "82-83/udp", "84:84", "127.0.0.1::85", "x"]});
    let mut given = file(json!({"services": {"web": web}}));
    let warned: Vec<_> = as_compose_means(&mut given).into_iter().map(|warning| warning.path).collect();
    assert_eq!(warned, ["services.web.ports[0]", "services.web.ports[1]", "services.web.ports[2]"]);
    let any = |port: u16, protocol: &str| json!({"target": port, "protocol": protocol});
    let wanted = json!([
        any(80, "tcp"),
        any(81, "tcp"),
        any(82, "udp"),
        any(83, "udp"),
        "84:84",
        "127.0.0.1::85",
        "x",
    ]);
    assert_eq!(given.services["web"]["ports"], wanted);
    assert_eq!(as_compose_means(&mut given), []);
}

#[test]
fn networks_and_volumes_must_be_declared() {
    let web = json!({"image": "a", "volumes": ["data:/data"], "networks": ["back", "default"]});
    let undeclared = check(&file(json!({"services": {"web": web}})), &images(&["web"]), None).unwrap_err();
    assert_eq!(
        undeclared.iter().map(ToString::to_string).collect::<Vec<_>>(),
        [
            "services.web.volumes: there is no volume data: declare it under volumes, or correct the name",
            "services.web.networks.back: there is no network back: declare it under networks, or correct the name",
        ]
    );
    let given = json!({"services": {"web": web}, "networks": {"back": null}, "volumes": {"data": {}}});
    assert_eq!(check(&file(given), &images(&["web"]), None), Ok(Vec::new()));
}

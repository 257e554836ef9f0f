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

/// A file of services that are alike, each with `fields`.
fn many(
    count: usize,
    fields: impl Fn(usize) -> serde_json::Value,
) -> (ComposeFile, BTreeMap<String, ImageRef>) {
    let names: Vec<String> = (0..count).map(|n| format!("s{n}")).collect();
    let services: serde_json::Map<_, _> =
        names.iter().enumerate().map(|(n, name)| (name.clone(), fields(n))).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    (file(json!({ "services": services })), images(&names))
}

fn refused(given: &ComposeFile, images: &BTreeMap<String, ImageRef>) -> String {
    let refusals = check(given, images, None).unwrap_err();
    refusals.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// With a pass over all services for each of them, these would run for minutes.
#[test]
fn five_thousand_services_are_checked() {
    let next = |n: usize| format!("s{}", (n + 1) % 5000);
    let joined = |n: usize| match n {
        4999 => json!({}),
        n => json!({"network_mode": format!("service:{}", next(n)), "depends_on": [next(n)]}),
    };
    let (given, found) = many(5000, joined);
    assert!(check(&given, &found, None).is_ok());
    let (given, found) = many(5000, |n| json!({"depends_on": [next(n)]}));
    assert!(
        refused(&given, &found).starts_with("services.s0.depends_on: services wait for each other: s0 → s1")
    );
    let linked = |n: usize| json!({"links": [format!("{}:a{n}", next(n))]});
    let (given, found) = many(5000, linked);
    assert!(check(&given, &found, None).is_ok());
    let host = |n: usize| json!({"ports": [format!("127.0.{}.{}:80:80", n / 200, n % 200)]});
    let (given, found) = many(5000, host);
    assert!(check(&given, &found, None).is_ok());
    let (given, found) = many(5001, |_| json!({}));
    assert_eq!(
        refused(&given, &found),
        "services: it has 5001 services, and a device accepts 5000 in total: use fewer, or raise limits.services on the \
         device"
    );
}

/// Otherwise a file of 256 kB would become 150 GB of ports.
#[test]
fn ports_are_counted_while_they_are_read() {
    let (mut given, found) = many(100, |_| json!({"ports": vec!["1-20000"; 100]}));
    as_compose_means(&mut given);
    let ports = |fields: &Map<String, Value>| fields["ports"].as_array().unwrap().len();
    assert_eq!(given.services.values().map(ports).sum::<usize>(), 3 * 20_000 + 9_997);
    let (given, found) = (many(100, |_| json!({"ports": ["1-20000"]})).0, found);
    assert_eq!(
        refused(&given, &found),
        "ports: its services publish more than 65535 ports, which no device accepts: use fewer"
    );
}

/// Otherwise its length would be multiplied by the number of its members.
#[test]
fn a_long_name_is_not_repeated_for_each_of_its_members() {
    let name = "x".repeat(100_000);
    let web = json!({"ports": vec![0; 50_000], "labels": vec!["a"; 50_000]});
    let given = file(json!({"services": {name.clone(): web}}));
    let found = refused(&given, &images_for(&name));
    assert!(found.len() < 65 * 400, "{}", found.len());
}

fn images_for(name: &str) -> BTreeMap<String, ImageRef> {
    [(name.to_owned(), ImageRef::parse("a").unwrap())].into()
}

#[test]
fn what_services_repeat_is_bounded() {
    let (mut given, found) = many(1000, |_| json!({"networks": ["n"]}));
    let network = |bytes: usize| json!({"driver_opts": {"a": "x".repeat(bytes)}});
    given.networks.insert("n".into(), network(8 * 1024));
    assert!(check(&given, &found, None).is_ok());
    given.networks.insert("n".into(), network(10_000));
    assert!(refused(&given, &found).starts_with(
        "networks: the configs of the networks and volumes have 10001000 bytes, counted for each service"
    ));
    let (mut given, found) = many(2, |n| match n {
        0 => {
            json!({"networks": (0..101).map(|n| format!("n{n}")).collect::<Vec<_>>(), "links": vec!["s1:a"; 100]})
        }
        _ => json!({"networks": (0..101).map(|n| format!("n{n}")).collect::<Vec<_>>()}),
    });
    given.networks.extend((0..101).map(|n| (format!("n{n}"), Value::Null)));
    assert_eq!(
        refused(&given, &found),
        "services.s0.links[99]: links give more than 10000 names, counted in each network: use fewer, or aliases of \
         networks"
    );
}

#[test]
fn five_thousand_networks_are_compared() {
    let (mut given, found) = many(1, |_| json!({}));
    let network =
        |n: usize| json!({"ipam": {"config": [{"subnet": format!("10.{}.{}.0/24", n / 256, n % 256)}]}});
    given.networks.extend((0..4999).map(|n| (format!("n{n}"), network(n))));
    assert!(check(&given, &found, None).is_ok());
}

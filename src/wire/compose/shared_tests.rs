//! Services that join each other: what is accepted, and what is refused with which words.

use serde_json::json;

use super::*;

const IMAGE: &str = "r.example/web@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

/// A release of these services, in a compose file.
fn release(services: &Value) -> (Contents, Notes) {
    let service =
        |composition: &Value| json!({"id": 1, "image_id": 2, "image": IMAGE, "composition": composition});
    let services: serde_json::Map<_, _> =
        services.as_object().unwrap().iter().map(|(name, given)| (name.clone(), service(given))).collect();
    let state = serde_json::from_value(json!({"id": 3, "services": services})).unwrap();
    read(&state, Form::File)
}

fn accepted(services: &Value) -> BTreeMap<String, ServiceSpec> {
    let (contents, notes) = release(services);
    assert_eq!(notes, Notes::default(), "{services}");
    contents.services.into_iter().map(|(name, spec)| (name.to_string(), spec)).collect()
}

fn refused(services: &Value) -> Vec<String> {
    release(services).1.refusals.iter().map(ToString::to_string).collect()
}

/// The networks of a service, each with the aliases that its author or a link gave it.
fn aliases(spec: &ServiceSpec) -> String {
    let NetworkMode::Networks(attachments) = &spec.network_mode else { return String::new() };
    let shown = attachments.iter().map(|(network, attachment)| {
        format!("{network}: {}", attachment.aliases.iter().cloned().collect::<Vec<_>>().join(" "))
    });
    shown.collect::<Vec<_>>().join(", ")
}

#[test]
fn a_link_with_another_name_is_an_alias_in_the_networks_that_both_have() {
    for (web, db, wanted) in [
        (json!({"links": ["db:database"]}), json!({}), "default: database"),
        (json!({"links": ["db:b", "db:a"]}), json!({}), "default: a b"),
        (
            json!({"links": ["db:database"], "networks": ["a", "b"]}),
            json!({"networks": {"b": {"aliases": ["own"]}, "c": {}}}),
            "b: database own, c: ",
        ),
    ] {
        let services = json!({"db": db, "web": web.clone(), "x": {"networks": ["a", "b", "c"]}});
        let networks = json!({"a": null, "b": null, "c": null});
        let service =
            |composition: &Value| json!({"id": 1, "image_id": 2, "image": IMAGE, "composition": composition});
        let services: serde_json::Map<_, _> = services
            .as_object()
            .unwrap()
            .iter()
            .map(|(name, given)| (name.clone(), service(given)))
            .collect();
        let state =
            serde_json::from_value(json!({"id": 3, "services": services, "networks": networks})).unwrap();
        let (contents, notes) = read(&state, Form::File);
        assert_eq!(notes, Notes::default(), "{web}");
        assert_eq!(aliases(&contents.services[&ServiceName::parse("db").unwrap()]), wanted, "{web}");
    }
    // Two services may use the same link.
    let both = json!({"db": {}, "a": {"links": ["db:database"]}, "b": {"links": ["db:database"]}});
    assert_eq!(aliases(&accepted(&both)["db"]), "default: database");
}

#[test]
fn a_link_that_would_lead_to_two_services_or_to_none_is_refused() {
    let two = |name: &str, other: &str| {
        format!(
            "services.{name}: the name database is that of {other} in network default, too, where every service finds \
             the same one: choose another name, or give the two services a network without {other}"
        )
    };
    let nowhere = "services.web.links[0]: web and db have no network of the release in common, so database would lead \
                   nowhere: give both the same network, or remove the link";
    let link = json!({"links": ["db:database"]});
    for (services, wanted) in [
        (json!({"db": {}, "database": {}, "web": link.clone()}), two("web.links[0]", "database")),
        (json!({"db": {}, "database": {"network_mode": "none"}, "web": link.clone()}), String::new()),
        (
            json!({"db": {}, "c": {"networks": {"default": {"aliases": ["database"]}}}, "web": link.clone()}),
            two("web.links[0]", "c"),
        ),
        (json!({"db": {}, "db2": {}, "a": link.clone(), "b": {"links": ["db2:database"]}}), two("b.links[0]", "db")),
        (json!({"db": {"network_mode": "none"}, "web": link.clone()}), nowhere.to_owned()),
        (
            json!({"db": {}, "web": {"links": ["db:a b"]}}),
            "services.web.links[0]: \"a b\" is not accepted: write a host name: letters, digits, '.', '-' and '_'".to_owned(),
        ),
        (json!({"web": {"links": [1]}}), "services.web.links[0]: 1 is not accepted: write a text".to_owned()),
    ] {
        assert_eq!(refused(&services).join("\n"), wanted, "{services}");
    }
}

#[test]
fn whoever_joins_another_one_waits_for_it() {
    let services = accepted(&json!({
        "vpn": {"ports": ["8080:80"], "ipc": "shareable"},
        "web": {"network_mode": "service:vpn", "pid": "service:web2", "ipc": "service:vpn"},
        "web2": {"network_mode": "service:vpn", "depends_on": {"vpn": {"condition": "service_healthy"}}},
    }));
    let joins: Vec<_> =
        services["web"].joins().map(|(kind, name)| format!("{} {name}", kind.as_str())).collect();
    assert_eq!(joins, ["network vpn", "ipc vpn", "pid web2"]);
    let waits = |name: &str| {
        let on = services[name].depends_on.iter();
        on.map(|(other, condition)| format!("{other} {condition:?}")).collect::<Vec<_>>()
    };
    assert_eq!(waits("web"), ["vpn Started", "web2 Started"]);
    assert_eq!(waits("web2"), ["vpn Healthy"], "what its author says holds");
}

#[test]
fn what_does_not_go_together_is_refused() {
    let vpn = |fields: Value| json!({"vpn": {}, "web": fields});
    let of_network = "it cannot be combined with network_mode service:vpn: write it in vpn, or remove it";
    for (field, value) in [
        ("ports", json!(["80:80"])),
        ("hostname", json!("a")),
        ("domainname", json!("a")),
        ("dns", json!("1.1.1.1")),
        ("dns_search", json!(["a"])),
        ("dns_opt", json!(["ndots:2"])),
        ("extra_hosts", json!(["a=1.1.1.1"])),
        ("mac_address", json!("02:42:ac:11:65:43")),
    ] {
        let fields = json!({"network_mode": "service:vpn", field: value});
        assert_eq!(refused(&vpn(fields)), [format!("services.web.{field}: {of_network}")]);
    }
    for (services, refusals) in [
        (
            vpn(json!({"network_mode": "service:vpn", "networks": ["a"]})),
            vec![
                "services.web.network_mode: service:vpn cannot be combined with networks: remove one of the two",
            ],
        ),
        (
            vpn(json!({"network_mode": "service:vpn", "sysctls": {"net.core.somaxconn": 9}})),
            vec![
                "services.web.sysctls.net.core.somaxconn: with network_mode service:vpn it would change vpn: set it in vpn",
            ],
        ),
        (
            vpn(json!({"network_mode": "service:missing"})),
            vec![
                "services.web.network_mode: there is no service missing in the release: add it, or remove this",
            ],
        ),
        (
            vpn(json!({"ipc": "service:vpn"})),
            vec!["services.web.ipc: vpn does not share its memory: give it ipc: shareable"],
        ),
        (
            json!({
                "vpn": {"restart": "no"},
                "web": {"pid": "service:vpn", "depends_on": {"vpn": {"condition": "service_completed_successfully"}}},
            }),
            vec![
                "services.web.pid: vpn must run while this service joins it: remove the condition \
                 service_completed_successfully from depends_on",
            ],
        ),
    ] {
        assert_eq!(refused(&services), refusals, "{services}");
    }
}

#[test]
fn a_service_cannot_join_itself() {
    for (services, refusal) in [
        (
            json!({"a": {"network_mode": "service:a"}}),
            "services.a.network_mode: services wait for each other: a → a: remove one dependency",
        ),
        (
            json!({"a": {"network_mode": "service:b"}, "b": {"pid": "service:a"}}),
            "services.a.network_mode: services wait for each other: a → b → a: remove one dependency",
        ),
        (
            json!({"a": {"depends_on": ["b"]}, "b": {"network_mode": "service:a"}}),
            "services.a.depends_on: services wait for each other: a → b → a: remove one dependency",
        ),
    ] {
        assert_eq!(refused(&services), [refusal], "{services}");
    }
}

/// When one that is joined is replaced, its container is another one.
#[test]
fn the_hash_of_one_that_is_joined_counts() {
    let hashes = |services: Value| -> BTreeMap<_, _> {
        accepted(&services).into_iter().map(|(name, spec)| (name, spec.hash.to_string())).collect()
    };
    let of = |vpn: Value, beside: Value| {
        hashes(json!({
            "beside": beside, "vpn": vpn,
            "a": {"network_mode": "service:b"}, "b": {"network_mode": "service:vpn"},
        }))
    };
    let one = of(json!({}), json!({}));
    let other = of(json!({"user": "x"}), json!({}));
    for name in ["vpn", "a", "b"] {
        assert_ne!(one[name], other[name], "{name}");
    }
    assert_eq!(one["beside"], other["beside"]);
    assert_eq!(one, BTreeMap::from_iter(of(json!({}), json!({}))));
    let beside = of(json!({}), json!({"user": "x"}));
    assert_eq!((&one["a"], &one["b"]), (&beside["a"], &beside["b"]));
}

/// The engine takes only one of them.
#[test]
fn networks_with_addresses_in_common_are_refused() {
    let overlap = |one: &str, other: &str| {
        let range = |subnet: &str| json!({"ipam": {"config": [{"subnet": subnet}]}});
        let state = json!({"id": 3, "networks": {"a": range(one), "b": range(other), "c": {}}});
        let (_, notes) = read(&serde_json::from_value(state).unwrap(), Form::File);
        notes.refusals.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(overlap("10.1.0.0/16", "10.2.0.0/16"), Vec::<String>::new());
    assert_eq!(
        overlap("10.1.0.0/16", "10.1.7.0/24"),
        ["networks.b.ipam.config: its subnet overlaps with that of network a: choose another subnet"]
    );
}

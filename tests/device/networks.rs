//! Networks that change with a release, also where the new one can only come in the place of the old one.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Agent, Container, FakeCloud, Lab, Podman, eventually};
use crate::{app, service, until_done, uuid};

/// What the engine has of the networks of the app, each as name and range.
fn networks(lab: &Lab, agent: &Agent<'_>) -> Vec<(String, String)> {
    let docker = lab.docker();
    let format = "{{index .Labels \"io.cotter.network\"}} {{range .IPAM.Config}}{{.Subnet}}{{end}}";
    let ids = docker.ids("network", agent.instance());
    let one = |id: &String| docker.run(&["network", "inspect", "--format", format, id]);
    let mut all: Vec<_> = ids.iter().map(one).collect();
    all.sort();
    all.iter().filter_map(|text| text.split_once(' ')).map(|(a, b)| (a.to_owned(), b.to_owned())).collect()
}

fn address(container: &Container) -> String {
    let networks = container.raw.pointer("/NetworkSettings/Networks").and_then(Value::as_object).unwrap();
    let lan = networks.iter().find(|(name, _)| name.contains("_lan_")).expect("it is on lan").1;
    lan["IPAddress"].as_str().unwrap().to_owned()
}

#[test]
fn a_network_takes_the_place_of_another_one_and_gives_it_back() {
    replaces(&Lab::new("lan"), "10.215");
}

#[test]
fn with_podman_too() {
    let Some((_podman, lab)) = Podman::with_lab("lan-podman") else { return };
    replaces(&lab, "10.216");
}

/// With networks whose addresses begin so.
fn replaces(lab: &Lab, first: &str) {
    let cloud = FakeCloud::start();
    // Runs beside each other have other ranges.
    let first = format!("{first}.{}", std::process::id() % 250);
    let range = |bits: u8| format!("{first}.0/{bits}");
    let target = |commit: &str, image: &str, bits: u8| {
        let address = format!("{first}.{bits}");
        let lan = json!({ "lan": { "ipv4_address": address, "aliases": ["shop"] }, "default": {} });
        let web = service(lab.image(image), json!({ "networks": lan }));
        let mut shop = app(1, "shop", commit, &[("web", web), ("db", service(lab.image("r1"), json!({})))]);
        let networks = json!({ "lan": { "ipam": { "config": [{ "subnet": range(bits) }] } } });
        shop["releases"][commit]["networks"] = networks;
        cloud.target(commit, &json!({ uuid(1): shop }));
    };
    target("one", "r1", 24);
    let mut agent = Agent::prepare(lab, &cloud.url, &cloud.fleet(lab), "till");
    agent.start_again();
    agent.until_serves("web", "one", "r1");
    until_done(&agent, "one");
    let usual = range_of(lab, &agent);
    let lan = |bits: u8| vec![("default".to_owned(), usual.clone()), ("lan".to_owned(), range(bits))];
    assert_eq!(networks(lab, &agent), lan(24));

    // A good release: the new network comes in the place of the old one, and who is not on it goes on.
    let db = agent.service("db").unwrap().standing();
    target("two", "r2", 25);
    let web = agent.until_serves("web", "two", "r2");
    until_done(&agent, "two");
    assert_eq!(networks(lab, &agent), lan(25));
    assert_eq!((address(&web), agent.service("db").unwrap().standing()), (format!("{first}.25"), db.clone()));

    // A bad one: the network of before comes back, and with it the container of before, as it was.
    assert_eq!(agent.get("web", "/make?/kept").unwrap().status, 200);
    let pulls = || agent.log().matches("what=pull ").count();
    target("bad", "exit", 26);
    agent.until_status("/waiting", "release bad was rejected");
    let pulled = pulls();
    let back = agent.until_serves("web", "two", "r2");
    assert_eq!((back.id.clone(), address(&back)), (web.id.clone(), format!("{first}.25")));
    assert!(lab.docker().run(&["diff", &back.id]).contains("A /kept"), "what it wrote is there");
    eventually("all of the bad one is gone", Duration::from_secs(30), || {
        (networks(lab, &agent) == lan(25) && agent.containers().len() == 2).then_some(())
    });
    assert_eq!(pulls(), pulled, "nothing was fetched for the rollback");
    assert_eq!(agent.service("db").unwrap().standing(), db);
    let aliases = back.raw.pointer("/NetworkSettings/Networks").unwrap().to_string();
    assert!(aliases.contains("\"shop\""), "{aliases}");

    // Somebody takes the network away while nothing runs.
    agent.stop();
    lab.docker().run(&["stop", "--time", "1", &back.id]);
    let format = "label=io.cotter.network=lan";
    let own = format!("label=io.cotter.instance={}", agent.instance());
    let id = lab.docker().run(&["network", "ls", "--quiet", "--filter", format, "--filter", &own]);
    lab.docker().run(&["network", "rm", &id]);
    agent.start_again();
    let again = agent.until_serves("web", "two", "r2");
    assert_eq!((again.id.clone(), address(&again)), (back.id, format!("{first}.25")));
    assert_eq!(networks(lab, &agent), lan(25));
}

/// The range that the engine has chosen for the network that says none.
fn range_of(lab: &Lab, agent: &Agent<'_>) -> String {
    networks(lab, agent).into_iter().find(|(name, _)| name == "default").expect("a default network").1
}

//! What an operator does to the containers of an accepted release without the agent.

use std::time::Duration;

use serde_json::json;

use crate::support::{Agent, FakeCloud, Instead, Lab, RegistryProxy, Reply, eventually};
use crate::{app, release, running, service, shop, until_done, uuid};

#[test]
fn a_network_that_was_removed_is_made_again_and_so_is_what_was_on_it() {
    let lab = Lab::new("network");
    let (mut server, _fleet, mut agent) = running(&lab, "one", &[("db", "r1"), ("web", "r1")]);
    until_done(&agent, "one");
    agent.get("web", "/write?3").unwrap();
    agent.stop();
    server.stop();

    // As `docker network prune` does while nothing runs.
    for container in agent.running() {
        lab.docker().run(&["stop", "--time", "1", &container.id]);
    }
    let networks = lab.docker().ids("network", agent.instance());
    assert_eq!(networks.len(), 1);
    lab.docker().run(&["network", "rm", &networks[0]]);
    agent.start_again();
    agent.until_serves("web", "one", "r1");
    agent.until_serves("db", "one", "r1");
    until_done(&agent, "one");
    assert_eq!(agent.get("web", "/").unwrap().json()["count"], 3, "its data is where it was");
    assert_eq!(agent.containers().len(), 2);
}

#[test]
fn the_way_back_does_without_the_network_that_its_containers_had() {
    let lab = Lab::new("way-back-network");
    let (server, fleet) = shop(&lab);
    let text = |image: &str, subnet: &str| {
        format!(
            r#"services:
  web:
    image: {image}
    ports: ["127.0.0.1::8080"]
    networks: [own]
    labels: {{ io.cotter.trial.soak: 1s, io.cotter.trial.deadline: 40s }}
    healthcheck: {{ test: ["CMD", "/app", "check"], interval: 1s, retries: 15 }}
networks: {{ own: {{ driver_opts: {{ com.docker.network.bridge.enable_icc: "{subnet}" }} }} }}
"#,
            image = lab.image(image)
        )
    };
    server.create_release(&fleet, "one", &lab.file("one.yml", &text("r1", "true")));
    let agent = Agent::start(&lab, &server, &fleet, "till");
    agent.until_serves("web", "one", "r1");
    until_done(&agent, "one");
    let before = lab.docker().ids("network", agent.instance());
    // Its network has another config, so it is another network; and the old one is removed while no container is on it.
    server.create_release(&fleet, "two", &lab.file("two.yml", &text("unhealthy", "false")));
    eventually("it is tried", Duration::from_secs(30), || {
        (agent.service("web")?.release() == "two").then_some(())
    });
    eventually("the old network is removed", Duration::from_secs(10), || {
        lab.docker().try_run(&["network", "rm", &before[0]]).status.success().then_some(())
    });
    agent.until_status("/waiting", "release two was rejected");
    agent.until_serves("web", "one", "r1");
}

#[test]
fn a_paused_service_is_reported_and_an_update_passes_it() {
    let lab = Lab::new("paused");
    let (server, fleet, agent) = running(&lab, "one", &[("web", "r1")]);
    until_done(&agent, "one");
    let web = agent.service("web").unwrap();
    lab.docker().run(&["pause", &web.id]);
    agent.until_status("/waiting", "it is paused");
    assert_eq!(agent.service("web").unwrap().standing(), web.standing(), "whoever paused it has a reason");
    lab.docker().run(&["unpause", &web.id]);
    until_done(&agent, "one");
    lab.docker().run(&["pause", &web.id]);
    release(&lab, &server, &fleet, "two", &[("web", "r2")]);
    agent.until_serves("web", "two", "r2");
    until_done(&agent, "two");
}

#[test]
fn an_image_that_was_removed_is_fetched_again_as_soon_as_its_registry_is_there() {
    let lab = Lab::new("image");
    let cloud = FakeCloud::start();
    let registry = RegistryProxy::start(&lab);
    let web = lab.fresh_image("r1");
    let services = [
        ("db", service(lab.image("r2"), json!({ "volumes": ["db:/data"] }))),
        ("web", service(&registry.image(&web), json!({}))),
    ];
    let mut shop = app(1, "shop", "one", &services);
    shop["releases"]["one"]["volumes"]["db"] = json!({});
    cloud.target("one", &json!({ uuid(1): shop }));
    let mut agent = Agent::prepare(&lab, &cloud.url, &cloud.fleet(&lab), "till");
    agent.start_again();
    agent.until_serves("web", "one", "r1");
    agent.until_serves("db", "one", "r2");
    until_done(&agent, "one");
    agent.get("web", "/write?3").unwrap();
    let db = agent.service("db").unwrap().standing();

    // The container and its image go, and the cloud and the registry are away.
    cloud.say(Reply::bare(503));
    registry.answer(|_| Some(Instead::Away));
    let web = agent.service("web").unwrap();
    agent.stop();
    lab.docker().run(&["rm", "--force", &web.id]);
    lab.docker().run(&["rmi", "--force", &web.image]);
    agent.start_again();
    let output = agent.until_status("/waiting", "cannot be reached");
    assert!(output.contains("backoff") && output.contains("web"), "{output}");
    assert_eq!(agent.service("db").unwrap().standing(), db, "the other one does not notice");
    assert_eq!(agent.status_value("/apps/0/current"), "one");
    // The others are cared for meanwhile.
    lab.docker().run(&["rm", "--force", &agent.service("db").unwrap().id]);
    agent.until_serves("db", "one", "r2");
    // The registry is back, and the cloud is not.
    registry.answer(|_| None);
    agent.until_serves("web", "one", "r1");
    until_done(&agent, "one");
    assert_eq!(agent.get("web", "/").unwrap().json()["count"], 3, "its data is where it was");
    assert!(agent.status_value("/cloud/error").as_str().is_some_and(|error| error.contains("503")));
}

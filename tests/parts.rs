//! The parts that tests of the whole device stand on: engine, registry, demo app.

mod support;

use std::time::Duration;

use support::{Agent, FleetServer, Lab, eventually, http_get, stays};

/// Runs a release of the demo app by hand, as an agent would label it.
fn run(lab: &Lab, release: &str) -> String {
    let instance = lab.instance(release);
    let label = format!("io.cotter.instance={instance}");
    lab.docker().run(&["pull", "--quiet", lab.image(release)]);
    let args = ["run", "--detach", "--label", &label, "--label", "io.cotter.service=web"];
    let args = [&args[..], &["--publish", "127.0.0.1::8080", lab.image(release)]].concat();
    lab.docker().run(&args);
    instance
}

#[test]
fn releases_of_the_demo_app_behave_as_configured() {
    let lab = Lab::new("parts");
    for (release, healthz) in [("r1", 200), ("r2", 200), ("unhealthy", 500)] {
        let instance = run(&lab, release);
        let web = lab.docker().service(&instance, "web").expect("it runs");
        let address = &web.ports["8080/tcp"];
        let about = eventually("an answer", Duration::from_secs(5), || http_get(address, "/"));
        assert_eq!(about.json()["release"], release);
        assert_eq!(http_get(address, "/healthz").map(|answer| answer.status), Some(healthz), "{release}");
    }
    for release in ["crash", "exit"] {
        let instance = run(&lab, release);
        let ended = eventually("its end", Duration::from_secs(10), || {
            lab.docker().containers(&instance).into_iter().find(|container| !container.running)
        });
        assert_eq!(ended.exit_code, 1, "{release}");
    }
}

#[test]
fn a_lab_leaves_nothing_in_the_engine() {
    let lab = Lab::new("leaves");
    let docker = lab.docker().clone();
    let instance = run(&lab, "r1");
    assert_eq!(docker.running(&instance).len(), 1);
    drop(lab);
    assert!(docker.containers(&instance).is_empty());
}

#[test]
fn images_are_distinct_releases_by_digest() {
    let lab = Lab::new("images");
    let mut references: Vec<_> = lab.parts.images.values().collect();
    assert!(references.iter().all(|reference| reference.contains("@sha256:")), "{references:?}");
    let count = references.len();
    references.sort();
    references.dedup();
    assert_eq!((references.len(), count), (8, 8));
}

#[test]
fn the_fleet_server_keeps_its_address_and_its_fleet() {
    let lab = Lab::new("server");
    let mut server = FleetServer::start(&lab);
    let fleet = server.create_fleet(&lab, "lab");
    let compose = lab.compose("r1.yml", &[("web", "r1")], "stop_grace_period: 2s");
    server.create_release(&fleet, "r1", &compose);
    let url = server.url.clone();
    for cut in [false, true] {
        if cut {
            server.cut()
        } else {
            server.stop()
        }
        server.start_again();
        assert_eq!(server.url, url);
        let releases = server.cli_json(&["release", "list", "lab"]);
        assert_eq!(releases["releases"][0]["services"]["web"], lab.image("r1"));
        assert_eq!(server.cli_json(&["fleet", "show", "lab"])["fleet"]["uuid"], fleet.uuid.as_str());
    }
}

#[test]
fn an_agent_follows_its_fleet_and_outlives_a_cut() {
    let lab = Lab::new("agent");
    let server = FleetServer::start(&lab);
    let fleet = server.create_fleet(&lab, "lab");
    let more = "stop_grace_period: 2s\nlabels: { io.cotter.trial.soak: 1s }";
    server.create_release(&fleet, "r1", &lab.compose("r1.yml", &[("web", "r1"), ("api", "r1")], more));
    let mut agent = Agent::start(&lab, &server, &fleet, "a");
    agent.until_serves("web", "r1", "r1");
    agent.until_serves("api", "r1", "r1");
    let before = agent.standing();
    assert_eq!(before.len(), 2);

    agent.cut();
    stays("the containers while no agent runs", Duration::from_millis(500), || agent.standing());
    agent.start_again();
    eventually("the agent tells its release", Duration::from_secs(10), || {
        (agent.app()?["current"] == "r1").then_some(())
    });
    assert_eq!(agent.standing(), before);

    server.create_release(&fleet, "r2", &lab.compose("r2.yml", &[("web", "r2"), ("api", "r1")], more));
    agent.until_serves("web", "r2", "r2");
    let after: Vec<_> =
        agent.running().into_iter().filter(|container| container.service() == "api").collect();
    assert!(after.len() == 1 && before.contains(&after[0].standing()), "api did not change: {after:#?}");
    assert!(agent.stop().success());
}

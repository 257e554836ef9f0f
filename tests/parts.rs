//! The parts that tests of the whole device stand on: engine, registry, demo app.

mod support;

use std::time::Duration;

use support::{FleetServer, Lab, eventually, http_get};

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
fn releases_of_the_demo_app_do_what_they_are_told() {
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

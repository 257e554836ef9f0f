//! The whole device with podman as its engine.

use std::fs;
use std::time::Duration;

use crate::support::{Podman, eventually};
use crate::{compose, release, running, until_done};

#[test]
fn a_device_with_podman_follows_its_fleet_and_takes_back_what_crashes() {
    let Some((mut podman, lab)) = Podman::with_lab("podman") else { return };
    let (server, fleet, mut agent) = running(&lab, "one", &[("db", "r1"), ("old", "r1"), ("web", "r1")]);
    until_done(&agent, "one");
    let db = agent.service("db").unwrap().standing();
    assert_eq!(agent.get("web", "/write?5").unwrap().json()["count"], 5);

    release(&lab, &server, &fleet, "two", &[("db", "r1"), ("web", "r2")]);
    agent.until_serves("web", "two", "r2");
    until_done(&agent, "two");
    assert_eq!(agent.service("db").unwrap().standing(), db);
    assert_eq!(agent.get("web", "/").unwrap().json()["count"], 5, "its volume stays");
    eventually("what was replaced is removed", Duration::from_secs(10), || {
        (agent.containers().len() == 2).then_some(())
    });

    // One that crashes comes and goes, and the release before it is back.
    let web = agent.service("web").unwrap().id;
    let text = fs::read_to_string(compose(&lab, "crash", &[("db", "r1"), ("web", "crash")])).unwrap();
    // It crashes after a second: it is watched for longer.
    let (before, after) = text.rsplit_once("soak: 1s").unwrap();
    server.create_release(&fleet, "three", &lab.file("three.yml", &format!("{before}soak: 5s{after}")));
    agent.until_status("/waiting", "was rejected");
    agent.until_serves("web", "two", "r2");
    assert_eq!(agent.service("web").unwrap().id, web, "from its stopped container");
    assert_eq!(agent.service("db").unwrap().standing(), db);

    // A pin, so that the target is what runs; then agent and engine start again, and no container is touched.
    server.cli(&["device", "pin", "till", "two"]);
    until_done(&agent, "two");
    let before = agent.standing();
    podman.stop();
    agent.stop();
    podman.start_again();
    agent.start_again();
    until_done(&agent, "two");
    agent.until_polled(2);
    assert_eq!(agent.standing(), before);

    // A unhealthy one is seen, though podman's list does not tell it.
    let sick = lab.compose("sick.yml", &[("db", "r1"), ("web", "unhealthy")], PROBED);
    server.create_release(&fleet, "four", &sick);
    server.cli(&["device", "pin", "till", "four"]);
    agent.until_status("/waiting", "was rejected");
    agent.until_serves("web", "two", "r2");
    assert!(agent.stop().success());
}

/// What a service needs to be found unhealthy soon.
const PROBED: &str = "labels: { io.cotter.trial.soak: 1s }
healthcheck: { test: [CMD, /app, check], interval: 1s, retries: 1 }";

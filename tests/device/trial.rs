//! Releases that do not do well, on a real engine.

use std::time::Duration;

use crate::support::{Fleet, FleetServer, Lab, eventually};
use crate::{release, running, until_done};

/// A release of one service `web` with labels that make its trial last for 4 s, 12 s at most.
fn tried(lab: &Lab, server: &FleetServer, fleet: &Fleet, commit: &str, image: &str) {
    let text = format!(
        r#"services:
  db:
    image: {db}
    ports: ["127.0.0.1::8080"]
  web:
    image: {web}
    ports: ["127.0.0.1::8080"]
    healthcheck: {{ test: ["CMD", "/app", "check"], interval: 1s, retries: 3 }}
    labels: {{ io.cotter.trial.soak: 4s, io.cotter.trial.deadline: 12s }}
"#,
        db = lab.image("r1"),
        web = lab.image(image),
    );
    server.create_release(fleet, commit, &lab.file(&format!("{commit}.yml"), &text));
}

#[test]
fn a_bad_release_is_rolled_back_and_reported_everywhere() {
    let lab = Lab::new("trial");
    let (mut server, fleet, mut agent) = running(&lab, "good", &[("db", "r1"), ("web", "r1")]);
    until_done(&agent, "good");

    for (commit, image, why) in [
        ("crashes", "crash", "web was restarted 3 times by the engine"),
        ("sick", "unhealthy", "web is unhealthy"),
    ] {
        let web = agent.service("web").unwrap().id;
        tried(&lab, &server, &fleet, commit, image);
        agent.until_status("/waiting", &format!("release {commit} was rejected: {why}"));
        agent.until_serves("web", "good", "r1");
        agent.until_serves("db", "good", "r1");
        assert_eq!(agent.service("web").unwrap().id, web, "the very container comes back");
        assert_eq!(agent.status_value("/apps/0/current"), "good");
        assert_eq!(agent.status_value("/apps/0/update"), "rejected");
        eventually("the cloud knows it, too", Duration::from_secs(15), || {
            let shown = server.cli_json(&["device", "show", "till"]);
            (shown["device"]["running"] == "good").then_some(())
        });
    }

    // Later commands show the outcome of each, and what blocks now.
    let output = |args: &[&str]| String::from_utf8(agent.cli(args).stdout).unwrap();
    let history: serde_json::Value = serde_json::from_str(&output(&["history", "--json"])).unwrap();
    let happened: Vec<_> = history["history"]
        .as_array()
        .unwrap()
        .iter()
        .map(|h| {
            let text = |key: &str| h[key].as_str().unwrap().to_owned();
            format!("{} {}", text("what"), text("release"))
        })
        .collect();
    let expected =
        ["tried good", "accepted good", "tried crashes", "rejected crashes", "tried sick", "rejected sick"];
    assert_eq!(happened, expected);
    let table = output(&["history"]);
    assert!(table.contains("web was restarted 3 times by the engine"), "{table}");
    let explained = output(&["explain", "web"]);
    assert!(
        explained.starts_with("shop: should run sick (rejected), last accepted good\n\nrejected, since "),
        "{explained}"
    );
    assert!(explained.contains("  release sick was rejected: web is unhealthy; "), "{explained}");
    assert!(
        explained.contains("its healthcheck exited with code 1\n    | release unhealthy of web begins\n"),
        "{explained}"
    );
    assert!(explained.contains("`cotter retry` tries this one again"), "{explained}");
    let unknown = agent.cli(&["explain", "cache"]);
    assert_eq!(unknown.status.code(), Some(5));
    assert!(
        String::from_utf8_lossy(&unknown.stderr)
            .contains("no service is called cache; the services are: db, web")
    );

    // It is not tried again: not at the next polls, not after a restart, not without a cloud.
    let before = agent.standing();
    agent.until_polled(3);
    agent.cut();
    server.stop();
    agent.start_again();
    agent.until_status("/waiting", "release sick was rejected");
    assert!(String::from_utf8_lossy(&agent.cli(&["history"]).stdout).contains("rejected"), "nor forgotten");
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(agent.standing(), before);
}

#[test]
fn a_release_that_does_well_is_kept_after_its_soak_and_no_sooner() {
    let lab = Lab::new("soak");
    let (server, fleet, agent) = running(&lab, "good", &[("db", "r1"), ("web", "r1")]);
    until_done(&agent, "good");
    tried(&lab, &server, &fleet, "better", "r2");
    agent.until_status("/waiting", "release better runs well and is on trial for 4 s");
    assert_eq!(agent.status_value("/apps/0/current"), "good");
    let all = lab.docker().containers(agent.instance());
    assert_eq!(all.iter().filter(|c| c.service() == "web").count(), 2, "its predecessor is kept: {all:#?}");
    until_done(&agent, "better");
    eventually("its predecessor is gone", Duration::from_secs(10), || {
        (lab.docker().containers(agent.instance()).len() == 2).then_some(())
    });
}

#[test]
fn an_operator_holds_takes_back_and_tries_again() {
    let lab = Lab::new("hand");
    let (server, fleet, agent) = running(&lab, "one", &[("web", "r1")]);
    until_done(&agent, "one");

    let before = agent.standing();
    assert!(agent.order(&["hold", "--reason", "on stage"]).0);
    release(&lab, &server, &fleet, "two", &[("web", "r2")]);
    agent.until_status("/waiting", "on stage");
    agent.until_polled(2);
    assert_eq!(agent.standing(), before, "held");
    assert!(agent.order(&["unhold"]).0);
    agent.until_serves("web", "two", "r2");
    until_done(&agent, "two");

    assert!(agent.order(&["rollback"]).0);
    agent.until_serves("web", "one", "r1");
    agent.until_status("/waiting", "release two was rejected");
    agent.until_polled(2);
    assert_eq!(agent.serves("web").as_deref(), Some("r1"), "it is not tried again by itself");
    assert!(agent.order(&["retry"]).0);
    agent.until_serves("web", "two", "r2");
    until_done(&agent, "two");
}

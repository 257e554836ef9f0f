//! The agent ends, in good ways and bad ones; containers do not notice.

use std::time::{Duration, Instant};

use crate::support::{Lab, Program, eventually};
use crate::{release, running, until_done};

#[test]
fn killed_and_without_a_cloud_it_knows_its_release_and_touches_no_container() {
    let lab = Lab::new("cut");
    let (mut server, fleet, mut agent) = running(&lab, "one", &[("db", "r1"), ("web", "r1")]);
    until_done(&agent, "one");
    let (before, uuid) = (agent.standing(), agent.status_value("/device/uuid"));

    server.stop();
    for _ in 0..3 {
        agent.cut();
        agent.start_again();
        agent.until_status("/cloud/error", "cannot be reached");
        until_done(&agent, "one");
        assert_eq!(agent.standing(), before);
        assert_eq!(agent.status_value("/device/uuid"), uuid);
        assert_eq!(agent.status_value("/apps/0/target"), "one");
    }
    let out = agent.cli(&["status"]);
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(out.status.success() && said.contains("runs one, as it should"), "{said}");
    assert!(said.contains("cannot be reached"), "{said}");

    // Back in contact it is the same device, and follows.
    server.start_again();
    release(&lab, &server, &fleet, "two", &[("db", "r1"), ("web", "r2")]);
    agent.until_serves("web", "two", "r2");
    until_done(&agent, "two");
    assert_eq!(agent.status_value("/cloud/error"), serde_json::Value::Null);
    assert_eq!(server.cli_json(&["device", "list"])["devices"].as_array().unwrap().len(), 1);
    assert!(before.contains(&agent.service("db").unwrap().standing()));
}

#[test]
fn a_boot_needs_no_network() {
    let lab = Lab::new("boot");
    let (mut server, _fleet, mut agent) = running(&lab, "one", &[("db", "r1"), ("web", "r1")]);
    until_done(&agent, "one");
    server.stop();

    // A power cut: nothing runs, one container is even gone.
    agent.cut();
    for container in agent.running() {
        let act = if container.service() == "db" { &["rm", "--force"][..] } else { &["kill"] };
        lab.docker().run(&[act, &[&container.id]].concat());
    }
    assert!(agent.running().is_empty());
    agent.start_again();
    agent.until_serves("web", "one", "r1");
    agent.until_serves("db", "one", "r1");
    until_done(&agent, "one");
}

#[test]
fn sigterm_ends_it_soon_and_containers_stay() {
    let lab = Lab::new("term");
    let (server, fleet, mut agent) = running(&lab, "one", &[("web", "r1")]);
    until_done(&agent, "one");
    let before = agent.standing();
    let begun = Instant::now();
    assert!(agent.stop().success());
    assert!(begun.elapsed() < Duration::from_secs(12), "it took {:?}", begun.elapsed());
    assert_eq!(agent.standing(), before);
    assert!(agent.log().trim_end().ends_with("stopped"), "{}", agent.log());

    // In the middle of an update, it stops all the same, and goes on where it was.
    agent.start_again();
    until_done(&agent, "one");
    release(&lab, &server, &fleet, "two", &[("web", "r2")]);
    eventually("the update begins", Duration::from_secs(20), || {
        (agent.status_value("/apps/0/target") == "two").then_some(())
    });
    let begun = Instant::now();
    assert!(agent.stop().success());
    assert!(begun.elapsed() < Duration::from_secs(20), "it took {:?}", begun.elapsed());
    agent.start_again();
    agent.until_serves("web", "two", "r2");
    until_done(&agent, "two");
}

#[test]
fn a_second_agent_of_the_same_folders_ends_with_75() {
    let lab = Lab::new("second");
    let (_server, fleet, agent) = running(&lab, "one", &[("web", "r1")]);
    until_done(&agent, "one");
    let before = agent.standing();
    agent.give_key(&fleet); // with another state_dir it is one that has to register
    let elsewhere = |key: &str| format!("{key}={}", lab.dir().join("elsewhere").display());
    let (state_dir, runtime_dir) = (elsewhere("state_dir"), elsewhere("runtime_dir"));
    for (more, output) in [
        (
            &runtime_dir,
            format!("error: another process uses the state folder {}", agent.state_dir().display()),
        ),
        (&state_dir, format!("error: another agent answers at {}", agent.status_socket().display())),
    ] {
        let mut command = Program::cotter();
        command.arg("agent").arg("--config").arg(agent.settings_file()).args(["--set", more]);
        let log = lab.dir().join("second.log");
        let _none_yet = std::fs::remove_file(&log);
        let mut second = Program::start("the second agent", command, &log);
        let status = second.ended(Duration::from_secs(10));
        let said = second.log();
        assert_eq!(status.code(), Some(75), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(said.starts_with(&output), "{said}");
        assert!(said.contains("stop it, or give"), "a remedy: {said}");
    }
    assert!(!lab.dir().join("elsewhere/status.sock").exists(), "the socket of no agent is left");
    assert_eq!(agent.status_value("/apps/0/current"), "one");
    assert_eq!(agent.standing(), before);
}

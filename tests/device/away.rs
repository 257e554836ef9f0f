//! What a device stands on is not there yet, is not what it seems, or goes for a while.

use std::time::Duration;

use serde_json::Value;

use crate::support::{Agent, EngineProxy, Lab, eventually};
use crate::{release, shop, until_done};

#[test]
fn a_fleet_server_that_comes_later_is_found() {
    let lab = Lab::new("late-cloud");
    let (mut server, fleet) = shop(&lab);
    release(&lab, &server, &fleet, "one", &[("web", "r1")]);
    server.stop();
    let agent = {
        let mut agent = Agent::prepare(&lab, &server.url, &fleet, "till");
        agent.start_again();
        agent
    };
    let output = agent.until_status("/cloud/error", "cannot be reached");
    assert!(
        output.starts_with(&format!("registration: cloud {} cannot be reached: ", server.url)),
        "{output}"
    );
    assert_eq!(agent.status_value("/has_target"), false);
    let uuid = agent.status_value("/device/uuid");
    server.start_again();
    agent.until_serves("web", "one", "r1");
    until_done(&agent, "one");
    let devices = server.cli_json(&["device", "list"]);
    assert_eq!(devices["devices"].as_array().unwrap().len(), 1);
    assert_eq!(devices["devices"][0]["uuid"], uuid);
}

#[test]
fn an_engine_that_comes_later_or_goes_for_a_while_is_found() {
    let lab = Lab::new("late-engine");
    let (server, fleet) = shop(&lab);
    release(&lab, &server, &fleet, "one", &[("web", "r1")]);
    let socket = lab.dir().join("engine.sock");
    let mut agent = Agent::prepare(&lab, &server.url, &fleet, "till");
    agent.set(&format!("engine.socket={}", socket.display()));
    agent.start_again();
    let away = format!("engine at {} does not answer", socket.display());
    agent.until_status("/engine_error", &away);
    let out = agent.cli(&["status"]);
    assert!(out.status.success());
    assert!(String::from_utf8_lossy(&out.stdout).contains(&away), "{out:?}");

    let proxy = EngineProxy::start(lab.docker().socket(), &socket);
    agent.until_serves("web", "one", "r1");
    until_done(&agent, "one");
    assert_eq!(agent.status_value("/engine_error"), Value::Null);
    let before = agent.standing();

    // It is gone: the status says so, and nothing else changes.
    drop(proxy);
    agent.until_status("/engine_error", &away);
    assert_eq!(agent.status_value("/apps/0/current"), "one");
    release(&lab, &server, &fleet, "two", &[("web", "r2")]);
    agent.until_polled(2);
    assert_eq!(agent.standing(), before);

    // It is back: so is the work.
    let _proxy = EngineProxy::start(lab.docker().socket(), &socket);
    agent.until_serves("web", "two", "r2");
    until_done(&agent, "two");
    let output = agent.log().matches("engine does not answer").count();
    assert!((2..=4).contains(&output), "output {output} times: {}", agent.log());
}

#[test]
fn a_socket_that_is_no_engine_is_reported_and_survived() {
    let lab = Lab::new("no-engine");
    let (server, fleet) = shop(&lab);
    release(&lab, &server, &fleet, "one", &[("web", "r1")]);
    let file = lab.file("engine.sock", "no socket");
    for wrong in [file, lab.dir().join("nowhere/engine.sock"), lab.dir().to_owned()] {
        let name = format!("till{}", wrong.components().count());
        let mut agent = Agent::prepare(&lab, &server.url, &fleet, &name);
        agent.set(&format!("engine.socket={}", wrong.display()));
        agent.start_again();
        let output = agent.until_status("/engine_error", "does not answer");
        assert!(output.starts_with(&format!("engine at {} does not answer (", wrong.display())), "{output}");
        assert!(output.contains("engine.socket"), "a remedy: {output}");
        assert_eq!(output.lines().count(), 1, "{output}");
        // The cloud is asked all the same, and it is quick to stop.
        eventually("a target", Duration::from_secs(10), || {
            (agent.status_value("/has_target") == true).then_some(())
        });
        assert!(agent.stop().success());
    }
}

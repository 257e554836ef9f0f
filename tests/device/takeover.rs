//! How services take over from their predecessors, on a real engine: strategies, locks, leases.

use std::time::Duration;

use crate::support::{Agent, Fleet, FleetServer, Lab, eventually, stays};
use crate::{shop, until_done};

const LOCK: &str = "/tmp/balena/updates.lock";
const DONE: &str = "/tmp/balena/handover-complete";

/// A release of one service `web`, with more lines for it.
fn release(lab: &Lab, server: &FleetServer, fleet: &Fleet, commit: &str, image: &str, more: &str) {
    let text = format!(
        "services:\n  web:\n    image: {}\n    ports: [\"127.0.0.1::8080\"]\n    stop_grace_period: 2s\n{more}",
        if image.contains('@') { image } else { lab.image(image) }
    );
    server.create_release(fleet, commit, &lab.file(&format!("{commit}.yml"), &text));
}

/// A fleet server, its fleet and an agent that has accepted the release `one`, with more lines for its service.
fn running<'lab>(lab: &'lab Lab, more: &str) -> (FleetServer, Fleet, Agent<'lab>) {
    let (server, fleet) = shop(lab);
    release(lab, &server, &fleet, "one", "r1", more);
    let agent = Agent::start(lab, &server, &fleet, "till");
    agent.until_serves("web", "one", "r1");
    until_done(&agent, "one");
    (server, fleet, agent)
}

fn labels(strategy: &str) -> String {
    format!("    labels: {{ io.balena.update.strategy: {strategy}, io.cotter.trial.soak: 1s }}\n")
}

/// The running containers of `web`, by the release that they answer with.
fn serving(lab: &Lab, agent: &Agent<'_>) -> Vec<String> {
    let of = |c: &crate::support::Container| {
        let answer = crate::support::http_get(c.ports.get("8080/tcp")?, "/")?;
        Some(answer.json()["release"].as_str()?.to_owned())
    };
    let mut all: Vec<_> = lab.docker().running(agent.instance()).iter().filter_map(of).collect();
    all.sort();
    all
}

#[test]
fn a_successor_that_hands_over_leaves_no_gap() {
    let lab = Lab::new("handover");
    let (server, fleet, agent) = running(&lab, &labels("hand-over"));

    release(&lab, &server, &fleet, "two", "r2", &labels("hand-over"));
    eventually("both serve", Duration::from_secs(20), || {
        (serving(&lab, &agent) == ["r1", "r2"]).then_some(())
    });
    agent.until_status("/waiting", "hand-over");
    stays("both go on serving", Duration::from_secs(2), || serving(&lab, &agent));
    // The new one says that it has taken over.
    let containers = lab.docker().running(agent.instance());
    let new = containers.iter().find(|c| c.release() == "two").unwrap();
    let answer = crate::support::http_get(&new.ports["8080/tcp"], &format!("/make?{DONE}")).unwrap();
    assert_eq!(answer.status, 200, "{}", answer.body);
    agent.until_serves("web", "two", "r2");
    until_done(&agent, "two");
    assert_eq!(lab.docker().running(agent.instance())[0].id, new.id, "it was not touched");

    // What the last one has said is not said of the next.
    release(
        &lab,
        &server,
        &fleet,
        "three",
        "r3",
        &labels("hand-over, io.balena.update.handover-timeout: 3000"),
    );
    eventually("both serve", Duration::from_secs(20), || {
        (serving(&lab, &agent) == ["r2", "r3"]).then_some(())
    });
    agent.until_serves("web", "three", "r3");
    until_done(&agent, "three");
}

#[test]
fn what_makes_room_is_gone_before_its_successor_comes() {
    let lab = Lab::new("room");
    let (server, fleet, agent) = running(&lab, "");
    let step = |log: &str, what: &str| log.find(what).unwrap_or_else(|| panic!("no {what} in {log}"));

    let fresh = lab.fresh_image("r2");
    release(&lab, &server, &fleet, "two", &fresh, &labels("kill-then-download"));
    agent.until_serves("web", "two", "r2");
    until_done(&agent, "two");
    let log = agent.log();
    let log = &log[step(&log, "what=commit")..];
    assert!(step(log, "what=stop") < step(log, "what=pull"), "{log}");
    // The engine may show the image a moment before its pull has ended.
    assert!(step(log, "what=stop") < step(log, "what=create "), "{log}");

    // One that cannot be had: the predecessor was kept, and comes back.
    let before = agent.service("web").unwrap().id;
    let missing = format!("{}/demo/app@sha256:{}", lab.parts.registry, "0".repeat(64));
    let text = format!(
        "services:\n  web:\n    image: {missing}\n    ports: [\"127.0.0.1::8080\"]\n{}",
        labels("kill-then-download, io.cotter.trial.deadline: 8s")
    );
    server.create_release(&fleet, "missing", &lab.file("missing.yml", &text));
    agent.until_status("/waiting", "release missing was rejected: not accepted within 8 s");
    assert_eq!(agent.until_serves("web", "two", "r2").id, before);

    server.cli(&["fleet", "pin", "shop", "two"]);
    until_done(&agent, "two");
    let fresh = lab.fresh_image("r3");
    release(&lab, &server, &fleet, "three", &fresh, &labels("delete-then-download"));
    server.cli(&["fleet", "pin", "shop", "three"]);
    agent.until_serves("web", "three", "r3");
    until_done(&agent, "three");
    let log = agent.log();
    let log = &log[log.rfind("what=try").expect("it was tried")..];
    assert!(step(log, "what=remove ") < step(log, "what=pull"), "{log}");
    assert!(step(log, "what=remove-image") < step(log, "what=pull"), "{log}");
}

#[test]
fn nothing_is_stopped_while_updates_are_locked() {
    let lab = Lab::new("locks");
    let (server, fleet, mut agent) = running(&lab, &labels("download-then-kill"));

    // An app that locks, as a user of its container.
    assert_eq!(agent.get("web", &format!("/make?{LOCK}")).unwrap().status, 200);
    let before = agent.standing();
    release(&lab, &server, &fleet, "two", "r2", &labels("download-then-kill"));
    agent.until_status("/waiting", &format!("web holds {LOCK}"));
    agent.until_polled(2);
    assert_eq!(agent.standing(), before);
    // The lock holds over a restart of the agent, and its container is revived all the same.
    agent.stop();
    agent.start_again();
    agent.until_status("/waiting", &format!("web holds {LOCK}"));
    lab.docker().run(&["kill", &agent.service("web").unwrap().id]);
    eventually("it is back", Duration::from_secs(10), || {
        (agent.serves("web")? == "r1" && agent.standing() != before).then_some(())
    });
    agent.until_status("/waiting", &format!("web holds {LOCK}"));
    let (is_done, output) = agent.order(&["restart", "web"]);
    assert!(!is_done && output.contains("lock"), "{output}");
    assert_eq!(agent.get("web", &format!("/take?{LOCK}")).unwrap().status, 200);
    agent.until_serves("web", "two", "r2");
    until_done(&agent, "two");
    eventually("our own lock is gone", Duration::from_secs(5), || {
        (agent.get("web", &format!("/make?{LOCK}"))?.status == 200).then_some(())
    });

    // An order passes the lock.
    release(&lab, &server, &fleet, "three", "r3", &labels("download-then-kill"));
    agent.until_status("/waiting", &format!("web holds {LOCK}"));
    let (is_done, output) = agent.order(&["update", "--force"]);
    assert!(is_done, "{output}");
    agent.until_serves("web", "three", "r3");
    until_done(&agent, "three");

    // A lease of this device.
    let (is_done, lease) = agent.order(&["lock", "acquire", "--reason", "copying", "--ttl", "60s"]);
    assert!(is_done, "{lease}");
    let id = lease.lines().next().unwrap().to_owned();
    let before = agent.standing();
    server.cli(&["fleet", "pin", "shop", "one"]);
    agent.until_status("/waiting", "copying");
    agent.until_polled(2);
    assert_eq!(agent.standing(), before);
    let (is_done, output) = agent.order(&["lock", "release", &id]);
    assert!(is_done, "{output}");
    agent.until_serves("web", "one", "r1");
    until_done(&agent, "one");
}

#[test]
fn an_operator_stops_and_starts_a_service() {
    let lab = Lab::new("service");
    let (_server, _fleet, mut agent) = running(&lab, &labels("download-then-kill"));
    let id = agent.service("web").unwrap().id;
    assert!(agent.order(&["stop", "web"]).0);
    eventually("it is stopped", Duration::from_secs(10), || agent.service("web").is_none().then_some(()));
    agent.until_status("/waiting", "stopped by an operator");
    agent.stop();
    agent.start_again();
    agent.until_status("/waiting", "stopped by an operator");
    agent.until_polled(2);
    assert!(agent.service("web").is_none(), "it stays so");
    assert!(agent.order(&["start", "web"]).0);
    assert_eq!(agent.until_serves("web", "one", "r1").id, id);
    until_done(&agent, "one");
    let before = agent.standing();
    assert!(agent.order(&["restart", "web"]).0);
    eventually("it was restarted", Duration::from_secs(10), || {
        (agent.serves("web")? == "r1" && agent.standing() != before).then_some(())
    });
    assert_eq!(agent.service("web").unwrap().id, id);
    let (is_done, output) = agent.order(&["stop", "db"]);
    assert!(!is_done && output.contains("web"), "it says what there is: {output}");
}

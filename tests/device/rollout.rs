//! A rollout to real devices: it goes on where the release is good, and is taken back where it is bad.

use std::time::Duration;

use serde_json::Value;

use crate::support::{Agent, FleetServer, Lab, eventually};
use crate::{compose, release, shop, until_done};

const PATIENCE: Duration = Duration::from_secs(120);

fn rollout(server: &FleetServer) -> Value {
    server.cli_json(&["rollout", "show", "shop"])["rollout"].clone()
}

/// Waits until the rollout has this phase and a reason with these words.
#[track_caller]
fn until_phase(server: &FleetServer, phase: &str, why: &str) -> Value {
    eventually(&format!("the rollout is {phase}: {why}"), PATIENCE, || {
        let rollout = rollout(server);
        let is_it = rollout["phase"] == phase && rollout["why"].as_str().unwrap_or_default().contains(why);
        is_it.then_some(rollout)
    })
}

#[test]
fn a_release_that_fails_on_one_hardware_is_halted_and_pulled_back_there_only() {
    let lab = Lab::new("rollout");
    let (server, fleet) = shop(&lab);
    release(&lab, &server, &fleet, "one", &[("web", "r1")]);
    let agents = ["a", "b", "c", "d", "e"].map(|name| Agent::start(&lab, &server, &fleet, name));
    let before: Vec<String> = agents.iter().map(|agent| agent.until_serves("web", "one", "r1").id).collect();
    let (good, bad) = agents.split_at(2);
    for (names, tags) in
        [(&["a"][..], "ring=canary"), (&["a", "b"], "hw=rev1"), (&["c", "d", "e"], "hw=rev2")]
    {
        names.iter().for_each(|name| drop(server.cli(&["device", "tag", name, tags])));
    }
    let file = compose(&lab, "two", &[("web", "r2"), ("api", "r1")]);
    let file = file.to_str().expect("text");
    server.cli(&["release", "create", "shop", "--file", file, "--commit", "two", "--draft"]);
    // What the new service finds only on one hardware.
    for name in ["c", "d", "e"] {
        server.cli(&["env", "set", "--device", name, "--service", "api", "DEMO_BEHAVIOUR=exit"]);
    }
    agents.iter().for_each(|agent| until_done(agent, "one"));

    let waves = ["--waves", "ring=canary, hw=rev1, 100%", "--soak", "1s", "--observe", "2s"];
    let halting = ["--segment-by", "hw", "--on-halt", "pull-back"];
    server.cli(&[&["rollout", "start", "shop", "two"], &waves[..], &halting].concat());
    let paused = until_phase(&server, "paused", "all devices have the release but for the halted segments");
    good.iter().for_each(|agent| drop(agent.until_serves("web", "two", "r2")));
    let halted = &paused["halted"][0];
    let why = halted["why"].as_str().expect("a reason");
    assert_eq!(halted["segment"], "hw=rev2", "{paused:#}");
    assert!(why.contains("3 of 3 devices failed") && why.contains("api"), "{why}");
    assert!(bad.iter().all(|agent| agent.until_serves("web", "one", "r1").release() == "one"));
    let after: Vec<String> = bad.iter().map(|agent| agent.service("web").expect("it runs").id).collect();
    assert_eq!(after, before[2..], "the very containers come back");
    for agent in bad {
        until_done(agent, "one");
    }
    let shown = server.cli_json(&["device", "show", "c"]);
    assert_eq!(shown["device"]["rollout"]["verdict"], "rejected", "{shown:#}");
    assert_eq!(shown["device"]["target"], "one", "it is sent back by its fleet, too");

    server.cli(&["rollout", "complete", "shop", "--reason", "rev2 gets another one"]);
    assert_eq!(server.cli_json(&["fleet", "show", "shop"])["fleet"]["target"], "two");
    let pins = ["a", "b", "c", "d", "e"]
        .map(|name| server.cli_json(&["device", "show", name])["device"]["pin"].as_str().map(str::to_owned));
    assert_eq!(pins.map(|pin| pin.unwrap_or_default()), ["", "", "one", "one", "one"]);
    agents.iter().for_each(|agent| agent.until_polled(2));
    let unchanged: Vec<String> = bad.iter().map(|agent| agent.service("web").expect("it runs").id).collect();
    assert_eq!(unchanged, after);
}

#[test]
fn a_pull_back_brings_back_what_the_fleet_runs() {
    let lab = Lab::new("pullback");
    let (server, fleet) = shop(&lab);
    release(&lab, &server, &fleet, "one", &[("web", "r1")]);
    let agent = Agent::start(&lab, &server, &fleet, "till");
    agent.until_serves("web", "one", "r1");
    let file = compose(&lab, "two", &[("web", "r2")]);
    let file = file.to_str().expect("text");
    server.cli(&["release", "create", "shop", "--file", file, "--commit", "two", "--draft"]);
    server.cli(&["rollout", "start", "shop", "two", "--waves", "100%", "--observe", "1h"]);
    agent.until_serves("web", "two", "r2");
    eventually("the device has accepted it", PATIENCE, || {
        (rollout(&server)["tally"]["accepted"] == 1).then_some(())
    });
    server.cli(&["rollout", "pull-back", "shop", "--reason", "the valve stays open"]);
    agent.until_serves("web", "one", "r1");
    until_done(&agent, "one");
    until_phase(&server, "pulled-back", "pulled back by token operator.token");
}

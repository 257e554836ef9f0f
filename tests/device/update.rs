//! Updates, pins and moves, seen by HTTP on the demo app and by docker.

use std::time::Duration;

use crate::bystanders::Bystanders;
use crate::support::{Agent, FleetServer, Lab, eventually};
use crate::{release, shop, until_done};

#[test]
fn a_device_follows_its_policy_and_touches_only_what_changed() {
    let lab = Lab::new("policy");
    let (server, fleet) = shop(&lab);
    release(&lab, &server, &fleet, "one", &[("db", "r1"), ("old", "r4"), ("web", "r1")]);
    let mut agent = Agent::prepare(&lab, &server.url, &fleet, "till");
    let bystanders = Bystanders::beside(&lab, agent.instance(), &fleet.uuid);
    agent.start_again();

    agent.until_serves("web", "one", "r1");
    agent.until_serves("old", "one", "r4");
    let db = agent.until_serves("db", "one", "r1").standing();
    until_done(&agent, "one");
    assert_eq!(agent.get("web", "/write?5").unwrap().json()["count"], 5);
    let standing = |service: &str| agent.service(service).unwrap().standing();

    // An update: only what changed is touched, data stays, the dropped service goes and its volume stays.
    release(&lab, &server, &fleet, "two", &[("db", "r1"), ("web", "r2")]);
    agent.until_serves("web", "two", "r2");
    until_done(&agent, "two");
    assert_eq!(standing("db"), db);
    assert_eq!(agent.get("web", "/").unwrap().json()["count"], 5);
    eventually("what was replaced is removed", Duration::from_secs(10), || {
        (lab.docker().containers(agent.instance()).len() == 2).then_some(())
    });
    let volumes = lab.docker().ids("volume", agent.instance());
    assert!(volumes.iter().any(|name| name.ends_with("_old-data")), "{volumes:?}");

    // Pinned back to one: what was dropped is here again.
    server.cli(&["device", "pin", "till", "one"]);
    agent.until_serves("web", "one", "r1");
    agent.until_serves("old", "one", "r4");
    until_done(&agent, "one");
    assert_eq!(standing("db"), db);
    assert_eq!(agent.get("web", "/").unwrap().json()["count"], 5);

    // A new release moves no device that is pinned.
    let before = agent.standing();
    release(&lab, &server, &fleet, "three", &[("db", "r1"), ("web", "r3")]);
    agent.until_polled(3);
    assert_eq!(agent.standing(), before);

    // Without the pin it is the fleet's again.
    server.cli(&["device", "track-fleet", "till"]);
    agent.until_serves("web", "three", "r3");
    until_done(&agent, "three");
    assert_eq!(standing("db"), db);
    eventually("the cloud knows what runs", Duration::from_secs(15), || {
        let shown = server.cli_json(&["device", "show", "till"]);
        (shown["device"]["running"] == "three").then_some(())
    });
    bystanders.stand();
}

#[test]
fn moved_to_another_fleet_the_old_app_goes_and_its_data_stays() {
    let lab = Lab::new("move");
    let server = FleetServer::start(&lab);
    let (shop, desk) = (server.create_fleet(&lab, "shop"), server.create_fleet(&lab, "desk"));
    release(&lab, &server, &shop, "one", &[("web", "r1")]);
    release(&lab, &server, &desk, "uno", &[("page", "r2")]);
    let agent = Agent::start(&lab, &server, &shop, "till");
    agent.until_serves("web", "one", "r1");
    until_done(&agent, "one");
    let bystanders = Bystanders::beside(&lab, agent.instance(), &shop.uuid);
    agent.get("web", "/write?7").unwrap();

    server.cli(&["device", "move", "till", "desk"]);
    agent.until_serves("page", "uno", "r2");
    eventually("the old app is gone", Duration::from_secs(20), || {
        let has_only = |kind: &str| {
            let filter = format!("label=io.cotter.app={}", shop.uuid);
            let ours = format!("label=io.cotter.instance={}", agent.instance());
            let mut args = vec![kind, "ls", "--quiet", "--filter", &filter, "--filter", &ours];
            if kind == "container" {
                args.push("--all");
            }
            lab.docker().run(&args).is_empty()
        };
        (has_only("container") && has_only("network")).then_some(())
    });
    let volumes = lab.docker().ids("volume", agent.instance());
    assert!(volumes.iter().any(|name| name.ends_with("_web-data")), "{volumes:?}");

    // And back: the data is where it was.
    server.cli(&["device", "move", "till", "shop"]);
    agent.until_serves("web", "one", "r1");
    assert_eq!(agent.get("web", "/").unwrap().json()["count"], 7);
    bystanders.stand();
}

#[test]
fn what_is_removed_behind_its_back_comes_back() {
    let lab = Lab::new("behind");
    let (server, fleet) = shop(&lab);
    release(&lab, &server, &fleet, "one", &[("db", "r1"), ("web", "r1")]);
    let mut agent = Agent::prepare(&lab, &server.url, &fleet, "till");
    // Only the engine's events can tell it in time.
    agent.set("engine.resync=1h");
    agent.start_again();
    agent.until_serves("web", "one", "r1");
    until_done(&agent, "one");
    let bystanders = Bystanders::beside(&lab, agent.instance(), &fleet.uuid);
    agent.get("web", "/write?3").unwrap();
    let db = agent.service("db").unwrap().standing();
    // For 5 s after an event it looks again by itself; what is to be seen here is the next event's doing.
    std::thread::sleep(Duration::from_secs(6));

    for act in [&["rm", "--force"][..], &["kill"], &["stop", "--time", "2"]] {
        let web = agent.service("web").unwrap();
        lab.docker().run(&[act, &[&web.id]].concat());
        eventually(&format!("it is back after docker {act:?}"), Duration::from_secs(5), || {
            let now = agent.service("web")?;
            let is_new = now.standing() != web.standing();
            let is_same = act[0] == "rm" || now.id == web.id;
            (is_new && is_same && agent.serves("web")? == "r1").then_some(())
        });
        assert_eq!(agent.get("web", "/").unwrap().json()["count"], 3);
        assert_eq!(agent.service("db").unwrap().standing(), db);
        until_done(&agent, "one");
    }
    bystanders.stand();
}

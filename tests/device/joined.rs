//! A service in the network of another one: it is reached at the other one's address, whatever happens to that one.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Agent, Container, FakeCloud, Lab, eventually, http_get};
use crate::{app, service, until_done, uuid};

/// The release that answers at a port of the door, which the engine has published: 8080 is its own, and 9090
/// that of the guest, who has no port and no address.
fn answers(agent: &Agent<'_>, port: &str) -> Option<String> {
    let door = agent.service("door")?;
    let answer = http_get(door.ports.get(port)?, "/")?;
    serde_json::from_str::<Value>(&answer.body).ok()?["release"].as_str().map(str::to_owned)
}

#[track_caller]
fn until_both(agent: &Agent<'_>, why: &str, door: &str, guest: &str) -> (Container, Container) {
    eventually(why, Duration::from_secs(60), || {
        let are_they = answers(agent, "8080/tcp")? == door && answers(agent, "9090/tcp")? == guest;
        are_they.then(|| (agent.service("door").unwrap(), agent.service("guest").unwrap()))
    })
}

#[test]
fn a_guest_follows_its_door() {
    let lab = Lab::new("joined");
    let cloud = FakeCloud::start();
    let target = |commit: &str, door: &str, guest: &str| {
        let ports = json!({ "ports": ["127.0.0.1::8080", "127.0.0.1::9090"] });
        let mut shared = service(lab.image(guest), json!({ "network_mode": "service:door" }));
        shared["composition"].as_object_mut().unwrap().remove("ports");
        shared["environment"] = json!({ "DEMO_PORT": "9090" });
        let services = [("door", service(lab.image(door), ports)), ("guest", shared)];
        cloud.target(commit, &json!({ uuid(1): app(1, "shop", commit, &services) }));
    };
    target("one", "r1", "r2");
    let mut agent = Agent::prepare(&lab, &cloud.url, &cloud.fleet(&lab), "till");
    agent.start_again();
    let (door, guest) = until_both(&agent, "installed", "r1", "r2");
    until_done(&agent, "one");

    // The door is restarted behind the agent's back: the guest has to join it anew.
    lab.docker().run(&["restart", "--time", "1", &door.id]);
    let (_, again) = until_both(&agent, "the door was restarted", "r1", "r2");
    assert_eq!(again.id, guest.id, "it was not made anew");
    let before = agent.standing();
    agent.until_polled(3);
    assert_eq!(agent.standing(), before, "and once is enough");

    // Also while the agent is away.
    agent.stop();
    lab.docker().run(&["kill", &door.id]);
    lab.docker().run(&["start", &door.id]);
    agent.start_again();
    until_both(&agent, "the door was killed", "r1", "r2");

    // It is removed: both are made anew.
    lab.docker().run(&["rm", "--force", &door.id]);
    let (_, anew) = until_both(&agent, "the door was removed", "r1", "r2");
    assert_ne!(anew.id, guest.id);
    until_done(&agent, "one");

    // A release that changes the guest leaves the door alone; one that changes the door changes both.
    let before = agent.service("door").unwrap().standing();
    target("two", "r1", "r3");
    until_both(&agent, "the guest was replaced", "r1", "r3");
    until_done(&agent, "two");
    assert_eq!(agent.service("door").unwrap().standing(), before);
    target("three", "r4", "r3");
    let (door, guest) = until_both(&agent, "both were replaced", "r4", "r3");
    until_done(&agent, "three");

    // A bad one is taken back: both come back as they were.
    target("bad", "exit", "r3");
    agent.until_status("/waiting", "release bad was rejected");
    let (door_again, guest_again) = until_both(&agent, "both came back", "r4", "r3");
    assert_eq!((door_again.id, guest_again.id), (door.id, guest.id));
    let output = eventually("it rests", Duration::from_secs(30), || {
        let waiting = agent.status_value("/waiting");
        (waiting.as_array()?.len() == 1).then_some(waiting)
    });
    assert_eq!(output[0]["reason"], "rejected");
    let before = agent.standing();
    agent.stop();
    agent.start_again();
    agent.until_polled(3);
    assert_eq!(agent.standing(), before, "a new agent touches no container");
}

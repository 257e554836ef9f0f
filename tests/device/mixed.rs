//! A release in which every service is swapped in another way.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::support::{Agent, Fleet, FleetServer, Lab, eventually};
use crate::{shop, until_done};

/// Every service but `rest`, with its strategy and the one that it depends on.
const CHANGED: [(&str, &str, &str); 4] = [
    ("plain", "download-then-kill", "rest"),
    ("killed", "kill-then-download", "plain"),
    ("deleted", "delete-then-download", "killed"),
    ("handed", "hand-over", "deleted"),
];

/// A release whose services run `images` in the order of [`CHANGED`]; `rest` is always the same.
fn release(lab: &Lab, server: &FleetServer, fleet: &Fleet, commit: &str, images: [&str; 4]) {
    let mut text = format!(
        "services:\n  rest:\n    image: {}\n    ports: [\"127.0.0.1::8080\"]\n    labels: {{ io.cotter.trial.soak: 2s }}\n",
        lab.image("r4")
    );
    for ((name, strategy, on), image) in CHANGED.into_iter().zip(images) {
        text += &format!(
            r#"  {name}:
    image: {image}
    ports: ["127.0.0.1::8080"]
    volumes: ["{name}:/data"]
    stop_grace_period: 2s
    depends_on: {{ {on}: {{ condition: service_started }} }}
    labels: {{ io.balena.update.strategy: {strategy}, io.balena.update.handover-timeout: "3000" }}
"#
        );
    }
    text += "volumes: { plain: {}, killed: {}, deleted: {}, handed: {} }\n";
    server.create_release(fleet, commit, &lab.file(&format!("{commit}.yml"), &text));
}

/// Waits until every service but `rest` runs alone, of `commit` and with the image `release`.
#[track_caller]
fn until_all_serve(agent: &Agent<'_>, commit: &str, release: &str) {
    for (name, _, _) in CHANGED {
        agent.until_serves(name, commit, release);
    }
}

#[test]
fn each_service_is_swapped_in_its_own_way_and_all_come_back_if_one_is_bad() {
    let lab = Lab::new("mixed");
    let (server, fleet) = shop(&lab);
    // Every service has an image of its own, so that none is here because of another.
    let fresh = |name: &str, release: &str| {
        let own = format!("{} {name}", lab.dir().display());
        lab.altered_image(release, |config| {
            config["config"]["Labels"]["io.cotter.fresh"] = own.clone().into()
        })
    };
    let [a, b, c, d] = CHANGED.map(|(name, _, _)| fresh(name, "r1"));
    release(&lab, &server, &fleet, "one", [&a, &b, &c, &d]);
    let agent = Agent::start(&lab, &server, &fleet, "till");
    until_all_serve(&agent, "one", "r1");
    until_done(&agent, "one");
    let rest = agent.service("rest").unwrap().standing();
    for (n, (name, _, _)) in (1..).zip(CHANGED) {
        assert_eq!(agent.get(name, &format!("/write?{n}")).unwrap().status, 200);
    }

    let [a, b, c, d] = CHANGED.map(|(name, _, _)| fresh(name, "r2"));
    release(&lab, &server, &fleet, "two", [&a, &b, &c, &d]);
    until_all_serve(&agent, "two", "r2");
    until_done(&agent, "two");
    assert_eq!(agent.service("rest").unwrap().standing(), rest, "it was not touched");
    for (n, (name, _, _)) in (1..).zip(CHANGED) {
        assert_eq!(agent.get(name, "/").unwrap().json()["count"], n, "the data of {name}");
    }
    let log = agent.log();
    let log = &log[log.rfind("what=try").expect("it was tried")..];
    let at = |what: &str| log.find(what).unwrap_or_else(|| panic!("no {what:?} in {log}"));
    let of = |step: &str, name: &str| at(&format!("what={step} {name} "));
    let begun = |image: &str| log.find(&format!("what=pull {image}"));
    assert_eq!(begun(&a), None, "what is downloaded first was here before the trial");
    assert_eq!(begun(&d), None);
    assert!(of("stop", "killed") < begun(&b).unwrap(), "{log}");
    assert!(of("remove", "deleted") < begun(&c).unwrap(), "{log}");
    assert!(of("start", "handed") < of("stop", "handed"), "{log}");
    assert!(of("stop", "plain") < of("start", "plain"), "{log}");
    assert!(of("start", "plain") < of("start", "killed"), "{log}");
    assert!(of("start", "killed") < of("start", "deleted"), "{log}");
    assert!(of("start", "deleted") < of("start", "handed"), "{log}");

    // One of them is bad: all come back, and the rest knows nothing of it.
    let ids = || -> BTreeMap<_, _> {
        agent.running().iter().map(|c| (c.service().to_owned(), c.id.clone())).collect()
    };
    let before = ids();
    let [a, b, c, d] = CHANGED.map(|(name, _, _)| fresh(name, if name == "handed" { "crash" } else { "r3" }));
    release(&lab, &server, &fleet, "three", [&a, &b, &c, &d]);
    agent.until_status("/waiting", "release three was rejected: handed was restarted 3 times");
    until_all_serve(&agent, "two", "r2");
    eventually("all is at rest", Duration::from_secs(60), || {
        let waiting = agent.status_value("/waiting");
        let is_at_rest = waiting.as_array()?.iter().all(|w| w["reason"] == "rejected");
        is_at_rest.then_some(())
    });
    assert_eq!(agent.service("rest").unwrap().standing(), rest, "it was not touched");
    let after = ids();
    for (name, _, _) in CHANGED {
        assert_eq!(after[name] == before[name], name != "deleted", "{name} came back as it was");
    }
    for (n, (name, _, _)) in (1..).zip(CHANGED) {
        assert_eq!(agent.get(name, "/").unwrap().json()["count"], n, "the data of {name}");
    }
    assert_eq!(agent.status_value("/apps/0/current"), "two");
}

//! Eight devices in eight kinds of trouble: one list at the desk tells them apart. Real agents, a real engine and registry,
//! and a real fleet server.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use support::{Agent, Fleet, FleetServer, Lab, eventually};

/// Longest time for all devices to get into their trouble.
const PATIENCE: Duration = Duration::from_secs(60);

/// Each device by its name, its state, and what its reason must say.
const TROUBLES: [(&str, &str, &[&str]); 8] = [
    ("full", "blocked", &["insufficient_disk", "reserve"]),
    ("port", "blocked", &["port_in_use"]),
    ("machine", "blocked", &["wrong_architecture", "arm64"]),
    ("gone", "blocked", &["web:"]),
    ("away", "blocked", &["127.0.0.1:1"]),
    ("crash", "rejected", &["web was restarted", "exited with code 1", "last line: "]),
    ("sick", "rejected", &["web is unhealthy"]),
    ("locked", "waiting", &["locked", "show until noon"]),
];

struct Desk {
    server: FleetServer,
    fleet: Fleet,
}

impl Desk {
    /// The devices by name, as the list has them.
    fn devices(&self) -> BTreeMap<String, Value> {
        let said = self.server.cli_json(&["device", "list"]);
        let devices = said["devices"].as_array().unwrap().iter();
        devices.map(|device| (device["name"].as_str().unwrap().to_owned(), device.clone())).collect()
    }

    fn state(&self, device: &str) -> (String, String) {
        let devices = self.devices();
        let text = |key: &str| devices[device][key].as_str().unwrap_or_default().to_owned();
        (text("state"), text("why"))
    }

    /// Creates the release `commit` of one service with this image and these lines.
    fn release(&self, lab: &Lab, commit: &str, image: &str, more: &str) {
        let text = format!("services:\n  web:\n    image: {image}\n{more}");
        self.server.create_release(&self.fleet, commit, &lab.file(&format!("{commit}.yml"), &text));
    }
}

#[test]
fn one_list_at_the_desk_tells_eight_troubles_apart() {
    let lab = Lab::new("troubles");
    let server = FleetServer::start(&lab);
    let fleet = server.create_fleet(&lab, "lab");
    let desk = Desk { server, fleet };
    desk.release(&lab, "good-1", lab.image("r1"), "");
    let mut agents = Vec::new();
    for (device, _, _) in TROUBLES {
        let mut agent = Agent::prepare(&lab, &desk.server.url, &desk.fleet, device);
        agent.set("cloud.report_interval=1s");
        agent.set("update.deadline=40s");
        if device == "full" {
            agent.set("update.disk_reserve=1TiB");
        }
        agent.start_again();
        agents.push(agent);
    }
    let none = desk.server.try_cli(&["device", "wait", "--filter", "ring=none"]);
    assert_eq!(none.status.code(), Some(5), "{}", String::from_utf8_lossy(&none.stderr));
    eventually("all have registered", PATIENCE, || (desk.devices().len() == TROUBLES.len()).then_some(()));
    // Its image is here already, so the full one needs no disk for it.
    let waited = desk.server.try_cli(&["device", "wait", "--fleet", "lab", "--timeout", "2min"]);
    assert_eq!(waited.status.code(), Some(0), "{}", String::from_utf8_lossy(&waited.stderr));

    desk.server.cli(&["fleet", "pin", "lab", "good-1"]);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let nowhere = format!("sha256:{}", "0".repeat(64));
    let registry = &lab.parts.registry;
    let soak = "    labels: {io.cotter.trial.soak: 10s}\n";
    let check = "    healthcheck: {test: [CMD, /app, check], interval: 1s, retries: 1}\n";
    for (commit, image, more) in [
        ("bad-full", lab.torn_image(100_000), String::new()),
        ("bad-port", lab.image("r2").to_owned(), format!("    ports: ['127.0.0.1:{port}:8080']\n")),
        (
            "bad-machine",
            lab.altered_image("r2", |config| config["architecture"] = "arm64".into()),
            String::new(),
        ),
        ("bad-gone", format!("{registry}/demo/app@{nowhere}"), String::new()),
        ("bad-away", format!("127.0.0.1:1/demo/app@{nowhere}"), String::new()),
        ("bad-crash", lab.image("crash").to_owned(), soak.to_owned()),
        ("bad-sick", lab.image("unhealthy").to_owned(), check.to_owned()),
        ("bad-locked", lab.image("r2").to_owned(), String::new()),
    ] {
        desk.release(&lab, commit, &image, more.as_str());
    }
    let lock = ["lock", "acquire", "--ttl", "1h", "--reason", "show until noon"];
    let (is_locked, said) = agents[7].order(&lock);
    assert!(is_locked, "{said}");
    for (device, _, _) in TROUBLES {
        desk.server.cli(&["device", "pin", device, &format!("bad-{device}")]);
    }
    for (device, state, parts) in TROUBLES {
        let mut last = (String::new(), String::new());
        let is_so = support::eventually_or(PATIENCE, || {
            last = desk.state(device);
            (last.0 == state && parts.iter().all(|part| last.1.contains(part))).then_some(())
        });
        assert!(is_so.is_some(), "{device} should be {state} and say {parts:?}, and is {last:?}");
    }
    for (device, _, _) in TROUBLES {
        let answer = agents
            .iter()
            .find_map(|agent| agent.service("web").filter(|_| agent.instance().ends_with(device)));
        assert!(answer.is_some(), "{device} runs what it ran");
    }
    groups_and_sums(&desk);
    evidence(&desk, &agents[5]);
}

/// States choose devices, and a fleet is summed up.
fn groups_and_sums(desk: &Desk) {
    let names = |states: &str| {
        let said = desk.server.cli_json(&["device", "list", "--state", states]);
        let mut names: Vec<_> = said["devices"]
            .as_array()
            .unwrap()
            .iter()
            .map(|d| d["name"].as_str().unwrap().to_owned())
            .collect();
        names.sort();
        names.join(" ")
    };
    assert_eq!(names("failed"), "crash sick");
    assert_eq!(names("waiting"), "locked");
    assert_eq!(names("behind").split(' ').count(), 8);
    assert_eq!(names("on-target"), "");
    // A device that tries again after a failure updates for a moment.
    let mut shown = String::new();
    let is_so = support::eventually_or(PATIENCE, || {
        shown = desk.server.cli(&["fleet", "show", "lab"]);
        shown.contains("8: 1 waiting, 5 blocked, 2 rejected").then_some(())
    });
    assert!(is_so.is_some(), "{shown}");
    let waited = desk.server.try_cli(&["device", "wait", "--fleet", "lab", "--timeout", "1s"]);
    assert_eq!(waited.status.code(), Some(40), "{}", String::from_utf8_lossy(&waited.stderr));
    let waited =
        desk.server.try_cli(&["device", "wait", "--fleet", "lab", "--timeout", "1s", "--allow-failed", "3"]);
    let said = String::from_utf8_lossy(&waited.stderr);
    assert_eq!(waited.status.code(), Some(22), "{said}");
    // One may try again just then, and so updates.
    let is_counted =
        ["0 of 8 done", "1 waiting", " blocked", "2 rejected"].iter().all(|part| said.contains(part));
    assert!(is_counted, "{said}");
}

/// What the crashed service wrote is shown at the desk and on the device, although its container is gone.
fn evidence(desk: &Desk, crashed: &Agent<'_>) {
    let shown = desk.server.cli(&["device", "show", "crash"]);
    assert!(shown.contains("web of release bad-crash"), "{shown}");
    assert!(shown.contains("exited with code 1"), "{shown}");
    let lines: Vec<_> = shown.lines().filter(|line| line.starts_with("  | ")).collect();
    assert!(!lines.is_empty(), "{shown}");
    eventually("the container of the bad release is removed", PATIENCE, || {
        let containers = crashed.containers();
        containers.iter().all(|container| container.release() == "good-1").then_some(())
    });
    let (is_known, kept) = logs(crashed, "bad-cr");
    assert!(is_known, "{kept}");
    assert!(lines.iter().all(|line| kept.contains(&line[4..])), "{kept}\n{lines:?}");
    let (is_known, said) = logs(crashed, "never");
    assert!(!is_known && said.contains("kept are: web of bad-crash"), "{said}");
}

/// `cotter logs web --release COMMIT`: whether it went well, and what it printed.
fn logs(agent: &Agent<'_>, release: &str) -> (bool, String) {
    let out = agent.cli(&["logs", "web", "--release", release]);
    (out.status.success(), String::from_utf8([out.stdout, out.stderr].concat()).unwrap())
}

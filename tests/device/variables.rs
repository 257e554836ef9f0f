//! Variables of fleets and devices, on a real engine: what they restart, and what happens if a service fails with them.

use std::time::Duration;

use serde_json::Value;

use crate::support::{Agent, FleetServer, Lab, Program, eventually};
use crate::{running, until_done};

/// Waits until `service` has this value of a variable.
#[track_caller]
fn until_has(agent: &Agent<'_>, service: &str, variable: &str, value: &str) {
    eventually(&format!("{service} has {variable}={value}"), Duration::from_secs(60), || {
        let answer = agent.get(service, &format!("/env?{variable}"))?;
        (answer.body.trim_end() == value).then_some(())
    });
}

fn standing(agent: &Agent<'_>, service: &str) -> (String, String, i64) {
    agent.service(service).expect("it runs").standing()
}

/// Which services of which devices an order would restart.
fn would_restart(server: &FleetServer, args: &[&str]) -> Vec<(String, Value)> {
    let changed = &server.cli_json(&[args, &["--dry-run"]].concat())["changed"];
    let rows = changed["restarts"].as_array().expect("rows").clone();
    rows.into_iter()
        .map(|row| (row["name"].as_str().expect("a name").to_owned(), row["services"].clone()))
        .collect()
}

#[test]
fn a_variable_restarts_only_the_services_that_it_reaches() {
    let lab = Lab::new("variables");
    let (server, _fleet, agent) = running(&lab, "one", &[("db", "r1"), ("web", "r1")]);
    until_done(&agent, "one");
    let db = standing(&agent, "db");

    let of_web = ["env", "set", "--fleet", "shop", "--service", "web", "RATE=5"];
    assert_eq!(would_restart(&server, &of_web), [("till".to_owned(), serde_json::json!(["web"]))]);
    agent.until_polled(2);
    assert_eq!(agent.get("web", "/env?RATE").expect("an answer").status, 404, "a dry run changes nothing");
    server.cli(&of_web);
    until_has(&agent, "web", "RATE", "5");
    until_done(&agent, "one");
    assert_eq!(standing(&agent, "db"), db, "the other service was not touched");

    // The device wins over its fleet's service, for each of its services.
    server.cli(&["env", "set", "--device", "till", "RATE=6"]);
    until_has(&agent, "web", "RATE", "6");
    until_has(&agent, "db", "RATE", "6");
    until_done(&agent, "one");

    // What is overridden reaches nobody.
    let before = agent.standing();
    let overridden = ["env", "set", "--fleet", "shop", "RATE=7"];
    assert!(would_restart(&server, &overridden).is_empty());
    server.cli(&overridden);
    agent.until_polled(2);
    assert_eq!(agent.standing(), before);
    server.cli(&["env", "rm", "--device", "till", "RATE"]);
    until_has(&agent, "db", "RATE", "7");
    until_has(&agent, "web", "RATE", "5");
    until_done(&agent, "one");
}

#[test]
fn a_variable_with_which_a_service_fails_is_taken_back_on_the_device() {
    let lab = Lab::new("badvariable");
    let (server, _fleet, agent) = running(&lab, "one", &[("db", "r1"), ("web", "r1")]);
    until_done(&agent, "one");
    server.cli(&["env", "set", "--device", "till", "--service", "web", "RATE=5"]);
    until_has(&agent, "web", "RATE", "5");
    until_done(&agent, "one");
    let (db, web) = (standing(&agent, "db"), agent.service("web").expect("it runs").id);

    server.cli(&["env", "set", "--device", "till", "--service", "web", "RATE=6", "DEMO_BEHAVIOUR=exit"]);
    agent.until_status("/waiting", "release one was rejected: web was restarted 3 times by the engine");
    until_has(&agent, "web", "RATE", "5");
    assert_eq!(agent.service("web").expect("it runs").id, web, "the very container comes back");
    assert_eq!(standing(&agent, "db"), db);
    let explained = String::from_utf8(agent.cli(&["explain"]).stdout).expect("text");
    let heading = "shop: should run one (rejected), last accepted one with earlier variables\n";
    assert!(explained.starts_with(heading), "{explained}");
    let state = || server.cli_json(&["device", "show", "till"])["device"]["state"].clone();
    eventually("the fleet knows it", Duration::from_secs(20), || (state() == "rejected").then_some(()));
    agent.until_polled(2);
    assert_eq!(agent.service("web").expect("it runs").id, web, "it is not tried again");

    // A better value is tried at once.
    server.cli(&["env", "set", "--device", "till", "--service", "web", "DEMO_BEHAVIOUR=well"]);
    until_has(&agent, "web", "RATE", "6");
    until_done(&agent, "one");
    eventually("the fleet knows that, too", Duration::from_secs(20), || {
        (state() == "on-target").then_some(())
    });
}

const SECRET: &str = "hunter2 of a variable";

#[test]
fn a_secret_variable_is_seen_by_its_services_only() {
    let lab = Lab::new("secretvariable");
    let (mut server, _fleet, agent) = running(&lab, "one", &[("db", "r1"), ("web", "r1")]);
    until_done(&agent, "one");
    let file = lab.file("secret.env", &format!("PASSWORD='{SECRET}'\n"));
    let file = file.to_str().expect("text");
    let mut said =
        vec![server.cli(&["env", "set", "--device", "till", "--service", "web", "--secret", "--file", file])];
    until_has(&agent, "web", "PASSWORD", SECRET);
    until_done(&agent, "one");
    assert_eq!(agent.get("db", "/env?PASSWORD").expect("an answer").status, 404);

    // The agent's words while it changes, and while a service fails with the secret.
    server.cli(&["env", "set", "--device", "till", "--service", "web", "DEMO_BEHAVIOUR=exit"]);
    agent.until_status("/waiting", "release one was rejected");
    for verb in [&["explain"][..], &["plan"], &["history"], &["status"], &["events"]] {
        for json in [&[][..], &["--json"]] {
            let out = agent.cli(&[verb, json].concat());
            said.push(String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned());
        }
    }
    let bundle = lab.dir().join("bundle.tar");
    let mut command = Program::cotter();
    command.args(["support-bundle", "--output"]).arg(&bundle).arg("--config").arg(agent.settings_file());
    assert!(command.output().expect("the binary runs").status.success());
    said.push(String::from_utf8_lossy(&std::fs::read(&bundle).expect("a bundle")).into_owned());
    said.push(agent.log());

    // The server's.
    for words in [
        &["env", "list"][..],
        &["env", "list", "--device", "till"],
        &["device", "show", "till"],
        &["device", "list"],
        &["fleet", "show", "shop"],
        &["release", "show", "one"],
    ] {
        said.extend([server.cli(words), server.cli_json(words).to_string()]);
    }
    assert!(said.iter().any(|text| text.contains("PASSWORD") && text.contains("(secret)")), "it is listed");
    said.push(server.log());
    for text in said {
        assert!(!text.contains("hunter2"), "{text}");
    }
    server.stop();
}

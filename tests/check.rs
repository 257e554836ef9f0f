//! `cotter check` on the real binary: beside a real agent, engine and fleet server, and without them.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use support::{Agent, FleetServer, Lab, Program, eventually};

/// Exit code, and the findings by id.
#[track_caller]
fn check(settings: &Path, more: &[&str]) -> (i32, BTreeMap<String, Value>) {
    let output = Program::cotter().args(["check", "--json", "--config"]).arg(settings).args(more).output();
    let output = output.expect("the binary runs");
    let said = String::from_utf8_lossy(&output.stderr);
    let document: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {said}"));
    assert_eq!(document["schema_version"], 1);
    let findings = document["checks"].as_array().expect("checks").iter();
    let findings = findings.map(|f| (f["id"].as_str().expect("an id").to_owned(), f.clone())).collect();
    (output.status.code().expect("it exits"), findings)
}

#[track_caller]
fn assert_found(findings: &BTreeMap<String, Value>, id: &str, level: &str, evidence: &str) {
    let found = &findings[id];
    let has = found["evidence"].as_str().expect("evidence").contains(evidence);
    assert!(found["level"] == level && has, "{found}, and not {level}: {evidence}");
}

/// Ids of what is an error.
fn errors(findings: &BTreeMap<String, Value>) -> Vec<&str> {
    findings.iter().filter(|(_, f)| f["level"] == "error").map(|(id, _)| id.as_str()).collect()
}

#[test]
fn a_device_that_runs_is_well_and_one_that_does_not_is_reported() {
    let lab = Lab::new("check");
    let mut server = FleetServer::start(&lab);
    let fleet = server.create_fleet(&lab, "f");
    let mut agent = Agent::start(&lab, &server, &fleet, "a");
    let settings = agent.settings_file();
    eventually("a poll", Duration::from_secs(30), || {
        agent.status()?["cloud"]["last_contact"].as_str().map(str::to_owned)
    });

    let (code, findings) = check(&settings, &[]);
    assert_eq!((code, errors(&findings)), (0, vec![]), "{findings:#?}");
    for (id, evidence) in [
        ("config-valid", "a/agent.toml"),
        ("config-cloud", server.url.as_str()),
        ("config-policy", "the policy allows everything: releases can do what root can"),
        ("state-folder", "a/state"),
        ("state-copies", "both are intact"),
        ("state-identity", ", registered"),
        ("host-clock", "Z"),
        ("engine-answers", "Docker "),
        ("engine-disk", " free at "),
        ("agent-alone", "instance "),
        ("agent-version", env!("CARGO_PKG_VERSION")),
        ("agent-sockets", "status 660, control 600"),
        ("agent-trouble", "it reaches the engine and the store"),
        ("cloud-name", "127.0.0.1 is 127.0.0.1"),
        ("cloud-connects", "127.0.0.1:"),
        ("cloud-answers", "it accepts this device's key"),
        ("cloud-clock", " s ahead of the cloud's"),
        ("cloud-contact", "last contact 20"),
        ("cloud-variables", "1 have their effect"),
    ] {
        assert_found(&findings, id, "ok", evidence);
    }

    // Somebody else's cloud, and the device is deleted at its own.
    let (code, findings) = check(&settings, &["--set", "cloud.endpoint=http://127.0.0.1:1"]);
    assert_eq!((code, errors(&findings)), (50, vec!["cloud-answers", "cloud-connects"]));
    assert_found(&findings, "cloud-connects", "error", "127.0.0.1, port 1: Connection refused");
    assert_found(&findings, "state-identity", "warning", "not at cloud.endpoint");
    let uuid = agent.status().expect("a status")["device"]["uuid"].as_str().expect("a uuid").to_owned();
    server.cli(&["device", "delete", &uuid, "--yes"]);
    let (code, findings) = check(&settings, &[]);
    // The agent knows it as soon as it has polled.
    let wrong: Vec<_> = errors(&findings).into_iter().filter(|id| *id != "cloud-contact").collect();
    assert_eq!((code, wrong), (50, vec!["cloud-answers"]), "{findings:#?}");

    // Without agent, engine and cloud.
    server.stop();
    assert!(agent.stop().success());
    let (code, findings) = check(&settings, &["--set", "engine.socket=/nowhere/docker.sock"]);
    assert_eq!(code, 50);
    let wrong = ["agent-answers", "cloud-answers", "cloud-connects", "engine-socket"];
    assert_eq!(errors(&findings), wrong, "{findings:#?}");
    assert_found(&findings, "state-copies", "ok", "both are intact");
    assert_found(&findings, "engine-disk", "skip", "the engine does not answer");

    // What is left out is neither run nor counted.
    let all = "agent-answers,cloud,engine-socket";
    let (code, findings) =
        check(&settings, &["--set", "engine.socket=/nowhere/docker.sock", "--dont-run", all]);
    assert_eq!((code, errors(&findings)), (0, vec![]));
    assert_found(&findings, "cloud-name", "skip", "left out by --dont-run");

    // A store that was hurt.
    let state = settings.with_file_name("state");
    std::fs::write(state.join("mirror-a.json"), "x").expect("a damaged mirror");
    std::fs::set_permissions(&state, std::fs::Permissions::from_mode(0o755)).expect("an open folder");
    let left_out = ["--dont-run", "agent,cloud,engine"];
    let (code, findings) = check(&settings, &left_out);
    assert_eq!(code, 0, "warnings are no errors");
    let (code, _) = check(&settings, &[&left_out[..], &["--warnings-as-errors"]].concat());
    assert_eq!(code, 50, "unless they are to be");
    assert_found(&findings, "state-copies", "warning", "mirror-a.json cannot be used: it has no second line");
    assert_found(&findings, "state-folder", "warning", "has mode 755");
}

#[test]
fn settings_that_are_wrong_leave_what_needs_none() {
    let dir = tempfile::tempdir().expect("a folder");
    let settings = dir.path().join("agent.toml");
    std::fs::write(&settings, "colour = 1").expect("settings");
    std::fs::set_permissions(&settings, std::fs::Permissions::from_mode(0o666)).expect("its mode");
    let (code, findings) = check(&settings, &[]);
    assert_eq!((code, errors(&findings)), (50, vec!["config-valid", "config-writers"]));
    assert_found(&findings, "config-valid", "error", "unknown field `colour`");
    assert_found(&findings, "engine-answers", "skip", "see config-valid");
    assert_found(&findings, "host-memory", "ok", " available");
}

#[test]
fn what_is_shown_to_people() {
    let run = |args: &[&str]| {
        let output = Program::cotter().arg("check").args(args).output().expect("the binary runs");
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(said).expect("text"))
    };
    let (code, said) = run(&["--list"]);
    assert_eq!(code, Some(0));
    assert!(said.starts_with("CHECK                 ASKS\nconfig-valid          can the settings"), "{said}");
    let (code, said) = run(&["--dont-run", "config,colour"]);
    let printed = "error: no check is called colour; `cotter check --list` lists them\n";
    assert_eq!((code, said.as_str()), (Some(2), printed));

    let dir = tempfile::tempdir().expect("a folder");
    let settings = dir.path().join("agent.toml");
    std::fs::write(&settings, "colour = 1").expect("settings");
    std::fs::set_permissions(&settings, std::fs::Permissions::from_mode(0o600)).expect("its mode");
    let (code, said) = run(&["--config", settings.to_str().expect("text"), "--dont-run", "host"]);
    assert_eq!(code, Some(50));
    let said = said.replace(&dir.path().display().to_string(), "DIR");
    let said = said.trim_start_matches("note: run it as root, e.g. with sudo: some checks need it\n");
    let begins = "config\n  ERROR  config-valid    settings in DIR/agent.toml, line 1 are invalid: unknown field `colour`, ";
    assert!(said.starts_with(begins), "{said}");
    let ends = "                         -> correct it and run `cotter config check`; the agent does not start with invalid \
                settings\n  ok     config-writers  only their owner can write them\n\n\
                1 ok, 0 with a warning, 1 with an error, 43 skipped (--all shows them)\n";
    assert!(said.ends_with(ends), "{said}");
    let (_, said) = run(&["--config", settings.to_str().expect("text"), "--dont-run", "host", "--all"]);
    assert!(said.contains("host\n  skip   host-clock            left out by --dont-run\n"), "{said}");
}

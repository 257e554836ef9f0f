//! The whole device: the real binary, a real dockerd, a real registry, and a cloud between them.
//!
//! Each test is a scenario of its own, in a lab of its own; they run side by side on one engine.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking and reads the real clock"
)]

#[path = "../support/mod.rs"]
mod support;

mod asked;
mod away;
mod bad;
mod balena;
mod balena_host;
mod balena_target;
mod behind;
mod bundle;
mod bystanders;
mod folders;
mod heal;
mod images;
mod joined;
mod ladder;
mod logs;
mod mixed;
mod moving;
mod networks;
mod patience;
mod platform;
mod podman;
mod rest;
mod restart;
mod rollout;
mod seat;
mod supervisor_api;
mod takeover;
mod trial;
mod update;
mod variables;
mod windows;

use std::fmt::Write;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use support::{Agent, Fleet, FleetServer, Lab, eventually};

/// A compose file: each service runs its release of the demo app, on a port of the engine's choice,
/// with a volume of its own, SERVICE-data.
fn compose(lab: &Lab, name: &str, services: &[(&str, &str)]) -> PathBuf {
    let mut text = String::from("services:\n");
    for (service, release) in services {
        let image = lab.image(release);
        write!(
            text,
            "  {service}:
    image: {image}
    ports: [\"127.0.0.1::8080\"]
    volumes: [\"{service}-data:/data\"]
    stop_grace_period: 3s
    labels: {{ io.cotter.trial.soak: 1s }}
"
        )
        .unwrap();
    }
    text.push_str("volumes:\n");
    for (service, _) in services {
        writeln!(text, "  {service}-data: {{}}").unwrap();
    }
    lab.file(&format!("{name}.yml"), &text)
}

/// Starts a fleet server with the fleet `shop`.
fn shop(lab: &Lab) -> (FleetServer, Fleet) {
    let server = FleetServer::start(lab);
    let fleet = server.create_fleet(lab, "shop");
    (server, fleet)
}

/// Starts a fleet server with the fleet `shop`, its release `commit`, and the agent `till`. Waits until `web` is served.
fn running<'lab>(
    lab: &'lab Lab,
    commit: &str,
    services: &[(&str, &str)],
) -> (FleetServer, Fleet, Agent<'lab>) {
    let (server, fleet) = shop(lab);
    release(lab, &server, &fleet, commit, services);
    let agent = Agent::start(lab, &server, &fleet, "till");
    agent.until_serves("web", commit, "r1");
    (server, fleet, agent)
}

/// Waits until a step is postponed for a reason with these words. Returns the reason, and the seconds until the next
/// attempt.
#[track_caller]
fn postponed(agent: &Agent<'_>, words: &str) -> (String, u64) {
    eventually(&format!("the status says {words:?}"), Duration::from_secs(40), || {
        let waiting = agent.status_value("/waiting");
        let is_it =
            |w: &&Value| w["reason"] == "backoff" && w["why"].as_str().is_some_and(|why| why.contains(words));
        let entry = waiting.as_array()?.iter().find(is_it)?;
        assert_eq!(entry["service"], "web");
        Some((entry["why"].as_str()?.to_owned(), entry["retry_in_s"].as_u64()?))
    })
}

/// Creates the release `commit` of `fleet`.
fn release(lab: &Lab, server: &FleetServer, fleet: &Fleet, commit: &str, services: &[(&str, &str)]) {
    server.create_release(fleet, commit, &compose(lab, &format!("{}-{commit}", fleet.name), services));
}

/// An app of a target body: number, name, release and its services.
fn app(number: u64, name: &str, commit: &str, services: &[(&str, Value)]) -> Value {
    let services: serde_json::Map<_, _> =
        services.iter().map(|(n, s)| ((*n).to_owned(), s.clone())).collect();
    json!({
        "id": number, "name": name, "class": "fleet",
        "releases": { commit: { "id": number, "services": services, "networks": {}, "volumes": { "data": {} } } },
    })
}

/// A service of a target body that runs `image`; `more` goes into its composition.
fn service(image: &str, more: Value) -> Value {
    let mut composition = json!({
        "ports": ["127.0.0.1::8080"], "volumes": ["data:/data"], "stop_grace_period": "3s",
    });
    for (key, value) in more.as_object().cloned().unwrap_or_default() {
        composition[key] = value;
    }
    json!({ "id": 1, "image_id": 1, "image": image, "environment": {}, "labels": { "io.cotter.trial.soak": "1s" }, "composition": composition })
}

/// An app's uuid for fake clouds.
fn uuid(seed: u8) -> String {
    format!("{seed:02x}").repeat(16)
}

/// Waits until the agent has accepted `commit` and has nothing more to do.
#[track_caller]
fn until_done(agent: &Agent<'_>, commit: &str) {
    eventually(&format!("{commit} is done"), Duration::from_secs(60), || {
        let status = agent.status()?;
        let app = &status["apps"][0];
        let is_done = app["current"] == commit && app["update"] == "done" && status["waiting"] == json!([]);
        let names = agent.running().len() == app["services"].as_array()?.len();
        (is_done && names).then_some(())
    });
}

//! Polls that wait at a real fleet server for a new target, and an agent whose polls do.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking"
)]

#[path = "support/desk.rs"]
mod desk;
mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use desk::Desk;
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};
use support::{FleetServer, Program, eventually};
use tempfile::TempDir;
use tokio::task::JoinHandle;

const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const B: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";
const PATIENCE: Duration = Duration::from_secs(20);

fn key_of(uuid: &str) -> String {
    format!("some-secret-{}-{}", &uuid[..4], &uuid[28..])
}

fn release(commit: &str) -> Value {
    let image = format!("127.0.0.1:5000/lab/{commit}");
    json!({
        "commit": commit,
        "composition": { "services": { "web": { "image": image } } },
        "images": { "web": format!("{image}@sha256:{}", "a".repeat(64)) },
    })
}

impl Desk {
    /// Fleets `lab` and `site`, in `lab` the releases `one` and `two`, which is its target, and these devices.
    async fn with(dir: &Path, connections: usize, devices: &[&str]) -> Self {
        let desk = Self::open_for(dir, connections).await;
        desk.did(Method::POST, "/fleets", json!({ "name": "site" })).await;
        let created = desk.did(Method::POST, "/fleets", json!({ "name": "lab" })).await;
        for commit in ["one", "two"] {
            desk.did(Method::POST, "/fleets/lab/releases", release(commit)).await;
        }
        for uuid in devices {
            let device = json!({ "application": created["fleet"]["number"], "device_type": "generic-amd64",
                                 "uuid": uuid, "api_key": key_of(uuid) });
            let register = desk.request(Method::POST, "/device/register");
            let register = register.bearer_auth(created["provisioning_key"].as_str().unwrap()).json(&device);
            let answer = register.send().await.unwrap();
            assert_eq!(answer.status().as_u16(), 201, "{}", answer.text().await.unwrap());
        }
        desk
    }

    fn poll(&self, uuid: &str, etag: Option<&str>, prefer: Option<&str>) -> reqwest::RequestBuilder {
        let mut poll =
            self.request(Method::GET, &format!("/device/v3/{uuid}/state")).bearer_auth(key_of(uuid));
        if let Some(etag) = etag {
            poll = poll.header("If-None-Match", etag);
        }
        if let Some(prefer) = prefer {
            poll = poll.header("Prefer", prefer);
        }
        poll
    }

    async fn etag(&self, uuid: &str) -> String {
        let answer = self.poll(uuid, None, None).send().await.unwrap();
        answer.headers()["etag"].to_str().unwrap().to_owned()
    }

    /// A poll that waits for longer than any test does.
    async fn park(&self, uuid: &str) -> JoinHandle<Response> {
        let etag = self.etag(uuid).await;
        let poll = self.poll(uuid, Some(&etag), Some("wait=300"));
        tokio::spawn(async move { poll.send().await.unwrap() })
    }

    async fn until_parked(&self, count: usize) {
        let line = format!("cotter_fleet_parked_polls {count}\n");
        let found = async {
            loop {
                let metrics = self.request(Method::GET, "/metrics").bearer_auth(&self.token);
                if metrics.send().await.unwrap().text().await.unwrap().contains(&line) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, found).await.unwrap_or_else(|_| panic!("{count} polls never wait"));
    }
}

/// The answer to a poll that waited.
async fn answered(poll: JoinHandle<Response>) -> (StatusCode, String, Option<String>) {
    let answer = tokio::time::timeout(PATIENCE, poll).await.expect("it is answered").unwrap();
    let applied = answer.headers().get("preference-applied").map(|value| value.to_str().unwrap().to_owned());
    (answer.status(), answer.text().await.unwrap(), applied)
}

#[tokio::test]
async fn a_poll_is_answered_when_the_target_of_its_device_changes() {
    let dir = TempDir::new().unwrap();
    let desk = Desk::with(dir.path(), 64, &[A, B]).await;
    let (a, b) = (desk.park(A).await, desk.park(B).await);
    desk.until_parked(2).await;
    desk.did(Method::POST, &format!("/devices/{A}/pin"), json!({ "release": "one" })).await;
    let (status, body, applied) = answered(a).await;
    assert_eq!((status.as_u16(), applied.as_deref()), (200, Some("wait=300")));
    assert!(body.contains("\"one\"") && !body.contains("\"two\""), "{body}");
    desk.until_parked(1).await;
    assert!(!b.is_finished(), "the other device has no new target");

    // The answer to a device that does not know its target is not delayed.
    let answer = desk.poll(A, None, Some("wait=300")).send().await.unwrap();
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["preference-applied"]),
        (200, &"wait=300".parse().unwrap())
    );
    desk.close().await;
    assert_eq!(answered(b).await.0, 304);
}

/// What an operator does to device A, and what its poll is answered; B is in the fleet, too.
#[tokio::test]
async fn every_change_of_a_target_wakes_and_no_other() {
    let bad = StatusCode::NOT_MODIFIED;
    let good = StatusCode::OK;
    for (method, path, body, a, b) in [
        (Method::POST, format!("/devices/{A}/rename"), json!({ "name": "kitchen" }), Some(good), None),
        (Method::POST, format!("/devices/{A}/move"), json!({ "fleet": "site" }), Some(good), None),
        (Method::DELETE, format!("/devices/{A}"), Value::Null, Some(bad), None),
        (Method::POST, "/fleets/lab/rename".to_owned(), json!({ "name": "hall" }), Some(good), Some(good)),
        (Method::POST, "/fleets/lab/pin".to_owned(), json!({ "release": "one" }), Some(good), Some(good)),
        (Method::POST, "/fleets/lab/releases".to_owned(), release("three"), Some(good), Some(good)),
        (Method::POST, format!("/devices/{A}/variables"), json!({ "set": { "K": "v" } }), Some(good), None),
        (
            Method::POST,
            "/fleets/lab/variables".to_owned(),
            json!({ "set": { "K": "v" } }),
            Some(good),
            Some(good),
        ),
        (Method::POST, format!("/devices/{A}/tags"), json!({ "set": { "ring": "canary" } }), None, None),
        (Method::POST, format!("/devices/{A}/pin"), json!({ "release": "two" }), None, None),
        (Method::POST, "/fleets".to_owned(), json!({ "name": "other" }), None, None),
        (Method::POST, "/fleets/site/releases".to_owned(), release("four"), None, None),
    ] {
        let dir = TempDir::new().unwrap();
        let desk = Desk::with(dir.path(), 64, &[A, B]).await;
        let polls = [desk.park(A).await, desk.park(B).await];
        desk.until_parked(2).await;
        desk.did(method, &path, body).await;
        let expected = [a, b];
        desk.until_parked(expected.iter().filter(|status| status.is_none()).count()).await;
        for (poll, expected) in polls.into_iter().zip(expected) {
            match expected {
                Some(expected) => assert_eq!(answered(poll).await.0, expected, "{path}"),
                None => assert!(!poll.is_finished(), "{path}"),
            }
        }
        desk.close().await;
    }
}

/// A change may come at any moment, also between a poll's look at the records and its wait.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_change_is_missed_between_a_look_and_a_wait() {
    let dir = TempDir::new().unwrap();
    // Several, because one may ask for its whole target 60 times.
    let uuids: Vec<_> = (0..40).map(|n| format!("{n:032x}")).collect();
    let desk = Desk::with(dir.path(), 64, &uuids.iter().map(String::as_str).collect::<Vec<_>>()).await;
    for round in 0..600_usize {
        let uuid = &uuids[round % uuids.len()];
        let etag = desk.etag(uuid).await;
        let poll = tokio::spawn(desk.poll(uuid, Some(&etag), Some("wait=5")).send());
        // The rename arrives a little earlier or later each time.
        tokio::time::sleep(Duration::from_micros(u64::try_from(round % 30).unwrap() * 40)).await;
        let name = json!({ "name": format!("kitchen {round}") });
        desk.did(Method::POST, &format!("/devices/{uuid}/rename"), name).await;
        assert_eq!(poll.await.unwrap().unwrap().status(), 200, "round {round}");
    }
    desk.close().await;
}

#[tokio::test]
async fn a_wait_is_over_after_its_time_and_tells_of_a_deletion() {
    let dir = TempDir::new().unwrap();
    let desk = Desk::with(dir.path(), 64, &[A]).await;
    let etag = desk.etag(A).await;
    let answer = desk.poll(A, Some(&etag), Some("respond-async, wait=1")).send().await.unwrap();
    assert_eq!(answer.status(), 304);
    assert_eq!(answer.headers()["preference-applied"], "wait=1");
    assert_eq!(answer.headers()["etag"].to_str().unwrap(), etag);
    // Not asked for: not honoured.
    let answer = desk.poll(A, Some(&etag), None).send().await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.headers().get("preference-applied")), (304, None));
    // A stranger waits for nothing.
    let stranger =
        desk.request(Method::GET, &format!("/device/v3/{A}/state")).bearer_auth("a-key-of-a-stranger");
    let stranger = stranger.header("If-None-Match", &etag).header("Prefer", "wait=300");
    assert_eq!(stranger.send().await.unwrap().status(), 401);
    let parked = desk.park(A).await;
    desk.until_parked(1).await;
    desk.did(Method::DELETE, &format!("/devices/{A}"), Value::Null).await;
    let answer = tokio::time::timeout(PATIENCE, parked).await.unwrap().unwrap();
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["cotter-device"]),
        (304, &"deleted".parse().unwrap())
    );
    desk.close().await;
}

#[tokio::test]
async fn a_device_waits_once_and_is_online_meanwhile() {
    let dir = TempDir::new().unwrap();
    let desk = Desk::with(dir.path(), 64, &[A]).await;
    let (first, _) = (desk.park(A).await, desk.until_parked(1).await);
    let second = desk.park(A).await;
    assert_eq!(answered(first).await.0, 304, "its connection may be lost");
    desk.until_parked(1).await;
    // One and a half poll intervals are 7.5 s.
    tokio::time::sleep(Duration::from_secs(8)).await;
    let shown = desk.did(Method::GET, &format!("/devices/{A}"), Value::Null).await;
    assert_eq!(shown["is_online"], true, "{shown}");
    assert!(!second.is_finished());
    // A client that goes gives its place back.
    second.abort();
    desk.until_parked(0).await;
    desk.close().await;
}

#[tokio::test]
async fn devices_that_wait_shut_out_no_other_client() {
    let dir = TempDir::new().unwrap();
    let names: Vec<String> = (0..18).map(|n| format!("{n:032x}")).collect();
    let devices: Vec<&str> = names.iter().map(String::as_str).collect();
    // 16 connections of devices, of which 14 may wait.
    let desk = Desk::with(dir.path(), 16, &devices).await;
    let mut parked = Vec::new();
    for uuid in &devices[..14] {
        parked.push(desk.park(uuid).await);
        desk.until_parked(parked.len()).await;
    }
    for uuid in &devices[14..] {
        let etag = desk.etag(uuid).await;
        let answer = desk.poll(uuid, Some(&etag), Some("wait=300")).send().await.unwrap();
        assert_eq!(answer.status(), 304, "it is answered at once, and without a word of waiting");
        assert_eq!(answer.headers().get("preference-applied"), None);
    }
    // A device that waits can poll in another way, and an operator gets in.
    assert_eq!(desk.poll(devices[0], None, None).send().await.unwrap().status(), 200);
    desk.did(Method::POST, "/fleets/lab/pin", json!({ "release": "one" })).await;
    for poll in parked {
        assert_eq!(answered(poll).await.0, 200);
    }
    desk.close().await;
}

#[tokio::test]
async fn a_server_that_stops_answers_those_that_wait() {
    let dir = TempDir::new().unwrap();
    let desk = Desk::with(dir.path(), 64, &[A, B]).await;
    let polls = [desk.park(A).await, desk.park(B).await];
    desk.until_parked(2).await;
    desk.close().await;
    for poll in polls {
        let (status, body, _) = answered(poll).await;
        assert_eq!((status.as_u16(), body.as_str()), (304, ""));
    }
}

/// The poll interval is an hour, so all that arrives sooner arrives by a poll that waited.
#[test]
fn an_agent_follows_at_once_and_an_operator_interrupts_its_wait() {
    let dir = TempDir::new().unwrap();
    let mut server = FleetServer::start_in(dir.path(), Vec::new());
    server.stop();
    server.poll_every("1h");
    server.start_again();
    let created = server.cli_json(&["fleet", "create", "lab"])["created"].clone();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    fs::write(at("provisioning.key"), created["provisioning_key"].as_str().unwrap()).unwrap();
    fs::set_permissions(at("provisioning.key"), fs::Permissions::from_mode(0o600)).unwrap();
    let settings = format!(
        "state_dir = \"{dir}/state\"\nruntime_dir = \"{dir}/run\"\n[engine]\nsocket = \"{dir}/no-engine\"\n\
         [cloud]\nendpoint = \"{}\"\nfleet = {}\nprovisioning_key_file = \"{dir}/provisioning.key\"\n\
         device_name = \"kitchen\"\n",
        server.url,
        created["fleet"]["number"],
        dir = dir.path().display(),
    );
    fs::write(at("agent.toml"), settings).unwrap();
    let mut command = Program::cotter();
    command.args(["agent", "--config", &at("agent.toml")]);
    let mut agent = Program::start("the agent", command, Path::new(&at("agent.log")));
    let mut received = |count: usize| {
        eventually(&format!("target {count} arrives"), PATIENCE, || {
            assert!(agent.is_running(), "the agent ended: {}", agent.log());
            (agent.log().matches("target received").count() == count).then_some(())
        });
    };
    let parked = |count: usize| {
        let metrics = || {
            let token = fs::read_to_string(server.token_file()).unwrap();
            let out = std::process::Command::new("curl")
                .args(["-s", "-H", &format!("Authorization: Bearer {}", token.trim())])
                .arg(format!("{}/metrics", server.url))
                .output()
                .unwrap();
            String::from_utf8(out.stdout).unwrap()
        };
        eventually(&format!("{count} polls wait"), PATIENCE, || {
            metrics().contains(&format!("cotter_fleet_parked_polls {count}\n")).then_some(())
        });
    };
    received(1);
    parked(1);
    for (count, name) in [(2, "porch"), (3, "hall")] {
        server.cli(&["device", "rename", if count == 2 { "kitchen" } else { "porch" }, name]);
        received(count);
        parked(1);
    }
    let polls = || {
        let status = support::unix_get(&dir.path().join("run/status.sock"), "/v1/status").unwrap().json();
        (status["cloud"]["polls"].as_u64().unwrap(), status["cloud"]["failures"].as_u64().unwrap(), status)
    };
    let (before, failures, status) = polls();
    assert_eq!(failures, 0, "{status}");
    let mut update = Program::cotter();
    update.args(["update", "--socket"]).arg(dir.path().join("run/control.sock"));
    let out = update.output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    eventually("the operator's poll is answered", PATIENCE, || (polls().0 > before).then_some(()));
    parked(1);
    let log = agent.log();
    assert!(!log.contains("poll failed") && !log.contains("ERROR cotter::cloud"), "{log}");
}

/// A client with one key, or with none, cannot take the places of others.
#[tokio::test]
async fn a_device_has_one_place_and_a_stranger_none() {
    let dir = TempDir::new().unwrap();
    let desk = Desk::with(dir.path(), 16, &[A, B]).await;
    let etag = desk.etag(A).await;
    let mut waits = desk.park(A).await;
    desk.until_parked(1).await;
    // More than there are places in all.
    for _ in 0..40 {
        let newer = desk.park(A).await;
        let before = std::mem::replace(&mut waits, newer);
        assert_eq!(answered(before).await.0, StatusCode::NOT_MODIFIED, "the newer one has its place");
    }
    for n in 0..40 {
        let stranger = format!("{n:032x}");
        for (uuid, key, status) in [(stranger.as_str(), A, 304), (stranger.as_str(), "c", 304), (B, A, 401)] {
            let key = if key == "c" { "some-key-of-nobody-at-all".to_owned() } else { key_of(key) };
            let poll = desk.request(Method::GET, &format!("/device/v3/{uuid}/state")).bearer_auth(key);
            let poll = poll.header("If-None-Match", &etag).header("Prefer", "wait=300");
            let answer = tokio::time::timeout(PATIENCE, poll.send()).await.expect("at once").unwrap();
            assert_eq!(answer.status().as_u16(), status, "{uuid}");
        }
    }
    desk.until_parked(1).await;
    let other = desk.park(B).await;
    desk.until_parked(2).await;
    desk.did(Method::POST, "/fleets/lab/pin", json!({ "release": "one" })).await;
    for poll in [waits, other] {
        assert_eq!(answered(poll).await.0, StatusCode::OK);
    }
    desk.close().await;
}

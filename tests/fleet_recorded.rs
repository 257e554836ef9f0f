//! The acts that were recorded on a real open-balena-api, done at real servers: one with its own file, and two that share a
//! PostgreSQL, each act at another one. Every device polls all servers after every step, and has the recorded release.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking"
)]

#[path = "support/recorded.rs"]
mod recorded;
mod support;

use std::collections::BTreeSet;
use std::fs;

use recorded::{Act, DEVICES, Kind, LIST, Line, files, recorded};
use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};
use support::{FleetServer, Postgres};
use tempfile::TempDir;

/// Steps whose act the operator API does not have: `tests/fleet_policy.rs` alone compares what comes of it.
const ONLY_POLICY: [&str; 1] = ["55-fleet-target-null"];

struct Desk {
    client: Client,
    /// URL and token of each server.
    servers: Vec<(String, String)>,
    /// How many acts were done so far: the next one is at the next server.
    acts: usize,
    provisioning_key: String,
    seen: BTreeSet<String>,
}

impl Desk {
    fn of(servers: &[&FleetServer]) -> Self {
        drop(rustls::crypto::ring::default_provider().install_default());
        let token = |server: &FleetServer| fs::read_to_string(server.token_file()).unwrap().trim().to_owned();
        Self {
            client: Client::builder().no_proxy().build().unwrap(),
            servers: servers.iter().map(|server| (server.url.clone(), token(server))).collect(),
            acts: 0,
            provisioning_key: String::new(),
            seen: BTreeSet::new(),
        }
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.next().0))
    }

    /// URL and token of the next server.
    fn next(&self) -> &(String, String) {
        &self.servers[self.acts % self.servers.len()]
    }

    /// An act of an operator at the next server.
    async fn operate(&mut self, method: Method, path: &str, body: Value) -> (u16, Value) {
        let request = self.request(method, &format!("/api/v1{path}")).bearer_auth(&self.next().1).json(&body);
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        self.acts += 1;
        (status, serde_json::from_str(&answer.text().await.unwrap()).unwrap_or_default())
    }

    /// Does an act; `None` for one that the operator API does not have.
    async fn act(&mut self, act: Act) -> Option<(u16, Value)> {
        let (method, path, body) = match act {
            Act::Fleet(name) => {
                let (status, created) = self.operate(Method::POST, "/fleets", json!({ "name": name })).await;
                if name == "fleet1" {
                    created["provisioning_key"].as_str().unwrap().clone_into(&mut self.provisioning_key);
                }
                return Some((status, created));
            }
            Act::Device(name) => return Some(self.register(name).await),
            Act::Release(fleet, name, kind) => {
                (Method::POST, format!("/fleets/{fleet}/releases"), release(name, kind))
            }
            Act::Finalize(name) => (Method::PATCH, format!("/releases/{name}"), json!({ "is_final": true })),
            Act::Invalidate(name, is_so) => {
                (Method::PATCH, format!("/releases/{name}"), json!({ "is_invalidated": is_so }))
            }
            Act::FailsTests(name) => {
                (Method::PATCH, format!("/releases/{name}"), json!({ "is_passing_tests": false }))
            }
            Act::Delete(name) => (Method::DELETE, format!("/releases/{name}"), json!({})),
            Act::PinFleet(fleet, name) => {
                (Method::POST, format!("/fleets/{fleet}/pin"), json!({ "release": name }))
            }
            Act::TrackLatest(fleet) => (Method::POST, format!("/fleets/{fleet}/track-latest"), json!({})),
            Act::TrackFlag(_) | Act::NoTarget(_) => return None,
            Act::Pin(device, name) => {
                (Method::POST, format!("/devices/{}/pin", uuid(device)), json!({ "release": name }))
            }
            Act::Unpin(device) => (Method::POST, format!("/devices/{}/track-fleet", uuid(device)), json!({})),
            Act::Tag(device, key, value) => {
                let tags = json!({ "set": { key: value } });
                (Method::POST, format!("/devices/{}/tags", uuid(device)), tags)
            }
            Act::PinByTag(filter, Some(name)) => {
                (Method::POST, "/devices/pin".to_owned(), json!({ "filter": filter, "release": name }))
            }
            Act::PinByTag(filter, None) => {
                (Method::POST, "/devices/track-fleet".to_owned(), json!({ "filter": filter }))
            }
            Act::Move(device, fleet) => {
                (Method::POST, format!("/devices/{}/move", uuid(device)), json!({ "fleet": fleet }))
            }
        };
        Some(self.operate(method, &path, body).await)
    }

    async fn register(&mut self, name: &str) -> (u16, Value) {
        let device = json!({ "application": 1, "device_type": "generic-amd64", "uuid": uuid(name),
                             "api_key": key_of(name), "device_name": name });
        let request = self.request(Method::POST, "/device/register").bearer_auth(&self.provisioning_key);
        let answer = request.json(&device).send().await.unwrap();
        self.acts += 1;
        (answer.status().as_u16(), Value::Null)
    }

    /// The release that a device gets, which is the same at all servers.
    async fn target(&self, device: &str) -> Option<String> {
        // The server of the last act first: it certainly knows it, and another one must not answer with less.
        let count = self.servers.len();
        let last = (self.acts + count - 1) % count;
        let (etag, target) = self.poll(last, device, None).await;
        for other in (0..count).filter(|other| *other != last) {
            let (same, nothing) = self.poll(other, device, Some(&etag)).await;
            assert_eq!(
                (same, nothing),
                (etag.clone(), Value::Null),
                "{device}: no change, with the same etag"
            );
            assert_eq!(self.poll(other, device, None).await, (etag.clone(), target.clone()), "{device}");
        }
        let apps = target[uuid(device)]["apps"].as_object().unwrap();
        assert_eq!(apps.len(), 1, "{target}");
        let releases = apps.values().next().unwrap().get("releases")?.as_object().unwrap();
        assert_eq!(releases.len(), 1, "{target}");
        releases.keys().next().cloned()
    }

    /// A poll: the etag and the body; no body where there is no change.
    async fn poll(&self, server: usize, device: &str, etag: Option<&str>) -> (String, Value) {
        let url = format!("{}/device/v3/{}/state", self.servers[server].0, uuid(device));
        let mut poll = self.client.get(url).bearer_auth(key_of(device));
        if let Some(etag) = etag {
            poll = poll.header("If-None-Match", etag);
        }
        let answer = poll.send().await.unwrap();
        assert_eq!(answer.status().as_u16(), if etag.is_some() { 304 } else { 200 }, "{device}");
        let etag = answer.headers()["etag"].to_str().unwrap().to_owned();
        (etag, serde_json::from_str(&answer.text().await.unwrap()).unwrap_or_default())
    }

    /// Does the acts of the list, and compares each recorded step.
    async fn run(mut self) {
        for line in LIST {
            match *line {
                Line::Do(act) => {
                    if let Some((status, answer)) = self.act(act).await {
                        assert!((200..300).contains(&status), "{act:?}: {status} {answer}");
                    }
                }
                Line::Refused(act) => {
                    let (status, answer) = self.act(act).await.unwrap();
                    let rule = answer["error"]["rule"].as_str();
                    assert_eq!((status, rule), (409, Some("in_use")), "{act:?}: {answer}");
                }
                Line::Like(step) if ONLY_POLICY.contains(&step) => {
                    self.seen.extend(recorded(step).into_iter().map(|(file, ..)| file));
                }
                Line::Like(step) => {
                    for (file, device, release) in recorded(step) {
                        assert_eq!(self.target(device).await, release, "{file}");
                        self.seen.insert(file);
                    }
                }
                Line::Has(device, release) => assert_eq!(self.target(device).await.as_deref(), Some(release)),
            }
        }
        assert_eq!(self.seen, files(), "each recorded state was compared");
    }
}

fn uuid(device: &str) -> String {
    let number = DEVICES.iter().position(|name| *name == device).unwrap() + 1;
    format!("{number:032x}")
}

fn key_of(device: &str) -> String {
    format!("the-key-of-device-{device}")
}

fn release(name: &str, kind: Kind) -> Value {
    let image = format!("127.0.0.1:5000/lab/{name}");
    let mut release = json!({
        "commit": name,
        "composition": { "services": { "web": { "image": image } } },
        "images": { "web": format!("{image}@sha256:{}", "a".repeat(64)) },
    });
    let (field, value) = match kind {
        Kind::Plain => return release,
        Kind::Draft => ("is_final", json!(false)),
        Kind::Failed => ("status", json!("failed")),
        Kind::Running => ("status", json!("running")),
        Kind::Older => ("start_timestamp", json!("2020-01-01T00:00:00Z")),
    };
    release[field] = value;
    release
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_with_its_own_file_decides_as_recorded() {
    let dir = TempDir::new().unwrap();
    let server = FleetServer::start_in(dir.path(), Vec::new());
    Desk::of(&[&server]).run().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_servers_on_postgresql_decide_as_recorded() {
    let Some(postgres) = Postgres::start() else { return };
    let dir = TempDir::new().unwrap();
    let store = postgres.url("fleet");
    let servers = ["a", "b"].map(|name| FleetServer::start_on(&store, dir.path(), name));
    Desk::of(&servers.each_ref()).run().await;
    // All of it came through the database: a server that starts now has it, too.
    let third = FleetServer::start_on(&store, dir.path(), "c");
    let desk = Desk::of(&[&servers[0], &servers[1], &third]);
    for (device, release) in [("A", "r4"), ("B", "f2r1"), ("C", "r4")] {
        assert_eq!(desk.target(device).await.as_deref(), Some(release));
    }
}

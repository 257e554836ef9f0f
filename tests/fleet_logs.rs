//! Logs of devices at a fleet server: what bounds them, and who reads them. Devices are requests of the test. With real agents
//! they are in tests/logs.rs.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and has tasks of its own"
)]

mod support;
#[path = "support/upload.rs"]
mod upload;

use std::time::{Duration, Instant};

use reqwest::{Client, Method, Response};
use serde_json::{Value, json};
use support::FleetServer;
use tempfile::TempDir;
use upload::{Upload, until, upload};

fn uuid(number: u32) -> String {
    format!("{number:032x}")
}

fn key_of(number: u32) -> String {
    format!("some-secret-{number:04}-key")
}

struct Site {
    server: FleetServer,
    http: Client,
    admin: String,
    _dir: TempDir,
}

impl Site {
    /// Fleets `lab` and `other`, and device 1 in the first.
    async fn open() -> Self {
        let dir = TempDir::new().unwrap();
        let server = FleetServer::start_in(dir.path(), Vec::new());
        drop(rustls::crypto::ring::default_provider().install_default());
        let http = Client::builder().no_proxy().build().unwrap();
        let admin = std::fs::read_to_string(server.token_file()).unwrap().trim().to_owned();
        let site = Self { server, http, admin, _dir: dir };
        let key = site.did("/fleets", json!({ "name": "lab" })).await["provisioning_key"].clone();
        site.did("/fleets", json!({ "name": "other" })).await;
        let body = json!({ "application": 1, "device_type": "board", "uuid": uuid(1), "api_key": key_of(1) });
        let register = site.http.post(format!("{}/device/register", site.server.url));
        let answer = register.bearer_auth(key.as_str().unwrap()).json(&body).send().await.unwrap();
        assert_eq!(answer.status(), 201);
        site
    }

    async fn did(&self, path: &str, body: Value) -> Value {
        let request = self.http.post(format!("{}/api/v1{path}", self.server.url)).bearer_auth(&self.admin);
        let answer = request.json(&body).send().await.unwrap();
        assert!(answer.status().is_success(), "{path}: {}", answer.text().await.unwrap());
        answer.json().await.unwrap()
    }

    /// Makes a user with a token for one fleet.
    async fn token(&self, user: &str, fleet: &str) -> String {
        self.did("/users", json!({ "name": user })).await;
        self.another_token(user, fleet).await
    }

    async fn another_token(&self, user: &str, fleet: &str) -> String {
        let token = json!({ "user": user, "role": "read-only", "fleets": [fleet] });
        self.did("/tokens", token).await["token"].as_str().unwrap().to_owned()
    }

    async fn logs(&self, token: &str, query: &str) -> Response {
        let url = format!("{}/api/v1/devices/{}/logs{query}", self.server.url, uuid(1));
        self.http.request(Method::GET, url).bearer_auth(token).send().await.unwrap()
    }

    async fn follow(&self, token: &str) -> Response {
        let answer = self.logs(token, "?follow=true").await;
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["x-accel-buffering"], "no");
        answer
    }

    fn upload(&self) -> Upload {
        let url = format!("{}/device/v2/{}/log-stream", self.server.url, uuid(1));
        upload(self.http.post(url).bearer_auth(key_of(1)))
    }

    async fn streams(&self) -> String {
        let request = self.http.get(format!("{}/metrics", self.server.url)).bearer_auth(&self.admin);
        let page = request.send().await.unwrap().text().await.unwrap();
        page.lines().find_map(|line| line.strip_prefix("cotter_fleet_log_streams ")).unwrap().to_owned()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_stream_of_a_device_ends_the_one_before() {
    let site = Site::open().await;
    let mut reader = site.follow(&site.admin).await;
    let mut before = Vec::new();
    for turn in 0..5 {
        let stream = site.upload();
        let line = format!("line {turn}");
        stream.line(&line).await;
        assert!(until(&mut reader, &line).await.is_some(), "{line}");
        before.push(stream);
    }
    let last = before.pop().unwrap();
    assert_eq!(site.streams().await, "1", "one device streams");
    for stream in before {
        assert_eq!(tokio::time::timeout(Duration::from_secs(5), stream.answer).await.unwrap().unwrap(), 201);
    }
    last.line("goes on").await;
    assert!(until(&mut reader, "goes on").await.is_some());
    assert_eq!(last.end().await, 201);
    assert_eq!(site.streams().await, "0");
}

/// What it has not read would be lost otherwise: the agent takes 201 for a confirmation of all that it has sent.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stops_confirms_no_stream() {
    let mut site = Site::open().await;
    let mut reader = site.follow(&site.admin).await;
    let stream = site.upload();
    stream.line("kept").await;
    assert!(until(&mut reader, "kept").await.is_some());
    drop(reader);
    tokio::task::block_in_place(|| site.server.stop());
    assert_eq!(tokio::time::timeout(Duration::from_secs(5), stream.answer).await.unwrap().unwrap(), 503);
}

/// Four streams one after the other have no more than one: 8 s of 500 lines at once, and then 500 a second.
#[tokio::test(flavor = "multi_thread")]
async fn all_streams_of_a_device_have_one_pace() {
    let site = Site::open().await;
    let _asked = site.follow(&site.admin).await;
    let begun = Instant::now();
    let line = "{\"message\":\"x\",\"timestamp\":1}\n".repeat(1000);
    let mut answers = Vec::new();
    for _ in 0..7 {
        let url = format!("{}/device/v2/{}/log-stream", site.server.url, uuid(1));
        let request =
            site.http.post(url).bearer_auth(key_of(1)).header("Content-Type", "application/x-ndjson");
        answers.push(request.body(line.clone()).send().await.unwrap().status().as_u16());
    }
    assert_eq!(answers, [201; 7]);
    // 7000 lines are 3000 more than the burst: 6 s, less what the last stream need not wait for.
    assert!(begun.elapsed() >= Duration::from_secs(4), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_of_a_device_are_read_by_those_of_the_fleet_in_which_it_sent_them() {
    let site = Site::open().await;
    let (anna, ben) = (site.token("anna", "lab").await, site.token("ben", "other").await);
    let mut of_anna = site.follow(&anna).await;
    assert_eq!(site.logs(&ben, "").await.status(), 403);
    let stream = site.upload();
    stream.line("password of lab").await;
    assert!(until(&mut of_anna, "password of lab").await.is_some());

    site.did(&format!("/devices/{}/move", uuid(1)), json!({ "fleet": "other" })).await;
    assert_eq!(site.logs(&anna, "").await.status(), 403);
    assert_eq!(site.logs(&ben, "").await.text().await.unwrap(), "", "it is another fleet's");
    let mut of_ben = site.follow(&ben).await;
    stream.line("news of other").await;
    let seen = until(&mut of_ben, "news of other").await.expect("the stream goes on");
    assert!(!seen.contains("password"), "{seen}");
    assert!(!site.logs(&site.admin, "").await.text().await.unwrap().contains("password"), "nor for an admin");
    let more = tokio::time::timeout(Duration::from_secs(1), until(&mut of_anna, "news")).await;
    assert!(more.is_err(), "who followed it in lab is sent nothing more: {more:?}");

    site.did(&format!("/devices/{}/move", uuid(1)), json!({ "fleet": "lab" })).await;
    let seen = site.logs(&anna, "").await.text().await.unwrap();
    assert!(seen.contains("password of lab") && !seen.contains("news of other"), "{seen}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_who_follows_with_many_requests_leaves_places_to_others() {
    let site = Site::open().await;
    let (anna, ben) = (site.token("anna", "lab").await, site.token("ben", "lab").await);
    let mut readers = Vec::new();
    // One token has too few places for all.
    for token in [site.another_token("anna", "lab").await, site.another_token("anna", "lab").await] {
        for _ in 0..8 {
            readers.push(site.follow(&token).await);
        }
    }
    let refused = site.logs(&anna, "?follow=true").await;
    assert_eq!((refused.status().as_u16(), refused.headers().contains_key("retry-after")), (503, true));
    let error = refused.json::<Value>().await.unwrap()["error"].clone();
    let message = error["message"].as_str().unwrap();
    assert!(error["code"] == "busy" && message.starts_with("16 requests follow logs already"), "{message}");
    assert!(error["remedy"].as_str().unwrap().starts_with("end one of yours"), "{error}");
    // Requests that end by themselves, and others: they get the oldest place of the user who has the most.
    assert_eq!(site.logs(&anna, "?lines=1").await.status(), 200);
    readers.push(site.follow(&ben).await);
    let oldest = readers.remove(0);
    let end = async { oldest.bytes().await.expect("it ends in order") };
    tokio::time::timeout(Duration::from_secs(20), end).await.expect("the oldest one ends");
    drop(readers.swap_remove(0));
    let begun = Instant::now();
    while site.logs(&anna, "?follow=true").await.status() != 200 {
        assert!(begun.elapsed() < Duration::from_secs(20), "its place is free again");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

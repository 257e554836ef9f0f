//! A fleet server with devices that poll and report as a test says, and users with tokens.

use std::collections::BTreeMap;

use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::driver::Browser;
use crate::support::FleetServer;

/// Commits of the releases, from the oldest to the newest.
pub(crate) const OLD: &str = "1a2b3c4d5e6f7081920a1b2c3d4e5f6071829304";
pub(crate) const GOOD: &str = "2b3c4d5e6f708192a0b1c2d3e4f5061728394a5b";
pub(crate) const NEW: &str = "3c4d5e6f708192a0b1c2d3e4f5061728394a5b6c";
pub(crate) const DRAFT: &str = "4d5e6f708192a0b1c2d3e4f5061728394a5b6c7d";
pub(crate) const FAILED: &str = "5e6f708192a0b1c2d3e4f5061728394a5b6c7d8e";
pub(crate) const INVALID: &str = "6f708192a0b1c2d3e4f5061728394a5b6c7d8e9f";

pub(crate) struct Scene {
    pub(crate) server: FleetServer,
    pub(crate) admin: String,
    http: reqwest::Client,
    keys: BTreeMap<String, String>,
    _dir: TempDir,
}

pub(crate) fn uuid(number: u32) -> String {
    format!("{number:04x}{:028x}", u64::from(number) * 0x9e37_79b9)
}

fn image(service: &str) -> String {
    format!("registry.example.com/greenhouse/{service}@sha256:{}", "a".repeat(64))
}

fn key_of(uuid: &str) -> String {
    format!("some-secret-{}-key", &uuid[..6])
}

impl Scene {
    pub(crate) async fn open() -> Self {
        let dir = tempfile::Builder::new().prefix("cotter-dash-").tempdir().unwrap();
        let mut server = FleetServer::start_in(dir.path(), Vec::new());
        // A device that has polled once stays online.
        server.poll_every("15min");
        server.stop();
        server.start_again();
        let admin = std::fs::read_to_string(server.token_file()).unwrap().trim().to_owned();
        drop(rustls::crypto::ring::default_provider().install_default());
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { server, admin, http, keys: BTreeMap::new(), _dir: dir }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.server.url)
    }

    pub(crate) async fn ask(&self, method: Method, path: &str, body: Value) -> (u16, Value) {
        let request = self.http.request(method, self.url(&format!("/api/v1{path}"))).bearer_auth(&self.admin);
        let request = if body.is_null() { request } else { request.json(&body) };
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.json().await.unwrap())
    }

    pub(crate) async fn did(&self, method: Method, path: &str, body: Value) -> Value {
        let (status, answer) = self.ask(method, path, body).await;
        assert!((200..300).contains(&status), "{path}: {status} {answer}");
        answer
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        self.did(Method::GET, path, Value::Null).await
    }

    /// Reads something with another token.
    pub(crate) async fn get_as(&self, token: &str, path: &str) -> Value {
        let request = self.http.get(self.url(&format!("/api/v1{path}"))).bearer_auth(token);
        request.send().await.unwrap().json().await.unwrap()
    }

    pub(crate) async fn fleet(&mut self, name: &str) -> u64 {
        let created = self.did(Method::POST, "/fleets", json!({ "name": name })).await;
        let number = created["fleet"]["number"].as_u64().unwrap();
        // The first key registers 60 devices a minute.
        let path = format!("/fleets/{number}/provisioning-keys");
        let key = self.did(Method::POST, &path, json!({ "name": "for the test", "per_minute": 6000 })).await;
        self.keys.insert(number.to_string(), key["provisioning_key"].as_str().unwrap().to_owned());
        number
    }

    /// Adds a release; `tweak` changes what is said of it.
    pub(crate) async fn release(&self, fleet: u64, commit: &str, tweak: Value) {
        let mut release = json!({
            "commit": commit,
            "composition": { "services": { "web": {}, "sensor": {}, "mqtt": {} } },
            "images": { "web": image("web"), "sensor": image("sensor"), "mqtt": image("mqtt") },
        });
        for (name, value) in tweak.as_object().into_iter().flatten() {
            release[name] = value.clone();
        }
        self.did(Method::POST, &format!("/fleets/{fleet}/releases"), release).await;
    }

    /// The releases that most tests need: three good ones, and one of each that cannot be chosen. The fleet tracks [`NEW`].
    pub(crate) async fn releases(&self, fleet: u64) {
        let at = |hours: i64| (jiff::Timestamp::now() - jiff::SignedDuration::from_hours(hours)).to_string();
        self.release(fleet, OLD, json!({ "start_timestamp": at(700) })).await;
        self.release(fleet, GOOD, json!({ "start_timestamp": at(170) })).await;
        self.release(fleet, INVALID, json!({ "start_timestamp": at(50), "is_final": false })).await;
        let invalid = json!({ "is_invalidated": true });
        self.did(Method::PATCH, &format!("/releases/{INVALID}?fleet={fleet}"), invalid).await;
        self.release(fleet, FAILED, json!({ "start_timestamp": at(30), "status": "failed", "images": {} }))
            .await;
        self.release(fleet, NEW, json!({ "start_timestamp": at(26) })).await;
        self.release(fleet, DRAFT, json!({ "start_timestamp": at(2), "is_final": false })).await;
    }

    /// Lets a device join.
    pub(crate) async fn device(&self, fleet: u64, number: u32, name: &str, tags: Value) -> String {
        let uuid = uuid(number);
        let body = json!({
            "application": fleet, "uuid": uuid, "device_type": "raspberrypi4-64", "api_key": key_of(&uuid),
        });
        let register =
            self.http.post(self.url("/device/register")).bearer_auth(&self.keys[&fleet.to_string()]);
        let answer = register.json(&body).send().await.unwrap();
        assert_eq!(answer.status(), 201, "{}", answer.text().await.unwrap());
        self.did(Method::POST, &format!("/devices/{uuid}/rename"), json!({ "name": name })).await;
        if tags.as_object().is_some_and(|tags| !tags.is_empty()) {
            self.did(Method::POST, &format!("/devices/{uuid}/tags"), json!({ "set": tags })).await;
        }
        uuid
    }

    /// Announces so many devices of a fleet at once, the first 100 as canaries. They have not registered.
    pub(crate) async fn import(&self, fleet: &str, devices: u32) {
        let mut lines = format!("{}\n", json!({ "cotter_export": 1 }));
        for number in 1..=devices {
            let ring = if number <= 100 { "canary" } else { "stable" };
            let device = json!({
                "kind": "device", "uuid": uuid(number), "name": format!("board-{number:05}"),
                "device_type": "raspberrypi4-64", "fleet": fleet, "tags": { "ring": ring },
            });
            lines.push_str(&format!("{device}\n"));
        }
        let request = self.http.post(self.url("/api/v1/import")).bearer_auth(&self.admin);
        let answer = request.header("content-type", "application/jsonl").body(lines).send().await.unwrap();
        assert!(answer.status().is_success(), "{}", answer.text().await.unwrap());
    }

    /// Lets a device ask for its target. Returns the commit, and the id of the app.
    pub(crate) async fn poll(&self, uuid: &str) -> (String, String) {
        let poll = self.http.get(self.url(&format!("/device/v3/{uuid}/state"))).bearer_auth(key_of(uuid));
        let target: Value = poll.send().await.unwrap().json().await.unwrap();
        let (app, target) = target[uuid]["apps"].as_object().unwrap().iter().next().unwrap();
        let commit = target["releases"].as_object().and_then(|releases| releases.keys().next().cloned());
        (commit.unwrap_or_default(), app.clone())
    }

    /// Lets a device report that it runs a release, and what it waits for.
    pub(crate) async fn report(&self, uuid: &str, running: &str, waiting: Value, more: Value) {
        let (target, app) = self.poll(uuid).await;
        let service =
            |name: &str| json!({ "status": "Running", "image": image(name), "download_progress": null });
        let services = json!({ "web": service("web"), "sensor": service("sensor"), "mqtt": service("mqtt") });
        let mut report = json!({
            "apps": { &app: { "release_uuid": running, "releases": { running: { "services": services } } } },
            "cotter": { "agent": "0.2.0", "target": target, "waiting": waiting },
            "os_version": "Debian GNU/Linux 12", "ip_address": "192.0.2.17 2001:db8::17", "cpu_temp": 47,
            "memory_usage": 412, "memory_total": 3792, "storage_usage": 2100, "storage_total": 14900,
        });
        for (name, value) in more.as_object().into_iter().flatten() {
            match name.as_str() {
                "evidence" => report["cotter"]["evidence"] = value.clone(),
                _ => report[name] = value.clone(),
            }
        }
        let answer = self.http.patch(self.url("/device/v3/state")).bearer_auth(key_of(uuid));
        let answer = answer.json(&json!({ uuid: report })).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{}", answer.text().await.unwrap());
    }

    /// Lets a device run what it should.
    pub(crate) async fn obey(&self, uuid: &str) {
        let (target, _) = self.poll(uuid).await;
        self.report(uuid, &target, json!([]), json!({})).await;
    }

    /// Lets a device send lines of its log, as milliseconds since `from`, service and text. A service `""` is the agent. Waits until
    /// the server asks the device for them.
    pub(crate) async fn say(&self, uuid: &str, from: jiff::Timestamp, lines: &[(i64, &str, &str)]) {
        let poll = self.http.get(self.url(&format!("/device/v3/{uuid}/state"))).bearer_auth(key_of(uuid));
        let target: Value = poll.send().await.unwrap().json().await.unwrap();
        let app = target[uuid]["apps"].as_object().unwrap().values().next().unwrap();
        let release = app["releases"].as_object().unwrap().values().next().unwrap();
        let number = |service: &str| release["services"][service]["id"].as_u64();
        let mut body = String::new();
        for (at, service, text) in lines {
            let at = from.as_millisecond() + at;
            let mut line = json!({ "message": text, "timestamp": at, "isStdErr": text.contains("error") });
            match *service {
                "" => line["isSystem"] = true.into(),
                service => line["serviceId"] = number(service).expect("a service of its target").into(),
            }
            body.push_str(&format!("{line}\n"));
        }
        let begun = std::time::Instant::now();
        loop {
            let post = self.http.post(self.url(&format!("/device/v2/{uuid}/log-stream")));
            let post = post.bearer_auth(key_of(uuid)).header("content-type", "application/x-ndjson");
            let answer = post.body(body.clone()).send().await.unwrap();
            if answer.status() == 201 {
                return;
            }
            assert!(answer.status() == 503 && begun.elapsed().as_secs() < 30, "{}", answer.status());
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    }

    /// Makes a user with a token.
    pub(crate) async fn user(&self, name: &str, role: &str) -> String {
        self.did(Method::POST, "/users", json!({ "name": name })).await;
        let created = self.did(Method::POST, "/tokens", json!({ "user": name, "role": role })).await;
        created["token"].as_str().unwrap().to_owned()
    }

    /// Creates a webhook that nothing listens at.
    pub(crate) async fn webhook(&self) {
        let url = format!("https://127.0.0.1:1/{}?token=x&y=%3Cscript%3E", "long".repeat(40));
        let webhook = json!({ "name": "ci", "url": url, "events": ["halt", "complete"] });
        self.did(Method::POST, "/webhooks", webhook).await;
    }

    /// Takes another provisioning key for the devices of a fleet.
    pub(crate) fn provision_with(&mut self, fleet: u64, key: &str) {
        self.keys.insert(fleet.to_string(), key.to_owned());
    }

    /// A browser with a user signed in; `None` where there is none.
    pub(crate) async fn browser(&self, token: &str) -> Option<Browser> {
        let browser = Browser::start().await?;
        self.sign_in(&browser, token).await;
        browser.until_text("Fleets").await;
        Some(browser)
    }

    pub(crate) async fn sign_in(&self, browser: &Browser, token: &str) {
        browser.open(&self.url("/sign-in")).await;
        browser.type_into("#token", token).await;
        browser.click("button[type=submit]").await;
        browser.until("location.pathname !== '/sign-in' || !!document.querySelector('[role=alert]')").await;
    }
}

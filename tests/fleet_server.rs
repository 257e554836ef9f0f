//! The fleet server over real HTTP on loopback: what devices and operators are answered.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

#[path = "support/desk.rs"]
mod desk;

use std::path::Path;

use cotter::fleet::{RawConfig, Server};
use desk::Desk;
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;

const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const B: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

impl Desk {
    /// A fleet with a provisioning key.
    async fn fleet(&self, name: &str) -> String {
        let created = self.did(Method::POST, "/fleets", json!({ "name": name })).await;
        created["provisioning_key"].as_str().unwrap().to_owned()
    }

    async fn release(&self, fleet: &str, commit: &str) -> Value {
        self.did(Method::POST, &format!("/fleets/{fleet}/releases"), release(commit)).await
    }

    async fn register(&self, key: &str, body: Value) -> (u16, String) {
        let request = self.request(Method::POST, "/device/register").bearer_auth(key);
        let response = request.json(&body).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    async fn state(&self, uuid: &str, key: &str, etag: Option<&str>) -> Response {
        let request = self.request(Method::GET, &format!("/device/v3/{uuid}/state"));
        let request = if key.is_empty() { request } else { request.bearer_auth(padded(key)) };
        let request = match etag {
            Some(etag) => request.header("If-None-Match", etag),
            None => request,
        };
        request.send().await.unwrap()
    }

    /// The commit that the device should run.
    async fn commit_for(&self, uuid: &str, key: &str) -> Option<String> {
        let state: Value = self.state(uuid, key, None).await.json().await.unwrap();
        let apps = state[uuid]["apps"].as_object().unwrap();
        assert_eq!(apps.len(), 1);
        let releases = apps.values().next().unwrap().get("releases")?.as_object().unwrap();
        assert_eq!(releases.len(), 1);
        releases.keys().next().cloned()
    }

    async fn report(&self, key: &str, body: &Value) -> (u16, String) {
        let request = self.request(Method::PATCH, "/device/v3/state").bearer_auth(padded(key));
        let response = request.json(body).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }
}

fn device(uuid: &str, key: &str) -> Value {
    json!({ "application": 1, "device_type": "generic-amd64", "uuid": uuid, "api_key": padded(key) })
}

/// A device's key as long as the server wants one; tests write short ones.
fn padded(key: &str) -> String {
    format!("{key:.<20}")
}

fn image(commit: &str) -> String {
    format!("127.0.0.1:5000/lab/{commit}@sha256:{}", "a".repeat(64))
}

fn release(commit: &str) -> Value {
    json!({
        "commit": commit,
        "composition": {
            "services": { "web": { "image": format!("127.0.0.1:5000/lab/{commit}"), "restart": "always",
                "build": "./web", "ports": ["8080:80"], "volumes": ["data:/data"] } },
            "networks": { "back": null },
            "volumes": { "data": {} },
        },
        "images": { "web": image(commit) },
    })
}

/// A report in which `commit` runs.
fn running(uuid: &str, fleet: &str, commit: &str) -> Value {
    let service = json!({ "image": image(commit), "status": "Running", "download_progress": null });
    json!({ uuid: { "status": "Idle", "os_version": "Debian 12", "apps": { fleet: {
        "release_uuid": commit,
        "releases": { commit: { "update_status": "done", "services": { "web": service } } },
    } } } })
}

#[tokio::test]
async fn a_device_registers_and_gets_its_target() {
    let dir = TempDir::new().unwrap();
    let desk = Desk::open(dir.path()).await;
    let key = desk.fleet("lab").await;
    let (status, body) = desk.register(&key, device(A, "key-a")).await;
    assert_eq!(status, 201);
    assert_eq!(
        serde_json::from_str::<Value>(&body).unwrap(),
        json!({ "id": 1, "uuid": A, "api_key": padded("key-a") })
    );

    let first = desk.state(A, "key-a", None).await;
    let etag = first.headers()["etag"].to_str().unwrap().to_owned();
    let state: Value = first.json().await.unwrap();
    let fleet = desk.did(Method::GET, "/fleets/lab", Value::Null).await["uuid"].as_str().unwrap().to_owned();
    let name = state[A]["name"].as_str().unwrap();
    assert!(name.split_once('-').is_some_and(|(a, b)| !a.is_empty() && !b.is_empty()), "{name}");
    let empty = json!({ A: {
        "name": name,
        "apps": { &fleet: { "id": 1, "name": "lab", "is_host": false, "class": "fleet" } },
        "config": { "RESIN_SUPERVISOR_POLL_INTERVAL": "5000" },
    } });
    assert_eq!(state, empty, "as in 01-no-release");

    desk.release("lab", "r1").await;
    let second = desk.state(A, "key-a", Some(&etag)).await;
    assert_eq!(second.status(), StatusCode::OK, "the old etag is old");
    assert_eq!(second.headers()["content-type"], "application/json; charset=utf-8");
    let state: Value = second.json().await.unwrap();
    let mut full = empty;
    full[A]["apps"][&fleet]["releases"] = json!({ "r1": {
        "id": 1,
        "services": { "web": {
            "id": 1, "image_id": 1, "image": image("r1"), "environment": {}, "labels": {},
            "composition": { "image": "127.0.0.1:5000/lab/r1", "restart": "always", "ports": ["8080:80"],
                "volumes": ["data:/data"] },
        } },
        "networks": { "back": {} }, "volumes": { "data": {} },
    } });
    assert_eq!(state, full);
    desk.close().await;
}

/// The fields of a target are those of the recording: no more, no fewer.
#[tokio::test]
async fn a_target_has_the_shape_of_the_recorded_ones() {
    let dir = TempDir::new().unwrap();
    let desk = Desk::open(dir.path()).await;
    let key = desk.fleet("lab").await;
    desk.register(&key, device(A, "key-a")).await;
    let text =
        std::fs::read_to_string("tests/fixtures/openbalena/13-pin-by-tag-canary-r2.device-A.json").unwrap();
    let recorded: Value = serde_json::from_str(&text).unwrap();
    let app = recorded.as_object().unwrap().values().next().unwrap()["apps"].as_object().unwrap();
    let (commit, release) =
        app.values().next().unwrap()["releases"].as_object().unwrap().iter().next().unwrap();
    let services = release["services"].as_object().unwrap();
    let part = |part: &str| {
        let parts = services.iter().map(|(name, service)| (name.clone(), service[part].clone()));
        Value::Object(parts.collect())
    };
    let body = json!({ "commit": commit, "images": part("image"), "composition": {
        "services": part("composition"), "networks": release["networks"], "volumes": release["volumes"],
    } });
    desk.did(Method::POST, "/fleets/lab/releases", body).await;
    let ours: Value = desk.state(A, "key-a", None).await.json().await.unwrap();
    let ours = ours[A]["apps"].as_object().unwrap().values().next().unwrap()["releases"][commit].clone();
    let mut expected = release.clone();
    expected["id"] = json!(1);
    for (n, (name, _)) in services.iter().collect::<std::collections::BTreeMap<_, _>>().iter().enumerate() {
        expected["services"][name.as_str()]["id"] = json!(n + 1);
        expected["services"][name.as_str()]["image_id"] = json!(n + 1);
    }
    assert_eq!(ours, expected);
    desk.close().await;
}

#[tokio::test]
async fn no_news_is_304_and_strangers_get_what_was_measured() {
    let dir = TempDir::new().unwrap();
    let desk = Desk::open(dir.path()).await;
    let key = desk.fleet("lab").await;
    desk.register(&key, device(A, "key-a")).await;
    desk.register(&key, device(B, "key-b")).await;
    desk.release("lab", "r1").await;
    let first = desk.state(A, "key-a", None).await;
    let etag = first.headers()["etag"].to_str().unwrap().to_owned();
    let length = first.bytes().await.unwrap().len();
    assert!(etag.starts_with(&format!("W/\"{length:x}-")), "{etag}");
    let strong = etag.trim_start_matches("W/").to_owned();
    for tags in [etag.clone(), strong.clone(), format!("\"x\", {etag}")] {
        let response = desk.state(A, "key-a", Some(&tags)).await;
        assert_eq!(response.status(), StatusCode::NOT_MODIFIED, "{tags}");
        assert_eq!(response.headers()["etag"].to_str().unwrap(), etag);
        assert_eq!(response.bytes().await.unwrap().len(), 0);
    }
    assert_eq!(desk.state(A, "key-a", Some("W/\"x\"")).await.status(), StatusCode::OK);

    for (uuid, given, status) in [
        (A, "key-b", 401),
        (A, "", 401),
        (A, key.as_str(), 401),
        (A, "unknown-key", 401),
        ("cccccccccccccccccccccccccccccccc", "key-a", 304),
        ("cccccccccccccccccccccccccccccccc", "", 304),
        ("not-a-uuid", "", 304),
    ] {
        let response = desk.state(uuid, given, None).await;
        assert_eq!(response.status().as_u16(), status, "{uuid} {given}");
        assert!(response.headers().get("etag").is_none());
        assert_eq!(response.bytes().await.unwrap().len(), 0);
    }
    let query = format!("/device/v3/{A}/state?apikey={}", padded("key-a"));
    let by_query = desk.request(Method::GET, &query).send().await.unwrap();
    assert_eq!(by_query.status(), StatusCode::OK);

    // A report changes no etag; a deleted device hears "no change".
    let fleet = desk.did(Method::GET, "/fleets/lab", Value::Null).await["uuid"].as_str().unwrap().to_owned();
    assert_eq!(desk.report("key-a", &running(A, &fleet, "r1")).await.0, 200);
    assert_eq!(desk.state(A, "key-a", Some(&etag)).await.status(), StatusCode::NOT_MODIFIED);
    desk.did(Method::DELETE, &format!("/devices/{A}"), Value::Null).await;
    let gone = desk.state(A, "key-a", None).await;
    assert_eq!((gone.status().as_u16(), gone.headers().get("etag")), (304, None));
    assert_eq!(desk.report("key-a", &json!({ A: {} })).await.0, 401);
    desk.close().await;
}

#[tokio::test]
async fn registrations_that_are_refused() {
    let dir = TempDir::new().unwrap();
    let desk = Desk::open(dir.path()).await;
    let key = desk.fleet("lab").await;
    let other = desk.fleet("site").await;
    assert_eq!(desk.register(&key, device(A, "key-a")).await.0, 201);
    let with = |name: &str, value: Value| {
        let mut body = device(B, "key-b");
        body[name] = value;
        body
    };
    let without = |name: &str| {
        let mut body = device(B, "key-b");
        body.as_object_mut().unwrap().remove(name);
        body
    };
    let required = (401, r#"{"error":"API key required"}"#);
    for (why, key, body, expected) in [
        ("uuid taken", &key, device(A, "key-b"), (409, "\"uuid\" must be unique.")),
        ("key taken", &key, device(B, "key-a"), (409, "\"key\" must be unique.")),
        ("no such key", &"unknown-key".to_owned(), device(B, "key-b"), required),
        ("another fleet's key", &other, device(B, "key-b"), (401, "")),
        ("a device's key", &padded("key-a"), device(B, "key-b"), (401, "")),
        ("short uuid", &key, with("uuid", json!("abc")), (400, "")),
        ("capital uuid", &key, with("uuid", json!("A".repeat(32))), (400, "")),
        ("uuid of a wrong type", &key, with("uuid", json!(5)), (400, "")),
        ("no application", &key, without("application"), (400, "")),
        ("fraction", &key, with("application", json!(1.5)), (400, "")),
        ("no device type", &key, without("device_type"), (400, "")),
        ("key of a wrong type", &key, with("api_key", json!(["k"])), (400, "")),
        ("not an object", &key, json!([1]), (400, "")),
    ] {
        let (status, text) = desk.register(key, body).await;
        assert_eq!((status, text.as_str()), expected, "{why}");
    }
    let no_key =
        desk.request(Method::POST, "/device/register").json(&device(B, "key-b")).send().await.unwrap();
    assert_eq!((no_key.status().as_u16(), no_key.text().await.unwrap().as_str()), required);
    let name = desk.register(&key, with("device_name", json!("porch\nlight"))).await;
    assert_eq!(name.0, 400);
    let devices = desk.did(Method::GET, "/devices", Value::Null).await;
    assert_eq!(devices.as_array().unwrap().len(), 1, "nothing of it was stored");

    // Accepted: unknown fields, the fleet as text, a name, no key of its own; 62 digits.
    let mut body = with("application", json!("1"));
    body["device_name"] = json!("porch");
    body["supervisor_version"] = json!("1.2.3");
    body["nonsense"] = json!({});
    body.as_object_mut().unwrap().remove("api_key");
    let (status, text) = desk.register(&key, body).await;
    assert_eq!(status, 201, "{text}");
    let given: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(given["api_key"].as_str().unwrap().len(), 32);
    assert_eq!(desk.did(Method::GET, "/devices/porch", Value::Null).await["uuid"], B);
    assert_eq!(desk.register(&key, device(&"c".repeat(62), "key-c")).await.0, 201);

    desk.close().await;
}

#[tokio::test]
async fn a_device_may_ask_whether_it_is_known() {
    let dir = TempDir::new().unwrap();
    let desk = Desk::open(dir.path()).await;
    let key = desk.fleet("lab").await;
    desk.register(&key, device(A, "key-a")).await;
    desk.register(&key, device(B, "key-b")).await;
    let query = format!("/v7/device?$select=id&$filter=uuid%20eq%20'{A}'");
    for (key, status, expected) in [
        ("key-a", 200, r#"{"d":[{"id":1}]}"#),
        ("key-b", 200, r#"{"d":[]}"#),
        (&key, 200, r#"{"d":[]}"#),
        ("unknown-key", 200, r#"{"d":[]}"#),
    ] {
        let response = desk.request(Method::GET, &query).bearer_auth(padded(key)).send().await.unwrap();
        assert_eq!(response.status().as_u16(), status);
        assert_eq!(response.text().await.unwrap(), expected, "{key}");
    }
    for other in ["/v7/device", "/v7/device?$select=id", "/v7/device?$select=id&$filter=id%20eq%201"] {
        let response = desk.request(Method::GET, other).bearer_auth(padded("key-a")).send().await.unwrap();
        assert_eq!(response.status().as_u16(), 400, "{other}");
    }
    assert_eq!(desk.request(Method::GET, "/ping").send().await.unwrap().text().await.unwrap(), "OK");
    desk.close().await;
}

/// Every row of the table in docs/dev/protocol.md, "Reports: answers" that our server can meet.
#[tokio::test]
async fn reports_are_answered_as_measured() {
    let dir = TempDir::new().unwrap();
    let desk = Desk::open(dir.path()).await;
    let key = desk.fleet("lab").await;
    desk.fleet("site").await;
    desk.register(&key, device(A, "key-a")).await;
    desk.register(&key, device(B, "key-b")).await;
    desk.release("lab", "r1").await;
    desk.release("site", "away").await;
    let mut failed = release("broken");
    failed["status"] = json!("failed");
    desk.did(Method::POST, "/fleets/lab/releases", failed).await;
    let uuid = async |name: &str| {
        let fleet = desk.did(Method::GET, &format!("/fleets/{name}"), Value::Null).await;
        fleet["uuid"].as_str().unwrap().to_owned()
    };
    let (lab, site) = (uuid("lab").await, uuid("site").await);
    let service = |path: &str, value: Value| {
        let mut body = running(A, &lab, "r1");
        body[A]["apps"][&lab]["releases"]["r1"]["services"]["web"][path] = value;
        body
    };
    let app = |app: &str, report: Value| json!({ A: { "apps": { app: report } } });
    let device = |field: &str, value: Value| json!({ A: { field: value } });
    let long = "x".repeat(60);
    for (why, body, expected) in [
        ("all well", running(A, &lab, "r1"), 200),
        ("nothing", json!({ A: {} }), 200),
        ("unknown field", device("colour", json!(1)), 200),
        ("long status", device("status", json!(long)), 200),
        ("other os variant", device("os_variant", json!("weird")), 200),
        ("more than all of the CPU", device("cpu_usage", json!(150)), 200),
        ("less than none of it", device("cpu_usage", json!(-1)), 200),
        ("a huge number", device("memory_usage", json!(1_000_000_000_000_i64)), 200),
        ("metric gone", device("cpu_temp", Value::Null), 200),
        ("whole though written as a fraction", device("cpu_temp", json!(40.0)), 200),
        ("image without its digest", service("image", json!("127.0.0.1:5000/lab/r1")), 200),
        ("unknown word for a service", service("status", json!("Dancing")), 200),
        ("unknown app without releases", app("0".repeat(32).as_str(), json!({})), 200),
        ("old fleet's app, empty", app(&site, json!({})), 200),
        ("no device", json!({}), 401),
        ("a list", json!([]), 401),
        ("device is null", json!({ A: null }), 401),
        ("device is a text", json!({ A: "x" }), 401),
        ("another device", json!({ B: {} }), 401),
        ("two devices", json!({ A: {}, B: {} }), 401),
        ("status is a number", device("status", json!(5)), 400),
        ("status is null", device("status", Value::Null), 400),
        ("address is null", device("ip_address", Value::Null), 400),
        ("metric is a text", device("cpu_temp", json!("45")), 400),
        ("fraction", device("memory_usage", json!(512.7)), 400),
        ("fraction of progress", service("download_progress", json!(40.5)), 400),
        (
            "service without image",
            app(&lab, json!({ "releases": { "r1": { "services": { "web": {} } } } })),
            400,
        ),
        ("bad update status", app(&lab, json!({ "releases": { "r1": { "update_status": "fine" } } })), 400),
        ("apps is a list", device("apps", json!([])), 400),
        ("unknown release", app(&lab, json!({ "releases": { "nope": {} } })), 401),
        ("failed release", app(&lab, json!({ "releases": { "broken": {} } })), 401),
        ("runs an unknown release", app(&lab, json!({ "release_uuid": "nope" })), 401),
        ("unknown image", service("image", json!("127.0.0.1:5000/lab/r2")), 401),
        (
            "wrong digest",
            service("image", json!(format!("127.0.0.1:5000/lab/r1@sha256:{}", "b".repeat(64)))),
            401,
        ),
        ("image with capitals", service("image", json!("127.0.0.1:5000/LAB/r1")), 401),
        ("app of another fleet", app(&site, json!({ "releases": { "away": {} } })), 401),
    ] {
        let answer = desk.report("key-a", &body).await;
        assert_eq!(answer, (expected, String::new()), "{why}");
    }
    let required = (401, r#"{"error":"API key required"}"#.to_owned());
    assert_eq!(desk.report("unknown-key", &json!({ A: {} })).await, required);
    assert_eq!(desk.report(&key, &json!({ A: {} })).await, (401, String::new()), "a provisioning key");
    let raw = |body: String, kind: &'static str| {
        let request = desk.request(Method::PATCH, "/device/v3/state").bearer_auth(padded("key-a"));
        request.header("Content-Type", kind).body(body).send()
    };
    assert_eq!(raw("{".into(), "application/json").await.unwrap().status().as_u16(), 400);
    assert_eq!(raw(json!({ A: {} }).to_string(), "text/plain").await.unwrap().status().as_u16(), 401);
    let huge = json!({ A: { "status": "x".repeat(512 * 1024) } }).to_string();
    assert_eq!(raw(huge, "application/json").await.unwrap().status().as_u16(), 413);
    desk.close().await;
}

/// Through a download, to running, over a move and the deletion of the release (31-33, 60, 61).
#[tokio::test]
async fn what_a_device_reports_is_shown() {
    let dir = TempDir::new().unwrap();
    let desk = Desk::open(dir.path()).await;
    let key = desk.fleet("lab").await;
    desk.fleet("site").await;
    desk.register(&key, device(A, "key-a")).await;
    desk.release("lab", "r1").await;
    desk.release("lab", "r2").await;
    let lab = desk.did(Method::GET, "/fleets/lab", Value::Null).await["uuid"].as_str().unwrap().to_owned();
    let shown = async || desk.did(Method::GET, &format!("/devices/{A}"), Value::Null).await;
    let services = |device: &Value| device["services"].clone();
    let row = |release: &str, status: &str, progress: Value| json!([{ "service": "web", "release": release, "status": status, "download_progress": progress }]);

    let before = shown().await;
    assert_eq!((&before["reported_at"], &before["is_online"]), (&Value::Null, &json!(false)));
    let mut downloading = running(A, &lab, "r1");
    downloading[A]["apps"][&lab].as_object_mut().unwrap().remove("release_uuid");
    let web = |body: &mut Value, status: &str, progress: Option<i64>| {
        let web = &mut body[A]["apps"][&lab]["releases"]["r1"]["services"]["web"];
        web["status"] = json!(status);
        web.as_object_mut().unwrap().remove("download_progress");
        if let Some(progress) = progress {
            web["download_progress"] = json!(progress);
        }
    };
    web(&mut downloading, "Downloading", Some(40));
    downloading[A]["apps"][&lab]["releases"]["r1"]["update_status"] = json!("downloading");
    assert_eq!(desk.report("key-a", &downloading).await.0, 200);
    let device = shown().await;
    assert_eq!(services(&device), row("r1", "Downloading", json!(40)));
    assert_eq!((&device["update_status"], &device["running"]), (&json!("downloading"), &Value::Null));
    assert_eq!(device["reported"], json!({ "status": "Idle", "os_version": "Debian 12" }));

    web(&mut downloading, "Downloaded", None);
    desk.report("key-a", &downloading).await;
    assert_eq!(services(&shown().await), row("r1", "Downloaded", json!(40)), "an omitted progress stays");
    web(&mut downloading, "Dancing", None);
    desk.report("key-a", &downloading).await;
    assert_eq!(services(&shown().await), row("r1", "Downloaded", json!(40)), "an unknown word is ignored");

    desk.report("key-a", &running(A, &lab, "r1")).await;
    let device = shown().await;
    assert_eq!(services(&device), row("r1", "Running", Value::Null));
    assert_eq!((&device["running"], &device["target"]), (&json!("r1"), &json!("r2")));
    let at = device["reported_at"].clone();
    desk.report("key-a", &running(A, &lab, "r1")).await;
    assert_eq!(shown().await["reported_at"], at, "the same again is no news");
    desk.report("key-a", &json!({ A: { "status": "Busy" } })).await;
    assert_eq!(services(&shown().await), row("r1", "Running", Value::Null), "no apps: the rows stay");
    desk.report("key-a", &json!({ A: { "apps": {} } })).await;
    let device = shown().await;
    assert_eq!((services(&device), &device["running"]), (json!([]), &json!("r1")), "empty apps: the rows go");

    desk.state(A, "key-a", None).await;
    assert_eq!(shown().await["is_online"], true, "a poll is a heartbeat");
    desk.did(Method::POST, &format!("/devices/{A}/move"), json!({ "fleet": "site" })).await;
    assert_eq!(shown().await["running"], "r1", "a move keeps the running release");
    assert_eq!(desk.report("key-a", &running(A, &lab, "r1")).await.0, 401, "the old fleet's app");
    desk.did(Method::DELETE, "/releases/r1", Value::Null).await;
    assert_eq!(shown().await["running"], Value::Null, "a deleted release runs nowhere");
    desk.close().await;
}

/// A report may name a service by many names that mean the same image; the record of a device does not grow by it.
#[tokio::test]
async fn a_report_does_not_grow_a_record_without_bound() {
    let dir = TempDir::new().unwrap();
    let desk = Desk::open(dir.path()).await;
    let key = desk.fleet("lab").await;
    desk.register(&key, device(A, "key-a")).await;
    desk.release("lab", "r1").await;
    let fleet = desk.did(Method::GET, "/fleets/lab", Value::Null).await["uuid"].as_str().unwrap().to_owned();
    let mut report = running(A, &fleet, "r1");
    let services = report[A]["apps"][&fleet]["releases"]["r1"]["services"].as_object_mut().unwrap();
    let service = services["web"].clone();
    services.extend((0..3000).map(|n| (format!("w{n}"), service.clone())));
    assert_eq!(desk.report("key-a", &report).await.0, 200);
    let shown = desk.did(Method::GET, &format!("/devices/{A}"), Value::Null).await;
    let rows = json!([{ "service": "web", "release": "r1", "status": "Running", "download_progress": null }]);
    assert_eq!(shown["services"], rows);
    desk.close().await;
}

/// A builder whose clock is a year ahead once blocked all later releases for a year.
#[tokio::test]
async fn a_release_from_the_future_is_the_latest_until_the_next_one() {
    let dir = TempDir::new().unwrap();
    let desk = Desk::open(dir.path()).await;
    let key = desk.fleet("lab").await;
    desk.register(&key, device(A, "key-a")).await;
    let mut ahead = release("rel-1");
    ahead["start_timestamp"] = json!("2999-01-01T00:00:00Z");
    assert_eq!(desk.operate(Method::POST, "/fleets/lab/releases", ahead).await.0, 201);
    assert_eq!(desk.commit_for(A, "key-a").await.as_deref(), Some("rel-1"));
    desk.release("lab", "rel-2").await;
    assert_eq!(desk.commit_for(A, "key-a").await.as_deref(), Some("rel-2"));
    let (_, shown) = desk.operate(Method::GET, "/fleets/lab/releases/rel-1", json!(null)).await;
    assert!(!shown.to_string().contains("2999"), "{shown}");
}

#[tokio::test]
async fn a_failed_build_is_kept_with_its_log_and_gets_to_no_device() {
    let dir = TempDir::new().unwrap();
    let desk = Desk::open(dir.path()).await;
    let key = desk.fleet("lab").await;
    desk.register(&key, device(A, "key-a")).await;
    desk.release("lab", "good").await;
    let failed = |status: &str, log: &str| json!({ "commit": "bad-1", "status": status, "composition": { "services": {} }, "images": {}, "build_log": log });
    let releases = "/fleets/lab/releases";
    assert_eq!(desk.operate(Method::POST, releases, failed("success", "x")).await.0, 422);
    assert_eq!(desk.operate(Method::POST, releases, failed("failed", &"x".repeat(16_385))).await.0, 400);
    assert_eq!(desk.operate(Method::POST, releases, failed("failed", "COPY: no such file")).await.0, 201);
    let (_, shown) = desk.operate(Method::GET, "/releases/bad-1", json!(null)).await;
    assert_eq!((&shown["build_log"], &shown["status"]), (&json!("COPY: no such file"), &json!("failed")));
    assert_eq!(desk.commit_for(A, "key-a").await.as_deref(), Some("good"));
    for patch in [json!({ "status": "success" }), json!({ "status": "running" })] {
        let (status, said) = desk.operate(Method::PATCH, "/releases/bad-1", patch).await;
        assert_eq!((status, &said["error"]["code"]), (409, &json!("refused")));
    }
    assert_eq!(desk.operate(Method::POST, "/fleets/lab/pin", json!({ "release": "bad-1" })).await.0, 409);
    // It survives a restart, and gives way to the release that is built next.
    desk.close().await;
    let desk = Desk::open(dir.path()).await;
    let (_, shown) = desk.operate(Method::GET, "/releases/bad-1", json!(null)).await;
    assert_eq!(shown["build_log"], "COPY: no such file");
    desk.release("lab", "bad-1").await;
    let (_, shown) = desk.operate(Method::GET, "/releases/bad-1", json!(null)).await;
    assert_eq!((&shown["build_log"], &shown["status"]), (&json!(null), &json!("success")));
    assert_eq!(desk.commit_for(A, "key-a").await.as_deref(), Some("bad-1"));
}

#[tokio::test]
async fn the_registry_of_a_fleet_survives_a_restart() {
    let dir = TempDir::new().unwrap();
    let desk = Desk::open(dir.path()).await;
    desk.fleet("lab").await;
    let set = json!({ "registry": "r.example/lab" });
    assert_eq!(desk.operate(Method::PATCH, "/fleets/lab", set).await.0, 200);
    for bad in ["lab", "https://r.example", "r.example/", "R/é"] {
        assert_eq!(
            desk.operate(Method::PATCH, "/fleets/lab", json!({ "registry": bad })).await.0,
            400,
            "{bad}"
        );
    }
    desk.close().await;
    let desk = Desk::open(dir.path()).await;
    let (_, fleet) = desk.operate(Method::PATCH, "/fleets/lab", json!({})).await;
    assert_eq!(fleet["registry"], "r.example/lab");
    let (_, fleet) = desk.operate(Method::PATCH, "/fleets/lab", json!({ "registry": "" })).await;
    assert_eq!(fleet["registry"], json!(null));
}

#[tokio::test]
async fn operators_pin_and_unpin_and_devices_hear_it() {
    let dir = TempDir::new().unwrap();
    let desk = Desk::open(dir.path()).await;
    let key = desk.fleet("lab").await;
    desk.register(&key, device(A, "key-a")).await;
    desk.register(&key, device(B, "key-b")).await;
    for commit in ["rel-1", "rel-2", "rel-3"] {
        desk.release("lab", commit).await;
    }
    let both = async || {
        let output = (desk.commit_for(A, "key-a").await.unwrap(), desk.commit_for(B, "key-b").await.unwrap());
        format!("{} {}", output.0, output.1)
    };
    assert_eq!(both().await, "rel-3 rel-3");
    for (path, body, expected) in [
        (format!("/devices/{A}/pin"), json!({ "release": "rel-1" }), "rel-1 rel-3"),
        ("/fleets/lab/pin".into(), json!({ "release": "rel-2" }), "rel-1 rel-2"),
        (format!("/devices/{A}/track-fleet"), json!({}), "rel-2 rel-2"),
        ("/fleets/lab/track-latest".into(), json!({}), "rel-3 rel-3"),
        (format!("/devices/{B}/tags"), json!({ "set": { "ring": "canary" } }), "rel-3 rel-3"),
        (
            "/devices/pin".into(),
            json!({ "filter": "ring=canary", "release": "rel-1", "dry_run": true }),
            "rel-3 rel-3",
        ),
        ("/devices/pin".into(), json!({ "filter": "ring=canary", "release": "rel-1" }), "rel-3 rel-1"),
        ("/devices/track-fleet".into(), json!({ "filter": "ring", "dry_run": true }), "rel-3 rel-1"),
        ("/devices/track-fleet".into(), json!({ "filter": "ring" }), "rel-3 rel-3"),
    ] {
        desk.did(Method::POST, &path, body).await;
        assert_eq!(both().await, expected, "{path}");
    }
    desk.did(Method::PATCH, "/releases/rel-3", json!({ "is_invalidated": true })).await;
    assert_eq!(both().await, "rel-2 rel-2");
    desk.did(Method::PATCH, "/releases/rel-3", json!({ "is_invalidated": false })).await;
    assert_eq!(both().await, "rel-3 rel-3");
    let dry = json!({ "filter": "!ring", "release": "rel-1", "dry_run": true });
    let name = desk.did(Method::GET, &format!("/devices/{A}"), Value::Null).await["name"].clone();
    let output = desk.did(Method::POST, "/devices/pin", dry).await;
    let row =
        json!({ "uuid": A, "name": name, "fleet": "lab", "target_before": "rel-3", "target_after": "rel-1" });
    assert_eq!(output, json!({ "dry_run": true, "devices": [row] }));
    desk.close().await;
}

#[tokio::test]
async fn bad_requests_of_operators_have_different_codes() {
    let dir = TempDir::new().unwrap();
    let desk = Desk::open(dir.path()).await;
    let key = desk.fleet("lab").await;
    desk.register(&key, device(A, "key-a")).await;
    desk.release("lab", "rel-1").await;
    let with = |path: &[&str], value: Value| {
        let mut body = release("rel-2");
        let mut at = &mut body;
        for part in path {
            at = &mut at[*part];
        }
        *at = value;
        body
    };
    let releases = "/fleets/lab/releases";
    let post = Method::POST;
    for (method, path, body, status, code, output) in [
        (
            post.clone(),
            "/fleets",
            json!({ "name": "lab" }),
            409,
            "refused",
            "the fleet name \"lab\" is taken",
        ),
        (post.clone(), "/fleets", json!({ "name": "" }), 400, "bad_request", "1 to 255 characters"),
        (post.clone(), "/fleets", json!({ "name": "a\tb" }), 400, "bad_request", "cannot be a fleet name"),
        (
            post.clone(),
            "/fleets",
            json!({ "name": 5 }),
            400,
            "bad_request",
            "invalid type: integer `5`, expected a string",
        ),
        (
            post.clone(),
            "/fleets",
            json!({ "nam": "x" }),
            400,
            "bad_request",
            "unknown field `nam`, expected `name`",
        ),
        (post.clone(), "/fleets", json!({}), 400, "bad_request", "missing field `name`"),
        (post.clone(), "/fleets", json!(["x"]), 400, "bad_request", "invalid type: sequence"),
        (
            post.clone(),
            "/fleets/lab/track-latest",
            json!({ "x": 1 }),
            400,
            "bad_request",
            "unknown field `x`",
        ),
        (
            post.clone(),
            "/fleets/nope/pin",
            json!({ "release": "rel-1" }),
            404,
            "not_found",
            "no fleet \"nope\"",
        ),
        (
            post.clone(),
            "/fleets/lab/pin",
            json!({ "release": "nope" }),
            404,
            "not_found",
            "no release \"nope\"",
        ),
        (
            post.clone(),
            "/devices/pin",
            json!({ "filter": "a=b=c", "release": "rel-1" }),
            400,
            "bad_request",
            "conditions are key=value",
        ),
        (
            post.clone(),
            "/devices/pin",
            json!({ "filter": "ring", "release": "rel-1" }),
            404,
            "no_match",
            "no device matches \"ring\"",
        ),
        (
            post.clone(),
            &format!("/devices/{A}/tags"),
            json!({ "set": { "a b": "c" } }),
            400,
            "bad_request",
            "cannot be a tag key",
        ),
        (
            post.clone(),
            &format!("/devices/{A}/tags"),
            json!({ "set": { "a": "c,d" } }),
            400,
            "bad_request",
            "cannot be a tag value",
        ),
        (post.clone(), releases, release("rel-1"), 409, "refused", "already has a release rel-1"),
        (
            post.clone(),
            releases,
            with(&["commit"], json!("a b")),
            400,
            "bad_request",
            "is not a release commit",
        ),
        (
            post.clone(),
            releases,
            with(&["status"], json!("good")),
            400,
            "bad_request",
            "unknown variant `good`",
        ),
        (
            post.clone(),
            releases,
            with(&["status"], json!({ "success": null })),
            400,
            "bad_request",
            "invalid type: map, expected a string",
        ),
        (
            post.clone(),
            releases,
            with(&["composition"], json!([{ "web": {} }, {}, {}])),
            400,
            "bad_request",
            "invalid type: sequence, expected struct Composition",
        ),
        (
            post.clone(),
            "/fleets/lab/provisioning-keys",
            json!({ "uses": 1.5 }),
            400,
            "bad_request",
            "invalid type: floating point `1.5`",
        ),
        (
            Method::GET,
            &format!("/devices?filter={}", "a".repeat(4097)),
            Value::Null,
            400,
            "bad_request",
            "more than 4096 characters",
        ),
        (Method::GET, "/devices/%ff", Value::Null, 400, "bad_request", "Invalid UTF-8"),
        (
            post.clone(),
            releases,
            with(&["start_timestamp"], json!("soon")),
            400,
            "bad_request",
            "not accepted",
        ),
        (
            post.clone(),
            releases,
            with(&["images"], json!({})),
            422,
            "unsupported",
            "images.web: the service has no image here",
        ),
        (
            post.clone(),
            releases,
            with(&["images", "web"], json!("r/a:1")),
            422,
            "unsupported",
            "images.web: r/a:1 has no digest",
        ),
        (
            post.clone(),
            releases,
            with(&["images", "db"], json!(image("db"))),
            422,
            "unsupported",
            "images.db: the composition has no such service",
        ),
        (
            post.clone(),
            releases,
            with(&["composition", "services"], json!({})),
            422,
            "unsupported",
            "at least one service",
        ),
        (
            post.clone(),
            releases,
            with(&["composition", "services", "web", "ports"], json!(["x:y"])),
            422,
            "unsupported",
            "services.web.ports[0]",
        ),
        (
            post,
            releases,
            with(&["composition", "services", "web", "environment"], json!("x".repeat(300_000))),
            413,
            "too_large",
            "larger than this route takes: 256 kB",
        ),
        (
            Method::PATCH,
            "/releases/rel-1",
            json!({ "is_final": false }),
            409,
            "refused",
            "cannot become a draft again",
        ),
        (
            Method::PATCH,
            "/releases/rel-1",
            json!({ "status": "failed" }),
            409,
            "refused",
            "is the target of its fleet",
        ),
        (
            Method::PATCH,
            "/releases/rel-1",
            json!({ "commit": "x" }),
            400,
            "bad_request",
            "unknown field `commit`",
        ),
        (Method::DELETE, "/releases/rel-1", Value::Null, 409, "refused", "cannot be deleted"),
        (Method::GET, "/releases/rel", Value::Null, 404, "not_found", "no release \"rel\""),
        (Method::GET, "/devices?colour=red", Value::Null, 400, "bad_request", "unknown field `colour`"),
        (Method::GET, "/devices?filter=,", Value::Null, 400, "bad_request", "is not a condition"),
        (Method::GET, "/devices/nope", Value::Null, 404, "not_found", "no device \"nope\""),
        (Method::GET, "/nope", Value::Null, 404, "no_such_route", "/nope"),
        (Method::PUT, "/fleets", Value::Null, 405, "no_such_method", "does not take PUT"),
    ] {
        let (got, answer) = desk.operate(method, path, body).await;
        assert_eq!((got, answer["error"]["code"].as_str()), (status, Some(code)), "{path}: {answer}");
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(message.contains(output), "{path}: {message}");
    }
    let whole = json!({ "uses": 2.0, "per_minute": 3.0 });
    let created = desk.did(Method::POST, "/fleets/lab/provisioning-keys", whole).await;
    let details = &created["details"];
    assert_eq!((&details["most_uses"], &details["per_minute"]), (&json!(2), &json!(3)));
    for (kind, body, status) in
        [("text/plain", "{}", 415), ("text/plain", "", 200), ("Application/JSON; x=y", "{}", 200)]
    {
        let request = desk.request(Method::POST, "/api/v1/fleets/lab/track-latest").bearer_auth(&desk.token);
        let response = request.header("content-type", kind).body(body).send().await.unwrap();
        assert_eq!(response.status(), status, "{kind} {body}");
    }
    let unsupported = desk.operate(Method::POST, releases, with(&["images"], json!({}))).await.1;
    assert_eq!(unsupported["error"]["refusals"][0]["path"], "images.web");
    assert_eq!(desk.did(Method::GET, "/releases", Value::Null).await.as_array().unwrap().len(), 1);
    for token in ["", "wrong"] {
        for path in ["/api/v1/fleets", "/api/v1/nope"] {
            let response = desk.request(Method::GET, path).bearer_auth(token).send().await.unwrap();
            assert_eq!(response.status().as_u16(), 401);
            let answer: Value = response.json().await.unwrap();
            assert_eq!(answer["error"]["code"], "not_permitted");
        }
    }
    let outside = desk.request(Method::GET, "/device/nope").send().await.unwrap();
    assert_eq!(outside.status().as_u16(), 404);
    assert_eq!(outside.json::<Value>().await.unwrap()["error"]["code"], "no_such_route");
    desk.close().await;
}

/// Everything is there again, also when a device polled last; numbers go on, and etags stay the same.
#[tokio::test]
async fn a_restart_loses_nothing() {
    let dir = TempDir::new().unwrap();
    let desk = Desk::open(dir.path()).await;
    let key = desk.fleet("lab").await;
    desk.register(&key, device(A, "key-a")).await;
    desk.register(&key, device(B, "key-b")).await;
    desk.release("lab", "rel-1").await;
    desk.release("lab", "rel-2").await;
    desk.did(Method::POST, &format!("/devices/{A}/pin"), json!({ "release": "rel-1" })).await;
    desk.did(Method::POST, &format!("/devices/{A}/tags"), json!({ "set": { "ring": "canary" } })).await;
    let lab = desk.did(Method::GET, "/fleets/lab", Value::Null).await["uuid"].as_str().unwrap().to_owned();
    desk.report("key-a", &running(A, &lab, "rel-1")).await;
    desk.did(Method::DELETE, &format!("/devices/{B}"), Value::Null).await;
    let seen = async |desk: &Desk| {
        let fleets = desk.did(Method::GET, "/fleets", Value::Null).await;
        let device = desk.did(Method::GET, &format!("/devices/{A}"), Value::Null).await;
        (fleets, desk.did(Method::GET, "/releases", Value::Null).await, device)
    };
    let etag = desk.state(A, "key-a", None).await.headers()["etag"].clone();
    let before = seen(&desk).await;
    let token = desk.token.clone();
    desk.close().await;

    let desk = Desk::open(dir.path()).await;
    assert_eq!(desk.token, token);
    assert_eq!(seen(&desk).await, before);
    assert_eq!(desk.state(A, "key-a", None).await.headers()["etag"], etag);
    assert_eq!(desk.register(&key, device(B, "key-b")).await.0, 403, "a device that is gone is barred");
    let (_, body) = desk.register(&key, device(&"c".repeat(32), "key-c")).await;
    assert_eq!(serde_json::from_str::<Value>(&body).unwrap()["id"], 3, "numbers are not used twice");
    assert_eq!(desk.release("lab", "rel-3").await["release"]["number"], 3);
    desk.close().await;
}

#[tokio::test]
async fn one_process_at_a_time_and_private_files() {
    use std::os::unix::fs::PermissionsExt;
    let dir = TempDir::new().unwrap();
    let data = dir.path().join("a/b");
    let desk = Desk::open(&data).await;
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    for file in ["records", "lock"] {
        assert_eq!(mode(&data.join(file)), 0o600, "{file}, whatever the mask of the process is");
    }
    let raw = RawConfig {
        listen: Some("127.0.0.1:0".into()),
        data_dir: Some(data.clone()),
        ..RawConfig::default()
    };
    let second = Server::open(raw.clone().check().unwrap()).await.err().unwrap();
    assert!(second.is_in_use());
    assert!(second.to_string().contains("another `cotter-fleet serve` uses"), "{second}");
    let key = desk.fleet("lab").await;
    desk.register(&key, device(A, "a-device-key")).await;
    assert_eq!((mode(&data), mode(&data.join("operator.token"))), (0o700, 0o600));
    desk.close().await;

    let everything = std::fs::read(data.join("records")).unwrap();
    let token = std::fs::read_to_string(data.join("operator.token")).unwrap();
    let holds = |secret: &str| everything.windows(secret.len()).any(|part| part == secret.as_bytes());
    assert!(holds("generic-amd64"), "this is where the records are");
    for secret in [token.trim(), &key, &padded("a-device-key")] {
        assert!(!holds(secret), "keys are stored as hashes only");
    }

    std::fs::set_permissions(data.join("operator.token"), std::fs::Permissions::from_mode(0o644)).unwrap();
    let open = Server::open(raw.check().unwrap()).await.err().unwrap();
    assert!(std::error::Error::source(&open).unwrap().to_string().contains("chmod 600"));
}

/// Damage is an error: the server never starts with empty records in its place.
#[tokio::test]
async fn a_damaged_store_is_not_overwritten() {
    let dir = TempDir::new().unwrap();
    let desk = Desk::open(dir.path()).await;
    desk.fleet("lab").await;
    desk.close().await;
    let db = dir.path().join("records");
    let raw = RawConfig {
        listen: Some("127.0.0.1:0".into()),
        data_dir: Some(dir.path().to_owned()),
        ..RawConfig::default()
    };
    let whole = std::fs::read(&db).unwrap();
    for damaged in
        [b"what is this".to_vec(), Vec::new(), whole[..whole.len() / 2].to_vec(), vec![7; whole.len()]]
    {
        std::fs::write(&db, &damaged).unwrap();
        let error = Server::open(raw.clone().check().unwrap()).await.err().unwrap().to_string();
        assert!(error.contains("are damaged") && error.contains("put a copy of the folder back"), "{error}");
    }
    // Cut anywhere, and with one piece of it overwritten.
    let cuts =
        (0..64).map(|n| whole[..whole.len() * n / 64].to_vec()).chain([whole[..whole.len() - 1].to_vec()]);
    let holes = (0..64).map(|n| {
        let (mut holed, at) = (whole.clone(), whole.len() * n / 64);
        holed[at..whole.len().min(at + 512)].fill(0xa5);
        holed
    });
    for (n, damaged) in cuts.chain(holes).enumerate() {
        std::fs::write(&db, &damaged).unwrap();
        // A piece that nothing uses may be overwritten.
        let Err(error) = Server::open(raw.clone().check().unwrap()).await else { continue };
        let error = error.to_string();
        assert!(error.contains("are damaged (") && error.contains("`cotter-fleet restore"), "{n}: {error}");
        assert!(error.contains(&*dir.path().to_string_lossy()), "{n}: {error}");
    }
    std::fs::remove_file(&db).unwrap();
    let error = Server::open(raw.check().unwrap()).await.err().unwrap().to_string();
    assert!(error.contains("they are gone, and were not empty"), "{error}");
    assert!(!db.exists(), "nothing takes the place of what is gone");
    std::fs::write(&db, whole).unwrap();
    let desk = Desk::open(dir.path()).await;
    assert_eq!(desk.did(Method::GET, "/fleets/lab", Value::Null).await["number"], 1);
    desk.close().await;
}

/// What a device reported goes with it, in memory and on the disk.
#[tokio::test]
async fn a_device_that_was_deleted_and_restored_has_reported_nothing() {
    let dir = TempDir::new().unwrap();
    let desk = Desk::open(dir.path()).await;
    let key = desk.fleet("lab").await;
    assert_eq!(desk.register(&key, device(A, "key-a")).await.0, 201);
    assert_eq!(desk.report("key-a", &json!({ A: { "os_version": "Old 1" } })).await.0, 200);
    let shown = desk.did(Method::GET, &format!("/devices/{A}"), Value::Null).await;
    assert_eq!(shown["reported"]["os_version"], "Old 1");
    desk.did(Method::DELETE, &format!("/devices/{A}"), Value::Null).await;
    desk.close().await;
    let desk = Desk::open(dir.path()).await;
    desk.did(Method::POST, &format!("/barred-devices/{A}/allow"), json!({ "restore": true })).await;
    let shown = desk.did(Method::GET, &format!("/devices/{A}"), Value::Null).await;
    assert_eq!((&shown["reported"], &shown["reported_at"]), (&json!({}), &Value::Null));
    desk.close().await;
}

/// A first start that ends early leaves nothing that stops the next one.
#[tokio::test]
async fn a_first_start_that_was_cut_off_is_done_again() {
    for left in ["records", "records.new"] {
        let dir = TempDir::new().unwrap();
        std::fs::write(dir.path().join(left), b"").unwrap();
        let desk = Desk::open(dir.path()).await;
        desk.fleet("lab").await;
        desk.close().await;
        let desk = Desk::open(dir.path()).await;
        assert_eq!(desk.did(Method::GET, "/fleets/lab", Value::Null).await["number"], 1, "{left}");
        desk.close().await;
    }
}

/// For Prometheus, which sends the operator's token as operators do.
#[tokio::test]
async fn figures_and_devices_are_there_for_a_prometheus_with_the_operators_token() {
    let dir = TempDir::new().unwrap();
    let desk = Desk::open(dir.path()).await;
    let key = desk.fleet("lab").await;
    assert_eq!(desk.register(&key, device(A, "key-a")).await.0, 201);
    assert_eq!(desk.register(&key, device(B, "key-b")).await.0, 201);
    let account = json!({ "agent": "1.2.3", "metrics": "192.0.2.7:9599" });
    assert_eq!(desk.report("key-a", &json!({ A: { "cotter": account } })).await.0, 200);
    let account = json!({ "agent": "1.2.3", "metrics": "127.0.0.1:22" });
    assert_eq!(desk.report("key-b", &json!({ B: { "cotter": account } })).await.0, 200);

    for path in ["/metrics", "/metrics/targets"] {
        for request in [
            desk.request(Method::GET, path),
            desk.request(Method::GET, path).bearer_auth(padded("key-a")),
            desk.request(Method::GET, path).bearer_auth(&key),
        ] {
            assert_eq!(request.send().await.unwrap().status(), StatusCode::UNAUTHORIZED, "{path}");
        }
    }
    let get = async |path: &str| {
        let answer = desk.request(Method::GET, path).bearer_auth(&desk.token).send().await.unwrap();
        let kind = answer.headers()["content-type"].to_str().unwrap().to_owned();
        (answer.status().as_u16(), kind, answer.text().await.unwrap())
    };
    let (status, kind, page) = get("/metrics").await;
    assert_eq!((status, kind.as_str()), (200, "text/plain; version=0.0.4; charset=utf-8"));
    for line in [
        "cotter_fleet_devices{fleet=\"lab\",state=\"no-target\"} 2\n",
        "cotter_fleet_devices{fleet=\"lab\",state=\"failing\"} 0\n",
        "cotter_fleet_agent_devices{fleet=\"lab\",version=\"1.2.3\"} 2\n",
        "cotter_fleet_requests_total{route=\"/device/register\",method=\"POST\",status=\"201\"} 2\n",
        "cotter_fleet_requests_total{route=\"/metrics\",method=\"GET\",status=\"401\"} 3\n",
        "cotter_fleet_request_duration_seconds_count{route=\"/device/v3/state\",method=\"PATCH\"} 2\n",
        "cotter_fleet_acts_total{result=\"refused\"} 0\n",
    ] {
        assert!(page.contains(line), "{line}{page}");
    }
    let (status, kind, targets) = get("/metrics/targets").await;
    let targets: Value = serde_json::from_str(&targets).unwrap();
    assert_eq!((status, kind.as_str()), (200, "application/json"));
    assert_eq!(targets.as_array().unwrap().len(), 1, "loopback is the device's own: {targets}");
    assert_eq!(targets[0]["targets"], json!(["192.0.2.7:9599"]));
    assert_eq!(targets[0]["labels"]["__meta_cotter_uuid"], A);
    desk.close().await;
}

//! What a client of a real fleet server can make it keep, and how much of it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking"
)]

#[path = "support/desk.rs"]
mod desk;

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use cotter::fleet::RawConfig;
use desk::Desk;
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinSet;

fn image(name: &str) -> String {
    format!("r.example/{name}@sha256:{}", "a".repeat(64))
}

/// A draft with one service and these further fields.
fn draft(commit: &str, more: Value) -> Value {
    let mut web = json!({ "image": "r.example/web" });
    web.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({ "commit": commit, "is_final": false, "images": { "web": image("web") },
        "composition": { "services": { "web": web } } })
}

async fn create(desk: &Desk, fleet: &str, release: Value) -> (u16, Value) {
    desk.operate(Method::POST, &format!("/fleets/{fleet}/releases"), release).await
}

#[tokio::test]
async fn extension_fields_are_not_kept() {
    let dir = TempDir::new().unwrap();
    let desk = Desk::open(dir.path()).await;
    desk.did(Method::POST, "/fleets", json!({ "name": "lab" })).await;
    let mut new = draft("r1", json!({ "x-mine": [1, 2], "labels": { "x-label": "kept" } }));
    new["composition"]["networks"] = json!({ "back": { "x-note": "n", "driver": "bridge" } });
    new["composition"]["volumes"] = json!({ "data": { "x-note": "v" } });
    desk.did(Method::POST, "/fleets/lab/releases", new).await;
    let kept = desk.did(Method::GET, "/releases/r1", Value::Null).await;
    assert_eq!(
        kept["composition"],
        json!({
            "services": { "web": { "image": "r.example/web", "labels": { "x-label": "kept" } } },
            "networks": { "back": { "driver": "bridge" } },
            "volumes": { "data": {} },
        })
    );
    desk.close().await;
}

#[tokio::test]
async fn a_fleet_has_a_bounded_number_of_releases() {
    let dir = TempDir::new().unwrap();
    let settings = || RawConfig { releases_per_fleet: Some(10), ..RawConfig::default() };
    let desk = Desk::open_with(dir.path(), settings()).await;
    for fleet in ["lab", "other"] {
        desk.did(Method::POST, "/fleets", json!({ "name": fleet })).await;
    }
    for n in 0..9 {
        desk.did(Method::POST, "/fleets/lab/releases", draft(&format!("draft{n}"), json!({}))).await;
    }
    let failed = json!({ "commit": "failed", "status": "failed", "images": {},
        "composition": { "services": {} } });
    desk.did(Method::POST, "/fleets/lab/releases", failed).await;
    // A restart counts again.
    desk.close().await;
    let desk = Desk::open_with(dir.path(), settings()).await;
    let (status, answer) = create(&desk, "lab", draft("more", json!({}))).await;
    assert_eq!((status, &answer["error"]["rule"]), (409, &json!("too_many_releases")), "{answer}");
    assert_eq!(
        answer["error"]["message"],
        "fleet lab has 10 releases already, drafts and failed ones counted, and no more are accepted; delete old ones with `cotter release delete --fleet lab RELEASE` (`cotter release list --fleet lab`), or raise the server's setting releases_per_fleet"
    );
    // The build that failed gives way to the one that succeeds.
    assert_eq!(create(&desk, "lab", draft("failed", json!({}))).await.0, 201);
    assert_eq!(create(&desk, "lab", draft("more", json!({}))).await.0, 409);
    assert_eq!(create(&desk, "other", draft("more", json!({}))).await.0, 201);
    desk.did(Method::DELETE, "/releases/draft0?fleet=lab", Value::Null).await;
    assert_eq!(create(&desk, "lab", draft("more", json!({}))).await.0, 201);
    // A change of a release is not another one.
    let patch = json!({ "is_invalidated": true });
    desk.did(Method::PATCH, "/releases/draft1?fleet=lab", patch).await;
    desk.did(Method::DELETE, "/releases/draft1?fleet=lab", Value::Null).await;
    assert_eq!(create(&desk, "lab", draft("last", json!({}))).await.0, 201);
    desk.close().await;
}

#[tokio::test]
async fn the_releases_of_a_fleet_and_of_all_take_bounded_memory() {
    let dir = TempDir::new().unwrap();
    let settings =
        RawConfig { fleet_releases_mib: Some(1), all_releases_mib: Some(1), ..RawConfig::default() };
    let desk = Desk::open_with(dir.path(), settings).await;
    for fleet in ["lab", "other"] {
        desk.did(Method::POST, "/fleets", json!({ "name": fleet })).await;
    }
    let large =
        || json!({ "environment": { "LONG": "x".repeat(30_000) }, "command": vec!["y".repeat(25_000); 8] });
    for n in 0..4 {
        let (status, answer) = create(&desk, "lab", draft(&format!("r{n}"), large())).await;
        assert_eq!(status, 201, "{n}: {answer}");
    }
    let (status, answer) = create(&desk, "lab", draft("r5", large())).await;
    let message = answer["error"]["message"].as_str().unwrap();
    assert_eq!(status, 409);
    assert!(message.contains("of fleet lab would take more than 1 MiB"), "{message}");
    assert!(message.contains("cotter release delete --fleet lab"), "{message}");
    assert!(message.contains("fleet_releases_mib"), "{message}");
    let (status, answer) = create(&desk, "other", draft("r5", large())).await;
    let message = answer["error"]["message"].as_str().unwrap();
    assert_eq!(status, 409);
    assert!(message.contains("all fleets would take") && message.contains("all_releases_mib"), "{message}");
    desk.close().await;
}

#[tokio::test]
async fn no_error_quotes_a_whole_request() {
    let dir = TempDir::new().unwrap();
    let desk = Desk::open(dir.path()).await;
    desk.did(Method::POST, "/fleets", json!({ "name": "lab" })).await;
    let long = "A".repeat(200_000);
    let services: serde_json::Map<_, _> =
        (0..900).map(|n| (format!("s{n}"), json!({ "image": "r.example/web" }))).collect();
    let without_images = json!({ "commit": "r1", "images": {}, "composition": { "services": services } });
    let long_name = json!({ "commit": "r1", "images": { &long: "x" }, "composition": { "services": {} } });
    for (path, body, status) in [
        ("/fleets/lab/pin", json!({ &long: 1 }), 400),
        ("/fleets/lab/pin", json!({ "release": &long }), 404),
        ("/fleets/lab/releases", without_images, 422),
        ("/fleets/lab/releases", long_name, 422),
    ] {
        let (got, answer) = desk.operate(Method::POST, path, body).await;
        assert_eq!(got, status, "{path}");
        let message = answer["error"]["message"].as_str().unwrap().chars().count();
        assert!(message <= 1050, "{path}: {message}");
        let length = answer.to_string().len();
        assert!(length <= 40_000, "{path}: {length}");
    }
    let trail = desk.did(Method::GET, "/audit", Value::Null).await;
    let messages = trail.as_array().unwrap().iter().filter_map(|entry| entry["message"].as_str());
    let longest: Vec<_> = messages.map(|message| message.chars().count()).collect();
    assert!(longest.len() == 4 && longest.iter().all(|length| *length <= 550), "{longest:?}");
    desk.close().await;
}

/// A draft with these services.
fn with_services(commit: &str, names: impl Iterator<Item = String>) -> Value {
    let (mut services, mut images) = (json!({}), json!({}));
    for name in names {
        services[&name] = json!({});
        images[&name] = json!(format!("x@sha256:{}", "a".repeat(64)));
    }
    json!({ "commit": commit, "is_final": false, "images": images, "composition": { "services": services } })
}

#[tokio::test]
async fn the_services_of_a_fleet_are_bounded_and_those_of_deleted_releases_are_forgotten() {
    let dir = TempDir::new().unwrap();
    let desk = Desk::open(dir.path()).await;
    desk.did(Method::POST, "/fleets", json!({ "name": "lab" })).await;
    let names = |n: usize| (0..1000).map(move |service| format!("s{n}-{service}"));
    for n in 0..5 {
        let (status, answer) = create(&desk, "lab", with_services(&format!("r{n}"), names(n))).await;
        assert_eq!(status, 201, "{n}: {answer}");
    }
    let (status, answer) = create(&desk, "lab", with_services("more", names(5))).await;
    assert_eq!((status, &answer["error"]["rule"]), (409, &json!("too_many_services")), "{answer}");
    // The names of earlier releases are no new ones.
    assert_eq!(create(&desk, "lab", with_services("same", names(4))).await.0, 201);
    let variables = json!({ "service": "nosuch", "set": { "A": "1" } });
    let (status, answer) = desk.operate(Method::POST, "/fleets/lab/variables", variables).await;
    let message = answer["error"]["message"].as_str().unwrap();
    assert!(status == 404 && message.ends_with("and 4990 more"), "{status} {message}");

    let set = json!({ "service": "s0-7", "set": { "A": "1" } });
    desk.did(Method::POST, "/fleets/lab/variables", set).await;
    desk.did(Method::DELETE, "/releases/r0?fleet=lab", Value::Null).await;
    assert_eq!(create(&desk, "lab", with_services("more", names(5))).await.0, 201);
    let set = json!({ "service": "s0-1", "set": { "A": "1" } });
    assert_eq!(desk.operate(Method::POST, "/fleets/lab/variables", set).await.0, 404, "it is forgotten");
    let remove = json!({ "service": "s0-7", "remove": ["A"] });
    desk.did(Method::POST, "/fleets/lab/variables", remove).await;

    let backup = desk.request(Method::GET, "/api/v1/backup").bearer_auth(&desk.token).send().await.unwrap();
    let backup = backup.bytes().await.unwrap();
    assert!(cotter::fleet::backup::Backup::read(&backup[..]).is_ok());
    desk.close().await;
}

/// Sends the beginning of a request with a body of 100 bytes, or one without, and keeps the connection.
fn begin(desk: &Desk, head: &str, token: &str, begin_of_body: &str) -> TcpStream {
    let mut stream = TcpStream::connect(desk.url.strip_prefix("http://").unwrap()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let length = if begin_of_body.is_empty() { 0 } else { 100 };
    write!(stream, "{head} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n").unwrap();
    write!(stream, "Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{begin_of_body}")
        .unwrap();
    stream
}

/// Reads the status of an answer.
async fn status(mut stream: TcpStream) -> u16 {
    let line = tokio::task::spawn_blocking(move || {
        let mut line = [0; 12];
        stream.read_exact(&mut line).map(|()| String::from_utf8_lossy(&line).into_owned())
    });
    let line = line.await.unwrap().expect("there is an answer");
    line.strip_prefix("HTTP/1.1 ").unwrap().parse().unwrap()
}

/// The server never reads the body of a registration with a key that has ended, and few at a time with one key.
#[tokio::test(flavor = "multi_thread")]
async fn registrations_with_slow_bodies_hold_few_places() {
    let dir = TempDir::new().unwrap();
    let desk = Desk::open(dir.path()).await;
    desk.did(Method::POST, "/fleets", json!({ "name": "lab" })).await;
    let key = |name: &str| json!({ "name": name });
    let made = desk.did(Method::POST, "/fleets/lab/provisioning-keys", key("revoked")).await;
    let revoked = made["provisioning_key"].as_str().unwrap().to_owned();
    desk.did(Method::POST, "/fleets/lab/provisioning-keys/revoked/revoke", json!({})).await;
    let slow = |key: &str| begin(&desk, "POST /device/register", key, "{");
    assert_eq!(status(slow(&revoked)).await, 401);

    let made = desk.did(Method::POST, "/fleets/lab/provisioning-keys", key("good")).await;
    let good = made["provisioning_key"].as_str().unwrap();
    let made = desk.did(Method::POST, "/fleets/lab/provisioning-keys", key("other")).await;
    let other = made["provisioning_key"].as_str().unwrap();
    let waiting: Vec<_> = (0..20).map(|_| slow(good)).collect();
    let mut answers = JoinSet::new();
    for stream in &waiting {
        answers.spawn(status(stream.try_clone().unwrap()));
    }
    for _ in 0..12 {
        assert_eq!(answers.join_next().await.unwrap().unwrap(), 429, "the other 8 are in progress");
    }
    let device = json!({ "application": 1, "device_type": "generic-amd64", "uuid": "a".repeat(32),
        "api_key": "a-key-of-a-device-with-32-digits" });
    let register = |key: &str| desk.request(Method::POST, "/device/register").bearer_auth(key).json(&device);
    assert_eq!(register(good).send().await.unwrap().status(), 429);
    assert_eq!(register(other).send().await.unwrap().status(), 201);
    for stream in waiting {
        stream.shutdown(Shutdown::Both).unwrap();
    }
    desk.close().await;
}

async fn token(desk: &Desk, user: &str, role: &str) -> String {
    desk.did(Method::POST, "/users", json!({ "name": user })).await;
    let made = desk.did(Method::POST, "/tokens", json!({ "user": user, "name": user, "role": role })).await;
    made["token"].as_str().unwrap().to_owned()
}

/// A request waits for the rest of its body, and its token is revoked meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_ends_during_a_request_changes_nothing() {
    let dir = TempDir::new().unwrap();
    let desk = Desk::open(dir.path()).await;
    desk.did(Method::POST, "/fleets", json!({ "name": "lab" })).await;
    let ben = token(&desk, "ben", "operator").await;
    let body = format!("{:<100}", json!({ "name": "taken-over" }).to_string());
    let mut slow = begin(&desk, "POST /api/v1/fleets/lab/rename", &ben, &body[..50]);
    // The request is in progress once no other one of this token finds a place. One of these may be refused because the
    // list of fleets takes a place for a moment, so there are always more.
    let mut more = Vec::new();
    let fleets = || desk.request(Method::GET, "/api/v1/fleets").bearer_auth(&ben);
    while fleets().send().await.unwrap().status() != 503 {
        assert!(more.len() < 100, "all find a place");
        more.push(begin(&desk, "POST /api/v1/fleets/lab/rename", &ben, "{"));
    }
    desk.did(Method::POST, "/users/ben/disable", json!({})).await;
    slow.write_all(&body.as_bytes()[50..]).unwrap();
    assert_eq!(status(slow).await, 401);
    drop(more);
    let fleets = desk.did(Method::GET, "/fleets", Value::Null).await;
    assert_eq!(fleets[0]["name"], "lab");
    desk.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_ends_when_its_token_does() {
    let dir = TempDir::new().unwrap();
    let desk = Desk::open(dir.path()).await;
    desk.did(Method::POST, "/fleets", json!({ "name": "lab" })).await;
    for n in 0..60 {
        let large = json!({ "command": vec!["x".repeat(25_000); 8] });
        assert_eq!(create(&desk, "lab", draft(&format!("r{n}"), large)).await.0, 201);
    }
    let ada = token(&desk, "ada", "admin").await;
    let mut stream = begin(&desk, "GET /api/v1/backup", &ada, "");
    let read = |stream: &mut TcpStream| {
        let mut text = vec![0; 1000];
        stream.read_exact(&mut text).unwrap();
        String::from_utf8_lossy(&text).into_owned()
    };
    assert!(read(&mut stream).starts_with("HTTP/1.1 200"));
    desk.did(Method::POST, "/users/ada/disable", json!({})).await;
    let rest = tokio::task::spawn_blocking(move || {
        let mut rest = Vec::new();
        let _cut = stream.read_to_end(&mut rest);
        String::from_utf8_lossy(&rest).into_owned()
    });
    assert!(!rest.await.unwrap().contains("\"sha256\""), "it has no end");
    desk.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_an_admin_leaves_places_to_other_admins() {
    let dir = TempDir::new().unwrap();
    let desk = Desk::open(dir.path()).await;
    desk.did(Method::POST, "/fleets", json!({ "name": "lab" })).await;
    let token = token(&desk, "ada", "admin").await;
    let held: Vec<_> = (0..16).map(|_| begin(&desk, "POST /api/v1/fleets/lab/pin", &token, "{")).collect();
    let mut status = 0;
    // The last of them may not have arrived yet.
    for _ in 0..50 {
        let fleets = desk.request(Method::GET, "/api/v1/fleets").bearer_auth(&token);
        status = fleets.send().await.unwrap().status().as_u16();
        if status == 503 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(status, 503);
    assert_eq!(desk.operate(Method::GET, "/fleets", Value::Null).await.0, 200);
    for stream in held {
        stream.shutdown(Shutdown::Both).unwrap();
    }
    desk.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_leave_places_to_each_other_and_to_admins() {
    let dir = TempDir::new().unwrap();
    let desk = Desk::open(dir.path()).await;
    desk.did(Method::POST, "/fleets", json!({ "name": "lab" })).await;
    let mut held = Vec::new();
    for user in ["ada", "ben", "cleo", "dan"] {
        let token = token(&desk, user, "operator").await;
        for n in 0..10 {
            held.push(begin(&desk, "POST /api/v1/fleets/lab/pin", &token, "{"));
            // All of the server's places would be taken by 32 of these.
            assert_eq!(desk.operate(Method::GET, "/fleets", Value::Null).await.0, 200, "{user} {n}");
        }
        let fleets = desk.request(Method::GET, "/api/v1/fleets").bearer_auth(&token);
        assert_eq!(fleets.send().await.unwrap().status(), 503, "{user}");
    }
    for stream in held {
        stream.shutdown(Shutdown::Both).unwrap();
    }
    desk.close().await;
}

#[tokio::test]
async fn no_device_has_a_name_that_paths_of_the_api_use() {
    let dir = TempDir::new().unwrap();
    let desk = Desk::open(dir.path()).await;
    let made = desk.did(Method::POST, "/fleets", json!({ "name": "lab" })).await;
    let key = made["provisioning_key"].as_str().unwrap();
    let uuid = "a".repeat(32);
    let device = |name: &str| {
        json!({ "application": 1, "device_type": "generic-amd64", "uuid": uuid, "device_name": name,
            "api_key": "a-key-of-a-device-with-32-digits" })
    };
    let register = async |name: &str| {
        let sent = desk.request(Method::POST, "/device/register").bearer_auth(key).json(&device(name));
        sent.send().await.unwrap().status().as_u16()
    };
    let names = ["pin", "track-fleet", "tags", "delete"];
    for name in names {
        assert_eq!(register(name).await, 400, "{name}");
    }
    assert_eq!(register("pin-1").await, 201);
    for name in names {
        let rename = json!({ "name": name });
        assert_eq!(desk.operate(Method::POST, "/devices/pin-1/rename", rename).await.0, 400, "{name}");
    }
    desk.close().await;
}

#[tokio::test]
async fn two_restores_within_a_second_keep_both_records_from_before() {
    let dir = TempDir::new().unwrap();
    let desk = Desk::open(dir.path()).await;
    desk.did(Method::POST, "/fleets", json!({ "name": "lab" })).await;
    let backup = desk.request(Method::GET, "/api/v1/backup").bearer_auth(&desk.token).send().await.unwrap();
    let backup = cotter::fleet::backup::Backup::read(&backup.bytes().await.unwrap()[..]).unwrap();
    let to = TempDir::new().unwrap();
    let now = jiff::Timestamp::UNIX_EPOCH;
    let restore = |replace| cotter::fleet::restore(&backup, to.path(), replace, now).unwrap();
    assert_eq!(restore(false), None);
    let (first, second) = (restore(true).unwrap(), restore(true).unwrap());
    assert!(first != second && first.exists() && second.exists(), "{first:?} {second:?}");
    desk.close().await;
}

/// Another user of the folder has put a link in the place of the file that is written first.
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_follows_no_link() {
    let dir = TempDir::new().unwrap();
    let desk = Desk::open(dir.path()).await;
    desk.did(Method::POST, "/fleets", json!({ "name": "lab" })).await;
    let folder = TempDir::new().unwrap();
    let (victim, file) = (folder.path().join("victim"), folder.path().join("backup.jsonl"));
    std::fs::write(&victim, "untouched").unwrap();
    std::os::unix::fs::symlink(&victim, folder.path().join("backup.jsonl.unfinished")).unwrap();
    let mut backup = tokio::process::Command::new(env!("CARGO_BIN_EXE_cotter-fleet"));
    backup.arg("backup").arg(&file).args(["--url", &desk.url, "--token-file"]);
    let made = backup.arg(dir.path().join("operator.token")).output().await.unwrap();
    assert!(made.status.success(), "{made:?}");
    assert_eq!(std::fs::read_to_string(&victim).unwrap(), "untouched");
    assert!(file.symlink_metadata().unwrap().is_file());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 3, "nothing is left over");
    desk.close().await;
}

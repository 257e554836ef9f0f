//! What the answers of a real fleet server tell of secret variables: nothing.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking"
)]

#[path = "support/desk.rs"]
mod desk;

use desk::Desk;
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

const UUID: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

/// A server with a fleet, a release and a device.
async fn site(dir: &TempDir) -> Desk {
    let desk = Desk::open(dir.path()).await;
    let made = desk.did(Method::POST, "/fleets", json!({ "name": "lab" })).await;
    let image = format!("r.example/web@sha256:{}", "a".repeat(64));
    let release = json!({ "commit": "r1", "images": { "web": image },
        "composition": { "services": { "web": { "image": "r.example/web" } } } });
    desk.did(Method::POST, "/fleets/lab/releases", release).await;
    let device = json!({ "application": 1, "device_type": "generic-amd64", "uuid": UUID,
        "api_key": "a-key-of-a-device-with-32-digits" });
    let key = made["provisioning_key"].as_str().unwrap();
    let sent = desk.request(Method::POST, "/device/register").bearer_auth(key).json(&device).send().await;
    assert_eq!(sent.unwrap().status(), 201);
    desk
}

#[tokio::test]
async fn no_error_and_no_record_has_what_was_sent() {
    let dir = TempDir::new().unwrap();
    let desk = site(&dir).await;
    // A provisioning key of another server, and the URL of a webhook, whose path may be a secret.
    let to = "https://fleet.example.com";
    for (path, body) in [
        ("/devices/migrate", json!({ "devices": [UUID], "order": "hunter2" })),
        ("/devices/migrate", json!({ "devices": [UUID], "order": { "to": to, "fleet": "a", "hunter2": 1 } })),
        ("/devices/migrate", json!({ "devices": [UUID], "dry_run": "hunter2" })),
        ("/webhooks", json!({ "name": "ci", "url": ["https://a.example/hunter2"] })),
        ("/webhooks", json!({ "name": "ci", "url": to, "allow_http": "https://a.example/hunter2" })),
        ("/webhooks", json!({ "name": "ci", "https://a.example/hunter2": 1 })),
        ("/webhooks", json!({ "name": "ci", "url": "https://anna:hunter2@a.example/" })),
    ] {
        let (status, answer) = desk.operate(Method::POST, path, body.clone()).await;
        assert!(status == 400 && !answer.to_string().contains("hunter2"), "{body}: {answer}");
    }
    for body in [
        json!({ "set": { "PIN": 4_711_471_147_u64 }, "secret": true }),
        json!({ "set": { "PW": ["hunter2"] }, "secret": true }),
        json!({ "set": "hunter2", "secret": true }),
        json!({ "set": { "A": "b" }, "secret": "hunter2" }),
        json!({ "set": { "PW=hunter2": "x" }, "secret": true }),
        json!({ "set": {}, "hunter2": 1 }),
        json!({ "set": { "A": "x" }, "remove": ["PW=hunter2"] }),
        json!({ "set": { "PW=hunter2": "x" }, "remove": ["PW=hunter2"] }),
        json!({ "set": { "A": "x" }, "service": "PW=hunter2" }),
    ] {
        for path in ["/fleets/lab/variables", &format!("/devices/{UUID}/variables")] {
            let (status, answer) = desk.operate(Method::POST, path, body.clone()).await;
            assert!(status == 400 || status == 404, "{status} {answer}");
            let answer = answer.to_string();
            assert!(!answer.contains("hunter2") && !answer.contains("4711471147"), "{body}: {answer}");
        }
    }
    let trail = desk.did(Method::GET, "/audit", Value::Null).await;
    assert!(trail.as_array().unwrap().len() >= 20);
    assert!(!trail.to_string().contains("hunter2") && !trail.to_string().contains("4711471147"));
    desk.close().await;
}

#[tokio::test]
async fn a_guess_of_a_secret_is_answered_as_any_other_value() {
    let dir = TempDir::new().unwrap();
    let desk = site(&dir).await;
    let fleet = "/fleets/lab/variables".to_owned();
    let device = format!("/devices/{UUID}/variables");
    desk.did(Method::POST, &fleet, json!({ "set": { "PIN": "4711", "OPEN": "1" }, "secret": true })).await;
    for (path, body) in [
        (&fleet, json!({ "dry_run": true })),
        (&fleet, json!({ "dry_run": true, "service": "web" })),
        (&device, json!({ "dry_run": true })),
        (&device, json!({ "dry_run": true, "service": "web" })),
        (&fleet, json!({})),
    ] {
        for guess in ["4710", "4711", "4711"] {
            let mut body = body.clone();
            body["set"] = json!({ "PIN": guess });
            let told = desk.did(Method::POST, path, body.clone()).await;
            assert_eq!(told["devices"], 1, "{path} {body}");
        }
    }
    desk.close().await;
}

#[tokio::test]
async fn the_size_of_secrets_is_not_told() {
    let dir = TempDir::new().unwrap();
    let desk = site(&dir).await;
    // How many further bytes are accepted.
    let room = async |secret: &str| {
        let path = "/fleets/lab/variables";
        desk.did(Method::POST, path, json!({ "set": { "S": secret }, "secret": true })).await;
        let (mut least, mut most) = (0_usize, 32_768_usize);
        while least < most {
            let size = least.midpoint(most) + 1;
            let set = json!({ "X": "x".repeat(32_768), "Y": "y".repeat(size) });
            let (status, answer) =
                desk.operate(Method::POST, path, json!({ "set": set, "dry_run": true })).await;
            if status == 200 {
                least = size;
            } else {
                let message = answer["error"]["message"].as_str().unwrap();
                assert!(message.contains("more than 65536 bytes"), "{message}");
                most = size - 1;
            }
        }
        least
    };
    assert_eq!(room("short").await, room(&"long".repeat(20)).await);
    desk.close().await;
}

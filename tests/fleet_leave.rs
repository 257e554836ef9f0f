//! A device deletes its own record at a fleet server: `DELETE /device/v3/:uuid`. `cotter leave` on a device is in
//! tests/join_fleet.rs.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking"
)]

mod support;

use reqwest::{Client, Response};
use serde_json::{Value, json};
use support::FleetServer;
use tempfile::TempDir;

fn uuid(number: u32) -> String {
    format!("{number:032x}")
}

fn key_of(number: u32) -> String {
    format!("some-secret-{number:04}-key")
}

fn says_deleted(answer: &Response) -> bool {
    answer.headers().get("cotter-device").is_some_and(|value| value == "deleted")
}

#[tokio::test]
async fn a_device_deletes_itself_and_no_other_one() {
    let dir = TempDir::new().unwrap();
    let server = FleetServer::start_in(dir.path(), Vec::new());
    drop(rustls::crypto::ring::default_provider().install_default());
    let http = Client::builder().no_proxy().build().unwrap();
    let created = server.cli_json(&["fleet", "create", "lab"])["created"].clone();
    for number in 1..=2 {
        let body = json!({ "application": 1, "device_type": "board", "uuid": uuid(number), "api_key": key_of(number) });
        let register = http.post(format!("{}/device/register", server.url));
        let register = register.bearer_auth(created["provisioning_key"].as_str().unwrap());
        assert_eq!(register.json(&body).send().await.unwrap().status(), 201);
    }
    let delete = async |uuid: &str, key: &str| {
        let request = http.delete(format!("{}/device/v3/{uuid}", server.url));
        request.bearer_auth(key).send().await.unwrap()
    };
    let listed = || {
        let list = server.cli_json(&["device", "list"]);
        list["devices"].as_array().unwrap().iter().map(|row| row["uuid"].clone()).collect::<Vec<Value>>()
    };
    // The key of another device, of nobody, of an operator, and one that registers devices.
    let token = std::fs::read_to_string(server.token_file()).unwrap();
    let provisioning_key = created["provisioning_key"].as_str().unwrap();
    for key in [&key_of(2), "nobody-has-this-key", token.trim(), provisioning_key] {
        let answer = delete(&uuid(1), key).await;
        assert_eq!((answer.status().as_u16(), says_deleted(&answer)), (401, false), "{key}");
    }
    assert_eq!(delete(&uuid(9), &key_of(1)).await.status(), 401);
    assert_eq!(delete("no-uuid", &key_of(1)).await.status(), 401);
    assert_eq!(listed().len(), 2);

    let (first, again) = (delete(&uuid(1), &key_of(1)).await, delete(&uuid(1), &key_of(1)).await);
    for answer in [first, again] {
        assert_eq!((answer.status().as_u16(), says_deleted(&answer)), (200, true));
    }
    assert_eq!(delete(&uuid(1), &key_of(2)).await.status(), 401, "of a deleted one, too");
    assert_eq!(listed(), [json!(uuid(2))]);
    let poll = http.get(format!("{}/device/v3/{}/state", server.url, uuid(1))).bearer_auth(key_of(1));
    let answer = poll.send().await.unwrap();
    assert_eq!((answer.status().as_u16(), says_deleted(&answer)), (304, true));
    // One act, with who did it and from where; an operator may allow the device again.
    let trail = server.cli(&["audit", "--by", "device", "--json"]);
    let act: Value = serde_json::from_str(trail.trim()).expect("one record");
    assert_eq!((&act["token"], &act["from"]), (&json!("device"), &json!("127.0.0.1")), "{act}");
    assert!(act["why"].as_str().unwrap().contains("cotter leave") && act["user"].is_null(), "{act}");
    assert_eq!(act["things"][0]["id"], json!(uuid(1)), "{act}");
    server.cli(&["device", "allow", &uuid(1)]);
}

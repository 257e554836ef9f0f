//! What a device does to its own record at a fleet server: it deletes it (`DELETE /device/v3/:uuid`; `cotter leave` on a device
//! is in tests/join_fleet.rs), and sets its tags.

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
    let provisioning_key = two_devices(&server, &http).await;
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
    for key in [&key_of(2), "nobody-has-this-key", token.trim(), &provisioning_key] {
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
    assert_eq!((&act["token"], &act["from"]), (&json!("device board-1"), &json!("127.0.0.1")), "{act}");
    assert!(act["why"].as_str().unwrap().contains("cotter leave") && act["user"].is_null(), "{act}");
    assert_eq!(act["things"][0]["id"], json!(uuid(1)), "{act}");
    server.cli(&["device", "allow", &uuid(1)]);
}

/// Registers devices 1 and 2 in a new fleet. Returns its provisioning key.
async fn two_devices(server: &FleetServer, http: &Client) -> String {
    let created = server.cli_json(&["fleet", "create", "lab"])["created"].clone();
    let key = created["provisioning_key"].as_str().unwrap();
    for number in 1..=2 {
        let body = json!({
            "application": 1, "device_type": "board", "uuid": uuid(number), "api_key": key_of(number),
            "device_name": format!("board-{number}"),
        });
        let register = http.post(format!("{}/device/register", server.url));
        assert_eq!(register.bearer_auth(key).json(&body).send().await.unwrap().status(), 201);
    }
    key.to_owned()
}

#[tokio::test]
async fn a_device_reads_its_tags_and_sets_only_those_of_its_own() {
    let dir = TempDir::new().unwrap();
    let server = FleetServer::start_in(dir.path(), Vec::new());
    drop(rustls::crypto::ring::default_provider().install_default());
    // The server closes a connection whose body it has not read, so each request has its own.
    let http = Client::builder().no_proxy().pool_max_idle_per_host(0).build().unwrap();
    two_devices(&server, &http).await;
    server.cli(&["device", "tag", "board-1", "ring=canary"]);
    let set = async |key: &str, body: Value| {
        let request = http.patch(format!("{}/device/v3/tags", server.url)).bearer_auth(key);
        let answer = request.json(&body).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    let read = async |key: &str, number: u32| {
        let query = format!("$select=id,tag_key,value&$filter=device%20eq%20{number}");
        let request = http.get(format!("{}/v7/device_tag?{query}", server.url)).bearer_auth(key);
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        let rows = answer.json::<Value>().await.unwrap()["d"].clone();
        let tags = rows.as_array().cloned().unwrap_or_default();
        let tag =
            |tag: &Value| format!("{}={}", tag["tag_key"].as_str().unwrap(), tag["value"].as_str().unwrap());
        (status, tags.iter().map(tag).collect::<Vec<_>>())
    };
    let (own, other) = (key_of(1), key_of(2));
    assert_eq!(read(&own, 1).await, (200, vec!["ring=canary".to_owned()]));
    assert_eq!(set(&own, json!({ uuid(1): { "device.site": "bern", "device.rack": "7" } })).await.0, 200);
    assert_eq!(read(&own, 1).await.1, ["device.rack=7", "device.site=bern", "ring=canary"]);
    assert_eq!(read(&other, 1).await, (200, Vec::new()), "the tags of another device are not shown");
    assert_eq!(read("nobody-has-this-key", 1).await.0, 401);
    let token = std::fs::read_to_string(server.token_file()).unwrap();
    for (why, key, body, status, words) in [
        (
            "its operator's tag",
            &own,
            json!({ uuid(1): { "ring": "stable" } }),
            400,
            "only tags whose key begins",
        ),
        ("one of two", &own, json!({ uuid(1): { "device.a": "1", "rollout": "never" } }), 400, "\"rollout\""),
        (
            "all places",
            &own,
            json!({ uuid(1): (0..49).map(|n| (format!("device.n{n}"), json!(""))).collect::<serde_json::Map<_, _>>() }),
            400,
            "number of tags that a device sets itself",
        ),
        ("no tag", &own, json!({ uuid(1): { "device.a b": "1" } }), 400, "tag key"),
        ("nothing", &own, json!({ uuid(1): {} }), 400, "no tag"),
        (
            "two devices",
            &own,
            json!({ uuid(1): { "device.a": "1" }, uuid(2): { "device.a": "1" } }),
            400,
            "one device",
        ),
        ("another device", &other, json!({ uuid(1): { "device.a": "1" } }), 401, ""),
        (
            "an operator",
            &token.trim().to_owned(),
            json!({ uuid(1): { "device.a": "1" } }),
            401,
            "API key required",
        ),
        ("too much", &own, json!({ uuid(1): { "device.a": "x".repeat(70_000) } }), 413, ""),
    ] {
        let answer = set(key, body).await;
        assert!(answer.0 == status && answer.1.contains(words), "{why}: {answer:?}");
    }
    assert_eq!(read(&own, 1).await.1, ["device.rack=7", "device.site=bern", "ring=canary"], "all or none");
    // One record for what was changed, under the device's name, and none for what is there already.
    assert_eq!(set(&own, json!({ uuid(1): { "device.site": "bern" } })).await.0, 200);
    for by in ["device", "device board-1"] {
        let trail = server.cli(&["audit", "--by", by, "--json"]);
        let act: Value = serde_json::from_str(trail.trim()).expect("one record");
        assert_eq!((&act["token"], &act["user"]), (&json!("device board-1"), &Value::Null), "{act}");
        assert_eq!(
            (&act["what"], &act["things"][0]["id"]),
            (&json!("tag a device"), &json!(uuid(1))),
            "{act}"
        );
        assert!(act["details"].as_str().unwrap().contains("device.site=bern"), "{act}");
    }
    // Each change is a record, so there are only so many.
    let mut answers = Vec::new();
    for number in 0..20 {
        answers.push(set(&own, json!({ uuid(1): { "device.n": number.to_string() } })).await.0);
    }
    assert_eq!((answers[18], answers[19]), (200, 429));
    // Nobody looks like a device.
    server.cli(&["user", "add", "anna"]);
    for args in [
        &["user", "add", "device"][..],
        &["user", "add", "rollout"],
        &["token", "create", "anna", "--role", "read-only", "--name", "device"],
    ] {
        let said = server.try_cli(args);
        assert!(!said.status.success(), "{args:?}");
        let said = String::from_utf8(said.stderr).unwrap();
        assert!(said.contains("the audit trail has it for those who act without a token"), "{said}");
    }
}

//! `If-Match` and `If-None-Match`: what an operator decided on an old state of a thing changes nothing.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;

use futures_util::future::join_all;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;

use desk::Desk;

#[path = "support/desk.rs"]
mod desk;

const DEVICE: &str = "0123456789abcdef0123456789abcdef";
const KEY: &str = "fedcba9876543210fedcba9876543210";

struct Site {
    desk: Desk,
    _dir: TempDir,
}

/// A status, an ETag and a body.
type Answer = (u16, Option<String>, Value);

impl Site {
    /// A fleet with two releases and a device, and a user with a token.
    async fn open() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let desk = Desk::open(dir.path()).await;
        let fleet = desk.did(Method::POST, "/fleets", json!({ "name": "lab" })).await;
        for commit in ["aaaa1", "bbbb2"] {
            let image = format!("registry.example/web@sha256:{}", "a".repeat(64));
            let release = json!({
                "commit": commit, "composition": { "services": { "web": {} } }, "images": { "web": image },
            });
            desk.did(Method::POST, "/fleets/lab/releases", release).await;
        }
        let body = json!({ "application": 1, "uuid": DEVICE, "device_type": "board", "api_key": KEY });
        let register = desk.request(Method::POST, "/device/register").json(&body);
        let register = register.bearer_auth(fleet["provisioning_key"].as_str().unwrap());
        assert_eq!(register.send().await.unwrap().status(), StatusCode::CREATED);
        desk.did(Method::POST, "/users", json!({ "name": "anna" })).await;
        desk.did(Method::POST, "/tokens", json!({ "user": "anna", "role": "operator", "name": "own" })).await;
        Self { desk, _dir: dir }
    }

    async fn ask(&self, method: Method, path: &str, headers: &[(&str, &str)], body: Value) -> Answer {
        let mut request = self.desk.request(method, &format!("/api/v1{path}")).bearer_auth(&self.desk.token);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = if body.is_null() { request } else { request.json(&body) };
        let response = request.send().await.unwrap();
        let etag = response.headers().get("etag").map(|etag| etag.to_str().unwrap().to_owned());
        let status = response.status().as_u16();
        let text = response.text().await.unwrap();
        (status, etag, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    async fn etag(&self, path: &str) -> String {
        let (status, etag, answer) = self.ask(Method::GET, path, &[], Value::Null).await;
        assert_eq!(status, 200, "{path}: {answer}");
        etag.unwrap_or_else(|| panic!("{path} has no ETag: {answer}"))
    }
}

/// The acts that may have conditions, with the read that has the ETag of their thing; what deletes comes last.
fn acts() -> Vec<(Method, String, &'static str, Value)> {
    let device = format!("/devices/{DEVICE}");
    let of_device = |rest: &str| format!("{device}{rest}");
    let (fleet, user, token) = ("/fleets/lab", "/users/anna", "/tokens/own");
    let post = || Method::POST;
    vec![
        (post(), "/fleets/lab/pin".into(), fleet, json!({ "release": "aaaa" })),
        (post(), "/fleets/lab/track-latest".into(), fleet, json!({})),
        (Method::PATCH, "/fleets/lab".into(), fleet, json!({ "registry": "r.example" })),
        (post(), "/fleets/1/rename".into(), "/fleets/1", json!({ "name": "shed" })),
        (post(), "/fleets/1/rename".into(), "/fleets/1", json!({ "name": "lab" })),
        (post(), of_device("/pin"), "device", json!({ "release": "aaaa" })),
        (post(), of_device("/track-fleet"), "device", json!({})),
        (post(), of_device("/tags"), "device", json!({ "set": { "a": "b" } })),
        (post(), of_device("/rename"), "device", json!({ "name": "kitchen" })),
        (post(), of_device("/move"), "device", json!({ "fleet": "lab" })),
        (Method::PATCH, "/releases/bbbb2".into(), "/releases/bbbb2", json!({ "is_invalidated": true })),
        (post(), "/fleets/lab/variables".into(), "/variables?fleet=lab", json!({ "set": { "A": "1" } })),
        (post(), of_device("/variables"), "variables", json!({ "set": { "B": "1" }, "secret": true })),
        (post(), of_device("/variables"), "variables", json!({ "set": { "B": "2" } })),
        (post(), "/tokens/own/revoke".into(), token, json!({})),
        (post(), "/users/anna/disable".into(), user, json!({})),
        (post(), "/users/anna/enable".into(), user, json!({})),
        (Method::DELETE, "/releases/bbbb2".into(), "/releases/bbbb2", Value::Null),
        (Method::DELETE, device.clone(), "device", Value::Null),
        (post(), "/fleets/lab/delete".into(), fleet, json!({})),
    ]
}

#[tokio::test]
async fn an_act_on_another_state_than_the_expected_one_changes_nothing() {
    let site = Site::open().await;
    let mut done = BTreeSet::new();
    for (method, path, read, body) in acts() {
        let read = match read {
            "device" => format!("/devices/{DEVICE}"),
            "variables" => format!("/variables?device={DEVICE}"),
            other => other.to_owned(),
        };
        let before = site.etag(&read).await;
        let case = format!("{method} {path}");
        for (header, value) in [
            ("If-Match", "\"another\""),
            ("If-Match", &*format!("W/{before}")),
            ("If-None-Match", "*"),
            ("If-None-Match", &before),
        ] {
            let (status, etag, answer) =
                site.ask(method.clone(), &path, &[(header, value)], body.clone()).await;
            assert_eq!(
                (status, &answer["error"]["code"]),
                (412, &json!("precondition_failed")),
                "{case}: {answer}"
            );
            assert_eq!(answer["error"]["rule"], "not_as_expected", "{case}");
            assert_eq!(etag.as_ref(), Some(&before), "{case}: the answer says how it is");
            assert_eq!(site.etag(&read).await, before, "{case}");
        }
        for (header, value) in [("If-Match", "now"), ("If-None-Match", "")] {
            let (status, _, answer) = site.ask(method.clone(), &path, &[(header, value)], body.clone()).await;
            assert_eq!((status, &answer["error"]["code"]), (400, &json!("bad_request")), "{case}: {answer}");
        }
        let others = format!("\"other\", {before}");
        let (status, etag, answer) = site.ask(method.clone(), &path, &[("If-Match", &others)], body).await;
        assert_eq!(status, 200, "{case}: {answer}");
        let is_gone = method == Method::DELETE || path.ends_with("/delete");
        if !is_gone {
            assert_eq!(etag.unwrap(), site.etag(&read).await, "{case}: the answer has the new ETag");
            let is_change = !path.ends_with("/move") && !path.ends_with("/track-latest");
            assert!(!is_change || site.etag(&read).await != before, "{case}: the ETag changes");
        }
        let path = path.replace(DEVICE, "{device}").replace("/lab", "/{fleet}").replace("/1/", "/{fleet}/");
        let path = path.replace("bbbb2", "{release}").replace("anna", "{user}").replace("own", "{token}");
        done.insert((method.to_string(), path));
    }
    // Every operation that may have conditions was made.
    let document: Value = serde_json::from_str(include_str!("../docs/openapi-fleet.json")).unwrap();
    let condition = json!({ "$ref": "#/components/parameters/IfMatch" });
    let mut documented = BTreeSet::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let parameters = operation["parameters"].as_array();
            if method != "get" && parameters.is_some_and(|parameters| parameters.contains(&condition)) {
                documented.insert((method.to_uppercase(), path.trim_start_matches("/api/v1").to_owned()));
            }
        }
    }
    assert_eq!(done, documented);
    site.desk.close().await;
}

#[tokio::test]
async fn of_two_operators_at_once_one_acts_and_the_other_is_told() {
    let site = Site::open().await;
    let device = format!("/devices/{DEVICE}");
    // What is expected of a fleet and of a device is compared in the act itself, where no other act comes between.
    for (read, path) in [("/fleets/1", "/fleets/1/rename"), (&device, &format!("{device}/rename"))] {
        for round in 0..10 {
            let etag = site.etag(read).await;
            let renames =
                (0..8).map(|n| {
                    let name = format!("name-{round}-{n}");
                    let (etag, site) = (etag.clone(), &site);
                    async move {
                        site.ask(Method::POST, path, &[("If-Match", &etag)], json!({ "name": name })).await
                    }
                });
            let answers = join_all(renames).await;
            let done: Vec<_> = answers.iter().filter(|(status, ..)| *status == 200).collect();
            let told: Vec<_> = answers.iter().filter(|(status, ..)| *status == 412).collect();
            assert_eq!((done.len(), told.len()), (1, 7), "{path}: {answers:?}");
            assert!(told.iter().all(|(_, now, _)| *now == done[0].1), "each is told the state after the act");
        }
    }
    site.desk.close().await;
}

#[tokio::test]
async fn a_read_says_whether_something_was_decided_since() {
    let site = Site::open().await;
    let device = format!("/devices/{DEVICE}");
    let before = site.etag(&device).await;
    let fleet = site.etag("/fleets/lab").await;
    // What a device does is no decision of an operator.
    let poll = site.desk.request(Method::GET, &format!("/device/v3/{DEVICE}/state")).bearer_auth(KEY);
    assert_eq!(poll.send().await.unwrap().status(), StatusCode::OK);
    for (path, etag) in [(&*device, &before), ("/fleets/lab", &fleet)] {
        let answer = site.ask(Method::GET, path, &[("If-None-Match", etag)], Value::Null).await;
        assert_eq!((answer.0, answer.1.as_ref()), (304, Some(etag)), "{path}");
        assert_eq!(site.ask(Method::GET, path, &[("If-Match", etag)], Value::Null).await.0, 200);
        assert_eq!(site.ask(Method::GET, path, &[("If-Match", "\"no\"")], Value::Null).await.0, 412);
        assert_eq!(site.ask(Method::GET, path, &[("If-None-Match", "no")], Value::Null).await.0, 400);
    }
    // Another target of its fleet is one.
    site.desk.did(Method::POST, "/fleets/lab/pin", json!({ "release": "aaaa" })).await;
    assert_ne!(site.etag(&device).await, before);
    assert_eq!(site.ask(Method::GET, &device, &[("If-None-Match", &before)], Value::Null).await.0, 200);
    // A thing that does not exist is not found, whatever is expected of it.
    assert_eq!(site.ask(Method::GET, "/fleets/none", &[("If-Match", "*")], Value::Null).await.0, 404);
    site.desk.close().await;
}

#[tokio::test]
async fn a_condition_is_never_ignored() {
    let site = Site::open().await;
    for path in ["/fleets", "/devices/pin", "/users"] {
        let body = json!({ "name": "new", "filter": "a", "release": "aaaa" });
        let (status, _, answer) = site.ask(Method::POST, path, &[("If-Match", "*")], body).await;
        assert_eq!((status, &answer["error"]["remedy"]), (400, &json!("leave the header out")), "{answer}");
    }
    assert_eq!(site.desk.did(Method::GET, "/fleets", Value::Null).await.as_array().unwrap().len(), 1);
    site.desk.close().await;
}

/// Whoever may not see a secret value learns nothing about it from the ETag, but that it was changed.
#[tokio::test]
async fn the_etag_of_variables_says_nothing_about_secret_values() {
    let etags = |value: &'static str| async move {
        let site = Site::open().await;
        let body = json!({ "set": { "PASSWORD": value }, "secret": true });
        site.desk.did(Method::POST, "/fleets/lab/variables", body).await;
        let first = site.etag("/variables?fleet=lab").await;
        let body = json!({ "set": { "PASSWORD": "changed" } });
        site.desk.did(Method::POST, "/fleets/lab/variables", body).await;
        let second = site.etag("/variables?fleet=lab").await;
        site.desk.close().await;
        (first, second)
    };
    let (one, changed) = etags("one").await;
    assert_ne!(one, changed);
    assert_eq!(etags("two").await.0, one);
}

//! What a client of a real fleet server can make it keep, and how much of it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking"
)]

#[path = "support/desk.rs"]
mod desk;

use cotter::fleet::RawConfig;
use desk::Desk;
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

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

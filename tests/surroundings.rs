//! What the agent is told of the outside, as it is on this machine: its host, its engine and a registry.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::time::Duration;

use cotter::daemon::Host;
use cotter::engine::{Docker, DockerSettings, Inspect, Operate};
use cotter::http::Http;
use cotter::model::{Clock, ImageRef, Instance, RegistryPass, ServiceName, Window, WindowState};
use cotter::reconcile::Surroundings;
use support::Lab;
use tokio::sync::mpsc;

fn engine(lab: &Lab) -> Docker {
    Docker::new(DockerSettings {
        socket: lab.docker().socket().to_owned(),
        instance: Instance::parse(lab.instance("a")).unwrap(),
        services_dir: lab.dir().join("services"),
        stall_timeout: Duration::from_secs(30),
    })
}

#[tokio::test]
async fn an_image_weighs_what_its_registry_keeps_of_it_and_nothing_once_it_is_here() {
    let lab = Lab::new("weigh");
    let (host, engine) = (Host::new(lab.dir(), Http::new().unwrap(), None), engine(&lab));
    let image = ImageRef::parse(lab.image("r1")).unwrap();
    let machine = engine.about().await.unwrap().architecture;

    // Its layers, as the registry tells their sizes when it is asked for each.
    drop(rustls::crypto::ring::default_provider().install_default());
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let (registry, path) = image.repository().split_once('/').unwrap();
    let base = format!("http://{registry}/v2/{path}");
    let kind = "application/vnd.docker.distribution.manifest.v2+json";
    let url = format!("{base}/manifests/{}", image.digest().unwrap());
    let told = http.get(url).header("Accept", kind).send().await.unwrap().bytes().await.unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&told).unwrap();
    let mut stored = 0;
    for layer in manifest["layers"].as_array().unwrap() {
        let url = format!("{base}/blobs/{}", layer["digest"].as_str().unwrap());
        let blob = http.get(url).send().await.unwrap().bytes().await.unwrap();
        stored += blob.len() as u64;
    }
    assert!(stored > 1000, "{manifest}");

    let weight = host.weigh(&image, &machine).await.unwrap();
    let bytes: u64 = weight.missing(None).map(|(_, bytes)| bytes).sum();
    assert_eq!((bytes, weight.fits(&machine)), (stored, true));
    assert_eq!(weight.architectures, BTreeSet::from([machine.clone()]));
    engine.pull(&image, None, &RegistryPass::Nothing, mpsc::channel(1).0).await.unwrap();
    let here = engine.layers().await.unwrap();
    assert_eq!(weight.missing(Some(&here)).count(), 0, "all of it is here");

    let absent = image.at_digest(&format!("sha256:{}", "0".repeat(64))).unwrap();
    let error = host.weigh(&absent, &machine).await.unwrap_err();
    assert!(error.after.is_none() && error.why.contains("is not in its registry"), "{error:?}");
}

#[tokio::test]
async fn the_host_tells_of_itself() {
    let lab = Lab::new("host");
    let (host, engine) = (Host::new(lab.dir(), Http::new().unwrap(), None), engine(&lab));
    let root = engine.about().await.unwrap().data_root;
    assert!(host.free(&root).unwrap() > 0, "room in {root}");
    let listening = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listening.local_addr().unwrap().port();
    assert!(host.listeners().iter().any(|held| held.port == port && held.host_ip == "127.0.0.1"));
    assert!(host.uptime() > Duration::ZERO);
    let now = host.now();
    assert_eq!(host.clock(Some(&now)), Clock::Trusted);
    let Clock::Untrusted(why) = host.clock(Some("2999-01-01T00:00:00Z")) else { panic!("{now}") };
    assert!(why.contains("has shown 2999-01-01T00:00:00Z before"), "{why}");
    assert_eq!(host.window(&Window::parse("00:00-24:00").unwrap()), WindowState::Open);
    let web = ServiceName::parse("web").unwrap();
    host.prepare(7, &web).unwrap();
    host.take_locks(7, std::slice::from_ref(&web)).unwrap();
    assert!(host.has_own_locks(7) && host.lock(7, &web).is_none());
    assert!(lab.dir().join("services/7/web/updates.lock").is_file());
    host.release_locks(7);
    std::fs::create_dir(lab.dir().join("services/7/web/updates.lock")).unwrap();
    assert_eq!(host.lock(7, &web).unwrap().path, "/tmp/balena/updates.lock");
    let error = host.take_locks(7, std::slice::from_ref(&web)).unwrap_err();
    assert_eq!(error, "web has locked updates with /tmp/balena/updates.lock");
    std::fs::write(lab.dir().join("services/7/web/handover-complete"), "").unwrap();
    assert!(host.has_handed_over(7, &web));
    host.forget_hand_over(7, &web);
    assert!(!host.has_handed_over(7, &web));
}

//! What the agent learns about the outside, as it is on this machine: its host, its engine and a registry.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::time::Duration;

use cotter::daemon::Host;
use cotter::engine::{Docker, DockerSettings, Inspect, Operate};
use cotter::http::Http;
use cotter::model::{
    Clock, ImageRef, Instance, Mount, MountOptions, MountSource, Policy, RegistryPass, ServiceName,
    ServiceSpec, SpecHash, Switch, Window, WindowState,
};
use cotter::reconcile::{HostAccess, MountedPath};
use support::Lab;
use tokio::sync::{mpsc, watch};

fn engine(lab: &Lab) -> Docker {
    Docker::new(DockerSettings {
        socket: lab.docker().socket().to_owned(),
        instance: Instance::parse(lab.instance("a")).unwrap(),
        services_dir: lab.dir().join("services"),
        stall_timeout: Duration::from_secs(30),
    })
}

#[tokio::test]
async fn the_size_of_an_image_is_what_its_registry_keeps_and_nothing_once_it_is_pulled() {
    let lab = Lab::new("image-size");
    let (host, engine) = (
        Host::new(lab.dir(), Http::new().unwrap(), watch::Sender::new(None).subscribe(), Policy::default()),
        engine(&lab),
    );
    let image = ImageRef::parse(lab.image("r1")).unwrap();
    let machine = engine.about().await.unwrap().architecture;

    // Its layers, as the registry tells their sizes when it is asked for each.
    drop(rustls::crypto::ring::default_provider().install_default());
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let (registry, path) = image.repository().split_once('/').unwrap();
    let base = format!("http://{registry}/v2/{path}");
    let kind = "application/vnd.docker.distribution.manifest.v2+json";
    let url = format!("{base}/manifests/{}", image.digest().unwrap());
    let output = http.get(url).header("Accept", kind).send().await.unwrap().bytes().await.unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&output).unwrap();
    let mut stored = 0;
    for layer in manifest["layers"].as_array().unwrap() {
        let url = format!("{base}/blobs/{}", layer["digest"].as_str().unwrap());
        let blob = http.get(url).send().await.unwrap().bytes().await.unwrap();
        stored += blob.len() as u64;
    }
    assert!(stored > 1000, "{manifest}");

    let size = host.measure_image(&image, &machine).await.unwrap();
    let bytes: u64 = size.missing(None).map(|(_, bytes)| bytes).sum();
    assert_eq!((bytes, size.fits(&machine)), (stored, true));
    assert_eq!(size.architectures, BTreeSet::from([machine.clone()]));
    engine.pull(&image, None, &RegistryPass::Nothing, mpsc::channel(1).0).await.unwrap();
    let here = engine.layers().await.unwrap();
    assert_eq!(size.missing(Some(&here)).count(), 0, "all of it is here");

    let absent = image.at_digest(&format!("sha256:{}", "0".repeat(64))).unwrap();
    let error = host.measure_image(&absent, &machine).await.unwrap_err();
    assert!(error.after.is_none() && error.why.contains("is not in its registry"), "{error:?}");
}

#[tokio::test]
async fn the_host_tells_of_itself() {
    let lab = Lab::new("host");
    let (host, engine) = (
        Host::new(lab.dir(), Http::new().unwrap(), watch::Sender::new(None).subscribe(), Policy::default()),
        engine(&lab),
    );
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
    assert_eq!(error.to_string(), "web has locked updates with /tmp/balena/updates.lock");
    std::fs::write(lab.dir().join("services/7/web/handover-complete"), "").unwrap();
    assert!(host.has_handed_over(7, &web));
    host.forget_hand_over(7, &web);
    assert!(!host.has_handed_over(7, &web));
}

/// The owner's policy, on what this machine has.
#[tokio::test]
async fn a_strict_owner_keeps_paths_and_networks_of_this_machine() {
    let lab = Lab::new("owner");
    let own = |name: &str| lab.dir().join(name).display().to_string();
    std::fs::create_dir(own("srv")).unwrap();
    std::os::unix::fs::symlink("/var/run/docker.sock", own("srv/socket")).unwrap();
    std::os::unix::fs::symlink("/etc", own("srv/etc")).unwrap();
    let with = |paths: &str, allowed: &[Switch]| {
        let host_paths = vec![paths.to_owned()];
        Host::new(
            lab.dir(),
            Http::new().unwrap(),
            watch::Sender::new(None).subscribe(),
            Policy { host_paths, allowed: allowed.to_vec(), ..Policy::strict() },
        )
    };
    let mounting = |path: &str| {
        let image = ImageRef::parse("r.example/a:1").unwrap();
        let source = MountSource::Host(path.to_owned());
        let mount =
            Mount { source, target: "/x".into(), is_read_only: true, options: MountOptions::default() };
        ServiceSpec { mounts: vec![mount], ..ServiceSpec::bare(SpecHash::from_sha256(1, [1; 32]), image) }
    };
    let none = BTreeMap::new();
    let srv = own("srv");
    let strict = with(&srv, &[]);
    let bound = strict.resolve_mounts(&mounting(&srv), &none).await.unwrap();
    let real = std::fs::canonicalize(&srv).unwrap().display().to_string();
    let bound: Vec<_> =
        bound.into_iter().map(|MountedPath { path, is_writable, .. }| (path, is_writable)).collect();
    assert_eq!(bound, [(real, false)]);
    let out = strict.resolve_mounts(&mounting(&own("srv/etc")), &none).await.unwrap_err().to_string();
    assert!(out.contains("leads to \"/etc\" on this device by the link"), "{out}");
    let all = with("/", &[]);
    assert_eq!(
        all.resolve_mounts(&mounting(&own("srv/etc")), &none).await,
        Ok(Vec::new()),
        "nothing is out of it"
    );
    let socket = all.resolve_mounts(&mounting(&own("srv/socket")), &none).await.unwrap_err().to_string();
    assert!(socket.contains("policy.docker_socket = \"no\" keeps from releases"), "{socket}");
    let open = with("/", &[Switch::DockerSocket]);
    assert_eq!(open.resolve_mounts(&mounting(&own("srv/socket")), &none).await, Ok(Vec::new()));

    let Some(route) = cotter::host::routes().into_iter().next() else {
        println!("this machine is on no network");
        return;
    };
    let why = strict.check_ranges(std::slice::from_ref(&route.range)).unwrap_err().to_string();
    assert!(why.contains(&format!("those of this device's {} ({})", route.what, route.range)), "{why}");
    assert_eq!(with("/", &[Switch::HostNetwork]).check_ranges(&[route.range]), Ok(()));
}

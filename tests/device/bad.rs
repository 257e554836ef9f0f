//! Releases that cannot run here: each ends with the old one running, and a reason that an operator,
//! the journal and the cloud can read.

use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::support::{Agent, FakeCloud, Lab, eventually};
use crate::{app, service, until_done, uuid};

/// What is told of `reason` in the status.
#[track_caller]
fn told(agent: &Agent<'_>, reason: &str) -> String {
    eventually(&format!("the status says {reason}"), Duration::from_secs(40), || {
        let waiting = agent.told("/waiting");
        let entry = waiting.as_array()?.iter().find(|w| w["reason"] == reason)?.clone();
        Some(entry["why"].as_str()?.to_owned())
    })
}

#[test]
fn a_release_that_cannot_run_here_leaves_the_old_one_alone() {
    let lab = Lab::new("bad");
    let cloud = FakeCloud::start();
    let target = |commit: &str, web: Value| {
        cloud.target(commit, &json!({ uuid(1): app(1, "shop", commit, &[("web", web)]) }));
    };
    target("one", service(lab.image("r1"), json!({})));
    let mut agent = Agent::prepare(&lab, &cloud.url, &cloud.fleet(&lab), "till");
    agent.start_again();
    agent.until_serves("web", "one", "r1");
    until_done(&agent, "one");
    let before = agent.standing();
    let pulls = || agent.log().matches("step=pull").count();
    let pulled = pulls();

    // A port that a program of the host holds; it clears by itself.
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = holder.local_addr().unwrap().port();
    let publishes = json!({ "ports": [format!("127.0.0.1:{port}:8080")] });
    target("port", service(lab.image("r2"), publishes));
    let why = told(&agent, "port_in_use");
    assert!(why.starts_with(&format!("host port {port} is held by ")), "{why}");
    agent.until_polled(2);
    assert_eq!((agent.standing(), pulls()), (before.clone(), pulled), "nothing was pulled or stopped");
    drop(holder);
    agent.until_serves("web", "port", "r2");
    until_done(&agent, "port");
    // The next release of the same port: its predecessor gives way.
    let publishes = json!({ "ports": [format!("127.0.0.1:{port}:8080")] });
    target("port-again", service(lab.image("r3"), publishes));
    agent.until_serves("web", "port-again", "r3");
    until_done(&agent, "port-again");

    // A device that is not there: it does not start, and is taken back.
    target("device", service(lab.image("r1"), json!({ "devices": ["/dev/not-there:/dev/x"] })));
    let why = told(&agent, "rejected");
    assert!(why.contains("web does not start") && why.contains("/dev/not-there"), "{why}");
    agent.until_serves("web", "port-again", "r3");
    assert_eq!(agent.told("/apps/0/update"), "rejected");
    assert!(agent.log().contains("step=reject"), "{}", agent.log());

    // One that exits at once.
    target("exits", service(lab.image("exit"), json!({ "restart": "no" })));
    let why = told(&agent, "rejected");
    assert!(why.contains("release exits was tried and taken back: web exited with code 1"), "{why}");
    agent.until_serves("web", "port-again", "r3");

    // An image for another machine.
    let before = agent.standing();
    let pulled = pulls();
    target("foreign", service(&foreign_image(&lab), json!({})));
    let why = told(&agent, "wrong_architecture");
    assert!(why.contains("is made for riscv64, and this device is "), "{why}");
    agent.until_polled(2);
    assert_eq!((agent.standing(), pulls()), (before, pulled), "nothing was pulled or stopped");
}

#[test]
fn a_release_larger_than_the_disk_is_told_with_its_numbers() {
    let lab = Lab::new("disk");
    let cloud = FakeCloud::start();
    let target = |commit: &str, image: &str| {
        let web = service(lab.image(image), json!({}));
        cloud.target(commit, &json!({ uuid(1): app(1, "shop", commit, &[("web", web)]) }));
    };
    target("one", "r1");
    let mut agent = Agent::prepare(&lab, &cloud.url, &cloud.fleet(&lab), "till");
    agent.start_again();
    agent.until_serves("web", "one", "r1");
    until_done(&agent, "one");
    agent.stop();
    let before = agent.standing();
    // As if the disk were full: more is kept back than there is. The image must not share its layers with
    // those that are here.
    agent.set("update.disk_reserve=1TiB");
    agent.start_again();
    let web = service(&large_image(&lab), json!({}));
    cloud.target("two", &json!({ uuid(1): app(1, "shop", "two", &[("web", web)]) }));
    let why = told(&agent, "insufficient_disk");
    assert!(why.contains("release needs 1 MiB (1 MiB compressed, times 3)"), "{why}");
    assert!(why.contains("of which 1048576 MiB are kept back"), "{why}");
    agent.until_polled(2);
    assert_eq!(agent.standing(), before);
    assert!(!agent.log().contains("step=pull\u{1b}") && agent.log().matches("step=pull").count() == 1);
}

/// An image in the registry that says it is made for riscv64: r4's, with another config.
fn foreign_image(lab: &Lab) -> String {
    altered_image(lab, |config| config["architecture"] = "riscv64".into())
}

/// An image in the registry of which no layer is known to the engine.
fn large_image(lab: &Lab) -> String {
    altered_image(lab, |config| {
        for layer in config["rootfs"]["diff_ids"].as_array_mut().unwrap() {
            *layer = format!("sha256:{}", "ab".repeat(32)).into();
        }
    })
}

fn altered_image(lab: &Lab, alter: impl Fn(&mut Value)) -> String {
    let registry = &lab.parts.registry;
    let digest = lab.image("r4").split_once('@').unwrap().1;
    let kinds = "application/vnd.docker.distribution.manifest.v2+json";
    let accept = format!("Accept: {kinds}\r\n");
    let manifest = send(registry, "GET", &format!("/v2/demo/app/manifests/{digest}"), &accept, b"").1;
    let mut manifest: Value = serde_json::from_slice(&manifest).unwrap();
    let config = manifest["config"]["digest"].as_str().unwrap().to_owned();
    let config = send(registry, "GET", &format!("/v2/demo/app/blobs/{config}"), "", b"").1;
    let mut config: Value = serde_json::from_slice(&config).unwrap();
    alter(&mut config);
    let config = serde_json::to_vec(&config).unwrap();
    let digest = sha256(&config);
    let (head, _) = send(registry, "POST", "/v2/demo/app/blobs/uploads/", "", b"");
    let place = head.lines().find_map(|l| l.strip_prefix("Location: ")).expect("a place to upload to").trim();
    let path = place.split_once(registry.as_str()).map_or(place, |(_, path)| path);
    let (head, _) = send(registry, "PUT", &format!("{path}&digest={digest}"), "", &config);
    assert!(head.starts_with("HTTP/1.1 201"), "{head}");
    (manifest["config"]["digest"], manifest["config"]["size"]) = (digest.into(), config.len().into());
    let manifest = serde_json::to_vec(&manifest).unwrap();
    let digest = sha256(&manifest);
    let kind = format!("Content-Type: {kinds}\r\n");
    let (head, _) = send(registry, "PUT", &format!("/v2/demo/app/manifests/{digest}"), &kind, &manifest);
    assert!(head.starts_with("HTTP/1.1 201"), "{head}");
    format!("{registry}/demo/app@{digest}")
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold("sha256:".to_owned(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

/// One request to the registry; the answer's head and body.
fn send(address: &str, method: &str, path: &str, headers: &str, body: &[u8]) -> (String, Vec<u8>) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n").expect("a whole head");
    (String::from_utf8_lossy(&answer[..end]).into_owned(), answer[end + 4..].to_vec())
}

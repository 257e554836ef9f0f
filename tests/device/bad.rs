//! Releases that cannot run here: each ends with the old one running, and a reason that an operator,
//! the journal and the cloud can read.

use std::net::TcpListener;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Agent, FakeCloud, Lab, eventually};
use crate::{app, service, until_done, uuid};

/// Waits until the status has a wait for `reason`, and returns its explanation.
#[track_caller]
pub(crate) fn why_waiting(agent: &Agent<'_>, reason: &str) -> String {
    eventually(&format!("the status says {reason}"), Duration::from_secs(40), || {
        let waiting = agent.status_value("/waiting");
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
    let pulls = || agent.log().matches("what=pull ").count();
    let pulled = pulls();

    // A port that a program of the host holds; it clears by itself.
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = holder.local_addr().unwrap().port();
    let publishes = json!({ "ports": [format!("127.0.0.1:{port}:8080")] });
    target("port", service(lab.image("r2"), publishes));
    let why = why_waiting(&agent, "port_in_use");
    assert!(why.starts_with(&format!("host port {port} is in use by ")), "{why}");
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

    // A device and a kernel setting that are not there: nothing stops.
    let standing = agent.standing();
    let needs = json!({ "devices": ["/dev/not-there:/dev/x"], "sysctls": { "net.foo.bar": "1" } });
    target("device", service(lab.image("r1"), needs));
    let why = why_waiting(&agent, "host_lacks");
    assert!(why == "/dev/not-there is not there" || why == "this kernel has no setting net.foo.bar", "{why}");
    agent.until_polled(2);
    assert_eq!(agent.standing(), standing);

    // A container that the engine will never create: nothing stops, and it is asked for once.
    target("runtime", service(lab.image("r1"), json!({ "cpuset": "4000" })));
    let why = why_waiting(&agent, "rejected");
    assert!(
        why.contains("web cannot be created") && why.contains("Requested CPUs are not available"),
        "{why}"
    );
    agent.until_polled(2);
    assert_eq!(agent.log().matches("what=create web@runtime").count(), 1, "{}", agent.log());
    assert_eq!(agent.standing(), standing);

    // A user that the image does not have: only a start shows it, so it is taken back.
    target("user", service(lab.image("r1"), json!({ "user": "nobody2" })));
    agent.until_status("/waiting", "release user was rejected: web does not start");
    assert!(why_waiting(&agent, "rejected").contains("nobody2"));
    agent.until_serves("web", "port-again", "r3");
    assert_eq!(agent.status_value("/apps/0/update"), "rejected");
    assert!(agent.log().contains("what=reject user: web does not start"), "{}", agent.log());

    // One that exits at once.
    target("exits", service(lab.image("exit"), json!({ "restart": "no" })));
    agent.until_status("/waiting", "release exits was rejected: web exited with code 1");
    agent.until_serves("web", "port-again", "r3");

    // An image for another machine.
    let before = agent.standing();
    let pulled = pulls();
    target(
        "foreign",
        service(&lab.altered_image("r4", |config| config["architecture"] = "riscv64".into()), json!({})),
    );
    let why = why_waiting(&agent, "wrong_architecture");
    assert!(why.contains("is made for riscv64, and this device is "), "{why}");
    agent.until_polled(2);
    assert_eq!((agent.standing(), pulls()), (before, pulled), "nothing was pulled or stopped");
}

/// Makes every layer of an image one that no engine knows.
fn unknown(config: &mut Value) {
    for layer in config["rootfs"]["diff_ids"].as_array_mut().unwrap() {
        *layer = format!("sha256:{}", "ab".repeat(32)).into();
    }
}

#[test]
fn a_release_larger_than_the_disk_is_reported_with_its_numbers() {
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
    let (before, pulled) = (agent.standing(), agent.log().matches("what=pull ").count());
    // As if the disk were full: more is kept back than there is. The image must not share its layers with
    // those that are here.
    agent.set("update.disk_reserve=1TiB");
    agent.start_again();
    let web = service(&lab.altered_image("r4", unknown), json!({}));
    cloud.target("two", &json!({ uuid(1): app(1, "shop", "two", &[("web", web)]) }));
    let why = why_waiting(&agent, "insufficient_disk");
    assert!(why.starts_with("release needs ") && why.contains(" MiB compressed, times 3), "), "{why}");
    assert!(why.ends_with(" MiB are free on the engine's disk, of which 1048576 MiB are reserved"), "{why}");
    agent.until_polled(2);
    assert_eq!(agent.standing(), before);
    assert_eq!(agent.log().matches("what=pull ").count(), pulled, "no byte was fetched");
}

#[test]
fn a_volume_that_is_here_is_not_made_anew() {
    let lab = Lab::new("volume");
    let cloud = FakeCloud::start();
    let target = |commit: &str, image: &str, config: Value| {
        let web = service(lab.image(image), json!({}));
        let mut shop = app(1, "shop", commit, &[("web", web)]);
        shop["releases"][commit]["volumes"] = json!({ "data": config });
        let till = app(2, "till", commit, &[("pay", service(lab.image(image), json!({})))]);
        cloud.target(commit, &json!({ uuid(1): shop, uuid(2): till }));
    };
    let small = |size: &str| json!({ "driver_opts": { "type": "tmpfs", "device": "tmpfs", "o": size } });
    target("one", "r1", small("size=1m"));
    let mut agent = Agent::prepare(&lab, &cloud.url, &cloud.fleet(&lab), "till");
    agent.start_again();
    agent.until_serves("web", "one", "r1");
    let before = agent.service("web").unwrap().standing();
    target("two", "r2", small("size=2m"));
    agent.until_serves("pay", "two", "r2");
    let why = why_waiting(&agent, "refused");
    let name = format!("{}_1_data", agent.instance());
    assert!(
        why.starts_with("volumes.data: the volume exists with driver local and the options device, o"),
        "{why}"
    );
    assert!(why.ends_with(&format!("docker volume rm {name}")), "{why}");
    agent.until_polled(2);
    assert_eq!(agent.service("web").unwrap().standing(), before, "it stays as it is");
    // Another name is another volume.
    let mut web = service(lab.image("r2"), json!({}));
    web["composition"]["volumes"] = json!(["data2:/data"]);
    let mut shop = app(1, "shop", "three", &[("web", web)]);
    shop["releases"]["three"]["volumes"] = json!({ "data2": small("size=2m") });
    let till = app(2, "till", "two", &[("pay", service(lab.image("r2"), json!({})))]);
    cloud.target("three", &json!({ uuid(1): shop, uuid(2): till }));
    agent.until_serves("web", "three", "r2");
    lab.docker().run(&["volume", "inspect", &name]);
}

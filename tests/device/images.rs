//! Images that cannot be had: the running release stays, and the status says why and when again.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{
    Agent, FakeCloud, Instead, Lab, Question, RegistryProxy, eventually, metrics, unix_get,
};
use crate::{app, bad, postponed, service, until_done, uuid};

/// Makes the cloud ask for the release `commit` of the app `shop`, whose service `web` has this image.
fn offer(cloud: &FakeCloud, commit: &str, image: &str) {
    let apps = app(1, "shop", commit, &[("web", service(image, json!({})))]);
    cloud.target(commit, &json!({ uuid(1): apps }));
}

#[test]
fn an_image_that_cannot_be_pulled_leaves_the_running_release_alone() {
    let lab = Lab::new("images");
    let cloud = FakeCloud::start();
    let target = |commit: &str, image: &str| offer(&cloud, commit, image);
    target("one", lab.image("r1"));
    let mut agent = Agent::prepare(&lab, &cloud.url, &cloud.fleet(&lab), "till");
    agent.set("update.stall_timeout=5s");
    agent.start_again();
    agent.until_serves("web", "one", "r1");
    until_done(&agent, "one");
    let before = agent.standing();
    let digest = format!("sha256:{}", "0".repeat(64));

    // Not in the registry: a person must act, so it is long until the next try.
    let missing = format!("{}/demo/app@{digest}", lab.parts.registry);
    target("missing", &missing);
    let (why, again) = postponed(&agent, "is not in its registry");
    assert!(why.contains(&missing) && why.contains("failed once"), "{why}");
    assert!((30..=80).contains(&again), "again in {again} s");
    assert_eq!(agent.status_value("/apps/0/update"), "downloading");
    assert_eq!(agent.status_value("/apps/0/current"), "one");
    let shown = String::from_utf8_lossy(&agent.cli(&["status"]).stdout).into_owned();
    let short = missing.replace(&"0".repeat(64), "00000000");
    // It is a moment later than the answer above.
    let next = [again, again - 1].map(|s| if s < 60 { format!("in {s} s") } else { "in 1 min".to_owned() });
    assert!(shown.contains(&short) && next.iter().any(|next| shown.contains(next)), "{shown}");
    agent.until_polled(2);
    assert_eq!(agent.log().matches("step failed").count(), 1, "{}", agent.log());
    assert_eq!(agent.standing(), before);

    // A registry that is down: it passes, so it is tried again soon, and then less often.
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let dead = format!("{}/demo/app@{digest}", free.local_addr().unwrap());
    drop(free);
    target("dead", &dead);
    let begun = Instant::now();
    let (why, again) = postponed(&agent, "cannot be reached");
    assert!(why.contains(&dead), "{why}");
    assert!(again <= 3, "again in {again} s");
    let (_, again) = postponed(&agent, "failed 3 times");
    assert!((2..=6).contains(&again), "again in {again} s");
    let gone = begun.elapsed();
    assert!(gone > Duration::from_secs(2), "three tries within {gone:?}");
    assert_eq!(agent.standing(), before);

    // A registry that answers nothing at all: given up after the stall timeout, not after minutes.
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = format!("{}/demo/app@{digest}", mute.local_addr().unwrap());
    target("silent", &silent);
    let (why, _) = postponed(&agent, "made no progress for 5 s");
    assert!(why.contains(&silent), "{why}");
    assert_eq!(agent.standing(), before);
    // It stops at once while a pull hangs.
    eventually("it pulls again", Duration::from_secs(60), || {
        let waiting = agent.status_value("/waiting");
        waiting.as_array()?.iter().any(|w| w["reason"] == "downloading").then_some(())
    });
    let begun = Instant::now();
    assert!(agent.stop().success());
    assert!(begun.elapsed() < Duration::from_secs(12), "it took {:?}", begun.elapsed());
    agent.start_again();

    // A target that can be had is not made to wait for any of them.
    target("two", lab.image("r2"));
    agent.until_serves("web", "two", "r2");
    until_done(&agent, "two");
}

/// Layers that are here already once counted as much as those to come, so that the first second showed 100 %.
#[test]
fn the_progress_of_a_download_is_by_its_bytes() {
    let lab = Lab::new("progress");
    let cloud = FakeCloud::start();
    offer(&cloud, "one", lab.image("r1"));
    let mut agent = Agent::prepare(&lab, &cloud.url, &cloud.fleet(&lab), "till");
    agent.start_again();
    until_done(&agent, "one");

    let registry = RegistryProxy::start(&lab);
    let is_layer = |q: &Question| q.agent.starts_with("docker/") && q.line.contains("/blobs/");
    registry.answer(move |question| is_layer(question).then_some(Instead::Slow(2 << 20)));
    let (image, bytes) = lab.grown_image("r1", 6 << 20);
    offer(&cloud, "two", &registry.image(&image));
    let (mut seen, mut shown, mut page) = (Vec::new(), String::new(), String::new());
    eventually("its download", Duration::from_secs(60), || {
        let download = agent.status_value("/download");
        let has_rate = download["left_s"].is_u64() && download["rate"].as_u64() > Some(0);
        if has_rate && shown.is_empty() {
            shown = String::from_utf8_lossy(&agent.cli(&["status"]).stdout).into_owned();
            page = metrics::Page::read(&unix_get(&agent.status_socket(), "/v1/metrics").unwrap().body).text;
        }
        if !download.is_null() && seen.last() != Some(&download) {
            seen.push(download);
        }
        (agent.status_value("/apps/0/current") == "two").then_some(())
    });
    until_done(&agent, "two");
    let progress: Vec<_> = seen.iter().filter_map(|download| download["progress"].as_u64()).collect();
    let fetched: Vec<_> = seen.iter().filter_map(|download| download["fetched_bytes"].as_u64()).collect();
    assert!(progress.is_sorted() && fetched.is_sorted(), "{seen:#?}");
    assert!(fetched.iter().all(|fetched| *fetched <= bytes as u64), "{seen:#?}");
    assert!(progress.iter().filter(|percent| (1..50).contains(*percent)).count() >= 3, "{seen:#?}");
    let sizes = seen.iter().filter_map(|download| download["total_bytes"].as_u64());
    assert!(sizes.clone().count() > 0 && sizes.clone().all(|size| size == bytes as u64), "{seen:#?}");
    assert!(shown.contains(" of 6.0 MiB, ") && shown.contains(" left"), "{shown}");
    let figures =
        [format!("cotter_download_size_bytes {bytes}\n"), "cotter_download_progress_ratio 0.".to_owned()];
    assert!(figures.iter().all(|figure| page.contains(figure)), "{page}");
    let web = &agent.status_value("/apps/0/services/0");
    assert!(web["for_s"].is_u64() && web["detail"].as_str().unwrap().starts_with("Up "), "{web}");
}

/// A layer that is no archive was once taken for a registry that cannot be reached, and fetched for ever.
#[test]
fn an_image_that_no_engine_can_unpack_is_given_up_after_three_downloads() {
    let lab = Lab::new("torn");
    let cloud = FakeCloud::start();
    let target = |commit: &str, image: &str| offer(&cloud, commit, image);
    target("one", lab.image("r1"));
    let mut agent = Agent::prepare(&lab, &cloud.url, &cloud.fleet(&lab), "till");
    agent.start_again();
    agent.until_serves("web", "one", "r1");
    until_done(&agent, "one");
    let before = agent.standing();

    let registry = RegistryProxy::start(&lab);
    let torn = registry.image(&lab.torn_image(2 << 20));
    target("torn", &torn);
    let why = bad::why_waiting(&agent, "download_given_up");
    assert!(
        why.contains("6 MiB were fetched, and it needs 2 MiB") && why.contains("invalid tar header"),
        "{why}"
    );
    let layers = || {
        let is_layer = |q: &Question| q.agent.starts_with("docker/") && q.line.contains("/blobs/");
        registry.questions().iter().filter(|q| is_layer(q)).count()
    };
    let asked = layers();
    let explained = String::from_utf8_lossy(&agent.cli(&["explain"]).stdout).into_owned();
    assert!(explained.contains("download_given_up") && explained.contains("`cotter retry`"), "{explained}");
    // It is remembered.
    assert!(agent.stop().success());
    agent.start_again();
    bad::why_waiting(&agent, "download_given_up");
    agent.until_polled(2);
    assert_eq!((layers(), agent.standing()), (asked, before.clone()), "it is not asked for again");
    // An operator tries again.
    assert!(agent.order(&["retry"]).0);
    bad::why_waiting(&agent, "backoff");
    assert!(layers() > asked);
    assert_eq!(agent.standing(), before);
}

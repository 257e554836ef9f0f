//! A cloud that says odd things.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Agent, FakeCloud, Lab, Reply, eventually};
use crate::{app, service, until_done, uuid};

/// Everything in a folder, as text.
fn all_text(dir: &std::path::Path) -> String {
    let mut text = String::new();
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        if entry.path().is_dir() {
            text += &all_text(&entry.path());
        } else {
            text += &String::from_utf8_lossy(&std::fs::read(entry.path()).unwrap());
        }
    }
    text
}

#[test]
fn a_malformed_target_is_left_aside() {
    let lab = Lab::new("malformed");
    let cloud = FakeCloud::start();
    let one = json!({ uuid(1): app(1, "shop", "one", &[("web", service(lab.image("r1"), json!({})))]) });
    cloud.target("one", &one);
    let mut agent = Agent::prepare(&lab, &cloud.url, &cloud.fleet(&lab), "till");
    agent.start_again();
    agent.until_serves("web", "one", "r1");
    until_done(&agent, "one");
    let before = agent.standing();

    let (headers, body) = (vec![("ETag", "\"bad\"".to_owned())], " ".repeat(9 * 1024 * 1024));
    cloud.say(Reply { status: 200, headers, body });
    agent.until_status("/cloud/error", "its answer has more than 8388608 bytes and is not read");

    let of_ours = |inner: &str| format!("{{\"UUID\":{inner}}}");
    for (body, why) in [
        ("{\"marker-of-a-bad-body".to_owned(), "the body is not valid JSON"),
        ("<html>marker-of-a-bad-body</html>".to_owned(), "the body is not valid JSON"),
        ("[\"marker-of-a-bad-body\"]".to_owned(), "the body is not an object"),
        ("{\"marker-of-a-bad-body\":{}}".to_owned(), "the body does not name "),
        (
            "{\"UUID\":{\"name\":\"x\"},\"marker-of-a-bad-body\":{\"name\":\"x\"}}".to_owned(),
            "the body names 2 devices",
        ),
        (of_ours("{\"name\":\"x\",\"apps\":\"marker-of-a-bad-body\"}"), "at \"apps\""),
        (of_ours("{\"name\":\"x\",\"apps\":{\"marker-of-a-bad-body \\u0007\":{}}}"), "at \"apps."),
        (of_ours("{\"apps\":{},\"config\":{\"marker-of-a-bad-body\":\"\"}}"), "missing field `name`"),
    ] {
        cloud.say(Reply { status: 200, headers: vec![("ETag", "\"bad\"".to_owned())], body });
        let output = agent.until_status("/cloud/error", why);
        assert!(output.starts_with("its target was ignored, and the last one stays in force: "), "{output}");
        // It is asked for again, and never taken for known.
        for poll in cloud.next_polls(2) {
            assert_eq!(poll.etag.as_deref(), Some("\"one\""));
        }
    }
    assert_eq!(agent.standing(), before);
    assert_eq!(agent.status_value("/apps/0/current"), "one");
    // The same trouble is logged once, not at every poll.
    assert_eq!(agent.log().matches("target of the cloud cannot be read").count(), 8, "{}", agent.log());

    // Nothing of it is in the store, and the store still has the one before.
    agent.stop();
    let kept = all_text(&agent.state_dir());
    assert!(kept.contains("shop") && !kept.contains("marker-of-a-bad-body"));
    agent.start_again();
    agent.until_status("/cloud/error", "was ignored");
    until_done(&agent, "one");
    assert_eq!(agent.standing(), before);

    // A body that can be read again ends it.
    cloud.target(
        "two",
        &json!({ uuid(1): app(1, "shop", "two", &[("web", service(lab.image("r2"), json!({})))]) }),
    );
    agent.until_serves("web", "two", "r2");
    until_done(&agent, "two");
    assert_eq!(agent.status_value("/cloud/error"), Value::Null);
}

#[test]
fn a_refused_app_stays_as_it_is_and_others_go_on() {
    let lab = Lab::new("refused");
    let cloud = FakeCloud::start();
    let web = |release: &str, more: Value| service(lab.image(release), more);
    let good = |commit: &str, release: &str| app(1, "shop", commit, &[("web", web(release, json!({})))]);
    let other = |commit: &str, release: &str, more| app(2, "desk", commit, &[("page", web(release, more))]);
    cloud.target("1", &json!({ uuid(1): good("one", "r1"), uuid(2): other("uno", "r1", json!({})) }));
    let mut agent = Agent::prepare(&lab, &cloud.url, &cloud.fleet(&lab), "till");
    agent.start_again();
    agent.until_serves("web", "one", "r1");
    let page = agent.until_serves("page", "uno", "r1");
    eventually("both are good", Duration::from_secs(20), || {
        let good = (agent.status_value("/apps/0/current"), agent.status_value("/apps/1/current"));
        (good == (json!("one"), json!("uno"))).then_some(())
    });

    cloud.target(
        "2",
        &json!({ uuid(1): good("two", "r2"), uuid(2): other("due", "r2", json!({ "isolation": "hyperv" })) }),
    );
    agent.until_serves("web", "two", "r2");
    let why = eventually("the status has the refusal", Duration::from_secs(10), || {
        let waiting = agent.status_value("/waiting");
        let entry = waiting.as_array()?.iter().find(|w| w["reason"] == "refused")?.clone();
        Some((entry["app"].as_str()?.to_owned(), entry["why"].as_str()?.to_owned()))
    });
    assert_eq!(why.0, uuid(2));
    assert!(why.1.contains("services.page.composition.isolation"), "{why:?}");
    assert!(why.1.contains("remove it"), "a remedy: {why:?}");
    agent.until_polled(2);
    assert_eq!(agent.service("page").unwrap().standing(), page.standing());
    let desk = agent.status_value("/apps/1");
    assert_eq!(
        (&desk["current"], &desk["target"], &desk["update"]),
        (&json!("uno"), &json!("due"), &json!("rejected"))
    );
    // An image of the refused app's running release may be needed again: it stays.
    lab.docker().run(&["image", "inspect", lab.image("r1")]);

    // A target that names no app touches nothing.
    let before = agent.standing();
    cloud.target("3", &json!({}));
    cloud.next_polls(3);
    assert_eq!(agent.standing(), before);
    assert!(!agent.log().contains("unsafe plan"), "nor is it planned: {}", agent.log());

    // An entry without a release stops that app only; the other's entry is refused and it stays.
    let nothing = json!({ "id": 1, "name": "shop", "class": "fleet" });
    cloud.target(
        "4",
        &json!({ uuid(1): nothing, uuid(2): other("due", "r2", json!({ "isolation": "hyperv" })) }),
    );
    eventually("the app without release is gone", Duration::from_secs(15), || {
        agent.service("web").is_none().then_some(())
    });
    assert_eq!(agent.service("page").unwrap().standing(), page.standing());

    // Repaired, it goes on.
    cloud.target("5", &json!({ uuid(1): good("two", "r2"), uuid(2): other("due", "r2", json!({})) }));
    agent.until_serves("web", "two", "r2");
    agent.until_serves("page", "due", "r2");
}

#[test]
fn a_cloud_that_denies_or_asks_for_patience_is_obeyed_and_reported() {
    let lab = Lab::new("denied");
    let cloud = FakeCloud::start();
    let shop = |commit: &str, release: &str| json!({ uuid(1): app(1, "shop", commit, &[("web", service(lab.image(release), json!({})))]) });
    cloud.target("one", &shop("one", "r1"));
    let mut agent = Agent::prepare(&lab, &cloud.url, &cloud.fleet(&lab), "till");
    agent.start_again();
    agent.until_serves("web", "one", "r1");
    until_done(&agent, "one");
    let before = agent.standing();

    // The key is not accepted.
    cloud.say(Reply::bare(401));
    let output = agent.until_status("/cloud/error", "does not accept our key for poll (status 401)");
    assert!(output.contains(&cloud.url) && output.contains("was the device deleted"), "{output}");
    cloud.next_polls(2);
    assert_eq!(agent.standing(), before);
    assert_eq!(agent.log().matches("poll failed").count(), 1, "{}", agent.log());

    // Patience: polls are a second apart, but not now.
    for status in [429, 503] {
        let patience = Reply { headers: vec![("Retry-After", "4".to_owned())], ..Reply::bare(status) };
        cloud.say(patience);
        agent.until_status("/cloud/error", &format!("status {status}"));
        let polls = cloud.next_polls(2);
        let gap = polls[1].at - polls[0].at;
        assert!(gap >= Duration::from_millis(3900), "asked again after {gap:?}");
        assert!(gap < Duration::from_secs(8), "asked again only after {gap:?}");
    }
    assert_eq!(agent.standing(), before);

    // And contact again.
    cloud.target("two", &shop("two", "r2"));
    agent.until_serves("web", "two", "r2");
    until_done(&agent, "two");
    assert_eq!(agent.status_value("/cloud/failures"), 0);
}

#[test]
fn a_cloud_that_sends_the_device_to_another_server_is_not_followed() {
    let lab = Lab::new("elsewhere");
    let (cloud, other) = (FakeCloud::start(), FakeCloud::start());
    let one = |release: &str| json!({ uuid(1): app(1, "shop", release, &[("web", service(lab.image(release), json!({})))]) });
    cloud.target("one", &one("r1"));
    other.target("two", &one("r2"));
    let mut agent = Agent::prepare(&lab, &cloud.url, &cloud.fleet(&lab), "till");
    agent.set("cloud.report_interval=1s");
    agent.start_again();
    agent.until_serves("web", "r1", "r1");
    until_done(&agent, "r1");
    let reports = eventually("a report of the release", Duration::from_secs(30), || {
        Some(cloud.reports()).filter(|all| all.iter().any(|report| report.contains("\"done\"")))
    });
    assert!(
        !reports.iter().any(|report| report.contains("\"cotter\"")),
        "it never asked for it: {reports:?}"
    );
    let before = agent.standing();
    for status in [301, 302, 307, 308] {
        let there = ("Location", format!("{}/device/v3/x/state", other.url));
        cloud.say(Reply { status, headers: vec![there], body: String::new() });
        let of = format!("cloud {} does not answer poll itself: it redirects to {}, ", cloud.url, other.url);
        let output = agent.until_status("/cloud/error", &of);
        assert!(output.contains("if the cloud has moved, set cloud.endpoint to its new address"), "{output}");
        cloud.next_polls(2);
    }
    assert!(other.polls().is_empty(), "no request went there");
    assert_eq!(agent.standing(), before);
    cloud.target("one", &one("r1"));
    agent.until_polled(1);
    assert_eq!(agent.status_value("/cloud/error"), Value::Null);
}

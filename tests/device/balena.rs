//! A device of a balena cloud: what it reports of itself, and what it says once it is deleted there. `tests/balena_api.rs`
//! has the conversations.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Agent, FakeCloud, Lab, eventually, unix_get};
use crate::{app, service, until_done, uuid};

/// An agent that runs release `one`, and its cloud.
fn running(lab: &Lab) -> (Agent<'_>, FakeCloud) {
    let cloud = FakeCloud::start();
    let web = service(lab.image("r1"), json!({}));
    cloud.target("one", &json!({ uuid(1): app(1, "shop", "one", &[("web", web)]) }));
    let mut agent = Agent::prepare(lab, &cloud.url, &cloud.fleet(lab), "till");
    agent.set("cloud.report_interval=1s");
    agent.start_again();
    agent.until_serves("web", "one", "r1");
    until_done(&agent, "one");
    (agent, cloud)
}

#[test]
fn a_balena_cloud_gets_what_the_device_is() {
    let lab = Lab::new("hardware");
    let (_agent, cloud) = running(&lab);
    let report = eventually("a report of the device", Duration::from_secs(20), || {
        let all = cloud.reports().into_iter().filter_map(|body| serde_json::from_str::<Value>(&body).ok());
        let of_device = all.filter_map(|body| body.as_object()?.values().next().cloned());
        of_device.into_iter().find(|report| report.get("memory_total").is_some())
    });
    for name in ["memory_usage", "memory_total", "cpu_usage"] {
        assert!(report[name].is_u64(), "{name}: {report}");
    }
    let text = |name: &str| report[name].as_str().unwrap_or_default().to_owned();
    assert!(text("supervisor_version").ends_with("+cotter"), "{report}");
    assert!(text("os_version").contains('+'), "{report}");
    assert!(!text("ip_address").is_empty() && !text("ip_address").contains("127.0.0.1"), "{report}");
    // The last of all: the update is over.
    eventually("the device is idle", Duration::from_secs(20), || {
        let statuses = cloud.reports().into_iter().rev().find_map(|body| {
            let body: Value = serde_json::from_str(&body).ok()?;
            body.as_object()?.values().next()?.get("status").cloned()
        });
        (statuses == Some(json!("Idle"))).then_some(())
    });
}

#[test]
fn a_device_that_was_deleted_there_says_so_and_runs_on() {
    let lab = Lab::new("deleted");
    let (agent, cloud) = running(&lab);
    let standing = agent.standing();
    cloud.forget_devices();
    agent.until_status("/cloud/is_deleted", "true");
    let said = |words: &[&str]| {
        let out = agent.cli(words);
        String::from_utf8([out.stdout, out.stderr].concat()).expect("text")
    };
    let status = said(&["status"]);
    assert!(status.contains("the cloud does not have this device any more"), "{status}");
    assert!(status.contains("runs one, its last target") && !status.contains("as it should"), "{status}");
    let explained = said(&["explain"]);
    assert!(explained.contains("deleted"), "{explained}");
    assert!(agent.log().contains("does not know this device"), "{}", agent.log());
    let page = unix_get(&agent.status_socket(), "/v1/metrics").expect("metrics");
    assert!(page.body.contains("cotter_cloud_deleted 1"), "{}", page.body);
    assert_eq!(agent.standing(), standing, "its containers run on");
    assert_eq!(agent.serves("web").as_deref(), Some("r1"));
}

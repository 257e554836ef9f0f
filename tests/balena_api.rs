//! Conversations of the agent's poller and reporter with a balena API, which is a stand-in with the habits of a real one.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and owns its tasks"
)]

#[path = "support/balena.rs"]
mod balena;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use balena::{Balena, Install, Limits};
use cotter::cloud::{Client, Poller, Repeats, Reporter, Start, Times};
use cotter::http::Http;
use cotter::model::{
    AppId, AppReport, CloudReport, Commit, Delivered, DeviceUuid, DownloadProgress, Hardware, Health, Load,
    LocalApps, Policy, Report, ServiceName, ServiceReport, ServiceStatus, Target, UpdateStatus,
};
use serde_json::{Value, json};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

const UUID: &str = "0123456789abcdef0123456789abcdef";
const KEY: &str = "a-device-key";
const APP: &str = "fedcba9876543210fedcba9876543210";
const RELEASES: [(&str, &[&str]); 2] = [("s1", &["r/web1", "r/db1"]), ("s2", &["r/web2", "r/db2"])];

/// A memory that a test can wait for.
const LIMITS: Limits =
    Limits { installs: Duration::from_millis(1500), metrics: Duration::from_millis(300), writes_100: true };

/// Each as much longer than the memory as the real ones are.
const REPEATS: Repeats = Repeats {
    apps: Duration::from_millis(1700),
    all: Duration::from_secs(3600),
    sample: Duration::from_millis(400),
};

/// A device that reports to a stand-in, for as long as the value lives.
struct Device {
    api: Balena,
    report: watch::Sender<Report>,
    cloud: watch::Receiver<CloudReport>,
    is: Arc<Mutex<(Hardware, Load)>>,
    stop: CancellationToken,
}

impl Drop for Device {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Device {
    fn start(limits: Limits) -> Self {
        let api = Balena::start((UUID, KEY), APP, &RELEASES, limits);
        let (report, cloud) =
            (watch::Sender::new(Report::default()), watch::Sender::new(CloudReport::default()));
        let is = Arc::new(Mutex::new((Hardware::default(), Load::default())));
        let (hardware, load) = (Arc::clone(&is), Arc::clone(&is));
        let seen = cloud.subscribe();
        let reporter = Reporter {
            client: Client::new(Http::new().unwrap(), &api.url, Duration::from_secs(10)),
            uuid: DeviceUuid::parse(UUID).unwrap(),
            device_key: KEY.to_owned(),
            report: report.subscribe(),
            cloud,
            hardware: Box::new(move || hardware.lock().unwrap().0.clone()),
            load: Box::new(move || load.lock().unwrap().1.clone()),
            repeats: REPEATS,
            gap: Duration::from_millis(20),
            longest_wait: Duration::from_secs(1),
            lines: 0,
            metrics: Box::new(|| None),
            takes_accounts: None,
            apps: LocalApps::new(),
        };
        let stop = CancellationToken::new();
        tokio::spawn(reporter.run(stop.clone()));
        Self { api, report, cloud: seen, is, stop }
    }

    /// Waits until the cloud has the report.
    async fn reports(&mut self, report: Report) {
        self.report.send_replace(report);
        tokio::time::sleep(Duration::from_millis(5)).await;
        let all = self.cloud.wait_for(|cloud| cloud.is_reported);
        tokio::time::timeout(Duration::from_secs(10), all).await.expect("the cloud has it").unwrap();
        // What follows the first answer.
        tokio::time::sleep(Duration::from_millis(80)).await;
    }

    fn sent(&self) -> Vec<Value> {
        self.api.requests("PATCH").into_iter().map(|body| body[UUID].clone()).collect()
    }

    fn statuses(&self, images: [&str; 2]) -> Vec<String> {
        images.map(|image| self.api.install(image).map_or(String::new(), |it| it.status)).to_vec()
    }
}

fn commit(name: &str) -> Commit {
    Commit::parse(name).unwrap()
}

/// Release `number` runs, completely.
fn runs(number: u8) -> Report {
    with(number, &[("web", ServiceStatus::Running, None), ("db", ServiceStatus::Running, None)])
}

fn with(number: u8, services: &[(&str, ServiceStatus, Option<u8>)]) -> Report {
    let release = commit(&format!("s{number}"));
    let service = |(name, status, percent): &(&str, ServiceStatus, Option<u8>)| ServiceReport {
        service: ServiceName::parse(*name).unwrap(),
        release: release.clone(),
        image: format!("r/{name}{number}"),
        status: *status,
        detail: String::new(),
        since: None,
        container: None,
        health: Health::Unchecked,
        progress: percent.map(|percent| DownloadProgress { percent, ..DownloadProgress::default() }),
    };
    let app = AppReport {
        name: "app".to_owned(),
        target: Some(release.clone()),
        current: Some(release.clone()),
        update: [(release.clone(), UpdateStatus::Done)].into(),
        services: services.iter().map(service).collect(),
        ..AppReport::default()
    };
    Report { has_target: true, apps: [(AppId::parse(APP).unwrap(), app)].into(), ..Report::default() }
}

/// The stand-in does what a real API was seen to do: a service that went and came back within its memory stays deleted.
#[tokio::test]
async fn the_stand_in_forgets_nothing_for_five_minutes() {
    let api = Balena::start((UUID, KEY), APP, &RELEASES, LIMITS);
    drop(rustls::crypto::ring::default_provider().install_default());
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let report = async |number: u8| {
        let service = |name: &str| json!({ "image": format!("r/{name}{number}"), "status": "Running", "download_progress": null });
        let releases =
            json!({ format!("s{number}"): { "services": { "web": service("web"), "db": service("db") } } });
        let body = json!({ UUID: { "apps": { APP: { "releases": releases } } } });
        let sent =
            client.patch(format!("{}/device/v3/state", api.url)).bearer_auth(KEY).body(body.to_string());
        assert_eq!(sent.send().await.unwrap().status(), 200);
    };
    for number in [1, 1, 2, 2, 1, 2, 2] {
        report(number).await;
    }
    let shown = |image| api.install(image).unwrap().status;
    assert_eq!([shown("r/db1"), shown("r/db2")], ["deleted", "deleted"]);
}

#[tokio::test]
async fn a_service_that_runs_is_shown_as_running_although_it_was_away() {
    let mut device = Device::start(LIMITS);
    for number in [1, 2, 1, 2, 1, 2] {
        device.reports(runs(number)).await;
        let own = format!("{number}");
        let [web, db] = ["web", "db"].map(|name| format!("r/{name}{own}"));
        assert_eq!(device.statuses([&web, &db]), ["Running", "Running"], "release {number}");
    }
    assert_eq!(device.statuses(["r/web1", "r/db1"]), ["deleted", "deleted"]);
    // Its progress is none in the end.
    tokio::time::sleep(REPEATS.apps + Duration::from_millis(200)).await;
    let shown = Install { status: "Running".to_owned(), release: "s2".to_owned(), progress: None };
    assert_eq!(device.api.install("r/db2"), Some(shown));
}

/// As above, for an API that knows no progress of 100: then it is right once its memory is over. After that it is quiet.
#[tokio::test]
async fn what_an_api_may_have_ignored_is_reported_once_more_and_then_no_more() {
    let mut device = Device::start(Limits { writes_100: false, ..LIMITS });
    for number in [1, 2, 1, 2, 1] {
        device.reports(runs(number)).await;
    }
    assert_eq!(device.statuses(["r/web1", "r/db1"]), ["deleted", "deleted"], "this API ignores it");
    tokio::time::sleep(REPEATS.apps + Duration::from_millis(200)).await;
    assert_eq!(device.statuses(["r/web1", "r/db1"]), ["Running", "Running"]);
    let count = device.sent().len();
    tokio::time::sleep(REPEATS.apps + Duration::from_millis(200)).await;
    assert_eq!(device.sent().len(), count, "then it is quiet");
}

#[tokio::test]
async fn the_api_gets_what_the_device_is_and_metrics_that_have_moved() {
    let mut device = Device::start(LIMITS);
    let hardware = Hardware {
        os_version: Some("12.0.0+debian".to_owned()),
        addresses: vec!["192.0.2.7".parse().unwrap()],
        macs: vec!["DC:A6:32:00:00:01".to_owned()],
        is_undervolted: Some(false),
        ..Hardware::default()
    };
    let load =
        Load { cpu_usage: Some(7), memory_usage: Some(301), memory_total: Some(900), ..Load::default() };
    *device.is.lock().unwrap() = (hardware, load);
    device.reports(with(1, &[("web", ServiceStatus::Downloading, Some(40))])).await;
    let first = &device.sent()[0];
    assert_eq!(
        (&first["status"], &first["os_version"]),
        (&json!("Downloading"), &Value::Null),
        "whose API it is shows the answer"
    );
    let version = format!("{}+cotter", env!("CARGO_PKG_VERSION"));
    for (name, value) in [
        ("status", json!("Downloading")),
        ("os_version", json!("12.0.0+debian")),
        ("supervisor_version", json!(version)),
        ("ip_address", json!("192.0.2.7")),
        ("mac_address", json!("DC:A6:32:00:00:01")),
        ("is_undervolted", json!(false)),
        ("cpu_usage", json!(7)),
        ("memory_usage", json!(301)),
        ("memory_total", json!(900)),
    ] {
        assert_eq!(device.api.fields().get(name), Some(&value), "{name}");
    }
    device.reports(runs(1)).await;
    tokio::time::sleep(REPEATS.apps + Duration::from_millis(200)).await;
    let quiet = device.sent().len();
    assert_eq!(device.api.fields()["status"], "Idle");

    // It moves within a threshold: nothing is sent. Then beyond one.
    device.is.lock().unwrap().1 =
        Load { cpu_usage: Some(15), memory_usage: Some(309), memory_total: Some(900), ..Load::default() };
    tokio::time::sleep(REPEATS.sample * 2).await;
    assert_eq!(device.sent().len(), quiet);
    device.is.lock().unwrap().1.cpu_usage = Some(21);
    tokio::time::sleep(REPEATS.sample * 2).await;
    assert_eq!(device.sent()[quiet..], [json!({ "cpu_usage": 21 })]);
    assert_eq!(device.api.fields()["cpu_usage"], 21);
}

#[tokio::test]
async fn a_sample_whose_report_fails_is_taken_again() {
    let mut device = Device::start(Limits { metrics: Duration::ZERO, ..LIMITS });
    device.reports(runs(1)).await;
    tokio::time::sleep(REPEATS.sample * 2).await;
    device.api.fail_reports(1);
    device.is.lock().unwrap().1.cpu_usage = Some(50);
    // The report fails, and is sent again long before the next sample is due.
    let failed = device.cloud.wait_for(|cloud| cloud.report_error.is_some());
    tokio::time::timeout(REPEATS.sample * 3, failed).await.expect("it fails").unwrap();
    let taken = device.cloud.wait_for(|cloud| cloud.report_error.is_none());
    tokio::time::timeout(Duration::from_secs(10), taken).await.expect("it is sent again").unwrap();
    assert_eq!(device.api.fields().get("cpu_usage"), Some(&json!(50)));
}

#[tokio::test]
async fn metrics_that_are_not_wanted_are_null() {
    let mut device = Device::start(LIMITS);
    device.is.lock().unwrap().1 = Load { cpu_usage: Some(7), ..Load::default() };
    let target = Target {
        device_name: "one".to_owned(),
        apps: BTreeMap::new(),
        poll_interval: None,
        is_lock_overridden: false,
        has_logs: true,
        has_instant_updates: true,
        has_metrics: false,
        has_vpn: true,
        moves_to: None,
        variables: Vec::new(),
        left_alone: Vec::new(),
    };
    let mut report = runs(1);
    report.delivered = Some(Arc::new(Delivered { target: Arc::new(target), record: None, etag: None }));
    device.reports(report).await;
    assert_eq!(device.api.fields().get("cpu_usage"), Some(&Value::Null));
    device.reports(runs(1)).await;
    tokio::time::sleep(REPEATS.sample * 2).await;
    assert_eq!(device.api.fields()["cpu_usage"], 7, "it is wanted again");
}

/// A device that a user deleted, as a poller sees it, and one whose API finds it again.
#[tokio::test]
async fn a_deleted_device_says_so_and_asks_once() {
    let api = Balena::start((UUID, KEY), APP, &RELEASES, LIMITS);
    api.target(json!({}));
    let (target, cloud) = (watch::Sender::new(None), watch::Sender::new(CloudReport::default()));
    let mut seen = cloud.subscribe();
    let (poll_now, stop) = (Arc::new(Notify::new()), CancellationToken::new());
    let start = Start {
        uuid: DeviceUuid::parse(UUID).unwrap(),
        device_key: KEY.to_owned(),
        policy: Policy::default(),
        etag: None,
        interval: Duration::from_secs(3600),
        wanted_interval: None,
        wait: Duration::ZERO,
        apps: LocalApps::new(),
    };
    let times = Times { time_in: |_| String::new(), uptime: || Duration::ZERO };
    let client = Client::new(Http::new().unwrap(), &api.url, Duration::from_secs(10));
    let poller = Poller::new(client, start, target, cloud, times, Arc::clone(&poll_now));
    let running = tokio::spawn(poller.run(stop.clone()));
    let mut count = 0;
    let mut polled = async || {
        count += 1;
        let is_polled = |report: &CloudReport| report.polls.done + report.polls.failed >= count;
        let polled = tokio::time::timeout(Duration::from_secs(10), seen.wait_for(is_polled)).await;
        let report = polled.expect("a poll").unwrap().clone();
        poll_now.notify_one();
        report
    };
    let look_ups = || api.requests("GET /v7/device").len();
    assert_eq!((polled().await.is_deleted, polled().await.is_deleted, look_ups()), (false, false, 0));
    api.delete_device();
    // The poll that was asked for before may have been answered before.
    polled().await;
    for _ in 0..3 {
        let report = polled().await;
        assert!(report.is_deleted, "{report:?}");
        assert!(report.error.unwrap().contains("does not know this device"));
    }
    assert_eq!(look_ups(), 1);
    api.restore_device();
    polled().await;
    let report = polled().await;
    assert_eq!((report.is_deleted, report.error, look_ups()), (false, None, 1));
    stop.cancel();
    running.await.unwrap();
}

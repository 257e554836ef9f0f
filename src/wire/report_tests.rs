use serde_json::{Value, json};

use super::*;
use crate::model::{
    AppId, Commit, DownloadProgress, ReportedAccess, ServiceName, ServiceStatus, UpdateStatus as Status,
};

fn commit(text: &str) -> Commit {
    Commit::parse(text).unwrap()
}

fn service(name: &str, release: &str, status: ServiceStatus, progress: Option<u8>) -> model::ServiceReport {
    model::ServiceReport {
        service: ServiceName::parse(name).unwrap(),
        release: commit(release),
        image: format!("r.example/{name}"),
        status,
        detail: "Up 3 minutes".into(),
        since: None,
        container: None,
        health: crate::model::Health::Unchecked,
        progress: progress.map(|percent| DownloadProgress { percent, ..DownloadProgress::default() }),
    }
}

/// App `a` runs r1 and is on its way to r2.
fn updating() -> Report {
    let app = model::AppReport {
        name: "a".into(),
        target: Some(commit("r2")),
        current: Some(commit("r1")),
        update: [(commit("r1"), Status::Done), (commit("r2"), Status::ApplyingChanges)].into(),
        services: vec![
            service("web", "r1", ServiceStatus::Running, None),
            service("web", "r2", ServiceStatus::Downloading, Some(40)),
            service("db", "r2", ServiceStatus::Exited, None),
        ],
        ..model::AppReport::default()
    };
    let apps = [(AppId::parse("a").unwrap(), app)].into();
    Report { has_target: true, apps, ..Report::default() }
}

fn rendered(report: &Report) -> Value {
    serde_json::to_value(render(report)).unwrap()
}

#[test]
fn a_release_on_its_way() {
    assert_eq!(
        rendered(&updating()),
        json!({"status": "Downloading", "apps": {"a": {"release_uuid": "r1", "releases": {
            "r1": {"update_status": "done", "services": {
                "web": {"image": "r.example/web", "status": "Running", "download_progress": null},
            }},
            "r2": {"update_status": "applying changes", "services": {
                "web": {"image": "r.example/web", "status": "Downloading", "download_progress": 40},
                "db": {"image": "r.example/db", "status": "exited", "download_progress": null},
            }},
        }}}})
    );
}

#[test]
fn apps_are_reported_only_when_certain() {
    let mut report = updating();
    report.engine_error = Some("down".into());
    let idle = json!({"status": "Idle"});
    assert_eq!(rendered(&report), idle, "the engine cannot be observed");
    assert_eq!(rendered(&Report::default()), idle, "no target");
    assert_eq!(rendered(&Report { has_target: true, ..Report::default() }), idle, "no app");
}

#[test]
fn the_status_is_what_the_device_does() {
    let mut report = updating();
    let status = |report: &Report| render(report).status.unwrap();
    let services = &mut report.apps.values_mut().next().unwrap().services;
    services[1].status = ServiceStatus::Running;
    assert_eq!(status(&report), "Installing");
    let app = report.apps.values_mut().next().unwrap();
    app.update.insert(commit("r2"), Status::Downloaded);
    assert_eq!(status(&report), "Idle", "it waits, e.g. for a lock");
}

#[test]
fn what_the_device_is() {
    let is = Hardware {
        os_version: Some("12.0.0+debian".into()),
        os_variant: None,
        addresses: vec!["192.0.2.7".parse().unwrap(), "fd00::20".parse().unwrap()],
        macs: vec!["DC:A6:32:00:00:01".into()],
        is_undervolted: Some(false),
        supervisor: None,
    };
    let fields = |is: &Hardware| serde_json::to_value(hardware(is, "0.2.0")).unwrap();
    assert_eq!(
        fields(&is),
        json!({"os_version": "12.0.0+debian", "supervisor_version": "0.2.0+cotter", "ip_address": "192.0.2.7 fd00::20",
            "mac_address": "DC:A6:32:00:00:01", "is_undervolted": false})
    );
    let supervisor = Some(ReportedAccess { port: 48484, key: "hunter2".into() });
    let with_vpn = Hardware { supervisor, ..Hardware::default() };
    assert_eq!(fields(&with_vpn), json!({"api_port": 48484, "api_secret": "hunter2"}));
    assert!(!format!("{with_vpn:?}").contains("hunter2"));
    let unknown = Hardware { os_version: None, ..is };
    assert_eq!(
        fields(&unknown).get("supervisor_version"),
        None,
        "with it alone no user could move the device"
    );
    assert_eq!(fields(&Hardware::default()), json!({}));
}

#[test]
fn metrics_are_whole_numbers_and_null_where_they_are_not_wanted() {
    let is = Load { cpu_usage: Some(7), cpu_temp: Some(-3), cpu_id: Some("ab".into()), ..Load::default() };
    assert_eq!(
        serde_json::to_value(load(Some(&is))).unwrap(),
        json!({"cpu_usage": 7, "cpu_temp": -3, "cpu_id": "ab"})
    );
    let off = load(None);
    assert_eq!((off.len(), off.values().all(Value::is_null)), (8, true));
}

#[test]
fn the_six_words() {
    for (status, word) in [
        (Status::Rejected, "rejected"),
        (Status::Aborted, "aborted"),
        (Status::Downloading, "downloading"),
        (Status::Downloaded, "downloaded"),
        (Status::ApplyingChanges, "applying changes"),
        (Status::Done, "done"),
    ] {
        assert_eq!(serde_json::to_value(update_status(status)).unwrap(), json!(word));
    }
}

#[test]
fn the_retry_tells_only_the_target() {
    let full = DeviceReport { status: Some("Idle".into()), ..render(&updating()) };
    let reduced = |target: &Report| serde_json::to_value(reduce(&full, target)).unwrap();
    let releases = json!({"r2": {"update_status": "applying changes", "services": {
        "web": {"image": "r.example/web", "status": "Downloading", "download_progress": 40},
        "db": {"image": "r.example/db", "status": "exited", "download_progress": null},
    }}});
    assert_eq!(reduced(&updating()), json!({"status": "Idle", "apps": {"a": {"releases": releases}}}));

    let mut at_target = updating();
    let app = at_target.apps.values_mut().next().unwrap();
    app.target = Some(commit("r1"));
    assert_eq!(
        reduced(&at_target),
        json!({"status": "Idle", "apps": {"a": {"release_uuid": "r1", "releases": {"r1": {"update_status": "done",
            "services": {"web": {"image": "r.example/web", "status": "Running", "download_progress": null}}}}}}})
    );
    assert_eq!(reduced(&Report::default()), json!({"status": "Idle"}), "a removed app is not reported");
    at_target.apps.values_mut().next().unwrap().target = None;
    assert_eq!(reduced(&at_target), json!({"status": "Idle"}));
}

/// A report that the real API accepted has the shape that we write.
#[test]
fn recorded_reports_come_back() {
    for body in [
        include_str!("../../tests/fixtures/openbalena/31-report-downloading.body.json"),
        include_str!("../../tests/fixtures/openbalena/33.body.json"),
    ] {
        let read: super::super::report_v3::ReportBody = serde_json::from_str(body).unwrap();
        assert!(read.values().all(|device| device.apps.as_ref().is_some_and(|apps| !apps.is_empty())));
    }
}

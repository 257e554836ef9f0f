use serde_json::{Value, json};

use super::*;
use crate::model::{AppId, Commit, DownloadProgress, ServiceName, ServiceStatus, UpdateStatus as Status};

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
    serde_json::to_value(render(report, &DeviceFacts::default())).unwrap()
}

#[test]
fn a_release_on_its_way() {
    assert_eq!(
        rendered(&updating()),
        json!({"apps": {"a": {"release_uuid": "r1", "releases": {
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
    assert_eq!(rendered(&report), json!({}), "the engine cannot be observed");
    assert_eq!(rendered(&Report::default()), json!({}), "no target");
    assert_eq!(rendered(&Report { has_target: true, ..Report::default() }), json!({}), "no app");
}

#[test]
fn facts_of_the_device() {
    let facts = DeviceFacts {
        status: Some("Idle".into()),
        ip_address: Some("10.0.0.1".into()),
        ..DeviceFacts::default()
    };
    let body = serde_json::to_value(render(&Report::default(), &facts)).unwrap();
    assert_eq!(body, json!({"status": "Idle", "ip_address": "10.0.0.1"}));
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
    let facts = DeviceFacts { status: Some("Idle".into()), ..DeviceFacts::default() };
    let full = render(&updating(), &facts);
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

//! Renders a [`Report`] as the body of `PATCH /device/v3/state` (docs/dev/protocol.md, "Reports").

use std::collections::BTreeMap;

use super::report_v3::{AppReport, DeviceReport, ReleaseReport, ServiceReport, UpdateStatus};
use crate::model::{self, Report};

/// Facts about the device in a report, other than its apps. `None` leaves the cloud's value as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeviceFacts {
    pub status: Option<String>,
    pub os_version: Option<String>,
    pub supervisor_version: Option<String>,
    /// Space-separated.
    pub ip_address: Option<String>,
    /// Space-separated.
    pub mac_address: Option<String>,
}

/// Renders the complete report of a device.
///
/// Leaves out `apps`, so that the cloud keeps its values, if there is no target, if it has no app, or if the engine cannot
/// be observed. The cloud treats a present `apps` as complete, and images that it does not have as deleted (rule 1 of
/// docs/dev/protocol.md, "Reports: rules for apps").
#[must_use]
pub fn render(report: &Report, facts: &DeviceFacts) -> DeviceReport {
    let is_certain = report.has_target && !report.apps.is_empty() && report.engine_error.is_none();
    let apps = || report.apps.iter().map(|(id, reported)| (id.to_string(), app(reported))).collect();
    DeviceReport {
        status: facts.status.clone(),
        os_version: facts.os_version.clone(),
        supervisor_version: facts.supervisor_version.clone(),
        ip_address: facts.ip_address.clone(),
        mac_address: facts.mac_address.clone(),
        apps: is_certain.then(apps),
        account: None,
    }
}

/// Reduces a report for the one retry after a 401: each app keeps only the target's release, because the cloud refuses the
/// complete request if it has a release or app that the cloud does not know (rule 2 of docs/dev/protocol.md, "Reports:
/// rules for apps").
///
/// `release_uuid` stays only if it is that release. `apps` is left out if no app is left.
#[must_use]
pub fn reduce(full: &DeviceReport, target: &Report) -> DeviceReport {
    let mut apps = BTreeMap::new();
    for (id, reported) in full.apps.iter().flatten() {
        let wanted =
            target.apps.iter().find(|(app, _)| app.as_str() == id).and_then(|(_, app)| app.target.as_ref());
        let Some(wanted) = wanted.map(model::Commit::as_str) else { continue };
        if let Some(release) = reported.releases.get(wanted) {
            let releases = BTreeMap::from([(wanted.to_owned(), release.clone())]);
            let release_uuid = reported.release_uuid.clone().filter(|running| running == wanted);
            apps.insert(id.clone(), AppReport { release_uuid, releases });
        }
    }
    DeviceReport { apps: (!apps.is_empty()).then_some(apps), ..full.clone() }
}

fn app(reported: &model::AppReport) -> AppReport {
    let mut releases: BTreeMap<String, ReleaseReport> = BTreeMap::new();
    for (commit, status) in &reported.update {
        releases.entry(commit.to_string()).or_default().update_status = Some(update_status(*status));
    }
    for service in &reported.services {
        let release = releases.entry(service.release.to_string()).or_default();
        release.services.insert(service.service.to_string(), self::service(service));
    }
    AppReport { release_uuid: reported.current.as_ref().map(ToString::to_string), releases }
}

fn service(reported: &model::ServiceReport) -> ServiceReport {
    ServiceReport {
        image: reported.image.clone(),
        status: Some(reported.status.as_str().to_owned()),
        download_progress: reported.progress.map(|at| i64::from(at.percent)),
    }
}

fn update_status(status: model::UpdateStatus) -> UpdateStatus {
    match status {
        model::UpdateStatus::Rejected => UpdateStatus::Rejected,
        model::UpdateStatus::Aborted => UpdateStatus::Aborted,
        model::UpdateStatus::Downloading => UpdateStatus::Downloading,
        model::UpdateStatus::Downloaded => UpdateStatus::Downloaded,
        model::UpdateStatus::ApplyingChanges => UpdateStatus::ApplyingChanges,
        model::UpdateStatus::Done => UpdateStatus::Done,
    }
}

#[cfg(test)]
#[path = "report_tests.rs"]
mod tests;

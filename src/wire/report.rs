//! Renders a [`Report`] as the body of `PATCH /device/v3/state` (docs/dev/protocol.md, "Reports").

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::report_v3::{AppReport, DeviceReport, ReleaseReport, ServiceReport, UpdateStatus};
use crate::model::{self, Hardware, Load, Report};

/// The fields that `BALENA_SUPERVISOR_HARDWARE_METRICS` turns off.
const METRICS: [&str; 8] = [
    "cpu_usage",
    "cpu_temp",
    "cpu_id",
    "memory_usage",
    "memory_total",
    "storage_usage",
    "storage_total",
    "storage_block_device",
];

/// Renders the complete report of a device, without what the device is.
///
/// Leaves out `apps`, so that the cloud keeps its values, if there is no target, if it has no app, or if the engine cannot
/// be observed. The cloud treats a present `apps` as complete, and images that it does not have as deleted (rule 1 of
/// docs/dev/protocol.md, "Reports: rules for apps").
#[must_use]
pub fn render(report: &Report) -> DeviceReport {
    let is_certain = report.has_target && !report.apps.is_empty() && report.engine_error.is_none();
    let apps = || report.apps.iter().map(|(id, reported)| (id.to_string(), app(reported))).collect();
    let status = Some(activity(report).to_owned());
    DeviceReport { status, apps: is_certain.then(apps), ..DeviceReport::default() }
}

/// Returns the state of the device in one word of balena's.
fn activity(report: &Report) -> &'static str {
    if report.engine_error.is_some() {
        return "Idle";
    }
    let services = || report.apps.values().flat_map(|app| &app.services);
    if services().any(|service| service.status == model::ServiceStatus::Downloading) {
        return "Downloading";
    }
    let is_applied = |app: &model::AppReport| {
        let target = app.target.as_ref().and_then(|target| app.update.get(target));
        target == Some(&model::UpdateStatus::ApplyingChanges)
    };
    if report.apps.values().any(is_applied) { "Installing" } else { "Idle" }
}

/// Renders what the device is. `version` is that of Cotter.
///
/// Without a version of the operating system there is no version of Cotter either, because the API lets no user move a
/// device that has only the second one (docs/dev/protocol.md, "Registration").
#[must_use]
pub fn hardware(is: &Hardware, version: &str) -> BTreeMap<String, Value> {
    let mut fields = BTreeMap::new();
    let mut put = |name: &str, value: Value| drop(fields.insert(name.to_owned(), value));
    if let Some(os_version) = &is.os_version {
        put("os_version", json!(os_version));
        // No release of balena's supervisor has this ending, so the API never takes Cotter for one.
        put("supervisor_version", json!(format!("{version}+cotter")));
    }
    is.os_variant.iter().for_each(|variant| put("os_variant", json!(variant)));
    if !is.addresses.is_empty() {
        let addresses: Vec<_> = is.addresses.iter().map(ToString::to_string).collect();
        put("ip_address", json!(addresses.join(" ")));
    }
    if !is.macs.is_empty() {
        put("mac_address", json!(is.macs.join(" ")));
    }
    if let Some(access) = &is.supervisor {
        put("api_port", json!(access.port));
        put("api_secret", json!(access.key));
    }
    is.is_undervolted.iter().for_each(|weak| put("is_undervolted", json!(weak)));
    fields
}

/// Renders how loaded the device is; `None` if its user does not want to know: then each field is null.
#[must_use]
pub fn load(is: Option<&Load>) -> BTreeMap<String, Value> {
    let Some(is) = is else { return METRICS.iter().map(|name| ((*name).to_owned(), Value::Null)).collect() };
    let values = [
        is.cpu_usage.map(Value::from),
        is.cpu_temp.map(Value::from),
        is.cpu_id.clone().map(Value::from),
        is.memory_usage.map(Value::from),
        is.memory_total.map(Value::from),
        is.storage_usage.map(Value::from),
        is.storage_total.map(Value::from),
        is.storage_block_device.clone().map(Value::from),
    ];
    METRICS.iter().zip(values).filter_map(|(name, value)| Some(((*name).to_owned(), value?))).collect()
}

/// Returns the fields that the cloud does not have yet. Of a number that always moves it is enough to have one that is
/// near: the thresholds are those of balena's supervisor (docs/dev/protocol.md, "Reports: fields").
#[must_use]
pub fn news(now: &BTreeMap<String, Value>, there: &BTreeMap<String, Value>) -> BTreeMap<String, Value> {
    let is_near = |name: &str, now: &Value, there: &Value| {
        let step = match name {
            "cpu_usage" => 20,
            "cpu_temp" => 5,
            "memory_usage" => 10,
            _ => 1,
        };
        let level = |value: &Value| value.as_i64().map(|number| number.div_euclid(step));
        now == there || level(now).is_some() && level(now) == level(there)
    };
    let is_new =
        |name: &String, value: &Value| there.get(name).is_none_or(|there| !is_near(name, value, there));
    now.iter()
        .filter(|(name, value)| is_new(name, value))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
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

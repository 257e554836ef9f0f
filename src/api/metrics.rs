//! The page of `GET /v1/metrics`, for Prometheus.
//!
//! Nothing is computed before a request. Counters start at zero with each run of the agent.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::exposition::{Family, Page, Type};
use crate::model::{
    AppId, AppReport, CloudReport, Health, Report, ServiceReport, ServiceStatus, UpdateStatus, VpnState,
};

use Type::{Counter, Gauge, Summary};

const BUILD: Family = ("cotter_build_info", Gauge, "Version and instance of this agent.");
const DEVICE: Family = (
    "cotter_device_info",
    Gauge,
    "The device: its uuid, its name in the cloud, and the version of its agent.",
);
const MEMORY: Family = ("process_resident_memory_bytes", Gauge, "Resident memory size in bytes.");
const ENGINE: Family = ("cotter_engine_up", Gauge, "Whether the container engine can be observed.");
const STORE: Family = ("cotter_store_up", Gauge, "Whether the store can be written.");
const HELD: Family = ("cotter_held", Gauge, "Whether an operator holds the device.");
const RELEASE: Family =
    ("cotter_release_info", Gauge, "Releases by role: target, good (the last accepted), current (it runs).");
const AT_TARGET: Family =
    ("cotter_app_at_target", Gauge, "Whether an app runs its target release, and that release was accepted.");
const WAITING: Family =
    ("cotter_waiting", Gauge, "Number of waits by reason, in the words of `cotter status`.");
const SERVICE: Family = ("cotter_service_up", Gauge, "Whether the container of a service runs.");
const HEALTHY: Family =
    ("cotter_service_healthy", Gauge, "Whether a service with a healthcheck that runs is healthy.");
const RESTARTS: Family = (
    "cotter_service_restarts_total",
    Counter,
    "Restarts of a service's container because it had ended by itself or was unhealthy, by cause.",
);
const UPDATES: Family = (
    "cotter_update_duration_seconds",
    Summary,
    "Time from target to end of trial, by outcome, of updates that began in this run of the agent.",
);
const ROLLBACKS: Family = ("cotter_rollbacks_total", Counter, "Rollbacks, by their trial or by an operator.");
const PULLS: Family = ("cotter_pulls_total", Counter, "Downloads of images that ended, by outcome.");
const PULLED: Family = (
    "cotter_pulled_bytes_total",
    Counter,
    "Bytes of layers downloaded from registries, as far as the engine reports them.",
);
const FETCHED: Family = (
    "cotter_download_fetched_bytes",
    Gauge,
    "Compressed bytes of the present downloads that are here. Absent without a download.",
);
const TOTAL: Family = (
    "cotter_download_size_bytes",
    Gauge,
    "Compressed bytes of the present downloads. Absent while they are not known.",
);
const PROGRESS: Family = (
    "cotter_download_progress_ratio",
    Gauge,
    "Part of the present downloads that is done, from 0 to 1; fetching and unpacking count half each.",
);
const STEPS: Family = ("cotter_steps_total", Counter, "Steps other than downloads, by verb and outcome.");
const POLLS: Family = ("cotter_cloud_polls_total", Counter, "Polls of the cloud for the target, by outcome.");
const FAILURES: Family =
    ("cotter_cloud_failures_in_a_row", Gauge, "Failed requests to the cloud since the last success.");
const DELETED: Family =
    ("cotter_cloud_deleted", Gauge, "Whether the cloud says that it does not have this device any more.");
const VPN: Family = (
    "cotter_cloud_vpn_connected",
    Gauge,
    "Whether the tunnel to the VPN of the cloud is up. Absent while the owner of the device has it off.",
);
const CONTACT: Family = (
    "cotter_cloud_last_contact_age_seconds",
    Gauge,
    "Time since the last answer of the cloud. Absent before the first answer.",
);

const UPLOAD: Family = (
    "cotter_log_upload",
    Gauge,
    "1 for the state of the upload of logs, in the words of `cotter status --json`.",
);
const UPLOAD_FAILS: Family = ("cotter_log_upload_failing", Gauge, "Whether the last upload of logs failed.");
const LINES: Family = (
    "cotter_log_lines_total",
    Counter,
    "Lines of logs for the cloud by outcome: sent, suppressed, uncertain (some may be lost), repeated.",
);
const GAPS: Family = (
    "cotter_log_gaps_total",
    Counter,
    "How often lines of a service were skipped unread, because it wrote too many.",
);
const UPLOAD_FAILURES: Family =
    ("cotter_log_upload_failures_total", Counter, "Connections for logs that failed.");
const LOG_BYTES: Family =
    ("cotter_log_sent_bytes_total", Counter, "Bytes of logs that were sent, before compression.");
const LOG_WAITING: Family =
    ("cotter_log_waiting_lines", Gauge, "Lines of logs that wait in the agent for their upload.");

/// What the page shows besides the report.
#[derive(Debug, Clone, Copy)]
pub(super) struct Around<'a> {
    pub(super) instance: &'a str,
    pub(super) uuid: &'a str,
    /// Its name in the cloud; `None` before the first target.
    pub(super) name: Option<&'a str>,
    pub(super) cloud: Option<&'a CloudReport>,
    /// Time since the device booted.
    pub(super) uptime: Duration,
    /// Bytes.
    pub(super) memory: Option<u64>,
}

/// Makes the page.
#[must_use]
pub(super) fn metrics(report: &Report, around: Around<'_>) -> String {
    let mut page = Page::default();
    let labels = vec![("instance_name", around.instance), ("version", env!("CARGO_PKG_VERSION"))];
    page.add(BUILD, [("", labels, 1.0)]);
    let device = vec![
        ("uuid", around.uuid),
        ("name", around.name.unwrap_or_default()),
        ("version", env!("CARGO_PKG_VERSION")),
    ];
    page.add(DEVICE, [("", device, 1.0)]);
    page.add(MEMORY, around.memory.map(|bytes| ("", vec![], float(bytes))));
    page.add(ENGINE, [("", vec![], truth(report.engine_error.is_none()))]);
    page.add(STORE, [("", vec![], truth(report.store_error.is_none()))]);
    page.add(HELD, [("", vec![], truth(report.hold.is_some()))]);
    add_apps(&mut page, report);
    add_counts(&mut page, report);
    if let Some(download) = report.download() {
        page.add(FETCHED, [("", vec![], float(download.fetched))]);
        page.add(
            TOTAL,
            Some(download.total).filter(|total| *total > 0).map(|total| ("", vec![], float(total))),
        );
        page.add(PROGRESS, [("", vec![], f64::from(download.percent) / 100.0)]);
    }
    if let Some(cloud) = around.cloud {
        let polls = [("answered", cloud.polls.done), ("failed", cloud.polls.failed)];
        page.add(POLLS, polls.map(|(outcome, count)| ("", vec![("outcome", outcome)], float(count))));
        page.add(FAILURES, [("", vec![], f64::from(cloud.failures))]);
        page.add(DELETED, [("", vec![], truth(cloud.is_deleted))]);
        let vpn = Some(&cloud.vpn).filter(|state| **state != VpnState::Off);
        page.add(VPN, vpn.map(|state| ("", vec![], truth(state.is_connected()))));
        let age = cloud.heard_at.map(|at| around.uptime.saturating_sub(at));
        page.add(CONTACT, age.map(|age| ("", vec![], age.as_secs_f64())));
        add_logs(&mut page, cloud);
    }
    page.into_text()
}

fn add_logs(page: &mut Page, cloud: &CloudReport) {
    let logs = &cloud.logs;
    page.add(UPLOAD, [("", vec![("state", cloud.log_state.as_str())], 1.0)]);
    page.add(UPLOAD_FAILS, [("", vec![], truth(cloud.log_error.is_some()))]);
    let lines = [
        ("sent", logs.lines),
        ("suppressed", logs.dropped),
        ("uncertain", logs.uncertain),
        ("repeated", logs.repeated),
    ];
    page.add(LINES, lines.map(|(outcome, count)| ("", vec![("outcome", outcome)], float(count))));
    page.add(GAPS, [("", vec![], float(logs.gaps))]);
    page.add(UPLOAD_FAILURES, [("", vec![], float(logs.failures))]);
    page.add(LOG_BYTES, [("", vec![], float(logs.bytes))]);
    page.add(LOG_WAITING, [("", vec![], float(logs.waiting))]);
}

fn add_apps(page: &mut Page, report: &Report) {
    let apps: Vec<(&str, &AppReport)> = report.apps.iter().map(|(id, app)| (id.as_str(), app)).collect();
    page.add(RELEASE, apps.iter().flat_map(|(id, app)| releases(id, app)));
    page.add(AT_TARGET, apps.iter().map(|(id, app)| ("", of_app(id, app), truth(is_at_target(app)))));
    let services = || apps.iter().flat_map(|(id, app)| app.services.iter().map(move |s| (*id, *app, s)));
    page.add(SERVICE, services().map(|(id, app, s)| ("", of_service(id, app, s), truth(is_up(s)))));
    let checked = services().filter(|(_, _, s)| is_up(s) && s.health != Health::Unchecked);
    page.add(
        HEALTHY,
        checked.map(|(id, app, s)| ("", of_service(id, app, s), truth(s.health == Health::Healthy))),
    );
    page.add(RESTARTS, report.apps.iter().flat_map(|(id, app)| restarts(report, id, app)));
    let waiting = report.waiting.iter().map(|waiting| {
        let app = waiting.app.as_ref().map_or("", |app| app.as_str());
        let service = waiting.service.as_ref().map_or("", |service| service.as_str());
        ("", vec![("app", app), ("service", service), ("reason", waiting.reason.as_str())], 1.0)
    });
    page.add(WAITING, waiting);
}

fn add_counts(page: &mut Page, report: &Report) {
    let counts = &report.counts;
    let updates = [("accepted", counts.accepted), ("rejected", counts.rejected)];
    let lasted = updates.into_iter().flat_map(|(outcome, lasted)| {
        let labels = vec![("outcome", outcome)];
        [("_sum", labels.clone(), lasted.time.as_secs_f64()), ("_count", labels, float(lasted.count))]
    });
    page.add(UPDATES, lasted);
    let rollbacks = [("trial", counts.rejected.count), ("operator", counts.rollbacks)];
    page.add(ROLLBACKS, rollbacks.map(|(by, count)| ("", vec![("by", by)], float(count))));
    let pulls = counts.steps.get("pull").copied().unwrap_or_default();
    let pulls = [("done", pulls.done), ("failed", pulls.failed)];
    page.add(PULLS, pulls.map(|(outcome, count)| ("", vec![("outcome", outcome)], float(count))));
    page.add(PULLED, [("", vec![], float(counts.pulled_bytes))]);
    let steps = counts.steps.iter().filter(|(verb, _)| **verb != "pull").flat_map(|(verb, attempted)| {
        [("done", attempted.done), ("failed", attempted.failed)]
            .map(|(outcome, count)| ("", vec![("step", *verb), ("outcome", outcome)], float(count)))
    });
    page.add(STEPS, steps);
}

type Labels<'a> = Vec<(&'static str, &'a str)>;

fn of_app<'a>(id: &'a str, app: &'a AppReport) -> Labels<'a> {
    vec![("app", id), ("app_name", &app.name)]
}

fn of_service<'a>(id: &'a str, app: &'a AppReport, service: &'a ServiceReport) -> Labels<'a> {
    let mut labels = of_app(id, app);
    labels.extend([("service", service.service.as_str()), ("release", service.release.as_str())]);
    labels
}

/// The releases of an app by role. A release may have several roles.
fn releases<'a>(id: &'a str, app: &'a AppReport) -> Vec<(&'static str, Labels<'a>, f64)> {
    let mut current: Vec<_> = app.services.iter().filter(|s| is_up(s)).map(|s| &s.release).collect();
    current.sort_unstable();
    current.dedup();
    let roles = app.target.iter().map(|release| ("target", release));
    let roles = roles.chain(app.current.iter().map(|release| ("good", release)));
    let roles = roles.chain(current.into_iter().map(|release| ("current", release)));
    let sample = |(role, release): (&'static str, &'a crate::model::Commit)| {
        let mut labels = of_app(id, app);
        labels.extend([("role", role), ("release", release.as_str())]);
        ("", labels, 1.0)
    };
    roles.map(sample).collect()
}

/// One sample for each service of an app, even if it has containers of two releases.
fn restarts<'a>(
    report: &'a Report,
    id: &'a AppId,
    app: &'a AppReport,
) -> Vec<(&'static str, Labels<'a>, f64)> {
    let services: BTreeSet<_> = app.services.iter().map(|service| &service.service).collect();
    let samples = services.into_iter().flat_map(|service| {
        let key = (id.clone(), service.clone());
        [("ended", &report.counts.restarts), ("unhealthy", &report.counts.heals)].map(|(why, counts)| {
            let mut labels = of_app(id.as_str(), app);
            labels.extend([("service", service.as_str()), ("why", why)]);
            ("", labels, float(counts.get(&key).copied().unwrap_or_default()))
        })
    });
    samples.collect()
}

fn is_at_target(app: &AppReport) -> bool {
    match &app.target {
        None => app.services.is_empty(),
        Some(target) => app.update.get(target) == Some(&UpdateStatus::Done),
    }
}

fn is_up(service: &ServiceReport) -> bool {
    service.status == ServiceStatus::Running
}

fn truth(is_so: bool) -> f64 {
    f64::from(u8::from(is_so))
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus knows no other number")]
fn float(number: u64) -> f64 {
    number as f64
}

/// Every family.
#[cfg(test)]
const ALL: [Family; 32] = [
    BUILD,
    DEVICE,
    MEMORY,
    ENGINE,
    STORE,
    HELD,
    RELEASE,
    AT_TARGET,
    WAITING,
    SERVICE,
    HEALTHY,
    RESTARTS,
    UPDATES,
    ROLLBACKS,
    PULLS,
    PULLED,
    FETCHED,
    TOTAL,
    PROGRESS,
    STEPS,
    POLLS,
    FAILURES,
    DELETED,
    VPN,
    CONTACT,
    UPLOAD,
    UPLOAD_FAILS,
    LINES,
    GAPS,
    UPLOAD_FAILURES,
    LOG_BYTES,
    LOG_WAITING,
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The names of metrics in a text, without the ends of a summary.
    fn named(text: &str) -> BTreeSet<&str> {
        let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        // Those of the fleet server are held by its own test.
        let is_ours = |w: &&str| w.starts_with("cotter_") && !w.starts_with("cotter_fleet_");
        let names = words.filter(|w| is_ours(w) || w.starts_with("process_"));
        names.map(|w| w.trim_end_matches("_sum").trim_end_matches("_count")).collect()
    }

    #[test]
    fn the_dashboard_and_the_documents_have_every_metric_and_no_other() {
        let all: BTreeSet<_> = ALL.iter().map(|(name, _, _)| *name).collect();
        assert_eq!(named(include_str!("../../docs/grafana.json")), all);
        assert_eq!(named(include_str!("../../docs/metrics.md")), all);
    }

    #[test]
    fn names_follow_the_conventions() {
        for (name, kind, help) in ALL {
            assert_eq!(kind == Counter, name.ends_with("_total"), "{name}");
            assert!(help.ends_with('.') && !help.contains(['\\', '\n']), "{name}");
        }
    }
}

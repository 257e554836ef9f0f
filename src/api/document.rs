//! The document of `GET /v1/status`. Fields may be added within a schema version, never changed.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::log_status::{self, LogStatus};
use super::service_status::{DownloadStatus, ServiceStatus, download, service};
use super::target_status::{self, LeftAloneStatus, VariableStatus};
use super::vpn_status::VpnStatus;
use crate::model::{AppReport, CloudReport, Evidence, Happening, Report, Waiting, exposure};

/// Version of the document's schema.
pub const SCHEMA_VERSION: u32 = 1;

/// Everything that `cotter status` shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusDocument {
    pub schema_version: u32,
    /// Of the agent.
    pub version: String,
    pub instance: String,
    pub device: DeviceStatus,
    /// Absent if no cloud is configured.
    pub cloud: Option<CloudStatus>,
    /// Why the engine cannot be observed; absent when it can.
    pub engine_error: Option<String>,
    /// Why the store cannot be written; absent when it can.
    pub store_error: Option<String>,
    /// Whether a target is known. Without one nothing is changed.
    pub has_target: bool,
    pub apps: Vec<AppStatus>,
    pub waiting: Vec<WaitingStatus>,
    /// All downloads as one; absent if there are none.
    #[serde(default)]
    pub download: Option<DownloadStatus>,
    /// Why services failed: those of the releases that were rejected last, and those that do not run well now.
    #[serde(default)]
    pub evidence: Vec<EvidenceStatus>,
    /// Whether there is something to do now: a step, or a target that has not been planned yet.
    #[serde(default)]
    pub is_busy: bool,
    /// Whether a target was received that has not been planned yet. Until then `apps` is about the one before.
    #[serde(default)]
    pub has_new_target: bool,
    /// Present while an operator holds the device. Nothing is swapped then.
    pub hold: Option<HoldStatus>,
    /// The locks that prevent swaps.
    #[serde(default)]
    pub locks: LocksStatus,
    /// What becomes of each configuration variable of the cloud.
    #[serde(default)]
    pub variables: Vec<VariableStatus>,
    /// Apps of the target that the device does not run and does not change.
    #[serde(default)]
    pub left_alone: Vec<LeftAloneStatus>,
}

/// What is known of the failure of one service of a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvidenceStatus {
    /// Uuid.
    pub app: String,
    /// Commit.
    pub release: String,
    pub service: String,
    /// RFC 3339, UTC: when it was collected.
    pub at: String,
    /// How often the engine had restarted the container.
    pub restarts: u64,
    /// How the container ended, or how its healthcheck failed, as the predicate of a sentence; absent if neither is known.
    pub cause: Option<String>,
    pub exit_code: Option<i64>,
    /// What the failed healthcheck printed.
    pub healthcheck: Option<String>,
    /// The last lines that the service wrote, oldest first; 20 at most.
    pub lines: Vec<String>,
}

/// The locks that are in force.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocksStatus {
    /// Locks with an end, given by `cotter lock`.
    pub leases: Vec<LeaseStatus>,
    /// Lock files that services have made.
    pub files: Vec<FileLockStatus>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseStatus {
    pub id: String,
    pub owner: String,
    pub reason: String,
    /// Rounded up.
    pub expires_in_s: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileLockStatus {
    /// Uuid.
    pub app: String,
    pub service: String,
    /// The path inside the container.
    pub path: String,
}

/// A service that an operator stopped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HaltedStatus {
    pub service: String,
    /// RFC 3339, UTC.
    pub since: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldStatus {
    /// As the operator wrote it.
    pub reason: String,
    /// RFC 3339, UTC.
    pub since: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceStatus {
    pub uuid: String,
    /// Its name in the cloud; absent before the first target.
    pub name: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CloudStatus {
    pub endpoint: String,
    /// RFC 3339, UTC.
    pub last_contact: Option<String>,
    pub next_poll: Option<String>,
    /// Why the next poll is later than usual; absent if it is not.
    #[serde(default)]
    pub pause: Option<String>,
    pub error: Option<String>,
    /// Failed requests in a row.
    pub failures: u32,
    /// Polls since the agent started, including failed ones.
    #[serde(default)]
    pub polls: u64,
    /// What is dangerous about the endpoint, in words.
    #[serde(default)]
    pub warning: Option<String>,
    /// Whether the cloud says that it does not have this device any more. It gets no new targets then.
    #[serde(default)]
    pub is_deleted: bool,
    /// Whether the cloud has a report of the present state.
    #[serde(default)]
    pub is_reported: bool,
    /// Why the last report failed; absent if it did not.
    #[serde(default)]
    pub report_error: Option<String>,
    /// The move to another cloud that this one ordered; absent if it ordered none.
    #[serde(default)]
    pub moving: Option<MovingStatus>,
    /// Whether logs are uploaded, and how many lines.
    #[serde(default)]
    pub logs: LogStatus,
    /// The tunnel to the VPN of the cloud; absent if the owner of the device has it off.
    #[serde(default)]
    pub vpn: Option<VpnStatus>,
}

/// A move to another cloud, as it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MovingStatus {
    pub to: String,
    /// Why the last attempt failed; absent while the first one is made.
    #[serde(default)]
    pub why: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppStatus {
    pub uuid: String,
    pub name: String,
    /// Commit of the release that should run.
    pub target: Option<String>,
    /// Commit of the release that was last accepted whole.
    pub current: Option<String>,
    /// State of the target release: downloading, downloaded, applying changes, done or rejected.
    pub update: Option<String>,
    pub services: Vec<ServiceStatus>,
    /// Services that an operator stopped, until they are started by an order.
    #[serde(default)]
    pub halted: Vec<HaltedStatus>,
    /// Commit of the release that an operator lets pass locks and windows.
    #[serde(default)]
    pub forced: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitingStatus {
    pub app: Option<String>,
    pub service: Option<String>,
    /// One of the stable words of docs/operations.md.
    pub reason: String,
    pub why: String,
    /// Seconds until the next attempt; absent if it waits for a change.
    pub retry_in_s: Option<u64>,
    /// RFC 3339, UTC: when it began, as far as this run of the agent has seen.
    #[serde(default)]
    pub since: Option<String>,
}

/// An event of `GET /v1/events`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventStatus {
    pub schema_version: u32,
    /// RFC 3339, UTC, by the device's clock at that moment. Absent for `missed`.
    pub at: Option<String>,
    /// `step`, `waiting`, `target`, `order`, `engine`, `store`, or `missed`: the reader was too slow for some.
    pub kind: String,
    /// The verb of a step or order, or the reason of a wait.
    pub word: Option<String>,
    /// `done`, `failed`, `begun`, `over`, `received`, `followed`, `refused`, `lost` or `back`.
    pub outcome: Option<String>,
    /// Uuid.
    pub app: Option<String>,
    /// The app's name, if it is known.
    #[serde(default)]
    pub app_name: Option<String>,
    pub service: Option<String>,
    /// A line for people.
    pub what: String,
}

/// The identity of the agent, fixed while it runs.
#[derive(Debug, Clone)]
pub struct Who {
    pub instance: String,
    pub uuid: String,
}

/// The moment at which the document is made.
#[derive(Debug, Clone, Copy)]
pub struct Now<'a> {
    /// This boot of the device.
    pub boot_id: &'a str,
    /// Since it booted.
    pub uptime: Duration,
}

/// Makes the status document.
#[must_use]
pub fn document(
    who: &Who,
    name: Option<String>,
    report: &Report,
    cloud: Option<&CloudReport>,
    now: Now<'_>,
) -> StatusDocument {
    StatusDocument {
        schema_version: SCHEMA_VERSION,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        instance: who.instance.clone(),
        device: DeviceStatus { uuid: who.uuid.clone(), name },
        cloud: cloud.map(|cloud| CloudStatus {
            endpoint: cloud.endpoint.clone(),
            last_contact: cloud.last_contact.clone(),
            next_poll: cloud.next_poll.clone(),
            pause: cloud.pause.clone(),
            error: cloud.error.clone(),
            failures: cloud.failures,
            polls: cloud.polls.done + cloud.polls.failed,
            warning: exposure(&cloud.endpoint),
            is_deleted: cloud.is_deleted,
            is_reported: cloud.is_reported,
            report_error: cloud.report_error.clone(),
            moving: cloud.moving.as_ref().map(|m| MovingStatus { to: m.to.clone(), why: m.why.clone() }),
            logs: log_status::logs(cloud),
            vpn: VpnStatus::of(&cloud.vpn),
        }),
        engine_error: report.engine_error.clone(),
        store_error: report.store_error.clone(),
        has_target: report.has_target,
        apps: report.apps.iter().map(|(uuid, report)| app(uuid.to_string(), report, now.uptime)).collect(),
        waiting: report.waiting.iter().map(waiting).collect(),
        download: report.download().map(download),
        evidence: report.evidence.iter().map(evidence).collect(),
        is_busy: report.is_busy,
        has_new_target: false,
        hold: report.hold.as_ref().map(|h| HoldStatus { reason: h.reason.clone(), since: h.since.clone() }),
        locks: locks(report, now),
        variables: target_status::variables(report),
        left_alone: target_status::left_alone(report),
    }
}

/// The document of `GET /v1/history`: which releases were tried, accepted and rejected, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryDocument {
    pub schema_version: u32,
    pub history: Vec<HappeningStatus>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HappeningStatus {
    /// RFC 3339, UTC, by the device's clock at that moment.
    pub at: String,
    /// Uuid.
    pub app: String,
    /// The app's name; its uuid when it is not known any more.
    pub name: String,
    /// Commit.
    pub release: String,
    /// `tried`, `accepted` or `rejected`.
    pub what: String,
    /// May be empty.
    pub why: String,
}

/// Makes the history document.
#[must_use]
pub(super) fn history(report: &Report) -> HistoryDocument {
    let status = |happening: &Happening| {
        let name = report.apps.get(&happening.app).map(|app| app.name.clone());
        HappeningStatus {
            at: happening.at.clone(),
            app: happening.app.to_string(),
            name: name.unwrap_or_else(|| happening.app.to_string()),
            release: happening.release.to_string(),
            what: happening.what.as_str().to_owned(),
            why: happening.why.clone(),
        }
    };
    let history = report.history.all().iter().map(status).collect();
    HistoryDocument { schema_version: SCHEMA_VERSION, history }
}

fn locks(report: &Report, now: Now<'_>) -> LocksStatus {
    let in_force = report.leases.iter().filter(|lease| lease.is_in_force(now.boot_id, now.uptime));
    let leases = in_force.map(|lease| {
        let rest = lease.until.saturating_sub(now.uptime);
        LeaseStatus {
            id: lease.id.clone(),
            owner: lease.owner.clone(),
            reason: lease.reason.clone(),
            expires_in_s: rest.as_secs() + u64::from(rest.subsec_nanos() > 0),
        }
    });
    let files = report.file_locks.iter().flat_map(|(app, locks)| {
        locks.iter().map(|(service, lock)| FileLockStatus {
            app: app.to_string(),
            service: service.to_string(),
            path: lock.path.clone(),
        })
    });
    LocksStatus { leases: leases.collect(), files: files.collect() }
}

fn app(uuid: String, report: &AppReport, uptime: Duration) -> AppStatus {
    let update = report.target.as_ref().and_then(|target| report.update.get(target));
    AppStatus {
        uuid,
        name: report.name.clone(),
        target: report.target.as_ref().map(ToString::to_string),
        current: report.current.as_ref().map(ToString::to_string),
        update: update.map(|update| update.as_str().to_owned()),
        services: report.services.iter().map(|s| service(s, uptime)).collect(),
        halted: report
            .stopped_by_operator
            .iter()
            .map(|(service, halt)| HaltedStatus { service: service.to_string(), since: halt.since.clone() })
            .collect(),
        forced: report.forced.as_ref().map(ToString::to_string),
    }
}

fn evidence(evidence: &Evidence) -> EvidenceStatus {
    EvidenceStatus {
        app: evidence.app.to_string(),
        release: evidence.release.to_string(),
        service: evidence.service.to_string(),
        at: evidence.at.clone(),
        restarts: evidence.restarts,
        cause: evidence.cause(),
        exit_code: evidence.end.as_ref().map(|end| end.exit_code),
        healthcheck: evidence.probe.as_ref().map(|probe| probe.output.clone()),
        lines: evidence.lines.clone(),
    }
}

pub(super) fn waiting(waiting: &Waiting) -> WaitingStatus {
    WaitingStatus {
        app: waiting.app.as_ref().map(ToString::to_string),
        service: waiting.service.as_ref().map(ToString::to_string),
        reason: waiting.reason.as_str().to_owned(),
        why: waiting.why.clone(),
        retry_in_s: waiting.retry_in.map(|d| d.as_secs()),
        since: waiting.since.clone(),
    }
}

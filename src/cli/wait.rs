//! `cotter update --wait`: follows an update to its end. It reads only the status document.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use tokio::time::Instant;

use super::exit::Exit;
use super::{print, status};
use crate::api::{self, DownloadStatus, StatusDocument, WaitingStatus};

/// How often the status is requested.
const INTERVAL: Duration = Duration::from_millis(300);

/// How long a report of the result may take. The agent leaves `cloud.report_interval` between two reports, 10 s unless
/// it is set.
const REPORTED_WITHIN: Duration = Duration::from_secs(15);

/// The progress of an update.
#[derive(Debug, PartialEq, Eq)]
enum Standing {
    /// The update is running: what it does, and how far its downloads are.
    Pending(String, Option<DownloadStatus>),
    /// The update has ended, or cannot continue by itself: the exit code and the reason.
    Ended(Exit, String),
}

/// Returns how many times the agent has polled the cloud.
pub(super) async fn polls(socket: &Path) -> anyhow::Result<u64> {
    Ok(api::status(socket).await?.cloud.map_or(0, |cloud| cloud.polls))
}

/// Shows the progress of the update until it ends or `timeout` is over. The update begins with a poll after the
/// first `before` polls.
pub(super) async fn wait(socket: &Path, before: u64, timeout: Duration) -> anyhow::Result<ExitCode> {
    let is_terminal = print::is_on_terminal();
    let mut shown = String::new();
    let shows = async {
        loop {
            let document = api::status(socket).await?;
            match standing(&document, before) {
                Standing::Ended(exit, why) => return anyhow::Ok((exit, why)),
                Standing::Pending(line, at) if is_terminal => {
                    let bar = |at: DownloadStatus| {
                        // A narrow terminal cuts the end, and the commit tells least.
                        format!("{} {}  {line}", bar(at.progress), status::download(&at))
                    };
                    print::progress(&at.map_or(line.clone(), bar))?;
                }
                Standing::Pending(line, _) if line != shown => {
                    print::line(&line)?;
                    shown = line;
                }
                Standing::Pending(..) => {}
            }
            tokio::time::sleep(INTERVAL).await;
        }
    };
    let (exit, why) = match tokio::time::timeout(timeout, shows).await {
        Ok(ended) => ended?,
        Err(_) => {
            let document = api::status(socket).await?;
            let blocked = blocked(&document);
            let (exit, why) = blocked.unwrap_or((Exit::Unexpected, "the update continues".to_owned()));
            (exit, format!("not done within {} s: {why}", timeout.as_secs()))
        }
    };
    if is_terminal {
        print::progress("")?;
    }
    print::line(&why)?;
    // Where the cloud does not answer, that was said already.
    let unreported = if exit == Exit::Unreachable { None } else { unreported(socket).await? };
    if let Some(why) = unreported {
        print::note(&format!("note: the cloud does not show this yet: {why}"));
    }
    Ok(exit.into())
}

/// Waits until the cloud has a report of the present state, so that it shows the same. Returns why it has none.
async fn unreported(socket: &Path) -> anyhow::Result<Option<String>> {
    let deadline = Instant::now() + REPORTED_WITHIN;
    loop {
        let Some(cloud) = api::status(socket).await?.cloud else { return Ok(None) };
        if cloud.is_reported || cloud.is_deleted {
            return Ok(None);
        }
        if let Some(error) = cloud.report_error {
            return Ok(Some(error));
        }
        if cloud.failures > 0 || Instant::now() >= deadline {
            return Ok(Some("a report has not arrived yet".to_owned()));
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// `[########            ]`
fn bar(percent: u8) -> String {
    let full = usize::from(percent.min(100)) / 5;
    format!("[{}{}]", "#".repeat(full), " ".repeat(20 - full))
}

fn standing(document: &StatusDocument, before: u64) -> Standing {
    if let Some(cloud) = &document.cloud {
        if cloud.polls <= before {
            return Standing::Pending("polling the cloud".to_owned(), None);
        }
        if cloud.is_deleted {
            let why = cloud.error.clone().unwrap_or_default();
            return Standing::Ended(Exit::Unreachable, format!("this device gets no new targets: {why}"));
        }
        if cloud.failures > 0 {
            let why = cloud.error.clone().unwrap_or_default();
            return Standing::Ended(Exit::Unreachable, format!("the poll failed: {why}"));
        }
    }
    if let Some(error) = &document.engine_error {
        return Standing::Pending(error.clone(), None);
    }
    let passing = ["downloading", "starting", "dependency", "trial", "hand-over"];
    let passes = |w: &&WaitingStatus| {
        passing.contains(&w.reason.as_str()) || (w.reason == "backoff" && w.retry_in_s.is_some())
    };
    let passing = document.waiting.iter().find(passes);
    if document.is_busy || passing.is_some() {
        return Standing::Pending(line(document, passing), document.download.clone());
    }
    if let Some((exit, why)) = blocked(document) {
        return Standing::Ended(exit, why);
    }
    let at_target = |app: &&api::AppStatus| app.target.is_none() || app.update.as_deref() == Some("done");
    if !document.apps.iter().all(|app| at_target(&app)) {
        return Standing::Pending(line(document, None), document.download.clone());
    }
    let apps = document.apps.iter().map(|app| match &app.target {
        Some(release) => format!("{} runs {release}", app.name),
        None => format!("{} runs nothing, as it should", app.name),
    });
    let apps = apps.collect::<Vec<_>>().join("; ");
    Standing::Ended(Exit::Done, if apps.is_empty() { "the target has no app".to_owned() } else { apps })
}

/// Says what each app does, without numbers that change all the time.
fn line(document: &StatusDocument, passing: Option<&WaitingStatus>) -> String {
    if document.has_new_target {
        return "planning the new target".to_owned();
    }
    let apps = document.apps.iter().filter_map(|app| {
        let update = app.update.as_deref().filter(|update| *update != "done")?;
        Some(format!("{}: {} is {update}", app.name, app.target.as_deref().unwrap_or("-")))
    });
    let mut parts: Vec<_> = apps.collect();
    parts.extend(passing.map(|w| w.reason.clone()).filter(|reason| reason != "downloading"));
    if parts.is_empty() { "cleaning up".to_owned() } else { parts.join(", ") }
}

/// Returns the worst of the causes that do not end by themselves, with its exit code.
fn blocked(document: &StatusDocument) -> Option<(Exit, String)> {
    let rejected = document.waiting.iter().any(|w| w.reason == "rejected");
    let rows = [
        ("degraded", if rejected { Exit::RollbackFailed } else { Exit::RolledBack }),
        ("engine_stuck", Exit::RolledBack),
        ("rejected", Exit::RolledBack),
        ("refused", Exit::Refused),
        ("insufficient_disk", Exit::NoSpace),
        ("port_in_use", Exit::Preflight),
        ("wrong_architecture", Exit::Preflight),
        ("unsupported_image", Exit::Preflight),
        ("host_lacks", Exit::Preflight),
        ("download_given_up", Exit::PullFailed),
        ("backoff", Exit::PullFailed),
        ("held", Exit::Held),
        ("locked", Exit::Held),
        ("window", Exit::Held),
        ("clock", Exit::Held),
    ];
    rows.into_iter().find_map(|(reason, exit)| {
        let waiting = document.waiting.iter().find(|w| w.reason == reason)?;
        Some((exit, format!("{reason}: {}", waiting.why)))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// A device with one app whose target is r2, in the state `update`, with these waits, after two polls.
    fn document(update: &str, waiting: &[(&str, Option<u64>)], more: Value) -> StatusDocument {
        let waiting: Vec<_> = waiting
            .iter()
            .map(|(reason, retry)| json!({ "app": "a", "service": null, "reason": reason, "why": "why", "retry_in_s": retry }))
            .collect();
        let service = |name: &str, progress| json!({ "name": name, "release": "r2", "image": "i", "status": "Downloading", "detail": "", "progress": progress });
        let mut document = json!({
            "schema_version": 1, "version": "0", "instance": "i", "device": { "uuid": "u", "name": null },
            "cloud": { "endpoint": "e", "last_contact": null, "next_poll": null, "error": null, "failures": 0, "polls": 2 },
            "engine_error": null, "store_error": null, "has_target": true, "is_busy": false, "hold": null,
            "apps": [{ "uuid": "a", "name": "shop", "target": "r2", "current": "r1", "update": update,
                       "services": [service("web", json!(40)), service("db", json!(null))] }],
            "waiting": waiting,
        });
        if update == "downloading" {
            document["download"] = json!({ "progress": 70, "fetched_bytes": 7, "total_bytes": 10 });
        }
        for (key, value) in more.as_object().unwrap() {
            document[key] = value.clone();
        }
        serde_json::from_value(document).unwrap()
    }

    #[test]
    fn what_becomes_of_an_update() {
        let at = |progress| DownloadStatus {
            progress,
            fetched_bytes: 7,
            total_bytes: Some(10),
            rate: None,
            left_s: None,
        };
        let pending = |line: &str, percent: Option<u8>| Standing::Pending(line.to_owned(), percent.map(at));
        let ended = |exit, why: &str| Standing::Ended(exit, why.to_owned());
        let none = json!({});
        let down = json!({ "cloud": { "endpoint": "e", "last_contact": null, "next_poll": null, "error": "no route", "failures": 1, "polls": 2 } });
        let deleted = json!({ "cloud": { "endpoint": "e", "last_contact": null, "next_poll": null, "error": "gone", "failures": 1, "polls": 2, "is_deleted": true } });
        for (update, waiting, more, expected) in [
            ("done", &[][..], &none, ended(Exit::Done, "shop runs r2")),
            ("done", &[], &json!({ "is_busy": true }), pending("cleaning up", None)),
            ("done", &[("unhealthy", None)], &none, ended(Exit::Done, "shop runs r2")),
            ("done", &[], &down, ended(Exit::Unreachable, "the poll failed: no route")),
            ("done", &[], &deleted, ended(Exit::Unreachable, "this device gets no new targets: gone")),
            (
                "rejected",
                &[("rejected", None)],
                &json!({ "has_new_target": true, "is_busy": true }),
                pending("planning the new target", None),
            ),
            ("downloading", &[("downloading", None)], &none, pending("shop: r2 is downloading", Some(70))),
            (
                "downloading",
                &[("backoff", Some(5))],
                &none,
                pending("shop: r2 is downloading, backoff", Some(70)),
            ),
            ("downloading", &[("backoff", None)], &none, ended(Exit::PullFailed, "backoff: why")),
            (
                "downloading",
                &[("insufficient_disk", Some(15))],
                &none,
                ended(Exit::NoSpace, "insufficient_disk: why"),
            ),
            (
                "downloading",
                &[("download_given_up", None)],
                &none,
                ended(Exit::PullFailed, "download_given_up: why"),
            ),
            ("downloading", &[("host_lacks", Some(15))], &none, ended(Exit::Preflight, "host_lacks: why")),
            ("downloading", &[("port_in_use", Some(15))], &none, ended(Exit::Preflight, "port_in_use: why")),
            ("downloaded", &[("locked", Some(60))], &none, ended(Exit::Held, "locked: why")),
            ("downloaded", &[("held", None)], &none, ended(Exit::Held, "held: why")),
            ("downloaded", &[], &none, pending("shop: r2 is downloaded", None)),
            (
                "applying changes",
                &[("trial", Some(9))],
                &none,
                pending("shop: r2 is applying changes, trial", None),
            ),
            ("rejected", &[("rejected", None)], &none, ended(Exit::RolledBack, "rejected: why")),
            (
                "rejected",
                &[("rejected", None), ("starting", None)],
                &none,
                pending("shop: r2 is rejected, starting", None),
            ),
            (
                "rejected",
                &[("rejected", None), ("degraded", None)],
                &none,
                ended(Exit::RollbackFailed, "degraded: why"),
            ),
            ("applying changes", &[("degraded", None)], &none, ended(Exit::RolledBack, "degraded: why")),
            ("rejected", &[("refused", None)], &none, ended(Exit::Refused, "refused: why")),
        ] {
            assert_eq!(
                standing(&document(update, waiting, more.clone()), 1),
                expected,
                "{update} {waiting:?}"
            );
        }
        let asked = standing(&document("done", &[], none), 2);
        assert_eq!(asked, pending("polling the cloud", None));
    }

    #[test]
    fn a_bar_has_one_length() {
        for (percent, full) in [(0, 0), (43, 8), (100, 20)] {
            assert_eq!(bar(percent), format!("[{}{}]", "#".repeat(full), " ".repeat(20 - full)));
        }
    }
}

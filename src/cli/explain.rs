//! `cotter explain`: why a device does not run what it should, and what clears each cause.
//!
//! Reads only the status document of the agent. This module derives the list of causes from it, with a remedy for
//! each.

use clap::Args;
use jiff::Timestamp;

use super::exit::Unknown;
use super::print;
use super::quantity::{ahead, since, when};
use super::status::{DELETED, Source};
use crate::api::{self, AppStatus, CloudStatus, EvidenceStatus, MovingStatus, StatusDocument, WaitingStatus};
use crate::host;

/// Arguments of `cotter explain`.
#[derive(Debug, Args)]
pub(super) struct Explain {
    /// Shows only what concerns this service, by its name in the compose file
    service: Option<String>,
    #[command(flatten)]
    source: Source,
    /// Prints JSON
    #[arg(long)]
    json: bool,
}

/// One cause, with its remedy.
#[derive(Debug, serde::Serialize)]
pub(super) struct Link {
    app: Option<String>,
    service: Option<String>,
    reason: String,
    why: String,
    since: Option<String>,
    /// Seconds until the agent tries again.
    retry_in_s: Option<u64>,
    /// What an operator can do.
    remedy: String,
    /// How the services of this cause failed, and what they wrote last.
    evidence: Vec<EvidenceStatus>,
}

pub(super) async fn run(explain: Explain) -> anyhow::Result<()> {
    let document = api::status(&explain.source.socket).await?;
    if let Some(service) = &explain.service {
        let mut known = document.apps.iter().flat_map(|app| app.services.iter()).map(|s| s.name.as_str());
        if !known.clone().any(|name| name == service) {
            let known: std::collections::BTreeSet<_> = known.by_ref().collect();
            let known = known.into_iter().collect::<Vec<_>>().join(", ");
            return Err(Unknown(format!("no service is called {service}; the services are: {known}")).into());
        }
    }
    let links = links(&document, explain.service.as_deref());
    if explain.json {
        return print::json("chain", &links);
    }
    for app in &document.apps {
        print::hanging(2, &heading(app))?;
    }
    if let Some((at, why)) =
        document.cloud.as_ref().and_then(|cloud| cloud.next_poll.as_ref().zip(cloud.pause.as_ref()))
    {
        print::hanging(
            2,
            &format!("next poll {}: {why}; `cotter update` polls at once", when(at, host::now())),
        )?;
    }
    if links.is_empty() {
        return print::line("the agent waits for nothing: the device runs what it should");
    }
    for link in &links {
        print::line("")?;
        let who = link.service.as_ref().map_or(String::new(), |service| format!(" {service}"));
        let since = link.since.as_ref().map_or(String::new(), |at| format!(", {}", since(at, host::now())));
        print::line(&format!("{}{who}{since}", link.reason))?;
        print::hanging(2, &format!("  {}", link.why))?;
        link.evidence.iter().try_for_each(print_evidence)?;
        let again = link.retry_in_s.map_or("on a change".to_owned(), ahead);
        print::line(&format!("  next try: {again}"))?;
        print::hanging(14, &format!("  what to do: {}", link.remedy))?;
    }
    Ok(())
}

fn print_evidence(evidence: &EvidenceStatus) -> anyhow::Result<()> {
    let EvidenceStatus { service, release, at, cause, lines, .. } = evidence;
    print::failure("  ", (service, release, at), cause.as_deref(), lines)
}

fn heading(app: &AppStatus) -> String {
    let wanted = app.target.as_deref().unwrap_or("no release");
    let update = app.update.as_deref().unwrap_or("-");
    let accepted = match &app.current {
        None => "no release was accepted yet".to_owned(),
        Some(current) if current == wanted && update == "rejected" => {
            format!("last accepted {current} with earlier variables")
        }
        Some(current) => format!("last accepted {current}"),
    };
    format!("{}: should run {wanted} ({update}), {accepted}", app.name)
}

/// Creates a cause that concerns the device and not one app.
fn of_device(reason: &str, why: &str, remedy: &str) -> Link {
    Link {
        app: None,
        service: None,
        reason: reason.to_owned(),
        why: why.to_owned(),
        since: None,
        retry_in_s: None,
        remedy: remedy.to_owned(),
        evidence: Vec::new(),
    }
}

/// Returns the causes that concern the cloud: polls, reports, a move.
fn of_cloud(cloud: &CloudStatus) -> Vec<Link> {
    let next = cloud.next_poll.as_ref().and_then(|at| at.parse::<Timestamp>().ok());
    let left = next.map(|at| at.duration_since(host::now()).as_secs());
    let retry_in_s = left.and_then(|seconds| u64::try_from(seconds).ok());
    let mut links = Vec::new();
    if cloud.is_deleted {
        let why = cloud.error.as_deref().unwrap_or(DELETED);
        let remedy = "ask an operator of the fleet to restore the device, or run `cotter join --force`; its apps go on running";
        links.push(Link { retry_in_s, ..of_device("deleted", why, remedy) });
    } else if let Some(error) = &cloud.error {
        let remedy = "see `cotter check`; the last target stays in force, and `cotter update` polls at once";
        links.push(Link { retry_in_s, ..of_device("cloud", error, remedy) });
    }
    if let Some(error) = &cloud.report_error {
        let remedy =
            "see `cotter check`; the cloud shows an older state of this device until a report arrives";
        links.push(of_device("report", error, remedy));
    }
    if let Some(MovingStatus { to, why: Some(why) }) = &cloud.moving {
        let why = format!("this device is to move to {to}, and stays where it is: {why}");
        let remedy =
            "correct it there, or in cloud.move_to of the settings; the device tries again by itself";
        links.push(of_device("moving", &why, remedy));
    }
    links
}

/// Returns every cause, those that concern the device first. With `service`, leaves out those of other services.
pub(super) fn links(document: &StatusDocument, service: Option<&str>) -> Vec<Link> {
    let mut links = Vec::new();
    if let Some(error) = &document.engine_error {
        links.push(of_device(
            "engine",
            error,
            "see `systemctl status docker`; running containers keep running",
        ));
    }
    if let Some(error) = &document.store_error {
        let remedy = "free space on the disk of state_dir; if it is read-only, see `dmesg`";
        links.push(of_device("store", error, remedy));
    }
    links.extend(document.cloud.iter().flat_map(of_cloud));
    if !document.has_target {
        let why = "no target was received yet, so the agent changes nothing";
        links.push(of_device("target", why, "the device must reach its cloud once: see `cotter check`"));
    }
    let concerns =
        |w: &&WaitingStatus| service.is_none() || w.service.is_none() || w.service.as_deref() == service;
    links.extend(document.waiting.iter().filter(concerns).map(|waiting| Link {
        app: waiting.app.clone(),
        service: waiting.service.clone(),
        reason: waiting.reason.clone(),
        why: waiting.why.clone(),
        since: waiting.since.clone(),
        retry_in_s: waiting.retry_in_s,
        remedy: match is_about_variables(document, waiting) {
            true => REJECTED_VARIABLES.to_owned(),
            false => remedy(&waiting.reason).to_owned(),
        },
        evidence: evidence(document, waiting),
    }));
    links
}

/// What to do if the accepted release was rejected with new variables.
const REJECTED_VARIABLES: &str = "the release is good, and its new variables are not: change them with `cotter env` at the fleet server; `cotter retry` tries these again";

/// Returns `true` if a wait says that the accepted release was rejected with other variables.
fn is_about_variables(document: &StatusDocument, waiting: &WaitingStatus) -> bool {
    let app = document.apps.iter().find(|app| Some(&app.uuid) == waiting.app.as_ref());
    waiting.reason == "rejected" && app.is_some_and(|app| app.target.is_some() && app.target == app.current)
}

/// Returns the evidence for a wait: that of its service in any release or, for a wait of an app, that of all services
/// of the wanted release.
fn evidence(document: &StatusDocument, waiting: &WaitingStatus) -> Vec<EvidenceStatus> {
    if !["rejected", "degraded", "unhealthy"].contains(&waiting.reason.as_str()) {
        return Vec::new();
    }
    let wanted = document.apps.iter().find(|app| Some(&app.uuid) == waiting.app.as_ref());
    let is_meant = |evidence: &&EvidenceStatus| {
        let is_its = waiting.service.as_ref().is_none_or(|service| *service == evidence.service);
        let is_wanted = wanted.and_then(|app| app.target.as_ref()) == Some(&evidence.release);
        Some(&evidence.app) == waiting.app.as_ref() && is_its && (is_wanted || waiting.service.is_some())
    };
    document.evidence.iter().filter(is_meant).cloned().collect()
}

/// Returns what an operator can do about a wait with this reason.
fn remedy(reason: &str) -> &'static str {
    match reason {
        "downloading" | "starting" | "dependency" | "trial" | "hand-over" => "nothing: it ends by itself",
        "backoff" => "fix the cause, then `cotter retry`",
        "refused" => "create a release without it, or change the setting that is named; what runs stays",
        "unhealthy" => "see `cotter logs SERVICE`; `cotter restart SERVICE` or `cotter retry` restarts it",
        "rejected" => "create a better release; `cotter retry` tries this one again",
        "held" => "`cotter unhold`",
        "locked" => "wait for its holder; `cotter update --force` passes the lock once",
        "window" => "wait; `cotter update --force` passes the window once",
        "clock" => {
            "set the clock (`timedatectl set-ntp true`); after 24 h of waiting, windows no longer count"
        }
        "insufficient_disk" => "free space on the engine's disk, or lower update.disk_reserve",
        "port_in_use" => "stop the holder of the port, or publish another port in the release",
        "unsupported_image" => {
            "push the image with layers packed with gzip (buildx: --output \"type=image,push=true,compression=gzip,force-compression=true\"), or install Docker 23 or newer"
        }
        "wrong_architecture" => "build the image for this device's architecture",
        "host_lacks" => "connect the device or load its kernel module, or create a release without it",
        "download_given_up" => {
            "fix the image or the link; a new target or `cotter retry` starts its downloads again"
        }
        "stopped" => "`cotter start SERVICE`",
        "engine_stuck" => {
            "see `journalctl -u docker`; restarting the engine stops what it runs without live-restore"
        }
        "degraded" => "see `cotter logs SERVICE`; create a better release",
        _ => "see `journalctl -u cotter-agent`",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::{Value, json};

    use super::*;
    use crate::model::Reason;

    #[test]
    fn every_reason_has_a_remedy() {
        for reason in Reason::ALL {
            assert_ne!(remedy(reason.as_str()), remedy("another"), "{}", reason.as_str());
        }
    }

    #[test]
    fn rejected_variables_are_no_bad_release() {
        let remedies = |current: &str| {
            let app = json!({ "uuid": "a", "name": "lab", "target": "r2", "current": current, "update": "rejected",
                "halted": [], "services": [], "forced": null });
            let wait = json!({ "app": "a", "service": null, "reason": "rejected", "why": "w", "retry_in_s": null, "since": null });
            let document = document(json!({ "cloud": null, "apps": [app], "waiting": [wait] }));
            links(&document, None).into_iter().map(|link| link.remedy).collect::<Vec<_>>()
        };
        assert_eq!(remedies("r1"), ["create a better release; `cotter retry` tries this one again"]);
        assert_eq!(remedies("r2"), [REJECTED_VARIABLES]);
    }

    /// Returns the first cells of the rows of a section.
    fn words(section: &str) -> BTreeSet<&str> {
        let rows = section.lines().filter_map(|line| line.strip_prefix("| `"));
        rows.filter_map(|row| row.split('`').next()).collect()
    }

    #[test]
    fn every_word_that_is_shown_has_its_row_in_the_documents_and_no_other() {
        let text = include_str!("../../docs/operations.md");
        let section = text.split("\n## ").find(|section| section.starts_with("What is waited for\n"));
        let (of_apps, of_device) = section.unwrap().split_once("\nWhat concerns the whole device").unwrap();
        assert_eq!(words(of_apps), Reason::ALL.iter().map(|reason| reason.as_str()).collect());
        let device = document(json!({ "engine_error": "e", "store_error": "e", "has_target": false }));
        let mut deleted = device.clone();
        let cloud = deleted.cloud.as_mut().unwrap();
        (cloud.is_deleted, cloud.report_error) = (true, Some("e".to_owned()));
        let links: Vec<_> = [device, deleted].iter().flat_map(|document| links(document, None)).collect();
        assert_eq!(words(of_device), links.iter().map(|link| link.reason.as_str()).collect());
    }

    fn document(more: Value) -> StatusDocument {
        let mut document = json!({
            "schema_version": 1, "version": "0", "instance": "i", "device": { "uuid": "u", "name": null },
            "cloud": { "endpoint": "e", "last_contact": null, "next_poll": null, "error": "e", "failures": 1, "polls": 1,
                       "moving": { "to": "https://other.example", "why": "w" } },
            "engine_error": null, "store_error": null, "has_target": true, "is_busy": false, "hold": null,
            "apps": [], "waiting": [],
        });
        for (key, value) in more.as_object().unwrap() {
            document[key] = value.clone();
        }
        serde_json::from_value(document).unwrap()
    }
}

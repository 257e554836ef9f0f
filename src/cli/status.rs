//! `cotter status`: prints the agent's status document as tables or as JSON.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use super::print;
use super::quantity::{ahead, since, when};
use crate::api::{
    self, AppStatus, DownloadStatus, FileLockStatus, LeaseStatus, StatusDocument, VpnStatus, WaitingStatus,
};
use crate::host;
use crate::model::quantity::{bytes, span, times};

/// The agent to ask.
#[derive(Debug, Args)]
pub(super) struct Source {
    /// The agent's status socket
    #[arg(
        long,
        env = "COTTER_STATUS_SOCKET",
        default_value = "/run/cotter/status.sock",
        value_name = "PATH"
    )]
    pub(super) socket: PathBuf,
}

/// Arguments of `cotter status`.
#[derive(Debug, Args)]
pub(super) struct Status {
    #[command(flatten)]
    source: Source,
    /// Prints JSON: the complete status document
    #[arg(long)]
    json: bool,
    /// Shows the status again whenever it changes, until Ctrl-C
    #[arg(long)]
    watch: bool,
}

/// How often `--watch` requests the status.
const INTERVAL: Duration = Duration::from_secs(1);

pub(super) async fn run(status: Status) -> anyhow::Result<()> {
    let mut document = api::status(&status.source.socket).await?;
    if status.json && !status.watch {
        return print::document(&document);
    }
    if !status.watch {
        return show(&document);
    }
    loop {
        let is_read = match (status.json, print::is_on_terminal()) {
            (true, _) => print::json_reaches(&serde_json::to_string(&document)?),
            (false, true) => print::screen().and_then(|()| show(&document)).is_ok(),
            (false, false) => show(&document).is_ok() && print::reaches(""),
        };
        if !is_read {
            return Ok(());
        }
        document = changed(&status.source.socket, document).await?;
    }
}

/// Returns the next status that differs from `before` in more than the time that has passed and the lines of logs that were sent.
/// While the agent is restarting or busy, keeps asking.
async fn changed(socket: &Path, before: StatusDocument) -> anyhow::Result<StatusDocument> {
    let timeless = |mut document: StatusDocument| {
        for service in document.apps.iter_mut().flat_map(|app| &mut app.services) {
            (service.for_s, service.detail) = (None, String::new());
        }
        if let Some(cloud) = &mut document.cloud {
            (cloud.logs.sent, cloud.logs.waiting) = (0, 0);
        }
        document
    };
    let before = timeless(before);
    loop {
        tokio::time::sleep(INTERVAL).await;
        match api::status(socket).await {
            Ok(document) if timeless(document.clone()) == before => {}
            Ok(document) => return Ok(document),
            Err(error) if error.may_pass() => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn show(document: &StatusDocument) -> anyhow::Result<()> {
    let mut facts = vec![
        ("device", device(document)),
        ("agent", format!("{} ({})", document.version, document.instance)),
    ];
    facts.extend(cloud(document));
    facts.extend(document.engine_error.iter().map(|e| ("engine error", e.clone())));
    facts.extend(document.store_error.iter().map(|e| ("store error", e.clone())));
    facts.extend(
        document.hold.iter().map(|h| ("held", format!("{}: {}", since(&h.since, host::now()), h.reason))),
    );
    facts.extend(document.locks.leases.iter().map(|l| ("locked", lease(l))));
    facts.extend(document.locks.files.iter().map(|f| ("locked", file_lock(document, f))));
    for app in &document.apps {
        let is_deleted = document.cloud.as_ref().is_some_and(|cloud| cloud.is_deleted);
        facts.push(("app", release(app, is_deleted)));
        let halted = app.halted.iter();
        facts
            .extend(halted.map(|h| ("stopped", format!("{} of {}, since {}", h.service, app.name, h.since))));
    }
    facts.extend(
        document
            .left_alone
            .iter()
            .map(|app| ("left alone", format!("{} ({}): {}", app.name, app.uuid, app.why))),
    );
    let without_effect = document.variables.iter().filter(|variable| !variable.is_honoured());
    facts.extend(without_effect.map(|variable| ("variable", variable.line())));
    print::facts(&facts)?;
    if !document.has_target {
        print::line("")?;
        print::line("no target was received yet, so the agent changes nothing")?;
    }
    let services = document.apps.iter().flat_map(|app| app.services.iter().map(move |s| (app, s)));
    let rows: Vec<_> = services
        .map(|(app, s)| {
            let at = s.download.as_ref();
            [
                app.name.clone(),
                s.name.clone(),
                print::short(Some(&s.release)),
                at.map_or_else(|| s.status.clone(), |at| format!("{} {} %", s.status, at.progress)),
                print::or_dash(Some(&at.map_or_else(|| s.detail.clone(), bytes_of))),
            ]
        })
        .collect();
    if !rows.is_empty() {
        print::line("")?;
        print::table(["APP", "SERVICE", "RELEASE", "STATUS", "DETAIL"], rows, "")?;
    }
    if !document.waiting.is_empty() {
        print::line("")?;
        let headers = ["WAITING", "SERVICE", "NEXT TRY", "WHY"].map(str::to_owned).to_vec();
        let rows: Vec<_> = std::iter::once(headers).chain(document.waiting.iter().map(waiting)).collect();
        print::hinted(&rows, "", Some("cotter explain"))?;
    }
    Ok(())
}

/// The lines about the cloud.
fn cloud(document: &StatusDocument) -> Vec<(&'static str, String)> {
    let Some(cloud) = &document.cloud else { return vec![("cloud", "not set".to_owned())] };
    let mut facts = vec![("cloud", cloud.endpoint.clone())];
    facts.extend(cloud.warning.iter().map(|warning| ("cloud warning", warning.clone())));
    let moment =
        |at: &Option<String>| at.as_deref().map_or_else(|| "-".to_owned(), |at| when(at, host::now()));
    facts.push(("last contact", moment(&cloud.last_contact)));
    let pause = cloud.pause.as_ref().map_or(String::new(), |why| format!(": {why}"));
    facts.push(("next poll", moment(&cloud.next_poll) + &pause));
    if cloud.is_deleted {
        facts.push(("deleted", DELETED.to_owned()));
    }
    if let Some(error) = &cloud.error {
        facts.push(("cloud error", format!("{error} (failed {} in a row)", times(cloud.failures.max(1)))));
    }
    facts.extend(cloud.report_error.iter().map(|error| ("report error", error.clone())));
    // An agent of an earlier version does not say.
    if !cloud.logs.state.is_empty() {
        facts.push(("logs", cloud.logs.line()));
    }
    facts.extend(cloud.moving.iter().map(|moving| {
        let why = moving.why.as_ref().map_or_else(String::new, |why| format!(", not yet: {why}"));
        ("moving", format!("to {}{why}", moving.to))
    }));
    facts.extend(cloud.vpn.iter().map(|vpn| ("vpn", self::vpn(vpn))));
    facts
}

/// How the tunnel to the VPN of the cloud is.
fn vpn(vpn: &VpnStatus) -> String {
    match (&vpn.address, &vpn.why, &vpn.remedy) {
        (Some(address), ..) => format!("connected, as {address}"),
        (None, Some(why), Some(remedy)) => format!("not connected: {why}; {remedy}"),
        (None, ..) => vpn.state.clone(),
    }
}

/// What it means for a device that its cloud does not have it any more.
pub(super) const DELETED: &str =
    "the cloud does not have this device any more: it gets no new targets, and its apps go on running";

fn device(document: &StatusDocument) -> String {
    match &document.device.name {
        Some(name) => format!("{name} ({})", document.device.uuid),
        None => document.device.uuid.clone(),
    }
}

fn lease(lease: &LeaseStatus) -> String {
    format!("by {}: {} ({}, ends in {} s)", lease.owner, lease.reason, lease.id, lease.expires_in_s)
}

fn file_lock(document: &StatusDocument, lock: &FileLockStatus) -> String {
    let app = document.apps.iter().find(|app| app.uuid == lock.app);
    let name = app.map_or(lock.app.as_str(), |app| &app.name);
    format!("by {} of {name}: {}", lock.service, lock.path)
}

fn release(app: &AppStatus, is_deleted: bool) -> String {
    let progress = progress(app, is_deleted);
    if app.forced.is_some() && app.forced == app.target {
        format!("{progress}, passes locks and windows")
    } else {
        progress
    }
}

fn progress(app: &AppStatus, is_deleted: bool) -> String {
    let target = print::short(app.target.as_deref());
    let current = print::short(app.current.as_deref());
    match &app.update {
        Some(update) if app.current.is_none() => {
            format!("{}: runs nothing yet, target {target} ({update})", app.name)
        }
        Some(update) if target != current || update != "done" => {
            format!("{}: runs {current}, target {target} ({update})", app.name)
        }
        Some(_) if is_deleted => format!("{}: runs {current}, its last target", app.name),
        Some(_) => format!("{}: runs {current}, as it should", app.name),
        None => format!("{}: runs {current}, and should run nothing", app.name),
    }
}

/// How far a download is: `43 %, 17 MiB of 40 MiB, 1.2 MiB/s, 19 s left`.
pub(super) fn download(at: &DownloadStatus) -> String {
    let (percent, bytes) = (at.progress, bytes_of(at));
    if bytes.is_empty() { format!("{percent} %") } else { format!("{percent} %, {bytes}") }
}

/// The bytes of a download, its rate, and the time that is left. Empty while its size is not known.
fn bytes_of(at: &DownloadStatus) -> String {
    let Some(total) = at.total_bytes else { return String::new() };
    let mut parts = vec![format!("{} of {}", bytes(at.fetched_bytes), bytes(total))];
    if at.fetched_bytes >= total {
        parts.push("unpacking".to_owned());
    } else {
        parts.extend(at.rate.map(|rate| format!("{}/s", bytes(rate))));
        parts.extend(at.left_s.map(|left| format!("{} left", span(left))));
    }
    parts.join(", ")
}

fn waiting(waiting: &WaitingStatus) -> Vec<String> {
    let again = waiting.retry_in_s.map_or("on a change".to_owned(), ahead);
    vec![waiting.reason.clone(), print::or_dash(waiting.service.as_deref()), again, waiting.why.clone()]
}

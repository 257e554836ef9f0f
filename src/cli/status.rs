//! `cotter status`: prints the agent's status document as tables or as JSON.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use super::print;
use crate::api::{self, AppStatus, FileLockStatus, LeaseStatus, StatusDocument, WaitingStatus};

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

/// Returns the next status that differs from `before`. While the agent is restarting or busy, keeps asking.
async fn changed(socket: &Path, before: StatusDocument) -> anyhow::Result<StatusDocument> {
    loop {
        tokio::time::sleep(INTERVAL).await;
        match api::status(socket).await {
            Ok(document) if document == before => {}
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
    match &document.cloud {
        None => facts.push(("cloud", "not set".to_owned())),
        Some(cloud) => {
            facts.push(("cloud", cloud.endpoint.clone()));
            facts.extend(cloud.warning.iter().map(|warning| ("cloud warning", warning.clone())));
            facts.push(("last contact", print::or_dash(cloud.last_contact.as_deref())));
            facts.push(("next poll", print::or_dash(cloud.next_poll.as_deref())));
            if let Some(error) = &cloud.error {
                facts.push((
                    "cloud error",
                    format!("{error} (failed {} times in a row)", cloud.failures.max(1)),
                ));
            }
        }
    }
    facts.extend(document.engine_error.iter().map(|e| ("engine error", e.clone())));
    facts.extend(document.store_error.iter().map(|e| ("store error", e.clone())));
    facts.extend(document.hold.iter().map(|h| ("held", format!("since {}: {}", h.since, h.reason))));
    facts.extend(document.locks.leases.iter().map(|l| ("locked", lease(l))));
    facts.extend(document.locks.files.iter().map(|f| ("locked", file_lock(document, f))));
    for app in &document.apps {
        facts.push(("app", release(app)));
        let halted = app.halted.iter();
        facts
            .extend(halted.map(|h| ("stopped", format!("{} of {}, since {}", h.service, app.name, h.since))));
    }
    print::facts(&facts)?;
    if !document.has_target {
        print::line("")?;
        print::line("no target was received yet, so the agent changes nothing")?;
    }
    let services = document.apps.iter().flat_map(|app| app.services.iter().map(move |s| (app, s)));
    let rows: Vec<_> = services
        .map(|(app, s)| {
            let progress = s.progress.map_or(String::new(), |p| format!(" {p} %"));
            [
                app.name.clone(),
                s.name.clone(),
                print::short(Some(&s.release)),
                format!("{}{progress}", s.status),
                print::or_dash(Some(&s.detail)),
            ]
        })
        .collect();
    if !rows.is_empty() {
        print::line("")?;
        print::table(["APP", "SERVICE", "RELEASE", "STATUS", "ENGINE"], rows, "")?;
    }
    if !document.waiting.is_empty() {
        print::line("")?;
        print::table(["WAITING", "SERVICE", "WHY", "NEXT TRY"], document.waiting.iter().map(waiting), "")?;
    }
    Ok(())
}

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

fn release(app: &AppStatus) -> String {
    let progress = progress(app);
    if app.forced.is_some() && app.forced == app.target {
        format!("{progress}, passes locks and windows")
    } else {
        progress
    }
}

fn progress(app: &AppStatus) -> String {
    let target = print::short(app.target.as_deref());
    let current = print::short(app.current.as_deref());
    match &app.update {
        Some(update) if target != current || update != "done" => {
            format!("{}: runs {current}, target {target} ({update})", app.name)
        }
        Some(_) => format!("{}: runs {current}, as it should", app.name),
        None => format!("{}: runs {current}, and should run nothing", app.name),
    }
}

fn waiting(waiting: &WaitingStatus) -> [String; 4] {
    let again = waiting.retry_in_s.map_or("on a change".to_owned(), |s| format!("in {s} s"));
    [waiting.reason.clone(), print::or_dash(waiting.service.as_deref()), waiting.why.clone(), again]
}

//! `cotter explain`: why a device does not run what it should, and what clears it.
//!
//! All of it is in the status document; here it is a chain in words.

use clap::Args;

use super::exit::Unknown;
use super::print;
use super::status::Source;
use crate::api::{self, AppStatus, StatusDocument, WaitingStatus};

/// Whom to ask, and about what.
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

/// One link of the chain.
#[derive(Debug, serde::Serialize)]
pub(super) struct Link {
    app: Option<String>,
    service: Option<String>,
    reason: String,
    why: String,
    since: Option<String>,
    /// Seconds until it is tried again.
    retry_in_s: Option<u64>,
    /// What an operator can do about it.
    remedy: String,
}

pub(super) async fn run(explain: Explain) -> anyhow::Result<()> {
    let document = api::status(&explain.source.socket).await?;
    if let Some(service) = &explain.service {
        let mut known = document.apps.iter().flat_map(|app| app.services.iter()).map(|s| s.name.as_str());
        if !known.clone().any(|name| name == service) {
            let known: std::collections::BTreeSet<_> = known.by_ref().collect();
            let known = known.into_iter().collect::<Vec<_>>().join(", ");
            return Err(Unknown(format!("no service is called {service}; there are: {known}")).into());
        }
    }
    let links = links(&document, explain.service.as_deref());
    if explain.json {
        return print::json("chain", &links);
    }
    for app in &document.apps {
        print::line(&heading(app))?;
    }
    if links.is_empty() {
        return print::line("nothing is waited for: the device runs what it should");
    }
    for link in &links {
        print::line("")?;
        let who = link.service.as_ref().map_or(String::new(), |service| format!(" {service}"));
        let since = link.since.as_ref().map_or(String::new(), |since| format!(", since {since}"));
        print::line(&format!("{}{who}{since}", link.reason))?;
        print::line(&format!("  {}", link.why))?;
        let again = link.retry_in_s.map_or("when it changes".to_owned(), |s| format!("in {s} s"));
        print::line(&format!("  looked at again {again}"))?;
        print::line(&format!("  {}", link.remedy))?;
    }
    Ok(())
}

fn heading(app: &AppStatus) -> String {
    let or_none = |commit: &Option<String>| commit.clone().unwrap_or_else(|| "no release".to_owned());
    let (wanted, runs) = (or_none(&app.target), or_none(&app.current));
    let update = app.update.as_deref().unwrap_or("-");
    format!("{}: should run {wanted} ({update}), last accepted {runs}", app.name)
}

/// Everything that is in the way, what stops all of it first.
pub(super) fn links(document: &StatusDocument, service: Option<&str>) -> Vec<Link> {
    let whole = |reason: &str, why: &str, remedy: &str| Link {
        app: None,
        service: None,
        reason: reason.to_owned(),
        why: why.to_owned(),
        since: None,
        retry_in_s: None,
        remedy: remedy.to_owned(),
    };
    let mut links = Vec::new();
    if let Some(error) = &document.engine_error {
        links.push(whole("engine", error, "see `systemctl status docker`; what runs goes on meanwhile"));
    }
    if let Some(error) = &document.store_error {
        links.push(whole("store", error, "free space on the disk of state_dir, or repair it"));
    }
    if let Some(error) = document.cloud.as_ref().and_then(|cloud| cloud.error.as_ref()) {
        links.push(whole("cloud", error, "the last target stays in force; `cotter update` asks again now"));
    }
    if !document.has_target {
        let why = "no target was received yet: nothing is touched";
        links.push(whole("target", why, "the device must have reached its cloud once: see cloud.endpoint"));
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
        remedy: remedy(&waiting.reason).to_owned(),
    }));
    links
}

/// What clears a waiting, by its stable word.
fn remedy(reason: &str) -> &'static str {
    match reason {
        "downloading" | "starting" | "dependency" | "trial" => "it goes on by itself",
        "hand-over" => "the new container says that it has taken over, or its time ends",
        "backoff" => "`cotter retry` tries it now, once the cause above is mended",
        "refused" => "make a release without it; the one that runs is left alone",
        "unhealthy" => "see `cotter logs SERVICE`; `cotter restart SERVICE` or `cotter retry` starts it anew",
        "rejected" => "make a better release, or `cotter retry` tries this one again",
        "held" => "`cotter unhold`",
        "locked" => "its holder ends the lock; `cotter update --force` passes it once",
        "window" => "it opens by itself; `cotter update --force` passes it once",
        "clock" => "set the clock (`timedatectl`); after a day of waiting the window counts for nothing",
        "insufficient_disk" => "free space on the engine's disk, or lower update.disk_reserve",
        "port_in_use" => "stop who holds the port, or choose another one in the release",
        "wrong_architecture" => "build the image for this device's architecture",
        "stopped" => "`cotter start SERVICE`",
        "engine_stuck" => "see the engine's own log; restarting it may help, and stops what it runs",
        "degraded" => "a release that runs well is accepted by itself; else make a better one",
        _ => "see the journal",
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
            assert_ne!(remedy(reason.as_str()), "see the journal", "{}", reason.as_str());
        }
    }

    /// The first cells of the rows of a section.
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
        let links = links(&device, None);
        assert_eq!(words(of_device), links.iter().map(|link| link.reason.as_str()).collect());
    }

    fn document(more: Value) -> StatusDocument {
        let mut document = json!({
            "schema_version": 1, "version": "0", "instance": "i", "device": { "uuid": "u", "name": null },
            "cloud": { "endpoint": "e", "last_contact": null, "next_poll": null, "error": "e", "failures": 1, "polls": 1 },
            "engine_error": null, "store_error": null, "has_target": true, "is_busy": false, "hold": null,
            "apps": [], "waiting": [],
        });
        for (key, value) in more.as_object().unwrap() {
            document[key] = value.clone();
        }
        serde_json::from_value(document).unwrap()
    }
}

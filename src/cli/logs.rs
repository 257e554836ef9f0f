//! `cotter logs`: prints the output of a service, which the agent reads from the engine.

use std::time::Duration;

use clap::Args;

use super::exit::Unknown;
use super::print;
use super::status::Source;
use crate::api::{self, EvidenceStatus, LogRequest, StatusDocument};
use crate::host;

/// Arguments of `cotter logs`.
#[derive(Debug, Args)]
pub(super) struct ShowLogs {
    /// Name of the service in the compose file
    service: String,
    /// App of the service; needed only if several apps have a service of this name
    #[arg(long, value_name = "UUID|NAME")]
    app: Option<String>,
    /// Continues with new output, also of the container that replaces this one
    #[arg(short, long)]
    follow: bool,
    /// Shows only output since a time, e.g. 2026-12-01T08:00:00Z, or of the last e.g. 10min
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<i32>,
    /// How many of the last lines to show, 10000 at most [default: 100, or 10000 with --since]
    #[arg(long, value_name = "LINES", value_parser = clap::value_parser!(u32).range(0..=10_000))]
    tail: Option<u32>,
    /// Shows the last lines that the service wrote in a release that was rejected, or that does not run well. They are
    /// kept after its container is removed, for the last 8 failures
    #[arg(long, value_name = "COMMIT", conflicts_with_all = ["follow", "since", "tail", "raw"])]
    release: Option<String>,
    /// Shows the output on a terminal exactly as it was written: it can then move the cursor and hide lines. Files
    /// and pipes always get it exactly
    #[arg(long)]
    raw: bool,
    #[command(flatten)]
    source: Source,
}

/// Returns the seconds since 1970 of a time, or of a duration before now.
fn since(text: &str) -> Result<i32, String> {
    let at = match text.parse::<jiff::Timestamp>() {
        Ok(at) => Some(at),
        Err(_) => {
            humantime::parse_duration(text).ok().and_then(|ago: Duration| host::now().checked_sub(ago).ok())
        }
    };
    let seconds = at.and_then(|at| i32::try_from(at.as_second()).ok());
    seconds
        .ok_or_else(|| "write a time such as 2026-12-01T08:00:00Z, or how long ago, such as 10min".to_owned())
}

pub(super) async fn run(logs: ShowLogs) -> anyhow::Result<()> {
    let ShowLogs { service, app, follow, since, tail, release, raw, source } = logs;
    if let Some(release) = release {
        let document = api::status(&source.socket).await?;
        let evidence = kept(&document, &service, app.as_deref(), &release)?;
        return evidence.lines.iter().try_for_each(|line| print::line(line));
    }
    let tail = tail.or(since.map(|_| 10_000));
    let request = LogRequest { service, app, tail, since, follow };
    let mut log = api::logs(&source.socket, &request).await?;
    let mut out = print::Log::new(raw);
    while let Some(piece) = log.next().await.map_err(anyhow::Error::msg)? {
        if !out.piece_reaches(&piece)? {
            return Ok(());
        }
    }
    out.end()
}

/// Returns what was kept of a failure of a service in a release. The commit may be cut.
fn kept<'a>(
    document: &'a StatusDocument,
    service: &str,
    app: Option<&str>,
    release: &str,
) -> anyhow::Result<&'a EvidenceStatus> {
    let is_app = |evidence: &EvidenceStatus| {
        let name = document.apps.iter().find(|app| app.uuid == evidence.app).map(|app| app.name.as_str());
        app.is_none_or(|app| app == evidence.app || Some(app) == name)
    };
    let is_meant = |evidence: &&EvidenceStatus| {
        evidence.service == service && evidence.release.starts_with(release) && is_app(evidence)
    };
    let mut found = document.evidence.iter().filter(is_meant);
    match (found.next(), found.next()) {
        (Some(evidence), None) => Ok(evidence),
        (Some(_), Some(_)) => {
            let why =
                format!("release {release} is not unique; write the whole commit, or say which with --app");
            Err(Unknown(why).into())
        }
        (None, _) => {
            let known: Vec<_> =
                document.evidence.iter().map(|e| format!("{} of {}", e.service, e.release)).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            let why =
                format!("no lines of service {service} in release {release} are kept; kept are: {known}");
            Err(Unknown(why).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::since;

    #[test]
    fn times_and_how_long_ago() {
        assert_eq!(since("2026-12-01T00:00:00Z"), Ok(1_796_083_200));
        assert!(since("10min").unwrap() < since("1s").unwrap());
        for bad in ["", "yesterday", "10", "-5s", "9999-01-01T00:00:00Z"] {
            assert!(since(bad).is_err(), "{bad}");
        }
    }
}

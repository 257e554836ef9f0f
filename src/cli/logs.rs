//! `cotter logs`: prints the output of a service, which the agent reads from the engine.

use std::time::Duration;

use clap::Args;

use super::print;
use super::status::Source;
use crate::api::{self, LogRequest};
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
    let ShowLogs { service, app, follow, since, tail, raw, source } = logs;
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

//! `cotter audit`: the audit trail of a fleet server.

use clap::Args;
use jiff::{SignedDuration, Timestamp};

use super::client::{Client, Connection};
use super::print;
use crate::host;
use crate::wire::operator_api::access::{AuditView, ThingView};

/// Maximum number of records that the server returns at once.
const MOST_OF_A_PAGE: usize = 1000;

/// Records that are shown where no number is given.
const USUAL: usize = 50;

/// Things that a line names.
const NAMED: usize = 2;

/// Arguments of `cotter audit`.
#[derive(Debug, Args)]
pub(super) struct Audit {
    /// Only what changed this fleet, its devices, releases or keys
    #[arg(long)]
    fleet: Option<String>,
    /// Only what this user did, or this token: its name, or its id
    #[arg(long, value_name = "USER or TOKEN")]
    by: Option<String>,
    /// Only what changed this device: name or uuid, or the first 4 or more digits of the uuid
    #[arg(long)]
    device: Option<String>,
    /// Only what has this text under WHAT, e.g. pin
    #[arg(long, value_name = "TEXT")]
    what: Option<String>,
    /// Only what was done at this time or later: a time such as 2026-12-01T08:00:00Z, or how long ago, e.g. 2h
    #[arg(long, value_name = "TIME", value_parser = Moment::parse)]
    since: Option<Moment>,
    /// Only what was done before this time
    #[arg(long, value_name = "TIME", value_parser = Moment::parse)]
    until: Option<Moment>,
    /// Maximum number of records to show, the newest first [default: 50; with --json all]
    #[arg(long, value_name = "NUMBER")]
    limit: Option<usize>,
    /// Prints JSON, a record on each line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

/// A time on the command line.
#[derive(Debug, Clone, Copy)]
enum Moment {
    At(Timestamp),
    Ago(SignedDuration),
}

impl Moment {
    fn parse(text: &str) -> Result<Self, String> {
        let ago = || SignedDuration::try_from(humantime::parse_duration(text).ok()?).ok();
        let moment = text.parse().map(Self::At).ok().or_else(|| ago().map(Self::Ago));
        moment.ok_or_else(|| "write a time such as 2026-12-01T08:00:00Z, or how long ago, e.g. 2h".to_owned())
    }

    fn at(self, now: Timestamp) -> String {
        match self {
            Self::At(at) => at,
            Self::Ago(ago) => now.checked_sub(ago).unwrap_or(Timestamp::MIN),
        }
        .to_string()
    }
}

pub(super) async fn run(audit: Audit) -> anyhow::Result<()> {
    let Audit { fleet, by, device, what, since, until, limit, json, connection } = audit;
    let client = Client::new(connection)?;
    let now = host::now();
    let (since, until) = (since.map(|at| at.at(now)), until.map(|at| at.at(now)));
    let mut left = limit.unwrap_or(if json { usize::MAX } else { USUAL });
    let (mut rows, mut cursor) = (Vec::new(), None::<String>);
    while left > 0 {
        let most = left.min(MOST_OF_A_PAGE).to_string();
        let query = [
            ("fleet", fleet.as_deref()),
            ("by", by.as_deref()),
            ("device", device.as_deref()),
            ("what", what.as_deref()),
            ("since", since.as_deref()),
            ("until", until.as_deref()),
            ("limit", Some(most.as_str())),
            ("cursor", cursor.as_deref()),
        ];
        let (entries, next) = client.page::<AuditView>(&["audit"], &query).await?;
        left = left.saturating_sub(entries.len());
        for entry in entries {
            if !json {
                rows.push(row(entry));
            } else if !print::json_reaches(&serde_json::to_string(&entry)?) {
                return Ok(());
            }
        }
        // A server that gives the same page again would be asked for ever.
        if next.is_none() || next == cursor {
            cursor = None;
            break;
        }
        cursor = next;
    }
    if json {
        return Ok(());
    }
    let headers = ["TIME", "BY", "FROM", "WHAT", "ON", "DETAILS", "REASON", "RESULT"];
    print::table(headers, rows, "there is no such record")?;
    if limit.is_none() && cursor.is_some() {
        print::note(&format!(
            "these are the newest {USUAL}, and there may be older ones: --limit NUMBER, --since TIME or --json shows more"
        ));
    }
    Ok(())
}

fn row(entry: AuditView) -> [String; 8] {
    let by = match &entry.user {
        Some(user) => format!("{user}/{}", entry.token),
        None => entry.token.clone(),
    };
    let on = on(&entry);
    let result = match (entry.status, &entry.message) {
        (Some(status), Some(message)) => format!("{} ({status}): {message}", entry.result),
        _ => entry.result,
    };
    let or_dash = |text: Option<String>| print::or_dash(text.as_deref());
    [
        entry.at.to_string(),
        by,
        or_dash(entry.from),
        entry.what,
        on,
        or_dash(entry.details),
        or_dash(entry.why),
        result,
    ]
}

/// What a record is about: the things that were changed, or what the request named.
fn on(entry: &AuditView) -> String {
    let name = |thing: &ThingView| thing.name.clone().unwrap_or_else(|| print::short(Some(&thing.id)));
    let named: Vec<_> = entry.things.iter().take(NAMED).map(name).collect();
    let more = entry.count.saturating_sub(named.len());
    match (named.is_empty(), more) {
        (true, _) => entry.request.clone(),
        (false, 0) => named.join(", "),
        (false, more) => format!("{} and {more} more", named.join(", ")),
    }
}

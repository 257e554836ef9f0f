//! `cotter history`: how the last releases on this device ended.

use clap::Args;

use super::print;
use super::status::Source;
use crate::api::{self, HappeningStatus};

/// Arguments of `cotter history`.
#[derive(Debug, Args)]
pub(super) struct History {
    #[command(flatten)]
    source: Source,
    /// Prints JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(history: History) -> anyhow::Result<()> {
    let document = api::history(&history.source.socket).await?;
    if history.json {
        return print::document(&document);
    }
    let empty = "no release was accepted or rejected yet";
    print::table(["AT", "APP", "RELEASE", "WHAT", "WHY"], document.history.iter().map(row), empty)
}

fn row(happening: &HappeningStatus) -> [String; 5] {
    [
        happening.at.clone(),
        happening.name.clone(),
        print::short(Some(&happening.release)),
        happening.what.clone(),
        print::or_dash(Some(&happening.why)),
    ]
}

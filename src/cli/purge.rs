//! `cotter purge`: removes volumes after a question.

use clap::Args;

use super::consent::agree;
use super::control::Plain;
use super::print;
use crate::api::{self, PurgeRequest};

/// Arguments of `cotter purge`.
#[derive(Debug, Args)]
pub(super) struct Purge {
    /// App whose volumes are removed; without it, all volumes are listed and none is removed
    #[arg(value_name = "APP")]
    app: Option<String>,
    /// Removes only this volume, by its name in the compose file
    #[arg(value_name = "VOLUME", requires = "app")]
    volume: Option<String>,
    /// Removes without a question
    #[arg(long)]
    yes: bool,
    /// Ignores locks
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    agent: Plain,
}

pub(super) async fn run(purge: Purge) -> anyhow::Result<()> {
    let request = |dry_run| PurgeRequest {
        app: purge.app.clone(),
        volume: purge.volume.clone(),
        force: purge.force,
        dry_run,
    };
    let send = async |dry_run| api::order(&purge.agent.socket, "purge", &request(dry_run)).await;
    if purge.app.is_none() {
        return print::line(&send(true).await?.message);
    }
    if !purge.yes {
        print::line(&send(true).await?.message)?;
        agree("Their content will be lost.", "nothing was removed", false)?;
    }
    print::line(&send(false).await?.message)
}

//! `cotter names`: the names that a shell completes, one on each line.

use std::time::Duration;

use clap::{Args, ValueEnum};

use super::client::{Client, Connection};
use super::print;
use super::status::Source;
use crate::api;
use crate::wire::operator_api::{DeviceView, FleetView, ReleaseView};

/// Longest time for an answer: the user waits at the prompt. The process may linger for as long again.
const WITHIN: Duration = Duration::from_secs(1);

/// Arguments of `cotter names`.
#[derive(Debug, Args)]
pub(super) struct Names {
    /// What to list
    kind: Kind,
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Kind {
    Fleets,
    Devices,
    Releases,
    Services,
}

/// Prints the names that can be had. A shell has no place for an error, so then there are none.
pub(super) async fn run(names: Names) -> anyhow::Result<()> {
    let Ok(Ok(mut found)) = tokio::time::timeout(WITHIN, found(names)).await else { return Ok(()) };
    found.sort_unstable();
    found.dedup();
    found.iter().filter(|name| !name.is_empty()).try_for_each(|name| print::line(name))
}

async fn found(names: Names) -> anyhow::Result<Vec<String>> {
    if let Kind::Services = names.kind {
        let apps = api::status(&names.source.socket).await?.apps;
        return Ok(apps.into_iter().flat_map(|app| app.services).map(|service| service.name).collect());
    }
    let client = Client::new(names.connection)?;
    Ok(match names.kind {
        Kind::Fleets => {
            let fleets: Vec<FleetView> = client.list(&["fleets"], &[], None).await?;
            fleets.into_iter().map(|fleet| fleet.name).collect()
        }
        Kind::Devices => {
            let devices: Vec<DeviceView> = client.list(&["devices"], &[], None).await?;
            devices.into_iter().map(|device| device.name).collect()
        }
        Kind::Releases => {
            let releases: Vec<ReleaseView> = client.list(&["releases"], &[], None).await?;
            releases.into_iter().map(|release| release.commit).collect()
        }
        Kind::Services => Vec::new(),
    })
}

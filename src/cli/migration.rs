//! `cotter device migrate`: sends devices to another fleet server or cloud.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;

use super::client::{Client, FILTER, Plain};
use super::exit::Usage;
use super::print;
use crate::model::quantity::counted;
use crate::wire::operator_api::{BulkView, MigrateMany, MigrationOrder, MigrationView};

/// Longest file of a key.
const LARGEST: u64 = 4096;

/// Arguments of `cotter device migrate`.
#[derive(Debug, Args)]
pub(super) struct Migrate {
    /// Name or uuid of each device, or the first 4 or more digits of the uuid
    #[arg(value_name = "DEVICE", required_unless_present_any = ["filter", "fleet"], conflicts_with_all = ["filter", "fleet"])]
    devices: Vec<String>,
    #[arg(long, help = FILTER)]
    filter: Option<String>,
    /// Only devices of this fleet
    #[arg(long)]
    fleet: Option<String>,
    /// Address of the other server's API
    #[arg(long, value_name = "URL", required_unless_present = "cancel")]
    to: Option<String>,
    /// The fleet there: its number, or at a Cotter fleet server its name
    #[arg(long, value_name = "FLEET", required_unless_present = "cancel")]
    to_fleet: Option<String>,
    /// File with a provisioning key of that fleet; "-" reads standard input
    #[arg(long, value_name = "FILE", required_unless_present = "cancel")]
    key_file: Option<PathBuf>,
    /// Cancels the order, for devices that have not moved yet
    #[arg(long, conflicts_with_all = ["to", "to_fleet", "key_file"])]
    cancel: bool,
    /// Shows which devices would be sent, and sends none
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    plain: Plain,
}

pub(super) async fn run(migrate: Migrate) -> anyhow::Result<()> {
    let Migrate { devices, filter, fleet, to, to_fleet, key_file, cancel: _, dry_run, plain } = migrate;
    let order = match (to, to_fleet, key_file) {
        (Some(to), Some(fleet), Some(file)) => Some(MigrationOrder { to, fleet, key: key(&file)? }),
        _ => None,
    };
    let to = order.as_ref().map(|order| order.to.clone());
    let asked = MigrateMany { devices, filter, fleet, order, dry_run };
    let done: BulkView = Client::new(plain.connection)?.post(&["devices", "migrate"], &asked).await?;
    if plain.json {
        return print::json("bulk", &done);
    }
    let rows = done
        .devices
        .iter()
        .map(|device| [print::short(Some(&device.uuid)), device.name.clone(), device.fleet.clone()]);
    print::table(["UUID", "NAME", "FLEET"], rows, "no device")?;
    let count = counted(done.devices.len(), "device");
    match to {
        _ if dry_run => print::note("nothing was changed: this was a dry run"),
        Some(to) => print::note(&format!(
            "{count} will move to {to}; `cotter device show` says when one has, or why it cannot"
        )),
        None => print::note(&format!("{count} will stay, unless it has moved already")),
    }
    Ok(())
}

/// Says where a move stands, in one line.
pub(super) fn line(MigrationView { to, fleet, ordered, state, why }: &MigrationView) -> String {
    let why = if why.is_empty() { String::new() } else { format!(": {why}") };
    format!("{state}, to fleet {fleet} at {to} (since {ordered}){why}")
}

fn key(path: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    let read = match path.to_str() {
        Some("-") => io::stdin().lock().take(LARGEST).read_to_string(&mut text),
        _ => File::open(path).and_then(|file| file.take(LARGEST).read_to_string(&mut text)),
    };
    read.with_context(|| format!("cannot read the key in {}", path.display()))?;
    let key = text.trim();
    if key.is_empty() {
        return Err(Usage(format!("{} has no key; put the provisioning key into it", path.display())).into());
    }
    Ok(key.to_owned())
}

//! `cotter fleet delete`: says what will be deleted, asks, and deletes it.

use clap::Args;

use super::client::{Client, Plain};
use super::consent::agree;
use super::print;
use crate::model::quantity::counted;
use crate::wire::operator_api::{BulkDevice, DeleteFleet, FleetDeleted};

/// Arguments of `cotter fleet delete`.
#[derive(Debug, Args)]
pub(super) struct Delete {
    /// Name of the fleet
    #[arg(value_name = "FLEET")]
    fleet: String,
    /// Deletes its devices, too, and bars their uuids and keys until `cotter device allow`
    #[arg(long)]
    with_devices: bool,
    /// Shows what would be deleted, and deletes nothing
    #[arg(long)]
    dry_run: bool,
    /// Deletes without a question
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    plain: Plain,
}

pub(super) async fn run(delete: Delete) -> anyhow::Result<()> {
    let Delete { fleet, with_devices, dry_run, yes, plain } = delete;
    let client = Client::new(plain.connection)?;
    let path = ["fleets", fleet.as_str(), "delete"];
    let mut expected = None;
    if dry_run || !yes {
        let asked = DeleteFleet { with_devices, expected: None, dry_run: true };
        let there: FleetDeleted = client.post(&path, &asked).await?;
        if dry_run {
            shown(&there, plain.json)?;
            print::note("nothing was deleted: this was a dry run");
            return Ok(());
        }
        if !plain.json {
            shown(&there, false)?;
        }
        expected = Some(there.devices.len());
        let what = format!("Fleet {} will be deleted with {}.", there.fleet.name, counts(&there));
        agree(&what, "nothing was deleted", plain.json)?;
    }
    let gone: FleetDeleted =
        client.post(&path, &DeleteFleet { with_devices, expected, dry_run: false }).await?;
    if plain.json || expected.is_none() {
        shown(&gone, plain.json)?;
    }
    print::note(&format!("deleted fleet {} with {}", gone.fleet.name, counts(&gone)));
    Ok(())
}

fn counts(deleted: &FleetDeleted) -> String {
    format!(
        "{}, {} and {}",
        counted(deleted.devices.len(), "device"),
        counted(deleted.fleet.releases, "release"),
        counted(deleted.keys, "provisioning key")
    )
}

fn shown(deleted: &FleetDeleted, json: bool) -> anyhow::Result<()> {
    if json {
        return print::json("deleted", deleted);
    }
    print::facts(&[
        ("fleet", deleted.fleet.name.clone()),
        ("number", deleted.fleet.number.to_string()),
        ("releases", deleted.fleet.releases.to_string()),
        ("provisioning keys", deleted.keys.to_string()),
        ("devices", deleted.devices.len().to_string()),
    ])?;
    if deleted.devices.is_empty() {
        return Ok(());
    }
    print::line("")?;
    let row = |device: &BulkDevice| [print::short(Some(&device.uuid)), device.name.clone()];
    print::table(["UUID", "NAME"], deleted.devices.iter().map(row), "")
}

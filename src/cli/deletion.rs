//! `cotter device delete`, `barred` and `allow`: delete devices, list deleted ones, and let them come back.

use clap::Args;

use super::client::{Client, FILTER, Plain};
use super::consent::agree;
use super::print;
use crate::http::Method;
use crate::model::quantity::counted;
use crate::wire::operator_api::{Allow, BarredView, BulkView, DeleteMany, DeviceDetail, DeviceView};

/// Arguments of `cotter device delete`.
#[derive(Debug, Args)]
pub(super) struct Delete {
    /// Name or uuid of the device, or the first 4 or more digits of the uuid
    #[arg(value_name = "DEVICE", required_unless_present_any = ["filter", "provisioning_key"],
        conflicts_with_all = ["filter", "provisioning_key", "fleet", "dry_run"])]
    device: Option<String>,
    #[arg(long, help = FILTER)]
    filter: Option<String>,
    /// Devices that registered with this provisioning key: its name, its id, or the first 4 or more digits of it
    #[arg(long, value_name = "KEY")]
    provisioning_key: Option<String>,
    /// Only devices of this fleet
    #[arg(long)]
    fleet: Option<String>,
    /// Shows which devices would be deleted, and deletes none
    #[arg(long)]
    dry_run: bool,
    /// Deletes without a question
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    plain: Plain,
}

/// Arguments of `cotter device barred`.
#[derive(Debug, Args)]
pub(super) struct Barred {
    /// Only devices that were in this fleet
    #[arg(long)]
    fleet: Option<String>,
    /// Prints one JSON object per line, each as soon as it is there
    #[arg(long, conflicts_with = "json")]
    json_lines: bool,
    #[command(flatten)]
    plain: Plain,
}

/// Arguments of `cotter device allow`.
#[derive(Debug, Args)]
pub(super) struct AllowDevices {
    /// Name or uuid of each device, or the first 4 or more digits of the uuid
    #[arg(value_name = "DEVICE", required = true)]
    devices: Vec<String>,
    /// Restores the devices as they were, so that they need no provisioning key
    #[arg(long)]
    restore: bool,
    #[command(flatten)]
    plain: Plain,
}

pub(super) async fn delete(delete: Delete) -> anyhow::Result<()> {
    let Delete { device, filter, provisioning_key, fleet, dry_run, yes, plain } = delete;
    let client = Client::new(plain.connection)?;
    if let Some(device) = device {
        return delete_one(&client, device, yes, plain.json).await;
    }
    let ask = |expected, dry_run| DeleteMany {
        filter: filter.clone(),
        fleet: fleet.clone(),
        provisioning_key: provisioning_key.clone(),
        expected,
        dry_run,
    };
    let mut expected = None;
    if dry_run || !yes {
        let matching: BulkView = client.post(&["devices", "delete"], &ask(None, true)).await?;
        if dry_run {
            shown(&matching, plain.json)?;
            print::note("nothing was deleted: this was a dry run");
            return Ok(());
        }
        if !plain.json {
            shown(&matching, false)?;
        }
        expected = Some(matching.devices.len());
        let what = format!("{} will be deleted.", counted(matching.devices.len(), "device"));
        agree(&what, "nothing was deleted", plain.json)?;
    }
    let gone: BulkView = client.post(&["devices", "delete"], &ask(expected, false)).await?;
    if plain.json || expected.is_none() {
        shown(&gone, plain.json)?;
    }
    let deleted = counted(gone.devices.len(), "device");
    print::note(&format!("deleted {deleted}; `cotter device allow` lets one come back"));
    Ok(())
}

async fn delete_one(client: &Client, device: String, yes: bool, json: bool) -> anyhow::Result<()> {
    let mut device = device;
    if !yes {
        let detail: DeviceDetail = client.get(&["devices", &device], &[]).await?;
        let DeviceView { uuid, name, fleet, .. } = detail.device;
        let what = format!("Device {name} ({uuid}) of fleet {fleet} will be deleted, and its key barred.");
        agree(&what, "nothing was deleted", json)?;
        // The one that was shown, whatever has this name by now.
        device = uuid;
    }
    let gone: DeviceView = client.ask(Method::DELETE, &["devices", &device], &[], None::<&()>).await?;
    if json {
        return print::json("deleted", &gone);
    }
    print::line(&format!(
        "deleted {} ({}); its containers keep running, and it cannot register again until `cotter device allow {}`",
        gone.uuid, gone.name, gone.uuid
    ))
}

fn shown(bulk: &BulkView, json: bool) -> anyhow::Result<()> {
    if json {
        return print::json("bulk", bulk);
    }
    let row = |device: &crate::wire::operator_api::BulkDevice| {
        [print::short(Some(&device.uuid)), device.name.clone(), device.fleet.clone()]
    };
    print::table(["UUID", "NAME", "FLEET"], bulk.devices.iter().map(row), "no device")
}

pub(super) async fn barred(Barred { fleet, json_lines, plain }: Barred) -> anyhow::Result<()> {
    let client = Client::new(plain.connection)?;
    let query = [("fleet", fleet.as_deref())];
    if json_lines {
        return Ok(client.print_lines(&["barred-devices"], &query, None).await?);
    }
    let barred: Vec<BarredView> = client.list(&["barred-devices"], &query, None).await?;
    if plain.json {
        return print::json("barred", &barred);
    }
    let row = |device: &BarredView| {
        [
            device.uuid.clone(),
            device.name.clone(),
            device.fleet.clone(),
            device.deleted.to_string(),
            print::or_dash(device.provisioning_key.as_deref()),
        ]
    };
    let headers = ["UUID", "NAME", "FLEET", "DELETED", "PROVISIONING KEY"];
    print::table(headers, barred.iter().map(row), "no device is barred")
}

pub(super) async fn allow(AllowDevices { devices, restore, plain }: AllowDevices) -> anyhow::Result<()> {
    let client = Client::new(plain.connection)?;
    let mut allowed = Vec::new();
    for device in &devices {
        let view: BarredView = client.post(&["barred-devices", device, "allow"], &Allow { restore }).await?;
        if !plain.json {
            let (uuid, name, fleet) = (&view.uuid, &view.name, &view.fleet);
            print::line(&if restore {
                format!("{uuid} ({name}) is a device of {fleet} again, from its next poll on")
            } else {
                format!("{uuid} ({name}) may register again, with a provisioning key")
            })?;
        }
        allowed.push(view);
    }
    if plain.json { print::json("allowed", &allowed) } else { Ok(()) }
}

//! `cotter device`: manages the devices of a fleet server.

use std::collections::BTreeMap;

use clap::{Args, Subcommand};

use super::client::{Client, FILTER, Plain};
use super::deletion::{self, AllowDevices, Barred, Delete};
use super::exit::Usage;
use super::print;
use crate::wire::operator_api::{
    BulkView, DeviceDetail, DeviceView, MoveDevice, Nothing, Pin, PinMany, RenameDevice, TagDevice, TrackMany,
};

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Lists devices
    List(List),
    /// Shows a device and its last report
    Show(One),
    /// Pins a device, or all that match a filter, to a release
    #[command(override_usage = "cotter device pin [OPTIONS] DEVICE COMMIT\n       \
        cotter device pin [OPTIONS] --filter FILTER [--fleet FLEET] [--dry-run] COMMIT")]
    Pin(PinDevices),
    /// Unpins a device, or all that match a filter, so that it follows its fleet
    TrackFleet(TrackFleet),
    /// Sets and removes tags of a device
    Tag(Tag),
    /// Moves a device to another fleet, and unpins it
    Move(Move),
    /// Renames a device
    Rename(Rename),
    /// Deletes a device, or all that match, and bars its uuid and its key until `allow`
    #[command(override_usage = "cotter device delete [OPTIONS] DEVICE\n       \
        cotter device delete [OPTIONS] --filter FILTER [--fleet FLEET] [--dry-run] [--yes]\n       \
        cotter device delete [OPTIONS] --provisioning-key KEY [--filter FILTER] [--fleet FLEET] [--dry-run] [--yes]")]
    Delete(Delete),
    /// Lists deleted devices, whose uuids and keys are barred
    Barred(Barred),
    /// Lets deleted devices register again, or restores them
    Allow(AllowDevices),
}

#[derive(Debug, Args)]
pub(super) struct List {
    /// Only devices of this fleet
    #[arg(long)]
    fleet: Option<String>,
    #[arg(long, help = FILTER)]
    filter: Option<String>,
    /// Only devices that registered with this provisioning key: its name, its id, or the first 4 or more digits of it
    #[arg(long, value_name = "KEY")]
    provisioning_key: Option<String>,
    #[command(flatten)]
    plain: Plain,
}

#[derive(Debug, Args)]
pub(super) struct One {
    /// Name or uuid of the device, or the first 4 or more digits of the uuid
    #[arg(value_name = "DEVICE")]
    device: String,
    #[command(flatten)]
    plain: Plain,
}

#[derive(Debug, Args)]
struct Bulk {
    #[arg(long, help = FILTER)]
    filter: Option<String>,
    /// Only devices of this fleet
    #[arg(long, requires = "filter")]
    fleet: Option<String>,
    /// Shows which devices would be changed, and changes none
    #[arg(long, requires = "filter")]
    dry_run: bool,
}

#[derive(Debug, Args)]
pub(super) struct PinDevices {
    /// The device (not with --filter), then the commit of the release, or the first 4 or more characters of it
    #[arg(required = true, num_args = 1..=2, value_name = "DEVICE COMMIT")]
    names: Vec<String>,
    #[command(flatten)]
    bulk: Bulk,
    #[command(flatten)]
    plain: Plain,
}

#[derive(Debug, Args)]
pub(super) struct TrackFleet {
    /// Name or uuid of the device, or the first 4 or more digits of the uuid
    #[arg(value_name = "DEVICE", required_unless_present = "filter", conflicts_with = "filter")]
    device: Option<String>,
    #[command(flatten)]
    bulk: Bulk,
    #[command(flatten)]
    plain: Plain,
}

#[derive(Debug, Args)]
pub(super) struct Tag {
    /// Name or uuid of the device, or the first 4 or more digits of the uuid
    #[arg(value_name = "DEVICE")]
    device: String,
    /// Tags to set
    #[arg(value_name = "KEY=VALUE", required_unless_present = "remove")]
    set: Vec<String>,
    /// Tag to remove; may be repeated
    #[arg(long, value_name = "KEY")]
    remove: Vec<String>,
    #[command(flatten)]
    plain: Plain,
}

#[derive(Debug, Args)]
pub(super) struct Rename {
    /// Name or uuid of the device, or the first 4 or more digits of the uuid
    #[arg(value_name = "DEVICE")]
    device: String,
    /// The new name
    #[arg(value_name = "NAME")]
    name: String,
    #[command(flatten)]
    plain: Plain,
}

#[derive(Debug, Args)]
pub(super) struct Move {
    /// Name or uuid of the device, or the first 4 or more digits of the uuid
    #[arg(value_name = "DEVICE")]
    device: String,
    /// Name of the new fleet
    #[arg(value_name = "FLEET")]
    fleet: String,
    #[command(flatten)]
    plain: Plain,
}

pub(super) async fn run(verb: Verb) -> anyhow::Result<()> {
    match verb {
        Verb::List(verb) => list(verb).await,
        Verb::Show(One { device, plain }) => {
            let detail: DeviceDetail = Client::new(plain.connection)?.get(&["devices", &device], &[]).await?;
            show(&detail, plain.json)
        }
        Verb::Pin(verb) => pin(verb).await,
        Verb::TrackFleet(verb) => track_fleet(verb).await,
        Verb::Tag(Tag { device, set, remove, plain }) => {
            let body = TagDevice { set: pairs(&set)?, remove };
            let client = Client::new(plain.connection)?;
            changed(&client.post(&["devices", &device, "tags"], &body).await?, plain.json)
        }
        Verb::Move(Move { device, fleet, plain }) => {
            let client = Client::new(plain.connection)?;
            changed(&client.post(&["devices", &device, "move"], &MoveDevice { fleet }).await?, plain.json)
        }
        Verb::Rename(Rename { device, name, plain }) => {
            let client = Client::new(plain.connection)?;
            changed(&client.post(&["devices", &device, "rename"], &RenameDevice { name }).await?, plain.json)
        }
        Verb::Delete(verb) => deletion::delete(verb).await,
        Verb::Barred(verb) => deletion::barred(verb).await,
        Verb::Allow(verb) => deletion::allow(verb).await,
    }
}

async fn list(List { fleet, filter, provisioning_key, plain }: List) -> anyhow::Result<()> {
    let client = Client::new(plain.connection)?;
    let query = [
        ("fleet", fleet.as_deref()),
        ("filter", filter.as_deref()),
        ("provisioning_key", provisioning_key.as_deref()),
    ];
    let devices: Vec<DeviceView> = client.get(&["devices"], &query).await?;
    if plain.json {
        return print::json("devices", &devices);
    }
    let rows = devices.iter().map(|device| {
        [
            print::short(Some(&device.uuid)),
            device.name.clone(),
            device.fleet.clone(),
            online(device).to_owned(),
            print::short(device.target.as_deref()),
            if device.pin.is_some() { "pin" } else { "fleet" }.to_owned(),
            print::short(device.running.as_deref()),
            print::or_dash(device.update_status.as_deref()),
            tags(&device.tags),
        ]
    });
    let headers = ["UUID", "NAME", "FLEET", "ONLINE", "TARGET", "BY", "RUNNING", "UPDATE", "TAGS"];
    print::table(headers, rows, "no device")
}

async fn pin(PinDevices { names, bulk, plain }: PinDevices) -> anyhow::Result<()> {
    let client = Client::new(plain.connection)?;
    match (names.as_slice(), bulk.filter) {
        ([device, release], None) => {
            let body = Pin { release: release.clone() };
            changed(&client.post(&["devices", device, "pin"], &body).await?, plain.json)
        }
        ([release], Some(filter)) => {
            let body = PinMany { filter, fleet: bulk.fleet, release: release.clone(), dry_run: bulk.dry_run };
            all_changed(&client.post(&["devices", "pin"], &body).await?, plain.json)
        }
        (_, Some(_)) => Err(Usage("with --filter, give the commit alone".to_owned()).into()),
        (_, None) => Err(Usage("give a device and a commit, or --filter and a commit".to_owned()).into()),
    }
}

async fn track_fleet(TrackFleet { device, bulk, plain }: TrackFleet) -> anyhow::Result<()> {
    let client = Client::new(plain.connection)?;
    match (device, bulk.filter) {
        (Some(device), _) => {
            changed(&client.post(&["devices", &device, "track-fleet"], &Nothing {}).await?, plain.json)
        }
        (None, Some(filter)) => {
            let body = TrackMany { filter, fleet: bulk.fleet, dry_run: bulk.dry_run };
            all_changed(&client.post(&["devices", "track-fleet"], &body).await?, plain.json)
        }
        (None, None) => Err(Usage("give a device or --filter".to_owned()).into()),
    }
}

fn pairs(tags: &[String]) -> Result<BTreeMap<String, String>, Usage> {
    let pair = |tag: &String| match tag.split_once('=') {
        Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
        None => Err(Usage(format!("{tag:?} is not a tag; write KEY=VALUE (VALUE may be empty)"))),
    };
    tags.iter().map(pair).collect()
}

fn show(detail: &DeviceDetail, json: bool) -> anyhow::Result<()> {
    if json {
        return print::json("device", detail);
    }
    let device = &detail.device;
    let mut facts = summary(device);
    facts.push(("registered with", registered_with(device)));
    facts.push(("reported", detail.reported_at.map_or_else(|| "-".to_owned(), |at| at.to_string())));
    print::facts(&facts)?;
    if detail.services.is_empty() {
        return Ok(());
    }
    print::line("")?;
    let rows = detail.services.iter().map(|row| {
        let progress = row.download_progress.map(|percent| format!("{percent} %"));
        [
            row.service.clone(),
            print::short(row.release.as_deref()),
            print::or_dash(row.status.as_deref()),
            print::or_dash(progress.as_deref()),
        ]
    });
    print::table(["SERVICE", "RELEASE", "STATUS", "PROGRESS"], rows, "")
}

fn summary(device: &DeviceView) -> Vec<(&'static str, String)> {
    vec![
        ("device", device.name.clone()),
        ("uuid", device.uuid.clone()),
        ("type", device.device_type.clone()),
        ("fleet", device.fleet.clone()),
        ("pin", print::or_dash(device.pin.as_deref())),
        ("target", print::or_dash(device.target.as_deref())),
        ("running", print::or_dash(device.running.as_deref())),
        ("update", print::or_dash(device.update_status.as_deref())),
        ("online", online(device).to_owned()),
        ("last seen", device.last_seen.map_or_else(|| "-".to_owned(), |at| at.to_string())),
        ("tags", tags(&device.tags)),
    ]
}

/// Returns the id and the name of the provisioning key with which the device registered.
fn registered_with(device: &DeviceView) -> String {
    match (&device.provisioning_key, &device.provisioning_key_name) {
        (Some(key), Some(name)) => format!("key {key} ({name})"),
        (Some(key), None) => format!("key {key}"),
        (None, _) => "-".to_owned(),
    }
}

fn changed(device: &DeviceView, json: bool) -> anyhow::Result<()> {
    if json { print::json("device", device) } else { print::facts(&summary(device)) }
}

fn all_changed(bulk: &BulkView, json: bool) -> anyhow::Result<()> {
    if json {
        return print::json("bulk", bulk);
    }
    let rows = bulk.devices.iter().map(|device| {
        [
            print::short(Some(&device.uuid)),
            device.name.clone(),
            device.fleet.clone(),
            print::short(device.target_before.as_deref()),
            print::short(device.target_after.as_deref()),
        ]
    });
    print::table(["UUID", "NAME", "FLEET", "TARGET WAS", "TARGET IS"], rows, "no device")?;
    if bulk.dry_run {
        print::note("nothing was changed: this was a dry run");
    }
    Ok(())
}

fn online(device: &DeviceView) -> &'static str {
    if device.is_online { "yes" } else { "no" }
}

fn tags(tags: &BTreeMap<String, String>) -> String {
    let tags: Vec<String> = tags.iter().map(|(key, value)| format!("{key}={value}")).collect();
    print::or_dash(Some(&tags.join(",")))
}

//! `cotter device`: manages the devices of a fleet server.

use clap::{Args, Subcommand};

use super::client::{Client, FILTER, Plain};
use super::deletion::{self, AllowDevices, Barred, Delete};
use super::device_list::{self, List, States};
use super::device_logs::{self, DeviceLogs};
use super::device_tags::{self, Bulk, Tag};
use super::exit::{Exit, Usage};
use super::follow::{self, Output, Patience, Scope, Wait};
use super::migration::{self, Migrate};
use super::print;
use crate::wire::account::{self, Evidence};
use crate::wire::operator_api::{
    BulkView, DeviceDetail, DeviceRollout, DeviceView, MoveDevice, Nothing, Pin, PinMany, RenameDevice,
    TrackMany,
};

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Lists devices, where each stands between its target and what it runs, and why
    List(List),
    /// Shows a device and its last report
    Show(One),
    /// Shows what services of a device wrote, and follows it
    Logs(DeviceLogs),
    /// Pins a device, or all that match a filter, to a release
    #[command(override_usage = "cotter device pin [OPTIONS] DEVICE COMMIT\n       \
        cotter device pin [OPTIONS] --filter FILTER [--fleet FLEET] [--dry-run] COMMIT")]
    Pin(PinDevices),
    /// Waits until devices run their targets, and says where each stands
    #[command(
        after_help = "Example: cotter device wait --fleet greenhouse --timeout 30min --allow-failed 2%"
    )]
    Wait(WaitFor),
    /// Unpins a device, or all that match a filter, so that it follows its fleet
    TrackFleet(TrackFleet),
    /// Sets and removes tags of a device, or of all that match a filter
    #[command(
        override_usage = "cotter device tag [OPTIONS] DEVICE [KEY=VALUE]... [--remove KEY]...\n       \
        cotter device tag [OPTIONS] --filter FILTER [--fleet FLEET] [--dry-run] [KEY=VALUE]... [--remove KEY]..."
    )]
    Tag(Tag),
    /// Moves a device to another fleet, and unpins it
    Move(Move),
    /// Sends devices to another fleet server or cloud, with their volumes
    ///
    /// The order is a part of their targets. Each registers there under its uuid, checks that its fleet there has a release
    /// for it, and only then leaves this server. A device that cannot move stays, and says why.
    #[command(
        override_usage = "cotter device migrate [OPTIONS] <DEVICE...|--filter FILTER|--fleet FLEET> --to URL --to-fleet FLEET --key-file FILE\n       \
        cotter device migrate [OPTIONS] <DEVICE...|--filter FILTER|--fleet FLEET> --cancel",
        after_help = "Example: cotter device migrate --fleet greenhouse --filter ring=canary --to https://api.example.com --to-fleet 7 --key-file provisioning.key"
    )]
    Migrate(Migrate),
    /// Renames a device
    Rename(Rename),
    /// Deletes a device, or all that match, and bars its uuid and its key until `allow`
    #[command(override_usage = "cotter device delete [OPTIONS] DEVICE [--yes]\n       \
        cotter device delete [OPTIONS] --filter FILTER [--fleet FLEET] [--dry-run] [--yes]\n       \
        cotter device delete [OPTIONS] --provisioning-key KEY [--filter FILTER] [--fleet FLEET] [--dry-run] [--yes]")]
    Delete(Delete),
    /// Lists deleted devices, whose uuids and keys are barred
    Barred(Barred),
    /// Lets deleted devices register again, or restores them
    Allow(AllowDevices),
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
pub(super) struct PinDevices {
    /// The device (not with --filter), then the commit of the release, or the first 4 or more characters of it
    #[arg(required = true, num_args = 1..=2, value_name = "DEVICE COMMIT")]
    names: Vec<String>,
    #[command(flatten)]
    bulk: Bulk,
    #[command(flatten)]
    wait: Wait,
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
    wait: Wait,
    #[command(flatten)]
    plain: Plain,
}

#[derive(Debug, Args)]
pub(super) struct WaitFor {
    /// Name or uuid of a device, or the first 4 or more digits of the uuid [default: all devices that match]
    #[arg(value_name = "DEVICE", conflicts_with_all = ["fleet", "filter"])]
    device: Option<String>,
    /// Only devices of this fleet
    #[arg(long)]
    fleet: Option<String>,
    #[arg(long, help = FILTER)]
    filter: Option<String>,
    /// The states to wait for, with commas between them
    #[arg(long, value_name = "STATES", default_value = "on-target", value_parser = States::parse)]
    until: States,
    #[command(flatten)]
    patience: Patience,
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
    wait: Wait,
    #[command(flatten)]
    plain: Plain,
}

pub(super) async fn run(verb: Verb) -> anyhow::Result<Exit> {
    match verb {
        Verb::List(verb) => device_list::run(verb).await?,
        Verb::Show(One { device, plain }) => {
            let detail: DeviceDetail = Client::new(plain.connection)?.get(&["devices", &device], &[]).await?;
            show(&detail, plain.json)?;
        }
        Verb::Logs(verb) => device_logs::run(verb).await?,
        Verb::Pin(verb) => return pin(verb).await,
        Verb::Wait(verb) => return wait(verb).await,
        Verb::TrackFleet(verb) => return track_fleet(verb).await,
        Verb::Tag(verb) => {
            if let Some((device, json)) = device_tags::run(verb).await? {
                changed(&device, json)?;
            }
        }
        Verb::Move(Move { device, fleet, wait, plain }) => {
            let client = Client::new(plain.connection)?;
            let view = client.post(&["devices", &device, "move"], &MoveDevice { fleet }).await?;
            return moved(&client, &view, &wait, plain.json).await;
        }
        Verb::Migrate(verb) => migration::run(verb).await?,
        Verb::Rename(Rename { device, name, plain }) => {
            let client = Client::new(plain.connection)?;
            changed(
                &client.post(&["devices", &device, "rename"], &RenameDevice { name }).await?,
                plain.json,
            )?;
        }
        Verb::Delete(verb) => deletion::delete(verb).await?,
        Verb::Barred(verb) => deletion::barred(verb).await?,
        Verb::Allow(verb) => deletion::allow(verb).await?,
    }
    Ok(Exit::Done)
}

async fn pin(PinDevices { names, bulk, wait, plain }: PinDevices) -> anyhow::Result<Exit> {
    match (names.as_slice(), bulk.filter) {
        ([device, release], None) => {
            let client = Client::new(plain.connection)?;
            let body = Pin { release: release.clone() };
            let view = client.post(&["devices", device, "pin"], &body).await?;
            moved(&client, &view, &wait, plain.json).await
        }
        ([release], Some(filter)) => {
            let client = Client::new(plain.connection)?;
            let body = PinMany {
                filter: filter.clone(),
                fleet: bulk.fleet.clone(),
                release: release.clone(),
                dry_run: bulk.dry_run,
            };
            let scope = Scope { fleet: bulk.fleet, filter: Some(filter), ..Scope::default() };
            let view = client.post(&["devices", "pin"], &body).await?;
            all_moved(&client, &view, scope, &wait, plain.json).await
        }
        (_, Some(_)) => Err(Usage("with --filter, give the commit alone".to_owned()).into()),
        (_, None) => Err(Usage("give a device and a commit, or --filter and a commit".to_owned()).into()),
    }
}

async fn track_fleet(TrackFleet { device, bulk, wait, plain }: TrackFleet) -> anyhow::Result<Exit> {
    let client = Client::new(plain.connection)?;
    match (device, bulk.filter) {
        (Some(device), _) => {
            let view = client.post(&["devices", &device, "track-fleet"], &Nothing {}).await?;
            moved(&client, &view, &wait, plain.json).await
        }
        (None, Some(filter)) => {
            let body = TrackMany { filter: filter.clone(), fleet: bulk.fleet.clone(), dry_run: bulk.dry_run };
            let scope = Scope { fleet: bulk.fleet, filter: Some(filter), ..Scope::default() };
            let view = client.post(&["devices", "track-fleet"], &body).await?;
            all_moved(&client, &view, scope, &wait, plain.json).await
        }
        (None, None) => Err(Usage("give a device or --filter".to_owned()).into()),
    }
}

async fn wait(verb: WaitFor) -> anyhow::Result<Exit> {
    let client = Client::new(verb.plain.connection)?;
    let mut scope =
        Scope { fleet: verb.fleet, filter: verb.filter, is_any_required: true, ..Scope::default() };
    if let Some(device) = &verb.device {
        let detail: DeviceDetail = client.get(&["devices", device], &[]).await?;
        scope.uuid = Some(detail.device.uuid);
    }
    follow::follow(&client, &scope, &verb.until.0, &verb.patience, Output::answer(verb.plain.json)).await
}

/// Prints a device that was moved to another target, and follows it if that is wanted.
async fn moved(client: &Client, device: &DeviceView, wait: &Wait, json: bool) -> anyhow::Result<Exit> {
    changed(device, json)?;
    let scope = Scope { uuid: Some(device.uuid.clone()), ..Scope::default() };
    wait.follow(client, &scope).await
}

/// Prints the devices that a bulk act has moved, and follows them if that is wanted.
async fn all_moved(
    client: &Client,
    view: &BulkView,
    scope: Scope,
    wait: &Wait,
    json: bool,
) -> anyhow::Result<Exit> {
    all_changed(view, json)?;
    if view.dry_run {
        return Ok(Exit::Done);
    }
    wait.follow(client, &scope).await
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
    if let Some(rollout) = &detail.rollout {
        print_rollout(rollout)?;
    }
    detail.waiting.iter().try_for_each(print_wait)?;
    detail.evidence.iter().try_for_each(print_evidence)?;
    if detail.services.is_empty() {
        return Ok(());
    }
    print::line("")?;
    let rows = detail.services.iter().map(|row| {
        let progress = row.download_progress.map(|percent| format!("{} %", percent.clamp(0, 100)));
        [
            row.service.clone(),
            print::short(row.release.as_deref()),
            print::or_dash(row.status.as_deref()),
            print::or_dash(progress.as_deref()),
        ]
    });
    print::table(["SERVICE", "RELEASE", "STATUS", "PROGRESS"], rows, "")
}

fn print_wait(wait: &account::Wait) -> anyhow::Result<()> {
    let account::Wait { service, reason, why, since } = wait;
    let service = service.as_ref().map_or(String::new(), |service| format!(" {service}"));
    let since = since.as_ref().map_or(String::new(), |since| format!(", since {since}"));
    print::line("")?;
    print::line(&format!("{reason}{service}{since}"))?;
    print::line(&format!("  {why}"))
}

fn print_rollout(rollout: &DeviceRollout) -> anyhow::Result<()> {
    let DeviceRollout { number, release, phase, wave, verdict, why, .. } = rollout;
    let release = print::short(release.as_deref());
    let place = match (wave, verdict) {
        (Some(wave), Some(verdict)) => format!("wave {wave}, {verdict}"),
        _ => "not exposed".to_owned(),
    };
    let why = if why.is_empty() { String::new() } else { format!(": {why}") };
    print::line(&format!("rollout {number} of release {release} is {phase}; {place}{why}"))
}

fn print_evidence(evidence: &Evidence) -> anyhow::Result<()> {
    let Evidence { service, release, at, cause, lines, .. } = evidence;
    print::line("")?;
    print::failure("", (service, release, at), cause.as_deref(), lines)
}

fn summary(device: &DeviceView) -> Vec<(&'static str, String)> {
    let mut facts = vec![
        ("device", device.name.clone()),
        ("uuid", device.uuid.clone()),
        ("type", device.device_type.clone()),
        ("fleet", device.fleet.clone()),
        ("pin", print::or_dash(device.pin.as_deref())),
        ("target", print::or_dash(device.target.as_deref())),
        ("running", print::or_dash(device.running.as_deref())),
        ("state", device.state.as_str().to_owned()),
        ("why", print::or_dash(Some(&device.why))),
        ("agent", print::or_dash(device.agent.as_deref())),
        ("last seen", device.last_seen.map_or_else(|| "-".to_owned(), |at| at.to_string())),
        ("tags", device_list::tags(&device.tags)),
    ];
    facts.extend(device.pinned.iter().map(|pinned| ("pinned", print::pinned(pinned))));
    facts.extend(device.migration.iter().map(|to| ("migration", migration::line(to))));
    facts
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

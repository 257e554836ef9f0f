//! `cotter device list`: the devices of a fleet server, where each stands and why.

use std::collections::BTreeMap;

use clap::Args;
use jiff::Timestamp;

use super::client::{Client, FILTER, Plain};
use super::print;
use super::quantity::ago;
use crate::host;
use crate::wire::operator_api::{DeviceState, DeviceView};

/// Arguments of `cotter device list`.
#[derive(Debug, Args)]
pub(super) struct List {
    /// Only devices of this fleet
    #[arg(long)]
    fleet: Option<String>,
    #[arg(long, help = FILTER)]
    filter: Option<String>,
    /// Only devices in these states, with commas between them: on-target, pending, updating, waiting, blocked, rejected,
    /// failing, offline, silent, no-target; also failed (rejected or failing), and behind (all that do not run their
    /// target)
    #[arg(long, value_name = "STATES", value_parser = States::parse)]
    state: Option<States>,
    /// Only devices that registered with this provisioning key: its name, its id, or the first 4 or more digits of it
    #[arg(long, value_name = "KEY")]
    provisioning_key: Option<String>,
    /// Only devices that are pinned to a release, which do not follow their fleet
    #[arg(long, conflicts_with = "limit")]
    pinned: bool,
    /// Which columns to show, with commas between them: uuid, name, fleet, type, state, target, by, pin, running, update,
    /// seen, version (of the agent; also agent), created, tags, why [default: uuid,name,fleet,state,target,by,running,seen,why; a
    /// narrow terminal has fewer]
    #[arg(long, value_name = "COLUMNS", value_parser = columns)]
    columns: Option<Columns>,
    /// The column to sort by; devices are sorted by uuid otherwise
    #[arg(long, value_name = "COLUMN", value_parser = column)]
    sort: Option<Column>,
    /// Shows the first so many devices only, by uuid
    #[arg(long, value_name = "NUMBER", value_parser = at_least_one)]
    limit: Option<usize>,
    /// Prints one JSON object per line, each as soon as it is there
    #[arg(long, conflicts_with_all = ["json", "sort", "columns"])]
    json_lines: bool,
    #[command(flatten)]
    plain: Plain,
}

/// A column: its name on the command line, its header, and how its cell is made.
#[derive(Debug, Clone, Copy)]
struct Column {
    name: &'static str,
    header: &'static str,
    cell: fn(&DeviceView, Timestamp) -> String,
}

/// Chosen columns, in their order.
#[derive(Debug, Clone)]
struct Columns(Vec<Column>);

const COLUMNS: [Column; 16] = [
    Column { name: "uuid", header: "UUID", cell: |device, _| print::short(Some(&device.uuid)) },
    Column { name: "name", header: "NAME", cell: |device, _| device.name.clone() },
    Column { name: "fleet", header: "FLEET", cell: |device, _| device.fleet.clone() },
    Column { name: "type", header: "TYPE", cell: |device, _| device.device_type.clone() },
    Column { name: "state", header: "STATE", cell: |device, _| device.state.as_str().to_owned() },
    Column { name: "target", header: "TARGET", cell: |device, _| print::short(device.target.as_deref()) },
    Column {
        name: "by",
        header: "BY",
        cell: |device, _| if device.pin.is_some() { "pin" } else { "fleet" }.to_owned(),
    },
    Column { name: "pin", header: "PIN", cell: |device, _| print::short(device.pin.as_deref()) },
    Column { name: "running", header: "RUNNING", cell: |device, _| print::short(device.running.as_deref()) },
    Column {
        name: "update",
        header: "UPDATE",
        cell: |device, _| print::or_dash(device.update_status.as_deref()),
    },
    Column { name: "seen", header: "SEEN", cell: |device, now| seen(device.last_seen, now) },
    Column { name: "version", header: "VERSION", cell: |device, _| print::or_dash(device.agent.as_deref()) },
    Column { name: "agent", header: "AGENT", cell: |device, _| print::or_dash(device.agent.as_deref()) },
    Column { name: "created", header: "CREATED", cell: |device, _| device.created.to_string() },
    Column { name: "tags", header: "TAGS", cell: |device, _| tags(&device.tags) },
    Column { name: "why", header: "WHY", cell: |device, _| print::or_dash(Some(&device.why)) },
];

/// The columns where none are chosen.
const USUAL: &str = "uuid,name,fleet,state,target,by,running,seen,why";

/// Those of them that a terminal leaves out first where the reasons would have no room.
const LEFT_OUT: [&str; 4] = ["by", "fleet", "uuid", "running"];

/// The characters that a reason needs to say something.
const OF_A_REASON: usize = 24;

fn column(name: &str) -> Result<Column, String> {
    let found = COLUMNS.into_iter().find(|column| column.name == name);
    found.ok_or_else(|| {
        let known: Vec<_> = COLUMNS.iter().map(|column| column.name).collect();
        format!("there is no such column; the columns are {}", known.join(", "))
    })
}

/// Reads a number of rows.
pub(super) fn at_least_one(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|number| *number > 0).ok_or_else(|| "write a number from 1".to_owned())
}

fn columns(names: &str) -> Result<Columns, String> {
    names.split(',').map(|name| column(name.trim())).collect::<Result<_, _>>().map(Columns)
}

/// States of devices that were chosen on the command line. A slip of the pen is found without the server.
#[derive(Debug, Clone)]
pub(super) struct States(pub(super) Vec<DeviceState>);

impl States {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        DeviceState::parse_list(text).map(Self)
    }
}

pub(super) async fn run(list: List) -> anyhow::Result<()> {
    let client = Client::new(list.plain.connection)?;
    let words = |states: &States| states.0.iter().map(|state| state.as_str()).collect::<Vec<_>>().join(",");
    let states = list.state.as_ref().map(words);
    let query = [
        ("fleet", list.fleet.as_deref()),
        ("filter", list.filter.as_deref()),
        ("state", states.as_deref()),
        ("provisioning_key", list.provisioning_key.as_deref()),
    ];
    if list.json_lines {
        return Ok(client.print_lines(&["devices"], &query, list.limit).await?);
    }
    let mut devices: Vec<DeviceView> = client.list(&["devices"], &query, list.limit).await?;
    devices.retain(|device| !list.pinned || device.pin.is_some());
    let now = host::now();
    if let Some(column) = list.sort {
        match column.name {
            // A text such as "2 min ago" has no order.
            "seen" => devices.sort_by_key(|device| device.last_seen),
            "created" => devices.sort_by_key(|device| device.created),
            "state" => devices.sort_by_key(|device| device.state),
            _ => devices.sort_by_cached_key(|device| (column.cell)(device, now)),
        }
    }
    if list.plain.json {
        return print::json("devices", &devices);
    }
    let table = |columns: &[Column]| -> Vec<Vec<String>> {
        let cells = |device| columns.iter().map(|column| (column.cell)(device, now)).collect();
        let headers = columns.iter().map(|column| column.header.to_owned()).collect();
        std::iter::once(headers).chain(devices.iter().map(cells)).collect()
    };
    let columns = match list.columns {
        Some(Columns(chosen)) => chosen,
        None => fitting(table)?,
    };
    print::hinted(&table(&columns), "no device", Some("cotter device show NAME"))
}

/// The usual columns, as many as fit on the terminal.
fn fitting(table: impl Fn(&[Column]) -> Vec<Vec<String>>) -> anyhow::Result<Vec<Column>> {
    let Columns(mut fitting) = columns(USUAL).map_err(anyhow::Error::msg)?;
    for name in LEFT_OUT {
        if print::fits(&table(&fitting), OF_A_REASON) {
            break;
        }
        fitting.retain(|column| column.name != name);
    }
    Ok(fitting)
}

fn seen(at: Option<Timestamp>, now: Timestamp) -> String {
    at.map_or_else(|| "never".to_owned(), |at| ago(at, now))
}

pub(super) fn tags(tags: &BTreeMap<String, String>) -> String {
    let tags: Vec<String> = tags.iter().map(|(key, value)| format!("{key}={value}")).collect();
    print::or_dash(Some(&tags.join(",")))
}

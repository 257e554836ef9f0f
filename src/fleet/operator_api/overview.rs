//! What the dashboard shows besides the answers of this API: a sorted page of a fleet's devices, and whom a change of the
//! fleet's target would move. Its routes are not below `/api/v1`: only the dashboard reaches them, inside the process.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use axum::response::Response;
use serde::{Deserialize, Serialize};

use super::answer::{ApiError, Params};
use super::desk::{Desk, Seen};
use super::devices::{commit, view};
use super::etag::ETag;
use super::membership;
use super::pages;
use crate::fleet::policy::{Change, Choice, Device, TagFilter, World};
use crate::fleet::standing;
use crate::wire::operator_api::{Code, DeviceRollout, DeviceState, DeviceView};

/// Which devices of a fleet are shown, in which order.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(in crate::fleet) struct Selection {
    pub(in crate::fleet) fleet: String,
    /// In the language of tags.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::fleet) filter: Option<String>,
    /// As [`DeviceState::parse_list`] reads it, or `pinned`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::fleet) state: Option<String>,
    /// A part of the name, or the beginning of the uuid.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::fleet) name: Option<String>,
}

/// Which page of a selection.
#[derive(Debug, Deserialize)]
pub(in crate::fleet) struct WhichRows {
    fleet: String,
    filter: Option<String>,
    state: Option<String>,
    name: Option<String>,
    sort: Option<String>,
    after: Option<String>,
}

/// A page of a fleet's devices.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::fleet) struct DeviceRows {
    /// Devices of the fleet, and those of them that are selected.
    pub(in crate::fleet) devices: usize,
    pub(in crate::fleet) selected: usize,
    /// How many devices of the fleet are in each state, and how many are pinned.
    pub(in crate::fleet) states: BTreeMap<DeviceState, usize>,
    pub(in crate::fleet) pinned: usize,
    /// Number of the first row, from 1.
    pub(in crate::fleet) first: usize,
    pub(in crate::fleet) rows: Vec<DeviceRow>,
    pub(in crate::fleet) before: Option<String>,
    pub(in crate::fleet) next: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(in crate::fleet) struct DeviceRow {
    pub(in crate::fleet) device: DeviceView,
    pub(in crate::fleet) rollout: Option<DeviceRollout>,
}

/// Rows of a page.
const ROWS: usize = 50;

/// A selection with its names resolved.
pub(super) struct Selected {
    choice: Choice,
    states: Option<Vec<DeviceState>>,
    only_pinned: bool,
    name: Option<String>,
}

impl Selected {
    pub(super) fn new(selection: &Selection, fleet: u64) -> Result<Self, ApiError> {
        let given = |text: &Option<String>| {
            text.as_deref().map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned)
        };
        let filter = given(&selection.filter).map(|filter| filter.parse::<TagFilter>()).transpose()?;
        let state = given(&selection.state);
        let only_pinned = state.as_deref() == Some("pinned");
        let states = state.filter(|_| !only_pinned).map(|list| DeviceState::parse_list(&list)).transpose();
        Ok(Self {
            choice: Choice { filter, fleet: Some(fleet), key: None },
            states: states.map_err(ApiError::bad_request)?,
            only_pinned,
            name: given(&selection.name).map(|name| name.to_lowercase()),
        })
    }

    pub(super) fn matches(&self, device: &Device, state: impl FnOnce() -> DeviceState) -> bool {
        self.choice.matches(device)
            && (!self.only_pinned || device.pin.is_some())
            && self.name.as_ref().is_none_or(|name| {
                device.uuid.as_str().starts_with(name) || device.name.to_lowercase().contains(name)
            })
            && self.states.as_ref().is_none_or(|states| states.contains(&state()))
    }
}

/// The columns that can be sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Column {
    Name,
    State,
    Policy,
    Seen,
}

/// The place of a device in the order. Its uuid makes it unique.
type Key = (String, String);

pub(super) async fn devices(records: Desk, Params(which): Params<WhichRows>) -> Result<Response, ApiError> {
    let WhichRows { fleet, filter, state, name, sort, after } = which;
    let selection = Selection { fleet, filter, state, name };
    let sort = sort.unwrap_or_else(|| "name".to_owned());
    let (is_reversed, column) = match sort.strip_prefix('-') {
        Some(column) => (true, column_of(column)?),
        None => (false, column_of(&sort)?),
    };
    let after = after.filter(|after| !after.is_empty()).map(|after| parsed(&after)).transpose()?;
    pages::beside(&records, move |records, world| {
        let fleet = world.find_fleet(&selection.fleet)?;
        let selected = Selected::new(&selection, fleet.number)?;
        let mut rows = DeviceRows {
            devices: 0,
            selected: 0,
            states: BTreeMap::new(),
            pinned: 0,
            first: 0,
            rows: Vec::new(),
            before: None,
            next: None,
        };
        let mut found = Vec::new();
        for device in world.devices().filter(|device| device.fleet == fleet.number) {
            let (seen, contact) = records.last_seen(world, device);
            let state = standing::of(world, device, contact).state;
            rows.devices += 1;
            rows.pinned += usize::from(device.pin.is_some());
            *rows.states.entry(state).or_default() += 1;
            if selected.matches(device, || state) {
                let place = match column {
                    Column::Name => device.name.to_lowercase(),
                    Column::State => format!("{:02}", rank(state)),
                    Column::Policy => policy(world, device),
                    Column::Seen => seen.map_or_else(String::new, |seen| seen.to_string()),
                };
                found.push(((place, device.uuid.to_string()), device));
            }
        }
        let ordered = |a: &Key, b: &Key| if is_reversed { b.cmp(a) } else { a.cmp(b) };
        found.sort_unstable_by(|(a, _), (b, _)| ordered(a, b));
        let begin = after
            .as_ref()
            .map_or(0, |after| found.partition_point(|(key, _)| ordered(key, after) != Ordering::Greater));
        let end = found.len().min(begin + ROWS);
        rows.selected = found.len();
        rows.first = if found.is_empty() { 0 } else { begin + 1 };
        rows.rows = found[begin..end].iter().map(|(_, device)| row(records, world, device)).collect();
        rows.next = (end < found.len()).then(|| cursor(&found[end - 1].0));
        rows.before = (begin > 0).then(|| match begin.checked_sub(ROWS + 1) {
            Some(last) => cursor(&found[last].0),
            None => String::new(),
        });
        Ok(rows)
    })
    .await
}

fn row(records: &Desk, world: &Seen, device: &Device) -> DeviceRow {
    let rollout = membership::of_device(world, device, records.last_seen(world, device).1);
    DeviceRow { device: view(records, world, device), rollout }
}

fn column_of(word: &str) -> Result<Column, ApiError> {
    match word {
        "name" => Ok(Column::Name),
        "state" => Ok(Column::State),
        "policy" => Ok(Column::Policy),
        "seen" => Ok(Column::Seen),
        _ => Err(ApiError::with_remedy(
            Code::BadRequest,
            "this is no column to sort by",
            "use name, state, policy or seen",
        )),
    }
}

/// Those that need a person first.
fn rank(state: DeviceState) -> usize {
    let order = [
        DeviceState::Failing,
        DeviceState::Rejected,
        DeviceState::Blocked,
        DeviceState::Waiting,
        DeviceState::Updating,
        DeviceState::Pending,
        DeviceState::Offline,
        DeviceState::Silent,
        DeviceState::NoTarget,
    ];
    order.iter().position(|one| *one == state).unwrap_or(order.len())
}

/// Pinned devices first, by release; then those of the rollout, and then those that follow.
fn policy(world: &World, device: &Device) -> String {
    match (device.pin, world.open_rollout(device.fleet).and_then(|_| world.membership(device))) {
        (Some(pin), _) => format!("0{}", commit(world, Some(pin)).unwrap_or_default()),
        (None, Some((_, member))) => format!("1{:03}", member.wave),
        (None, None) => "2".to_owned(),
    }
}

fn cursor((place, uuid): &Key) -> String {
    format!("{place}~{uuid}")
}

fn parsed(text: &str) -> Result<Key, ApiError> {
    let found = text.rsplit_once('~').map(|(place, uuid)| (place.to_owned(), uuid.to_owned()));
    found
        .ok_or_else(|| ApiError::bad_request("after = is not a cursor of this list; begin at the first page"))
}

/// A change of a fleet's target: to a release, or to tracking latest.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::fleet) struct WhichMoves {
    fleet: String,
    /// Absent: the fleet tracks latest.
    release: Option<String>,
}

/// Whom a change would move.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::fleet) struct Moves {
    /// Of the fleet or the devices as they are now.
    pub(in crate::fleet) etag: String,
    /// Commit of the release.
    pub(in crate::fleet) to: Option<String>,
    /// How many devices it is about; how many get another target; how many stay because of a pin of their own.
    pub(in crate::fleet) devices: usize,
    pub(in crate::fleet) moved: usize,
    pub(in crate::fleet) pinned: usize,
    /// Whether anything changes at all.
    pub(in crate::fleet) is_change: bool,
    /// The first of those that are moved.
    pub(in crate::fleet) rows: Vec<Moved>,
}

/// A device and its commits before and after.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::fleet) struct Moved {
    pub(in crate::fleet) uuid: String,
    pub(in crate::fleet) name: String,
    pub(in crate::fleet) before: Option<String>,
    pub(in crate::fleet) after: Option<String>,
}

/// Maximum number of devices that a preview names.
const NAMED: usize = 10;

pub(super) async fn moves(
    records: Desk,
    Params(WhichMoves { fleet, release }): Params<WhichMoves>,
) -> Result<Response, ApiError> {
    pages::beside(&records, move |_, world| {
        let fleet = world.find_fleet(&fleet)?;
        let release = release.map(|text| world.find_release(Some(fleet.number), &text)).transpose()?;
        let changes = match release {
            Some(release) => world.pin_fleet(fleet, release)?,
            None => world.track_latest(fleet)?,
        };
        let is_change = !changes.is_empty();
        let after = after(world, changes);
        let devices: Vec<_> = world.devices().filter(|device| device.fleet == fleet.number).collect();
        let target = after.fleet(fleet.number).and_then(|fleet| fleet.target);
        let mut moves = preview(world, &after, &devices, commit(world, target));
        moves.etag = ETag::of_fleet(fleet).to_string();
        moves.is_change = is_change;
        Ok(moves)
    })
    .await
}

/// Returns the world as these changes would leave it. The records of the server stay as they are.
pub(super) fn after(world: &World, changes: Vec<Change>) -> World {
    let mut after = world.clone();
    changes.into_iter().for_each(|change| after.apply(change));
    after
}

pub(super) fn preview(world: &World, after: &World, devices: &[&Device], to: Option<String>) -> Moves {
    let mut moves = Moves {
        etag: String::new(),
        to,
        devices: devices.len(),
        moved: 0,
        pinned: devices.iter().filter(|device| device.pin.is_some()).count(),
        is_change: true,
        rows: Vec::new(),
    };
    let target = |world: &World, device: &Device| world.target_of(device).map(|release| release.number);
    for device in devices {
        let later = after.device(&device.uuid).unwrap_or(device);
        let (from, to) = (target(world, device), target(after, later));
        if from == to {
            continue;
        }
        moves.moved += 1;
        if moves.rows.len() < NAMED {
            let (before, after) = (commit(world, from), commit(after, to));
            let (uuid, name) = (device.uuid.to_string(), device.name.clone());
            moves.rows.push(Moved { uuid, name, before, after });
        }
    }
    moves
}

//! `/api/v1/devices`.

use std::collections::HashMap;
use std::ops::Deref;

use axum::Json;
use axum::response::Response;
use serde::Deserialize;
use serde_json::Value;

use super::answer::{ApiError, Body, Params, Path};
use super::desk::{Acting, Desk};
use super::etag::{ETag, Tagged};
use super::membership;
use super::pages::{self, Page};
use crate::fleet::clock;
use crate::fleet::policy::{
    BadFilter, Change, Choice, Departure, Device, PastRelease, Pinned, Refusal, Reported, Sight, TagFilter,
    Tagging, World,
};
use crate::fleet::standing::{self, Standing};
use crate::model::DeviceUuid;
use crate::wire::operator_api::{
    BulkDevice, BulkView, Code, DeleteMany, DeviceDetail, DeviceState, DeviceView, MigrationView, MoveDevice,
    Nothing, PastReleaseView, Pin, PinMany, PinnedView, RenameDevice, ServiceView, TagDevice, TagMany,
    TrackMany,
};

/// Which devices are listed.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    fleet: Option<String>,
    filter: Option<String>,
    /// Name or id of the provisioning key with which they registered.
    provisioning_key: Option<String>,
    /// Only devices in one of these states: see [`DeviceState::parse_list`].
    state: Option<String>,
    limit: Option<usize>,
    cursor: Option<String>,
}

pub(super) async fn list(records: Desk, Params(which): Params<Which>) -> Result<Response, ApiError> {
    let wanted = Wanted::new(which.filter, which.fleet, which.provisioning_key)?;
    let states = which.state.as_deref().map(DeviceState::parse_list).transpose();
    let states = states.map_err(ApiError::bad_request)?;
    let after = pages::cursor(which.cursor.as_deref(), |cursor| DeviceUuid::parse(cursor).ok())?;
    let limit = which.limit;
    pages::page(&records, move |records, world| {
        let choice = wanted.choice(world)?;
        let is_wanted = |device: &&Device| {
            let state = || standing::of(world, device, records.last_seen(world, device).1).state;
            choice.matches(device) && states.as_ref().is_none_or(|states| states.contains(&state()))
        };
        let devices = world.devices_after(after.as_ref()).filter(is_wanted);
        Page::of(devices.map(|device| (device.uuid.to_string(), view(records, world, device))), limit)
    })
    .await
}

pub(super) async fn show(records: Desk, Path(device): Path<String>) -> Result<Response, ApiError> {
    let world = records.world();
    let device = world.find_device(&device)?;
    let reported = world.reported(&device.uuid);
    let services = reported.services.iter().map(|row| ServiceView {
        service: row.service.to_string(),
        release: commit(&world, Some(row.release)),
        status: row.status.clone(),
        download_progress: row.progress,
    });
    let account = reported.account.as_deref().cloned().unwrap_or_default();
    let detail = DeviceDetail {
        waiting: account.waiting,
        evidence: account.evidence,
        device: view(&records, &world, device),
        rollout: membership::of_device(&world, device, records.last_seen(&world, device).1),
        reported_at: reported.at,
        services: services.collect(),
        history: history(&world, device),
        reported: reported.fields.clone(),
    };
    records.read(&ETag::of_device(&world, device), detail)
}

pub(super) async fn pin(
    records: Desk,
    Path(device): Path<String>,
    Body(Pin { release }): Body<Pin>,
) -> Result<Tagged<DeviceView>, ApiError> {
    change(&records, device, move |world, device| {
        let release = world.find_release(Some(device.fleet), &release)?;
        world.pin_devices(&[device], release)
    })
    .await
}

pub(super) async fn track_fleet(
    records: Desk,
    Path(device): Path<String>,
    Body(Nothing {}): Body<Nothing>,
) -> Result<Tagged<DeviceView>, ApiError> {
    change(&records, device, |world, device| Ok(world.track_fleet(&[device]))).await
}

pub(super) async fn tag(
    records: Desk,
    Path(device): Path<String>,
    Body(TagDevice { set, remove }): Body<TagDevice>,
) -> Result<Tagged<DeviceView>, ApiError> {
    let tagging = Tagging { set, remove };
    change(&records, device, move |world, device| world.tag_device(device, &tagging)).await
}

pub(super) async fn move_to(
    records: Desk,
    Path(device): Path<String>,
    Body(MoveDevice { fleet }): Body<MoveDevice>,
) -> Result<Tagged<DeviceView>, ApiError> {
    change(&records, device, move |world, device| Ok(world.move_device(device, world.find_fleet(&fleet)?)))
        .await
}

pub(super) async fn rename(
    records: Desk,
    Path(device): Path<String>,
    Body(RenameDevice { name }): Body<RenameDevice>,
) -> Result<Tagged<DeviceView>, ApiError> {
    change(&records, device, move |world, device| world.rename_device(device, name)).await
}

/// Returns the device as it was before.
pub(super) async fn delete(records: Desk, Path(device): Path<String>) -> Result<Json<DeviceView>, ApiError> {
    let looking = records.clone();
    let act = move |world: &Acting<'_>| {
        let device = world.find_device(&device)?;
        world.expects(&ETag::of_device(world, device))?;
        let gone = (device.uuid.clone(), view(&looking, world, device));
        Ok((gone, world.delete_devices(&[device], clock::now())?))
    };
    let (uuid, gone) = records.act(act).await?;
    records.forget(&uuid);
    Ok(Json(gone))
}

pub(super) async fn pin_many(records: Desk, Body(asked): Body<PinMany>) -> Result<Json<BulkView>, ApiError> {
    let PinMany { filter, fleet, release, dry_run } = asked;
    let wanted = Wanted::new(Some(filter), fleet, None)?;
    let act = move |world: &Acting<'_>| {
        let devices = wanted.any_of(world)?;
        let fleet = devices.first().map(|device| device.fleet);
        let fleet = fleet.filter(|fleet| devices.iter().all(|device| device.fleet == *fleet));
        let release = world.find_release(fleet, &release)?;
        let changes = world.pin_devices(&devices, release)?;
        Ok(bulk(world, &devices, changes, dry_run))
    };
    Ok(Json(records.act(act).await?))
}

pub(super) async fn track_many(
    records: Desk,
    Body(asked): Body<TrackMany>,
) -> Result<Json<BulkView>, ApiError> {
    let TrackMany { filter, fleet, dry_run } = asked;
    let wanted = Wanted::new(Some(filter), fleet, None)?;
    let act = move |world: &Acting<'_>| {
        let devices = wanted.any_of(world)?;
        let changes = world.track_fleet(&devices);
        Ok(bulk(world, &devices, changes, dry_run))
    };
    Ok(Json(records.act(act).await?))
}

/// Sets and removes tags of all devices that match, or of none.
pub(super) async fn tag_many(records: Desk, Body(asked): Body<TagMany>) -> Result<Json<BulkView>, ApiError> {
    let TagMany { filter, fleet, set, remove, dry_run } = asked;
    let wanted = Wanted::new(Some(filter), fleet, None)?;
    let tagging = Tagging { set, remove };
    let act = move |world: &Acting<'_>| {
        let devices = wanted.any_of(world)?;
        let changes = world.tag_devices(&devices, &tagging)?;
        let after = by_uuid(&changes);
        let tags = devices.iter().map(|device| after.get(&device.uuid).unwrap_or(device).tags.clone());
        let tags: Vec<_> = tags.collect();
        let (mut view, changes) = bulk(world, &devices, changes, dry_run);
        view.devices.iter_mut().zip(tags).for_each(|(device, tags)| device.tags = Some(tags));
        Ok((view, changes))
    };
    Ok(Json(records.act(act).await?))
}

/// Deletes all devices that match, or none.
pub(super) async fn delete_many(
    records: Desk,
    Body(asked): Body<DeleteMany>,
) -> Result<Json<BulkView>, ApiError> {
    let DeleteMany { filter, fleet, provisioning_key, expected, dry_run } = asked;
    if filter.is_none() && provisioning_key.is_none() {
        let remedy = "give filter, provisioning_key, or both";
        return Err(ApiError::with_remedy(Code::BadRequest, "no devices are named", remedy));
    }
    let wanted = Wanted::new(filter, fleet, provisioning_key)?;
    let act = move |world: &Acting<'_>| {
        let devices = wanted.any_of(world)?;
        if let Some(expected) = expected.filter(|expected| *expected != devices.len()) {
            return Err(Refusal::MatchChanged { expected, found: devices.len() });
        }
        let gone: Vec<_> = devices.iter().map(|device| device.uuid.clone()).collect();
        let (mut view, changes) =
            bulk(world, &devices, world.delete_devices(&devices, clock::now())?, dry_run);
        view.devices.iter_mut().for_each(|device| device.target_after = None);
        Ok(((gone, view), changes))
    };
    let (gone, view) = records.act(act).await?;
    if !dry_run {
        gone.iter().for_each(|uuid| records.forget(uuid));
    }
    Ok(Json(view))
}

/// A choice of devices, by names that are not resolved yet.
pub(super) struct Wanted {
    filter: Option<TagFilter>,
    fleet: Option<String>,
    provisioning_key: Option<String>,
}

impl Wanted {
    pub(super) fn new(
        filter: Option<String>,
        fleet: Option<String>,
        provisioning_key: Option<String>,
    ) -> Result<Self, BadFilter> {
        let filter = filter.map(|filter| filter.parse()).transpose()?;
        Ok(Self { filter, fleet, provisioning_key })
    }

    fn choice<W: Deref<Target = World>>(&self, world: &Sight<W>) -> Result<Choice, Refusal> {
        let fleet = self.fleet.as_ref().map(|fleet| world.find_fleet(fleet)).transpose()?;
        let key = self.provisioning_key.as_ref().map(|key| world.find_key(None, key)).transpose()?;
        let (fleet, key) = (fleet.map(|fleet| fleet.number), key.map(|key| key.hash.clone()));
        Ok(Choice { filter: self.filter.clone(), fleet, key })
    }

    /// Returns the devices of a bulk act. There must be some.
    pub(super) fn any_of<'a>(&self, world: &'a Acting<'_>) -> Result<Vec<&'a Device>, Refusal> {
        let devices = world.matching(&self.choice(world)?);
        if !devices.is_empty() {
            return Ok(devices);
        }
        let key = self.provisioning_key.as_ref().map(|key| format!("provisioning key {key}"));
        let said = self.filter.as_ref().map(ToString::to_string).into_iter().chain(key);
        Err(Refusal::NoDeviceMatches { filter: said.collect::<Vec<_>>().join(" with ") })
    }
}

/// Makes the list of devices and their changes. A dry run changes nothing.
pub(super) fn bulk(
    world: &World,
    devices: &[&Device],
    changes: Vec<Change>,
    dry_run: bool,
) -> (BulkView, Vec<Change>) {
    let after = by_uuid(&changes);
    let rows = devices.iter().map(|device| {
        let after = after.get(&device.uuid).unwrap_or(device);
        BulkDevice {
            uuid: device.uuid.to_string(),
            name: device.name.clone(),
            fleet: fleet_name(world, device.fleet),
            target_before: target(world, device),
            target_after: target(world, after),
            tags: None,
        }
    });
    let view = BulkView { dry_run, devices: rows.collect() };
    (view, if dry_run { Vec::new() } else { changes })
}

/// Returns the devices as these changes leave them.
fn by_uuid(changes: &[Change]) -> HashMap<&DeviceUuid, &Device> {
    let changed = changes.iter().filter_map(|change| {
        let Change::PutDevice(device) = change else { return None };
        Some((&device.uuid, device))
    });
    changed.collect()
}

async fn change(
    records: &Desk,
    device: String,
    act: impl FnOnce(&Acting<'_>, &Device) -> Result<Vec<Change>, Refusal> + Send + 'static,
) -> Result<Tagged<DeviceView>, ApiError> {
    let act = move |world: &Acting<'_>| {
        let device = world.find_device(&device)?;
        world.expects(&ETag::of_device(world, device))?;
        Ok((device.uuid.clone(), act(world, device)?))
    };
    let uuid = records.act(act).await?;
    let world = records.world();
    let device = world.device(&uuid).ok_or(Refusal::NoSuchDevice { given: uuid.to_string() })?;
    Ok(Tagged(ETag::of_device(&world, device), view(records, &world, device)))
}

pub(super) fn view(records: &Desk, world: &World, device: &Device) -> DeviceView {
    let (key, reported) = (device.provisioned_by.as_ref(), world.reported(&device.uuid));
    let (last_seen, contact) = records.last_seen(world, device);
    let Standing { state, why } = standing::of(world, device, contact);
    let update = reported.update_status.and_then(|status| serde_json::to_value(status).ok());
    DeviceView {
        uuid: device.uuid.to_string(),
        number: device.number,
        name: device.name.clone(),
        device_type: device.device_type.clone(),
        fleet: fleet_name(world, device.fleet),
        pin: commit(world, device.pin),
        target: target(world, device),
        running: commit(world, reported.running),
        update_status: update.as_ref().and_then(Value::as_str).map(str::to_owned),
        state,
        why,
        agent: reported.account.as_ref().map(|account| account.agent.clone()),
        is_online: contact.is_recent(),
        last_seen,
        tags: device.tags.clone(),
        created: device.created,
        provisioning_key: key.map(|key| key.id().to_owned()),
        provisioning_key_name: key.and_then(|key| world.provisioning_key(key)?.name.clone()),
        migration: device.departure.as_ref().map(|departure| migration(departure, reported)),
        pinned: device.pinned().map(pinned),
    }
}

/// Returns the releases of its fleet that a device accepted or rejected, newest first. Those of an earlier fleet are left out,
/// because a token for this fleet may not see them.
fn history(world: &World, device: &Device) -> Vec<PastReleaseView> {
    let view = |past: &PastRelease| {
        let release = world.release(past.release).filter(|release| release.fleet == device.fleet)?;
        let (release, verdict) = (release.commit.to_string(), past.verdict.as_str().to_owned());
        Some(PastReleaseView { release, verdict, at: past.at, why: past.why.clone() })
    };
    world.reported(&device.uuid).history.iter().rev().filter_map(view).collect()
}

pub(super) fn pinned(Pinned { at, by, why }: &Pinned) -> PinnedView {
    PinnedView { at: *at, by: by.clone(), why: why.clone() }
}

/// Returns the move of a device to another cloud, by what it reported.
fn migration(departure: &Departure, reported: &Reported) -> MigrationView {
    let said = reported.account.as_ref().and_then(|account| account.moving.as_ref());
    let said = said.filter(|moving| moving.to.trim_end_matches('/') == departure.to);
    let state = match said {
        Some(moving) if moving.is_done => "moved",
        Some(moving) if moving.why.is_some() => "failing",
        Some(_) | None => "ordered",
    };
    MigrationView {
        to: departure.to.clone(),
        fleet: departure.fleet.clone(),
        ordered: departure.ordered,
        state: state.to_owned(),
        why: said.and_then(|moving| moving.why.clone()).unwrap_or_default(),
    }
}

fn target(world: &World, device: &Device) -> Option<String> {
    world.target_of(device).map(|release| release.commit.to_string())
}

pub(super) fn commit(world: &World, release: Option<u64>) -> Option<String> {
    world.release(release?).map(|release| release.commit.to_string())
}

pub(super) fn fleet_name(world: &World, fleet: u64) -> String {
    world.fleet(fleet).map_or_else(String::new, |fleet| fleet.name.clone())
}

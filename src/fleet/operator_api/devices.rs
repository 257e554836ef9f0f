//! `/api/v1/devices`.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde::Deserialize;
use serde_json::Value;

use super::answer::{ApiError, Asked, Body};
use super::views::{
    BulkDevice, BulkView, DeviceDetail, DeviceView, MoveDevice, Nothing, Pin, PinMany, ServiceView,
    TagDevice, TrackMany,
};
use crate::fleet::policy::{Change, Device, Refusal, TagFilter, Tagging, World};
use crate::fleet::records::Records;

type Shared = State<Arc<Records>>;

/// Which devices are listed.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    fleet: Option<String>,
    filter: Option<String>,
}

pub(super) async fn list(
    State(records): Shared,
    Asked(which): Asked<Which>,
) -> Result<Json<Vec<DeviceView>>, ApiError> {
    let filter: Option<TagFilter> = which.filter.map(|filter| filter.parse()).transpose()?;
    let world = records.world();
    let fleet = which.fleet.map(|fleet| world.find_fleet(&fleet).map(|fleet| fleet.number)).transpose()?;
    let devices = world
        .devices()
        .filter(|device| fleet.is_none_or(|fleet| fleet == device.fleet))
        .filter(|device| filter.as_ref().is_none_or(|filter| filter.matches(&device.tags)));
    Ok(Json(devices.map(|device| view(&records, &world, device)).collect()))
}

pub(super) async fn show(
    State(records): Shared,
    Path(device): Path<String>,
) -> Result<Json<DeviceDetail>, ApiError> {
    let world = records.world();
    let device = world.find_device(&device)?;
    let services = device.reported.services.iter().map(|row| ServiceView {
        service: row.service.to_string(),
        release: commit(&world, Some(row.release)),
        status: row.status.clone(),
        download_progress: row.progress,
    });
    Ok(Json(DeviceDetail {
        device: view(&records, &world, device),
        reported_at: device.reported.at,
        services: services.collect(),
        reported: device.reported.fields.clone(),
    }))
}

pub(super) async fn pin(
    State(records): Shared,
    Path(device): Path<String>,
    Body(Pin { release }): Body<Pin>,
) -> Result<Json<DeviceView>, ApiError> {
    change(&records, device, move |world, device| {
        let release = world.find_release(Some(device.fleet), &release)?;
        world.pin_devices(&[device], release)
    })
    .await
}

pub(super) async fn track_fleet(
    State(records): Shared,
    Path(device): Path<String>,
    Body(Nothing {}): Body<Nothing>,
) -> Result<Json<DeviceView>, ApiError> {
    change(&records, device, |world, device| Ok(world.track_fleet(&[device]))).await
}

pub(super) async fn tag(
    State(records): Shared,
    Path(device): Path<String>,
    Body(TagDevice { set, remove }): Body<TagDevice>,
) -> Result<Json<DeviceView>, ApiError> {
    let tagging = Tagging { set, remove };
    change(&records, device, move |world, device| world.tag_device(device, &tagging)).await
}

pub(super) async fn move_to(
    State(records): Shared,
    Path(device): Path<String>,
    Body(MoveDevice { fleet }): Body<MoveDevice>,
) -> Result<Json<DeviceView>, ApiError> {
    change(&records, device, move |world, device| Ok(world.move_device(device, world.find_fleet(&fleet)?)))
        .await
}

/// Answers with the device as it was.
pub(super) async fn delete(
    State(records): Shared,
    Path(device): Path<String>,
) -> Result<Json<DeviceView>, ApiError> {
    let looking = Arc::clone(&records);
    let act = move |world: &World| {
        let device = world.find_device(&device)?;
        let gone = (device.uuid.clone(), view(&looking, world, device));
        Ok((gone, world.delete_device(device)))
    };
    let (uuid, gone) = records.act(act).await?;
    records.forget(&uuid);
    Ok(Json(gone))
}

pub(super) async fn pin_many(
    State(records): Shared,
    Body(asked): Body<PinMany>,
) -> Result<Json<BulkView>, ApiError> {
    let PinMany { filter, fleet, release, dry_run } = asked;
    let filter: TagFilter = filter.parse()?;
    let act = move |world: &World| {
        let devices = matching(world, &filter, fleet.as_deref())?;
        let fleet = devices.first().map(|device| device.fleet);
        let fleet = fleet.filter(|fleet| devices.iter().all(|device| device.fleet == *fleet));
        let release = world.find_release(fleet, &release)?;
        let changes = world.pin_devices(&devices, release)?;
        Ok(bulk(world, &devices, changes, dry_run))
    };
    Ok(Json(records.act(act).await?))
}

pub(super) async fn track_many(
    State(records): Shared,
    Body(asked): Body<TrackMany>,
) -> Result<Json<BulkView>, ApiError> {
    let TrackMany { filter, fleet, dry_run } = asked;
    let filter: TagFilter = filter.parse()?;
    let act = move |world: &World| {
        let devices = matching(world, &filter, fleet.as_deref())?;
        let changes = world.track_fleet(&devices);
        Ok(bulk(world, &devices, changes, dry_run))
    };
    Ok(Json(records.act(act).await?))
}

fn matching<'a>(
    world: &'a World,
    filter: &TagFilter,
    fleet: Option<&str>,
) -> Result<Vec<&'a Device>, Refusal> {
    let fleet = fleet.map(|fleet| world.find_fleet(fleet).map(|fleet| fleet.number)).transpose()?;
    let devices = world.matching(filter, fleet);
    if devices.is_empty() {
        Err(Refusal::NoDeviceMatches { filter: filter.to_string() })
    } else {
        Ok(devices)
    }
}

/// What changes for whom. A dry run makes no change.
fn bulk(world: &World, devices: &[&Device], changes: Vec<Change>, dry_run: bool) -> (BulkView, Vec<Change>) {
    let after = |device: &Device| {
        let changed = changes.iter().find_map(|change| change.device(&device.uuid));
        target(world, changed.unwrap_or(device))
    };
    let rows = devices.iter().map(|device| BulkDevice {
        uuid: device.uuid.to_string(),
        name: device.name.clone(),
        fleet: fleet_name(world, device.fleet),
        target_before: target(world, device),
        target_after: after(device),
    });
    let view = BulkView { dry_run, devices: rows.collect() };
    (view, if dry_run { Vec::new() } else { changes })
}

async fn change(
    records: &Arc<Records>,
    device: String,
    act: impl FnOnce(&World, &Device) -> Result<Vec<Change>, Refusal> + Send + 'static,
) -> Result<Json<DeviceView>, ApiError> {
    let act = move |world: &World| {
        let device = world.find_device(&device)?;
        Ok((device.uuid.clone(), act(world, device)?))
    };
    let uuid = records.act(act).await?;
    let world = records.world();
    let device = world.device(&uuid).ok_or(Refusal::NoSuchDevice { given: uuid.to_string() })?;
    Ok(Json(view(records, &world, device)))
}

fn view(records: &Records, world: &World, device: &Device) -> DeviceView {
    let seen = records.last_seen(&device.uuid);
    let update = device.reported.update_status.and_then(|status| serde_json::to_value(status).ok());
    DeviceView {
        uuid: device.uuid.to_string(),
        number: device.number,
        name: device.name.clone(),
        device_type: device.device_type.clone(),
        fleet: fleet_name(world, device.fleet),
        pin: commit(world, device.pin),
        target: target(world, device),
        running: commit(world, device.reported.running),
        update_status: update.as_ref().and_then(Value::as_str).map(str::to_owned),
        is_online: seen.is_some_and(|(_, is_recent)| is_recent),
        last_seen: seen.map(|(at, _)| at),
        tags: device.tags.clone(),
        created: device.created,
    }
}

fn target(world: &World, device: &Device) -> Option<String> {
    world.target_of(device).map(|release| release.commit.to_string())
}

fn commit(world: &World, release: Option<u64>) -> Option<String> {
    world.release(release?).map(|release| release.commit.to_string())
}

fn fleet_name(world: &World, fleet: u64) -> String {
    world.fleet(fleet).map_or_else(String::new, |fleet| fleet.name.clone())
}

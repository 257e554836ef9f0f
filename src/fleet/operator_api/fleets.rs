//! `/api/v1/fleets`.

use std::collections::BTreeMap;

use axum::Json;
use axum::http::StatusCode;
use axum::response::Response;

use super::answer::{ApiError, Body, Params, Path};
use super::desk::{Acting, Desk};
use super::devices::bulk;
use super::etag::{ETag, Tagged};
use super::pages::{self, Page, WhichPage};
use crate::fleet::policy::{Fleet, NewFleet, Refusal, World};
use crate::fleet::{clock, secret, tally};
use crate::model::AppId;
use crate::wire::operator_api::{
    Code, CreateFleet, DeleteFleet, DeviceState, FleetCreated, FleetDeleted, FleetView, Nothing, PatchFleet,
    Pin, RenameFleet,
};

pub(super) async fn list(
    records: Desk,
    Params(WhichPage { limit, cursor }): Params<WhichPage>,
) -> Result<Response, ApiError> {
    let after = pages::cursor(cursor.as_deref(), |cursor| cursor.parse::<u64>().ok())?.unwrap_or(0);
    pages::page(&records, move |records, world| {
        let mut states = tally::states(world, None, |device| records.last_seen(world, device).1);
        let fleets = world.fleets().filter(|fleet| fleet.number > after);
        let row = |fleet: &Fleet| {
            let states = states.remove(&fleet.number).unwrap_or_default();
            (fleet.number.to_string(), view_of(world, fleet, states))
        };
        Page::of(fleets.map(row), limit)
    })
    .await
}

pub(super) async fn show(records: Desk, Path(fleet): Path<String>) -> Result<Response, ApiError> {
    pages::answer(&records, move |records, world| {
        let fleet = world.find_fleet(&fleet)?;
        records.read(&ETag::of_fleet(fleet), view(records, world, fleet))
    })
    .await
}

pub(super) async fn create(
    records: Desk,
    Body(CreateFleet { name, registry }): Body<CreateFleet>,
) -> Result<(StatusCode, Json<FleetCreated>), ApiError> {
    let provisioning_key = random()?;
    let uuid = secret::uuid().map_err(|error| ApiError::new(Code::Internal, error.to_string()))?;
    let uuid = AppId::parse(uuid).map_err(|error| ApiError::bad_request(error.to_string()))?;
    let key = secret::hash(&provisioning_key);
    let new = NewFleet { uuid, name: name.clone(), created: clock::now(), key, registry };
    let secret = (
        "the provisioning key",
        "make another one with `cotter fleet provisioning-key create`, if you did not get it",
    );
    records.act_with_secret(secret, move |world| Ok(((), world.create_fleet(new)?))).await?;
    let world = records.world();
    let fleet = view(&records, &world, world.find_fleet(&name)?);
    Ok((StatusCode::CREATED, Json(FleetCreated { fleet, provisioning_key })))
}

pub(super) async fn patch(
    records: Desk,
    Path(fleet): Path<String>,
    Body(PatchFleet { registry }): Body<PatchFleet>,
) -> Result<Tagged<FleetView>, ApiError> {
    let name = fleet.clone();
    let act = move |world: &Acting<'_>| {
        let fleet = world.find_fleet(&name)?;
        world.expects(&ETag::of_fleet(fleet))?;
        Ok(((), registry.map_or_else(|| Ok(Vec::new()), |registry| world.set_registry(fleet, &registry))?))
    };
    records.act(act).await?;
    shown(&records, &fleet)
}

pub(super) async fn rename(
    records: Desk,
    Path(fleet): Path<String>,
    Body(RenameFleet { name }): Body<RenameFleet>,
) -> Result<Tagged<FleetView>, ApiError> {
    let act = move |world: &Acting<'_>| {
        let fleet = world.find_fleet(&fleet)?;
        world.expects(&ETag::of_fleet(fleet))?;
        Ok((fleet.number, world.rename_fleet(fleet, name)?))
    };
    let number = records.act(act).await?;
    shown(&records, &number.to_string())
}

/// Deletes a fleet with its releases and keys, and with its devices if that is wanted. Returns it as it was before.
pub(super) async fn delete(
    records: Desk,
    Path(fleet): Path<String>,
    Body(DeleteFleet { with_devices, expected, dry_run }): Body<DeleteFleet>,
) -> Result<Json<FleetDeleted>, ApiError> {
    let looking = records.clone();
    let act = move |world: &Acting<'_>| {
        let fleet = world.find_fleet(&fleet)?;
        world.expects(&ETag::of_fleet(fleet))?;
        let devices: Vec<_> = world.devices().filter(|device| device.fleet == fleet.number).collect();
        let changes = world.delete_fleet(fleet, with_devices, clock::now())?;
        if let Some(expected) = expected.filter(|expected| *expected != devices.len()) {
            return Err(Refusal::MatchChanged { expected, found: devices.len() });
        }
        let gone: Vec<_> = devices.iter().map(|device| device.uuid.clone()).collect();
        let before = view(&looking, world, fleet);
        let keys = world.keys_by_age(fleet).len();
        let (mut bulk, changes) = bulk(world, &devices, changes, dry_run);
        bulk.devices.iter_mut().for_each(|device| device.target_after = None);
        let deleted = FleetDeleted { dry_run, fleet: before, keys, devices: bulk.devices };
        Ok(((gone, deleted), changes))
    };
    let (gone, deleted) = records.act(act).await?;
    if !dry_run {
        gone.iter().for_each(|uuid| records.forget(uuid));
    }
    Ok(Json(deleted))
}

pub(super) async fn pin(
    records: Desk,
    Path(fleet): Path<String>,
    Body(Pin { release }): Body<Pin>,
) -> Result<Tagged<FleetView>, ApiError> {
    let name = fleet.clone();
    let act = move |world: &Acting<'_>| {
        let fleet = world.find_fleet(&name)?;
        world.expects(&ETag::of_fleet(fleet))?;
        let release = world.find_release(Some(fleet.number), &release)?;
        Ok(((), world.pin_fleet(fleet, release)?))
    };
    records.act(act).await?;
    shown(&records, &fleet)
}

pub(super) async fn track_latest(
    records: Desk,
    Path(fleet): Path<String>,
    Body(Nothing {}): Body<Nothing>,
) -> Result<Tagged<FleetView>, ApiError> {
    let name = fleet.clone();
    let act = move |world: &Acting<'_>| {
        let fleet = world.find_fleet(&name)?;
        world.expects(&ETag::of_fleet(fleet))?;
        Ok(((), world.track_latest(fleet)?))
    };
    records.act(act).await?;
    shown(&records, &fleet)
}

fn shown(records: &Desk, fleet: &str) -> Result<Tagged<FleetView>, ApiError> {
    let world = records.world();
    let found: &Fleet = world.find_fleet(fleet)?;
    Ok(Tagged(ETag::of_fleet(found), view(records, &world, found)))
}

fn view(records: &Desk, world: &World, fleet: &Fleet) -> FleetView {
    let mut states = tally::states(world, Some(fleet.number), |device| records.last_seen(world, device).1);
    view_of(world, fleet, states.remove(&fleet.number).unwrap_or_default())
}

fn view_of(world: &World, fleet: &Fleet, states: BTreeMap<DeviceState, usize>) -> FleetView {
    FleetView {
        number: fleet.number,
        uuid: fleet.uuid.to_string(),
        name: fleet.name.clone(),
        is_tracking_latest: fleet.is_tracking_latest,
        target: fleet
            .target
            .and_then(|number| world.release(number))
            .map(|release| release.commit.to_string()),
        devices: states.values().sum(),
        states,
        releases: world.releases_of(fleet.number).count(),
        registry: fleet.registry.clone(),
        created: fleet.created,
        pinned: fleet.pinned().map(super::devices::pinned),
    }
}

/// Makes a new key.
pub(super) fn random() -> Result<String, ApiError> {
    secret::token().map_err(|error| ApiError::new(Code::Internal, error.to_string()))
}

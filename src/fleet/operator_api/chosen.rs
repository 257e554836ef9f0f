//! Acts on devices that were chosen in the dashboard: one by one, or all of a selection. Each changes all of them, or none.
//! With `dry_run` it changes nothing, and answers with whom it would move.

use std::collections::BTreeSet;

use axum::Json;
use serde::{Deserialize, Serialize};

use super::answer::{ApiError, Body};
use super::desk::{Acting, Desk};
use super::devices::commit;
use super::etag::ETag;
use super::overview::{Moves, Selected, Selection, after, preview};
use crate::fleet::policy::{Change, Device, Refusal, Tagging, World};
use crate::fleet::standing;
use crate::model::DeviceUuid;

/// The devices of an act: those that are named, or all of the selection if none is.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(in crate::fleet) struct Chosen {
    pub(in crate::fleet) devices: Vec<String>,
    pub(in crate::fleet) selection: Selection,
    pub(in crate::fleet) dry_run: bool,
    /// For a pin: a commit.
    pub(in crate::fleet) release: Option<String>,
    /// For a move: a fleet.
    pub(in crate::fleet) to_fleet: Option<String>,
    /// For tags.
    pub(in crate::fleet) set: std::collections::BTreeMap<String, String>,
    pub(in crate::fleet) remove: Vec<String>,
}

pub(super) async fn pin(records: Desk, Body(chosen): Body<Chosen>) -> Result<Json<Moves>, ApiError> {
    let text = chosen.release.clone().unwrap_or_default();
    act(records, chosen, move |world, devices| {
        let fleet = devices.first().map(|device| device.fleet);
        let release = world.find_release(fleet, &text)?;
        Ok((world.pin_devices(devices, release)?, commit(world, Some(release.number))))
    })
    .await
}

pub(super) async fn track(records: Desk, Body(chosen): Body<Chosen>) -> Result<Json<Moves>, ApiError> {
    act(records, chosen, |world, devices| Ok((world.track_fleet(devices), None))).await
}

pub(super) async fn tag(records: Desk, Body(chosen): Body<Chosen>) -> Result<Json<Moves>, ApiError> {
    let tagging = Tagging { set: chosen.set.clone(), remove: chosen.remove.clone() };
    act(records, chosen, move |world, devices| Ok((world.tag_devices(devices, &tagging)?, None))).await
}

pub(super) async fn move_to(records: Desk, Body(chosen): Body<Chosen>) -> Result<Json<Moves>, ApiError> {
    let fleet = chosen.to_fleet.clone().unwrap_or_default();
    act(records, chosen, move |world, devices| {
        let fleet = world.find_fleet(&fleet)?;
        Ok((devices.iter().flat_map(|device| world.move_device(device, fleet)).collect(), None))
    })
    .await
}

async fn act(
    records: Desk,
    chosen: Chosen,
    change: impl FnOnce(&Acting<'_>, &[&Device]) -> Result<(Vec<Change>, Option<String>), Refusal>
    + Send
    + 'static,
) -> Result<Json<Moves>, ApiError> {
    // A malformed filter is no matter of the policy.
    Selected::new(&chosen.selection, 0)?;
    let (looking, dry_run) = (records.clone(), chosen.dry_run);
    let act = move |world: &Acting<'_>| {
        let devices = found(&looking, world, &chosen)?;
        let etag = ETag::of_devices(world, &devices);
        world.expects(&etag)?;
        let (changes, to) = change(world, &devices)?;
        let is_change = !changes.is_empty();
        let mut moves = preview(world, &after(world, changes.clone()), &devices, to);
        (moves.etag, moves.is_change) = (etag.to_string(), is_change);
        Ok((moves, if dry_run { Vec::new() } else { changes }))
    };
    Ok(Json(records.act(act).await?))
}

/// Returns the devices. One that is gone, or of another fleet now, is an error: the act is for all or none.
fn found<'a>(records: &Desk, world: &'a Acting<'_>, chosen: &Chosen) -> Result<Vec<&'a Device>, Refusal> {
    let fleet = world.find_fleet(&chosen.selection.fleet)?;
    if !chosen.devices.is_empty() {
        let uuids: BTreeSet<&String> = chosen.devices.iter().collect();
        let device = |text: &String| {
            let uuid = DeviceUuid::parse(text.clone()).ok();
            let device =
                uuid.and_then(|uuid| world.device(&uuid)).filter(|device| device.fleet == fleet.number);
            device.ok_or_else(|| Refusal::NoSuchDevice { given: text.clone() })
        };
        return uuids.into_iter().map(device).collect();
    }
    let none = || Refusal::NoDeviceMatches { filter: chosen.selection.filter.clone().unwrap_or_default() };
    let selected = Selected::new(&chosen.selection, fleet.number).map_err(|_| none())?;
    let state = |device: &Device| {
        let plain: &World = world;
        standing::of(plain, device, records.last_seen(plain, device).1).state
    };
    let of_fleet = world.devices().filter(|device| device.fleet == fleet.number);
    let devices: Vec<_> = of_fleet.filter(|device| selected.matches(device, || state(device))).collect();
    if devices.is_empty() { Err(none()) } else { Ok(devices) }
}

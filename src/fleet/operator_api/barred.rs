//! `/api/v1/barred-devices`: deleted devices, whose uuids and keys cannot register again.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;

use super::answer::{ApiError, Body, Params, Path};
use super::devices::fleet_name;
use super::pages::{self, Page};
use crate::fleet::policy::{Bar, World};
use crate::fleet::records::Records;
use crate::model::DeviceUuid;
use crate::wire::operator_api::{Allow, BarredView};

type Shared = State<Arc<Records>>;

/// Which devices are listed.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    fleet: Option<String>,
    limit: Option<usize>,
    cursor: Option<String>,
}

pub(super) async fn list(
    State(records): Shared,
    Params(Which { fleet, limit, cursor }): Params<Which>,
) -> Result<Response, ApiError> {
    let after = pages::cursor(cursor.as_deref(), |cursor| DeviceUuid::parse(cursor).ok())?;
    pages::page(&records, move |_, world| {
        let fleet = fleet.map(|fleet| world.find_fleet(&fleet).map(|fleet| fleet.number)).transpose()?;
        let bars = world.bars_after(after.as_ref());
        let bars = bars.filter(|bar| fleet.is_none_or(|fleet| fleet == bar.device.fleet));
        Page::of(bars.map(|bar| (bar.device.uuid.to_string(), view(world, bar))), limit)
    })
    .await
}

/// Returns the device as it was before.
pub(super) async fn allow(
    State(records): Shared,
    Path(device): Path<String>,
    Body(Allow { restore }): Body<Allow>,
) -> Result<Json<BarredView>, ApiError> {
    let act = move |world: &World| {
        let bar = world.find_bar(&device)?;
        let changes = if restore { world.restore_device(bar)? } else { world.allow_device(bar) };
        Ok((view(world, bar), changes))
    };
    Ok(Json(records.act(act).await?))
}

fn view(world: &World, Bar { device, at }: &Bar) -> BarredView {
    BarredView {
        uuid: device.uuid.to_string(),
        name: device.name.clone(),
        device_type: device.device_type.clone(),
        fleet: fleet_name(world, device.fleet),
        deleted: *at,
        provisioning_key: device.provisioned_by.as_ref().map(|key| key.id().to_owned()),
    }
}

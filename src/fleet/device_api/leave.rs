//! Lets a device delete its own record: `cotter leave`. Balena's API has no such request.

use std::sync::Arc;

use axum::extract::{Extension, Path, RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};

use super::record::{Act, recorded};
use super::{DELETED, NotServed, key_of, key_required, not_written};
use crate::fleet::clock;
use crate::fleet::policy::{Change, KeyHash, Refusal, World};
use crate::fleet::records::{ActError, Records};
use crate::listen::{Rank, Visit};
use crate::model::DeviceUuid;

/// Deletes the device as an operator does, so that an operator can restore it. A device that was deleted before gets the same
/// answer, because it may not have received the first one.
pub(super) async fn leave(
    State(records): State<Arc<Records>>,
    Extension(visit): Extension<Visit>,
    Path(uuid): Path<String>,
    query: RawQuery,
    headers: HeaderMap,
) -> Response {
    let (Some(key), Ok(uuid)) = (key_of(&headers, &query), DeviceUuid::parse(&uuid)) else {
        return key_required();
    };
    drop((query, headers));
    if records.world().device(&uuid).is_none() {
        records.refresh_for_unknown().await;
    }
    let world = records.world();
    match world.device(&uuid) {
        Some(device) if device.key == key => {}
        None if is_deleted(&world, &uuid, &key) => return (StatusCode::OK, DELETED).into_response(),
        Some(_) | None => return key_required(),
    }
    drop(world);
    if let Err(busy) = visit.admit(Rank::Ordinary) {
        return NotServed::from(busy).into_response();
    }
    let _reporting = match records.may_report(&uuid) {
        Ok(permit) => permit,
        Err(wait) => return NotServed::TooOften(wait).into_response(),
    };
    let (of, with) = (uuid.clone(), key.clone());
    let from = visit.client().map(|address| address.to_string());
    let act = move |world: &World| Ok(((), deletion(world, &of, &with, from)?));
    match records.act_for_device(act).await {
        Ok(()) => {
            records.forget(&uuid);
            tracing::info!(device = %uuid, "device has left");
            (StatusCode::OK, DELETED).into_response()
        }
        // Another request has deleted it meanwhile.
        Err(ActError::Refused(Refusal::NoSuchDevice { .. })) if is_deleted(&records.world(), &uuid, &key) => {
            (StatusCode::OK, DELETED).into_response()
        }
        Err(ActError::Refused(Refusal::NoSuchDevice { .. })) => key_required(),
        Err(ActError::Refused(refusal)) => (StatusCode::CONFLICT, refusal.to_string()).into_response(),
        Err(error) => not_written(&error),
    }
}

/// Returns the changes that delete a device, with their record of the audit trail.
fn deletion(
    world: &World,
    uuid: &DeviceUuid,
    key: &KeyHash,
    from: Option<String>,
) -> Result<Vec<Change>, Refusal> {
    let device = world.device(uuid).filter(|device| device.key == *key);
    let device = device.ok_or_else(|| Refusal::NoSuchDevice { given: uuid.to_string() })?;
    let changes = world.delete_itself(device, clock::now())?;
    let why = "the device has left by itself (`cotter leave`)";
    let act = Act { what: "delete a device", request: format!("DELETE /device/v3/{uuid}"), why, from };
    Ok(recorded(world, device, act, changes))
}

fn is_deleted(world: &World, uuid: &DeviceUuid, key: &KeyHash) -> bool {
    world.bar(uuid).is_some_and(|bar| bar.device.key == *key)
}

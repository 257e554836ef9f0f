//! `/api/v1/devices/migrate`: sends devices to another cloud.

use axum::Json;

use super::answer::{ApiError, SecretBody};
use super::desk::{Acting, Desk};
use super::devices::{Wanted, bulk};
use crate::fleet::clock;
use crate::fleet::policy::Departure;
use crate::wire::operator_api::{BulkView, MigrateMany, MigrationOrder};

/// Orders all of these devices to another cloud, or none.
pub(super) async fn migrate(
    records: Desk,
    SecretBody(asked): SecretBody<MigrateMany>,
) -> Result<Json<BulkView>, ApiError> {
    let MigrateMany { devices, filter, fleet, order, dry_run } = asked;
    let has_filter = filter.is_some() || fleet.is_some();
    if devices.is_empty() != has_filter {
        let message = "name the devices: give devices, or else filter, fleet, or both of these";
        return Err(ApiError::bad_request(message));
    }
    let wanted = has_filter.then(|| Wanted::new(filter, fleet, None)).transpose()?;
    let order = order.map(|MigrationOrder { to, fleet, key }| Departure {
        to: to.trim_end_matches('/').to_owned(),
        fleet,
        key,
        ordered: clock::now(),
    });
    let act = move |world: &Acting<'_>| {
        let chosen = match &wanted {
            Some(wanted) => wanted.any_of(world)?,
            None => devices.iter().map(|device| world.find_device(device)).collect::<Result<_, _>>()?,
        };
        let changes = world.send_away(&chosen, order.as_ref())?;
        Ok(bulk(world, &chosen, changes, dry_run))
    };
    Ok(Json(records.act(act).await?))
}

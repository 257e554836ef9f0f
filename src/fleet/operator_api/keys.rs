//! `/api/v1/fleets/FLEET/provisioning-keys`.

use std::time::Duration;

use axum::Json;
use axum::http::StatusCode;
use axum::response::Response;
use jiff::SignedDuration;

use super::answer::{ApiError, Body, Path};
use super::desk::{Acting, Desk};
use super::devices::fleet_name;
use super::fleets::random;
use super::pages;
use crate::fleet::policy::{KeyEnd, NewKey, ProvisioningKey, World};
use crate::fleet::{clock, secret, tally};
use crate::wire::operator_api::{Code, CreateKey, KeyCreated, KeyView, Nothing};

/// The accepted lifetimes of a key that expires.
const EXPIRY: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(60)..=Duration::from_secs(10 * 366 * 24 * 3600);

/// Lists all keys, oldest first, including those that have ended.
pub(super) async fn list(records: Desk, Path(fleet): Path<String>) -> Result<Response, ApiError> {
    pages::beside(&records, move |_, world| {
        let devices = tally::by_key(world);
        let keys = world.keys_by_age(world.find_fleet(&fleet)?);
        let views = keys.into_iter().map(|key| view(world, key, devices.get(&key.hash).copied()));
        Ok(views.collect::<Vec<KeyView>>())
    })
    .await
}

pub(super) async fn create(
    records: Desk,
    Path(fleet): Path<String>,
    Body(CreateKey { name, expires_in, uses, per_minute }): Body<CreateKey>,
) -> Result<(StatusCode, Json<KeyCreated>), ApiError> {
    let provisioning_key = random()?;
    let hash = secret::hash(&provisioning_key);
    let expires_in = expires_in.as_deref().map(expiry).transpose()?;
    let new =
        NewKey { hash: hash.clone(), created: clock::now(), name, expires_in, most_uses: uses, per_minute };
    let act = move |world: &Acting<'_>| {
        let fleet = world.find_fleet(&fleet)?;
        Ok((fleet.name.clone(), world.create_key(fleet, new)?))
    };
    let secret = ("the provisioning key", "revoke it and make another one, if you did not get it");
    let fleet = records.act_with_secret(secret, act).await?;
    let world = records.world();
    let details = world.provisioning_key(&hash).map(|key| view(&world, key, None));
    let details = details.ok_or_else(|| ApiError::bad_request("the key is gone already"))?;
    Ok((StatusCode::CREATED, Json(KeyCreated { fleet, provisioning_key, details })))
}

pub(super) async fn revoke(
    records: Desk,
    Path((fleet, key)): Path<(String, String)>,
    Body(Nothing {}): Body<Nothing>,
) -> Result<Json<KeyView>, ApiError> {
    let act = move |world: &Acting<'_>| {
        let key = world.find_key(Some(world.find_fleet(&fleet)?.number), &key)?;
        Ok((key.hash.clone(), world.revoke_key(key, clock::now())))
    };
    let hash = records.act(act).await?;
    let world = records.world();
    let key = world.find_key(None, &hash.0)?;
    let devices = tally::by_key(&world).get(&key.hash).copied();
    Ok(Json(view(&world, key, devices)))
}

pub(super) fn expiry(text: &str) -> Result<SignedDuration, ApiError> {
    let wait = humantime::parse_duration(text).ok().filter(|wait| EXPIRY.contains(wait));
    let wait = wait.and_then(|wait| SignedDuration::try_from(wait).ok());
    let shown: String = text.chars().take(64).collect();
    wait.ok_or_else(|| {
        let accepts = "write a time such as 12h, 30d or 1y, from 1min to 10 years";
        ApiError::with_remedy(
            Code::BadRequest,
            format_args!("expires_in = {shown:?} is not accepted"),
            accepts,
        )
    })
}

fn view(world: &World, key: &ProvisioningKey, devices: Option<usize>) -> KeyView {
    KeyView {
        id: key.hash.id().to_owned(),
        fleet: fleet_name(world, key.fleet),
        name: key.name.clone(),
        state: key.end(clock::now()).map_or("active", KeyEnd::as_str).to_owned(),
        uses: key.uses,
        most_uses: key.most_uses,
        per_minute: key.rate(),
        devices: devices.unwrap_or(0),
        created: key.created,
        expires: key.expires,
        revoked: key.revoked,
        last_used: key.last_used,
    }
}

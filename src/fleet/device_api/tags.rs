//! Lets a device read its tags, and set those that are its own: what its services ask for through the supervisor API
//! (docs/access.md, "Tags that devices set").

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Extension, RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::record::{Act, recorded};
use super::register::asked;
use super::{NotServed, device_of, key_of, key_required, not_written, read};
use crate::fleet::policy::{KeyHash, World};
use crate::fleet::records::{ActError, Records};
use crate::listen::{Rank, Visit};
use crate::model::DeviceUuid;

/// Most bytes of a change. All tags that a device may have take less.
const LARGEST_CHANGE: usize = 64 * 1024;

type Tags = BTreeMap<String, String>;

/// Answers `GET /v7/device_tag?$select=id,tag_key,value&$filter=device eq NUMBER` with the tags of the device that has the
/// key, if it has the number, and else with none. Refuses any other query.
pub(super) async fn get(
    State(records): State<Arc<Records>>,
    Extension(visit): Extension<Visit>,
    query: RawQuery,
    headers: HeaderMap,
) -> Response {
    let Some(key) = key_of(&headers, &query) else { return key_required() };
    let number = query.0.as_deref().and_then(|query| {
        let (select, filter) = asked(query)?;
        let number = filter.strip_prefix("device eq ")?.parse::<u64>().ok()?;
        (select == "id,tag_key,value").then_some(number)
    });
    let Some(number) = number else {
        let why = "only $select=id,tag_key,value&$filter=device eq NUMBER is answered here";
        return (StatusCode::BAD_REQUEST, why).into_response();
    };
    if device_of(&records, &key).await.is_none() {
        return key_required();
    }
    if let Err(busy) = visit.admit(Rank::Ordinary) {
        return NotServed::from(busy).into_response();
    }
    let world = records.world();
    let own = world.device_with_key(&key).filter(|device| device.number == number);
    let row = |(key, value): (&String, &String)| json!({ "id": id_of(key), "tag_key": key, "value": value });
    let rows: Vec<Value> = own.iter().flat_map(|device| &device.tags).map(row).collect();
    Json(json!({ "d": rows })).into_response()
}

/// Sets tags of the device that has the key. All of them, or none if one of them is refused.
pub(super) async fn patch(
    State(records): State<Arc<Records>>,
    Extension(visit): Extension<Visit>,
    query: RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let Some(key) = key_of(&headers, &query) else { return key_required() };
    drop((query, headers));
    let Some(uuid) = device_of(&records, &key).await else { return key_required() };
    let _reporting = match records.may_report(&uuid) {
        Ok(reporting) => reporting,
        Err(wait) => return NotServed::TooOften(wait).into_response(),
    };
    let body = match read(&visit, body, LARGEST_CHANGE).await {
        Ok(body) => body,
        Err(not_served) => return not_served.into_response(),
    };
    let Ok(given) = serde_json::from_slice::<BTreeMap<String, Tags>>(&body) else {
        return (StatusCode::BAD_REQUEST, "the body is {UUID: {KEY: VALUE}}").into_response();
    };
    drop(body);
    let mut given = given.into_iter();
    let (Some((of, tags)), None) = (given.next(), given.next()) else {
        return (StatusCode::BAD_REQUEST, "the body names one device").into_response();
    };
    if of != uuid.as_str() {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    if tags.is_empty() {
        return (StatusCode::BAD_REQUEST, "the body has no tag").into_response();
    }
    set(&records, uuid, key, tags, visit.client().map(|address| address.to_string())).await
}

/// Sets tags of a device, if one of them is another one than it has.
async fn set(
    records: &Arc<Records>,
    uuid: DeviceUuid,
    key: KeyHash,
    tags: Tags,
    from: Option<String>,
) -> Response {
    let found = {
        let world = records.world();
        world.device(&uuid).map(|device| world.tag_itself(device, tags.clone()))
    };
    match found {
        None => return key_required(),
        Some(Err(refusal)) => return (StatusCode::BAD_REQUEST, refusal.to_string()).into_response(),
        Some(Ok(changes)) if changes.is_empty() => return StatusCode::OK.into_response(),
        Some(Ok(_)) => {}
    }
    // Each change is a record of the audit trail.
    if let Err(wait) = records.may_tag(&uuid) {
        return NotServed::TooOften(wait).into_response();
    }
    let act = move |world: &World| {
        let Some(device) = world.device(&uuid).filter(|device| device.key == key) else {
            return Ok((false, Vec::new()));
        };
        let changes = world.tag_itself(device, tags)?;
        if changes.is_empty() {
            return Ok((true, changes));
        }
        let why = "a service of the device has set it";
        let act = Act { what: "tag a device", request: "PATCH /device/v3/tags".to_owned(), why, from };
        Ok((true, recorded(world, device, act, changes)))
    };
    match records.act_for_device(act).await {
        Ok(true) => StatusCode::OK.into_response(),
        Ok(false) => key_required(),
        Err(ActError::Refused(refusal)) => (StatusCode::BAD_REQUEST, refusal.to_string()).into_response(),
        Err(error) => not_written(&error),
    }
}

/// A number for a tag, as balena's API has one for each. It is made of the key, so that it stays the same.
fn id_of(key: &str) -> u64 {
    Sha256::digest(key.as_bytes()).iter().take(6).fold(0, |id, byte| id << 8 | u64::from(*byte))
}

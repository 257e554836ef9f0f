//! Registers devices, and answers their look-up of themselves (docs/dev/protocol.md, "Registration" and "Looking a device
//! up").

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Extension, Query, RawQuery, State};
use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    DELETED, LARGEST_REGISTRATION, NotServed, TAKES_NAMES, failed, key_of, key_required, not_written,
};
use crate::fleet::policy::{KeyHash, NewDevice, Refusal, World, check_device_key};
use crate::fleet::records::{ActError, Records};
use crate::fleet::{clock, names, secret};
use crate::listen::{Rank, Visit, from_json};
use crate::model::DeviceUuid;

/// The fields of a registration, after their types were checked.
struct Request {
    application: u64,
    uuid: DeviceUuid,
    device_type: String,
    key: String,
    name: Option<String>,
    /// Only Cotter's own agent asks for tags.
    tags: BTreeMap<String, String>,
}

/// The question of a device that is about to join.
#[derive(Debug, Deserialize)]
pub(super) struct Asked {
    fleet: Option<String>,
}

/// Says which fleet a provisioning key is for, to a device that is about to join, so that it finds a mistake before it
/// writes its settings. Changes nothing, and names no fleet but that of the key.
pub(super) async fn may_register(
    State(records): State<Arc<Records>>,
    Extension(visit): Extension<Visit>,
    asked: Query<Asked>,
    query: RawQuery,
    headers: HeaderMap,
) -> Response {
    let no = |status: StatusCode, why: String| {
        (status, TAKES_NAMES, axum::Json(json!({ "error": why }))).into_response()
    };
    let key = key_of(&headers, &query);
    if key.as_ref().is_none_or(|key| records.world().provisioning_key(key).is_none()) {
        records.refresh_for_unknown().await;
    }
    let world = records.world();
    let Some(key) = key.and_then(|key| world.provisioning_key(&key)) else {
        return no(StatusCode::UNAUTHORIZED, UNKNOWN_KEY.to_owned());
    };
    if let Err(busy) = visit.admit(Rank::Ordinary) {
        return NotServed::from(busy).into_response();
    }
    match world.admits(key, asked.0.fleet.as_deref(), clock::now()) {
        Ok(fleet) => {
            let target = fleet.target.and_then(|number| world.release(number));
            let answer = json!({
                "number": fleet.number,
                "name": fleet.name,
                "target": target.map(|release| release.commit.to_string()),
            });
            (StatusCode::OK, TAKES_NAMES, axum::Json(answer)).into_response()
        }
        Err(refusal @ Refusal::NotOfKey { .. }) => no(StatusCode::NOT_FOUND, refusal.to_string()),
        Err(refusal) => no(StatusCode::UNAUTHORIZED, refusal.to_string()),
    }
}

/// The answer to a device that is about to join with a key that registers nothing here.
const UNKNOWN_KEY: &str = "this is no provisioning key of this server; make one there with `cotter fleet provisioning-key create FLEET`";

pub(super) async fn register(
    State(records): State<Arc<Records>>,
    Extension(visit): Extension<Visit>,
    query: RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let Some(key) = key_of(&headers, &query) else { return key_required() };
    if records.world().provisioning_key(&key).is_none() {
        records.refresh_for_unknown().await;
    }
    let fleet = match fleet_of(&records.world(), &key) {
        Ok(fleet) => fleet,
        Err(refused) => return *refused,
    };
    let Some(_turn) = records.may_register(&key) else {
        return NotServed::TooOften(Duration::ZERO).into_response();
    };
    let body = match super::read(&visit, body, LARGEST_REGISTRATION).await {
        Ok(body) => body,
        Err(not_served) => return not_served.into_response(),
    };
    let Ok(request) = read(&body) else { return StatusCode::BAD_REQUEST.into_response() };
    if request.application != fleet {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let mut random = [0_u8; 4];
    if let Err(error) = getrandom::fill(&mut random) {
        return failed(&error);
    }
    let identity = (request.uuid.clone(), request.key.clone());
    let by = key.id().to_owned();
    let created = clock::now();
    let act = move |world: &World| {
        check_device_key(&request.key, request.uuid.as_str())?;
        let name =
            request.name.unwrap_or_else(|| names::device_name(random, |name| world.has_device_named(name)));
        let device_type = request.device_type;
        let (device, tags) = (secret::hash(&request.key), request.tags);
        world.register(NewDevice {
            uuid: request.uuid,
            name,
            device_type,
            key: device,
            by: key,
            created,
            tags,
        })
    };
    match records.act_for_device(act).await {
        Ok(number) => {
            tracing::info!(device = %identity.0, provisioning_key = by, "device registered");
            let answer = json!({ "id": number, "uuid": identity.0, "api_key": identity.1 });
            (StatusCode::CREATED, axum::Json(answer)).into_response()
        }
        Err(ActError::Refused(refusal)) => refused(&refusal),
        Err(error) => not_written(&error),
    }
}

/// Returns the number of the fleet in which a key registers devices, before the body is read: an ended key holds no place.
fn fleet_of(world: &World, key: &KeyHash) -> Result<u64, Box<Response>> {
    let answer = match world.provisioning_key(key).map(|key| world.admits(key, None, clock::now())) {
        Some(Ok(fleet)) => return Ok(fleet.number),
        Some(Err(refusal)) => refused(&refusal),
        None if world.device_with_key(key).is_some() => StatusCode::UNAUTHORIZED.into_response(),
        None => key_required(),
    };
    Err(Box::new(answer))
}

/// Returns the answer to a refused registration: the real API's, literally where an agent may check it, or ours if that has
/// none.
fn refused(refusal: &Refusal) -> Response {
    let error = || axum::Json(json!({ "error": refusal.to_string() }));
    #[expect(clippy::wildcard_enum_match_arm, reason = "what else can be refused here is bad input")]
    match refusal {
        Refusal::UuidTaken { .. } => (StatusCode::CONFLICT, "\"uuid\" must be unique.").into_response(),
        Refusal::KeyTaken => (StatusCode::CONFLICT, "\"key\" must be unique.").into_response(),
        Refusal::Barred { .. } => (StatusCode::FORBIDDEN, DELETED, error()).into_response(),
        Refusal::NoSuchKey { .. } => key_required(),
        Refusal::KeyEnded { .. } => (StatusCode::UNAUTHORIZED, error()).into_response(),
        Refusal::TooManyRegistrations { retry_after_s, .. } => {
            let wait = [(RETRY_AFTER, retry_after_s.to_string())];
            (StatusCode::TOO_MANY_REQUESTS, wait, error()).into_response()
        }
        other => (StatusCode::BAD_REQUEST, other.to_string()).into_response(),
    }
}

/// Parses the body. Ignores unknown fields, as the real API does.
fn read(body: &[u8]) -> Result<Request, ()> {
    let body: Map<String, Value> = serde_json::from_slice(body).map_err(|_| ())?;
    let text = |name: &str| match body.get(name) {
        None | Some(Value::Null) => Ok(None),
        // The policy checks the characters, and names the field.
        Some(Value::String(text)) if text.is_empty() || text.chars().count() > 255 => Err(()),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(()),
    };
    let application = match body.get("application") {
        Some(Value::String(digits)) if digits.chars().all(|c| c.is_ascii_digit()) => digits.parse().ok(),
        // A whole number with a point is accepted, too; so is a text of digits.
        Some(other) => from_json(other.to_string().as_bytes()).ok(),
        None => None,
    };
    for ignored in ["supervisor_version", "os_version", "os_variant", "mac_address"] {
        text(ignored)?;
    }
    let key = match text("api_key")? {
        Some(key) => key,
        None => secret::token().map_err(|_| ())?,
    };
    Ok(Request {
        application: application.ok_or(())?,
        uuid: DeviceUuid::parse(text("uuid")?.ok_or(())?).map_err(|_| ())?,
        device_type: text("device_type")?.ok_or(())?,
        key,
        name: text("device_name")?,
        tags: match body.get("tags") {
            None | Some(Value::Null) => BTreeMap::new(),
            Some(tags) => BTreeMap::deserialize(tags).map_err(|_| ())?,
        },
    })
}

/// Answers `GET /v7/device?$select=id&$filter=uuid eq '<uuid>'`, with which a device finds out, after a 409, that it was
/// registered itself. Refuses any other query.
pub(super) async fn own_id(
    State(records): State<Arc<Records>>,
    query: RawQuery,
    headers: HeaderMap,
) -> Response {
    let Some(key) = key_of(&headers, &query) else { return StatusCode::UNAUTHORIZED.into_response() };
    let RawQuery(query) = query;
    let Some(uuid) = query.as_deref().and_then(asked_uuid) else {
        let why = "only $select=id&$filter=uuid eq '<uuid>' is answered here";
        return (StatusCode::BAD_REQUEST, why).into_response();
    };
    let world = records.world();
    let own = world.device_with_key(&key).filter(|device| device.uuid.as_str() == uuid);
    let rows: Vec<Value> = own.map(|device| json!({ "id": device.number })).into_iter().collect();
    axum::Json(json!({ "d": rows })).into_response()
}

fn asked_uuid(query: &str) -> Option<String> {
    let (select, filter) = asked(query)?;
    let uuid = filter.strip_prefix("uuid eq '")?.strip_suffix('\'')?;
    (select == "id").then(|| uuid.to_owned())
}

/// Returns `$select` and `$filter` of a query that has nothing else but a key.
pub(super) fn asked(query: &str) -> Option<(String, String)> {
    let query = percent_decoded(query);
    let mut select = None;
    let mut filter = None;
    for pair in query.split('&') {
        match pair.split_once('=')? {
            ("$select", value) => select = Some(value),
            ("$filter", value) => filter = Some(value),
            ("apikey", _) => {}
            _ => return None,
        }
    }
    Some((select?.to_owned(), filter?.to_owned()))
}

/// Decodes `%20` and `+`. Anything that is not an escape stays.
fn percent_decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let escaped = (byte == b'%')
            .then(|| bytes.get(at + 1..at + 3))
            .flatten()
            .and_then(|hex| u8::from_str_radix(str::from_utf8(hex).ok()?, 16).ok());
        plain.push(match escaped {
            Some(escaped) => escaped,
            None if byte == b'+' => b' ',
            None => byte,
        });
        at += if escaped.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&plain).into_owned()
}

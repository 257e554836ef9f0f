//! Serves targets and stores reports (docs/dev/protocol.md, "Target state" and "Reports: answers").

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Extension, Path, RawQuery, State};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::Value;

use super::{DELETED, LARGEST_REPORT, NotServed, TAKES_ACCOUNTS, failed, key_of, key_required, read};
use crate::fleet::policy::{Reported, World};
use crate::fleet::records::{ActError, Records, Target};
use crate::fleet::{clock, render, report};
use crate::listen::{Rank, Received, Visit};
use crate::model::DeviceUuid;

/// Serves the target of a device. All devices repeat this request, so an unchanged target costs two hashes and a
/// few look-ups.
pub(super) async fn get(
    State(records): State<Arc<Records>>,
    Extension(visit): Extension<Visit>,
    Path(uuid): Path<String>,
    query: RawQuery,
    headers: HeaderMap,
) -> Response {
    let world = records.world();
    let uuid = DeviceUuid::parse(&uuid).ok();
    let Some(device) = uuid.as_ref().and_then(|uuid| world.device(uuid)) else {
        // An unknown or deleted device gets "no change" with any key, so that its containers keep running.
        let bar = uuid.as_ref().and_then(|uuid| world.bar(uuid));
        let is_it = bar.is_some_and(|bar| key_of(&headers, &query).as_ref() == Some(&bar.device.key));
        let unchanged = StatusCode::NOT_MODIFIED;
        return if is_it { (unchanged, DELETED).into_response() } else { unchanged.into_response() };
    };
    if key_of(&headers, &query).as_ref() != Some(&device.key) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    if let Err(busy) = visit.admit(Rank::Ordinary) {
        return NotServed::from(busy).into_response();
    }
    let knows = headers.get(IF_NONE_MATCH).and_then(|tags| tags.to_str().ok());
    let target = records.target(device, &world, |etag| knows.is_some_and(|tags| render::is_same(tags, etag)));
    records.saw(&device.uuid, clock::now());
    match target {
        Ok(Target::Same { etag }) => (StatusCode::NOT_MODIFIED, [(ETAG, etag)]).into_response(),
        Ok(Target::New { etag, body, length }) => {
            let head = [(CONTENT_TYPE, "application/json; charset=utf-8")];
            ([(ETAG, etag)], head, [(CONTENT_LENGTH, length)], body).into_response()
        }
        Ok(Target::TooOften { wait }) => NotServed::TooOften(wait).into_response(),
        Err(error) => failed(&error),
    }
}

/// Stores a report. The table in docs/dev/protocol.md, "Reports: answers", has the answers.
pub(super) async fn patch(
    State(records): State<Arc<Records>>,
    Extension(visit): Extension<Visit>,
    query: RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let Some(key) = key_of(&headers, &query) else { return key_required() };
    let uuid = {
        let world = records.world();
        match world.device_with_key(&key) {
            Some(device) => device.uuid.clone(),
            None if world.provisioning_key(&key).is_some() => {
                return StatusCode::UNAUTHORIZED.into_response();
            }
            None => return key_required(),
        }
    };
    if !is_json(&headers) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let reporting = match records.may_report(&uuid) {
        Ok(reporting) => reporting,
        Err(wait) => return NotServed::TooOften(wait).into_response(),
    };
    let body = match read(&visit, body, LARGEST_REPORT).await {
        Ok(body) => body,
        Err(not_served) => return not_served.into_response(),
    };
    let answer = store(&records, uuid, body).await;
    drop(reporting);
    answer
}

/// Stores a report. Only one is parsed at a time, because a parsed report takes many times its size.
async fn store(records: &Arc<Records>, uuid: DeviceUuid, body: Received) -> Response {
    let at = clock::now();
    let act = move |world: &World| {
        let Ok(body) = serde_json::from_slice::<Value>(&body) else {
            return Ok((Err(report::BadReport::Malformed), Vec::new()));
        };
        let Some(device) = world.device(&uuid) else {
            return Ok((Err(report::BadReport::NotYours), Vec::new()));
        };
        let reported = match report::merge(world, device, &body) {
            Ok(reported) => reported,
            Err(bad) => return Ok((Err(bad), Vec::new())),
        };
        if reported == *world.reported(&uuid) {
            return Ok((Ok(()), Vec::new()));
        }
        Ok((Ok(()), world.report(device, Reported { at: Some(at), ..reported })))
    };
    match records.act_for_device(act).await {
        Ok(Ok(())) => (StatusCode::OK, TAKES_ACCOUNTS).into_response(),
        Ok(Err(report::BadReport::Malformed)) => StatusCode::BAD_REQUEST.into_response(),
        Ok(Err(report::BadReport::NotYours)) | Err(ActError::Refused(_)) => {
            StatusCode::UNAUTHORIZED.into_response()
        }
        Err(error) => failed(&error),
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}

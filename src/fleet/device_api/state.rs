//! A device asks for its target, and tells its state (protocol.md 10.3, 10.4).

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, RawQuery, State};
use axum::http::header::{CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::Value;

use super::{DELETED, failed, key_of, key_required};
use crate::fleet::policy::{Reported, World};
use crate::fleet::records::{ActError, Records};
use crate::fleet::{clock, render, report};
use crate::model::DeviceUuid;

/// The resolved target. This is the request that a whole fleet repeats: without news it
/// costs one hash and three look-ups.
pub(super) async fn get(
    State(records): State<Arc<Records>>,
    Path(uuid): Path<String>,
    query: RawQuery,
    headers: HeaderMap,
) -> Response {
    let world = records.world();
    let uuid = DeviceUuid::parse(&uuid).ok();
    let Some(device) = uuid.as_ref().and_then(|uuid| world.device(uuid)) else {
        // A device that is unknown or deleted hears "no change", with whatever key: its
        // containers are not ours to stop by forgetting it.
        let bar = uuid.as_ref().and_then(|uuid| world.bar(uuid));
        let is_it = bar.is_some_and(|bar| key_of(&headers, &query).as_ref() == Some(&bar.device.key));
        let unchanged = StatusCode::NOT_MODIFIED;
        return if is_it { (unchanged, DELETED).into_response() } else { unchanged.into_response() };
    };
    if key_of(&headers, &query).as_ref() != Some(&device.key) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let rendered = match records.target_state(device, &world) {
        Ok(rendered) => rendered,
        Err(error) => return failed(&error),
    };
    records.saw(&device.uuid, clock::now());
    let etag = [(ETAG, rendered.etag.clone())];
    let knows = headers.get(IF_NONE_MATCH).and_then(|tags| tags.to_str().ok());
    if knows.is_some_and(|tags| render::is_same(tags, &rendered.etag)) {
        return (StatusCode::NOT_MODIFIED, etag).into_response();
    }
    (etag, [(CONTENT_TYPE, "application/json; charset=utf-8")], rendered.body.clone()).into_response()
}

/// The report. What it answers to what is in the table of protocol.md 10.4.
pub(super) async fn patch(
    State(records): State<Arc<Records>>,
    query: RawQuery,
    headers: HeaderMap,
    body: Bytes,
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
    let Ok(body) = serde_json::from_slice::<Value>(&body) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let at = clock::now();
    let act = move |world: &World| {
        let Some(device) = world.device(&uuid) else {
            return Ok((Err(report::BadReport::NotYours), Vec::new()));
        };
        let reported = match report::merge(world, device, &body) {
            Ok(reported) => reported,
            Err(bad) => return Ok((Err(bad), Vec::new())),
        };
        if reported == device.reported {
            return Ok((Ok(()), Vec::new()));
        }
        Ok((Ok(()), world.report(device, Reported { at: Some(at), ..reported })))
    };
    match records.act(act).await {
        Ok(Ok(())) => StatusCode::OK.into_response(),
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

//! Serves targets and stores reports (docs/dev/protocol.md, "Target state" and "Reports: answers").

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Extension, Path, RawQuery, State};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use tokio::time::Instant;

use super::{
    DELETED, LARGEST_REPORT, NotServed, TAKES_ACCOUNTS, device_of, failed, key_of, key_required, logs,
    not_written, prefer, read,
};
use crate::fleet::parked::{Place, Woken};
use crate::fleet::policy::{KeyHash, Reported, World};
use crate::fleet::records::{ActError, Records, Target};
use crate::fleet::{clock, render, report};
use crate::listen::{Rank, Received, Visit};
use crate::model::DeviceUuid;

/// The etag of a device without a target while the server is paused. A 304 without one would mean that it was deleted.
const PAUSED: &str = "\"paused\"";

/// What a poll asks for. Kept while it waits, so it has nothing else of the request.
struct Poll {
    uuid: Option<DeviceUuid>,
    key: Option<KeyHash>,
    /// The etags that the device has.
    knows: Option<String>,
}

/// The result of a look at the records.
enum Looked {
    /// The device, which is in this fleet, has its target already. The response says so.
    Same { fleet: u64, response: Response },
    /// Any other response.
    Answered(Response),
}

/// Serves the target of a device. With `Prefer: wait=N` the answer to a device that has its target already comes when that
/// changes, or after N seconds.
pub(super) async fn get(
    State(records): State<Arc<Records>>,
    visit: Extension<Visit>,
    Path(uuid): Path<String>,
    query: RawQuery,
    headers: HeaderMap,
) -> Response {
    let uuid = DeviceUuid::parse(&uuid).ok();
    let response = poll(&records, visit, uuid.clone(), query, headers).await;
    match uuid {
        // It is said at the end of a wait, because it may have changed meanwhile.
        Some(uuid) if matches!(response.status(), StatusCode::OK | StatusCode::NOT_MODIFIED) => {
            (logs::wanted(&records, &uuid), response).into_response()
        }
        Some(_) | None => response,
    }
}

async fn poll(
    records: &Arc<Records>,
    Extension(visit): Extension<Visit>,
    uuid: Option<DeviceUuid>,
    query: RawQuery,
    headers: HeaderMap,
) -> Response {
    let knows = headers.get(IF_NONE_MATCH).and_then(|tags| tags.to_str().ok()).map(str::to_owned);
    let poll = Poll { uuid, key: key_of(&headers, &query), knows };
    if let Some(response) = poll.catch_up(records).await {
        return response;
    }
    let Some(seconds) = prefer::wait(&headers) else { return poll.look(records, &visit).into_response() };
    drop((query, headers));
    let deadline = Instant::now() + Duration::from_secs(seconds);
    let applied = |response: Response| ([prefer::applied(seconds)], response).into_response();
    let mut place: Option<(Place, u64)> = None;
    loop {
        let (fleet, response) = match poll.look(records, &visit) {
            Looked::Same { fleet, response } => (fleet, response),
            Looked::Answered(response) if response.status() == StatusCode::OK => return applied(response),
            Looked::Answered(response) => return response,
        };
        if let Some((place, _)) = place.take().filter(|(_, of)| *of == fleet) {
            drop(response);
            if place.wait(deadline).await == Woken::Over {
                return applied(poll.look(records, &visit).into_response());
            }
            continue;
        }
        // It takes a place and then looks again, so that it misses no change.
        let entered = poll.uuid.as_ref().and_then(|uuid| records.parked().enter(uuid, fleet));
        let Some(entered) = entered else { return response };
        place = Some((entered, fleet));
    }
}

impl Poll {
    /// Takes over what other servers have written, if this one may be behind. Returns the response if it cannot.
    async fn catch_up(&self, records: &Records) -> Option<Response> {
        let world = records.world();
        world.position()?;
        let Some(device) = self.uuid.as_ref().and_then(|uuid| world.device(uuid)) else {
            records.refresh_for_unknown().await;
            return None;
        };
        if self.key.as_ref() != Some(&device.key) || !self.is_ahead_of(&world) {
            return None;
        }
        drop(world);
        if !records.refresh().await {
            let etag = self.knows.clone().unwrap_or_default();
            return Some((StatusCode::NOT_MODIFIED, [(ETAG, etag)]).into_response());
        }
        None
    }

    /// Returns whether the device has its target from newer records, which other servers have.
    fn is_ahead_of(&self, world: &World) -> bool {
        let Some(own) = world.position() else { return false };
        self.knows.as_deref().and_then(render::position).is_some_and(|position| position > own)
    }

    /// Answers from the records as they are. All devices repeat this, so an unchanged target costs two hashes and a few
    /// look-ups.
    fn look(&self, records: &Records, visit: &Visit) -> Looked {
        let world = records.world();
        let Some(device) = self.uuid.as_ref().and_then(|uuid| world.device(uuid)) else {
            // An unknown or deleted device gets "no change" with any key, so that its containers keep running.
            let bar = self.uuid.as_ref().and_then(|uuid| world.bar(uuid));
            let is_it = bar.is_some_and(|bar| self.key.as_ref() == Some(&bar.device.key));
            let unchanged = StatusCode::NOT_MODIFIED;
            return Looked::Answered(match is_it {
                true => (unchanged, DELETED).into_response(),
                false => unchanged.into_response(),
            });
        };
        if self.key.as_ref() != Some(&device.key) {
            return Looked::Answered(StatusCode::UNAUTHORIZED.into_response());
        }
        if let Err(busy) = visit.admit(Rank::Ordinary) {
            return Looked::Answered(NotServed::from(busy).into_response());
        }
        if records.is_paused() {
            records.saw(&device.uuid, clock::now());
            let has = self.knows.clone().unwrap_or_else(|| PAUSED.to_owned());
            return Looked::Answered((StatusCode::NOT_MODIFIED, [(ETAG, has)]).into_response());
        }
        // If the newest records are older than what the device has, the database was restored from a backup. Then the device
        // gets its target in any case, with an etag of now.
        let is_restored = self.is_ahead_of(&world);
        let knows =
            |etag: &str| !is_restored && self.knows.as_ref().is_some_and(|tags| render::is_same(tags, etag));
        let target = records.target(device, &world, knows);
        records.saw(&device.uuid, clock::now());
        Looked::Answered(match target {
            Ok(Target::Same { etag }) => {
                let response = (StatusCode::NOT_MODIFIED, [(ETAG, etag)]).into_response();
                return Looked::Same { fleet: device.fleet, response };
            }
            Ok(Target::New { etag, body, length }) => {
                let head = [(CONTENT_TYPE, "application/json; charset=utf-8")];
                ([(ETAG, etag)], head, [(CONTENT_LENGTH, length)], body).into_response()
            }
            Ok(Target::TooOften { wait }) => NotServed::TooOften(wait).into_response(),
            Err(error) => failed(&error),
        })
    }
}

impl IntoResponse for Looked {
    fn into_response(self) -> Response {
        match self {
            Self::Same { response, .. } | Self::Answered(response) => response,
        }
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
    let Some(uuid) = device_of(&records, &key).await else {
        if records.world().provisioning_key(&key).is_some() {
            return StatusCode::UNAUTHORIZED.into_response();
        }
        return key_required();
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
        Err(error) => not_written(&error),
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}

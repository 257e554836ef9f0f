//! `/api/v1/audit`: the audit trail.

use axum::Json;
use jiff::Timestamp;
use serde::Deserialize;

use super::answer::{ApiError, Params};
use super::desk::Desk;
use super::users::name_of;
use crate::fleet::access::{Entry, Outcome, Which};
use crate::fleet::policy::World;
use crate::fleet::records::ActError;
use crate::wire::operator_api::access::{AuditPage, AuditView, ThingView};

/// Records on a page where no number is given, and at most.
const USUAL: usize = 100;
const MOST: usize = 1000;

/// Which records are read.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    fleet: Option<String>,
    by: Option<String>,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    limit: Option<usize>,
    /// `next` of the page before.
    cursor: Option<String>,
}

pub(super) async fn list(desk: Desk, Params(wanted): Params<Wanted>) -> Result<Json<AuditPage>, ApiError> {
    let Wanted { fleet, by, since, until, limit, cursor } = wanted;
    let most = limit.unwrap_or(USUAL);
    if !(1..=MOST).contains(&most) {
        return Err(ApiError::bad_request(format!(
            "limit = {most} is not accepted: it must be from 1 to {MOST}"
        )));
    }
    let below = match cursor {
        None => u64::MAX,
        Some(cursor) => cursor.parse().map_err(|_| {
            ApiError::bad_request("this cursor is not accepted: give `next` of the page before, unchanged")
        })?,
    };
    let fleet = fleet.map(|fleet| desk.world().find_fleet(&fleet).map(|fleet| fleet.number)).transpose()?;
    let which = Which { fleet, by, since, until };
    let reading = desk.clone();
    let page = tokio::task::spawn_blocking(move || reading.audit_page(&which, below, most)).await;
    let page = page.unwrap_or(Err(ActError::Stopping))?;
    let world = desk.world();
    Ok(Json(AuditPage {
        entries: page.entries.into_iter().map(|entry| view(&world, entry)).collect(),
        next: page.below.map(|below| below.to_string()),
    }))
}

fn view(world: &World, entry: Entry) -> AuditView {
    let things = entry.things.into_iter();
    let (result, status, code, message) = match entry.outcome {
        Outcome::Done => ("done", None, None, None),
        Outcome::Refused { status, code, message } => ("refused", Some(status), Some(code), Some(message)),
    };
    AuditView {
        number: entry.number,
        at: entry.at,
        user: entry.by.user,
        token: entry.by.token,
        token_id: entry.by.id,
        from: entry.from,
        what: entry.what,
        request: entry.request,
        things: things.map(|thing| ThingView { kind: thing.kind, id: thing.id, name: thing.name }).collect(),
        count: entry.count,
        fleets: entry.fleets.into_iter().map(|fleet| name_of(world, fleet)).collect(),
        why: entry.why,
        result: result.to_owned(),
        status,
        code,
        message,
    }
}

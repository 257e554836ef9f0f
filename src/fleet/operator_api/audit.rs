//! `/api/v1/audit`: the audit trail.

use axum::response::Response;
use jiff::Timestamp;
use serde::Deserialize;

use super::answer::{ApiError, Params};
use super::desk::Desk;
use super::pages::{self, Page};
use super::users::name_of;
use crate::fleet::access::{Entry, Outcome, Which};
use crate::fleet::policy::World;
use crate::wire::operator_api::access::{AuditView, ThingView};

/// Which records are read.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    fleet: Option<String>,
    by: Option<String>,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    limit: Option<usize>,
    /// From the header of the page before.
    cursor: Option<String>,
}

pub(super) async fn list(desk: Desk, Params(wanted): Params<Wanted>) -> Result<Response, ApiError> {
    let Wanted { fleet, by, since, until, limit, cursor } = wanted;
    let most = pages::checked(limit)?;
    let below = pages::cursor(cursor.as_deref(), |cursor| cursor.parse().ok())?.unwrap_or(u64::MAX);
    pages::page(&desk, move |desk, world| {
        let fleet = fleet.map(|fleet| world.find_fleet(&fleet).map(|fleet| fleet.number)).transpose()?;
        let found = desk.audit_page(&Which { fleet, by, since, until }, below, most)?;
        let rows = found.entries.into_iter().map(|entry| view(world, entry)).collect();
        Ok(Page::with(rows, found.below.map(|below| below.to_string())))
    })
    .await
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

//! `/api/v1/audit`: the audit trail.

use axum::response::Response;
use jiff::Timestamp;
use serde::Deserialize;

use super::answer::{ApiError, Params};
use super::desk::Desk;
use super::pages::{self, Page};
use super::users::name_of;
use crate::fleet::access::{DEVICE, Entry, FIRST, Outcome, RESTORER, ROLLOUT, Which};
use crate::fleet::policy::World;
use crate::model::DeviceUuid;
use crate::wire::operator_api::Code;
use crate::wire::operator_api::access::{AuditView, ThingView};

/// Which records are read.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    fleet: Option<String>,
    by: Option<String>,
    device: Option<String>,
    what: Option<String>,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    limit: Option<usize>,
    /// From the header of the page before.
    cursor: Option<String>,
}

pub(super) async fn list(desk: Desk, Params(wanted): Params<Wanted>) -> Result<Response, ApiError> {
    let Wanted { fleet, by, device, what, since, until, limit, cursor } = wanted;
    let most = pages::checked(limit)?;
    let below = pages::cursor(cursor.as_deref(), |cursor| cursor.parse().ok())?.unwrap_or(u64::MAX);
    pages::page(&desk, move |desk, world| {
        let fleet = fleet.map(|fleet| world.find_fleet(&fleet).map(|fleet| fleet.number)).transpose()?;
        // A token for some fleets must not learn which users there are.
        if let Some(by) = by.as_ref().filter(|by| desk.reaches_all() && !is_known(world, by)) {
            let remedy = "`cotter user list` and `cotter token list` show them";
            let message = format!("no user and no token is called {by:?}; {remedy}");
            return Err(ApiError::new(Code::NotFound, message));
        }
        let device = device.map(|device| uuid_of(world, device)).transpose()?;
        let found = desk.audit_page(&Which { fleet, by, device, what, since, until }, below, most)?;
        let rows = found.entries.into_iter().map(|entry| view(world, entry)).collect();
        Ok(Page::with(rows, found.below.map(|below| below.to_string())))
    })
    .await
}

/// Returns whether a user, a token or the id of a token is called so. None of them is ever deleted.
fn is_known(world: &World, by: &str) -> bool {
    let mut tokens = world.accounts().tokens_by_age().into_iter();
    by == FIRST
        || [RESTORER, ROLLOUT, DEVICE].contains(&by)
        || by.strip_prefix(DEVICE).is_some_and(|device| device.starts_with(' '))
        || by.len() == 12 && by.bytes().all(|digit| digit.is_ascii_hexdigit())
        || world.accounts().users().any(|user| user.name == by)
        || tokens.any(|token| token.name == by)
}

/// Returns the uuid of a device. One that was deleted, and allowed again, is only in the trail, by its uuid.
fn uuid_of(world: &World, device: String) -> Result<String, ApiError> {
    let known = world.find_device(&device).map(|device| device.uuid.to_string());
    let barred = || world.find_bar(&device).ok().map(|bar| bar.device.uuid.to_string());
    let full = || DeviceUuid::parse(&device).ok().map(|uuid| uuid.to_string());
    known.or_else(|refusal| barred().or_else(full).ok_or(refusal)).map_err(ApiError::from)
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
        details: entry.details,
        why: entry.why,
        result: result.to_owned(),
        status,
        code,
        message,
    }
}

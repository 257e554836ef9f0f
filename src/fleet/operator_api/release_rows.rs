//! A page of a fleet's releases, the newest first, for the dashboard. Its route is not below `/api/v1`: only the dashboard
//! reaches it, inside the process.

use axum::response::Response;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::answer::{ApiError, Params};
use super::desk::Desk;
use super::pages;
use super::releases::view;
use crate::fleet::tally::Uses;
use crate::wire::operator_api::ReleaseView;

/// Maximum number of rows of a page, and how many there are where a request does not say it.
const MOST: usize = 200;
const USUAL: usize = 50;

/// Which page.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WhichReleases {
    fleet: String,
    /// A cursor of the page before.
    after: Option<String>,
    limit: Option<usize>,
}

/// A page of a fleet's releases.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::fleet) struct ReleaseRows {
    /// How many releases the fleet has.
    pub(in crate::fleet) releases: usize,
    /// Number of the first row, from 1; 0 if there is none.
    pub(in crate::fleet) first: usize,
    pub(in crate::fleet) rows: Vec<ReleaseView>,
    /// Cursors of the pages before and after; an empty one is that of the first page.
    pub(in crate::fleet) before: Option<String>,
    pub(in crate::fleet) next: Option<String>,
}

/// The place of a release in the order.
type Key = (Timestamp, u64);

pub(super) async fn list(
    records: Desk,
    Params(WhichReleases { fleet, after, limit }): Params<WhichReleases>,
) -> Result<Response, ApiError> {
    let after = pages::cursor(after.as_deref(), parsed)?;
    let limit = limit.unwrap_or(USUAL).clamp(1, MOST);
    pages::beside(&records, move |_, world| {
        let fleet = world.find_fleet(&fleet)?;
        let mut keys: Vec<Key> = world
            .releases_of(fleet.number)
            .map(|release| (release.start_timestamp, release.number))
            .collect();
        keys.sort_unstable_by(|a, b| b.cmp(a));
        let begin = after.map_or(0, |after| keys.partition_point(|key| *key >= after));
        let end = keys.len().min(begin + limit);
        let uses = Uses::of(world);
        let releases = keys[begin..end].iter().filter_map(|(_, number)| world.release(*number));
        Ok(ReleaseRows {
            releases: keys.len(),
            first: if begin < end { begin + 1 } else { 0 },
            rows: releases.map(|release| view(world, &uses, release)).collect(),
            before: (begin > 0).then(|| match begin.checked_sub(limit + 1) {
                Some(last) => cursor(keys[last]),
                None => String::new(),
            }),
            next: (end < keys.len()).then(|| cursor(keys[end - 1])),
        })
    })
    .await
}

fn cursor((start, number): Key) -> String {
    format!("{start}~{number}")
}

fn parsed(text: &str) -> Option<Key> {
    let (start, number) = text.split_once('~')?;
    Some((start.parse().ok()?, number.parse().ok()?))
}

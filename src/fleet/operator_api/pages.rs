//! Long lists: made from a snapshot on a thread of its own, so that they hold up no poll, and answered page by page.

use axum::http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use super::answer::ApiError;
use super::desk::{Desk, Seen};
use super::etag::{self, ETag};
use crate::wire::operator_api::{Code, LONGEST_PAGE, NEXT_PAGE, USUAL_PAGE};

/// Which page of a list without filters is asked for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WhichPage {
    pub(super) limit: Option<usize>,
    pub(super) cursor: Option<String>,
}

/// A page: its rows, and the cursor of the last one if there are more.
#[derive(Debug)]
pub(super) struct Page<T> {
    rows: Vec<T>,
    next: Option<String>,
    etag: Option<ETag>,
}

impl<T> Page<T> {
    /// A page whose rows are chosen already.
    pub(super) fn with(rows: Vec<T>, next: Option<String>) -> Self {
        Self { rows, next, etag: None }
    }

    /// With the ETag of all that the list may show, if that is one thing.
    pub(super) fn tagged(mut self, etag: Option<ETag>) -> Self {
        self.etag = etag;
        self
    }

    /// Takes a page of `rows`, which begin after the cursor. Each row comes with its own cursor.
    pub(super) fn of(
        mut rows: impl Iterator<Item = (String, T)>,
        limit: Option<usize>,
    ) -> Result<Self, ApiError> {
        let limit = checked(limit)?;
        let mut page = Self { rows: Vec::new(), next: None, etag: None };
        let mut last = None;
        for (cursor, row) in rows.by_ref().take(limit) {
            page.rows.push(row);
            last = Some(cursor);
        }
        page.next = last.filter(|_| rows.next().is_some());
        Ok(page)
    }
}

/// Returns the number of rows of a page.
pub(super) fn checked(limit: Option<usize>) -> Result<usize, ApiError> {
    let limit = limit.unwrap_or(USUAL_PAGE);
    if (1..=LONGEST_PAGE).contains(&limit) {
        return Ok(limit);
    }
    let remedy = format!("a page has 1 to {LONGEST_PAGE} rows");
    Err(ApiError::with_remedy(Code::BadRequest, format_args!("limit = {limit} is out of range"), remedy))
}

/// Reads the cursor of a request.
pub(super) fn cursor<T>(
    given: Option<&str>,
    parse: impl FnOnce(&str) -> Option<T>,
) -> Result<Option<T>, ApiError> {
    // An empty one is the beginning.
    let Some(given) = given.filter(|given| !given.is_empty()) else { return Ok(None) };
    let shown: String = given.chars().take(64).collect();
    parse(given).map(Some).ok_or_else(|| {
        let where_from = format!("take it from the header {NEXT_PAGE} of the page before");
        let wrong = format!("cursor = {shown:?} is not a cursor of this list");
        ApiError::with_remedy(Code::BadRequest, wrong, where_from)
    })
}

/// Makes an answer from a snapshot, beside the threads that answer polls.
pub(super) async fn beside<T: Serialize>(
    records: &Desk,
    make: impl FnOnce(&Desk, &Seen) -> Result<T, ApiError> + Send + 'static,
) -> Result<Response, ApiError> {
    answer(records, |records, world| json(&make(records, world)?)).await
}

/// As [`beside`], for a page.
pub(super) async fn page<T: Serialize>(
    records: &Desk,
    make: impl FnOnce(&Desk, &Seen) -> Result<Page<T>, ApiError> + Send + 'static,
) -> Result<Response, ApiError> {
    answer(records, |records, world| {
        let Page { rows, next, etag } = make(records, world)?;
        if let Some(etag) = &etag
            && !records.is_news(etag)?
        {
            return Ok(etag::not_modified(etag));
        }
        let mut response = json(&rows)?;
        if let Some(next) = next.and_then(|next| HeaderValue::from_str(&next).ok()) {
            response.headers_mut().insert(HeaderName::from_static(NEXT_PAGE), next);
        }
        Ok(match etag {
            Some(etag) => etag::with(&etag, response),
            None => response,
        })
    })
    .await
}

/// As [`beside`], for an answer that is ready.
pub(super) async fn answer(
    records: &Desk,
    make: impl FnOnce(&Desk, &Seen) -> Result<Response, ApiError> + Send + 'static,
) -> Result<Response, ApiError> {
    let records = records.clone();
    let made = tokio::task::spawn_blocking(move || make(&records, &records.world())).await;
    made.map_err(|error| ApiError::failed(&error))?
}

fn json(value: &impl Serialize) -> Result<Response, ApiError> {
    let json = serde_json::to_vec(value).map_err(|error| ApiError::failed(&error))?;
    Ok(([(CONTENT_TYPE, "application/json")], json).into_response())
}

//! The reason of a request, for the audit trail.

use axum::http::HeaderMap;

use super::answer::ApiError;
use crate::model::text::is_one_line;

/// The header with the reason of a request.
const REASON: &str = "cotter-reason";

/// Maximum number of characters of a reason.
const LONGEST: usize = 500;

/// Returns the reason of a request with these headers, if it has one.
///
/// # Errors
///
/// If it is not accepted.
pub(super) fn of(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    headers.get(REASON).map(|why| checked(why.as_bytes())).transpose()
}

fn checked(given: &[u8]) -> Result<String, ApiError> {
    let given = std::str::from_utf8(given).unwrap_or_default().trim();
    let is_good = (1..=LONGEST).contains(&given.chars().count()) && is_one_line(given);
    is_good.then(|| given.to_owned()).ok_or_else(|| {
        let accepts = "the header Cotter-Reason has 1 to 500 visible characters in UTF-8, on one line";
        ApiError::bad_request(format!("the reason is not accepted: {accepts}"))
    })
}

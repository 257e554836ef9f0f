//! The audit trail as a file: the records that the page's filter selects, one JSON document a line, the newest first.

use std::io;

use axum::body::{Body, Bytes};
use axum::extract::Extension;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use futures_util::stream;

use super::audit::given;
use super::fields::{Fields, query};
use super::site::{Got, Visitor};
use super::trouble::Trouble;
use crate::fleet::access::AccessRefusal;
use crate::fleet::clock;
use crate::model::text;
use crate::wire::operator_api::access::AuditView;

/// Maximum number of records of a file.
pub(super) const MOST: usize = 100_000;

/// Records that are read at once.
const ROWS: usize = 500;

/// A file that is being sent.
struct Export {
    visitor: Visitor,
    /// The filter as fields of a query.
    filter: Vec<(&'static str, String)>,
    /// What is sent next.
    page: Got<Vec<AuditView>>,
    left: usize,
}

pub(super) async fn download(
    Extension(visitor): Extension<Visitor>,
    Extension(fields): Extension<Fields>,
) -> Result<Response, Trouble> {
    let filter = given(&fields);
    // A filter that is refused is a page, and no file.
    let page = read(&visitor, &filter, "", MOST).await?;
    let name = format!("cotter-audit-{}.jsonl", clock::now().strftime("%Y-%m-%dT%H%M%SZ"));
    let export = Export { visitor, filter, page, left: MOST };
    let pieces = stream::unfold(Some(export), async |export| match export?.next().await {
        Ok((bytes, rest)) => Some((Ok(bytes), rest)),
        // The connection is cut, so that a part is not taken for the file.
        Err(trouble) => Some((Err(io::Error::other(trouble.failure.message)), None)),
    });
    let disposition = format!("attachment; filename=\"{name}\"");
    let head = [(CONTENT_TYPE, "application/jsonl".to_owned()), (CONTENT_DISPOSITION, disposition)];
    Ok((head, Body::from_stream(Box::pin(pieces))).into_response())
}

/// Reads a page of the trail.
async fn read(
    visitor: &Visitor,
    filter: &[(&'static str, String)],
    cursor: &str,
    left: usize,
) -> Result<Got<Vec<AuditView>>, Trouble> {
    let limit = ROWS.min(left).to_string();
    let asked = filter.iter().map(|(name, value)| (*name, value.as_str()));
    let asked = query(asked.chain([("limit", limit.as_str()), ("cursor", cursor)]));
    visitor.get::<Vec<AuditView>>(&format!("/audit?{asked}")).await
}

impl Export {
    /// Returns the lines of this page, and what follows if there is more.
    async fn next(mut self) -> Result<(Bytes, Option<Self>), Trouble> {
        let mut lines = String::new();
        for entry in &self.page.value {
            let line = serde_json::to_string(entry).map_err(|error| Trouble::internal(error.to_string()))?;
            lines.push_str(&text::json(&line));
            lines.push('\n');
        }
        self.left = self.left.saturating_sub(self.page.value.len());
        let Some(cursor) = self.page.next.take().filter(|_| self.left > 0) else {
            return Ok((lines.into(), None));
        };
        // The token may have ended since.
        let ended = |error: AccessRefusal| Trouble::internal(error.to_string());
        self.visitor.caller.check(&self.visitor.site.gate.records().world()).map_err(ended)?;
        self.page = read(&self.visitor, &self.filter, &cursor, self.left).await?;
        Ok((lines.into(), Some(self)))
    }
}

//! Reads the audit trail from the database, over a connection of its own.

use std::sync::Mutex;

use jiff::Timestamp;
use serde::Deserialize;

use super::schema::{self, TO_WRITE};
use crate::fleet::access::{Entry, Scope, Which};
use crate::fleet::audit_log::{Filling, Page};
use crate::fleet::database_error::DatabaseError;
use crate::fleet::locks::locked;
use crate::fleet::storage::Trail;
use crate::fleet::store_error::StoreError;
use crate::postgres::{Address, Row, Session, Value};

/// Rows that are read at once.
const AT_ONCE: i64 = 1000;

/// The audit trail in the database.
pub(super) struct DatabaseTrail {
    address: Address,
    session: Mutex<Option<Session>>,
}

impl DatabaseTrail {
    pub(super) fn new(address: Address) -> Self {
        Self { address, session: Mutex::new(None) }
    }

    /// Runs a query on the connection; on a new one if that has ended meanwhile.
    fn rows(&self, sql: &str, values: &[Value<'_>]) -> Result<Vec<Row>, DatabaseError> {
        let mut place = locked(&self.session);
        let run = |mut session: Session| {
            let rows = session.rows(sql, values, TO_WRITE);
            rows.map(|rows| (session, rows)).map_err(|error| DatabaseError::of(&self.address, error))
        };
        let mut done = place.take().map(run);
        if done.as_ref().is_none_or(|done| done.as_ref().is_err_and(DatabaseError::is_of_connection)) {
            done = Some(schema::connect(&self.address).and_then(run));
        }
        let Some(done) = done else { return Ok(Vec::new()) };
        let (session, rows) = done?;
        *place = Some(session);
        Ok(rows)
    }
}

impl Trail for DatabaseTrail {
    fn page(&self, which: &Which, scope: &Scope, below: u64, most: usize) -> Result<Page, StoreError> {
        let mut page = Filling::new(most);
        let mut below = i64::try_from(below).unwrap_or(i64::MAX);
        loop {
            let sql =
                "SELECT number, record FROM cotter_audit WHERE number < $1 ORDER BY number DESC LIMIT $2";
            let rows = self.rows(sql, &[Value::Number(below), Value::Number(AT_ONCE)])?;
            let is_last = i64::try_from(rows.len()).is_ok_and(|rows| rows < AT_ONCE);
            for (number, json) in rows.iter().filter_map(columns) {
                if page.is_full() {
                    return Ok(page.end(u64::try_from(number).ok()));
                }
                below = number;
                page.add(entry(json).filter(|entry| which.has(entry, scope)), json.len());
            }
            if is_last {
                return Ok(page.end(None));
            }
        }
    }

    fn old(&self, keep: u64, before: Timestamp, most: usize) -> Result<Vec<u64>, StoreError> {
        let newest = self.rows("SELECT coalesce(max(number), 0) FROM cotter_audit", &[])?;
        let newest: i64 = newest.first().and_then(|row| row.try_get(0).ok()).unwrap_or_default();
        let keep = i64::try_from(keep).unwrap_or(i64::MAX);
        let first_kept = (newest + 1).saturating_sub(keep);
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        let sql = "SELECT number, record FROM cotter_audit ORDER BY number LIMIT $1";
        let rows = self.rows(sql, &[Value::Number(most)])?;
        let is_old = |(number, json): &(i64, &str)| {
            *number < first_kept || entry(json).is_none_or(|entry| entry.at < before)
        };
        let old = rows.iter().filter_map(columns).take_while(is_old);
        Ok(old.filter_map(|(number, _)| u64::try_from(number).ok()).collect())
    }
}

/// The number and the record of a row.
fn columns(row: &Row) -> Option<(i64, &str)> {
    Some((row.try_get(0).ok()?, row.try_get(1).ok()?))
}

/// Reads a record; `None` if it cannot be read.
fn entry(json: &str) -> Option<Entry> {
    Entry::deserialize(&mut serde_json::Deserializer::from_str(json)).ok()
}

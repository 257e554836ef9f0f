//! Reads records, and what other servers have written since.

use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::schema::{TO_READ, TO_WRITE};
use crate::fleet::database_error::DatabaseError;
use crate::fleet::policy::Change;
use crate::fleet::record::{self, AUDIT, BadRecord};
use crate::postgres::{Address, PgError, Row, Session, Value};

/// Rows of the log that are read at once.
const AT_ONCE: usize = 500;

/// How far a server has read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Place {
    /// The last row of the log.
    pub(super) head: i64,
    /// The group that wrote it.
    pub(super) group: String,
    /// The last number of reports.
    pub(super) reports: i64,
}

/// The row of `cotter_meta`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Meta {
    pub(super) newest: Place,
    /// The newest row that is not in the log any more.
    pub(super) trimmed: i64,
}

/// The columns of [`Meta`].
pub(super) const META: &str = "SELECT head, head_group, reports, trimmed FROM cotter_meta";

/// Reads for one server.
pub(super) struct Reader<'a> {
    pub(super) session: &'a mut Session,
    pub(super) address: &'a Address,
}

/// A change in a row of the log.
#[derive(Deserialize)]
struct Logged<'a> {
    #[serde(borrow)]
    kind: std::borrow::Cow<'a, str>,
    id: String,
    #[serde(default)]
    v: u32,
    /// `None` if the record was removed.
    #[serde(borrow, default)]
    record: Option<&'a RawValue>,
}

impl Meta {
    /// Reads the row that a query with the columns of [`META`] has answered.
    pub(super) fn of(rows: &[Vec<String>], address: &Address) -> Result<Self, DatabaseError> {
        let read = |row: &Vec<String>| match row.as_slice() {
            [head, group, reports, trimmed] => Some(Self {
                newest: Place {
                    head: head.parse().ok()?,
                    group: group.clone(),
                    reports: reports.parse().ok()?,
                },
                trimmed: trimmed.parse().ok()?,
            }),
            _ => None,
        };
        let why = "cotter_meta does not have its row".to_owned();
        rows.first().and_then(read).ok_or(DatabaseError::Damaged { place: address.to_string(), why })
    }
}

impl Reader<'_> {
    /// Reads all records, in a transaction that has begun.
    ///
    /// # Errors
    ///
    /// [`DatabaseError`].
    pub(super) fn all(&mut self) -> Result<Vec<Change>, DatabaseError> {
        let mut changes = Vec::new();
        self.each("SELECT kind, id, v, record FROM cotter_records ORDER BY kind, id", &mut changes)?;
        self.each("SELECT 'reports', uuid, v, record FROM cotter_reports", &mut changes)?;
        let newest = "SELECT 'audit', lpad(number::text, 20, '0'), v, record FROM cotter_audit ORDER BY number DESC LIMIT 1";
        self.each(newest, &mut changes)?;
        Ok(changes)
    }

    /// Reads the audit trail.
    ///
    /// # Errors
    ///
    /// [`DatabaseError`].
    pub(super) fn trail(&mut self) -> Result<Vec<Change>, DatabaseError> {
        let mut changes = Vec::new();
        self.each(
            "SELECT 'audit', lpad(number::text, 20, '0'), v, record FROM cotter_audit ORDER BY number",
            &mut changes,
        )?;
        Ok(changes)
    }

    fn each(&mut self, sql: &str, changes: &mut Vec<Change>) -> Result<(), DatabaseError> {
        let mut bad = None;
        let take = |row: &Row| match columns(row).and_then(|(kind, id, v, json)| read(&kind, &id, v, &json)) {
            Ok(read) => changes.extend(read),
            Err(error) => bad = bad.take().or(Some(error)),
        };
        self.session.each_row(sql, take, TO_WRITE).map_err(|error| DatabaseError::of(self.address, error))?;
        bad.map_or(Ok(()), |error| Err(self.bad(error)))
    }

    /// Reads what was written after `place`. `None` if that is not in the log any more, or if the database does not have what
    /// was read at `place`, e.g. because it was restored from a backup.
    ///
    /// # Errors
    ///
    /// [`DatabaseError`].
    pub(super) fn since(&mut self, place: &Place, meta: &Meta) -> Result<Option<Vec<Change>>, DatabaseError> {
        let newest = &meta.newest;
        if newest.head < place.head
            || newest.reports < place.reports
            || (newest.head == place.head && newest.group != place.group)
            || (newest.head > place.head && meta.trimmed >= place.head.max(1))
        {
            return Ok(None);
        }
        let mut changes = Vec::new();
        if newest.head > place.head && !self.log(place, &mut changes)? {
            return Ok(None);
        }
        if newest.reports > place.reports {
            let sql = format!(
                "SELECT 'reports', uuid, v, record FROM cotter_reports WHERE number > {} ORDER BY number",
                place.reports
            );
            self.each(&sql, &mut changes)?;
        }
        Ok(Some(changes))
    }

    /// Reads the log after `place`; `false` if the log has something else there.
    fn log(&mut self, place: &Place, changes: &mut Vec<Change>) -> Result<bool, DatabaseError> {
        let sql = format!(
            "SELECT seq, of_group, changes FROM cotter_log WHERE seq >= $1 ORDER BY seq LIMIT {AT_ONCE}"
        );
        let mut from = place.head;
        loop {
            let rows = self.rows(&sql, &[Value::Number(from)], TO_WRITE)?;
            let count = rows.len();
            for row in rows {
                let read = (row.try_get::<_, i64>(0), row.try_get::<_, &str>(1), row.try_get::<_, &str>(2));
                let (Ok(seq), Ok(group), Ok(text)) = read else {
                    return Err(self.bad(BadRecord::Form("a row of the log has no such columns".to_owned())));
                };
                if seq == place.head {
                    if group != place.group {
                        return Ok(false);
                    }
                } else if seq == from || seq == from + 1 {
                    changes.extend(logged(text).map_err(|error| self.bad(error))?);
                } else {
                    return Err(self.bad(BadRecord::Form(format!("the log has no row {}", from + 1))));
                }
                from = seq;
            }
            if count < AT_ONCE {
                return Ok(true);
            }
            from += 1;
        }
    }

    /// Returns whether the log has a group after `place`.
    ///
    /// # Errors
    ///
    /// [`DatabaseError`].
    pub(super) fn find_group(&mut self, group: &str, place: &Place) -> Result<bool, DatabaseError> {
        let sql = "SELECT 1 FROM cotter_log WHERE seq > $1 AND of_group = $2 LIMIT 1";
        let rows = self.rows(sql, &[Value::Number(place.head), Value::Text(group)], TO_WRITE)?;
        Ok(!rows.is_empty())
    }

    /// Reads the row of `cotter_meta`.
    ///
    /// # Errors
    ///
    /// [`DatabaseError`].
    pub(super) fn meta(&mut self, sql: &str, deadline: Duration) -> Result<Meta, DatabaseError> {
        let rows = self.session.simple(sql, deadline).map_err(|error| self.failed(error))?;
        Meta::of(&rows, self.address)
    }

    /// Ends the transaction.
    ///
    /// # Errors
    ///
    /// [`DatabaseError`].
    pub(super) fn end(&mut self) -> Result<(), DatabaseError> {
        self.session.simple("ROLLBACK", TO_READ).map(drop).map_err(|error| self.failed(error))
    }

    fn rows(
        &mut self,
        sql: &str,
        values: &[Value<'_>],
        deadline: Duration,
    ) -> Result<Vec<Row>, DatabaseError> {
        self.session.rows(sql, values, deadline).map_err(|error| self.failed(error))
    }

    fn failed(&self, error: PgError) -> DatabaseError {
        DatabaseError::of(self.address, error)
    }

    fn bad(&self, error: BadRecord) -> DatabaseError {
        let place = self.address.to_string();
        match error {
            BadRecord::Newer => DatabaseError::Newer { place },
            BadRecord::Form(why) => DatabaseError::Damaged { place, why },
        }
    }
}

fn columns(row: &Row) -> Result<(String, String, u32, String), BadRecord> {
    let read = || {
        let v = u32::try_from(row.try_get::<_, i32>(2).ok()?).ok()?;
        Some((row.try_get(0).ok()?, row.try_get(1).ok()?, v, row.try_get(3).ok()?))
    };
    read().ok_or_else(|| BadRecord::Form("a row of a table has no such columns".to_owned()))
}

fn read(kind: &str, id: &str, v: u32, json: &str) -> Result<Vec<Change>, BadRecord> {
    record::read(kind, id, v, json).map_err(|error| match error {
        BadRecord::Newer => BadRecord::Newer,
        BadRecord::Form(why) => BadRecord::Form(format!("{kind}/{id}: {why}")),
    })
}

/// Reads a row of the log.
fn logged(text: &str) -> Result<Vec<Change>, BadRecord> {
    let form = |error: serde_json::Error| BadRecord::Form(format!("a row of the log: {error}"));
    let entries: Vec<Logged<'_>> = serde_json::from_str(text).map_err(form)?;
    let mut changes = Vec::new();
    for Logged { kind, id, v, record } in entries {
        match record {
            Some(record) => changes.extend(read(&kind, &id, v, record.get())?),
            None if kind == AUDIT => {}
            None => changes.extend(record::removed(&kind, &id)?),
        }
    }
    Ok(changes)
}

//! Writes the changes of a group of acts: the records, the reports, the audit trail, and the log that other servers follow.

use std::collections::BTreeMap;

use super::schema::TO_WRITE;
use crate::fleet::audit_log;
use crate::fleet::database_error::DatabaseError;
use crate::fleet::policy::Change;
use crate::fleet::record::{self, Entry};
use crate::postgres::{Address, Session, Value};

/// The kind of the records of reports, which have a table of their own and are never in the log.
const REPORTS: &str = "reports";

/// Maximum number of rows and bytes of one statement.
const ROWS: usize = 5_000;
const BYTES: usize = 4 << 20;

/// Bytes of a row of the log.
const LOG_ROW: usize = 64 << 10;

/// What a group writes. Of several changes of one record the last one counts.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// `None` removes the record.
    records: BTreeMap<(&'static str, String), Option<String>>,
    reports: BTreeMap<String, Option<String>>,
    trail: BTreeMap<i64, Option<String>>,
    /// The rows of the log, each a list in JSON without its brackets.
    log: Vec<String>,
    has_reports: bool,
}

impl Batch {
    /// Collects changes.
    ///
    /// # Errors
    ///
    /// Never in practice: no record has a value that is not JSON.
    pub(super) fn of<'a>(changes: impl IntoIterator<Item = &'a Change>) -> serde_json::Result<Self> {
        let mut batch = Self::default();
        for change in changes {
            for entry in record::entries(change)? {
                batch.add(entry)?;
            }
        }
        Ok(batch)
    }

    fn add(&mut self, entry: Entry) -> serde_json::Result<()> {
        let (kind, id, json) = match entry {
            Entry::Put { kind, id, json } => {
                (kind, id, Some(String::from_utf8(json).map_err(serde::ser::Error::custom)?))
            }
            Entry::Drop { kind, id } => (kind, id, None),
        };
        if let Some(number) = audit_log::number_of(kind, &id) {
            if json.is_some() {
                self.log(kind, &id, json.as_deref())?;
            }
            self.trail.insert(i64::try_from(number).unwrap_or(i64::MAX), json);
        } else if kind == REPORTS {
            self.has_reports |= json.is_some();
            self.reports.insert(id, json);
        } else {
            self.log(kind, &id, json.as_deref())?;
            self.records.insert((kind, id), json);
        }
        Ok(())
    }

    fn log(&mut self, kind: &str, id: &str, json: Option<&str>) -> serde_json::Result<()> {
        let id = serde_json::to_string(id)?;
        let entry = match json {
            Some(json) => format!(r#"{{"kind":"{kind}","id":{id},"v":{},"record":{json}}}"#, record::VERSION),
            None => format!(r#"{{"kind":"{kind}","id":{id}}}"#),
        };
        match self.log.last_mut().filter(|row| row.len() + entry.len() < LOG_ROW) {
            Some(row) => {
                row.push(',');
                row.push_str(&entry);
            }
            None => self.log.push(entry),
        }
        Ok(())
    }

    /// Returns how many rows of the log it has.
    pub(super) fn log_rows(&self) -> i64 {
        i64::try_from(self.log.len()).unwrap_or(i64::MAX)
    }

    /// Returns whether it has reports.
    pub(super) fn has_reports(&self) -> bool {
        self.has_reports
    }

    /// Returns how many records it writes.
    pub(super) fn count(&self) -> u64 {
        (self.records.len() + self.reports.len() + self.trail.len()) as u64
    }

    /// Writes all of it, in a transaction that has begun.
    ///
    /// # Errors
    ///
    /// [`DatabaseError`]. The transaction must be rolled back.
    pub(super) fn write(&self, to: &mut Writing<'_>) -> Result<(), DatabaseError> {
        let puts =
            self.records.iter().filter_map(|((kind, id), json)| Some((*kind, id.as_str(), json.as_deref()?)));
        for rows in pieces(puts, |(_, id, json)| id.len() + json.len()) {
            let kinds = rows.iter().map(|row| row.0).collect();
            let (ids, records) =
                (rows.iter().map(|row| row.1).collect(), rows.iter().map(|row| row.2).collect());
            to.run(
                "INSERT INTO cotter_records (kind, id, v, record) \
                 SELECT kind, id, $1, record FROM unnest($2, $3, $4) AS new (kind, id, record) \
                 ON CONFLICT (kind, id) DO UPDATE SET v = excluded.v, record = excluded.record",
                &[VERSION, Value::Texts(kinds), Value::Texts(ids), Value::Texts(records)],
            )?;
        }
        let drops = self.records.iter().filter(|(_, json)| json.is_none());
        for rows in pieces(drops.map(|((kind, id), _)| (*kind, id.as_str())), |(_, id)| id.len()) {
            let (kinds, ids) = rows.into_iter().unzip();
            to.run(
                "DELETE FROM cotter_records USING unnest($1, $2) AS old (kind, id) \
                 WHERE cotter_records.kind = old.kind AND cotter_records.id = old.id",
                &[Value::Texts(kinds), Value::Texts(ids)],
            )?;
        }
        self.write_reports(to)?;
        self.write_trail(to)
    }

    fn write_reports(&self, to: &mut Writing<'_>) -> Result<(), DatabaseError> {
        let puts = self.reports.iter().filter_map(|(uuid, json)| Some((uuid.as_str(), json.as_deref()?)));
        for rows in pieces(puts, |(uuid, json)| uuid.len() + json.len()) {
            let (uuids, reports) = rows.into_iter().unzip();
            to.run(
                "INSERT INTO cotter_reports (uuid, number, v, record) \
                 SELECT uuid, $1, $2, record FROM unnest($3, $4) AS new (uuid, record) \
                 ON CONFLICT (uuid) DO UPDATE SET number = excluded.number, v = excluded.v, record = excluded.record",
                &[Value::Number(to.reports), VERSION, Value::Texts(uuids), Value::Texts(reports)],
            )?;
        }
        let drops = self.reports.iter().filter(|(_, json)| json.is_none());
        for uuids in pieces(drops.map(|(uuid, _)| uuid.as_str()), |uuid| uuid.len()) {
            to.run("DELETE FROM cotter_reports WHERE uuid = ANY($1)", &[Value::Texts(uuids.clone())])?;
            // Its rows are locked in the order in which servers write them.
            to.run(
                "DELETE FROM cotter_seen WHERE uuid IN \
                 (SELECT uuid FROM cotter_seen WHERE uuid = ANY($1) ORDER BY uuid FOR UPDATE)",
                &[Value::Texts(uuids)],
            )?;
        }
        Ok(())
    }

    fn write_trail(&self, to: &mut Writing<'_>) -> Result<(), DatabaseError> {
        let puts = self.trail.iter().filter_map(|(number, json)| Some((*number, json.as_deref()?)));
        for rows in pieces(puts, |(_, json)| json.len()) {
            let (numbers, records) = rows.into_iter().unzip();
            to.run(
                "INSERT INTO cotter_audit (number, v, record) \
                 SELECT number, $1, record FROM unnest($2, $3) AS new (number, record)",
                &[VERSION, Value::Numbers(numbers), Value::Texts(records)],
            )?;
        }
        let drops = self.trail.iter().filter(|(_, json)| json.is_none());
        for numbers in pieces(drops.map(|(number, _)| *number), |_| 8) {
            to.run("DELETE FROM cotter_audit WHERE number = ANY($1)", &[Value::Numbers(numbers)])?;
        }
        Ok(())
    }

    /// Writes the rows of the log after `head`.
    ///
    /// # Errors
    ///
    /// As [`Self::write`].
    pub(super) fn write_log(
        &self,
        to: &mut Writing<'_>,
        head: i64,
        group: &str,
    ) -> Result<(), DatabaseError> {
        let rows = (head + 1..).zip(self.log.iter().map(|row| format!("[{row}]"))).collect::<Vec<_>>();
        for rows in pieces(rows.iter().map(|(seq, row)| (*seq, row.as_str())), |(_, row)| row.len()) {
            let (numbers, texts) = rows.into_iter().unzip();
            to.run(
                "INSERT INTO cotter_log (seq, of_group, changes) \
                 SELECT seq, $1, changes FROM unnest($2, $3) AS new (seq, changes)",
                &[Value::Text(group), Value::Numbers(numbers), Value::Texts(texts)],
            )?;
        }
        Ok(())
    }
}

const VERSION: Value<'static> = Value::Number(record::VERSION as i64);

/// A transaction that has begun.
pub(super) struct Writing<'a> {
    pub(super) session: &'a mut Session,
    pub(super) address: &'a Address,
    /// The number of its reports.
    pub(super) reports: i64,
}

impl Writing<'_> {
    fn run(&mut self, sql: &str, values: &[Value<'_>]) -> Result<(), DatabaseError> {
        let ran = self.session.rows(sql, values, TO_WRITE);
        ran.map(drop).map_err(|error| DatabaseError::of(self.address, error))
    }
}

/// Cuts rows into pieces for one statement each.
fn pieces<T>(rows: impl IntoIterator<Item = T>, size: impl Fn(&T) -> usize) -> Vec<Vec<T>> {
    let mut pieces: Vec<Vec<T>> = Vec::new();
    let mut bytes = 0;
    for row in rows {
        let length = size(&row);
        match pieces.last_mut().filter(|piece| piece.len() < ROWS && bytes + length <= BYTES) {
            Some(piece) => {
                piece.push(row);
                bytes += length;
            }
            None => {
                pieces.push(vec![row]);
                bytes = length;
            }
        }
    }
    pieces
}

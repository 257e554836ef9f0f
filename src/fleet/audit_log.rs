//! Reads the audit trail from the disk, where it is beside the records and not in memory. The writer of the records writes
//! it, too.

use std::sync::Arc;

use redb::{Database, ReadOnlyTable, ReadableDatabase as _, ReadableTable as _, TableDefinition, TableError};
use serde::Deserialize;

use super::access::{Entry, Scope, Which};
use super::record::AUDIT;

/// The table of the audit trail, by number.
pub(super) const AUDIT_TRAIL: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("audit");

/// Maximum number of records that are read for one page. A page of a rare choice may end early, and the next one goes on.
const MOST_READ: usize = 20_000;

/// Maximum number of bytes of the records of one page, but for the last one of them.
const MOST_BYTES: usize = 1 << 20;

/// The audit trail on disk.
#[derive(Debug, Clone)]
pub(super) struct AuditLog {
    db: Arc<Database>,
}

/// A part of the trail, newest first.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Page {
    pub(super) entries: Vec<Entry>,
    /// The next page begins below this number; `None`: there is none.
    pub(super) below: Option<u64>,
}

/// A page that is being filled, from the newest record on.
#[derive(Debug)]
pub(super) struct Filling {
    page: Page,
    most: usize,
    read: usize,
    bytes: usize,
}

impl Filling {
    /// Begins a page of at most `most` records.
    pub(super) fn new(most: usize) -> Self {
        Self { page: Page::default(), most, read: 0, bytes: 0 }
    }

    /// Returns whether no other record may be read for the page.
    pub(super) fn is_full(&self) -> bool {
        self.read == MOST_READ || self.page.entries.len() == self.most || self.bytes >= MOST_BYTES
    }

    /// Adds a record that was read; `None`: one that does not belong to the page.
    pub(super) fn add(&mut self, entry: Option<Entry>, bytes: usize) {
        self.read += 1;
        if let Some(entry) = entry {
            self.bytes += bytes;
            self.page.entries.push(entry);
        }
    }

    /// Returns the page. `next` is the number of the next record, if there is one.
    pub(super) fn end(self, next: Option<u64>) -> Page {
        Page { below: next.map(|number| number + 1), ..self.page }
    }
}

#[derive(Deserialize)]
struct Read {
    record: Entry,
}

impl AuditLog {
    pub(super) fn new(db: Arc<Database>) -> Self {
        Self { db }
    }

    /// Returns the newest record, as it is stored, and its number.
    ///
    /// # Errors
    ///
    /// The store's own.
    pub(super) fn newest(&self) -> Result<Option<(u64, Vec<u8>)>, redb::Error> {
        let Some(table) = self.table()? else { return Ok(None) };
        let newest = table.last()?;
        Ok(newest.map(|(number, value)| (number.value(), value.value().to_owned())))
    }

    fn table(&self) -> Result<Option<ReadOnlyTable<u64, &'static [u8]>>, redb::Error> {
        match self.db.begin_read()?.open_table(AUDIT_TRAIL) {
            Ok(table) => Ok(Some(table)),
            // A store without records.
            Err(TableError::TableDoesNotExist(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Reads the newest records below a number, at most `most` of them. A record that cannot be read is left out.
    ///
    /// # Errors
    ///
    /// The store's own.
    pub(super) fn page(
        &self,
        which: &Which,
        scope: &Scope,
        below: u64,
        most: usize,
    ) -> Result<Page, redb::Error> {
        let mut page = Filling::new(most);
        let Some(table) = self.table()? else { return Ok(page.end(None)) };
        for entry in table.range(..below)?.rev() {
            let (number, value) = entry?;
            if page.is_full() {
                return Ok(page.end(Some(number.value())));
            }
            let entry = serde_json::from_slice(value.value()).map(|Read { record }| record);
            page.add(entry.ok().filter(|entry| which.has(entry, scope)), value.value().len());
        }
        Ok(page.end(None))
    }

    /// Returns the numbers of the oldest records that `is_old` chooses, or that are more than `keep` behind the newest.
    ///
    /// # Errors
    ///
    /// The store's own.
    pub(super) fn old(
        &self,
        keep: u64,
        is_old: impl Fn(&Entry) -> bool,
        most: usize,
    ) -> Result<Vec<u64>, redb::Error> {
        let mut old = Vec::new();
        let Some(table) = self.table()? else { return Ok(old) };
        let newest = table.last()?.map_or(0, |(number, _)| number.value());
        let first_kept = (newest + 1).saturating_sub(keep);
        for entry in table.iter()?.take(most) {
            let (number, value) = entry?;
            // A record that cannot be read goes with those around it.
            let is_kept =
                || serde_json::from_slice(value.value()).is_ok_and(|Read { record }| !is_old(&record));
            if number.value() >= first_kept && is_kept() {
                break;
            }
            old.push(number.value());
        }
        Ok(old)
    }
}

/// Returns the number of a record, if it is one of the audit trail.
pub(super) fn number_of(kind: &str, id: &str) -> Option<u64> {
    if kind == AUDIT { id.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::access::{By, Outcome};
    use crate::fleet::clock;

    fn entry(number: u64, by: &str, fleets: &[u64]) -> Entry {
        Entry {
            number,
            at: clock::now(),
            by: By { user: Some(by.to_owned()), token: "t".into(), id: "0".into() },
            from: None,
            what: "pin a fleet".into(),
            request: "POST /x".into(),
            things: Vec::new(),
            count: 0,
            fleets: fleets.to_vec(),
            details: None,
            why: None,
            outcome: Outcome::Done,
        }
    }

    fn log(entries: impl IntoIterator<Item = Entry>) -> (AuditLog, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let log = AuditLog::new(Arc::new(Database::create(dir.path().join("db")).unwrap()));
        assert_eq!(log.newest().unwrap(), None, "there is no table yet");
        for record in entries {
            put(&log, record.number, &serde_json::json!({ "v": 3, "record": record }).to_string());
        }
        (log, dir)
    }

    fn put(log: &AuditLog, number: u64, value: &str) {
        let writing = log.db.begin_write().unwrap();
        writing.open_table(AUDIT_TRAIL).unwrap().insert(number, value.as_bytes()).unwrap();
        writing.commit().unwrap();
    }

    #[test]
    fn pages_go_from_the_newest_to_the_oldest_and_leave_out_none() {
        let all = (1..=25).map(|n| entry(n, if n % 5 == 0 { "anna" } else { "ben" }, &[n % 2]));
        let (log, _dir) = log(all);
        let read = |which: &Which, scope: &Scope| {
            let (mut numbers, mut below) = (Vec::new(), u64::MAX);
            for _ in 0..30 {
                let page = log.page(which, scope, below, 4).unwrap();
                numbers.extend(page.entries.iter().map(|entry| entry.number));
                let Some(next) = page.below else { return numbers };
                below = next;
            }
            panic!("the pages do not end: {numbers:?}");
        };
        assert_eq!(read(&Which::default(), &Scope::All), (1..=25).rev().collect::<Vec<_>>());
        let by = Which { by: Some("anna".into()), ..Which::default() };
        assert_eq!(read(&by, &Scope::All), [25, 20, 15, 10, 5]);
        assert_eq!(read(&by, &Scope::Fleets([0].into())), [20, 10]);
        let of = Which { fleet: Some(1), ..by };
        assert_eq!(read(&of, &Scope::All), [25, 15, 5]);
        assert_eq!(log.newest().unwrap().map(|(number, _)| number), Some(25));
    }

    #[test]
    fn a_page_of_large_records_ends_early_and_leaves_out_none() {
        let large = |number| Entry { why: Some("x".repeat(300_000)), ..entry(number, "anna", &[]) };
        let (log, _dir) = log((1..=9).map(large));
        let (mut pages, mut below) = (Vec::new(), Some(u64::MAX));
        while let Some(next) = below {
            let page = log.page(&Which::default(), &Scope::All, next, 1000).unwrap();
            pages.push(page.entries.iter().map(|entry| entry.number).collect::<Vec<_>>());
            below = page.below;
        }
        assert_eq!(pages, [vec![9, 8, 7, 6], vec![5, 4, 3, 2], vec![1]]);
    }

    #[test]
    fn what_is_about_all_fleets_or_none_is_not_for_a_reader_of_some() {
        let (log, _dir) = log([entry(1, "anna", &[]), entry(2, "anna", &[1, 2]), entry(3, "anna", &[1])]);
        let page = log.page(&Which::default(), &Scope::Fleets([1].into()), u64::MAX, 10).unwrap();
        assert_eq!(page.entries.iter().map(|entry| entry.number).collect::<Vec<_>>(), [3]);
    }

    #[test]
    fn the_oldest_are_dropped_by_number_and_by_time() {
        let (log, _dir) = log((1..=10).map(|n| entry(n, "anna", &[])));
        let old = |keep, is_old: &dyn Fn(&Entry) -> bool, most| log.old(keep, is_old, most).unwrap();
        assert_eq!(old(4, &|_| false, 100), [1, 2, 3, 4, 5, 6]);
        assert_eq!(old(4, &|_| false, 2), [1, 2]);
        assert_eq!(old(100, &|_| false, 100), [0; 0]);
        assert_eq!(old(100, &|entry| entry.number < 4 || entry.number == 8, 100), [1, 2, 3]);
        put(&log, 2, "damaged");
        assert_eq!(old(100, &|entry| entry.number < 4, 100), [1, 2, 3]);
    }
}

//! Reads the audit trail from the disk, where it is beside the records and not in memory. The writer of the records writes
//! it, too.

use std::ops::Bound;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Deserialize;

use super::access::{Entry, Scope, Which};
use super::record::{self, AUDIT};

/// The first key after all of the audit trail: the character after '/' is '0'.
const AFTER: &str = "audit0";

/// Most records that are read for one page. A page of a rare choice may end early, and the next one goes on.
const MOST_READ: usize = 20_000;

/// The audit trail on disk.
#[derive(Debug, Clone)]
pub(super) struct AuditLog {
    db: sled::Db,
}

/// A part of the trail, newest first.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Page {
    pub(super) entries: Vec<Entry>,
    /// The next page begins below this number; `None`: there is none.
    pub(super) below: Option<u64>,
}

/// The audit trail of the store that is open. After a failed write there is none, until the store is opened again: that needs
/// all handles of the one before to be gone.
#[derive(Debug, Clone)]
pub(super) struct SharedLog(Arc<Mutex<Option<AuditLog>>>);

impl SharedLog {
    pub(super) fn new(log: AuditLog) -> Self {
        Self(Arc::new(Mutex::new(Some(log))))
    }

    pub(super) fn set(&self, log: Option<AuditLog>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = log;
    }

    /// Reads the trail; `None` if there is none now. Blocks, but no act waits for it.
    pub(super) fn read<T>(&self, read: impl FnOnce(&AuditLog) -> sled::Result<T>) -> Option<sled::Result<T>> {
        let log = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        log.map(|log| read(&log))
    }
}

#[derive(Deserialize)]
struct Read {
    record: Entry,
}

/// Returns the key of a record.
fn key(number: u64) -> String {
    format!("{AUDIT}/{}", record::number(number))
}

/// Returns all records of a store, but of the audit trail only the newest, because it is read when the server starts.
pub(super) fn without_old(db: &sled::Db) -> impl Iterator<Item = sled::Result<(sled::IVec, sled::IVec)>> {
    let newest = AuditLog::new(db.clone()).range(u64::MAX).next_back();
    let before = db.range(..key(0).into_bytes());
    before.chain(newest).chain(db.range(AFTER.as_bytes()..))
}

impl AuditLog {
    pub(super) fn new(db: sled::Db) -> Self {
        Self { db }
    }

    /// Returns the number of the newest record; 0 if there is none.
    ///
    /// # Errors
    ///
    /// The store's own.
    fn newest(&self) -> sled::Result<u64> {
        let last = self.range(u64::MAX).next_back().transpose()?;
        Ok(last.and_then(|(key, _)| number_of(&key)).unwrap_or(0))
    }

    /// Reads the newest records below a number, at most `most` of them. A record that cannot be read is left out.
    ///
    /// # Errors
    ///
    /// The store's own.
    pub(super) fn page(&self, which: &Which, scope: &Scope, below: u64, most: usize) -> sled::Result<Page> {
        let mut page = Page::default();
        for (count, entry) in self.range(below).rev().enumerate() {
            let (key, value) = entry?;
            let Some(number) = number_of(&key) else { continue };
            if count == MOST_READ || page.entries.len() == most {
                page.below = Some(number + 1);
                break;
            }
            let entry = serde_json::from_slice(&value).map(|Read { record }| record);
            page.entries.extend(entry.ok().filter(|entry| which.has(entry, scope)));
        }
        Ok(page)
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
    ) -> sled::Result<Vec<u64>> {
        let first_kept = (self.newest()? + 1).saturating_sub(keep);
        let mut old = Vec::new();
        for entry in self.range(u64::MAX).take(most) {
            let (key, value) = entry?;
            let Some(number) = number_of(&key) else { continue };
            // A record that cannot be read goes with those around it.
            let is_kept = || serde_json::from_slice(&value).is_ok_and(|Read { record }| !is_old(&record));
            if number >= first_kept && is_kept() {
                break;
            }
            old.push(number);
        }
        Ok(old)
    }

    fn range(&self, below: u64) -> sled::Iter {
        let below = if below == u64::MAX { AFTER.to_owned() } else { key(below) };
        self.db.range((Bound::Included(key(0).into_bytes()), Bound::Excluded(below.into_bytes())))
    }
}

fn number_of(key: &[u8]) -> Option<u64> {
    std::str::from_utf8(key).ok()?.strip_prefix("audit/")?.parse().ok()
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
            why: None,
            outcome: Outcome::Done,
        }
    }

    fn log(entries: impl IntoIterator<Item = Entry>) -> (AuditLog, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let db = sled::Config::new().path(dir.path().join("db")).open().unwrap();
        for around in ["aaa/1", "auditor/1", "bar/1"] {
            db.insert(around, "x").unwrap();
        }
        for record in entries {
            let value = serde_json::json!({ "v": 3, "record": record }).to_string();
            db.insert(key(record.number), value.as_bytes()).unwrap();
        }
        (AuditLog::new(db), dir)
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
        assert_eq!(log.newest().unwrap(), 25);
        assert_eq!(without_old(&log.db).count(), 4);
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
        log.db.insert(key(2), "damaged").unwrap();
        assert_eq!(old(100, &|entry| entry.number < 4, 100), [1, 2, 3]);
    }
}

//! The device's memory across power cuts: identity, last target, ledger.
//!
//! A database (sled) and two mirrors in one folder. A save that returned `Ok` is on disk in the
//! database and in a mirror; either brings it back when the other is lost (`choose.rs` has the
//! table of power cuts). A damaged store is set aside, rebuilt and told about, never fatal. When
//! the disk refuses, memory stays the truth and the next save brings everything outstanding.
//!
//! It knows nothing of HTTP, of the engine or of plans, writes nothing when nothing changed, and
//! has no task of its own. Calls block for a few fsyncs: `daemon` makes them beside the runtime.
//!
//! ```text
//! <dir>/                 0700, locked while a store is open
//!   db/                  sled's folder
//!   db.opening[-again]   only while it is opened: that it did not come to an end, once or twice
//!   db.corrupt-<n>/      at most two that were set aside
//!   mirror-a.json mirror-b.json
//! ```

mod choose;
mod database;
mod error;
mod folder;
mod look;
mod mirror;
mod records;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::model::{Alert, Identity, Ledger, StoredTarget, with_causes};

use database::Database;
use mirror::{Found, Mirrors};
use records::{Records, Snapshot};

pub use error::{Recovery, StoreError};
pub use look::{Copy, Look, look};
pub use mirror::Slot;
pub use records::Remembered;

/// A number that no unreadable copy has reached.
const LEAP: u64 = 1_000_000;

/// The open store. Clones are the same store.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Mutex<Inner>>,
}

struct Inner {
    dir: PathBuf,
    /// Held for as long as the store lives; `None` while the folder cannot be had.
    lock: Option<File>,
    /// `None`: to be opened before the next write.
    database: Option<Database>,
    mirrors: Mirrors,
    /// Whether `truth` may replace what is on disk (see [`choose::Choice::hidden`]).
    is_complete: bool,
    /// What is remembered, whether it is on disk or not.
    truth: Remembered,
    /// `truth`, encoded.
    records: Records,
    saved: Saved,
    /// The greatest number given or seen.
    seq: u64,
    /// Why `truth` is not on disk, when it is not.
    trouble: Option<String>,
}

/// What this process has saved, and so knows better than a disk that is read late.
#[derive(Debug, Clone, Copy, Default)]
struct Saved {
    identity: bool,
    target: bool,
    ledger: bool,
}

impl Store {
    /// Opens the store in `dir`, creating both if needed, and repairs it.
    ///
    /// Tells what it found and did. When the disk is full, read-only or failing, the store still
    /// opens, with what could be read; saves then fail until the disk lets them.
    ///
    /// # Errors
    ///
    /// Only what a person must put right: [`StoreError::InUse`] and [`StoreError::Folder`].
    pub fn open(dir: &Path) -> Result<(Self, Vec<Recovery>), StoreError> {
        let mut inner = Inner::new(dir);
        let mut notes = Vec::new();
        let opened = inner.read(&mut notes).and_then(|()| inner.settle());
        if let Err(error) = opened {
            if error.is_fatal() {
                return Err(error);
            }
            let why = with_causes(&error);
            if !notes.iter().any(|note| matches!(note, Recovery::Unavailable { .. })) {
                notes.push(Recovery::Unavailable { from: None, why: why.clone() });
            }
            inner.trouble = Some(why);
        }
        Ok((Self { inner: Arc::new(Mutex::new(inner)) }, notes))
    }

    /// What is remembered, with everything saved since, on disk or not. No I/O.
    #[must_use]
    pub fn load(&self) -> Remembered {
        self.inner().truth.clone()
    }

    /// Why what is remembered is not on disk, when it is not: for the report.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.inner().trouble.clone()
    }

    /// Remembers who the device is. Durable when it returns `Ok`.
    ///
    /// # Errors
    ///
    /// The value is remembered but not on disk: see [`Store::retry`].
    pub fn save_identity(&self, identity: &Identity) -> Result<(), StoreError> {
        let text = records::encode(records::IDENTITY, identity)?;
        let mut inner = self.inner();
        inner.truth.identity = Some(identity.clone());
        inner.saved.identity = true;
        inner.records.insert(records::IDENTITY.to_owned(), text);
        inner.settle()
    }

    /// Remembers the last target. Durable when it returns `Ok`.
    ///
    /// # Errors
    ///
    /// As [`Store::save_identity`].
    pub fn save_target(&self, target: &StoredTarget) -> Result<(), StoreError> {
        let text = records::encode(records::TARGET, target)?;
        let mut inner = self.inner();
        inner.truth.target = Some(target.clone());
        inner.saved.target = true;
        inner.records.insert(records::TARGET.to_owned(), text);
        inner.settle()
    }

    /// Remembers the ledger: apps that changed are written, apps that are gone are removed.
    /// Durable when it returns `Ok`.
    ///
    /// # Errors
    ///
    /// As [`Store::save_identity`].
    pub fn save_ledger(&self, ledger: &Ledger) -> Result<(), StoreError> {
        let mut inner = self.inner();
        let texts = records::encode_ledger(&inner.records, &inner.truth.ledger, ledger)?;
        inner.records.retain(|name, _| !records::is_ledger(name));
        inner.records.extend(texts);
        // Saving what is there anyway is no word of this process: a disk that is read late still counts.
        inner.saved.ledger |= inner.truth.ledger != *ledger;
        inner.truth.ledger = ledger.clone();
        inner.settle()
    }

    /// Writes what earlier saves could not. Does nothing when nothing is outstanding.
    ///
    /// After a store that could not be read has become readable, [`Store::load`] has what it held.
    ///
    /// # Errors
    ///
    /// As [`Store::save_identity`]; [`StoreError::retry_after`] says when to come back.
    pub fn retry(&self) -> Result<(), StoreError> {
        self.inner().settle()
    }

    /// A panic elsewhere while the lock was held left a truth that is whole: only fields are set.
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn new(dir: &Path) -> Self {
        Self {
            dir: dir.to_path_buf(),
            lock: None,
            database: None,
            mirrors: Mirrors::new(dir),
            is_complete: false,
            truth: Remembered::default(),
            records: Records::default(),
            saved: Saved::default(),
            seq: 0,
            trouble: None,
        }
    }

    /// Reads all copies and goes on from the best; what this process saved before stays.
    ///
    /// Writes nothing but moves what is unusable out of the way. An error that is not fatal leaves
    /// what could be read in memory, and nothing may be written until a later call succeeds.
    fn read(&mut self, notes: &mut Vec<Recovery>) -> Result<(), StoreError> {
        if self.lock.is_none() {
            self.lock = Some(folder::hold(&self.dir)?);
        }
        self.database = None;
        for slot in Slot::BOTH {
            // What is no plain file is told as damaged below.
            let _odd = folder::keep_private(&self.dir.join(slot.file_name()))?;
        }
        let (mirrors, mirrored) = Mirrors::read(&self.dir);
        let (database, found) = Database::open(&self.dir.join(DATABASE));
        let mut choice = choose::choose(database_or_fatal(found)?, mirrored);
        (self.database, self.mirrors) = (database, mirrors);
        let (remembered, strange) = records::decode(&choice.base.records);
        self.seq = self.seq.max(choice.base.seq) + if choice.must_leap { LEAP } else { 0 };
        self.is_complete = choice.hidden.is_none();
        self.adopt(remembered)?;
        if !strange.is_empty() {
            choice.aside = vec![DATABASE, Slot::A.file_name(), Slot::B.file_name()];
            choice.why_aside = "it holds records that this version of cotter cannot read".to_owned();
        }
        let forgotten = strange.into_iter().map(|(record, why)| Recovery::RecordForgotten { record, why });
        notes.extend(choice.notes.into_iter().chain(forgotten));
        if !choice.aside.is_empty() {
            self.database = None;
            self.is_complete = false; // should moving fail, all is read again before anything is written
            folder::set_aside(&self.dir, &choice.aside, &choice.why_aside, notes)?;
            self.is_complete = choice.hidden.is_none();
            self.mirrors = Mirrors::read(&self.dir).0;
        }
        choice.hidden.map_or(Ok(()), Err)
    }

    /// Takes over what was read, but for what this process has saved itself.
    fn adopt(&mut self, found: Remembered) -> Result<(), StoreError> {
        let ours = std::mem::take(&mut self.truth);
        self.truth = Remembered {
            identity: if self.saved.identity { ours.identity } else { found.identity },
            target: if self.saved.target { ours.target } else { found.target },
            ledger: if self.saved.ledger { ours.ledger } else { found.ledger },
        };
        self.records = records::encode_all(&self.truth)?;
        Ok(())
    }

    /// Brings the disk up to the truth, if it is not.
    fn settle(&mut self) -> Result<(), StoreError> {
        let done = if self.is_settled() { Ok(()) } else { self.write() };
        self.trouble = done.as_ref().err().map(|error| with_causes(error));
        done
    }

    fn is_settled(&self) -> bool {
        let Some(held) = self.database.as_ref().map(Database::held) else {
            return false;
        };
        let is_unused = held.seq == 0 && self.records.is_empty();
        self.is_complete && held.records == self.records && (is_unused || self.mirrors.are_at(held.seq))
    }

    fn write(&mut self) -> Result<(), StoreError> {
        if !self.is_complete {
            let mut notes = Vec::new();
            let read = self.read(&mut notes);
            tell(&notes);
            read?;
        }
        let opened = self.open_database();
        self.seq += 1;
        let next = Snapshot { seq: self.seq, records: self.records.clone() };
        let in_database = opened.and_then(|()| self.write_database(&next));
        // Also when the database failed: one durable copy is better than none.
        let in_mirror = self.mirrors.write(&next);
        in_database.and(in_mirror)
    }

    /// Writes to the database; one that turns out damaged is replaced and written again.
    fn write_database(&mut self, next: &Snapshot) -> Result<(), StoreError> {
        let mut done = self.database.as_mut().map_or(Ok(()), |database| database.write(next));
        if matches!(done, Err(StoreError::Damaged { .. })) {
            self.database = None;
            self.open_database()?;
            done = self.database.as_mut().map_or(Ok(()), |database| database.write(next));
        }
        if done.is_err() {
            self.database = None; // sled's errors stick to the handle
        }
        done
    }

    /// Opens the database if it is not; a damaged one is set aside, for the truth is in memory.
    fn open_database(&mut self) -> Result<(), StoreError> {
        if self.database.is_some() {
            return Ok(());
        }
        let path = self.dir.join(DATABASE);
        let (mut database, mut found) = Database::open(&path);
        if let Found::Damaged(why) | Found::Foreign(why) = &found {
            let mut notes = Vec::new();
            let moved = folder::set_aside(&self.dir, &[DATABASE], why, &mut notes);
            tell(&notes);
            moved?;
            (database, found) = Database::open(&path);
        }
        match found {
            Found::Unreadable(error) => return Err(error),
            Found::Damaged(why) | Found::Foreign(why) => return Err(StoreError::Damaged { path, why }),
            Found::Whole(held) => self.seq = self.seq.max(held.seq),
            Found::Nothing => {}
        }
        self.database = database;
        Ok(())
    }
}

/// An error that ends the daemon is no copy to choose among.
fn database_or_fatal(found: Found) -> Result<Found, StoreError> {
    match found {
        Found::Unreadable(error) if error.is_fatal() => Err(error),
        Found::Nothing | Found::Whole(_) | Found::Damaged(_) | Found::Foreign(_) | Found::Unreadable(_) => {
            Ok(found)
        }
    }
}

/// The database's folder in the state folder.
const DATABASE: &str = "db";

fn tell(notes: &[Recovery]) {
    for note in notes.iter().filter(|note| note.is_trouble()) {
        tracing::warn!(alert = Alert::StoreRecovered.as_str(), note = %note, "store repaired");
    }
}

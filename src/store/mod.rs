//! Keeps the device's identity, last target and ledger across power cuts.
//!
//! The store is a database (sled) and two mirror files in one folder. Each save writes the database and one of the
//! mirrors, which take turns. After a save returns `Ok`, the value is on disk in both, and either of them is enough
//! to restore it; the other mirror is one save behind (`choose.rs` lists what a power cut leaves). A damaged store is
//! set aside, rebuilt and reported; it is never fatal. If the disk refuses a write, the copy in memory stays in
//! force, and the next save writes everything that is outstanding.
//!
//! The room knows nothing of HTTP, the engine or plans. It writes nothing if nothing changed, and spawns no task.
//! Calls block for a few fsyncs, so `daemon` makes them on a blocking thread.
//!
//! ```text
//! <dir>/                 0700, locked while a store is open
//!   db/                  sled's folder
//!   db.opening[-again]   exist while the database is being opened, and afterwards if the process died meanwhile
//!   db.corrupt-<n>/      damaged databases that were set aside, at most two
//!   mirror-a.json mirror-b.json
//!   log-cursors.json     how far logs were uploaded; may be lost
//!   device-tags.json     tags of the device that its cloud does not have yet
//! ```

mod choose;
mod cursors;
mod database;
mod error;
mod folder;
mod inspect;
mod mirror;
mod records;
mod slot;
mod tags;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::model::{Alert, Identity, Ledger, StoredTarget, with_causes};

use database::Database;
use mirror::{Found, Mirrors};
use records::{Records, Snapshot};

pub use cursors::CursorFile;
pub use error::{Recovery, StoreError};
pub use inspect::{Copy, Inspection, inspect};
pub use records::Remembered;
pub use slot::Slot;
pub use tags::TagFile;

/// Added to the save number if a copy is unreadable, so that our next number is greater than the one in that copy.
const LEAP: u64 = 1_000_000;

/// The open store. Clones share it.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Mutex<Inner>>,
}

struct Inner {
    dir: PathBuf,
    /// The lock of the folder, held as long as the store lives; `None` while it cannot be taken.
    lock: Option<File>,
    /// `None`: it must be opened before the next write.
    database: Option<Database>,
    mirrors: Mirrors,
    /// `false` while an unreadable copy may be newer than `truth`. Then `truth` must not be written (see
    /// [`choose::Choice::hidden`]).
    is_complete: bool,
    /// Everything that was saved, on disk or not.
    truth: Remembered,
    /// `truth`, encoded.
    records: Records,
    saved: Saved,
    /// The greatest save number that was used or read.
    seq: u64,
    /// Why `truth` is not on disk; `None` if it is.
    trouble: Option<String>,
}

/// What this process has saved. A copy that becomes readable later does not override it.
#[derive(Debug, Clone, Copy, Default)]
struct Saved {
    identity: bool,
    target: bool,
    ledger: bool,
}

impl Store {
    /// Opens the store in `dir`, creating both if needed, and repairs it. Returns what was found and done.
    ///
    /// If the disk is full, read-only or failing, the store still opens with what could be read. Saves then fail until
    /// the disk accepts them.
    ///
    /// # Errors
    ///
    /// Only what an operator must fix: [`StoreError::InUse`] and [`StoreError::Folder`].
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

    /// Returns everything that was loaded or saved, on disk or not. No I/O.
    #[must_use]
    pub fn load(&self) -> Remembered {
        self.inner().truth.clone()
    }

    /// Returns why the last save is not on disk, for the report; `None` if it is.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.inner().trouble.clone()
    }

    /// Saves the device's identity. Durable when it returns `Ok`.
    ///
    /// # Errors
    ///
    /// The value is in memory but not on disk: see [`Store::retry`].
    pub fn save_identity(&self, identity: &Identity) -> Result<(), StoreError> {
        let text = records::encode(records::IDENTITY, identity)?;
        let mut inner = self.inner();
        inner.truth.identity = Some(identity.clone());
        inner.saved.identity = true;
        inner.records.insert(records::IDENTITY.to_owned(), text);
        inner.settle()
    }

    /// Saves the last target. Durable when it returns `Ok`.
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

    /// Forgets who the device is, and the target and unsent tags that it had as that device. The ledger stays. Durable when it
    /// returns `Ok`.
    ///
    /// # Errors
    ///
    /// As [`Store::save_identity`].
    pub fn forget_device(&self) -> Result<(), StoreError> {
        let mut inner = self.inner();
        TagFile::of(&inner.dir).remove()?;
        (inner.truth.identity, inner.truth.target) = (None, None);
        (inner.saved.identity, inner.saved.target) = (true, true);
        inner.records.retain(|name, _| name != records::IDENTITY && name != records::TARGET);
        inner.settle()
    }

    /// Saves the ledger: writes apps that changed, and deletes apps that it no longer has. Durable when it returns `Ok`.
    ///
    /// # Errors
    ///
    /// As [`Store::save_identity`].
    pub fn save_ledger(&self, ledger: &Ledger) -> Result<(), StoreError> {
        let mut inner = self.inner();
        let texts = records::encode_ledger(&inner.records, &inner.truth.ledger, ledger)?;
        inner.records.retain(|name, _| !records::is_ledger(name));
        inner.records.extend(texts);
        // An unchanged save does not mark the ledger as ours, so a copy that becomes readable later may still win.
        inner.saved.ledger |= inner.truth.ledger != *ledger;
        inner.truth.ledger = ledger.clone();
        inner.settle()
    }

    /// Writes what earlier saves could not write. Does nothing if nothing is outstanding.
    ///
    /// If a copy has become readable, [`Store::load`] returns its content afterwards.
    ///
    /// # Errors
    ///
    /// As [`Store::save_identity`]; [`StoreError::retry_after`] says when to call it again.
    pub fn retry(&self) -> Result<(), StoreError> {
        self.inner().settle()
    }

    /// Ignores poisoning: while the lock is held only fields are set, so a panic elsewhere leaves a consistent state.
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

    /// Reads all copies and loads the newest intact one, except for values that this process has saved itself.
    ///
    /// Moves damaged files away, and changes nothing else on the disk. After an error that is not fatal, memory has
    /// what could be read, and nothing may be written until a later call succeeds.
    fn read(&mut self, notes: &mut Vec<Recovery>) -> Result<(), StoreError> {
        if self.lock.is_none() {
            self.lock = Some(folder::hold(&self.dir)?);
        }
        self.database = None;
        for slot in Slot::BOTH {
            // A link or another special file is reported as damaged below.
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
            self.is_complete = false; // if moving fails, everything is read again before anything is written
            folder::set_aside(&self.dir, &choice.aside, &choice.why_aside, notes)?;
            self.is_complete = choice.hidden.is_none();
            self.mirrors = Mirrors::read(&self.dir).0;
        }
        choice.hidden.map_or(Ok(()), Err)
    }

    /// Loads what was read into memory, except for values that this process has saved itself.
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

    /// Writes `truth` to the disk if the disk differs.
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
            log(&notes);
            read?;
        }
        let opened = self.open_database();
        self.seq += 1;
        let next = Snapshot { seq: self.seq, records: self.records.clone() };
        let in_database = opened.and_then(|()| self.write_database(&next));
        // Also after the database failed: one durable copy is better than none.
        let in_mirror = self.mirrors.write(&next);
        in_database.and(in_mirror)
    }

    /// Writes to the database. If it turns out to be damaged, replaces it and writes again.
    fn write_database(&mut self, next: &Snapshot) -> Result<(), StoreError> {
        let mut done = self.database.as_mut().map_or(Ok(()), |database| database.write(next));
        if matches!(done, Err(StoreError::Damaged { .. })) {
            self.database = None;
            self.open_database()?;
            done = self.database.as_mut().map_or(Ok(()), |database| database.write(next));
        }
        if done.is_err() {
            self.database = None; // after an error, every call on this handle of sled fails
        }
        done
    }

    /// Opens the database if it is closed. Sets a damaged one aside: its content is in memory.
    fn open_database(&mut self) -> Result<(), StoreError> {
        if self.database.is_some() {
            return Ok(());
        }
        let path = self.dir.join(DATABASE);
        let (mut database, mut found) = Database::open(&path);
        if let Found::Damaged(why) | Found::Foreign(why) = &found {
            let mut notes = Vec::new();
            let moved = folder::set_aside(&self.dir, &[DATABASE], why, &mut notes);
            log(&notes);
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

/// Returns `Err` for an error that must end the daemon. Everything else is a copy to choose from, even if it is
/// damaged or cannot be read now.
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

fn log(notes: &[Recovery]) {
    for note in notes.iter().filter(|note| note.is_trouble()) {
        tracing::warn!(alert = Alert::StoreRecovered.as_str(), note = %note, "store repaired");
    }
}

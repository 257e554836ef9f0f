//! Stores the fleet server's records on disk, in sled. It does not know what they mean.
//!
//! Every act is one atomic batch, which is on disk before the act is answered. sled's own flush does not survive a power
//! cut, so its file is synced here, too.

use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Deserialize;
use serde_json::value::RawValue;

use super::policy::Change;
use super::record::{self, BadRecord, Entry};
use crate::ownership::{self, NotOurs};

/// Why records cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("another `cotter-fleet serve` uses {}; stop that one, or use another --data-dir", dir.display())]
    InUse { dir: PathBuf },

    #[error("cannot use {}, because of the disk or its permissions", path.display())]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },

    #[error(
        "the records in {} are damaged ({why}); put a copy of the folder back, or move it away to start empty",
        dir.display()
    )]
    Damaged { dir: PathBuf, why: String },

    #[error("the records in {} were written by a newer version of cotter; use that version", dir.display())]
    Newer { dir: PathBuf },

    #[error("the records cannot be made private")]
    NotOurs(#[from] NotOurs),
}

/// The open store. Only one process can open it.
#[derive(Debug)]
pub(super) struct Store {
    db: sled::Db,
    /// sled's data file, for the sync that sled omits.
    file: File,
    dir: PathBuf,
    /// Whether the marker file exists, which says that this store is not empty. sled opens a file that lost its content as a
    /// new one, and a fleet must not disappear unnoticed.
    is_marked: AtomicBool,
}

/// Locks a data folder against other processes while it lives.
#[derive(Debug)]
pub(super) struct FolderLock(#[expect(dead_code, reason = "held for its lock")] File);

impl FolderLock {
    /// Locks a data folder.
    ///
    /// # Errors
    ///
    /// [`StoreError::InUse`] at once if another process uses it.
    pub(super) fn take(dir: &Path) -> Result<Self, StoreError> {
        let path = dir.join("lock");
        let error = |source| StoreError::Io { path: path.clone(), source };
        let file = File::options().create(true).truncate(false).write(true).mode(0o600).open(&path);
        let file = file.map_err(error)?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::WouldBlock) => Err(StoreError::InUse { dir: dir.to_owned() }),
            Err(TryLockError::Error(source)) => Err(error(source)),
        }
    }
}

/// A record in the database, under the key `kind/id`.
#[derive(Deserialize)]
struct Stored<'a> {
    v: u32,
    #[serde(borrow)]
    record: &'a RawValue,
}

impl Store {
    /// Opens the store in `dir`, creates it if it is missing, and reads all of it.
    ///
    /// # Errors
    ///
    /// Distinguishes a damaged store from one that cannot be opened because of the disk or its permissions.
    pub(super) fn open(dir: &Path) -> Result<(Self, Vec<Change>), StoreError> {
        let is_new = !dir.join("conf").exists();
        let db = sled::Config::new()
            .path(dir)
            .cache_capacity(4 * 1024 * 1024)
            .flush_every_ms(None)
            .open()
            .map_err(|error| sorted(dir, error))?;
        let path = dir.join("db");
        let file = File::open(&path).map_err(|source| io_error(&path, source))?;
        // sled creates its files with the umask of the process, and each opening may create new ones.
        ownership::close(dir)?;
        if is_new {
            sync_new(dir)?;
        }
        let (mut changes, mut old) = (Vec::new(), Vec::new());
        for entry in db.iter() {
            let (key, value) = entry.map_err(|error| sorted(dir, error))?;
            let (read, version) = read(dir, &key, &value)?;
            // A record that has become several is written as these, so that no later change of one drops the others.
            if version < record::VERSION && read.len() > 1 {
                old.extend(read.iter().cloned());
            }
            changes.extend(read);
        }
        let is_marked = Self::marker(dir).exists();
        if is_marked && changes.is_empty() {
            let why = "they are empty, and were not before".to_owned();
            return Err(StoreError::Damaged { dir: dir.to_owned(), why });
        }
        let store = Self { db, file, dir: dir.to_owned(), is_marked: is_marked.into() };
        if !old.is_empty() {
            store.commit(&old)?;
        }
        Ok((store, changes))
    }

    /// Returns the path of the marker file. It is next to the store, because the content of the store may be lost.
    pub(super) fn marker(dir: &Path) -> PathBuf {
        dir.with_extension("begun")
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Writes all changes or none, and returns once they are on the disk.
    ///
    /// # Errors
    ///
    /// Then the content of the disk is unknown: drop the store and open it again.
    pub(super) fn commit(&self, changes: &[Change]) -> Result<(), StoreError> {
        let mut batch = sled::Batch::default();
        let failed = |source: serde_json::Error| io_error(&self.dir, source.into());
        for change in changes {
            for entry in record::entries(change).map_err(failed)? {
                match entry {
                    Entry::Put { kind, id, json } => {
                        let mut value = format!("{{\"v\":{},\"record\":", record::VERSION).into_bytes();
                        value.extend_from_slice(&json);
                        value.push(b'}');
                        batch.insert(format!("{kind}/{id}").as_bytes(), value);
                    }
                    Entry::Drop { kind, id } => batch.remove(format!("{kind}/{id}").as_bytes()),
                }
            }
        }
        let written = self.db.apply_batch(batch).and_then(|()| self.db.flush());
        written.map_err(|error| sorted(&self.dir, error))?;
        self.file.sync_all().map_err(|source| StoreError::Io { path: self.dir.join("db"), source })?;
        self.mark()
    }

    fn mark(&self) -> Result<(), StoreError> {
        if self.is_marked.load(Ordering::Relaxed) {
            return Ok(());
        }
        let path = Self::marker(&self.dir);
        let made = File::options().create(true).truncate(true).write(true).mode(0o600).open(&path);
        let made = made.and_then(|file| file.sync_all()).and_then(|()| sync_parent(&path));
        made.map_err(|source| StoreError::Io { path, source })?;
        self.is_marked.store(true, Ordering::Relaxed);
        Ok(())
    }
}

fn io_error(path: &Path, source: io::Error) -> StoreError {
    StoreError::Io { path: path.to_owned(), source }
}

fn sync_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}

/// Reads a record, and the version in which it was written.
fn read(dir: &Path, key: &[u8], value: &[u8]) -> Result<(Vec<Change>, u32), StoreError> {
    let key = String::from_utf8_lossy(key);
    let damaged = |why: String| StoreError::Damaged { dir: dir.to_owned(), why: format!("{key}: {why}") };
    let stored: Stored<'_> = serde_json::from_slice(value).map_err(|error| damaged(error.to_string()))?;
    let (kind, id) = key.split_once('/').unwrap_or_default();
    match record::read(kind, id, stored.v, stored.record.get()) {
        Ok(changes) => Ok((changes, stored.v)),
        Err(BadRecord::Newer) => Err(StoreError::Newer { dir: dir.to_owned() }),
        Err(BadRecord::Form(why)) => Err(damaged(why)),
    }
}

/// Syncs a new store, so that its settings and its name survive a power cut, too.
fn sync_new(dir: &Path) -> Result<(), StoreError> {
    for path in [dir.join("conf"), dir.to_owned()].into_iter().chain(dir.parent().map(Path::to_owned)) {
        let synced = File::open(&path).and_then(|file| file.sync_all());
        synced.map_err(|source| StoreError::Io { path, source })?;
    }
    Ok(())
}

fn sorted(dir: &Path, error: sled::Error) -> StoreError {
    match error {
        sled::Error::Io(source) => StoreError::Io { path: dir.to_owned(), source },
        sled::Error::CollectionNotFound(_)
        | sled::Error::Unsupported(_)
        | sled::Error::ReportableBug(_)
        | sled::Error::Corruption { .. } => {
            StoreError::Damaged { dir: dir.to_owned(), why: error.to_string() }
        }
    }
}

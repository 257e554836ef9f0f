//! Stores the fleet server's records on disk, in a redb file. It does not know what they mean.
//!
//! Every group of acts is one transaction, which is on disk before the acts are answered.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redb::backends::FileBackend;
use redb::{
    Database, DatabaseError, ReadOnlyDatabase, ReadableDatabase as _, ReadableTable as _,
    ReadableTableMetadata as _, StorageError, TableDefinition,
};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::audit_log::{self, AUDIT_TRAIL, AuditLog};
use super::policy::Change;
use super::reading;
use super::record::{self, BadRecord, Entry};
use super::sled_store;
use super::store_error::{FILE, StoreError, io_error};

/// The only table: records by `kind/id`.
const RECORDS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("records");

/// Maximum memory that redb uses for pages.
const CACHE: usize = 16 << 20;

/// The open store. Only one process can open it.
#[derive(Debug)]
pub(super) struct Store {
    db: Arc<Database>,
    dir: PathBuf,
    file: PathBuf,
    /// Whether the marker file exists, which says that this store is not empty. A file that lost its content would be taken
    /// for a new one, and a fleet must not disappear unnoticed.
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

/// What is in the place of the records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    Nothing,
    /// A server has it open.
    InUse,
    /// It was not closed, so only a server can read it.
    Unclosed,
    /// So many records, without the audit trail.
    Records(u64),
}

/// Looks at the records of a data folder, and writes nothing.
///
/// # Errors
///
/// As [`Store::open`].
pub(super) fn look(dir: &Path) -> Result<Found, StoreError> {
    let (path, lock) = (dir.join(FILE), dir.join("lock"));
    let open = |path: &Path| match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(io_error(path, source)),
    };
    let Some(_file) = open(&path)? else {
        let is_old = sled_store::place(dir).exists();
        if Store::marker(dir).exists() && !is_old {
            return Err(gone(dir));
        }
        return Ok(if is_old { Found::Unclosed } else { Found::Nothing });
    };
    let lock = open(&lock)?;
    if lock.as_ref().is_some_and(|lock| matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock))) {
        return Ok(Found::InUse);
    }
    reading::guarded(dir, || count(dir, &path))
}

fn count(dir: &Path, path: &Path) -> Result<Found, StoreError> {
    let db = match ReadOnlyDatabase::open(path) {
        Ok(db) => db,
        Err(DatabaseError::DatabaseAlreadyOpen) => return Ok(Found::InUse),
        Err(DatabaseError::RepairAborted) => return Ok(Found::Unclosed),
        Err(error) => return Err(unopened(dir, error)),
    };
    let failed = |error: redb::Error| StoreError::of(dir, error);
    let reading = db.begin_read().map_err(|error| failed(error.into()))?;
    match reading.open_table(RECORDS) {
        Ok(table) => Ok(Found::Records(table.len().map_err(|error| failed(error.into()))?)),
        Err(redb::TableError::TableDoesNotExist(_)) => Ok(Found::Records(0)),
        Err(error) => Err(failed(error.into())),
    }
}

fn gone(dir: &Path) -> StoreError {
    StoreError::Damaged { dir: dir.to_owned(), why: "they are gone, and were not empty".to_owned() }
}

/// A record in the database.
#[derive(Deserialize)]
struct Stored<'a> {
    v: u32,
    #[serde(borrow)]
    record: &'a RawValue,
}

impl Store {
    /// Opens the store of a data folder, creates it if it is missing, and reads all of it. Takes over the records of an older
    /// version.
    ///
    /// # Errors
    ///
    /// Distinguishes a damaged store from one that cannot be opened because of the disk or its permissions.
    pub(super) fn open(dir: &Path) -> Result<(Self, Vec<Change>), StoreError> {
        let file = dir.join(FILE);
        let old = sled_store::place(dir);
        if !file.exists() {
            if Self::marker(dir).exists() && !old.exists() {
                return Err(gone(dir));
            }
            begin(dir, &file)?;
        }
        if old.exists() {
            // They are in the new file; a person may delete them.
            let aside = old.with_extension("sled");
            fs::rename(&old, &aside).map_err(|source| io_error(&old, source))?;
            tracing::info!(path = %aside.display(), "the records of an older version are taken over; its folder can be deleted");
        }
        let (store, changes) = Self::open_file(dir, &file)?;
        if store.is_marked.load(Ordering::Relaxed) && changes.is_empty() {
            let why = "they are empty, and were not before".to_owned();
            return Err(StoreError::Damaged { dir: dir.to_owned(), why });
        }
        Ok((store, changes))
    }

    /// Opens one file, creates it if it is missing, and reads all of it.
    ///
    /// # Errors
    ///
    /// As [`Self::open`].
    pub(super) fn open_file(dir: &Path, path: &Path) -> Result<(Self, Vec<Change>), StoreError> {
        reading::guarded(dir, || Self::open_unguarded(dir, path))
    }

    fn open_unguarded(dir: &Path, path: &Path) -> Result<(Self, Vec<Change>), StoreError> {
        let mut options = File::options();
        let file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
        let file = file.map_err(|source| io_error(path, source))?;
        let mut builder = Database::builder();
        let opened =
            FileBackend::new(file).and_then(|file| builder.set_cache_size(CACHE).create_with_backend(file));
        let mut db = opened.map_err(|error| unopened(dir, error))?;
        // Reads every page, so that damage is found now and not in the middle of an act.
        db.check_integrity().map_err(|error| unopened(dir, error))?;
        let is_marked = Self::marker(dir).exists();
        let store = Self {
            db: Arc::new(db),
            dir: dir.to_owned(),
            file: path.to_owned(),
            is_marked: AtomicBool::new(is_marked),
        };
        let changes = store.read_all()?;
        Ok((store, changes))
    }

    fn read_all(&self) -> Result<Vec<Change>, StoreError> {
        let failed = |error: redb::Error| self.failed(error);
        let reading = self.db.begin_read().map_err(|error| failed(error.into()))?;
        let table = match reading.open_table(RECORDS) {
            Ok(table) => table,
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
            Err(error) => return Err(failed(error.into())),
        };
        let mut changes = Vec::new();
        for entry in table.iter().map_err(|error| failed(error.into()))? {
            let (key, value) = entry.map_err(|error| failed(error.into()))?;
            changes.extend(read(&self.dir, key.value(), value.value())?);
        }
        // The audit trail stays on the disk, but for its last number.
        if let Some(newest) = self.audit_log().newest().map_err(failed)? {
            let key = format!("{}/{}", record::AUDIT, newest.0);
            changes.extend(read(&self.dir, &key, &newest.1)?);
        }
        Ok(changes)
    }

    /// Writes all changes or none, and returns once they are on the disk.
    ///
    /// # Errors
    ///
    /// Then the content of the disk is unknown: drop the store and open it again.
    pub(super) fn commit(&self, changes: &[Change]) -> Result<(), StoreError> {
        self.write(changes).map_err(|error| self.failed(error))?;
        self.mark()
    }

    fn write(&self, changes: &[Change]) -> Result<(), redb::Error> {
        let writing = self.db.begin_write()?;
        {
            let mut table = writing.open_table(RECORDS)?;
            let mut trail = writing.open_table(AUDIT_TRAIL)?;
            for change in changes {
                let entries = record::entries(change).map_err(|error| redb::Error::Io(error.into()))?;
                for entry in entries {
                    match entry {
                        Entry::Put { kind, id, json } => {
                            let mut value = format!("{{\"v\":{},\"record\":", record::VERSION).into_bytes();
                            value.extend_from_slice(&json);
                            value.push(b'}');
                            if let Some(number) = audit_log::number_of(kind, &id) {
                                trail.insert(number, value.as_slice())?;
                            } else {
                                table.insert(format!("{kind}/{id}").as_str(), value.as_slice())?;
                            }
                        }
                        Entry::Drop { kind, id } => {
                            if let Some(number) = audit_log::number_of(kind, &id) {
                                trail.remove(number)?;
                            } else {
                                table.remove(format!("{kind}/{id}").as_str())?;
                            }
                        }
                    }
                }
            }
        }
        writing.commit()?;
        Ok(())
    }

    /// Returns the path of the marker file. It is beside the records, because their content may be lost.
    pub(super) fn marker(dir: &Path) -> PathBuf {
        dir.join("store.begun")
    }

    /// Returns the audit trail. Drop it soon: the store cannot be opened again while it lives.
    pub(super) fn audit_log(&self) -> AuditLog {
        AuditLog::new(Arc::clone(&self.db))
    }

    /// Creates the marker. Only the store in its place has one.
    fn mark(&self) -> Result<(), StoreError> {
        if self.is_marked.load(Ordering::Relaxed) || self.file != self.dir.join(FILE) {
            return Ok(());
        }
        make_marker(&self.dir)?;
        self.is_marked.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn failed(&self, error: redb::Error) -> StoreError {
        StoreError::of(&self.dir, error)
    }
}

/// Creates the marker that says that the records of a folder are not empty.
///
/// # Errors
///
/// The disk's own.
pub(super) fn make_marker(dir: &Path) -> Result<(), StoreError> {
    let path = Store::marker(dir);
    let made = File::options().create(true).truncate(true).write(true).mode(0o600).open(&path);
    let made = made.and_then(|file| file.sync_all()).and_then(|()| sync_parent(&path));
    made.map_err(|source| StoreError::Io { path, source })
}

/// Begins the file of the records, with those of an older version if there are some. It takes its place once it is complete.
fn begin(dir: &Path, file: &Path) -> Result<(), StoreError> {
    let entries = sled_store::read(dir)?;
    let mut changes = Vec::new();
    for (key, value) in &entries {
        changes.extend(read(dir, key, value)?);
    }
    let unfinished = dir.join("records.new");
    write_new(dir, &unfinished, &changes)?;
    fs::rename(&unfinished, file).map_err(|source| io_error(&unfinished, source))?;
    sync_parent(file).map_err(|source| io_error(file, source))
}

/// Writes records to a new file, in place of one with this name.
///
/// # Errors
///
/// As [`Store::open`].
pub(super) fn write_new(dir: &Path, path: &Path, changes: &[Change]) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io_error(path, error)),
        Ok(()) | Err(_) => {}
    }
    let (store, _) = Store::open_file(dir, path)?;
    store.commit(changes)
}

fn read(dir: &Path, key: &str, value: &[u8]) -> Result<Vec<Change>, StoreError> {
    let damaged = |why: String| StoreError::Damaged { dir: dir.to_owned(), why: format!("{key}: {why}") };
    let stored: Stored<'_> = serde_json::from_slice(value).map_err(|error| damaged(error.to_string()))?;
    let (kind, id) = key.split_once('/').unwrap_or_default();
    record::read(kind, id, stored.v, stored.record.get()).map_err(|error| match error {
        BadRecord::Newer => StoreError::Newer { dir: dir.to_owned() },
        BadRecord::Form(why) => damaged(why),
    })
}

fn sync_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}

#[expect(clippy::wildcard_enum_match_arm, reason = "all other errors are sorted in one place")]
fn unopened(dir: &Path, error: DatabaseError) -> StoreError {
    match error {
        // A file that is no database at all.
        DatabaseError::Storage(StorageError::Io(error)) if error.kind() == io::ErrorKind::InvalidData => {
            StoreError::Damaged { dir: dir.to_owned(), why: error.to_string() }
        }
        DatabaseError::UpgradeRequired(_) | DatabaseError::RepairAborted => {
            StoreError::Damaged { dir: dir.to_owned(), why: error.to_string() }
        }
        other => StoreError::of(dir, other.into()),
    }
}

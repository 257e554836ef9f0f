//! The store of one server: the file in its data folder.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use jiff::Timestamp;

use super::access::{Entry, Scope, Which};
use super::audit_log::{AuditLog, Page};
use super::locks::locked;
use super::policy::Change;
use super::storage::{News, Opened, Storage, Trail};
use super::store::Store;
use super::store_error::{FILE, StoreError};

/// The file, and the audit trail in it.
struct FileStorage {
    /// `None` after a failed write, until the file is opened and read again.
    store: Option<Store>,
    trail: FileTrail,
}

/// The audit trail of the file that is open. After a failed write there is none, until the file is opened again: that needs all
/// handles of the one before to be gone.
#[derive(Debug, Clone)]
struct FileTrail {
    log: Arc<Mutex<Option<AuditLog>>>,
    dir: PathBuf,
}

/// Returns which file the records are in: its device and inode.
pub(super) fn file_id(dir: &Path) -> Option<(u64, u64)> {
    let file = fs::metadata(dir.join(FILE)).ok()?;
    Some((file.dev(), file.ino()))
}

/// Opens the store of a data folder.
///
/// # Errors
///
/// As [`Store::open`].
pub(super) fn open(dir: &Path) -> Result<Opened, StoreError> {
    let (store, records) = Store::open(dir)?;
    let log = Arc::new(Mutex::new(Some(store.audit_log())));
    let trail = FileTrail { log, dir: dir.to_owned() };
    let storage = Box::new(FileStorage { store: Some(store), trail: trail.clone() });
    Ok(Opened { storage, trail: Box::new(trail), records, position: None, own: String::new() })
}

impl Storage for FileStorage {
    fn begin(&mut self) -> Result<News, StoreError> {
        if self.store.is_some() {
            return Ok(News::None);
        }
        self.trail.set(None);
        let (store, records) = Store::open(&self.trail.dir)?;
        self.trail.set(Some(store.audit_log()));
        self.store = Some(store);
        tracing::info!("opened the records again after a failed write");
        Ok(News::All(records, None))
    }

    /// After an error the file is closed, because after a full disk redb keeps failing until it is opened again.
    fn commit(&mut self, changes: &[Change]) -> Result<Option<u64>, StoreError> {
        let store = self.store.take().ok_or(StoreError::Closed)?;
        store.commit(changes)?;
        self.store = Some(store);
        Ok(None)
    }

    fn end(&mut self) {}

    fn refresh(&mut self) -> Result<News, StoreError> {
        Ok(News::None)
    }
}

impl FileTrail {
    fn set(&self, log: Option<AuditLog>) {
        *locked(&self.log) = log;
    }

    fn read<T>(&self, read: impl FnOnce(&AuditLog) -> Result<T, redb::Error>) -> Result<T, StoreError> {
        let log = locked(&self.log).clone();
        let log = log.ok_or(StoreError::Closed)?;
        read(&log).map_err(|error| StoreError::of(&self.dir, error))
    }
}

impl Trail for FileTrail {
    fn page(&self, which: &Which, scope: &Scope, below: u64, most: usize) -> Result<Page, StoreError> {
        self.read(|log| log.page(which, scope, below, most))
    }

    fn old(&self, keep: u64, before: Timestamp, most: usize) -> Result<Vec<u64>, StoreError> {
        self.read(|log| log.old(keep, |entry: &Entry| entry.at < before, most))
    }
}

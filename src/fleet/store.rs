//! Stores the fleet server's records on disk, in sled. It does not know what they mean.
//!
//! Every act is one atomic batch, which is on disk before the act is answered. sled's own flush does not survive a power
//! cut, so its file is synced here, too.

use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::policy::{Bar, Change, Device, KeyHash, Reported};
use crate::model::DeviceUuid;
use crate::ownership::{self, NotOurs};

/// Version of the records' format. Records of older versions are read, too; fields that they do not have get defaults. A
/// server that knows only an older version refuses this store: one that knows version 1 would accept a revoked provisioning
/// key, and one that knows version 2 would lose reports, which had no records of their own.
const VERSION: u32 = 3;

/// The first version in which reports are records of their own.
const OWN_REPORTS: u32 = 3;

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

#[derive(Serialize)]
struct Written<'a, T> {
    v: u32,
    record: &'a T,
}

#[derive(Deserialize)]
struct Read<T> {
    record: T,
}

#[derive(Deserialize)]
struct ReadVersion {
    v: u32,
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
            let (change, reports) = read(dir, &key, &value)?;
            if let Some(reports) = reports {
                old.extend([change.clone(), reports.clone()]);
                changes.push(reports);
            }
            changes.push(change);
        }
        let is_marked = marker(dir).exists();
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
        for change in changes {
            match change {
                Change::Counters(counters) => put(&mut batch, "counters", "", counters),
                Change::PutFleet(fleet) => put(&mut batch, "fleet", &number(fleet.number), fleet),
                Change::PutRelease(release) => put(&mut batch, "release", &number(release.number), release),
                Change::PutDevice(device) => put(&mut batch, "device", device.uuid.as_str(), device),
                Change::PutReports(uuid, reported) => put(&mut batch, "reports", uuid.as_str(), reported),
                Change::PutKey(key) => put(&mut batch, "key", &key.hash.0, key),
                Change::RetireKey(hash) => put(&mut batch, "retired", &hash.0, hash),
                Change::PutBar(bar) => put(&mut batch, "bar", bar.device.uuid.as_str(), bar),
                Change::DropBar(uuid) => {
                    batch.remove(format!("bar/{uuid}").as_str());
                    Ok(())
                }
                Change::DropDevice(uuid) => {
                    batch.remove(format!("device/{uuid}").as_str());
                    batch.remove(format!("reports/{uuid}").as_str());
                    Ok(())
                }
                Change::DropKey(hash) => {
                    batch.remove(format!("key/{}", hash.0).as_str());
                    Ok(())
                }
                Change::DropFleet(fleet) => {
                    batch.remove(format!("fleet/{}", number(*fleet)).as_str());
                    Ok(())
                }
                Change::DropRelease(release) => {
                    batch.remove(format!("release/{}", number(*release)).as_str());
                    Ok(())
                }
            }
            .map_err(|source| StoreError::Io { path: self.dir.clone(), source: source.into() })?;
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
        let path = marker(&self.dir);
        let made = File::options().create(true).truncate(true).write(true).mode(0o600).open(&path);
        let made = made.and_then(|file| file.sync_all()).and_then(|()| sync_parent(&path));
        made.map_err(|source| StoreError::Io { path, source })?;
        self.is_marked.store(true, Ordering::Relaxed);
        Ok(())
    }
}

/// Returns the path of the marker file. It is next to the store, because the content of the store may be lost.
fn marker(dir: &Path) -> PathBuf {
    dir.with_extension("begun")
}

fn io_error(path: &Path, source: io::Error) -> StoreError {
    StoreError::Io { path: path.to_owned(), source }
}

fn sync_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}

fn number(number: u64) -> String {
    format!("{number:020}")
}

fn put<T: Serialize>(batch: &mut sled::Batch, kind: &str, id: &str, record: &T) -> serde_json::Result<()> {
    let value = serde_json::to_vec(&Written { v: VERSION, record })?;
    batch.insert(format!("{kind}/{id}").as_bytes(), value);
    Ok(())
}

/// Reads a record; and the reports of a device, if an older version wrote them into its record.
fn read(dir: &Path, key: &[u8], value: &[u8]) -> Result<(Change, Option<Change>), StoreError> {
    let key = String::from_utf8_lossy(key);
    let damaged = |why: String| StoreError::Damaged { dir: dir.to_owned(), why: format!("{key}: {why}") };
    let version: ReadVersion = serde_json::from_slice(value).map_err(|error| damaged(error.to_string()))?;
    if version.v > VERSION {
        return Err(StoreError::Newer { dir: dir.to_owned() });
    }
    let (kind, id) = key.split_once('/').unwrap_or_default();
    let mut reports = None;
    let change = match kind {
        "counters" => record(value).map(Change::Counters),
        "fleet" => record(value).map(Change::PutFleet),
        "release" => record(value).map(Change::PutRelease),
        "device" if version.v < OWN_REPORTS => record(value).map(|device: OldDevice| {
            reports = Some(Change::PutReports(device.device.uuid.clone(), device.reported));
            Change::PutDevice(device.device)
        }),
        "device" => record(value).map(Change::PutDevice),
        "reports" => {
            let uuid = DeviceUuid::parse(id).map_err(|error| damaged(error.to_string()))?;
            record(value).map(|reported| Change::PutReports(uuid, reported))
        }
        "key" => record(value).map(Change::PutKey),
        "retired" => record::<KeyHash>(value).map(Change::RetireKey),
        "bar" => record::<Bar>(value).map(Change::PutBar),
        _ => return Err(damaged("unknown kind of record".to_owned())),
    };
    Ok((change.map_err(|error| damaged(error.to_string()))?, reports))
}

/// A device's record of version 1 or 2.
#[derive(Deserialize)]
struct OldDevice {
    #[serde(flatten)]
    device: Device,
    #[serde(default)]
    reported: Reported,
}

fn record<T: DeserializeOwned>(value: &[u8]) -> serde_json::Result<T> {
    serde_json::from_slice(value).map(|read: Read<T>| read.record)
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

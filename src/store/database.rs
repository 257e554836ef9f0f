//! The database: the only file that names sled (0.34.7).
//!
//! What facts of sled shape this file (measured, docs of the project; source where named):
//! - `flush()` never calls fsync (iobuf.rs), so each write ends with `sync_all` on a handle of our own.
//! - A message beyond a quarter of a segment goes to a file of its own that is never fsynced
//!   (blob_io.rs). A leaf holds up to 17 items (node.rs). So records are cut into cells of at
//!   most 1 KiB and segments are 128 KiB: the largest leaf, 20 KB, stays below 32 KB.
//! - Damage shows as an error or a panic at open, or only on reading: all is read, inside
//!   `catch_unwind`. A lost tail shows as nothing at all: hence a number and a checksum over
//!   everything, written in the same batch as the change.
//! - An I/O error sticks to its handle: after any error the handle must be dropped and reopened.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use futures_util::FutureExt as _;
use serde::{Deserialize, Serialize};

use super::StoreError;
use super::folder;
use super::mirror::Found;
use super::records::{Records, Snapshot, VERSION, digest, other_version, without_content};

/// sled's largest value that never becomes a file of its own, with room to spare.
const CELL: usize = 1024;
const SEGMENT: usize = 128 << 10;
const CACHE: u64 = 256 << 10;

/// Opening takes 10–70 ms on a PC; a slow SD card may need a hundred times that.
const PATIENCE: Duration = Duration::from_secs(30);

/// The key of [`Meta`]. Cells are `<record>/<4 hex digits>`, and no record is named `meta`.
const META: &[u8] = b"meta";

#[derive(Serialize, Deserialize)]
struct Meta {
    v: u32,
    seq: u64,
    sha256: String,
}

#[derive(Deserialize)]
struct AnyVersion {
    v: u32,
}

/// An open database and what it holds.
pub(super) struct Database {
    folder: PathBuf,
    /// Always there, but while it is dropped.
    sled: Option<sled::Db>,
    /// For `sync_all`: sled lends nobody its own handle.
    file: File,
    held: Snapshot,
}

/// Why nothing can be read: damaged for good, or not now.
enum Trouble {
    Damaged(String),
    Foreign(String),
    Now(StoreError),
}

impl Database {
    /// Opens or creates the database and reads all of it.
    ///
    /// Returns no database when what is there cannot be used; then [`Found`] says why.
    /// Takes up to 0.2 s longer when another handle is just being closed, and [`PATIENCE`] when
    /// sled hangs: seen only with large values on a damaged or full disk, but a device that
    /// waits for its memory at every start would be lost.
    pub(super) fn open(folder: &Path) -> (Option<Self>, Found) {
        let (tx, rx) = mpsc::sync_channel(1);
        let path = folder.to_path_buf();
        let opener = std::thread::Builder::new().name("store-open".to_owned()).spawn(move || {
            be_patient();
            let opened = quietly(|| open(&path)).unwrap_or_else(|panic| Err(Trouble::Damaged(panic)));
            // Nobody waits any more: the database is dropped, and with it the lock on its file.
            let _ = tx.send(opened);
        });
        let opened = opener
            .and_then(|_| rx.recv_timeout(PATIENCE).map_err(|_| io::ErrorKind::TimedOut.into()))
            .unwrap_or_else(|source| Err(Trouble::Now(StoreError::of("open", folder, source))));
        match opened {
            Ok(database) if database.held == Snapshot::default() => (Some(database), Found::Nothing),
            Ok(database) => {
                let held = database.held.clone();
                (Some(database), Found::Whole(held))
            }
            Err(Trouble::Damaged(why)) => (None, Found::Damaged(why)),
            Err(Trouble::Foreign(why)) => (None, Found::Foreign(why)),
            Err(Trouble::Now(error)) => (None, Found::Unreadable(error)),
        }
    }

    /// What it holds.
    pub(super) fn held(&self) -> &Snapshot {
        &self.held
    }

    /// Makes the content that of `next`, as one step, writing only cells that differ.
    ///
    /// # Errors
    ///
    /// [`StoreError::Damaged`] or what the disk says. The database must then be dropped and
    /// opened again: it holds `next` or what it held before.
    pub(super) fn write(&mut self, next: &Snapshot) -> Result<(), StoreError> {
        let batch = batch(&self.held.records, next)?;
        let Some(sled) = self.sled.as_ref() else {
            return Ok(());
        };
        let flushed = catch_unwind(AssertUnwindSafe(|| {
            sled.apply_batch(batch)?;
            sled.flush()
        }))
        .map_err(|panic| StoreError::Damaged { path: self.folder.clone(), why: told(panic.as_ref()) })?;
        flushed.map_err(|error| match sorted(&self.folder, "write", error) {
            Trouble::Damaged(why) | Trouble::Foreign(why) => {
                StoreError::Damaged { path: self.folder.clone(), why }
            }
            Trouble::Now(error) => error,
        })?;
        self.file.sync_all().map_err(|source| StoreError::of("sync", &self.folder, source))?;
        self.held = next.clone();
        Ok(())
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let sled = self.sled.take();
        // sled panics when its last sync fails (logger.rs).
        let _ = quietly(|| drop(sled));
    }
}

/// Lets this thread's timers, and those of the threads that it starts, ring an hour late.
///
/// sled keeps seven threads for its files, for good, and each looks every second whether there is work
/// (threadpool.rs), which was nearly all that the agent computed at rest. Work wakes them at once all the
/// same. They begin with the first database, in here, and inherit the slack (prctl(2), PR_SET_TIMERSLACK).
fn be_patient() {
    let path = fs::read_link("/proc/thread-self").ok();
    if let Some(thread) = path.as_ref().and_then(|path| path.file_name()) {
        // Where the kernel has no such file, they go on waking up.
        let _ = fs::write(Path::new("/proc").join(thread).join("timerslack_ns"), "3600000000000");
    }
}

fn open(folder: &Path) -> Result<Database, Trouble> {
    // sled writes a `conf` of up to 8 bytes anew (config.rs).
    let is_new = fs::metadata(folder.join("conf")).map_or(0, |conf| conf.len()) <= 8;
    let now = |doing| move |source| Trouble::Now(StoreError::of(doing, folder, source));
    if fs::symlink_metadata(folder).is_err() {
        DirBuilder::new().mode(0o700).create(folder).map_err(now("create"))?;
    }
    let sled = open_sled(folder)?;
    if is_new {
        // Its threads would begin with the first write, elsewhere.
        drop(sled.flush_async().now_or_never());
    }
    private(folder);
    let path = folder.join("db");
    let file = File::open(&path).map_err(now("open"))?;
    if is_new {
        // A half-written `conf` is damage; a missing one is not. It never changes again.
        for made in [&folder.join("conf"), &path, folder, folder.parent().unwrap_or(folder)] {
            folder::sync_folder(made).map_err(now("sync"))?;
        }
    }
    let held = scan(folder, &sled)?;
    Ok(Database { folder: folder.to_path_buf(), sled: Some(sled), file, held })
}

/// The same for the life of a database: sled refuses another segment size.
pub(super) fn config(folder: &Path) -> sled::Config {
    sled::Config::new().path(folder).cache_capacity(CACHE).flush_every_ms(None).segment_size(SEGMENT)
}

fn open_sled(folder: &Path) -> Result<sled::Db, Trouble> {
    let config = config(folder);
    for _ in 0..20 {
        match config.open() {
            Err(sled::Error::Io(e)) if e.to_string().contains("could not acquire lock") => {
                std::thread::sleep(Duration::from_millis(10));
            }
            opened => return opened.map_err(|error| sorted(folder, "open", error)),
        }
    }
    Err(Trouble::Now(StoreError::InUse { path: folder.to_path_buf() }))
}

/// Reads every tree, so that damage is found now and not in the middle of an update.
fn scan(folder: &Path, sled: &sled::Db) -> Result<Snapshot, Trouble> {
    let bad = |error| sorted(folder, "read", error);
    let mut cells = BTreeMap::new();
    for name in sled.tree_names() {
        let is_ours = name == b"__sled__default";
        for cell in &sled.open_tree(&name).map_err(bad)? {
            let (key, value) = cell.map_err(bad)?;
            if !is_ours {
                return Err(Trouble::Damaged("it has a tree that is not ours".to_owned()));
            }
            cells.insert(key.to_vec(), value);
        }
    }
    let Some(meta) = cells.remove(META) else {
        return if cells.is_empty() {
            Ok(Snapshot::default())
        } else {
            Err(Trouble::Damaged("it has records but no number".to_owned()))
        };
    };
    let AnyVersion { v } = serde_json::from_slice(&meta).map_err(|e| Trouble::Damaged(without_content(e)))?;
    if v != VERSION {
        return Err(Trouble::Foreign(other_version(v)));
    }
    let meta: Meta = serde_json::from_slice(&meta).map_err(|e| Trouble::Damaged(without_content(e)))?;
    let snapshot = Snapshot { seq: meta.seq, records: joined(cells)? };
    if digest(&snapshot) != meta.sha256 {
        return Err(Trouble::Damaged("its checksum is wrong".to_owned()));
    }
    Ok(snapshot)
}

fn joined(cells: BTreeMap<Vec<u8>, sled::IVec>) -> Result<Records, Trouble> {
    let strange = || Trouble::Damaged("it has a key that is not ours".to_owned());
    let mut texts: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for (key, value) in cells {
        let key = String::from_utf8(key).map_err(|_| strange())?;
        let (record, _) = key.rsplit_once('/').ok_or_else(strange)?;
        texts.entry(record.to_owned()).or_default().extend_from_slice(&value);
    }
    texts
        .into_iter()
        .map(|(record, text)| Ok((record, Arc::from(String::from_utf8(text).map_err(|_| strange())?))))
        .collect()
}

fn batch(held: &Records, next: &Snapshot) -> Result<sled::Batch, StoreError> {
    let mut batch = sled::Batch::default();
    for (key, value) in changes(held, &next.records) {
        match value {
            [] => batch.remove(key),
            value => batch.insert(key, value),
        }
    }
    let meta = Meta { v: VERSION, seq: next.seq, sha256: digest(next) };
    let meta = serde_json::to_vec(&meta)
        .map_err(|source| StoreError::Encode { record: "meta".to_owned(), source })?;
    batch.insert(META, meta);
    Ok(batch)
}

/// The cells that differ, with what they shall hold; empty ones shall go.
pub(super) fn changes<'a>(held: &'a Records, next: &'a Records) -> Vec<(Vec<u8>, &'a [u8])> {
    let mut changes = Vec::new();
    for name in held.keys().chain(next.keys().filter(|name| !held.contains_key(*name))) {
        let [old, new] =
            [held, next].map(|records| records.get(name).map_or(&b""[..], |text| text.as_bytes()));
        for index in 0..old.len().max(new.len()).div_ceil(CELL) {
            if cell(old, index) != cell(new, index) {
                changes.push((key(name, index), cell(new, index)));
            }
        }
    }
    changes
}

fn cell(text: &[u8], index: usize) -> &[u8] {
    text.chunks(CELL).nth(index).unwrap_or_default()
}

fn key(record: &str, index: usize) -> Vec<u8> {
    format!("{record}/{index:04x}").into_bytes()
}

/// sled makes its files with the process's umask.
fn private(folder: &Path) {
    folder::keep_private(folder, 0o700);
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let mode = if entry.path().is_dir() { 0o700 } else { 0o600 };
        folder::keep_private(&entry.path(), mode);
    }
}

/// Damage, or the disk's trouble? A full disk must never cost the database.
fn sorted(folder: &Path, doing: &'static str, error: sled::Error) -> Trouble {
    match error {
        sled::Error::Io(e) if is_wrong_file(e.kind()) => {
            Trouble::Damaged(format!("a file of it is wrong: {e}"))
        }
        sled::Error::Io(e) if e.kind() == io::ErrorKind::PermissionDenied => {
            Trouble::Now(folder::setup(folder, e))
        }
        sled::Error::Io(e) => Trouble::Now(StoreError::of(doing, folder, e)),
        sled::Error::Corruption { .. } => Trouble::Damaged("sled found corruption".to_owned()),
        sled::Error::Unsupported(why) | sled::Error::ReportableBug(why) => Trouble::Damaged(why),
        sled::Error::CollectionNotFound(_) => Trouble::Damaged("a tree is missing".to_owned()),
    }
}

/// Errors that a sound disk gives when the files themselves are not what sled left.
fn is_wrong_file(kind: io::ErrorKind) -> bool {
    matches!(
        kind,
        io::ErrorKind::NotFound
            | io::ErrorKind::NotADirectory
            | io::ErrorKind::IsADirectory
            | io::ErrorKind::AlreadyExists
            | io::ErrorKind::UnexpectedEof
            | io::ErrorKind::InvalidData
            | io::ErrorKind::InvalidInput
    )
}

/// Runs `work`; a panic becomes its message, and this thread's panics print nothing meanwhile.
fn quietly<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    if std::thread::panicking() {
        return catch_unwind(AssertUnwindSafe(work)).map_err(|panic| told(panic.as_ref()));
    }
    let before = Arc::new(std::panic::take_hook());
    let (ours, during) = (std::thread::current().id(), Arc::clone(&before));
    // Should another thread change hooks at the same time, ours may stay: then it must do nothing.
    let is_quiet = Arc::new(AtomicBool::new(true));
    let quiet = Arc::clone(&is_quiet);
    std::panic::set_hook(Box::new(move |info| {
        if std::thread::current().id() != ours || !quiet.load(Ordering::Relaxed) {
            during(info);
        }
    }));
    let done = catch_unwind(AssertUnwindSafe(work));
    is_quiet.store(false, Ordering::Relaxed);
    drop(std::panic::take_hook()); // and with it `during`, so that hooks never pile up
    match Arc::try_unwrap(before) {
        Ok(hook) => std::panic::set_hook(hook),
        Err(shared) => std::panic::set_hook(Box::new(move |info| shared(info))),
    }
    done.map_err(|panic| told(panic.as_ref()))
}

fn told(panic: &(dyn std::any::Any + Send)) -> String {
    let message = panic.downcast_ref::<String>().map(String::as_str);
    let message = message.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
    format!("sled panicked: {message}")
}

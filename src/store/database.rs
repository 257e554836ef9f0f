//! The database: the only file that names sled (0.34.7).
//!
//! What facts of sled shape this file (measured, docs of the project; source where named):
//! - `flush()` never calls fsync (iobuf.rs), so each write ends with `sync_all` on a handle of our own.
//! - A message beyond a quarter of a segment goes to a file of its own that is never fsynced
//!   (blob_io.rs). A leaf holds up to 17 items (node.rs). So records are cut into cells of at
//!   most 1 KiB and segments are 128 KiB: the largest leaf, 20 KB, stays below 32 KB.
//! - Damage shows as an error or a panic at open, or only on reading: all is read at once. A panic
//!   ends the process (`panic = "abort"`), and a mark beside the database remembers it ([`Mark`]).
//!   A lost tail shows as nothing at all: hence a number and a checksum over everything, written
//!   in the same batch as the change.
//! - An I/O error sticks to its handle: after any error the handle must be dropped and reopened.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
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
    sled: sled::Db,
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
        match opened_within_patience(folder, open) {
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
        self.sled.apply_batch(batch).and_then(|()| self.sled.flush()).map_err(|error| {
            match sorted(&self.folder, "write", error) {
                Trouble::Damaged(why) | Trouble::Foreign(why) => {
                    StoreError::Damaged { path: self.folder.clone(), why }
                }
                Trouble::Now(error) => error,
            }
        })?;
        self.file.sync_all().map_err(|source| StoreError::of("sync", &self.folder, source))?;
        self.held = next.clone();
        Ok(())
    }
}

/// Remembers that opening a database ended the process, once or twice in a row.
///
/// Empty files beside the database, there only while it is opened; they take no space from a disk that
/// is full. They are not synced: what ends a process leaves what it wrote.
struct Mark([PathBuf; 2]);

impl Mark {
    /// # Errors
    ///
    /// [`Trouble::Damaged`] when two openings did not come to an end: one may have been killed for
    /// another reason.
    fn make(folder: &Path) -> Result<Self, Trouble> {
        let mark = Self(["opening", "opening-again"].map(|extension| folder.with_extension(extension)));
        let Some(next) = mark.0.iter().find(|path| !path.exists()) else {
            return Err(Trouble::Damaged("sled ended the agent twice while it read it".to_owned()));
        };
        // Where nothing can be made, or a link is in its place, it is opened without.
        let _ = File::options().write(true).create_new(true).mode(0o600).open(next);
        Ok(mark)
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        for path in &self.0 {
            let _ = fs::remove_file(path);
        }
    }
}

/// Runs `open` on a thread of its own, and leaves that behind when it takes longer than [`PATIENCE`].
fn opened_within_patience<T: Send + 'static>(
    folder: &Path,
    open: impl FnOnce(&Path) -> Result<T, Trouble> + Send + 'static,
) -> Result<T, Trouble> {
    let mark = Mark::make(folder)?;
    let now = |source| Trouble::Now(StoreError::of("open", folder, source));
    let (tx, rx) = mpsc::sync_channel(1);
    let path = folder.to_path_buf();
    let opener = std::thread::Builder::new().name("store-open".to_owned()).spawn(move || {
        let opened = open(&path);
        drop(mark);
        // When nobody waits any more, the database is dropped, and with it the lock on its file.
        let _ = tx.send(opened);
    });
    opener.map_err(now)?;
    rx.recv_timeout(PATIENCE).unwrap_or_else(|none| match none {
        RecvTimeoutError::Timeout => Err(now(io::ErrorKind::TimedOut.into())),
        // Where panics unwind, as in tests, one ends only the thread.
        RecvTimeoutError::Disconnected => Err(Trouble::Damaged("sled panicked".to_owned())),
    })
}

/// Lets the timers of the threads that this one starts ring an hour late, and its own while `open` runs.
///
/// sled keeps seven threads for its files, for good, and each looks every second whether there is work
/// (threadpool.rs), which was nearly all that the agent computed at rest. Work wakes them at once all the
/// same. They begin with the first database, in here, and inherit the slack (prctl(2), PR_SET_TIMERSLACK).
fn patiently<T>(open: impl FnOnce() -> T) -> T {
    slacken(3_600_000_000_000);
    let opened = open();
    slacken(0);
    opened
}

/// Sets the slack of this thread's timers, in nanoseconds; 0 is that with which it began.
fn slacken(slack: u64) {
    let path = fs::read_link("/proc/thread-self").ok();
    if let Some(thread) = path.as_ref().and_then(|path| path.file_name()) {
        // Where the kernel has no such file, sled's threads go on waking up.
        let _ = fs::write(Path::new("/proc").join(thread).join("timerslack_ns"), slack.to_string());
    }
}

fn open(folder: &Path) -> Result<Database, Trouble> {
    // sled writes a `conf` of up to 8 bytes anew (config.rs).
    let is_new = fs::metadata(folder.join("conf")).map_or(0, |conf| conf.len()) <= 8;
    let now = |doing| move |source| Trouble::Now(StoreError::of(doing, folder, source));
    if fs::symlink_metadata(folder).is_err() {
        DirBuilder::new().mode(0o700).create(folder).map_err(now("create"))?;
    }
    private(folder)?;
    let sled = open_sled(folder)?;
    if is_new {
        // Its threads would begin with the first write, elsewhere.
        drop(patiently(|| sled.flush_async().now_or_never()));
    }
    private(folder)?;
    let path = folder.join("db");
    let file = File::open(&path).map_err(now("open"))?;
    if is_new {
        // A half-written `conf` is damage; a missing one is not. It never changes again.
        for made in [&folder.join("conf"), &path, folder, folder.parent().unwrap_or(folder)] {
            folder::sync_folder(made).map_err(now("sync"))?;
        }
    }
    let held = scan(folder, &sled)?;
    Ok(Database { folder: folder.to_path_buf(), sled, file, held })
}

/// The same for the life of a database: sled refuses another segment size.
pub(super) fn config(folder: &Path) -> sled::Config {
    sled::Config::new().path(folder).cache_capacity(CACHE).flush_every_ms(None).segment_size(SEGMENT)
}

fn open_sled(folder: &Path) -> Result<sled::Db, Trouble> {
    let config = config(folder);
    for _ in 0..20 {
        match patiently(|| config.open()) {
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

/// sled makes its files with the process's umask, and follows links.
fn private(folder: &Path) -> Result<(), Trouble> {
    match folder::keep_private(folder).map_err(Trouble::Now)? {
        Some(odd) => Err(Trouble::Damaged(odd)),
        None => Ok(()),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_is_just_being_closed_is_waited_for() {
        for _ in 0..3 {
            let dir = tempfile::tempdir().unwrap();
            let folder = dir.path().join("db");
            let (other, found) = Database::open(&folder);
            assert!(matches!(found, Found::Nothing));
            let closing = std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(30));
                drop(other);
            });
            assert!(matches!(Database::open(&folder).1, Found::Nothing));
            closing.join().unwrap();
        }
    }

    #[test]
    fn a_panic_while_it_is_opened_is_damage_and_leaves_its_mark_until_it_ends() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("db");
        let marks = || fs::read_dir(dir.path()).unwrap().count();
        fs::write(dir.path().join("db.opening"), "").unwrap();
        let again = dir.path().join("db.opening-again");
        let opened: Result<(), _> = opened_within_patience(&folder, move |_| {
            assert!(again.exists(), "an end now is remembered");
            panic!("tried to serialize Uninitialized");
        });
        assert!(matches!(opened, Err(Trouble::Damaged(why)) if why == "sled panicked"));
        assert_eq!(marks(), 0);
        let read = opened_within_patience(&folder, |folder| Ok(folder.to_path_buf()));
        assert!(matches!(read, Ok(path) if path == folder));
        assert_eq!(marks(), 0);
    }
}

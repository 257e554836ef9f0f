//! The database: the only file that names sled (0.34.7).
//!
//! The facts about sled that shape this file (measured, or from its documentation; its source file where named):
//! - `flush()` never calls fsync (iobuf.rs), so each write ends with `sync_all` on our own handle of its file.
//! - A message larger than a quarter of a segment goes to a separate file that is never fsynced (blob_io.rs). A leaf
//!   has up to 17 items (node.rs). So records are cut into cells of at most 1 KiB, and segments have 128 KiB: the
//!   largest leaf has 20 KB, which is less than 32 KB.
//! - Damage appears as an error or a panic at open, or only when a value is read. So everything is read at open. A
//!   panic ends the process (`panic = "abort"`), and a marker file next to the database records it ([`Mark`]). A lost
//!   tail is not reported at all. So each batch also writes a number and a checksum over everything.
//! - A handle that had an I/O error keeps failing, so it is dropped and opened again after any error.

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

/// Bytes of one value, well below the size that sled would write to a separate file.
const CELL: usize = 1024;
const SEGMENT: usize = 128 << 10;
const CACHE: u64 = 256 << 10;

/// Longest time to wait for sled to open. It takes 10–70 ms on a PC; a slow SD card may need a hundred times as long.
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

/// An open database and its content.
pub(super) struct Database {
    folder: PathBuf,
    sled: sled::Db,
    /// For `sync_all`, because sled does not give access to its own handle.
    file: File,
    held: Snapshot,
}

/// Why nothing can be read: because of damage, or only now.
enum Trouble {
    Damaged(String),
    Foreign(String),
    Now(StoreError),
}

impl Database {
    /// Opens or creates the database and reads all of it.
    ///
    /// Returns no database if it cannot be used; [`Found`] then says why. Takes up to 0.2 s longer while another handle is
    /// being closed, and up to [`PATIENCE`] if sled hangs. That happened only with large values on a damaged or full
    /// disk, but a device that hangs at every start would be lost.
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

    /// Returns the content.
    pub(super) fn held(&self) -> &Snapshot {
        &self.held
    }

    /// Replaces the content by `next` atomically. Writes only cells that differ.
    ///
    /// # Errors
    ///
    /// [`StoreError::Damaged`] or the error of the disk. The database must then be dropped and opened again. It has
    /// either its old content or `next`.
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
        self.file.sync_all().map_err(|source| StoreError::io("sync", &self.folder, source))?;
        self.held = next.clone();
        Ok(())
    }
}

/// Records that opening a database ended the process, once or twice in a row.
///
/// Empty files next to the database that exist only while it is opened, so a full disk has room for them. They are not
/// synced, because the end of a process does not lose what it wrote.
struct Mark([PathBuf; 2]);

impl Mark {
    /// # Errors
    ///
    /// [`Trouble::Damaged`] if two attempts to open it ended the process. A single one may have been killed for another
    /// reason.
    fn make(folder: &Path) -> Result<Self, Trouble> {
        let mark = Self(["opening", "opening-again"].map(|extension| folder.with_extension(extension)));
        let Some(next) = mark.0.iter().find(|path| !path.exists()) else {
            return Err(Trouble::Damaged("opening it ended the agent twice".to_owned()));
        };
        // If the file cannot be created, the database is opened without it.
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

/// Runs `open` on a separate thread, and abandons it after [`PATIENCE`].
fn opened_within_patience<T: Send + 'static>(
    folder: &Path,
    open: impl FnOnce(&Path) -> Result<T, Trouble> + Send + 'static,
) -> Result<T, Trouble> {
    let mark = Mark::make(folder)?;
    let now = |source| Trouble::Now(StoreError::io("open", folder, source));
    let (tx, rx) = mpsc::sync_channel(1);
    let path = folder.to_path_buf();
    let opener = std::thread::Builder::new().name("store-open".to_owned()).spawn(move || {
        let opened = open(&path);
        drop(mark);
        // If the caller has given up, this drops the database, and with it the lock on its file.
        let _ = tx.send(opened);
    });
    opener.map_err(now)?;
    rx.recv_timeout(PATIENCE).unwrap_or_else(|none| match none {
        RecvTimeoutError::Timeout => Err(now(io::ErrorKind::TimedOut.into())),
        // If panics unwind, as in tests, a panic ends only the thread.
        RecvTimeoutError::Disconnected => Err(Trouble::Damaged("sled panicked".to_owned())),
    })
}

/// Sets a timer slack of one hour for this thread while `open` runs, and for the threads that it starts.
///
/// sled starts seven threads, and each of them polls for work every second (threadpool.rs), which was most of the
/// agent's CPU time at rest. New work still wakes them at once. They start with the first database, here, and inherit
/// the slack (prctl(2), PR_SET_TIMERSLACK).
fn patiently<T>(open: impl FnOnce() -> T) -> T {
    slacken(3_600_000_000_000);
    let opened = open();
    slacken(0);
    opened
}

/// Sets the timer slack of this thread, in nanoseconds; 0 restores its default.
fn slacken(slack: u64) {
    let path = fs::read_link("/proc/thread-self").ok();
    if let Some(thread) = path.as_ref().and_then(|path| path.file_name()) {
        // If the kernel has no such file, sled's threads keep waking up.
        let _ = fs::write(Path::new("/proc").join(thread).join("timerslack_ns"), slack.to_string());
    }
}

fn open(folder: &Path) -> Result<Database, Trouble> {
    // sled overwrites a `conf` of up to 8 bytes (config.rs).
    let is_new = fs::metadata(folder.join("conf")).map_or(0, |conf| conf.len()) <= 8;
    let now = |doing| move |source| Trouble::Now(StoreError::io(doing, folder, source));
    if fs::symlink_metadata(folder).is_err() {
        DirBuilder::new().mode(0o700).create(folder).map_err(now("create"))?;
    }
    private(folder)?;
    let sled = open_sled(folder)?;
    if is_new {
        // Otherwise sled would start its threads with the first write, outside of `patiently`.
        drop(patiently(|| sled.flush_async().now_or_never()));
    }
    private(folder)?;
    let path = folder.join("db");
    let file = File::open(&path).map_err(now("open"))?;
    if is_new {
        // A half-written `conf` counts as damage, a missing one does not. It never changes again.
        for made in [&folder.join("conf"), &path, folder, folder.parent().unwrap_or(folder)] {
            folder::sync_folder(made).map_err(now("sync"))?;
        }
    }
    let held = scan(folder, &sled)?;
    Ok(Database { folder: folder.to_path_buf(), sled, file, held })
}

/// The configuration of sled. It must never change: sled refuses a database with another segment size.
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

/// Reads every tree, so that damage is found now and not during an update.
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
            Err(Trouble::Damaged("it has records but no save number".to_owned()))
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

/// Returns the cells that differ, with their new content. A cell with empty content must be removed.
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

/// Makes all files private, because sled creates them with the umask of the process, and refuses links, because sled
/// follows them.
fn private(folder: &Path) -> Result<(), Trouble> {
    match folder::keep_private(folder).map_err(Trouble::Now)? {
        Some(odd) => Err(Trouble::Damaged(odd)),
        None => Ok(()),
    }
}

/// Tells damage from an error of the disk. A full disk must never cost the database.
fn sorted(folder: &Path, doing: &'static str, error: sled::Error) -> Trouble {
    match error {
        sled::Error::Io(e) if is_wrong_file(e.kind()) => {
            Trouble::Damaged(format!("one of its files is missing or wrong: {e}"))
        }
        sled::Error::Io(e) if e.kind() == io::ErrorKind::PermissionDenied => {
            Trouble::Now(folder::setup(folder, e))
        }
        sled::Error::Io(e) => Trouble::Now(StoreError::io(doing, folder, e)),
        sled::Error::Corruption { .. } => Trouble::Damaged("sled found corruption".to_owned()),
        sled::Error::Unsupported(why) | sled::Error::ReportableBug(why) => Trouble::Damaged(why),
        sled::Error::CollectionNotFound(_) => Trouble::Damaged("a tree is missing".to_owned()),
    }
}

/// Returns whether an error means that the files are not as sled left them, while the disk works.
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
    fn opening_waits_for_a_database_that_is_being_closed() {
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
    fn a_panic_during_opening_counts_as_damage_and_leaves_its_mark() {
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

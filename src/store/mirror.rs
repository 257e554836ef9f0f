//! Two mirror files, each a complete copy of all records. Saves alternate between them.
//!
//! A mirror has two lines: `{"sha256":…}` with the hash of the second, and `{"v":1,"seq":…,"records":{…}}`. This module
//! does not know what the records mean.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::StoreError;
use super::folder;
use super::records::{Records, Snapshot, VERSION, hex, other_version, without_content};
use super::slot::Slot;

/// Largest file that is read, in bytes. No device has so much state; a larger file is damaged and must not fill the
/// memory.
const LARGEST: u64 = 32 << 20;

/// What was found where a copy should be.
#[derive(Debug)]
pub(super) enum Found {
    /// No file, or a database without any record.
    Nothing,
    Whole(Snapshot),
    /// Readable, but not what we wrote.
    Damaged(String),
    /// Intact, but in a format that only a later version knows.
    Foreign(String),
    /// The disk does not let us read it. It may be intact.
    Unreadable(StoreError),
}

/// What one mirror has, as far as we know without reading it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holds {
    Seq(u64),
    Nothing,
}

/// The two mirrors of a state folder.
#[derive(Debug)]
pub(super) struct Mirrors {
    dir: PathBuf,
    holds: [Holds; 2],
}

#[derive(Serialize, Deserialize)]
struct Head {
    sha256: String,
}

#[derive(Serialize)]
struct Payload<'a> {
    v: u32,
    seq: u64,
    records: &'a Records,
}

#[derive(Deserialize)]
struct AnyVersion {
    v: u32,
}

#[derive(Deserialize)]
struct ReadPayload {
    seq: u64,
    records: std::collections::BTreeMap<String, String>,
}

impl Mirrors {
    /// Two mirrors that were not read yet.
    pub(super) fn new(dir: &Path) -> Self {
        Self { dir: dir.to_path_buf(), holds: [Holds::Nothing; 2] }
    }

    /// Reads both, and removes an empty folder in the place of one. An unusable mirror is a [`Found`], not an error.
    pub(super) fn read(dir: &Path) -> (Self, [Found; 2]) {
        let found = Slot::BOTH.map(|slot| read(&dir.join(slot.file_name())));
        let holds = [holding(&found[0]), holding(&found[1])];
        (Self { dir: dir.to_path_buf(), holds }, found)
    }

    /// Returns whether both are usable and the newer one has save `seq`.
    pub(super) fn are_at(&self, seq: u64) -> bool {
        self.holds.contains(&Holds::Seq(seq)) && !self.holds.contains(&Holds::Nothing)
    }

    /// Writes the older mirror, and also the other one if that is not usable.
    ///
    /// So the newest acknowledged copy is never touched. Durable when it returns.
    ///
    /// # Errors
    ///
    /// The error of the disk. The mirror then has its old content or, if only the folder could not be synced, the new
    /// one.
    pub(super) fn write(&mut self, snapshot: &Snapshot) -> Result<(), StoreError> {
        let (head, payload) = encode(snapshot)?;
        let older = match (self.holds[0], self.holds[1]) {
            (Holds::Nothing, _) => Slot::A,
            (Holds::Seq(a), Holds::Seq(b)) if a <= b => Slot::A,
            (Holds::Seq(_), Holds::Seq(_) | Holds::Nothing) => Slot::B,
        };
        self.write_one(older, &head, &payload, snapshot.seq)?;
        if self.holds[older.other() as usize] == Holds::Nothing {
            self.write_one(older.other(), &head, &payload, snapshot.seq)?;
        }
        Ok(())
    }

    fn write_one(&mut self, slot: Slot, head: &str, payload: &str, seq: u64) -> Result<(), StoreError> {
        let path = self.dir.join(slot.file_name());
        folder::replace(&path, &[head.as_bytes(), b"\n", payload.as_bytes(), b"\n"])
            .map_err(|source| StoreError::io("write", &path, source))?;
        self.holds[slot as usize] = Holds::Seq(seq);
        Ok(())
    }
}

fn holding(found: &Found) -> Holds {
    match found {
        Found::Whole(snapshot) => Holds::Seq(snapshot.seq),
        Found::Nothing | Found::Damaged(_) | Found::Foreign(_) | Found::Unreadable(_) => Holds::Nothing,
    }
}

fn encode(snapshot: &Snapshot) -> Result<(String, String), StoreError> {
    let failed = |source| StoreError::Encode { record: "mirror".to_owned(), source };
    let payload = Payload { v: VERSION, seq: snapshot.seq, records: &snapshot.records };
    let payload = serde_json::to_string(&payload).map_err(failed)?;
    let head = Head { sha256: hex(&Sha256::digest(payload.as_bytes())) };
    Ok((serde_json::to_string(&head).map_err(failed)?, payload))
}

fn read(path: &Path) -> Found {
    if path.is_dir() {
        // We never create a folder here. If it stayed, the mirror could never be written again.
        let _ = fs::remove_dir(path);
        return Found::Damaged("a folder is in its place".to_owned());
    }
    inspect(path)
}

/// Reads one mirror. Changes nothing.
pub(super) fn inspect(path: &Path) -> Found {
    let leads_elsewhere =
        || fs::metadata(path).map_or_else(|e| e.kind() == io::ErrorKind::NotFound, |_| true);
    if path.is_symlink() && leads_elsewhere() {
        return Found::Damaged("a link is in its place".to_owned());
    }
    match read_bytes(path) {
        Ok(bytes) => decode(&bytes).unwrap_or_else(Found::Damaged),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Found::Nothing,
        Err(e) => Found::Unreadable(StoreError::io("read", path, e)),
    }
}

fn read_bytes(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(LARGEST).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn decode(bytes: &[u8]) -> Result<Found, String> {
    let text = std::str::from_utf8(bytes).map_err(|e| format!("{e}"))?;
    let (head, payload) = text.split_once('\n').ok_or("it has no second line")?;
    let payload = payload.strip_suffix('\n').ok_or("it is cut off")?;
    let head: Head = serde_json::from_str(head).map_err(without_content)?;
    if head.sha256 != hex(&Sha256::digest(payload.as_bytes())) {
        return Err("its checksum is wrong".to_owned());
    }
    let AnyVersion { v } = serde_json::from_str(payload).map_err(without_content)?;
    if v != VERSION {
        return Ok(Found::Foreign(other_version(v)));
    }
    let read: ReadPayload = serde_json::from_str(payload).map_err(without_content)?;
    let records = read.records.into_iter().map(|(name, text)| (name, Arc::from(text))).collect();
    Ok(Found::Whole(Snapshot { seq: read.seq, records }))
}

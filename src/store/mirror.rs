//! Two files beside the database, each a whole copy of what is remembered, written in turn.
//!
//! A mirror is two lines: `{"sha256":…}` over the second, and `{"v":1,"seq":…,"records":{…}}`.
//! It never knows what the records mean.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::StoreError;
use super::folder;
use super::records::{Records, Snapshot, VERSION, hex, other_version, without_content};

/// More than any fleet's state; a file beyond it is damaged and must not fill the memory.
const LARGEST: u64 = 32 << 20;

/// Which of the two mirrors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slot {
    A,
    B,
}

impl Slot {
    pub(super) const BOTH: [Self; 2] = [Self::A, Self::B];

    pub(super) fn file_name(self) -> &'static str {
        match self {
            Self::A => "mirror-a.json",
            Self::B => "mirror-b.json",
        }
    }

    fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.file_name())
    }
}

/// What a place that should hold a copy does hold.
#[derive(Debug)]
pub(super) enum Found {
    /// No file, or a database without any record.
    Nothing,
    Whole(Snapshot),
    /// Readable, and not what we wrote.
    Damaged(String),
    /// Whole, of a format that only a later version knows.
    Foreign(String),
    /// The disk does not let us see. It may be whole.
    Unreadable(StoreError),
}

/// What one mirror holds, as far as we know without looking again.
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
    /// Two mirrors that nobody has looked at.
    pub(super) fn new(dir: &Path) -> Self {
        Self { dir: dir.to_path_buf(), holds: [Holds::Nothing; 2] }
    }

    /// Reads both; an empty folder in the place of one is removed. What cannot be used is told and not an error.
    pub(super) fn read(dir: &Path) -> (Self, [Found; 2]) {
        let found = Slot::BOTH.map(|slot| read(&dir.join(slot.file_name())));
        let holds = [holding(&found[0]), holding(&found[1])];
        (Self { dir: dir.to_path_buf(), holds }, found)
    }

    /// Whether both are usable and the newer one holds save `seq`.
    pub(super) fn are_at(&self, seq: u64) -> bool {
        self.holds.contains(&Holds::Seq(seq)) && !self.holds.contains(&Holds::Nothing)
    }

    /// Writes the older mirror, and the other one too when that is not usable.
    ///
    /// So at every moment the newest acknowledged copy stays untouched. Durable when it returns.
    ///
    /// # Errors
    ///
    /// What the disk says. A mirror is then as before or, if only the folder could not be
    /// synced, as it should be.
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
            .map_err(|source| StoreError::of("write", &path, source))?;
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
        // Nothing of ours makes a folder here; without this the mirror could never be written again.
        let _ = fs::remove_dir(path);
        return Found::Damaged("a folder is in its place".to_owned());
    }
    look(path)
}

/// What one mirror holds. Changes nothing.
pub(super) fn look(path: &Path) -> Found {
    let leads_elsewhere =
        || fs::metadata(path).map_or_else(|e| e.kind() == io::ErrorKind::NotFound, |_| true);
    if path.is_symlink() && leads_elsewhere() {
        return Found::Damaged("a link is in its place".to_owned());
    }
    match read_bytes(path) {
        Ok(bytes) => decode(&bytes).unwrap_or_else(Found::Damaged),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Found::Nothing,
        Err(e) => Found::Unreadable(StoreError::of("read", path, e)),
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

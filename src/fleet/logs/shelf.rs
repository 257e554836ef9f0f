//! The files with the last lines of one device: `<uuid>.jsonl`, and `<uuid>.old.jsonl` with the lines before it.
//!
//! Each line has the fleet in which the device was when it sent it. Whoever may see the device in its fleet of today reads no line
//! of a fleet before that.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use serde::Deserialize;
use tokio::sync::broadcast;

use super::News;
use crate::fleet::locks::locked;
use crate::model::DeviceUuid;

/// Maximum number of bytes of one file. A device has two.
const LARGEST: u64 = 128 << 10;

/// Batches of new lines that a slow reader may be behind.
const BEHIND: usize = 64;

/// What each line in a file begins with, before the number of its fleet.
const OF_FLEET: &[u8] = b"{\"fleet\":";

/// A line, as it is kept and shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::fleet) struct Line {
    /// Number of the fleet in which the device sent it.
    pub(in crate::fleet) fleet: u64,
    /// `None`: of the device's agent.
    pub(in crate::fleet) service: Option<String>,
    /// A JSON object with a line break, as it is shown: without the fleet.
    pub(in crate::fleet) json: Vec<u8>,
}

impl Line {
    /// Returns whether it is of this fleet and one of these services. Lines of the agent are of all services. An empty list
    /// means all of them.
    pub(in crate::fleet) fn is_of(&self, fleet: u64, services: &[String]) -> bool {
        let is_of_service =
            || services.is_empty() || self.service.as_ref().is_none_or(|service| services.contains(service));
        self.fleet == fleet && is_of_service()
    }
}

/// The last lines of a device.
#[derive(Debug)]
pub(in crate::fleet) struct Shelf {
    now: PathBuf,
    old: PathBuf,
    /// Held while files are written or read.
    turn: Mutex<()>,
    news: broadcast::Sender<Arc<Vec<Line>>>,
    used: Arc<AtomicU64>,
}

impl Shelf {
    pub(super) fn new(dir: &Path, uuid: &DeviceUuid, used: Arc<AtomicU64>) -> Self {
        let (now, old) = (dir.join(format!("{uuid}.jsonl")), dir.join(format!("{uuid}.old.jsonl")));
        Self { now, old, turn: Mutex::default(), news: broadcast::Sender::new(BEHIND), used }
    }

    /// Adds lines at the end. Nothing is synced: after a power cut the last ones may be missing.
    pub(super) fn append(&self, lines: Vec<Line>) -> io::Result<()> {
        let _turn = locked(&self.turn);
        let mut options = OpenOptions::new();
        options.append(true).create(true).mode(0o600);
        let mut piece = Vec::new();
        for line in &lines {
            piece.extend_from_slice(OF_FLEET);
            piece.extend_from_slice(line.fleet.to_string().as_bytes());
            piece.push(b',');
            piece.extend_from_slice(line.json.strip_prefix(b"{").unwrap_or_default());
        }
        let mut file = options.open(&self.now)?;
        file.write_all(&piece)?;
        self.used.fetch_add(piece.len() as u64, Ordering::Relaxed);
        if file.metadata()?.len() > LARGEST {
            let gone = length(&self.old);
            fs::rename(&self.now, &self.old)?;
            subtract(&self.used, gone);
        }
        // An error means that no reader follows.
        let _nobody = self.news.send(Arc::new(lines));
        Ok(())
    }

    /// Returns the last `most` lines of this fleet and these services, and what comes after them. Blocks.
    pub(in crate::fleet) fn read(&self, most: usize, fleet: u64, services: &[String]) -> (Vec<Line>, News) {
        let _turn = locked(&self.turn);
        let news = self.news.subscribe();
        let mut lines: Vec<Line> = Vec::new();
        for path in [&self.now, &self.old] {
            let text = end_of(path);
            let found = text.split_inclusive(|byte| *byte == b'\n').rev().filter_map(line);
            lines.extend(found.filter(|line| line.is_of(fleet, services)).take(most - lines.len()));
        }
        lines.reverse();
        (lines, news)
    }

    /// Returns what comes from now on.
    pub(in crate::fleet) fn news(&self) -> News {
        self.news.subscribe()
    }

    /// Removes the files.
    pub(super) fn remove(&self) {
        let _turn = locked(&self.turn);
        for path in [&self.now, &self.old] {
            let gone = length(path);
            if fs::remove_file(path).is_ok() {
                subtract(&self.used, gone);
            }
        }
    }
}

/// Reads a line of a file. One that was cut by a power cut is left out, and one of an older version, which has no fleet.
fn line(kept: &[u8]) -> Option<Line> {
    #[derive(Deserialize)]
    struct OfService {
        service: Option<String>,
    }
    let rest = kept.strip_prefix(OF_FLEET)?;
    let (fleet, rest) = rest.split_at_checked(rest.iter().position(|byte| *byte == b',')?)?;
    let json = [b"{", rest.strip_prefix(b",")?].concat();
    let read: OfService = serde_json::from_slice(json.strip_suffix(b"\n")?).ok()?;
    Some(Line { fleet: str::from_utf8(fleet).ok()?.parse().ok()?, service: read.service, json })
}

/// Returns the content of a file, of a too large one the end.
fn end_of(path: &Path) -> Vec<u8> {
    let mut text = Vec::new();
    let read = File::open(path).and_then(|mut file| {
        let from = file.metadata()?.len().saturating_sub(2 * LARGEST);
        file.seek(SeekFrom::Start(from))?;
        file.take(2 * LARGEST).read_to_end(&mut text)
    });
    // A device without a file has written nothing.
    if read.is_err() {
        text.clear();
    }
    text
}

/// Creates the folder, removes the files of unknown devices, and returns how many bytes the others have.
pub(super) fn tidy(dir: &Path, known: impl Fn(&str) -> bool) -> u64 {
    if let Err(error) = DirBuilder::new().recursive(true).mode(0o700).create(dir) {
        tracing::warn!(path = %dir.display(), %error, "the folder for logs of devices cannot be created");
    }
    let mut used = 0;
    for (path, size, _) in files(dir) {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if known(name.split('.').next().unwrap_or_default()) || fs::remove_file(&path).is_err() {
            used += size;
        }
    }
    used
}

/// Removes the files that were not written for the longest time, until all have at most so many bytes. Returns how many.
pub(super) fn make_room(dir: &Path, most: u64) -> u64 {
    let mut files = files(dir);
    files.sort_by_key(|(_, _, at)| *at);
    let mut used: u64 = files.iter().map(|(_, size, _)| size).sum();
    for (path, size, _) in files {
        if used <= most {
            break;
        }
        if fs::remove_file(path).is_ok() {
            used -= size;
        }
    }
    used
}

fn files(dir: &Path) -> Vec<(PathBuf, u64, SystemTime)> {
    let found = fs::read_dir(dir).into_iter().flatten().flatten().filter_map(|entry| {
        let meta = entry.metadata().ok().filter(fs::Metadata::is_file)?;
        Some((entry.path(), meta.len(), meta.modified().ok()?))
    });
    found.filter(|(path, _, _)| path.extension().is_some_and(|ending| ending == "jsonl")).collect()
}

fn length(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |meta| meta.len())
}

fn subtract(used: &AtomicU64, bytes: u64) {
    let less = |used: u64| Some(used.saturating_sub(bytes));
    // The function always gives a value.
    let _ = used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
}

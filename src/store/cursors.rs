//! How far the logs of containers were uploaded, in a file of its own.
//!
//! It is not a part of the records: losing it costs a few lines that are uploaded twice, and must not damage them.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::folder;
use crate::model::LogCursors;

/// The file in the state folder.
const FILE: &str = "log-cursors.json";

/// Version of its format.
const VERSION: u32 = 1;

/// Maximum number of bytes that are read.
const LARGEST: u64 = 1 << 20;

/// Maximum number of containers that are saved: those that wrote last.
const MOST: usize = 500;

#[derive(Serialize, Deserialize)]
struct Saved {
    v: u32,
    cursors: LogCursors,
}

/// The file of cursors in a state folder.
#[derive(Debug, Clone)]
pub struct CursorFile {
    path: PathBuf,
}

impl CursorFile {
    #[must_use]
    pub fn of(state_dir: &Path) -> Self {
        Self { path: state_dir.join(FILE) }
    }

    /// Returns the cursors; none if they cannot be read.
    #[must_use]
    pub fn load(&self) -> LogCursors {
        let mut bytes = Vec::new();
        let read = File::open(&self.path).and_then(|file| file.take(LARGEST).read_to_end(&mut bytes));
        let saved = read.ok().and_then(|_| serde_json::from_slice::<Saved>(&bytes).ok());
        saved.filter(|saved| saved.v == VERSION).map(|saved| saved.cursors).unwrap_or_default()
    }

    /// Saves the cursors. Blocks for a sync of the disk.
    ///
    /// # Errors
    ///
    /// Those of the disk. The old file stays then.
    pub fn save(&self, mut cursors: LogCursors) -> std::io::Result<()> {
        if cursors.len() > MOST {
            let mut times: Vec<_> = cursors.values().map(|cursor| cursor.at).collect();
            times.sort_unstable();
            let oldest = times[times.len() - MOST];
            cursors.retain(|_, cursor| cursor.at >= oldest);
        }
        let bytes = serde_json::to_vec(&Saved { v: VERSION, cursors })?;
        folder::replace(&self.path, &[&bytes])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ContainerId, LogCursor};

    #[test]
    fn cursors_are_kept_and_bounded_and_a_bad_file_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let file = CursorFile::of(folder.path());
        assert_eq!(file.load(), LogCursors::new());
        let id = |n: u64| ContainerId::parse(format!("{n:064x}")).unwrap();
        let all: LogCursors = (0..600).map(|n| (id(n), LogCursor { at: n, seen: 1 })).collect();
        file.save(all.clone()).unwrap();
        let newest: LogCursors = all.into_iter().filter(|(_, cursor)| cursor.at >= 100).collect();
        assert_eq!(file.load(), newest);
        for bad in ["", "{", r#"{"v":2,"cursors":{}}"#] {
            std::fs::write(&file.path, bad).unwrap();
            assert_eq!(file.load(), LogCursors::new(), "{bad}");
        }
    }
}

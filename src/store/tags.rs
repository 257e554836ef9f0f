//! Tags of the device that its cloud does not have yet, in a file of their own.
//!
//! They are not a part of the records: an app sets them, and what it sets must not damage what keeps the device running.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::error::StoreError;
use super::folder;

/// The file in the state folder.
const FILE: &str = "device-tags.json";

/// Version of its format.
const VERSION: u32 = 1;

/// Maximum number of bytes that are read.
const LARGEST: u64 = 1 << 20;

#[derive(Serialize, Deserialize)]
struct Saved {
    v: u32,
    tags: BTreeMap<String, String>,
}

/// The file of tags in a state folder.
#[derive(Debug, Clone)]
pub struct TagFile {
    path: PathBuf,
}

impl TagFile {
    #[must_use]
    pub fn of(state_dir: &Path) -> Self {
        Self { path: state_dir.join(FILE) }
    }

    /// Returns the tags; none if they cannot be read.
    #[must_use]
    pub fn load(&self) -> BTreeMap<String, String> {
        let mut bytes = Vec::new();
        let read = File::open(&self.path).and_then(|file| file.take(LARGEST).read_to_end(&mut bytes));
        let saved = read.ok().and_then(|_| serde_json::from_slice::<Saved>(&bytes).ok());
        saved.filter(|saved| saved.v == VERSION).map(|saved| saved.tags).unwrap_or_default()
    }

    /// Saves the tags. Blocks for a sync of the disk.
    ///
    /// # Errors
    ///
    /// Those of the disk. The old file stays then.
    pub fn save(&self, tags: BTreeMap<String, String>) -> std::io::Result<()> {
        let bytes = serde_json::to_vec(&Saved { v: VERSION, tags })?;
        folder::replace(&self.path, &[&bytes])
    }

    /// Removes the file, so that a device that joins again does not tag itself as the one that left.
    ///
    /// # Errors
    ///
    /// If the file is there and cannot be removed.
    pub(super) fn remove(&self) -> Result<(), StoreError> {
        match std::fs::remove_file(&self.path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(StoreError::io("remove", &self.path, error))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_kept_and_a_bad_file_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let file = TagFile::of(folder.path());
        assert_eq!(file.load(), BTreeMap::new());
        let tags = BTreeMap::from([("site".to_owned(), "zürich\n".to_owned())]);
        file.remove().unwrap();
        file.save(tags.clone()).unwrap();
        assert_eq!(file.load(), tags);
        for bad in ["", "{", r#"{"v":2,"tags":{}}"#, r#"{"v":1,"tags":[]}"#] {
            std::fs::write(&file.path, bad).unwrap();
            assert_eq!(file.load(), BTreeMap::new(), "{bad}");
        }
    }
}

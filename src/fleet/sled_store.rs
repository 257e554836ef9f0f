//! Reads the records that earlier versions wrote, which kept them in sled.

use std::path::{Path, PathBuf};

use super::store_error::{StoreError, io_error};

/// Returns where those versions kept the records of a data folder.
pub(super) fn place(dir: &Path) -> PathBuf {
    dir.join("store")
}

/// Reads all records: their keys and values.
///
/// # Errors
///
/// [`StoreError`].
pub(super) fn read(dir: &Path) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
    let path = place(dir);
    if !path.join("conf").exists() {
        // It was not begun.
        return Ok(Vec::new());
    }
    let config = sled::Config::new().path(&path).cache_capacity(4 << 20).flush_every_ms(None);
    let db = config.open().map_err(|error| sorted(dir, &path, error))?;
    let mut entries = Vec::new();
    for entry in db.iter() {
        let (key, value) = entry.map_err(|error| sorted(dir, &path, error))?;
        entries.push((String::from_utf8_lossy(&key).into_owned(), value.to_vec()));
    }
    Ok(entries)
}

fn sorted(dir: &Path, path: &Path, error: sled::Error) -> StoreError {
    match error {
        sled::Error::Io(source) => io_error(path, source),
        sled::Error::CollectionNotFound(_)
        | sled::Error::Unsupported(_)
        | sled::Error::ReportableBug(_)
        | sled::Error::Corruption { .. } => {
            StoreError::Damaged { dir: dir.to_owned(), why: error.to_string() }
        }
    }
}

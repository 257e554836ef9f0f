//! Puts a backup in the place of a data folder's records.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::backup::Backup;
use super::store::{FolderLock, Store, StoreError};
use crate::ownership::{self, NotOurs};

/// Why a backup was not restored. The folder's records are then as they were.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("cannot use the data folder")]
    Folder(#[from] NotOurs),
    #[error(
        "{} has records already; name an empty folder with --data-dir, or give --replace, which moves them aside", dir.display()
    )]
    NotEmpty { dir: PathBuf },
    #[error("cannot use {}", path.display())]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl RestoreError {
    /// Returns whether another process uses the data folder.
    #[must_use]
    pub fn is_in_use(&self) -> bool {
        matches!(self, Self::Store(StoreError::InUse { .. }))
    }
}

/// Restores a backup to a data folder, which no server may use meanwhile. Returns where its records were moved to, if it had
/// some.
///
/// The new records are written beside the old ones, and take their place in one step at the end. So whatever ends this half
/// way leaves the old ones in place.
///
/// # Errors
///
/// [`RestoreError`].
pub fn restore(
    backup: &Backup,
    dir: &Path,
    replace: bool,
    now: Timestamp,
) -> Result<Option<PathBuf>, RestoreError> {
    ownership::take_folder(dir)?;
    let _lock = FolderLock::take(dir)?;
    let place = dir.join("store");
    let is_used = place.exists();
    if is_used && !replace {
        return Err(RestoreError::NotEmpty { dir: dir.to_owned() });
    }
    let new = dir.join("restoring");
    remove(&new)?;
    let (store, _) = Store::open(&new)?;
    // Groups, because the store takes each one in memory in whole.
    for group in backup.records.chunks(GROUP) {
        store.commit(group)?;
    }
    drop(store);
    let aside = is_used.then(|| dir.join(format!("store.before-{}", now.strftime("%Y%m%dT%H%M%SZ"))));
    if let Some(aside) = &aside {
        rename(&place, aside)?;
    }
    rename(&new, &place)?;
    // The marker that says that the records are not empty.
    rename(&Store::marker(&new), &Store::marker(&place))?;
    sync(dir)?;
    Ok(aside)
}

/// Records of one write.
const GROUP: usize = 10_000;

fn failed(path: &Path, source: io::Error) -> RestoreError {
    RestoreError::Io { path: path.to_owned(), source }
}

fn rename(from: &Path, to: &Path) -> Result<(), RestoreError> {
    fs::rename(from, to).map_err(|source| failed(from, source))
}

fn sync(dir: &Path) -> Result<(), RestoreError> {
    fs::File::open(dir).and_then(|dir| dir.sync_all()).map_err(|source| failed(dir, source))
}

/// Removes what an earlier restoration left.
fn remove(path: &Path) -> Result<(), RestoreError> {
    for gone in [fs::remove_dir_all(path), fs::remove_file(Store::marker(path))] {
        match gone {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(path, error)),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

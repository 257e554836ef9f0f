//! Puts a backup in the place of a data folder's records.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::access::{AccessChange, By, Entry, Outcome, RESTORER};
use super::backup::Backup;
use super::database_error::DatabaseError;
use super::policy::Change;
use super::sled_store;
use super::store::{self, FolderLock};
use super::store_error::{FILE, StoreError};
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
    #[error("{} has no records of a fleet server; name the folder that has them", dir.display())]
    NoRecords { dir: PathBuf },
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
        matches!(
            self,
            Self::Store(StoreError::InUse { .. } | StoreError::Database(DatabaseError::InUse { .. }))
        )
    }

    /// Returns whether the place has records already.
    #[must_use]
    pub fn is_not_empty(&self) -> bool {
        matches!(
            self,
            Self::NotEmpty { .. } | Self::Store(StoreError::Database(DatabaseError::NotEmpty { .. }))
        )
    }

    /// Returns whether the database cannot be used: `Some(true)` if that passes by itself.
    #[must_use]
    pub fn database_passes(&self) -> Option<bool> {
        match self {
            Self::Store(StoreError::Database(error)) => Some(error.passes()),
            Self::Store(_)
            | Self::Folder(_)
            | Self::NotEmpty { .. }
            | Self::NoRecords { .. }
            | Self::Io { .. } => None,
        }
    }
}

impl Backup {
    /// Revokes all tokens of the backup. Returns how many were accepted until now.
    pub fn revoke_tokens(&mut self, now: Timestamp) -> usize {
        let mut count = 0;
        for change in &mut self.records {
            if let Change::Access(AccessChange::PutToken(token)) = change
                && token.revoked.is_none()
            {
                token.revoked = Some(now);
                count += 1;
            }
        }
        count
    }

    /// Adds to the audit trail that this backup is restored.
    pub fn record_restoration(&mut self, now: Timestamp, details: String) {
        let numbers = self.records.iter().filter_map(|change| {
            let Change::Audit(entry) = change else { return None };
            Some(entry.number)
        });
        let entry = Entry {
            number: numbers.max().unwrap_or(0) + 1,
            at: Timestamp::from_millisecond(now.as_millisecond()).unwrap_or(now),
            by: By { user: None, token: RESTORER.to_owned(), id: String::new() },
            from: None,
            what: "restore a backup".to_owned(),
            request: "cotter-fleet restore".to_owned(),
            things: Vec::new(),
            count: 0,
            fleets: Vec::new(),
            details: Some(details),
            why: None,
            outcome: Outcome::Done,
        };
        self.records.push(Change::Audit(Box::new(entry)));
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
    place_records(&backup.records, dir, replace, now)
}

/// As [`restore`], for records that are not in a backup.
pub(super) fn place_records(
    records: &[Change],
    dir: &Path,
    replace: bool,
    now: Timestamp,
) -> Result<Option<PathBuf>, RestoreError> {
    ownership::take_folder(dir)?;
    let _lock = FolderLock::take(dir)?;
    let place = dir.join(FILE);
    let is_used = place.exists() || sled_store::place(dir).exists();
    if is_used && !replace {
        return Err(RestoreError::NotEmpty { dir: dir.to_owned() });
    }
    let new = dir.join("records.restoring");
    store::write_new(dir, &new, records)?;
    let aside = |before: &Path| {
        let name = before.file_name().unwrap_or_default().to_string_lossy();
        free(dir.join(format!("{name}.before-{}", now.strftime("%Y%m%dT%H%M%SZ"))))
    };
    let mut moved = None;
    if place.exists() {
        // A second name for the file: there is no moment without records in their place.
        let to = aside(&place);
        fs::hard_link(&place, &to).map_err(|source| failed(&to, source))?;
        moved = Some(to);
    }
    rename(&new, &place)?;
    // Those of an older version, which count only while there are no others.
    let old = sled_store::place(dir);
    if old.exists() {
        let to = aside(&old);
        rename(&old, &to)?;
        moved = Some(to);
    }
    sync(dir)?;
    store::make_marker(dir)?;
    Ok(moved)
}

/// Returns a path that nothing has yet. Nobody else writes in the folder, which is locked.
fn free(path: PathBuf) -> PathBuf {
    let numbered = |number: u32| {
        let mut name = path.clone().into_os_string();
        name.push(format!("-{number}"));
        PathBuf::from(name)
    };
    let is_free = |path: &PathBuf| fs::symlink_metadata(path).is_err();
    std::iter::once(path.clone()).chain((2..=1000).map(numbered)).find(is_free).unwrap_or(path)
}

fn failed(path: &Path, source: io::Error) -> RestoreError {
    RestoreError::Io { path: path.to_owned(), source }
}

fn rename(from: &Path, to: &Path) -> Result<(), RestoreError> {
    fs::rename(from, to).map_err(|source| failed(from, source))
}

fn sync(dir: &Path) -> Result<(), RestoreError> {
    fs::File::open(dir).and_then(|dir| dir.sync_all()).map_err(|source| failed(dir, source))
}

//! Why the records on disk cannot be read or written.

use std::io;
use std::path::{Path, PathBuf};

use super::database_error::DatabaseError;
use crate::ownership::NotOurs;

/// The file of the records in a data folder.
pub(super) const FILE: &str = "records";

/// Why records cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("another `cotter-fleet serve` uses {}; stop that one, or use another --data-dir", dir.display())]
    InUse { dir: PathBuf },

    #[error("cannot use {}, because of the disk or its permissions", path.display())]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },

    #[error(
        "the records in {} are damaged ({why}); put a backup in their place (`cotter-fleet restore FILE --data-dir {} --replace`), put a copy of the folder back, or move it away to start empty",
        dir.display(),
        dir.display()
    )]
    Damaged { dir: PathBuf, why: String },

    #[error("the records are being opened again after a failed write; try again")]
    Closed,

    #[error("the records in {} were written by a newer version of cotter; use that version", dir.display())]
    Newer { dir: PathBuf },

    #[error("the records cannot be made private")]
    NotOurs(#[from] NotOurs),

    #[error(transparent)]
    Database(#[from] DatabaseError),
}

impl StoreError {
    /// Returns whether the records may have been written in spite of the error.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        matches!(self, Self::Database(DatabaseError::Unknown { .. }))
    }

    /// Returns whether the connection to the database failed, so that a read that succeeds shows that it is over.
    pub(super) fn is_of_connection(&self) -> bool {
        self.is_unknown() || matches!(self, Self::Database(error) if error.is_of_connection())
    }

    /// Returns whether the database is the reason, which may pass by itself.
    #[must_use]
    pub fn is_of_database(&self) -> bool {
        matches!(self, Self::Database(_))
    }

    /// The error of the store in a data folder.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "any other error means that the file is not what we wrote"
    )]
    pub(super) fn of(dir: &Path, error: redb::Error) -> Self {
        match error {
            redb::Error::Io(source) => Self::Io { path: dir.join(FILE), source },
            // A reader of the audit trail still has the store of before a failed write.
            redb::Error::DatabaseAlreadyOpen => Self::Closed,
            redb::Error::PreviousIo => {
                let source = io::Error::other("an earlier write failed");
                Self::Io { path: dir.join(FILE), source }
            }
            other => Self::Damaged { dir: dir.to_owned(), why: other.to_string() },
        }
    }
}

pub(super) fn io_error(path: &Path, source: io::Error) -> StoreError {
    StoreError::Io { path: path.to_owned(), source }
}

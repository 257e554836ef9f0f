//! The errors of the store, sorted by what the caller can do, and the repairs that it made.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::slot::Slot;

/// Why the store cannot be used, or a save is not on disk yet.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Fatal: two writers would undo each other.
    #[error("another process uses the state folder {}: stop it, or give each process its own folder", path.display())]
    InUse { path: PathBuf },

    /// Fatal: the setup is wrong, and only an operator can fix it.
    #[error("the state folder {} {problem}: {remedy}", path.display())]
    Folder {
        path: PathBuf,
        problem: &'static str,
        remedy: &'static str,
        #[source]
        source: io::Error,
    },

    /// Passes once space is freed.
    #[error("no space to {doing} {}", path.display())]
    Full {
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },

    /// The kernel mounts a file system read-only after errors; often the end of an SD card.
    #[error("cannot {doing} {}: the file system is read-only", path.display())]
    ReadOnly {
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },

    /// Another error of the disk. It may pass.
    #[error("cannot {doing} {}", path.display())]
    Io {
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },

    /// The database broke while it was open. The next save sets it aside and writes a new one.
    #[error("the database in {} is damaged: {why}", path.display())]
    Damaged { path: PathBuf, why: String },

    /// A record cannot be written as JSON: a bug in the model.
    #[error("the record {record} cannot be written as JSON")]
    Encode {
        record: String,
        #[source]
        source: serde_json::Error,
    },
}

impl StoreError {
    /// Sorts an error of the file system that occurred while `doing` something to `path`.
    pub(super) fn io(doing: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_path_buf();
        if matches!(
            source.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
        ) {
            Self::Full { doing, path, source }
        } else if source.kind() == io::ErrorKind::ReadOnlyFilesystem {
            Self::ReadOnly { doing, path, source }
        } else {
            Self::Io { doing, path, source }
        }
    }

    /// Returns whether the daemon must end instead of running without a saved state.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        matches!(self, Self::InUse { .. } | Self::Folder { .. })
    }

    /// Returns when to call [`Store::retry`](super::Store::retry) again; `None` if never.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Damaged { .. } => Some(Duration::from_secs(1)),
            Self::Full { .. } | Self::Io { .. } => Some(Duration::from_secs(60)),
            Self::ReadOnly { .. } => Some(Duration::from_secs(300)),
            Self::InUse { .. } | Self::Folder { .. } | Self::Encode { .. } => None,
        }
    }
}

/// What opening the store found and did. `Display` makes a sentence for the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recovery {
    /// There was no store. An empty one was created.
    Created,
    /// The database was intact and the newest copy.
    Opened,
    /// The database was unusable and was set aside.
    SetAside { to: PathBuf, why: String },
    /// An older database that had been set aside was deleted to save space.
    Dropped { folder: PathBuf },
    /// The database was missing or unusable. Everything was restored from a mirror.
    Rebuilt {
        from: Slot,
        /// The other mirror is damaged, too, so the last save may be missing.
        may_be_old: bool,
    },
    /// The database was intact but older than a mirror, which was taken instead.
    CaughtUp { from: Slot, database: u64, mirror: u64 },
    /// A mirror was missing, damaged or unreadable. It will be written again.
    MirrorLost { slot: Slot, why: String },
    /// No copy could be read.
    StartedEmpty,
    /// One record could not be decoded and is lost. The files with it were set aside.
    RecordForgotten { record: String, why: String },
    /// The disk cannot be used. The agent runs from memory, with what was read (nothing if no slot is named).
    Unavailable { from: Option<Slot>, why: String },
}

impl Recovery {
    /// Returns whether an operator should know about it.
    #[must_use]
    pub fn is_trouble(&self) -> bool {
        !matches!(self, Self::Created | Self::Opened)
    }
}

impl fmt::Display for Recovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Created => write!(f, "the store is new and empty"),
            Self::Opened => write!(f, "opened the store"),
            Self::SetAside { to, why } => write!(f, "set the database aside to {}: {why}", to.display()),
            Self::Dropped { folder } => write!(f, "deleted the older broken database {}", folder.display()),
            Self::Rebuilt { from, may_be_old: false } => write!(f, "rebuilt the database from {from}"),
            Self::Rebuilt { from, may_be_old: true } => {
                write!(f, "rebuilt the database from {from}; the last save may be missing")
            }
            Self::CaughtUp { from, database, mirror } => {
                write!(f, "the database was at save {database}, {from} at {mirror}: took the mirror")
            }
            Self::MirrorLost { slot, why } => write!(f, "lost {slot}: {why}"),
            Self::StartedEmpty => write!(f, "nothing could be recovered: started empty"),
            Self::RecordForgotten { record, why } => write!(f, "forgot the record {record}: {why}"),
            Self::Unavailable { from: Some(slot), why } => {
                write!(f, "the store is unavailable, running from {slot}: {why}")
            }
            Self::Unavailable { from: None, why } => {
                write!(f, "the store is unavailable, running from memory: {why}")
            }
        }
    }
}

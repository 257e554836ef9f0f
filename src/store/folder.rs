//! The state folder: creates it, locks it, and writes files in it so that they survive a power cut.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Recovery, StoreError};
use crate::ownership::{self, NotOurs};

/// Maximum number of damaged databases to keep for an investigation; an SD card is small.
pub(super) const KEPT_ASIDE: usize = 2;

const ASIDE: &str = "db.corrupt-";

/// Creates the folder if it is missing (0700), removes the access of other users, and locks it until the handle is
/// dropped. Logs a warning if other users had access.
///
/// The lock is on the folder itself, so it needs neither space nor a writable disk, and the kernel releases it when the
/// process dies. On a file system without locks, nothing is locked.
///
/// # Errors
///
/// [`StoreError::InUse`]; [`StoreError::Folder`] if it is not a folder, its path is too long, it belongs to another
/// user or we may not use it; the others for errors of the disk.
pub(super) fn hold(dir: &Path) -> Result<File, StoreError> {
    let handle = create(dir).and_then(|()| File::open(dir)).map_err(|source| setup(dir, source))?;
    if !handle.metadata().is_ok_and(|m| m.is_dir()) {
        return Err(setup(dir, io::ErrorKind::NotADirectory.into()));
    }
    // A forked child of another process keeps that process's lock until it calls exec, so wait a little.
    for _ in 0..20 {
        match handle.try_lock() {
            Ok(()) | Err(TryLockError::Error(_)) => {
                if let Some(mode) = tolerated(ownership::close_folder(&handle, dir))?.flatten() {
                    let (path, mode) = (dir.display(), format!("{mode:o}"));
                    tracing::warn!(%path, mode, "other users had access to the state folder; it is private now");
                }
                return Ok(handle);
            }
            Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
    Err(StoreError::InUse { path: dir.to_path_buf() })
}

/// Returns whether another process has locked the folder. Locks it for a moment, which [`hold`] tolerates.
pub(super) fn is_held(dir: &Path) -> io::Result<bool> {
    match File::open(dir)?.try_lock_shared() {
        Ok(()) | Err(TryLockError::Error(_)) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
    }
}

fn create(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    dir.parent().map_or(Ok(()), sync_folder)
}

/// Sorts an error of the folder itself: a wrong setup, or an error of the disk.
pub(super) fn setup(dir: &Path, source: io::Error) -> StoreError {
    let kind = source.kind();
    let (problem, remedy) = if matches!(kind, io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists) {
        ("is not a folder", "move that file away, or set another state folder")
    } else if kind == io::ErrorKind::InvalidFilename {
        ("has too long a path", "set a shorter one")
    } else if kind == io::ErrorKind::PermissionDenied {
        ("cannot be used by this user", "run cotter as its owner, or `chown -R` it to this user")
    } else {
        return StoreError::io("use", dir, source);
    };
    StoreError::Folder { path: dir.to_path_buf(), problem, remedy, source }
}

/// Removes the access of other users to the database's folder and everything in it.
///
/// Returns `Ok(Some)` with a description of a link or another special file in it, which is not followed.
///
/// # Errors
///
/// [`StoreError::Folder`] if a part of it belongs to another user.
pub(super) fn keep_private(path: &Path) -> Result<Option<String>, StoreError> {
    match ownership::close(path) {
        Err(odd @ NotOurs::Odd { .. }) => Ok(Some(odd.to_string())),
        other => tolerated(other).map(|_| None),
    }
}

/// Tolerates files that the disk does not let us make private, because the agent needs its saved state anyway.
fn tolerated<T>(done: Result<T, NotOurs>) -> Result<Option<T>, StoreError> {
    match done {
        Ok(done) => Ok(Some(done)),
        Err(NotOurs::Owner { path, owner, us }) => {
            let source =
                io::Error::other(format!("its owner is user {owner}, but this process runs as user {us}"));
            let (problem, remedy) = ("belongs to another user", "`chown -R` it to the user that runs cotter");
            Err(StoreError::Folder { path, problem, remedy, source })
        }
        Err(NotOurs::Io { .. } | NotOurs::Odd { .. } | NotOurs::Replaceable(_)) => Ok(None),
    }
}

/// Syncs the names of the files in a folder.
pub(super) fn sync_folder(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Replaces a file (0600) atomically: after a power cut it has the complete old or the complete new content.
pub(super) fn replace(path: &Path, content: &[&[u8]]) -> io::Result<()> {
    let temporary = path.with_extension("json.tmp");
    let written = write_synced(&temporary, content).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        let _ = fs::remove_file(&temporary); // on a full disk even this much space counts
    }
    written?;
    path.parent().map_or(Ok(()), sync_folder)
}

fn write_synced(path: &Path, content: &[&[u8]]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = ownership::follow_no_link(&mut options).open(path)?;
    for part in content {
        file.write_all(part)?;
    }
    file.sync_all()
}

/// Moves the files `names` into a new folder `db.corrupt-<n>`, deletes all but the newest [`KEPT_ASIDE`] of such folders,
/// and adds notes about it.
///
/// If the database is among them, its folder becomes the new folder.
pub(super) fn set_aside(
    dir: &Path,
    names: &[&str],
    why: &str,
    notes: &mut Vec<Recovery>,
) -> Result<(), StoreError> {
    let older = aside(dir);
    let next = older.last().map_or(1, |(n, _)| n + 1);
    let to = dir.join(format!("{ASIDE}{next}"));
    for name in names {
        let from = dir.join(name);
        if fs::symlink_metadata(&from).is_err() {
            continue;
        }
        let onto = if *name == "db" { to.clone() } else { to.join(name) };
        let moved =
            if *name == "db" || to.exists() { Ok(()) } else { DirBuilder::new().mode(0o700).create(&to) };
        moved
            .and_then(|()| fs::rename(&from, &onto))
            .map_err(|source| StoreError::io("set aside", &from, source))?;
    }
    sync_folder(dir).map_err(|source| StoreError::io("set aside", dir, source))?;
    notes.push(Recovery::SetAside { to, why: why.to_owned() });
    let surplus = (older.len() + 1).saturating_sub(KEPT_ASIDE);
    for (_, folder) in older.into_iter().take(surplus) {
        let removed = if folder.is_dir() { fs::remove_dir_all(&folder) } else { fs::remove_file(&folder) };
        if removed.is_ok() {
            notes.push(Recovery::Dropped { folder });
        }
    }
    Ok(())
}

/// Returns the folders that were set aside before, oldest first.
pub(super) fn aside(dir: &Path) -> Vec<(u64, PathBuf)> {
    let mut found: Vec<(u64, PathBuf)> = fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let number = entry.file_name().to_str()?.strip_prefix(ASIDE)?.parse().ok()?;
            Some((number, entry.path()))
        })
        .collect();
    found.sort_unstable();
    found
}

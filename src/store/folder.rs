//! The state folder: making it, holding it alone, writing files in it that survive a power cut.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Recovery, StoreError};
use crate::ownership::{self, NotOurs};

/// How many broken databases are kept for whoever wants to look; an SD card is small.
pub(super) const KEPT_ASIDE: usize = 2;

const ASIDE: &str = "db.corrupt-";

/// Creates the folder if it is missing (0700), takes access to it from everybody but its owner, and holds it until
/// the handle is dropped. One that was open to others is told to the journal.
///
/// The lock is on the folder itself, so it needs neither space nor a writable disk, and the
/// kernel frees it when the process dies. On a file system without locks nothing is held.
///
/// # Errors
///
/// [`StoreError::InUse`]; [`StoreError::Folder`] when it is no folder, its path is too long,
/// it belongs to another user or we may not use it; the others when the disk does not let us.
pub(super) fn hold(dir: &Path) -> Result<File, StoreError> {
    let handle = create(dir).and_then(|()| File::open(dir)).map_err(|source| setup(dir, source))?;
    if !handle.metadata().is_ok_and(|m| m.is_dir()) {
        return Err(setup(dir, io::ErrorKind::NotADirectory.into()));
    }
    // The lock of a process that forks lives on in its child until that calls exec: wait a little.
    for _ in 0..20 {
        match handle.try_lock() {
            Ok(()) | Err(TryLockError::Error(_)) => {
                if let Some(mode) = tolerated(ownership::close_folder(&handle, dir))?.flatten() {
                    let (path, mode) = (dir.display(), format!("{mode:o}"));
                    tracing::warn!(%path, mode, "the state folder was open to others, and is for its owner only now");
                }
                return Ok(handle);
            }
            Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
    Err(StoreError::InUse { path: dir.to_path_buf() })
}

/// Whether somebody holds the folder. Holds it for a moment, which [`hold`] waits for.
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

/// Sorts an error that came with the folder itself: a mistake of the setup, or the disk's.
pub(super) fn setup(dir: &Path, source: io::Error) -> StoreError {
    let kind = source.kind();
    let (problem, remedy) = if matches!(kind, io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists) {
        ("is not a folder", "move the file that is in its place, or set another state folder")
    } else if kind == io::ErrorKind::InvalidFilename {
        ("has too long a path", "set a shorter one")
    } else if kind == io::ErrorKind::PermissionDenied {
        ("may not be used by this user", "run cotter as its owner, or give the folder to this user")
    } else {
        return StoreError::of("use", dir, source);
    };
    StoreError::Folder { path: dir.to_path_buf(), problem, remedy, source }
}

/// Takes access to the database's folder and all that is in it from everybody but its owner.
///
/// # Errors
///
/// [`StoreError::Folder`] when a part of it belongs to another user. `Ok(Some)` says what in it is no plain file
/// or folder: nobody knows what that leads to.
pub(super) fn keep_private(path: &Path) -> Result<Option<String>, StoreError> {
    match ownership::close(path) {
        Err(odd @ NotOurs::Odd { .. }) => Ok(Some(odd.to_string())),
        other => tolerated(other).map(|_| None),
    }
}

/// What a disk does not let us make private stays as it is: that must not keep an agent from its memory.
fn tolerated<T>(done: Result<T, NotOurs>) -> Result<Option<T>, StoreError> {
    match done {
        Ok(done) => Ok(Some(done)),
        Err(NotOurs::Owner { path, owner, us }) => {
            let source = io::Error::other(format!("it is user {owner}'s, and this process is user {us}"));
            let (problem, remedy) =
                ("belongs to another user", "chown it, with all that is in it, to the user that runs cotter");
            Err(StoreError::Folder { path, problem, remedy, source })
        }
        Err(NotOurs::Io { .. } | NotOurs::Odd { .. } | NotOurs::Replaceable(_)) => Ok(None),
    }
}

/// Makes the names in a folder durable.
pub(super) fn sync_folder(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Replaces a file (0600) as one step: after a power cut it is the old one or the new one, whole.
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

/// Moves `names` out of the way, keeps the newest [`KEPT_ASIDE`] of what was moved, says so.
///
/// The first name gives the new folder its place when it is a folder itself, i.e. the database.
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
            .map_err(|source| StoreError::of("set aside", &from, source))?;
    }
    sync_folder(dir).map_err(|source| StoreError::of("set aside", dir, source))?;
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

/// What was set aside before, oldest first.
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

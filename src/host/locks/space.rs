//! Limits what a service may keep in its lock folder, and removes the folder with the service.
//!
//! The folders are in the host's memory, and an app can put anything there. Their content is reached through open folders
//! and never by a path, so no link is ever followed. Only folders and files are opened, and each call does a bounded amount
//! of work.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::ffi::CString;
use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, fstat, openat, renameat, statat, unlinkat,
};
use rustix::io::Errno;

use super::{DRAFT, LOCKS, Locks, SIGNALS};
use crate::host::random_hex;
use crate::model::ServiceName;

/// What a service may have in its folder: bytes, as the file system counts them, and files and folders. Both include our
/// two lock files.
pub const MOST_BYTES: u64 = 64 * 1024;
pub const MOST_FILES: u32 = 64;

/// Maximum number of bytes of a lock or hand-over file of a service.
const LONGEST_WORD: u64 = 4096;

/// Maximum number of files and folders that one call removes.
const AT_ONCE: u32 = 2000;

/// Names that are read from a folder before they are removed.
const BATCH: usize = 128;

/// Prefix of the new name of a folder that could not be removed.
const GONE: &str = ".gone-";

/// The file system of the lock folders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Whether no other files are on it.
    pub is_own: bool,
    /// Its size in bytes, and the bytes in use.
    pub bytes: u64,
    pub used: u64,
    /// Maximum number of files that it can have (0: no limit), and the files that it has.
    pub files: u64,
    pub has: u64,
}

impl Space {
    /// Returns whether it was made to limit the folders: it is a separate file system, and small.
    #[must_use]
    pub fn is_small(&self) -> bool {
        self.is_own && self.bytes <= 64 << 20 && self.files > 0 && self.files <= 64 << 10
    }

    /// Returns whether more than three quarters of it are in use.
    #[must_use]
    pub fn is_nearly_full(&self) -> bool {
        self.used > self.bytes / 4 * 3 || (self.files > 0 && self.has > self.files / 4 * 3)
    }
}

/// Returns the file system of the lock folders below `root`; `None` if there are none.
#[must_use]
pub fn space(root: &Path) -> Option<Space> {
    let own = rustix::fs::stat(root).ok()?;
    let around = rustix::fs::stat(root.parent()?).ok()?;
    let disk = rustix::fs::statvfs(root).ok()?;
    Some(Space {
        is_own: own.st_dev != around.st_dev,
        bytes: disk.f_blocks.saturating_mul(disk.f_frsize),
        used: disk.f_blocks.saturating_sub(disk.f_bfree).saturating_mul(disk.f_frsize),
        files: disk.f_files,
        has: disk.f_files.saturating_sub(disk.f_ffree),
    })
}

impl Locks {
    /// Removes the folders of all services except these, with their content. A folder that cannot be emptied is renamed, and
    /// tried again at the next call.
    pub fn keep_only(&self, keep: &BTreeSet<(u64, ServiceName)>) {
        for app in folders(&self.root) {
            let number = app.file_name().and_then(|name| name.to_str()?.parse::<u64>().ok());
            let Some(number) = number else { continue };
            let is_kept = |service: &PathBuf| {
                let name = service.file_name().and_then(|name| ServiceName::parse(name.to_str()?).ok());
                name.is_some_and(|name| keep.contains(&(number, name)))
            };
            let gone: Vec<_> = folders(&app).into_iter().filter(|service| !is_kept(service)).collect();
            gone.iter().for_each(|service| remove(&app, service));
            if keep.iter().all(|(kept, _)| *kept != number) {
                // It stays while it is not empty.
                let _ = fs::remove_file(app.join(DRAFT));
                let _ = fs::remove_dir(&app);
            }
        }
    }

    /// Empties the folders of services that keep too much there, except for their lock and hand-over files. Returns those
    /// services as `<app number>/<service>`.
    ///
    /// Does not count files that a container has deleted and keeps open; only the file system limits those.
    pub fn trim(&self) -> Vec<String> {
        // If all of them together have less than one may have, no single one has too much.
        let has_room =
            |space: Space| space.is_small() && space.used <= MOST_BYTES && space.has <= u64::from(MOST_FILES);
        if space(&self.root).is_some_and(has_room) {
            return Vec::new();
        }
        let services = folders(&self.root).into_iter().flat_map(|app| folders(&app));
        let is_trimmed = |service: &PathBuf| {
            let Ok(folder) = open_folder(CWD, &name_of(service)?, 0o1777) else { return None };
            exceeds(&folder).then(|| trim(&folder))
        };
        let trimmed = services.filter(|service| is_trimmed(service).is_some());
        let names =
            trimmed.filter_map(|service| Some(service.strip_prefix(&self.root).ok()?.display().to_string()));
        names.collect()
    }
}

/// Returns the folders in a folder of ours.
pub(super) fn folders(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let is_folder = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
    entries.filter(is_folder).map(|entry| entry.path()).collect()
}

fn name_of(path: &Path) -> Option<CString> {
    use std::os::unix::ffi::OsStrExt as _;
    CString::new(path.as_os_str().as_bytes()).ok()
}

/// Removes a service's folder.
fn remove(app: &Path, service: &Path) {
    if let Some(folder) = name_of(service).and_then(|name| open_folder(CWD, &name, 0o700).ok()) {
        clear(&folder, &|_| true, &mut Budget(AT_ONCE));
    }
    let is_aside =
        service.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(GONE.as_bytes()));
    if fs::remove_dir(service).is_err()
        && !is_aside
        && let Ok(random) = random_hex(8)
    {
        // A later service of this name must not get this content.
        let _ = fs::rename(service, app.join(format!("{GONE}{random}")));
    }
}

/// The number of operations that a call may still do.
struct Budget(u32);

impl Budget {
    fn spend(&mut self) -> bool {
        self.0 = self.0.saturating_sub(1);
        self.0 > 0
    }
}

/// Returns whether a folder has more than a service may have. A folder that cannot be opened counts as one entry.
fn exceeds(folder: &OwnedFd) -> bool {
    let Ok(first) = open_folder(folder, c".", 0o1777) else { return false };
    let (mut todo, mut files, mut bytes) = (vec![first], 0, 0_u64);
    // The number of open folders is bounded by the number of entries.
    while let Some(folder) = todo.pop() {
        let Ok(entries) = Dir::read_from(&folder) else { continue };
        for entry in entries.flatten().filter(|entry| is_entry(entry.file_name().to_bytes())) {
            files += 1;
            let Ok(seen) = statat(&folder, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW) else { continue };
            bytes = bytes.saturating_add(u64::try_from(seen.st_blocks).unwrap_or(0).saturating_mul(512));
            if files > MOST_FILES || bytes > MOST_BYTES {
                return true;
            }
            if kind(&seen) == FileType::Directory {
                todo.extend(open_folder(&folder, entry.file_name(), 0o700));
            }
        }
    }
    false
}

/// Removes everything from a folder except lock and hand-over files, and truncates those.
fn trim(folder: &OwnedFd) {
    let words: Vec<_> = LOCKS.into_iter().chain(SIGNALS).filter_map(|name| CString::new(name).ok()).collect();
    let mut budget = Budget(AT_ONCE);
    for word in &words {
        match statat(folder, word, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(seen) if kind(&seen) == FileType::Directory => {
                if let Ok(inner) = open_folder(folder, word, 0o700) {
                    clear(&inner, &|_| true, &mut budget);
                }
            }
            Ok(seen) if u64::try_from(seen.st_size).unwrap_or(0) > LONGEST_WORD => shorten(folder, word),
            Ok(_) | Err(_) => {}
        }
    }
    clear(folder, &|name| !words.contains(name), &mut budget);
}

/// Removes the entries of a folder for which `goes` is true, within the budget and our permissions.
fn clear(folder: &OwnedFd, goes: &dyn Fn(&CString) -> bool, budget: &mut Budget) {
    loop {
        let names: Vec<_> = names(folder).filter(goes).take(BATCH).collect();
        let mut is_less = false;
        for name in &names {
            if !budget.spend() {
                return;
            }
            is_less |= discard(folder, name) || hollow(folder, name, budget);
        }
        if !is_less {
            return;
        }
    }
}

/// Removes the entry of this name from a folder: a file, or a folder with its content.
pub(super) fn take_away(folder: &Path, name: &str) {
    let Some(folder) = name_of(folder).and_then(|path| open_folder(CWD, &path, 0o1777).ok()) else { return };
    let is_of_it = |other: &CString| {
        let other = other.to_bytes();
        other == name.as_bytes() || other.starts_with(GONE.as_bytes())
    };
    clear(&folder, &is_of_it, &mut Budget(AT_ONCE));
}

/// Removes a file or an empty folder. Returns whether it was removed.
fn discard(folder: &OwnedFd, name: &CString) -> bool {
    // A process that has the file open keeps it, so free its content first.
    shorten(folder, name);
    match unlinkat(folder, name, AtFlags::empty()) {
        Ok(()) => true,
        Err(_) => unlinkat(folder, name, AtFlags::REMOVEDIR).is_ok(),
    }
}

/// Removes the content of a folder in `outer`, and then the folder. Moves folders in it up into `outer` first, so that any
/// depth can be removed. Returns whether anything has changed.
fn hollow(outer: &OwnedFd, name: &CString, budget: &mut Budget) -> bool {
    let Ok(inner) = open_folder(outer, name, 0o700) else { return false };
    let mut is_less = false;
    for entry in names(&inner).take(BATCH).collect::<Vec<_>>() {
        if !budget.spend() {
            break;
        }
        is_less |= discard(&inner, &entry) || move_up(&inner, &entry, outer).is_ok();
    }
    unlinkat(outer, name, AtFlags::REMOVEDIR).is_ok() || is_less
}

fn move_up(inner: &OwnedFd, name: &CString, outer: &OwnedFd) -> io::Result<()> {
    // A folder can be moved only if we can write to it.
    drop(open_folder(inner, name, 0o700)?);
    let aside = random_hex(8).map_err(io::Error::other)?;
    Ok(renameat(inner, name, outer, format!("{GONE}{aside}"))?)
}

fn is_entry(name: &[u8]) -> bool {
    !matches!(name, b"." | b"..")
}

fn names(folder: &OwnedFd) -> impl Iterator<Item = CString> {
    let entries = Dir::read_from(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_owned()).filter(|name| is_entry(name.to_bytes()))
}

fn kind(seen: &Stat) -> FileType {
    FileType::from_raw_mode(seen.st_mode)
}

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const PIN: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Opens a folder, and no link to one. A folder of ours that was closed to us is given `mode` again.
fn open_folder(at: impl rustix::fd::AsFd, name: &rustix::ffi::CStr, mode: u32) -> io::Result<OwnedFd> {
    match openat(&at, name, FOLDER, Mode::empty()) {
        Err(Errno::ACCESS) => {
            let pinned = openat(&at, name, PIN | OFlags::DIRECTORY, Mode::empty())?;
            fs::set_permissions(path_of(&pinned), fs::Permissions::from_mode(mode))?;
        }
        opened => return Ok(opened?),
    }
    Ok(openat(&at, name, FOLDER, Mode::empty())?)
}

/// Removes the content of a file. Opens nothing but a regular file, even if the name is replaced meanwhile.
fn shorten(folder: &OwnedFd, name: &CString) {
    let pinned = openat(folder, name, PIN, Mode::empty());
    let is_file = |pinned: &OwnedFd| {
        fstat(pinned).is_ok_and(|seen| kind(&seen) == FileType::RegularFile && seen.st_size > 0)
    };
    if let Some(pinned) = pinned.ok().filter(is_file) {
        // If we may not write to it, it is removed with its content.
        let file = OpenOptions::new().write(true).custom_flags(nonblocking()).open(path_of(&pinned));
        let _ = file.and_then(|file| file.set_len(0));
    }
}

/// Returns a path that always leads to the open file or folder.
fn path_of(pinned: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", pinned.as_raw_fd()))
}

fn nonblocking() -> i32 {
    i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or(0)
}

#[cfg(test)]
mod tests;

//! The folders in which apps lock their updates, and in which the agent creates its own locks.
//!
//! Each service has one, mounted in its container as `/tmp/balena` and `/tmp/resin`. The app can put anything there. So no
//! link in it is followed, no file in it can block us, and we remove only files that have our content.

mod space;

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use crate::model::{FileLock, LockError, ServiceName};

pub use space::{MOST_BYTES, MOST_FILES, Space, space};

/// The names of lock files. Either of them locks a service; the second is the older name.
const LOCKS: [&str; 2] = ["updates.lock", "resin-updates.lock"];

/// The names of files with which a service says that its predecessor may be stopped.
const SIGNALS: [&str; 2] = ["handover-complete", "resin-kill-me"];

/// The content of our lock files. Their owner cannot identify them, because many apps run as root, too, and we cannot
/// change the owner of a file.
const OURS: &[u8] = b"cotter\n";

/// The path of the folder in the container.
const INSIDE: &str = "/tmp/balena";

/// The name under which a lock file is written, next to the services' folders, before it is linked into one of them.
const DRAFT: &str = ".lock";

/// The lock folders of all services, `<root>/<app number>/<service>/`.
#[derive(Debug, Clone)]
pub struct Locks {
    root: PathBuf,
}

impl Locks {
    /// Manages folders below `root`, which is empty after a boot. Creates nothing yet.
    #[must_use]
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// Creates a service's folder if it is missing, and lets every user in its container write to it.
    ///
    /// On the host only root has access. A folder whose owner the app has changed keeps its mode.
    ///
    /// # Errors
    ///
    /// [`LockError::Unusable`].
    pub fn prepare(&self, app: u64, service: &ServiceName) -> Result<(), LockError> {
        self.make(&self.folder(app, service)).map_err(|e| self.unusable(app, service, e))
    }

    fn make(&self, folder: &Path) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        // If the engine created the folder when it started a container, every user could enter it.
        if mode(&fs::symlink_metadata(&self.root)?) != 0o700 {
            fs::set_permissions(&self.root, fs::Permissions::from_mode(0o700))?;
        }
        let seen = fs::symlink_metadata(folder)?;
        if !seen.is_dir() {
            return Err(io::Error::from(ErrorKind::NotADirectory));
        }
        // Independent of the umask. The folders above are private, so this cannot be another user's link.
        let is_ours = seen.uid() == fs::symlink_metadata(&self.root)?.uid();
        if is_ours && mode(&seen) != 0o1777 {
            fs::set_permissions(folder, fs::Permissions::from_mode(0o1777))?;
        }
        Ok(())
    }

    /// Returns the app's own lock of a service, if there is one: a file, a folder or anything else of that name. If the app
    /// denies us access to the folder, the service counts as locked.
    #[must_use]
    pub fn foreign(&self, app: u64, service: &ServiceName) -> Option<FileLock> {
        let folder = self.folder(app, service);
        let is_foreign = |name: &&str| match standing(&folder.join(name)) {
            Standing::Nobody | Standing::Ours => false,
            Standing::Theirs => true,
        };
        LOCKS.into_iter().find(is_foreign).map(|name| FileLock { path: format!("{INSIDE}/{name}") })
    }

    /// Locks all these services, or none. A lock that we have already is a success, and stays if another one fails.
    ///
    /// # Errors
    ///
    /// [`LockError::Held`] by the app; [`LockError::Unusable`].
    pub fn take(&self, app: u64, services: &[ServiceName]) -> Result<(), LockError> {
        let mut taken = Vec::new();
        let all = services.iter().try_for_each(|service| self.take_one(app, service, &mut taken));
        if all.is_err() {
            taken.iter().for_each(|path| remove_own(path));
        }
        all
    }

    fn take_one(&self, app: u64, service: &ServiceName, taken: &mut Vec<PathBuf>) -> Result<(), LockError> {
        self.prepare(app, service)?;
        for name in LOCKS {
            let path = self.folder(app, service).join(name);
            match create(&self.app_folder(app).join(DRAFT), &path) {
                Ok(()) => taken.push(path),
                Err(error) => match standing(&path) {
                    Standing::Ours => {}
                    Standing::Theirs if error.kind() == ErrorKind::AlreadyExists => {
                        let path = format!("{INSIDE}/{name}");
                        return Err(LockError::Held { service: service.clone(), path });
                    }
                    Standing::Theirs | Standing::Nobody => return Err(self.unusable(app, service, error)),
                },
            }
        }
        Ok(())
    }

    /// Returns whether any folder of the app has one of our locks.
    #[must_use]
    pub fn has_own(&self, app: u64) -> bool {
        self.lock_files(app).any(|path| matches!(standing(&path), Standing::Ours))
    }

    /// Removes all our locks from the folders of the app, including those of former services.
    pub fn release(&self, app: u64) {
        self.lock_files(app).for_each(|path| remove_own(&path));
    }

    /// Removes the app's own locks from a service's folder, whatever they are.
    pub fn break_all(&self, app: u64, service: &ServiceName) {
        let folder = self.folder(app, service);
        for name in LOCKS.into_iter().filter(|name| standing(&folder.join(name)) == Standing::Theirs) {
            // If this fails, taking our lock fails, too.
            space::take_away(&folder, name);
        }
    }

    /// Returns whether a service has created a file that says that its predecessor may be stopped.
    #[must_use]
    pub fn has_handed_over(&self, app: u64, service: &ServiceName) -> bool {
        let folder = self.folder(app, service);
        let is_there = |name| fs::symlink_metadata(folder.join(name)).is_ok_and(|seen| seen.is_file());
        SIGNALS.into_iter().any(is_there)
    }

    /// Removes the files of a hand-over. Ignores folders of these names.
    pub fn forget_hand_over(&self, app: u64, service: &ServiceName) {
        let folder = self.folder(app, service);
        for name in SIGNALS {
            // This fails if there is no such file, if it is a folder, or if the app has denied us access.
            let _ = fs::remove_file(folder.join(name));
        }
    }

    fn app_folder(&self, app: u64) -> PathBuf {
        self.root.join(app.to_string())
    }

    fn folder(&self, app: u64, service: &ServiceName) -> PathBuf {
        self.app_folder(app).join(service.as_str())
    }

    /// Returns all possible paths of lock files of an app.
    fn lock_files(&self, app: u64) -> impl Iterator<Item = PathBuf> {
        let folders = space::folders(&self.app_folder(app));
        folders.into_iter().flat_map(|folder| LOCKS.map(|name| folder.join(name)))
    }

    fn unusable(&self, app: u64, service: &ServiceName, source: io::Error) -> LockError {
        LockError::Unusable { service: service.clone(), folder: self.folder(app, service), source }
    }
}

/// The owner of a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Nobody,
    Ours,
    Theirs,
}

fn standing(path: &Path) -> Standing {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Standing::Nobody,
        Ok(seen) if seen.is_file() && seen.len() == OURS.len() as u64 && has_our_content(path) => {
            Standing::Ours
        }
        Ok(_) | Err(_) => Standing::Theirs,
    }
}

/// Returns whether a file has our content. Does not follow a link, and does not block on a pipe.
fn has_our_content(path: &Path) -> bool {
    let Ok(flags) = i32::try_from((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits()) else { return false };
    let Ok(file) = OpenOptions::new().read(true).custom_flags(flags).open(path) else { return false };
    let mut words = Vec::new();
    let read = file.take(OURS.len() as u64 + 1).read_to_end(&mut words);
    read.is_ok() && words == OURS
}

/// Creates our lock at `path` atomically, if nothing has that name.
fn create(draft: &Path, path: &Path) -> io::Result<()> {
    // A crash may have left a draft.
    match fs::remove_file(draft) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = File::create_new(draft)?;
    let placed = file
        .write_all(OURS)
        // The app may read the content.
        .and_then(|()| file.set_permissions(fs::Permissions::from_mode(0o644)))
        .and_then(|()| fs::hard_link(draft, path));
    fs::remove_file(draft).and(placed)
}

fn remove_own(path: &Path) {
    if standing(path) == Standing::Ours {
        // If this fails, e.g. because the app denies us access, the lock is found again later.
        let _ = fs::remove_file(path);
    }
}

fn mode(seen: &fs::Metadata) -> u32 {
    seen.mode() & 0o7777
}

#[cfg(test)]
mod tests;

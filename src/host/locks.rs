//! The folders in which apps lock their updates, and in which we lock them.
//!
//! Each service has one, seen in its container as `/tmp/balena` and `/tmp/resin`. What is in it is the
//! app's, who may put there what it likes: no link in it is followed, nothing in it is waited for, and
//! only what is ours by its content is taken away.

mod space;

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use crate::model::{FileLock, LockError, ServiceName};

pub use space::{MOST_BYTES, MOST_FILES, Space, space};

/// Either of them locks a service; the second is the older name.
const LOCKS: [&str; 2] = ["updates.lock", "resin-updates.lock"];

/// Either of them says that a service's predecessor may go.
const SIGNALS: [&str; 2] = ["handover-complete", "resin-kill-me"];

/// What our lock files contain. Their owner does not tell them from others: we run as root, as many an
/// app does, and without the right to give files away.
const OURS: &[u8] = b"cotter\n";

/// As the folder is seen in the container.
const INSIDE: &str = "/tmp/balena";

/// A lock file is written here, beside the services' folders, and appears in them whole.
const DRAFT: &str = ".lock";

/// The lock folders of all services, `<root>/<app number>/<service>/`.
#[derive(Debug, Clone)]
pub struct Locks {
    root: PathBuf,
}

impl Locks {
    /// Folders below `root`, a place that is empty after a boot. Nothing is made yet.
    #[must_use]
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// Makes a service's folder if it is missing, and lets every user of its container write in it.
    ///
    /// On the host nobody but root gets at it. A folder that the app has taken for itself is left so.
    ///
    /// # Errors
    ///
    /// [`LockError::Unusable`].
    pub fn prepare(&self, app: u64, service: &ServiceName) -> Result<(), LockError> {
        self.make(&self.folder(app, service)).map_err(|e| self.unusable(app, service, e))
    }

    fn make(&self, folder: &Path) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        // The engine makes what is missing when it starts a container, and then for all to enter.
        if mode(&fs::symlink_metadata(&self.root)?) != 0o700 {
            fs::set_permissions(&self.root, fs::Permissions::from_mode(0o700))?;
        }
        let seen = fs::symlink_metadata(folder)?;
        if !seen.is_dir() {
            return Err(io::Error::from(ErrorKind::NotADirectory));
        }
        // Whatever the umask: the folders above are ours alone, so nobody can have put a link here.
        let is_ours = seen.uid() == fs::symlink_metadata(&self.root)?.uid();
        if is_ours && mode(&seen) != 0o1777 {
            fs::set_permissions(folder, fs::Permissions::from_mode(0o1777))?;
        }
        Ok(())
    }

    /// The lock of a service that is not ours, if there is one: a file, a folder, whatever has the name.
    /// A folder into which the app does not let us look is locked.
    #[must_use]
    pub fn foreign(&self, app: u64, service: &ServiceName) -> Option<FileLock> {
        let folder = self.folder(app, service);
        let is_foreign = |name: &&str| match standing(&folder.join(name)) {
            Standing::Nobody | Standing::Ours => false,
            Standing::Theirs => true,
        };
        LOCKS.into_iter().find(is_foreign).map(|name| FileLock { path: format!("{INSIDE}/{name}") })
    }

    /// Locks all these services, or none. Locks of ours that stand already are a success, and stay when
    /// another one fails.
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
            match place(&self.app_folder(app).join(DRAFT), &path) {
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

    /// Whether a lock of ours stands in any folder of the app.
    #[must_use]
    pub fn has_own(&self, app: u64) -> bool {
        self.lock_files(app).any(|path| matches!(standing(&path), Standing::Ours))
    }

    /// Takes away every lock of ours from the folders of the app, those of services that are no more
    /// among them.
    pub fn release(&self, app: u64) {
        self.lock_files(app).for_each(|path| remove_own(&path));
    }

    /// Takes away every lock of others from a service's folder, whatever it is.
    pub fn break_all(&self, app: u64, service: &ServiceName) {
        let folder = self.folder(app, service);
        for name in LOCKS.into_iter().filter(|name| standing(&folder.join(name)) == Standing::Theirs) {
            // What cannot be taken away is seen again when ours are taken.
            space::take_away(&folder, name);
        }
    }

    /// Whether a service has said that its predecessor may go: there is a file of one of the names.
    #[must_use]
    pub fn has_handed_over(&self, app: u64, service: &ServiceName) -> bool {
        let folder = self.folder(app, service);
        let is_there = |name| fs::symlink_metadata(folder.join(name)).is_ok_and(|seen| seen.is_file());
        SIGNALS.into_iter().any(is_there)
    }

    /// Takes away what a service has said of that. A folder says nothing and is left.
    pub fn forget_hand_over(&self, app: u64, service: &ServiceName) {
        let folder = self.folder(app, service);
        for name in SIGNALS {
            // One that cannot be taken away is not there, or is a folder, or the app has closed its folder.
            let _ = fs::remove_file(folder.join(name));
        }
    }

    fn app_folder(&self, app: u64) -> PathBuf {
        self.root.join(app.to_string())
    }

    fn folder(&self, app: u64, service: &ServiceName) -> PathBuf {
        self.app_folder(app).join(service.as_str())
    }

    /// Where lock files of an app can be.
    fn lock_files(&self, app: u64) -> impl Iterator<Item = PathBuf> {
        let folders = space::folders(&self.app_folder(app));
        folders.into_iter().flat_map(|folder| LOCKS.map(|name| folder.join(name)))
    }

    fn unusable(&self, app: u64, service: &ServiceName, source: io::Error) -> LockError {
        LockError::Unusable { service: service.clone(), folder: self.folder(app, service), source }
    }
}

/// Who a lock belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Nobody,
    Ours,
    Theirs,
}

fn standing(path: &Path) -> Standing {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Standing::Nobody,
        Ok(seen) if seen.is_file() && seen.len() == OURS.len() as u64 && has_our_words(path) => {
            Standing::Ours
        }
        Ok(_) | Err(_) => Standing::Theirs,
    }
}

/// Whether a file says that it is ours. A link is not followed, and a pipe that has come in the file's
/// place is not waited for.
fn has_our_words(path: &Path) -> bool {
    let Ok(flags) = i32::try_from((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits()) else { return false };
    let Ok(file) = OpenOptions::new().read(true).custom_flags(flags).open(path) else { return false };
    let mut words = Vec::new();
    let read = file.take(OURS.len() as u64 + 1).read_to_end(&mut words);
    read.is_ok() && words == OURS
}

/// Makes `path` a lock of ours, whole or not at all, if nothing has that name.
fn place(draft: &Path, path: &Path) -> io::Result<()> {
    // A crash may have left one.
    match fs::remove_file(draft) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = File::create_new(draft)?;
    let placed = file
        .write_all(OURS)
        // The app may read whose it is.
        .and_then(|()| file.set_permissions(fs::Permissions::from_mode(0o644)))
        .and_then(|()| fs::hard_link(draft, path));
    fs::remove_file(draft).and(placed)
}

fn remove_own(path: &Path) {
    if standing(path) == Standing::Ours {
        // It may have gone, or the app may have closed its folder; then it is seen again at the next look.
        let _ = fs::remove_file(path);
    }
}

fn mode(seen: &fs::Metadata) -> u32 {
    seen.mode() & 0o7777
}

#[cfg(test)]
mod tests;

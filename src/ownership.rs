//! Keeps folders and files for the user that runs this process, and finds who else could change them.
//!
//! What belongs to this user is made private. What belongs to another user is left as it is and reported: its
//! owner could open it again at any time. It does not know what the files are for.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::process::{getegid, geteuid, umask};

/// Why a folder or a file is not this user's alone.
#[derive(Debug, thiserror::Error)]
pub enum NotOurs {
    #[error("{} belongs to user {owner}, but this process runs as user {us}; `chown -R` it, or run as user {owner}", path.display())]
    Owner { path: PathBuf, owner: u32, us: u32 },

    #[error("{} is a link or not a regular file, so other users may be able to read or change it; move it away", path.display())]
    Odd { path: PathBuf },

    #[error("{0}")]
    Replaceable(Doubt),

    #[error("{} cannot be read or made private", path.display())]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// Another user who could replace a path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Doubt {
    #[error("other users can write to {0}, which is above it (mode {mode:o}), and replace it; `chmod go-w {0}`", path.display())]
    Writable { path: PathBuf, mode: u32 },
    #[error("{} on its path belongs to user {owner}, who can replace the folder; `chown root` it, or use another folder", path.display())]
    Foreign { path: PathBuf, owner: u32 },
}

/// A user, and the group of that user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct User {
    pub id: u32,
    pub group: u32,
}

impl User {
    /// Returns the user of this process.
    #[must_use]
    pub fn us() -> Self {
        Self { id: geteuid().as_raw(), group: getegid().as_raw() }
    }

    /// Returns the owner of a folder or file.
    #[must_use]
    pub fn of(metadata: &Metadata) -> Self {
        Self { id: metadata.uid(), group: metadata.gid() }
    }
}

/// Sets the umask of this process so that new files and folders are private by default.
pub fn make_files_private() {
    umask(Mode::from_bits_truncate(0o077));
}

/// Makes a folder private to this user, and creates it if it is missing. Returns its former mode if other users had
/// access.
///
/// Links on the way are followed when only root or this user could have made them: systemd's folders of
/// services with a dynamic user are such links.
///
/// # Errors
///
/// [`NotOurs`]; nothing was changed then.
pub fn take_folder(dir: &Path) -> Result<Option<u32>, NotOurs> {
    let failed = |source| NotOurs::Io { path: dir.to_owned(), source };
    if let Some(doubt) = doubt(dir, User::us()).map_err(failed)? {
        return Err(NotOurs::Replaceable(doubt));
    }
    if !dir.is_dir() {
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed)?;
    }
    close_folder(&File::open(dir).map_err(failed)?, dir)
}

/// Removes the access of other users to an open folder. Returns its former mode if they had access.
///
/// # Errors
///
/// [`NotOurs::Owner`], [`NotOurs::Io`].
pub fn close_folder(folder: &File, path: &Path) -> Result<Option<u32>, NotOurs> {
    let failed = |source| NotOurs::Io { path: path.to_owned(), source };
    let metadata = folder.metadata().map_err(failed)?;
    check_owner(path, &metadata)?;
    let mode = metadata.mode() & 0o777;
    if mode == 0o700 {
        return Ok(None);
    }
    folder.set_permissions(Permissions::from_mode(0o700)).map_err(failed)?;
    Ok((mode & 0o077 != 0).then_some(mode))
}

/// Removes the access of other users to a file, or to a folder and everything below it. Its parent folder must be
/// private already, so that no other user can replace it meanwhile.
///
/// # Errors
///
/// The first thing that belongs to another user, is a link, or cannot be made private.
pub fn close(path: &Path) -> Result<(), NotOurs> {
    let failed = |source| NotOurs::Io { path: path.to_owned(), source };
    let metadata = fs::symlink_metadata(path).map_err(failed)?;
    if metadata.is_symlink() {
        // The target of the link may be on a disk that does not answer; then report that error.
        return match fs::metadata(path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(failed(source)),
            Ok(_) | Err(_) => Err(NotOurs::Odd { path: path.to_owned() }),
        };
    }
    let mode = match (metadata.is_dir(), metadata.is_file()) {
        (true, _) => 0o700,
        (false, true) => 0o600,
        (false, false) => return Err(NotOurs::Odd { path: path.to_owned() }),
    };
    check_owner(path, &metadata)?;
    if metadata.mode() & 0o777 != mode {
        fs::set_permissions(path, Permissions::from_mode(mode)).map_err(failed)?;
    }
    if metadata.is_dir() {
        for entry in fs::read_dir(path).map_err(failed)? {
            close(&entry.map_err(failed)?.path())?;
        }
    }
    Ok(())
}

fn check_owner(path: &Path, metadata: &Metadata) -> Result<(), NotOurs> {
    let (owner, us) = (metadata.uid(), User::us().id);
    if owner == us { Ok(()) } else { Err(NotOurs::Owner { path: path.to_owned(), owner, us }) }
}

/// Returns a sentence if another user can read a file with a secret in it, or could have written it.
///
/// A file of root is as good as one of this user.
#[must_use]
pub fn exposure(metadata: &Metadata) -> Option<String> {
    let (owner, mode) = (metadata.uid(), metadata.mode());
    if mode & 0o077 != 0 {
        return Some(format!("other users can read it (mode {:o}); chmod 600 it", mode & 0o777));
    }
    let is_ours = [0, User::us().id].contains(&owner);
    (!is_ours).then(|| format!("it belongs to user {owner}, who can read and change it; chown it"))
}

/// Makes opening fail if the path is a link.
pub fn follow_no_link(options: &mut OpenOptions) -> &mut OpenOptions {
    options.custom_flags(i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or(0))
}

/// Maximum number of links to follow in one path; the kernel has the same limit.
const LINKS: usize = 40;

/// Finds another user than `user` and root who could replace `path`: one who can write to a folder on the path, or who
/// owns a link on it.
///
/// A folder with the sticky bit, like /tmp, is fine: users can move only their own files. So is a folder that the
/// group of `user` can write to, because on Debian each user has its own group. A missing part is fine, too.
///
/// # Errors
///
/// If a part of the path cannot be read.
pub fn doubt(path: &Path, user: User) -> io::Result<Option<Doubt>> {
    let mut left: Vec<OsString> = parts(&std::path::absolute(path)?);
    let (mut at, mut links) = (PathBuf::from("/"), 0);
    while let Some(part) = left.pop() {
        if let Some(doubt) = doubt_of(&at, &fs::metadata(&at)?, user) {
            return Ok(Some(doubt));
        }
        if part == ".." {
            at.pop();
            continue;
        }
        let next = at.join(part);
        let metadata = match fs::symlink_metadata(&next) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        if !metadata.is_symlink() {
            at = next;
            continue;
        }
        if ![0, user.id].contains(&metadata.uid()) {
            return Ok(Some(Doubt::Foreign { path: next, owner: metadata.uid() }));
        }
        links += 1;
        if links > LINKS {
            return Err(io::Error::other("its links lead in a circle"));
        }
        let target = fs::read_link(&next)?;
        left.extend(parts(&target));
        if target.is_absolute() {
            at = PathBuf::from("/");
        }
    }
    Ok(None)
}

/// Returns the parts of a path in reverse order.
fn parts(path: &Path) -> Vec<OsString> {
    let parts = path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    });
    let mut parts: Vec<_> = parts.collect();
    parts.reverse();
    parts
}

fn doubt_of(folder: &Path, metadata: &Metadata, user: User) -> Option<Doubt> {
    let (owner, mode) = (metadata.uid(), metadata.mode() & 0o7777);
    if ![0, user.id].contains(&owner) {
        return Some(Doubt::Foreign { path: folder.to_owned(), owner });
    }
    let by_group = mode & 0o020 != 0 && ![0, user.group].contains(&metadata.gid());
    let is_open = (mode & 0o002 != 0 || by_group) && mode & 0o1000 == 0;
    is_open.then(|| Doubt::Writable { path: folder.to_owned(), mode })
}

#[cfg(test)]
mod tests;

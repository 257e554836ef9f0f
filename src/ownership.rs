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
    #[error("{} belongs to user {owner}, and this process is user {us}; chown it, with all that is in it, or run as user {owner}", path.display())]
    Owner { path: PathBuf, owner: u32, us: u32 },

    #[error("{} is a link or no plain file, and what it leads to may be read or changed by others; move it away", path.display())]
    Odd { path: PathBuf },

    #[error("{0}")]
    Replaceable(Doubt),

    #[error("{} cannot be looked at or made private", path.display())]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// Somebody who could put something else in the place of a path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Doubt {
    #[error("{} above it may be written by others (mode {mode:o}), who could put another folder in its place; chmod go-w it", path.display())]
    Writable { path: PathBuf, mode: u32 },
    #[error("{} on the way to it belongs to user {owner}, who could put another folder in its place; chown it, or use a folder elsewhere", path.display())]
    Foreign { path: PathBuf, owner: u32 },
}

/// A user, and the group of that user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct User {
    pub id: u32,
    pub group: u32,
}

impl User {
    /// The one that this process acts as.
    #[must_use]
    pub fn us() -> Self {
        Self { id: geteuid().as_raw(), group: getegid().as_raw() }
    }

    /// The owner of a folder or file.
    #[must_use]
    pub fn of(metadata: &Metadata) -> Self {
        Self { id: metadata.uid(), group: metadata.gid() }
    }
}

/// From now on this process makes files and folders for its own user only, where nothing else is said.
pub fn make_files_private() {
    umask(Mode::from_bits_truncate(0o077));
}

/// Makes a folder for this user alone, creating it if it is missing. Returns the mode that it had when it was
/// open to others.
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

/// Takes access to an open folder from everybody else. Returns the mode that it had when it was open to others.
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

/// Takes access to a file, or to a folder with all that is below it, from everybody else. What it is in must be
/// private already, so that nobody puts something else there meanwhile.
///
/// # Errors
///
/// The first thing that belongs to another user, is a link, or cannot be made private.
pub fn close(path: &Path) -> Result<(), NotOurs> {
    let failed = |source| NotOurs::Io { path: path.to_owned(), source };
    let metadata = fs::symlink_metadata(path).map_err(failed)?;
    if metadata.is_symlink() {
        // What is behind it may be on a disk that does not answer; then nothing is known of it.
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

/// Says who else may read a file with a secret in it, or could have written it, in words.
///
/// A file of root's is as good as one of this user's.
#[must_use]
pub fn exposure(metadata: &Metadata) -> Option<String> {
    let (owner, mode) = (metadata.uid(), metadata.mode());
    if mode & 0o077 != 0 {
        return Some(format!("others may read it (mode {:o}); chmod 600 it", mode & 0o777));
    }
    let is_ours = [0, User::us().id].contains(&owner);
    (!is_ours).then(|| format!("it belongs to user {owner}, who may read and change it; chown it"))
}

/// Opens by the path itself: where that is a link, opening fails.
pub fn follow_no_link(options: &mut OpenOptions) -> &mut OpenOptions {
    options.custom_flags(i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or(0))
}

/// The links that are followed before a path counts as a circle; the kernel follows as many.
const LINKS: usize = 40;

/// Finds somebody but `user` and root who could put something else in the place of `path`: who may write a
/// folder on the way to it without owning what is in there, or made a link on the way.
///
/// A folder with the sticky bit, like /tmp, lets nobody move what belongs to others. A folder that the group
/// of `user` may write passes: on Debian each user has a group of its own. What is missing is no doubt.
///
/// # Errors
///
/// When a part of the way cannot be looked at.
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

/// The parts of a path, the first one last.
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

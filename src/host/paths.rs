//! Resolves a path of this machine, and finds other paths of the same place.
//!
//! The engine follows every link in a path that it mounts, at each start of a container. So a result is valid only at
//! this moment.

use std::collections::VecDeque;
use std::fs::{self, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::model::is_at_or_below;

/// Maximum number of links in one path; the kernel has the same limit.
const MOST_LINKS: usize = 40;

/// This process's mounts (proc_pid_mountinfo(5)).
const MOUNTS: &str = "/proc/self/mountinfo";

/// The paths that may be mounted, and exceptions.
#[derive(Debug, Clone, Default)]
pub struct Bounds {
    /// Absolute paths. Everything at or below the places that they resolve to may be mounted.
    pub allowed: Vec<String>,
    /// Absolute paths. Neither a folder above one of them nor anything below it may be mounted.
    pub barred: Vec<String>,
}

/// A resolved path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Led {
    /// Without links, from the root.
    pub path: String,
    /// The mount point of the disk of its folder.
    pub disk: String,
}

/// The place that a path resolves to.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    /// Without links, from the root.
    path: String,
    /// The links that were followed.
    links: Vec<String>,
}

/// A line of mountinfo: the device, the path on it that is the root of the mount, and the mount point.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mounted {
    device: String,
    root: String,
    at: String,
    kind: String,
}

/// Why a path may not be mounted. Each message has a remedy.
#[derive(Debug, thiserror::Error)]
pub enum PathError {
    #[error("{MOUNTS} cannot be read")]
    Mounts(#[source] io::Error),

    /// A link leads out of what is allowed.
    #[error(
        "{path:?} leads to {place:?} on this device{}, which is not in policy.host_paths: remove the link, or add to \
         policy.host_paths where it leads",
        by(.link.as_deref())
    )]
    NotAllowed { path: String, place: String, link: Option<String> },

    /// An exception applies.
    #[error(
        "{path:?} leads to {place:?} on this device, where {barred:?} is, which policy.docker_socket = \"no\" keeps from \
         releases: mount another folder"
    )]
    Barred { path: String, place: String, barred: String },

    /// This process cannot see where the path leads.
    #[error(
        "where {path:?} leads on this device cannot be seen by the agent ({why}): mount another path, or let the agent's \
         unit see it, e.g. by ProtectHome= or PrivateTmp= in a drop-in of the unit"
    )]
    Unseen { path: String, why: String },
}

fn by(link: Option<&str>) -> String {
    link.map_or(String::new(), |link| format!(" by the link {link:?}"))
}

/// Resolves `path` on this machine and checks that it may be mounted. A missing part is taken as it is written, because the
/// engine creates folders there.
///
/// # Errors
///
/// As [`PathError`] says.
pub fn leads_to(path: &str, bounds: &Bounds) -> Result<Led, PathError> {
    let text = fs::read_to_string(MOUNTS).map_err(PathError::Mounts)?;
    let mounts = mounts(&text);
    let place = follow(path, &mounts)?;
    if !trees(&bounds.allowed, &mounts).iter().any(|tree| is_at_or_below(&place.path, tree)) {
        let link = place.links.last().cloned();
        return Err(PathError::NotAllowed { path: path.to_owned(), place: place.path, link });
    }
    match bounds.barred.iter().find(|barred| holds(&place.path, barred, &mounts)) {
        None => {
            let folder = &place.path[..place.path.rfind('/').unwrap_or_default().max(1)];
            let disk = covering(folder, &mounts).map_or("/".to_owned(), |mounted| mounted.at.clone());
            Ok(Led { path: place.path, disk })
        }
        Some(barred) => {
            Err(PathError::Barred { path: path.to_owned(), place: place.path, barred: barred.clone() })
        }
    }
}

/// Returns the places that the paths in `allowed` resolve to. Leaves out a path with a link in the tree of another allowed
/// path, because a release could have created that link.
fn trees(allowed: &[String], mounts: &[Mounted]) -> Vec<String> {
    let places: Vec<Place> = allowed.iter().filter_map(|path| follow(path, mounts).ok()).collect();
    let is_made_by_others = |n: usize, place: &Place| {
        let mut others = places.iter().enumerate().filter(|(other, _)| *other != n).map(|(_, other)| other);
        let in_tree = |link: &String, tree: &str| link != tree && is_at_or_below(link, tree);
        others.any(|other| place.links.iter().any(|link| in_tree(link, &other.path)))
    };
    let own = places.iter().enumerate().filter(|(n, place)| !is_made_by_others(*n, place));
    own.map(|(_, place)| place.path.clone()).collect()
}

/// Returns whether `place` is at, above or below `barred`, under any of their paths.
fn holds(place: &str, barred: &str, mounts: &[Mounted]) -> bool {
    let real = follow(barred, mounts).map_or_else(|_| barred.to_owned(), |found| found.path);
    let of = |path: &str| fs::symlink_metadata(path).ok();
    let is_same = |one: &Metadata, other: &Metadata| (one.dev(), one.ino()) == (other.dev(), other.ino());
    // A hard link to the same file.
    let is_linked = || of(place).zip(of(&real)).is_some_and(|(one, other)| is_same(&one, &other));
    let is_met = |path: &String| is_at_or_below(path, place) || is_at_or_below(place, path);
    aliases(&real, mounts).iter().any(is_met) || is_linked()
}

/// Returns all paths of a place that is mounted more than once.
fn aliases(path: &str, mounts: &[Mounted]) -> Vec<String> {
    let mut found = vec![path.to_owned()];
    let Some(mounted) = covering(path, mounts) else { return found };
    let on_device = join(&mounted.root, path.strip_prefix(&mounted.at).unwrap_or(path));
    let same_device = mounts.iter().filter(|other| other.device == mounted.device);
    found.extend(same_device.filter_map(|other| {
        let is_in = is_at_or_below(&on_device, &other.root);
        is_in.then(|| join(&other.at, &on_device[other.root.trim_end_matches('/').len()..]))
    }));
    found
}

fn join(folder: &str, rest: &str) -> String {
    let joined = format!("{}/{}", folder.trim_end_matches('/'), rest.trim_start_matches('/'));
    if joined.len() > 1 { joined.trim_end_matches('/').to_owned() } else { joined }
}

/// Returns the mount of a path: the deepest mount point above it, and the last one if several share it.
fn covering<'a>(path: &str, mounts: &'a [Mounted]) -> Option<&'a Mounted> {
    mounts.iter().filter(|mounted| is_at_or_below(path, &mounted.at)).max_by_key(|mounted| mounted.at.len())
}

/// Follows all links in an absolute path.
fn follow(path: &str, mounts: &[Mounted]) -> Result<Place, PathError> {
    let unseen = |why: &str| PathError::Unseen { path: path.to_owned(), why: why.to_owned() };
    let parts = |text: &str| -> VecDeque<String> {
        text.split('/').filter(|part| !part.is_empty() && *part != ".").map(str::to_owned).collect()
    };
    let mut left = parts(path);
    let mut place = Place { path: "/".to_owned(), links: Vec::new() };
    let mut is_missing = false;
    while let Some(part) = left.pop_front() {
        if part == ".." {
            if is_missing {
                return Err(unseen("a folder in it is missing"));
            }
            place.path.truncate(place.path.rfind('/').unwrap_or_default().max(1));
            continue;
        }
        let next = join(&place.path, &part);
        if let Some(why) = covering(&next, mounts).and_then(hidden) {
            return Err(unseen(why));
        }
        let seen = if is_missing { None } else { Some(fs::symlink_metadata(&next)) };
        match seen {
            Some(Ok(metadata)) if metadata.is_symlink() => {
                if place.links.len() >= MOST_LINKS {
                    return Err(unseen("there are too many links"));
                }
                let target = fs::read_link(&next).map_err(|error| unseen(&error.to_string()))?;
                let target = target.to_str().ok_or_else(|| unseen("a link in it is not UTF-8"))?.to_owned();
                if Path::new(&target).is_absolute() {
                    "/".clone_into(&mut place.path);
                }
                let rest = std::mem::replace(&mut left, parts(&target));
                left.extend(rest);
                place.links.push(next);
            }
            Some(Ok(_)) | None => place.path = next,
            Some(Err(error)) if error.kind() == ErrorKind::NotFound => {
                if covering(&next, mounts).is_some_and(|on| on.at == "/dev" && on.kind != "devtmpfs") {
                    return Err(unseen("the agent has a /dev of its own"));
                }
                is_missing = true;
                place.path = next;
            }
            Some(Err(error)) => return Err(unseen(&error.to_string())),
        }
    }
    Ok(place)
}

/// Returns why this mount hides what the machine has there. systemd gives a service such mounts in place of `/tmp`
/// (PrivateTmp=), and of `/home`, `/root` and `/run/user` (ProtectHome=).
fn hidden(mounted: &Mounted) -> Option<&'static str> {
    let is_home = matches!(mounted.at.as_str(), "/home" | "/root" | "/run/user");
    if mounted.root.contains("/systemd/inaccessible/") {
        return Some("it is closed to the agent");
    }
    let is_own = mounted.root.contains("/systemd-private-") || (is_home && mounted.kind == "tmpfs");
    is_own.then_some("the agent has a folder of its own there")
}

/// Parses mountinfo. Ignores lines that cannot be parsed.
fn mounts(text: &str) -> Vec<Mounted> {
    let one = |line: &str| {
        let (mount, file_system) = line.split_once(" - ")?;
        let mut words = mount.split(' ').skip(2);
        let (device, root, at) = (words.next()?, words.next()?, words.next()?);
        let kind = file_system.split(' ').next()?.to_owned();
        Some(Mounted { device: device.to_owned(), root: unescaped(root), at: unescaped(at), kind })
    };
    text.lines().filter_map(one).collect()
}

/// Decodes a path such as `a\040b`: white space and backslashes are octal there.
fn unescaped(text: &str) -> String {
    let escapes = [(r"\040", " "), (r"\011", "\t"), (r"\012", "\n"), (r"\134", r"\")];
    escapes.into_iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

#[cfg(test)]
#[path = "paths_tests.rs"]
mod tests;

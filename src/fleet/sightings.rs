//! Keeps in a file when each device polled last, or when each token was used last, so that a restart of the server does not
//! lose it. The file is written now and then and at the end, because a write for each request would wear out a disk.
//! Nothing is decided by it.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use jiff::Timestamp;

/// The file of devices in the data folder: a line for each, with its uuid and the time.
pub(super) const FILE: &str = "last-seen";

/// Reads a file. What cannot be read counts as never seen.
pub(super) fn load<K: Ord>(path: &Path, parse: impl Fn(&str) -> Option<K>) -> BTreeMap<K, Timestamp> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let entry = |line: &str| {
        let (id, at) = line.split_once(' ')?;
        Some((parse(id)?, at.parse().ok()?))
    };
    text.lines().filter_map(entry).collect()
}

/// Replaces a file in one step.
///
/// # Errors
///
/// The file is then as it was before.
pub(super) fn save<K: Display>(path: &Path, seen: &BTreeMap<K, Timestamp>) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = File::options().create(true).truncate(true).write(true).mode(0o600).open(&new)?;
    let mut text = String::new();
    for (id, at) in seen {
        text.push_str(&format!("{id} {at}\n"));
    }
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::DeviceUuid;

    #[test]
    fn what_was_saved_is_loaded_and_a_damaged_line_costs_only_itself() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        let load = |path: &Path| load(path, |uuid| DeviceUuid::parse(uuid).ok());
        assert_eq!(load(&path), BTreeMap::new(), "there is no file yet");
        let uuid = |c: &str| DeviceUuid::parse(c.repeat(32)).unwrap();
        let at = |seconds| Timestamp::from_second(seconds).unwrap();
        let seen = BTreeMap::from([(uuid("a"), at(1)), (uuid("b"), at(2))]);
        save(&path, &seen).unwrap();
        assert_eq!(load(&path), seen);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, format!("{}\nnonsense\n{text}", "c".repeat(100))).unwrap();
        assert_eq!(load(&path), seen);
    }
}

//! Bounded reads of the kernel's files. What is longer, or not there, is left out.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

/// Maximum number of bytes of a file that are read.
const LONGEST: u64 = 256 << 10;

/// Maximum number of entries of a folder that are read.
const MOST: usize = 256;

/// Returns the beginning of a file as text; `None` if it cannot be read.
pub(super) fn text(path: &Path) -> Option<String> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(LONGEST).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// Returns a file of one word without white space and the NULs of a device tree; `None` if it is empty, longer than `most`
/// bytes, or not printable ASCII.
pub(super) fn word(path: &Path, most: usize) -> Option<String> {
    let text = text(path)?;
    let word = text.trim_matches(|c: char| c.is_whitespace() || c == '\0');
    let is_good =
        !word.is_empty() && word.len() <= most && word.bytes().all(|byte| (0x20..0x7f).contains(&byte));
    is_good.then(|| word.to_owned())
}

/// Returns a file that is a number.
pub(super) fn number(path: &Path) -> Option<i64> {
    word(path, 20)?.parse().ok()
}

/// Returns the entries of a folder, sorted by their names.
pub(super) fn entries(folder: &Path) -> Vec<PathBuf> {
    let found = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<_> = found.take(MOST).map(|entry| entry.path()).collect();
    found.sort();
    found
}

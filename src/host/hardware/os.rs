//! The version of the operating system, in the form that a balena API compares.

use std::path::Path;

use super::files;

/// The API lets a user move a device to another fleet only if its version is in this range or if it reported none
/// (docs/dev/protocol.md, "Registration").
const OLDEST: [u64; 3] = [2, 11, 0];

/// Maximum number of characters of a distribution's name.
const LONGEST_NAME: usize = 32;

/// Returns version and variant. No version is better than one with which the device could not be moved.
pub(super) fn version(root: &Path) -> (Option<String>, Option<String>) {
    let text =
        files::text(&root.join("etc/os-release")).or_else(|| files::text(&root.join("usr/lib/os-release")));
    let text = text.unwrap_or_default();
    let variant = value(&text, "VARIANT_ID").filter(|variant| ["dev", "prod"].contains(&variant.as_str()));
    (semantic(&text), variant)
}

/// Makes `12.0.0+debian` of `ID=debian` and `VERSION_ID="12"`.
fn semantic(text: &str) -> Option<String> {
    let (id, version) = (value(text, "ID")?, value(text, "VERSION_ID")?);
    let mut numbers = [0; 3];
    for (at, part) in version.split('.').take(3).enumerate() {
        let digits = part.split(|c: char| !c.is_ascii_digit()).next()?;
        numbers[at] = digits.parse().ok()?;
    }
    let id: String =
        id.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(LONGEST_NAME).collect();
    let [major, minor, patch] = numbers;
    (numbers >= OLDEST && !id.is_empty()).then(|| format!("{major}.{minor}.{patch}+{id}"))
}

fn value(text: &str, name: &str) -> Option<String> {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))?;
    Some(value.trim().trim_matches(['"', '\'']).to_owned())
}

//! Writes tar files (POSIX ustar): a support bundle, and files for a container. Pure.

/// Bytes of a block. A header is one block; the last block of a content is filled up with zeros.
const BLOCK: usize = 512;

/// Maximum number of bytes of a name.
pub const LONGEST_NAME: usize = 100;

/// A file of an archive.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    /// At most [`LONGEST_NAME`] bytes; the rest is cut off.
    pub name: &'a str,
    pub content: &'a [u8],
    /// Its permissions, e.g. `0o644`.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

impl<'a> Entry<'a> {
    /// A file that only root may read.
    #[must_use]
    pub fn private(name: &'a str, content: &'a [u8]) -> Self {
        Self { name, content, mode: 0o600, uid: 0, gid: 0 }
    }
}

/// Packs `entries` into an archive, all with the time `at` (seconds since 1970).
#[must_use]
pub fn archive(entries: &[Entry<'_>], at: u64) -> Vec<u8> {
    let mut archive = Vec::new();
    for entry in entries {
        archive.extend(header(entry, at));
        archive.extend_from_slice(entry.content);
        archive.resize(archive.len().next_multiple_of(BLOCK), 0);
    }
    // Two empty blocks mark the end.
    archive.resize(archive.len() + 2 * BLOCK, 0);
    archive
}

fn header(entry: &Entry<'_>, at: u64) -> [u8; BLOCK] {
    let mut header = [0; BLOCK];
    let mut put = |from: usize, text: &[u8]| {
        for (place, byte) in header.iter_mut().skip(from).zip(text) {
            *place = *byte;
        }
    };
    put(0, &entry.name.as_bytes()[..entry.name.len().min(LONGEST_NAME)]);
    put(100, format!("{:07o}\0", entry.mode & 0o7777).as_bytes());
    // An octal number of seven digits is less than 2^21; the largest ids of Linux need more.
    put(108, format!("{:07o}\0", entry.uid & 0o7_777_777).as_bytes());
    put(116, format!("{:07o}\0", entry.gid & 0o7_777_777).as_bytes());
    put(124, format!("{:011o}\0", entry.content.len()).as_bytes());
    put(136, format!("{at:011o}\0").as_bytes());
    put(156, b"0");
    put(257, b"ustar\x0000");
    // The checksum is computed with spaces in its own field.
    put(148, b"        ");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    let text = format!("{sum:06o}\0 ");
    header[148..156].copy_from_slice(text.as_bytes());
    header
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn tar_reads_what_was_written() {
        let long = "x".repeat(1025);
        let small = Entry { mode: 0o644, uid: 1000, gid: 20, ..Entry::private("a/small", b"one\n") };
        let entries = [
            Entry::private("a/empty", b""),
            small,
            Entry::private("a/block", &[7; BLOCK]),
            Entry::private("a/long", long.as_bytes()),
        ];
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.tar");
        std::fs::write(&file, archive(&entries, 1_796_083_200)).unwrap();
        let run = |args: &[&str]| {
            let out = Command::new("tar").args(args).arg(&file).env("TZ", "UTC").output().unwrap();
            assert!(out.status.success() && out.stderr.is_empty(), "{out:?}");
            String::from_utf8(out.stdout).unwrap()
        };
        let listed = run(&["--numeric-owner", "-tvf"]);
        let wanted =
            "-rw------- 0/0               0 2026-12-01 00:00 a/empty\n-rw-r--r-- 1000/20           4 ";
        assert!(listed.starts_with(wanted), "{listed}");
        assert_eq!(listed.lines().count(), entries.len());
        let out =
            Command::new("tar").args(["-C", folder.path().to_str().unwrap(), "-xf"]).arg(&file).output();
        assert!(out.unwrap().status.success());
        for Entry { name, content, .. } in entries {
            assert_eq!(std::fs::read(folder.path().join(name)).unwrap(), content, "{name}");
        }
    }
}

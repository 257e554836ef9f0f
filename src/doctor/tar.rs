//! Writes a tar file (POSIX ustar). Pure.

/// Bytes of a block. A header is one block; the last block of a content is filled up with zeros.
const BLOCK: usize = 512;

/// A file's name, at most 100 bytes, and its content.
pub(super) type Entry<'a> = (&'a str, &'a [u8]);

/// Packs `entries` into an archive, all with the time `at` (seconds since 1970) and readable by their owner only.
///
/// Cuts off names after 100 bytes; none of ours is longer.
pub(super) fn archive(entries: &[Entry<'_>], at: u64) -> Vec<u8> {
    let mut archive = Vec::new();
    for (name, content) in entries {
        archive.extend(header(name, content.len(), at));
        archive.extend_from_slice(content);
        archive.resize(archive.len().next_multiple_of(BLOCK), 0);
    }
    // Two empty blocks mark the end.
    archive.resize(archive.len() + 2 * BLOCK, 0);
    archive
}

fn header(name: &str, size: usize, at: u64) -> [u8; BLOCK] {
    let mut header = [0; BLOCK];
    let mut put = |from: usize, text: &[u8]| {
        for (place, byte) in header.iter_mut().skip(from).zip(text) {
            *place = *byte;
        }
    };
    put(0, &name.as_bytes()[..name.len().min(100)]);
    put(100, b"0000600\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, format!("{size:011o}\0").as_bytes());
    put(136, format!("{at:011o}\0").as_bytes());
    put(156, b"0");
    put(257, b"ustar\x0000");
    put(265, b"root");
    put(297, b"root");
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
        let entries: [Entry<'_>; 4] =
            [("a/empty", b""), ("a/small", b"one\n"), ("a/block", &[7; BLOCK]), ("a/long", long.as_bytes())];
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.tar");
        std::fs::write(&file, archive(&entries, 1_796_083_200)).unwrap();
        let run = |args: &[&str]| {
            let out = Command::new("tar").args(args).arg(&file).env("TZ", "UTC").output().unwrap();
            assert!(out.status.success() && out.stderr.is_empty(), "{out:?}");
            String::from_utf8(out.stdout).unwrap()
        };
        let listed = run(&["-tvf"]);
        assert!(listed.starts_with("-rw------- root/root         0 2026-12-01 00:00 a/empty\n"), "{listed}");
        assert_eq!(listed.lines().count(), entries.len());
        let out =
            Command::new("tar").args(["-C", folder.path().to_str().unwrap(), "-xf"]).arg(&file).output();
        assert!(out.unwrap().status.success());
        for (name, content) in entries {
            assert_eq!(std::fs::read(folder.path().join(name)).unwrap(), content, "{name}");
        }
    }
}

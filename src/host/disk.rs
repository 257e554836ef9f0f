//! Free space on disks.

/// Returns the bytes that unprivileged programs can still write to the disk of `path`; `None` if the path does not exist
/// or its disk does not report it.
#[must_use]
pub fn free(path: &str) -> Option<u64> {
    disk_of(path).map(|disk| disk.free)
}

/// A disk, as unprivileged programs see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disk {
    /// Bytes that can still be written.
    pub free: u64,
    /// Files that can still be created, and the total; `None` if there is no such limit.
    pub files: Option<(u64, u64)>,
    pub is_read_only: bool,
}

/// Returns the disk of `path`; `None` as for [`free`].
#[must_use]
pub fn disk_of(path: &str) -> Option<Disk> {
    let disk = rustix::fs::statvfs(path).ok()?;
    // A file system without blocks, like /proc, stores no files.
    if disk.f_blocks == 0 {
        return None;
    }
    Some(Disk {
        free: disk.f_bavail.checked_mul(disk.f_frsize)?,
        files: (disk.f_files > 0).then_some((disk.f_favail, disk.f_files)),
        is_read_only: disk.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY),
    })
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// Within 5 %, because others write meanwhile.
    #[test]
    fn the_free_space_is_that_of_df() {
        let out = Command::new("df").args(["--output=avail", "--block-size=1", "/"]).output().unwrap();
        let text = String::from_utf8(out.stdout).unwrap();
        let by_df: u64 = text.lines().nth(1).unwrap().trim().parse().unwrap();
        let seen = free("/").unwrap();
        assert!(seen.abs_diff(by_df) < by_df / 20 + (64 << 20), "df {by_df}, seen {seen}");
    }

    #[test]
    fn no_disk_no_answer() {
        for path in ["", "/no/such/folder", "/proc", "a\0b"] {
            assert_eq!(free(path), None, "{path:?}");
        }
    }

    #[test]
    fn the_number_of_files_is_that_of_df() {
        let out = Command::new("df").args(["--output=itotal", "/"]).output().unwrap();
        let text = String::from_utf8(out.stdout).unwrap();
        let by_df: u64 = text.lines().nth(1).unwrap().trim().parse().unwrap();
        let (left, all) = disk_of("/").unwrap().files.unwrap();
        assert_eq!(all, by_df);
        assert!(left <= all && left > 0);
    }
}

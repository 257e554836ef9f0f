//! Room on a disk.

/// Bytes that programs without privilege may still write to the disk that holds `path`; `None` when the
/// path is not here or its disk does not say.
#[must_use]
pub fn free(path: &str) -> Option<u64> {
    let disk = rustix::fs::statvfs(path).ok()?;
    // A disk without blocks is none that keeps files, as those of /proc are.
    if disk.f_blocks == 0 {
        return None;
    }
    disk.f_bavail.checked_mul(disk.f_frsize)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// Within 5 %, because others write meanwhile.
    #[test]
    fn a_disk_has_the_room_that_df_tells() {
        let out = Command::new("df").args(["--output=avail", "--block-size=1", "/"]).output().unwrap();
        let told = String::from_utf8(out.stdout).unwrap();
        let told: u64 = told.lines().nth(1).unwrap().trim().parse().unwrap();
        let seen = free("/").unwrap();
        assert!(seen.abs_diff(told) < told / 20 + (64 << 20), "df {told}, seen {seen}");
    }

    #[test]
    fn no_disk_no_answer() {
        for path in ["", "/no/such/folder", "/proc", "a\0b"] {
            assert_eq!(free(path), None, "{path:?}");
        }
    }
}

//! A registry of the test's own, with the images of the shared one, to be stopped as it likes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Stopped with its value.
pub(crate) struct PrivateRegistry {
    dir: PathBuf,
    pub(crate) address: String,
}

impl PrivateRegistry {
    /// Starts one in `dir` with a copy of what the registry in `from` has.
    #[track_caller]
    pub(crate) fn start(dir: &Path, from: &Path) -> Self {
        fs::create_dir_all(dir).expect("a folder");
        let copied = Command::new("cp").arg("-r").arg(from.join("storage")).arg(dir).status();
        assert!(copied.expect("cp runs").success(), "the images cannot be copied");
        let mut registry = Self { dir: dir.to_owned(), address: String::new() };
        registry.start_again();
        registry
    }

    /// Starts it after [`stop`](Self::stop), at the same address.
    #[track_caller]
    pub(crate) fn start_again(&mut self) {
        let address = self.script(&[]);
        assert!(self.address.is_empty() || self.address == address, "another program took its port");
        self.address = address;
    }

    #[track_caller]
    pub(crate) fn stop(&mut self) {
        self.script(&["stop"]);
    }

    #[track_caller]
    fn script(&self, more: &[&str]) -> String {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/ensure-registry.sh");
        let out = Command::new(script).arg(&self.dir).args(more).output().expect("it runs");
        assert!(out.status.success(), "the registry: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8_lossy(&out.stdout).trim().to_owned()
    }
}

impl Drop for PrivateRegistry {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(self.dir.join("registry.log")).unwrap_or_default();
            let last: Vec<_> = log.lines().rev().take(5).collect();
            eprintln!("--- the last lines of the registry, newest first:\n{}", last.join("\n"));
        }
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/ensure-registry.sh");
        let _its_folder_goes_anyway = Command::new(script).arg(&self.dir).arg("stop").output();
    }
}

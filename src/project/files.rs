//! Reads the files of a project: bounded, and only those that are a part of it.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Maximum number of bytes of a compose file, a file of variables, or a config.
pub(super) const LONGEST: u64 = 1 << 20;

/// Maximum number of files of a project.
const MOST_FILES: usize = 500;

pub(super) fn too_long() -> String {
    format!("it has more than {LONGEST} bytes: shorten it")
}

/// The files of a project.
#[derive(Debug)]
pub(super) struct Files {
    /// The folder in which every file must lie, with its links resolved; `None` if any file may be read.
    root: Option<PathBuf>,
    /// The files that were read, with their texts: several services may name the same one.
    read: BTreeMap<PathBuf, String>,
}

impl Files {
    /// The files below the Git repository that `directory` is a part of, or else below `directory` itself.
    pub(super) fn of(directory: &Path, may_be_outside: bool) -> Self {
        let directory = directory.canonicalize().unwrap_or_else(|_| directory.to_owned());
        let repository = directory.ancestors().find(|folder| folder.join(".git").exists());
        let root = repository.unwrap_or(&directory).to_owned();
        Self { root: (!may_be_outside).then_some(root), read: BTreeMap::new() }
    }

    /// Reads a text file that the operator named.
    ///
    /// # Errors
    ///
    /// The reason, with a remedy.
    pub(super) fn read_named(&mut self, path: &Path) -> Result<String, String> {
        if let Some(text) = self.read.get(path) {
            return Ok(text.clone());
        }
        if self.read.len() >= MOST_FILES {
            return Err(format!("the project has more than {MOST_FILES} files: put some of them together"));
        }
        let meta = std::fs::metadata(path).map_err(|error| format!("it cannot be read: {error}"))?;
        if !meta.is_file() {
            return Err("it is not a file: name a file".into());
        }
        if meta.len() > LONGEST {
            return Err(too_long());
        }
        let file = std::fs::File::open(path).map_err(|error| format!("it cannot be read: {error}"))?;
        let mut bytes = Vec::new();
        file.take(LONGEST + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| format!("it cannot be read: {error}"))?;
        if bytes.len() as u64 > LONGEST {
            return Err(too_long());
        }
        let text =
            String::from_utf8(bytes).map_err(|_| "it is not UTF-8 text: save it as UTF-8".to_owned())?;
        self.read.insert(path.to_owned(), text.clone());
        Ok(text)
    }

    /// Reads a text file that a compose file names.
    ///
    /// # Errors
    ///
    /// The reason, with a remedy.
    pub(super) fn read(&mut self, path: &Path) -> Result<String, String> {
        self.check_inside(path)?;
        self.read_named(path)
    }

    /// Checks that a path which a compose file names is in the project. Links are resolved before.
    ///
    /// # Errors
    ///
    /// The reason, with a remedy.
    pub(super) fn check_inside(&self, path: &Path) -> Result<(), String> {
        if let Some(root) = &self.root
            && let Ok(real) = path.canonicalize()
            && !real.starts_with(root)
        {
            return Err(format!(
                "it is outside of the project ({}): copy it into the project, or allow it with --allow-outside",
                root.display()
            ));
        }
        Ok(())
    }
}

/// A path as a message shows it: relative to `directory` where it lies below.
pub(super) fn shown(path: &Path, directory: &Path) -> Arc<str> {
    let relative = path.strip_prefix(directory).unwrap_or(path);
    relative.display().to_string().into()
}

/// `path` below `base`, with `.` and `..` removed as text. `~` is the home folder.
pub(super) fn join(base: &Path, path: &str) -> PathBuf {
    use std::path::Component;
    let path = match path.strip_prefix("~/").zip(std::env::home_dir()) {
        Some((rest, home)) => home.join(rest),
        None => base.join(path),
    };
    let mut joined = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                if !joined.pop() {
                    joined.push("..");
                }
            }
            Component::Prefix(_) | Component::RootDir | Component::Normal(_) => joined.push(part),
        }
    }
    joined
}

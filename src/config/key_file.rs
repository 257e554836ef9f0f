//! The file with the provisioning key. It is read when the device registers, and removed or emptied afterwards.
//!
//! balena's agent does the same with the `apiKey` of its config.json: a thief of the device finds no key that could
//! register more devices.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use super::{ConfigError, sources};
use crate::ownership;

/// The setting that names the file.
const SETTING: &str = "cloud.provisioning_key_file";

/// A file that has a provisioning key in it, or had one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyFile {
    path: PathBuf,
}

impl KeyFile {
    /// Names the file. It may be empty or missing, because the key is removed once it was used.
    ///
    /// # Errors
    ///
    /// [`ConfigError::KeyFile`] if other users can read or change the key.
    pub(super) fn new(path: PathBuf) -> Result<Self, ConfigError> {
        let file = Self { path };
        let exposure = fs::metadata(&file.path).ok().filter(|_| file.has_key());
        match exposure.and_then(|metadata| ownership::exposure(&metadata)) {
            Some(why) => {
                Err(ConfigError::KeyFile { key: SETTING, path: file.path.display().to_string(), why })
            }
            None => Ok(file),
        }
    }

    /// Returns the path as it is in the settings.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns whether the file exists and is not empty.
    #[must_use]
    pub fn has_key(&self) -> bool {
        fs::metadata(&self.path).is_ok_and(|metadata| metadata.is_file() && metadata.len() > 0)
    }

    /// Reads the key.
    ///
    /// # Errors
    ///
    /// [`ConfigError::KeyFile`], with a remedy.
    pub fn read(&self) -> Result<String, ConfigError> {
        key(SETTING, &self.path)
    }

    /// Removes the file. If its folder is not writable, empties the file instead: the agent's unit may write only
    /// `/etc/cotter/provisioning.key` there. Durable when it returns.
    ///
    /// Does not overwrite the blocks on the disk, because a flash disk would write other cells.
    ///
    /// # Errors
    ///
    /// The system's error if neither succeeds.
    pub fn forget(&self) -> io::Result<()> {
        // Removing a link would leave the key.
        let file = fs::canonicalize(&self.path)?;
        if !file.is_file() {
            return Err(io::Error::other("it is not a regular file"));
        }
        match fs::remove_file(&file) {
            Ok(()) => file.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all()),
            Err(error) => {
                let emptied = OpenOptions::new().write(true).truncate(true).open(&file);
                emptied.and_then(|file| file.sync_all()).map_err(|_| error)
            }
        }
    }
}

/// Reads the first line of a key file. Refuses a file that other users can read.
pub(super) fn key(key: &'static str, path: &Path) -> Result<String, ConfigError> {
    let bad = |why: String| ConfigError::KeyFile { key, path: path.display().to_string(), why };
    if path.starts_with(sources::CREDENTIALS) {
        return Err(bad(sources::NO_CREDENTIALS.to_owned()));
    }
    let unreadable = |e: std::io::Error| bad(format!("{e}; write the key into it, with mode 600"));
    let metadata = fs::metadata(path).map_err(unreadable)?;
    if let Some(why) = ownership::exposure(&metadata) {
        return Err(bad(why));
    }
    let text = fs::read_to_string(path).map_err(unreadable)?;
    let first = text.lines().next().unwrap_or_default().trim().to_owned();
    if first.is_empty() {
        Err(bad("its first line is empty; write the key there".to_owned()))
    } else {
        Ok(first)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn a_key_is_forgotten_with_the_file_that_a_link_leads_to() {
        let dir = tempfile::tempdir().unwrap();
        let (path, link) = (dir.path().join("key"), dir.path().join("link"));
        let write = || {
            fs::write(&path, "secret\n").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        };
        write();
        symlink(&path, &link).unwrap();
        for named in [&path, &link] {
            write();
            let file = KeyFile::new(named.clone()).unwrap();
            assert_eq!((file.read().unwrap(), file.has_key()), ("secret".to_owned(), true));
            file.forget().unwrap();
            assert!(!path.exists() && !file.has_key());
            assert!(file.forget().is_err(), "nothing is left to be forgotten");
            let again = KeyFile::new(named.clone()).unwrap();
            let error = again.read().unwrap_err().to_string();
            assert!(error.contains("write the key into it, with mode 600"), "{error}");
        }
        write();
        fs::write(&path, "").unwrap();
        let empty = KeyFile::new(path).unwrap();
        assert!(!empty.has_key());
        assert!(empty.read().unwrap_err().to_string().contains("its first line is empty"));
        let pipe = KeyFile { path: "/dev/null".into() };
        assert!(!pipe.has_key() && pipe.forget().is_err() && Path::new("/dev/null").exists());
    }
}

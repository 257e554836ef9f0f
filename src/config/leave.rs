//! Finds and removes the files that `cotter join` wrote, and no other one.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::join::{BESIDE, HEAD, JoinError, NO_SETTINGS, OURS, WITH_VPN, absolute, read};
use super::{DEFAULT_FILE, Given};

/// The settings that `cotter join` may write.
const SETTINGS: [&str; 11] = [
    "endpoint",
    "uuid",
    "device_key_file",
    "fleet",
    "provisioning_key_file",
    "device_type",
    "device_name",
    "tags",
    "ca_file",
    "registries",
    "poll_interval",
];

/// The files of a join.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Traces {
    /// In the order in which they are removed: the settings come last, so that an interrupted removal can be repeated.
    files: Vec<PathBuf>,
    /// The cloud that was joined.
    pub endpoint: String,
}

impl Traces {
    /// Finds the files that `cotter join` wrote beside the settings file that `given` names; `None` if it wrote none.
    ///
    /// # Errors
    ///
    /// [`JoinError::Edited`] if the file was changed after `cotter join` wrote it, [`JoinError::Unreadable`].
    pub fn find(given: &Given) -> Result<Option<Self>, JoinError> {
        let file = absolute(given.file.as_deref().unwrap_or(Path::new(DEFAULT_FILE)));
        let ours = file.with_file_name("agent.d").join(OURS);
        let edited = |what: String| JoinError::Edited { path: ours.clone(), what };
        let bytes = match read(&ours) {
            Ok(bytes) => bytes.ok_or_else(|| edited("it is no file".to_owned()))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(why) => return Err(JoinError::Unreadable { path: ours, why }),
        };
        let text = String::from_utf8(bytes).map_err(|_| edited("it is no text".to_owned()))?;
        let rest = text.strip_prefix(HEAD).ok_or_else(|| edited("it begins otherwise".to_owned()))?;
        let rest = rest.strip_suffix(WITH_VPN).unwrap_or(rest);
        let is_ours = |line: &&str| line.split_once(" = ").is_some_and(|(key, _)| SETTINGS.contains(&key));
        if let Some(line) = rest.lines().find(|line| !is_ours(line)) {
            return Err(edited(format!("it has the line {line:?}")));
        }
        let says: Table = toml::from_str(rest).map_err(|_| edited("it cannot be parsed".to_owned()))?;
        let said = |key: &str| says.get(key).and_then(Value::as_str);
        let mut files = Vec::new();
        for (setting, name) in BESIDE {
            let key = setting.trim_start_matches("cloud.");
            let Some(value) = said(key) else { continue };
            let path = file.with_file_name(name);
            if value != path.display().to_string() {
                return Err(edited(format!("{key} names another file")));
            }
            // A link, or a folder, is none of ours.
            if fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_file()) {
                files.push(path);
            }
        }
        if fs::read_to_string(&file).is_ok_and(|text| text == NO_SETTINGS) {
            files.push(file);
        }
        files.push(ours);
        let endpoint = said("endpoint").unwrap_or_default().to_owned();
        Ok(Some(Self { files, endpoint }))
    }

    /// Returns the files, in the order in which they are removed.
    #[must_use]
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// Removes the files. One that is gone already is no error. Durable when it returns.
    ///
    /// # Errors
    ///
    /// [`JoinError::Unwritable`]. The files before that one are removed.
    pub fn remove(&self) -> Result<(), JoinError> {
        for path in &self.files {
            let removed = match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                Ok(()) | Err(_) => path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all()),
            };
            removed.map_err(|why| JoinError::Unwritable { path: path.clone(), why })?;
        }
        Ok(())
    }
}

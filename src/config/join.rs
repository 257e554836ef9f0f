//! Makes the settings of a device that joins a cloud: a file in `agent.d`, and a key in its own file.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use toml::Value;

use super::cloud::{endpoint, registries, tags};
use super::sources::{Place, in_toml};
use super::{ConfigError, DEFAULT_FILE, Given, Setting, duration};
use crate::model::{Admission, Enrolment};

/// The file in `agent.d` that `cotter join` writes.
pub(super) const OURS: &str = "50-join.toml";

/// The first lines of that file.
pub(super) const HEAD: &str = "# Made by `cotter join`.\n[cloud]\n";

/// The last lines of that file if the device joins the VPN of the cloud, too.
pub(super) const WITH_VPN: &str = "\n[vpn]\nenabled = \"yes\"\n";

/// The settings file where there was none: the unit names it, so it must exist.
pub(super) const NO_SETTINGS: &str = "# The settings are in agent.d.\n";

/// The files beside the settings file that `cotter join` may write, and the settings that name them.
pub(super) const BESIDE: [(&str, &str); 3] = [
    ("cloud.device_key_file", "device.key"),
    ("cloud.provisioning_key_file", "provisioning.key"),
    ("cloud.ca_file", "cloud-ca.pem"),
];

/// Settings that can be written.
#[derive(Clone, PartialEq, Eq)]
pub struct Joined {
    /// In the order in which they are written: a key comes before the settings that name it.
    files: Vec<Written>,
    /// The settings in the file, with their values for people.
    says: Vec<(&'static str, String)>,
    ours: PathBuf,
}

#[derive(Clone, PartialEq, Eq)]
struct Written {
    path: PathBuf,
    text: String,
    mode: u32,
}

/// Why the device cannot join.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    #[error(transparent)]
    Value(#[from] ConfigError),
    /// A setting of another source would override ours, or give the device another identity.
    #[error("{key} is set in {place}, which would override what is joined; remove it there")]
    Against { key: &'static str, place: Place },
    /// A file of ours that is not as `cotter join` writes it.
    #[error(
        "{path} is not as `cotter join` wrote it ({what}), so it is kept; remove it yourself, or undo the change"
    )]
    Edited { path: PathBuf, what: String },
    #[error("{path} cannot be read: {why}")]
    Unreadable { path: PathBuf, why: io::Error },
    #[error("{path} cannot be written: {why}")]
    Unwritable { path: PathBuf, why: io::Error },
    /// It had no other content before the cloud was asked.
    #[error("another command has just written {path}; nothing was changed")]
    Raced { path: PathBuf },
}

impl Joined {
    /// Makes the settings for `enrolment`, next to the file that `given` names. Writes nothing.
    ///
    /// Leaves out the provisioning key of a device that `is_registered` there, because it needs none any more.
    ///
    /// # Errors
    ///
    /// If the agent would not accept the values of the enrolment.
    pub fn new(given: &Given, enrolment: &Enrolment, is_registered: bool) -> Result<Self, JoinError> {
        let file = given.file.clone().unwrap_or_else(|| PathBuf::from(DEFAULT_FILE));
        // The agent has another working folder, so its paths must be absolute.
        let file = absolute(&file);
        let [device, provisioning, authority] = BESIDE;
        let beside = |(setting, name): (&'static str, &str)| (setting, file.with_file_name(name));
        let mut says = vec![("cloud.endpoint", endpoint(enrolment.endpoint.clone())?)];
        let (key, path) = match &enrolment.admission {
            Admission::Known { uuid, key } => {
                says.push(("cloud.uuid", uuid.to_string()));
                let (setting, path) = beside(device);
                says.push((setting, path.display().to_string()));
                (key, path)
            }
            Admission::Register { fleet, key } => {
                says.push(("cloud.fleet", fleet.to_string()));
                let (setting, path) = beside(provisioning);
                says.push((setting, path.display().to_string()));
                (key, path)
            }
        };
        let texts =
            [("cloud.device_type", &enrolment.device_type), ("cloud.device_name", &enrolment.device_name)];
        says.extend(texts.into_iter().filter_map(|(key, text)| Some((key, text.clone()?))));
        if !enrolment.tags.is_empty() {
            let all: Vec<_> = enrolment.tags.iter().map(|(key, value)| format!("{key}={value}")).collect();
            tags(&all.join(","))?;
            says.push(("cloud.tags", all.join(",")));
        }
        let authority = enrolment.authority.as_ref().map(|pem| {
            let (setting, path) = beside(authority);
            says.push((setting, path.display().to_string()));
            Written { path, text: pem.clone(), mode: 0o644 }
        });
        if let Some(registry) = &enrolment.registry {
            registries(registry)?;
            says.push(("cloud.registries", registry.clone()));
        }
        if let Some(interval) = enrolment.poll_interval {
            let text = humantime::format_duration(interval).to_string();
            duration("cloud.poll_interval", Some(text.clone()), 1, 24 * 3600)?;
            says.push(("cloud.poll_interval", text));
        }
        let ours = file.with_file_name("agent.d").join(OURS);
        let has_key = !is_registered || matches!(enrolment.admission, Admission::Known { .. });
        let key = has_key.then(|| Written { path, text: format!("{key}\n"), mode: 0o600 });
        let mut files: Vec<_> = key.into_iter().chain(authority).collect();
        files.push(Written { path: ours.clone(), text: section(&says), mode: 0o644 });
        if !file.exists() {
            files.push(Written { path: file, text: NO_SETTINGS.to_owned(), mode: 0o644 });
        }
        Ok(Self { files, says, ours })
    }

    /// Turns the VPN of the cloud on as well.
    #[must_use]
    pub fn with_vpn(mut self) -> Self {
        for written in self.files.iter_mut().filter(|written| written.path == self.ours) {
            written.text.push_str(WITH_VPN);
        }
        self.says.push(("vpn.enabled", "yes".to_owned()));
        self
    }

    /// Returns the settings, without keys.
    #[must_use]
    pub fn says(&self) -> &[(&'static str, String)] {
        &self.says
    }

    /// Returns the files that would be changed, each with `true` if it exists with other content.
    ///
    /// # Errors
    ///
    /// If a file cannot be read.
    pub fn changes(&self) -> Result<Vec<(&Path, bool)>, JoinError> {
        let mut changes = Vec::new();
        for Written { path, text, mode } in &self.files {
            match read(path) {
                Ok(Some(there)) if there == text.as_bytes() => {
                    let is_mode = path.metadata().is_ok_and(|m| m.permissions().mode() & 0o777 == *mode);
                    if !is_mode {
                        changes.push((path.as_path(), false));
                    }
                }
                Ok(_) => changes.push((path, true)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => changes.push((path, false)),
                Err(why) => return Err(JoinError::Unreadable { path: path.clone(), why }),
            }
        }
        Ok(changes)
    }

    /// Returns the first setting of another source that our file would override with another cloud, uuid or fleet.
    ///
    /// # Errors
    ///
    /// [`JoinError::Against`] for a setting that would override ours.
    pub fn meets<'a>(&self, settings: &'a [Setting]) -> Result<Option<&'a Setting>, JoinError> {
        let is_nearer = |place: &Place| match place {
            Place::Variable(_) | Place::Flag(_) => true,
            Place::File { path, .. } => {
                let path = absolute(path);
                path.parent() == self.ours.parent() && path > self.ours
            }
        };
        let said = |key: &str| self.says.iter().find(|(name, _)| *name == key).map(|(_, value)| value);
        let registers = said("cloud.uuid").is_none();
        let mut met = None;
        for setting in settings {
            let Some(place) = setting.place.as_ref().filter(|place| !self.is_ours(place)) else { continue };
            let differs = said(setting.key).is_some_and(|ours| Some(ours) != setting.value.as_ref());
            let makes_known = registers && ["cloud.uuid", "cloud.device_key_file"].contains(&setting.key);
            if makes_known || (differs && is_nearer(place)) {
                return Err(JoinError::Against { key: setting.key, place: place.clone() });
            }
            if differs
                && met.is_none()
                && ["cloud.endpoint", "cloud.uuid", "cloud.fleet"].contains(&setting.key)
            {
                met = Some(setting);
            }
        }
        Ok(met)
    }

    fn is_ours(&self, place: &Place) -> bool {
        matches!(place, Place::File { path, .. } if absolute(path) == self.ours)
    }

    /// Writes the files that differ, each as one step. Only the owner can read keys. One process writes at a time, so that
    /// no mix of two joins is left. `may_replace`: files that have other content.
    ///
    /// # Errors
    ///
    /// [`JoinError::Unwritable`]. The files before that one are written. [`JoinError::Raced`]; none is written.
    pub fn write(&self, may_replace: bool) -> Result<(), JoinError> {
        let folder = self.ours.parent().unwrap_or(Path::new("/"));
        let locked = fs::create_dir_all(folder).and_then(|()| File::open(folder)).and_then(|folder| {
            // It ends with the handle.
            folder.lock()?;
            Ok(folder)
        });
        let _lock = locked.map_err(|why| JoinError::Unwritable { path: folder.to_owned(), why })?;
        let changes = self.changes()?;
        if let Some((path, _)) = changes.iter().find(|(_, is_other)| *is_other && !may_replace) {
            return Err(JoinError::Raced { path: (*path).to_owned() });
        }
        for written in self.files.iter().filter(|file| changes.iter().any(|(path, _)| *path == file.path)) {
            let path = &written.path;
            let done = path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| written.replace());
            done.map_err(|why| JoinError::Unwritable { path: path.clone(), why })?;
        }
        Ok(())
    }
}

impl Written {
    fn replace(&self) -> io::Result<()> {
        let temporary = self.path.with_extension("new");
        let _left_behind = fs::remove_file(&temporary);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(self.mode).open(&temporary)?;
        let written = file.write_all(self.text.as_bytes()).and_then(|()| file.sync_all());
        // The umask of the process may have removed bits.
        let written =
            written.and_then(|()| fs::set_permissions(&temporary, fs::Permissions::from_mode(self.mode)));
        if let Err(error) = written.and_then(|()| fs::rename(&temporary, &self.path)) {
            let _gone = fs::remove_file(&temporary);
            return Err(error);
        }
        self.path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
    }
}

/// Reads a file; `None` for what is there and is no file, e.g. a folder or a pipe.
pub(super) fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    if !fs::metadata(path)?.is_file() {
        return Ok(None);
    }
    fs::read(path).map(Some)
}

pub(super) fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// Formats the section `cloud` of a settings file.
fn section(says: &[(&'static str, String)]) -> String {
    let mut text = HEAD.to_owned();
    for (key, value) in says {
        let key = key.trim_start_matches("cloud.");
        let is_number = key == "fleet" && value.chars().all(|c| c.is_ascii_digit());
        let value = if is_number { value.clone() } else { in_toml(&Value::String(value.clone())) };
        text.push_str(&format!("{key} = {value}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::FleetRef;

    fn joined(folder: &Path, key: &str) -> Joined {
        let given = Given { file: Some(folder.join("agent.toml")), set: Vec::new() };
        let admission = Admission::Register { fleet: FleetRef::Number(1), key: key.to_owned() };
        let enrolment = Enrolment {
            endpoint: "https://fleet.example.com".to_owned(),
            admission,
            device_type: None,
            device_name: Some(key.to_owned()),
            registry: None,
            poll_interval: None,
            tags: [].into(),
            authority: None,
        };
        Joined::new(&given, &enrolment, false).unwrap()
    }

    #[test]
    fn of_two_joins_at_once_one_is_refused_and_no_mix_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let all: Vec<_> = (0..8).map(|i| joined(folder.path(), &format!("key-of-join-{i}"))).collect();
        let (done, raced): (Vec<_>, Vec<_>) = std::thread::scope(|scope| {
            let all: Vec<_> = all.iter().map(|one| scope.spawn(|| one.write(false))).collect();
            all.into_iter().map(|one| one.join().unwrap()).partition(Result::is_ok)
        });
        assert_eq!((done.len(), raced.len()), (1, 7));
        assert!(raced.iter().all(|one| matches!(one, Err(JoinError::Raced { .. }))), "{raced:?}");
        let left = all.iter().filter(|one| one.changes().unwrap().is_empty()).count();
        assert_eq!(left, 1, "the files are those of one join");
    }

    #[test]
    fn a_file_that_is_no_text_is_replaced_if_that_is_wanted() {
        let folder = tempfile::tempdir().unwrap();
        let one = joined(folder.path(), "12345678");
        fs::create_dir(folder.path().join("agent.d")).unwrap();
        fs::write(&one.ours, [0xff, 0xfe]).unwrap();
        assert!(one.changes().unwrap().contains(&(one.ours.as_path(), true)));
        let error = one.write(false).unwrap_err().to_string();
        assert!(error.contains("another command has just written"), "{error}");
        one.write(true).unwrap();
        assert_eq!(one.changes().unwrap(), []);
        fs::write(&one.ours, [0xff, 0xfe]).unwrap();
        let given = Given { file: Some(folder.path().join("agent.toml")), set: Vec::new() };
        let edited = |what: &str| {
            let error = super::super::Traces::find(&given).unwrap_err().to_string();
            assert!(error.contains(what), "{error}");
        };
        edited("(it is no text)");
        fs::remove_file(&one.ours).unwrap();
        fs::create_dir(&one.ours).unwrap();
        edited("(it is no file)");
    }
}

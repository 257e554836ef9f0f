//! The files from which openvpn's unit takes its settings and the device's key.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use crate::model::VpnWanted;
use crate::ownership;

use super::settings::{self, CREDENTIALS};

/// The settings. The unit starts when the file is there.
const CONFIG: &str = "client.conf";

/// Most bytes of a file that is compared.
const LONGEST: u64 = 1 << 20;

/// Where the files are, for one tunnel.
#[derive(Debug, Clone)]
pub struct Files {
    /// Below the runtime folder: the key is never on a disk because of openvpn.
    pub folder: PathBuf,
    /// The name of the network interface.
    pub device: String,
    /// The management socket.
    pub socket: PathBuf,
}

impl Files {
    /// Creates the folder if it is missing, and makes it private.
    ///
    /// # Errors
    ///
    /// If another user could change the folder.
    pub fn take_folder(&self) -> Result<(), String> {
        ownership::take_folder(&self.folder).map(drop).map_err(|why| why.to_string())
    }

    /// Returns `true` if the settings of this tunnel are there.
    #[must_use]
    pub fn has(&self, wanted: &VpnWanted) -> bool {
        self.texts(wanted).iter().all(|(name, text)| self.is(name, text))
    }

    /// Writes the settings of a tunnel. They must have been removed, because the unit must not start with the settings of one
    /// tunnel and the key of another one.
    ///
    /// # Errors
    ///
    /// Those of the file system. Then the settings are not there, so nothing starts with a part of them.
    pub fn write(&self, wanted: &VpnWanted) -> Result<(), String> {
        for (name, text) in self.texts(wanted) {
            self.put(name, &text).map_err(|why| self.failed(name, &why))?;
        }
        Ok(())
    }

    /// The files, the one that starts the unit last.
    fn texts(&self, wanted: &VpnWanted) -> [(&'static str, String); 2] {
        [
            (CREDENTIALS, settings::credentials(wanted)),
            (CONFIG, settings::config(wanted, &self.device, &self.socket)),
        ]
    }

    /// Removes the files, so that the unit does not start any more. Returns whether there were settings.
    ///
    /// # Errors
    ///
    /// Those of the file system.
    pub fn remove(&self) -> Result<bool, String> {
        let remove = |name: &str| match fs::remove_file(self.folder.join(name)) {
            Ok(()) => Ok(true),
            Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(why) => Err(self.failed(name, &why)),
        };
        let had_settings = remove(CONFIG)?;
        remove(CREDENTIALS)?;
        Ok(had_settings)
    }

    /// Returns whether there are settings and they are for this device's uuid and key.
    #[must_use]
    pub fn are_of(&self, uuid: &str, key: &str) -> bool {
        self.are_there() && self.is(CREDENTIALS, &settings::login(uuid, key))
    }

    /// Returns whether there are settings.
    #[must_use]
    pub fn are_there(&self) -> bool {
        self.folder.join(CONFIG).exists()
    }

    fn failed(&self, name: &str, why: &io::Error) -> String {
        format!("{}: {why}", self.folder.join(name).display())
    }

    fn is(&self, name: &str, text: &str) -> bool {
        let mut found = Vec::new();
        let read =
            File::open(self.folder.join(name)).and_then(|file| file.take(LONGEST).read_to_end(&mut found));
        read.is_ok() && found == text.as_bytes()
    }

    /// Puts a file in place in one step.
    fn put(&self, name: &str, text: &str) -> io::Result<()> {
        let temporary = self.folder.join(format!("{name}.new"));
        _ = fs::remove_file(&temporary);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(text.as_bytes())?;
        fs::rename(&temporary, self.folder.join(name))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::model::{VpnOffer, VpnServer};

    #[test]
    fn files_are_private_and_written_only_when_they_change() {
        let root = tempfile::tempdir().unwrap();
        let files = Files {
            folder: root.path().join("vpn"),
            device: "cotter-vpn".into(),
            socket: "/run/x/management.sock".into(),
        };
        let server = VpnServer { host: "a.example".into(), port: 443, is_udp: false };
        let offer = VpnOffer { servers: vec![server], authorities: String::new() };
        let wanted = |key: &str| VpnWanted { offer: offer.clone(), uuid: "ab".into(), key: key.into() };
        assert!(!files.are_there());
        files.take_folder().unwrap();
        assert!(!files.has(&wanted("one")));
        files.write(&wanted("one")).unwrap();
        assert_eq!((files.has(&wanted("one")), files.has(&wanted("two"))), (true, false));
        files.write(&wanted("two")).unwrap();
        assert_eq!(fs::read_to_string(files.folder.join(CREDENTIALS)).unwrap(), "ab\ntwo\n");
        for name in [CREDENTIALS, CONFIG] {
            let mode = fs::metadata(files.folder.join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
        assert!(files.are_there() && files.are_of("ab", "two"));
        assert!(!files.are_of("ab", "one") && !files.are_of("cd", "two"));
        assert_eq!((files.remove(), files.remove()), (Ok(true), Ok(false)));
        assert!(!files.are_there() && !files.folder.join(CREDENTIALS).exists());
    }
}

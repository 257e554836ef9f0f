//! The TLS certificate of the server: reads its files, and reads them again after a renewal.

use std::convert::Infallible;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::clock;
use crate::listen::{BadPair, Certificate, Tls};
use crate::ownership::User;

/// How often the files are checked for a renewal.
const CHECK: Duration = Duration::from_secs(10);

/// Maximum number of bytes of each file.
const LARGEST: u64 = 1 << 20;

/// The files with the certificate and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// Why a certificate cannot be used, with the file.
#[derive(Debug, thiserror::Error)]
#[error("{setting} = {}: {why}", path.display())]
pub struct TlsError {
    setting: &'static str,
    path: PathBuf,
    why: String,
}

/// The identity of a file's content: device, inode, size, and time of the last change.
type Stamp = (u64, u64, u64, i64, i64);

/// The certificate in use, and the files that it comes from.
#[derive(Debug)]
pub(super) struct Renewal {
    files: TlsFiles,
    tls: Tls,
    /// The files as they were when they were read last, whether or not they could be used.
    read: [Option<Stamp>; 2],
    /// Asks for the files to be read at once.
    hangup: Signal,
}

impl TlsFiles {
    /// Reads both files. Warns if the certificate has expired.
    pub(super) fn read(&self) -> Result<Certificate, TlsError> {
        let [cert, key] = [("tls_cert", &self.cert), ("tls_key", &self.key)];
        let bad = |(setting, path): (&'static str, &PathBuf), why: String| TlsError {
            setting,
            path: path.clone(),
            why,
        };
        let chain = content(&self.cert, false).map_err(|why| bad(cert, why))?;
        let secret = content(&self.key, true).map_err(|why| bad(key, why))?;
        let certificate = Certificate::from_pem(&chain, &secret).map_err(|error| match error {
            BadPair::Certificate(why) => bad(cert, why.to_string()),
            BadPair::Key(why) => bad(key, why.to_string()),
        })?;
        if let Some(expired) = certificate.expires().filter(|expires| *expires <= clock::now()) {
            let path = self.cert.display();
            tracing::warn!(%path, %expired, "the TLS certificate has expired, so devices and operators refuse it");
        }
        Ok(certificate)
    }

    fn stamps(&self) -> [Option<Stamp>; 2] {
        [&self.cert, &self.key].map(|path| {
            let file = std::fs::metadata(path).ok()?;
            Some((file.dev(), file.ino(), file.size(), file.mtime(), file.mtime_nsec()))
        })
    }
}

/// Reads a file. The error is a sentence without its path.
fn content(path: &Path, is_secret: bool) -> Result<Vec<u8>, String> {
    let failed = |error: io::Error| {
        if error.kind() == io::ErrorKind::PermissionDenied {
            return format!("this user (number {}) cannot read it: {error}", User::us().id);
        }
        format!("it cannot be read: {error}")
    };
    let file = std::fs::metadata(path).map_err(failed)?;
    if !file.is_file() || file.len() > LARGEST {
        return Err("it is not a file of at most 1 MiB".to_owned());
    }
    if file.len() == 0 {
        return Err("it is empty".to_owned());
    }
    let (mode, owner) = (file.mode() & 0o777, file.uid());
    // Its group may read it: on many systems a group has the certificates, and systemd gives credentials to a user this way.
    if is_secret && mode & 0o027 != 0 {
        return Err(format!("other users can read or change it (mode {mode:o}); chmod 600 or 640 it"));
    }
    if is_secret && ![0, User::us().id].contains(&owner) {
        return Err(format!("it belongs to user {owner}, who can read and change it; chown it"));
    }
    std::fs::read(path).map_err(failed)
}

impl Renewal {
    /// Reads the files for the first time. From now on a SIGHUP does not end the process.
    ///
    /// # Errors
    ///
    /// [`TlsError`] if they cannot be used; the system's own error if TLS or signals cannot be set up.
    pub(super) fn open(files: TlsFiles) -> Result<Result<Self, TlsError>, io::Error> {
        let read = files.stamps();
        let certificate = match files.read() {
            Ok(certificate) => certificate,
            Err(error) => return Ok(Err(error)),
        };
        let tls = Tls::new(certificate)?;
        let hangup = signal(SignalKind::hangup())?;
        Ok(Ok(Self { files, tls, read, hangup }))
    }

    pub(super) fn tls(&self) -> Tls {
        self.tls.clone()
    }

    /// Uses each renewed certificate. A change counts once the files are the same at two checks, so that no certificate is
    /// read before its key is written, too.
    pub(super) async fn keep(mut self) -> Infallible {
        let mut before = self.read;
        loop {
            let is_asked = tokio::select! {
                () = tokio::time::sleep(CHECK) => false,
                _ = self.hangup.recv() => true,
            };
            let now = self.files.stamps();
            if is_asked || (now != self.read && now == before) {
                self.read = now;
                self.renew();
            }
            before = now;
        }
    }

    fn renew(&self) {
        match self.files.read() {
            Ok(certificate) => {
                let expires = certificate.expires().map(tracing::field::display);
                tracing::info!(path = %self.files.cert.display(), expires, "the TLS certificate was read again");
                self.tls.replace(certificate);
            }
            Err(error) => {
                tracing::error!(%error, "the renewed TLS certificate cannot be used; the last one stays in use")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_key_is_kept_from_others() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key.pem");
        std::fs::write(&path, "x").unwrap();
        for (mode, expected) in [
            (0o600, None),
            (0o400, None),
            (0o640, None),
            (0o440, None),
            (0o660, Some("mode 660")),
            (0o644, Some("mode 644")),
            (0o601, Some("mode 601")),
        ] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let why = content(&path, true).err();
            assert_eq!(why.is_some(), expected.is_some(), "{mode:o}: {why:?}");
            assert!(why.is_none_or(|why| why.contains(expected.unwrap())), "{mode:o}");
            assert!(content(&path, false).is_ok(), "everyone may know a certificate");
        }
        std::fs::write(&path, "").unwrap();
        assert_eq!(content(&path, false).unwrap_err(), "it is empty");
        assert_eq!(content(dir.path(), false).unwrap_err(), "it is not a file of at most 1 MiB");
        assert!(
            content(&dir.path().join("none"), false)
                .unwrap_err()
                .starts_with("it cannot be read: No such file")
        );
    }
}

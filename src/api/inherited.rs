//! Sockets that systemd created and hands over. A client that connects while the agent is down waits for it.

use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use listenfd::ListenFd;

/// The sockets from systemd that have not been taken yet, found by their path and not by their position.
#[derive(Debug, Default)]
pub struct Inherited(Vec<(PathBuf, UnixListener)>);

impl Inherited {
    /// Takes the sockets that this process was given. A second call finds none.
    #[must_use]
    pub fn from_systemd() -> Self {
        let mut given = ListenFd::from_env();
        let listeners = (0..given.len()).filter_map(|place| given.take_unix_listener(place).ok().flatten());
        Self(listeners.filter_map(|listener| Some((path(&listener)?, listener))).collect())
    }

    /// The socket at `path`, if it was handed over.
    pub(super) fn take(&mut self, path: &Path) -> Option<UnixListener> {
        let place = self.0.iter().position(|(of, _)| of == path)?;
        Some(self.0.swap_remove(place).1)
    }

    /// The sockets that were not taken: their paths are not those of the settings.
    pub fn left(&self) -> impl Iterator<Item = &Path> {
        self.0.iter().map(|(path, _)| path.as_path())
    }
}

fn path(listener: &UnixListener) -> Option<PathBuf> {
    listener.local_addr().ok()?.as_pathname().map(Path::to_path_buf)
}

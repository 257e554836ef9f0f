//! Prepares and removes the lock folders of services, and watches those that an update waits for.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::model::{FileLock, ServiceName};

use super::HostAccess;

/// Time between two reads of the watched folders. A read costs a few small files and no engine call.
const READ_EVERY: Duration = Duration::from_millis(500);

/// A service's folder: the number of its app and its name.
pub(super) type Folder = (u64, ServiceName);

/// The lock folders that this agent takes care of.
#[derive(Debug, Default)]
pub(super) struct LockFolders {
    /// Folders that this agent has made writable for the users of their containers.
    prepared: BTreeSet<Folder>,
    /// Folders that an update waits for, as they were read last.
    watched: Vec<Watched>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Watched {
    folder: Folder,
    lock: Option<FileLock>,
    has_handed_over: bool,
}

impl Watched {
    fn read<H: HostAccess>(host: &H, (number, service): Folder) -> Self {
        let lock = host.lock(number, &service);
        let has_handed_over = host.has_handed_over(number, &service);
        Self { folder: (number, service), lock, has_handed_over }
    }
}

impl LockFolders {
    /// Removes all folders but these.
    pub(super) fn keep_only<H: HostAccess>(&mut self, host: &H, keep: &BTreeSet<Folder>) {
        self.prepared.retain(|folder| keep.contains(folder));
        host.keep_folders(keep);
    }

    /// Prepares a folder, once in the life of this agent: after a boot the engine makes it, and then for root only.
    pub(super) fn prepare<H: HostAccess>(&mut self, host: &H, number: u64, service: &ServiceName) {
        if self.prepared.insert((number, service.clone())) {
            // Without it only root can lock. A step that creates the container tries again.
            let _ = host.prepare(number, service);
        }
    }

    /// Watches these folders from now on, and no others.
    pub(super) fn watch<H: HostAccess>(&mut self, host: &H, folders: impl Iterator<Item = Folder>) {
        self.watched = folders.map(|folder| Watched::read(host, folder)).collect();
    }

    /// Returns when a watched folder has changed; never, if none is watched.
    pub(super) async fn changed<H: HostAccess>(&self, host: &H) {
        if self.watched.is_empty() {
            return std::future::pending().await;
        }
        loop {
            tokio::time::sleep(READ_EVERY).await;
            if self.watched.iter().any(|was| Watched::read(host, was.folder.clone()) != *was) {
                return;
            }
        }
    }
}

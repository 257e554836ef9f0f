//! How far the log of each container was uploaded.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::model::{ContainerId, LogCursor, LogCursors};

/// The cursors, and whether they differ from the saved ones.
#[derive(Debug, Default)]
pub(super) struct Cursors {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    cursors: LogCursors,
    is_changed: bool,
}

impl Cursors {
    pub(super) fn new(cursors: LogCursors) -> Self {
        Self { inner: Mutex::new(Inner { cursors, is_changed: false }) }
    }

    pub(super) fn get(&self, container: &ContainerId) -> Option<LogCursor> {
        self.inner().cursors.get(container).copied()
    }

    /// Records how far a container's log was uploaded.
    pub(super) fn advance(&self, container: ContainerId, cursor: LogCursor) {
        let mut inner = self.inner();
        inner.is_changed |= inner.cursors.insert(container, cursor) != Some(cursor);
    }

    /// Forgets a container that does not exist any more.
    pub(super) fn forget(&self, container: &ContainerId) {
        let mut inner = self.inner();
        inner.is_changed |= inner.cursors.remove(container).is_some();
    }

    /// Returns all cursors if they have changed since the last call.
    pub(super) fn take_changed(&self) -> Option<LogCursors> {
        let mut inner = self.inner();
        std::mem::take(&mut inner.is_changed).then(|| inner.cursors.clone())
    }

    /// Ignores poisoning, because a panic elsewhere leaves consistent cursors.
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

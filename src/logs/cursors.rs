//! How far the log of each container was uploaded, as far as that is known.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::model::{ContainerId, LogCursor, LogCursors};

/// How far each log was sent, and how far the cloud has confirmed it. Only the latter is saved.
#[derive(Debug, Default)]
pub(super) struct Cursors {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    sent: LogCursors,
    confirmed: LogCursors,
    /// Whether the confirmed ones differ from the saved ones.
    is_changed: bool,
}

impl Cursors {
    pub(super) fn new(cursors: LogCursors) -> Self {
        Self { inner: Mutex::new(Inner { sent: cursors.clone(), confirmed: cursors, is_changed: false }) }
    }

    /// Returns how far a container's log was sent.
    pub(super) fn get(&self, container: &ContainerId) -> Option<LogCursor> {
        self.inner().sent.get(container).copied()
    }

    /// Records how far a container's log was sent.
    pub(super) fn advance(&self, container: ContainerId, cursor: LogCursor) {
        self.inner().sent.insert(container, cursor);
    }

    /// Records that what was sent needs not be sent again.
    pub(super) fn confirm(&self) {
        let mut inner = self.inner();
        if inner.confirmed != inner.sent {
            inner.confirmed = inner.sent.clone();
            inner.is_changed = true;
        }
    }

    /// Goes back to what the cloud has confirmed.
    pub(super) fn roll_back(&self) {
        let mut inner = self.inner();
        inner.sent = inner.confirmed.clone();
    }

    /// Forgets a container that does not exist any more.
    pub(super) fn forget(&self, container: &ContainerId) {
        let mut inner = self.inner();
        inner.sent.remove(container);
        inner.is_changed |= inner.confirmed.remove(container).is_some();
    }

    /// Returns all confirmed cursors if they have changed since the last call.
    pub(super) fn take_changed(&self) -> Option<LogCursors> {
        let mut inner = self.inner();
        std::mem::take(&mut inner.is_changed).then(|| inner.confirmed.clone())
    }

    /// Ignores poisoning, because a panic elsewhere leaves consistent cursors.
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_cloud_has_confirmed_is_saved() {
        let container = ContainerId::parse("aa").unwrap();
        let cursors = Cursors::default();
        let at = |at| LogCursor { at, seen: 1 };
        cursors.advance(container.clone(), at(1));
        assert_eq!((cursors.get(&container), cursors.take_changed()), (Some(at(1)), None));
        cursors.confirm();
        let saved = LogCursors::from([(container.clone(), at(1))]);
        assert_eq!((cursors.take_changed(), cursors.take_changed()), (Some(saved), None));
        cursors.advance(container.clone(), at(2));
        cursors.roll_back();
        assert_eq!((cursors.get(&container), cursors.take_changed()), (Some(at(1)), None));
        cursors.forget(&container);
        assert_eq!((cursors.get(&container), cursors.take_changed()), (None, Some(LogCursors::new())));
    }
}

//! Locks that a panic elsewhere does not invalidate.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks. Ignores poisoning: whoever holds one of these locks changes what it guards in one step, so a panic leaves nothing
/// half changed.
pub(super) fn locked<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

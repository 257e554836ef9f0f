//! Says in plain words that the records are damaged when the database ends with a panic while it reads them, which it does for
//! some damage. In a release a panic ends the process, so only its hook can say it.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use super::store_error::StoreError;

thread_local! {
    /// The data folder whose records this thread reads.
    static READS: RefCell<Option<PathBuf>> = const { RefCell::new(None) };
}

/// Runs what reads the records of a data folder. A panic is damage.
///
/// # Errors
///
/// [`StoreError::Damaged`]; else those of `read`.
pub(super) fn guarded<T>(dir: &Path, read: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    READS.set(Some(dir.to_owned()));
    let result = catch_unwind(AssertUnwindSafe(read));
    READS.set(None);
    result.unwrap_or_else(|_| Err(damaged(dir)))
}

/// Returns the error to show if this thread panics now: it reads records.
#[must_use]
pub fn while_reading() -> Option<String> {
    READS.with_borrow(|dir| dir.as_deref().map(|dir| damaged(dir).to_string()))
}

fn damaged(dir: &Path) -> StoreError {
    StoreError::Damaged { dir: dir.to_owned(), why: "a part of them cannot be what it says".to_owned() }
}

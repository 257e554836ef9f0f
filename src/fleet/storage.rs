//! What the writer of the records needs of a store: a file of this server alone (`file_storage`), or a database that several
//! servers share (`database`).

use jiff::Timestamp;

use super::access::{Scope, Which};
use super::audit_log::Page;
use super::policy::Change;
use super::store_error::StoreError;

/// Where the records are. Only the writer's thread uses it, and it may block.
pub(super) trait Storage: Send {
    /// Begins a group of acts: no other server writes until the group ends. Returns what others have written before, so that
    /// the acts are decided on the newest records.
    ///
    /// # Errors
    ///
    /// Then no group has begun.
    fn begin(&mut self) -> Result<News, StoreError>;

    /// Writes all changes of a group or none, and returns once they are on disk. The group ends. Returns the new position.
    ///
    /// # Errors
    ///
    /// Then nothing was written; or, with [`StoreError::is_unknown`], it is not known whether anything was.
    fn commit(&mut self, changes: &[Change]) -> Result<Option<u64>, StoreError>;

    /// Ends a group that changes nothing.
    fn end(&mut self);

    /// Returns what other servers have written.
    ///
    /// # Errors
    ///
    /// The store's own.
    fn refresh(&mut self) -> Result<News, StoreError>;
}

/// What the writer has to take over from the store.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum News {
    None,
    /// These changes, which lead to this position.
    Changes(Vec<Change>, u64),
    /// All records, because what is in memory may be wrong or is too old.
    All(Vec<Change>, Option<u64>),
}

/// The audit trail, which is in the store and not in memory. It blocks, but no act waits for it.
pub(super) trait Trail: Send + Sync {
    /// Reads the newest records below a number, at most `most` of them. A record that cannot be read is left out.
    ///
    /// # Errors
    ///
    /// The store's own.
    fn page(&self, which: &Which, scope: &Scope, below: u64, most: usize) -> Result<Page, StoreError>;

    /// Returns the numbers of the oldest records that are from before a time, or that are more than `keep` behind the newest.
    ///
    /// # Errors
    ///
    /// The store's own.
    fn old(&self, keep: u64, before: Timestamp, most: usize) -> Result<Vec<u64>, StoreError>;
}

/// An open store.
pub(super) struct Opened {
    pub(super) storage: Box<dyn Storage>,
    pub(super) trail: Box<dyn Trail>,
    /// All records.
    pub(super) records: Vec<Change>,
    /// The position of the records, in a store that several servers share.
    pub(super) position: Option<u64>,
    /// The name of this server in its notifications to the others that share the store.
    pub(super) own: String,
}

#[cfg(test)]
#[path = "storage_tests.rs"]
mod tests;

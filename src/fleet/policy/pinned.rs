//! The record of who pinned a device or a fleet, when and why.

use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::fleet::access::Entry;

/// Who pinned a device or a fleet. Records of older versions do not have it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pinned {
    pub at: Timestamp,
    /// The user, or the token of one that has none.
    pub by: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

impl From<&Entry> for Pinned {
    fn from(entry: &Entry) -> Self {
        Self { at: entry.at, by: entry.by.shown(), why: entry.why.clone() }
    }
}

/// [`Pinned`], and the release that it is about: once another one is the pin, it says nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinnedTo {
    release: u64,
    /// All devices of a bulk act share it.
    by: Arc<Pinned>,
}

impl PinnedTo {
    pub(super) fn new(release: u64, by: Arc<Pinned>) -> Self {
        Self { release, by }
    }

    /// Returns who made this pin, if it is the one that is recorded.
    pub(super) fn by(&self, pin: Option<u64>) -> Option<&Pinned> {
        (Some(self.release) == pin).then_some(&*self.by)
    }
}

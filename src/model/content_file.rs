//! Files that a release brings with it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A file of a release's `configs`, with its content.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContentFile {
    /// Absolute path in the container.
    pub target: String,
    pub content: String,
    /// Permissions, e.g. `0o444`.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

/// Not its content, which may be secret.
impl fmt::Debug for ContentFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ContentFile")
            .field("target", &self.target)
            .field("bytes", &self.content.len())
            .finish_non_exhaustive()
    }
}

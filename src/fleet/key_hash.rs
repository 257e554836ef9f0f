//! The hash of a key or a token, which is stored instead of it.

use serde::{Deserialize, Serialize};

/// The SHA-256 of a key, as 64 hex digits. Keys themselves are never stored.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeyHash(pub String);

impl KeyHash {
    /// Returns the first 12 digits, which identify a key but do not help to guess it.
    #[must_use]
    pub fn id(&self) -> &str {
        self.0.get(..12).unwrap_or(&self.0)
    }
}

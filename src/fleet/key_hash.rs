//! The hash of a key or a token, which is stored instead of it.

use serde::{Deserialize, Serialize};

/// The SHA-256 of a key, as 64 hex digits. Keys themselves are never stored.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeyHash(pub String);

/// Begins what stands in place of the hash for a device that an import announced. No hash has these characters.
const EXPECTED: &str = "expected:";

impl KeyHash {
    /// Returns what stands in place of the hash until the device with this uuid registers. No key has this hash.
    #[must_use]
    pub fn of_expected(uuid: &str) -> Self {
        Self(format!("{EXPECTED}{uuid}"))
    }

    /// Returns whether the device has not registered yet.
    #[must_use]
    pub fn is_of_expected(&self) -> bool {
        self.0.starts_with(EXPECTED)
    }

    /// Returns the first 12 digits, which identify a key but do not help to guess it.
    #[must_use]
    pub fn id(&self) -> &str {
        self.0.get(..12).unwrap_or(&self.0)
    }
}

//! The state of a release's build, as a fleet server records it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The state of a release's build.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReleaseStatus {
    Running,
    Success,
    Failed,
}

impl fmt::Display for ReleaseStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Running => "running",
            Self::Success => "success",
            Self::Failed => "failed",
        })
    }
}

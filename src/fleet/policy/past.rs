//! The record of a release that a device accepted or rejected.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A release that a device had, or would not have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PastRelease {
    /// Its number.
    pub release: u64,
    pub verdict: PastVerdict,
    /// When the server received the report that said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
    /// Why it was rejected, as the device reported.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
}

/// What a device made of a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PastVerdict {
    /// It runs it, and its trial is over.
    Accepted,
    Rejected,
    /// It reports that it runs it. It has another agent, which reports no trial.
    Running,
}

impl PastVerdict {
    /// Returns its word in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Rejected => "rejected",
            Self::Running => "running",
        }
    }
}

//! The JSON of refusals.

use serde::{Deserialize, Serialize};

use crate::model::Refusal;

/// The answer to every failed request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorView {
    pub error: Failure,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// A fixed word: `bad_request`, `not_permitted`, `token_ended`, `too_many_tokens`, `forbidden`, `not_found`, `no_match`,
    /// `ambiguous`, `refused`, `unsupported`, `unsupported_media_type`, `too_large`, `too_slow`, `busy`, `storage`,
    /// `database_lost`, `outcome_unknown`, `no_such_route`, `no_such_method`, `internal`.
    pub code: String,
    /// What is wrong, and what to do.
    pub message: String,
    /// The rule that forbids it, e.g. `fleet_has_devices`; absent where no rule of the fleet was broken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// For `unsupported`: every place of the compose file that devices would refuse.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refusals: Vec<RefusalView>,
}

/// A place in a compose file, and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusalView {
    pub path: String,
    pub why: String,
}

impl From<Refusal> for RefusalView {
    fn from(refusal: Refusal) -> Self {
        Self { path: refusal.path, why: refusal.why }
    }
}

//! The JSON of refusals. docs/api.md, "Errors", describes it for programs.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::model::Refusal;

/// The answer to every failed request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorView {
    pub error: Failure,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// A [`Code`], or one of a later server.
    pub code: String,
    /// What is wrong, and what to do.
    pub message: String,
    /// The rule that forbids it, e.g. `fleet_has_devices`; absent where no rule of the fleet was broken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// What to do: the end of `message`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// For `unsupported`: every place of the compose file that devices would refuse. For the rule `not_imported`: the lines
    /// that were refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refusals: Vec<RefusalView>,
}

/// The kind of an error. A code keeps its meaning and its status for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    BadRequest,
    Ambiguous,
    NotPermitted,
    TokenEnded,
    Forbidden,
    NotFound,
    NoMatch,
    NoSuchRoute,
    NoSuchMethod,
    TooSlow,
    Refused,
    DoneAlready,
    ShownOnce,
    PreconditionFailed,
    TooLarge,
    UnsupportedMediaType,
    Unsupported,
    KeyReused,
    TooManyTokens,
    Storage,
    Internal,
    Busy,
    DatabaseLost,
    OutcomeUnknown,
}

impl Code {
    /// Every code, by status.
    pub const ALL: [Self; 24] = [
        Self::BadRequest,
        Self::Ambiguous,
        Self::NotPermitted,
        Self::TokenEnded,
        Self::Forbidden,
        Self::NotFound,
        Self::NoMatch,
        Self::NoSuchRoute,
        Self::NoSuchMethod,
        Self::TooSlow,
        Self::Refused,
        Self::DoneAlready,
        Self::ShownOnce,
        Self::PreconditionFailed,
        Self::TooLarge,
        Self::UnsupportedMediaType,
        Self::Unsupported,
        Self::KeyReused,
        Self::TooManyTokens,
        Self::Storage,
        Self::Internal,
        Self::Busy,
        Self::DatabaseLost,
        Self::OutcomeUnknown,
    ];

    /// Returns its word in JSON, and the status of answers with it.
    #[must_use]
    pub fn word_and_status(self) -> (&'static str, u16) {
        match self {
            Self::BadRequest => ("bad_request", 400),
            Self::Ambiguous => ("ambiguous", 400),
            Self::NotPermitted => ("not_permitted", 401),
            Self::TokenEnded => ("token_ended", 401),
            Self::Forbidden => ("forbidden", 403),
            Self::NotFound => ("not_found", 404),
            Self::NoMatch => ("no_match", 404),
            Self::NoSuchRoute => ("no_such_route", 404),
            Self::NoSuchMethod => ("no_such_method", 405),
            Self::TooSlow => ("too_slow", 408),
            Self::Refused => ("refused", 409),
            Self::DoneAlready => ("done_already", 409),
            Self::ShownOnce => ("shown_once", 409),
            Self::PreconditionFailed => ("precondition_failed", 412),
            Self::TooLarge => ("too_large", 413),
            Self::UnsupportedMediaType => ("unsupported_media_type", 415),
            Self::Unsupported => ("unsupported", 422),
            Self::KeyReused => ("key_reused", 422),
            Self::TooManyTokens => ("too_many_tokens", 429),
            Self::Storage => ("storage", 500),
            Self::Internal => ("internal", 500),
            Self::Busy => ("busy", 503),
            Self::DatabaseLost => ("database_lost", 503),
            Self::OutcomeUnknown => ("outcome_unknown", 503),
        }
    }

    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.word_and_status().0
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A place in a compose file or an import, and what is wrong with it.
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

//! Why an act on users and tokens is refused.

use super::TokenEnd;
use crate::model::text::first_of;

/// A rule that forbids an act. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AccessRefusal {
    #[error("there is no user {given:?}; `cotter user list` shows them, and `cotter user add` makes one")]
    NoSuchUser { given: String },

    #[error(
        "there is no token {given:?}; give its name, its id or the first 4 or more digits of that (`cotter token list`)"
    )]
    NoSuchToken { given: String },

    #[error("{given:?} matches more than one token: {}; give the id", first_of(matches.iter().cloned(), 10, ", "))]
    Ambiguous { given: String, matches: Vec<String> },

    #[error("{given:?} cannot be the name of a {what}: {accepts}")]
    BadName { what: &'static str, given: String, accepts: &'static str },

    #[error("there is a user {name:?} already; choose another name, or make a token for that one")]
    UserTaken { name: String },

    #[error(
        "user {user} has an active token {name:?} already; choose another name, or revoke that one first"
    )]
    TokenTaken { user: String, name: String },

    #[error("user {name} is disabled, and has no tokens; `cotter user enable {name}` first")]
    Disabled { name: String },

    #[error(
        "a token with the role admin reaches all fleets, because it makes tokens for all of them; leave out the fleets, or give the role operator"
    )]
    AdminOfSome,

    #[error("a token without a fleet could do nothing; name one, or leave out the fleets for all")]
    NoFleets,

    /// It ended while the request was in progress.
    #[error("token {token} of {user} {end}; ask an admin for {}", remedy(*end, user))]
    TokenEnded { token: String, user: String, end: TokenEnd },

    #[error("there are {most} {what} already, and no more are accepted; {remedy}")]
    TooMany { what: &'static str, most: usize, remedy: &'static str },
}

impl AccessRefusal {
    /// Returns the rule by its name in JSON.
    #[must_use]
    pub fn rule(&self) -> &'static str {
        match self {
            Self::NoSuchUser { .. } => "no_such_user",
            Self::NoSuchToken { .. } => "no_such_token",
            Self::Ambiguous { .. } => "ambiguous",
            Self::BadName { .. } => "bad_text",
            Self::UserTaken { .. } => "user_taken",
            Self::TokenTaken { .. } => "token_taken",
            Self::Disabled { .. } => "user_disabled",
            Self::AdminOfSome => "admin_of_some",
            Self::NoFleets => "no_fleets",
            Self::TokenEnded { .. } => "token_ended",
            Self::TooMany { .. } => "too_many_accounts",
        }
    }
}

fn remedy(end: TokenEnd, user: &str) -> String {
    match end {
        TokenEnd::UserDisabled(_) => format!("`cotter user enable {user}`, and then a new token"),
        TokenEnd::Revoked(_) | TokenEnd::Expired(_) => format!("a new one (`cotter token create {user}`)"),
    }
}

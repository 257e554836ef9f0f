//! The stored records of users and tokens.

use std::collections::BTreeSet;
use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Role;
use crate::fleet::key_hash::KeyHash;

/// A person or a program that has tokens. It is never deleted, because the audit trail names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    pub name: String,
    pub created: Timestamp,
    /// Since when it may not sign in.
    #[serde(default)]
    pub disabled: Option<Timestamp>,
}

/// A token of a user. It is never deleted, because the audit trail names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    pub hash: KeyHash,
    /// Name of its user.
    pub user: String,
    pub name: String,
    pub role: Role,
    pub scope: Scope,
    pub created: Timestamp,
    #[serde(default)]
    pub expires: Option<Timestamp>,
    #[serde(default)]
    pub revoked: Option<Timestamp>,
}

/// The fleets that a token reaches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// All fleets, also those of the future.
    All,
    /// Numbers of fleets. They outlive a renaming, and no later fleet gets the number of a deleted one.
    Fleets(BTreeSet<u64>),
}

impl Scope {
    #[must_use]
    pub fn has(&self, fleet: u64) -> bool {
        match self {
            Self::All => true,
            Self::Fleets(fleets) => fleets.contains(&fleet),
        }
    }
}

/// Why a token is not accepted any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenEnd {
    UserDisabled(Timestamp),
    Revoked(Timestamp),
    Expired(Timestamp),
}

impl TokenEnd {
    /// Its name in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UserDisabled(_) => "user_disabled",
            Self::Revoked(_) => "revoked",
            Self::Expired(_) => "expired",
        }
    }
}

impl fmt::Display for TokenEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UserDisabled(at) => write!(f, "has ended, because its user was disabled at {at}"),
            Self::Revoked(at) => write!(f, "was revoked at {at}"),
            Self::Expired(at) => write!(f, "expired at {at}"),
        }
    }
}

/// One record that an act writes. Nothing is ever removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccessChange {
    PutUser(User),
    PutToken(Token),
}

//! A record of the audit trail: who did what, when, from where, why, and what became of it.
//!
//! It never has a secret: the body of a request is not recorded, and of a token only its name and its id.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Scope;

/// Maximum number of things that one record names. Their number is recorded in full.
pub const MOST_THINGS: usize = 100;

/// A record of the audit trail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Ascending, without an order of time where the clock was set back.
    pub number: u64,
    pub at: Timestamp,
    pub by: By,
    /// The address of the client.
    pub from: Option<String>,
    /// What the request is for, "pin a fleet".
    pub what: String,
    /// Its method and path, without the query.
    pub request: String,
    /// What it changed, or named; [`MOST_THINGS`] at most.
    pub things: Vec<Thing>,
    /// How many things it changed.
    pub count: usize,
    /// The numbers of the fleets of these things.
    pub fleets: Vec<u64>,
    /// What was changed about the things, e.g. to which release they were pinned. Without values of variables.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<String>,
    /// As the client said it.
    pub why: Option<String>,
    pub outcome: Outcome,
}

/// Who made a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct By {
    /// `None` for the server's first token, which has no user.
    pub user: Option<String>,
    /// The name of the token; without one, e.g. `device north`, `rollout`.
    pub token: String,
    /// The first 12 hex digits of its SHA-256; empty without a token.
    pub id: String,
}

impl By {
    /// Returns `true` if a token was used, and not e.g. a device's key.
    fn has_token(&self) -> bool {
        !self.id.is_empty()
    }

    /// Returns `true` if it is of the user, of the token with the name or the id `by`, or of what acts without a token, e.g.
    /// any device.
    fn is_of(&self, by: &str) -> bool {
        let word = self.token.split(' ').next().unwrap_or_default();
        let is_kind = self.user.is_none() && !self.has_token() && word == by;
        self.user.as_deref() == Some(by) || self.token == by || self.id == by || is_kind
    }

    /// Returns the user, the token of one that has none, or who has acted without a token, for people.
    #[must_use]
    pub fn shown(&self) -> String {
        let without = || match self.has_token() {
            true => format!("token {}", self.token),
            false => self.token.clone(),
        };
        self.user.clone().unwrap_or_else(without)
    }
}

/// A record that an act changed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Thing {
    /// `fleet`, `device`, `release`, `provisioning key`, `user`, `token`, `rollout` or `webhook`.
    pub kind: String,
    /// Its uuid, commit, id or name.
    pub id: String,
    /// Its name, where that is not its id.
    pub name: Option<String>,
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Done,
    /// Nothing was changed.
    Refused {
        status: u16,
        code: String,
        message: String,
    },
}

/// Which records are read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Which {
    /// Number of a fleet.
    pub fleet: Option<u64>,
    /// Name of a user or a token, or id of a token.
    pub by: Option<String>,
    /// The uuid of a device.
    pub device: Option<String>,
    /// A part of what the request was for.
    pub what: Option<String>,
    pub since: Option<Timestamp>,
    /// Exclusive.
    pub until: Option<Timestamp>,
}

impl Which {
    /// Returns whether a record is one of these. A reader for some fleets sees only records that are of these fleets alone.
    #[must_use]
    pub fn has(&self, entry: &Entry, scope: &Scope) -> bool {
        let is_by = |by: &String| entry.by.is_of(by);
        let is_seen = match scope {
            Scope::All => true,
            Scope::Fleets(_) => {
                !entry.fleets.is_empty() && entry.fleets.iter().all(|fleet| scope.has(*fleet))
            }
        };
        let is_of = |uuid: &String| entry.things.iter().any(|it| it.kind == "device" && it.id == *uuid);
        let is_what = |what: &String| entry.what.contains(&what.to_lowercase());
        is_seen
            && self.device.as_ref().is_none_or(is_of)
            && self.what.as_ref().is_none_or(is_what)
            && self.fleet.is_none_or(|fleet| entry.fleets.contains(&fleet))
            && self.by.as_ref().is_none_or(is_by)
            && self.since.is_none_or(|since| since <= entry.at)
            && self.until.is_none_or(|until| entry.at < until)
    }
}

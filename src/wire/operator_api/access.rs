//! The JSON of users, tokens and the audit trail.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddUser {
    pub name: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserView {
    pub name: String,
    /// `active` or `disabled`.
    pub state: String,
    /// How many tokens it has that are accepted.
    pub tokens: usize,
    pub created: Timestamp,
    pub disabled: Option<Timestamp>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateToken {
    pub user: String,
    /// `read-only`, `release-engineer`, `operator` or `admin`.
    pub role: String,
    /// The name of the role if absent, with a number if the user has a token of that name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The fleets that it reaches; all if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fleets: Option<Vec<String>>,
    /// How long it is accepted, "90d"; from 1 minute to 10 years.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in: Option<String>,
}

/// A new token, which is shown only now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenCreated {
    pub token: String,
    pub details: TokenView,
}

/// A token, without the token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenView {
    /// The first 12 hex digits of its SHA-256.
    pub id: String,
    pub user: String,
    pub name: String,
    pub role: String,
    /// Names of the fleets that it reaches; null: all.
    pub fleets: Option<Vec<String>>,
    /// `active`, `expired`, `revoked` or `user_disabled`.
    pub state: String,
    pub created: Timestamp,
    pub expires: Option<Timestamp>,
    pub revoked: Option<Timestamp>,
    /// After a crash of the server it may be up to 5 minutes older than it was.
    pub last_used: Option<Timestamp>,
    /// Whether it may have been used elsewhere, before the records came to this server, e.g. with a backup.
    #[serde(default)]
    pub is_use_unknown: bool,
}

/// The token of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhoView {
    /// null for the server's first token, which has no user.
    pub user: Option<String>,
    /// Its name.
    pub token: String,
    /// The first 12 hex digits of its SHA-256.
    pub token_id: String,
    pub role: String,
    /// Names of the fleets that it reaches; null: all.
    pub fleets: Option<Vec<String>>,
    /// null: it is accepted until it is revoked.
    pub expires: Option<Timestamp>,
}

/// A record of the audit trail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditView {
    pub number: u64,
    pub at: Timestamp,
    /// null for the server's first token, which has no user.
    pub user: Option<String>,
    pub token: String,
    /// The first 12 hex digits of the token's SHA-256.
    pub token_id: String,
    /// Address of the client.
    pub from: Option<String>,
    /// What the request was for.
    pub what: String,
    /// Method and path.
    pub request: String,
    /// What it changed; the first 100.
    pub things: Vec<ThingView>,
    /// How many things it changed.
    pub count: usize,
    /// Names of the fleets of these things; the number of a fleet that was deleted.
    pub fleets: Vec<String>,
    /// What was changed about these things, e.g. to which release they were pinned; null if the request says it.
    #[serde(default)]
    pub details: Option<String>,
    /// As the client said it.
    pub why: Option<String>,
    /// `done`, or `refused`: then nothing was changed.
    pub result: String,
    /// For `refused`: the status, the code and the message of the answer.
    pub status: Option<u16>,
    pub code: Option<String>,
    pub message: Option<String>,
}

/// A record that was changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThingView {
    /// `fleet`, `device`, `release`, `provisioning key`, `user`, `token`, `rollout` or `webhook`.
    pub kind: String,
    /// Its uuid, commit, id or name.
    pub id: String,
    pub name: Option<String>,
}

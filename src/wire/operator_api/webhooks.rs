//! The JSON of webhooks.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A webhook that is to be created.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateWebhook {
    pub name: String,
    pub url: String,
    /// Whether the URL may be http to another machine.
    #[serde(default)]
    pub allow_http: bool,
    /// The fleets whose rollouts it hears of; all if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fleets: Option<Vec<String>>,
    /// The events that it hears of; all if absent, and none if empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events: Option<Vec<String>>,
}

/// A new webhook. Its secret is shown only now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WebhookCreated {
    pub secret: String,
    pub webhook: WebhookView,
}

/// A webhook, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WebhookView {
    pub name: String,
    pub url: String,
    /// Names of the fleets whose rollouts it hears of; null: all.
    pub fleets: Option<Vec<String>>,
    pub events: Vec<String>,
    pub created: Timestamp,
    /// How many messages wait for it.
    pub waiting: usize,
    /// When the next of them is sent, at the earliest.
    pub next: Option<Timestamp>,
    /// Messages that it has taken.
    pub delivered: u64,
    /// Attempts that failed.
    pub failed: u64,
    /// Messages that are not sent any more.
    pub given_up: u64,
    pub last_success: Option<Timestamp>,
    pub last_failure: Option<WebhookFailure>,
}

/// An attempt that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WebhookFailure {
    pub at: Timestamp,
    pub why: String,
}

/// What became of a test.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WebhookTested {
    pub webhook: String,
    pub delivered: bool,
    /// The status of its answer; absent if it was not delivered.
    pub status: Option<u16>,
    /// Why it was not delivered.
    pub why: Option<String>,
    pub took_ms: u64,
}

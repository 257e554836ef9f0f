//! The stored records of webhooks, and of what waits for them.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::events::Event;
use super::signature::Secret;
use crate::fleet::access::Scope;

/// A place to which the server sends what becomes of rollouts, or which it asks before a wave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Webhook {
    pub name: String,
    pub url: String,
    /// With which the server signs.
    pub secret: Secret,
    /// The fleets whose rollouts it hears of.
    pub scope: Scope,
    pub events: BTreeSet<Event>,
    pub created: Timestamp,
    #[serde(default)]
    pub deliveries: Deliveries,
}

/// Counts of the messages to a webhook, with the last success and the last failure.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Deliveries {
    /// Messages that it has taken.
    pub delivered: u64,
    /// Attempts that failed.
    pub failed: u64,
    /// Messages that are not sent any more: after too many attempts or too long, or because too many waited.
    pub given_up: u64,
    pub last_success: Option<Timestamp>,
    pub last_failure: Option<Failed>,
}

/// An attempt that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    pub at: Timestamp,
    pub why: String,
}

/// A message that waits for its delivery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    pub number: u64,
    /// Name of the webhook.
    pub webhook: String,
    /// The same in all attempts, so that a receiver can drop what it has already.
    pub id: String,
    pub event: Event,
    pub at: Timestamp,
    /// As it is sent.
    pub body: String,
    /// Attempts that failed.
    pub failures: u32,
    /// It is not sent before.
    pub next: Timestamp,
}

/// One record of webhooks that an act writes or removes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WebhookChange {
    Put(Webhook),
    /// Removes a webhook. Its messages are removed by changes of their own.
    Drop(String),
    PutMessage(Message),
    DropMessage(u64),
}

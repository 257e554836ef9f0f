//! All webhooks, and the messages that wait for their delivery.

use std::collections::BTreeMap;
use std::sync::Arc;

use imbl::OrdMap;

use super::Change;
use crate::fleet::webhook::{Message, Webhook, WebhookChange};

/// All webhooks and messages. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct AllWebhooks {
    /// Few, so they need no index.
    by_name: Arc<BTreeMap<String, Webhook>>,
    messages: OrdMap<u64, Arc<Message>>,
}

impl AllWebhooks {
    pub(super) fn apply(&mut self, change: WebhookChange) {
        match change {
            WebhookChange::Put(webhook) => {
                Arc::make_mut(&mut self.by_name).insert(webhook.name.clone(), webhook);
            }
            WebhookChange::Drop(name) => {
                Arc::make_mut(&mut self.by_name).remove(&name);
            }
            WebhookChange::PutMessage(message) => {
                self.messages.insert(message.number, Arc::new(message));
            }
            WebhookChange::DropMessage(number) => {
                self.messages.remove(&number);
            }
        }
    }

    pub(super) fn of_name(&self, name: &str) -> Option<&Webhook> {
        self.by_name.get(name)
    }

    /// Returns all webhooks, by name.
    pub(super) fn all(&self) -> impl Iterator<Item = &Webhook> {
        self.by_name.values()
    }

    pub(super) fn message(&self, number: u64) -> Option<&Arc<Message>> {
        self.messages.get(&number)
    }

    /// Returns all messages, oldest first.
    pub(super) fn messages(&self) -> impl Iterator<Item = &Arc<Message>> {
        self.messages.values()
    }

    /// Returns a change for each webhook. Messages are not copied: a copy may be restored days later.
    pub(super) fn records(&self) -> impl Iterator<Item = Change> + '_ {
        self.all().cloned().map(|webhook| Change::Webhook(WebhookChange::Put(webhook)))
    }
}

//! Delivers the messages to webhooks, beside everything else that the server does.
//!
//! A message is stored in the write that makes it, and removed after its delivery, so that a server that is killed sends it
//! again. Each webhook gets one message at a time. Of several servers, the one that sends a message keeps the others from it.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use super::clock;
use super::courier::Courier;
use super::one_each::OneEach;
use super::policy::{Change, World};
use super::records::{ActError, Records};
use super::webhook::{Message, is_due};

/// The pause between two looks for messages.
const PAUSE: Duration = Duration::from_millis(500);

/// The pause after the records could not be written.
const AFTER_FAILURE: Duration = Duration::from_secs(5);

/// Delivers what waits; never returns.
pub(super) async fn keep_up(records: &Arc<Records>, courier: &Courier) -> Infallible {
    let mut sending = OneEach::default();
    loop {
        // A server that is paused may be a copy, whose rollouts are none.
        if !records.is_paused() {
            for message in due(&records.world()) {
                let webhook = message.webhook.clone();
                sending.start(webhook, send(Arc::clone(records), courier.clone(), message));
            }
        }
        tokio::select! {
            () = sending.ended() => {}
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
}

/// Returns the messages that are due, oldest first.
fn due(world: &World) -> Vec<Arc<Message>> {
    let now = clock::now();
    world.messages().filter(|message| is_due(message.next, now)).cloned().collect()
}

/// Sends a message, and stores what has become of it.
async fn send(records: Arc<Records>, courier: Courier, message: Arc<Message>) {
    if let Err(error) = attempt(&records, &courier, &message).await {
        tracing::warn!(webhook = message.webhook, %error, "a message to a webhook waits until the records can be written");
        tokio::time::sleep(AFTER_FAILURE).await;
    }
}

async fn attempt(records: &Records, courier: &Courier, message: &Arc<Message>) -> Result<(), ActError> {
    let is_shared = records.world().position().is_some();
    if is_shared {
        let claimed = Arc::clone(message);
        let claim = move |world: &World| {
            let changes = world.claim_message(&claimed, clock::now());
            Ok((!changes.is_empty(), changes))
        };
        if !records.act(claim).await? {
            return Ok(());
        }
    }
    let webhook = records.world().webhook(&message.webhook).cloned();
    let done = match &webhook {
        Some(webhook) => courier.deliver(webhook, &message.id, &message.body).await.map(drop),
        // Then the message is dropped.
        None => Ok(()),
    };
    let (event, id) = (message.event.as_str(), &message.id);
    match &done {
        Ok(()) => tracing::debug!(webhook = message.webhook, event, id, "message delivered"),
        Err(attempt) => {
            let (attempts, error) = (message.failures + 1, &attempt.why);
            tracing::warn!(webhook = message.webhook, event, id, attempts, error, "message not delivered");
        }
    }
    // It is not sent again only because the disk is full.
    let number = message.number;
    loop {
        let done = done.clone();
        let act = move |world: &World| {
            let changes: Vec<Change> = world.delivered(number, done, clock::now());
            Ok(((), changes))
        };
        match records.act(act).await {
            Err(ActError::Store(error)) => {
                tracing::warn!(webhook = message.webhook, %error, "the delivery of a message is not recorded yet");
                tokio::time::sleep(AFTER_FAILURE).await;
            }
            ended => return ended,
        }
    }
}

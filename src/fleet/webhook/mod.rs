//! Webhooks: URLs to which the server sends the events of rollouts, or which it asks before a wave begins. Pure: no network,
//! no records and no clock.
//!
//! The form of a request is that of the Standard Webhooks specification 1.0 (standardwebhooks.com): the headers
//! `webhook-id`, `webhook-timestamp` and `webhook-signature`, and a body with `type`, `timestamp` and `data`.

mod address;
mod body;
mod events;
mod refusal;
mod schedule;
mod signature;
mod types;

pub use address::{BadAddress, check_address, is_authenticated, origin};
pub use body::{Subject, announcement, question, test};
pub use events::{Event, News, news};
pub use refusal::WebhookRefusal;
pub use schedule::{is_due, is_given_up, next_attempt, next_question};
pub use signature::{BadSecret, Secret, id_of};
pub use types::{Deliveries, Failed, Message, Webhook, WebhookChange};

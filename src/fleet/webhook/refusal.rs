//! Why an act on a webhook is refused.

use super::address::BadAddress;

/// A rule that forbids an act. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WebhookRefusal {
    #[error("there is no webhook {given:?}{}; `cotter webhook list` shows them", of(fleet.as_deref()))]
    NoSuchWebhook {
        given: String,
        /// Name of the fleet that it would be for.
        fleet: Option<String>,
    },

    #[error("there is a webhook {name:?} already; choose another name, or delete that one first")]
    Taken { name: String },

    /// Its URL is not in the text, because a part of it may be a secret.
    #[error("the URL of the webhook is not accepted: {0}")]
    Address(BadAddress),

    #[error(
        "webhook {name:?} must not let waves begin, because its URL is http to another machine, and anyone on the way could answer; \
         create a webhook with https for that"
    )]
    NotEncrypted { name: String },

    #[error("there are {most} webhooks already; delete one that is not needed")]
    TooMany { most: usize },

    #[error(
        "webhook {name:?} lets the waves of rollout {rollout} begin; abort that first (`cotter rollout abort {fleet}`), or complete it"
    )]
    Needed { name: String, fleet: String, rollout: u64 },
}

impl WebhookRefusal {
    /// Returns the rule by its name in JSON.
    #[must_use]
    pub fn rule(&self) -> &'static str {
        match self {
            Self::NoSuchWebhook { .. } => "no_such_webhook",
            Self::Taken { .. } => "webhook_taken",
            Self::Address(_) => "bad_webhook",
            Self::NotEncrypted { .. } => "webhook_not_encrypted",
            Self::TooMany { .. } => "too_many_webhooks",
            Self::Needed { .. } => "webhook_needed",
        }
    }
}

fn of(fleet: Option<&str>) -> String {
    fleet.map_or_else(String::new, |fleet| format!(" for fleet {fleet}"))
}

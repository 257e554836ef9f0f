//! Acts on webhooks, and the messages to them: what becomes of rollouts, and questions before a wave.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::rules::shown;
use super::{Change, Counters, Fleet, Refusal, World};
use crate::fleet::access::Scope;
use crate::fleet::rollout::{Definition, Phase, Rollout};
use crate::fleet::webhook::{
    self, Deliveries, Event, Failed, Message, News, Secret, Subject, Webhook, WebhookChange, WebhookRefusal,
};

/// Maximum number of webhooks.
const MOST: usize = 50;

/// Maximum number of messages that wait for one webhook. The oldest are given up.
const MOST_WAITING: usize = 100;

const NAME_ACCEPTS: &str =
    "it has 1 to 64 letters a to z, digits, '.', '_' and '-', and begins with a letter or digit";

const EVENTS: &str = "the events are start, wave, pause, halt, resume, complete, abort and pull-back";

/// For how long a server that sends something keeps the others from it; longer than a request may take.
pub const CLAIM: Duration = Duration::from_secs(20);

/// The values of a new webhook.
#[derive(Debug, Clone)]
pub struct NewWebhook {
    pub name: String,
    pub url: String,
    /// Whether its URL may be http to another machine.
    pub allows_http: bool,
    pub secret: Secret,
    pub scope: Scope,
    /// Names of events; `None`: all.
    pub events: Option<Vec<String>>,
    pub created: Timestamp,
}

/// An attempt that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    pub why: String,
    /// For how long the receiver asks to wait.
    pub retry_after: Option<Duration>,
}

impl World {
    /// Returns the webhook with this name.
    #[must_use]
    pub fn webhook(&self, name: &str) -> Option<&Webhook> {
        self.webhooks.of_name(name)
    }

    /// Returns all webhooks, by name.
    pub fn webhooks(&self) -> impl Iterator<Item = &Webhook> {
        self.webhooks.all()
    }

    /// Returns the messages that wait for their delivery, oldest first.
    pub fn messages(&self) -> impl Iterator<Item = &Arc<Message>> {
        self.webhooks.messages()
    }

    /// Finds a webhook.
    ///
    /// # Errors
    ///
    /// [`WebhookRefusal::NoSuchWebhook`].
    pub fn find_webhook(&self, name: &str) -> Result<&Webhook, Refusal> {
        self.webhook(name)
            .ok_or_else(|| WebhookRefusal::NoSuchWebhook { given: shown(name), fleet: None }.into())
    }

    /// Creates a webhook.
    ///
    /// # Errors
    ///
    /// [`Refusal::BadText`], [`WebhookRefusal`].
    pub fn create_webhook(&self, new: NewWebhook) -> Result<Vec<Change>, Refusal> {
        let NewWebhook { name, url, allows_http, secret, scope, events, created } = new;
        let is_good = (1..=64).contains(&name.len())
            && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c))
            && name.starts_with(|c: char| c.is_ascii_alphanumeric());
        if !is_good {
            return Err(Refusal::BadText {
                what: "name of a webhook",
                given: shown(&name),
                accepts: NAME_ACCEPTS,
            });
        }
        webhook::check_address(&url, allows_http).map_err(WebhookRefusal::Address)?;
        let events = match events {
            None => Event::ALL.into_iter().collect(),
            Some(names) => names
                .iter()
                .map(|name| Event::parse(name).ok_or_else(|| unknown_event(name)))
                .collect::<Result<_, _>>()?,
        };
        if self.webhook(&name).is_some() {
            return Err(WebhookRefusal::Taken { name }.into());
        }
        if self.webhooks().count() >= MOST {
            return Err(WebhookRefusal::TooMany { most: MOST }.into());
        }
        let deliveries = Deliveries::default();
        let webhook = Webhook { name, url, secret, scope, events, created, deliveries };
        Ok(vec![Change::Webhook(WebhookChange::Put(webhook))])
    }

    /// Deletes a webhook with the messages that wait for it.
    ///
    /// # Errors
    ///
    /// [`WebhookRefusal::Needed`].
    pub fn delete_webhook(&self, webhook: &Webhook) -> Result<Vec<Change>, Refusal> {
        let asks = |rollout: &&Arc<Rollout>| rollout.definition.confirm.as_deref() == Some(&*webhook.name);
        let mut open = self.fleets().filter_map(|fleet| Some((fleet, self.open_rollout(fleet.number)?)));
        if let Some((fleet, rollout)) = open.find(|(_, rollout)| asks(rollout)) {
            let (name, fleet) = (webhook.name.clone(), fleet.name.clone());
            return Err(WebhookRefusal::Needed { name, fleet, rollout: rollout.number }.into());
        }
        let its = self.messages().filter(|message| message.webhook == webhook.name);
        let messages = its.map(|message| Change::Webhook(WebhookChange::DropMessage(message.number)));
        Ok(messages.chain([Change::Webhook(WebhookChange::Drop(webhook.name.clone()))]).collect())
    }

    /// Refuses a rollout that would ask a webhook that is not there, is not for its fleet, or whose answers anyone could give.
    pub(super) fn check_confirm(&self, fleet: &Fleet, definition: &Definition) -> Result<(), Refusal> {
        let Some(name) = &definition.confirm else { return Ok(()) };
        match self.webhook(name) {
            Some(webhook) if webhook.scope.has(fleet.number) => match webhook::is_authenticated(&webhook.url)
            {
                true => Ok(()),
                false => Err(WebhookRefusal::NotEncrypted { name: name.clone() }.into()),
            },
            Some(_) | None => {
                Err(WebhookRefusal::NoSuchWebhook { given: shown(name), fleet: Some(fleet.name.clone()) }
                    .into())
            }
        }
    }

    /// Returns the messages about what these changes of this world do to rollouts. Store them in the same write.
    #[must_use]
    pub fn announcements(&self, changes: &[Change], now: Timestamp) -> Vec<Change> {
        let mut bodies = Vec::new();
        for change in changes {
            if let Change::PutRollout(after) = change {
                let before = self.rollouts.of_number(after.number);
                bodies.extend(self.bodies(before.map(AsRef::as_ref), after, now));
            }
            // A fleet is deleted with its rollouts.
            if let Change::DropRollout(number) = change
                && let Some(before) = self.rollouts.of_number(*number)
                && !before.phase.is_over()
            {
                let mut after = before.as_ref().clone();
                after.end(Phase::Aborted { why: "the fleet was deleted".to_owned() }, now);
                bodies.extend(self.bodies(Some(before), &after, now));
            }
        }
        if bodies.is_empty() { Vec::new() } else { self.messages_of(&bodies, counters(self, changes), now) }
    }

    fn bodies(&self, before: Option<&Rollout>, after: &Rollout, now: Timestamp) -> Vec<(u64, Event, String)> {
        let news = webhook::news(before, after);
        let body = |news: &News<'_>| {
            let body = webhook::announcement(news, after, self.subject_of(after), now);
            (after.fleet, news.event, body)
        };
        news.iter().map(body).collect()
    }

    /// Returns the names of what a rollout is about.
    #[must_use]
    pub fn subject_of(&self, rollout: &Rollout) -> Subject<'_> {
        Subject {
            fleet: self.fleet(rollout.fleet).map_or("", |fleet| &fleet.name),
            release: self.release(rollout.release).map_or("", |release| release.commit.as_str()),
        }
    }

    fn messages_of(
        &self,
        bodies: &[(u64, Event, String)],
        mut counters: Counters,
        now: Timestamp,
    ) -> Vec<Change> {
        let mut changes = Vec::new();
        for webhook in self.webhooks() {
            let its = |(fleet, event, _): &&(u64, Event, String)| {
                webhook.scope.has(*fleet) && webhook.events.contains(event)
            };
            let new: Vec<_> = bodies.iter().filter(its).collect();
            if new.is_empty() {
                continue;
            }
            let waiting: Vec<_> = self.messages().filter(|it| it.webhook == webhook.name).collect();
            let surplus = (waiting.len() + new.len()).saturating_sub(MOST_WAITING).min(waiting.len());
            if surplus > 0 {
                let given_up = waiting.iter().take(surplus).map(|message| message.number);
                changes.extend(given_up.map(|number| Change::Webhook(WebhookChange::DropMessage(number))));
                let mut full = webhook.clone();
                full.deliveries.given_up += surplus as u64;
                changes.push(Change::Webhook(WebhookChange::Put(full)));
            }
            for (_, event, body) in new {
                counters.message += 1;
                let number = counters.message;
                let id = webhook::id_of(&format!("{} {number} {now} {body}", webhook.name));
                let (webhook, event, body) = (webhook.name.clone(), *event, body.clone());
                let message = Message { number, webhook, id, event, at: now, body, failures: 0, next: now };
                changes.push(Change::Webhook(WebhookChange::PutMessage(message)));
            }
        }
        if !changes.is_empty() {
            changes.push(Change::Counters(counters));
        }
        changes
    }

    /// Keeps a message from other servers for [`CLAIM`]; no change if it is gone, or another one has it.
    #[must_use]
    pub fn claim_message(&self, message: &Message, now: Timestamp) -> Vec<Change> {
        match self.webhooks.message(message.number) {
            Some(own) if **own == *message => {
                let next = now.checked_add(CLAIM).unwrap_or(now);
                vec![Change::Webhook(WebhookChange::PutMessage(Message { next, ..message.clone() }))]
            }
            Some(_) | None => Vec::new(),
        }
    }

    /// Stores what has become of an attempt to deliver a message.
    #[must_use]
    pub fn delivered(&self, message: u64, done: Result<(), Attempt>, now: Timestamp) -> Vec<Change> {
        let Some(message) = self.webhooks.message(message) else { return Vec::new() };
        let Some(webhook) = self.webhook(&message.webhook) else {
            return vec![Change::Webhook(WebhookChange::DropMessage(message.number))];
        };
        let mut webhook = webhook.clone();
        let its = &mut webhook.deliveries;
        let drop = WebhookChange::DropMessage(message.number);
        let change = match done {
            Ok(()) => {
                its.delivered += 1;
                its.last_success = Some(now);
                drop
            }
            Err(Attempt { why, retry_after }) => {
                its.failed += 1;
                its.last_failure = Some(Failed { at: now, why });
                let failures = message.failures + 1;
                let next = webhook::next_attempt(&message.id, failures, retry_after, now);
                let again = Message { failures, next, ..message.as_ref().clone() };
                if webhook::is_given_up(&again, now) {
                    its.given_up += 1;
                    drop
                } else {
                    WebhookChange::PutMessage(again)
                }
            }
        };
        vec![Change::Webhook(change), Change::Webhook(WebhookChange::Put(webhook))]
    }

    /// Notes that the webhook of a rollout is asked now. No change if that is not due.
    #[must_use]
    pub fn ask_webhook(&self, fleet: u64, number: u64, now: Timestamp) -> Option<(Rollout, Vec<Change>)> {
        let open =
            self.open_rollout(fleet).filter(|open| open.number == number && open.phase.is_running())?;
        let mut rollout = open.as_ref().clone();
        let question = rollout.question.as_mut().filter(|question| webhook::is_due(question.next, now))?;
        question.asked = question.asked.saturating_add(1);
        question.next = now.checked_add(CLAIM).unwrap_or(now);
        let change = Change::PutRollout(Box::new(rollout.clone()));
        Some((rollout, vec![change]))
    }

    /// Stores the answer of the webhook of a rollout. No change if the question is not asked any more.
    #[must_use]
    pub fn answer_webhook(
        &self,
        asked: &Rollout,
        answer: Result<(), Attempt>,
        now: Timestamp,
    ) -> Vec<Change> {
        let is_asked = |open: &&Arc<Rollout>| open.number == asked.number && open.phase.is_running();
        let open = self.open_rollout(asked.fleet).filter(is_asked);
        let Some(mut rollout) = open.map(|open| open.as_ref().clone()) else { return Vec::new() };
        let Some(question) = rollout.question.as_mut().filter(|own| Some(&**own) == asked.question.as_ref())
        else {
            return Vec::new();
        };
        match answer {
            Ok(()) => rollout.confirm(),
            Err(Attempt { why, retry_after }) => {
                let id = format!("{} {}", asked.number, question.wave);
                question.next = webhook::next_question(&id, question.asked, retry_after, now);
                question.why = Some(why);
            }
        }
        vec![Change::PutRollout(Box::new(rollout))]
    }
}

/// Returns the counters as they are after these changes.
fn counters(world: &World, changes: &[Change]) -> Counters {
    let of = |change: &Change| if let Change::Counters(counters) = change { Some(*counters) } else { None };
    changes.iter().rev().find_map(of).unwrap_or(world.counters)
}

fn unknown_event(name: &str) -> Refusal {
    Refusal::BadText { what: "event of a rollout", given: shown(name), accepts: EVENTS }
}

#[cfg(test)]
#[path = "acts_webhook_tests.rs"]
mod tests;

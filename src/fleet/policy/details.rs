//! Describes changes for the audit trail: to which release something was pinned, which variables were set. Pure. It never
//! has the value of a variable, a key or a token, or a secret of a webhook.

use std::collections::BTreeSet;

use super::{Change, Device, Fleet, ProvisioningKey, VariableHolder, Variables, World};
use crate::fleet::access::{AccessChange, Scope, Token};
use crate::fleet::webhook::{Webhook, WebhookChange, origin};

/// Maximum number of characters of all details of a record.
const LONGEST: usize = 500;

impl World {
    /// Returns what these changes of this world change, in words that many things may share, e.g. all devices of a bulk pin;
    /// `None` if the request says it all.
    #[must_use]
    pub fn details(&self, changes: &[Change]) -> Option<String> {
        let mut said = BTreeSet::new();
        let mut text = String::new();
        for words in changes.iter().flat_map(|change| self.words(change)) {
            if said.contains(&words) {
                continue;
            }
            if text.chars().count() + words.chars().count() + 2 > LONGEST {
                let cut = LONGEST.saturating_sub(text.chars().count() + 3);
                text.extend(words.chars().take(if text.is_empty() { cut } else { 0 }));
                text.push_str(" …");
                break;
            }
            if !text.is_empty() {
                text.push_str("; ");
            }
            text.push_str(&words);
            said.insert(words);
        }
        (!text.is_empty()).then_some(text)
    }

    fn words(&self, change: &Change) -> Vec<String> {
        match change {
            Change::PutDevice(device) => {
                self.device(&device.uuid).map_or(Vec::new(), |old| self.of_device(old, device))
            }
            Change::PutFleet(fleet) => {
                self.fleet(fleet.number).map_or(Vec::new(), |old| self.of_fleet(old, fleet))
            }
            Change::PutVariables(holder, variables) => of_variables(self.variables(holder), variables),
            Change::DropFleet(number) => {
                of_variables(self.variables(&VariableHolder::Fleet(*number)), &Variables::default())
            }
            Change::PutKey(key) if self.provisioning_key(&key.hash).is_none() => of_key(key),
            Change::Access(AccessChange::PutToken(token)) if self.accounts().token(&token.hash).is_none() => {
                vec![self.of_token(token)]
            }
            Change::Access(AccessChange::PutToken(token)) => vec![format!("of {}", token.user)],
            Change::Webhook(WebhookChange::Put(webhook)) => self.of_webhook(webhook),
            // What else there is, the request and the name of the thing say.
            Change::Access(AccessChange::PutUser(_))
            | Change::PutKey(_)
            | Change::PutRelease(_)
            | Change::PutReports(..)
            | Change::PutBar(_)
            | Change::DropBar(_)
            | Change::DropDevice(_)
            | Change::DropRelease(_)
            | Change::DropKey(_)
            | Change::RetireKey(_)
            | Change::Counters(_)
            | Change::Audit(_)
            | Change::DropAudit(_)
            | Change::PutRepeat(_)
            | Change::DropRepeat(_)
            | Change::PutRollout(_)
            | Change::DropRollout(_)
            | Change::PutMember(..)
            | Change::Webhook(
                WebhookChange::Drop(_) | WebhookChange::PutMessage(_) | WebhookChange::DropMessage(_),
            ) => Vec::new(),
        }
    }

    fn commit(&self, release: Option<u64>) -> String {
        release
            .and_then(|release| self.release(release))
            .map_or("no release".to_owned(), |it| it.commit.to_string())
    }

    fn name(&self, fleet: u64) -> String {
        self.fleet(fleet).map_or_else(|| fleet.to_string(), |fleet| fleet.name.clone())
    }

    fn of_device(&self, old: &Device, new: &Device) -> Vec<String> {
        let mut words = Vec::new();
        if old.fleet != new.fleet {
            words.push(format!("from {} to {}", self.name(old.fleet), self.name(new.fleet)));
        }
        match new.pin {
            pin if pin == old.pin => {}
            None => words.push(format!("was pinned to {}", self.commit(old.pin))),
            pin => words.push(format!("to {}", self.commit(pin))),
        }
        if old.name != new.name {
            words.push(format!("from {} to {}", old.name, new.name));
        }
        let set = new.tags.iter().filter(|(key, value)| old.tags.get(*key) != Some(value));
        words.extend(set.map(|(key, value)| format!("set tag {key}={value}")));
        let gone = old.tags.keys().filter(|key| !new.tags.contains_key(*key));
        words.extend(gone.map(|key| format!("removed tag {key}")));
        words
    }

    fn of_fleet(&self, old: &Fleet, new: &Fleet) -> Vec<String> {
        let mut words = Vec::new();
        if (old.target, old.is_tracking_latest) != (new.target, new.is_tracking_latest) {
            words.push(format!("to {}", self.commit(new.target)));
        }
        if old.name != new.name {
            words.push(format!("from {} to {}", old.name, new.name));
        }
        if old.registry != new.registry {
            words.push(format!("registry {}", new.registry.as_deref().unwrap_or("removed")));
        }
        words
    }

    /// The path of its URL may be a secret.
    fn of_webhook(&self, webhook: &Webhook) -> Vec<String> {
        if self.webhook(&webhook.name).is_some() {
            return Vec::new();
        }
        let events: Vec<_> = webhook.events.iter().map(|event| event.as_str()).collect();
        let events = if events.is_empty() { "no event".to_owned() } else { events.join(", ") };
        vec![format!("to {}", origin(&webhook.url)), self.of_scope(&webhook.scope), events]
    }

    fn of_scope(&self, scope: &Scope) -> String {
        match scope {
            Scope::All => "all fleets".to_owned(),
            Scope::Fleets(fleets) => {
                let names: Vec<_> = fleets.iter().map(|fleet| self.name(*fleet)).collect();
                format!("fleets {}", names.join(", "))
            }
        }
    }

    fn of_token(&self, token: &Token) -> String {
        let fleets = self.of_scope(&token.scope);
        let until = token.expires.map_or(String::new(), |at| format!(", until {at}"));
        format!("of {}, {}, {fleets}{until}", token.user, token.role)
    }
}

fn of_key(key: &ProvisioningKey) -> Vec<String> {
    let until = key.expires.map(|at| format!("until {at}"));
    let uses = key.most_uses.map(|uses| format!("for {uses} devices"));
    until.into_iter().chain(uses).collect()
}

/// The names of variables, by service.
fn of_variables(old: &Variables, new: &Variables) -> Vec<String> {
    let names = |one: &Variables, other: &Variables| {
        let differs = |(service, name, value): &(_, &String, _)| {
            other.of(*service).and_then(|variables| variables.get(*name)) != Some(*value)
        };
        let label = |(service, name, _): (Option<&crate::model::ServiceName>, &String, _)| {
            service.map_or_else(|| name.clone(), |service| format!("{name} of {service}"))
        };
        one.iter().filter(differs).map(label).collect::<BTreeSet<_>>()
    };
    let set = names(new, old);
    let removed: Vec<_> = names(old, new).into_iter().filter(|name| !set.contains(name)).collect();
    let set: Vec<_> = set.into_iter().collect();
    let said =
        |verb: &str, names: &[String]| (!names.is_empty()).then(|| format!("{verb} {}", names.join(", ")));
    said("set", &set).into_iter().chain(said("removed", &removed)).collect()
}

//! Since when something is waited for. In memory only: a restart of the agent begins anew.

use std::collections::BTreeMap;

use crate::model::{AppId, Plan, Reason, ServiceName};

/// What tells one waiting from another: the words beside it may change while it lasts.
type Key = (Option<AppId>, Option<ServiceName>, Reason);

#[derive(Debug, Default)]
pub(super) struct Waits(BTreeMap<Key, String>);

impl Waits {
    /// Writes into a plan since when it waits for each thing; what is not waited for any more is forgotten.
    pub(super) fn date(&mut self, plan: &mut Plan, now: impl Fn() -> String) {
        let mut known = BTreeMap::new();
        for waiting in &mut plan.waiting {
            let key = (waiting.app.clone(), waiting.service.clone(), waiting.reason);
            let since = self.0.get(&key).cloned().unwrap_or_else(&now);
            waiting.since = Some(since.clone());
            known.insert(key, since);
        }
        self.0 = known;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Waiting;

    #[test]
    fn the_first_time_counts_for_as_long_as_it_lasts() {
        let plan = |reason, why: &str| Plan {
            waiting: vec![Waiting {
                app: None,
                service: None,
                reason,
                why: why.into(),
                retry_in: None,
                since: None,
            }],
            ..Plan::default()
        };
        let mut waits = Waits::default();
        let mut since = |mut plan: Plan, now: &str| {
            waits.date(&mut plan, || now.to_owned());
            plan.waiting[0].since.clone().unwrap()
        };
        assert_eq!(since(plan(Reason::Downloading, "at 1 %"), "1"), "1");
        assert_eq!(since(plan(Reason::Downloading, "at 2 %"), "2"), "1");
        assert_eq!(since(plan(Reason::Backoff, "failed"), "3"), "3");
        assert_eq!(since(plan(Reason::Downloading, "at 1 %"), "4"), "4");
    }
}

//! Remembers when this agent saw each heal, so that a heal counts for the heal window and no longer. In memory only.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::model::{AppId, Ledger, ServiceName, Step};

/// The heals that still count, and when each was last seen.
#[derive(Debug, Default)]
pub(super) struct Heals {
    seen: BTreeMap<(AppId, ServiceName), Instant>,
}

impl Heals {
    /// Restarts the window of a service's heal.
    pub(super) fn note(&mut self, step: &Step) {
        if let Step::Heal { app, service } = step {
            self.seen.insert((app.clone(), service.clone()), Instant::now());
        }
    }

    /// Removes heals that are older than `window` from the ledger. Returns `true` if it removed any.
    pub(super) fn forget_old(&mut self, ledger: &mut Ledger, window: Duration) -> bool {
        let mut has_changed = false;
        for (id, app) in &mut ledger.apps {
            let count = app.heals.len();
            app.heals.retain(|service, _| {
                let since = self.seen.entry((id.clone(), service.clone())).or_insert_with(Instant::now);
                since.elapsed() < window
            });
            has_changed |= app.heals.len() != count;
        }
        self.seen.retain(|(id, service), _| {
            ledger.apps.get(id).is_some_and(|app| app.heals.contains_key(service))
        });
        has_changed
    }

    /// Returns the time until the oldest heal no longer counts.
    pub(super) fn next_due(&self, window: Duration) -> Option<Duration> {
        self.seen.values().map(|since| window.saturating_sub(since.elapsed())).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::AppLedger;

    const WINDOW: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn the_last_heal_of_a_service_begins_its_window_anew() {
        let (app, service) = (AppId::parse("app").unwrap(), ServiceName::parse("web").unwrap());
        let entry = AppLedger { heals: BTreeMap::from([(service.clone(), 1)]), ..AppLedger::default() };
        let mut ledger = Ledger { apps: BTreeMap::from([(app.clone(), entry)]), ..Ledger::default() };
        let (mut heals, step) = (Heals::default(), Step::Heal { app, service });
        heals.note(&step);
        tokio::time::sleep(WINDOW * 2 / 3).await;
        heals.note(&step);
        tokio::time::sleep(WINDOW * 2 / 3).await;
        assert!(!heals.forget_old(&mut ledger, WINDOW), "the second heal is 40 s old");
        assert!(heals.next_due(WINDOW).is_some_and(|due| due <= WINDOW / 3 && due > WINDOW / 4));
        tokio::time::sleep(WINDOW / 3).await;
        assert!(heals.forget_old(&mut ledger, WINDOW));
        assert_eq!(heals.next_due(WINDOW), None, "what no longer counts wakes no cycle");
    }
}

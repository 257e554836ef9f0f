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

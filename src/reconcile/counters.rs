//! Counts steps, updates and heals for the metrics.

use std::collections::BTreeMap;

use tokio::time::Instant;

use crate::model::{AppId, Counts, Ledger, Outcome, Step, Target};

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) counts: Counts,
    /// When the update of each app began that has not ended yet.
    begun: BTreeMap<AppId, Instant>,
}

impl Counters {
    /// An update begins when its target is received, and ends with its trial.
    pub(super) fn note_target(&mut self, target: &Target, ledger: &Ledger) {
        let is_new = |app: &AppId| {
            let wanted = target.apps.get(app).and_then(|app| app.release());
            let known = ledger.apps.get(app);
            let good = known.and_then(|known| known.good.as_ref());
            let rejected = known.and_then(|known| known.rejected.as_ref());
            wanted.is_some_and(|wanted| {
                good != Some(wanted) && rejected.is_none_or(|rejected| rejected.release != wanted.key())
            })
        };
        let now = Instant::now();
        self.begun = target.apps.keys().filter(|app| is_new(app)).map(|app| (app.clone(), now)).collect();
    }

    pub(super) fn note_step(&mut self, step: &Step, outcome: &Outcome) {
        let attempted = self.counts.steps.entry(step.verb()).or_default();
        if *outcome != Outcome::Done {
            attempted.failed += 1;
            return;
        }
        attempted.done += 1;
        let lasted = match step {
            Step::Accept { .. } => &mut self.counts.accepted,
            Step::Reject { .. } => &mut self.counts.rejected,
            Step::Heal { app, service } => {
                *self.counts.heals.entry((app.clone(), service.clone())).or_default() += 1;
                return;
            }
            Step::Pull { .. }
            | Step::MeasureImage { .. }
            | Step::CreateNetwork { .. }
            | Step::Create { .. }
            | Step::Reconnect { .. }
            | Step::Start { .. }
            | Step::Stop { .. }
            | Step::Kill { .. }
            | Step::RemoveByForce { .. }
            | Step::Fence { .. }
            | Step::Park { .. }
            | Step::Unlock { .. }
            | Step::Remove { .. }
            | Step::RemoveNetwork { .. }
            | Step::RemoveImage { .. }
            | Step::Try { .. }
            | Step::Forget { .. } => return,
        };
        let begun = step.app().and_then(|app| self.begun.remove(app));
        lasted.add(begun.map_or_else(Default::default, |begun| begun.elapsed()));
    }
}

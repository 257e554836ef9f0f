//! Plans, and publishes the plan as a report and as the input of a forecast.

use tracing::error;

use crate::engine::Operate;
use crate::model::{EventKind, Plan};
use crate::plan::{self, OwnedSituation};

use super::{HostAccess, Memory, Reconciler};

impl<E: Operate + 'static, M: Memory, H: HostAccess> Reconciler<E, M, H> {
    /// Plans from the current situation and publishes the report. Logs an unsafe plan as an error and drops its stage.
    pub(super) fn publish(&mut self) -> Plan {
        let (mut plan, mut report) = self.decide(|at| {
            let mut plan = plan::plan(at);
            let violations = plan::violations(at, &plan);
            if !violations.is_empty() {
                error!(why = violations.join("; "), "unsafe plan dropped; please report this");
                plan.stage.clear();
            }
            let report = plan::report(at, &plan);
            (plan, report)
        });
        if self.engine_link.error().is_none() {
            self.trials.note(&plan, &self.observed);
        }
        let host = &self.host;
        self.outbox.date_waits(&mut plan, || host.now());
        report.waiting.clone_from(&plan.waiting);
        report.evidence = self.failures.all(&self.ledger.evidence);
        report.engine_error = self.engine_link.error().cloned();
        report.store_error = self.saver.error().cloned();
        report.delivered.clone_from(&self.delivered);
        self.outbox.publish_outlook(self.outlook(&plan));
        self.outbox.publish(report);
        plan
    }

    /// Emits an event that happens now.
    pub(super) fn emit(&self, kind: EventKind) {
        self.outbox.emit(self.host.now(), kind);
    }

    /// The situation from which a forecast is made; `None` at rest, or while the engine does not answer.
    fn outlook(&self, plan: &Plan) -> Option<OwnedSituation> {
        let is_at_rest = plan.stage.is_empty() && plan.waiting.is_empty();
        (!is_at_rest && self.engine_link.error().is_none()).then(|| OwnedSituation {
            target: self.delivered.clone(),
            observed: self.observed.clone(),
            ledger: self.ledger.clone(),
            pulling: self.pulls.percentages(),
            weighing: self.facts.image_sizes.under_way(),
            cooling: self.attempts.cooling(),
            steady: self.trials.steady(&self.observed),
            facts: self.facts.known.clone(),
            boot_id: self.settings.boot_id.clone(),
            settings: self.settings.plan.clone(),
        })
    }
}

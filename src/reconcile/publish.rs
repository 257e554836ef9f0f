//! Plans, and publishes the plan as a report and as the input of a forecast.

use tracing::error;

use crate::engine::Operate;
use crate::model::{EventKind, Plan};
use crate::plan;

use super::{HostAccess, Memory, Reconciler};

impl<E: Operate + 'static, M: Memory, H: HostAccess> Reconciler<E, M, H> {
    /// Plans from the current situation and publishes the report. Logs an unsafe plan as an error and drops its stage.
    pub(super) fn publish(&mut self) -> Plan {
        let at = self.situation();
        let mut plan = plan::plan(&at);
        let violations = plan::violations(&at, &plan);
        if !violations.is_empty() {
            error!(why = violations.join("; "), "unsafe plan dropped; please report this");
            plan.stage.clear();
        }
        let mut report = plan::report(&at, &plan);
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
        // There is nothing to forecast at rest, nor from what was observed before the engine was lost.
        let is_at_rest = plan.stage.is_empty() && plan.waiting.is_empty();
        let has_outlook = !is_at_rest && self.engine_link.error().is_none();
        self.outbox.publish_outlook(has_outlook.then_some(at));
        self.outbox.publish(report);
        self.outbox.publish_api_view(self.api_view());
        plan
    }

    /// Emits an event that happens now.
    pub(super) fn emit(&self, kind: EventKind) {
        self.outbox.emit(self.host.now(), kind);
    }
}

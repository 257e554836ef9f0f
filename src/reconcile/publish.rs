//! What the reconciler tells: the report, events, and what a forecast is made from.

use std::sync::Arc;

use tracing::error;

use crate::engine::Operate;
use crate::model::{Answer, EventKind, Order, Outcome, Plan, Step};
use crate::plan::{self, OwnedSituation};

use super::{HostAccess, Memory, Reconciler, alerts};

impl<E: Operate + 'static, M: Memory, H: HostAccess> Reconciler<E, M, H> {
    /// Plans from what is known and publishes the report. An unsafe plan is told and never run.
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
        if self.engine_error.is_none() {
            self.trials.note(&plan, &self.observed);
        }
        for kind in self.waiting_log.date(&mut plan, || self.host.now()) {
            self.emit(kind);
        }
        report.waiting.clone_from(&plan.waiting);
        report.engine_error.clone_from(&self.engine_error);
        report.store_error.clone_from(&self.store_error);
        report.delivered.clone_from(&self.delivered);
        report.counts.clone_from(&self.counters.counts);
        self.publish_outlook(&plan);
        alerts::log(self.alerts.raise(&report));
        self.report.send_if_modified(|old| {
            let is_news = *old != report;
            *old = report;
            is_news
        });
        plan
    }

    /// Adds an event for whoever watches.
    pub(super) fn emit(&self, kind: EventKind) {
        let at = self.host.now();
        self.events.send_modify(|events| events.add(at, kind));
    }

    /// Counts what became of a step, and tells it.
    pub(super) fn note_step(&mut self, step: &Step, outcome: &Outcome) {
        self.counters.note_step(step, outcome);
        let failure = match outcome {
            Outcome::Done => None,
            Outcome::Retry { why, .. } | Outcome::Failed { why } => Some(why.clone()),
        };
        self.emit(EventKind::Step { step: step.clone(), failure });
    }

    /// Counts and tells what became of an order.
    pub(super) fn note_order(&mut self, order: &Order, answer: &Answer) {
        let (is_followed, told) = match answer {
            Answer::Done(told) => (true, told),
            Answer::Refused(told) | Answer::Held(told) | Answer::NotFound(told) => (false, told),
        };
        if is_followed && matches!(order, Order::Rollback { .. }) {
            self.counters.counts.rollbacks += 1;
        }
        self.emit(EventKind::Order { verb: order.verb(), is_followed, answer: told.clone() });
    }

    /// Leaves what is known to whoever wants a forecast of it; nothing when the device is at rest, or when it is
    /// not known how it stands.
    fn publish_outlook(&self, plan: &Plan) {
        let is_at_rest = plan.stage.is_empty() && plan.waiting.is_empty();
        let from = (!is_at_rest && self.engine_error.is_none()).then(|| OwnedSituation {
            target: self.delivered.clone(),
            observed: self.observed.clone(),
            ledger: self.ledger.clone(),
            pulling: self.pulls.percentages(),
            weighing: self.image_sizes.under_way(),
            cooling: self.attempts.cooling(),
            steady: self.trials.steady(&self.observed),
            facts: self.facts.clone(),
            boot_id: self.settings.boot_id.clone(),
            settings: self.settings.plan.clone(),
        });
        self.outlook.send_if_modified(|old| {
            let is_news = old.is_some() || from.is_some();
            *old = from.map(Arc::new);
            is_news
        });
    }
}

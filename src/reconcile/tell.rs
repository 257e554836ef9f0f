//! What the reconciler tells: the report, events, and what a forecast is made from.

use std::sync::Arc;

use tracing::error;

use crate::engine::Operate;
use crate::model::{Answer, Order, Outcome, Plan, Step, Told};
use crate::plan::{self, OwnedSituation};

use super::{Memory, Reconciler, Surroundings, news};

impl<E: Operate + 'static, M: Memory, S: Surroundings> Reconciler<E, M, S> {
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
        for told in self.waits.date(&mut plan, || self.surroundings.now()) {
            self.tell(told);
        }
        report.waiting.clone_from(&plan.waiting);
        report.engine_error.clone_from(&self.engine_error);
        report.store_error.clone_from(&self.store_error);
        report.delivered.clone_from(&self.delivered);
        report.counts.clone_from(&self.tally.counts);
        self.publish_outlook(&plan);
        news::tell(self.news.of(&report));
        self.report.send_if_modified(|old| {
            let is_news = *old != report;
            *old = report;
            is_news
        });
        plan
    }

    /// Adds an event for whoever watches.
    pub(super) fn tell(&self, told: Told) {
        let at = self.surroundings.now();
        self.events.send_modify(|events| events.add(at, told));
    }

    /// Counts what became of a step, and tells it.
    pub(super) fn note_step(&mut self, step: &Step, outcome: &Outcome) {
        self.tally.note_step(step, outcome);
        let failure = match outcome {
            Outcome::Done => None,
            Outcome::Retry { why, .. } | Outcome::Failed { why } => Some(why.clone()),
        };
        self.tell(Told::Step { step: step.clone(), failure });
    }

    /// Counts and tells what became of an order.
    pub(super) fn note_order(&mut self, order: &Order, answer: &Answer) {
        let (is_followed, told) = match answer {
            Answer::Done(told) => (true, told),
            Answer::Refused(told) | Answer::Held(told) | Answer::NotFound(told) => (false, told),
        };
        if is_followed && matches!(order, Order::Rollback { .. }) {
            self.tally.counts.rollbacks += 1;
        }
        self.tell(Told::Order { verb: order.verb(), is_followed, answer: told.clone() });
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
            weighing: self.weighing.under_way(),
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

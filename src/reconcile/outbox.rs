//! Everything that the reconciler publishes: the report, events, counters, alerts, and the input of a forecast.

use std::sync::Arc;

use tokio::sync::watch;

use crate::model::{Answer, ApiView, AppId, EventKind, Events, Order, Outcome, Plan, Report, Step};
use crate::plan::Situation;

use super::alerts::{self, Alerts};
use super::counters::Counters;
use super::waiting_log::WaitingLog;

pub(super) struct Outbox {
    pub(super) counters: Counters,
    waiting_log: WaitingLog,
    alerts: Alerts,
    report: watch::Sender<Report>,
    outlook: watch::Sender<Option<Arc<Situation>>>,
    events: watch::Sender<Events>,
    api_view: watch::Sender<ApiView>,
}

impl Outbox {
    pub(super) fn new(
        report: watch::Sender<Report>,
        outlook: watch::Sender<Option<Arc<Situation>>>,
        events: watch::Sender<Events>,
        api_view: watch::Sender<ApiView>,
    ) -> Self {
        let (counters, waiting_log, alerts) = Default::default();
        Self { counters, waiting_log, alerts, report, outlook, events, api_view }
    }

    /// The name of an app, as it was last published.
    pub(super) fn app_name(&self, app: &AppId) -> Option<String> {
        self.report.borrow().app_name(app).map(str::to_owned)
    }

    /// Adds an event that happened `at`.
    pub(super) fn emit(&self, at: String, kind: EventKind) {
        self.events.send_modify(|events| events.add(at, kind));
    }

    /// Writes into a plan since when it waits for each thing. Logs what begins and emits what begins and ends.
    pub(super) fn date_waits(&mut self, plan: &mut Plan, now: impl Fn() -> String) {
        let report = self.report.borrow();
        let kinds = self.waiting_log.date(plan, &now, |app| report.app_name(app));
        drop(report);
        for kind in kinds {
            self.emit(now(), kind);
        }
    }

    /// Counts the outcome of a step and emits it.
    pub(super) fn note_step(&mut self, at: String, step: &Step, outcome: &Outcome) {
        self.counters.note_step(step, outcome);
        let failure = match outcome {
            Outcome::Done => None,
            Outcome::Retry { why, .. } | Outcome::Failed { why } => Some(why.clone()),
        };
        self.emit(at, EventKind::Step { step: step.clone(), failure });
    }

    /// Counts the answer to an order and emits it.
    pub(super) fn note_order(&mut self, at: String, order: &Order, answer: &Answer) {
        let (is_followed, text) = match answer {
            Answer::Done(text) => (true, text),
            Answer::Refused(text) | Answer::Held(text) | Answer::NotFound(text) => (false, text),
        };
        if is_followed && matches!(order, Order::Rollback { .. }) {
            self.counters.counts.rollbacks += 1;
        }
        self.emit(at, EventKind::Order { verb: order.verb(), is_followed, answer: text.clone() });
    }

    /// Adds the counters, logs the alerts that the report raises, and wakes its readers if it has changed.
    pub(super) fn publish(&mut self, mut report: Report) {
        report.counts.clone_from(&self.counters.counts);
        alerts::log(self.alerts.raise(&report), |app| report.app_name(app));
        self.report.send_if_modified(|old| {
            let is_changed = *old != report;
            *old = report;
            is_changed
        });
    }

    /// Publishes what the supervisor API knows of containers, if it has changed.
    pub(super) fn publish_api_view(&self, view: ApiView) {
        self.api_view.send_if_modified(|old| {
            let is_changed = *old != view;
            *old = view;
            is_changed
        });
    }

    /// Publishes the situation from which a forecast is made; `None` withdraws it.
    pub(super) fn publish_outlook(&self, situation: Option<Situation>) {
        self.outlook.send_if_modified(|old| {
            let is_changed = old.is_some() || situation.is_some();
            *old = situation.map(Arc::new);
            is_changed
        });
    }
}

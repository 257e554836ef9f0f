//! Applies an operator's order to the ledger, and answers when the ledger is saved.

use std::sync::Arc;

use tokio::sync::oneshot;
use tracing::info;

use crate::engine::Operate;
use crate::model::{Answer, AppId, AppLedger, Happening, Ledger, Order, Power, What};
use crate::plan;

use super::{HostAccess, Memory, Reconciler};

/// An order, and where its answer goes.
pub type Command = (Order, oneshot::Sender<Answer>);

impl<E: Operate + 'static, M: Memory, H: HostAccess> Reconciler<E, M, H> {
    /// Follows an order, saves the ledger, publishes, and answers. Drops an order whose client has stopped waiting, because
    /// that client was answered that the order was not followed.
    pub(super) async fn take_order(&mut self, order: &Order, answer: oneshot::Sender<Answer>) {
        if answer.is_closed() {
            return;
        }
        let followed = match order {
            Order::Purge(purge) => self.purge(purge).await,
            Order::Power { power, .. } => self.end_run(order, *power).await,
            Order::Retry { .. }
            | Order::Rollback { .. }
            | Order::Hold(_)
            | Order::Unhold
            | Order::Stop { .. }
            | Order::Start { .. }
            | Order::Restart { .. }
            | Order::Lock(_)
            | Order::Renew { .. }
            | Order::Unlock { .. }
            | Order::RestartApp { .. }
            | Order::NewKey { .. }
            | Order::Force { .. } => self.follow(order).await,
        };
        self.outbox.note_order(self.host.now(), order, &followed);
        self.publish();
        match &followed {
            Answer::Done(what) => info!(order = order.verb(), what, "operator's order followed"),
            Answer::Refused(why) | Answer::Held(why) | Answer::NotFound(why) => {
                info!(order = order.verb(), why, "operator's order not followed");
            }
        }
        // The client may have left meanwhile. The order is followed all the same.
        let _ = answer.send(followed);
    }

    /// Adds the releases that an operator's order rejected to the history.
    fn record_rejections(&mut self, before: &Ledger) {
        let was = |app: &AppId| before.apps.get(app).and_then(|a| a.rejected.as_ref());
        let news = |(id, app): (&AppId, &AppLedger)| {
            let rejection = app.rejected.as_ref().filter(|rejection| Some(*rejection) != was(id))?;
            let (app, release, why) = (id.clone(), rejection.release.commit.clone(), rejection.why.clone());
            Some(Happening { at: self.host.now(), app, release, what: What::Rejected, why })
        };
        let news: Vec<_> = self.ledger.apps.iter().filter_map(news).collect();
        for happening in news {
            Arc::make_mut(&mut Arc::make_mut(&mut self.ledger).history).add(happening);
        }
    }

    /// Reboots the host or switches it off, unless a lock or a hold forbids it.
    async fn end_run(&mut self, order: &Order, power: Power) -> Answer {
        self.observe_host();
        let (_, answer) = plan::apply_order(&self.situation(), order);
        if !matches!(answer, Answer::Done(_)) {
            return answer;
        }
        match self.host.end_run(power).await {
            Ok(()) => Answer::Done(format!("{} is ordered", power.verb())),
            Err(why) => Answer::Refused(format!("{} is not possible: {why}", power.verb())),
        }
    }

    async fn follow(&mut self, order: &Order) -> Answer {
        let is_held = self.ledger.hold.is_some();
        match (order, self.engine_link.error()) {
            (Order::Rollback { .. }, Some(error)) if !is_held => {
                return Answer::Refused(format!("the release to roll back to is not known: {error}"));
            }
            (Order::Restart { .. } | Order::RestartApp { .. }, Some(error)) => {
                return Answer::Refused(format!("the running containers are not known: {error}"));
            }
            _ => {}
        }
        self.observe_host();
        let (ledger, answer) = plan::apply_order(&self.situation(), order);
        let Answer::Done(summary) = answer else { return answer };
        match order {
            Order::Retry { .. } => self.attempts.clear(),
            // A trial's time stops while the device is held.
            Order::Hold(_) | Order::Unhold => self.trials.forget_last_observation(),
            Order::Rollback { .. }
            | Order::Stop { .. }
            | Order::Start { .. }
            | Order::Restart { .. }
            | Order::Lock(_)
            | Order::Renew { .. }
            | Order::Unlock { .. }
            | Order::Purge(_)
            | Order::Power { .. }
            | Order::RestartApp { .. }
            | Order::NewKey { .. }
            | Order::Force { .. } => {}
        }
        if ledger != *self.ledger {
            let before = std::mem::replace(&mut self.ledger, Arc::new(ledger));
            self.record_rejections(&before);
            self.save_ledger().await;
        }
        match self.saver.error() {
            Some(why) => Answer::Done(format!("{summary}; but this is not on disk yet: {why}")),
            None => Answer::Done(summary),
        }
    }
}

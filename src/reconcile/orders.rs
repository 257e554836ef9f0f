//! Takes an operator's order into the ledger, and answers when it is saved.

use std::sync::Arc;

use tokio::sync::oneshot;
use tracing::info;

use crate::engine::Operate;
use crate::model::{Answer, AppId, AppLedger, Happening, Ledger, Order, What};
use crate::plan;

use super::{HostAccess, Memory, Reconciler};

/// An order, and where its answer goes.
pub type Command = (Order, oneshot::Sender<Answer>);

impl<E: Operate + 'static, M: Memory, H: HostAccess> Reconciler<E, M, H> {
    /// Follows an order, saves the ledger, publishes, and answers. An order that nobody waits for any
    /// more is dropped: who asked was told that it was not followed.
    pub(super) async fn take_order(&mut self, order: &Order, answer: oneshot::Sender<Answer>) {
        if answer.is_closed() {
            return;
        }
        let told = match order {
            Order::Purge(purge) => self.purge(purge).await,
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
            | Order::Force { .. } => self.follow(order).await,
        };
        self.outbox.note_order(self.host.now(), order, &told);
        self.publish();
        match &told {
            Answer::Done(what) => info!(order = order.verb(), what, "operator's order followed"),
            Answer::Refused(why) | Answer::Held(why) | Answer::NotFound(why) => {
                info!(order = order.verb(), why, "operator's order not followed");
            }
        }
        // Who asked may have gone meanwhile; the order is followed all the same.
        let _ = answer.send(told);
    }

    /// Keeps for whoever asks later what an operator took back.
    fn remember_rejections(&mut self, before: &Ledger) {
        let was = |app: &AppId| before.apps.get(app).and_then(|a| a.rejected.as_ref());
        let news = |(id, app): (&AppId, &AppLedger)| {
            let rejection = app.rejected.as_ref().filter(|rejection| Some(*rejection) != was(id))?;
            let (app, release, why) = (id.clone(), rejection.release.commit.clone(), rejection.why.clone());
            Some(Happening { at: self.host.now(), app, release, what: What::Rejected, why })
        };
        let news: Vec<_> = self.ledger.apps.iter().filter_map(news).collect();
        for happening in news {
            Arc::make_mut(&mut self.ledger.history).add(happening);
        }
    }

    async fn follow(&mut self, order: &Order) -> Answer {
        let is_held = self.ledger.hold.is_some();
        match (order, self.engine_link.error()) {
            (Order::Rollback { .. }, Some(error)) if !is_held => {
                return Answer::Refused(format!("what could be gone back to is not known: {error}"));
            }
            (Order::Restart { .. }, Some(error)) => {
                return Answer::Refused(format!("what runs is not known: {error}"));
            }
            _ => {}
        }
        self.observe_host();
        let (ledger, answer) = self.decide(|at| plan::apply_order(at, order));
        let Answer::Done(told) = answer else { return answer };
        match order {
            Order::Retry { .. } => self.attempts.clear(),
            // The time before counts for no trial: it stands still while the device is held.
            Order::Hold(_) | Order::Unhold => self.trials.forget_last_observation(),
            Order::Rollback { .. }
            | Order::Stop { .. }
            | Order::Start { .. }
            | Order::Restart { .. }
            | Order::Lock(_)
            | Order::Renew { .. }
            | Order::Unlock { .. }
            | Order::Purge(_)
            | Order::Force { .. } => {}
        }
        if ledger != self.ledger {
            let before = std::mem::replace(&mut self.ledger, ledger);
            self.remember_rejections(&before);
            self.save_ledger().await;
        }
        match self.saver.error() {
            Some(why) => Answer::Done(format!("{told}; but this is not on disk yet: {why}")),
            None => Answer::Done(told),
        }
    }
}

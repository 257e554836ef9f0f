//! The few steps that an app may take while its release is refused.

use crate::model::Step;

use super::{Checked, is_of};

impl Checked<'_> {
    /// Returns `true` if the step belongs to the rollback of a trial that was interrupted. A refused app takes no other
    /// steps, except those that an operator orders.
    pub(super) fn is_way_back(&self) -> bool {
        let is_accepted_spec = |container| self.find(container).map(|seen| is_of(self.good, seen));
        let is_back = match self.step {
            Step::Stop { container, .. } | Step::Kill { container, .. } => {
                is_accepted_spec(container) == Some(false)
            }
            Step::Start { container, .. } | Step::Reconnect { container, .. } => {
                is_accepted_spec(container) == Some(true)
            }
            Step::CreateNetwork { network, config_hash, .. } => self
                .good
                .and_then(|good| good.networks.get(network))
                .is_some_and(|spec| spec.config_hash == *config_hash),
            Step::RemoveNetwork { id, .. } => {
                self.good.zip(self.app).is_some_and(|(good, app)| self.is_in_the_way(app, good, id))
            }
            Step::Fence { .. } | Step::Unlock { .. } => true,
            Step::Pull { .. }
            | Step::MeasureImage { .. }
            | Step::RemoveByForce { .. }
            | Step::Park { .. }
            | Step::Heal { .. }
            | Step::Create { .. }
            | Step::Remove { .. }
            | Step::RemoveImage { .. }
            | Step::Try { .. }
            | Step::Reject { .. }
            | Step::Accept { .. }
            | Step::Forget { .. } => false,
        };
        is_back && (self.good.is_some() || matches!(self.step, Step::Unlock { .. }))
    }

    /// Returns `true` if an operator ordered the stop, or the start that follows a stop.
    pub(super) fn is_ordered(&self) -> bool {
        let Some(app) = self.app else { return false };
        let is_to_restart = |container| app.ledger.is_some_and(|ledger| ledger.restart.contains(container));
        match self.step {
            Step::Stop { container, .. } | Step::Kill { container, .. } => {
                is_to_restart(container)
                    || self.find(container).is_some_and(|seen| app.is_stopped_by_operator(seen))
            }
            Step::Start { container, .. } | Step::Reconnect { container, .. } => {
                is_to_restart(container) || self.find(container).is_some_and(|seen| app.was_stopped(seen))
            }
            Step::Pull { .. }
            | Step::MeasureImage { .. }
            | Step::CreateNetwork { .. }
            | Step::RemoveNetwork { .. }
            | Step::RemoveByForce { .. }
            | Step::Park { .. }
            | Step::Heal { .. }
            | Step::Create { .. }
            | Step::Remove { .. }
            | Step::RemoveImage { .. }
            | Step::Fence { .. }
            | Step::Unlock { .. }
            | Step::Try { .. }
            | Step::Reject { .. }
            | Step::Accept { .. }
            | Step::Forget { .. } => false,
        }
    }
}

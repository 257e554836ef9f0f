//! The plan while it is being made: its steps, its waits, and how many pulls and swaps are still free.

use std::ops::ControlFlow;
use std::time::Duration;

use crate::model::quantity::times;
use crate::model::{AppId, FailedStep, ImageRef, Plan, Reason, ServiceName, Step, TargetApp, Waiting};

use super::situation::Situation;

/// What became of one concern of an app, for example of its images or its networks.
///
/// [`CLEAR`] lets the next concern have its turn. [`PENDING`] ends the list: steps were added, or a wait says what
/// stands in the way.
pub(super) type Concern = ControlFlow<()>;

/// There is nothing to do and nothing to wait for.
pub(super) const CLEAR: Concern = ControlFlow::Continue(());

/// Something is still to be done before the next concern has its turn.
pub(super) const PENDING: Concern = ControlFlow::Break(());

/// Runs every concern of the iterator, and returns [`PENDING`] if at least one of them is pending.
pub(super) fn run_all(concerns: impl Iterator<Item = Concern>) -> Concern {
    concerns.fold(CLEAR, |all, one| if all.is_break() { all } else { one })
}

/// What became of a chain of steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Addition {
    Added,
    /// One of the steps failed recently. A wait says so, and no step of the chain was added.
    PutOff,
}

/// How many swaps one stage may hold, as a multiple of the swaps that run at the same time. With more than one, the
/// next swap begins as soon as one ends. The bound makes sure that the device is observed again before a bad release
/// has replaced many services.
const SWAPS_PER_SLOT: usize = 5;

/// A plan being made.
pub(super) struct Draft<'a> {
    at: &'a Situation,
    pub(super) plan: Plan,
    free_pulls: usize,
    free_swaps: usize,
}

impl<'a> Draft<'a> {
    pub(super) fn new(at: &'a Situation) -> Self {
        Self {
            at,
            plan: Plan::default(),
            free_pulls: at.settings.parallel_pulls.saturating_sub(at.pulling.len()),
            free_swaps: at.settings.parallel_swaps.saturating_mul(SWAPS_PER_SLOT),
        }
    }

    pub(super) fn has_free_pull(&self) -> bool {
        self.free_pulls > 0
    }

    /// The images of every release that is wanted.
    pub(super) fn wanted_images(&self) -> impl Iterator<Item = &'a ImageRef> + use<'a> {
        let apps = self.at.target.iter().flat_map(|target| target.apps.values());
        apps.filter_map(TargetApp::release).flat_map(|release| release.services.values()).map(|s| &s.image)
    }

    /// Adds a wait, unless the same one is there already.
    pub(super) fn wait(
        &mut self,
        app: Option<&AppId>,
        service: Option<&ServiceName>,
        reason: Reason,
        why: String,
        retry_in: Option<Duration>,
    ) {
        let waiting =
            Waiting { app: app.cloned(), service: service.cloned(), reason, why, retry_in, since: None };
        if !self.plan.waiting.contains(&waiting) {
            self.plan.waiting.push(waiting);
        }
    }

    /// Adds a chain of steps that belong to one service, or to one other object, to the stage.
    ///
    /// If a step of the chain failed recently, no step is added and a wait says when it is tried again.
    pub(super) fn add(
        &mut self,
        app: Option<&AppId>,
        service: Option<&ServiceName>,
        chain: Vec<Step>,
    ) -> Addition {
        let failed = |step| self.put_off(step).map(|failure| (step, failure));
        if let Some((step, failure)) = chain.iter().find_map(failed) {
            let why = format!("{step} failed {}: {}", times(failure.attempts), failure.why);
            let is_stuck = matches!(
                step,
                Step::Fence { .. } | Step::Kill { .. } | Step::RemoveByForce { .. } | Step::Park { .. }
            );
            let reason = if is_stuck { Reason::EngineStuck } else { Reason::Backoff };
            self.wait(app, service, reason, why, failure.remaining);
            return Addition::PutOff;
        }
        for step in chain {
            if !self.plan.stage.contains(&step) {
                self.plan.stage.push(step);
            }
        }
        Addition::Added
    }

    /// The failure for which a step is not repeated yet.
    pub(super) fn put_off(&self, step: &Step) -> Option<&'a FailedStep> {
        self.at.failed_steps.get(step).filter(|failure| !failure.is_over())
    }

    /// Adds a pull for a service, and uses up one of the free pulls.
    pub(super) fn add_pull(&mut self, app: &AppId, service: &ServiceName, pull: Step) {
        if self.add(Some(app), Some(service), vec![pull]) == Addition::Added {
            self.free_pulls -= 1;
        }
    }

    /// Adds a chain that stops or starts containers, if a swap is still free.
    pub(super) fn add_swap(&mut self, app: &AppId, service: &ServiceName, chain: Vec<Step>) {
        if self.free_swaps > 0 && self.add(Some(app), Some(service), chain) == Addition::Added {
            self.free_swaps -= 1;
        }
    }
}

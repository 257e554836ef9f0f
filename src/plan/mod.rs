//! Decides what to do next. Pure: no I/O, no async, no clock; knows no engine, no store, no JSON.
//!
//! [`plan`] looks at the target, at what is observed and at what we remember
//! and returns one stage of steps. The reconciler runs it, looks again and
//! asks again, so no progress is held in memory and a restart at any point is
//! harmless.
//!
//! The order for an app: pull every image, create networks, create
//! every successor (stopped), then service by service stop the predecessor and
//! start the successor, then watch the release on trial, then commit it and remove what it replaced,
//! or reject it and bring the whole good release back from its stopped containers. Nothing that runs
//! is stopped before everything that replaces it is ready, and nothing at all while an operator holds the device.

mod app;
mod care;
mod check;
mod create;
mod debris;
mod fetch;
mod forecast;
mod gate;
mod gone;
mod images;
mod keep;
mod networks;
mod orders;
mod places;
mod preflight;
mod record;
mod report;
mod swap;
#[cfg(test)]
mod tests;
mod trial;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::model::{
    AppId, AppLedger, Cooling, Facts, ImageRef, Ledger, Observed, Plan, PlanSettings, Reason, Release,
    ServiceName, Step, Target, TargetApp, Waiting,
};

pub use check::violations;
pub use forecast::{OwnedSituation, forecast};
pub use gate::{CLOCK_PATIENCE, may_lock};
pub use orders::{Purging, obey, purging};
pub use record::{intend, record};
pub use report::report;

/// Everything a decision may depend on.
#[derive(Debug, Clone, Copy)]
pub struct Situation<'a> {
    /// `None`: no target was ever received, and the device is left alone.
    pub target: Option<&'a Target>,
    pub observed: &'a Observed,
    pub ledger: &'a Ledger,
    /// Pulls under way, with their progress in percent.
    pub pulling: &'a BTreeMap<ImageRef, u8>,
    /// Images that registries are asked about just now.
    pub weighing: &'a BTreeSet<ImageRef>,
    /// Steps that failed the last time, those that may be repeated by now among them.
    pub cooling: &'a BTreeMap<Step, Cooling>,
    /// For how long nothing has changed in an app that waits with [`Reason::Trial`].
    pub steady: &'a BTreeMap<AppId, Duration>,
    pub facts: &'a Facts,
    /// This boot of the device.
    pub boot_id: &'a str,
    pub settings: &'a PlanSettings,
}

/// Returns the next stage towards the target, and what is waited for.
///
/// An empty stage means there is nothing to do now: the device is at its
/// target, or `waiting` says what it waits for. Without a target, or with one
/// that names no app, nothing is touched.
#[must_use]
pub fn plan(at: &Situation<'_>) -> Plan {
    let mut draft = Draft::new(at);
    let Some(target) = at.target.filter(|t| !t.apps.is_empty()) else { return draft.plan };
    for (id, app) in &target.apps {
        match app {
            TargetApp::Refused(refused) => {
                for refusal in &refused.refusals {
                    draft.wait(Some(id), None, Reason::Refused, refusal.to_string(), None);
                }
                keep::refused(&mut draft, id);
                app::unlock(&mut draft, id);
            }
            TargetApp::Wanted(wanted) => match &wanted.release {
                Some(release) => app::reach(&mut draft, id, release),
                None => gone::clear(&mut draft, id),
            },
        }
    }
    for id in gone::apps(at, target) {
        gone::clear(&mut draft, &id);
    }
    if draft.plan.stage.is_empty() {
        images::collect(&mut draft);
    }
    draft.plan
}

/// A stage has so many times the swaps that run at once: a new one begins whenever one ends, and yet the device is
/// looked at again before much is swapped for a release that is bad.
const SWAPS_A_STAGE: usize = 5;

/// A plan being made.
struct Draft<'a> {
    at: &'a Situation<'a>,
    plan: Plan,
    free_pulls: usize,
    free_swaps: usize,
}

impl<'a> Draft<'a> {
    fn new(at: &'a Situation<'a>) -> Self {
        Self {
            at,
            plan: Plan::default(),
            free_pulls: at.settings.parallel_pulls.saturating_sub(at.pulling.len()),
            free_swaps: at.settings.parallel_swaps.saturating_mul(SWAPS_A_STAGE),
        }
    }

    fn ledger(&self, app: &AppId) -> Option<&'a AppLedger> {
        self.at.ledger.apps.get(app)
    }

    /// The release that ran well last, whole.
    fn good(&self, app: &AppId) -> Option<&'a Release> {
        self.ledger(app)?.good.as_ref()
    }

    /// The images of every release that is wanted.
    fn wanted_images(&self) -> impl Iterator<Item = &'a ImageRef> + use<'a> {
        let apps = self.at.target.into_iter().flat_map(|target| target.apps.values());
        apps.filter_map(TargetApp::release).flat_map(|release| release.services.values()).map(|s| &s.image)
    }

    fn wait(
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

    /// Adds a chain of steps of one service, or of one thing, to the stage.
    ///
    /// A chain with a step that failed lately is put off as a whole: what is
    /// waited for is told instead, and `false` returned.
    fn add(&mut self, app: Option<&AppId>, service: Option<&ServiceName>, chain: Vec<Step>) -> bool {
        let put_off = |step| self.at.cooling.get(step).filter(|cooling| !cooling.is_over());
        let cooling = chain.iter().find_map(|step| put_off(step).map(|c| (step, c)));
        if let Some((step, cooling)) = cooling {
            let times =
                if cooling.attempts == 1 { "once".to_owned() } else { format!("{} times", cooling.attempts) };
            let why = format!("{step} failed {times}: {}", cooling.why);
            let is_stuck = matches!(
                step,
                Step::Fence { .. } | Step::Kill { .. } | Step::RemoveByForce { .. } | Step::Park { .. }
            );
            let reason = if is_stuck { Reason::EngineStuck } else { Reason::Backoff };
            self.wait(app, service, reason, why, cooling.remaining);
            return false;
        }
        for step in chain {
            if !self.plan.stage.contains(&step) {
                self.plan.stage.push(step);
            }
        }
        true
    }

    /// Adds a chain that stops or starts, if a swap is free.
    fn add_swap(&mut self, app: &AppId, service: &ServiceName, chain: Vec<Step>) {
        if self.free_swaps > 0 && self.add(Some(app), Some(service), chain) {
            self.free_swaps -= 1;
        }
    }
}

//! What a decision may depend on: the target, the observation, the ledger, and the facts of the host.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::model::{
    AppId, Cooling, Delivered, Facts, ImageRef, Ledger, Observed, PlanSettings, Step, Target,
};

/// Everything a decision may depend on.
#[derive(Debug, Clone, Copy)]
pub struct Situation<'a> {
    /// `None`: no target was ever received, and the device is left alone.
    pub target: Option<&'a Target>,
    pub observed: &'a Observed,
    pub ledger: &'a Ledger,
    /// Pulls under way, with their progress in percent.
    pub pulling: &'a BTreeMap<ImageRef, u8>,
    /// Images whose size a registry is being asked for.
    pub weighing: &'a BTreeSet<ImageRef>,
    /// Steps that failed the last time, including those that may be repeated by now.
    pub cooling: &'a BTreeMap<Step, Cooling>,
    /// How long nothing has changed in an app that waits with `Reason::Trial`.
    pub steady: &'a BTreeMap<AppId, Duration>,
    pub facts: &'a Facts,
    /// Identifies the current boot of the device.
    pub boot_id: &'a str,
    pub settings: &'a PlanSettings,
}

/// A [`Situation`] that owns its parts, so that it can be sent to another thread.
#[derive(Debug, Clone)]
pub struct OwnedSituation {
    pub target: Option<Arc<Delivered>>,
    pub observed: Observed,
    pub ledger: Ledger,
    pub pulling: BTreeMap<ImageRef, u8>,
    pub weighing: BTreeSet<ImageRef>,
    pub cooling: BTreeMap<Step, Cooling>,
    pub steady: BTreeMap<AppId, Duration>,
    pub facts: Facts,
    pub boot_id: String,
    pub settings: PlanSettings,
}

impl OwnedSituation {
    /// Borrows all parts, as the planner takes them.
    #[must_use]
    pub fn situation(&self) -> Situation<'_> {
        Situation {
            target: self.target.as_ref().map(|delivered| &delivered.target),
            observed: &self.observed,
            ledger: &self.ledger,
            pulling: &self.pulling,
            weighing: &self.weighing,
            cooling: &self.cooling,
            steady: &self.steady,
            facts: &self.facts,
            boot_id: &self.boot_id,
            settings: &self.settings,
        }
    }
}

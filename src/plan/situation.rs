//! What a decision may depend on: the target, the observation, the ledger, and the facts of the host.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::model::{
    AppId, DownloadProgress, Facts, FailedStep, ImageRef, Ledger, Observed, PlanSettings, Step, Target,
};

/// Everything a decision may depend on.
///
/// Its large parts are shared, so it is cheap to make and to clone, and can be sent to another thread. What is changed
/// by one owner is copied first (`Arc::make_mut`), so a published situation never changes.
#[derive(Debug, Clone)]
pub struct Situation {
    /// `None`: no target was ever received, and the device is left alone.
    pub target: Option<Arc<Target>>,
    pub observed: Arc<Observed>,
    pub ledger: Arc<Ledger>,
    /// Pulls under way, with their progress.
    pub pulling: BTreeMap<ImageRef, DownloadProgress>,
    /// Images whose size a registry is being asked for.
    pub measuring: BTreeSet<ImageRef>,
    /// Steps that failed the last time, including those that may be repeated by now.
    pub failed_steps: BTreeMap<Step, FailedStep>,
    /// How long nothing has changed in an app that waits with `Reason::Trial`.
    pub steady: BTreeMap<AppId, Duration>,
    pub facts: Arc<Facts>,
    /// Identifies the current boot of the device.
    pub boot_id: Arc<str>,
    pub settings: Arc<PlanSettings>,
}

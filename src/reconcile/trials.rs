//! Counts trials: how long each was watched, over how many boots, and for how long all was well.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use crate::engine::{EngineError, Operate};
use crate::model::{
    AppId, ContainerId, ContainerState, Ledger, Observed, Plan, PlanSettings, Reason, Release, SpecHash,
    Strategy, Target, TargetApp,
};

use super::{HostAccess, Memory, Reconciler};

/// Longest time between two looks at a release on trial.
const OBSERVE_EVERY: Duration = Duration::from_secs(10);

/// How much of a trial a power cut may make us forget, to be kind to the disk.
const SAVE: Duration = Duration::from_secs(20);

#[derive(Debug, Default)]
pub(super) struct Trials {
    last_observed: Option<Instant>,
    /// When the engine was asked for what was seen last. It may have answered long after.
    asked: Option<Instant>,
    /// Whether nobody could look since the device booted, or since the engine was gone.
    is_first_observation: bool,
    unsaved: Duration,
    /// Apps that are well and watched: since when, and the containers with their restarts.
    well: BTreeMap<AppId, (Instant, Fingerprint)>,
}

/// What must stay as it is while an app is watched.
type Fingerprint = Vec<(ContainerId, u64)>;

impl Trials {
    /// The engine is asked now. An answer that comes late tells of this moment, and of none after.
    pub(super) fn ask(&mut self) {
        self.asked = Some(Instant::now());
    }

    /// For how long each watched app is known to have been well. One that was restarted since the last look was not.
    pub(super) fn steady(&self, observed: &Observed) -> BTreeMap<AppId, Duration> {
        let known = |since| self.asked.map_or(Duration::ZERO, |at| at.saturating_duration_since(since));
        let same = self.well.iter().filter(|(app, (_, before))| *before == fingerprint(observed, app));
        same.map(|(app, (since, _))| (app.clone(), known(*since))).collect()
    }

    /// Takes from the plan which apps are well and watched.
    pub(super) fn note(&mut self, plan: &Plan, observed: &Observed) {
        let watched =
            plan.waiting.iter().filter(|w| w.reason == Reason::Trial).filter_map(|w| w.app.as_ref());
        let mut well = BTreeMap::new();
        for app in watched {
            let now = fingerprint(observed, app);
            let since = match self.well.get(app) {
                Some((since, before)) if *before == now => *since,
                Some(_) | None => Instant::now(),
            };
            well.insert(app.clone(), (since, now));
        }
        self.well = well;
    }

    /// The engine is gone: what it will show then may have ended and begun again.
    pub(super) fn lose_sight(&mut self) {
        self.last_observed = None;
        self.well.clear();
    }

    /// Forgets when was looked last.
    pub(super) fn forget_last_observation(&mut self) {
        self.last_observed = None;
    }

    /// Until a trial must be looked at again; `None` when there is none, or when it stands still and is
    /// not about to be good.
    pub(super) fn next_due(&self, ledger: &Ledger, plan: &Plan) -> Option<Duration> {
        // One that is past saving changes by an event, if ever: looking at it helps nobody.
        let is_lost = |id: &AppId| {
            plan.waiting.iter().any(|w| w.reason == Reason::Degraded && w.app.as_ref() == Some(id))
        };
        let is_any = ledger.apps.iter().any(|(id, app)| app.trial.is_some() && !is_lost(id));
        let soaked =
            plan.waiting.iter().filter(|w| w.reason == Reason::Trial).filter_map(|w| w.retry_in).min();
        match soaked {
            Some(soaked) => is_any.then(|| soaked.min(OBSERVE_EVERY)),
            None => (is_any && ledger.hold.is_none()).then_some(OBSERVE_EVERY),
        }
    }
}

fn fingerprint(observed: &Observed, app: &AppId) -> Fingerprint {
    let of_app = observed.services.iter().filter(|seen| seen.app == *app);
    of_app.map(|seen| (seen.container.clone(), seen.restarts)).collect()
}

/// How long the trial of an app's wanted release may take.
fn deadline(target: &Target, app: &AppId, settings: &PlanSettings) -> Duration {
    let wanted = match target.apps.get(app) {
        Some(TargetApp::Wanted(wanted)) => wanted.release.as_ref(),
        Some(TargetApp::Refused(_)) | None => None,
    };
    wanted.and_then(|release| release.trial.deadline).unwrap_or(settings.deadline)
}

impl<E: Operate + 'static, M: Memory, H: HostAccess> Reconciler<E, M, H> {
    /// Counts the boot, for trials that began in an earlier one; none while the device is held.
    pub(super) async fn count_boot(&mut self) {
        let counted = u32::from(self.ledger.hold.is_none());
        for trial in self.ledger.apps.values_mut().filter_map(|app| app.trial.as_mut()) {
            if trial.boot_id != self.settings.boot_id {
                trial.boot_id.clone_from(&self.settings.boot_id);
                trial.boots = trial.boots.saturating_add(counted);
                self.trials.is_first_observation = true;
            }
        }
        self.save_ledger().await;
    }

    /// A trial, or a rejection, of another release than the wanted one counts for nothing any more.
    pub(super) fn forget_other_trials(&mut self, target: &Target) {
        for (id, app) in &mut self.ledger.apps {
            let key = match target.apps.get(id) {
                Some(TargetApp::Wanted(wanted)) => wanted.release.as_ref().map(Release::key),
                Some(TargetApp::Refused(_)) => None,
                None => continue,
            };
            if app.trial.as_ref().is_some_and(|trial| Some(&trial.release) != key.as_ref()) {
                app.trial = None;
            }
            if app.forced.as_ref().is_some_and(|forced| Some(forced) != key.as_ref()) {
                app.forced = None;
            }
            if app.rejected.as_ref().is_some_and(|rejected| Some(&rejected.release) != key.as_ref()) {
                app.rejected = None;
            }
        }
    }

    /// Counts the time since the last look for every trial, up to its deadline and unless the device is
    /// held, and asks the engine how often it restarted what is on trial: its list does not tell.
    pub(super) async fn watch_trials(&mut self) -> Result<(), EngineError> {
        let now = Instant::now();
        let passed = self.trials.last_observed.replace(now).map_or(Duration::ZERO, |last| now - last);
        let passed = if self.ledger.hold.is_some() { Duration::ZERO } else { passed };
        self.count_hand_overs(passed);
        let fetching = self.apps_fetching();
        let mut tried = Vec::new();
        let mut counted = Duration::ZERO;
        for (id, app) in &mut self.ledger.apps {
            let deadline = self.delivered.as_ref().map(|d| deadline(&d.target, id, &self.settings.plan));
            if let Some(trial) = &mut app.trial {
                // Past its deadline it is decided, or it never will be: there is nothing to count, or to write.
                // Nor while the image comes of a service whose predecessor has made room for it.
                if deadline.is_some_and(|deadline| trial.ran < deadline) && !fetching.contains(id) {
                    trial.ran += passed;
                    counted += passed;
                }
                tried.extend(trial.release.specs.values().cloned());
            }
        }
        if tried.is_empty() {
            return Ok(());
        }
        self.note_cut_short(&tried).await;
        self.trials.unsaved += counted;
        if self.trials.unsaved >= SAVE {
            self.trials.unsaved = Duration::ZERO;
            self.save_ledger().await;
        }
        for seen in self.observed.services.iter_mut().filter(|s| tried.contains(&s.spec)) {
            seen.restarts = match self.engine.restarts(&seen.container).await {
                Ok(restarts) => restarts,
                Err(error @ EngineError::Unreachable { .. }) => return Err(error),
                // One container that cannot be inspected must not stop everything else.
                Err(_) => 0,
            };
        }
        Ok(())
    }

    /// Counts for how long successors have run beside the predecessors that they take over from.
    pub(super) fn count_hand_overs(&mut self, passed: Duration) {
        let Some(delivered) = self.delivered.clone() else { return };
        for (id, ledger) in &mut self.ledger.apps {
            let release = delivered.target.apps.get(id).and_then(|app| app.release());
            let (Some(trial), Some(release)) = (&mut ledger.trial, release) else { continue };
            for (name, spec) in &release.services {
                if !matches!(spec.strategy, Strategy::HandOver { .. }) {
                    continue;
                }
                let runs = |is_new: bool| {
                    self.observed.services.iter().any(|s| {
                        let is_of = s.app == *id && s.service == *name;
                        // One that crashes over and over takes its time all the same.
                        let is_up = matches!(s.state, ContainerState::Running | ContainerState::Restarting);
                        is_of && is_up && (s.spec == spec.hash) == is_new
                    })
                };
                if runs(true) && runs(false) {
                    *trial.hand_over.entry(name.clone()).or_default() += passed;
                }
            }
        }
    }

    /// Takes note that the engine answers. One that did not may have taken containers with it.
    pub(super) fn note_engine(&mut self) {
        if let Some(kind) = self.engine_link.note_answer() {
            self.emit(kind);
            self.trials.is_first_observation = true;
        }
    }

    /// Apps of whose wanted release an image is on its way.
    fn apps_fetching(&self) -> BTreeSet<AppId> {
        let pulling = self.pulls.percentages();
        let apps = self.delivered.as_ref().into_iter().flat_map(|delivered| &delivered.target.apps);
        let wanted = apps.filter_map(|(id, app)| Some((id, app.release()?)));
        wanted
            .filter(|(_, release)| release.services.values().any(|spec| pulling.contains_key(&spec.image)))
            .map(|(id, _)| id.clone())
            .collect()
    }

    /// After a boot, and after an outage of the engine: what of a trial ended with it did not end by itself, and
    /// runs again.
    async fn note_cut_short(&mut self, tried: &[SpecHash]) {
        if !std::mem::take(&mut self.trials.is_first_observation) {
            return;
        }
        for seen in self.observed.services.iter().filter(|s| tried.contains(&s.spec)) {
            let has_failed = matches!(seen.state, ContainerState::Exited { code } if code != 0);
            if let Some(app) = self.ledger.apps.get_mut(&seen.app).filter(|_| has_failed) {
                app.stopped.insert(seen.container.clone());
            }
        }
        self.save_ledger().await;
    }
}

//! Times trials: how long each was observed, over how many boots, and for how long the release was healthy.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::engine::{EngineError, Operate, RunRecord};
use crate::model::{
    AppId, ContainerId, ContainerState, Ledger, Observed, Plan, PlanSettings, Reason, Release, SpecHash,
    Strategy, Target, TargetApp,
};

use super::{HostAccess, Memory, Reconciler};

/// Longest time between two observations of a release on trial.
const OBSERVE_EVERY: Duration = Duration::from_secs(10);

/// Saves of a trial's time are this far apart, to spare the disk. A power cut may lose as much of it.
const SAVE: Duration = Duration::from_secs(20);

#[derive(Debug, Default)]
pub(super) struct Trials {
    last_observed: Option<Instant>,
    /// When the last observation was requested. The answer may have come much later.
    asked: Option<Instant>,
    /// Whether there was no observation since the device booted or the engine did not answer.
    is_first_observation: bool,
    unsaved: Duration,
    /// Healthy apps on trial: since when, and their containers with their restarts.
    well: BTreeMap<AppId, (Instant, Fingerprint)>,
}

/// An app counts as steady while this stays the same.
type Fingerprint = Vec<(ContainerId, u64)>;

impl Trials {
    /// Notes that an observation is requested now. A late answer still describes this moment.
    pub(super) fn ask(&mut self) {
        self.asked = Some(Instant::now());
    }

    /// Returns for how long each app on trial has been healthy. An app that was restarted since the last observation is
    /// left out.
    pub(super) fn steady(&self, observed: &Observed) -> BTreeMap<AppId, Duration> {
        let known = |since| self.asked.map_or(Duration::ZERO, |at| at.saturating_duration_since(since));
        let same = self.well.iter().filter(|(app, (_, before))| *before == fingerprint(observed, app));
        same.map(|(app, (since, _))| (app.clone(), known(*since))).collect()
    }

    /// Reads from the plan which apps on trial are healthy.
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

    /// Resets all soak timers, because containers may restart unseen while the engine does not answer.
    pub(super) fn lose_sight(&mut self) {
        self.last_observed = None;
        self.well.clear();
    }

    /// Excludes the time since the last observation from all trials.
    pub(super) fn forget_last_observation(&mut self) {
        self.last_observed = None;
    }

    /// Returns the time until a trial must be observed again; `None` without a trial, or while the device is held and no
    /// soak is about to end.
    pub(super) fn next_due(&self, ledger: &Ledger, plan: &Plan) -> Option<Duration> {
        // A degraded release changes by an event only, so it needs no observations of its own.
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

/// Returns how long the trial of an app's wanted release may take.
fn deadline(target: &Target, app: &AppId, settings: &PlanSettings) -> Duration {
    let wanted = match target.apps.get(app) {
        Some(TargetApp::Wanted(wanted)) => wanted.release.as_ref(),
        Some(TargetApp::Refused(_)) | None => None,
    };
    wanted.and_then(|release| release.trial.deadline).unwrap_or(settings.deadline)
}

impl<E: Operate + 'static, M: Memory, H: HostAccess> Reconciler<E, M, H> {
    /// Counts this boot for trials that began in an earlier one, unless the device is held.
    pub(super) async fn count_boot(&mut self) {
        let counted = u32::from(self.ledger.hold.is_none());
        for trial in Arc::make_mut(&mut self.ledger).apps.values_mut().filter_map(|app| app.trial.as_mut()) {
            if *trial.boot_id != *self.settings.boot_id {
                trial.boot_id = self.settings.boot_id.to_string();
                trial.boots = trial.boots.saturating_add(counted);
                self.trials.is_first_observation = true;
            }
        }
        self.save_ledger().await;
    }

    /// Removes trials, forced updates and rejections of releases that are no longer wanted.
    pub(super) fn forget_other_trials(&mut self, target: &Target) {
        for (id, app) in &mut Arc::make_mut(&mut self.ledger).apps {
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

    /// Adds the time since the last observation to every trial, up to its deadline and unless the device is held. Then asks
    /// the engine how often it restarted each container on trial, because its list does not say so.
    pub(super) async fn watch_trials(&mut self) -> Result<(), EngineError> {
        let now = Instant::now();
        let passed = self.trials.last_observed.replace(now).map_or(Duration::ZERO, |last| now - last);
        let passed = if self.ledger.hold.is_some() { Duration::ZERO } else { passed };
        self.count_hand_overs(passed);
        let fetching = self.apps_fetching();
        let mut tried = Vec::new();
        let mut counted = Duration::ZERO;
        for (id, app) in &mut Arc::make_mut(&mut self.ledger).apps {
            let deadline = self.delivered.as_ref().map(|d| deadline(&d.target, id, &self.settings.plan));
            if let Some(trial) = &mut app.trial {
                // After the deadline the time no longer matters and is not saved. While an image is downloaded, because
                // the predecessor was removed to make room for it, the time does not count.
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
        for seen in Arc::make_mut(&mut self.observed).services.iter_mut().filter(|s| tried.contains(&s.spec))
        {
            let record = match self.engine.run_record(&seen.container).await {
                Ok(record) => record,
                Err(error @ EngineError::Unreachable { .. }) => return Err(error),
                // One container that cannot be inspected must not stop everything else.
                Err(_) => RunRecord::default(),
            };
            seen.restarts = record.restarts;
            if let Some(end) = record.end {
                self.failures.note_end(&seen.container, end);
            }
        }
        Ok(())
    }

    /// Adds `passed` to the hand-over time of every service whose successor and predecessor both run.
    pub(super) fn count_hand_overs(&mut self, passed: Duration) {
        let Some(delivered) = self.delivered.clone() else { return };
        for (id, ledger) in &mut Arc::make_mut(&mut self.ledger).apps {
            let release = delivered.target.apps.get(id).and_then(|app| app.release());
            let (Some(trial), Some(release)) = (&mut ledger.trial, release) else { continue };
            for (name, spec) in &release.services {
                if !matches!(spec.strategy, Strategy::HandOver { .. }) {
                    continue;
                }
                let runs = |is_new: bool| {
                    self.observed.services.iter().any(|s| {
                        let is_of = s.app == *id && s.service == *name;
                        // A container that crashes again and again uses up its time, too.
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

    /// Records that the engine answers. After an outage its containers may have ended with it.
    pub(super) fn note_engine(&mut self) {
        if let Some(kind) = self.engine_link.note_answer() {
            self.emit(kind);
            self.trials.is_first_observation = true;
        }
    }

    /// Returns the apps with a download for their wanted release.
    fn apps_fetching(&self) -> BTreeSet<AppId> {
        let apps = self.delivered.as_ref().into_iter().flat_map(|delivered| &delivered.target.apps);
        let wanted = apps.filter_map(|(id, app)| Some((id, app.release()?)));
        wanted
            .filter(|(_, release)| release.services.values().any(|spec| self.pulls.is_under_way(&spec.image)))
            .map(|(id, _)| id.clone())
            .collect()
    }

    /// After a boot or an outage of the engine, records failed containers on trial as stopped, so that they are started
    /// again: they did not end by themselves.
    async fn note_cut_short(&mut self, tried: &[SpecHash]) {
        if !std::mem::take(&mut self.trials.is_first_observation) {
            return;
        }
        for seen in self.observed.services.iter().filter(|s| tried.contains(&s.spec)) {
            let has_failed = matches!(seen.state, ContainerState::Exited { code } if code != 0);
            if let Some(app) = Arc::make_mut(&mut self.ledger).apps.get_mut(&seen.app).filter(|_| has_failed)
            {
                app.stopped_by_agent.insert(seen.container.clone());
            }
        }
        self.save_ledger().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{AppLedger, Commit, Hold, ReleaseKey, Trial, Waiting};

    #[test]
    fn a_trial_is_observed_at_least_every_ten_seconds() {
        let app = AppId::parse("app").unwrap();
        let release = ReleaseKey { commit: Commit::parse("2").unwrap(), specs: BTreeMap::new() };
        let (ran, hand_over) = (Duration::ZERO, BTreeMap::new());
        let trial = Some(Trial { release, ran, boots: 0, boot_id: String::new(), hand_over });
        let entry = AppLedger { trial, ..AppLedger::default() };
        let ledger = Ledger { apps: BTreeMap::from([(app.clone(), entry)]), ..Ledger::default() };
        let hold = Some(Hold { reason: "audit".into(), since: "noon".into() });
        let held = Ledger { hold, ..ledger.clone() };
        let due = |ledger: &Ledger, reason: Option<(Reason, u64)>| {
            let wait = reason.map(|(reason, left)| Waiting {
                app: Some(app.clone()),
                service: None,
                reason,
                why: String::new(),
                retry_in: Some(Duration::from_secs(left)),
                since: None,
            });
            let plan = Plan { stage: Vec::new(), waiting: wait.into_iter().collect() };
            Trials::default().next_due(ledger, &plan).map(|due| due.as_secs())
        };
        for (why, ledger, reason, expected) in [
            ("no trial", &Ledger::default(), None, None),
            ("it starts", &ledger, None, Some(10)),
            ("a long soak", &ledger, Some((Reason::Trial, 60)), Some(10)),
            ("the end of a soak", &ledger, Some((Reason::Trial, 4)), Some(4)),
            ("nothing to go back to", &ledger, Some((Reason::Degraded, 60)), None),
            ("held while it starts", &held, None, None),
            ("held while it soaks", &held, Some((Reason::Trial, 4)), Some(4)),
        ] {
            assert_eq!(due(ledger, reason), expected, "{why}");
        }
    }
}

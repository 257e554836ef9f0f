//! The single writer: observe, plan, run one stage, observe again.
//!
//! Fed by channels and knowing neither HTTP nor JSON, it is the only task that
//! changes the engine or the ledger. Progress lives in the engine and in the
//! ledger, never here: what is held in memory (failed attempts, downloads) may
//! be lost at any moment.

mod alerts;
mod attempts;
mod counters;
mod events;
mod facts;
mod host_access;
mod image_sizes;
mod joined;
mod memory;
mod orders;
mod publish;
mod pulls;
mod purge;
mod stage;
#[cfg(test)]
mod tests;
mod trials;
mod vetting;
mod waiting_log;
mod wakeups;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::engine::{About, EngineError, Operate};
use crate::model::{
    Alert, AppId, ByService, Commit, ContainerId, Delivered, EventKind, Events, Facts, Forecast, ImageRef,
    Ledger, Observed, Outcome, Plan, PlanSettings, Release, Report, ServiceName, Step, Target, TargetApp,
    with_causes,
};
pub use crate::plan::OwnedSituation;
use crate::plan::{self, Situation};

use alerts::Alerts;
use attempts::Attempts;
use counters::Counters;
pub use events::watch_engine;
pub use host_access::{HostAccess, MountedPath, Unmeasured};
use image_sizes::ImageSizes;
pub use memory::{Memory, SaveError};
pub use orders::Command;
use pulls::Pulls;
use trials::Trials;
use waiting_log::WaitingLog;
use wakeups::{Inputs, Wakeup};

/// What is waited for is not looked at more often.
const SHORTEST_WAIT: Duration = Duration::from_millis(100);

/// How the reconciler waits, and how much it does at once.
#[derive(Debug, Clone)]
pub struct Settings {
    pub plan: PlanSettings,
    /// Longest time between two looks at the engine.
    pub resync: Duration,
    /// What tells this boot of the device from others.
    pub boot_id: String,
}

/// What the reconciler reads and what it tells.
pub struct Channels {
    pub target: watch::Receiver<Option<Arc<Delivered>>>,
    /// Changes whenever the engine should be looked at; the restarts of which it has told.
    pub engine: watch::Receiver<ByService>,
    /// What an operator asks for; answered when the ledger is saved.
    pub commands: mpsc::Receiver<Command>,
    pub report: watch::Sender<Report>,
    /// What a forecast is made from; `None` while nothing is to be done and nothing waited for.
    pub outlook: watch::Sender<Option<Arc<OwnedSituation>>>,
    pub events: watch::Sender<Events>,
}

/// Where a forecast comes from: it is made for who asks, and not by the reconciler.
pub type Outlook = watch::Receiver<Option<Arc<OwnedSituation>>>;

/// What the next cycles would do, from what is known now. Takes as long as some hundred plans at most.
#[must_use]
pub fn forecast(outlook: &Outlook) -> Forecast {
    let from = outlook.borrow().clone();
    from.map(|from| plan::forecast(OwnedSituation::clone(&from))).unwrap_or_default()
}

/// Reconciles until `stop` is cancelled or every target sender is gone.
///
/// A stage under way is finished before returning, so the caller must allow
/// for the longest stop grace. Downloads under way are dropped.
pub async fn run<E, M, H>(
    engine: Arc<E>,
    host: Arc<H>,
    memory: M,
    ledger: Ledger,
    settings: Settings,
    channels: Channels,
    stop: CancellationToken,
) where
    E: Operate + 'static,
    M: Memory,
    H: HostAccess,
{
    let (progress, progress_heard) = mpsc::channel(64);
    let mut writer = Reconciler {
        engine,
        host,
        memory,
        settings,
        ledger,
        delivered: None,
        observed: Observed::default(),
        facts: Facts::default(),
        about: None,
        image_sizes: ImageSizes::default(),
        heals_seen: BTreeMap::new(),
        clock_watched: None,
        prepared: BTreeSet::new(),
        watched_files: Vec::new(),
        images_changed: false,
        is_volume_in_the_way: false,
        pulls: Pulls::new(progress),
        attempts: Attempts::default(),
        trials: Trials::default(),
        waiting_log: WaitingLog::default(),
        alerts: Alerts::default(),
        report: channels.report,
        outlook: channels.outlook,
        events: channels.events,
        counters: Counters::default(),
        engine_error: None,
        engine_failures: 0,
        store_error: None,
        save_again: None,
    };
    writer.save_ledger().await; // writes nothing, unless opening the store left something outstanding
    let mut inputs = Inputs {
        target: channels.target,
        engine: channels.engine,
        progress: progress_heard,
        commands: channels.commands,
    };
    inputs.target.mark_changed();
    writer.count_boot().await;
    let mut due = Instant::now();
    loop {
        let wakeup = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            wakeup = writer.next_wakeup(&mut inputs, due) => wakeup,
        };
        match wakeup {
            Wakeup::Closed => return,
            Wakeup::Target(delivered) => writer.take_target(delivered).await,
            Wakeup::Progress(image, percent) => {
                writer.pulls.advance(&image, percent);
                writer.publish();
                continue;
            }
            Wakeup::PullEnded(image, result) => writer.end_pull(&image, result),
            Wakeup::Measured(image, result) => writer.end_measurement(image, result),
            Wakeup::Command((order, answer)) => writer.take_order(&order, answer).await,
            Wakeup::Engine(restarts) => writer.counters.counts.restarts = restarts,
            Wakeup::Due => {}
        }
        writer.save_outstanding().await;
        due = Instant::now() + writer.cycle(&stop).await.min(writer.until_save());
    }
}

struct Reconciler<E, M, H> {
    engine: Arc<E>,
    host: Arc<H>,
    memory: M,
    settings: Settings,
    ledger: Ledger,
    delivered: Option<Arc<Delivered>>,
    observed: Observed,
    facts: Facts,
    /// What the engine said of itself, until it is gone.
    about: Option<About>,
    image_sizes: ImageSizes,
    /// When each heal that still counts was first seen by this agent.
    heals_seen: BTreeMap<(AppId, ServiceName), Instant>,
    /// Since when an update has waited for a clock that can be believed, as far as it is counted.
    clock_watched: Option<Instant>,
    /// Lock folders that this agent has seen to.
    prepared: BTreeSet<(u64, ServiceName)>,
    /// Lock folders that are watched because somebody waits for what is in them.
    watched_files: Vec<facts::Watched>,
    /// Whether the engine's layers may be others than those that it told.
    images_changed: bool,
    /// Whether a release is refused because of a volume that is here.
    is_volume_in_the_way: bool,
    pulls: Pulls,
    attempts: Attempts,
    trials: Trials,
    waiting_log: WaitingLog,
    alerts: Alerts,
    report: watch::Sender<Report>,
    outlook: watch::Sender<Option<Arc<OwnedSituation>>>,
    events: watch::Sender<Events>,
    counters: Counters,
    engine_error: Option<String>,
    engine_failures: u32,
    store_error: Option<String>,
    /// When to try again; set while `store_error` is.
    save_again: Option<Instant>,
}

impl<E: Operate + 'static, M: Memory, H: HostAccess> Reconciler<E, M, H> {
    async fn take_target(&mut self, delivered: Arc<Delivered>) {
        if let Some(record) = &delivered.record {
            let saved = self.memory.save_target(record).await;
            self.note_store(saved);
        }
        let is_news = self.delivered.as_ref().is_none_or(|old| old.target != delivered.target);
        if is_news {
            self.attempts.clear();
            self.forget_other_trials(&delivered.target);
            self.facts.volumes = None;
            info!(apps = delivered.target.apps.len(), "target received");
            self.emit(EventKind::Target { apps: delivered.target.apps.len() });
            self.counters.note_target(&delivered.target, &self.ledger);
            for (app, refusal) in refusals(&delivered.target) {
                warn!(%app, why = %refusal, "target refused");
            }
            let wanted: Vec<ImageRef> = releases(&delivered.target)
                .flat_map(|r| r.services.values())
                .map(|s| s.image.clone())
                .collect();
            self.pulls.keep_only(|image| wanted.contains(image));
            self.image_sizes.keep_only(|image| wanted.contains(image));
            self.facts.image_sizes.retain(|image, _| wanted.contains(image));
        }
        self.delivered = Some(delivered);
    }

    fn end_pull(&mut self, image: &ImageRef, result: Result<u64, EngineError>) {
        let Some(percent) = self.pulls.end(image) else { return };
        let step = Step::Pull { image: image.clone() };
        debug!(%image, percent, "pull ended");
        self.counters.counts.pulled_bytes += result.as_ref().copied().unwrap_or_default();
        self.settle(&step, stage::outcome(&step, result.map(drop)));
    }

    /// Looks, plans and runs one stage, until there is nothing to do now; returns how long nothing
    /// has to be done. Stops between two stages when `stop` is cancelled.
    async fn cycle(&mut self, stop: &CancellationToken) -> Duration {
        self.trials.ask();
        match self.engine.observe().await {
            Ok(observed) => {
                self.note_engine();
                self.images_changed |= self.observed.images != observed.images;
                self.observed = observed;
            }
            Err(error) => return self.no_engine(&error),
        }
        if let Err(error) = self.watch_trials().await {
            return self.no_engine(&error);
        }
        if let Err(error) = self.watch_joined().await {
            return self.no_engine(&error);
        }
        self.gather().await;
        let mut plan = self.publish();
        if self.learns_layers(&plan).await {
            plan = self.publish();
        }
        self.note_waiting(&plan).await;
        if plan.stage.is_empty() || stop.is_cancelled() {
            return self.until_due(&plan);
        }
        let stage = self.not_again(plan.stage);
        let is_only_pulls = stage.iter().all(|s| matches!(s, Step::Pull { .. } | Step::MeasureImage { .. }));
        self.run_stage(stage, stop).await;
        // What passed while nobody could look is no part of a trial.
        self.trials.forget_last_observation();
        if !is_only_pulls {
            return Duration::ZERO;
        }
        // Nothing changed on the engine yet: the end of a download wakes us.
        let plan = self.publish();
        self.until_due(&plan)
    }

    /// A step that was done a moment ago and is planned again did not do what it should: the engine says
    /// one thing and shows another. It is put off like one that failed, so that nothing spins.
    fn not_again(&mut self, stage: Vec<Step>) -> Vec<Step> {
        let (again, fresh): (Vec<_>, Vec<_>) =
            stage.into_iter().partition(|step| self.attempts.was_just_done(step));
        // What was to come after it, the start of a successor, waits for it.
        let is_after =
            |step: &Step| again.iter().any(|s| s.service().is_some() && s.service() == step.service());
        let fresh = fresh.into_iter().filter(|step| !is_after(step)).collect();
        for step in &again {
            let why = "it was done, and the engine does not show it".to_owned();
            self.settle(step, Outcome::Retry { after: None, why });
        }
        fresh
    }

    /// How long nothing has to be done, if nothing happens before.
    fn until_due(&self, plan: &Plan) -> Duration {
        let waits =
            [self.attempts.next_due(), self.trials.next_due(&self.ledger, plan), self.next_heal_due()];
        let told =
            plan.waiting.iter().filter_map(|waiting| waiting.retry_in).map(|wait| wait.max(SHORTEST_WAIT));
        waits.into_iter().flatten().chain(told).fold(self.settings.resync, Duration::min)
    }

    fn no_engine(&mut self, error: &EngineError) -> Duration {
        let told = with_causes(error);
        if self.engine_error.as_ref() != Some(&told) {
            warn!(alert = Alert::EngineLost.as_str(), error = %told, "engine cannot be looked at");
            self.emit(EventKind::Engine { error: Some(told.clone()) });
        }
        self.engine_error = Some(told);
        self.about = None;
        self.trials.lose_sight();
        self.engine_failures = self.engine_failures.saturating_add(1);
        self.publish();
        Duration::from_secs(1_u64 << self.engine_failures.min(5)).min(self.settings.resync)
    }

    /// Lets `decide` look at everything that is known.
    fn decide<T>(&self, decide: impl FnOnce(&Situation<'_>) -> T) -> T {
        let (pulling, cooling) = (self.pulls.percentages(), self.attempts.cooling());
        let weighing = self.image_sizes.under_way();
        let steady = self.trials.steady(&self.observed);
        let at = Situation {
            target: self.delivered.as_ref().map(|d| &d.target),
            observed: &self.observed,
            ledger: &self.ledger,
            pulling: &pulling,
            weighing: &weighing,
            cooling: &cooling,
            steady: &steady,
            facts: &self.facts,
            boot_id: &self.settings.boot_id,
            settings: &self.settings.plan,
        };
        decide(&at)
    }

    /// The release that a step is about, for the log: its own, or that of its container.
    fn release_of<'a>(&'a self, step: &'a Step) -> Option<&'a Commit> {
        let of = |id: &ContainerId| {
            self.observed.services.iter().find(|seen| seen.container == *id).map(|seen| &seen.release)
        };
        step.release().or_else(|| step.container().and_then(of))
    }

    /// Takes a step's outcome into attempts and log.
    fn settle(&mut self, step: &Step, outcome: Outcome) {
        let (verb, app) = (step.verb(), step.app().map(tracing::field::display));
        let service = step.service().map(|(_, service)| tracing::field::display(service));
        let release = self.release_of(step).map(tracing::field::display);
        match &outcome {
            Outcome::Done => info!(step = verb, app, service, release, what = %step, "step done"),
            Outcome::Retry { why, .. } | Outcome::Failed { why } => {
                warn!(step = verb, app, service, release, what = %step, error = %why, "step failed");
            }
        }
        self.note_step(step, &outcome);
        self.attempts.note(step, outcome);
    }
}

fn releases(target: &Target) -> impl Iterator<Item = &Release> {
    target.apps.values().filter_map(|app| match app {
        TargetApp::Wanted(wanted) => wanted.release.as_ref(),
        TargetApp::Refused(_) => None,
    })
}

fn refusals(target: &Target) -> impl Iterator<Item = (&AppId, String)> {
    target.apps.iter().flat_map(|(id, app)| {
        let told = match app {
            TargetApp::Wanted(wanted) => wanted.warnings.iter(),
            TargetApp::Refused(refused) => refused.refusals.iter(),
        };
        told.map(move |refusal| (id, refusal.to_string()))
    })
}

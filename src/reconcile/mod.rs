//! The single writer: observe, plan, run one stage, observe again.
//!
//! Only this task changes the engine or the ledger. Channels feed it; it knows neither HTTP nor JSON. Progress is kept in
//! the engine and in the ledger. What this module holds in memory (failed attempts, downloads) may be lost at any time.

mod alerts;
mod apps_api;
mod attempts;
mod clock_wait;
mod counters;
mod engine_link;
mod events;
mod evidence;
mod facts;
mod heals;
mod host_access;
mod image_sizes;
mod joined;
mod lock_folders;
mod memory;
mod orders;
mod outbox;
mod publish;
mod pulls;
mod purge;
mod remove_apps;
mod resolve;
mod stage;
#[cfg(test)]
mod tests;
mod trials;
mod vetting;
mod waiting_log;
mod wakeups;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::engine::{EngineError, Operate};
use crate::model::{
    ApiView, Commit, ContainerId, Delivered, Door, EventKind, Events, Forecast, ImageRef, Ledger, Observed,
    Outcome, Plan, PlanSettings, Release, Report, Step, Target, TargetApp, with_causes,
};
use crate::plan;
pub use crate::plan::Situation;

use attempts::Attempts;
use clock_wait::ClockWait;
use engine_link::EngineLink;
pub use events::{EngineNews, watch_engine};
use evidence::Failures;
use facts::KnownFacts;
use heals::Heals;
pub use host_access::{HostAccess, MountedPath, Unmeasured};
use lock_folders::LockFolders;
use memory::Saver;
pub use memory::{Memory, SaveError};
pub use orders::Command;
use outbox::Outbox;
use pulls::Pulls;
pub use remove_apps::{Removed, count_apps, remove_apps};
use trials::Trials;
use wakeups::{Inputs, Next};

/// Shortest pause before the next observation, for a wait that ends at a known time.
const SHORTEST_WAIT: Duration = Duration::from_millis(100);

/// Settings of the reconciler: those for plans, the longest time between two observations, and the id of this boot.
#[derive(Debug, Clone)]
pub struct Settings {
    pub plan: Arc<PlanSettings>,
    /// Longest time between two observations of the engine.
    pub resync: Duration,
    /// Identifies the current boot of the device.
    pub boot_id: Arc<str>,
}

/// The channels that the reconciler reads and those to which it publishes.
pub struct Channels {
    pub target: watch::Receiver<Option<Arc<Delivered>>>,
    /// Changes whenever the engine should be observed.
    pub engine: watch::Receiver<EngineNews>,
    /// Orders of operators. Each is answered after the ledger is saved.
    pub commands: mpsc::Receiver<Command>,
    pub report: watch::Sender<Report>,
    /// The situation from which a forecast is made. `None` at rest, and while the engine does not answer.
    pub outlook: watch::Sender<Option<Arc<Situation>>>,
    pub events: watch::Sender<Events>,
    /// What the supervisor API knows of containers.
    pub api_view: watch::Sender<ApiView>,
}

/// The input of a forecast. The task that asks for a forecast computes it, not the reconciler.
pub type Outlook = watch::Receiver<Option<Arc<Situation>>>;

/// Returns what the next cycles would do. It makes 200 plans at most.
#[must_use]
pub fn forecast(outlook: &Outlook) -> Forecast {
    let from = outlook.borrow().clone();
    from.map(|from| plan::forecast(Situation::clone(&from))).unwrap_or_default()
}

/// Reconciles until `stop` is cancelled or every target sender is dropped.
///
/// Services whose steps of the current stage have begun are finished first, so the caller must allow for the longest
/// stop grace. Downloads in progress are dropped.
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
        settings,
        ledger: Arc::new(ledger),
        delivered: None,
        observed: Arc::default(),
        engine_link: EngineLink::default(),
        facts: KnownFacts::default(),
        lock_folders: LockFolders::default(),
        heals: Heals::default(),
        clock_wait: ClockWait::default(),
        pulls: Pulls::new(progress),
        attempts: Attempts::default(),
        trials: Trials::default(),
        failures: Failures::default(),
        bridge: None,
        saver: Saver::new(memory),
        outbox: Outbox::new(channels.report, channels.outlook, channels.events, channels.api_view),
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
            () = stop.cancelled() => return writer.note_unfinished_pulls().await,
            wakeup = writer.next_wakeup(&mut inputs, due) => wakeup,
        };
        match writer.handle(wakeup).await {
            Next::End => return,
            Next::Wait => continue,
            Next::Cycle => {}
        }
        writer.save_outstanding().await;
        due = Instant::now() + writer.cycle(&stop).await.min(writer.saver.until_next());
    }
}

/// The state of the loop. Each part owns its fields.
struct Reconciler<E, M, H> {
    engine: Arc<E>,
    host: Arc<H>,
    settings: Settings,
    ledger: Arc<Ledger>,
    delivered: Option<Arc<Delivered>>,
    observed: Arc<Observed>,
    engine_link: EngineLink,
    facts: KnownFacts,
    lock_folders: LockFolders,
    heals: Heals,
    clock_wait: ClockWait,
    pulls: Pulls,
    attempts: Attempts,
    trials: Trials,
    failures: Failures,
    /// The engine's default bridge, once a service that asks for the supervisor API needs it.
    bridge: Option<Door>,
    saver: Saver<M>,
    outbox: Outbox,
}

impl<E: Operate + 'static, M: Memory, H: HostAccess> Reconciler<E, M, H> {
    async fn take_target(&mut self, delivered: Arc<Delivered>) {
        if let Some(record) = &delivered.record {
            let change = self.saver.save_target(record).await;
            change.into_iter().for_each(|kind| self.emit(kind));
        }
        let is_new = self.delivered.as_ref().is_none_or(|old| old.target != delivered.target);
        if is_new {
            // After a start, the first target is the stored one, if there is one. The ledger's record of how much was
            // downloaded belongs to that target, so it is kept.
            let is_another = self.delivered.is_some();
            plan::forget_downloads(Arc::make_mut(&mut self.ledger), &delivered.target, is_another);
            self.save_ledger().await;
            self.attempts.clear();
            self.forget_other_trials(&delivered.target);
            self.facts.known_mut().volumes = None;
            info!(apps = delivered.target.apps.len(), "target received");
            self.emit(EventKind::Target { apps: delivered.target.apps.len() });
            self.outbox.counters.note_target(&delivered.target, &self.ledger);
            log_notes(&delivered.target);
            let wanted: Vec<ImageRef> = releases(&delivered.target)
                .flat_map(|r| r.services.values())
                .map(|s| s.image.clone())
                .collect();
            self.pulls.keep_only(|image| wanted.contains(image));
            self.facts.image_sizes.keep_only(|image| wanted.contains(image));
            self.facts.known_mut().image_sizes.retain(|image, _| wanted.contains(image));
        }
        self.delivered = Some(delivered);
    }

    /// Observes, plans and runs one stage. Returns the time until the next cycle, unless an event comes first. Begins no
    /// stage after `stop` is cancelled.
    async fn cycle(&mut self, stop: &CancellationToken) -> Duration {
        self.trials.ask();
        match self.engine.observe().await {
            Ok(mut observed) => {
                observed.take_over(self.delivered.as_ref().map(|delivered| &*delivered.target));
                self.note_engine();
                self.facts.are_layers_old |= self.observed.images != observed.images;
                self.observed = Arc::new(observed);
                self.learn_bridge().await;
                self.mark_outdated();
            }
            Err(error) => return self.note_engine_failure(&error),
        }
        if let Err(error) = self.watch_trials().await {
            return self.note_engine_failure(&error);
        }
        if let Err(error) = self.watch_joined().await {
            return self.note_engine_failure(&error);
        }
        self.failures.complete(&mut self.observed);
        self.gather().await;
        self.note_since();
        let mut plan = self.publish();
        if self.ask_for_layers(&plan).await {
            plan = self.publish();
        }
        if self.collect_for_waits(&plan).await {
            plan = self.publish();
        }
        self.note_waiting(&plan).await;
        if plan.stage.is_empty() || stop.is_cancelled() {
            return self.until_due(&plan);
        }
        let stage = self.postpone_repeated(plan.stage);
        let is_only_pulls = stage.iter().all(|s| matches!(s, Step::Pull { .. } | Step::MeasureImage { .. }));
        self.run_stage(stage, stop).await;
        // The engine was not observed during the stage, so that time does not count for a trial.
        self.trials.forget_last_observation();
        if !is_only_pulls {
            return Duration::ZERO;
        }
        // The stage has only started downloads and registry requests. When one of them ends, the next cycle starts.
        let plan = self.publish();
        self.until_due(&plan)
    }

    /// Postpones steps that succeeded a moment ago and are planned again, and other steps of their services. The
    /// engine confirmed the repeated steps but does not show their effect. They count as failed, so that the loop
    /// does not repeat them without a pause.
    fn postpone_repeated(&mut self, stage: Vec<Step>) -> Vec<Step> {
        let (again, fresh) = self.attempts.part_repeated(stage);
        for step in &again {
            let why = "it succeeded, but the engine does not show its effect".to_owned();
            self.settle(step, Outcome::Retry { after: None, why });
        }
        fresh
    }

    /// Returns the time until the next cycle, if no event comes first.
    fn until_due(&self, plan: &Plan) -> Duration {
        let waits = [
            self.attempts.next_due(),
            self.trials.next_due(&self.ledger, plan),
            self.heals.next_due(self.settings.plan.heal_window),
        ];
        let retries =
            plan.waiting.iter().filter_map(|waiting| waiting.retry_in).map(|wait| wait.max(SHORTEST_WAIT));
        waits.into_iter().flatten().chain(retries).fold(self.settings.resync, Duration::min)
    }

    /// Records that the engine does not answer, resets all soak timers and publishes the report. Returns the time until
    /// the next attempt.
    fn note_engine_failure(&mut self, error: &EngineError) -> Duration {
        if let Some(kind) = self.engine_link.note_failure(with_causes(error)) {
            self.emit(kind);
        }
        self.trials.lose_sight();
        self.publish();
        self.engine_link.retry_in().min(self.settings.resync)
    }

    /// The current situation, the input of every decision.
    fn situation(&self) -> Situation {
        Situation {
            target: self.delivered.as_ref().map(|delivered| Arc::clone(&delivered.target)),
            observed: Arc::clone(&self.observed),
            ledger: Arc::clone(&self.ledger),
            pulling: self.pulls.progress(&self.facts.known),
            measuring: self.facts.image_sizes.under_way(),
            failed_steps: self.attempts.failed_steps(),
            steady: self.trials.steady(&self.observed),
            facts: Arc::clone(&self.facts.known),
            boot_id: Arc::clone(&self.settings.boot_id),
            settings: Arc::clone(&self.settings.plan),
        }
    }

    /// Returns the release to log for a step: the one that the step names, or that of its container.
    fn release_of<'a>(&'a self, step: &'a Step) -> Option<&'a Commit> {
        let of = |id: &ContainerId| {
            self.observed.services.iter().find(|seen| seen.container == *id).map(|seen| &seen.release)
        };
        step.release().or_else(|| step.container().and_then(of))
    }

    /// Logs a step's outcome, counts and emits it, and schedules the next attempt of a step that failed.
    fn settle(&mut self, step: &Step, outcome: Outcome) {
        let (verb, app) = (step.verb(), step.app().map(tracing::field::display));
        let service = step.service().map(|(_, service)| tracing::field::display(service));
        let release = self.release_of(step).map(tracing::field::display);
        let app_name = step.app().and_then(|app| self.outbox.app_name(app));
        let what = step.for_people(app_name.as_deref());
        match &outcome {
            Outcome::Done => info!(step = verb, app, app_name, service, release, %what, "step done"),
            Outcome::Retry { why, .. } | Outcome::Failed { why } => {
                warn!(step = verb, app, app_name, service, release, %what, error = %why, "step failed");
            }
        }
        self.outbox.note_step(self.host.now(), step, &outcome);
        self.attempts.note(step, outcome);
    }
}

fn releases(target: &Target) -> impl Iterator<Item = &Release> {
    target.apps.values().filter_map(|app| match app {
        TargetApp::Wanted(wanted) => wanted.release.as_ref(),
        TargetApp::Refused(_) => None,
    })
}

/// Logs why apps are refused, and which parts of the other apps' releases have no effect.
fn log_notes(target: &Target) {
    for (app, wanted) in &target.apps {
        match wanted {
            TargetApp::Wanted(wanted) => {
                let app_name = &wanted.app.name;
                wanted
                    .warnings
                    .iter()
                    .for_each(|why| info!(%app, app_name, %why, "a part of the release has no effect"));
            }
            TargetApp::Refused(refused) => {
                let app_name = &refused.name;
                refused.refusals.iter().for_each(|why| warn!(%app, app_name, %why, "target refused"));
            }
        }
    }
}

//! Runs one stage: the steps of a service in order, different services in parallel.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::{StreamExt, stream};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::engine::{EngineError, Operate};
use crate::model::{
    App, AppId, ContainerId, ImageRef, Introduction, LockError, Outcome, Platform, Release, ServiceName,
    ServiceSpec, Step, Target, TargetApp, with_causes,
};
use crate::plan;

use super::apps_api::AppsApi;
use super::resolve::{Known, ResolvedStep, Subject};
use super::{HostAccess, Memory, Reconciler};

impl<E: Operate + 'static, M: Memory, H: HostAccess> Reconciler<E, M, H> {
    /// Saves what the stage is about to do, starts its downloads in the background, runs its other steps, and saves
    /// their outcomes.
    ///
    /// When `stop` is cancelled, services whose steps have begun run theirs to the end, and no other service begins.
    pub(super) async fn run_stage(&mut self, mut stage: Vec<Step>, stop: &CancellationToken) {
        self.collect_for_rejections(&mut stage).await;
        self.record_intent(&stage);
        self.save_ledger().await;
        let (downloads, steps): (Vec<_>, Vec<_>) =
            stage.into_iter().partition(|s| matches!(s, Step::Pull { .. } | Step::MeasureImage { .. }));
        for step in &downloads {
            if let Step::Pull { image } = step {
                let platform = self.platform_of(image);
                self.pulls.begin(&self.engine, &self.host, image, platform);
            } else if let Step::MeasureImage { image } = step {
                let platform = self.platform_of(image).map(|platform| platform.architecture);
                let architecture = platform.or(self.facts.known.architecture.clone()).unwrap_or_default();
                self.facts.image_sizes.begin(&self.host, image, &architecture);
            }
        }
        let Some(delivered) = self.delivered.clone() else { return };
        let has_steps = !steps.is_empty();
        let chains = chains(steps);
        let numbers = self.numbers();
        let runner = StepRunner {
            engine: &*self.engine,
            host: &*self.host,
            known: Known { target: &delivered.target, ledger: &self.ledger, observed: &self.observed },
            numbers: &numbers,
            apps_api: AppsApi { device: self.host.device(), bridge: self.bridge.clone() },
        };
        let at_once = self.settings.plan.parallel_swaps.max(1);
        let outcomes: Vec<(Step, Outcome)> =
            stream::iter(chains.into_iter().take_while(|_| !stop.is_cancelled()))
                .map(|chain| runner.run_chain(chain))
                .buffer_unordered(at_once)
                .collect::<Vec<_>>()
                .await
                .into_iter()
                .flatten()
                .collect();
        let now = self.host.now();
        for (step, outcome) in outcomes {
            if outcome == Outcome::Done {
                self.heals.note(&step);
                plan::record_done(
                    Arc::make_mut(&mut self.ledger),
                    &delivered.target,
                    &self.settings.boot_id,
                    &now,
                    &step,
                );
            }
            self.settle(&step, outcome);
        }
        if has_steps {
            self.note_time();
        }
        self.save_ledger().await;
    }

    /// Records in the ledger what a stage is about to do. Also forgets containers that no longer exist, and makes the
    /// supervisor API keys of the services whose containers it creates.
    fn record_intent(&mut self, stage: &[Step]) {
        let here: BTreeSet<_> = self.observed.services.iter().map(|s| &s.container).collect();
        for app in Arc::make_mut(&mut self.ledger).apps.values_mut() {
            app.stopped_by_agent.retain(|container| here.contains(container));
            app.restart.retain(|container| here.contains(container));
        }
        plan::record_intent(Arc::make_mut(&mut self.ledger), &self.observed, stage);
        self.make_keys();
    }
}

impl<E, M, H> Reconciler<E, M, H> {
    /// Returns the `platform` of the first service that uses this image, in a wanted or good release. `None` if it
    /// sets none.
    fn platform_of(&self, image: &ImageRef) -> Option<Platform> {
        let wanted = self.delivered.iter().flat_map(|delivered| delivered.target.apps.values());
        let wanted = wanted.filter_map(TargetApp::release);
        let good = self.ledger.apps.values().filter_map(|app| app.good.as_ref());
        let mut specs = wanted.chain(good).flat_map(|release| release.services.values());
        specs.find(|spec| spec.image == *image)?.platform.clone()
    }
}

/// Splits a stage into chains: one for each service with its steps in order, and one for every step without a
/// service.
fn chains(steps: Vec<Step>) -> Vec<Vec<Step>> {
    let mut chains: Vec<Vec<Step>> = Vec::new();
    let mut of_service = BTreeMap::new();
    for step in steps {
        match step.service().map(|(app, service)| (app.clone(), service.clone())) {
            None => chains.push(vec![step]),
            Some(key) => {
                let at = *of_service.entry(key).or_insert_with(|| {
                    chains.push(Vec::new());
                    chains.len() - 1
                });
                chains[at].push(step);
            }
        }
    }
    chains
}

/// Runs steps. It borrows their inputs and changes none of them.
pub(super) struct StepRunner<'a, E, H> {
    engine: &'a E,
    pub(super) host: &'a H,
    pub(super) known: Known<'a>,
    numbers: &'a BTreeMap<AppId, u64>,
    apps_api: AppsApi,
}

impl<E: Operate, H: HostAccess> StepRunner<'_, E, H> {
    /// Runs the steps of a chain up to the first one that fails.
    async fn run_chain(&self, chain: Vec<Step>) -> Vec<(Step, Outcome)> {
        let mut outcomes = Vec::new();
        let mut steps =
            chain.into_iter().map(|step| self.known.resolve(step)).collect::<Vec<_>>().into_iter().peekable();
        let mut stopped = Vec::new();
        while let Some(step) = steps.next() {
            let begun = Instant::now();
            if let Some((step, why)) = self.barred_here_or_later(&step, steps.clone(), &mut stopped).await {
                outcomes.push((step, Outcome::Retry { after: None, why }));
                break;
            }
            let ended = match self.swap(&step, steps.peek()).await {
                Some((stopped, started)) => {
                    let started = steps.next().map(|start| start.step).zip(started);
                    [(step.step, stopped)].into_iter().chain(started).collect()
                }
                None => {
                    let outcome = self.run_step(&step).await;
                    vec![(step.step, outcome)]
                }
            };
            for (step, _) in &ended {
                debug!(step = %step, elapsed_ms = begun.elapsed().as_millis(), "step ended");
            }
            let is_done = ended.iter().all(|(_, outcome)| *outcome == Outcome::Done);
            outcomes.extend(ended);
            if !is_done {
                break;
            }
        }
        outcomes
    }

    /// Runs a stop and the start that follows it as one call, so that the start begins while the engine still cleans
    /// up after the stop. Returns both outcomes. `None`, and nothing was done, if these are not a stop and a start,
    /// or if the new container has a host port or a fixed address, which the old one may still use.
    async fn swap(
        &self,
        stop: &ResolvedStep<'_>,
        start: Option<&ResolvedStep<'_>>,
    ) -> Option<(Outcome, Option<Outcome>)> {
        let (stop, ResolvedStep { step: start, subject }) = (&stop.step, start?);
        let Step::Stop { container: old, grace, .. } = stop else { return None };
        let Step::Start { app, service, container: new } = start else { return None };
        let Some(Subject::Service { spec, .. }) = subject else { return None };
        if old == new || spec.host_port().is_some() || spec.own_address().is_some() {
            return None;
        }
        self.forget_hand_over(app, service);
        let (stopped, started) = self.engine.swap(old, *grace, new).await;
        Some((outcome(stop, stopped), started.map(|started| outcome(start, started))))
    }

    /// Removes the hand-over signal of an earlier start.
    fn forget_hand_over(&self, app: &AppId, service: &ServiceName) {
        if let Some(number) = self.numbers.get(app) {
            self.host.forget_hand_over(*number, service);
        }
    }

    /// Runs one step. Steps that only change the ledger succeed at once.
    async fn run_step(&self, ResolvedStep { step, subject }: &ResolvedStep<'_>) -> Outcome {
        let engine = self.engine;
        let result = match step {
            Step::Try { app, .. } => return self.lock(app),
            Step::Unlock { app } => {
                if let Some(number) = self.numbers.get(app) {
                    self.host.release_locks(*number);
                }
                Ok(())
            }
            Step::Pull { .. }
            | Step::MeasureImage { .. }
            | Step::Heal { .. }
            | Step::Reject { .. }
            | Step::Accept { .. }
            | Step::Forget { .. } => Ok(()),
            Step::CreateNetwork { network, .. } => {
                let Some(Subject::Network { owner, spec }) = subject else { return no_longer_wanted() };
                engine.create_network(owner, network, spec).await
            }
            Step::Create { app, service, release, .. } => {
                let Some(subject @ Subject::Service { release: of, spec, .. }) = subject else {
                    return no_longer_wanted();
                };
                let Some(joined) = self.joined(app, of, spec) else {
                    let why = "a service whose namespaces it joins has no container".to_owned();
                    return Outcome::Retry { after: None, why };
                };
                let introduction = self.apps_api.introduction(self.known, (app, service), of, spec);
                let Some(new) = subject.new_container(service, release, &joined, &introduction) else {
                    return no_longer_wanted();
                };
                self.prepare_lock_folder(new.app, service);
                engine.create(new).await
            }
            Step::Reconnect { service, container, .. } => {
                let (Some(seen), Some(subject)) = (self.known.seen(container), subject) else {
                    return no_longer_wanted();
                };
                let (joined, introduction) = (BTreeMap::new(), Introduction::default());
                let Some(new) = subject.new_container(service, &seen.release, &joined, &introduction) else {
                    return no_longer_wanted();
                };
                engine.reconnect(container, new).await
            }
            Step::Start { app, service, container } => {
                self.forget_hand_over(app, service);
                engine.start(container).await
            }
            Step::Stop { container, grace, .. } => engine.stop(container, *grace).await,
            Step::Fence { container, grace, .. } => engine.fence(container, *grace).await,
            Step::Kill { container, .. } => engine.kill(container).await,
            Step::RemoveByForce { container, .. } => engine.remove_by_force(container).await,
            Step::Park { container, .. } => engine.park(container).await,
            Step::Remove { container, .. } => engine.remove(container).await,
            Step::RemoveNetwork { id, .. } => engine.remove_network(id).await,
            Step::RemoveImage { image } => engine.remove_image(image).await,
        };
        outcome(step, result)
    }

    /// Creates the lock folder of a service. If that fails, the engine creates it when it mounts it, and only root
    /// can write lock files there.
    fn prepare_lock_folder(&self, app: &App, service: &ServiceName) {
        if let Err(error) = self.host.prepare(app.number, service) {
            debug!(app = %app.id, %service, error = with_causes(&error), "lock folder cannot be created");
        }
    }

    /// Returns the observed containers whose namespaces a service joins; `None` when one is missing.
    fn joined(
        &self,
        app: &AppId,
        release: &Release,
        spec: &ServiceSpec,
    ) -> Option<BTreeMap<ServiceName, ContainerId>> {
        let container = |name: &ServiceName| {
            let spec = release.services.get(name)?;
            let mut all = self.known.observed.services.iter();
            let seen = all.find(|s| s.app == *app && s.service == *name && s.spec == spec.hash)?;
            Some((name.clone(), seen.container.clone()))
        };
        spec.joins().map(|(_, name)| container(name)).collect()
    }

    /// Removes lock files of the app that an order overrides, or that do not count. Then creates the agent's lock files
    /// for all its services, so that the app does not begin work that must not be interrupted.
    fn lock(&self, app: &AppId) -> Outcome {
        let Some((owner, Some(release))) = wanted(self.known.target, app) else { return no_longer_wanted() };
        let ledger = self.known.ledger.apps.get(app);
        let good = ledger.and_then(|a| a.good.as_ref());
        let services: BTreeSet<_> = release
            .services
            .keys()
            .chain(good.iter().flat_map(|good| good.services.keys()))
            .cloned()
            .collect();
        let services: Vec<_> = services.into_iter().collect();
        let forced = ledger.and_then(|a| a.forced.as_ref());
        let is_ordered = self.known.target.is_lock_overridden || forced == Some(&release.key());
        let counts = |service: &ServiceName| plan::may_lock(self.known.observed, ledger, app, service);
        for service in services.iter().filter(|service| is_ordered || !counts(service)) {
            self.host.break_locks(owner.number, service);
        }
        let Err(error) = self.host.take_locks(owner.number, &services) else { return Outcome::Done };
        let why = with_causes(&error);
        let is_locked = || services.iter().any(|service| self.host.lock(owner.number, service).is_some());
        match error {
            LockError::Held { .. } => Outcome::Retry { after: None, why },
            LockError::Unusable { .. } if is_locked() => Outcome::Retry { after: None, why },
            LockError::Unusable { .. } => {
                // No lock file can be written there, so the app cannot hold a lock either.
                debug!(%app, error = why, "no lock can be taken");
                Outcome::Done
            }
        }
    }
}

fn wanted<'a>(target: &'a Target, app: &AppId) -> Option<(&'a App, Option<&'a Release>)> {
    match target.apps.get(app)? {
        TargetApp::Wanted(wanted) => Some((&wanted.app, wanted.release.as_ref())),
        TargetApp::Refused(_) => None,
    }
}

fn no_longer_wanted() -> Outcome {
    Outcome::Retry { after: None, why: "it is not wanted any more".to_owned() }
}

/// Turns the result of an engine call into the outcome of its step. `Failed` for a missing image, because a person
/// must push it, and for a container that the engine will never create. All other errors may pass, and the step is
/// tried again without a limit.
pub(super) fn outcome(step: &Step, result: Result<(), EngineError>) -> Outcome {
    match result {
        Ok(()) => Outcome::Done,
        Err(error @ EngineError::NoImage { .. }) if matches!(step, Step::Pull { .. }) => {
            Outcome::Failed { why: with_causes(&error) }
        }
        Err(error) if matches!(step, Step::Create { .. }) && is_for_good(&error) => {
            Outcome::Failed { why: with_causes(&error) }
        }
        Err(error) => Outcome::Retry { after: error.retry_after(), why: with_causes(&error) },
    }
}

/// Returns `true` if the engine will never create this container, because it answers that the request itself is
/// invalid (400). A missing path of the host has the same status, but may appear later.
fn is_for_good(error: &EngineError) -> bool {
    matches!(error, EngineError::Refused { status: 400, message, .. } if !message.contains("source path does not exist"))
}

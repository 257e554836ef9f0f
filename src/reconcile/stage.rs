//! Runs one stage: the steps of a service in order, different services beside each other.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use tokio::time::Instant;
use tracing::debug;

use crate::engine::{EngineError, NewContainer, Operate};
use crate::model::{App, AppId, Ledger, Outcome, Rejection, Release, Step, Target, TargetApp, Trial};

use super::{Memory, Reconciler};

impl<E: Operate + 'static, M: Memory> Reconciler<E, M> {
    /// Runs a stage. What it is about to do is in the store before it begins, what became of it after.
    pub(super) async fn run_stage(&mut self, stage: Vec<Step>) {
        let here: BTreeSet<_> = self.observed.services.iter().map(|s| &s.container).collect();
        for app in self.ledger.apps.values_mut() {
            app.stopped.retain(|container| here.contains(container));
        }
        intend(&mut self.ledger, &stage);
        self.save_ledger();
        let (pulls, steps): (Vec<_>, Vec<_>) =
            stage.into_iter().partition(|s| matches!(s, Step::Pull { .. }));
        for pull in &pulls {
            if let Step::Pull { image } = pull {
                self.pulls.begin(&self.engine, image);
            }
        }
        let Some(delivered) = self.delivered.clone() else { return };
        let chains = chains(steps);
        let (engine, ledger) = (&*self.engine, &self.ledger);
        let at_once = self.settings.plan.parallel_swaps.max(1);
        let outcomes: Vec<(Step, Outcome)> = stream::iter(chains)
            .map(|chain| run_chain(engine, &delivered.target, ledger, chain))
            .buffer_unordered(at_once)
            .collect::<Vec<_>>()
            .await
            .into_iter()
            .flatten()
            .collect();
        for (step, outcome) in outcomes {
            if outcome == Outcome::Done {
                record(&mut self.ledger, &delivered.target, &self.settings.boot_id, &step);
            }
            self.settle(&step, outcome);
        }
        self.save_ledger();
    }
}

/// Splits a stage: one chain for each service, one for every other step.
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

/// Runs the steps of a chain up to the first that does not succeed.
async fn run_chain<E: Operate>(
    engine: &E,
    target: &Target,
    ledger: &Ledger,
    chain: Vec<Step>,
) -> Vec<(Step, Outcome)> {
    let mut outcomes = Vec::new();
    for step in chain {
        let begun = Instant::now();
        let outcome = run_step(engine, target, ledger, &step).await;
        debug!(step = %step, elapsed_ms = begun.elapsed().as_millis(), "step ended");
        let is_done = outcome == Outcome::Done;
        outcomes.push((step, outcome));
        if !is_done {
            break;
        }
    }
    outcomes
}

/// Runs one step. Those that only the ledger sees are done as they are.
async fn run_step<E: Operate>(engine: &E, target: &Target, ledger: &Ledger, step: &Step) -> Outcome {
    let result = match step {
        Step::Pull { .. }
        | Step::Weigh { .. }
        | Step::Heal { .. }
        | Step::Unlock { .. }
        | Step::Try { .. }
        | Step::Reject { .. }
        | Step::Commit { .. }
        | Step::Forget { .. } => Ok(()),
        Step::CreateNetwork { app, network } => {
            let Some((owner, Some(release))) = wanted(target, app) else { return no_longer_wanted() };
            let release = under_way(ledger, app, release);
            let Some(spec) = release.networks.get(network) else { return no_longer_wanted() };
            engine.create_network(owner, network, spec).await
        }
        Step::Create { app, service, release: commit, spec } => {
            let Some((owner, release)) = wanted(target, app) else { return no_longer_wanted() };
            let good = ledger.apps.get(app).and_then(|a| a.good.as_ref());
            let has_it = |r: &&Release| r.services.get(service).is_some_and(|s| s.hash == *spec);
            let Some(release) = release.into_iter().chain(good).find(has_it) else {
                return no_longer_wanted();
            };
            let Some(spec) = release.services.get(service) else { return no_longer_wanted() };
            let (networks, volumes) = (&release.networks, &release.volumes);
            engine
                .create(NewContainer { app: owner, release: commit, service, spec, networks, volumes })
                .await
        }
        Step::Start { container, .. } => engine.start(container).await,
        Step::Stop { container, grace, .. } => engine.stop(container, *grace).await,
        Step::Kill { container, .. } => engine.kill(container).await,
        Step::RemoveByForce { container, .. } => engine.remove_by_force(container).await,
        Step::Park { container, .. } => engine.park(container).await,
        Step::Remove { container, .. } => engine.remove(container).await,
        Step::RemoveNetwork { id, .. } => engine.remove_network(id).await,
        Step::RemoveImage { image } => engine.remove_image(image).await,
    };
    outcome(step, result)
}

fn wanted<'a>(target: &'a Target, app: &AppId) -> Option<(&'a App, Option<&'a Release>)> {
    match target.apps.get(app)? {
        TargetApp::Wanted(wanted) => Some((&wanted.app, wanted.release.as_ref())),
        TargetApp::Refused(_) => None,
    }
}

/// The release that is being reached: the good one when the wanted one was rejected.
fn under_way<'a>(ledger: &'a Ledger, app: &AppId, wanted: &'a Release) -> &'a Release {
    let Some(app) = ledger.apps.get(app) else { return wanted };
    let is_rejected = app.rejected.as_ref().is_some_and(|r| r.release == wanted.key());
    app.good.as_ref().filter(|_| is_rejected).unwrap_or(wanted)
}

fn no_longer_wanted() -> Outcome {
    Outcome::Retry { after: None, why: "it is not wanted any more".to_owned() }
}

/// What a call's result means for its step. Only a download that cannot work as it is counts as failed;
/// everything else is worth trying again.
pub(super) fn outcome(step: &Step, result: Result<(), EngineError>) -> Outcome {
    match result {
        Ok(()) => Outcome::Done,
        Err(error) if matches!(step, Step::Pull { .. }) && !error.is_transient() => {
            Outcome::Failed { why: error.to_string() }
        }
        Err(error) => Outcome::Retry { after: None, why: error.to_string() },
    }
}

/// Writes down what must be known even if the next moment is a power cut.
fn intend(ledger: &mut Ledger, stage: &[Step]) {
    for step in stage {
        match step {
            // From now on this image is ours to remove.
            Step::Pull { image } => drop(ledger.images.insert(image.clone())),
            // A container that exits now did not finish: it is to be started if it is wanted again.
            Step::Stop { app, container, .. } => {
                ledger.apps.entry(app.clone()).or_default().stopped.insert(container.clone());
            }
            Step::CreateNetwork { .. }
            | Step::Weigh { .. }
            | Step::Kill { .. }
            | Step::RemoveByForce { .. }
            | Step::Park { .. }
            | Step::Heal { .. }
            | Step::Unlock { .. }
            | Step::Create { .. }
            | Step::Start { .. }
            | Step::Remove { .. }
            | Step::RemoveNetwork { .. }
            | Step::RemoveImage { .. }
            | Step::Try { .. }
            | Step::Reject { .. }
            | Step::Commit { .. }
            | Step::Forget { .. } => {}
        }
    }
}

/// Writes down what a step that is done has changed.
fn record(ledger: &mut Ledger, target: &Target, boot_id: &str, step: &Step) {
    match step {
        Step::Start { app, container, .. } | Step::Remove { app, container, .. } => {
            if let Some(app) = ledger.apps.get_mut(app) {
                app.stopped.remove(container);
            }
        }
        Step::Commit { app, .. } => {
            if let Some((_, Some(release))) = wanted(target, app) {
                let app = ledger.apps.entry(app.clone()).or_default();
                let replaced = app.good.replace(release.clone());
                // The same release once more, e.g. with another number, replaces nothing.
                if let Some(replaced) = replaced.filter(|replaced| replaced.key() != release.key()) {
                    app.previous = Some(replaced);
                }
                (app.trial, app.rejected) = (None, None);
            }
        }
        Step::Try { app, .. } => {
            if let Some((_, Some(release))) = wanted(target, app) {
                let (release, boot_id) = (release.key(), boot_id.to_owned());
                ledger.apps.entry(app.clone()).or_default().trial = Some(Trial {
                    release,
                    ran: Duration::ZERO,
                    boots: 0,
                    boot_id,
                    hand_over: BTreeMap::new(),
                });
            }
        }
        Step::Reject { app, why, .. } => {
            if let Some((_, Some(release))) = wanted(target, app) {
                let app = ledger.apps.entry(app.clone()).or_default();
                app.rejected = Some(Rejection { release: release.key(), why: why.clone() });
                app.trial = None;
            }
        }
        Step::Forget { app } => drop(ledger.apps.remove(app)),
        Step::RemoveImage { image } => drop(ledger.images.remove(image)),
        Step::Pull { .. }
        | Step::Weigh { .. }
        | Step::Kill { .. }
        | Step::RemoveByForce { .. }
        | Step::Park { .. }
        | Step::Heal { .. }
        | Step::Unlock { .. }
        | Step::CreateNetwork { .. }
        | Step::Create { .. }
        | Step::Stop { .. }
        | Step::RemoveNetwork { .. } => {}
    }
}

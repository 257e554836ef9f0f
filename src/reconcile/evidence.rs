//! Collects what is known of failures while the containers still exist: how they ended, what their healthchecks printed,
//! and the last lines that the services wrote.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::engine::{Operate, RunRecord};
use crate::model::{
    AppId, Commit, ContainerId, ContainerState, Evidence, EvidenceBook, Health, LastEnd, Observed,
    ObservedService, Plan, Reason, ServiceName, Step,
};
use crate::plan;

use super::{HostAccess, Memory, Reconciler};

/// The most services of one release of which evidence is collected.
const MOST_SERVICES: usize = 4;

/// How long evidence of a service that goes on failing is kept before it is collected again.
const COLLECT_AGAIN: Duration = Duration::from_secs(60);

/// What this run of the agent knows of failures. In memory only.
#[derive(Debug, Default)]
pub(super) struct Failures {
    /// How the containers that exist ended last.
    ends: BTreeMap<ContainerId, LastEnd>,
    /// The evidence of services that do not run well, with the container it is of.
    collected: BTreeMap<(AppId, ServiceName), (Instant, ContainerId, Evidence)>,
}

impl Failures {
    /// Takes what the engine's events have reported.
    pub(super) fn note_ends(&mut self, ends: BTreeMap<ContainerId, LastEnd>) {
        self.ends.extend(ends);
    }

    pub(super) fn note_end(&mut self, container: &ContainerId, end: LastEnd) {
        self.ends.insert(container.clone(), end);
    }

    /// Writes into an observation how containers ended, where the engine's list does not say it or says less. Forgets
    /// containers that do not exist any more.
    pub(super) fn complete(&mut self, observed: &mut Arc<Observed>) {
        self.ends.retain(|id, _| observed.services.iter().any(|seen| seen.container == *id));
        if self.ends.is_empty() {
            return;
        }
        for seen in &mut Arc::make_mut(observed).services {
            let Some(known) = self.ends.get(&seen.container) else { continue };
            if seen.last_end.as_ref().is_none_or(|listed| listed.exit_code == known.exit_code) {
                seen.last_end = Some(known.clone());
            }
        }
    }

    /// All evidence: that of rejected releases, and that of services which do not run well now.
    pub(super) fn all(&self, book: &EvidenceBook) -> Vec<Evidence> {
        let now = self.collected.values().map(|(_, _, evidence)| evidence);
        let is_newer = |old: &&Evidence| {
            !now.clone()
                .any(|new| (&new.app, &new.release, &new.service) == (&old.app, &old.release, &old.service))
        };
        book.all().iter().filter(is_newer).chain(now.clone()).cloned().collect()
    }
}

impl<E: Operate + 'static, M: Memory, H: HostAccess> Reconciler<E, M, H> {
    /// Collects the evidence for every release that a stage rejects, before its containers are removed. Adds the most
    /// telling line to the reason of the rejection.
    pub(super) async fn collect_for_rejections(&mut self, stage: &mut [Step]) {
        for step in stage {
            let Step::Reject { app, release, why } = step else { continue };
            let evidence = self.collect_of_release(app, release).await;
            if let Some(quote) = evidence.iter().find_map(Evidence::quote) {
                why.push_str("; ");
                why.push_str(&quote);
            }
            let book = Arc::make_mut(&mut Arc::make_mut(&mut self.ledger).evidence);
            evidence.into_iter().for_each(|one| book.add(one));
        }
    }

    /// Collects evidence of services for which a plan waits because they do not run well. Returns `true` if there is
    /// something new.
    pub(super) async fn collect_for_waits(&mut self, plan: &Plan) -> bool {
        let failing: Vec<ObservedService> = self
            .observed
            .services
            .iter()
            .filter(|seen| {
                is_failing(seen)
                    && !self.has_stopped(seen)
                    && plan.waiting.iter().any(|w| concerns(w.reason, &w.app, &w.service, seen))
            })
            .take(2 * MOST_SERVICES)
            .cloned()
            .collect();
        let is_known = |(app, service): &(AppId, ServiceName)| {
            failing.iter().any(|seen| seen.app == *app && seen.service == *service)
        };
        let before = self.failures.collected.len();
        self.failures.collected.retain(|key, _| is_known(key));
        let mut is_new = self.failures.collected.len() != before;
        for seen in &failing {
            let key = (seen.app.clone(), seen.service.clone());
            let is_fresh = self.failures.collected.get(&key).is_some_and(|(at, container, _)| {
                *container == seen.container && at.elapsed() < COLLECT_AGAIN
            });
            if is_fresh {
                continue;
            }
            let mut evidence = self.collect(seen).await;
            let before = self.failures.collected.get(&key).map(|(_, _, before)| before);
            if let Some(before) = before.filter(|before| evidence.says_the_same(before)) {
                evidence.at.clone_from(&before.at);
            } else {
                is_new = true;
            }
            self.failures.collected.insert(key, (Instant::now(), seen.container.clone(), evidence));
        }
        is_new
    }

    /// Collects the evidence of the services of a release on trial that fail; if none does, of those that have not become
    /// healthy. A container of the release before it may have the same commit, with other variables, and ended because we
    /// stopped it.
    async fn collect_of_release(&self, app: &AppId, release: &Commit) -> Vec<Evidence> {
        let target = self.delivered.as_ref().map(|delivered| &delivered.target);
        let wanted =
            target.and_then(|target| target.apps.get(app)?.release()).filter(|it| it.commit == *release);
        let of_release = || {
            self.observed.services.iter().filter(|seen| {
                seen.app == *app
                    && wanted.is_some_and(|wanted| plan::belongs_to(seen, wanted))
                    && !self.has_stopped(seen)
            })
        };
        let mut failing: Vec<_> = of_release().filter(|seen| is_failing(seen)).collect();
        if failing.is_empty() {
            failing = of_release().filter(|seen| is_not_up(seen)).collect();
        }
        let mut collected = Vec::new();
        for seen in failing.into_iter().take(MOST_SERVICES) {
            collected.push(self.collect(seen).await);
        }
        collected
    }

    /// Returns whether we stopped a container, so that its end says nothing about it.
    fn has_stopped(&self, seen: &ObservedService) -> bool {
        let is_down = !matches!(seen.state, ContainerState::Running | ContainerState::Restarting);
        let app = self.ledger.apps.get(&seen.app);
        is_down && app.is_some_and(|app| app.stopped_by_agent.contains(&seen.container))
    }

    /// Collects the evidence of one container. What the engine does not answer is missing.
    async fn collect(&self, seen: &ObservedService) -> Evidence {
        let record = self.engine.run_record(&seen.container).await.unwrap_or_default();
        let RunRecord { restarts, end, probe } = record;
        Evidence {
            app: seen.app.clone(),
            release: seen.release.clone(),
            service: seen.service.clone(),
            at: self.host.now(),
            restarts,
            end: end.or_else(|| seen.last_end.clone()),
            probe,
            lines: self.engine.last_lines(&seen.container).await.unwrap_or_default(),
        }
    }
}

/// Returns `true` if a container has ended with an error, comes back again and again, or is unhealthy.
fn is_failing(seen: &ObservedService) -> bool {
    let is_unhealthy = seen.state == ContainerState::Running && seen.health == Health::Unhealthy;
    let has_ended = matches!(seen.state, ContainerState::Exited { code } if code != 0);
    has_ended || is_unhealthy || seen.restarts > 0 || seen.state == ContainerState::Restarting
}

fn is_not_up(seen: &ObservedService) -> bool {
    seen.state == ContainerState::Created || seen.health == Health::Starting
}

/// Returns `true` if a wait with this reason is about this container's failure.
fn concerns(
    reason: Reason,
    app: &Option<AppId>,
    service: &Option<ServiceName>,
    seen: &ObservedService,
) -> bool {
    matches!(reason, Reason::Unhealthy | Reason::Degraded)
        && app.as_ref() == Some(&seen.app)
        && service.as_ref().is_none_or(|service| *service == seen.service)
}

//! Finds, once for each step of a stage, what the step creates or starts, in the release that describes it.

use std::collections::BTreeMap;

use crate::engine::NewContainer;
use crate::model::{
    App, AppId, Commit, ContainerId, Introduction, Ledger, NetworkSpec, Observed, ObservedService, Release,
    ServiceName, ServiceSpec, Step, Target, TargetApp,
};

/// A step and its subject.
#[derive(Clone)]
pub(super) struct ResolvedStep<'a> {
    pub(super) step: Step,
    /// `None` for a step without a subject, and if no release describes the subject any more.
    pub(super) subject: Option<Subject<'a>>,
}

/// The network or service that a step creates, reconnects or starts.
#[derive(Clone)]
pub(super) enum Subject<'a> {
    Network {
        owner: App,
        spec: &'a NetworkSpec,
    },
    Service {
        owner: App,
        /// The wanted or good release that has the service with this spec.
        release: &'a Release,
        spec: &'a ServiceSpec,
    },
}

impl Subject<'_> {
    /// Returns what the engine needs to create the service's container; `None` for a network.
    pub(super) fn new_container<'s>(
        &'s self,
        service: &'s ServiceName,
        commit: &'s Commit,
        joined: &'s BTreeMap<ServiceName, ContainerId>,
        introduction: &'s Introduction,
    ) -> Option<NewContainer<'s>> {
        let Self::Service { owner, release, spec } = self else { return None };
        let (networks, volumes) = (&release.networks, &release.volumes);
        let app = owner;
        Some(NewContainer { app, release: commit, service, spec, networks, volumes, joined, introduction })
    }
}

/// Where the subjects of steps are found.
#[derive(Clone, Copy)]
pub(super) struct Known<'a> {
    pub(super) target: &'a Target,
    pub(super) ledger: &'a Ledger,
    pub(super) observed: &'a Observed,
}

impl<'a> Known<'a> {
    /// Finds the subject of a step.
    pub(super) fn resolve(&self, step: Step) -> ResolvedStep<'a> {
        let subject = self.subject(&step);
        ResolvedStep { step, subject }
    }

    fn subject(&self, step: &Step) -> Option<Subject<'a>> {
        let (app, service, hash) = match step {
            Step::CreateNetwork { app, network, config_hash } => {
                let has_it = |release: &Release| {
                    release.networks.get(network).is_some_and(|spec| spec.config_hash == *config_hash)
                };
                let (owner, release) = self.release_where(app, has_it)?;
                return Some(Subject::Network { owner, spec: release.networks.get(network)? });
            }
            Step::Create { app, service, spec, .. } => (app, service, spec),
            Step::Start { app, service, container } | Step::Reconnect { app, service, container } => {
                (app, service, &self.seen(container)?.spec)
            }
            Step::Pull { .. }
            | Step::MeasureImage { .. }
            | Step::Try { .. }
            | Step::Unlock { .. }
            | Step::Heal { .. }
            | Step::Reject { .. }
            | Step::Accept { .. }
            | Step::Forget { .. }
            | Step::Stop { .. }
            | Step::Fence { .. }
            | Step::Kill { .. }
            | Step::RemoveByForce { .. }
            | Step::Park { .. }
            | Step::Remove { .. }
            | Step::RemoveNetwork { .. }
            | Step::RemoveImage { .. } => return None,
        };
        let has_it = |release: &Release| release.services.get(service).is_some_and(|spec| spec.hash == *hash);
        let (owner, release) = self.release_where(app, has_it)?;
        Some(Subject::Service { owner, release, spec: release.services.get(service)? })
    }

    /// Returns the wanted release, or else the good one, for which `has_it` holds. A refused app has only a good one.
    fn release_where(&self, app: &AppId, has_it: impl Fn(&Release) -> bool) -> Option<(App, &'a Release)> {
        let ledger = self.ledger.apps.get(app);
        let good = ledger.and_then(|a| a.good.as_ref());
        let (owner, wanted) = match self.target.apps.get(app)? {
            TargetApp::Wanted(wanted) => (wanted.app.clone(), wanted.release.as_ref()),
            TargetApp::Refused(refused) => {
                (App { id: app.clone(), number: ledger?.number?, name: refused.name.clone() }, None)
            }
        };
        Some((owner, wanted.into_iter().chain(good).find(|release| has_it(release))?))
    }

    /// Returns the observation of a container.
    pub(super) fn seen(&self, container: &ContainerId) -> Option<&'a ObservedService> {
        self.observed.services.iter().find(|seen| seen.container == *container)
    }
}

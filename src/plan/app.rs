//! One app's part of the situation, and pure questions about it.

use crate::model::{
    AppId, AppLedger, ContainerState, ObservedNetwork, ObservedService, Release, ServiceName, TargetApp,
    Trial,
};

use super::containers::{belongs_to, is_up};
use super::situation::Situation;

/// One app's part of the situation.
#[derive(Clone, Copy)]
pub(super) struct AppSituation<'a> {
    pub(super) at: &'a Situation,
    pub(super) id: &'a AppId,
    pub(super) ledger: Option<&'a AppLedger>,
}

impl<'a> AppSituation<'a> {
    pub(super) fn new(at: &'a Situation, id: &'a AppId) -> Self {
        Self { at, id, ledger: at.ledger.apps.get(id) }
    }

    /// The release that was accepted last.
    pub(super) fn good(&self) -> Option<&'a Release> {
        self.ledger?.good.as_ref()
    }

    /// The good release, if `release` is another one: the device rolls back to it when `release` is rejected.
    pub(super) fn fallback(&self, release: &Release) -> Option<&'a Release> {
        self.good().filter(|good| *good != release)
    }

    /// The trial of `release`, if it has begun.
    pub(super) fn trial(&self, release: &Release) -> Option<&'a Trial> {
        self.ledger?.trial.as_ref().filter(|trial| trial.release == release.key())
    }

    /// Why `release` was rejected; `None` if it was not, or if it is the good one by now.
    pub(super) fn rejection(&self, release: &Release) -> Option<&'a str> {
        let rejected = self.ledger?.rejected.as_ref().filter(|_| self.good() != Some(release))?;
        (rejected.release == release.key()).then_some(rejected.why.as_str())
    }

    /// The release that the target wants.
    pub(super) fn wanted(&self) -> Option<&'a Release> {
        match self.at.target.as_ref()?.apps.get(self.id)? {
            TargetApp::Wanted(wanted) => wanted.release.as_ref(),
            TargetApp::Refused(_) => None,
        }
    }

    /// The releases whose containers may be running: the wanted one, then the good one.
    pub(super) fn releases(&self) -> impl Iterator<Item = &'a Release> + use<'a> {
        self.wanted().into_iter().chain(self.good())
    }

    pub(super) fn containers(&self) -> impl Iterator<Item = &'a ObservedService> + Clone + use<'a> {
        let id = self.id;
        self.at.observed.services.iter().filter(move |seen| seen.app == *id)
    }

    pub(super) fn containers_of(
        &self,
        service: &'a ServiceName,
    ) -> impl Iterator<Item = &'a ObservedService> + Clone + use<'a> {
        self.containers().filter(move |seen| seen.service == *service)
    }

    /// Containers whose service `release` does not have.
    pub(super) fn dropped_by(
        &self,
        release: &'a Release,
    ) -> impl Iterator<Item = &'a ObservedService> + use<'a> {
        self.containers().filter(|seen| !release.services.contains_key(&seen.service))
    }

    /// Containers that are up and belong to none of `releases`.
    pub(super) fn up_outside(&self, releases: &[&Release]) -> Vec<&'a ObservedService> {
        let is_outside = |seen: &&ObservedService| !releases.iter().any(|release| belongs_to(seen, release));
        self.containers().filter(|seen| is_up(seen)).filter(is_outside).collect()
    }

    pub(super) fn networks(&self) -> impl Iterator<Item = &'a ObservedNetwork> + Clone + use<'a> {
        let id = self.id;
        self.at.observed.networks.iter().filter(move |network| network.app == *id)
    }

    pub(super) fn is_held(&self) -> bool {
        self.at.ledger.hold.is_some()
    }

    /// Returns `true` if the good release has no service with the spec of this container.
    pub(super) fn is_new(&self, seen: &ObservedService) -> bool {
        !self.good().is_some_and(|good| belongs_to(seen, good))
    }

    /// Returns `true` if the container was stopped by us, and so did not finish by itself.
    pub(super) fn was_stopped(&self, seen: &ObservedService) -> bool {
        self.ledger.is_some_and(|ledger| ledger.stopped_by_agent.contains(&seen.container))
    }

    /// Returns `true` if the container belongs to the wanted or to the good release.
    pub(super) fn is_known(&self, seen: &ObservedService) -> bool {
        self.releases().any(|release| belongs_to(seen, release))
    }

    /// Returns `true` if an operator stopped the service with the spec of this container.
    pub(super) fn is_stopped_by_operator(&self, seen: &ObservedService) -> bool {
        let halt = self.ledger.and_then(|ledger| ledger.stopped_by_operator.get(&seen.service));
        halt.is_some_and(|halt| halt.spec == seen.spec)
    }

    /// Returns `true` if one of the app's containers was created and never started, and belongs to none of `releases`.
    pub(super) fn has_unstarted_outside(&self, releases: &[&Release]) -> bool {
        let is_unstarted = |seen: &ObservedService| {
            seen.state == ContainerState::Created && !releases.iter().any(|release| belongs_to(seen, release))
        };
        self.containers().any(is_unstarted)
    }
}

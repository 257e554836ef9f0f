//! Pairs each service of a release with its container and with the containers that it replaces.

use crate::model::{ContainerState, ObservedService, Release, ServiceName, ServiceSpec, Trial};

use super::app::AppSituation;
use super::containers::{is_spent, is_up, reconnect};

/// A service of a release, its container, and the containers that it replaces.
pub(super) struct Slot<'a> {
    pub(super) app: AppSituation<'a>,
    pub(super) name: &'a ServiceName,
    pub(super) spec: &'a ServiceSpec,
    /// The container is to run: its author says so, and no operator has stopped it.
    pub(super) is_to_run: bool,
    pub(super) container: Option<&'a ObservedService>,
    pub(super) predecessors: Vec<&'a ObservedService>,
    /// Containers of the same spec that can never start again, because a container that they join is gone.
    pub(super) orphans: Vec<&'a ObservedService>,
}

impl<'a> Slot<'a> {
    fn new(app: AppSituation<'a>, name: &'a ServiceName, spec: &'a ServiceSpec) -> Self {
        let mut container: Option<&'a ObservedService> = None;
        let (mut predecessors, mut orphans) = (Vec::new(), Vec::new());
        for seen in app.containers_of(name) {
            // There should be one container for each spec. If there are two, the one that runs stays.
            let is_better = container.is_none_or(|other| !is_up(other) && is_up(seen));
            match container {
                _ if seen.spec != spec.hash => predecessors.push(seen),
                _ if app.at.observed.is_orphan(seen) => orphans.push(seen),
                Some(other) if is_better => {
                    predecessors.push(other);
                    container = Some(seen);
                }
                Some(_) => predecessors.push(seen),
                None => container = Some(seen),
            }
        }
        let halt = app.ledger.and_then(|ledger| ledger.stopped_by_operator.get(name));
        let is_to_run = spec.is_running && halt.is_none_or(|halt| halt.spec != spec.hash);
        Self { app, name, spec, is_to_run, container, predecessors, orphans }
    }

    pub(super) fn is_up(&self) -> bool {
        self.container.is_some_and(is_up)
    }

    pub(super) fn predecessors_up(&self) -> impl Iterator<Item = &'a ObservedService> {
        self.predecessors.iter().copied().filter(|seen| is_up(seen))
    }

    pub(super) fn has_predecessor_up(&self) -> bool {
        self.predecessors_up().next().is_some()
    }

    /// Returns `true` if the container should be started: it never was, or it has ended and is to run on.
    pub(super) fn needs_start(&self) -> bool {
        let Some(seen) = self.container.filter(|_| self.is_to_run) else { return false };
        match seen.state {
            ContainerState::Created => true,
            ContainerState::Exited { .. } => self.app.was_stopped(seen) || self.spec.restart.is_forever(),
            ContainerState::Running
            | ContainerState::Paused
            | ContainerState::Restarting
            | ContainerState::Removing
            | ContainerState::Dead => false,
        }
    }

    /// The container, if it must be removed before a new one can have its name: the engine failed to remove it, it
    /// cannot be reconnected to a network that was created again, or it would start with an old address or key of the
    /// supervisor API.
    pub(super) fn broken(&self) -> Option<&'a ObservedService> {
        self.container.filter(|seen| {
            seen.state == ContainerState::Dead
                || (seen.is_outdated && self.needs_start())
                || (seen.is_cut_off && self.needs_start() && is_spent(self.app.at, &reconnect(seen)))
        })
    }

    /// Returns `true` if a container of the service runs, or has finished as it should.
    pub(super) fn is_covered(&self) -> bool {
        let has_finished = self.container.is_some_and(|seen| {
            seen.state == ContainerState::Exited { code: 0 } && !self.spec.restart.is_forever()
        });
        self.is_up() || has_finished || self.has_predecessor_up()
    }

    /// Returns `true` if neither the container nor the image of the service is here.
    pub(super) fn needs_image(&self) -> bool {
        self.container.is_none() && !self.app.at.observed.images.contains(&self.spec.image)
    }
}

/// A release that an app is to run, with the containers that are here for each of its services.
pub(super) struct Goal<'a> {
    pub(super) app: AppSituation<'a>,
    pub(super) release: &'a Release,
    pub(super) slots: Vec<Slot<'a>>,
}

impl<'a> Goal<'a> {
    pub(super) fn new(app: AppSituation<'a>, release: &'a Release) -> Self {
        let slots = release.services.iter().map(|(name, spec)| Slot::new(app, name, spec)).collect();
        Self { app, release, slots }
    }

    pub(super) fn slot(&self, name: &ServiceName) -> Option<&Slot<'a>> {
        self.slots.iter().find(|slot| slot.name == name)
    }

    /// Returns `true` if the release was accepted already.
    pub(super) fn is_accepted(&self) -> bool {
        self.app.good() == Some(self.release)
    }

    pub(super) fn trial(&self) -> Option<&'a Trial> {
        self.app.trial(self.release)
    }

    /// The good release, if the goal is another one.
    pub(super) fn fallback(&self) -> Option<&'a Release> {
        self.app.fallback(self.release)
    }

    /// Containers whose service the release does not have.
    pub(super) fn dropped(&self) -> impl Iterator<Item = &'a ObservedService> + use<'a> {
        self.app.dropped_by(self.release)
    }

    /// Returns `true` if containers of the release are here next to another good release, and it is not on trial.
    /// A trial was cut off by another target then, and these containers have not proved themselves.
    pub(super) fn lacks_trial(&self) -> bool {
        let is_unproven =
            |slot: &Slot<'_>| slot.is_to_run && slot.container.is_some_and(|seen| self.app.is_new(seen));
        self.trial().is_none() && self.fallback().is_some() && self.slots.iter().any(is_unproven)
    }
}

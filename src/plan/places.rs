//! Who is who: the wanted services, the containers that are they, and those that are to give way.

use std::collections::BTreeSet;

use crate::model::{
    AppId, ContainerState, ObservedService, Release, ServiceName, ServiceSpec, Step, Strategy,
};

use super::{Draft, networks};

/// A wanted service, the container that is it, and those that are to give way.
pub(super) struct Place<'a> {
    pub(super) name: &'a ServiceName,
    pub(super) spec: &'a ServiceSpec,
    /// Whether its container is to run: its author says so, and no operator has stopped it.
    pub(super) is_to_run: bool,
    pub(super) container: Option<&'a ObservedService>,
    pub(super) predecessors: Vec<&'a ObservedService>,
    /// Containers of the same spec that can never start again: one that they join is gone.
    pub(super) orphans: Vec<&'a ObservedService>,
}

/// Lines the wanted services up with the containers that are there.
pub(super) fn line_up<'a>(draft: &Draft<'a>, app: &AppId, release: &'a Release) -> Vec<Place<'a>> {
    let place = |(name, spec): (&'a ServiceName, &'a ServiceSpec)| {
        let mut container: Option<&'a ObservedService> = None;
        let (mut predecessors, mut orphans) = (Vec::new(), Vec::new());
        for seen in draft.at.observed.services.iter().filter(|s| s.app == *app && s.service == *name) {
            // Of two containers with one spec, which should not be, the one that runs stays.
            let is_better = container.is_none_or(|other| !is_up(other) && is_up(seen));
            match container {
                _ if seen.spec != spec.hash => predecessors.push(seen),
                _ if draft.at.observed.is_orphan(seen) => orphans.push(seen),
                Some(other) if is_better => {
                    predecessors.push(other);
                    container = Some(seen);
                }
                Some(_) => predecessors.push(seen),
                None => container = Some(seen),
            }
        }
        let halt = draft.ledger(app).and_then(|a| a.halted.get(name));
        let is_to_run = spec.is_running && halt.is_none_or(|halt| halt.spec != spec.hash);
        Place { name, spec, is_to_run, container, predecessors, orphans }
    };
    release.services.iter().map(place).collect()
}

/// Containers of the app whose service the release does not have.
pub(super) fn leftovers<'a>(
    draft: &Draft<'a>,
    app: &AppId,
    release: &'a Release,
) -> impl Iterator<Item = &'a ObservedService> + use<'a> {
    let app = app.clone();
    let observed = draft.at.observed;
    observed.services.iter().filter(move |s| s.app == app && !release.services.contains_key(&s.service))
}

/// Whether its process is there, or the engine is about to bring it back.
pub(super) fn is_up(seen: &ObservedService) -> bool {
    matches!(seen.state, ContainerState::Running | ContainerState::Paused | ContainerState::Restarting)
}

/// Whether the container should be started: it never was, or it ended and its policy or we want it back.
pub(super) fn needs_start(draft: &Draft<'_>, app: &AppId, seen: &ObservedService, place: &Place<'_>) -> bool {
    if !place.is_to_run {
        return false;
    }
    match seen.state {
        ContainerState::Created => true,
        ContainerState::Exited { .. } => {
            let was_ours = draft.ledger(app).is_some_and(|a| a.stopped.contains(&seen.container));
            was_ours || place.spec.restart.is_forever()
        }
        ContainerState::Running
        | ContainerState::Paused
        | ContainerState::Restarting
        | ContainerState::Removing
        | ContainerState::Dead => false,
    }
}

/// Whether the container stands in the way of its own name: the engine failed to remove it, or it is to be
/// started and cannot be connected to a network that was made anew. Another one must be made in its place.
pub(super) fn is_broken(draft: &Draft<'_>, app: &AppId, seen: &ObservedService, place: &Place<'_>) -> bool {
    seen.state == ContainerState::Dead
        || (seen.is_cut_off && needs_start(draft, app, seen, place) && is_spent(draft, &reconnect(seen)))
}

/// Whether an author wishes the predecessor to go before the image comes.
pub(super) fn goes_first(strategy: Strategy) -> bool {
    matches!(strategy, Strategy::KillThenDownload | Strategy::DeleteThenDownload)
}

/// Whether the predecessor of a service goes first, or that of one whose namespaces it joins.
pub(super) fn gives_room(release: &Release, service: &ServiceName) -> bool {
    release.services.get(service).is_some_and(|spec| {
        goes_first(spec.strategy) || release.joined(spec).values().any(|other| goes_first(other.strategy))
    })
}

/// Whether the container of the place cannot be made before a trial has begun: its predecessor goes before its
/// image comes, or another network before its own, or that is so of one whose namespaces it joins.
pub(super) fn is_late(
    draft: &Draft<'_>,
    app: &AppId,
    release: &Release,
    place: &Place<'_>,
    services: &[Place<'_>],
) -> bool {
    if place.container.is_none() && networks::waits_for_room(draft, app, release, place.spec) {
        return true;
    }
    // Each is looked at once: there may be very many ways to one that is joined by way of others.
    let (mut open, mut seen) = (vec![place], BTreeSet::new());
    while let Some(place) = open.pop() {
        if !seen.insert(place.name) {
            continue;
        }
        if is_early(draft, app, place) {
            return true;
        }
        if place.container.is_none() {
            let joined = |other: &&Place<'_>| place.spec.joins().any(|(_, name)| name == other.name);
            open.extend(services.iter().filter(joined));
        }
    }
    false
}

/// Whether the place's predecessor must go before its image comes, as its author wishes. On the way back it
/// stays up until then: it may be of some use, and the image may be long in coming.
pub(super) fn is_early(draft: &Draft<'_>, app: &AppId, place: &Place<'_>) -> bool {
    let before = draft.good(app).and_then(|good| good.services.get(place.name));
    goes_first(place.spec.strategy)
        && before.is_some_and(|before| before.hash != place.spec.hash)
        && place.container.is_none()
        && !draft.at.observed.images.contains(&place.spec.image)
}

/// The steps that start a container: first each other container of its service that is down is fenced off, so that
/// two of one service never run, whatever call an earlier life of the agent has sent.
pub(super) fn start(draft: &Draft<'_>, seen: &ObservedService) -> Vec<Step> {
    let is_other = |other: &&ObservedService| {
        other.app == seen.app && other.service == seen.service && other.container != seen.container
    };
    // One that goes before comes up no more.
    let goes = |other: &&ObservedService| draft.plan.stage.contains(&remove(draft, other));
    let others = draft.at.observed.services.iter().filter(is_other);
    let others = others.filter(|other| may_come_up(other) && !goes(other));
    let fences = others.map(|other| Step::Fence {
        app: other.app.clone(),
        service: other.service.clone(),
        container: other.container.clone(),
        grace: other.grace,
    });
    let (app, service) = (seen.app.clone(), seen.service.clone());
    fences.chain([Step::Start { app, service, container: seen.container.clone() }]).collect()
}

/// Returns whether a container is down and a start of it may be under way, unseen.
pub(super) fn may_come_up(seen: &ObservedService) -> bool {
    matches!(seen.state, ContainerState::Created | ContainerState::Exited { .. })
}

/// Connects a container anew to networks of which one was made anew since it ran.
pub(super) fn reconnect(seen: &ObservedService) -> Step {
    Step::Reconnect {
        app: seen.app.clone(),
        service: seen.service.clone(),
        container: seen.container.clone(),
    }
}

fn stop_of(seen: &ObservedService) -> Step {
    let (app, service) = (seen.app.clone(), seen.service.clone());
    Step::Stop { app, service, container: seen.container.clone(), grace: seen.grace }
}

/// How often a step may fail before a harder one takes its place.
const TRIES: u32 = 2;

fn is_spent(draft: &Draft<'_>, step: &Step) -> bool {
    draft.at.cooling.get(step).is_some_and(|cooling| cooling.attempts >= TRIES)
}

/// Ends what runs: by its stop signal, and by SIGKILL where that has failed.
pub(super) fn stop(draft: &Draft<'_>, seen: &ObservedService) -> Step {
    let step = stop_of(seen);
    if !is_spent(draft, &step) {
        return step;
    }
    let (app, service) = (seen.app.clone(), seen.service.clone());
    Step::Kill { app, service, container: seen.container.clone() }
}

/// Removes a container: by force where that has failed.
pub(super) fn remove(draft: &Draft<'_>, seen: &ObservedService) -> Step {
    let step = remove_of(seen);
    if is_spent(draft, &step) { remove_by_force(seen) } else { step }
}

fn remove_of(seen: &ObservedService) -> Step {
    Step::Remove { app: seen.app.clone(), service: seen.service.clone(), container: seen.container.clone() }
}

pub(super) fn remove_by_force(seen: &ObservedService) -> Step {
    let (app, service) = (seen.app.clone(), seen.service.clone());
    Step::RemoveByForce { app, service, container: seen.container.clone() }
}

/// Frees the name of a container that the engine does not remove: by removing it, or else by putting it aside.
pub(super) fn free_name(draft: &Draft<'_>, seen: &ObservedService) -> Step {
    let step = remove(draft, seen);
    if !is_spent(draft, &step) {
        return step;
    }
    let (app, service) = (seen.app.clone(), seen.service.clone());
    Step::Park { app, service, container: seen.container.clone() }
}

/// The chain that ends a container and removes it, whatever becomes of its stop; none while the engine is
/// at it already.
pub(super) fn stop_and_remove(draft: &Draft<'_>, seen: &ObservedService) -> Vec<Step> {
    let stop = stop(draft, seen);
    match seen.state {
        ContainerState::Removing => Vec::new(),
        _ if is_up(seen) && is_spent(draft, &stop) => vec![remove_by_force(seen)],
        _ if is_up(seen) => vec![stop, remove(draft, seen)],
        ContainerState::Created
        | ContainerState::Running
        | ContainerState::Paused
        | ContainerState::Restarting
        | ContainerState::Exited { .. }
        | ContainerState::Dead => vec![remove(draft, seen)],
    }
}

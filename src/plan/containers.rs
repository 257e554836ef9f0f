//! Questions about one container, and the steps that change it.

use crate::model::{ContainerState, ObservedService, Release, Step};

use super::situation::Situation;

/// Returns `true` if the container has a process, or the engine is about to restart it.
pub(super) fn is_up(seen: &ObservedService) -> bool {
    matches!(seen.state, ContainerState::Running | ContainerState::Paused | ContainerState::Restarting)
}

/// Returns `true` if the container is down and may still start, because a call sent earlier may be under way.
pub(super) fn may_come_up(seen: &ObservedService) -> bool {
    matches!(seen.state, ContainerState::Created | ContainerState::Exited { .. })
}

/// Returns `true` if the release has a service with the name and the spec of this container.
pub(crate) fn belongs_to(seen: &ObservedService, release: &Release) -> bool {
    release.services.get(&seen.service).is_some_and(|spec| spec.hash == seen.spec)
}

/// How often a step may fail before a harder one takes its place.
const TRIES: u32 = 2;

/// Returns `true` if the step has failed so often that a harder one takes its place.
pub(super) fn is_spent(at: &Situation, step: &Step) -> bool {
    at.failed_steps.get(step).is_some_and(|failure| failure.attempts >= TRIES)
}

/// Starts a container. Every other container of the service that is down is fenced first, because an earlier process
/// of the agent may have sent a start call that the engine still carries out. So two containers of one service never
/// run at the same time. A container that `stage` removes needs no fence.
pub(super) fn start(at: &Situation, stage: &[Step], seen: &ObservedService) -> Vec<Step> {
    let is_other = |other: &&ObservedService| {
        other.app == seen.app && other.service == seen.service && other.container != seen.container
    };
    let is_removed = |other: &ObservedService| stage.contains(&remove(at, other));
    let others = at.observed.services.iter().filter(is_other);
    let others = others.filter(|other| may_come_up(other) && !is_removed(other));
    let fences = others.map(|other| Step::Fence {
        app: other.app.clone(),
        service: other.service.clone(),
        container: other.container.clone(),
        grace: other.grace,
    });
    let (app, service) = (seen.app.clone(), seen.service.clone());
    fences.chain([Step::Start { app, service, container: seen.container.clone() }]).collect()
}

/// Stops a container and starts it again. In between it is reconnected if it has lost a network, because the engine
/// would refuse to start it. An outdated container is removed after the stop instead, and the next plans create it
/// again.
pub(super) fn restart(at: &Situation, stage: &[Step], seen: &ObservedService) -> Vec<Step> {
    if seen.is_outdated {
        return stop_and_remove(at, seen);
    }
    let reconnect = seen.is_cut_off.then(|| reconnect(seen));
    std::iter::once(stop(at, seen)).chain(reconnect).chain(start(at, stage, seen)).collect()
}

/// Connects a stopped container to networks that were created again since it ran.
pub(super) fn reconnect(seen: &ObservedService) -> Step {
    let (app, service) = (seen.app.clone(), seen.service.clone());
    Step::Reconnect { app, service, container: seen.container.clone() }
}

/// Stops a container by its stop signal, or by SIGKILL if that has failed.
pub(super) fn stop(at: &Situation, seen: &ObservedService) -> Step {
    let (app, service, container) = (seen.app.clone(), seen.service.clone(), seen.container.clone());
    let stop = Step::Stop { app, service, container, grace: seen.grace };
    if !is_spent(at, &stop) {
        return stop;
    }
    let (app, service) = (seen.app.clone(), seen.service.clone());
    Step::Kill { app, service, container: seen.container.clone() }
}

/// Removes a container, by force if the ordinary removal has failed.
pub(super) fn remove(at: &Situation, seen: &ObservedService) -> Step {
    let (app, service, container) = (seen.app.clone(), seen.service.clone(), seen.container.clone());
    let remove = Step::Remove { app, service, container };
    if is_spent(at, &remove) { remove_by_force(seen) } else { remove }
}

pub(super) fn remove_by_force(seen: &ObservedService) -> Step {
    let (app, service) = (seen.app.clone(), seen.service.clone());
    Step::RemoveByForce { app, service, container: seen.container.clone() }
}

/// Frees the name of a container: removes it, or renames it if the engine does not remove it.
pub(super) fn free_name(at: &Situation, seen: &ObservedService) -> Step {
    let remove = remove(at, seen);
    if !is_spent(at, &remove) {
        return remove;
    }
    let (app, service) = (seen.app.clone(), seen.service.clone());
    Step::Park { app, service, container: seen.container.clone() }
}

/// Stops a container and removes it, by force if it does not stop. Returns no step while the engine is removing it
/// already.
pub(super) fn stop_and_remove(at: &Situation, seen: &ObservedService) -> Vec<Step> {
    if seen.state == ContainerState::Removing {
        return Vec::new();
    }
    if !is_up(seen) {
        return vec![remove(at, seen)];
    }
    let stop = stop(at, seen);
    if is_spent(at, &stop) { vec![remove_by_force(seen)] } else { vec![stop, remove(at, seen)] }
}

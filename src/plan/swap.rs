//! The swap: one service after the other, its predecessor stops and its container starts, in the order of `depends_on`.

use std::time::Duration;

use crate::model::{Condition, ContainerState, Health, Reason, ServiceSpec, Step, Strategy};

use super::containers::{is_up, stop};
use super::draft::{CLEAR, Concern, Draft, PENDING, run_all};
use super::networks;
use super::slots::{Goal, Slot};

/// Stops and starts containers until those of the release run, and no others.
pub(super) fn swap(draft: &mut Draft<'_>, goal: &Goal<'_>) -> Concern {
    check_failed(draft, goal)?;
    let services = run_all(goal.slots.iter().map(|slot| swap_service(draft, goal, slot)));
    let dropped = stop_dropped(draft, goal);
    run_all([services, dropped].into_iter())
}

/// Waits while a container of the release has failed, is not started again, and has a predecessor that runs. It must
/// not replace its predecessor, and the rest of the release is not swapped either: half a release is worse than the old
/// one. A rollback to the good release is made in any case, because such a container had failed before it was accepted.
fn check_failed(draft: &mut Draft<'_>, goal: &Goal<'_>) -> Concern {
    if goal.is_accepted() {
        return CLEAR;
    }
    let mut concern = CLEAR;
    for slot in goal.slots.iter().filter(|slot| slot.is_to_run && slot.has_predecessor_up()) {
        let Some(seen) = slot.container else { continue };
        let is_failed = matches!(seen.state, ContainerState::Exited { code } if code != 0);
        if is_failed && !slot.needs_start() {
            concern = PENDING;
            draft.wait(Some(goal.app.id), Some(slot.name), Reason::Unhealthy, seen.status.clone(), None);
        }
    }
    concern
}

fn swap_service(draft: &mut Draft<'_>, goal: &Goal<'_>, slot: &Slot<'_>) -> Concern {
    let Some(seen) = slot.container else { return CLEAR };
    let at = goal.app.at;
    if let Some(timeout) = hand_over(goal, slot).filter(|_| slot.has_predecessor_up()) {
        if let Some(left) = time_to_hand_over(slot, timeout) {
            let why =
                format!("runs next to its predecessor until it takes over, {} s at most", timeout.as_secs());
            draft.wait(Some(goal.app.id), Some(slot.name), Reason::HandOver, why, Some(left));
            return PENDING;
        }
        if slot.needs_start() {
            let chain = networks::start(draft, goal, slot, seen);
            start_after_dependencies(draft, goal, slot, chain);
            return PENDING;
        }
    }
    let mut chain: Vec<Step> = slot.predecessors_up().map(|seen| stop(at, seen)).collect();
    if slot.needs_start() {
        chain.extend(networks::start(draft, goal, slot, seen));
        start_after_dependencies(draft, goal, slot, chain);
        return PENDING;
    }
    if !slot.is_to_run && slot.is_up() {
        chain.push(stop(at, seen));
    }
    if chain.is_empty() {
        return CLEAR;
    }
    draft.add_swap(goal.app.id, slot.name, chain);
    PENDING
}

/// Adds a chain that starts the container of a service, or waits for a service that it depends on.
fn start_after_dependencies(draft: &mut Draft<'_>, goal: &Goal<'_>, slot: &Slot<'_>, chain: Vec<Step>) {
    match missing_dependency(goal, slot.spec) {
        Some(why) => draft.wait(Some(goal.app.id), Some(slot.name), Reason::Dependency, why, None),
        None => draft.add_swap(goal.app.id, slot.name, chain),
    }
}

/// Stops the containers of services that the release does not have.
fn stop_dropped(draft: &mut Draft<'_>, goal: &Goal<'_>) -> Concern {
    let mut concern = CLEAR;
    for seen in goal.dropped().filter(|seen| is_up(seen)) {
        concern = PENDING;
        draft.add_swap(goal.app.id, &seen.service, vec![stop(goal.app.at, seen)]);
    }
    concern
}

/// How long the service may run next to its predecessor. Only a release on trial takes over this way; in a rollback
/// there is nothing to hand over.
fn hand_over(goal: &Goal<'_>, slot: &Slot<'_>) -> Option<Duration> {
    match slot.spec.strategy {
        Strategy::HandOver { timeout } => (slot.is_to_run && goal.trial().is_some()).then_some(timeout),
        Strategy::DownloadThenKill | Strategy::KillThenDownload | Strategy::DeleteThenDownload => None,
    }
}

/// How long the service may still run next to its predecessor. `None`: it is not up yet, it said that it has taken
/// over, or its time is over.
fn time_to_hand_over(slot: &Slot<'_>, timeout: Duration) -> Option<Duration> {
    let trial = slot.app.ledger.and_then(|ledger| ledger.trial.as_ref());
    let ran = trial.and_then(|trial| trial.hand_over.get(slot.name)).copied().unwrap_or_default();
    let has_said = slot.app.at.facts.handed_over.contains(&(slot.app.id.clone(), slot.name.clone()));
    let left = timeout.saturating_sub(ran);
    (slot.is_up() && !has_said && !left.is_zero()).then_some(left)
}

/// The first dependency that is not met, in words.
fn missing_dependency(goal: &Goal<'_>, spec: &ServiceSpec) -> Option<String> {
    missing_joined(goal, spec).or_else(|| missing_condition(goal, spec))
}

/// The first service that does not run although this one joins its namespaces, in words.
pub(super) fn missing_joined(goal: &Goal<'_>, spec: &ServiceSpec) -> Option<String> {
    spec.joins().find_map(|(kind, name)| {
        let joined = goal.slot(name).and_then(|slot| slot.container);
        let runs = joined.is_some_and(|seen| seen.state == ContainerState::Running);
        (!runs).then(|| format!("{name}, whose {} it shares, does not run", kind.as_str()))
    })
}

fn missing_condition(goal: &Goal<'_>, spec: &ServiceSpec) -> Option<String> {
    spec.depends_on.iter().find_map(|(name, condition)| {
        let on = goal.slot(name).and_then(|slot| slot.container);
        let is_met = on.is_some_and(|on| match condition {
            Condition::Started => !matches!(on.state, ContainerState::Created),
            Condition::Healthy => {
                on.state == ContainerState::Running
                    && matches!(on.health, Health::Healthy | Health::Unchecked)
            }
            Condition::Completed => on.state == ContainerState::Exited { code: 0 },
        });
        let word = match condition {
            Condition::Started => "started",
            Condition::Healthy => "healthy",
            Condition::Completed => "completed",
        };
        (!is_met).then(|| format!("{name} is not {word} yet"))
    })
}

//! Plans the next steps of one app that has a release: an ordered list of concerns.

use crate::model::{ContainerState, Health, ObservedService, Reason, Release, Step, Waiting};

use super::app::AppSituation;
use super::containers::{free_name, stop_and_remove};
use super::draft::{CLEAR, Concern, Draft, PENDING};
use super::slots::{Goal, Slot};
use super::stop_first::{is_created_during_trial, is_pulled_after_stop};
use super::{
    create, fallback, gate, leftovers, networks, preflight, pull, restart, swap, teardown, trial, words,
};

/// Adds the next steps towards `release`, or those of the rollback to the good release if `release` was rejected.
pub(super) fn reach<'a>(draft: &mut Draft<'_>, app: AppSituation<'a>, release: &'a Release) {
    match app.rejection(release) {
        None => advance(draft, &Goal::new(app, release)),
        Some(why) => {
            let why = format!("release {} was rejected: {why}", release.commit);
            draft.wait(Some(app.id), None, Reason::Rejected, why, None);
            if let Some(good) = app.fallback(release) {
                advance(draft, &Goal::new(app, good));
                report_failed_return(draft, app, good);
            }
        }
    }
}

/// Reports the app as degraded if steps of the rollback to the good release fail. Running containers are left alone.
fn report_failed_return(draft: &mut Draft<'_>, app: AppSituation<'_>, good: &Release) {
    let is_failure = |w: &&Waiting| {
        w.app.as_ref() == Some(app.id) && matches!(w.reason, Reason::Backoff | Reason::EngineStuck)
    };
    let Some(why) = draft.plan.waiting.iter().find(is_failure).map(|w| w.why.clone()) else { return };
    let why = format!("the rollback to release {} fails: {why}", good.commit);
    draft.wait(Some(app.id), None, Reason::Degraded, why, None);
}

/// Adds the next steps towards the goal: runs the concerns in their order until one is pending.
fn advance(draft: &mut Draft<'_>, goal: &Goal<'_>) {
    if react(draft, goal).is_break() {
        return;
    }
    if prepare(draft, goal).is_break() {
        fallback::keep_running(draft, goal);
        return;
    }
    _ = finish(draft, goal);
}

/// Adds the steps that must not wait for anything: rejects a release that failed its trial, then stops or restarts
/// services for an operator.
fn react(draft: &mut Draft<'_>, goal: &Goal<'_>) -> Concern {
    trial::reject_failed(draft, goal)?;
    restart::follow_operator(draft, goal.app)
}

/// Does what must be done before the swap. While one of these concerns is pending, the good release is kept
/// running.
fn prepare(draft: &mut Draft<'_>, goal: &Goal<'_>) -> Concern {
    let (during_trial, before): (Vec<_>, Vec<_>) =
        goal.slots.iter().partition(|slot| is_created_during_trial(goal, slot));
    let pulled_before: Vec<_> = goal.slots.iter().filter(|slot| !is_pulled_after_stop(slot)).collect();

    remove_broken(draft, goal)?;
    leftovers::remove_leftovers(draft, goal);
    preflight::check(draft, goal)?;
    pull::images(draft, &pulled_before)?;
    networks::create_missing(draft, goal)?;
    create::successors(draft, goal, &before)?;
    gate::check(draft, goal)?;
    trial::begin(draft, goal)?;
    networks::make_room(draft, goal)?;
    pull::during_trial(draft, goal, &during_trial)
}

/// Swaps the containers, watches the trial, accepts the release and removes what it replaced.
fn finish(draft: &mut Draft<'_>, goal: &Goal<'_>) -> Concern {
    swap::swap(draft, goal)?;
    restart::rejoin(draft, goal)?;
    restart::heal(draft, goal);
    check_services(draft, goal)?;
    trial::soak(draft, goal)?;
    accept(draft, goal)?;
    clean_up(draft, goal)
}

/// Removes containers that can never start again, because new containers need their names.
fn remove_broken(draft: &mut Draft<'_>, goal: &Goal<'_>) -> Concern {
    let mut concern = CLEAR;
    for slot in &goal.slots {
        let Some(seen) = slot.broken() else { continue };
        concern = PENDING;
        draft.add(Some(goal.app.id), Some(slot.name), vec![free_name(goal.app.at, seen)]);
    }
    concern
}

/// Adds a wait for every service that does not run well. If there is a release to roll back to, only services that the
/// new release changed delay the acceptance of the new release. The others are only reported.
fn check_services(draft: &mut Draft<'_>, goal: &Goal<'_>) -> Concern {
    let app = goal.app;
    let mut concern = CLEAR;
    for slot in &goal.slots {
        if !slot.is_to_run {
            report_stopped(draft, slot);
            continue;
        }
        let Some(seen) = slot.container else { continue };
        let Some(reason) = trouble(seen) else { continue };
        if goal.fallback().is_none() || app.is_new(seen) {
            concern = PENDING;
        }
        let is_same = |w: &Waiting| {
            w.app.as_ref() == Some(app.id) && w.service.as_ref() == Some(slot.name) && w.reason == reason
        };
        // An earlier wait for the same reason is kept, because it also says that restarts did not help.
        if !draft.plan.waiting.iter().any(is_same) {
            draft.wait(Some(app.id), Some(slot.name), reason, words::trouble(seen), None);
        }
    }
    concern
}

fn report_stopped(draft: &mut Draft<'_>, slot: &Slot<'_>) {
    if slot.spec.is_running {
        let halt = slot.app.ledger.and_then(|ledger| ledger.stopped_by_operator.get(slot.name));
        let why = format!("stopped by an operator at {}", halt.map_or("", |halt| &halt.since));
        draft.wait(Some(slot.app.id), Some(slot.name), Reason::Stopped, why, None);
    }
}

/// Returns the reason of a wait for a container that should run: it is starting or unhealthy. `None` if it runs well,
/// or has exited with 0.
fn trouble(seen: &ObservedService) -> Option<Reason> {
    match (seen.state, seen.health) {
        (ContainerState::Running, Health::Unchecked | Health::Healthy)
        | (ContainerState::Exited { code: 0 }, _) => None,
        (ContainerState::Running, Health::Starting) | (ContainerState::Created, _) => Some(Reason::Starting),
        (ContainerState::Running, Health::Unhealthy)
        | (
            ContainerState::Paused
            | ContainerState::Restarting
            | ContainerState::Exited { .. }
            | ContainerState::Removing
            | ContainerState::Dead,
            _,
        ) => Some(Reason::Unhealthy),
    }
}

/// Records that the release is accepted.
fn accept(draft: &mut Draft<'_>, goal: &Goal<'_>) -> Concern {
    if goal.is_accepted() {
        return CLEAR;
    }
    let (app, release) = (goal.app.id.clone(), goal.release.commit.clone());
    draft.add(Some(goal.app.id), None, vec![Step::Accept { app, release }]);
    PENDING
}

/// Removes what the good release replaced: containers first, then networks. Volumes stay.
fn clean_up(draft: &mut Draft<'_>, goal: &Goal<'_>) -> Concern {
    let app = goal.app;
    let mut replaced = CLEAR;
    let predecessors = goal.slots.iter().flat_map(|slot| slot.predecessors.iter().copied());
    for seen in predecessors.chain(goal.dropped()) {
        replaced = PENDING;
        draft.add(Some(app.id), Some(&seen.service), stop_and_remove(app.at, seen));
    }
    // Networks do not wait for renamed containers, which the engine may never remove.
    _ = teardown::remove_parked(draft, app);
    replaced?;
    teardown::remove_networks(draft, app, |network| !networks::is_of(goal.release, network))
}

/// Removes our own lock files, unless the app is being changed.
pub(super) fn unlock(draft: &mut Draft<'_>, app: AppSituation<'_>) {
    if may_unlock(draft, app) {
        draft.add(Some(app.id), None, vec![Step::Unlock { app: app.id.clone() }]);
    }
}

/// Returns `true` if our own lock files exist and are not needed any more. They are needed during a trial, during the
/// rollback after it, and while a container is about to be stopped or started. The trial of a first release does not
/// need them, because there is nothing to roll back to.
fn may_unlock(draft: &Draft<'_>, app: AppSituation<'_>) -> bool {
    let is_tried = app.good().is_some() && app.ledger.is_some_and(|ledger| ledger.trial.is_some());
    let is_going_back =
        fallback::is_replaced(app) && app.ledger.is_some_and(|ledger| ledger.rejected.is_some());
    let is_touched = draft.plan.stage.iter().any(|step| {
        step.app() == Some(app.id)
            && matches!(step, Step::Stop { .. } | Step::Kill { .. } | Step::Start { .. } | Step::Try { .. })
    });
    app.at.facts.own_locks.contains(app.id) && !is_tried && !is_going_back && !is_touched
}

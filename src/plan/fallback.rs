//! Keeps the good release running while the wanted one is not ready.

use crate::model::{ContainerState, Health, Step};

use super::app::AppSituation;
use super::containers::free_name;
use super::draft::{Concern, Draft, PENDING};
use super::slots::{Goal, Slot};
use super::stop_first::may_stop_first;
use super::{create, gate, networks, restart, swap};

/// Keeps the good release running while `wanted` is not ready.
///
/// A service that ended or vanished is started or created again, unless something of the service runs. If the target
/// changed during a trial, containers of a third release may be up. They stay while they are well and complete;
/// otherwise all services of the good release replace them.
pub(super) fn keep_running(draft: &mut Draft<'_>, wanted: &Goal<'_>) {
    let Some(good) = wanted.app.good() else { return };
    let goal = Goal::new(wanted.app, good);
    if must_roll_back(&goal, wanted) && check_rollback(draft, &goal).is_continue() {
        _ = roll_back(draft, &goal);
        return;
    }
    for slot in &goal.slots {
        restore(draft, &goal, wanted, slot);
    }
    _ = restart::rejoin(draft, &goal);
    restart::heal(draft, &goal);
}

/// Rolls back to the good release if an app was refused in the middle of a trial, which is not watched any more.
/// Otherwise a refused app stays as it is, except that the orders of an operator are followed.
pub(super) fn restore_refused(draft: &mut Draft<'_>, app: AppSituation<'_>) {
    if restart::follow_operator(draft, app).is_break() {
        return;
    }
    let Some(good) = app.good() else { return };
    let goal = Goal::new(app, good);
    if is_replaced(app) {
        if check_rollback(draft, &goal).is_continue() {
            _ = roll_back(draft, &goal);
        }
        return;
    }
    let was_stopped = |slot: &&Slot<'_>| {
        slot.container.is_some_and(|seen| app.was_stopped(seen)) && slot.broken().is_none()
    };
    for slot in goal.slots.iter().filter(was_stopped) {
        restore(draft, &goal, &goal, slot);
    }
}

/// Returns `true` if there is a good release, and something of the app is up that is not part of it.
pub(super) fn is_replaced(app: AppSituation<'_>) -> bool {
    app.good().is_some_and(|good| !app.up_outside(&[good]).is_empty())
}

/// Returns `true` if containers of a third release are up that must not stay: one of them is unwell, the release was
/// not started completely, or a service is missing.
fn must_roll_back(goal: &Goal<'_>, wanted: &Goal<'_>) -> bool {
    let known = [goal.release, wanted.release];
    let third = goal.app.up_outside(&known);
    if third.is_empty() || goal.slots.iter().any(|slot| slot.broken().is_some()) {
        return false;
    }
    let is_unwell =
        third.iter().any(|s| s.state == ContainerState::Restarting || s.health == Health::Unhealthy);
    let is_missing =
        |slot: &Slot<'_>| slot.is_to_run && !slot.is_covered() && !has_made_room(goal, wanted, slot);
    is_unwell || goal.slots.iter().any(is_missing) || goal.app.has_unstarted_outside(&known)
}

/// Returns `true` if a service of the good release has stopped to make room for the release on trial, and must
/// stay down.
fn has_made_room(goal: &Goal<'_>, wanted: &Goal<'_>, slot: &Slot<'_>) -> bool {
    let app = goal.app;
    if wanted.trial().is_none() || app.is_held() {
        return false;
    }
    let has_lost_network = || {
        let in_the_way = networks::in_the_way(app, wanted.release);
        slot.container.is_some_and(|seen| in_the_way.iter().any(|network| networks::is_on(seen, network)))
    };
    may_stop_first(wanted.release, slot.name)
        || !networks::are_here_for(app, goal.release, slot.spec)
        || has_lost_network()
}

/// Waits if the app is locked. A rollback is pending, too, while the device is held, and until all containers of the
/// good release are created.
fn check_rollback(draft: &mut Draft<'_>, goal: &Goal<'_>) -> Concern {
    let is_complete = goal.slots.iter().all(|slot| slot.container.is_some());
    let is_creating = draft.plan.stage.iter().any(|step| matches!(step, Step::Create { .. }));
    if !is_complete || is_creating || goal.app.is_held() {
        return PENDING;
    }
    gate::check_locks(draft, goal.app)
}

/// Creates missing networks of the good release, and then swaps to its services.
fn roll_back(draft: &mut Draft<'_>, goal: &Goal<'_>) -> Concern {
    networks::make_room(draft, goal)?;
    networks::create_missing(draft, goal)?;
    swap::swap(draft, goal)
}

/// Starts or creates the container of one service, if nothing of the service runs and nothing else is planned for it.
fn restore(draft: &mut Draft<'_>, goal: &Goal<'_>, wanted: &Goal<'_>, slot: &Slot<'_>) {
    let app = goal.app;
    let is_planned = draft.plan.stage.iter().any(|step| step.service() == Some((app.id, slot.name)));
    if is_planned || slot.has_predecessor_up() || has_made_room(goal, wanted, slot) {
        return;
    }
    if let Some(seen) = slot.broken() {
        draft.add(Some(app.id), Some(slot.name), vec![free_name(app.at, seen)]);
        return;
    }
    let is_needed = match slot.container {
        Some(_) => slot.needs_start() && swap::missing_joined(goal, slot.spec).is_none(),
        None => !slot.needs_image(),
    };
    if !is_needed {
        return;
    }
    if !networks::are_here_for(app, goal.release, slot.spec) {
        _ = networks::restore(draft, goal);
        return;
    }
    match slot.container {
        Some(seen) => {
            let chain = networks::start(draft, goal, slot, seen);
            draft.add_swap(app.id, slot.name, chain);
        }
        None => create::successor(draft, goal, slot),
    }
}

//! Stops and restarts of single services: those that an operator asked for, and those of services that are unhealthy
//! or were left in the namespaces of a container that is gone.

use crate::model::quantity::times;
use crate::model::{ContainerState, Health, ObservedService, Reason, Step};

use super::app::AppSituation;
use super::containers::{is_up, restart, stop};
use super::draft::{Addition, CLEAR, Concern, Draft, PENDING};
use super::gate;
use super::slots::{Goal, Slot};
use super::words;

/// Stops or restarts the containers for which an operator asked for that. Does nothing while the device is held,
/// because nothing that is up is stopped then.
pub(super) fn follow_operator(draft: &mut Draft<'_>, app: AppSituation<'_>) -> Concern {
    if app.is_held() {
        return CLEAR;
    }
    let mut concern = CLEAR;
    for seen in app.containers().filter(|seen| is_up(seen)) {
        let chain = if app.is_stopped_by_operator(seen) {
            vec![stop(app.at, seen)]
        } else if app.ledger.is_some_and(|ledger| ledger.restart.contains(&seen.container))
            && app.is_known(seen)
        {
            restart(app.at, &draft.plan.stage, seen)
        } else {
            continue;
        };
        if draft.add(Some(app.id), Some(&seen.service), chain) == Addition::Added {
            concern = PENDING;
        }
    }
    concern
}

/// Restarts services that joined the namespaces of a container which was started again since. Their own namespaces
/// are still the old ones, which nothing else uses any more.
pub(super) fn rejoin(draft: &mut Draft<'_>, goal: &Goal<'_>) -> Concern {
    let app = goal.app;
    let mut concern = CLEAR;
    for slot in goal.slots.iter().filter(|slot| slot.is_to_run) {
        let is_left = |seen: &&ObservedService| app.at.facts.left_behind.contains(&seen.container);
        let Some(seen) = slot.container.filter(is_left) else { continue };
        concern = PENDING;
        if gate::check_hold(draft, app).is_continue() {
            draft.add_swap(app.id, slot.name, restart(app.at, &draft.plan.stage, seen));
        }
    }
    concern
}

/// Restarts unhealthy services of the good release, at most `heals` times. Once `heal_window` has passed since the
/// last restart of a service, its restarts no longer count.
pub(super) fn heal(draft: &mut Draft<'_>, goal: &Goal<'_>) {
    let settings = &goal.app.at.settings;
    if !goal.is_accepted() || goal.app.is_held() || settings.heals == 0 {
        return;
    }
    for slot in goal.slots.iter().filter(|slot| slot.is_to_run) {
        heal_service(draft, slot);
    }
}

fn heal_service(draft: &mut Draft<'_>, slot: &Slot<'_>) {
    let (app, settings) = (slot.app, &slot.app.at.settings);
    let is_unhealthy =
        |seen: &&ObservedService| seen.state == ContainerState::Running && seen.health == Health::Unhealthy;
    let Some(seen) = slot.container.filter(is_unhealthy) else { return };
    let healed = app.ledger.and_then(|ledger| ledger.heals.get(slot.name)).copied().unwrap_or_default();
    if healed >= settings.heals {
        let (times, window) = (times(healed), words::duration(settings.heal_window));
        let why = format!(
            "is unhealthy although it was restarted {times}; the next restart is {window} after the last one"
        );
        draft.wait(Some(app.id), Some(slot.name), Reason::Unhealthy, why, None);
        return;
    }
    let heal = Step::Heal { app: app.id.clone(), service: slot.name.clone() };
    let chain = std::iter::once(heal).chain(restart(app.at, &draft.plan.stage, seen)).collect();
    draft.add_swap(app.id, slot.name, chain);
}

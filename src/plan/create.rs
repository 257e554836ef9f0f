//! Creates the containers of a release, stopped, before a swap may begin.

use crate::model::{ContainerState, Reason, ServiceName, Step};

use super::containers::{free_name, is_up, stop};
use super::draft::{CLEAR, Concern, Draft, PENDING, run_all};
use super::gate;
use super::slots::{Goal, Slot};

/// Creates the missing containers of these services, and waits while the engine removes one of them.
pub(super) fn successors(draft: &mut Draft<'_>, goal: &Goal<'_>, slots: &[&Slot<'_>]) -> Concern {
    run_all(slots.iter().map(|slot| match slot.container {
        None => {
            successor(draft, goal, slot);
            PENDING
        }
        Some(seen) if seen.state == ContainerState::Removing => {
            let why = "the engine is removing its container".to_owned();
            draft.wait(Some(goal.app.id), Some(slot.name), Reason::Starting, why, None);
            PENDING
        }
        Some(_) => CLEAR,
    }))
}

/// Creates the container of one service.
///
/// Orphans of the same spec are removed first. The containers whose namespaces it joins must exist.
pub(super) fn successor(draft: &mut Draft<'_>, goal: &Goal<'_>, slot: &Slot<'_>) {
    remove_orphans(draft, slot);
    let is_here = |name: &ServiceName| goal.slot(name).is_some_and(|slot| slot.container.is_some());
    if slot.orphans.is_empty() && slot.spec.joins().all(|(_, name)| is_here(name)) {
        draft.add(Some(goal.app.id), Some(slot.name), vec![step(goal, slot)]);
    }
}

/// The step that creates the container of one service.
pub(super) fn step(goal: &Goal<'_>, slot: &Slot<'_>) -> Step {
    Step::Create {
        app: goal.app.id.clone(),
        service: slot.name.clone(),
        release: goal.release.commit.clone(),
        spec: slot.spec.hash.clone(),
    }
}

/// Stops and removes the orphans of a service, except those that are up while the device is held.
fn remove_orphans(draft: &mut Draft<'_>, slot: &Slot<'_>) {
    let app = slot.app;
    for seen in slot.orphans.iter().filter(|seen| seen.state != ContainerState::Removing) {
        if !is_up(seen) {
            draft.add(Some(app.id), Some(slot.name), vec![free_name(app.at, seen)]);
        } else if gate::check_hold(draft, app).is_continue() {
            let chain = vec![stop(app.at, seen), free_name(app.at, seen)];
            draft.add(Some(app.id), Some(slot.name), chain);
        }
    }
}

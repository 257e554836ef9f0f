//! Services whose predecessor must stop before their image is pulled or their network is created.

use std::collections::BTreeSet;

use crate::model::{Release, ServiceName, Strategy};

use super::networks;
use super::slots::{Goal, Slot};

/// Returns `true` for the strategies that stop the predecessor before the new image is pulled.
fn is_stop_first(strategy: Strategy) -> bool {
    matches!(strategy, Strategy::KillThenDownload | Strategy::DeleteThenDownload)
}

/// Returns `true` if the strategy of a service stops its predecessor before the new image is pulled. The strategies of
/// the services whose namespaces it joins count, too.
pub(super) fn may_stop_first(release: &Release, service: &ServiceName) -> bool {
    release.services.get(service).is_some_and(|spec| {
        is_stop_first(spec.strategy)
            || release.joined(spec).values().any(|other| is_stop_first(other.strategy))
    })
}

/// Returns `true` if the predecessor of a service is to stop before its image is pulled.
///
/// This holds only on the way to a new release. In a rollback, the container on trial stays up until the image of the
/// good release is on the device, because the pull may take long.
pub(super) fn is_pulled_after_stop(slot: &Slot<'_>) -> bool {
    let before = slot.app.good().and_then(|good| good.services.get(slot.name));
    is_stop_first(slot.spec.strategy)
        && before.is_some_and(|before| before.hash != slot.spec.hash)
        && slot.needs_image()
}

/// Returns `true` if the container of a service cannot be created before the trial has begun.
///
/// Its image comes after its predecessor has stopped, its network comes after another one has gone, or the same is
/// true for a service whose namespaces it joins.
pub(super) fn is_created_during_trial(goal: &Goal<'_>, slot: &Slot<'_>) -> bool {
    if slot.container.is_none() && networks::is_blocked_for(goal.app, goal.release, slot.spec) {
        return true;
    }
    // Each service is visited once, because there may be very many paths to one that is joined indirectly.
    let (mut open, mut visited) = (vec![slot], BTreeSet::new());
    while let Some(slot) = open.pop() {
        if !visited.insert(slot.name) {
            continue;
        }
        if is_pulled_after_stop(slot) {
            return true;
        }
        if slot.container.is_none() {
            let is_joined = |other: &&Slot<'_>| slot.spec.joins().any(|(_, name)| name == other.name);
            open.extend(goal.slots.iter().filter(is_joined));
        }
    }
    false
}

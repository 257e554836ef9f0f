//! Removes what is left of releases that are no longer wanted and were never accepted. It goes before more is created,
//! so that a target that changes again and again does not fill the disk.

use crate::model::{ContainerState, ObservedNetwork, ObservedService, Release, SpecHash};

use super::app::AppSituation;
use super::containers::{belongs_to, is_up, remove};
use super::draft::Draft;
use super::slots::Goal;
use super::{networks, teardown};

/// Removes leftovers while the release is not accepted yet. Nothing waits for that.
pub(super) fn remove_leftovers(draft: &mut Draft<'_>, goal: &Goal<'_>) {
    let (app, good) = (goal.app, goal.app.good());
    if goal.is_accepted() {
        return;
    }
    for seen in app.containers().filter(|seen| seen.state != ContainerState::Removing) {
        if is_leftover(app, seen, good, goal.release) {
            draft.add(Some(app.id), Some(&seen.service), vec![remove(app.at, seen)]);
        }
    }
    _ = teardown::remove_networks(draft, app, |network| is_unused(app, network, good, goal.release));
}

/// Returns `true` if a container is down, belongs to neither release, and nothing runs of the release for which it was
/// created. Without a good release, the container may be from a release that worked and that `release` replaced. Then
/// it stays while anything of `release` runs.
pub(super) fn is_leftover(
    app: AppSituation<'_>,
    seen: &ObservedService,
    good: Option<&Release>,
    release: &Release,
) -> bool {
    let is_needed = |other: &ObservedService| {
        other.release == seen.release || (good.is_none() && belongs_to(other, release))
    };
    !is_up(seen)
        // Without it, the first release could not be undone by a return to balena's supervisor.
        && seen.spec != SpecHash::of_original()
        && !belongs_to(seen, release)
        && !good.is_some_and(|good| belongs_to(seen, good))
        && !app.containers().any(|other| is_up(other) && is_needed(other))
}

/// Returns `true` if a network belongs to neither release, and no container is connected to it.
pub(super) fn is_unused(
    app: AppSituation<'_>,
    network: &ObservedNetwork,
    good: Option<&Release>,
    release: &Release,
) -> bool {
    !networks::is_of(release, network)
        && !good.is_some_and(|good| networks::is_of(good, network))
        && !app.at.observed.services.iter().any(|seen| networks::is_on(seen, network))
}

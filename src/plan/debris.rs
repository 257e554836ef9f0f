//! What releases have left that are wanted no more and were never accepted. It goes before more is made, so that a
//! target that changes again and again fills no device.

use crate::model::{AppId, ContainerState, ObservedNetwork, ObservedService, Release};

use super::places::{is_up, remove};
use super::{Draft, Situation, gone, networks};

/// Removes the containers and networks of `app` that are neither of `release` nor of the good one, while `release` is
/// not accepted yet. Nothing waits for it.
pub(super) fn clear(draft: &mut Draft<'_>, app: &AppId, release: &Release) {
    let (at, good) = (draft.at, draft.good(app));
    if good == Some(release) {
        return;
    }
    for seen in at.observed.services.iter().filter(|seen| seen.app == *app) {
        if seen.state != ContainerState::Removing && is_debris(at, seen, good, release) {
            let step = remove(draft, seen);
            draft.add(Some(app), Some(&seen.service), vec![step]);
        }
    }
    gone::remove_networks(draft, app, |network| is_unused(at, network, good, release));
}

/// Whether a container is down, of neither release, and of none of which anything runs. Where no release is known to
/// be good, what was replaced by `release` may have been: it stays while anything of `release` runs.
pub(super) fn is_debris(
    at: &Situation<'_>,
    seen: &ObservedService,
    good: Option<&Release>,
    release: &Release,
) -> bool {
    let is_of = |seen: &ObservedService, release: &Release| {
        release.services.get(&seen.service).is_some_and(|spec| spec.hash == seen.spec)
    };
    let mut up = at.observed.services.iter().filter(|other| other.app == seen.app && is_up(other));
    !is_up(seen)
        && !is_of(seen, release)
        && !good.is_some_and(|good| is_of(seen, good))
        && !up.any(|other| other.release == seen.release || (good.is_none() && is_of(other, release)))
}

/// Whether a network is of neither release, and no container is on it.
pub(super) fn is_unused(
    at: &Situation<'_>,
    network: &ObservedNetwork,
    good: Option<&Release>,
    release: &Release,
) -> bool {
    !networks::is_of(release, network)
        && !good.is_some_and(|good| networks::is_of(good, network))
        && !at.observed.services.iter().any(|seen| networks::is_on(seen, network))
}

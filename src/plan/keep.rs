//! What runs while the wanted release does not: the good one, whole.

use crate::model::{AppId, ContainerState, Health, ObservedService, Release, ServiceSpec, Step};

use super::places::{Place, free_name, gives_room, is_up, line_up, needs_start};
use super::{Draft, care, create, gate, networks, places, swap, trial};

/// While `wanted` is not ready, a service of the good release that ended or vanished, and of which
/// nothing else runs, comes back. What a third release left half done, when the target changed during
/// its trial, goes on only for as long as it is well.
pub(super) fn alive(draft: &mut Draft<'_>, app: &AppId, wanted: &Release) {
    let Some(good) = draft.good(app) else { return };
    let services = line_up(draft, app, good);
    let strangers = strangers(draft, app, &[good, wanted]);
    let is_unwell =
        strangers.iter().any(|s| s.state == ContainerState::Restarting || s.health == Health::Unhealthy);
    // What is on trial and has stopped its predecessor to make room does without it.
    let is_tried = trial::of(draft, app, wanted).is_some() && draft.at.ledger.hold.is_none();
    let observed = draft.at.observed;
    let way = networks::in_the_way(observed, app, wanted);
    let has_made_room = |p: &Place<'_>| {
        let has_lost = |seen: &ObservedService| way.iter().any(|network| networks::is_on(seen, network));
        is_tried
            && (gives_room(wanted, p.name)
                || !networks::are_there(observed, app, good, p.spec)
                || p.container.is_some_and(has_lost))
    };
    let is_gap = services.iter().any(|p| p.is_to_run && !is_covered(p) && !has_made_room(p));
    let is_broken = |p: &Place<'_>| p.container.is_some_and(|seen| places::is_broken(draft, app, seen, p));
    let is_whole = !services.iter().any(is_broken);
    // All successors are created before the first one is started: one that is not begun is half a release.
    let is_half = draft.at.observed.services.iter().any(|seen| {
        seen.app == *app && seen.state == ContainerState::Created && !is_of_any(seen, &[good, wanted])
    });
    if is_whole
        && !strangers.is_empty()
        && (is_unwell || is_gap || is_half)
        && can_swap(draft, app, &services)
    {
        back(draft, app, good, &services);
        return;
    }
    for place in &services {
        let is_planned = draft.plan.stage.iter().any(|s| s.service() == Some((app, place.name)));
        if is_planned || has_made_room(place) || place.predecessors.iter().any(|p| is_up(p)) {
            continue;
        }
        if let Some(seen) = place.container.filter(|seen| places::is_broken(draft, app, seen, place)) {
            let step = free_name(draft, seen);
            draft.add(Some(app), Some(place.name), vec![step]);
            continue;
        }
        let is_startable = |seen: &ObservedService| {
            needs_start(draft, app, seen, place) && swap::missing_joined(place.spec, &services).is_none()
        };
        let is_wanted = place.container.map_or(observed.images.contains(&place.spec.image), is_startable);
        if !is_wanted {
            continue;
        }
        if !networks::are_there(observed, app, good, place.spec) {
            networks::restore(draft, app, good);
            continue;
        }
        match place.container {
            Some(seen) => {
                let chain = networks::start(draft, app, good, place, seen);
                draft.add_swap(app, place.name, chain);
            }
            None => create::successor(draft, app, good, place, &services),
        }
    }
    care::rejoin(draft, app, &services);
    care::heal(draft, app, &services);
}

/// An app that is refused stays as it is, unless it was refused in the middle of a trial: what was tried
/// is watched by nobody any more, so the good release comes back.
pub(super) fn refused(draft: &mut Draft<'_>, app: &AppId) {
    let Some(good) = draft.good(app) else { return };
    let services = line_up(draft, app, good);
    if !strangers(draft, app, &[good]).is_empty() && can_swap(draft, app, &services) {
        back(draft, app, good, &services);
    }
}

/// The next steps back to the good release: its networks, where others have taken their place, then its services.
fn back(draft: &mut Draft<'_>, app: &AppId, good: &Release, services: &[Place<'_>]) {
    if !networks::makes_room(draft, app, good) && networks::create(draft, app, good) {
        swap::swap(draft, app, good, services);
    }
}

/// Containers of the app that are up and belong to none of the releases.
fn strangers<'a>(draft: &Draft<'a>, app: &AppId, releases: &[&Release]) -> Vec<&'a ObservedService> {
    let all = draft.at.observed.services.iter().filter(|s| s.app == *app && is_up(s));
    all.filter(|s| !is_of_any(s, releases)).collect()
}

/// Whether something of the app is up that is not the good release's.
pub(super) fn has_strangers(draft: &Draft<'_>, app: &AppId, good: &Release) -> bool {
    !strangers(draft, app, &[good]).is_empty()
}

fn is_of_any(seen: &ObservedService, releases: &[&Release]) -> bool {
    let is_of = |spec: &ServiceSpec| spec.hash == seen.spec;
    releases.iter().any(|release| release.services.get(&seen.service).is_some_and(is_of))
}

/// Whether something of the service runs, or it has ended as it should.
fn is_covered(place: &Place<'_>) -> bool {
    let ended_well = |c: &ObservedService| {
        c.state == ContainerState::Exited { code: 0 } && !place.spec.restart.is_forever()
    };
    place.container.is_some_and(|c| is_up(c) || ended_well(c)) || place.predecessors.iter().any(|p| is_up(p))
}

/// Whether the release has all its containers, nobody holds the device or has locked the app, and none of them is
/// just being made.
fn can_swap(draft: &mut Draft<'_>, app: &AppId, services: &[Place<'_>]) -> bool {
    let is_whole = services.iter().all(|p| p.container.is_some());
    let is_begun = draft.plan.stage.iter().any(|s| matches!(s, Step::Create { .. }));
    is_whole && !is_begun && draft.at.ledger.hold.is_none() && !gate::is_locked(draft, app)
}

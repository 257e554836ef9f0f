//! What must be there before a swap can begin: a container for each service.

use crate::model::{AppId, ContainerState, Reason, Release, ServiceName, Step};

use super::places::{self, Place, is_up};
use super::{Draft, gate};

/// The step that makes the container of a place.
pub(super) fn step(app: &AppId, release: &Release, place: &Place<'_>) -> Step {
    Step::Create {
        app: app.clone(),
        service: place.name.clone(),
        release: release.commit.clone(),
        spec: place.spec.hash.clone(),
    }
}

/// Adds what makes the container of a place: first one of the same name goes that can never start again, and those
/// whose namespaces it joins come before it.
pub(super) fn successor(
    draft: &mut Draft<'_>,
    app: &AppId,
    release: &Release,
    place: &Place<'_>,
    services: &[Place<'_>],
) {
    for seen in &place.orphans {
        // The engine is at it already.
        if seen.state == ContainerState::Removing {
            continue;
        }
        if is_up(seen) && gate::is_held(draft, app) {
            continue;
        }
        let mut chain = if is_up(seen) { vec![places::stop(draft, seen)] } else { Vec::new() };
        chain.push(places::free_name(draft, seen));
        draft.add(Some(app), Some(place.name), chain);
    }
    let is_there = |name: &ServiceName| services.iter().any(|p| p.name == name && p.container.is_some());
    if place.orphans.is_empty() && place.spec.joins().all(|(_, name)| is_there(name)) {
        draft.add(Some(app), Some(place.name), vec![step(app, release, place)]);
    }
}

/// Whether every service has its container; their creation otherwise.
pub(super) fn successors(
    draft: &mut Draft<'_>,
    app: &AppId,
    release: &Release,
    places: &[&Place<'_>],
    services: &[Place<'_>],
) -> bool {
    let mut is_complete = true;
    for place in places {
        match place.container {
            None => {
                is_complete = false;
                successor(draft, app, release, place, services);
            }
            Some(seen) if seen.state == ContainerState::Removing => {
                is_complete = false;
                let why = "the engine is removing its container".to_owned();
                draft.wait(Some(app), Some(place.name), Reason::Starting, why, None);
            }
            Some(_) => {}
        }
    }
    is_complete
}

//! What must be there before a swap can begin: the networks of a release, and a container for each service.

use crate::model::{AppId, ContainerState, ObservedNetwork, Reason, Release, Step};

use super::Draft;
use super::places::Place;

/// The step that makes the container of a place.
pub(super) fn step(app: &AppId, release: &Release, place: &Place<'_>) -> Step {
    Step::Create {
        app: app.clone(),
        service: place.name.clone(),
        release: release.commit.clone(),
        spec: place.spec.hash.clone(),
    }
}

/// Whether the release's networks are there; their creation otherwise.
pub(super) fn networks(draft: &mut Draft<'_>, app: &AppId, release: &Release) -> bool {
    let observed = draft.at.observed;
    let mut is_complete = true;
    for (name, spec) in &release.networks {
        let is_it =
            |n: &&ObservedNetwork| n.app == *app && n.network == *name && n.config_hash == spec.config_hash;
        if !observed.networks.iter().any(|n| is_it(&n)) {
            is_complete = false;
            let (app_id, network, config_hash) = (app.clone(), name.clone(), spec.config_hash.clone());
            let step = Step::CreateNetwork { app: app_id, network, config_hash };
            draft.add(Some(app), None, vec![step]);
        }
    }
    is_complete
}

/// Whether every service has its container; their creation otherwise.
pub(super) fn successors(
    draft: &mut Draft<'_>,
    app: &AppId,
    release: &Release,
    services: &[&Place<'_>],
) -> bool {
    let mut is_complete = true;
    for place in services {
        match place.container {
            None => {
                is_complete = false;
                draft.add(Some(app), Some(place.name), vec![step(app, release, place)]);
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

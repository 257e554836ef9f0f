//! What goes away: apps that are not wanted any more, and the steps that take things away.

use std::collections::BTreeSet;

use crate::model::{AppId, ContainerState, ObservedNetwork, ObservedService, Step, Target};

use super::{Draft, Situation, app::is_up, hold};

/// Apps of which something is left and that the target does not name. The caller made sure that
/// the target names at least one app: an empty one takes nothing away.
pub(super) fn apps(at: &Situation<'_>, target: &Target) -> BTreeSet<AppId> {
    let seen = at.observed.services.iter().map(|s| &s.app);
    let seen = seen.chain(at.observed.networks.iter().map(|n| &n.app)).chain(at.ledger.apps.keys());
    seen.filter(|app| !target.apps.contains_key(*app)).cloned().collect()
}

/// Stops and removes everything of `app` but its volumes.
pub(super) fn clear(draft: &mut Draft<'_>, app: &AppId) {
    let observed = draft.at.observed;
    if observed.services.iter().any(|s| s.app == *app && is_up(s)) && hold::keeps(draft, app) {
        return;
    }
    let mut is_clear = true;
    for seen in observed.services.iter().filter(|s| s.app == *app) {
        is_clear = false;
        draft.add(Some(app), Some(&seen.service), stop_and_remove(seen));
    }
    if !is_clear {
        return;
    }
    if remove_networks(draft, app, |_| true) {
        return;
    }
    if draft.at.ledger.apps.contains_key(app) {
        draft.add(Some(app), None, vec![Step::Forget { app: app.clone() }]);
    }
}

/// Removes the networks of `app` that are not to stay; whether there were any.
pub(super) fn remove_networks(
    draft: &mut Draft<'_>,
    app: &AppId,
    goes: impl Fn(&ObservedNetwork) -> bool,
) -> bool {
    let observed = draft.at.observed;
    let mut has_any = false;
    for network in observed.networks.iter().filter(|n| n.app == *app && goes(n)) {
        has_any = true;
        let step = Step::RemoveNetwork {
            app: app.clone(),
            network: network.network.clone(),
            id: network.id.clone(),
        };
        draft.add(Some(app), None, vec![step]);
    }
    has_any
}

pub(super) fn start(seen: &ObservedService) -> Step {
    Step::Start { app: seen.app.clone(), service: seen.service.clone(), container: seen.container.clone() }
}

pub(super) fn stop(seen: &ObservedService) -> Step {
    let (app, service) = (seen.app.clone(), seen.service.clone());
    Step::Stop { app, service, container: seen.container.clone(), grace: seen.grace }
}

pub(super) fn remove(seen: &ObservedService) -> Step {
    Step::Remove { app: seen.app.clone(), service: seen.service.clone(), container: seen.container.clone() }
}

/// The chain that ends a container; none while the engine is at it already.
pub(super) fn stop_and_remove(seen: &ObservedService) -> Vec<Step> {
    match seen.state {
        ContainerState::Removing => Vec::new(),
        _ if is_up(seen) => vec![stop(seen), remove(seen)],
        ContainerState::Created
        | ContainerState::Running
        | ContainerState::Paused
        | ContainerState::Restarting
        | ContainerState::Exited { .. }
        | ContainerState::Dead => vec![remove(seen)],
    }
}

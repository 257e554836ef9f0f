//! Removes apps that the target does not name any more.

use std::collections::BTreeSet;

use crate::model::{AppId, ObservedNetwork, Step, Target};

use super::app::AppSituation;
use super::containers::{is_up, remove_by_force, stop_and_remove};
use super::draft::{CLEAR, Concern, Draft, PENDING};
use super::situation::Situation;
use super::{gate, networks};

/// Apps that the target does not name and of which something is left. The target must name at least one app, because
/// an empty one removes nothing.
pub(super) fn unnamed_apps<'a>(at: &'a Situation, target: &Target) -> BTreeSet<&'a AppId> {
    let observed = &at.observed;
    let containers = observed.services.iter().chain(&observed.parked).map(|s| &s.app);
    let networks = observed.networks.iter().map(|n| &n.app);
    let known = containers.chain(networks).chain(at.ledger.apps.keys());
    known.filter(|app| !target.apps.contains_key(*app)).collect()
}

/// Stops and removes everything of the app except its volumes.
pub(super) fn remove_app(draft: &mut Draft<'_>, app: AppSituation<'_>) -> Concern {
    if app.containers().any(is_up) {
        gate::check_removal(draft, app)?;
    }
    remove_containers(draft, app)?;
    remove_parked(draft, app)?;
    remove_networks(draft, app, |_| true)?;
    forget(draft, app)
}

fn remove_containers(draft: &mut Draft<'_>, app: AppSituation<'_>) -> Concern {
    let mut concern = CLEAR;
    for seen in app.containers() {
        concern = PENDING;
        draft.add(Some(app.id), Some(&seen.service), stop_and_remove(app.at, seen));
    }
    concern
}

/// Removes the containers of the app that were renamed because the engine did not remove them.
pub(super) fn remove_parked(draft: &mut Draft<'_>, app: AppSituation<'_>) -> Concern {
    let mut concern = CLEAR;
    for seen in app.at.observed.parked.iter().filter(|seen| seen.app == *app.id) {
        concern = PENDING;
        draft.add(Some(app.id), Some(&seen.service), vec![remove_by_force(seen)]);
    }
    concern
}

/// Removes the networks of the app for which `is_obsolete` returns `true`, but for those of a balena supervisor: it finds
/// them again if it comes back.
pub(super) fn remove_networks(
    draft: &mut Draft<'_>,
    app: AppSituation<'_>,
    is_obsolete: impl Fn(&ObservedNetwork) -> bool,
) -> Concern {
    let mut concern = CLEAR;
    for network in app.networks().filter(|network| !network.is_original && is_obsolete(network)) {
        concern = PENDING;
        draft.add(Some(app.id), None, vec![networks::remove(network)]);
    }
    concern
}

fn forget(draft: &mut Draft<'_>, app: AppSituation<'_>) -> Concern {
    if app.ledger.is_none() {
        return CLEAR;
    }
    draft.add(Some(app.id), None, vec![Step::Forget { app: app.id.clone() }]);
    PENDING
}

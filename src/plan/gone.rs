//! What goes away: apps that are not wanted any more, and the steps that take things away.

use std::collections::BTreeSet;

use crate::model::{AppId, ObservedNetwork, Step, Target};

use super::places::{is_up, remove_by_force, stop_and_remove};
use super::{Draft, Situation, gate, networks};

/// Apps of which something is left and that the target does not name. The caller made sure that
/// the target names at least one app: an empty one takes nothing away.
pub(super) fn apps(at: &Situation<'_>, target: &Target) -> BTreeSet<AppId> {
    let seen = at.observed.services.iter().map(|s| &s.app);
    let seen = seen.chain(at.observed.parked.iter().map(|s| &s.app));
    let seen = seen.chain(at.observed.networks.iter().map(|n| &n.app)).chain(at.ledger.apps.keys());
    seen.filter(|app| !target.apps.contains_key(*app)).cloned().collect()
}

/// Stops and removes everything of `app` but its volumes.
pub(super) fn clear(draft: &mut Draft<'_>, app: &AppId) {
    let observed = draft.at.observed;
    if observed.services.iter().any(|s| s.app == *app && is_up(s)) && gate::keeps(draft, app) {
        return;
    }
    let mut is_clear = true;
    for seen in observed.services.iter().filter(|s| s.app == *app) {
        is_clear = false;
        let chain = stop_and_remove(draft, seen);
        draft.add(Some(app), Some(&seen.service), chain);
    }
    if !is_clear || remove_parked(draft, app) {
        return;
    }
    if remove_networks(draft, app, |_| true) {
        return;
    }
    if draft.at.ledger.apps.contains_key(app) {
        draft.add(Some(app), None, vec![Step::Forget { app: app.clone() }]);
    }
}

/// Removes what was put aside of `app`; whether there was anything.
pub(super) fn remove_parked(draft: &mut Draft<'_>, app: &AppId) -> bool {
    let mut has_any = false;
    for seen in draft.at.observed.parked.iter().filter(|s| s.app == *app) {
        has_any = true;
        draft.add(Some(app), Some(&seen.service), vec![remove_by_force(seen)]);
    }
    has_any
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
        draft.add(Some(app), None, vec![networks::remove(network)]);
    }
    has_any
}

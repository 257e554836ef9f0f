//! The networks of a release. They come beside those of its predecessor, or, where an engine does not take both
//! because they have addresses in common, in their place: what runs there stops, the old network goes, the new
//! one comes. A container that was on a network which was made anew since is connected anew before it starts.

use crate::model::{
    AppId, NetworkMode, NetworkName, NetworkSpec, Observed, ObservedNetwork, ObservedService, Release,
    ServiceSpec, Step,
};

use super::places::{self, Place, is_up};
use super::{Draft, gate, trial};

/// The network of the app that is this one of the release.
fn find<'a>(
    observed: &'a Observed,
    app: &AppId,
    name: &NetworkName,
    spec: &NetworkSpec,
) -> Option<&'a ObservedNetwork> {
    let mut all = observed.networks.iter();
    all.find(|n| n.app == *app && n.network == *name && n.config_hash == spec.config_hash)
}

/// Whether a network that is there is one of the release.
pub(super) fn is_of(release: &Release, network: &ObservedNetwork) -> bool {
    release.networks.get(&network.network).is_some_and(|spec| spec.config_hash == network.config_hash)
}

/// Those that are there and not of the release, in the place of one of its own that is missing.
pub(super) fn in_the_way<'a>(
    observed: &'a Observed,
    app: &AppId,
    release: &Release,
) -> Vec<&'a ObservedNetwork> {
    let missing = release.networks.iter().filter(|(name, spec)| find(observed, app, name, spec).is_none());
    let missing: Vec<_> = missing.map(|(_, spec)| spec).collect();
    let others = observed.networks.iter().filter(|n| n.app == *app && !is_of(release, n));
    others.filter(|n| missing.iter().any(|spec| spec.overlaps(&n.subnets))).collect()
}

/// Whether a container is on this network, or was when it ran last.
pub(super) fn is_on(seen: &ObservedService, network: &ObservedNetwork) -> bool {
    seen.networks.values().any(|id| id.as_ref() == Some(&network.id))
}

/// The networks of the release that a service is on.
fn of_spec<'a>(release: &'a Release, spec: &'a ServiceSpec) -> Vec<(&'a NetworkName, &'a NetworkSpec)> {
    let names = match &spec.network_mode {
        NetworkMode::Networks(attached) => Some(attached.keys()),
        NetworkMode::Host | NetworkMode::None | NetworkMode::Bridge | NetworkMode::Service(_) => None,
    };
    names.into_iter().flatten().filter_map(|name| release.networks.get_key_value(name)).collect()
}

/// Whether a network of the release, which is missing, cannot come yet: another one is in its place, or one of the
/// good release has to come back there for as long as nothing may be swapped.
fn waits(draft: &Draft<'_>, app: &AppId, release: &Release, spec: &NetworkSpec) -> bool {
    let observed = draft.at.observed;
    if in_the_way(observed, app, release).iter().any(|n| spec.overlaps(&n.subnets)) {
        return true;
    }
    let is_tried = trial::of(draft, app, release).is_some() && draft.at.ledger.hold.is_none();
    let Some(good) = trial::other_good(draft, app, release).filter(|_| !is_tried) else { return false };
    let mut missing = good.networks.iter().filter(|(name, spec)| find(observed, app, name, spec).is_none());
    missing.any(|(_, other)| spec.overlaps(&other.ranges()))
}

/// Whether a network that a service of the release is on, or one whose namespaces it joins, cannot come yet.
pub(super) fn waits_for_room(draft: &Draft<'_>, app: &AppId, release: &Release, spec: &ServiceSpec) -> bool {
    let joined = release.joined(spec).into_values();
    let mut networks = joined.chain([spec]).flat_map(|spec| of_spec(release, spec));
    networks.any(|(name, spec)| {
        find(draft.at.observed, app, name, spec).is_none() && waits(draft, app, release, spec)
    })
}

/// Whether every network is there of the service, and of those whose namespaces it joins.
pub(super) fn are_there(observed: &Observed, app: &AppId, release: &Release, spec: &ServiceSpec) -> bool {
    let joined = release.joined(spec).into_values();
    let mut networks = joined.chain([spec]).flat_map(|spec| of_spec(release, spec));
    networks.all(|(name, spec)| find(observed, app, name, spec).is_some())
}

/// The networks of the app that are to go because another one has the same name: the engine makes two when a call
/// that nobody hears of any more is done late, and then starts no container on either. The one that stays is the
/// one on which something runs, or else the first.
fn twins<'a>(observed: &'a Observed, app: &AppId) -> Vec<&'a ObservedNetwork> {
    let is_used = |n: &ObservedNetwork| observed.services.iter().any(|s| is_up(s) && is_on(s, n));
    let rank = |n: &ObservedNetwork| (!is_used(n), n.id.clone());
    let of_app = || observed.networks.iter().filter(|n| n.app == *app);
    let has_better = |n: &&ObservedNetwork| {
        of_app().any(|other| other.name == n.name && rank(other) < rank(n)) && !is_used(n)
    };
    of_app().filter(has_better).collect()
}

/// Returns whether another network of the same name is there that none of the steps removes.
pub(super) fn has_twin<'a>(
    observed: &Observed,
    network: &ObservedNetwork,
    steps: impl Iterator<Item = &'a Step> + Clone,
) -> bool {
    let goes = |other: &ObservedNetwork| {
        steps.clone().any(|step| matches!(step, Step::RemoveNetwork { id, .. } if *id == other.id))
    };
    let is_twin = |other: &&ObservedNetwork| other.name == network.name && other.id != network.id;
    observed.networks.iter().filter(is_twin).any(|other| !goes(other))
}

/// Plans the creation of missing networks, except those that wait for room, and the removal of those that are there
/// twice. Returns `true` if there is nothing to create or to remove.
pub(super) fn create(draft: &mut Draft<'_>, app: &AppId, release: &Release) -> bool {
    let mut is_complete = true;
    for twin in twins(draft.at.observed, app) {
        is_complete = false;
        draft.add(Some(app), None, vec![remove(twin)]);
    }
    for (name, spec) in &release.networks {
        if find(draft.at.observed, app, name, spec).is_some() || waits(draft, app, release, spec) {
            continue;
        }
        is_complete = false;
        let (app_id, network, config_hash) = (app.clone(), name.clone(), spec.config_hash.clone());
        draft.add(Some(app), None, vec![Step::CreateNetwork { app: app_id, network, config_hash }]);
    }
    is_complete
}

/// Whether something is in the way of the release's networks; the next steps that make room otherwise: what runs
/// there stops, and what nothing runs on goes.
pub(super) fn makes_room(draft: &mut Draft<'_>, app: &AppId, release: &Release) -> bool {
    let way = in_the_way(draft.at.observed, app, release);
    for network in &way {
        let up: Vec<_> =
            draft.at.observed.services.iter().filter(|s| is_up(s) && is_on(s, network)).collect();
        if up.is_empty() {
            draft.add(Some(app), None, vec![remove(network)]);
        } else if !gate::is_held(draft, app) {
            for seen in up {
                let step = places::stop(draft, seen);
                draft.add_swap(app, &seen.service, vec![step]);
            }
        }
    }
    !way.is_empty()
}

/// Brings back what the service needs of a release that ran before, unless something runs in its place.
pub(super) fn restore(draft: &mut Draft<'_>, app: &AppId, release: &Release) {
    let observed = draft.at.observed;
    let way = in_the_way(observed, app, release);
    if way.iter().any(|n| observed.services.iter().any(|s| is_up(s) && is_on(s, n))) {
        return;
    }
    if !makes_room(draft, app, release) {
        create(draft, app, release);
    }
}

pub(super) fn remove(network: &ObservedNetwork) -> Step {
    let (app, name) = (network.app.clone(), network.network.clone());
    Step::RemoveNetwork { app, network: name, id: network.id.clone() }
}

/// The chain that starts the container of a place.
pub(super) fn start(
    draft: &Draft<'_>,
    app: &AppId,
    release: &Release,
    place: &Place<'_>,
    seen: &ObservedService,
) -> Vec<Step> {
    let observed = draft.at.observed;
    // As when the power went while it was connected anew.
    let is_off = |(name, spec): (&NetworkName, &NetworkSpec)| {
        find(observed, app, name, spec).is_some_and(|network| !seen.networks.contains_key(&network.name))
    };
    let mut chain = Vec::new();
    if seen.is_cut_off || of_spec(release, place.spec).into_iter().any(is_off) {
        chain.push(places::reconnect(seen));
    }
    chain.extend(places::start(draft, seen));
    chain
}

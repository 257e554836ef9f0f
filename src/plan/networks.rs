//! The networks of a release.
//!
//! They are created next to those of the release before it. An engine refuses two networks that have addresses in
//! common. In that case the containers on the old network stop, the old network is removed, and the new one is
//! created. A container whose network was created again since it ran is reconnected before it starts.

use crate::model::{
    NetworkMode, NetworkName, NetworkSpec, Observed, ObservedNetwork, ObservedService, Release, ServiceSpec,
    Step,
};

use super::app::AppSituation;
use super::containers::{self, is_up, reconnect, stop};
use super::draft::{CLEAR, Concern, Draft, PENDING};
use super::gate;
use super::slots::{Goal, Slot};

/// The app's network that has the name and the config of this one of the release.
fn find<'a>(app: AppSituation<'a>, name: &NetworkName, spec: &NetworkSpec) -> Option<&'a ObservedNetwork> {
    app.networks().find(|n| n.network == *name && n.config_hash == spec.config_hash)
}

/// Returns `true` if the release has a network with the name and the config of this one.
pub(super) fn is_of(release: &Release, network: &ObservedNetwork) -> bool {
    release.networks.get(&network.network).is_some_and(|spec| spec.config_hash == network.config_hash)
}

/// The networks of the release that are missing.
fn missing<'a>(
    app: AppSituation<'a>,
    release: &'a Release,
) -> impl Iterator<Item = (&'a NetworkName, &'a NetworkSpec)> {
    release.networks.iter().filter(move |(name, spec)| find(app, name, spec).is_none())
}

/// Networks of other releases and of a balena supervisor that have addresses in common with a missing network of this one,
/// or its name.
pub(super) fn in_the_way<'a>(app: AppSituation<'a>, release: &Release) -> Vec<&'a ObservedNetwork> {
    let missing: Vec<_> = missing(app, release).collect();
    let others = app.networks().filter(|network| !is_of(release, network));
    others.filter(|network| missing.iter().any(|(name, spec)| clash(network, name, spec))).collect()
}

/// Returns `true` if the engine cannot have both networks: they have addresses in common, or the one name.
fn clash(network: &ObservedNetwork, name: &NetworkName, spec: &NetworkSpec) -> bool {
    spec.overlaps(&network.subnets) || network.takes_the_name_of(name, spec)
}

/// Returns `true` if a container is connected to this network, or was when it last ran.
pub(super) fn is_on(seen: &ObservedService, network: &ObservedNetwork) -> bool {
    seen.networks.values().any(|id| id.as_ref() == Some(&network.id))
}

/// The networks of the release that a service is connected to.
fn networks_of<'a>(release: &'a Release, spec: &'a ServiceSpec) -> Vec<(&'a NetworkName, &'a NetworkSpec)> {
    let names = match &spec.network_mode {
        NetworkMode::Networks(attached) => Some(attached.keys()),
        NetworkMode::Host | NetworkMode::None | NetworkMode::Bridge | NetworkMode::Service(_) => None,
    };
    names.into_iter().flatten().filter_map(|name| release.networks.get_key_value(name)).collect()
}

/// The networks of a service, and of the services whose namespaces it joins.
fn needed_by<'a>(
    release: &'a Release,
    spec: &'a ServiceSpec,
) -> impl Iterator<Item = (&'a NetworkName, &'a NetworkSpec)> {
    let joined = release.joined(spec).into_values();
    joined.chain([spec]).flat_map(|spec| networks_of(release, spec))
}

/// Returns `true` if a missing network of the release cannot be created yet. A network that is here has addresses in
/// common with it, or a network of the good release does that must be created again while nothing may be swapped.
fn is_blocked(app: AppSituation<'_>, release: &Release, name: &NetworkName, spec: &NetworkSpec) -> bool {
    if in_the_way(app, release).iter().any(|network| clash(network, name, spec)) {
        return true;
    }
    let is_tried = app.trial(release).is_some() && !app.is_held();
    let Some(fallback) = app.fallback(release).filter(|_| !is_tried) else { return false };
    missing(app, fallback).any(|(_, other)| spec.overlaps(&other.ranges()))
}

/// Returns `true` if a network that a service needs cannot be created yet.
pub(super) fn is_blocked_for(app: AppSituation<'_>, release: &Release, spec: &ServiceSpec) -> bool {
    let mut needed = needed_by(release, spec);
    needed.any(|(name, spec)| find(app, name, spec).is_none() && is_blocked(app, release, name, spec))
}

/// Returns `true` if all networks that a service needs are here.
pub(super) fn are_here_for(app: AppSituation<'_>, release: &Release, spec: &ServiceSpec) -> bool {
    needed_by(release, spec).all(|(name, spec)| find(app, name, spec).is_some())
}

/// The networks of the app that are to be removed because another one has the same name.
///
/// The engine creates a second one when a call of an earlier process of the agent is carried out late. It starts no
/// container on either of them then. The network on which something runs stays, or else the first one.
fn duplicates<'a>(app: AppSituation<'a>) -> Vec<&'a ObservedNetwork> {
    let observed = &app.at.observed;
    let is_used = |n: &ObservedNetwork| observed.services.iter().any(|s| is_up(s) && is_on(s, n));
    let rank = |n: &ObservedNetwork| (!is_used(n), n.id.clone());
    let has_better = |n: &&ObservedNetwork| {
        app.networks().any(|other| other.name == n.name && rank(other) < rank(n)) && !is_used(n)
    };
    app.networks().filter(has_better).collect()
}

/// Returns `true` if there is another network of the same name that none of the steps removes.
pub(super) fn has_duplicate<'a>(
    observed: &Observed,
    network: &ObservedNetwork,
    steps: impl Iterator<Item = &'a Step> + Clone,
) -> bool {
    let is_removed = |other: &ObservedNetwork| {
        steps.clone().any(|step| matches!(step, Step::RemoveNetwork { id, .. } if *id == other.id))
    };
    let is_duplicate = |other: &&ObservedNetwork| other.name == network.name && other.id != network.id;
    observed.networks.iter().filter(is_duplicate).any(|other| !is_removed(other))
}

/// Removes duplicates and creates missing networks, except those that are blocked by another network.
pub(super) fn create_missing(draft: &mut Draft<'_>, goal: &Goal<'_>) -> Concern {
    let app = goal.app;
    let mut concern = CLEAR;
    for duplicate in duplicates(app) {
        concern = PENDING;
        draft.add(Some(app.id), None, vec![remove(duplicate)]);
    }
    for (name, spec) in missing(app, goal.release) {
        if is_blocked(app, goal.release, name, spec) {
            continue;
        }
        concern = PENDING;
        let (app_id, network, config_hash) = (app.id.clone(), name.clone(), spec.config_hash.clone());
        draft.add(Some(app.id), None, vec![Step::CreateNetwork { app: app_id, network, config_hash }]);
    }
    concern
}

/// Stops the containers on networks that are in the way of the release, and then removes these networks.
pub(super) fn make_room(draft: &mut Draft<'_>, goal: &Goal<'_>) -> Concern {
    let app = goal.app;
    let in_the_way = in_the_way(app, goal.release);
    for network in &in_the_way {
        let up: Vec<_> = app.at.observed.services.iter().filter(|s| is_up(s) && is_on(s, network)).collect();
        if up.is_empty() {
            draft.add(Some(app.id), None, vec![remove(network)]);
        } else if gate::check_hold(draft, app).is_continue() {
            for seen in up {
                draft.add_swap(app.id, &seen.service, vec![stop(app.at, seen)]);
            }
        }
    }
    if in_the_way.is_empty() { CLEAR } else { PENDING }
}

/// Creates the missing networks of a release that ran before, unless something runs on a network in their place.
pub(super) fn restore(draft: &mut Draft<'_>, goal: &Goal<'_>) -> Concern {
    let observed = &goal.app.at.observed;
    let is_used = |n: &&ObservedNetwork| observed.services.iter().any(|s| is_up(s) && is_on(s, n));
    if in_the_way(goal.app, goal.release).iter().any(is_used) {
        return PENDING;
    }
    make_room(draft, goal)?;
    create_missing(draft, goal)
}

pub(super) fn remove(network: &ObservedNetwork) -> Step {
    let (app, name) = (network.app.clone(), network.network.clone());
    Step::RemoveNetwork { app, network: name, id: network.id.clone() }
}

/// Starts the container of a service, after it is reconnected to its networks if it has lost one of them.
pub(super) fn start(
    draft: &Draft<'_>,
    goal: &Goal<'_>,
    slot: &Slot<'_>,
    seen: &ObservedService,
) -> Vec<Step> {
    let app = goal.app;
    // A power cut in the middle of a reconnection leaves a container disconnected.
    let is_disconnected = |(name, spec): (&NetworkName, &NetworkSpec)| {
        find(app, name, spec).is_some_and(|network| !seen.networks.contains_key(&network.name))
    };
    let mut chain = Vec::new();
    if seen.is_cut_off || networks_of(goal.release, slot.spec).into_iter().any(is_disconnected) {
        chain.push(reconnect(seen));
    }
    chain.extend(containers::start(app.at, &draft.plan.stage, seen));
    chain
}

//! One app with a release: from what runs to what should run.

use crate::model::{
    AppId, Condition, ContainerState, Health, ObservedNetwork, ObservedService, Reason, Release, ServiceName,
    ServiceSpec, Step,
};

use super::{Draft, gone, hold, keep, trial};

/// Adds the next steps for `app`: towards `release`, or, when that was rejected, back to the good one.
pub(super) fn reach(draft: &mut Draft<'_>, app: &AppId, release: &Release) {
    let Some(why) = trial::rejection(draft, app, release) else {
        advance(draft, app, release);
        return;
    };
    let why = format!("release {} was tried and taken back: {why}", release.commit);
    draft.wait(Some(app), None, Reason::Rejected, why, None);
    if let Some(good) = trial::other_good(draft, app, release) {
        advance(draft, app, good);
    }
}

/// Adds the next steps that bring `app` to `release`. The concerns in their order; each one that
/// has something to do, or to wait for, ends the walk.
fn advance(draft: &mut Draft<'_>, app: &AppId, release: &Release) {
    let services = line_up(draft, app, release);
    // First of all: what has shown itself bad must not wait for anything.
    if is_ended_by_trial(draft, app, release, &services) {
        return;
    }
    if has_dead(draft, app, &services) {
        keep::alive(draft, app, release);
        return;
    }
    if !fetch(draft, app, &services)
        || !create_networks(draft, app, release)
        || !create_successors(draft, app, release, &services)
    {
        keep::alive(draft, app, release);
        return;
    }
    if hold::blocks(draft, app, release, &services) {
        keep::alive(draft, app, release);
        return;
    }
    if begins_trial(draft, app, release, &services) {
        return;
    }
    if !swap(draft, app, release, &services)
        || !is_accepted(draft, app, release, &services)
        || !trial::has_soaked(draft, app, release)
    {
        return;
    }
    let good = draft.at.ledger.apps.get(app).and_then(|a| a.good.as_ref());
    if good != Some(release) {
        draft.add(Some(app), None, vec![Step::Commit { app: app.clone(), release: release.commit.clone() }]);
        return;
    }
    clean_up(draft, app, release, &services);
}

/// Whether the trial of `release` has shown it bad. It is rejected if there is a good one to go back to;
/// otherwise it stays up, and is good when it comes good.
fn is_ended_by_trial(draft: &mut Draft<'_>, app: &AppId, release: &Release, services: &[Place<'_>]) -> bool {
    let Some(why) = trial::verdict(draft, app, release, services) else { return false };
    if trial::other_good(draft, app, release).is_none() {
        let why = format!("{why}; there is no earlier release to go back to");
        draft.wait(Some(app), None, Reason::Degraded, why, None);
        return false;
    }
    let (app_id, commit) = (app.clone(), release.commit.clone());
    draft.add(Some(app), None, vec![Step::Reject { app: app_id, release: commit, why }]);
    true
}

/// Whether the trial of `release` must be written down first, because something of it is about to start.
fn begins_trial(draft: &mut Draft<'_>, app: &AppId, release: &Release, services: &[Place<'_>]) -> bool {
    let good = draft.at.ledger.apps.get(app).and_then(|a| a.good.as_ref());
    if good == Some(release) || trial::of(draft, app, release).is_some() {
        return false;
    }
    let starts = |p: &Place<'_>| p.container.is_some_and(|c| needs_start(draft, app, c, p.spec));
    // A release that only drops a service changes what the others find, too.
    if !services.iter().any(starts) && !leftovers(draft, app, release).any(is_up) {
        return false;
    }
    draft.add(Some(app), None, vec![Step::Try { app: app.clone(), release: release.commit.clone() }])
}

/// A wanted service, the container that is it, and those that are to give way.
pub(super) struct Place<'a> {
    pub(super) name: &'a ServiceName,
    pub(super) spec: &'a ServiceSpec,
    pub(super) container: Option<&'a ObservedService>,
    pub(super) predecessors: Vec<&'a ObservedService>,
}

/// Lines the wanted services up with the containers that are there.
pub(super) fn line_up<'a>(draft: &Draft<'a>, app: &AppId, release: &'a Release) -> Vec<Place<'a>> {
    let place = |(name, spec): (&'a ServiceName, &'a ServiceSpec)| {
        let mut container: Option<&'a ObservedService> = None;
        let mut predecessors = Vec::new();
        for seen in draft.at.observed.services.iter().filter(|s| s.app == *app && s.service == *name) {
            // Of two containers with one spec, which should not be, the one that runs stays.
            let is_better = container.is_none_or(|other| !is_up(other) && is_up(seen));
            match container {
                _ if seen.spec != spec.hash => predecessors.push(seen),
                Some(other) if is_better => {
                    predecessors.push(other);
                    container = Some(seen);
                }
                Some(_) => predecessors.push(seen),
                None => container = Some(seen),
            }
        }
        Place { name, spec, container, predecessors }
    };
    release.services.iter().map(place).collect()
}

/// Whether its process is there, or the engine is about to bring it back.
pub(super) fn is_up(seen: &ObservedService) -> bool {
    matches!(seen.state, ContainerState::Running | ContainerState::Paused | ContainerState::Restarting)
}

/// Whether the container should be started: it never was, or it ended and its policy or we want it back.
pub(super) fn needs_start(
    draft: &Draft<'_>,
    app: &AppId,
    seen: &ObservedService,
    spec: &ServiceSpec,
) -> bool {
    if !spec.is_running {
        return false;
    }
    match seen.state {
        ContainerState::Created => true,
        ContainerState::Exited { .. } => {
            let was_ours = draft.at.ledger.apps.get(app).is_some_and(|a| a.stopped.contains(&seen.container));
            was_ours || spec.restart.is_forever()
        }
        ContainerState::Running
        | ContainerState::Paused
        | ContainerState::Restarting
        | ContainerState::Removing
        | ContainerState::Dead => false,
    }
}

/// Containers that the engine failed to remove stand in the way of their own names.
fn has_dead(draft: &mut Draft<'_>, app: &AppId, services: &[Place<'_>]) -> bool {
    let dead: Vec<_> = services
        .iter()
        .flat_map(|p| p.container.iter().map(move |c| (p.name, *c)))
        .filter(|(_, seen)| seen.state == ContainerState::Dead)
        .collect();
    for (name, seen) in &dead {
        draft.add(Some(app), Some(name), vec![gone::remove(seen)]);
    }
    !dead.is_empty()
}

/// Whether every image that a successor needs is here; pulls of the missing ones otherwise.
fn fetch(draft: &mut Draft<'_>, app: &AppId, services: &[Place<'_>]) -> bool {
    let mut is_complete = true;
    for place in services.iter().filter(|p| p.container.is_none()) {
        let image = &place.spec.image;
        if draft.at.observed.images.contains(image) {
            continue;
        }
        is_complete = false;
        if let Some(percent) = draft.at.pulling.get(image) {
            draft.wait(
                Some(app),
                Some(place.name),
                Reason::Downloading,
                format!("{image} at {percent} %"),
                None,
            );
            continue;
        }
        let pull = Step::Pull { image: image.clone() };
        if draft.plan.stage.contains(&pull) {
            continue;
        }
        if draft.free_pulls == 0 && !draft.at.cooling.contains_key(&pull) {
            draft.wait(
                Some(app),
                Some(place.name),
                Reason::Downloading,
                format!("{image} waits its turn"),
                None,
            );
        } else if draft.add(Some(app), Some(place.name), vec![pull]) {
            draft.free_pulls -= 1;
        }
    }
    is_complete
}

pub(super) fn create(app: &AppId, release: &Release, place: &Place<'_>) -> Step {
    Step::Create {
        app: app.clone(),
        service: place.name.clone(),
        release: release.commit.clone(),
        spec: place.spec.hash.clone(),
    }
}

/// Whether the release's networks are there; their creation otherwise.
fn create_networks(draft: &mut Draft<'_>, app: &AppId, release: &Release) -> bool {
    let observed = draft.at.observed;
    let mut is_complete = true;
    for (name, spec) in &release.networks {
        let is_it =
            |n: &&ObservedNetwork| n.app == *app && n.network == *name && n.config_hash == spec.config_hash;
        if !observed.networks.iter().any(|n| is_it(&n)) {
            is_complete = false;
            draft.add(Some(app), None, vec![Step::CreateNetwork { app: app.clone(), network: name.clone() }]);
        }
    }
    is_complete
}

/// Whether every service has its container; their creation otherwise.
fn create_successors(draft: &mut Draft<'_>, app: &AppId, release: &Release, services: &[Place<'_>]) -> bool {
    let mut is_complete = true;
    for place in services {
        match place.container {
            None => {
                is_complete = false;
                draft.add(Some(app), Some(place.name), vec![create(app, release, place)]);
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

/// Whether nothing is left to stop or start; the next few swaps otherwise.
pub(super) fn swap(draft: &mut Draft<'_>, app: &AppId, release: &Release, services: &[Place<'_>]) -> bool {
    let mut is_complete = true;
    for place in services {
        let Some(seen) = place.container else { continue };
        let mut chain: Vec<Step> =
            place.predecessors.iter().filter(|p| is_up(p)).map(|p| gone::stop(p)).collect();
        let is_starting = needs_start(draft, app, seen, place.spec);
        if is_starting {
            chain.push(gone::start(seen));
        } else if !place.spec.is_running && is_up(seen) {
            chain.push(gone::stop(seen));
        }
        if chain.is_empty() {
            continue;
        }
        is_complete = false;
        match missing_dependency(place.spec, services).filter(|_| is_starting) {
            Some(why) => draft.wait(Some(app), Some(place.name), Reason::Dependency, why, None),
            None => draft.add_swap(app, place.name, chain),
        }
    }
    for seen in leftovers(draft, app, release).filter(|s| is_up(s)) {
        is_complete = false;
        draft.add_swap(app, &seen.service, vec![gone::stop(seen)]);
    }
    is_complete
}

/// The first dependency that is not met, in words.
fn missing_dependency(spec: &ServiceSpec, services: &[Place<'_>]) -> Option<String> {
    spec.depends_on.iter().find_map(|(name, condition)| {
        let on = services.iter().find(|p| p.name == name).and_then(|p| p.container);
        let is_met = on.is_some_and(|on| match condition {
            Condition::Started => !matches!(on.state, ContainerState::Created),
            Condition::Healthy => {
                on.state == ContainerState::Running
                    && matches!(on.health, Health::Healthy | Health::Unchecked)
            }
            Condition::Completed => on.state == ContainerState::Exited { code: 0 },
        });
        let word = match condition {
            Condition::Started => "started",
            Condition::Healthy => "healthy",
            Condition::Completed => "completed",
        };
        (!is_met).then(|| format!("{name} is not {word} yet"))
    })
}

/// Containers of the app whose service the release does not have.
pub(super) fn leftovers<'a>(
    draft: &Draft<'a>,
    app: &AppId,
    release: &'a Release,
) -> impl Iterator<Item = &'a ObservedService> + use<'a> {
    let app = app.clone();
    let observed = draft.at.observed;
    observed.services.iter().filter(move |s| s.app == app && !release.services.contains_key(&s.service))
}

/// Whether every service is as it should be; what is waited for otherwise. A service that the good
/// release has as well is told, but says nothing of what is new.
fn is_accepted(draft: &mut Draft<'_>, app: &AppId, release: &Release, services: &[Place<'_>]) -> bool {
    let mut is_accepted = true;
    let is_tried = trial::other_good(draft, app, release).is_some();
    for place in services {
        let Some(seen) = place.container.filter(|_| place.spec.is_running) else { continue };
        let reason = match (seen.state, seen.health) {
            (ContainerState::Running, Health::Unchecked | Health::Healthy)
            | (ContainerState::Exited { code: 0 }, _) => continue,
            (ContainerState::Running, Health::Starting) | (ContainerState::Created, _) => Reason::Starting,
            (ContainerState::Running, Health::Unhealthy)
            | (
                ContainerState::Paused
                | ContainerState::Restarting
                | ContainerState::Exited { .. }
                | ContainerState::Removing
                | ContainerState::Dead,
                _,
            ) => Reason::Unhealthy,
        };
        is_accepted &= is_tried && !trial::is_new(draft, app, seen);
        draft.wait(Some(app), Some(place.name), reason, seen.status.clone(), None);
    }
    is_accepted
}

/// Removes what the accepted release replaced: containers first, then networks. Volumes stay.
fn clean_up(draft: &mut Draft<'_>, app: &AppId, release: &Release, services: &[Place<'_>]) {
    let replaced = services.iter().flat_map(|p| p.predecessors.iter().copied());
    let replaced: Vec<_> = replaced.chain(leftovers(draft, app, release)).collect();
    for seen in &replaced {
        draft.add(Some(app), Some(&seen.service), gone::stop_and_remove(seen));
    }
    if !replaced.is_empty() {
        return;
    }
    let is_wanted = |n: &ObservedNetwork| {
        release.networks.get(&n.network).is_some_and(|spec| spec.config_hash == n.config_hash)
    };
    gone::remove_networks(draft, app, |n| !is_wanted(n));
}

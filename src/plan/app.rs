//! One app with a release: from what runs to what should run.

use crate::model::{AppId, ContainerState, Health, ObservedService, Reason, Release, Step, Waiting};

use super::places::{self, Place, free_name, is_broken, is_up, leftovers, line_up, needs_start};
use super::swap::swap;
use super::{Draft, care, create, debris, fetch, gate, gone, keep, networks, preflight, trial};

/// Adds the next steps for `app`: towards `release`, or, when that was rejected, back to the good one.
pub(super) fn reach(draft: &mut Draft<'_>, app: &AppId, release: &Release) {
    match trial::rejection(draft, app, release) {
        None => advance(draft, app, release),
        Some(why) => {
            let why = format!("release {} was tried and taken back: {why}", release.commit);
            draft.wait(Some(app), None, Reason::Rejected, why, None);
            if let Some(good) = trial::other_good(draft, app, release) {
                advance(draft, app, good);
                tell_failed_return(draft, app, good);
            }
        }
    }
    unlock(draft, app);
}

/// A way back whose steps fail is worse than a bad release: what runs is left running, and it is told.
fn tell_failed_return(draft: &mut Draft<'_>, app: &AppId, good: &Release) {
    let fails = |w: &&Waiting| {
        w.app.as_ref() == Some(app) && matches!(w.reason, Reason::Backoff | Reason::EngineStuck)
    };
    let Some(why) = draft.plan.waiting.iter().find(fails).map(|w| w.why.clone()) else { return };
    let why = format!("release {} does not come back whole: {why}", good.commit);
    draft.wait(Some(app), None, Reason::Degraded, why, None);
}

/// Adds the next steps that bring `app` to `release`. The concerns in their order; each one that
/// has something to do, or to wait for, ends the walk.
fn advance(draft: &mut Draft<'_>, app: &AppId, release: &Release) {
    let services = line_up(draft, app, release);
    // First of all: what has shown itself bad, and what an operator wants, must not wait for anything.
    if is_ended_by_trial(draft, app, release, &services) || care::follows_operator(draft, app) {
        return;
    }
    if has_broken(draft, app, &services) {
        keep::alive(draft, app, release);
        return;
    }
    debris::clear(draft, app, release);
    let (late, soon): (Vec<_>, Vec<_>) =
        services.iter().partition(|p| places::is_late(draft, app, release, p, &services));
    let to_fetch: Vec<_> = services.iter().filter(|p| !places::is_early(draft, app, p)).collect();
    let is_prepared = !preflight::blocks(draft, app, release, &services)
        && fetch::images(draft, app, &to_fetch)
        && networks::create(draft, app, release)
        && create::successors(draft, app, release, &soon, &services);
    if !is_prepared || gate::blocks(draft, app, release, &services) {
        keep::alive(draft, app, release);
        return;
    }
    if begins_trial(draft, app, release, &services) {
        // It may have to wait for its next attempt.
        keep::alive(draft, app, release);
        return;
    }
    if networks::makes_room(draft, app, release) {
        keep::alive(draft, app, release);
        return;
    }
    if !late.is_empty() {
        fetch::after_the_end(draft, app, release, &late, &services);
        keep::alive(draft, app, release);
        return;
    }
    if !swap(draft, app, release, &services) {
        return;
    }
    if care::rejoin(draft, app, &services) {
        return;
    }
    if draft.good(app) == Some(release) {
        care::heal(draft, app, &services);
    }
    if !is_accepted(draft, app, release, &services) || !trial::has_soaked(draft, app, release) {
        return;
    }
    if draft.good(app) != Some(release) {
        draft.add(Some(app), None, vec![Step::Commit { app: app.clone(), release: release.commit.clone() }]);
        return;
    }
    clean_up(draft, app, release, &services);
}

/// Takes our own lock files away, once nothing of the app is about to be touched, nor on its way back. A first
/// release that is on trial has nothing to be taken back for.
pub(super) fn unlock(draft: &mut Draft<'_>, app: &AppId) {
    let is_tried = draft.ledger(app).is_some_and(|a| a.trial.is_some() && a.good.is_some());
    let is_going_back = draft.ledger(app).is_some_and(|a| {
        a.rejected.is_some() && a.good.as_ref().is_some_and(|good| keep::has_strangers(draft, app, good))
    });
    let is_touched = draft.plan.stage.iter().any(|step| {
        step.app() == Some(app)
            && matches!(step, Step::Stop { .. } | Step::Kill { .. } | Step::Start { .. } | Step::Try { .. })
    });
    if draft.at.facts.own_locks.contains(app) && !is_tried && !is_going_back && !is_touched {
        draft.add(Some(app), None, vec![Step::Unlock { app: app.clone() }]);
    }
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

/// Whether the trial of `release` must be written down first, because something of it is about to start, or runs
/// and was never tried.
fn begins_trial(draft: &mut Draft<'_>, app: &AppId, release: &Release, services: &[Place<'_>]) -> bool {
    if draft.good(app) == Some(release) || trial::of(draft, app, release).is_some() {
        return false;
    }
    let starts = |p: &Place<'_>| p.container.is_none_or(|c| needs_start(draft, app, c, p));
    // A release that only drops a service changes what the others find, too.
    if !services.iter().any(starts)
        && !trial::is_missing(draft, app, release, services)
        && !leftovers(draft, app, release).any(is_up)
    {
        return false;
    }
    draft.add(Some(app), None, vec![Step::Try { app: app.clone(), release: release.commit.clone() }]);
    true
}

/// Whether containers stand in the way of their own names; they go then.
fn has_broken(draft: &mut Draft<'_>, app: &AppId, services: &[Place<'_>]) -> bool {
    let mut has_any = false;
    for place in services {
        let Some(seen) = place.container.filter(|seen| is_broken(draft, app, seen, place)) else { continue };
        has_any = true;
        let step = free_name(draft, seen);
        draft.add(Some(app), Some(place.name), vec![step]);
    }
    has_any
}

/// Whether every service is as it should be; what is waited for otherwise. A service that the good
/// release has as well is told, but says nothing of what is new.
fn is_accepted(draft: &mut Draft<'_>, app: &AppId, release: &Release, services: &[Place<'_>]) -> bool {
    let mut is_accepted = true;
    let is_tried = trial::other_good(draft, app, release).is_some();
    for place in services {
        if place.spec.is_running && !place.is_to_run {
            let since = draft.ledger(app).and_then(|a| a.halted.get(place.name)).map(|halt| &halt.since);
            let why = format!("stopped by an operator, {}", since.map_or("", |since| since));
            draft.wait(Some(app), Some(place.name), Reason::Stopped, why, None);
        }
        let Some(seen) = place.container.filter(|_| place.is_to_run) else { continue };
        let Some(reason) = trouble(seen) else { continue };
        is_accepted &= is_tried && !trial::is_new(draft, app, seen);
        let is_told = |w: &Waiting| {
            w.app.as_ref() == Some(app) && w.service.as_ref() == Some(place.name) && w.reason == reason
        };
        // That it was restarted in vain says more.
        if !draft.plan.waiting.iter().any(is_told) {
            draft.wait(Some(app), Some(place.name), reason, seen.status.clone(), None);
        }
    }
    is_accepted
}

/// Why a container that is to run is not as it should be.
fn trouble(seen: &ObservedService) -> Option<Reason> {
    match (seen.state, seen.health) {
        (ContainerState::Running, Health::Unchecked | Health::Healthy)
        | (ContainerState::Exited { code: 0 }, _) => None,
        (ContainerState::Running, Health::Starting) | (ContainerState::Created, _) => Some(Reason::Starting),
        (ContainerState::Running, Health::Unhealthy)
        | (
            ContainerState::Paused
            | ContainerState::Restarting
            | ContainerState::Exited { .. }
            | ContainerState::Removing
            | ContainerState::Dead,
            _,
        ) => Some(Reason::Unhealthy),
    }
}

/// Removes what the accepted release replaced: containers first, then networks. Volumes stay.
fn clean_up(draft: &mut Draft<'_>, app: &AppId, release: &Release, services: &[Place<'_>]) {
    let replaced = services.iter().flat_map(|p| p.predecessors.iter().copied());
    let replaced: Vec<_> = replaced.chain(leftovers(draft, app, release)).collect();
    for seen in &replaced {
        let chain = places::stop_and_remove(draft, seen);
        draft.add(Some(app), Some(&seen.service), chain);
    }
    gone::remove_parked(draft, app);
    if !replaced.is_empty() {
        return;
    }
    gone::remove_networks(draft, app, |n| !networks::is_of(release, n));
}

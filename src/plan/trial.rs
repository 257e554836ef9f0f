//! Decides whether a release on trial is rejected, must be watched further, or may be accepted.

use crate::model::{ContainerState, Health, ObservedService, Reason, Step};

use super::containers::is_up;
use super::draft::{CLEAR, Concern, Draft, PENDING};
use super::slots::{Goal, Slot};
use super::stop_first::is_pulled_after_stop;
use super::{create, pull, words};

/// If the engine has restarted one container this many times, the release on trial is rejected.
const RESTARTS: u64 = 3;

/// If the device has booted this many times during one trial, the release is rejected.
const BOOTS: u32 = 3;

/// If one container has failed to start this many times, the release on trial is rejected.
const STARTS: u32 = 3;

/// Rejects a release whose trial has failed.
///
/// If there is no good release to roll back to, the release keeps running instead, a wait says what is wrong with
/// it, and it is accepted when it becomes healthy.
pub(super) fn reject_failed(draft: &mut Draft<'_>, goal: &Goal<'_>) -> Concern {
    let Some(why) = failure(goal) else { return CLEAR };
    let app = goal.app.id;
    if goal.fallback().is_none() {
        let why = format!("{why}; there is no earlier release to roll back to");
        draft.wait(Some(app), None, Reason::Degraded, why, None);
        return CLEAR;
    }
    let reject = Step::Reject { app: app.clone(), release: goal.release.commit.clone(), why };
    draft.add(Some(app), None, vec![reject]);
    PENDING
}

/// Records that the release is on trial from now on, before something of it starts.
pub(super) fn begin(draft: &mut Draft<'_>, goal: &Goal<'_>) -> Concern {
    if !must_begin(goal) {
        return CLEAR;
    }
    let (app, release) = (goal.app.id.clone(), goal.release.commit.clone());
    draft.add(Some(goal.app.id), None, vec![Step::Try { app, release }]);
    PENDING
}

/// Returns `true` if a container of the release is about to start, or runs although the release was never on trial. A
/// release that only drops a service has a trial, too, because the other services may depend on that service.
fn must_begin(goal: &Goal<'_>) -> bool {
    if goal.is_accepted() || goal.trial().is_some() {
        return false;
    }
    let starts = |slot: &Slot<'_>| slot.container.is_none() || slot.needs_start();
    goal.slots.iter().any(starts) || goal.lacks_trial() || goal.dropped().any(is_up)
}

/// Waits until the release has been healthy for its full soak. A release that changes no container has no trial. If
/// another release was accepted before it, it needs no soak either.
pub(super) fn soak(draft: &mut Draft<'_>, goal: &Goal<'_>) -> Concern {
    let app = goal.app;
    if goal.trial().is_none() && app.good().is_some() {
        return CLEAR;
    }
    let soak = goal.release.trial.soak.unwrap_or(app.at.settings.soak);
    let steady = app.at.steady.get(app.id).copied().unwrap_or_default();
    let Some(left) = soak.checked_sub(steady).filter(|left| !left.is_zero()) else { return CLEAR };
    let why =
        format!("release {} runs well and is on trial for {}", goal.release.commit, words::duration(soak));
    draft.wait(Some(app.id), None, Reason::Trial, why, Some(left));
    PENDING
}

/// Returns why the trial of a release has failed, or why the release cannot even be created. `None` while it may
/// still become healthy, and while the device is held.
fn failure(goal: &Goal<'_>) -> Option<String> {
    let app = goal.app;
    if app.is_held() {
        return None;
    }
    if let Some(why) = goal.slots.iter().find_map(|slot| failure_to_create(goal, slot)) {
        return Some(why);
    }
    let trial = goal.trial()?;
    let failed = goal.slots.iter().filter(|slot| slot.is_to_run).find_map(|slot| {
        let why = failure_of_container(slot)?;
        Some(format!("{} {why}", slot.name))
    });
    let failed = failed.or_else(|| goal.slots.iter().find_map(failure_of_pull));
    if failed.is_some() {
        return failed;
    }
    let deadline = goal.release.trial.deadline.unwrap_or(app.at.settings.deadline);
    // A release that is well at its deadline may still complete its soak.
    let is_well = app.at.steady.contains_key(app.id);
    if trial.ran >= deadline && !is_well {
        return Some(format!("not accepted within {}", words::duration(deadline)));
    }
    (trial.boots >= BOOTS).then(|| format!("the device booted {} times during its trial", trial.boots))
}

fn failure_of_container(slot: &Slot<'_>) -> Option<String> {
    let seen = slot.container?;
    // A container that we stopped is about to be started again. Its exit code says nothing about this trial.
    let is_to_continue = !is_up(seen) && slot.app.was_stopped(seen);
    if !slot.app.is_new(seen) || is_to_continue {
        return None;
    }
    if seen.restarts >= RESTARTS {
        let last = seen.last_end.as_ref().map_or(String::new(), |end| format!("; it last {end}"));
        return Some(format!("was restarted {} times by the engine{last}", seen.restarts));
    }
    if let ContainerState::Exited { code } = seen.state
        && code != 0
        && !slot.spec.restart.is_forever()
    {
        return Some(words::end(seen, code));
    }
    if seen.state == ContainerState::Running && seen.health == Health::Unhealthy {
        return Some("is unhealthy".to_owned());
    }
    failure_to_start(slot, seen)
}

fn failure_to_start(slot: &Slot<'_>, seen: &ObservedService) -> Option<String> {
    let failed = slot.app.at.failed_steps.iter().find(|(step, failure)| {
        matches!(step, Step::Start { container, .. } if *container == seen.container)
            && failure.attempts >= STARTS
    });
    failed.map(|(_, failure)| format!("does not start: {}", failure.why))
}

/// Returns why the engine will never create the container of a service.
fn failure_to_create(goal: &Goal<'_>, slot: &Slot<'_>) -> Option<String> {
    if slot.container.is_some() {
        return None;
    }
    let step = create::step(goal, slot);
    let failure = goal.app.at.failed_steps.get(&step).filter(|failure| failure.remaining.is_none())?;
    Some(format!("{} cannot be created: {}", slot.name, failure.why))
}

/// Returns why the image of a service cannot be pulled, if its predecessor was stopped before the pull and the agent
/// gave up.
fn failure_of_pull(slot: &Slot<'_>) -> Option<String> {
    if !is_pulled_after_stop(slot) {
        return None;
    }
    if let Some(why) = pull::given_up(slot) {
        return Some(format!("{} cannot be pulled: {why}", slot.name));
    }
    let pull = Step::Pull { image: slot.spec.image.clone() };
    let failure = slot.app.at.failed_steps.get(&pull).filter(|failure| failure.remaining.is_none())?;
    Some(format!("{} cannot be pulled: {}", slot.name, failure.why))
}

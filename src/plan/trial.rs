//! Whether a release that is being tried is good, bad, or still to be watched.

use std::time::Duration;

use crate::model::{
    AppId, ContainerState, Health, ObservedService, Reason, Release, RestartPolicy, Step, Trial,
};

use super::Draft;
use super::places::{Place, is_early, is_up};

/// How often the engine may restart a container on trial before that counts as a crash loop.
const RESTARTS: u64 = 3;

/// How often the device may boot during one trial.
const BOOTS: u32 = 3;

/// How often the same container may fail to start.
const STARTS: u32 = 3;

/// Whether `release` was tried and taken back; the reason then.
pub(super) fn rejection<'a>(draft: &Draft<'a>, app: &AppId, release: &Release) -> Option<&'a str> {
    let ledger = draft.ledger(app)?;
    let rejected = ledger.rejected.as_ref().filter(|_| ledger.good.as_ref() != Some(release))?;
    (rejected.release == release.key()).then_some(rejected.why.as_str())
}

/// The trial of `release`, if it has begun.
pub(super) fn of<'a>(draft: &Draft<'a>, app: &AppId, release: &Release) -> Option<&'a Trial> {
    draft.ledger(app)?.trial.as_ref().filter(|trial| trial.release == release.key())
}

/// The good release, when it is another one than `release`.
pub(super) fn other_good<'a>(draft: &Draft<'a>, app: &AppId, release: &Release) -> Option<&'a Release> {
    draft.ledger(app)?.good.as_ref().filter(|good| *good != release)
}

/// What is wrong with a release on trial, in words; `None` while it may still come good,
/// or while the device is held.
pub(super) fn verdict(
    draft: &Draft<'_>,
    app: &AppId,
    release: &Release,
    services: &[Place<'_>],
) -> Option<String> {
    if draft.at.ledger.hold.is_some() {
        return None;
    }
    let trial = of(draft, app, release)?;
    // What we stopped is about to start again, and how it ended before says nothing of this trial.
    let is_stopped = |seen: &ObservedService| {
        !is_up(seen) && draft.ledger(app).is_some_and(|a| a.stopped.contains(&seen.container))
    };
    for place in services.iter().filter(|p| p.is_to_run) {
        let is_judged = |seen: &&ObservedService| is_new(draft, app, seen) && !is_stopped(seen);
        let Some(seen) = place.container.filter(is_judged) else { continue };
        if let Some(why) = wrong_with(draft, seen, place.spec.restart) {
            return Some(format!("{} {why}", place.name));
        }
    }
    let given_up = services.iter().filter(|p| is_early(draft, app, p)).find_map(|place| {
        let pull = Step::Pull { image: place.spec.image.clone() };
        let cooling = draft.at.cooling.get(&pull).filter(|cooling| cooling.remaining.is_none())?;
        Some(format!("{} cannot be fetched: {}", place.name, cooling.why))
    });
    if given_up.is_some() {
        return given_up;
    }
    let deadline = release.trial.deadline.unwrap_or(draft.at.settings.deadline);
    // One that is well already is given its soak, however late.
    let is_well = draft.at.steady.contains_key(app);
    if trial.ran >= deadline && !is_well {
        return Some(format!("not good after {}", told(deadline)));
    }
    (trial.boots >= BOOTS).then(|| format!("the device booted {} times during its trial", trial.boots))
}

/// Whether containers of `release` are there, beside another good release, and it is not on trial: an earlier trial
/// was cut off, and what runs has shown nothing yet.
pub(super) fn is_missing(draft: &Draft<'_>, app: &AppId, release: &Release, services: &[Place<'_>]) -> bool {
    let is_unproven = |p: &Place<'_>| p.is_to_run && p.container.is_some_and(|seen| is_new(draft, app, seen));
    of(draft, app, release).is_none()
        && other_good(draft, app, release).is_some()
        && services.iter().any(is_unproven)
}

/// Whether the container belongs to what is tried, and not to what the good release has as well.
pub(super) fn is_new(draft: &Draft<'_>, app: &AppId, seen: &ObservedService) -> bool {
    let good = draft.ledger(app).and_then(|a| a.good.as_ref());
    good.and_then(|good| good.services.get(&seen.service)).is_none_or(|spec| spec.hash != seen.spec)
}

fn wrong_with(draft: &Draft<'_>, seen: &ObservedService, policy: RestartPolicy) -> Option<String> {
    if seen.restarts >= RESTARTS {
        return Some(format!("was restarted {} times by the engine: {}", seen.restarts, seen.status));
    }
    if let ContainerState::Exited { code } = seen.state
        && code != 0
        && !policy.is_forever()
    {
        return Some(format!("exited with code {code}"));
    }
    if seen.state == ContainerState::Running && seen.health == Health::Unhealthy {
        return Some("is unhealthy".to_owned());
    }
    let failed = draft.at.cooling.iter().find(|(step, cooling)| {
        matches!(step, Step::Start { container, .. } if *container == seen.container)
            && cooling.attempts >= STARTS
    });
    failed.map(|(_, cooling)| format!("does not start: {}", cooling.why))
}

/// All is well: whether it has been for long enough; the watching that is left is told otherwise.
pub(super) fn has_soaked(draft: &mut Draft<'_>, app: &AppId, release: &Release) -> bool {
    if of(draft, app, release).is_none() && draft.good(app).is_some() {
        // It was never tried, because it changed no container.
        return true;
    }
    let soak = release.trial.soak.unwrap_or(draft.at.settings.soak);
    let steady = draft.at.steady.get(app).copied().unwrap_or_default();
    let Some(left) = soak.checked_sub(steady).filter(|left| !left.is_zero()) else { return true };
    let why = format!("release {} runs well and is watched for {}", release.commit, told(soak));
    draft.wait(Some(app), None, Reason::Trial, why, Some(left));
    false
}

/// A duration in whole seconds, or milliseconds where that is all there is.
fn told(duration: Duration) -> String {
    if duration < Duration::from_secs(1) {
        format!("{} ms", duration.as_millis())
    } else {
        format!("{} s", duration.as_secs())
    }
}

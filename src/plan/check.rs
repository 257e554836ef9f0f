//! Holds a plan against the safety rules, without knowing how it was made.
//!
//! The reconciler refuses to run a stage with a violation, and every test of the planner runs this.

use crate::model::{
    AppId, ContainerId, ContainerState, ObservedService, Plan, Release, ServiceName, ServiceSpec, Step,
    TargetApp,
};

use super::{Situation, app::is_up};

/// The safety rules that `plan` breaks, in words; empty when it is safe to run.
#[must_use]
pub fn violations(at: &Situation<'_>, plan: &Plan) -> Vec<String> {
    let mut found = Vec::new();
    let mut stopped: Vec<&ContainerId> = Vec::new();
    for (n, step) in plan.stage.iter().enumerate() {
        if plan.stage[..n].contains(step) {
            found.push(format!("{step}: twice in one stage"));
        }
        if at.cooling.contains_key(step) {
            found.push(format!("{step}: repeated before its time"));
        }
        if let Some(why) = violation(at, step, &stopped) {
            found.push(format!("{step}: {why}"));
        }
        if let Step::Stop { container, .. } = step {
            stopped.push(container);
        }
    }
    let pulls = plan.stage.iter().filter(|s| matches!(s, Step::Pull { .. })).count();
    if pulls > 0 && pulls + at.pulling.len() > at.settings.parallel_pulls {
        found.push(format!("{pulls} pulls besides {} under way", at.pulling.len()));
    }
    found
}

/// What is wrong with one step; `stopped` are the containers that steps before it stop.
fn violation(at: &Situation<'_>, step: &Step, stopped: &[&ContainerId]) -> Option<&'static str> {
    let Some(target) = at.target.filter(|t| !t.apps.is_empty()) else {
        return Some("there is no target, or one that names no app");
    };
    let app = step.app();
    let wanted = app.and_then(|app| match target.apps.get(app) {
        Some(TargetApp::Wanted(wanted)) => wanted.release.as_ref(),
        Some(TargetApp::Refused(_)) | None => None,
    });
    let ledger = app.and_then(|app| at.ledger.apps.get(app));
    let good = ledger.and_then(|a| a.good.as_ref());
    // What was rejected is not wanted: the good release is.
    let rejected = ledger.and_then(|a| a.rejected.as_ref()).map(|r| &r.release);
    let is_rejected = wanted.is_some_and(|wanted| rejected == Some(&wanted.key()));
    let is_refused = app.is_some_and(|app| matches!(target.apps.get(app), Some(TargetApp::Refused(_))));
    let wanted = if is_rejected || is_refused { good } else { wanted };
    let is_of = |release: Option<&Release>, seen: &ObservedService| {
        release.and_then(|r| r.services.get(&seen.service)).is_some_and(|s| s.hash == seen.spec)
    };
    if is_refused {
        // Only the way back from a trial that was cut off.
        let is_back = match step {
            Step::Stop { container, .. } => find(at, container).is_some_and(|seen| !is_of(good, seen)),
            Step::Start { container, .. } => find(at, container).is_some_and(|seen| is_of(good, seen)),
            Step::Pull { .. }
            | Step::Weigh { .. }
            | Step::Kill { .. }
            | Step::RemoveByForce { .. }
            | Step::Park { .. }
            | Step::Heal { .. }
            | Step::Unlock { .. }
            | Step::CreateNetwork { .. }
            | Step::Create { .. }
            | Step::Remove { .. }
            | Step::RemoveNetwork { .. }
            | Step::RemoveImage { .. }
            | Step::Try { .. }
            | Step::Reject { .. }
            | Step::Commit { .. }
            | Step::Forget { .. } => false,
        };
        if good.is_none() || !is_back {
            return Some("its app is refused and must stay as it is");
        }
    }
    let is_held = at.ledger.hold.is_some();
    match step {
        Step::Stop { container, .. } => {
            let seen = find(at, container)?;
            if is_held && is_up(seen) {
                return Some("the device is held");
            }
            let wanted = wanted?;
            let is_stranger = !is_of(good, seen) && !is_of(Some(wanted), seen);
            if is_stranger && good.is_some_and(|good| is_ready(at, good, &seen.app)) {
                return None;
            }
            (!is_ready(at, wanted, &seen.app)).then_some("its release is not replaced by one that is ready")
        }
        Step::Remove { container, .. } => {
            let Some(seen) = find(at, container) else { return Some("the container is not ours") };
            if is_up(seen) && !stopped.contains(&container) {
                return Some("the container runs");
            }
            let is_dead = seen.state == ContainerState::Dead;
            let wanted = wanted.filter(|_| !is_dead)?;
            if good != Some(wanted) {
                return Some("its successor is not accepted yet");
            }
            let is_kept = wanted.services.get(&seen.service).is_some_and(|s| s.hash == seen.spec);
            let others =
                at.observed.services.iter().filter(|s| s.spec == seen.spec && s.service == seen.service);
            (is_kept && others.count() == 1).then_some("it is the one that should run")
        }
        Step::Start { container, .. } => {
            let Some(seen) = find(at, container) else { return Some("the container is not ours") };
            let is_known = is_of(wanted, seen) || is_of(good, seen);
            let rivals =
                at.observed.services.iter().filter(|s| s.app == seen.app && s.service == seen.service);
            let mut rivals = rivals.filter(|s| is_up(s) && s.container != *container);
            if !is_known {
                return Some("no release we know of has this spec");
            }
            if is_held && good.is_some() && !is_of(good, seen) {
                return Some("the device is held");
            }
            rivals
                .any(|s| !stopped.contains(&&s.container))
                .then_some("another container of the service runs")
        }
        Step::RemoveImage { image } => {
            let releases = target.apps.values().filter_map(|app| match app {
                TargetApp::Wanted(wanted) => wanted.release.as_ref(),
                TargetApp::Refused(_) => None,
            });
            let goods = at.ledger.apps.values().flat_map(|a| a.good.iter().chain(&a.previous));
            let mut specs = releases.chain(goods).flat_map(|r| r.services.values());
            if !at.ledger.images.contains(image) {
                return Some("we did not pull it");
            }
            specs.any(|s| s.image == *image).then_some("a release needs it")
        }
        Step::Commit { .. } => {
            let Some(wanted) = wanted else { return Some("no release is wanted") };
            (!is_ready(at, wanted, app?)).then_some("it is not there whole")
        }
        Step::Try { .. } if is_held => Some("the device is held"),
        Step::Try { .. } => {
            let Some(wanted) = wanted else { return Some("no release is wanted") };
            (!is_ready(at, wanted, app?)).then_some("it is not there whole")
        }
        Step::Reject { .. } => (good.is_none() || good == wanted).then_some("there is nothing to go back to"),
        Step::Forget { .. } => wanted.is_some().then_some("a release of it is wanted"),
        Step::Pull { .. }
        | Step::Weigh { .. }
        | Step::Kill { .. }
        | Step::RemoveByForce { .. }
        | Step::Park { .. }
        | Step::Heal { .. }
        | Step::Unlock { .. }
        | Step::CreateNetwork { .. }
        | Step::Create { .. }
        | Step::RemoveNetwork { .. } => None,
    }
}

/// Whether every service of `release` has its container, so that swapping can begin.
fn is_ready(at: &Situation<'_>, release: &Release, app: &AppId) -> bool {
    let has = |(name, spec): (&ServiceName, &ServiceSpec)| {
        at.observed.services.iter().any(|s| s.app == *app && s.service == *name && s.spec == spec.hash)
    };
    release.services.iter().all(has)
}

fn find<'a>(at: &Situation<'a>, container: &ContainerId) -> Option<&'a ObservedService> {
    at.observed.services.iter().find(|s| s.container == *container)
}

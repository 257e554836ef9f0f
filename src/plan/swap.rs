//! The swap: service by service, predecessor stopped and successor started, in the order of `depends_on`.

use std::time::Duration;

use crate::model::{
    AppId, Condition, ContainerState, Health, ObservedService, Reason, Release, ServiceSpec, Step, Strategy,
};

use super::Draft;
use super::places::{Place, is_up, leftovers, needs_start, stop};
use super::{networks, trial};

/// Whether nothing is left to stop or start; the next few swaps otherwise.
pub(super) fn swap(draft: &mut Draft<'_>, app: &AppId, release: &Release, services: &[Place<'_>]) -> bool {
    // The good release comes back whatever had failed of it: that was so when it was good.
    if draft.good(app) != Some(release) && has_failed(draft, app, services) {
        return false;
    }
    let mut is_complete = true;
    for place in services {
        let Some(seen) = place.container else { continue };
        let up: Vec<&ObservedService> = place.predecessors.iter().copied().filter(|p| is_up(p)).collect();
        let is_starting = needs_start(draft, app, seen, place);
        if let Some(timeout) = hands_over(draft, app, release, place).filter(|_| !up.is_empty()) {
            is_complete = false;
            let left = if is_up(seen) { time_to_take_over(draft, app, place, timeout) } else { None };
            if let Some(left) = left {
                let why =
                    format!("runs beside its predecessor until it says so, {} s at most", timeout.as_secs());
                draft.wait(Some(app), Some(place.name), Reason::HandOver, why, Some(left));
                continue;
            }
            if is_starting {
                match missing_dependency(place.spec, services) {
                    Some(why) => draft.wait(Some(app), Some(place.name), Reason::Dependency, why, None),
                    None => {
                        let chain = networks::start(draft, app, release, place, seen);
                        draft.add_swap(app, place.name, chain);
                    }
                }
                continue;
            }
        }
        let mut chain: Vec<Step> = up.iter().map(|p| stop(draft, p)).collect();
        if is_starting {
            chain.extend(networks::start(draft, app, release, place, seen));
        } else if !place.is_to_run && is_up(seen) {
            chain.push(stop(draft, seen));
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
        let chain = vec![stop(draft, seen)];
        draft.add_swap(app, &seen.service, chain);
    }
    is_complete
}

/// Whether a container of the release has failed that is not started again, beside a predecessor that runs. It
/// takes nobody's place, and neither do the others: half a release is worse than the old one.
fn has_failed(draft: &mut Draft<'_>, app: &AppId, services: &[Place<'_>]) -> bool {
    let mut has_failed = false;
    for place in services.iter().filter(|p| p.is_to_run && p.predecessors.iter().any(|c| is_up(c))) {
        let Some(seen) = place.container else { continue };
        let is_failed = matches!(seen.state, ContainerState::Exited { code } if code != 0);
        if is_failed && !needs_start(draft, app, seen, place) {
            has_failed = true;
            draft.wait(Some(app), Some(place.name), Reason::Unhealthy, seen.status.clone(), None);
        }
    }
    has_failed
}

/// How long the service may run beside its predecessor: only one on trial takes over so; on the way back
/// nothing is left to hand over.
fn hands_over(draft: &Draft<'_>, app: &AppId, release: &Release, place: &Place<'_>) -> Option<Duration> {
    match place.spec.strategy {
        Strategy::HandOver { timeout } => {
            trial::of(draft, app, release).filter(|_| place.is_to_run).map(|_| timeout)
        }
        Strategy::DownloadThenKill | Strategy::KillThenDownload | Strategy::DeleteThenDownload => None,
    }
}

/// How long the successor may still run beside its predecessor; `None` when it has said that it has taken
/// over, or its time is over.
fn time_to_take_over(
    draft: &Draft<'_>,
    app: &AppId,
    place: &Place<'_>,
    timeout: Duration,
) -> Option<Duration> {
    let ran = draft.ledger(app).and_then(|a| a.trial.as_ref()).and_then(|t| t.hand_over.get(place.name));
    let has_said = draft.at.facts.handed_over.contains(&(app.clone(), place.name.clone()));
    let left = timeout.saturating_sub(ran.copied().unwrap_or_default());
    (!has_said && !left.is_zero()).then_some(left)
}

/// The first dependency that is not met, in words.
fn missing_dependency(spec: &ServiceSpec, services: &[Place<'_>]) -> Option<String> {
    let missing = missing_joined(spec, services);
    missing.or_else(|| missing_condition(spec, services))
}

/// The first service that does not run whose namespaces it joins, in words.
pub(super) fn missing_joined(spec: &ServiceSpec, services: &[Place<'_>]) -> Option<String> {
    spec.joins().find_map(|(kind, name)| {
        let joined = services.iter().find(|p| p.name == name).and_then(|p| p.container);
        let runs = joined.is_some_and(|seen| seen.state == ContainerState::Running);
        (!runs).then(|| format!("{name}, whose {} it shares, does not run", kind.as_str()))
    })
}

fn missing_condition(spec: &ServiceSpec, services: &[Place<'_>]) -> Option<String> {
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

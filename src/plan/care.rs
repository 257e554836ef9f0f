//! Care for what runs: what an operator wants of a service, and a service that is unhealthy.

use std::time::Duration;

use crate::model::{AppId, ContainerState, Health, ObservedService, Reason, Step};

use super::places::{Place, is_up, start, stop};
use super::{Draft, gate};

/// Whether a service must be stopped, or stopped and started, because an operator said so. Not while the
/// device is held: then nothing that is up is stopped.
pub(super) fn follows_operator(draft: &mut Draft<'_>, app: &AppId) -> bool {
    if draft.at.ledger.hold.is_some() {
        return false;
    }
    let Some(ledger) = draft.ledger(app) else { return false };
    let mut follows = false;
    let up: Vec<&ObservedService> =
        draft.at.observed.services.iter().filter(|s| s.app == *app && is_up(s)).collect();
    for seen in up {
        let is_halted = ledger.halted.get(&seen.service).is_some_and(|halt| halt.spec == seen.spec);
        let chain = if is_halted {
            vec![stop(draft, seen)]
        } else if ledger.restart.contains(&seen.container) {
            restart(draft, seen)
        } else {
            continue;
        };
        follows |= draft.add(Some(app), Some(&seen.service), chain);
    }
    follows
}

/// Restarts services that were left behind by one whose namespaces they joined: that one was started again since,
/// and what they have of it is nobody's any more. Whether there are any.
pub(super) fn rejoin(draft: &mut Draft<'_>, app: &AppId, services: &[Place<'_>]) -> bool {
    let mut is_any = false;
    for place in services.iter().filter(|p| p.is_to_run) {
        let is_left = |s: &&ObservedService| draft.at.facts.left_behind.contains(&s.container);
        let Some(seen) = place.container.filter(is_left) else { continue };
        is_any = true;
        if !gate::is_held(draft, app) {
            draft.add_swap(app, place.name, restart(draft, seen));
        }
    }
    is_any
}

/// Restarts the services of the good release that are unhealthy, so often within a time and no more.
pub(super) fn heal(draft: &mut Draft<'_>, app: &AppId, services: &[Place<'_>]) {
    if draft.at.ledger.hold.is_some() || draft.at.settings.heals == 0 {
        return;
    }
    for place in services.iter().filter(|p| p.is_to_run) {
        let is_unhealthy =
            |s: &&ObservedService| s.state == ContainerState::Running && s.health == Health::Unhealthy;
        let Some(seen) = place.container.filter(is_unhealthy) else { continue };
        let healed = draft.ledger(app).and_then(|a| a.heals.get(place.name)).copied().unwrap_or_default();
        if healed >= draft.at.settings.heals {
            let window = in_words(draft.at.settings.heal_window);
            let times = if healed == 1 { "once".to_owned() } else { format!("{healed} times") };
            let why =
                format!("is unhealthy, though it was restarted {times} within {window}; it is left as it is");
            draft.wait(Some(app), Some(place.name), Reason::Unhealthy, why, None);
            continue;
        }
        let heal = Step::Heal { app: app.clone(), service: place.name.clone() };
        let chain = std::iter::once(heal).chain(restart(draft, seen)).collect();
        draft.add_swap(app, place.name, chain);
    }
}

/// The steps that stop a container and start it again.
fn restart(draft: &Draft<'_>, seen: &ObservedService) -> Vec<Step> {
    std::iter::once(stop(draft, seen)).chain(start(draft, seen)).collect()
}

/// Minutes where it is whole ones, else seconds.
fn in_words(time: Duration) -> String {
    match time.as_secs() {
        seconds if seconds % 60 == 0 => format!("{} min", seconds / 60),
        seconds => format!("{seconds} s"),
    }
}

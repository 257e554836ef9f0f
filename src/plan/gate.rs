//! What forbids a swap for now: a hold, a lock, or a closed maintenance window.
//!
//! While the device is held, nothing that is up is stopped and no trial begins. Images are still pulled and containers
//! created, and a service of the good release of which nothing runs is started. A trial that has begun is neither
//! counted nor judged. A release that runs completely and well is accepted, because that stops nothing.
//!
//! Locks and windows only keep a swap from beginning. A swap that has begun is finished, and a rollback is finished,
//! too, because half a release is worse than either of the two.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::model::{
    AppId, AppLedger, Clock, Observed, Reason, ServiceName, ServiceSpec, Window, WindowState,
};

use super::app::AppSituation;
use super::containers::is_up;
use super::draft::{CLEAR, Concern, Draft, PENDING};
use super::slots::{Goal, Slot};

/// How long, in total, a clock that cannot be trusted may keep windows closed.
pub const CLOCK_PATIENCE: Duration = Duration::from_secs(24 * 3600);

/// Waits while the device is held, or while a lock or a window forbids what comes next: to stop something that is up,
/// or to start something that the good release does not have.
pub(super) fn check(draft: &mut Draft<'_>, goal: &Goal<'_>) -> Concern {
    let app = goal.app;
    let stops = stops_something(goal);
    if !stops && !starts_something_new(goal) {
        // Containers of a trial that was cut off are not judged while the device is held.
        return if goal.lacks_trial() { check_hold(draft, app) } else { CLEAR };
    }
    check_hold(draft, app)?;
    if goal.trial().is_some() || is_forced(goal) {
        return CLEAR;
    }
    // No lock delays a first release. Windows delay neither a first release nor a rollback, because no good release
    // would run in the meantime.
    let is_update = goal.fallback().is_some();
    if stops || is_update {
        check_locks(draft, app)?;
    }
    if is_update {
        check_windows(draft, app, &goal.release.windows)?;
    }
    CLEAR
}

/// Returns `true` if the swap to the release stops a container.
fn stops_something(goal: &Goal<'_>) -> bool {
    goal.slots.iter().any(|slot| slot.has_predecessor_up() || (!slot.is_to_run && slot.is_up()))
        || goal.dropped().any(is_up)
}

/// Returns `true` if the swap starts a container, and that may need permission. The good release may always be
/// started, and so may a first release whose trial has begun, because nothing else is there to be kept alive.
fn starts_something_new(goal: &Goal<'_>) -> bool {
    let is_first = goal.app.good().is_none();
    if goal.is_accepted() || (is_first && goal.trial().is_some()) {
        return false;
    }
    let starts = |slot: &Slot<'_>| match slot.container {
        Some(_) => slot.needs_start(),
        // Its predecessor stops before its image is pulled.
        None => slot.is_to_run,
    };
    goal.slots.iter().any(starts)
}

/// Returns `true` if an operator lets this release pass locks and windows.
fn is_forced(goal: &Goal<'_>) -> bool {
    let forced = goal.app.ledger.and_then(|ledger| ledger.forced.as_ref());
    forced.is_some_and(|key| *key == goal.release.key())
}

/// Waits while an app that is to be removed may not be touched.
pub(super) fn check_removal(draft: &mut Draft<'_>, app: AppSituation<'_>) -> Concern {
    check_hold(draft, app)?;
    check_locks(draft, app)?;
    check_windows(draft, app, &BTreeSet::new())
}

/// Waits while an operator holds the device.
pub(super) fn check_hold(draft: &mut Draft<'_>, app: AppSituation<'_>) -> Concern {
    let Some(hold) = &app.at.ledger.hold else { return CLEAR };
    let why = format!("held since {}: {}", hold.since, hold.reason);
    draft.wait(Some(app.id), None, Reason::Held, why, None);
    PENDING
}

/// Returns `true` if a lock file of the service counts: a container of the service is up, or is about to be started
/// again. The lock file of a service that has finished, or that an operator stopped, delays nothing.
#[must_use]
pub fn may_lock(observed: &Observed, ledger: Option<&AppLedger>, app: &AppId, service: &ServiceName) -> bool {
    let mut of_service = observed.services.iter().filter(|s| s.app == *app && s.service == *service);
    let spec = ledger.and_then(|a| a.good.as_ref()).and_then(|good| good.services.get(service));
    let is_stopped_by_operator = |spec: &ServiceSpec| {
        ledger.and_then(|a| a.stopped_by_operator.get(service)).is_some_and(|halt| halt.spec == spec.hash)
    };
    of_service.any(is_up)
        || spec
            .is_some_and(|spec| spec.is_running && spec.restart.is_forever() && !is_stopped_by_operator(spec))
}

/// Waits while the app or an operator has locked updates.
///
/// While the agent's lock files exist, an app cannot hold a lock. So neither a swap that has begun nor a rollback is
/// delayed.
pub(super) fn check_locks(draft: &mut Draft<'_>, app: AppSituation<'_>) -> Concern {
    let at = app.at;
    if at.facts.own_locks.contains(app.id)
        || at.target.as_ref().is_some_and(|target| target.is_lock_overridden)
    {
        return CLEAR;
    }
    let mut concern = CLEAR;
    for (service, lock) in at.facts.locks.get(app.id).into_iter().flatten() {
        if may_lock(&at.observed, app.ledger, app.id, service) {
            concern = PENDING;
            let why = format!("{service} holds {}", lock.path);
            draft.wait(Some(app.id), Some(service), Reason::Locked, why, None);
        }
    }
    for lease in &at.ledger.leases {
        if lease.is_in_force(&at.boot_id, at.facts.uptime) {
            concern = PENDING;
            let why = format!("{} holds lock {}: {}", lease.owner, lease.id, lease.reason);
            let left = lease.until.saturating_sub(at.facts.uptime);
            draft.wait(Some(app.id), None, Reason::Locked, why, Some(left));
        }
    }
    concern
}

/// Waits while every maintenance window is closed. The windows of the release count, or else those of the device.
fn check_windows(draft: &mut Draft<'_>, app: AppSituation<'_>, own: &BTreeSet<Window>) -> Concern {
    let at = app.at;
    let windows = if own.is_empty() { &at.settings.windows } else { own };
    if windows.is_empty() {
        return CLEAR;
    }
    if let Clock::Untrusted(why) = &at.facts.clock {
        return wait_for_clock(draft, app, format!("a maintenance window is set, and {why}"));
    }
    let mut opens_in: Option<Duration> = None;
    let mut unknown = None;
    for window in windows {
        match at.facts.windows.get(window) {
            Some(WindowState::Open) => return CLEAR,
            Some(WindowState::Closed { opens_in: left }) => {
                opens_in = Some(opens_in.map_or(*left, |least| least.min(*left)));
            }
            Some(WindowState::Unknown(why)) => unknown = Some(why),
            None => {}
        }
    }
    if let (Some(why), None) = (unknown, opens_in) {
        // Time does not make a zone known, so a window of it never opens.
        draft.wait(Some(app.id), None, Reason::Window, why.clone(), None);
        return PENDING;
    }
    let listed: Vec<_> = windows.iter().map(ToString::to_string).collect();
    let why = format!("outside of {}", listed.join("; "));
    draft.wait(Some(app.id), None, Reason::Window, why, opens_in);
    PENDING
}

/// Waits for a clock that can be trusted, until [`CLOCK_PATIENCE`] is used up.
fn wait_for_clock(draft: &mut Draft<'_>, app: AppSituation<'_>, why: String) -> Concern {
    let patience = CLOCK_PATIENCE.saturating_sub(app.at.ledger.clock.waited);
    if patience.is_zero() {
        return CLEAR;
    }
    draft.wait(Some(app.id), None, Reason::Clock, why, Some(patience));
    PENDING
}

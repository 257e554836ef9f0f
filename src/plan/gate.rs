//! What says that nothing may be swapped now: a hold, a lock, a closed window.
//!
//! While the device is held nothing that is up is stopped and no trial begins. Images are fetched and
//! containers created all the same, and a service of the good release of which nothing runs comes back. A
//! trial under way is neither counted nor judged, but a release that runs whole and well is accepted: that
//! stops nothing.
//!
//! Locks and windows keep a swap from beginning. One that has begun is brought to its end, and so is the way
//! back: half a release is worse than either.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::model::{
    AppId, AppLedger, Clock, Observed, Reason, Release, ServiceName, ServiceSpec, Target, Window, WindowState,
};

use super::Draft;
use super::places::{Place, is_up, leftovers, needs_start};
use super::trial;

/// For how long, in sum, a clock that cannot be believed may keep windows closed.
pub const CLOCK_PATIENCE: Duration = Duration::from_secs(24 * 3600);

/// Whether the device is held; what is waited for is told then.
pub(super) fn is_held(draft: &mut Draft<'_>, app: &AppId) -> bool {
    let Some(hold) = &draft.at.ledger.hold else { return false };
    let why = format!("held since {}: {}", hold.since, hold.reason);
    draft.wait(Some(app), None, Reason::Held, why, None);
    true
}

/// Whether something is in the way of `release`: something that is up would have to be stopped, or
/// something would start that the good release does not have, and a hold, a lock or a window says no.
pub(super) fn blocks(draft: &mut Draft<'_>, app: &AppId, release: &Release, services: &[Place<'_>]) -> bool {
    let good = draft.good(app);
    let is_begun = trial::of(draft, app, release).is_some();
    // A first release that has begun has nothing else to keep alive.
    let may_start = good == Some(release) || (good.is_none() && is_begun);
    let stops = services
        .iter()
        .any(|p| p.predecessors.iter().any(|c| is_up(c)) || (!p.is_to_run && p.container.is_some_and(is_up)))
        || leftovers(draft, app, release).any(is_up);
    let starts = |p: &Place<'_>| match p.container {
        Some(seen) => needs_start(draft, app, seen, p),
        // Its predecessor goes before its image comes.
        None => p.is_to_run,
    };
    if !stops && (may_start || !services.iter().any(starts)) {
        // Nothing is judged while the device is held.
        return trial::is_missing(draft, app, release, services) && is_held(draft, app);
    }
    if is_held(draft, app) {
        return true;
    }
    if is_begun {
        return false;
    }
    let is_forced =
        draft.ledger(app).and_then(|a| a.forced.as_ref()).is_some_and(|key| *key == release.key());
    if is_forced {
        return false;
    }
    // A first release touches nobody who could hold a lock, and neither it nor the way back waits for a
    // window: nothing good would run meanwhile.
    let is_new = good.is_some_and(|good| good != release);
    if (stops || is_new) && is_locked(draft, app) {
        return true;
    }
    is_new && is_shut(draft, app, &release.windows)
}

/// Whether an app that is to go may not be touched now.
pub(super) fn keeps(draft: &mut Draft<'_>, app: &AppId) -> bool {
    is_held(draft, app) || is_locked(draft, app) || is_shut(draft, app, &BTreeSet::new())
}

/// Whether a lock file of the service counts: something of it runs, or is about to be brought back. One that
/// was left by a service that has ended for good, or that an operator stopped, holds nobody up.
#[must_use]
pub fn may_lock(observed: &Observed, ledger: Option<&AppLedger>, app: &AppId, service: &ServiceName) -> bool {
    let mut of_service = observed.services.iter().filter(|s| s.app == *app && s.service == *service);
    let spec = ledger.and_then(|a| a.good.as_ref()).and_then(|good| good.services.get(service));
    let is_halted = |spec: &ServiceSpec| {
        ledger.and_then(|a| a.halted.get(service)).is_some_and(|halt| halt.spec == spec.hash)
    };
    of_service.any(is_up)
        || spec.is_some_and(|spec| spec.is_running && spec.restart.is_forever() && !is_halted(spec))
}

/// Whether the app or somebody of this device has locked updates. While our own locks stand, nobody else's do,
/// and what began goes on, also back.
pub(super) fn is_locked(draft: &mut Draft<'_>, app: &AppId) -> bool {
    let at = draft.at;
    if at.facts.own_locks.contains(app) || at.target.is_some_and(|target: &Target| target.is_lock_overridden)
    {
        return false;
    }
    let mut is_locked = false;
    for (service, lock) in at.facts.locks.get(app).into_iter().flatten() {
        if may_lock(at.observed, draft.ledger(app), app, service) {
            is_locked = true;
            let why = format!("{service} holds {}", lock.path);
            draft.wait(Some(app), Some(service), Reason::Locked, why, None);
        }
    }
    for lease in &at.ledger.leases {
        if lease.is_in_force(at.boot_id, at.facts.uptime) {
            is_locked = true;
            let why = format!("{} holds lock {}: {}", lease.owner, lease.id, lease.reason);
            let left = lease.until.saturating_sub(at.facts.uptime);
            draft.wait(Some(app), None, Reason::Locked, why, Some(left));
        }
    }
    is_locked
}

/// Whether every maintenance window is closed: the release's own, or else the device's.
fn is_shut(draft: &mut Draft<'_>, app: &AppId, own: &BTreeSet<Window>) -> bool {
    let at = draft.at;
    let windows = if own.is_empty() { &at.settings.windows } else { own };
    if windows.is_empty() {
        return false;
    }
    let patience = CLOCK_PATIENCE.saturating_sub(at.ledger.clock.waited);
    let unsure = |draft: &mut Draft<'_>, why: String| {
        if !patience.is_zero() {
            draft.wait(Some(app), None, Reason::Clock, why, Some(patience));
        }
        !patience.is_zero()
    };
    if let Clock::Untrusted(why) = &at.facts.clock {
        return unsure(draft, format!("a maintenance window is set, and {why}"));
    }
    let mut opens_in: Option<Duration> = None;
    let mut unknown = None;
    for window in windows {
        match at.facts.windows.get(window) {
            Some(WindowState::Open) => return false,
            Some(WindowState::Closed { opens_in: left }) => {
                opens_in = Some(opens_in.map_or(*left, |least| least.min(*left)));
            }
            Some(WindowState::Unknown(why)) => unknown = Some(why),
            None => {}
        }
    }
    if let (Some(why), None) = (unknown, opens_in) {
        return unsure(draft, why.clone());
    }
    let told: Vec<_> = windows.iter().map(ToString::to_string).collect();
    draft.wait(Some(app), None, Reason::Window, format!("outside of {}", told.join("; ")), opens_in);
    true
}

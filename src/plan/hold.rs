//! An operator's hold: what runs stays as it is.
//!
//! While it lasts nothing that is up is stopped and no trial begins. Images are fetched and containers
//! created all the same, and a service of the good release of which nothing runs comes back. A trial under
//! way is neither counted nor judged, but a release that runs whole and well is accepted: that stops nothing.

use crate::model::{AppId, Reason, Release};

use super::Draft;
use super::app::{Place, is_up, leftovers, needs_start};
use super::trial;

/// Whether the device is held; what is waited for is told then.
pub(super) fn keeps(draft: &mut Draft<'_>, app: &AppId) -> bool {
    let Some(hold) = &draft.at.ledger.hold else { return false };
    let why = format!("held since {}: {}", hold.since, hold.reason);
    draft.wait(Some(app), None, Reason::Held, why, None);
    true
}

/// Whether a hold is in the way of `release`: something that is up would have to be stopped, or
/// something would start that the good release does not have.
pub(super) fn blocks(draft: &mut Draft<'_>, app: &AppId, release: &Release, services: &[Place<'_>]) -> bool {
    let good = draft.at.ledger.apps.get(app).and_then(|a| a.good.as_ref());
    // A first release that has begun has nothing else to keep alive.
    let may_start = good == Some(release) || (good.is_none() && trial::of(draft, app, release).is_some());
    let stops = |p: &Place<'_>| {
        p.predecessors.iter().any(|c| is_up(c)) || (!p.spec.is_running && p.container.is_some_and(is_up))
    };
    let starts = |p: &Place<'_>| p.container.is_some_and(|c| needs_start(draft, app, c, p.spec));
    let is_swap = services.iter().any(|p| stops(p) || (!may_start && starts(p)))
        || leftovers(draft, app, release).any(is_up);
    is_swap && keeps(draft, app)
}

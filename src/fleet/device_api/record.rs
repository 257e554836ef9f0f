//! The record in the audit trail of what a device does itself.

use crate::fleet::access::{By, DEVICE, Entry, MOST_THINGS, Outcome};
use crate::fleet::clock;
use crate::fleet::policy::{Change, Device, World};

/// What a device does.
pub(super) struct Act {
    /// "delete a device".
    pub(super) what: &'static str,
    /// Method and path.
    pub(super) request: String,
    pub(super) why: &'static str,
    /// The address of the client.
    pub(super) from: Option<String>,
}

/// Adds the record of the audit trail to the changes of an act of this device.
pub(super) fn recorded(world: &World, device: &Device, act: Act, mut changes: Vec<Change>) -> Vec<Change> {
    let (things, count, fleets) = world.things(&changes, MOST_THINGS);
    let entry = Entry {
        number: world.audited() + 1,
        at: clock::now(),
        // No user and no token has a name that begins so.
        by: By { user: None, token: format!("{DEVICE} {}", device.name), id: String::new() },
        from: act.from,
        what: act.what.to_owned(),
        request: act.request,
        things,
        count,
        fleets: fleets.into_iter().collect(),
        details: world.details(&changes),
        why: Some(act.why.to_owned()),
        outcome: Outcome::Done,
    };
    changes.push(Change::Audit(Box::new(entry)));
    changes
}

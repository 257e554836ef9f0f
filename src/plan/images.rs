//! Which images may go: those that we pulled and that no release we know of needs.

use std::collections::BTreeSet;

use crate::model::{ImageRef, Step, Target, TargetApp};

use super::Draft;

/// Removes images, once nothing else is to be done and every app runs what it should.
///
/// Kept are those of every wanted release, of every good one and the one before it (going back needs
/// no network) and of every container of ours. While an app is refused or on its way, all are kept.
pub(super) fn collect(draft: &mut Draft<'_>, target: &Target) {
    let at = draft.at;
    if !at.pulling.is_empty() {
        return;
    }
    let mut kept: BTreeSet<&ImageRef> = BTreeSet::new();
    for (id, app) in &target.apps {
        let TargetApp::Wanted(wanted) = app else { return };
        let ledger = at.ledger.apps.get(id);
        let good = ledger.and_then(|a| a.good.as_ref());
        if good != wanted.release.as_ref() {
            return;
        }
        let previous = ledger.and_then(|a| a.previous.as_ref());
        kept.extend(
            good.into_iter().chain(previous).flat_map(|release| release.services.values()).map(|s| &s.image),
        );
    }
    let used: BTreeSet<&str> = at.observed.services.iter().map(|s| s.image.as_str()).collect();
    for image in &at.ledger.images {
        if !kept.contains(image) && !used.contains(image.to_string().as_str()) {
            draft.add(None, None, vec![Step::RemoveImage { image: image.clone() }]);
        }
    }
}

//! Which images may go: those that we pulled and that no release we know of needs.

use std::collections::BTreeSet;

use crate::model::{ImageRef, Step};

use super::Draft;

/// Removes images, whenever nothing else is to be done, also while an update waits for something.
///
/// Kept are those of every wanted release, of every good one and the one before it (going back needs
/// no network) and of every container of ours.
pub(super) fn collect(draft: &mut Draft<'_>) {
    let at = draft.at;
    if !at.pulling.is_empty() {
        return;
    }
    let mut kept: BTreeSet<&ImageRef> = BTreeSet::new();
    kept.extend(draft.wanted_images());
    // An app on its way out is in the ledger until nothing is left of it.
    let remembered = at.ledger.apps.values().flat_map(|a| a.good.iter().chain(&a.previous));
    kept.extend(remembered.flat_map(|release| release.services.values()).map(|s| &s.image));
    let used: BTreeSet<&str> = at.observed.services.iter().map(|s| s.image.as_str()).collect();
    for image in &at.ledger.images {
        if !kept.contains(image) && !used.contains(image.to_string().as_str()) {
            draft.add(None, None, vec![Step::RemoveImage { image: image.clone() }]);
        }
    }
}

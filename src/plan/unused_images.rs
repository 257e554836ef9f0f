//! Removes images that we pulled and that no known release needs.

use std::collections::BTreeSet;

use crate::model::{ImageRef, Step};

use super::draft::Draft;
use super::situation::Situation;

/// Removes unused images. Runs whenever there is no other step, also while an update waits.
///
/// The images of these stay: every wanted release, every good release and the one accepted before it (so that a
/// rollback needs no network), and every container of ours.
pub(super) fn remove_unused(draft: &mut Draft<'_>, at: &Situation) {
    if !at.pulling.is_empty() {
        return;
    }
    let mut kept: BTreeSet<&ImageRef> = BTreeSet::new();
    kept.extend(draft.wanted_images());
    // An app that is being removed is in the ledger until nothing is left of it.
    let accepted = at.ledger.apps.values().flat_map(|app| app.good.iter().chain(&app.previous));
    kept.extend(accepted.flat_map(|release| release.services.values()).map(|s| &s.image));
    let used: BTreeSet<&str> = at.observed.services.iter().map(|s| s.image.as_str()).collect();
    for image in &at.ledger.images {
        if !kept.contains(image) && !used.contains(image.to_string().as_str()) {
            draft.add(None, None, vec![Step::RemoveImage { image: image.clone() }]);
        }
    }
}

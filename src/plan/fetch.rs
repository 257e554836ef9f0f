//! The images of a release: those that come before anything is touched, and those whose author wants the
//! predecessor to go first.

use crate::model::{AppId, ImageRef, Reason, Release, Step, Strategy};

use super::places::{Place, is_up, remove, stop};
use super::{Draft, create};

/// Whether every image that a successor needs is here; pulls of the missing ones otherwise.
pub(super) fn images(draft: &mut Draft<'_>, app: &AppId, services: &[&Place<'_>]) -> bool {
    let mut is_complete = true;
    for place in services.iter().filter(|p| p.container.is_none()) {
        let image = &place.spec.image;
        if draft.at.observed.images.contains(image) {
            continue;
        }
        is_complete = false;
        let told = match draft.at.pulling.get(image) {
            Some(percent) => Some(format!("{image} at {percent} %")),
            None => pull(draft, app, place, image),
        };
        if let Some(told) = told {
            draft.wait(Some(app), Some(place.name), Reason::Downloading, told, None);
        }
    }
    is_complete
}

/// Adds a pull; what is waited for if no pull is free.
fn pull(draft: &mut Draft<'_>, app: &AppId, place: &Place<'_>, image: &ImageRef) -> Option<String> {
    let pull = Step::Pull { image: image.clone() };
    if draft.plan.stage.contains(&pull) {
        return None;
    }
    let is_put_off = draft.at.cooling.get(&pull).is_some_and(|cooling| !cooling.is_over());
    if draft.free_pulls == 0 && !is_put_off {
        return Some(format!("{image} waits its turn"));
    }
    if draft.add(Some(app), Some(place.name), vec![pull]) {
        draft.free_pulls -= 1;
    }
    None
}

/// What services on trial do whose predecessors go first: the predecessors stop; where their author wishes
/// they are removed, with their images; the images come; the containers are created.
pub(super) fn after_the_end(
    draft: &mut Draft<'_>,
    app: &AppId,
    release: &Release,
    late: &[&Place<'_>],
    services: &[Place<'_>],
) {
    let mut is_room = true;
    for place in late {
        let is_deleted = place.spec.strategy == Strategy::DeleteThenDownload;
        for seen in &place.predecessors {
            let mut chain = Vec::new();
            if is_up(seen) {
                chain.push(stop(draft, seen));
            }
            if is_deleted {
                chain.push(remove(draft, seen));
            }
            if !chain.is_empty() {
                is_room = false;
                draft.add_swap(app, place.name, chain);
            }
        }
        if is_room && is_deleted {
            is_room &= !remove_old_image(draft, app, place);
        }
    }
    if is_room && images(draft, app, late) {
        create::successors(draft, app, release, late, services);
    }
}

/// Adds the removal of the image that the service had, if it is here, ours, and nobody else's.
fn remove_old_image(draft: &mut Draft<'_>, app: &AppId, place: &Place<'_>) -> bool {
    let Some(old) = draft.good(app).and_then(|good| good.services.get(place.name)) else { return false };
    let at = draft.at;
    let is_used = at.observed.services.iter().any(|s| s.image == old.image.to_string());
    let is_wanted = draft.wanted_images().any(|image| *image == old.image);
    let is_ours = at.ledger.images.contains(&old.image) && at.observed.images.contains(&old.image);
    if is_used || is_wanted || !is_ours {
        return false;
    }
    // One that cannot be removed takes no more room than before: the download is tried all the same.
    let step = Step::RemoveImage { image: old.image.clone() };
    let has_failed = at.cooling.contains_key(&step);
    !has_failed && draft.add(Some(app), Some(place.name), vec![step])
}

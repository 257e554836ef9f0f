//! Pulls the images of a release: most of them before any container is touched, some after the predecessor of their
//! service has stopped, because their author says so.

use crate::model::{Reason, Step, Strategy};

use super::containers::{is_up, remove, stop};
use super::create;
use super::draft::{Addition, CLEAR, Concern, Draft, PENDING, run_all};
use super::slots::{Goal, Slot};
use super::words::mib;

/// Pulls the images of these services that are missing, and waits for those that are being pulled.
pub(super) fn images(draft: &mut Draft<'_>, slots: &[&Slot<'_>]) -> Concern {
    run_all(slots.iter().filter(|slot| slot.needs_image()).map(|slot| {
        image(draft, slot);
        PENDING
    }))
}

fn image(draft: &mut Draft<'_>, slot: &Slot<'_>) {
    let image = &slot.spec.image;
    if let Some(at) = slot.app.at.pulling.get(image) {
        wait(draft, slot, format!("{image} at {} %", at.percent));
        return;
    }
    if let Some(why) = given_up(slot) {
        draft.wait(Some(slot.app.id), Some(slot.name), Reason::DownloadGivenUp, why, None);
        return;
    }
    let pull = Step::Pull { image: image.clone() };
    if draft.plan.stage.contains(&pull) {
        return;
    }
    if !draft.has_free_pull() && draft.put_off(&pull).is_none() {
        wait(draft, slot, format!("{image} waits for another pull to end"));
        return;
    }
    draft.add_pull(slot.app.id, slot.name, pull);
}

/// Why the image of a service is not downloaded any more; `None`: it may be.
pub(super) fn given_up(slot: &Slot<'_>) -> Option<String> {
    let image = &slot.spec.image;
    let download = slot.app.at.ledger.downloads.get(image)?;
    let size = slot.app.at.facts.missing_bytes(image);
    if !download.is_given_up(size) {
        return None;
    }
    let last = if download.why.is_empty() { "its downloads were interrupted" } else { &download.why };
    Some(format!(
        "{image} is not downloaded any more: {} were fetched, and it needs {}; {last}; \
         a new target or `cotter retry` starts again",
        mib(download.fetched),
        mib(download.needed(size)),
    ))
}

fn wait(draft: &mut Draft<'_>, slot: &Slot<'_>, why: String) {
    draft.wait(Some(slot.app.id), Some(slot.name), Reason::Downloading, why, None);
}

/// Carries out the part of a trial in which predecessors go first. They stop, and if their author says so they are
/// removed together with their images. Then the new images are pulled and the containers created.
pub(super) fn during_trial(draft: &mut Draft<'_>, goal: &Goal<'_>, slots: &[&Slot<'_>]) -> Concern {
    if slots.is_empty() {
        return CLEAR;
    }
    make_room(draft, slots)?;
    images(draft, slots)?;
    // They are swapped in a later stage, after a new observation.
    _ = create::successors(draft, goal, slots);
    PENDING
}

/// Stops and removes the predecessors of these services, as their strategies say. Their images are removed as long as
/// no predecessor of a service before them is left.
fn make_room(draft: &mut Draft<'_>, slots: &[&Slot<'_>]) -> Concern {
    let mut concern = CLEAR;
    for slot in slots {
        let is_deleted = slot.spec.strategy == Strategy::DeleteThenDownload;
        for seen in &slot.predecessors {
            let stop = is_up(seen).then(|| stop(slot.app.at, seen));
            let remove = is_deleted.then(|| remove(slot.app.at, seen));
            let chain: Vec<_> = stop.into_iter().chain(remove).collect();
            if !chain.is_empty() {
                concern = PENDING;
                draft.add_swap(slot.app.id, slot.name, chain);
            }
        }
        if concern.is_continue() && is_deleted {
            concern = remove_old_image(draft, slot);
        }
    }
    concern
}

/// Removes the image that the service had before, if we pulled it and nothing else needs it.
fn remove_old_image(draft: &mut Draft<'_>, slot: &Slot<'_>) -> Concern {
    let at = slot.app.at;
    let good = slot.app.good();
    let Some(old) = good.and_then(|good| good.services.get(slot.name)) else { return CLEAR };
    let is_used = at.observed.services.iter().any(|s| s.image == old.image.to_string());
    let is_wanted = draft.wanted_images().any(|image| *image == old.image);
    let is_ours = at.ledger.images.contains(&old.image) && at.observed.images.contains(&old.image);
    let step = Step::RemoveImage { image: old.image.clone() };
    // If the removal has failed, the pull is tried all the same: it needs no more space than before.
    if is_used || is_wanted || !is_ours || at.failed_steps.contains_key(&step) {
        return CLEAR;
    }
    match draft.add(Some(slot.app.id), Some(slot.name), vec![step]) {
        Addition::Added => PENDING,
        Addition::PutOff => CLEAR,
    }
}

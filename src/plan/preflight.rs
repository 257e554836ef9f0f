//! Checks that a release can run on this device, before its first byte is pulled and before anything stops.
//!
//! What stands in the way is reported with its numbers. It is checked again in every cycle, so the wait ends by itself
//! when the fact changes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::model::{HeldPort, HostNeed, ImageRef, PortMapping, Reason, Step, Strategy, VolumeName, runs};

use super::draft::{CLEAR, Concern, Draft, PENDING};
use super::slots::{Goal, Slot};
use super::stop_first::is_pulled_after_stop;
use super::words::mib;

/// Bytes needed on disk for each compressed byte of an image: the compressed layer is stored until it is unpacked, and
/// its content is about twice as large.
const SPACE: u64 = 3;

/// How often a fact that stands in the way is checked again.
const RECHECK: Duration = Duration::from_secs(15);

/// The services whose image is missing, by image.
type Missing<'a> = BTreeMap<&'a ImageRef, &'a Slot<'a>>;

/// Waits while the release cannot run here, or while too little is known about its images. A release that is accepted
/// or on trial has passed.
pub(super) fn check(draft: &mut Draft<'_>, goal: &Goal<'_>) -> Concern {
    if goal.is_accepted() || goal.trial().is_some() {
        return CLEAR;
    }
    let missing: Missing<'_> =
        goal.slots.iter().filter(|slot| slot.needs_image()).map(|slot| (&slot.spec.image, slot)).collect();
    // All of them are checked, so that everything that stands in the way is reported at once.
    let sizes = ask_image_sizes(draft, &missing);
    let ports = check_ports(draft, goal);
    let architecture = check_architecture(draft, &missing);
    let format = check_format(draft, &missing);
    let volumes = check_volumes(draft, goal);
    let host = check_host(draft, goal);
    sizes?;
    ports?;
    architecture?;
    format?;
    volumes?;
    host?;
    check_disk(draft, goal)
}

/// Asks the registries for the sizes of the missing images that are not known yet.
fn ask_image_sizes(draft: &mut Draft<'_>, missing: &Missing<'_>) -> Concern {
    let mut concern = CLEAR;
    for (image, slot) in missing {
        let (at, app) = (slot.app.at, slot.app.id);
        if at.facts.image_sizes.contains_key(*image) || at.pulling.contains_key(*image) {
            continue;
        }
        concern = PENDING;
        if at.measuring.contains(*image) {
            let why = format!("its registry is asked for the size of {image}");
            draft.wait(Some(app), Some(slot.name), Reason::Downloading, why, None);
        } else {
            draft.add(Some(app), Some(slot.name), vec![Step::MeasureImage { image: (*image).clone() }]);
        }
    }
    concern
}

/// Waits while an image is made only for machines of another kind.
fn check_architecture(draft: &mut Draft<'_>, missing: &Missing<'_>) -> Concern {
    let mut concern = CLEAR;
    for (image, slot) in missing {
        let Some(why) = wrong_architecture(image, slot) else { continue };
        concern = PENDING;
        draft.wait(Some(slot.app.id), Some(slot.name), Reason::WrongArchitecture, why, None);
    }
    concern
}

/// Waits while an image has layers that this engine cannot unpack. Its download would fail at the end, each time.
fn check_format(draft: &mut Draft<'_>, missing: &Missing<'_>) -> Concern {
    let mut concern = CLEAR;
    for (image, slot) in missing {
        let facts = &slot.app.at.facts;
        if !facts.lacks_zstd || !facts.image_sizes.get(*image).is_some_and(|size| size.has_zstd) {
            continue;
        }
        concern = PENDING;
        let why =
            format!("{image} has layers packed with zstd, which the engine unpacks only from Docker 23 on");
        draft.wait(Some(slot.app.id), Some(slot.name), Reason::UnsupportedImage, why, None);
    }
    concern
}

fn wrong_architecture(image: &ImageRef, slot: &Slot<'_>) -> Option<String> {
    let facts = &slot.app.at.facts;
    let ours = facts.architecture.as_deref()?;
    let size = facts.image_sizes.get(image)?;
    let made_for = || size.architectures.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
    match &slot.spec.platform {
        Some(asked) if !runs(ours).any(|runs| runs == asked.architecture) => Some(format!(
            "its platform is {asked}, and this device is {ours}: remove platform, or name one that it runs"
        )),
        Some(asked) if !size.is_for(&asked.architecture) => {
            Some(format!("its platform is {asked}, and {image} is made for {}", made_for()))
        }
        None if !size.fits(ours) => {
            Some(format!("{image} is made for {}, and this device is {ours}", made_for()))
        }
        Some(_) | None => None,
    }
}

/// Waits while a volume is here with another config than the release wants. It is never created again with the new
/// config, because its content would be lost.
fn check_volumes(draft: &mut Draft<'_>, goal: &Goal<'_>) -> Concern {
    let app = goal.app;
    let used: BTreeSet<&VolumeName> = goal.slots.iter().flat_map(|slot| slot.spec.volumes()).collect();
    if used.is_empty() {
        return CLEAR;
    }
    let Some(here) = &app.at.facts.volumes else {
        let why = "the engine does not say which volumes it has".to_owned();
        draft.wait(Some(app.id), None, Reason::Backoff, why, Some(RECHECK));
        return PENDING;
    };
    let mut concern = CLEAR;
    for name in used {
        let Some(volume) = here.get(&(app.id.clone(), name.clone())) else { continue };
        let wanted = goal.release.volumes.get(name).cloned().unwrap_or_default();
        let driver = if wanted.driver.is_empty() { "local" } else { &wanted.driver };
        if volume.driver == driver && volume.options == wanted.driver_opts {
            continue;
        }
        concern = PENDING;
        let why = format!(
            "volumes.{name}: the volume exists with {}, and the release wants {}{}. A volume is never replaced, \
             because its content would be lost: give it another name in the release, or save its content \
             and remove it: docker volume rm {}",
            config(&volume.driver, &volume.options),
            config(driver, &wanted.driver_opts),
            others(&volume.options, &wanted.driver_opts),
            volume.name,
        );
        draft.wait(Some(app.id), None, Reason::Refused, why, Some(RECHECK));
    }
    concern
}

/// A volume's config for people, without the values of its options: a password may be among them.
fn config(driver: &str, options: &BTreeMap<String, String>) -> String {
    let options: Vec<_> = options.keys().map(String::as_str).collect();
    if options.is_empty() {
        format!("driver {driver} and no options")
    } else {
        format!("driver {driver} and the options {}", options.join(", "))
    }
}

/// Which options have other values.
fn others(here: &BTreeMap<String, String>, wanted: &BTreeMap<String, String>) -> String {
    let is_other = |(name, value): &(&String, &String)| here.get(*name).is_some_and(|own| own != *value);
    let others: Vec<_> = wanted.iter().filter(is_other).map(|(name, _)| name.as_str()).collect();
    if others.is_empty() { String::new() } else { format!(", with other values of {}", others.join(", ")) }
}

/// Waits while what is to be pulled does not fit on the engine's disk. Images whose predecessors are deleted first are
/// not counted, because they get the space of those.
fn check_disk(draft: &mut Draft<'_>, goal: &Goal<'_>) -> Concern {
    let (at, facts) = (goal.app.at, &goal.app.at.facts);
    let Some(free) = facts.free else { return CLEAR };
    let is_deleted_first =
        |slot: &Slot<'_>| slot.spec.strategy == Strategy::DeleteThenDownload && is_pulled_after_stop(slot);
    let to_fit = goal.slots.iter().filter(|slot| slot.needs_image() && !is_deleted_first(slot));
    let to_fit: BTreeSet<&ImageRef> = to_fit.map(|slot| &slot.spec.image).collect();
    let mut layers: BTreeMap<&str, u64> = BTreeMap::new();
    for image in to_fit.into_iter().filter(|image| !at.pulling.contains_key(*image)) {
        let sizes = facts.image_sizes.get(image);
        layers.extend(sizes.into_iter().flat_map(|size| size.missing(facts.layers.as_ref())));
    }
    let compressed = layers.values().fold(0_u64, |sum, bytes| sum.saturating_add(*bytes));
    let need = compressed.saturating_mul(SPACE);
    let reserve = at.settings.disk_reserve;
    if need == 0 || need.saturating_add(reserve) <= free {
        return CLEAR;
    }
    let why = format!(
        "release needs {} ({} compressed, times {SPACE}), {} are free on the engine's disk, of which {} are reserved",
        mib(need),
        mib(compressed),
        mib(free),
        mib(reserve),
    );
    draft.wait(Some(goal.app.id), None, Reason::InsufficientDisk, why, Some(RECHECK));
    PENDING
}

/// Waits while the host lacks a device node or a kernel setting that a service needs to start.
///
/// Only if another release runs: its containers would have to stop. Where nothing runs, a service of the release may bring
/// the device, e.g. by loading a module.
fn check_host(draft: &mut Draft<'_>, goal: &Goal<'_>) -> Concern {
    if goal.fallback().is_none() {
        return CLEAR;
    }
    let mut concern = CLEAR;
    for slot in goal.slots.iter().filter(|slot| slot.is_to_run && !slot.is_up()) {
        for need in HostNeed::of(slot.spec) {
            let Some(why) = goal.app.at.facts.lacks.get(&need) else { continue };
            concern = PENDING;
            draft.wait(Some(goal.app.id), Some(slot.name), Reason::HostLacks, why.clone(), Some(RECHECK));
        }
    }
    concern
}

/// Waits while a host port that a service publishes is in use by something that this app does not stop.
fn check_ports(draft: &mut Draft<'_>, goal: &Goal<'_>) -> Concern {
    let app = goal.app;
    let is_ours = |held: &HeldPort| {
        held.container.as_ref().is_some_and(|id| app.containers().any(|seen| seen.container == *id))
    };
    let mut concern = CLEAR;
    for slot in goal.slots.iter().filter(|slot| slot.is_to_run && !slot.is_up()) {
        for port in &slot.spec.ports {
            let Some(number) = port.host_port else { continue };
            let mut held = app.at.facts.ports.iter();
            let Some(held) = held.find(|held| conflicts(held, port, number) && !is_ours(held)) else {
                continue;
            };
            concern = PENDING;
            let why = format!("host port {number} is in use by {}", held.by);
            draft.wait(Some(app.id), Some(slot.name), Reason::PortInUse, why, Some(RECHECK));
        }
    }
    concern
}

fn conflicts(held: &HeldPort, port: &PortMapping, number: u16) -> bool {
    let is_everywhere = |ip: &str| ip.is_empty() || ip == "0.0.0.0" || ip == "::";
    let overlaps =
        is_everywhere(&held.host_ip) || is_everywhere(&port.host_ip) || held.host_ip == port.host_ip;
    held.port == number && held.protocol == port.protocol && overlaps
}

//! Whether a release can run here at all: asked before its first byte is fetched and before anything stops.
//!
//! What stands in the way is told with its numbers. It is looked at again at every cycle, and clears by
//! itself when the fact changes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::model::{
    AppId, HeldPort, ImageRef, PortMapping, Reason, Release, Step, Strategy, VolumeName, runs,
};

use super::Draft;
use super::places::{self, Place, is_up};
use super::trial;

/// What an image takes while it is fetched, for each compressed byte: the compressed layer lies beside its
/// content until that is unpacked, and content is about twice as large.
const SPACE: u64 = 3;

/// How often a fact that stands in the way is looked at.
const LOOK: Duration = Duration::from_secs(15);

/// Whether the release cannot run here, or is not known enough yet. One that is on trial, or good, has
/// passed.
pub(super) fn blocks<'a>(
    draft: &mut Draft<'_>,
    app: &AppId,
    release: &Release,
    services: &'a [Place<'a>],
) -> bool {
    if draft.good(app) == Some(release) || trial::of(draft, app, release).is_some() {
        return false;
    }
    let is_missing =
        |p: &&Place<'_>| p.container.is_none() && !draft.at.observed.images.contains(&p.spec.image);
    let named = |p: &'a Place<'a>| (&p.spec.image, p);
    let missing: BTreeMap<&ImageRef, &Place<'_>> = services.iter().filter(is_missing).map(named).collect();
    // What deletes its predecessor first makes room of its own.
    let makes_room =
        |p: &&Place<'_>| p.spec.strategy == Strategy::DeleteThenDownload && places::is_early(draft, app, p);
    let to_fit = services.iter().filter(|p| is_missing(p) && !makes_room(p)).map(|p| &p.spec.image);
    let to_fit: BTreeSet<&ImageRef> = to_fit.collect();
    let is_weighed = weigh(draft, app, &missing);
    let is_blocked = has_taken_port(draft, app, services)
        | is_for_others(draft, app, &missing)
        | has_other_volume(draft, app, release, services);
    is_blocked || !is_weighed || is_too_large(draft, app, &to_fit)
}

/// Whether the registries were asked about all that is missing; the questions otherwise.
fn weigh(draft: &mut Draft<'_>, app: &AppId, missing: &BTreeMap<&ImageRef, &Place<'_>>) -> bool {
    let mut is_weighed = true;
    for (image, place) in missing {
        let service = place.name;
        if draft.at.facts.weights.contains_key(*image) || draft.at.pulling.contains_key(*image) {
            continue;
        }
        is_weighed = false;
        if draft.at.weighing.contains(*image) {
            let why = format!("its registry is asked how large {image} is");
            draft.wait(Some(app), Some(service), Reason::Downloading, why, None);
        } else {
            draft.add(Some(app), Some(service), vec![Step::Weigh { image: (*image).clone() }]);
        }
    }
    is_weighed
}

/// Whether an image is made for other machines only.
fn is_for_others(draft: &mut Draft<'_>, app: &AppId, missing: &BTreeMap<&ImageRef, &Place<'_>>) -> bool {
    let Some(ours) = draft.at.facts.architecture.as_deref() else { return false };
    let mut is_blocked = false;
    for (image, place) in missing {
        let Some(weight) = draft.at.facts.weights.get(*image) else { continue };
        let made_for = || weight.architectures.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        let why = match &place.spec.platform {
            Some(asked) if !runs(ours).any(|runs| runs == asked.architecture) => {
                format!(
                    "its platform is {asked}, and this device is {ours}: remove platform, or name one of its own"
                )
            }
            Some(asked) if !weight.is_for(&asked.architecture) => {
                format!("its platform is {asked}, and {image} is made for {}", made_for())
            }
            None if !weight.fits(ours) => {
                format!("{image} is made for {}, and this device is {ours}", made_for())
            }
            Some(_) | None => continue,
        };
        is_blocked = true;
        draft.wait(Some(app), Some(place.name), Reason::WrongArchitecture, why, None);
    }
    is_blocked
}

/// Whether the release wants another config of a volume that is here: it is kept as it is, and nobody would find
/// what the release says.
fn has_other_volume(draft: &mut Draft<'_>, app: &AppId, release: &Release, services: &[Place<'_>]) -> bool {
    let used: BTreeSet<&VolumeName> = services.iter().flat_map(|p| p.spec.volumes()).collect();
    if used.is_empty() {
        return false;
    }
    let Some(here) = &draft.at.facts.volumes else {
        let why = "the engine does not say which volumes it has".to_owned();
        draft.wait(Some(app), None, Reason::Backoff, why, Some(LOOK));
        return true;
    };
    let mut is_blocked = false;
    for name in used {
        let Some(volume) = here.get(&(app.clone(), name.clone())) else { continue };
        let wanted = release.volumes.get(name).cloned().unwrap_or_default();
        let driver = if wanted.driver.is_empty() { "local" } else { &wanted.driver };
        if volume.driver == driver && volume.options == wanted.driver_opts {
            continue;
        }
        is_blocked = true;
        let why = format!(
            "volumes.{name}: the volume is here with {}, and the release wants {}{}. A volume is never made anew, \
             because all that is in it would be lost: give it another name in the release, or save what is in it \
             and remove it: docker volume rm {}",
            config(&volume.driver, &volume.options),
            config(driver, &wanted.driver_opts),
            others(&volume.options, &wanted.driver_opts),
            volume.name,
        );
        draft.wait(Some(app), None, Reason::Refused, why, Some(LOOK));
    }
    is_blocked
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

/// Whether what is to be fetched does not fit on the engine's disk.
fn is_too_large(draft: &mut Draft<'_>, app: &AppId, missing: &BTreeSet<&ImageRef>) -> bool {
    let Some(free) = draft.at.facts.free else { return false };
    let here = draft.at.facts.layers.as_ref();
    let mut layers: BTreeMap<&str, u64> = BTreeMap::new();
    for image in missing.iter().filter(|image| !draft.at.pulling.contains_key(**image)) {
        layers.extend(draft.at.facts.weights.get(*image).into_iter().flat_map(|weight| weight.missing(here)));
    }
    let compressed = layers.values().fold(0_u64, |sum, bytes| sum.saturating_add(*bytes));
    let need = compressed.saturating_mul(SPACE);
    let reserve = draft.at.settings.disk_reserve;
    if need == 0 || need.saturating_add(reserve) <= free {
        return false;
    }
    let why = format!(
        "release needs {} ({} compressed, times {SPACE}), {} are free on the engine's disk, of which {} are kept back",
        mib(need),
        mib(compressed),
        mib(free),
        mib(reserve),
    );
    draft.wait(Some(app), None, Reason::InsufficientDisk, why, Some(LOOK));
    true
}

/// In MiB, rounded up: nothing that is there is told as nothing.
fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}

/// Whether a host port that a service publishes is held by somebody who will not give way.
fn has_taken_port(draft: &mut Draft<'_>, app: &AppId, services: &[Place<'_>]) -> bool {
    let at = draft.at;
    let gives_way = |held: &HeldPort| {
        let mut ours = at.observed.services.iter().filter(|s| s.app == *app);
        held.container.as_ref().is_some_and(|container| ours.any(|s| s.container == *container))
    };
    let mut is_blocked = false;
    for place in services.iter().filter(|p| p.is_to_run && !p.container.is_some_and(is_up)) {
        for port in &place.spec.ports {
            let Some(number) = port.host_port else { continue };
            let Some(held) =
                at.facts.ports.iter().find(|held| is_same(held, port, number) && !gives_way(held))
            else {
                continue;
            };
            is_blocked = true;
            let why = format!("host port {number} is held by {}", held.by);
            draft.wait(Some(app), Some(place.name), Reason::PortInUse, why, Some(LOOK));
        }
    }
    is_blocked
}

fn is_same(held: &HeldPort, port: &PortMapping, number: u16) -> bool {
    let is_everywhere = |ip: &str| ip.is_empty() || ip == "0.0.0.0" || ip == "::";
    let overlaps =
        is_everywhere(&held.host_ip) || is_everywhere(&port.host_ip) || held.host_ip == port.host_ip;
    held.port == number && held.protocol == port.protocol && overlaps
}

//! Writes into the ledger what steps change: before they run, and when they are done.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::model::{
    AppId, AppLedger, ContainerState, Happening, ImageRef, Ledger, Observed, Rejection, Release, Step,
    Target, TargetApp, Transfer, Trial, What,
};

/// Records, before a stage runs, what must be known even if the power is cut during the stage.
pub fn record_intent(ledger: &mut Ledger, observed: &Observed, stage: &[Step]) {
    for step in stage {
        match step {
            // We may remove images that we pulled ourselves.
            Step::Pull { image } => drop(ledger.images.insert(image.clone())),
            // A container that exits now did not finish, so it is started again if it is wanted.
            Step::Stop { app, container, .. } | Step::Kill { app, container, .. } => {
                ledger.apps.entry(app.clone()).or_default().stopped_by_agent.insert(container.clone());
            }
            // A container that starts late and is stopped at once did not finish either. One that ran before is
            // marked already, unless it ended by itself.
            Step::Fence { app, container, .. } => {
                let seen = observed.services.iter().find(|seen| seen.container == *container);
                if seen.is_some_and(|seen| seen.state == ContainerState::Created) {
                    ledger.apps.entry(app.clone()).or_default().stopped_by_agent.insert(container.clone());
                }
            }
            Step::CreateNetwork { .. }
            | Step::MeasureImage { .. }
            | Step::RemoveByForce { .. }
            | Step::Park { .. }
            | Step::Heal { .. }
            | Step::Unlock { .. }
            | Step::Create { .. }
            | Step::Reconnect { .. }
            | Step::Start { .. }
            | Step::Remove { .. }
            | Step::RemoveNetwork { .. }
            | Step::RemoveImage { .. }
            | Step::Try { .. }
            | Step::Reject { .. }
            | Step::Accept { .. }
            | Step::Forget { .. } => {}
        }
    }
}

/// Records what a step has changed, once it is done.
pub fn record_done(ledger: &mut Ledger, target: &Target, boot_id: &str, now: &str, step: &Step) {
    add_history(ledger, now, step);
    match step {
        Step::Start { app, container, .. } | Step::Remove { app, container, .. } => {
            if let Some(app) = ledger.apps.get_mut(app) {
                app.stopped_by_agent.remove(container);
                app.restart.remove(container);
            }
        }
        Step::Accept { app, .. } => {
            if let Some((app, release)) = entry(ledger, target, app) {
                accept(app, release);
                forget_downloads_of(ledger, release);
            }
        }
        Step::Try { app, .. } => {
            if let Some((app, release)) = entry(ledger, target, app) {
                app.trial = Some(Trial {
                    release: release.key(),
                    ran: Duration::ZERO,
                    boots: 0,
                    boot_id: boot_id.to_owned(),
                    hand_over: BTreeMap::new(),
                });
            }
        }
        Step::Reject { app, why, .. } => {
            if let Some((app, release)) = entry(ledger, target, app) {
                app.rejected = Some(Rejection { release: release.key(), why: why.clone() });
                app.trial = None;
            }
        }
        Step::Heal { app, service } => {
            let app = ledger.apps.entry(app.clone()).or_default();
            *app.heals.entry(service.clone()).or_default() += 1;
        }
        Step::Forget { app } => drop(ledger.apps.remove(app)),
        Step::RemoveImage { image } => drop(ledger.images.remove(image)),
        Step::Pull { .. }
        | Step::MeasureImage { .. }
        | Step::Fence { .. }
        | Step::Kill { .. }
        | Step::RemoveByForce { .. }
        | Step::Park { .. }
        | Step::Unlock { .. }
        | Step::CreateNetwork { .. }
        | Step::Create { .. }
        | Step::Reconnect { .. }
        | Step::Stop { .. }
        | Step::RemoveNetwork { .. } => {}
    }
}

/// How a download ended that had moved `transfer.fetched` bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PullEnd<'a> {
    Done,
    /// With an error; whether it is one that is known to pass.
    Failed {
        why: &'a str,
        is_passing: bool,
    },
}

/// Records what a download has moved: `news` bytes since the last record, and the engine's numbers so far. `end`: it is
/// over.
pub fn record_download(
    ledger: &mut Ledger,
    image: &ImageRef,
    news: u64,
    transfer: Transfer,
    end: Option<PullEnd<'_>>,
) {
    // Nothing came, so nothing is worth a save.
    if transfer.fetched == 0 {
        return;
    }
    let download = ledger.downloads.entry(image.clone()).or_default();
    download.fetched = download.fetched.saturating_add(news);
    download.needed = download.needed.max(transfer.needed);
    match end {
        Some(PullEnd::Failed { why, is_passing }) => {
            why.clone_into(&mut download.why);
            if !is_passing {
                download.futile = download.futile.saturating_add(transfer.fetched);
            }
        }
        Some(PullEnd::Done) => download.why.clear(),
        None => {}
    }
}

/// Forgets how much was downloaded for a release, because it was accepted.
fn forget_downloads_of(ledger: &mut Ledger, release: &Release) {
    ledger.downloads.retain(|image, _| !release.services.values().any(|spec| spec.image == *image));
}

/// Forgets what downloads have cost: all of it with a new target, else that of images which no release needs.
pub fn forget_downloads(ledger: &mut Ledger, target: &Target, is_new: bool) {
    let Ledger { downloads, apps, .. } = ledger;
    let wanted = target.apps.values().filter_map(TargetApp::release);
    let known = apps.values().flat_map(|app| app.good.iter().chain(&app.previous));
    let needed: Vec<_> =
        wanted.chain(known).flat_map(|release| release.services.values()).map(|spec| &spec.image).collect();
    downloads.retain(|image, _| !is_new && needed.contains(&image));
}

/// The app's entry and its wanted release; `None` if no release of it is wanted.
fn entry<'l, 't>(
    ledger: &'l mut Ledger,
    target: &'t Target,
    app: &AppId,
) -> Option<(&'l mut AppLedger, &'t Release)> {
    let wanted = target.apps.get(app)?;
    let release = wanted.release()?;
    let entry = ledger.apps.entry(app.clone()).or_default();
    entry.number = wanted.number().or(entry.number);
    Some((entry, release))
}

/// Makes `release` the good one. Orders that an operator gave for the release before it end.
fn accept(app: &mut AppLedger, release: &Release) {
    let replaced = app.good.replace(release.clone());
    // A release that differs only in its number replaces nothing.
    if let Some(replaced) = replaced.filter(|replaced| replaced.key() != release.key()) {
        app.previous = Some(replaced);
    }
    (app.trial, app.rejected, app.forced) = (None, None, None);
    app.heals.clear();
    app.stopped_by_operator
        .retain(|name, halt| release.services.get(name).is_some_and(|spec| spec.hash == halt.spec));
}

/// Adds to the history that a release was tried, accepted or rejected.
fn add_history(ledger: &mut Ledger, now: &str, step: &Step) {
    let (app, release, what, why) = match step {
        Step::Try { app, release } => (app, release, What::Tried, ""),
        Step::Accept { app, release } => (app, release, What::Accepted, ""),
        Step::Reject { app, release, why } => (app, release, What::Rejected, why.as_str()),
        Step::Pull { .. }
        | Step::MeasureImage { .. }
        | Step::CreateNetwork { .. }
        | Step::Create { .. }
        | Step::Reconnect { .. }
        | Step::Start { .. }
        | Step::Stop { .. }
        | Step::Fence { .. }
        | Step::Kill { .. }
        | Step::RemoveByForce { .. }
        | Step::Park { .. }
        | Step::Heal { .. }
        | Step::Unlock { .. }
        | Step::Remove { .. }
        | Step::RemoveNetwork { .. }
        | Step::RemoveImage { .. }
        | Step::Forget { .. } => return,
    };
    let (at, app, release, why) = (now.to_owned(), app.clone(), release.clone(), why.to_owned());
    Arc::make_mut(&mut ledger.history).add(Happening { at, app, release, what, why });
}

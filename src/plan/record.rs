//! Writes into the ledger what steps change: before they run, and when they are done.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::model::{
    AppId, AppLedger, ContainerState, Happening, Ledger, Observed, Rejection, Release, Step, Target, Trial,
    What,
};

/// Records, before a stage runs, what must be known even if the power is cut during the stage.
pub fn record_intent(ledger: &mut Ledger, observed: &Observed, stage: &[Step]) {
    for step in stage {
        match step {
            // We may remove images that we pulled ourselves.
            Step::Pull { image } => drop(ledger.images.insert(image.clone())),
            // A container that exits now did not finish, so it is started again if it is wanted.
            Step::Stop { app, container, .. } | Step::Kill { app, container, .. } => {
                ledger.apps.entry(app.clone()).or_default().stopped.insert(container.clone());
            }
            // A container that starts late and is stopped at once did not finish either. One that ran before is
            // marked already, unless it ended by itself.
            Step::Fence { app, container, .. } => {
                let seen = observed.services.iter().find(|seen| seen.container == *container);
                if seen.is_some_and(|seen| seen.state == ContainerState::Created) {
                    ledger.apps.entry(app.clone()).or_default().stopped.insert(container.clone());
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
                app.stopped.remove(container);
                app.restart.remove(container);
            }
        }
        Step::Accept { app, .. } => {
            if let Some((app, release)) = entry(ledger, target, app) {
                accept(app, release);
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

/// The app's entry and its wanted release; `None` if no release of it is wanted.
fn entry<'a>(
    ledger: &'a mut Ledger,
    target: &'a Target,
    app: &AppId,
) -> Option<(&'a mut AppLedger, &'a Release)> {
    let wanted = target.apps.get(app)?;
    let release = wanted.release()?;
    let entry = ledger.apps.entry(app.clone()).or_default();
    entry.number = wanted.number().or(entry.number);
    Some((entry, release))
}

/// Makes `release` the accepted one. Orders that an operator gave for the release before it end.
fn accept(app: &mut AppLedger, release: &Release) {
    let replaced = app.good.replace(release.clone());
    // A release that differs only in its number replaces nothing.
    if let Some(replaced) = replaced.filter(|replaced| replaced.key() != release.key()) {
        app.previous = Some(replaced);
    }
    (app.trial, app.rejected, app.forced) = (None, None, None);
    app.heals.clear();
    app.halted.retain(|name, halt| release.services.get(name).is_some_and(|spec| spec.hash == halt.spec));
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

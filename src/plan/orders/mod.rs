//! Applies an operator's orders to the ledger. Pure, like planning: the next plan does the rest.

mod locks;
mod lookup;
mod purge;
mod services;

use std::collections::BTreeMap;

use crate::model::{
    Answer, AppId, AppLedger, ContainerState, ImageRef, Ledger, Order, Rejection, Release, ServiceSpec,
    TargetApp, WantedApp,
};

use super::app::AppSituation;
use super::situation::Situation;
use lookup::{check_not_held, find_app, name_of_app, only_app};
pub use purge::{PurgePlan, plan_purge};

/// The reason of a rejection by hand.
const BY_HAND: &str = "an operator rolled it back";

/// Returns the ledger after `order`, and the answer for the operator. A refused order does not change the ledger.
///
/// - `Retry` forgets rejections and what downloads have cost. The caller must also forget the steps that wait for their next attempt.
/// - `Rollback` rejects the wanted release. The device rolls back to the good one. If the wanted one is itself the good
///   one, it rolls back to the one accepted before it, from images that are on this device.
/// - `Force` lets a release ignore locks and windows, but not a hold.
///
/// Every order that is carried out also drops leases that have ended.
#[must_use]
pub fn apply_order(at: &Situation, order: &Order) -> (Ledger, Answer) {
    let mut ledger = Ledger::clone(&at.ledger);
    ledger.leases.retain(|lease| lease.is_in_force(&at.boot_id, at.facts.uptime));
    let answer = match order {
        Order::Retry { app } => retry(at, &mut ledger, app.as_deref()),
        Order::Rollback { app } => rollback(at, &mut ledger, app.as_deref()),
        Order::Hold(hold) => {
            ledger.hold = Some(hold.clone());
            Ok("the device is held: nothing is swapped until `cotter unhold`".to_owned())
        }
        Order::Stop { service, is_forced, since } => {
            services::stop(at, &mut ledger, service, *is_forced, since)
        }
        Order::Start { service } => services::start(at, &mut ledger, service),
        Order::Restart { service, is_forced } => services::restart(at, &mut ledger, service, *is_forced),
        Order::Lock(lease) => locks::give(at, &mut ledger, lease),
        Order::Renew { id, until } => locks::renew(&mut ledger, id, *until),
        Order::Unlock { id } => locks::end(&mut ledger, id),
        Order::Force { app } => locks::force(at, &mut ledger, app.as_deref()),
        Order::RestartApp { app, is_forced } => services::restart_all(at, &mut ledger, app, *is_forced),
        Order::NewKey { app, service, key } => services::new_key(at, &mut ledger, (app, service), key),
        // The reconciler asks the host for it.
        Order::Power { is_forced, .. } => locks::check_power(at, *is_forced),
        // The ledger has no volumes. `plan_purge` decides about them.
        Order::Purge(_) => Ok(String::new()),
        Order::Unhold => Ok(match ledger.hold.take() {
            Some(hold) => format!("the device is no longer held (it was held since {})", hold.since),
            None => "the device was not held".to_owned(),
        }),
    };
    match answer {
        Ok(answer) => (ledger, Answer::Done(answer)),
        Err(answer) => (Ledger::clone(&at.ledger), answer),
    }
}

fn retry(at: &Situation, ledger: &mut Ledger, app: Option<&str>) -> Result<String, Answer> {
    let chosen = app.map(|app| find_app(at, app)).transpose()?;
    let mut answer = Vec::new();
    for (id, entry) in &mut ledger.apps {
        if chosen.as_ref().is_some_and(|chosen| chosen != id) {
            continue;
        }
        if !entry.heals.is_empty() {
            entry.heals.clear();
            answer.push(format!("unhealthy services of {} are restarted again", name_of_app(at, id)));
        }
        let Some(rejection) = entry.rejected.take() else { continue };
        mark_exited(at, id, entry, &rejection);
        answer.push(format!(
            "release {} of {} is tried again",
            rejection.release.commit,
            name_of_app(at, id)
        ));
    }
    if forget_downloads(ledger, chosen.as_ref().map(|app| AppSituation::new(at, app))) {
        answer.push("images may be downloaded again".to_owned());
    }
    if !at.failed_steps.is_empty() {
        answer.push("steps that failed are tried again now".to_owned());
    }
    if answer.is_empty() {
        return Ok("nothing to retry".to_owned());
    }
    if ledger.hold.is_some() {
        answer.push("nothing is swapped before `cotter unhold`".to_owned());
    }
    Ok(answer.join("; "))
}

/// Forgets what the downloads of an app, or of all apps, have cost. Returns whether one of them had failed.
fn forget_downloads(ledger: &mut Ledger, chosen: Option<AppSituation<'_>>) -> bool {
    let is_of = |image: &ImageRef| {
        chosen.is_none_or(|app| {
            app.releases().flat_map(|release| release.services.values()).any(|spec| spec.image == *image)
        })
    };
    let before = std::mem::take(&mut ledger.downloads);
    let (forgotten, kept): (BTreeMap<_, _>, _) = before.into_iter().partition(|(image, _)| is_of(image));
    ledger.downloads = kept;
    forgotten.values().any(|download| !download.why.is_empty())
}

/// Marks the containers of a rejected release that have exited, so that they are started again. Otherwise their old exit
/// would count as a failure of the new trial.
fn mark_exited(at: &Situation, app: &AppId, entry: &mut AppLedger, rejection: &Rejection) {
    for seen in at.observed.services.iter().filter(|s| s.app == *app) {
        let is_of =
            |release: &Release| release.services.get(&seen.service).is_some_and(|s| s.hash == seen.spec);
        let is_rejected = rejection.release.specs.get(&seen.service) == Some(&seen.spec);
        let has_ended = matches!(seen.state, ContainerState::Exited { .. });
        if is_rejected && has_ended && !entry.good.as_ref().is_some_and(is_of) {
            entry.stopped_by_agent.insert(seen.container.clone());
        }
    }
}

fn rollback(at: &Situation, ledger: &mut Ledger, app: Option<&str>) -> Result<String, Answer> {
    check_not_held(ledger)?;
    let id = match app {
        Some(app) => find_app(at, app)?,
        None => only_app(at)?,
    };
    let refused = |why: String| Err(Answer::Refused(why));
    let wanted = at.target.as_ref().and_then(|target| target.apps.get(&id));
    let Some(TargetApp::Wanted(WantedApp { app, release: Some(wanted), .. })) = wanted else {
        return refused(format!(
            "no release of {} is wanted that could be rolled back",
            name_of_app(at, &id)
        ));
    };
    let entry = ledger.apps.entry(id.clone()).or_default();
    if let Some(rejected) = entry.rejected.as_ref().filter(|r| r.release == wanted.key()) {
        return refused(format!("release {} was rejected already: {}", wanted.commit, rejected.why));
    }
    let is_accepted = entry.good.as_ref().is_some_and(|good| good.key() == wanted.key());
    let back = if is_accepted { entry.previous.clone() } else { entry.good.clone() };
    let Some(back) = back else {
        return refused(format!("there is no earlier accepted release of {} to roll back to", app.name));
    };
    let is_here = |spec: &&ServiceSpec| {
        let observed = &at.observed;
        observed.images.contains(&spec.image)
            || observed.services.iter().any(|s| s.app == id && s.spec == spec.hash)
    };
    if let Some(spec) = back.services.values().find(|spec| !is_here(spec)) {
        return refused(format!(
            "image {} of release {} is no longer on this device",
            spec.image, back.commit
        ));
    }
    if is_accepted {
        entry.previous = None;
    }
    let answer = format!(
        "release {} of {} is rejected, and the app rolls back to release {}; `cotter retry` undoes this",
        wanted.commit, app.name, back.commit
    );
    entry.good = Some(back);
    entry.trial = None;
    entry.rejected = Some(Rejection { release: wanted.key(), why: BY_HAND.to_owned() });
    Ok(answer)
}

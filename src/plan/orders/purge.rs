//! Decides which volumes a purge removes, and which containers must be removed first. Nothing else removes a named volume.

use std::collections::BTreeSet;

use crate::model::{Answer, AppId, ObservedService, OwnVolume, Purge, TargetApp};
use crate::plan::app::AppSituation;
use crate::plan::containers::is_up;
use crate::plan::situation::Situation;

use super::locks;
use super::lookup::{check_not_held, find_app, name_of_app};

/// What a purge removes, in this order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PurgePlan {
    /// Containers that use the volumes. They are stopped and removed, and the next plans create them again.
    pub containers: Vec<ObservedService>,
    pub volumes: Vec<OwnVolume>,
    /// Describes the purge for the operator.
    pub summary: String,
}

/// Decides what a purge removes. `volumes` are the volumes of this instance.
///
/// # Errors
///
/// Returns the answer for the operator if nothing is to be removed: the purge is a dry run, there is no such volume, or
/// something forbids it.
pub fn plan_purge(at: &Situation, purge: &Purge, volumes: &[OwnVolume]) -> Result<PurgePlan, Answer> {
    let Some(app) = &purge.app else { return Err(Answer::Done(listed(at, volumes))) };
    let app = owner(at, app, volumes)?;
    let of_app: Vec<_> = volumes.iter().filter(|volume| volume.app == app).collect();
    let is_meant = |v: &&&OwnVolume| purge.volume.as_ref().is_none_or(|n| v.volume.as_str() == n);
    let previous = at.ledger.apps.get(&app).and_then(|ledger| ledger.previous.as_ref());
    let releases: Vec<_> = AppSituation::new(at, &app).releases().chain(previous).collect();
    let declared: BTreeSet<_> = releases.iter().flat_map(|release| release.volumes_in_use()).collect();
    // A volume of a path of an image is not declared, and its container may be absent just now.
    let may_be_unnamed = |v: &OwnVolume| releases.iter().any(|release| release.may_have_unnamed(&v.volume));
    let is_unused =
        |v: &&&OwnVolume| v.used_by.is_empty() && !declared.contains(&v.volume) && !may_be_unnamed(v);
    let is_chosen = |v: &&&OwnVolume| is_meant(v) && (!purge.is_of_unused || is_unused(v));
    let chosen: Vec<OwnVolume> = of_app.iter().filter(is_chosen).map(|v| (*v).clone()).collect();
    if chosen.is_empty() {
        let there: Vec<_> = of_app.iter().map(|volume| volume.volume.as_str()).collect();
        let there =
            if there.is_empty() { "it has none".to_owned() } else { format!("it has {}", there.join(", ")) };
        return Err(Answer::NotFound(format!("{} has no such volume: {there}", name_of_app(at, &app))));
    }
    let users: BTreeSet<_> = chosen.iter().flat_map(|volume| &volume.used_by).collect();
    let ours = at.observed.services.iter().chain(&at.observed.parked);
    let containers: Vec<_> = ours.filter(|seen| users.contains(&seen.container)).cloned().collect();
    let summary = summarize(at, &app, &chosen, &containers);
    if purge.is_dry {
        return Err(Answer::Done(format!("would be purged: {summary}")));
    }
    if is_refused(at, &app) && !containers.is_empty() {
        let why = format!(
            "this device refuses the release of {} in its target, so the containers that use the volumes could not be created \
             again; `cotter explain` says why it is refused: correct the release first",
            name_of_app(at, &app)
        );
        return Err(Answer::Refused(why));
    }
    if is_on_trial(at, &app) {
        let why = format!(
            "a release of {} is on trial; try again when it is accepted or rejected",
            name_of_app(at, &app)
        );
        return Err(Answer::Refused(why));
    }
    if containers.iter().any(is_up) {
        check_not_held(&at.ledger)?;
        locks::check_not_locked(at, &app, purge.is_forced)?;
    }
    Ok(PurgePlan { containers, volumes: chosen, summary: format!("purged: {summary}") })
}

/// Finds the app. One that was removed is known only by its volumes, and only by its uuid.
fn owner(at: &Situation, app: &str, volumes: &[OwnVolume]) -> Result<AppId, Answer> {
    let removed = volumes.iter().map(|volume| &volume.app).find(|id| id.as_str() == app);
    removed.map_or_else(|| find_app(at, app), |id| Ok(id.clone()))
}

fn is_refused(at: &Situation, app: &AppId) -> bool {
    let wanted = at.target.as_ref().and_then(|target| target.apps.get(app));
    matches!(wanted, Some(TargetApp::Refused(_)))
}

fn is_on_trial(at: &Situation, app: &AppId) -> bool {
    let wanted = at.target.as_ref().and_then(|target| target.apps.get(app)).and_then(|app| app.release());
    let trial = at.ledger.apps.get(app).and_then(|ledger| ledger.trial.as_ref());
    trial.is_some_and(|trial| wanted.is_some_and(|wanted| wanted.key() == trial.release))
}

fn summarize(at: &Situation, app: &AppId, volumes: &[OwnVolume], containers: &[ObservedService]) -> String {
    let volumes: Vec<_> = volumes.iter().map(|volume| volume.volume.as_str()).collect();
    let services: BTreeSet<_> = containers.iter().map(|seen| seen.service.as_str()).collect();
    let services: Vec<_> = services.into_iter().collect();
    let recreated = if services.is_empty() {
        String::new()
    } else {
        format!("; containers are removed, and created again where they are wanted: {}", services.join(", "))
    };
    format!("volumes of {}: {}{recreated}", name_of_app(at, app), volumes.join(", "))
}

/// Lists all volumes, by app.
fn listed(at: &Situation, volumes: &[OwnVolume]) -> String {
    let apps: BTreeSet<_> = volumes.iter().map(|volume| &volume.app).collect();
    let of_app = |app: &&AppId| {
        let names: BTreeSet<_> =
            volumes.iter().filter(|v| v.app == **app).map(|v| v.volume.as_str()).collect();
        let is_gone = at.target.as_ref().is_none_or(|target| !target.apps.contains_key(*app));
        let gone = if is_gone { " (no longer wanted)" } else { "" };
        format!("{}{gone} has {}", name_of_app(at, app), names.into_iter().collect::<Vec<_>>().join(", "))
    };
    let listed: Vec<_> = apps.iter().map(of_app).collect();
    if listed.is_empty() { "there are no volumes".to_owned() } else { listed.join("; ") }
}

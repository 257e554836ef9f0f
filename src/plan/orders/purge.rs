//! Which volumes an operator's purge removes, and what must go before. Nothing else removes a volume.

use std::collections::BTreeSet;

use crate::model::{Answer, AppId, ObservedService, OwnVolume, Purge};
use crate::plan::containers::is_up;
use crate::plan::situation::Situation;

use super::locks;
use super::lookup::{check_not_held, find_app, name_of_app};

/// What a purge does, in its order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PurgePlan {
    /// Containers that use the volumes: they are stopped and removed, and made anew by the next plans.
    pub containers: Vec<ObservedService>,
    pub volumes: Vec<OwnVolume>,
    /// All of it, in words.
    pub summary: String,
}

/// Decides about a purge; one that is dry, or that finds nothing, is answered at once. `volumes` are those of
/// this instance.
///
/// # Errors
///
/// The answer, when there is nothing to do, or something is in the way.
pub fn plan_purge(at: &Situation<'_>, purge: &Purge, volumes: &[OwnVolume]) -> Result<PurgePlan, Answer> {
    let Some(app) = &purge.app else { return Err(Answer::Done(listed(at, volumes))) };
    let app = owner(at, app, volumes)?;
    let of_app: Vec<_> = volumes.iter().filter(|volume| volume.app == app).collect();
    let is_meant = |v: &&&OwnVolume| purge.volume.as_ref().is_none_or(|n| v.volume.as_str() == n);
    let chosen: Vec<OwnVolume> = of_app.iter().filter(is_meant).map(|v| (*v).clone()).collect();
    if chosen.is_empty() {
        let there: Vec<_> = of_app.iter().map(|volume| volume.volume.as_str()).collect();
        let there =
            if there.is_empty() { "it has none".to_owned() } else { format!("it has {}", there.join(", ")) };
        return Err(Answer::NotFound(format!("{} has no such volume: {there}", name_of_app(at, &app))));
    }
    let users: BTreeSet<_> = chosen.iter().flat_map(|volume| &volume.used_by).collect();
    let ours = at.observed.services.iter().chain(&at.observed.parked);
    let containers: Vec<_> = ours.filter(|seen| users.contains(&seen.container)).cloned().collect();
    let summary = summary(at, &app, &chosen, &containers);
    if purge.is_dry {
        return Err(Answer::Done(format!("would be purged: {summary}")));
    }
    if is_on_trial(at, &app) {
        let why = format!(
            "a release of {} is on trial; try again when it is accepted or taken back",
            name_of_app(at, &app)
        );
        return Err(Answer::Refused(why));
    }
    if containers.iter().any(is_up) {
        check_not_held(at.ledger)?;
        locks::check_not_locked(at, &app, purge.is_forced)?;
    }
    Ok(PurgePlan { containers, volumes: chosen, summary: format!("purged: {summary}") })
}

/// The app that is named; one that is gone is known by its volumes alone, and only by its uuid.
fn owner(at: &Situation<'_>, app: &str, volumes: &[OwnVolume]) -> Result<AppId, Answer> {
    let gone = volumes.iter().map(|volume| &volume.app).find(|id| id.as_str() == app);
    gone.map_or_else(|| find_app(at, app), |id| Ok(id.clone()))
}

fn is_on_trial(at: &Situation<'_>, app: &AppId) -> bool {
    let wanted = at.target.and_then(|target| target.apps.get(app)).and_then(|app| app.release());
    let trial = at.ledger.apps.get(app).and_then(|ledger| ledger.trial.as_ref());
    trial.is_some_and(|trial| wanted.is_some_and(|wanted| wanted.key() == trial.release))
}

fn summary(at: &Situation<'_>, app: &AppId, volumes: &[OwnVolume], containers: &[ObservedService]) -> String {
    let volumes: Vec<_> = volumes.iter().map(|volume| volume.volume.as_str()).collect();
    let services: BTreeSet<_> = containers.iter().map(|seen| seen.service.as_str()).collect();
    let services: Vec<_> = services.into_iter().collect();
    let anew = if services.is_empty() {
        String::new()
    } else {
        format!("; containers are removed, and made anew where they are wanted: {}", services.join(", "))
    };
    format!("volumes of {}: {}{anew}", name_of_app(at, app), volumes.join(", "))
}

/// All volumes, by app.
fn listed(at: &Situation<'_>, volumes: &[OwnVolume]) -> String {
    let apps: BTreeSet<_> = volumes.iter().map(|volume| &volume.app).collect();
    let of_app = |app: &&AppId| {
        let names: BTreeSet<_> =
            volumes.iter().filter(|v| v.app == **app).map(|v| v.volume.as_str()).collect();
        let is_gone = at.target.is_none_or(|target| !target.apps.contains_key(*app));
        let gone = if is_gone { " (not wanted any more)" } else { "" };
        format!("{}{gone} has {}", name_of_app(at, app), names.into_iter().collect::<Vec<_>>().join(", "))
    };
    let listed: Vec<_> = apps.iter().map(of_app).collect();
    if listed.is_empty() { "there are no volumes".to_owned() } else { listed.join("; ") }
}

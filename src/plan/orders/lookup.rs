//! Finds the app that an operator names.

use crate::model::{Answer, AppId, Ledger, TargetApp, WantedApp};
use crate::plan::situation::Situation;

/// Refuses an order that stops a container while the device is held.
pub(super) fn check_not_held(ledger: &Ledger) -> Result<(), Answer> {
    let Some(hold) = &ledger.hold else { return Ok(()) };
    let why = format!("the device is held since {}: {}; `cotter unhold` first", hold.since, hold.reason);
    Err(Answer::Held(why))
}

/// Finds an app by its uuid, or by its name in the target.
pub(super) fn find_app(at: &Situation, text: &str) -> Result<AppId, Answer> {
    let known = at.target.iter().flat_map(|t| t.apps.keys()).chain(at.ledger.apps.keys());
    if let Some(id) = known.into_iter().find(|id| id.as_str() == text) {
        return Ok(id.clone());
    }
    let targeted = at.target.iter().flat_map(|t| t.apps.keys());
    let mut named = targeted.filter(|id| name_of_app(at, id) == text);
    match (named.next(), named.next()) {
        (Some(id), None) => Ok(id.clone()),
        (Some(_), Some(_)) => Err(Answer::Refused(format!("several apps are called {text}; give the uuid"))),
        (None, _) => {
            Err(Answer::NotFound(format!("this device has no app {text}; `cotter status` names its apps")))
        }
    }
}

/// Returns the only app that has a release.
pub(super) fn only_app(at: &Situation) -> Result<AppId, Answer> {
    let apps = at.target.iter().flat_map(|t| &t.apps);
    let has_release = |app: &TargetApp| matches!(app, TargetApp::Wanted(WantedApp { release: Some(_), .. }));
    let ids: Vec<_> = apps.filter(|(_, app)| has_release(app)).map(|(id, _)| id).collect();
    match ids.as_slice() {
        [id] => Ok((*id).clone()),
        [] => Err(Answer::Refused("no release is wanted that could be rolled back".to_owned())),
        several => {
            let names: Vec<_> = several.iter().map(|id| name_of_app(at, id)).collect();
            let why = format!("this device has several apps; name one with --app: {}", names.join(", "));
            Err(Answer::Refused(why))
        }
    }
}

/// The name of the app in the target, or its uuid if the target does not name it.
pub(super) fn name_of_app<'a>(at: &'a Situation, id: &'a AppId) -> &'a str {
    match at.target.as_ref().and_then(|target| target.apps.get(id)) {
        Some(TargetApp::Wanted(wanted)) => &wanted.app.name,
        Some(TargetApp::Refused(refused)) => &refused.name,
        None => id.as_str(),
    }
}

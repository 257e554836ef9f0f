//! Makes the plan of the whole device, app by app.

use crate::model::{Plan, Reason, TargetApp};

use super::app::AppSituation;
use super::draft::Draft;
use super::situation::Situation;
use super::{advance, fallback, teardown, unused_images};

/// Returns the next stage of steps towards the target, and what is waited for.
///
/// An empty stage means that there is nothing to do now: the device is at its target, or `waiting` says what it waits
/// for. Without a target, or with one that names no app, nothing is touched.
#[must_use]
pub fn plan(at: &Situation) -> Plan {
    let mut draft = Draft::new(at);
    let Some(target) = at.target.as_deref().filter(|t| !t.apps.is_empty()) else { return draft.plan };
    for (id, wanted) in &target.apps {
        plan_app(&mut draft, AppSituation::new(at, id), wanted);
    }
    for id in teardown::unnamed_apps(at, target) {
        _ = teardown::remove_app(&mut draft, AppSituation::new(at, id));
    }
    if draft.plan.stage.is_empty() {
        unused_images::remove_unused(&mut draft, at);
    }
    draft.plan
}

fn plan_app<'a>(draft: &mut Draft<'_>, app: AppSituation<'a>, wanted: &'a TargetApp) {
    match wanted {
        TargetApp::Refused(refused) => {
            for refusal in &refused.refusals {
                draft.wait(Some(app.id), None, Reason::Refused, refusal.to_string(), None);
            }
            fallback::restore_refused(draft, app);
            advance::unlock(draft, app);
        }
        TargetApp::Wanted(wanted) => match &wanted.release {
            Some(release) => {
                advance::reach(draft, app, release);
                advance::unlock(draft, app);
            }
            None => _ = teardown::remove_app(draft, app),
        },
    }
}

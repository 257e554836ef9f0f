//! Raises alerts from reports and logs each alert once. It knows only reports and the alerts that it has raised. Updates
//! that ended before the agent started raise no alert; a wait that goes on since then does.

use std::collections::BTreeSet;

use tracing::field::display;
use tracing::{error, info, warn};

use crate::model::{
    Alert, AppId, AppReport, Commit, Happening, Reason, Report, ServiceName, ServiceStatus, UpdateStatus,
    What,
};

/// An alert and its context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RaisedAlert {
    alert: Alert,
    app: Option<AppId>,
    service: Option<ServiceName>,
    release: Option<Commit>,
    reason: Option<Reason>,
    why: String,
}

/// The alerts that were raised.
#[derive(Debug, Default)]
pub(super) struct Alerts {
    last: Option<Happening>,
    is_begun: bool,
    /// Apps whose release was rejected and whose good release does not run completely yet.
    going_back: BTreeSet<AppId>,
    /// The waits of the last report that raised an alert.
    waits: BTreeSet<(Option<AppId>, Option<ServiceName>, Reason)>,
}

impl Alerts {
    /// Returns the alerts that `report` raises for the first time.
    pub(super) fn raise(&mut self, report: &Report) -> Vec<RaisedAlert> {
        let mut raised = self.of_history(report);
        for (id, app) in &report.apps {
            if self.going_back.contains(id) && !is_rejected(app) {
                self.going_back.remove(id);
            } else if self.going_back.contains(id) && is_back(app) && report.engine_error.is_none() {
                self.going_back.remove(id);
                let (alert, release) = (Alert::RolledBack, app.current.clone());
                let (app, reason, why) = (Some(id.clone()), None, String::new());
                raised.push(RaisedAlert { alert, app, service: None, release, reason, why });
            }
        }
        raised.extend(self.of_waits(report));
        raised
    }

    /// Returns alerts for releases that were accepted or rejected since the last report.
    fn of_history(&mut self, report: &Report) -> Vec<RaisedAlert> {
        let all = report.history.all();
        let known = self.last.as_ref().and_then(|last| all.iter().rposition(|one| one == last));
        let fresh = known.map_or(0, |place| place + 1);
        self.last = all.last().cloned();
        if !std::mem::replace(&mut self.is_begun, true) {
            return Vec::new();
        }
        let mut raised = Vec::new();
        for happening in &all[fresh..] {
            let (alert, reason) = match happening.what {
                What::Tried => continue,
                What::Accepted => (Alert::UpdateDone, None),
                What::Rejected => {
                    self.going_back.insert(happening.app.clone());
                    (Alert::Rejected, Some(Reason::Rejected))
                }
            };
            let (app, release) = (Some(happening.app.clone()), Some(happening.release.clone()));
            raised.push(RaisedAlert {
                alert,
                app,
                service: None,
                release,
                reason,
                why: happening.why.clone(),
            });
        }
        raised
    }

    /// Returns alerts for new waits that need a person.
    fn of_waits(&mut self, report: &Report) -> Vec<RaisedAlert> {
        let mut now = BTreeSet::new();
        let mut raised = Vec::new();
        for waiting in &report.waiting {
            let Some(alert) = alert(waiting.reason) else { continue };
            let (app, service) = (waiting.app.clone(), waiting.service.clone());
            let key = (app.clone(), service.clone(), waiting.reason);
            if !self.waits.contains(&key) && !now.contains(&key) {
                let release =
                    app.as_ref().and_then(|app| report.apps.get(app)).and_then(|app| app.target.clone());
                let (reason, why) = (Some(waiting.reason), waiting.why.clone());
                raised.push(RaisedAlert { alert, app, service, release, reason, why });
            }
            now.insert(key);
        }
        self.waits = now;
        raised
    }
}

/// Returns the alert for a reason to wait; `None` for most, because they pass without a person.
fn alert(reason: Reason) -> Option<Alert> {
    match reason {
        Reason::Degraded => Some(Alert::Degraded),
        Reason::EngineStuck => Some(Alert::EngineStuck),
        Reason::Refused
        | Reason::InsufficientDisk
        | Reason::PortInUse
        | Reason::WrongArchitecture
        | Reason::UnsupportedImage
        | Reason::HostLacks
        | Reason::DownloadGivenUp => Some(Alert::Blocked),
        // `Rejected` is raised when it happens, by `of_history`.
        Reason::Rejected
        | Reason::Downloading
        | Reason::Backoff
        | Reason::Starting
        | Reason::Unhealthy
        | Reason::Dependency
        | Reason::Trial
        | Reason::Held
        | Reason::Locked
        | Reason::Window
        | Reason::Clock
        | Reason::HandOver
        | Reason::Stopped => None,
    }
}

fn is_rejected(app: &AppReport) -> bool {
    app.target.as_ref().is_some_and(|target| app.update.get(target) == Some(&UpdateStatus::Rejected))
}

/// Returns `true` if all services of the good release run, and none of the wanted release.
fn is_back(app: &AppReport) -> bool {
    let is_up = |status| status == ServiceStatus::Running;
    let mut good = app.services.iter().filter(|s| Some(&s.release) == app.current.as_ref()).peekable();
    let has_any = good.peek().is_some();
    let mut tried = app.services.iter().filter(|s| Some(&s.release) == app.target.as_ref());
    has_any && good.all(|s| is_up(s.status)) && !tried.any(|s| is_up(s.status))
}

/// Logs alerts, each with the level that suits it.
pub(super) fn log<'a>(raised: Vec<RaisedAlert>, name_of: impl Fn(&AppId) -> Option<&'a str>) {
    for event in raised {
        let (alert, message) = (event.alert.as_str(), event.alert.message());
        let app_name = event.app.as_ref().and_then(&name_of);
        let (app, service) = (event.app.map(display), event.service.map(display));
        let (release, reason) = (event.release.map(display), event.reason.map(Reason::as_str));
        let why = Some(event.why).filter(|why| !why.is_empty());
        match event.alert {
            Alert::Degraded | Alert::EngineStuck => {
                error!(alert, app, app_name, service, release, reason, why, "{message}");
            }
            Alert::UpdateDone => info!(alert, app, app_name, service, release, reason, why, "{message}"),
            Alert::Rejected
            | Alert::RolledBack
            | Alert::Blocked
            | Alert::EngineLost
            | Alert::StoreRecovered
            | Alert::StoreFailing
            | Alert::SettingsWrong => warn!(alert, app, app_name, service, release, reason, why, "{message}"),
        }
    }
}

#[cfg(test)]
#[path = "tests/alerts.rs"]
mod tests;

//! What of a report is news for somebody who watches from afar: the events to alert on. Knows reports, and
//! what it has told. What became of releases before the agent started is none; what still waits then is.

use std::collections::BTreeSet;

use tracing::field::display;
use tracing::{error, info, warn};

use crate::model::{
    Alert, AppId, AppReport, Commit, Happening, Reason, Report, ServiceName, ServiceStatus, UpdateStatus,
    What,
};

/// Something to alert on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RaisedAlert {
    alert: Alert,
    app: Option<AppId>,
    service: Option<ServiceName>,
    release: Option<Commit>,
    reason: Option<Reason>,
    why: String,
}

/// What is known to have been told.
#[derive(Debug, Default)]
pub(super) struct Alerts {
    last: Option<Happening>,
    is_begun: bool,
    /// Apps whose release was rejected, and where the one before it does not run whole yet.
    going_back: BTreeSet<AppId>,
    /// What is waited for and was told.
    waits: BTreeSet<(Option<AppId>, Option<ServiceName>, Reason)>,
}

impl Alerts {
    /// What `report` tells that was not told before.
    pub(super) fn raise(&mut self, report: &Report) -> Vec<RaisedAlert> {
        let mut raised = self.happened(report);
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
        raised.extend(self.waits(report));
        raised
    }

    /// What became of releases since the last report.
    fn happened(&mut self, report: &Report) -> Vec<RaisedAlert> {
        let all = report.history.all();
        let told = self.last.as_ref().and_then(|last| all.iter().rposition(|one| one == last));
        let fresh = told.map_or(0, |place| place + 1);
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

    /// What is waited for and needs somebody.
    fn waits(&mut self, report: &Report) -> Vec<RaisedAlert> {
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

/// What a reason to wait is to whoever watches; most are nothing to wake anybody for.
fn alert(reason: Reason) -> Option<Alert> {
    match reason {
        Reason::Degraded => Some(Alert::Degraded),
        Reason::EngineStuck => Some(Alert::EngineStuck),
        Reason::Refused | Reason::InsufficientDisk | Reason::PortInUse | Reason::WrongArchitecture => {
            Some(Alert::Blocked)
        }
        // EventKind when it happens, not while it lasts.
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

/// Whether the good release runs, and nothing of the wanted one beside it.
fn is_back(app: &AppReport) -> bool {
    let is_up = |status| status == ServiceStatus::Running;
    let mut good = app.services.iter().filter(|s| Some(&s.release) == app.current.as_ref()).peekable();
    let has_any = good.peek().is_some();
    let mut tried = app.services.iter().filter(|s| Some(&s.release) == app.target.as_ref());
    has_any && good.all(|s| is_up(s.status)) && !tried.any(|s| is_up(s.status))
}

/// Logs what is raised.
pub(super) fn log(raised: Vec<RaisedAlert>) {
    for event in raised {
        let (alert, message) = (event.alert.as_str(), event.alert.message());
        let (app, service) = (event.app.map(display), event.service.map(display));
        let (release, reason) = (event.release.map(display), event.reason.map(Reason::as_str));
        let why = Some(event.why).filter(|why| !why.is_empty());
        match event.alert {
            Alert::Degraded | Alert::EngineStuck => {
                error!(alert, app, service, release, reason, why, "{message}");
            }
            Alert::UpdateDone => info!(alert, app, service, release, reason, why, "{message}"),
            Alert::Rejected
            | Alert::RolledBack
            | Alert::Blocked
            | Alert::EngineLost
            | Alert::StoreRecovered
            | Alert::StoreFailing
            | Alert::SettingsWrong => warn!(alert, app, service, release, reason, why, "{message}"),
        }
    }
}

#[cfg(test)]
#[path = "tests/alerts.rs"]
mod tests;

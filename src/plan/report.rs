//! Makes the report for the cloud and the operator from a situation and its plan.

use std::collections::BTreeMap;

use std::sync::Arc;

use crate::model::{
    AppId, AppLedger, AppReport, Commit, ContainerState, DownloadProgress, Halt, Health, ImageRef,
    ObservedService, Plan, Reason, Release, Report, ServiceName, ServiceReport, ServiceStatus, TargetApp,
    UpdateStatus, Waiting, WantedApp,
};

use super::app::AppSituation;
use super::containers::belongs_to;
use super::situation::Situation;

/// Reports the device as it was last observed.
#[must_use]
pub fn report(at: &Situation, plan: &Plan) -> Report {
    let mut report = Report {
        has_target: at.target.is_some(),
        is_busy: !plan.stage.is_empty(),
        waiting: plan.waiting.clone(),
        hold: at.ledger.hold.clone(),
        history: Arc::clone(&at.ledger.history),
        leases: at.ledger.leases.clone(),
        file_locks: at.facts.locks.clone(),
        ..Report::default()
    };
    for (id, app) in at.target.iter().flat_map(|t| &t.apps) {
        let ledger = at.ledger.apps.get(id);
        let mut app = match app {
            TargetApp::Wanted(wanted) => {
                let is_refused = |w: &Waiting| w.app.as_ref() == Some(id) && w.reason == Reason::Refused;
                wanted_app(at, id, wanted, ledger, plan.waiting.iter().any(is_refused))
            }
            TargetApp::Refused(refused) => {
                let mut app = AppReport { name: refused.name.clone(), ..AppReport::default() };
                if let Ok(commit) = Commit::parse(&refused.release) {
                    app.update.insert(commit.clone(), UpdateStatus::Rejected);
                    app.target = Some(commit);
                }
                add_accepted(at, id, &mut app, ledger, None);
                app
            }
        };
        app.stopped_by_operator = stopped_by_operator(at, id);
        app.forced = ledger.and_then(|l| l.forced.as_ref()).map(|key| key.commit.clone());
        report.apps.insert(id.clone(), app);
    }
    report
}

/// Reports an app whose release we support. `is_refused`: the release conflicts with something on this device.
fn wanted_app(
    at: &Situation,
    id: &AppId,
    wanted: &WantedApp,
    ledger: Option<&AppLedger>,
    is_refused: bool,
) -> AppReport {
    let mut app = AppReport { name: wanted.app.name.clone(), ..AppReport::default() };
    let Some(release) = &wanted.release else { return app };
    app.target = Some(release.commit.clone());
    let good = ledger.and_then(|l| l.good.as_ref());
    let is_rejected =
        is_refused || ledger.and_then(|l| l.rejected.as_ref()).is_some_and(|r| r.release == release.key());
    if good.is_some_and(|good| good != release) {
        // Of a rejected release nothing is wanted any more, so containers that both have are reported as the good
        // one's.
        add_accepted(at, id, &mut app, ledger, Some(release).filter(|_| !is_rejected));
    } else {
        app.current = good.map(|g| g.commit.clone());
    }
    let mut statuses = Vec::new();
    for (name, spec) in &release.services {
        let seen = containers(at, id, release).find(|s| s.service == *name);
        // The commit may be the good one's, with other specs. Its running container is listed already.
        let is_listed = app.services.iter().any(|s| match seen {
            Some(seen) => s.container.as_ref() == Some(&seen.container),
            None => s.service == *name && s.release == release.commit,
        });
        if is_listed || seen.is_none() && is_rejected {
            continue;
        }
        let (status, progress) = match seen {
            Some(seen) => (status_of(seen), None),
            None if at.observed.images.contains(&spec.image) => (ServiceStatus::Downloaded, None),
            None => (ServiceStatus::Downloading, Some(download(at, &spec.image))),
        };
        statuses.push(status);
        app.services.push(ServiceReport {
            service: name.clone(),
            release: release.commit.clone(),
            image: spec.image.to_string(),
            status,
            detail: seen.map_or(String::new(), |s| s.status.clone()),
            since: seen.and_then(|seen| at.facts.since.get(&seen.container).copied()),
            container: seen.map(|seen| seen.container.clone()),
            health: seen.map_or(Health::Unchecked, |s| s.health),
            progress,
        });
    }
    let update = if is_rejected {
        UpdateStatus::Rejected
    } else if good == Some(release) {
        UpdateStatus::Done
    } else {
        on_its_way(&statuses)
    };
    app.update.insert(release.commit.clone(), update);
    app
}

/// How far a release is that is neither accepted nor rejected.
fn on_its_way(statuses: &[ServiceStatus]) -> UpdateStatus {
    if statuses.contains(&ServiceStatus::Downloading) {
        UpdateStatus::Downloading
    } else if statuses.iter().all(|s| *s == ServiceStatus::Downloaded) && !statuses.is_empty() {
        UpdateStatus::Downloaded
    } else {
        UpdateStatus::ApplyingChanges
    }
}

/// How far the download of an image is, which may not have begun.
fn download(at: &Situation, image: &ImageRef) -> DownloadProgress {
    let begun = at.pulling.get(image).copied();
    begun.unwrap_or_else(|| DownloadProgress {
        total: at.facts.bytes_to_fetch(image),
        ..DownloadProgress::default()
    })
}

/// Adds the good release and its containers to an app that should run another release. Containers that the wanted
/// release keeps are listed there and not twice.
fn add_accepted(
    at: &Situation,
    id: &AppId,
    app: &mut AppReport,
    ledger: Option<&AppLedger>,
    wanted: Option<&Release>,
) {
    let Some(good) = ledger.and_then(|l| l.good.as_ref()) else { return };
    app.current = Some(good.commit.clone());
    app.update.insert(good.commit.clone(), UpdateStatus::Done);
    let is_kept = |s: &ObservedService| {
        wanted.and_then(|w| w.services.get(&s.service)).is_some_and(|spec| spec.hash == s.spec)
    };
    for seen in containers(at, id, good).filter(|s| !is_kept(s)) {
        app.services.push(ServiceReport {
            service: seen.service.clone(),
            release: good.commit.clone(),
            image: good.services.get(&seen.service).map_or(String::new(), |s| s.image.to_string()),
            status: status_of(seen),
            detail: seen.status.clone(),
            since: at.facts.since.get(&seen.container).copied(),
            container: Some(seen.container.clone()),
            health: seen.health,
            progress: None,
        });
    }
}

/// Services that an operator stopped, if a known release still has the same spec.
fn stopped_by_operator(at: &Situation, id: &AppId) -> BTreeMap<ServiceName, Halt> {
    let stopped = at.ledger.apps.get(id).into_iter().flat_map(|ledger| &ledger.stopped_by_operator);
    let may_run = |(service, halt): &(&ServiceName, &Halt)| {
        let mut specs =
            AppSituation::new(at, id).releases().filter_map(|release| release.services.get(service));
        specs.any(|spec| spec.hash == halt.spec)
    };
    stopped.filter(may_run).map(|(service, halt)| (service.clone(), halt.clone())).collect()
}

fn containers<'a>(
    at: &'a Situation,
    id: &AppId,
    release: &Release,
) -> impl Iterator<Item = &'a ObservedService> {
    at.observed.services.iter().filter(move |seen| seen.app == *id && belongs_to(seen, release))
}

fn status_of(seen: &ObservedService) -> ServiceStatus {
    match seen.state {
        ContainerState::Created => ServiceStatus::Installed,
        ContainerState::Running => ServiceStatus::Running,
        ContainerState::Paused => ServiceStatus::Paused,
        ContainerState::Restarting => ServiceStatus::Restarting,
        ContainerState::Exited { .. } => ServiceStatus::Exited,
        ContainerState::Removing => ServiceStatus::Removing,
        ContainerState::Dead => ServiceStatus::Dead,
    }
}

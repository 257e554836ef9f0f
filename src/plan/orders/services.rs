//! Stops, starts and restarts single services, as an operator orders.

use std::collections::BTreeSet;

use crate::model::{Answer, ApiKey, AppId, Halt, Ledger, OfService, Release, ServiceName, ServiceSpec};
use crate::plan::app::AppSituation;
use crate::plan::containers::is_up;
use crate::plan::situation::Situation;

use super::locks;
use super::lookup::{check_not_held, find_app, name_of_app};

/// Keeps a service stopped until it is started, or its spec changes.
pub(super) fn stop(
    at: &Situation,
    ledger: &mut Ledger,
    service: &OfService,
    is_forced: bool,
    since: &str,
) -> Result<String, Answer> {
    let (app, service) = find_service(at, service)?;
    let subject = format!("service {service} of {}", name_of_app(at, &app));
    let Some(spec) = current_spec(at, &app, &service) else {
        return Err(Answer::NotFound(format!("{subject} is in no release that this device runs or wants")));
    };
    if let Some(halt) = halt(at, &app, &service, spec) {
        return Ok(format!("{subject} is stopped already, since {}", halt.since));
    }
    check_not_held(ledger)?;
    locks::check_not_locked(at, &app, is_forced)?;
    let entry = ledger.apps.entry(app.clone()).or_default();
    entry
        .restart
        .retain(|id| !AppSituation::new(at, &app).containers_of(&service).any(|seen| seen.container == *id));
    entry
        .stopped_by_operator
        .insert(service.clone(), Halt { spec: spec.hash.clone(), since: since.to_owned() });
    Ok(format!(
        "{subject} is stopped and stays so until `cotter start {service}` or a release that changes it"
    ))
}

/// Lets a service run again that an operator stopped. Locks and a hold do not forbid this.
pub(super) fn start(at: &Situation, ledger: &mut Ledger, service: &OfService) -> Result<String, Answer> {
    let (app, service) = find_service(at, service)?;
    let subject = format!("service {service} of {}", name_of_app(at, &app));
    let stopped = ledger.apps.get_mut(&app).and_then(|entry| entry.stopped_by_operator.remove(&service));
    Ok(match stopped {
        Some(halt) => format!("{subject} is started again (it was stopped since {})", halt.since),
        None => format!("there is nothing to start: no operator stopped {subject}"),
    })
}

/// Makes the planner stop and start the container of a service once.
pub(super) fn restart(
    at: &Situation,
    ledger: &mut Ledger,
    service: &OfService,
    is_forced: bool,
) -> Result<String, Answer> {
    let (app, service) = find_service(at, service)?;
    let subject = format!("service {service} of {}", name_of_app(at, &app));
    let spec = current_spec(at, &app, &service);
    if let Some(halt) = spec.and_then(|spec| halt(at, &app, &service, spec)) {
        return Err(Answer::Refused(format!(
            "{subject} is stopped since {}; `cotter start {service}` starts it",
            halt.since
        )));
    }
    let mut running = AppSituation::new(at, &app).containers_of(&service).filter(|seen| is_up(seen));
    let chosen = running.clone().find(|seen| spec.is_some_and(|s| s.hash == seen.spec));
    let Some(seen) = chosen.or_else(|| running.next()) else {
        return Err(Answer::Refused(format!("{subject} has no container that runs")));
    };
    check_not_held(ledger)?;
    locks::check_not_locked(at, &app, is_forced)?;
    ledger.apps.entry(app.clone()).or_default().restart.insert(seen.container.clone());
    Ok(format!("{subject} is stopped and started again"))
}

/// Makes the planner stop and start all running containers of an app once.
pub(super) fn restart_all(
    at: &Situation,
    ledger: &mut Ledger,
    app: &AppId,
    is_forced: bool,
) -> Result<String, Answer> {
    let app_name = name_of_app(at, app);
    let running: Vec<_> = AppSituation::new(at, app).containers().filter(|seen| is_up(seen)).collect();
    if running.is_empty() {
        return Err(Answer::Refused(format!("no service of {app_name} runs")));
    }
    check_not_held(ledger)?;
    locks::check_not_locked(at, app, is_forced)?;
    let ids = running.iter().map(|seen| seen.container.clone());
    ledger.apps.entry(app.clone()).or_default().restart.extend(ids);
    Ok(format!("all services of {app_name} are stopped and started again"))
}

/// Gives a service another key. Its container, which has the key before it in its environment, is outdated then.
pub(super) fn new_key(
    at: &Situation,
    ledger: &mut Ledger,
    (app, service): (&AppId, &ServiceName),
    key: &ApiKey,
) -> Result<String, Answer> {
    let app_name = name_of_app(at, app);
    match ledger.apps.get_mut(app).and_then(|entry| entry.api_keys.get_mut(service)) {
        Some(known) => known.clone_from(key),
        None => return Err(Answer::NotFound(format!("service {service} of {app_name} has no key"))),
    }
    Ok(format!("service {service} of {app_name} has another key for the supervisor API"))
}

/// The operator's stop of a service, if the service still has the same spec.
fn halt<'a>(at: &'a Situation, app: &AppId, service: &ServiceName, spec: &ServiceSpec) -> Option<&'a Halt> {
    at.ledger.apps.get(app)?.stopped_by_operator.get(service).filter(|halt| halt.spec == spec.hash)
}

/// The spec that an operator means by a service's name: that of the container that is up, else that of the release on
/// trial, of the good one, or of the wanted one.
fn current_spec<'a>(at: &'a Situation, app: &'a AppId, service: &ServiceName) -> Option<&'a ServiceSpec> {
    let runs = |spec: &&ServiceSpec| {
        AppSituation::new(at, app).containers_of(service).any(|seen| is_up(seen) && seen.spec == spec.hash)
    };
    let up =
        AppSituation::new(at, app).releases().filter_map(|release| release.services.get(service)).find(runs);
    let entry = at.ledger.apps.get(app);
    let is_on_trial = |release: &&Release| {
        let key = release.key();
        let is_rejected = entry.and_then(|e| e.rejected.as_ref()).is_some_and(|r| r.release == key);
        !is_rejected && entry.and_then(|e| e.trial.as_ref()).is_some_and(|trial| trial.release == key)
    };
    let tried = AppSituation::new(at, app).wanted().filter(is_on_trial);
    let good = entry.and_then(|entry| entry.good.as_ref());
    let of_release = |release: Option<&'a Release>| release.and_then(|r| r.services.get(service));
    up.or_else(|| of_release(tried))
        .or_else(|| of_release(good))
        .or_else(|| of_release(AppSituation::new(at, app).wanted()))
}

/// The names of all services of an app, including those that are known only because an operator stopped them.
fn service_names(at: &Situation, app: &AppId) -> BTreeSet<ServiceName> {
    let stopped = at.ledger.apps.get(app).into_iter().flat_map(|entry| entry.stopped_by_operator.keys());
    AppSituation::new(at, app)
        .releases()
        .flat_map(|release| release.services.keys())
        .chain(stopped)
        .cloned()
        .collect()
}

/// Finds the service, in the only app that has it.
fn find_service(at: &Situation, given: &OfService) -> Result<(AppId, ServiceName), Answer> {
    let known = at.target.iter().flat_map(|t| t.apps.keys()).chain(at.ledger.apps.keys());
    let apps: BTreeSet<AppId> = match &given.app {
        Some(app) => BTreeSet::from([find_app(at, app)?]),
        None => known.cloned().collect(),
    };
    let having = |app: &AppId| service_names(at, app).into_iter().find(|name| name.as_str() == given.service);
    let found: Vec<_> = apps.iter().filter_map(|app| Some((app.clone(), having(app)?))).collect();
    match found.as_slice() {
        [one] => Ok(one.clone()),
        [] => Err(Answer::NotFound(unknown(at, &apps, &given.service))),
        several => {
            let apps: Vec<_> = several.iter().map(|(app, _)| name_of_app(at, app)).collect();
            let (service, apps) = (&given.service, apps.join(", "));
            Err(Answer::Refused(format!(
                "several apps have a service {service}; name one with --app: {apps}"
            )))
        }
    }
}

/// Says that there is no such service, and lists those that exist.
fn unknown(at: &Situation, apps: &BTreeSet<AppId>, service: &str) -> String {
    let named = apps.iter().filter_map(|app| {
        let services: Vec<_> = service_names(at, app).iter().map(ToString::to_string).collect();
        (!services.is_empty()).then(|| format!("{} has {}", name_of_app(at, app), services.join(", ")))
    });
    let there: Vec<_> = named.collect();
    let there = if there.is_empty() { "there is none".to_owned() } else { there.join("; ") };
    format!("this device has no service {service}: {there}")
}

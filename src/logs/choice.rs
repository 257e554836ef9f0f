//! Decides whether logs are uploaded, and which containers are followed. Pure.

use std::collections::BTreeMap;

use crate::model::{
    AppId, CloudReport, ContainerId, LogLevel, LogState, LogUpload, Report, ServiceName, ServiceReport,
    ServiceSpec, ServiceStatus,
};

/// The variable of a service that says which of its lines are uploaded.
const LEVEL: &str = "BALENA_LOGS_LEVEL";

/// A container whose log is followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Followed {
    pub(super) app: AppId,
    pub(super) service: ServiceName,
    /// The cloud's number of the service.
    pub(super) number: u64,
    pub(super) level: LogLevel,
    /// Changes when the container starts or ends.
    pub(super) phase: Phase,
}

/// The state of a container, and since when it is in it.
pub(super) type Phase = (ServiceStatus, Option<std::time::Duration>);

/// Returns whether logs are uploaded now, and why not.
pub(super) fn state(upload: LogUpload, is_metered: bool, report: &Report, cloud: &CloudReport) -> LogState {
    let target = report.delivered.as_ref().map(|delivered| &delivered.target);
    match (upload, target, cloud.wants_logs) {
        (LogUpload::Off, _, _) => LogState::OffBySetting,
        (LogUpload::Auto, _, _) if is_metered => LogState::OffOnMeteredLink,
        (_, None, _) | (_, _, None) => LogState::Unknown,
        (_, Some(target), _) if !target.has_logs => LogState::OffByVariable,
        (_, _, Some(false)) => LogState::NotWanted,
        (_, _, Some(true)) => LogState::On,
    }
}

/// Returns the containers to follow.
pub(super) fn followed(report: &Report) -> BTreeMap<ContainerId, Followed> {
    let mut followed = BTreeMap::new();
    for (app, reported) in &report.apps {
        for service in &reported.services {
            // A container that was only created has written nothing.
            let has_run = service.status != ServiceStatus::Installed;
            let Some(container) = service.container.as_ref().filter(|_| has_run) else { continue };
            let Some(spec) = spec(report, app, service) else { continue };
            let level = LogLevel::of(spec.environment.get(LEVEL).map(String::as_str));
            if level == LogLevel::None {
                continue;
            }
            let what = Followed {
                app: app.clone(),
                service: service.service.clone(),
                number: spec.service_id,
                level,
                phase: (service.status, service.since),
            };
            followed.insert(container.clone(), what);
        }
    }
    followed
}

/// Returns the spec of a service in the target. An earlier release of it has the same number.
pub(super) fn spec<'a>(report: &'a Report, app: &AppId, service: &ServiceReport) -> Option<&'a ServiceSpec> {
    let target = &report.delivered.as_ref()?.target;
    target.apps.get(app)?.release()?.services.get(&service.service)
}

//! The rows that show something.

use axum::http::StatusCode;
use axum::response::Response;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::model::{
    ApiContainer, ApiView, AppId, AppReport, ContainerState, Release, Report, ServiceReport, ServiceStatus,
    TargetApp, UpdateStatus, VpnState,
};

use super::Supervisor;
use super::actions::{NO_APP, SINGLE_ONLY, find_app, out_of_scope};
use super::answers::{document, failed, success, text};
use super::caller::Caller;
use super::request::Parameters;
use super::rows::Show;

/// From what the answers are made.
pub(super) struct Shown<'a> {
    pub(super) supervisor: &'a Supervisor,
    pub(super) report: &'a Report,
    pub(super) view: &'a ApiView,
    pub(super) caller: &'a Caller,
}

impl<'a> Shown<'a> {
    /// Answers a row that shows something.
    pub(super) fn show(&self, show: Show, parameters: &Parameters) -> Response {
        match show {
            Show::Device => document(StatusCode::OK, &self.device()),
            Show::Single(number) => self.single(number),
            Show::Apps => document(StatusCode::OK, &self.apps()),
            Show::App(number) => self.app(number),
            Show::Status => success(self.status()),
            Show::Version => success(json!({ "version": self.supervisor.version })),
            Show::Containers => self.containers(parameters),
            Show::Vpn => success(json!({ "vpn": self.vpn() })),
            Show::DeviceName => {
                let name =
                    self.report.delivered.as_ref().map(|delivered| delivered.target.device_name.as_str());
                success(json!({ "deviceName": name.unwrap_or_default() }))
            }
        }
    }

    fn may_see(&self, app: &AppId) -> bool {
        self.caller.may_reach(app, self.supervisor.allowed)
    }

    fn may_see_all(&self) -> bool {
        self.caller.may_reach_all(self.supervisor.allowed)
    }

    /// The app of a service, and for the cloud the first one.
    fn own_app(&self) -> Option<&'a AppReport> {
        let all = &self.report.apps;
        self.caller.app().map_or_else(|| all.values().next(), |app| all.get(app))
    }

    fn vpn(&self) -> Value {
        let state = self.supervisor.cloud.state.borrow();
        let is_enabled = !matches!(*state, VpnState::Off | VpnState::TurnedOff);
        json!({ "enabled": is_enabled, "connected": state.is_connected() })
    }

    /// The apps that the caller may see.
    fn visible(&self) -> impl Iterator<Item = (&'a AppId, &'a AppReport)> {
        self.report.apps.iter().filter(|(id, _)| self.may_see(id))
    }

    fn target(&self, app: &AppId) -> Option<&'a TargetApp> {
        self.report.delivered.as_ref()?.target.apps.get(app)
    }

    fn number(&self, app: &AppId) -> Option<u64> {
        self.target(app).and_then(TargetApp::number)
    }

    fn release(&self, app: &AppId) -> Option<&'a Release> {
        self.target(app).and_then(TargetApp::release)
    }

    /// The number of the release of a service. It is known of the wanted release only.
    fn release_id(&self, app: &AppId, service: &ServiceReport) -> Option<u64> {
        self.release(app).filter(|release| release.commit == service.release).map(|release| release.number)
    }

    /// The ids of a service and of its image in the cloud, from the wanted release.
    fn ids(&self, app: &AppId, service: &ServiceReport) -> (Option<u64>, Option<u64>) {
        let spec = self.release(app).and_then(|release| release.services.get(&service.service));
        (spec.map(|spec| spec.service_id), spec.map(|spec| spec.image_id))
    }

    /// The container of a service with its image; a running one if there is one.
    fn container(&self, app: &AppId, service: &ServiceReport) -> Option<&'a ApiContainer> {
        let of_service =
            self.view.containers.iter().filter(|c| c.app == *app && c.service == service.service);
        of_service.filter(|c| c.image == service.image).min_by_key(|c| c.state != ContainerState::Running)
    }

    fn device(&self) -> Value {
        let app = self.own_app();
        let update = app.and_then(|app| app.update.get(app.target.as_ref()?)).copied();
        let is_done = app.is_some_and(|app| app.target == app.current);
        let mut fields = Map::from_iter([
            ("api_port".to_owned(), json!(self.supervisor.port)),
            ("supervisor_version".to_owned(), json!(self.supervisor.version)),
            ("update_pending".to_owned(), json!(!is_done)),
            ("update_failed".to_owned(), json!(update == Some(UpdateStatus::Rejected))),
            (
                "update_downloaded".to_owned(),
                json!(matches!(update, Some(UpdateStatus::Downloaded | UpdateStatus::ApplyingChanges))),
            ),
        ]);
        if !self.supervisor.os_version.is_empty() {
            fields.insert("os_version".to_owned(), json!(self.supervisor.os_version));
        }
        if let Some(commit) = app.filter(|_| is_done).and_then(|app| app.current.as_ref()) {
            fields.insert("commit".to_owned(), json!(commit.to_string()));
        }
        let first = app.and_then(|app| app.services.first());
        let busy = first.filter(|service| service.status != ServiceStatus::Running);
        let progress = self.report.download().map(|progress| progress.percent);
        let downloading = progress.map(|_| ServiceStatus::Downloading);
        let status = downloading.or(busy.map(|service| service.status)).map_or("Idle", ServiceStatus::as_str);
        fields.insert("status".to_owned(), json!(status));
        fields.insert("download_progress".to_owned(), json!(progress));
        Value::Object(fields)
    }

    /// The only service of an app.
    fn single(&self, number: u64) -> Response {
        let Some((id, release)) = find_app(self.report.delivered.as_ref(), number) else {
            let is_open = self.may_see_all();
            return if is_open { text(StatusCode::BAD_REQUEST, NO_APP) } else { out_of_scope() };
        };
        if !self.may_see(id) {
            return out_of_scope();
        }
        let Some((release, (name, spec))) = release
            .filter(|release| release.services.len() == 1)
            .and_then(|r| Some((r, r.services.iter().next()?)))
        else {
            return text(StatusCode::BAD_REQUEST, SINGLE_ONLY);
        };
        let is_it = |container: &&ApiContainer| container.app == *id && container.service == *name;
        let container = self.view.containers.iter().find(is_it).map(|container| container.id.to_string());
        let fields = json!({
            "appId": number,
            "commit": release.commit.to_string(),
            "containerId": container,
            "env": spec.environment,
            "imageId": spec.image_id,
            "releaseId": release.number,
        });
        document(StatusCode::OK, &fields)
    }

    fn apps(&self) -> Value {
        let service = |app: &AppId, service: &ServiceReport| {
            let progress = service.progress.map(|progress| progress.percent);
            json!({
                "status": service.status.as_str(),
                "image": service.image,
                "releaseId": self.release_id(app, service),
                "downloadProgress": progress,
            })
        };
        let app = |(id, app): (&AppId, &AppReport)| {
            // During a swap the service of the wanted release is shown.
            let mut services = Map::new();
            for of in &app.services {
                if Some(&of.release) == app.target.as_ref() || !services.contains_key(of.service.as_str()) {
                    services.insert(of.service.to_string(), service(id, of));
                }
            }
            let update = app.target.as_ref().and_then(|target| app.update.get(target));
            let fields = json!({
                "appId": self.number(id),
                "appUuid": id.to_string(),
                "commit": app.target.as_ref().map(ToString::to_string),
                "updateStatus": update.map(|update| update.as_str()),
                "services": services,
            });
            (app.name.clone(), fields)
        };
        Value::Object(self.visible().map(app).collect())
    }

    fn app(&self, number: u64) -> Response {
        let found = find_app(self.report.delivered.as_ref(), number);
        let found = found.filter(|(id, _)| self.may_see(id));
        let Some((id, app)) = found.and_then(|(id, _)| Some((id, self.report.apps.get(id)?))) else {
            if !self.may_see_all() {
                return out_of_scope();
            }
            return failed(StatusCode::CONFLICT, &format!("Application with id {number} not found"));
        };
        let service = |of: &ServiceReport| {
            let image = self.ids(id, of).1?;
            let progress = of.progress.map(|progress| progress.percent);
            let fields = json!({
                "status": of.status.as_str(),
                "releaseId": self.release_id(id, of),
                "download_progress": progress,
            });
            Some((image.to_string(), fields))
        };
        let services: Map<String, Value> = app.services.iter().filter_map(service).collect();
        let mut local = Map::new();
        local.insert(number.to_string(), json!({ "services": services }));
        let commit = app.current.as_ref().map(ToString::to_string);
        document(StatusCode::OK, &json!({ "commit": commit, "local": local }))
    }

    fn status(&self) -> Value {
        let (mut containers, mut images, mut is_applied) = (Vec::new(), Vec::new(), true);
        for (id, app) in self.visible() {
            is_applied &= app.target == app.current;
            for of in &app.services {
                let ((service_id, image_id), number) = (self.ids(id, of), self.number(id));
                let progress = of.progress.map(|progress| progress.percent);
                images.push(json!({
                    "name": of.image,
                    "appId": number,
                    "serviceName": of.service.to_string(),
                    "imageId": image_id,
                    "dockerImageId": of.image.split_once('@').map(|(_, digest)| digest),
                    "status": if progress.is_some() { "Downloading" } else { "Downloaded" },
                    "downloadProgress": progress,
                }));
                let Some(container) = self.container(id, of) else { continue };
                containers.push(json!({
                    "status": of.status.as_str(),
                    "serviceName": of.service.to_string(),
                    "appId": number,
                    "imageId": image_id,
                    "serviceId": service_id,
                    "containerId": container.id.to_string(),
                    "createdAt": Timestamp::from_second(container.created).ok().map(|at| at.to_string()),
                }));
            }
        }
        let own = self.own_app();
        json!({
            "appState": if is_applied { "applied" } else { "applying" },
            "overallDownloadProgress": self.report.download().map(|progress| progress.percent),
            "containers": containers,
            "images": images,
            "release": own.and_then(|app| app.current.as_ref()).map(ToString::to_string),
        })
    }

    fn containers(&self, parameters: &Parameters) -> Response {
        let mut named = Map::new();
        for (id, app) in self.visible() {
            for of in &app.services {
                if let Some(container) = self.container(id, of) {
                    named.insert(of.service.to_string(), json!(container.id.to_string()));
                }
            }
        }
        let Some(asked) = parameters.text("service").or_else(|| parameters.text("serviceName")) else {
            return success(json!({ "services": named }));
        };
        match named.remove(&asked) {
            Some(id) => success(json!({ "containerId": id })),
            None => failed(StatusCode::SERVICE_UNAVAILABLE, "Could not find service with that name"),
        }
    }
}

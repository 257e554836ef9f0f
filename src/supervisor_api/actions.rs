//! The rows that change something: each is an order to the reconciler.

use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;
use tokio::sync::{mpsc, oneshot};

use crate::model::{Answer, AppId, Delivered, OfService, Order, Power, Purge, Release, TargetApp};

use super::Supervisor;
use super::answers::{document, failed, failed_v1, not_followed, text};
use super::caller::Caller;
use super::request::Parameters;
use super::rows::{Change, Verb};

pub(super) const NO_APP: &str = "App not found: an app needs to be installed for this endpoint to work";
pub(super) const SINGLE_ONLY: &str = "Some v1 endpoints are only allowed on single-container apps";
const NO_SERVICE: &str = "Service not found, a container must exist for this endpoint to work";
const NO_PARAMETER: &str = "This endpoint requires one of imageId or serviceName";

/// A service, or the cloud, that orders something.
pub(super) struct Acting<'a> {
    pub(super) supervisor: &'a Supervisor,
    /// Takes services whose containers are to be created again soon.
    pub(super) restarts: &'a mpsc::Sender<OfService>,
    pub(super) caller: Caller,
    pub(super) parameters: &'a Parameters,
}

/// Returns the app of the target with this number.
pub(super) fn find_app(
    delivered: Option<&Arc<Delivered>>,
    number: u64,
) -> Option<(&AppId, Option<&Release>)> {
    let mut apps = delivered?.target.apps.iter();
    let (id, app) = apps.find(|(_, app)| app.number() == Some(number))?;
    Some((id, app.release()))
}

/// A refusal with a text.
fn refused(status: StatusCode, why: &str) -> Box<Response> {
    Box::new(text(status, why))
}

/// Says that a service may not ask about another app.
pub(super) fn out_of_scope() -> Response {
    failed(
        StatusCode::UNAUTHORIZED,
        "Application is not available: this key is for the service's own app; the owner of the device allows others with \
         policy.other_apps = \"yes\"",
    )
}

impl Acting<'_> {
    /// Follows a row that changes something.
    pub(super) async fn act(&self, change: Change) -> Response {
        let number = self.parameters.number("appId");
        let done = match change {
            Change::NewKey => self.new_key().await,
            Change::Update => self.update().await,
            Change::Power(power) => self.end_run(power).await,
            Change::RestartV1 => match number {
                Some(app) => self.restart(app).await,
                None => Err(refused(StatusCode::BAD_REQUEST, "Missing app id")),
            },
            Change::PurgeV1 => match number {
                Some(app) => self
                    .purge(app)
                    .await
                    .map(|_| document(StatusCode::OK, &json!({ "Data": "OK", "Error": "" }))),
                None => Err(refused(StatusCode::BAD_REQUEST, "Invalid or missing appId")),
            },
            Change::Restart(app) => self.restart(app).await,
            Change::Purge(app) => self.purge(app).await,
            Change::Service(verb, app) => self.service(verb, app).await,
            Change::Single(verb, app) => self.single(verb, app).await,
            Change::CleanUp => self.clean_up().await,
        };
        done.unwrap_or_else(|refusal| *refusal)
    }

    /// Returns the app with this number, if it is in the target and the caller may act on it.
    fn app(&self, number: u64) -> Result<Option<AppId>, Box<Response>> {
        let report = self.supervisor.report.borrow();
        let found = find_app(report.delivered.as_ref(), number).map(|(id, _)| id.clone());
        // The number of an app that is refused is not in the target.
        let allowed = self.supervisor.allowed;
        let is_reached = self.caller.may_reach_all(allowed)
            || found.as_ref().is_some_and(|app| self.caller.may_reach(app, allowed));
        if is_reached { Ok(found) } else { Err(Box::new(out_of_scope())) }
    }

    /// Hands an order to the reconciler and waits for its answer.
    async fn order(&self, order: Order) -> Answer {
        let stopping = || Answer::Refused("the agent is stopping; nothing was changed".to_owned());
        let (answer, answered) = oneshot::channel();
        if self.supervisor.orders.send((order, answer)).await.is_err() {
            return stopping();
        }
        answered.await.unwrap_or_else(|_| stopping())
    }

    /// Gives an order, and returns `OK` if it was followed.
    async fn follow(&self, order: Order) -> Result<Response, Box<Response>> {
        let answer = self.order(order).await;
        match answer {
            Answer::Done(_) => Ok(text(StatusCode::OK, "OK")),
            Answer::Held(_) | Answer::Refused(_) | Answer::NotFound(_) => {
                Err(Box::new(not_followed(&answer)))
            }
        }
    }

    /// Changes the key of the service. Its container is created again with the new one, but not before the answer has
    /// arrived there.
    async fn new_key(&self) -> Result<Response, Box<Response>> {
        let Some((app, service)) = self.caller.service() else {
            let why = "not supported: the key of the cloud comes from the device's key, and changes with it";
            return Err(Box::new(failed(StatusCode::NOT_IMPLEMENTED, why)));
        };
        let no_random =
            || failed(StatusCode::SERVICE_UNAVAILABLE, "the system has no random numbers; try again");
        let key = (self.supervisor.new_key)().ok_or_else(no_random)?;
        let secret = key.secret.clone();
        let (app, service) = (app.clone(), service.clone());
        let of = OfService { app: Some(app.to_string()), service: service.to_string() };
        self.follow(Order::NewKey { app, service, key }).await?;
        // If too many are restarted at the moment, it is created again before its next start.
        _ = self.restarts.try_send(of);
        Ok(text(StatusCode::OK, &secret))
    }

    /// Asks the cloud at once. `force` lets the releases of the service's own app, or for the cloud of all apps, pass locks and
    /// windows.
    async fn update(&self) -> Result<Response, Box<Response>> {
        if self.parameters.is_forced() {
            // There may be no release that could be forced, which is not an error here.
            _ = self.order(Order::Force { app: self.caller.app().map(ToString::to_string) }).await;
        }
        let Some(poll_now) =
            self.supervisor.poll_now.as_ref().filter(|_| self.parameters.is_forced() || self.may_poll())
        else {
            return Ok(StatusCode::ACCEPTED.into_response());
        };
        poll_now.notify_one();
        Ok(StatusCode::NO_CONTENT.into_response())
    }

    /// Whether the cloud lets services make the agent poll.
    fn may_poll(&self) -> bool {
        let report = self.supervisor.report.borrow();
        report.delivered.as_ref().is_none_or(|delivered| delivered.target.has_instant_updates)
    }

    async fn end_run(&self, power: Power) -> Result<Response, Box<Response>> {
        if !self.supervisor.allowed.reboot {
            let why = format!(
                "the owner of this device does not let apps {} it: policy.reboot = \"yes\" allows it",
                match power {
                    Power::Reboot => "reboot",
                    Power::Off => "shut down",
                }
            );
            return Err(Box::new(failed_v1(StatusCode::FORBIDDEN, &why)));
        }
        match self.order(Order::Power { power, is_forced: self.parameters.is_forced() }).await {
            Answer::Done(_) => Ok(document(StatusCode::ACCEPTED, &json!({ "Data": "OK", "Error": null }))),
            Answer::Held(why) => Err(Box::new(failed_v1(StatusCode::LOCKED, &why))),
            Answer::Refused(why) | Answer::NotFound(why) => {
                Err(Box::new(failed_v1(StatusCode::INTERNAL_SERVER_ERROR, &why)))
            }
        }
    }

    async fn restart(&self, number: u64) -> Result<Response, Box<Response>> {
        let app = self.app(number)?.ok_or_else(|| refused(StatusCode::NOT_FOUND, NO_APP))?;
        self.follow(Order::RestartApp { app, is_forced: self.parameters.is_forced() }).await
    }

    /// Removes all volumes of an app. Having none is a success, as in balena's API.
    async fn purge(&self, number: u64) -> Result<Response, Box<Response>> {
        let app = self.app(number)?.ok_or_else(|| refused(StatusCode::NOT_FOUND, NO_APP))?;
        self.remove_volumes(app, false).await
    }

    /// Removes volumes that no known release of the service's own app has and no container mounts; for the cloud, of any app.
    async fn clean_up(&self) -> Result<Response, Box<Response>> {
        let apps = match self.caller.app() {
            Some(app) => vec![app.clone()],
            None => self.supervisor.report.borrow().apps.keys().cloned().collect(),
        };
        for app in apps {
            self.remove_volumes(app, true).await?;
        }
        Ok(text(StatusCode::OK, "OK"))
    }

    async fn remove_volumes(&self, app: AppId, is_of_unused: bool) -> Result<Response, Box<Response>> {
        let is_forced = self.parameters.is_forced();
        let app = Some(app.to_string());
        let purge = Purge { app, volume: None, is_forced, is_dry: false, is_of_unused };
        let answer = self.order(Order::Purge(purge)).await;
        match answer {
            Answer::Done(_) | Answer::NotFound(_) => Ok(text(StatusCode::OK, "OK")),
            Answer::Held(_) | Answer::Refused(_) => Err(Box::new(not_followed(&answer))),
        }
    }

    /// Starts, stops or restarts a service that is named by `serviceName` or `imageId`.
    async fn service(&self, verb: Verb, number: u64) -> Result<Response, Box<Response>> {
        let app = self.app(number)?;
        let name = self.parameters.text("serviceName").filter(|name| !name.is_empty());
        let image = self.parameters.number("imageId");
        if name.is_none() && image.is_none() {
            return Err(refused(StatusCode::BAD_REQUEST, NO_PARAMETER));
        }
        let app = app.ok_or_else(|| refused(StatusCode::NOT_FOUND, NO_APP))?;
        let by_image = || {
            let report = self.supervisor.report.borrow();
            let (_, release) = find_app(report.delivered.as_ref(), number)?;
            let mut services = release?.services.iter();
            services.find(|(_, spec)| Some(spec.image_id) == image).map(|(name, _)| name.to_string())
        };
        let name = name.or_else(by_image).ok_or_else(|| refused(StatusCode::NOT_FOUND, NO_SERVICE))?;
        self.change(verb, app, name).await
    }

    async fn change(&self, verb: Verb, app: AppId, service: String) -> Result<Response, Box<Response>> {
        let service = OfService { app: Some(app.to_string()), service };
        let is_forced = self.parameters.is_forced();
        let since = (self.supervisor.time_in)(Duration::ZERO);
        let order = match verb {
            Verb::Start => Order::Start { service },
            Verb::Stop => Order::Stop { service, is_forced, since },
            Verb::Restart => Order::Restart { service, is_forced },
        };
        let answer = self.order(order).await;
        match answer {
            Answer::Done(_) => Ok(text(StatusCode::OK, "OK")),
            Answer::NotFound(_) => Err(refused(StatusCode::NOT_FOUND, NO_SERVICE)),
            Answer::Held(_) | Answer::Refused(_) => Err(Box::new(not_followed(&answer))),
        }
    }

    /// Starts or stops the only service of an app.
    async fn single(&self, verb: Verb, number: u64) -> Result<Response, Box<Response>> {
        let app = self.app(number)?.ok_or_else(|| refused(StatusCode::NOT_FOUND, NO_APP))?;
        let name = {
            let report = self.supervisor.report.borrow();
            let release =
                report.delivered.as_ref().and_then(|d| d.target.apps.get(&app)).and_then(TargetApp::release);
            let names: Vec<_> = release.into_iter().flat_map(|release| release.services.keys()).collect();
            match names.as_slice() {
                [name] => name.to_string(),
                _ => return Err(refused(StatusCode::BAD_REQUEST, SINGLE_ONLY)),
            }
        };
        self.change(verb, app.clone(), name).await?;
        let view = self.supervisor.view.borrow();
        let container = view.containers.iter().find(|seen| seen.app == app).map(|seen| seen.id.to_string());
        Ok(document(StatusCode::OK, &json!({ "containerId": container })))
    }
}

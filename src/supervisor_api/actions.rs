//! The rows that change something: each is an order to the reconciler.

use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;
use tokio::sync::oneshot;

use crate::model::{Answer, ApiClient, AppId, Delivered, OfService, Order, Power, Purge, Release, TargetApp};

use super::Supervisor;
use super::answers::{document, failed, failed_v1, not_followed, text};
use super::request::Parameters;
use super::rows::{Row, Verb};

pub(super) const NO_APP: &str = "App not found: an app needs to be installed for this endpoint to work";
pub(super) const SINGLE_ONLY: &str = "Some v1 endpoints are only allowed on single-container apps";
const NO_SERVICE: &str = "Service not found, a container must exist for this endpoint to work";
const NO_PARAMETER: &str = "This endpoint requires one of imageId or serviceName";

/// How long a service has to read its new key before its container is created again.
const TO_READ: Duration = Duration::from_secs(2);

/// A service that orders something.
pub(super) struct Acting<'a> {
    pub(super) supervisor: &'a Supervisor,
    pub(super) client: ApiClient,
    pub(super) parameters: &'a Parameters,
}

/// Follows a row that changes something.
pub(super) async fn act(acting: Acting<'_>, row: Row) -> Response {
    let parameters = acting.parameters;
    let done = match row {
        Row::NewKey => acting.new_key().await,
        Row::Update => acting.update().await,
        Row::Power(power) => acting.end_run(power).await,
        Row::RestartV1 => match parameters.number("appId") {
            Some(app) => acting.restart(app).await,
            None => Err(text(StatusCode::BAD_REQUEST, "Missing app id")),
        },
        Row::PurgeV1 => match parameters.number("appId") {
            Some(app) => acting
                .purge(app)
                .await
                .map(|_| document(StatusCode::OK, &json!({ "Data": "OK", "Error": "" }))),
            None => Err(text(StatusCode::BAD_REQUEST, "Invalid or missing appId")),
        },
        Row::Restart(app) => acting.restart(app).await,
        Row::Purge(app) => acting.purge(app).await,
        Row::Service(verb, app) => acting.service(verb, app).await,
        Row::StopSingle(app) => acting.single(Verb::Stop, app).await,
        Row::StartSingle(app) => acting.single(Verb::Start, app).await,
        Row::CleanUp => acting.clean_up().await,
        _ => Err(text(StatusCode::NOT_FOUND, "no such order")),
    };
    done.unwrap_or_else(|refusal| refusal)
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

/// Says that a service may not ask about another app.
pub(super) fn out_of_scope() -> Response {
    failed(
        StatusCode::UNAUTHORIZED,
        "Application is not available: this key is for the service's own app; the owner of the device allows others with \
         policy.other_apps = \"yes\"",
    )
}

impl Acting<'_> {
    /// Returns the app with this number, if the service may act on it, and whether it is in the target.
    fn app(&self, number: u64) -> Result<Option<AppId>, Response> {
        let report = self.supervisor.report.borrow();
        let found = find_app(report.delivered.as_ref(), number).map(|(id, _)| id.clone());
        // The number of an app that is refused is not in the target.
        let is_own = found.as_ref() == Some(&self.client.app);
        if is_own || self.supervisor.allowed.other_apps { Ok(found) } else { Err(out_of_scope()) }
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
    async fn follow(&self, order: Order) -> Result<Response, Response> {
        match not_followed(&self.order(order).await) {
            None => Ok(text(StatusCode::OK, "OK")),
            Some(refusal) => Err(refusal),
        }
    }

    /// Changes the key of the service. Its container is created again with the new one, but not before the answer has
    /// arrived there.
    async fn new_key(&self) -> Result<Response, Response> {
        let no_random =
            || failed(StatusCode::SERVICE_UNAVAILABLE, "the system has no random numbers; try again");
        let key = (self.supervisor.new_key)().ok_or_else(no_random)?;
        let secret = key.secret.clone();
        let (app, service) = (self.client.app.clone(), self.client.service.clone());
        let of = OfService { app: Some(app.to_string()), service: service.to_string() };
        self.follow(Order::NewKey { app, service, key }).await?;
        let orders = self.supervisor.orders.clone();
        // A service can have few of these tasks: its orders have a pace.
        tokio::spawn(async move {
            tokio::time::sleep(TO_READ).await;
            let (answer, answered) = oneshot::channel();
            let restart = Order::Restart { service: of, is_forced: false };
            if orders.send((restart, answer)).await.is_ok() {
                // A lock or a hold may forbid it. Then the container is created again before its next start.
                _ = answered.await;
            }
        });
        Ok(text(StatusCode::OK, &secret))
    }

    /// Asks the cloud at once. `force` lets the releases of the service's own app pass locks and windows.
    async fn update(&self) -> Result<Response, Response> {
        if self.parameters.is_forced() {
            // There may be no release that could be forced, which is not an error here.
            _ = self.order(Order::Force { app: Some(self.client.app.to_string()) }).await;
        }
        let Some(poll_now) = &self.supervisor.poll_now else {
            return Ok(StatusCode::ACCEPTED.into_response());
        };
        poll_now.notify_one();
        Ok(StatusCode::NO_CONTENT.into_response())
    }

    async fn end_run(&self, power: Power) -> Result<Response, Response> {
        if !self.supervisor.allowed.reboot {
            let why = format!(
                "the owner of this device does not let apps {} it: policy.reboot = \"yes\" allows it",
                match power {
                    Power::Reboot => "reboot",
                    Power::Off => "shut down",
                }
            );
            return Err(failed_v1(StatusCode::FORBIDDEN, &why));
        }
        match self.order(Order::Power { power, is_forced: self.parameters.is_forced() }).await {
            Answer::Done(_) => Ok(document(StatusCode::ACCEPTED, &json!({ "Data": "OK", "Error": null }))),
            Answer::Held(why) => Err(failed_v1(StatusCode::LOCKED, &why)),
            Answer::Refused(why) | Answer::NotFound(why) => {
                Err(failed_v1(StatusCode::INTERNAL_SERVER_ERROR, &why))
            }
        }
    }

    async fn restart(&self, number: u64) -> Result<Response, Response> {
        let app = self.app(number)?.ok_or_else(|| text(StatusCode::NOT_FOUND, NO_APP))?;
        self.follow(Order::RestartApp { app, is_forced: self.parameters.is_forced() }).await
    }

    /// Removes all volumes of an app. Having none is a success, as in balena's API.
    async fn purge(&self, number: u64) -> Result<Response, Response> {
        let app = self.app(number)?.ok_or_else(|| text(StatusCode::NOT_FOUND, NO_APP))?;
        self.remove_volumes(app, false).await
    }

    /// Removes volumes that no known release of the service's own app has and no container mounts.
    async fn clean_up(&self) -> Result<Response, Response> {
        self.remove_volumes(self.client.app.clone(), true).await
    }

    async fn remove_volumes(&self, app: AppId, is_of_unused: bool) -> Result<Response, Response> {
        let is_forced = self.parameters.is_forced();
        let app = Some(app.to_string());
        let purge = Purge { app, volume: None, is_forced, is_dry: false, is_of_unused };
        let answer = self.order(Order::Purge(purge)).await;
        match answer {
            Answer::NotFound(_) => Ok(text(StatusCode::OK, "OK")),
            other => not_followed(&other).map_or_else(|| Ok(text(StatusCode::OK, "OK")), Err),
        }
    }

    /// Starts, stops or restarts a service that is named by `serviceName` or `imageId`.
    async fn service(&self, verb: Verb, number: u64) -> Result<Response, Response> {
        let app = self.app(number)?;
        let name = self.parameters.text("serviceName").filter(|name| !name.is_empty());
        let image = self.parameters.number("imageId");
        if name.is_none() && image.is_none() {
            return Err(text(StatusCode::BAD_REQUEST, NO_PARAMETER));
        }
        let app = app.ok_or_else(|| text(StatusCode::NOT_FOUND, NO_APP))?;
        let by_image = || {
            let report = self.supervisor.report.borrow();
            let (_, release) = find_app(report.delivered.as_ref(), number)?;
            let mut services = release?.services.iter();
            services.find(|(_, spec)| Some(spec.image_id) == image).map(|(name, _)| name.to_string())
        };
        let name = name.or_else(by_image).ok_or_else(|| text(StatusCode::NOT_FOUND, NO_SERVICE))?;
        self.change(verb, app, name).await
    }

    async fn change(&self, verb: Verb, app: AppId, service: String) -> Result<Response, Response> {
        let service = OfService { app: Some(app.to_string()), service };
        let is_forced = self.parameters.is_forced();
        let since = (self.supervisor.time_in)(Duration::ZERO);
        let order = match verb {
            Verb::Start => Order::Start { service },
            Verb::Stop => Order::Stop { service, is_forced, since },
            Verb::Restart => Order::Restart { service, is_forced },
        };
        match self.order(order).await {
            Answer::NotFound(_) => Err(text(StatusCode::NOT_FOUND, NO_SERVICE)),
            other => not_followed(&other).map_or_else(|| Ok(text(StatusCode::OK, "OK")), Err),
        }
    }

    /// Starts or stops the only service of an app.
    async fn single(&self, verb: Verb, number: u64) -> Result<Response, Response> {
        let app = self.app(number)?.ok_or_else(|| text(StatusCode::NOT_FOUND, NO_APP))?;
        let name = {
            let report = self.supervisor.report.borrow();
            let release =
                report.delivered.as_ref().and_then(|d| d.target.apps.get(&app)).and_then(TargetApp::release);
            let names: Vec<_> = release.into_iter().flat_map(|release| release.services.keys()).collect();
            match names.as_slice() {
                [name] => name.to_string(),
                _ => return Err(text(StatusCode::BAD_REQUEST, SINGLE_ONLY)),
            }
        };
        self.change(verb, app.clone(), name).await?;
        let view = self.supervisor.view.borrow();
        let container = view.containers.iter().find(|seen| seen.app == app).map(|seen| seen.id.to_string());
        Ok(document(StatusCode::OK, &json!({ "containerId": container })))
    }
}

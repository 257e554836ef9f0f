//! What all pages share, and the way of a page to the operator API inside the process.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Extension, Request};
use axum::http::header::{CONTENT_TYPE, ETAG, IF_MATCH};
use axum::http::response::Parts;
use axum::http::{HeaderValue, Method};
use axum::response::{IntoResponse, Redirect, Response};
use http_body_util::{BodyExt as _, Limited};
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;

use super::fields::encoded;
use super::session::Sessions;
use super::trouble::Trouble;
use crate::fleet::access::{By, Permission};
use crate::fleet::clock;
use crate::fleet::courier::Courier;
use crate::fleet::gate::{Caller, Gate};
use crate::fleet::in_progress::InProgress;
use crate::fleet::operator_api::{self, IDEMPOTENCY_KEY, OfPage};
use crate::fleet::places::Places;
use crate::fleet::secret;
use crate::listen::Admitted;
use crate::wire::operator_api::{Code, ErrorView, FleetView, NEXT_PAGE};

/// Maximum number of streams of events at once, of all users. A page without one reloads itself now and then.
const STREAMS: usize = 64;

/// Maximum number of forms of the sign-in page that arrive at once. They come from strangers, and must not take all places of devices.
const SIGN_INS: usize = 16;

/// Maximum number of fleets in a menu.
const IN_MENU: usize = 1000;

/// The largest answer of the API that a page reads.
const LARGEST_ANSWER: usize = 32 << 20;

/// How long a page waits for the API.
const LONGEST: Duration = Duration::from_secs(60);

pub(super) struct Site {
    pub(super) gate: Arc<Gate>,
    pub(super) sessions: Sessions,
    pub(super) has_tls: bool,
    pub(super) streams: Arc<Places>,
    /// Forms of strangers that arrive, in all and by address.
    pub(super) sign_ins: Arc<Semaphore>,
    pub(super) sign_ins_by_address: Arc<InProgress>,
    api: TowerToHyperService<Router>,
}

impl Site {
    pub(super) fn new(gate: &Arc<Gate>, has_tls: bool, courier: &Courier) -> Self {
        let api = operator_api::routes_inside(gate).layer(Extension(courier.clone()));
        let api = api.with_state(Arc::clone(gate.records()));
        Self {
            gate: Arc::clone(gate),
            sessions: Sessions::default(),
            has_tls,
            streams: Places::new(STREAMS),
            sign_ins: Arc::new(Semaphore::new(SIGN_INS)),
            sign_ins_by_address: Arc::default(),
            api: TowerToHyperService::new(api),
        }
    }
}

/// A request of a signed-in user.
#[derive(Clone)]
pub(super) struct Visitor {
    pub(super) site: Arc<Site>,
    pub(super) caller: Caller,
    pub(super) admitted: Admitted,
    pub(super) cookie: String,
    pub(super) csrf: String,
    /// Its method and path, for the audit trail.
    pub(super) request: String,
    /// The address of this server as the browser has it, for commands to copy.
    pub(super) origin: String,
    pub(super) is_secure: bool,
    /// Whether the page is for the script, which takes a part of it.
    pub(super) is_by_script: bool,
    /// What the script or the page gives to a form, so that it is done once if it is sent again.
    pub(super) key: Option<String>,
}

/// An answer of the API.
pub(super) struct Got<T> {
    pub(super) value: T,
    /// With its quotes.
    pub(super) etag: String,
    pub(super) next: Option<String>,
}

impl Visitor {
    /// Reads something. `path` is below `/api/v1`, with its query.
    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<Got<T>, Trouble> {
        self.ask(Method::GET, path, None, None).await
    }

    /// Returns `true` if this user has sent this form before, and the act that it asks for was done.
    pub(super) fn has_done(&self, path: &str, body: &impl Serialize) -> bool {
        let key = serde_json::to_vec(body).ok().and_then(|body| self.key_of(path, &body));
        let id = key.map(|key| operator_api::repeat_id(&self.caller.by, &key));
        let world = self.site.gate.records().world();
        id.is_some_and(|id| world.repeats().find(&id, clock::now()).is_some())
    }

    /// The key of a request for this form. A page may make more than one request, and each of them is done once.
    fn key_of(&self, path: &str, body: &[u8]) -> Option<String> {
        let key = self.key.as_ref()?;
        let act = Sha256::new().chain_update(path).chain_update("\n").chain_update(body).finalize();
        Some(format!("{key} {}", secret::hex(&act)))
    }

    /// Reads a fleet by its name or number.
    pub(super) async fn fleet(&self, fleet: &str) -> Result<FleetView, Trouble> {
        Ok(self.get::<FleetView>(&format!("/fleets/{}", encoded(fleet))).await?.value)
    }

    /// Acts. With an ETag only if the thing is still as it was shown.
    pub(super) async fn act<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
        etag: Option<&str>,
    ) -> Result<T, Trouble> {
        let body = serde_json::to_vec(body).map_err(|error| Trouble::internal(error.to_string()))?;
        Ok(self.ask(method, path, Some(body), etag).await?.value)
    }

    /// Begins an answer that lasts.
    pub(super) async fn stream(&self, path: &str) -> Result<Body, Trouble> {
        let (head, body) = self.send(Method::GET, path, None, None).await?;
        match head.status.is_success() {
            true => Ok(body),
            false => Err(refused(path, &head, body).await),
        }
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
        etag: Option<&str>,
    ) -> Result<Got<T>, Trouble> {
        let (head, body) = self.send(method, path, body, etag).await?;
        if !head.status.is_success() {
            return Err(refused(path, &head, body).await);
        }
        let bytes = collected(path, body).await?;
        let value = serde_json::from_slice(&bytes).map_err(|error| broken(path, &error))?;
        let header = |name: &str| {
            head.headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok()).map(str::to_owned)
        };
        Ok(Got { value, etag: header(ETAG.as_str()).unwrap_or_default(), next: header(NEXT_PAGE) })
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
        etag: Option<&str>,
    ) -> Result<(Parts, Body), Trouble> {
        let mut request = Request::builder().method(method).uri(path);
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        if let Some(etag) = etag {
            request = request.header(IF_MATCH, etag);
        }
        if let Some(key) = body.as_ref().and_then(|body| self.key_of(path, body)) {
            request = request.header(IDEMPOTENCY_KEY, key);
        }
        let mut request =
            request.body(Body::from(body.unwrap_or_default())).map_err(|error| broken(path, &error))?;
        let extensions = request.extensions_mut();
        extensions.insert(self.caller.clone());
        extensions.insert(self.admitted.clone());
        extensions.insert(Arc::clone(&self.site.gate));
        extensions.insert(OfPage(self.request.clone()));
        let answering = self.site.api.call(request);
        let response =
            tokio::time::timeout(LONGEST, answering).await.map_err(|error| broken(path, &error))?;
        Ok(response.unwrap_or_else(|never| match never {}).into_parts())
    }

    /// Reads the fleets that a menu offers, and whether there are more.
    pub(super) async fn fleets(&self) -> Result<(Vec<FleetView>, bool), Trouble> {
        let found = self.get::<Vec<FleetView>>(&format!("/fleets?limit={IN_MENU}")).await?;
        Ok((found.value, found.next.is_some()))
    }

    /// Refuses a form that the user's role cannot send.
    pub(super) fn needs(&self, permission: Permission) -> Result<(), Trouble> {
        if self.may(permission) {
            return Ok(());
        }
        let (least, role) = (permission.least(), self.caller.role);
        let message =
            format!("this needs the role {least} or a higher one, and your token has the role {role}");
        Err(Trouble::new(Code::Forbidden, message))
    }

    pub(super) fn may(&self, permission: Permission) -> bool {
        self.caller.role.may(permission)
    }

    /// Returns who is signed in, for people.
    pub(super) fn who(&self) -> String {
        let By { user, token, .. } = &self.caller.by;
        user.clone().unwrap_or_else(|| format!("token {token}"))
    }

    /// Goes on to another page, which says what was done.
    pub(super) fn done(&self, to: &str, message: impl Into<String>) -> Response {
        self.site.sessions.tell(&self.cookie, message.into());
        Redirect::to(to).into_response()
    }
}

fn broken(path: &str, error: &dyn std::fmt::Display) -> Trouble {
    Trouble::internal(format!("{path}: {error}"))
}

async fn collected(path: &str, body: Body) -> Result<Bytes, Trouble> {
    let read = Limited::new(body, LARGEST_ANSWER).collect().await;
    Ok(read.map_err(|error| broken(path, &error))?.to_bytes())
}

/// Returns why the API refused.
async fn refused(path: &str, head: &Parts, body: Body) -> Trouble {
    let read = async {
        let bytes = collected(path, body).await?;
        serde_json::from_slice::<ErrorView>(&bytes).map_err(|error| broken(path, &error))
    };
    match read.await {
        Ok(view) => Trouble { status: head.status, failure: Box::new(view.error) },
        Err(trouble) => trouble,
    }
}

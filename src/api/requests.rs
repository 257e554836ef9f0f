//! The bodies of requests to the control socket, and how they are read and checked.

use axum::extract::{FromRequest, Request};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::answer::{Reply, reply};
use crate::listen::{Admitted, Unread, from_json, may_be_json};
use crate::model::OfService;

/// The largest body that is read, in bytes.
pub(super) const LARGEST_BODY: usize = 64 << 10;
/// Longest reason, in characters.
const REASON: usize = 200;
/// Longest name of the owner of a lock, in characters.
const OWNER: usize = 100;
/// Longest name of an app or service, and longest id of a lock, in characters.
const NAME: usize = 255;
/// Longest lifetime of a lock, in seconds.
const TTL: u64 = 24 * 3600;

/// Body of `/v1/unhold`: no fields are accepted.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Nothing {}

/// Body of `/v1/retry` and `/v1/rollback`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AppRequest {
    /// Uuid or name.
    pub app: Option<String>,
}

/// Body of `/v1/hold`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HoldRequest {
    /// At most 200 characters.
    pub reason: Option<String>,
}

/// Body of `/v1/services/stop`, `start` and `restart`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceRequest {
    pub service: String,
    /// Uuid or name; absent: the only app that has such a service.
    pub app: Option<String>,
    /// Ignores locks. Has no effect on `start`.
    #[serde(default)]
    pub force: bool,
}

/// Body of `/v1/locks`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockRequest {
    /// The lock to renew. If it is absent, a new one is made.
    pub id: Option<String>,
    /// At most 200 characters. A new lock needs it, a renewal must not have it.
    pub reason: Option<String>,
    /// Who holds it, at most 100 characters. A renewal must not have it.
    pub owner: Option<String>,
    /// Seconds until it ends, from 1 to 86,400.
    pub ttl_s: u64,
}

/// Body of `/v1/locks/release`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockName {
    pub id: String,
}

/// Body of `/v1/update`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpdateRequest {
    /// Lets the wanted releases pass locks and windows.
    #[serde(default)]
    pub force: bool,
}

/// Body of `/v1/purge`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PurgeRequest {
    /// Uuid or name of an app. If it is absent, all volumes are listed and none is removed.
    pub app: Option<String>,
    /// Its name in the compose file. If it is absent, all volumes of the app are meant.
    pub volume: Option<String>,
    /// Ignores locks.
    #[serde(default)]
    pub force: bool,
    /// Lists what would be removed, and removes nothing.
    #[serde(default)]
    pub dry_run: bool,
}

/// A body read as JSON. An empty body and `null` count as `{}`.
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Reply;

    async fn from_request(request: Request, _: &S) -> Result<Self, Reply> {
        let unread = |why: Unread| match why {
            Unread::TooLarge => reply("too_large", format!("the body has more than {LARGEST_BODY} bytes")),
            Unread::Busy => reply("busy", why.to_string()),
            Unread::TooSlow => reply("too_slow", why.to_string()),
            Unread::Broken => reply("bad_request", why.to_string()),
        };
        let admitted = request.extensions().get::<Admitted>().cloned().ok_or_else(|| unread(Unread::Busy))?;
        let is_json = may_be_json(request.headers());
        let bytes = admitted.read(request.into_body(), LARGEST_BODY).await.map_err(unread)?;
        let text: &[u8] = match bytes.trim_ascii() {
            b"" | b"null" => b"{}",
            _ if !is_json => {
                let why = "the body must be JSON, with the header `Content-Type: application/json`";
                return Err(reply("unsupported_media_type", why.to_owned()));
            }
            text => text,
        };
        let wrong = |error: serde_json::Error| {
            let why = error.to_string().split(char::is_control).collect::<Vec<_>>().join(" ");
            reply("bad_request", format!("the body is not understood: {}", shortened(&why)))
        };
        from_json(text).map(Self).map_err(wrong)
    }
}

/// Checks a reason and returns it as one line, empty if none was given.
pub(super) fn reason(given: Option<String>) -> Result<String, Reply> {
    line("a reason", REASON, &given.unwrap_or_default())
}

/// Checks the owner of a lock and returns it as one line, empty if none was given.
pub(super) fn owner(given: Option<String>) -> Result<String, Reply> {
    line("an owner", OWNER, &given.unwrap_or_default())
}

/// Checks the length and the characters of the name of an app, service, volume or lock.
pub(super) fn name(what: &str, given: String) -> Result<String, Reply> {
    let length = given.chars().count();
    let is_broken = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
    if length == 0 || length > NAME || given.contains(is_broken) {
        let why =
            format!("{what} has 1 to {NAME} characters, without line breaks and other control characters");
        return Err(reply("bad_request", why));
    }
    Ok(given)
}

/// Checks the name of an app, if one is given.
pub(super) fn app(given: Option<String>) -> Result<Option<String>, Reply> {
    given.map(|app| name("an app's name", app)).transpose()
}

/// Returns the service that is named, and `true` if locks are to be ignored.
pub(super) fn service(request: ServiceRequest) -> Result<(OfService, bool), Reply> {
    let of = OfService { service: name("a service's name", request.service)?, app: app(request.app)? };
    Ok((of, request.force))
}

/// Checks the lifetime of a lock.
pub(super) fn ttl(seconds: u64) -> Result<std::time::Duration, Reply> {
    if !(1..=TTL).contains(&seconds) {
        return Err(reply("bad_request", format!("ttl_s must be from 1 to {TTL}")));
    }
    Ok(std::time::Duration::from_secs(seconds))
}

/// Checks the length of a text and returns it as one line.
fn line(what: &str, longest: usize, given: &str) -> Result<String, Reply> {
    if given.chars().count() > longest {
        return Err(reply("bad_request", format!("{what} has {longest} characters at most")));
    }
    Ok(given.split(char::is_control).collect::<Vec<_>>().join(" ").trim().to_owned())
}

fn shortened(text: &str) -> String {
    text.chars().take(300).collect()
}

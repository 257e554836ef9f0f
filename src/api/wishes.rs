//! What is asked of the control socket: the bodies, and how they are read.

use axum::extract::{FromRequest, Request};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::answer::{Told, told};
use crate::listen::{Admitted, Unread, from_json, may_be_json};
use crate::model::OfService;

/// The largest body that is read, in bytes.
pub(super) const LARGEST_BODY: usize = 64 << 10;
/// Longest reason, in characters.
const REASON: usize = 200;
/// Longest words for who holds a lock, in characters.
const OWNER: usize = 100;
/// Longest name of an app or service, and longest id of a lock, in characters.
const NAME: usize = 255;
/// Longest time of a lock, in seconds.
const TTL: u64 = 24 * 3600;

/// Body of `/v1/unhold`: no fields are accepted.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Nothing {}

/// Body of `/v1/retry` and `/v1/rollback`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OfApp {
    /// Uuid or name.
    pub app: Option<String>,
}

/// Body of `/v1/hold`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HoldWish {
    /// At most 200 characters.
    pub reason: Option<String>,
}

/// Body of `/v1/services/stop`, `start` and `restart`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceWish {
    pub service: String,
    /// Uuid or name; absent: the only app that has such a service.
    pub app: Option<String>,
    /// Whether to pass over locks; it means nothing for `start`.
    #[serde(default)]
    pub force: bool,
}

/// Body of `/v1/locks`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockWish {
    /// Of the lock to renew; absent: a new one.
    pub id: Option<String>,
    /// At most 200 characters; a renewal has none, a new lock has one.
    pub reason: Option<String>,
    /// Who holds it, in words, at most 100 characters; a renewal has none.
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
pub struct UpdateWish {
    /// Whether what is wanted now passes locks and windows.
    #[serde(default)]
    pub force: bool,
}

/// Body of `/v1/purge`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PurgeWish {
    /// Uuid or name of an app. If it is absent, all volumes are listed and none is removed.
    pub app: Option<String>,
    /// By its name in the compose file; absent: all of the app.
    pub volume: Option<String>,
    /// Whether to pass over locks.
    #[serde(default)]
    pub force: bool,
    /// Whether only to tell what would be removed.
    #[serde(default)]
    pub dry_run: bool,
}

/// A body as JSON; none, and `null`, are a body without fields.
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Told;

    async fn from_request(request: Request, _: &S) -> Result<Self, Told> {
        let unread = |why: Unread| match why {
            Unread::TooLarge => told("too_large", format!("the body has more than {LARGEST_BODY} bytes")),
            Unread::Busy => told("busy", why.to_string()),
            Unread::TooSlow => told("too_slow", why.to_string()),
            Unread::Broken => told("bad_request", why.to_string()),
        };
        let admitted = request.extensions().get::<Admitted>().cloned().ok_or_else(|| unread(Unread::Busy))?;
        let is_json = may_be_json(request.headers());
        let bytes = admitted.read(request.into_body(), LARGEST_BODY).await.map_err(unread)?;
        let text: &[u8] = match bytes.trim_ascii() {
            b"" | b"null" => b"{}",
            _ if !is_json => {
                let why = "the body must be JSON, with the header `Content-Type: application/json`";
                return Err(told("unsupported_media_type", why.to_owned()));
            }
            text => text,
        };
        let wrong = |error: serde_json::Error| {
            let why = error.to_string().split(char::is_control).collect::<Vec<_>>().join(" ");
            told("bad_request", format!("the body is not understood: {}", shortened(&why)))
        };
        from_json(text).map(Self).map_err(wrong)
    }
}

/// A reason as one line; empty when there is none.
pub(super) fn reason(given: Option<String>) -> Result<String, Told> {
    line("a reason", REASON, &given.unwrap_or_default())
}

/// Who holds a lock, as one line; empty when nobody says.
pub(super) fn owner(given: Option<String>) -> Result<String, Told> {
    line("an owner", OWNER, &given.unwrap_or_default())
}

/// A name by which something is looked for.
pub(super) fn name(what: &str, given: String) -> Result<String, Told> {
    let length = given.chars().count();
    let is_broken = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
    if length == 0 || length > NAME || given.contains(is_broken) {
        let told_of =
            format!("{what} has 1 to {NAME} characters, without line breaks and other control characters");
        return Err(told("bad_request", told_of));
    }
    Ok(given)
}

/// The app that is named, if one is.
pub(super) fn app(given: Option<String>) -> Result<Option<String>, Told> {
    given.map(|app| name("an app's name", app)).transpose()
}

/// The service that is named, and whether locks are passed over.
pub(super) fn service(wish: ServiceWish) -> Result<(OfService, bool), Told> {
    let of = OfService { service: name("a service's name", wish.service)?, app: app(wish.app)? };
    Ok((of, wish.force))
}

/// Seconds of a lock.
pub(super) fn ttl(seconds: u64) -> Result<std::time::Duration, Told> {
    if !(1..=TTL).contains(&seconds) {
        return Err(told("bad_request", format!("ttl_s must be from 1 to {TTL}")));
    }
    Ok(std::time::Duration::from_secs(seconds))
}

/// Checks the length of what was given, and returns it as one line.
fn line(what: &str, longest: usize, given: &str) -> Result<String, Told> {
    if given.chars().count() > longest {
        return Err(told("bad_request", format!("{what} has {longest} characters at most")));
    }
    Ok(given.split(char::is_control).collect::<Vec<_>>().join(" ").trim().to_owned())
}

fn shortened(text: &str) -> String {
    text.chars().take(300).collect()
}

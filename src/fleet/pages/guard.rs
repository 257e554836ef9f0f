//! Who may see a page: finds the session of a request, and refuses forms that other sites made.

use std::sync::Arc;

use axum::extract::{Extension, Request, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, HeaderMap, HeaderName, ORIGIN, REFERER,
    REFERRER_POLICY, RETRY_AFTER, SET_COOKIE, STRICT_TRANSPORT_SECURITY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderValue, Method, StatusCode, Uri};
use axum::middleware::Next;
use axum::response::{Html, IntoResponse, Redirect, Response};
use tokio::time::Instant;

use super::fields::{self, Fields};
use super::session::{self, Found};
use super::site::{Site, Visitor};
use super::trouble::Trouble;
use super::{layout, live};
use crate::fleet::operator_api::IDEMPOTENCY_KEY;
use crate::fleet::secret;
use crate::listen::{Rank, Visit};
use crate::wire::operator_api::Code;

/// What a browser may load and do on a page. Nothing comes from elsewhere, and no script or style is in a page.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
                      form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

/// The largest form, in bytes: the devices of a page that are chosen one by one, or a filter.
const LARGEST_FORM: usize = 64 << 10;

/// The header of requests of the script: `live` for those that a page makes by itself, which do not keep a session alive, and
/// `dialog` for those of a person.
const BY_SCRIPT: HeaderName = HeaderName::from_static("cotter-script");

const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// For how long a browser then uses TLS only for this host, in seconds: 180 days.
const TLS_ONLY: &str = "max-age=15552000";

/// Adds to every answer what browsers must know. Behind a proxy, TLS and its header are the proxy's.
pub(super) async fn with_headers(State(has_tls): State<bool>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    if has_tls {
        headers.insert(STRICT_TRANSPORT_SECURITY, HeaderValue::from_static(TLS_ONLY));
    }
    for (name, value) in [
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // With `no-referrer` a browser would hide the origin of a form from its own site.
        (REFERRER_POLICY, "same-origin"),
        (CACHE_CONTROL, "no-store"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Returns whether the browser's connection is encrypted.
pub(super) fn is_secure(site: &Site, visit: &Visit, headers: &HeaderMap) -> bool {
    let proxied = headers.get("x-forwarded-proto").is_some_and(|value| value == "https");
    site.has_tls || (visit.is_from_proxy() && proxied)
}

/// Returns what the script gives to a form, if it can be a part of a key of the API.
fn key(headers: &HeaderMap) -> Option<String> {
    good_key(headers.get(IDEMPOTENCY_KEY)?.to_str().ok()?)
}

fn good_key(key: &str) -> Option<String> {
    let is_good = (16..=64).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_alphanumeric());
    is_good.then(|| key.to_owned())
}

/// Returns whether a form comes from this site, as the browser says.
pub(super) fn is_same_origin(headers: &HeaderMap) -> bool {
    let text = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    match (text(&FETCH_SITE), text(&ORIGIN)) {
        // Browsers send it over TLS, and to their own machine.
        (Some(site), _) => site == "same-origin",
        (None, Some(origin)) => {
            let host = origin.split_once("://").map(|(_, host)| host);
            host.is_some_and(|host| !host.is_empty() && text(&HOST) == Some(host))
        }
        (None, None) => false,
    }
}

/// Lets a signed-in user pass. Others are sent to the page where they sign in, and from there back.
pub(super) async fn signed_in(
    State(site): State<Arc<Site>>,
    Extension(visit): Extension<Visit>,
    mut request: Request,
    next: Next,
) -> Response {
    let is_secure = is_secure(&site, &visit, request.headers());
    let is_by_script = request.headers().contains_key(BY_SCRIPT);
    let by_itself = is_by_itself(&request);
    let key = key(request.headers());
    let cookie = session::cookie(request.headers(), is_secure);
    let Some(cookie) = cookie else { return without_cookie(&request) };
    let found = site.sessions.find(&cookie, !by_itself, Instant::now());
    let Some(Found { token, csrf }) = found else { return to_sign_in(&request) };
    let Ok(caller) = site.gate.recall(&token, visit.client()) else {
        site.sessions.end_all(&token);
        return to_sign_in(&request);
    };
    // A stream of events has a number of its own, and takes no place of those who act.
    let is_stream = is_stream(request.uri().path());
    let turns = if is_stream { None } else { site.gate.enter(&caller) };
    let rank = if is_stream { Rank::Ordinary } else { Rank::Privileged };
    let admitted = match visit.admit(rank) {
        Ok(admitted) if is_stream || turns.is_some() => admitted,
        Ok(_) | Err(_) if request.uri().path() == "/live" => return live::no_place(),
        Ok(_) | Err(_) => return busy(),
    };
    admitted.hold(turns);
    let mut visitor = Visitor {
        caller,
        admitted,
        cookie,
        csrf,
        request: format!("{} {}", request.method(), shortened(request.uri())),
        origin: origin(request.headers(), is_secure),
        is_secure,
        is_by_script,
        key,
        site,
    };
    if request.method() == Method::POST {
        match form(&visitor, &mut request).await {
            Ok(fields) => {
                // A form whose answer has a secret brings a key of its own.
                visitor.key = visitor.key.or_else(|| good_key(fields.get("key")?));
                request.extensions_mut().insert(fields);
            }
            Err(trouble) => return layout::trouble(&visitor, &trouble),
        }
    } else {
        let fields = Fields::parse(request.uri().query().unwrap_or_default());
        request.extensions_mut().insert(fields);
    }
    request.extensions_mut().insert(visitor.clone());
    let response = next.run(request).await;
    match response.extensions().get::<Trouble>() {
        Some(trouble) => layout::trouble(&visitor, trouble),
        None => response,
    }
}

/// Reads a form, and checks that it is one of ours.
async fn form(visitor: &Visitor, request: &mut Request) -> Result<Fields, Trouble> {
    let refused = || {
        let message = "this form was not sent by a page of this dashboard, so nothing was changed; go back, load the page again and repeat it";
        Trouble::new(Code::Forbidden, message)
    };
    if !is_same_origin(request.headers()) {
        return Err(refused());
    }
    let body = std::mem::take(request.body_mut());
    let bytes = visitor.admitted.read(body, LARGEST_FORM).await;
    let bytes = bytes.map_err(|unread| Trouble::new(Code::BadRequest, unread.to_string()))?;
    let fields = Fields::parse(&String::from_utf8_lossy(&bytes));
    let is_ours = secret::hash(&fields.text("csrf")) == secret::hash(&visitor.csrf);
    if is_ours { Ok(fields) } else { Err(refused()) }
}

/// The cookie is `SameSite=Strict`, so a browser that follows a link on another site does not send it. Such a request gets a page
/// that reloads itself, now from this site and with the cookie.
fn without_cookie(request: &Request) -> Response {
    let is_from_elsewhere = request.headers().get(FETCH_SITE).is_some_and(|site| site == "cross-site");
    if request.method() == Method::GET && is_from_elsewhere {
        return Html(layout::reload().into_string()).into_response();
    }
    to_sign_in(request)
}

fn to_sign_in(request: &Request) -> Response {
    let is_page = request.method() == Method::GET && !is_by_itself(request);
    match request.uri().path() {
        // The script sees the status and tells the reader to sign in again.
        "/live" => StatusCode::UNAUTHORIZED.into_response(),
        _ if !is_page => {
            let to = came_from(request.headers()).unwrap_or_default();
            Redirect::to(&format!("/sign-in?{}", fields::query([("ended", "1"), ("to", to.as_str())])))
                .into_response()
        }
        "/" => Redirect::to("/sign-in").into_response(),
        _ => {
            let query = fields::query([("to", address(request.uri()).as_str())]);
            Redirect::to(&format!("/sign-in?{query}")).into_response()
        }
    }
}

/// Returns the page that a form was on.
fn came_from(headers: &HeaderMap) -> Option<String> {
    let from: Uri = headers.get(REFERER)?.to_str().ok()?.parse().ok()?;
    fields::local(Some(from.path_and_query()?.as_str()))
}

fn busy() -> Response {
    let text = "The server is busy with too many requests. Load the page again in a few seconds.";
    let head = [(RETRY_AFTER, "5"), (CONTENT_TYPE, "text/plain; charset=utf-8")];
    (StatusCode::SERVICE_UNAVAILABLE, head, text).into_response()
}

/// Returns whether an answer lasts as long as its page is open.
fn is_stream(path: &str) -> bool {
    path == "/live" || (path.starts_with("/devices/") && path.ends_with("/logs"))
}

/// Returns whether the page's script sent the request by itself, without a person.
fn is_by_itself(request: &Request) -> bool {
    request.headers().get(BY_SCRIPT).is_some_and(|value| value == "live") || request.uri().path() == "/live"
}

fn address(uri: &Uri) -> String {
    uri.path_and_query().map_or("/fleets", |address| address.as_str()).to_owned()
}

/// Returns the address of this server. A host that is no plain name is left out, because it is shown in commands to copy.
fn origin(headers: &HeaderMap, is_secure: bool) -> String {
    let is_plain =
        |host: &&str| host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte));
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).filter(is_plain).unwrap_or("HOST");
    format!("{}://{host}", if is_secure { "https" } else { "http" })
}

fn shortened(uri: &Uri) -> String {
    uri.path().chars().take(200).collect()
}

/// Adds the header that sets or removes the cookie.
pub(super) fn with_cookie(mut response: Response, value: &str, is_secure: bool) -> Response {
    if let Ok(value) = HeaderValue::from_str(&session::set_cookie(value, is_secure)) {
        response.headers_mut().append(SET_COOKIE, value);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_taken_from_this_site_only() {
        for (site, origin, is_ours) in [
            (Some("same-origin"), Some("null"), true),
            (Some("same-site"), Some("http://fleet.example:7300"), false),
            (Some("cross-site"), None, false),
            (Some("none"), None, false),
            (None, Some("http://fleet.example:7300"), true),
            (None, Some("http://fleet.example"), false),
            (None, Some("http://evil.example"), false),
            (None, Some("null"), false),
            (None, None, false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, HeaderValue::from_static("fleet.example:7300"));
            site.map(|site| headers.insert(FETCH_SITE, HeaderValue::from_static(site)));
            origin.map(|origin| headers.insert(ORIGIN, HeaderValue::from_static(origin)));
            assert_eq!(is_same_origin(&headers), is_ours, "{site:?} {origin:?}");
        }
    }
}

//! Signing in with a token, and signing out.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Extension, Request};
use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{Html, IntoResponse, Redirect, Response};
use maud::{Markup, html};
use tokio::time::{Instant, timeout};

use super::fields::{self, Fields};
use super::guard::{is_same_origin, is_secure, with_cookie};
use super::layout;
use super::site::{Site, Visitor};
use crate::fleet::access::site_of;
use crate::fleet::gate::NotSignedIn;
use crate::fleet::key_hash::KeyHash;
use crate::fleet::secret;
use crate::listen::{Rank, Visit};

/// A token is short.
const LARGEST_FORM: usize = 8 << 10;

/// Maximum number of forms of one address that arrive at once, and how long each may take.
const SIGN_INS_OF_ONE: usize = 4;
const SIGN_IN_WITHIN: Duration = Duration::from_secs(5);

/// The form.
pub(super) async fn page(request: Request) -> Response {
    let fields = Fields::parse(request.uri().query().unwrap_or_default());
    let note = fields.get("ended").map(|_| "Your session has ended. Nothing was changed. Sign in again.");
    let note = note.or_else(|| fields.get("out").map(|_| "You are signed out."));
    Html(form(&fields, note, None).into_string()).into_response()
}

fn form(fields: &Fields, note: Option<&str>, error: Option<&str>) -> Markup {
    let to = fields::local(fields.get("to")).unwrap_or_default();
    layout::bare(
        "Sign in",
        &html! {
            form.card.sign-in method="post" action="/sign-in" {
                (layout::mark())
                h1 { "Sign in to Cotter" }
                @if let Some(note) = note { p.note role="status" { (note) } }
                @if !to.is_empty() && note.is_none() && error.is_none() { p.muted { "You come back to the page that you asked for." } }
                @if let Some(error) = error { p.error role="alert" #error { (layout::sign("failing")) span { (error) } } }
                input type="hidden" name="to" value=(to);
                label for="token" { "Token" }
                input #token type="password" name="token" autocomplete="current-password" required autofocus
                    spellcheck="false" aria-invalid=[error.map(|_| "true")] aria-describedby=[error.map(|_| "error")];
                button.primary type="submit" { "Sign in" }
                details.help {
                    summary { "Where do I get a token?" }
                    p { "An admin makes one for you:" }
                    (layout::command("cotter token create anna --role operator"))
                    p { "The server's first token is in the file " code { "operator.token" } " of its data folder." }
                }
            }
        },
    )
}

/// Begins a session.
pub(super) async fn sign_in(
    Extension(site): Extension<Arc<Site>>,
    Extension(visit): Extension<Visit>,
    request: Request,
) -> Response {
    let is_secure = is_secure(&site, &visit, request.headers());
    let again = |fields: &Fields, status: StatusCode, error: &str| {
        (status, Html(form(fields, None, Some(error)).into_string())).into_response()
    };
    if !is_same_origin(request.headers()) {
        let error = "This form was not sent by a page of this server. Type its address into your browser, and sign in there.";
        return again(&Fields::default(), StatusCode::FORBIDDEN, error);
    }
    let address = visit.client().map(|client| site_of(client).to_string()).unwrap_or_default();
    let own = site.sign_ins_by_address.enter(&KeyHash(address), SIGN_INS_OF_ONE);
    let (Some(_own), Ok(_place), Ok(admitted)) =
        (own, site.sign_ins.try_acquire(), visit.admit(Rank::Ordinary))
    else {
        let error = "The server is busy. Try again in a few seconds.";
        return again(&Fields::default(), StatusCode::SERVICE_UNAVAILABLE, error);
    };
    let arriving = timeout(SIGN_IN_WITHIN, admitted.read(request.into_body(), LARGEST_FORM));
    let Ok(Ok(bytes)) = arriving.await else {
        return again(&Fields::default(), StatusCode::BAD_REQUEST, "The form did not arrive. Try again.");
    };
    let fields = Fields::parse(&String::from_utf8_lossy(&bytes));
    let token = fields.text("token");
    let caller = match site.gate.sign_in(Some(&token), visit.client()) {
        Ok(caller) => caller,
        Err(refused) => return refusal(&refused, |status, error| again(&fields, status, error)),
    };
    let (Ok(cookie), Ok(csrf), Some(hash)) = (secret::token(), secret::token(), secret::hash_given(&token))
    else {
        return again(&fields, StatusCode::INTERNAL_SERVER_ERROR, "The server has no random numbers.");
    };
    site.sessions.begin(&cookie, csrf, hash, Instant::now());
    tracing::info!(user = caller.by.user, token = caller.by.token, "signed in to the dashboard");
    let to = fields::local(fields.get("to")).unwrap_or_else(|| "/fleets".to_owned());
    with_cookie(Redirect::to(&to).into_response(), &cookie, is_secure)
}

fn refusal(refused: &NotSignedIn, again: impl Fn(StatusCode, &str) -> Response) -> Response {
    match refused {
        NotSignedIn::Unknown => again(
            StatusCode::UNAUTHORIZED,
            "This token is not known here. Check that you have copied all of it.",
        ),
        NotSignedIn::Ended { token, user, end } => {
            let error = format!("Token {token} of {user} {end}. Ask an admin for a new one.");
            again(StatusCode::UNAUTHORIZED, &error)
        }
        NotSignedIn::TooMany { wait } => {
            let seconds = wait.as_secs() + 1;
            let error = format!(
                "This token is not accepted, and your address has sent too many wrong ones. Try again in {seconds} s."
            );
            let mut response = again(StatusCode::TOO_MANY_REQUESTS, &error);
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
            response
        }
    }
}

/// Ends the session, or all sessions of its token.
pub(super) async fn sign_out(
    Extension(visitor): Extension<Visitor>,
    Extension(fields): Extension<Fields>,
) -> Response {
    let sessions = &visitor.site.sessions;
    let found = sessions.find(&visitor.cookie, false, Instant::now());
    match found.filter(|_| fields.get("everywhere").is_some()) {
        Some(found) => sessions.end_all(&found.token),
        None => sessions.end(&visitor.cookie),
    }
    with_cookie(Redirect::to("/sign-in?out=1").into_response(), "", visitor.is_secure)
}

//! Reads requests, and writes errors as `{"error":{"code","message","rule","remedy"}}`.

use std::fmt::Display;
use std::sync::Arc;

use axum::extract::{self, FromRequest, FromRequestParts, Query, Request};
use axum::http::header::{ETAG, RETRY_AFTER as RETRY_AFTER_HEADER};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;

use super::LARGEST_REQUEST;
use super::codes;
use super::repeat::Key;
use crate::fleet::access::{AccessRefusal, By, Role, TokenEnd};
use crate::fleet::gate::{Caller, NotSignedIn};
use crate::fleet::logs::FOLLOWING;
use crate::fleet::policy::{BadFilter, Refusal};
use crate::fleet::records::ActError;
use crate::listen::{Admitted, RETRY_AFTER, Unread, from_json, may_be_json};
use crate::model::text::shortened;
use crate::model::with_causes;
use crate::wire::operator_api::{Code, ErrorView, Failure, RefusalView};

/// An error answer.
#[derive(Debug)]
pub(super) struct ApiError {
    status: StatusCode,
    failure: Box<Failure>,
    retry_after: Option<u64>,
    etag: Option<String>,
}

/// Why a request failed, for the audit trail: an extension of the response.
#[derive(Debug, Clone)]
pub(super) struct Failed(pub(super) Failure);

impl ApiError {
    /// An error for which there is no remedy but what its message says.
    pub(super) fn new(code: Code, message: impl Into<String>) -> Self {
        let failure = Failure {
            code: code.to_string(),
            message: message.into(),
            rule: None,
            remedy: None,
            refusals: Vec::new(),
        };
        let status = StatusCode::from_u16(code.word_and_status().1);
        let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self { status, failure: Box::new(failure), retry_after: None, etag: None }
    }

    /// An error with what is wrong, and what to do.
    pub(super) fn with_remedy(code: Code, wrong: impl Display, remedy: impl Into<String>) -> Self {
        let remedy = remedy.into();
        let mut error = Self::new(code, format!("{wrong}; {remedy}"));
        error.failure.remedy = Some(remedy);
        error
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(Code::BadRequest, message)
    }

    /// The role of a token is too low.
    pub(super) fn needs_role(Caller { by, role, .. }: &Caller, least: Role) -> Self {
        let more = if least == Role::Admin { "" } else { ", or a higher one" };
        let wrong = format!("this needs the role {least}{more}, and token {} has the role {role}", label(by));
        let remedy = format!("ask an admin for a token with it (`cotter token create --role {least}`)");
        Self::with_remedy(Code::Forbidden, wrong, remedy).by_rule("role")
    }

    /// A token for some fleets.
    pub(super) fn needs_all_fleets(Caller { by, .. }: &Caller) -> Self {
        let wrong = format!("this needs a token for all fleets, and token {} is for some", label(by));
        let remedy = "ask an admin for one (`cotter token create` without --fleet)";
        Self::with_remedy(Code::Forbidden, wrong, remedy).by_rule("out_of_scope")
    }

    fn by_rule(mut self, rule: &str) -> Self {
        self.failure.rule = Some(rule.to_owned());
        self
    }

    /// The server itself failed.
    pub(super) fn failed(error: &dyn std::error::Error) -> Self {
        log_failure(error);
        Self::new(Code::Internal, format!("the server could not make the answer: {}", with_causes(error)))
    }

    /// Too many requests are in progress.
    pub(super) fn busy() -> Self {
        let remedy = format!("try again in {RETRY_AFTER} s");
        Self::with_remedy(Code::Busy, "the server is busy with too many requests", remedy).after(RETRY_AFTER)
    }

    /// Returns what is wrong.
    pub(super) fn message(self) -> String {
        self.failure.message
    }

    /// Too many requests of the same token are in progress, or of all that are no admins.
    pub(super) fn too_many(Caller { by, .. }: &Caller) -> Self {
        let wrong = format!(
            "too many requests of token {} are in progress, or of all tokens that are not of admins",
            label(by)
        );
        let remedy = format!("read their answers, and try again in {RETRY_AFTER} s");
        Self::with_remedy(Code::Busy, wrong, remedy).after(RETRY_AFTER)
    }

    /// Too many requests follow logs. `who` made this one.
    pub(super) fn too_many_follow(who: &str) -> Self {
        let wrong = format!(
            "{FOLLOWING} requests follow logs already, the most for this server, and {who} has as many as others"
        );
        let remedy = format!(
            "end one of yours, try again in {RETRY_AFTER} s, or read the logs without following them"
        );
        Self::with_remedy(Code::Busy, wrong, remedy).after(RETRY_AFTER)
    }

    /// The client may try again after these seconds.
    fn after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds);
        self
    }
}

/// Maximum number of characters of a message and of each text in a list of refusals, and of refusals in a list. A request may be quoted.
const LONGEST_MESSAGE: usize = 1000;
const LONGEST_TEXT: usize = 300;
const MOST_REFUSALS: usize = 50;

/// Cuts what is too long for an answer.
fn bounded(failure: Failure) -> Failure {
    let Failure { code, message, rule, remedy, mut refusals } = failure;
    refusals.truncate(MOST_REFUSALS);
    for RefusalView { path, why } in &mut refusals {
        *path = shortened(path, LONGEST_TEXT);
        *why = shortened(why, LONGEST_TEXT);
    }
    Failure { code, message: shortened(&message, LONGEST_MESSAGE), rule, remedy, refusals }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let failure = bounded(*self.failure);
        let failed = Failed(failure.clone());
        let mut response = (self.status, axum::Json(ErrorView { error: failure })).into_response();
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(RETRY_AFTER_HEADER, HeaderValue::from(seconds));
        }
        if let Some(etag) = self.etag.and_then(|etag| HeaderValue::from_str(&etag).ok()) {
            response.headers_mut().insert(ETAG, etag);
        }
        response.extensions_mut().insert(failed);
        response
    }
}

impl From<NotSignedIn> for ApiError {
    fn from(refused: NotSignedIn) -> Self {
        match refused {
            NotSignedIn::Unknown => {
                let message = "this needs a token: send `Authorization: Bearer <token>` with a token that `cotter token create` made, or with the content of operator.token in the server's data folder";
                let mut error = Self::new(Code::NotPermitted, message);
                error.failure.remedy = message.split_once(": ").map(|(_, remedy)| remedy.to_owned());
                error
            }
            NotSignedIn::Ended { token, user, end } => {
                let new = match end {
                    TokenEnd::UserDisabled(_) => format!("`cotter user enable {user}`, and then a new token"),
                    TokenEnd::Revoked(_) | TokenEnd::Expired(_) => {
                        format!("a new one (`cotter token create {user}`)")
                    }
                };
                let wrong = format!("token {token} of {user} {end}");
                Self::with_remedy(Code::TokenEnded, wrong, format!("ask an admin for {new}"))
            }
            NotSignedIn::TooMany { wait } => {
                // Whole seconds, at least 1.
                let seconds = wait.as_secs() + 1;
                let wrong = "this token is not accepted, and your address has sent too many of such";
                let remedy = format!("correct the token, and try again in {seconds} s");
                Self::with_remedy(Code::TooManyTokens, wrong, remedy).after(seconds)
            }
        }
    }
}

impl From<AccessRefusal> for ApiError {
    fn from(refusal: AccessRefusal) -> Self {
        Refusal::from(refusal).into()
    }
}

fn label(By { user, token, .. }: &By) -> String {
    user.as_ref().map_or_else(|| token.clone(), |user| format!("{token} of {user}"))
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        let code = codes::of(&refusal);
        let mut error = Self::new(code, refusal.to_string()).by_rule(refusal.rule());
        error.failure.remedy = refusal.remedy();
        if let Refusal::NotAsExpected { etag, .. } = &refusal {
            error.etag = Some(etag.clone());
        }
        if let Refusal::Unsupported { refusals } | Refusal::NotImported { refusals } = refusal {
            let refusals = refusals.into_iter().take(MOST_REFUSALS);
            error.failure.refusals = refusals.map(Into::into).collect();
        }
        error
    }
}

impl From<ActError> for ApiError {
    fn from(error: ActError) -> Self {
        match error {
            ActError::Refused(refusal) => refusal.into(),
            // That the database is lost is in the log already.
            ActError::Store(error) if error.is_of_database() => {
                let code = if error.is_unknown() { Code::OutcomeUnknown } else { Code::DatabaseLost };
                Self::new(code, with_causes(&*error)).after(RETRY_AFTER)
            }
            ActError::Store(_) | ActError::Stopping => {
                log_failure(&error);
                let message = format!("the server could not write its records: {}", with_causes(&error));
                Self::new(Code::Storage, message)
            }
        }
    }
}

impl From<Unread> for ApiError {
    fn from(unread: Unread) -> Self {
        match unread {
            Unread::TooLarge => Self::new(
                Code::TooLarge,
                "the request is larger than this route takes: 256 kB, and 16 MiB for an import",
            ),
            Unread::TooSlow => Self::new(Code::TooSlow, unread.to_string()),
            Unread::Busy => Self::busy(),
            Unread::Broken => Self::bad_request(unread.to_string()),
        }
    }
}

impl From<BadFilter> for ApiError {
    fn from(error: BadFilter) -> Self {
        Self::bad_request(error.to_string())
    }
}

/// Logs an error of the server itself.
pub(in crate::fleet) fn log_failure(error: &dyn std::error::Error) {
    tracing::error!(error = with_causes(error), "request failed");
}

/// A JSON body of exactly this form: unknown fields and wrong types are refused.
pub(super) struct Body<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _state: &S) -> Result<Self, ApiError> {
        let refused = |error| ApiError::bad_request(format!("the request's JSON is not accepted: {error}"));
        read(request, refused).await.map(Self)
    }
}

/// As [`Body`], for a body that may have secrets: an error names only the place.
pub(super) struct SecretBody<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for SecretBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _state: &S) -> Result<Self, ApiError> {
        let refused = |error: serde_json::Error| {
            let place = format!("line {}, column {}", error.line(), error.column());
            let why = "what is there is not shown, because it may be secret";
            ApiError::bad_request(format!("the request's JSON is not accepted at {place}; {why}"))
        };
        read(request, refused).await.map(Self)
    }
}

async fn read<T: DeserializeOwned>(
    request: Request,
    refused: impl FnOnce(serde_json::Error) -> ApiError,
) -> Result<T, ApiError> {
    let admitted = request
        .extensions()
        .get::<Admitted>()
        .cloned()
        .ok_or_else(|| ApiError::from(NotSignedIn::Unknown))?;
    let is_json = may_be_json(request.headers());
    let key = request.extensions().get::<Arc<Key>>().cloned();
    let bytes = admitted.read(request.into_body(), LARGEST_REQUEST).await?;
    if let Some(key) = key {
        key.has_body(&bytes);
    }
    if !is_json && !bytes.is_empty() {
        let message = "the request must be JSON, with the header `Content-Type: application/json`";
        return Err(ApiError::new(Code::UnsupportedMediaType, message));
    }
    let text: &[u8] = if bytes.is_empty() { b"{}" } else { &bytes };
    from_json(text).map_err(refused)
}

/// The variable parts of a path. Any text is accepted.
pub(super) struct Path<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match extract::Path::from_request_parts(parts, state).await {
            Ok(extract::Path(names)) => Ok(Self(names)),
            Err(error) => Err(ApiError::bad_request(error.body_text())),
        }
    }
}

/// Query parameters of exactly these names.
pub(super) struct Params<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        match Query::try_from_uri(&parts.uri) {
            Ok(Query(params)) => Ok(Self(params)),
            Err(error) => Err(ApiError::bad_request(error.body_text())),
        }
    }
}

/// The answer for an unknown path.
pub(in crate::fleet) async fn no_such_route(request: Request) -> Response {
    let path: String = request.uri().path().chars().take(200).collect();
    let message = format!("there is no {path}");
    ApiError::new(Code::NoSuchRoute, message).into_response()
}

/// The answer for a method that a path does not take.
pub(in crate::fleet) async fn no_such_method(request: Request) -> Response {
    let message = format!("{} does not take {}", request.uri().path(), request.method());
    ApiError::new(Code::NoSuchMethod, message).into_response()
}

#[cfg(test)]
#[path = "answer_tests.rs"]
mod tests;

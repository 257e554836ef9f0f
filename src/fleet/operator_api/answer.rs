//! Reads requests, and writes errors as `{"error":{"code","message"}}`.

use axum::extract::{self, FromRequest, FromRequestParts, Query, Request};
use axum::http::header::RETRY_AFTER as RETRY_AFTER_HEADER;
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;

use super::LARGEST_REQUEST;
use crate::fleet::access::{AccessRefusal, By, Role, TokenEnd};
use crate::fleet::gate::{Caller, NotSignedIn};
use crate::fleet::policy::{BadFilter, Refusal};
use crate::fleet::records::ActError;
use crate::listen::{Admitted, RETRY_AFTER, Unread, from_json, may_be_json};
use crate::model::with_causes;
use crate::wire::operator_api::{ErrorView, Failure};

/// An error answer.
#[derive(Debug)]
pub(super) struct ApiError {
    status: StatusCode,
    failure: Failure,
    retry_after: Option<u64>,
}

/// The code of an act that was not done, because the database cannot be used.
pub(super) const DATABASE_LOST: &str = "database_lost";

/// Why a request failed, for the audit trail: an extension of the response.
#[derive(Debug, Clone)]
pub(super) struct Failed(pub(super) Failure);

impl ApiError {
    pub(super) fn new(status: StatusCode, code: &str, message: impl Into<String>) -> Self {
        let failure =
            Failure { code: code.to_owned(), message: message.into(), rule: None, refusals: Vec::new() };
        Self { status, failure, retry_after: None }
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", message)
    }

    /// The role of a token is too low.
    pub(super) fn needs_role(Caller { by, role, .. }: &Caller, least: Role) -> Self {
        let more = if least == Role::Admin { "" } else { ", or a higher one" };
        let message = format!(
            "this needs the role {least}{more}, and token {} has the role {role}; ask an admin for a token with it (`cotter token create --role {least}`)",
            label(by)
        );
        Self::forbidden("role", message)
    }

    /// A token for some fleets.
    pub(super) fn needs_all_fleets(Caller { by, .. }: &Caller) -> Self {
        let message = format!(
            "this needs a token for all fleets, and token {} is for some; ask an admin for one (`cotter token create` without --fleet)",
            label(by)
        );
        Self::forbidden("out_of_scope", message)
    }

    fn forbidden(rule: &str, message: String) -> Self {
        let mut error = Self::new(StatusCode::FORBIDDEN, "forbidden", message);
        error.failure.rule = Some(rule.to_owned());
        error
    }

    /// The server itself failed.
    pub(super) fn failed(error: &dyn std::error::Error) -> Self {
        log_failure(error);
        let message = format!("the server could not make the answer: {}", with_causes(error));
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", message)
    }

    /// Too many requests are in progress.
    pub(super) fn busy() -> Self {
        let message = format!("the server is busy with too many requests; try again in {RETRY_AFTER} s");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "busy", message).after(RETRY_AFTER)
    }

    /// The client may try again after these seconds.
    fn after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds);
        self
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let failed = Failed(self.failure.clone());
        let mut response = (self.status, axum::Json(ErrorView { error: self.failure })).into_response();
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(RETRY_AFTER_HEADER, HeaderValue::from(seconds));
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
                Self::new(StatusCode::UNAUTHORIZED, "not_permitted", message)
            }
            NotSignedIn::Ended { token, user, end } => {
                let remedy = match end {
                    TokenEnd::UserDisabled(_) => format!("`cotter user enable {user}`, and then a new token"),
                    TokenEnd::Revoked(_) | TokenEnd::Expired(_) => {
                        format!("a new one (`cotter token create {user}`)")
                    }
                };
                let message = format!("token {token} of {user} {end}; ask an admin for {remedy}");
                Self::new(StatusCode::UNAUTHORIZED, "token_ended", message)
            }
            NotSignedIn::TooMany { wait } => {
                // Whole seconds, at least 1.
                let seconds = wait.as_secs() + 1;
                let message = format!(
                    "this token is not accepted, and your address has sent too many of such; correct the token, and try again in {seconds} s"
                );
                Self::new(StatusCode::TOO_MANY_REQUESTS, "too_many_tokens", message).after(seconds)
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

fn of_access(refusal: &AccessRefusal) -> (StatusCode, &'static str) {
    match refusal {
        AccessRefusal::NoSuchUser { .. } | AccessRefusal::NoSuchToken { .. } => {
            (StatusCode::NOT_FOUND, "not_found")
        }
        AccessRefusal::Ambiguous { .. } => (StatusCode::BAD_REQUEST, "ambiguous"),
        AccessRefusal::BadName { .. } | AccessRefusal::NoFleets => (StatusCode::BAD_REQUEST, "bad_request"),
        AccessRefusal::UserTaken { .. }
        | AccessRefusal::TokenTaken { .. }
        | AccessRefusal::Disabled { .. }
        | AccessRefusal::AdminOfSome
        | AccessRefusal::TooMany { .. } => (StatusCode::CONFLICT, "refused"),
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        let (status, code) = match &refusal {
            Refusal::NoSuchFleet { .. }
            | Refusal::NotOfKey { .. }
            | Refusal::NoSuchDevice { .. }
            | Refusal::NoSuchBar { .. }
            | Refusal::NoSuchKey { .. }
            | Refusal::NoSuchService { .. }
            | Refusal::NoSuchVariable { .. }
            | Refusal::NoSuchRelease { .. } => (StatusCode::NOT_FOUND, "not_found"),
            Refusal::NoDeviceMatches { .. } => (StatusCode::NOT_FOUND, "no_match"),
            Refusal::OutOfScope { .. } | Refusal::MatchesBeyond { .. } => {
                (StatusCode::FORBIDDEN, "forbidden")
            }
            Refusal::Access(refusal) => of_access(refusal),
            Refusal::Ambiguous { .. } => (StatusCode::BAD_REQUEST, "ambiguous"),
            Refusal::BadText { .. }
            | Refusal::BadVariable { .. }
            | Refusal::BadDeviceKey { .. }
            | Refusal::OutOfRange { .. } => (StatusCode::BAD_REQUEST, "bad_request"),
            Refusal::Unsupported { .. } => (StatusCode::UNPROCESSABLE_ENTITY, "unsupported"),
            Refusal::FleetNameTaken { .. }
            | Refusal::FleetHasDevices { .. }
            | Refusal::FleetGone { .. }
            | Refusal::NotSuccessful { .. }
            | Refusal::OtherFleet { .. }
            | Refusal::FinalIsForGood { .. }
            | Refusal::InUse { .. }
            | Refusal::CommitTaken { .. }
            | Refusal::NoImages { .. }
            | Refusal::NameTaken { .. }
            | Refusal::NameTakenBeyond { .. }
            | Refusal::KeyNameTaken { .. }
            | Refusal::KeyEnded { .. }
            | Refusal::TooManyRegistrations { .. }
            | Refusal::Barred { .. }
            | Refusal::TooManyBars { .. }
            | Refusal::MatchChanged { .. }
            | Refusal::UuidTaken { .. }
            | Refusal::KeyTaken => (StatusCode::CONFLICT, "refused"),
        };
        let mut error = Self::new(status, code, refusal.to_string());
        error.failure.rule = Some(refusal.rule().to_owned());
        if let Refusal::Unsupported { refusals } = refusal {
            error.failure.refusals = refusals.into_iter().map(Into::into).collect();
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
                let code = if error.is_unknown() { "outcome_unknown" } else { DATABASE_LOST };
                Self::new(StatusCode::SERVICE_UNAVAILABLE, code, with_causes(&*error)).after(RETRY_AFTER)
            }
            ActError::Store(_) | ActError::Stopping => {
                log_failure(&error);
                let message = format!("the server could not write its records: {}", with_causes(&error));
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "storage", message)
            }
        }
    }
}

impl From<Unread> for ApiError {
    fn from(unread: Unread) -> Self {
        match unread {
            Unread::TooLarge => {
                let message = "the request is larger than 256 kB";
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message)
            }
            Unread::TooSlow => Self::new(StatusCode::REQUEST_TIMEOUT, "too_slow", unread.to_string()),
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
        let admitted = request
            .extensions()
            .get::<Admitted>()
            .cloned()
            .ok_or_else(|| ApiError::from(NotSignedIn::Unknown))?;
        let is_json = may_be_json(request.headers());
        let bytes = admitted.read(request.into_body(), LARGEST_REQUEST).await?;
        if !is_json && !bytes.is_empty() {
            let message = "the request must be JSON, with the header `Content-Type: application/json`";
            return Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", message));
        }
        let text: &[u8] = if bytes.is_empty() { b"{}" } else { &bytes };
        match from_json(text) {
            Ok(body) => Ok(Self(body)),
            Err(error) => Err(ApiError::bad_request(format!("the request's JSON is not accepted: {error}"))),
        }
    }
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
    ApiError::new(StatusCode::NOT_FOUND, "no_such_route", message).into_response()
}

/// The answer for a method that a path does not take.
pub(in crate::fleet) async fn no_such_method(request: Request) -> Response {
    let message = format!("{} does not take {}", request.uri().path(), request.method());
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "no_such_method", message).into_response()
}

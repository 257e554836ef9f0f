//! Why a page cannot be shown, or an act was not done.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use crate::wire::operator_api::{Code, Failure};

/// An answer without a page: the failure of the API, with its status.
#[derive(Debug, Clone)]
pub(super) struct Trouble {
    pub(super) status: StatusCode,
    pub(super) failure: Box<Failure>,
}

impl Trouble {
    /// A trouble of the dashboard's own.
    pub(super) fn new(code: Code, message: impl Into<String>) -> Self {
        let (word, status) = code.word_and_status();
        let failure = Failure {
            code: word.to_owned(),
            message: message.into(),
            rule: None,
            remedy: None,
            refusals: Vec::new(),
        };
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self { status, failure: Box::new(failure) }
    }

    pub(super) fn internal(message: impl Into<String>) -> Self {
        Self::new(Code::Internal, message)
    }

    /// Rewords a conflict for a page, whose user knows no ETag.
    pub(super) fn as_changed(&self, what: &str) -> Self {
        let mut trouble = self.clone();
        trouble.failure.message =
            format!("the {what} has changed since you looked at it, so nothing was done");
        trouble.failure.remedy = None;
        trouble
    }

    /// Returns whether another user changed the object since the page was loaded.
    pub(super) fn is_conflict(&self) -> bool {
        self.failure.code == Code::PreconditionFailed.as_str()
    }
}

/// Rendered by the guard, which knows the user.
impl IntoResponse for Trouble {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

//! What a method of a route needs of its caller.

use axum::routing::MethodFilter;

use crate::fleet::access::{Permission, Reach};

/// A method of HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::fleet) enum Method {
    Get,
    Post,
    Patch,
    Delete,
}

/// What a request needs, and what it is for, in the words of the audit trail.
#[derive(Debug, Clone, Copy)]
pub(in crate::fleet) struct Needs {
    pub(in crate::fleet) method: Method,
    pub(in crate::fleet) permission: Permission,
    pub(in crate::fleet) reach: Reach,
    pub(in crate::fleet) what: &'static str,
    /// Whether it is about one thing that has an ETag, so that the request may have conditions.
    pub(in crate::fleet) has_etag: bool,
}

/// The request of a page that the request inside the process is for, `POST /fleets/1/pin`: an extension, for the audit trail.
#[derive(Debug, Clone)]
pub(in crate::fleet) struct OfPage(pub(in crate::fleet) String);

impl Method {
    pub(in crate::fleet) fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }

    pub(super) fn filter(self) -> MethodFilter {
        match self {
            Self::Get => MethodFilter::GET,
            Self::Post => MethodFilter::POST,
            Self::Patch => MethodFilter::PATCH,
            Self::Delete => MethodFilter::DELETE,
        }
    }
}

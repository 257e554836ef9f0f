//! Why a request to a cloud did not succeed, sorted by what its owner can do.

use std::time::Duration;

use crate::http::Failure;
use crate::model::DeviceUuid;

/// Why a request did not succeed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CloudError {
    /// No answer: name, route, TLS or time.
    #[error("cloud {endpoint} cannot be reached: {why}")]
    Unreachable { endpoint: String, why: Failure },
    /// 401 or 403: the key is not accepted for this.
    #[error("cloud {endpoint} does not accept our key for {request} (status {status}); {}", guess(request))]
    Denied { endpoint: String, request: &'static str, status: u16 },
    /// 409: the uuid or the key is registered already.
    #[error("cloud {endpoint} has a device with this uuid or key already: {message}")]
    Conflict { endpoint: String, message: String },
    /// An answer that the protocol does not have.
    #[error("cloud {endpoint} answered {request} with status {status}{}", shown(.message))]
    Refused {
        endpoint: String,
        request: &'static str,
        status: u16,
        message: String,
        retry_after: Option<Duration>,
    },
    /// 403 or 304 with a header of Cotter's own: an operator deleted this device.
    #[error(
        "this device was deleted from its fleet at {endpoint}; an operator must allow it again: `cotter device allow {uuid} --restore`"
    )]
    Deleted { endpoint: String, uuid: DeviceUuid },
    /// A redirect to another server, or another one that is not followed.
    #[error(
        "cloud {endpoint} does not answer {request} itself: {why}; if the cloud has moved, set cloud.endpoint to its new \
         address; otherwise a proxy or portal intercepts the request"
    )]
    Redirected { endpoint: String, request: &'static str, why: String },
    /// A Cotter fleet server says why the provisioning key registers no device, or none in this fleet.
    #[error("cloud {endpoint} does not register this device: {message}")]
    NotAdmitted { endpoint: String, message: String, is_other_fleet: bool },
    /// Names of fleets and tags are for Cotter's own fleet server.
    #[error(
        "cloud {endpoint} is no Cotter fleet server of this version: it knows fleets by number alone and takes no tags at registration; \
         set cloud.fleet to the fleet's number, and leave cloud.tags out"
    )]
    NumbersOnly { endpoint: String },
    /// 304 although we sent no etag, or without an etag and no row for our key: the answer to an unknown device
    /// (docs/dev/protocol.md, "Target state").
    #[error("cloud {endpoint} does not know this device; it was deleted there, or never registered")]
    Unknown { endpoint: String },
}

/// How errors name a registration.
pub(super) const REGISTRATION: &str = "registration";

/// What may be the cause of a refused key.
fn guess(request: &str) -> &'static str {
    if request == REGISTRATION {
        "is the provisioning key still valid, and of this cloud, and is cloud.fleet the fleet that it is for?"
    } else {
        "was the device deleted, or is the key from another cloud?"
    }
}

fn shown(message: &str) -> String {
    // A page of a proxy is not for people who read one line.
    if message.is_empty() || message.starts_with('<') { String::new() } else { format!(": {message}") }
}

impl CloudError {
    /// Returns `true` if the cloud says that it does not have this device any more. [`CloudError::Denied`] may have other
    /// causes.
    #[must_use]
    pub fn says_deleted(&self) -> bool {
        matches!(self, Self::Deleted { .. } | Self::Unknown { .. })
    }

    /// Returns whether a proxy may have ended a request that waited for too long.
    #[must_use]
    pub fn may_be_cut(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Refused { status: 408 | 502 | 504, .. })
    }

    /// Returns whether the cloud has become silent, so that it may not have taken what was sent for a while.
    #[must_use]
    pub fn is_silence(&self) -> bool {
        let Self::Unreachable { why, .. } = self else { return false };
        match why {
            Failure::Late => true,
            Failure::Unreachable(broken) => broken.is_by_silence(),
            Failure::NoUrl(_) | Failure::TooLong(_) | Failure::Redirected { .. } => false,
        }
    }

    /// Returns how long the cloud asked us to wait.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            Self::Unreachable { .. }
            | Self::Denied { .. }
            | Self::Conflict { .. }
            | Self::Deleted { .. }
            | Self::Redirected { .. }
            | Self::NotAdmitted { .. }
            | Self::NumbersOnly { .. }
            | Self::Unknown { .. } => None,
        }
    }
}

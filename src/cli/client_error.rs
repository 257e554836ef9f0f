//! Why a request to a fleet server failed, and what its answer means where it is not the server's own.

use std::path::PathBuf;

use super::attempts::Failed;
use crate::http::{self, StatusCode};
use crate::wire::operator_api::Failure;

/// Why a request to the fleet server failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClientError {
    #[error("{given:?} is not the address of a fleet server ({why}); write e.g. --url http://127.0.0.1:7300")]
    BadUrl { given: String, why: String },

    /// Clients and servers resolve such a segment of a path, however it is written, so the request would be for another thing.
    #[error("{given:?} cannot be the name of anything at a fleet server; give a name, a number or a uuid")]
    NoName { given: String },

    #[error(
        "the operator's token would go to {host} unencrypted, because http:// has no TLS; use https://, or --insecure on a network you trust"
    )]
    InTheClear { host: String },

    #[error("cannot read the operator's token in {}; name its file with --token-file, or set COTTER_TOKEN", path.display())]
    NoToken {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },

    #[error("--ca-file {} cannot be used: {why}; give the authority's certificate, as PEM", path.display())]
    NoAuthority { path: PathBuf, why: String },

    #[error(
        "no fleet server answers at {url} ({why}); is `cotter-fleet serve` running? --url names another address"
    )]
    Unreachable { url: String, why: http::Failure },

    /// What a proxy answers while the server behind it starts.
    #[error("the fleet server behind {url} does not answer (status {status})")]
    Away { url: String, status: StatusCode },

    #[error(
        "a proxy in front of {url} refused the request (status {status}), and not the fleet server; does it let this machine's address in? --url names another address"
    )]
    Refused { url: String, status: StatusCode },

    #[error("{url} is a port with TLS; write https:// with --url or in COTTER_FLEET_URL")]
    NeedsTls { url: String },

    #[error(
        "the fleet server at {url} is not trusted ({why}); or name your authority's certificate with --ca-file or COTTER_CA_FILE"
    )]
    Untrusted { url: String, why: http::Failure },

    #[error("the service at {url} is not a fleet server of this version ({why}); check --url")]
    NotUnderstood { url: String, why: String },

    #[error(
        "the fleet server at {url} does not accept this token; pass one that `cotter token create` made, or the operator.token of its data folder, with --token-file or COTTER_TOKEN"
    )]
    WrongToken { url: String },

    /// `why`: the last failure.
    #[error(
        "the connection to the fleet server was lost before it answered, so it is unknown whether the change was made; see `cotter audit` once it answers: {why}"
    )]
    HalfWay { why: Box<ClientError> },

    #[error("{}", failure.message)]
    Answer { failure: Failure },
}

impl ClientError {
    /// Returns `true` if the same request may succeed later, without a change: the server is restarting or busy,
    /// or the network is gone.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable { why, .. } => {
                matches!(why, http::Failure::Unreachable(_) | http::Failure::Late)
            }
            Self::Away { .. } => true,
            Self::HalfWay { why } => why.is_passing(),
            Self::Answer { failure } => {
                ["busy", "too_slow", "storage", "database_lost"].contains(&failure.code.as_str())
            }
            Self::BadUrl { .. }
            | Self::NoName { .. }
            | Self::InTheClear { .. }
            | Self::NoToken { .. }
            | Self::NoAuthority { .. }
            | Self::Refused { .. }
            | Self::NeedsTls { .. }
            | Self::Untrusted { .. }
            | Self::NotUnderstood { .. }
            | Self::WrongToken { .. } => false,
        }
    }
}

impl ClientError {
    /// Returns what it says about a request that changes something.
    pub(super) fn of_change(&self) -> Failed {
        match self {
            Self::Unreachable { why: http::Failure::Unreachable(broken), .. } => {
                if broken.is_by_certificate() {
                    Failed::ForGood
                } else if broken.is_of_connecting() {
                    Failed::Before
                } else {
                    Failed::HalfWay
                }
            }
            Self::Unreachable { why: http::Failure::Late, .. } | Self::Away { .. } => Failed::HalfWay,
            Self::Answer { .. }
            | Self::HalfWay { .. }
            | Self::Unreachable { .. }
            | Self::Refused { .. }
            | Self::NeedsTls { .. }
            | Self::Untrusted { .. }
            | Self::BadUrl { .. }
            | Self::NoName { .. }
            | Self::InTheClear { .. }
            | Self::NoToken { .. }
            | Self::NoAuthority { .. }
            | Self::NotUnderstood { .. }
            | Self::WrongToken { .. } => Failed::ForGood,
        }
    }
}

/// Whether a proxy answers so for a server that does not answer itself.
pub(super) fn is_of_proxy(status: StatusCode) -> bool {
    matches!(status, StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT)
}

/// Whether a proxy refuses so. The fleet server says in JSON why it refuses.
pub(super) fn is_refused_by_proxy(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::UNAUTHORIZED
            | StatusCode::FORBIDDEN
            | StatusCode::PROXY_AUTHENTICATION_REQUIRED
            | StatusCode::TOO_MANY_REQUESTS
    )
}

/// Whether the answer to a request without TLS says that the port needs TLS: the words of our server, and of nginx.
pub(super) fn says_tls(status: StatusCode, body: &[u8]) -> bool {
    let body = String::from_utf8_lossy(body);
    status == StatusCode::BAD_REQUEST && ["TLS", "HTTPS"].iter().any(|word| body.contains(word))
}

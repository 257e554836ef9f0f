//! Why a request to the fleet server failed.

use std::path::PathBuf;

use crate::http::{self, StatusCode};
use crate::wire::operator_api::Failure;

/// Why a request to the fleet server failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClientError {
    #[error("{given:?} is not the address of a fleet server ({why}); write e.g. --url http://127.0.0.1:7300")]
    BadUrl { given: String, why: String },

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

    #[error("the service at {url} is not a fleet server of this version ({why}); check --url")]
    NotUnderstood { url: String, why: String },

    #[error(
        "the fleet server at {url} does not accept this token; pass one that `cotter token create` made, or the operator.token of its data folder, with --token-file or COTTER_TOKEN"
    )]
    WrongToken { url: String },

    #[error("{}", failure.message)]
    Answer { failure: Failure },
}

impl ClientError {
    /// Returns `true` if the same request may succeed later, without a change: the server is restarting or busy,
    /// or the network is gone.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable { why: http::Failure::Unreachable(broken), .. } => !broken.is_by_certificate(),
            Self::Unreachable { why, .. } => matches!(why, http::Failure::Late),
            Self::Away { .. } => true,
            Self::Answer { failure } => ["busy", "too_slow", "storage"].contains(&failure.code.as_str()),
            Self::BadUrl { .. }
            | Self::InTheClear { .. }
            | Self::NoToken { .. }
            | Self::NoAuthority { .. }
            | Self::NotUnderstood { .. }
            | Self::WrongToken { .. } => false,
        }
    }
}

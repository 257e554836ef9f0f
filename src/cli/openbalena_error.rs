//! Why `cotter fleet to-openbalena` did not do all of it.

use crate::http::{self, StatusCode};

/// Why the API did not do it.
#[derive(Debug, thiserror::Error)]
pub(super) enum BalenaError {
    #[error("{given:?} is not the address of an API ({why}); write e.g. --to https://api.example.com")]
    BadUrl { given: String, why: String },

    #[error("the token would go to {host} unencrypted, because http:// has no TLS; use https://")]
    InTheClear { host: String },

    #[error(
        "no openBalena answers at {url} ({why}); run this again when it does, and it goes on where it stopped"
    )]
    Unreachable { url: String, why: http::Failure },

    #[error(
        "the openBalena at {url} does not accept this token; name the file of one of a user who may change fleets with \
         --api-token-file"
    )]
    WrongToken { url: String },

    #[error("openBalena refuses to {what} (status {status}: {words})")]
    Refused { what: String, status: StatusCode, words: String },

    #[error("the service at {url} does not answer as an openBalena ({why}); check --to")]
    NotUnderstood { url: String, why: String },

    #[error("{0} not complete there; correct what is named above, and run this again")]
    Incomplete(String),
}

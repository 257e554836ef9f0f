//! Why no connection could be made, or why it broke off.

use std::error::Error;
use std::fmt;

use rustls::InvalidMessage::InvalidContentType;

use super::Failure;
use crate::model::Cause;

/// Why no connection could be made, or why it broke off. Its text is that of the innermost cause: the outer errors only
/// say that a client sent a request, and to which URL. A URL may contain a signature, so it never appears in a message.
#[derive(Debug, Clone)]
pub struct Broken {
    pub(super) cause: Cause,
    /// The request needs TLS, and this machine has no certificate authorities.
    pub(super) lacks_authorities: bool,
}

impl Broken {
    /// Returns `true` if we do not trust the certificate of the server, or have no authorities to trust.
    #[must_use]
    pub fn is_by_certificate(&self) -> bool {
        let refused = matches!(
            self.cause.find(),
            Some(rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented)
        );
        refused || self.lacks_authorities
    }
}

impl<E: Error + Send + Sync + 'static> From<E> for Broken {
    fn from(error: E) -> Self {
        Self { cause: error.into(), lacks_authorities: false }
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_bare = |error: &reqwest::Error| error.source().is_none();
        match self.cause.find() {
            // The server answers the greeting of TLS in plain text.
            Some(rustls::Error::InvalidMessage(InvalidContentType)) => f.write_str("it speaks no TLS")?,
            _ if self.cause.find().is_some_and(is_bare) => f.write_str("the request cannot be sent")?,
            _ => write!(f, "{}", self.cause)?,
        }
        if self.lacks_authorities {
            f.write_str("; this machine has no certificate authorities: install ca-certificates")?;
        }
        Ok(())
    }
}

pub(super) fn failed(error: reqwest::Error) -> Failure {
    if error.is_timeout() { Failure::Late } else { Failure::Unreachable(error.into()) }
}

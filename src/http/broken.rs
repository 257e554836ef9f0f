//! Why no connection could be made, or why it broke off.

use std::error::Error;
use std::fmt;
use std::io::ErrorKind;

use rustls::CertificateError;
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
    /// Returns `true` if no connection was made, so that the server got nothing of the request.
    #[must_use]
    pub fn is_of_connecting(&self) -> bool {
        self.cause.find().is_some_and(|error: &reqwest::Error| error.is_connect())
    }

    /// Returns `true` if the other machine has not answered for so long that the kernel has given up.
    #[must_use]
    pub fn is_by_silence(&self) -> bool {
        let kind = self.cause.find().map(std::io::Error::kind);
        matches!(kind, Some(ErrorKind::TimedOut | ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable))
    }

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

/// What is wrong with a server's certificate, and what helps.
#[expect(clippy::wildcard_enum_match_arm, reason = "rustls adds causes; all others need no advice of ours")]
fn certificate(why: &CertificateError) -> String {
    match why {
        CertificateError::UnknownIssuer => {
            "its certificate is signed by an authority that this machine does not trust; put the certificate of your own \
             authority into /usr/local/share/ca-certificates, with a name that ends in .crt, and run \
             update-ca-certificates"
                .to_owned()
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "its certificate has expired; renew it, or is the clock of this machine wrong?".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "its certificate is not valid yet; is the clock of this machine wrong?".to_owned()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            format!("its certificate is for another name ({why}); use the name that the certificate has")
        }
        why => format!("its certificate is not accepted: {why}"),
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
        let is_no_http = |error: &hyper::Error| error.is_parse();
        match self.cause.find() {
            // The server answers the greeting of TLS in plain text.
            Some(rustls::Error::InvalidMessage(InvalidContentType)) => {
                f.write_str("it speaks no TLS; if it is meant to be without, write http://")?;
            }
            Some(rustls::Error::InvalidCertificate(why)) => f.write_str(&certificate(why))?,
            _ if self.cause.find().is_some_and(is_no_http) => {
                f.write_str("its answer is not HTTP; if it speaks TLS, write https://")?;
            }
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

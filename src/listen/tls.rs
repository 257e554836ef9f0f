//! TLS of a listener: a certificate that can be replaced while connections are open, and connections that begin with a
//! handshake.
//!
//! The handshake is a part of the first read. So the bounds for silent connections hold for it: it must be over, and the
//! first byte of a request must have arrived, within the time for a head, and the connection makes room for others until
//! then.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::task::{Context, Poll, ready};

use jiff::Timestamp;
use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{Error, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::{Accept, TlsAcceptor, server};

use super::validity;

/// Maximum number of bytes of a response that wait to be encrypted and sent, for each connection.
const UNSENT: usize = 16 << 10;

/// The answer to a request without TLS.
const PLAIN: &str = "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 53\r\n\
                     Connection: close\r\n\r\nThis port accepts only TLS: use https:// in the URL.\n";

/// A certificate with its chain and its key.
#[derive(Debug, Clone)]
pub struct Certificate {
    key: Arc<CertifiedKey>,
    expires: Option<Timestamp>,
}

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BadCertificate {
    #[error(
        "it has no certificate; it must have the server's certificate and then those of its chain, as PEM"
    )]
    None,
    #[error("it is not PEM: {0}")]
    NoPem(pem::Error),
    #[error("its certificate cannot be used: {0}")]
    Unusable(Error),
}

/// Why a key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BadKey {
    #[error("it has no private key; it must have one without a password, as PEM")]
    None,
    #[error("it is not PEM: {0}")]
    NoPem(pem::Error),
    #[error("its key cannot be used: {0}")]
    Unusable(Error),
    #[error("its key does not belong to the certificate")]
    Other,
}

/// Why a certificate and a key cannot be used together.
#[derive(Debug, thiserror::Error)]
pub enum BadPair {
    #[error(transparent)]
    Certificate(#[from] BadCertificate),
    #[error(transparent)]
    Key(#[from] BadKey),
}

impl Certificate {
    /// Reads a chain of certificates and the key of the first one, both as PEM.
    ///
    /// # Errors
    ///
    /// [`BadPair`], also if the key belongs to another certificate.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, BadPair> {
        let chain: Vec<_> =
            CertificateDer::pem_slice_iter(chain).collect::<Result<_, _>>().map_err(BadCertificate::NoPem)?;
        let expires = validity::end_of(chain.first().ok_or(BadCertificate::None)?);
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| {
            if matches!(error, pem::Error::NoItemsFound) { BadKey::None } else { BadKey::NoPem(error) }
        })?;
        let pair = CertifiedKey::from_der(chain, key, &ring::default_provider());
        let key = pair.map_err(|error| {
            if matches!(error, Error::InconsistentKeys(_)) {
                return BadPair::Key(BadKey::Other);
            }
            let is_of_key = !matches!(error, Error::InvalidCertificate(_));
            if is_of_key { BadKey::Unusable(error).into() } else { BadCertificate::Unusable(error).into() }
        })?;
        Ok(Self { key: Arc::new(key), expires })
    }

    /// Returns until when it is valid; `None` if that cannot be read.
    #[must_use]
    pub fn expires(&self) -> Option<Timestamp> {
        self.expires
    }
}

/// The certificate in use.
#[derive(Debug)]
struct Current(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

/// TLS with one certificate for all names. Clones share the certificate.
#[derive(Clone)]
pub struct Tls {
    current: Arc<Current>,
    acceptor: TlsAcceptor,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls")
    }
}

impl Tls {
    /// TLS 1.2 and 1.3, with HTTP/1.1 inside.
    ///
    /// # Errors
    ///
    /// If this machine has no random numbers.
    pub fn new(certificate: Certificate) -> io::Result<Self> {
        let current = Arc::new(Current(RwLock::new(certificate.key)));
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let config = config.with_safe_default_protocol_versions().map_err(io::Error::other)?;
        let resolver: Arc<dyn ResolvesServerCert> = Arc::clone(&current) as _;
        let mut config = config.with_no_client_auth().with_cert_resolver(resolver);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        // A client that returns resumes its session from a ticket, so the server keeps none in memory.
        config.ticketer = ring::Ticketer::new().map_err(io::Error::other)?;
        config.send_tls13_tickets = 1;
        Ok(Self { current, acceptor: Arc::new(config).into() })
    }

    /// Uses another certificate for all handshakes from now on. Open connections stay.
    pub fn replace(&self, certificate: Certificate) {
        *self.current.0.write().unwrap_or_else(PoisonError::into_inner) = certificate.key;
    }
}

/// A TCP connection with TLS.
pub(super) struct TlsStream(State);

enum State {
    /// Nothing has arrived yet.
    New(TcpStream, TlsAcceptor),
    Handshake(Box<Accept<TcpStream>>),
    Open(Box<server::TlsStream<TcpStream>>),
    /// The client does not speak TLS. It has its answer, and nothing is read from it.
    Plain(TcpStream),
    /// The handshake failed.
    Failed,
}

impl TlsStream {
    pub(super) fn new(stream: TcpStream, tls: &Tls) -> Self {
        Self(State::New(stream, tls.acceptor.clone()))
    }

    /// Waits until the handshake is over.
    fn poll_open(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            match &mut self.0 {
                State::Open(_) | State::Plain(_) => return Poll::Ready(Ok(())),
                State::Failed => return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into())),
                State::New(stream, _) => {
                    let mut byte = [0];
                    ready!(stream.poll_peek(context, &mut ReadBuf::new(&mut byte)))?;
                    self.begin(byte[0].is_ascii_uppercase(), context);
                }
                State::Handshake(accept) => {
                    let opened = ready!(Pin::new(accept.as_mut()).poll(context));
                    self.0 = State::Failed;
                    let mut stream = opened?;
                    stream.get_mut().1.set_buffer_limit(Some(UNSENT));
                    self.0 = State::Open(Box::new(stream));
                }
            }
        }
    }

    /// Begins the handshake, or answers a client whose first byte is that of a plain request.
    fn begin(&mut self, is_plain: bool, context: &mut Context<'_>) {
        let State::New(mut stream, acceptor) = std::mem::replace(&mut self.0, State::Failed) else { return };
        if is_plain {
            // It fits into the empty buffer of the kernel.
            let _sent = Pin::new(&mut stream).poll_write(context, PLAIN.as_bytes());
            self.0 = State::Plain(stream);
        } else {
            self.0 = State::Handshake(Box::new(acceptor.accept(stream)));
        }
    }

    /// The socket, for what needs no TLS.
    fn socket(&mut self) -> Option<&mut TcpStream> {
        match &mut self.0 {
            State::New(stream, _) | State::Plain(stream) => Some(stream),
            State::Handshake(accept) => accept.get_mut(),
            State::Open(stream) => Some(stream.get_mut().0),
            State::Failed => None,
        }
    }
}

impl AsyncRead for TlsStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_open(context))?;
        match &mut self.0 {
            State::Open(stream) => Pin::new(stream.as_mut()).poll_read(context, buffer),
            // As if it had said all.
            State::Plain(_) | State::New(..) | State::Handshake(_) | State::Failed => Poll::Ready(Ok(())),
        }
    }
}

impl AsyncWrite for TlsStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.as_mut().poll_write_vectored(context, &[io::IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_open(context))?;
        match &mut self.0 {
            State::Open(stream) => Pin::new(stream.as_mut()).poll_write_vectored(context, slices),
            State::Plain(_) | State::New(..) | State::Handshake(_) | State::Failed => {
                Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            State::Open(stream) => Pin::new(stream.as_mut()).poll_flush(context),
            State::Plain(_) | State::New(..) | State::Handshake(_) | State::Failed => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let State::Open(stream) = &mut self.0 {
            return Pin::new(stream.as_mut()).poll_shutdown(context);
        }
        match self.socket() {
            Some(stream) => Pin::new(stream).poll_shutdown(context),
            None => Poll::Ready(Ok(())),
        }
    }
}

#[cfg(test)]
#[path = "tls_tests.rs"]
mod tests;

//! Makes all HTTP requests of Cotter, so that every answer is bounded and every credential stays at its server. Knows
//! nothing of clouds, registries or agents.
//!
//! - A request has one deadline. It covers connecting, redirects and the complete body, even one that arrives slowly.
//! - A body is read up to a number of bytes that the caller names, counted after decompression ([`Answer`]).
//! - reqwest follows no redirect; `redirect` decides. Credentials go to the origin that the caller named, and to no other.

mod answer;
mod broken;
mod no_proxy;
mod pieces;
mod redirect;
#[cfg(test)]
pub(crate) mod sample;
#[cfg(test)]
mod tests;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::str::FromStr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

pub use hyper::body::Bytes;
pub use reqwest::header;
pub use reqwest::{Method, StatusCode, Url};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::warn;

use header::{HeaderMap, HeaderName, HeaderValue};

pub use answer::{Answer, retry_after};
pub use broken::Broken;
use broken::failed;
use pieces::{Pieces, Sent};
pub use redirect::Follow;

/// Longest time to open a connection.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// How long an unused connection stays open.
const IDLE: Duration = Duration::from_secs(30);

/// Why a request has no usable answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Failure {
    #[error("its address is not a URL: {0}")]
    NoUrl(<Url as FromStr>::Err),
    /// The network, the name or TLS.
    #[error("{0}")]
    Unreachable(Broken),
    /// The deadline of the request has passed.
    #[error("no answer in time")]
    Late,
    #[error("its answer has more than {0} bytes")]
    TooLong(usize),
    /// A redirect that is not followed.
    #[error("it redirects to {to}, {why}")]
    Redirected { to: String, why: &'static str },
}

/// Makes requests. Cheap to clone; clones share their connections.
#[derive(Debug, Clone)]
pub struct Http {
    /// For plain HTTP to this machine: it needs neither a proxy nor certificates.
    here: reqwest::Client,
    /// Created at its first use, because it loads the certificates of all authorities, which takes time and memory.
    elsewhere: Arc<OnceLock<Elsewhere>>,
    /// For hosts that `NO_PROXY` names with a port. Created at its first use, too.
    direct: Arc<OnceLock<Elsewhere>>,
    no_proxy: Arc<str>,
    /// Certificates of authorities that are trusted in addition to those of this machine.
    authorities: Arc<[reqwest::Certificate]>,
}

/// For all other requests.
#[derive(Debug)]
struct Elsewhere {
    client: reqwest::Client,
    /// Whether this machine has any certificate authority.
    has_authorities: bool,
}

/// A request with its credentials.
#[derive(Debug)]
pub struct Request {
    method: Method,
    url: String,
    query: Vec<(&'static str, String)>,
    headers: HeaderMap,
    pass: Option<Pass>,
    body: Option<Sent>,
    within: Option<Duration>,
    follow: Follow,
}

/// Credentials of a request.
enum Pass {
    Bearer(String),
    Basic { user: String, password: String },
}

impl std::fmt::Debug for Pass {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(secret)")
    }
}

impl Http {
    /// Opens no connection yet.
    ///
    /// On a machine without certificate authorities every https request fails, with a message that says so.
    ///
    /// # Errors
    ///
    /// If TLS cannot be set up on this machine.
    pub fn new() -> Result<Self, Failure> {
        let no_proxy = no_proxy::from_environment().into();
        let authorities = Arc::from([]);
        Ok(Self {
            here: built(here())?,
            elsewhere: Arc::default(),
            direct: Arc::default(),
            no_proxy,
            authorities,
        })
    }

    /// As [`new`](Self::new), and trusts the authorities whose certificates are in `pem`, too.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new), and if `pem` has no certificate.
    pub fn trusting(pem: Option<&[u8]>) -> Result<Self, Failure> {
        let authorities = pem.map(reqwest::Certificate::from_pem_bundle).transpose().map_err(failed)?;
        Ok(Self { authorities: authorities.unwrap_or_default().into(), ..Self::new()? })
    }

    /// Creates a client that sends every request over a unix socket, whatever host its URL names.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn over_socket(path: &Path) -> Result<Self, Failure> {
        let client = built(builder().no_proxy().tls_certs_only([]).unix_socket(path))?;
        let elsewhere = Elsewhere { client: client.clone(), has_authorities: true };
        let elsewhere = Arc::new(elsewhere.into());
        let (no_proxy, authorities) = (Arc::from(""), Arc::from([]));
        Ok(Self { here: client, elsewhere, direct: Arc::default(), no_proxy, authorities })
    }

    /// Returns the client for a URL.
    fn client(&self, url: &Url) -> Result<&reqwest::Client, Failure> {
        if url.scheme() == "http" && is_loopback(url) {
            return Ok(&self.here);
        }
        let is_direct = no_proxy::names(&self.no_proxy, url);
        let slot = if is_direct { &self.direct } else { &self.elsewhere };
        if let Some(elsewhere) = slot.get() {
            return Ok(&elsewhere.client);
        }
        let builder = || if is_direct { builder().no_proxy() } else { builder() };
        let ours = || self.authorities.iter().cloned();
        let (client, has_authorities) = match builder().tls_certs_merge(ours()).build() {
            Ok(client) => (client, true),
            Err(error) => {
                // Not fatal: the agent still runs its last target.
                warn!(%error, "no certificate authorities; https fails until ca-certificates is installed");
                // Those that were given may be enough.
                (built(builder().tls_certs_only(ours()))?, !self.authorities.is_empty())
            }
        };
        Ok(&slot.get_or_init(|| Elsewhere { client, has_authorities }).client)
    }

    /// Sends a request and follows the allowed redirects. The body of the answer is not read yet.
    ///
    /// # Errors
    ///
    /// See [`Failure`]. Any status is a success, except that of a redirect that is not followed.
    pub async fn send(&self, mut request: Request) -> Result<Answer, Failure> {
        let mut first = Url::parse(&request.url).map_err(Failure::NoUrl)?;
        for (name, value) in &request.query {
            first.query_pairs_mut().append_pair(name, value);
        }
        let deadline = request.within.map(|within| Instant::now() + within);
        let mut url = first.clone();
        let mut redirects = 0;
        loop {
            let hop = self.client(&url)?.request(request.method.clone(), url.clone());
            let mut hop = hop.headers(request.headers.clone());
            if url.origin() == first.origin() {
                hop = match &request.pass {
                    Some(Pass::Bearer(token)) => hop.bearer_auth(token),
                    Some(Pass::Basic { user, password }) => hop.basic_auth(user, Some(password)),
                    None => hop,
                };
            }
            match &mut request.body {
                Some(Sent::Whole(body)) => hop = hop.body(body.clone()),
                // It is sent once: a request with a body is not redirected.
                Some(Sent::Pieces(pieces)) => {
                    if let Some(pieces) = pieces.take() {
                        hop = hop.body(reqwest::Body::wrap(pieces));
                    }
                }
                None => {}
            }
            if let Some(deadline) = deadline {
                hop = hop.timeout(deadline.saturating_duration_since(Instant::now()));
            }
            let answer = Box::pin(hop.send()).await.map_err(|error| self.failed(error, &url))?;
            let Some(location) = redirect::location(&answer) else { return Ok(Answer::new(answer)) };
            url = redirect::next(&url, &location, &request.method, request.follow, redirects)?;
            redirects += 1;
        }
    }

    fn failed(&self, error: reqwest::Error, url: &Url) -> Failure {
        let lacks = |slot: &OnceLock<Elsewhere>| slot.get().is_some_and(|it| !it.has_authorities);
        let lacks_authorities = url.scheme() == "https" && (lacks(&self.elsewhere) || lacks(&self.direct));
        match failed(error) {
            Failure::Unreachable(broken) => Failure::Unreachable(Broken { lacks_authorities, ..broken }),
            failure @ (Failure::NoUrl(_)
            | Failure::Late
            | Failure::TooLong(_)
            | Failure::Redirected { .. }) => failure,
        }
    }
}

impl Request {
    /// Creates a request without a body that may take `within` in total. It follows redirects within its origin.
    #[must_use]
    pub fn new(method: Method, url: impl Into<String>, within: Duration) -> Self {
        let (url, query, headers) = (url.into(), Vec::new(), HeaderMap::new());
        Self {
            method,
            url,
            query,
            headers,
            pass: None,
            body: None,
            within: Some(within),
            follow: Follow::SameOrigin,
        }
    }

    /// Removes the deadline, for an answer that is a stream.
    #[must_use]
    pub fn without_deadline(mut self) -> Self {
        self.within = None;
        self
    }

    #[must_use]
    pub fn follow(mut self, follow: Follow) -> Self {
        self.follow = follow;
        self
    }

    /// Adds a parameter to the query of the URL.
    #[must_use]
    pub fn query(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.query.push((name, value.into()));
        self
    }

    /// Adds a header. Leaves it out if the value is not valid in a header.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
            self.headers.insert(name, value);
        }
        self
    }

    #[must_use]
    pub fn bearer(mut self, token: &str) -> Self {
        self.pass = Some(Pass::Bearer(token.to_owned()));
        self
    }

    #[must_use]
    pub fn basic(mut self, user: &str, password: &str) -> Self {
        self.pass = Some(Pass::Basic { user: user.to_owned(), password: password.to_owned() });
        self
    }

    #[must_use]
    pub fn json(self, body: Vec<u8>) -> Self {
        let mut request = self.header(header::CONTENT_TYPE, "application/json");
        request.body = Some(Sent::Whole(body));
        request
    }

    /// Sends a body of any length, piece by piece. It ends when the sender is dropped. The answer may come before.
    #[must_use]
    pub fn pieces(mut self, content_type: &str, pieces: mpsc::Receiver<Bytes>) -> Self {
        self.body = Some(Sent::Pieces(Some(Pieces(pieces))));
        self.header(header::CONTENT_TYPE, content_type)
    }
}

/// Returns whether a URL names this machine: `localhost`, 127.0.0.0/8 or ::1.
#[must_use]
pub fn is_loopback(url: &Url) -> bool {
    url.host_str().is_some_and(crate::model::is_loopback)
}

/// Formats scheme, host and port of a URL for people.
#[must_use]
pub fn origin(url: &Url) -> String {
    url.origin().ascii_serialization()
}

fn builder() -> reqwest::ClientBuilder {
    // A second install fails, because the first one is still in force. That is fine.
    drop(rustls::crypto::ring::default_provider().install_default());
    reqwest::Client::builder()
        .connect_timeout(CONNECT_WITHIN)
        .pool_idle_timeout(IDLE)
        .redirect(reqwest::redirect::Policy::none())
        .user_agent(concat!("cotter/", env!("CARGO_PKG_VERSION")))
}

/// Builds the client for this machine. It ignores proxies, and resolves `localhost` itself.
fn here() -> reqwest::ClientBuilder {
    let localhost = [SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), SocketAddr::from((Ipv6Addr::LOCALHOST, 0))];
    builder().no_proxy().tls_certs_only([]).resolve_to_addrs("localhost", &localhost)
}

fn built(builder: reqwest::ClientBuilder) -> Result<reqwest::Client, Failure> {
    builder.build().map_err(failed)
}

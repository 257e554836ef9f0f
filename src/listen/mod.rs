//! HTTP servers that no client can stop: every connection, request and body is bounded in number, size and time.
//!
//! A connection without a request in progress is *spare*: it is closed when a new client needs its place. An *admitted*
//! request has its own place until its response is sent, and is never closed for another one. Ordinary and privileged
//! clients have separate places, so neither can take those of the other. A request for which there is no place is answered
//! with 503.
//!
//! This room knows no route and no key. A client is privileged by the user of its end of a unix socket, or by its headers,
//! which the routes check. Only an admitted request can read its body.

mod admission;
mod body;
mod connections;
mod json;
mod listener;
mod overload;
mod proxies;
mod serve;
mod service;
mod stream;
#[cfg(test)]
mod tests;
#[cfg(feature = "server")]
mod tls;
#[cfg(feature = "server")]
mod validity;

use std::time::Duration;

pub use admission::{Admitted, Busy, Rank, Visit};
#[cfg(any(feature = "server", test))]
pub use body::Pieces;
pub use body::{Received, Unread};
pub use json::{from_json, may_be_json};
pub use listener::Listener;
pub use proxies::{Network, NoNetwork};
pub use serve::{Ended, serve};
pub use service::Admission;
#[cfg(feature = "server")]
pub use tls::{BadPair, Certificate, Tls};

/// Seconds after which a client that was refused may try again, for `Retry-After`.
pub const RETRY_AFTER: u64 = 5;

/// The largest head of a request in bytes: request line and headers. A larger one is answered with 431. Each open
/// connection may hold so much memory, which is all that a stranger can fill.
const LARGEST_HEAD: usize = 16 << 10;

/// What a server allows its clients.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Requests of ordinary clients in progress at a time.
    pub ordinary: usize,
    /// Requests of privileged clients in progress at a time.
    pub privileged: usize,
    /// Ordinary requests in progress at a time of one user of this machine. Only unix sockets know users.
    pub per_user: usize,
    /// Connections without a request in progress that may be open besides.
    pub spare: usize,
    /// How long a client may take from the first byte of a request to the end of its headers; also how long a new
    /// connection may be silent.
    pub head: Duration,
    /// How long a connection may wait for its next request.
    pub idle: Duration,
    /// How long a client may take no byte of a response.
    pub stalled: Duration,
    /// How long a client may take for a whole response once it falls behind; if it has taken 16 KiB a second of it, as long
    /// again. `None` for responses that go on as long as the client likes.
    pub response: Option<Duration>,
    /// How long a body may take.
    pub body: Duration,
    /// Bytes of bodies that ordinary requests may hold at a time, all together.
    pub ordinary_bodies: usize,
    /// As `ordinary_bodies`, for privileged requests.
    pub privileged_bodies: usize,
    /// How long requests in progress may go on once the server is stopped.
    pub linger: Duration,
}

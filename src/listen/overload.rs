//! Logs an overload: one line when it begins and one when it is over, however many clients there are.

use std::fmt;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{info, warn};

/// An overload is over after this time without an event.
const QUIET: Duration = Duration::from_secs(5);

/// The counters of an overload.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Counts {
    /// Connections without a request that were closed for others.
    closed: u64,
    /// Requests that found no place.
    refused: u64,
    /// Connections that could not be accepted.
    failed: u64,
}

/// An event of an overload.
#[derive(Debug)]
pub(super) enum Event<'a> {
    Closed(usize),
    Refused(u64),
    Failed(&'a std::io::Error),
}

impl fmt::Display for Event<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed(_) => f.write_str("connections without a request are closed to make room"),
            Self::Refused(_) => f.write_str("requests are refused with 503"),
            Self::Failed(error) => write!(f, "connections cannot be accepted: {error}"),
        }
    }
}

/// The overload of a server, if there is one.
#[derive(Debug)]
pub(super) struct Overload {
    socket: &'static str,
    connections: usize,
    begun: Option<Instant>,
    last: Instant,
    counts: Counts,
}

impl Overload {
    pub(super) fn new(socket: &'static str, connections: usize) -> Self {
        Self { socket, connections, begun: None, last: Instant::now(), counts: Counts::default() }
    }

    pub(super) fn note(&mut self, event: &Event<'_>) {
        self.last = Instant::now();
        match event {
            Event::Closed(count) => self.counts.closed += *count as u64,
            Event::Refused(count) => self.counts.refused += count,
            Event::Failed(_) => self.counts.failed += 1,
        }
        if self.begun.is_none() {
            self.begun = Some(self.last);
            warn!(socket = self.socket, connections = self.connections, cause = %event, "too many clients");
        }
    }

    /// Waits until an overload is over and logs it; for ever while there is none.
    pub(super) async fn over(&mut self) {
        let Some(begun) = self.begun else { return std::future::pending().await };
        tokio::time::sleep_until(self.last + QUIET).await;
        let Counts { closed, refused, failed } = std::mem::take(&mut self.counts);
        let elapsed_ms = u64::try_from((self.last - begun).as_millis()).unwrap_or(u64::MAX);
        info!(socket = self.socket, closed, refused, failed, elapsed_ms, "client overload is over");
        self.begun = None;
    }
}

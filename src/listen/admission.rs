//! Admission: which requests are in progress, and which new ones get a place.

use std::any::Any;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::http::HeaderMap;
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

use super::Limits;
use super::listener::{self, Peer};
use super::proxies::{self, Network};

/// The kind of place that a request takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rank {
    Ordinary,
    Privileged,
}

/// All places of this rank are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Busy;

/// What all connections of a server share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) limits: Limits,
    /// Proxies that name their clients.
    pub(super) proxies: Arc<[Network]>,
    begun: Instant,
    ordinary: AtomicUsize,
    privileged: AtomicUsize,
    /// Ordinary requests in progress by user.
    users: Mutex<HashMap<u32, usize>>,
    pub(super) ordinary_bodies: Arc<Semaphore>,
    pub(super) privileged_bodies: Arc<Semaphore>,
    /// Requests that found no place.
    pub(super) refused: AtomicU64,
    /// Wakes the task that logs refusals.
    pub(super) has_refused: Notify,
}

impl Shared {
    pub(super) fn new(limits: Limits, proxies: Arc<[Network]>) -> Self {
        let kib = |bytes: usize| Arc::new(Semaphore::new(bytes >> 10));
        Self {
            limits,
            proxies,
            begun: Instant::now(),
            ordinary: AtomicUsize::new(0),
            privileged: AtomicUsize::new(0),
            users: Mutex::default(),
            ordinary_bodies: kib(limits.ordinary_bodies),
            privileged_bodies: kib(limits.privileged_bodies),
            refused: AtomicU64::new(0),
            has_refused: Notify::new(),
        }
    }

    fn take(&self, rank: Rank, user: Option<u32>) -> Result<(), Busy> {
        let (taken, most) = match rank {
            Rank::Ordinary => (&self.ordinary, self.limits.ordinary),
            Rank::Privileged => (&self.privileged, self.limits.privileged),
        };
        let more = |taken: usize| (taken < most).then_some(taken + 1);
        taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).map_err(|_| Busy)?;
        let Some(user) = user.filter(|_| rank == Rank::Ordinary) else { return Ok(()) };
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        let of_user = users.entry(user).or_default();
        if *of_user >= self.limits.per_user {
            taken.fetch_sub(1, Ordering::Relaxed);
            return Err(Busy);
        }
        *of_user += 1;
        Ok(())
    }

    fn give_back(&self, rank: Rank, user: Option<u32>) {
        match rank {
            Rank::Ordinary => self.ordinary.fetch_sub(1, Ordering::Relaxed),
            Rank::Privileged => self.privileged.fetch_sub(1, Ordering::Relaxed),
        };
        let Some(user) = user.filter(|_| rank == Rank::Ordinary) else { return };
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(of_user) = users.get_mut(&user) {
            *of_user -= 1;
            if *of_user == 0 {
                users.remove(&user);
            }
        }
    }
}

/// The phase of a connection's present request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// It has sent nothing yet.
    New = 0,
    /// A part of a request's head has arrived.
    Head = 1,
    /// A request is being served.
    Serving = 2,
    /// The response exists, but is not completely sent.
    Answered = 3,
    /// The last response is sent, and nothing of the next request has arrived.
    Idle = 4,
}

/// A connection without a request that was admitted.
const NONE: u8 = 0;
/// A connection that is being closed for another one. No request on it is admitted any more.
const CLOSED: u8 = u8::MAX;

/// The places and times of one connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) shared: Arc<Shared>,
    pub(super) peer: Peer,
    /// The group of the client: that of the peer, or of the client behind a trusted proxy.
    group: AtomicU64,
    phase: AtomicU8,
    /// When the phase began, in milliseconds since the server started.
    since: AtomicU64,
    /// [`NONE`], [`CLOSED`], or the rank of the request in progress plus one.
    place: AtomicU8,
    /// Whether any request of this connection was ever admitted.
    was_admitted: AtomicBool,
    /// What the request in progress holds besides its place.
    held: Mutex<Vec<Box<dyn Any + Send>>>,
}

impl Connection {
    pub(super) fn new(shared: Arc<Shared>, peer: Peer) -> Self {
        let connection = Self {
            shared,
            peer,
            group: AtomicU64::new(peer.group),
            phase: AtomicU8::new(Phase::New as u8),
            since: AtomicU64::new(0),
            place: AtomicU8::new(NONE),
            was_admitted: AtomicBool::new(false),
            held: Mutex::default(),
        };
        connection.enter(Phase::New);
        connection
    }

    /// Returns the group whose connections make room together.
    pub(super) fn group(&self) -> u64 {
        self.group.load(Ordering::Relaxed)
    }

    /// Finds out whose request this is. A connection of a trusted proxy counts for that client until its next request.
    pub(super) fn client(&self, headers: &HeaderMap) -> Option<IpAddr> {
        let address = self.peer.address?;
        if !self.peer.is_proxy {
            return Some(address);
        }
        let client = proxies::client(address, &self.shared.proxies, headers);
        self.group.store(listener::group(client), Ordering::Relaxed);
        Some(client)
    }

    pub(super) fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Relaxed) {
            0 => Phase::New,
            1 => Phase::Head,
            2 => Phase::Serving,
            3 => Phase::Answered,
            _ => Phase::Idle,
        }
    }

    pub(super) fn enter(&self, phase: Phase) {
        let since = u64::try_from(self.shared.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.since.store(since, Ordering::Relaxed);
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    /// Returns when the present phase began, in milliseconds since the server started.
    pub(super) fn since(&self) -> u64 {
        self.since.load(Ordering::Relaxed)
    }

    /// Returns until when a byte must arrive; `None` while the client need not send any.
    pub(super) fn read_deadline(&self) -> Option<Instant> {
        let patience = match self.phase() {
            Phase::New | Phase::Head => self.shared.limits.head,
            Phase::Idle => self.shared.limits.idle,
            Phase::Serving | Phase::Answered => return None,
        };
        Some(self.shared.begun + Duration::from_millis(self.since()) + patience)
    }

    /// Records that the client sent something.
    pub(super) fn received(&self) {
        if matches!(self.phase(), Phase::New | Phase::Idle) {
            self.enter(Phase::Head);
        }
    }

    /// Records that everything written so far is sent.
    pub(super) fn sent(&self) {
        if self.phase() == Phase::Answered {
            self.enter(Phase::Idle);
            self.leave();
        }
    }

    /// Returns whether a request in progress has a place. If not, the connection may be closed for another one.
    pub(super) fn is_admitted(&self) -> bool {
        self.rank().is_some()
    }

    /// Marks the connection to be closed for another one and returns `true`, unless a request has a place. Atomic, because
    /// the connection's own task may admit a request on another thread at the same time.
    pub(super) fn close(&self) -> bool {
        self.place.compare_exchange(NONE, CLOSED, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    pub(super) fn was_admitted(&self) -> bool {
        self.was_admitted.load(Ordering::Relaxed)
    }

    fn admit(&self, rank: Rank) -> Result<(), Busy> {
        if self.is_admitted() {
            return Ok(());
        }
        if let Err(busy) = self.shared.take(rank, self.peer.user) {
            self.shared.refused.fetch_add(1, Ordering::Relaxed);
            self.shared.has_refused.notify_one();
            return Err(busy);
        }
        if self.place.compare_exchange(NONE, rank as u8 + 1, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            self.shared.give_back(rank, self.peer.user);
            return Err(Busy);
        }
        self.was_admitted.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn rank(&self) -> Option<Rank> {
        match self.place.load(Ordering::Relaxed) {
            NONE | CLOSED => None,
            1 => Some(Rank::Ordinary),
            _ => Some(Rank::Privileged),
        }
    }

    /// Returns the place of a request.
    fn leave(&self) {
        if let Some(rank) = self.rank() {
            self.place.store(NONE, Ordering::Relaxed);
            self.held.lock().unwrap_or_else(PoisonError::into_inner).clear();
            self.shared.give_back(rank, self.peer.user);
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.leave();
    }
}

/// A request in progress, for its route: an extension of the request.
#[derive(Debug, Clone)]
pub struct Visit {
    pub(super) connection: Arc<Connection>,
    pub(super) client: Option<IpAddr>,
}

impl Visit {
    /// Gives the request a place until its response is sent. A request that has one keeps it.
    ///
    /// # Errors
    ///
    /// [`Busy`] if all places of this rank are taken. Then answer with 503 and `Retry-After`.
    pub fn admit(&self, rank: Rank) -> Result<Admitted, Busy> {
        self.connection.admit(rank).map(|()| Admitted(Arc::clone(&self.connection)))
    }

    /// Returns whether the peer is root or the user of this process; never over TCP.
    #[must_use]
    pub fn is_privileged(&self) -> bool {
        self.connection.peer.is_privileged
    }

    /// Returns whether the peer is a trusted proxy, whose headers say how the client came.
    #[must_use]
    #[cfg(any(feature = "server", test))]
    pub fn is_from_proxy(&self) -> bool {
        self.connection.peer.is_proxy
    }

    /// Returns the address of the client: the peer's, or the one that a trusted proxy names. `None` over a unix socket.
    #[must_use]
    pub fn client(&self) -> Option<IpAddr> {
        self.client
    }
}

#[cfg(test)]
impl Visit {
    /// A request of a privileged user, for tests of routes.
    pub(crate) fn privileged() -> Self {
        let limits = super::tests::LIMITS;
        let peer = Peer { user: Some(0), address: None, is_proxy: false, group: 0, is_privileged: true };
        let shared = Arc::new(Shared::new(limits, Arc::from([])));
        Self { connection: Arc::new(Connection::new(shared, peer)), client: None }
    }
}

/// Proof that a request was admitted, which lets its body be read. The place is taken for as long as a copy of it lives, also
/// when the client has gone: keep one in work that goes on. Where users tell the rank it is an extension of
/// each request.
#[derive(Debug, Clone)]
pub struct Admitted(pub(super) Arc<Connection>);

impl Admitted {
    /// Keeps something until the place of the request is given back.
    #[cfg(any(feature = "server", test))]
    pub fn hold(&self, thing: impl Any + Send) {
        self.0.held.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(thing));
    }

    pub(super) fn bodies(&self) -> &Arc<Semaphore> {
        match self.0.rank() {
            Some(Rank::Privileged) => &self.0.shared.privileged_bodies,
            Some(Rank::Ordinary) | None => &self.0.shared.ordinary_bodies,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_that_goes_on_keeps_the_place_and_what_is_held_with_it() {
        let visit = Visit::privileged();
        let shared = Arc::clone(&visit.connection.shared);
        let taken = || shared.privileged.load(Ordering::Relaxed);
        let turn = Arc::new(());
        let admitted = visit.admit(Rank::Privileged).unwrap();
        admitted.hold(Arc::clone(&turn));
        let of_work = admitted.clone();
        // The client closes its connection.
        drop((visit, admitted));
        assert_eq!((taken(), Arc::strong_count(&turn)), (1, 2));
        drop(of_work);
        assert_eq!((taken(), Arc::strong_count(&turn)), (0, 1));
    }

    #[test]
    fn a_connection_can_be_closed_before_and_after_a_request_with_a_place() {
        let Visit { connection, .. } = Visit::privileged();
        assert_eq!(connection.admit(Rank::Privileged), Ok(()));
        assert!(!connection.close());
        connection.leave();
        assert!(connection.close());
        assert_eq!(connection.admit(Rank::Privileged), Err(Busy));
        assert!(!connection.is_admitted());
        assert_eq!(connection.shared.privileged.load(Ordering::Relaxed), 0);
    }
}

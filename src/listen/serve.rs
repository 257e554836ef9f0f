//! Accepts connections and serves each in a separate task, until it is stopped.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::admission::{Connection, Shared};
use super::connections::Connections;
use super::listener::{Io, Listener, Peer};
use super::overload::{Event, Overload};
use super::service::{Admission, Routes};
use super::stream::Stream;
use super::{LARGEST_HEAD, Limits};

/// Pause after the system could not accept a connection, because it has no files or no memory left.
const PAUSE: Duration = Duration::from_millis(100);

/// How a server ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// All requests were served to their end.
    Complete,
    /// Some requests were cut off.
    Cut,
}

/// Serves `routes` until `stop` is cancelled, and then until the requests in progress end, for at most `limits.linger`.
/// `name` identifies the socket in the log.
///
/// Never ends by itself: an error of the system closes spare connections and is logged.
pub async fn serve(
    listener: Listener,
    routes: Router,
    limits: Limits,
    admission: Admission,
    stop: CancellationToken,
    name: &'static str,
) -> Ended {
    let mut server = Server {
        shared: Arc::new(Shared::new(limits, Arc::clone(listener.proxies()))),
        routes: TowerToHyperService::new(routes),
        admission,
        connections: Connections::default(),
        overload: Overload::new(name, limits.ordinary),
        stop,
    };
    server.accept(&listener).await;
    drop(listener);
    server.connections.close_waiting();
    match tokio::time::timeout(limits.linger, server.connections.all_ended()).await {
        Ok(()) => Ended::Complete,
        Err(_) => Ended::Cut,
    }
}

struct Server {
    shared: Arc<Shared>,
    routes: TowerToHyperService<Router>,
    admission: Admission,
    connections: Connections,
    overload: Overload,
    stop: CancellationToken,
}

impl Server {
    /// Accepts connections until the server is stopped.
    async fn accept(&mut self, listener: &Listener) {
        let mut paused: Option<Instant> = None;
        loop {
            let resumed = async {
                match paused {
                    Some(until) => tokio::time::sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                () = self.connections.ended() => {}
                () = self.overload.over() => {}
                () = self.shared.has_refused.notified() => {
                    let refused = self.shared.refused.swap(0, Ordering::Relaxed);
                    self.overload.note(&Event::Refused(refused));
                }
                () = resumed => paused = None,
                accepted = listener.accept(), if paused.is_none() => match accepted {
                    Ok((io, peer)) => self.begin(io, peer),
                    Err(error) if is_of_one_client(&error) => {}
                    Err(error) => {
                        self.overload.note(&Event::Failed(&error));
                        let closed = match self.connections.make_room(false) {
                            0 => self.connections.make_room(true),
                            closed => closed,
                        };
                        self.overload.note(&Event::Closed(closed));
                        paused = Some(Instant::now() + PAUSE);
                    }
                },
            }
        }
    }

    /// Serves a new connection, for which another one may be closed.
    fn begin(&mut self, io: Box<dyn Io>, peer: Peer) {
        let limits = &self.shared.limits;
        let most = match peer {
            Peer { is_privileged: true, .. } => limits.privileged + limits.spare,
            Peer { user: Some(_), .. } => limits.ordinary + limits.spare,
            // Over TCP only the headers show who is privileged.
            Peer { user: None, .. } => limits.ordinary + limits.privileged + limits.spare,
        };
        if self.connections.is_full(peer.is_privileged, most) {
            let closed = self.connections.make_room(peer.is_privileged);
            self.overload.note(&Event::Closed(closed));
            if closed == 0 {
                // More connections may be open than requests in progress, so there is always a spare one.
                return;
            }
        }
        let connection = Arc::new(Connection::new(Arc::clone(&self.shared), peer));
        let stream = Stream::new(io, Arc::clone(&connection));
        let (routes, admission) = (self.routes.clone(), self.admission);
        let routes = Routes { routes, admission, connection: Arc::clone(&connection) };
        self.connections.spawn(connection, converse(stream, routes, self.stop.clone()));
    }
}

/// Serves the requests of one connection.
async fn converse(stream: Stream, routes: Routes, stop: CancellationToken) {
    let mut http = http1::Builder::new();
    // The stream enforces the timeouts.
    http.header_read_timeout(None).max_buf_size(LARGEST_HEAD);
    let mut conversation = std::pin::pin!(http.serve_connection(TokioIo::new(stream), routes));
    tokio::select! {
        biased;
        _ = conversation.as_mut() => return,
        () = stop.cancelled() => conversation.as_mut().graceful_shutdown(),
    }
    // An error of one connection concerns only its client.
    let _ended = conversation.await;
}

/// Returns whether an error of `accept` concerns only the client that was connecting.
fn is_of_one_client(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

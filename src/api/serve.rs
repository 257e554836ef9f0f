//! Who may be connected, and for how long: listeners that let only so many in, and streams that end when the
//! other side stands still.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep};
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// What a server allows its clients.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Connections at a time; whoever comes then waits.
    pub(super) connections: usize,
    /// How long nothing may come and go on a connection.
    pub(super) idle: Duration,
}

/// How long an end waits for the other side.
const LINGER: Duration = Duration::from_secs(2);

/// Serves `routes` until `stop` is cancelled, and then for as long as answers under way take, 2 s at most.
pub(super) async fn serve_bounded(
    door: impl Into<Door>,
    routes: Router,
    bounds: Bounds,
    stop: CancellationToken,
    name: &'static str,
) {
    let places = Arc::new(Semaphore::new(bounds.connections));
    let listener = Bounded { door: door.into(), places, idle: bounds.idle };
    let linger = async {
        stop.cancelled().await;
        tokio::time::sleep(LINGER).await;
    };
    let routes = routes.into_make_service_with_connect_info::<Patience>();
    let served = axum::serve(listener, routes).with_graceful_shutdown(stop.clone().cancelled_owned());
    tokio::select! {
        served = served => if let Err(error) = served {
            warn!(%error, socket = name, "a socket ended");
        },
        // Whoever does not read, or does not ask to the end, holds up no end.
        () = linger => {}
    }
}

/// Lets the other side of a connection be silent for as long as an answer lasts that comes as things happen. It
/// must take what comes all the same.
#[derive(Debug, Clone, Default)]
pub(super) struct Patience(Arc<AtomicBool>);

/// Patience, until it is dropped.
#[derive(Debug)]
pub(super) struct Patient(Patience);

impl Patience {
    pub(super) fn begin(self) -> Patient {
        self.0.store(true, Ordering::Relaxed);
        Patient(self)
    }
}

impl Drop for Patient {
    fn drop(&mut self) {
        self.0.0.store(false, Ordering::Relaxed);
    }
}

impl Connected<IncomingStream<'_, Bounded>> for Patience {
    fn connect_info(stream: IncomingStream<'_, Bounded>) -> Self {
        stream.io().patience.clone()
    }
}

/// Where connections come from. One type for all of them: a server of its own for each is 20 KB of code.
pub(super) enum Door {
    Unix(UnixListener),
    Tcp(TcpListener),
}

impl From<UnixListener> for Door {
    fn from(listener: UnixListener) -> Self {
        Self::Unix(listener)
    }
}

impl From<TcpListener> for Door {
    fn from(listener: TcpListener) -> Self {
        Self::Tcp(listener)
    }
}

/// A connection of either kind.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A listener that lets only so many in.
struct Bounded {
    door: Door,
    places: Arc<Semaphore>,
    idle: Duration,
}

impl Listener for Bounded {
    type Io = Guest;
    type Addr = ();

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        // Nobody closes the semaphore; without a place the connection is bounded by its time alone.
        let place = Arc::clone(&self.places).acquire_owned().await.ok();
        // axum's own: they go on after an error.
        let stream: Box<dyn Stream> = match &mut self.door {
            Door::Unix(listener) => Box::new(Listener::accept(listener).await.0),
            Door::Tcp(listener) => Box::new(Listener::accept(listener).await.0),
        };
        (Guest::new(stream, place, self.idle), ())
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        Ok(())
    }
}

/// A connection that has one of the places, and ends when nothing comes or goes for too long.
struct Guest {
    stream: Box<dyn Stream>,
    _place: Option<OwnedSemaphorePermit>,
    idle: Duration,
    until: Pin<Box<Sleep>>,
    patience: Patience,
}

impl Guest {
    fn new(stream: Box<dyn Stream>, place: Option<OwnedSemaphorePermit>, idle: Duration) -> Self {
        let until = Box::pin(tokio::time::sleep(idle));
        Self { stream, _place: place, idle, until, patience: Patience::default() }
    }

    /// What a call of the stream said, however long that took. The clock goes on, for when patience is over.
    fn patient<T>(&mut self, context: &mut Context<'_>, said: Poll<T>) -> Poll<T> {
        while self.until.as_mut().poll(context).is_ready() {
            let until = Instant::now() + self.idle;
            self.until.as_mut().reset(until);
        }
        said
    }

    /// What a call of the stream said, unless it has said nothing for too long.
    fn timed<T>(&mut self, context: &mut Context<'_>, said: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if said.is_ready() {
            let until = Instant::now() + self.idle;
            self.until.as_mut().reset(until);
            return said;
        }
        match self.until.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl AsyncRead for Guest {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let said = Pin::new(&mut *self.stream).poll_read(context, buffer);
        if self.patience.0.load(Ordering::Relaxed) {
            return self.patient(context, said);
        }
        self.timed(context, said)
    }
}

impl AsyncWrite for Guest {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let said = Pin::new(&mut *self.stream).poll_write(context, bytes);
        self.timed(context, said)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let said = Pin::new(&mut *self.stream).poll_write_vectored(context, slices);
        self.timed(context, said)
    }

    /// With it hyper keeps a few texts for a reader who does not read; without it 400 KiB.
    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::extract::ConnectInfo;
    use axum::routing::get;
    use futures_util::{StreamExt, stream};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixStream;
    use tokio::task::JoinSet;

    use super::*;

    const IDLE: Duration = Duration::from_millis(200);

    /// A body whose second half comes when nothing has come for longer than may be.
    fn slow(until_the_end: Option<Patient>) -> Body {
        let late = async move {
            tokio::time::sleep(IDLE * 3).await;
            drop(until_the_end);
            Ok("second")
        };
        Body::from_stream(stream::iter([Ok::<_, io::Error>("first, ")]).chain(stream::once(late)))
    }

    #[tokio::test]
    async fn who_follows_may_be_silent_and_who_does_not_may_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let routes = Router::new()
            .route("/patient", get(async |ConnectInfo(p): ConnectInfo<Patience>| slow(Some(p.begin()))))
            .route("/usual", get(async || slow(None)));
        let (stop, bounds) = (CancellationToken::new(), Bounds { connections: 2, idle: IDLE });
        let listener = UnixListener::bind(&path).unwrap();
        let mut server = JoinSet::new();
        server.spawn(serve_bounded(listener, routes, bounds, stop.clone(), "test"));
        for (route, is_whole) in [("patient", true), ("usual", false)] {
            let mut stream = UnixStream::connect(&path).await.unwrap();
            stream.write_all(format!("GET /{route} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).await.unwrap();
            let mut told = String::new();
            let _ = stream.read_to_string(&mut told).await;
            assert!(told.contains("first"), "{route}: {told}");
            assert_eq!(told.contains("second"), is_whole, "{route}: {told}");
        }
        stop.cancel();
        server.join_all().await;
    }
}

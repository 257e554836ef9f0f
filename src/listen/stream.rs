//! A connection with timeouts: reads and writes fail when the client is too slow.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::admission::{Connection, Phase};
use super::listener::Io;

/// How long, and for how many bytes, a connection is read that was closed before its client had sent everything. A
/// socket that is closed with unread bytes sends a reset, which destroys the response that is still on its way
/// (RFC 9112, 9.6).
const DRAIN: Duration = Duration::from_secs(1);
const DRAINED: usize = 256 << 10;

/// Bytes a second that a client must take within [`Limits::response`] to get this time once more.
///
/// [`Limits::response`]: super::Limits::response
const SLOWEST: f64 = 16_384.0;

pub(super) struct Stream {
    io: Box<dyn Io>,
    connection: Arc<Connection>,
    timer: Pin<Box<Sleep>>,
    /// When the client last received a byte, while there are bytes for it.
    stalled: Option<Instant>,
    /// Since when there are bytes that the client has not received; later, when its present time for a response began.
    behind: Option<Instant>,
    /// How many bytes it has taken since then.
    taken: f64,
    /// After the write side is closed: until when the rest is read, and how many bytes of it.
    draining: Option<(Instant, usize)>,
}

impl Stream {
    pub(super) fn new(io: Box<dyn Io>, connection: Arc<Connection>) -> Self {
        let timer = Box::pin(tokio::time::sleep(connection.shared.limits.head));
        Self { io, connection, timer, stalled: None, behind: None, taken: 0.0, draining: None }
    }

    /// Waits until `deadline`, and then fails. The timer may fire too early but never too late, so it need not be set again
    /// for every request.
    fn wait<T>(&mut self, context: &mut Context<'_>, deadline: Option<Instant>) -> Poll<io::Result<T>> {
        let Some(deadline) = deadline else { return Poll::Pending };
        if self.timer.deadline() > deadline {
            self.timer.as_mut().reset(deadline);
        }
        while self.timer.as_mut().poll(context).is_ready() {
            if Instant::now() >= deadline {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            self.timer.as_mut().reset(deadline);
        }
        Poll::Pending
    }

    fn wrote(
        &mut self,
        context: &mut Context<'_>,
        wrote: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(wrote) = wrote {
            self.stalled = None;
            let bytes = wrote.as_ref().map_or(0, |bytes| *bytes);
            self.taken += f64::from(u32::try_from(bytes).unwrap_or(u32::MAX));
            return Poll::Ready(wrote);
        }
        self.not_taken(context)
    }

    /// Fails if the client has taken nothing for too long, or too little in its time. Who has taken enough gets this time again.
    fn not_taken<T>(&mut self, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        let (limits, now) = (self.connection.shared.limits, Instant::now());
        let stalled = *self.stalled.get_or_insert(now) + limits.stalled;
        let is_over = |behind: Instant| {
            limits.response.is_some_and(|response| {
                let least = response.as_secs_f64() * SLOWEST;
                now >= behind + response && self.taken >= least
            })
        };
        if self.behind.is_none_or(is_over) {
            (self.behind, self.taken) = (Some(now), 0.0);
        }
        let behind = self.behind.unwrap_or(now);
        let whole = limits.response.map(|response| behind + response);
        self.wait(context, Some(whole.map_or(stalled, |whole| whole.min(stalled))))
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        match Pin::new(&mut *self.io).poll_read(context, buffer) {
            Poll::Pending => {
                let deadline = self.connection.read_deadline();
                self.wait(context, deadline)
            }
            Poll::Ready(read) => {
                if buffer.filled().len() > before {
                    self.connection.received();
                }
                Poll::Ready(read)
            }
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut *self.io).poll_write(context, bytes);
        self.wrote(context, wrote)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut *self.io).poll_write_vectored(context, slices);
        self.wrote(context, wrote)
    }

    /// With it hyper copies no body, and keeps a few texts for a reader who does not read; without it 400 KiB.
    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    /// hyper flushes after everything is written.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Encrypted bytes may wait here for the client.
        match Pin::new(&mut *self.io).poll_flush(context) {
            Poll::Ready(flushed) => flushed?,
            Poll::Pending => return self.not_taken(context),
        }
        (self.stalled, self.behind) = (None, None);
        self.connection.sent();
        // hyper may have asked for the next request before this one was sent, and does not ask again.
        let deadline = self.connection.read_deadline();
        let _too_early: Poll<io::Result<()>> = self.wait(context, deadline);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.draining.is_none() {
            match Pin::new(&mut *self.io).poll_shutdown(context) {
                Poll::Ready(ended) => ended?,
                Poll::Pending => return self.not_taken(context),
            }
            self.draining = Some((Instant::now() + DRAIN, DRAINED));
            self.connection.enter(Phase::Idle);
        }
        while let Some((until, left)) = self.draining.filter(|(_, left)| *left > 0) {
            let mut bytes = [0; 2048];
            let mut buffer = ReadBuf::new(&mut bytes);
            match Pin::new(&mut *self.io).poll_read(context, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    self.draining = Some((until, left.saturating_sub(buffer.filled().len())));
                }
                Poll::Ready(_) => break,
                Poll::Pending => {
                    // The time for the rest is over, which is not an error.
                    let _over: io::Result<()> = ready!(self.wait(context, Some(until)));
                    break;
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}

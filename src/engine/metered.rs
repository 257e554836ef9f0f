//! A connection to the engine that bounds how many bytes an answer has.
//!
//! bollard 0.21 collects an answer whole, and an error answer of any length, so the bound has to be where the bytes
//! come in.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes of one answer. The list of a thousand containers has about 3 MiB.
const LARGEST: usize = 16 << 20;

/// How many bytes may still come.
#[derive(Debug, Clone)]
pub(super) struct Meter(Arc<AtomicUsize>);

impl Meter {
    /// Lets one answer come.
    pub(super) fn begin_answer(&self) {
        self.0.store(LARGEST, Ordering::Relaxed);
    }

    /// Lets an answer go on for ever: whoever reads it bounds what is kept of it.
    pub(super) fn open(&self) {
        self.0.store(usize::MAX, Ordering::Relaxed);
    }

    fn take(&self, bytes: usize) {
        let less = |left: usize| (left != usize::MAX).then(|| left.saturating_sub(bytes));
        // One that is open stays so.
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }
}

/// A stream that ends with an error when its meter is at its end.
#[derive(Debug)]
pub(super) struct Metered<S> {
    stream: S,
    meter: Meter,
}

impl<S> Metered<S> {
    /// Nothing may come before [`Meter::begin_answer`].
    pub(super) fn new(stream: S) -> (Self, Meter) {
        let meter = Meter(Arc::new(AtomicUsize::new(0)));
        (Self { stream, meter: meter.clone() }, meter)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, into))?;
        let read = into.filled().len() - before;
        if read > self.meter.0.load(Ordering::Relaxed) {
            let why = format!("it sends more than {} MiB in one answer", LARGEST >> 20);
            return Poll::Ready(Err(io::Error::other(why)));
        }
        self.meter.take(read);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Metered<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

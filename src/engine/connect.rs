//! Connections to the engine's socket.
//!
//! bollard's own unix transport (0.21) opens a connection for every call. This one keeps the last connection for the
//! next call. An idle connection costs a file descriptor and no wake-up. An engine that ends closes it, which is seen
//! at once.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bollard::errors::Error;
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{HOST, HeaderValue};
use hyper::{Request, Response, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

use super::metered::{Meter, Metered};

/// Calls whose responses may take long. No other call may wait for their end.
const STREAMS: [&str; 3] = ["/events", "/images/create", "/logs"];

/// How long a call waits for the kept connection before it opens its own.
const BUSY: Duration = Duration::from_millis(100);

/// Maximum number of bytes of a log that are read ahead.
const LOG_BUFFER: usize = 32 << 10;

/// A socket, with the connection that is kept.
pub(super) struct Line<B> {
    socket: PathBuf,
    idle: Mutex<Option<(SendRequest<B>, Meter)>>,
    /// Whether the last response came from podman.
    is_podman: AtomicBool,
}

impl<B> Line<B> {
    pub(super) fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned(), idle: Mutex::new(None), is_podman: AtomicBool::new(false) }
    }

    pub(super) fn socket(&self) -> &Path {
        &self.socket
    }

    /// Returns `true` if the last response came from podman.
    pub(super) fn is_podman(&self) -> bool {
        self.is_podman.load(Ordering::Relaxed)
    }

    /// Takes the kept connection, so that the next call opens a new one.
    pub(super) fn take(&self) -> Option<(SendRequest<B>, Meter)> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Notes whether a response came from podman, which adds a header of its own to each.
    fn note(&self, answer: &Response<Incoming>) {
        self.is_podman.store(answer.headers().contains_key("libpod-api-version"), Ordering::Relaxed);
    }

    /// Keeps a connection, and closes the one that was kept.
    fn keep(&self, sender: SendRequest<B>, meter: Meter) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).replace((sender, meter));
    }
}

/// Sends a request over the kept connection, or over a new one if the kept one is in use, closed, or does not get
/// ready in time. A request is never sent twice.
pub(super) async fn send<B>(line: Arc<Line<B>>, request: Request<B>) -> Result<Response<Incoming>, Error>
where
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut request = to_origin(request);
    let is_stream = STREAMS.iter().any(|path| request.uri().path().ends_with(path));
    if !is_stream && let Some((mut sender, meter)) = line.take() {
        // The last response may not have been read to its end yet. An error means that the connection was closed.
        if let Ok(Ok(())) = tokio::time::timeout(BUSY, sender.ready()).await {
            meter.begin_answer();
            match sender.try_send_request(request).await {
                Ok(answer) => {
                    line.note(&answer);
                    line.keep(sender, meter);
                    return Ok(answer);
                }
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(error.into_error().into()),
                },
            }
        }
    }
    let (connection, meter) = Metered::new(UnixStream::connect(&line.socket).await?);
    let mut http = http1::Builder::new();
    if request.uri().path().ends_with("/logs") {
        // By default a reader that cannot keep up with a container costs 400 KiB.
        http.max_buf_size(LOG_BUFFER);
    }
    let (mut sender, driver) = http.handshake(TokioIo::new(connection)).await?;
    drive(driver);
    meter.begin_answer();
    let answer = sender.send_request(request).await?;
    line.note(&answer);
    if !is_stream {
        line.keep(sender, meter);
    } else if answer.status().is_success() {
        meter.open();
    }
    Ok(answer)
}

#[expect(
    clippy::disallowed_methods,
    reason = "it ends with the connection, which ends when its last user drops it"
)]
fn drive(driver: impl Future<Output = hyper::Result<()>> + Send + 'static) {
    // An error reaches the caller through the request or through its response.
    drop(tokio::spawn(driver));
}

/// Changes a request to the form for a server: only the path in the first line, and the host in a header.
fn to_origin<B>(mut request: Request<B>) -> Request<B> {
    if let Some(path) = request.uri().path_and_query().cloned() {
        *request.uri_mut() = Uri::from(path);
    }
    request.headers_mut().insert(HOST, HeaderValue::from_static("engine"));
    request
}

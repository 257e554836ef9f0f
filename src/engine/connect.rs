//! Connections to the engine's socket, and what bollard does not say in its requests.
//!
//! bollard's own unix transport (0.21) opens a connection for every call. This one keeps the last one: calls
//! that follow one another go over it. Kept idle it costs a file descriptor and no wake-up, and an engine
//! that ends closes it, which is seen at once.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bollard::errors::Error;
use bollard::{API_DEFAULT_VERSION, BollardRequest, Docker};
use futures_util::FutureExt;
use http_body_util::{BodyExt, Collected, Either, Full};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{HOST, HeaderValue};
use hyper::{Request, Response, Uri};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;

/// The deadlines of each call are ours; bollard's own limit only has to lie beyond them.
const CLIENT_TIMEOUT_SECONDS: u64 = 24 * 3600;

/// Calls whose answers go on for long: no other call can wait for their end.
const STREAMS: [&str; 3] = ["/events", "/images/create", "/logs"];

/// How long a call waits for the connection that is kept, before it opens one of its own.
const BUSY: Duration = Duration::from_millis(100);

/// A client of the engine at `socket`, with the version that both speak.
///
/// # Errors
///
/// What stood in the way of asking the engine for its version.
pub(super) async fn connect(socket: &Path) -> Result<Docker, Error> {
    let line = Arc::new(Line { socket: socket.to_owned(), idle: Mutex::new(None) });
    let send = move |request: BollardRequest| send(Arc::clone(&line), request);
    // The address is not used but for being one.
    let address = Some("http://engine");
    let fresh =
        Docker::connect_with_custom_transport(send, address, CLIENT_TIMEOUT_SECONDS, API_DEFAULT_VERSION)?;
    let fresh = fresh.negotiate_version().await?;
    let version = fresh.client_version().to_string();
    let is_old = fresh.client_version().minor_version < 44;
    Ok(fresh.with_request_modifier(move |request| {
        let request = versioned(request, &version);
        if is_old { addressed(request) } else { request }
    }))
}

/// The way to a socket, with the connection that is kept.
struct Line<B> {
    socket: PathBuf,
    idle: Mutex<Option<SendRequest<B>>>,
}

impl<B> Line<B> {
    fn take(&self) -> Option<SendRequest<B>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Keeps a connection, and closes the one that was kept.
    fn keep(&self, sender: SendRequest<B>) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).replace(sender);
    }
}

/// Sends a request over the connection that is kept, or over a new one when it is in use, closed, or would
/// be held up. A request is never sent twice.
async fn send<B>(line: Arc<Line<B>>, request: Request<B>) -> Result<Response<Incoming>, Error>
where
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut request = to_origin(request);
    let is_stream = STREAMS.iter().any(|path| request.uri().path().ends_with(path));
    if !is_stream && let Some(mut sender) = line.take() {
        // Its last answer may still be on its way to whoever asked. An error means that it was closed.
        if let Ok(Ok(())) = tokio::time::timeout(BUSY, sender.ready()).await {
            match sender.try_send_request(request).await {
                Ok(answer) => {
                    line.keep(sender);
                    return Ok(answer);
                }
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(error.into_error().into()),
                },
            }
        }
    }
    let (mut sender, driver) =
        http1::handshake(TokioIo::new(UnixStream::connect(&line.socket).await?)).await?;
    drive(driver);
    let answer = sender.send_request(request).await?;
    if !is_stream {
        line.keep(sender);
    }
    Ok(answer)
}

#[expect(clippy::disallowed_methods, reason = "it ends with the connection, which ends when nobody has it")]
fn drive(driver: impl Future<Output = hyper::Result<()>> + Send + 'static) {
    // What goes wrong is told to who sends, or reads the answer.
    drop(tokio::spawn(driver));
}

/// A request as a server wants it: the path in its first line, the host in a header.
fn to_origin<B>(mut request: Request<B>) -> Request<B> {
    if let Some(path) = request.uri().path_and_query().cloned() {
        *request.uri_mut() = Uri::from(path);
    }
    request.headers_mut().insert(HOST, HeaderValue::from_static("engine"));
    request
}

/// The innermost cause: those around it only say that a client called a server.
pub(super) fn told(error: &Error) -> String {
    let mut innermost: &dyn std::error::Error = error;
    while let Some(cause) = innermost.source() {
        innermost = cause;
    }
    innermost.to_string()
}

/// bollard 0.21 negotiates a version and then does not send it; later ones may.
fn versioned(request: BollardRequest, version: &str) -> BollardRequest {
    let (mut parts, body) = request.into_parts();
    let prefix = format!("/v{version}");
    let path = parts.uri.path_and_query().map_or("/", |p| p.as_str());
    if !path.starts_with("/v1.") {
        let mut uri = parts.uri.clone().into_parts();
        if let Ok(path) = format!("{prefix}{path}").parse() {
            uri.path_and_query = Some(path);
        }
        if let Ok(uri) = uri.try_into() {
            parts.uri = uri;
        }
    }
    BollardRequest::from_parts(parts, body)
}

/// Engines before API 1.44 take the address of a container's link at the top of the request, where
/// bollard's type has no place for it: there goes the one of the network that it is created on.
fn addressed(request: BollardRequest) -> BollardRequest {
    if !request.uri().path().ends_with("/containers/create") {
        return request;
    }
    let (parts, body) = request.into_parts();
    let Either::Left(whole) = body else { return BollardRequest::from_parts(parts, body) };
    let read = whole.clone().collect().now_or_never().and_then(Result::ok).map(Collected::to_bytes);
    let Some(mut json) = read.and_then(|text| serde_json::from_slice::<Value>(&text).ok()) else {
        return BollardRequest::from_parts(parts, Either::Left(whole));
    };
    let endpoints = json.pointer("/NetworkingConfig/EndpointsConfig").and_then(Value::as_object);
    let address =
        endpoints.into_iter().flatten().find_map(|(_, endpoint)| endpoint.get("MacAddress").cloned());
    match address {
        Some(address) => {
            json["MacAddress"] = address;
            BollardRequest::from_parts(parts, Either::Left(Full::new(json.to_string().into())))
        }
        None => BollardRequest::from_parts(parts, Either::Left(whole)),
    }
}

//! Connections to the engine's socket, and what bollard does not say in its requests.
//!
//! bollard's own unix transport (0.21) opens a connection for every call. This one keeps the last one: calls
//! that follow one another go over it. Kept idle it costs a file descriptor and no wake-up, and an engine
//! that ends closes it, which is seen at once.

use std::fmt::Write;
use std::future::Future;
use std::io;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bollard::auth::DockerCredentials;
use bollard::errors::Error;
use bollard::models::VolumeCreateRequest;
use bollard::{API_DEFAULT_VERSION, BollardRequest, Docker};
use futures_util::stream::BoxStream;
use futures_util::{FutureExt, Stream, StreamExt};
use http_body_util::{BodyExt, Collected, Either, Full, StreamBody};
use hyper::body::{Body, Bytes, Frame, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Request, Response, Uri};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::net::UnixStream;

use super::base64;
use super::metered::{Meter, Metered};
use super::stream::{Pieces, lines, output};

/// The deadlines of each call are ours; bollard's own limit only has to lie beyond them.
const CLIENT_TIMEOUT_SECONDS: u64 = 24 * 3600;

/// Calls whose answers go on for long: no other call can wait for their end.
const STREAMS: [&str; 3] = ["/events", "/images/create", "/logs"];

/// How long a call waits for the connection that is kept, before it opens one of its own.
const BUSY: Duration = Duration::from_millis(100);

/// The bodies of bollard's requests.
type Sent =
    Either<Full<Bytes>, StreamBody<Pin<Box<dyn Stream<Item = Result<Frame<Bytes>, io::Error>> + Send>>>>;

/// A connected engine: bollard's client, and the same line for what is read without bollard's types.
#[derive(Clone)]
pub(super) struct Client {
    docker: Docker,
    line: Arc<Line<Sent>>,
    version: String,
}

impl Deref for Client {
    type Target = Docker;

    fn deref(&self) -> &Docker {
        &self.docker
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("socket", &self.line.socket).field("version", &self.version).finish()
    }
}

impl Client {
    /// Whether the engine is podman, which has some things of its own under Docker's API.
    pub(super) fn is_podman(&self) -> bool {
        self.line.is_podman.load(Ordering::Relaxed)
    }

    /// What `GET path?query` answers, read as `T`.
    ///
    /// # Errors
    ///
    /// As bollard's own calls.
    pub(super) async fn read<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, &str)],
    ) -> Result<T, Error> {
        // One way to the engine for every type of answer: much smaller than one for each.
        Ok(serde_json::from_slice(&Box::pin(self.get(path, query)).await?)?)
    }

    /// Asks the engine something over a connection that is opened now. The engine accepts connections one after the
    /// other, so by the time of the answer it has begun every call that was sent over an earlier one. Over a
    /// connection that was there before, a later call overtakes such an earlier one (3 times in 40 on a busy Docker
    /// 20.10).
    ///
    /// # Errors
    ///
    /// As bollard's own calls.
    pub(super) async fn catch_up(&self) -> Result<(), Error> {
        drop(self.line.take());
        Box::pin(self.get("/version", &[])).await.map(drop)
    }

    /// As bollard's call of this name, which reads a whole cluster's volume out of the answer.
    ///
    /// # Errors
    ///
    /// As bollard's own calls.
    pub(super) async fn create_volume(&self, volume: &VolumeCreateRequest) -> Result<(), Error> {
        let body = Sent::Left(Full::new(serde_json::to_vec(volume)?.into()));
        let request = Request::post(format!("/v{}/volumes/create", self.version));
        let request = request.header(CONTENT_TYPE, "application/json").body(body)?;
        Box::pin(self.ask(request)).await.map(drop)
    }

    /// The lines of JSON that `GET path?query` goes on to answer.
    ///
    /// # Errors
    ///
    /// As bollard's own calls; a line that is too long is one, and ends it.
    pub(super) async fn follow<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, &str)],
    ) -> Result<BoxStream<'static, Result<T, Error>>, Error> {
        let request = Request::get(self.uri(path, query)).body(Sent::Left(Full::default()))?;
        let told = lines(Box::pin(self.begin(request)).await?);
        Ok(told.map(|line| Ok(serde_json::from_slice(&line?)?)).boxed())
    }

    /// What a container writes and has written, as bollard's call of this name.
    ///
    /// # Errors
    ///
    /// As bollard's own calls.
    pub(super) async fn written(&self, container: &str, query: &[(&str, &str)]) -> Result<Pieces, Error> {
        let uri = self.uri(&format!("/containers/{container}/logs"), query);
        let request = Request::get(uri).body(Sent::Left(Full::default()))?;
        Ok(output(Box::pin(self.begin(request)).await?))
    }

    /// Pulls an image, and tells how far it is, as bollard's call of this name.
    ///
    /// # Errors
    ///
    /// As bollard's own calls.
    pub(super) async fn create_image(
        &self,
        query: &[(&str, &str)],
        credentials: Option<DockerCredentials>,
    ) -> Result<Pieces, Error> {
        let mut request = Request::post(self.uri("/images/create", query));
        if let Some(credentials) = credentials {
            request = request.header("X-Registry-Auth", base64::encode(&serde_json::to_vec(&credentials)?));
        }
        Ok(lines(Box::pin(self.begin(request.body(Sent::Left(Full::default()))?)).await?))
    }

    fn uri(&self, path: &str, query: &[(&str, &str)]) -> String {
        let words: Vec<_> = query.iter().map(|(name, value)| format!("{name}={}", escaped(value))).collect();
        format!("/v{}{path}?{}", self.version, words.join("&"))
    }

    async fn get(&self, path: &str, query: &[(&str, &str)]) -> Result<Bytes, Error> {
        let request = Request::get(self.uri(path, query)).body(Sent::Left(Full::default()))?;
        Box::pin(self.ask(request)).await
    }

    async fn ask(&self, request: Request<Sent>) -> Result<Bytes, Error> {
        Ok(self.begin(request).await?.collect().await?.to_bytes())
    }

    /// The body of a good answer.
    async fn begin(&self, request: Request<Sent>) -> Result<Incoming, Error> {
        let answer = send(Arc::clone(&self.line), request).await?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer.into_body());
        }
        let body = answer.into_body().collect().await?.to_bytes();
        let told: Option<Value> = serde_json::from_slice(&body).ok();
        let told = told.as_ref().and_then(|told| told.get("message")?.as_str());
        let message = told.map_or_else(|| String::from_utf8_lossy(&body).into_owned(), str::to_owned);
        Err(Error::DockerResponseServerError { status_code: status.as_u16(), message })
    }
}

/// As a value of a query has it.
fn escaped(value: &str) -> String {
    value.bytes().fold(String::with_capacity(value.len()), |mut text, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            // A text takes all that is written to it.
            let _ = write!(text, "%{byte:02X}");
        }
        text
    })
}

/// A client of the engine at `socket`, with the version that both speak.
///
/// # Errors
///
/// What stood in the way of asking the engine for its version.
pub(super) async fn connect(socket: &Path) -> Result<Client, Error> {
    let line = Arc::new(Line {
        socket: socket.to_owned(),
        idle: Mutex::new(None),
        is_podman: AtomicBool::new(false),
    });
    let kept = Arc::clone(&line);
    let send = move |request: BollardRequest| send(Arc::clone(&kept), request);
    // The address is not used but for being one.
    let address = Some("http://engine");
    let fresh =
        Docker::connect_with_custom_transport(send, address, CLIENT_TIMEOUT_SECONDS, API_DEFAULT_VERSION)?;
    let fresh = fresh.negotiate_version().await?;
    let version = fresh.client_version().to_string();
    let is_old = fresh.client_version().minor_version < 44;
    let told = version.clone();
    let docker = fresh.with_request_modifier(move |request| {
        let request = versioned(request, &told);
        if is_old { addressed(request) } else { request }
    });
    Ok(Client { docker, line, version })
}

/// The way to a socket, with the connection that is kept.
struct Line<B> {
    socket: PathBuf,
    idle: Mutex<Option<(SendRequest<B>, Meter)>>,
    /// As its last answer says.
    is_podman: AtomicBool,
}

impl<B> Line<B> {
    fn take(&self) -> Option<(SendRequest<B>, Meter)> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Every answer of podman has a header of its own.
    fn note(&self, answer: &Response<Incoming>) {
        self.is_podman.store(answer.headers().contains_key("libpod-api-version"), Ordering::Relaxed);
    }

    /// Keeps a connection, and closes the one that was kept.
    fn keep(&self, sender: SendRequest<B>, meter: Meter) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).replace((sender, meter));
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
    if !is_stream && let Some((mut sender, meter)) = line.take() {
        // Its last answer may still be on its way to whoever asked. An error means that it was closed.
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
    let (mut sender, driver) = http1::handshake(TokioIo::new(connection)).await?;
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

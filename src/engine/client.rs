//! The calls that Cotter makes to an engine, one function each. The rest of the room cannot reach bollard's other
//! calls.
//!
//! Lists, streams and responses that bollard's types would reject are read here without these types.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use bollard::auth::DockerCredentials;
use bollard::errors::Error;
use bollard::models::{
    ContainerCreateBody, NetworkConnectRequest, NetworkCreateRequest, NetworkDisconnectRequest,
    VolumeCreateRequest,
};
use bollard::query_parameters::{
    CreateContainerOptions, KillContainerOptions, RemoveContainerOptions, RemoveImageOptions,
    RemoveVolumeOptions, RenameContainerOptions, StartContainerOptions, StopContainerOptions,
};
use bollard::{API_DEFAULT_VERSION, BollardRequest, Docker};
use futures_util::stream::BoxStream;
use futures_util::{FutureExt, Stream, StreamExt};
use http_body_util::{BodyExt, Collected, Either, Full, StreamBody};
use hyper::Request;
use hyper::body::{Bytes, Frame, Incoming};
use hyper::header::CONTENT_TYPE;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::connect::{Line, send};
use super::docker_spec::Api;
use super::log_lines::log_lines;
use super::stream::{Pieces, lines, output};
use crate::model::LogLine;

/// What is escaped in a value of a query: all but the unreserved characters (RFC 3986).
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Each call has a deadline of ours. bollard's own limit must only be longer.
const CLIENT_TIMEOUT_SECONDS: u64 = 24 * 3600;

/// The bodies of bollard's requests.
type Sent =
    Either<Full<Bytes>, StreamBody<Pin<Box<dyn Stream<Item = Result<Frame<Bytes>, io::Error>> + Send>>>>;

/// A connected engine: bollard's client, and the connection for what is read without bollard's types.
#[derive(Clone)]
pub(super) struct Client {
    docker: Docker,
    line: Arc<Line<Sent>>,
    version: String,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("socket", &self.line.socket()).field("version", &self.version).finish()
    }
}

impl Client {
    /// Returns `true` if the engine is podman, which differs from Docker in some calls.
    pub(super) fn is_podman(&self) -> bool {
        self.line.is_podman()
    }

    /// The version of the API that both sides speak.
    pub(super) fn api(&self) -> Api {
        let version = self.docker.client_version();
        Api { major: version.major_version, minor: version.minor_version }
    }

    /// Creates a container and returns its id.
    ///
    /// # Errors
    ///
    /// As every call here: bollard's error, with the engine's status and message where the engine refused.
    pub(super) async fn create_container(
        &self,
        name: String,
        body: ContainerCreateBody,
    ) -> Result<String, Error> {
        let options = CreateContainerOptions { name: Some(name), ..CreateContainerOptions::default() };
        Ok(self.docker.create_container(Some(options), body).await?.id)
    }

    pub(super) async fn start_container(&self, id: &str) -> Result<(), Error> {
        self.docker.start_container(id, None::<StartContainerOptions>).await
    }

    /// Sends the container's stop signal, and kills it after `grace_seconds`.
    pub(super) async fn stop_container(&self, id: &str, grace_seconds: u64) -> Result<(), Error> {
        let options = StopContainerOptions { t: i32::try_from(grace_seconds).ok(), signal: None };
        self.docker.stop_container(id, Some(options)).await
    }

    pub(super) async fn kill_container(&self, id: &str) -> Result<(), Error> {
        let options = KillContainerOptions { signal: "SIGKILL".to_owned() };
        self.docker.kill_container(id, Some(options)).await
    }

    /// Removes a container. `force` also removes one that runs, `v` also its anonymous volumes.
    pub(super) async fn remove_container(&self, id: &str, force: bool, v: bool) -> Result<(), Error> {
        let options = RemoveContainerOptions { v, force, link: false };
        self.docker.remove_container(id, Some(options)).await
    }

    pub(super) async fn rename_container(&self, id: &str, name: String) -> Result<(), Error> {
        self.docker.rename_container(id, RenameContainerOptions { name }).await
    }

    pub(super) async fn create_network(&self, network: NetworkCreateRequest) -> Result<(), Error> {
        self.docker.create_network(network).await.map(drop)
    }

    pub(super) async fn remove_network(&self, id: &str) -> Result<(), Error> {
        self.docker.remove_network(id).await
    }

    pub(super) async fn connect_network(
        &self,
        id: &str,
        request: NetworkConnectRequest,
    ) -> Result<(), Error> {
        self.docker.connect_network(id, request).await
    }

    /// Disconnects a container from a network, also one that does not run.
    pub(super) async fn disconnect_network(&self, id: &str, container: String) -> Result<(), Error> {
        let request = NetworkDisconnectRequest { container, force: Some(true) };
        self.docker.disconnect_network(id, request).await
    }

    pub(super) async fn remove_volume(&self, id: &str) -> Result<(), Error> {
        self.docker.remove_volume(id, None::<RemoveVolumeOptions>).await
    }

    /// Removes an image by its name. The engine refuses while a container uses it.
    pub(super) async fn remove_image(&self, name: &str) -> Result<(), Error> {
        let options = RemoveImageOptions { force: false, noprune: false, platforms: None };
        self.docker.remove_image(name, Some(options), None).await.map(drop)
    }

    /// Returns the response to `GET path?query`, read as `T`.
    ///
    /// # Errors
    ///
    /// As bollard's own calls.
    pub(super) async fn read<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, &str)],
    ) -> Result<T, Error> {
        // One request function for all types keeps the binary much smaller than one for each type.
        Ok(serde_json::from_slice(&Box::pin(self.get(path, query)).await?)?)
    }

    /// Waits until the engine has begun every call that was sent over earlier connections, by a request over a new
    /// connection: the engine accepts connections one after the other. Over an existing connection, a later request may
    /// overtake such an earlier call (3 times in 40 on a busy Docker 20.10).
    ///
    /// # Errors
    ///
    /// As bollard's own calls.
    pub(super) async fn catch_up(&self) -> Result<(), Error> {
        drop(self.line.take());
        Box::pin(self.get("/version", &[])).await.map(drop)
    }

    /// As bollard's call of this name, whose response type also contains the volumes of a cluster.
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

    /// Unpacks a tar file in a container that does not run, from its root folder on. The engine resolves links within
    /// the container.
    ///
    /// # Errors
    ///
    /// As bollard's own calls.
    pub(super) async fn unpack(&self, container: &str, archive: Vec<u8>) -> Result<(), Error> {
        let uri = self.uri(&format!("/containers/{container}/archive"), &[("path", "/")]);
        let request = Request::put(uri).header(CONTENT_TYPE, "application/x-tar");
        let request = request.body(Sent::Left(Full::new(archive.into())))?;
        Box::pin(self.ask(request)).await.map(drop)
    }

    /// Returns the stream of JSON lines that `GET path?query` responds with.
    ///
    /// # Errors
    ///
    /// As bollard's own calls. A line that is too long is an error and ends the stream.
    pub(super) async fn follow<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, &str)],
    ) -> Result<BoxStream<'static, Result<T, Error>>, Error> {
        let request = Request::get(self.uri(path, query)).body(Sent::Left(Full::default()))?;
        let lines = lines(Box::pin(self.begin(request)).await?);
        Ok(lines.map(|line| Ok(serde_json::from_slice(&line?)?)).boxed())
    }

    /// Returns the log of a container, as bollard's `logs`.
    ///
    /// # Errors
    ///
    /// As bollard's own calls.
    pub(super) async fn written(&self, container: &str, query: &[(&str, &str)]) -> Result<Pieces, Error> {
        let uri = self.uri(&format!("/containers/{container}/logs"), query);
        let request = Request::get(uri).body(Sent::Left(Full::default()))?;
        Ok(output(Box::pin(self.begin(request)).await?))
    }

    /// As [`written`](Self::written), in lines. The query must ask for timestamps.
    ///
    /// # Errors
    ///
    /// As bollard's own calls.
    pub(super) async fn written_lines(
        &self,
        container: &str,
        query: &[(&str, &str)],
    ) -> Result<BoxStream<'static, Result<LogLine, Error>>, Error> {
        let uri = self.uri(&format!("/containers/{container}/logs"), query);
        let request = Request::get(uri).body(Sent::Left(Full::default()))?;
        Ok(log_lines(Box::pin(self.begin(request)).await?))
    }

    /// Pulls an image and returns its messages of progress, as bollard's call of this name.
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
            request = request.header("X-Registry-Auth", URL_SAFE.encode(serde_json::to_vec(&credentials)?));
        }
        Ok(lines(Box::pin(self.begin(request.body(Sent::Left(Full::default()))?)).await?))
    }

    fn uri(&self, path: &str, query: &[(&str, &str)]) -> String {
        let words: Vec<_> = query
            .iter()
            .map(|(name, value)| format!("{name}={}", utf8_percent_encode(value, ENCODED)))
            .collect();
        format!("/v{}{path}?{}", self.version, words.join("&"))
    }

    async fn get(&self, path: &str, query: &[(&str, &str)]) -> Result<Bytes, Error> {
        let request = Request::get(self.uri(path, query)).body(Sent::Left(Full::default()))?;
        Box::pin(self.ask(request)).await
    }

    async fn ask(&self, request: Request<Sent>) -> Result<Bytes, Error> {
        Ok(self.begin(request).await?.collect().await?.to_bytes())
    }

    /// Sends a request and returns the body if the status is a success.
    async fn begin(&self, request: Request<Sent>) -> Result<Incoming, Error> {
        let answer = send(Arc::clone(&self.line), request).await?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer.into_body());
        }
        let body = answer.into_body().collect().await?.to_bytes();
        let json: Option<Value> = serde_json::from_slice(&body).ok();
        let message = json.as_ref().and_then(|json| json.get("message")?.as_str());
        let message = message.map_or_else(|| String::from_utf8_lossy(&body).into_owned(), str::to_owned);
        Err(Error::DockerResponseServerError { status_code: status.as_u16(), message })
    }
}

/// Connects to the engine at `socket` and negotiates the version of the API.
///
/// # Errors
///
/// If the engine cannot be asked for its version.
pub(super) async fn connect(socket: &Path) -> Result<Client, Error> {
    let line = Arc::new(Line::new(socket));
    let kept = Arc::clone(&line);
    let send = move |request: BollardRequest| send(Arc::clone(&kept), request);
    // bollard needs an address, and does not use it.
    let address = Some("http://engine");
    let fresh =
        Docker::connect_with_custom_transport(send, address, CLIENT_TIMEOUT_SECONDS, API_DEFAULT_VERSION)?;
    let fresh = fresh.negotiate_version().await?;
    let version = fresh.client_version().to_string();
    let is_old = fresh.client_version().minor_version < 44;
    let negotiated = version.clone();
    let docker = fresh.with_request_modifier(move |request| {
        let request = versioned(request, &negotiated);
        if is_old { addressed(request) } else { request }
    });
    Ok(Client { docker, line, version })
}

/// Adds the version to the path. bollard 0.21 negotiates a version and then does not send it; later ones may.
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

/// Adds the MAC address of the network that a container is created on at the top level of the request. Engines before
/// API 1.44 read it there, and bollard's type has no field for it.
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

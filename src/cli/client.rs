//! A client of the fleet server's operator API.

use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use clap::builder::FalseyValueParser;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::http::header::HeaderName;
use crate::http::{self, Http, Method, Request, StatusCode, Url};
use crate::model::is_loopback;
use crate::model::text::is_one_line;
use crate::wire::operator_api::{ErrorView, Failure, NEXT_PAGE, USUAL_PAGE};

/// Longest time for one request, with redirects and the complete response.
const WITHIN: Duration = Duration::from_secs(30);

/// Most bytes of one response. No page of a list is that long.
const LONGEST: usize = 64 << 20;

/// Address and token for a fleet server.
#[derive(Debug, Args)]
pub(super) struct Connection {
    /// Address of the fleet server
    #[arg(
        long,
        env = "COTTER_FLEET_URL",
        default_value = "http://127.0.0.1:7300",
        help_heading = "Connection"
    )]
    url: String,
    /// File with a token
    #[arg(
        long,
        env = "COTTER_TOKEN_FILE",
        default_value = "/var/lib/cotter-fleet/operator.token",
        help_heading = "Connection",
        value_name = "FILE"
    )]
    token_file: PathBuf,
    // Only from the environment: every user can see the command lines of all processes. Help never shows the value.
    #[arg(long = "token-from-environment", hide = true, env = "COTTER_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Sends the token over http:// to another machine, so that anyone on the network path can read it
    #[arg(long, env = "COTTER_INSECURE", value_parser = FalseyValueParser::new(), help_heading = "Connection")]
    insecure: bool,
    /// Certificate, as PEM, of the authority that signed the server's, if this machine does not trust it
    #[arg(long, env = "COTTER_CA_FILE", help_heading = "Connection", value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Why a change is made, for the audit trail
    #[arg(long, help_heading = "Connection", value_name = "TEXT", value_parser = reason)]
    reason: Option<String>,
}

/// The options of every command for a fleet server.
#[derive(Debug, Args)]
pub(super) struct Plain {
    /// Prints JSON
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) connection: Connection,
}

/// Help of the option `--filter`.
pub(super) const FILTER: &str = "Only devices whose tags match: key=value, key!=value, key or !key; several are joined by ',' and must all match";

/// Why a request to the fleet server failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClientError {
    #[error("{given:?} is not the address of a fleet server ({why}); write e.g. --url http://127.0.0.1:7300")]
    BadUrl { given: String, why: String },

    #[error(
        "the operator's token would go to {host} unencrypted, because http:// has no TLS; use https://, or --insecure on a network you trust"
    )]
    InTheClear { host: String },

    #[error("cannot read the operator's token in {}; name its file with --token-file, or set COTTER_TOKEN", path.display())]
    NoToken {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },

    #[error("--ca-file {} cannot be used: {why}; give the authority's certificate, as PEM", path.display())]
    NoAuthority { path: PathBuf, why: String },

    #[error(
        "no fleet server answers at {url} ({why}); is `cotter-fleet serve` running? --url names another address"
    )]
    Unreachable { url: String, why: http::Failure },

    /// What a proxy answers while the server behind it starts.
    #[error("the fleet server behind {url} does not answer (status {status})")]
    Away { url: String, status: StatusCode },

    #[error("the service at {url} is not a fleet server of this version ({why}); check --url")]
    NotUnderstood { url: String, why: String },

    #[error(
        "the fleet server at {url} does not accept this token; pass one that `cotter token create` made, or the operator.token of its data folder, with --token-file or COTTER_TOKEN"
    )]
    WrongToken { url: String },

    #[error("{}", failure.message)]
    Answer { failure: Failure },
}

impl ClientError {
    /// Returns `true` if the same request may succeed later, without a change: the server is restarting or busy,
    /// or the network is gone.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable { why: http::Failure::Unreachable(broken), .. } => !broken.is_by_certificate(),
            Self::Unreachable { why, .. } => matches!(why, http::Failure::Late),
            Self::Away { .. } => true,
            Self::Answer { failure } => {
                ["busy", "too_slow", "storage", "database_lost"].contains(&failure.code.as_str())
            }
            Self::BadUrl { .. }
            | Self::InTheClear { .. }
            | Self::NoToken { .. }
            | Self::NoAuthority { .. }
            | Self::NotUnderstood { .. }
            | Self::WrongToken { .. } => false,
        }
    }
}

/// Whether a proxy answers so for a server that does not answer itself.
fn is_of_proxy(status: StatusCode) -> bool {
    matches!(status, StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT)
}

/// A connection to one fleet server.
#[derive(Debug)]
pub(super) struct Client {
    http: Http,
    url: Url,
    token: String,
    reason: Option<String>,
}

/// The header with the reason of a change.
const REASON: HeaderName = HeaderName::from_static("cotter-reason");

/// Most characters of a reason.
const LONGEST_REASON: usize = 500;

/// Checks a reason as the server does.
fn reason(given: &str) -> Result<String, String> {
    let given = given.trim();
    let is_good = (1..=LONGEST_REASON).contains(&given.chars().count()) && is_one_line(given);
    is_good
        .then(|| given.to_owned())
        .ok_or_else(|| "it must be 1 to 500 visible characters on one line".to_owned())
}

impl Connection {
    /// Returns the address of the server, as it was given.
    pub(super) fn url(&self) -> &str {
        &self.url
    }
}

impl Client {
    pub(super) fn new(connection: Connection) -> Result<Self, ClientError> {
        let bad = |why: String| ClientError::BadUrl { given: connection.url.clone(), why };
        if !connection.url.contains("://") {
            return Err(bad("https:// or http:// is missing before the host".to_owned()));
        }
        let url = Url::parse(&connection.url).map_err(|error| bad(error.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
            return Err(bad("it must begin with http:// or https:// and name a host".to_owned()));
        }
        let host = url.host_str().unwrap_or_default();
        let is_here = is_loopback(host);
        if url.scheme() == "http" && !is_here && !connection.insecure {
            return Err(ClientError::InTheClear { host: host.to_owned() });
        }
        let token = match connection.token {
            Some(token) => token,
            None => read_token(&connection.token_file)?,
        };
        let authority = connection.ca_file.as_deref().map(read_authority).transpose()?;
        let http = match Http::trusting(authority.as_deref()) {
            Ok(http) => http,
            Err(failure) => match connection.ca_file {
                Some(path) => return Err(ClientError::NoAuthority { path, why: failure.to_string() }),
                None => return Err(bad(failure.to_string())),
            },
        };
        Ok(Self { http, url, token, reason: connection.reason })
    }

    pub(super) async fn get<T: DeserializeOwned>(
        &self,
        path: &[&str],
        query: &[(&str, Option<&str>)],
    ) -> Result<T, ClientError> {
        self.ask(Method::GET, path, query, None::<&()>).await
    }

    /// Reads a list, page by page: all of it, or the first rows.
    pub(super) async fn list<T: DeserializeOwned>(
        &self,
        path: &[&str],
        query: &[(&str, Option<&str>)],
        most: Option<usize>,
    ) -> Result<Vec<T>, ClientError> {
        let mut rows = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let left = most.map_or(USUAL_PAGE, |most| most.saturating_sub(rows.len())).min(USUAL_PAGE);
            let limit = left.to_string();
            let of_page = [("limit", Some(limit.as_str())), ("cursor", cursor.as_deref())];
            let query: Vec<_> = query.iter().chain(&of_page).copied().collect();
            let (page, next) = self.page(path, &query).await?;
            rows.extend(page);
            // A server that gives the same page again would be asked for ever.
            let is_new = next.is_some() && next != cursor;
            if !is_new || most.is_some_and(|most| rows.len() >= most) {
                return Ok(rows);
            }
            cursor = next;
        }
    }

    /// Reads one page of a list, and the cursor of the next one.
    pub(super) async fn page<T: DeserializeOwned>(
        &self,
        path: &[&str],
        query: &[(&str, Option<&str>)],
    ) -> Result<(Vec<T>, Option<String>), ClientError> {
        let (page, next) = Box::pin(self.send(Method::GET, path, query, None)).await?;
        Ok((serde_json::from_slice(&page).map_err(|error| self.unclear(&error))?, next))
    }

    pub(super) async fn post<T: DeserializeOwned>(
        &self,
        path: &[&str],
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        self.ask(Method::POST, path, &[], Some(body)).await
    }

    /// Asks for an answer of any length. The caller reads it.
    #[cfg(feature = "server")]
    pub(super) async fn stream(&self, path: &[&str]) -> Result<http::Answer, ClientError> {
        let request = Request::new(Method::GET, self.route(path), WITHIN).without_deadline();
        let answer = self.http.send(request.bearer(&self.token)).await.map_err(|why| self.failed(why))?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let status = answer.status();
        Err(self.refused(status, &answer.beginning().await))
    }

    /// Sends a request to the route with these path segments. A segment may be any text; it is escaped.
    pub(super) async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, Option<&str>)],
        body: Option<&impl Serialize>,
    ) -> Result<T, ClientError> {
        let unclear = |error| self.unclear(&error);
        let body = body.map(serde_json::to_vec).transpose().map_err(unclear)?;
        // `send` is not generic: one copy of it for all types of answers keeps the binary small.
        let (answer, _) = Box::pin(self.send(method, path, query, body)).await?;
        serde_json::from_slice(&answer).map_err(unclear)
    }

    fn unclear(&self, error: &serde_json::Error) -> ClientError {
        ClientError::NotUnderstood { url: self.server(), why: error.to_string() }
    }

    /// Returns the body of the answer, and the cursor of the next page if it is a page of a list.
    async fn send(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, Option<&str>)],
        body: Option<Vec<u8>>,
    ) -> Result<(Vec<u8>, Option<String>), ClientError> {
        let mut url = self.route(path);
        for (name, value) in query {
            if let Some(value) = value {
                url.query_pairs_mut().append_pair(name, value);
            }
        }
        let mut request = Request::new(method, url, WITHIN).bearer(&self.token);
        if let Some(reason) = &self.reason {
            request = request.header(REASON, reason);
        }
        let request = match body {
            Some(body) => request.json(body),
            None => request,
        };
        let answer = self.http.send(request).await.map_err(|failure| self.failed(failure))?;
        let status = answer.status();
        let next = answer.header(&HeaderName::from_static(NEXT_PAGE)).map(str::to_owned);
        let body = answer.body(LONGEST).await.map_err(|failure| self.failed(failure))?;
        if status.is_success() {
            return Ok((body, next));
        }
        Err(self.refused(status, &body))
    }

    fn route(&self, path: &[&str]) -> Url {
        let mut url = self.url.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(["api", "v1"]).extend(path);
        }
        url
    }

    fn refused(&self, status: StatusCode, body: &[u8]) -> ClientError {
        match serde_json::from_slice::<ErrorView>(body) {
            // A token that was accepted once gets the reason why it is not any more.
            Ok(ErrorView { error }) if status == StatusCode::UNAUTHORIZED && error.code != "token_ended" => {
                ClientError::WrongToken { url: self.server() }
            }
            Ok(ErrorView { error: failure }) => ClientError::Answer { failure },
            Err(_) if is_of_proxy(status) => ClientError::Away { url: self.server(), status },
            Err(_) => ClientError::NotUnderstood { url: self.server(), why: format!("status {status}") },
        }
    }

    fn failed(&self, why: http::Failure) -> ClientError {
        let url = self.server();
        match why {
            http::Failure::NoUrl(_) | http::Failure::Unreachable(_) | http::Failure::Late => {
                ClientError::Unreachable { url, why }
            }
            http::Failure::TooLong(_) | http::Failure::Redirected { .. } => {
                ClientError::NotUnderstood { url, why: why.to_string() }
            }
        }
    }

    fn server(&self) -> String {
        self.url.to_string()
    }
}

/// Most bytes of a file with certificates.
const LARGEST_AUTHORITY: u64 = 1 << 20;

fn read_authority(path: &Path) -> Result<Vec<u8>, ClientError> {
    let wrong = |why: String| ClientError::NoAuthority { path: path.to_owned(), why };
    let mut pem = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(LARGEST_AUTHORITY).read_to_end(&mut pem));
    read.map_err(|error| wrong(error.to_string()))?;
    if !String::from_utf8_lossy(&pem).contains("-----BEGIN CERTIFICATE-----") {
        return Err(wrong("it has no certificate".to_owned()));
    }
    Ok(pem)
}

fn read_token(path: &Path) -> Result<String, ClientError> {
    let no_token = |source| ClientError::NoToken { path: path.to_owned(), source };
    let token = std::fs::read_to_string(path).map_err(no_token)?;
    let mode = std::fs::metadata(path).map_err(no_token)?.mode();
    // The mode of a pipe, which a shell makes for <(command), says nothing about who can read it.
    if path.is_file() && mode & 0o007 != 0 {
        let why = format!(
            "every user can read it (mode {:o}) and control the fleet with it; chmod 600 it",
            mode & 0o777
        );
        return Err(no_token(std::io::Error::new(std::io::ErrorKind::PermissionDenied, why)));
    }
    let token = token.trim();
    if token.is_empty() || !token.chars().all(|c| c.is_ascii_graphic()) {
        let source =
            std::io::Error::new(std::io::ErrorKind::InvalidData, "its content is not a token: one word");
        return Err(ClientError::NoToken { path: path.to_owned(), source });
    }
    Ok(token.to_owned())
}

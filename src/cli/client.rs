//! A client of the fleet server's operator API.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use clap::builder::FalseyValueParser;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::attempts::{Attempts, Failed};
pub(super) use super::client_error::ClientError;
use super::client_error::{is_of_proxy, is_refused_by_proxy, says_tls};
use super::client_files::{read_authority, read_token};
use super::print;
use crate::http::header::{CONTENT_TYPE, HeaderName};
use crate::http::{self, Http, Method, Request, StatusCode, Url};
use crate::model::is_loopback;
use crate::model::text::is_one_line;
use crate::wire::operator_api::{ErrorView, NEXT_PAGE, USUAL_PAGE};

/// Longest time for one request, with redirects and the complete response.
const WITHIN: Duration = Duration::from_secs(30);

/// As [`WITHIN`], for an import, whose file may be long.
const IMPORTED_WITHIN: Duration = Duration::from_secs(180);

/// Maximum number of bytes of one response. No page of a list is that long.
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

/// The header with the key of a change.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Maximum number of characters of a reason.
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

    /// Returns the file with the authority's certificate, if one was given.
    pub(super) fn ca_file(&self) -> Option<&Path> {
        self.ca_file.as_deref()
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
        let take = |page: Vec<T>| {
            rows.extend(page);
            true
        };
        self.pages(path, query, most, take).await?;
        Ok(rows)
    }

    /// Prints a list, one JSON object per line, each page as soon as it is there.
    pub(super) async fn print_lines(
        &self,
        path: &[&str],
        query: &[(&str, Option<&str>)],
        most: Option<usize>,
    ) -> Result<(), ClientError> {
        let print = |page: Vec<Value>| page.iter().all(|row| print::json_reaches(&row.to_string()));
        self.pages(path, query, most, print).await
    }

    /// Reads a list, page by page, until `take` returns `false`.
    async fn pages<T: DeserializeOwned>(
        &self,
        path: &[&str],
        query: &[(&str, Option<&str>)],
        most: Option<usize>,
        mut take: impl FnMut(Vec<T>) -> bool,
    ) -> Result<(), ClientError> {
        let (mut count, mut cursor) = (0, None::<String>);
        loop {
            let left = most.map_or(USUAL_PAGE, |most| most.saturating_sub(count)).min(USUAL_PAGE);
            let limit = left.to_string();
            let of_page = [("limit", Some(limit.as_str())), ("cursor", cursor.as_deref())];
            let query: Vec<_> = query.iter().chain(&of_page).copied().collect();
            let (page, next) = self.page(path, &query).await?;
            count += page.len();
            // A server that gives the same page again would be asked for ever.
            let is_new = next.is_some() && next != cursor;
            if !take(page) || !is_new || most.is_some_and(|most| count >= most) {
                return Ok(());
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

    /// Sends JSON lines.
    pub(super) async fn post_lines<T: DeserializeOwned>(
        &self,
        path: &[&str],
        query: &[(&str, Option<&str>)],
        lines: Vec<u8>,
    ) -> Result<T, ClientError> {
        let request = self.request(Method::POST, path, query, IMPORTED_WITHIN)?;
        let request = request.json(lines).header(CONTENT_TYPE, "application/jsonl");
        let (answer, _) = Box::pin(self.answered(request)).await?;
        serde_json::from_slice(&answer).map_err(|error| self.unclear(&error))
    }

    /// Asks for an answer of any length. The caller reads it.
    pub(super) async fn stream(&self, path: &[&str]) -> Result<http::Answer, ClientError> {
        self.stream_of(path, &[]).await
    }

    /// As [`stream`](Self::stream), with a query.
    pub(super) async fn stream_of(
        &self,
        path: &[&str],
        query: &[(&str, Option<&str>)],
    ) -> Result<http::Answer, ClientError> {
        let request = self.request(Method::GET, path, query, WITHIN)?.without_deadline();
        let answer = self.http.send(request).await.map_err(|why| self.failed(why))?;
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

    /// Returns the body of the answer, and the cursor of the next page if it is a page of a list. A change whose connection is
    /// lost half-way is sent again, with the same key, so that it is done once.
    async fn send(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, Option<&str>)],
        body: Option<Vec<u8>>,
    ) -> Result<(Vec<u8>, Option<String>), ClientError> {
        let mut attempts = Attempts::new(method != Method::GET);
        loop {
            let mut request = self.request(method.clone(), path, query, WITHIN)?;
            if let Some(key) = attempts.key() {
                request = request.header(IDEMPOTENCY_KEY, key);
            }
            if let Some(body) = &body {
                request = request.json(body.clone());
            }
            let error = match self.answered(request).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            match attempts.after(error.of_change()) {
                Some(wait) => tokio::time::sleep(wait).await,
                None if attempts.key().is_some()
                    && attempts.is_half_done()
                    && error.of_change() != Failed::ForGood =>
                {
                    return Err(ClientError::HalfWay { why: Box::new(error) });
                }
                None => return Err(error),
            }
        }
    }

    fn request(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, Option<&str>)],
        within: Duration,
    ) -> Result<Request, ClientError> {
        let mut url = self.route(path)?;
        for (name, value) in query {
            if let Some(value) = value {
                url.query_pairs_mut().append_pair(name, value);
            }
        }
        let request = Request::new(method, url, within).bearer(&self.token);
        Ok(match &self.reason {
            Some(reason) => request.header(REASON, reason),
            None => request,
        })
    }

    async fn answered(&self, request: Request) -> Result<(Vec<u8>, Option<String>), ClientError> {
        let answer = self.http.send(request).await.map_err(|failure| self.failed(failure))?;
        let status = answer.status();
        let next = answer.header(&HeaderName::from_static(NEXT_PAGE)).map(str::to_owned);
        let body = answer.body(LONGEST).await.map_err(|failure| self.failed(failure))?;
        if status.is_success() {
            return Ok((body, next));
        }
        Err(self.refused(status, &body))
    }

    /// Returns the address of the route with these path segments, of which each may be any text but one that has no place
    /// in a path.
    fn route(&self, path: &[&str]) -> Result<Url, ClientError> {
        if let Some(given) = path.iter().find(|segment| ["", ".", ".."].contains(segment)) {
            return Err(ClientError::NoName { given: (*given).to_owned() });
        }
        let mut url = self.url.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(["api", "v1"]).extend(path);
        }
        Ok(url)
    }

    fn refused(&self, status: StatusCode, body: &[u8]) -> ClientError {
        match serde_json::from_slice::<ErrorView>(body) {
            // A token that was accepted once gets the reason why it is not any more.
            Ok(ErrorView { error }) if status == StatusCode::UNAUTHORIZED && error.code != "token_ended" => {
                ClientError::WrongToken { url: self.server() }
            }
            Ok(ErrorView { error: failure }) => ClientError::Answer { failure },
            Err(_) if is_of_proxy(status) => ClientError::Away { url: self.server(), status },
            Err(_) if self.url.scheme() == "http" && says_tls(status, body) => {
                ClientError::NeedsTls { url: self.server() }
            }
            Err(_) if is_refused_by_proxy(status) => ClientError::Refused { url: self.server(), status },
            Err(_) => ClientError::NotUnderstood { url: self.server(), why: format!("status {status}") },
        }
    }

    fn failed(&self, why: http::Failure) -> ClientError {
        let url = self.server();
        match why {
            http::Failure::Unreachable(broken) if broken.is_by_certificate() => {
                ClientError::Untrusted { url, why: http::Failure::Unreachable(broken) }
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The url library leaves out `.` and `..`, so `cotter device show ..` would ask for the list.
    #[test]
    fn a_name_is_one_segment_of_a_path_or_none() {
        let http = Http::trusting(None).unwrap();
        let url = Url::parse("http://127.0.0.1:7300/below/").unwrap();
        let client = Client { http, url, token: String::new(), reason: None };
        for (name, path) in [
            ("north", "/below/api/v1/devices/north"),
            ("a/b", "/below/api/v1/devices/a%2Fb"),
            ("a?b#c", "/below/api/v1/devices/a%3Fb%23c"),
            ("%2e%2e", "/below/api/v1/devices/%252e%252e"),
            ("a b", "/below/api/v1/devices/a%20b"),
            ("..a", "/below/api/v1/devices/..a"),
        ] {
            assert_eq!(client.route(&["devices", name]).unwrap().path(), path);
        }
        for name in ["", ".", ".."] {
            let refused = client.route(&["devices", name, "pin"]).unwrap_err().to_string();
            assert!(refused.starts_with(&format!("{name:?} cannot be the name of anything")), "{refused}");
        }
    }
}

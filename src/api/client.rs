//! The client of the agent's sockets.

use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::body::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::answer::ControlAnswer;
use super::document::{EventStatus, HistoryDocument, SCHEMA_VERSION, StatusDocument};
use super::forecast::PlanDocument;
use super::logs::LogRequest;
use crate::http::{Answer, Failure, Http, Method, Request, header::HeaderName};

/// Why there is no answer from the agent.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error(
        "no agent answers at {path} ({why}); is it running? `systemctl status cotter-agent`, or name its socket with --socket"
    )]
    NoAgent { path: PathBuf, why: String },
    /// A process has the socket, so starting the agent would not help.
    #[error(
        "the agent at {path} does not answer ({why}); it is busy, starting or hung: try again, and see `systemctl status cotter-agent`"
    )]
    NoAnswer { path: PathBuf, why: String },
    #[error("socket {path} may not be used by you; {advice}")]
    NotPermitted { path: PathBuf, advice: &'static str },
    #[error("the service at {path} is not a cotter agent of this version: {why}")]
    NotUnderstood { path: PathBuf, why: String },
    #[error("the agent is busy and did not follow the order within {} s; try again", ORDER_WITHIN.as_secs())]
    Busy,
    /// The agent refused the request.
    #[error("{message}")]
    NotFollowed { code: String, message: String },
}

impl ClientError {
    /// Returns `true` if the same request may succeed soon: the agent is not running, busy or stopping.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::NoAgent { .. } | Self::NoAnswer { .. } | Self::Busy => true,
            Self::NotFollowed { code, .. } => matches!(code.as_str(), "busy" | "stopping"),
            Self::NotPermitted { .. } | Self::NotUnderstood { .. } => false,
        }
    }

    /// Returns `true` if the agent runs and has no place for another request.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        matches!(self, Self::NotFollowed { code, .. } if code == "busy")
    }
}

/// How to get access to the status socket.
pub(super) const READERS: &str = "use sudo, or become a member of group cotter";

/// How long an order may wait. The agent finishes its current stage first.
const ORDER_WITHIN: Duration = Duration::from_secs(120);

/// How long a request for a document may wait for its answer.
pub(super) const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// The largest document or event that is read, in bytes.
const LONGEST: usize = 64 << 20;

/// Requests the status. Waits 5 s at most.
///
/// # Errors
///
/// As [`ClientError`] says.
pub async fn status(path: &Path) -> Result<StatusDocument, ClientError> {
    let document: StatusDocument = ask(path, "status").await?;
    check_version(path, document.schema_version)?;
    Ok(document)
}

/// Requests the history of releases. Waits 5 s at most.
///
/// # Errors
///
/// As [`ClientError`] says.
pub async fn history(path: &Path) -> Result<HistoryDocument, ClientError> {
    let document: HistoryDocument = ask(path, "history").await?;
    check_version(path, document.schema_version)?;
    Ok(document)
}

/// Requests the forecast of the next cycles. Waits 5 s at most.
///
/// # Errors
///
/// As [`ClientError`] says.
pub async fn plan(path: &Path) -> Result<PlanDocument, ClientError> {
    let document: PlanDocument = ask(path, "plan").await?;
    check_version(path, document.schema_version)?;
    Ok(document)
}

/// Requests the events after the event `last`, and calls `show` with each event and its JSON, until the agent ends the
/// stream or `show` returns `false`. Sets `last` to the id of the last event. Returns `true` if more events may follow.
/// Without `follow` it ends after the events that the agent has kept.
///
/// # Errors
///
/// As [`ClientError`] says.
pub async fn events(
    path: &Path,
    follow: bool,
    last: &mut Option<String>,
    show: impl Fn(&EventStatus, &str) -> bool,
) -> Result<bool, ClientError> {
    let mut ask = request(Method::GET, &format!("events?follow={follow}"), ANSWER_WITHIN).without_deadline();
    if let Some(last) = last.as_ref() {
        ask = ask.header(HeaderName::from_static("last-event-id"), last);
    }
    let mut answer = sent(path, ask).await?;
    let mut bytes = Vec::new();
    while let Some(more) = answer.next().await.map_err(|failure| no_answer(path, &failure))? {
        bytes.extend_from_slice(&more);
        if bytes.len() > LONGEST {
            return Err(not_understood(path, format!("an event of it has more than {LONGEST} bytes")));
        }
        while let Some(end) = bytes.windows(2).position(|pair| pair == b"\n\n") {
            let message: Vec<u8> = bytes.drain(..end + 2).collect();
            for line in String::from_utf8_lossy(&message).lines() {
                if let Some(id) = line.strip_prefix("id: ") {
                    *last = Some(id.to_owned());
                } else if let Some(text) = line.strip_prefix("data: ") {
                    let event =
                        serde_json::from_str(text).map_err(|e| not_understood(path, e.to_string()))?;
                    if !show(&event, text) {
                        return Ok(false);
                    }
                }
            }
        }
    }
    Ok(follow)
}

/// A log that the agent sends.
#[derive(Debug)]
pub struct ReadLog {
    answer: Answer,
}

impl ReadLog {
    /// The next piece; `None` at the end.
    ///
    /// # Errors
    ///
    /// If the agent or the engine ended the connection.
    pub async fn next(&mut self) -> Result<Option<Bytes>, String> {
        self.answer.next().await.map_err(|_| "the log broke off: the agent or the engine ended".to_owned())
    }
}

/// Requests a log from the agent at the status socket `path`.
///
/// # Errors
///
/// As [`ClientError`] says.
pub async fn logs(path: &Path, wanted: &LogRequest) -> Result<ReadLog, ClientError> {
    let mut ask = request(Method::GET, "logs", ANSWER_WITHIN).without_deadline();
    ask = ask.query("service", &wanted.service).query("follow", wanted.follow.to_string());
    let more = [
        ("app", wanted.app.clone()),
        ("tail", wanted.tail.map(|lines| lines.to_string())),
        ("since", wanted.since.map(|seconds| seconds.to_string())),
    ];
    for (name, value) in more {
        if let Some(value) = value {
            ask = ask.query(name, value);
        }
    }
    sent(path, ask).await.map(|answer| ReadLog { answer })
}

async fn ask<T: DeserializeOwned>(path: &Path, what: &str) -> Result<T, ClientError> {
    read(path, sent(path, request(Method::GET, what, ANSWER_WITHIN)).await?).await
}

fn request(method: Method, what: &str, within: Duration) -> Request {
    Request::new(method, format!("http://agent/v1/{what}"), within)
}

/// Reads a document.
async fn read<T: DeserializeOwned>(path: &Path, answer: Answer) -> Result<T, ClientError> {
    let body = Box::pin(answer.body(LONGEST)).await.map_err(|e| not_understood(path, e.to_string()))?;
    serde_json::from_slice(&body).map_err(|e| not_understood(path, e.to_string()))
}

/// Sends an order, e.g. `hold`, to the control socket, and returns the agent's answer if it followed the order.
///
/// # Errors
///
/// As [`ClientError`] says; [`ClientError::NotFollowed`] when the agent refused.
pub async fn order<B: Serialize>(path: &Path, verb: &str, body: &B) -> Result<ControlAnswer, ClientError> {
    let body = serde_json::to_vec(body).map_err(|e| not_understood(path, e.to_string()))?;
    Box::pin(give(path, verb, body)).await
}

async fn give(path: &Path, verb: &str, body: Vec<u8>) -> Result<ControlAnswer, ClientError> {
    let order = request(Method::POST, verb, ORDER_WITHIN).json(body);
    let sent = connect(path, "use sudo").await?.send(order).await;
    let answer = sent.map_err(|failure| match failure {
        Failure::Late => ClientError::Busy,
        Failure::NoUrl(_) | Failure::Unreachable(_) | Failure::TooLong(_) | Failure::Redirected { .. } => {
            no_answer(path, &failure)
        }
    })?;
    let answer: ControlAnswer = read(path, answer).await?;
    check_version(path, answer.schema_version)?;
    match answer.code.as_str() {
        "done" => Ok(answer),
        _ => Err(ClientError::NotFollowed { code: answer.code, message: answer.message }),
    }
}

/// Returns a client for the socket if it exists and may be used.
pub(super) async fn connect(path: &Path, advice: &'static str) -> Result<Http, ClientError> {
    match tokio::net::UnixStream::connect(path).await {
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            return Err(ClientError::NotPermitted { path: path.to_path_buf(), advice });
        }
        // The queue of a listener that does not accept is full: Linux then refuses a connection that would have to wait.
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
            let why = "it accepts no connection".to_owned();
            return Err(ClientError::NoAnswer { path: path.to_path_buf(), why });
        }
        Err(error) => return Err(no_agent(path, &error)),
    }
    Http::over_socket(path).map_err(|failure| no_agent(path, &failure))
}

pub(super) fn no_agent(path: &Path, why: &dyn std::fmt::Display) -> ClientError {
    ClientError::NoAgent { path: path.to_path_buf(), why: why.to_string() }
}

/// Sends a request and returns the answer if its status is a success.
pub(super) async fn sent(path: &Path, ask: Request) -> Result<Answer, ClientError> {
    let answer = connect(path, READERS).await?.send(ask).await;
    let answer = answer.map_err(|failure| no_answer(path, &failure))?;
    if answer.status().is_success() {
        return Ok(answer);
    }
    let status = answer.status();
    let refused: Result<ControlAnswer, _> = read(path, answer).await;
    let refused = refused.map_err(|_| not_understood(path, format!("it answers with status {status}")))?;
    Err(ClientError::NotFollowed { code: refused.code, message: refused.message })
}

fn no_answer(path: &Path, failure: &Failure) -> ClientError {
    match failure {
        Failure::Late => {
            let why = format!("not within {} s", ANSWER_WITHIN.as_secs());
            ClientError::NoAnswer { path: path.to_path_buf(), why }
        }
        Failure::NoUrl(_) | Failure::Unreachable(_) | Failure::TooLong(_) | Failure::Redirected { .. } => {
            no_agent(path, failure)
        }
    }
}

pub(super) fn not_understood(path: &Path, why: String) -> ClientError {
    ClientError::NotUnderstood { path: path.to_path_buf(), why }
}

fn check_version(path: &Path, version: u32) -> Result<(), ClientError> {
    let is_ours = version == SCHEMA_VERSION;
    is_ours.then_some(()).ok_or_else(|| not_understood(path, format!("its schema has version {version}")))
}

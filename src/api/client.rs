//! Asks the agent of this machine.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::answer::ControlAnswer;
use super::document::{HistoryDocument, SCHEMA_VERSION, StatusDocument};
use super::events::EventStatus;
use super::forecast::PlanDocument;

/// Why the agent did not tell.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error(
        "no agent answers at {path} ({why}); is it running? `systemctl status cotter-agent`, or name its socket with --socket"
    )]
    NoAgent { path: PathBuf, why: String },
    /// A process has the socket, so it is no use to start one.
    #[error(
        "the agent at {path} is there, and does not answer ({why}); it is busy, just starts, or hangs: try again, and see `systemctl status cotter-agent`"
    )]
    NoAnswer { path: PathBuf, why: String },
    #[error("socket {path} may not be used by you; {advice}")]
    NotPermitted { path: PathBuf, advice: &'static str },
    #[error("what answers at {path} is no agent of this version: {why}")]
    NotUnderstood { path: PathBuf, why: String },
    #[error("the agent is busy and did not follow the order within {} s; try again", ORDER_WITHIN.as_secs())]
    Busy,
    /// The agent answered that it does not do what was asked.
    #[error("{message}")]
    NotFollowed { code: String, message: String },
}

impl ClientError {
    /// Whether the same question may be answered in a moment: the agent is away, busy or on its way down.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::NoAgent { .. } | Self::NoAnswer { .. } | Self::Busy => true,
            Self::NotFollowed { code, .. } => matches!(code.as_str(), "busy" | "stopping"),
            Self::NotPermitted { .. } | Self::NotUnderstood { .. } => false,
        }
    }

    /// Whether an agent is there, and has no place for us.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        matches!(self, Self::NotFollowed { code, .. } if code == "busy")
    }
}

/// What lets somebody read the status socket.
pub(super) const READERS: &str = "use sudo, or become a member of group cotter";

/// How long a question may wait.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// How long an order may wait: a stage under way is finished first.
const ORDER_WITHIN: Duration = Duration::from_secs(120);

/// Asks for the status, for 5 s at most.
///
/// # Errors
///
/// As [`ClientError`] says.
pub async fn status(path: &Path) -> Result<StatusDocument, ClientError> {
    let document: StatusDocument = ask(path, "status").await?;
    check_version(path, document.schema_version)?;
    Ok(document)
}

/// Asks what became of releases, for 5 s at most.
///
/// # Errors
///
/// As [`ClientError`] says.
pub async fn history(path: &Path) -> Result<HistoryDocument, ClientError> {
    let document: HistoryDocument = ask(path, "history").await?;
    check_version(path, document.schema_version)?;
    Ok(document)
}

/// Asks what the next cycles would do, for 5 s at most.
///
/// # Errors
///
/// As [`ClientError`] says.
pub async fn plan(path: &Path) -> Result<PlanDocument, ClientError> {
    let document: PlanDocument = ask(path, "plan").await?;
    check_version(path, document.schema_version)?;
    Ok(document)
}

/// Asks for events after `last` (the id of an event), and shows each, with its text in JSON, until the agent ends
/// the stream, or `show` says that nobody reads any more. `last` is then the last one's id, and `true` is returned
/// while there may be more. Without `follow` it ends after what is kept.
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
    let http = connect(path, None, READERS).await?;
    let mut ask = http.get(format!("http://agent/v1/events?follow={follow}"));
    if let Some(last) = last.as_ref() {
        ask = ask.header("last-event-id", last);
    }
    let mut answer = sent(path, ask).await?;
    let mut bytes = Vec::new();
    while let Some(more) = answer.chunk().await.map_err(|error| no_answer(path, &error))? {
        bytes.extend_from_slice(&more);
        while let Some(end) = bytes.windows(2).position(|pair| pair == b"\n\n") {
            let message: Vec<u8> = bytes.drain(..end + 2).collect();
            for line in String::from_utf8_lossy(&message).lines() {
                if let Some(id) = line.strip_prefix("id: ") {
                    *last = Some(id.to_owned());
                } else if let Some(text) = line.strip_prefix("data: ") {
                    let event = serde_json::from_slice(text.as_bytes())
                        .map_err(|e| not_understood(path, e.to_string()))?;
                    if !show(&event, text) {
                        return Ok(false);
                    }
                }
            }
        }
    }
    Ok(follow)
}

async fn ask<T: DeserializeOwned>(path: &Path, what: &str) -> Result<T, ClientError> {
    let told = Box::pin(read(path, what)).await?;
    serde_json::from_slice(&told).map_err(|e| not_understood(path, e.to_string()))
}

async fn read(path: &Path, what: &str) -> Result<Vec<u8>, ClientError> {
    let http = connect(path, Some(ANSWER_WITHIN), READERS).await?;
    let answer = sent(path, http.get(format!("http://agent/v1/{what}"))).await?;
    Ok(answer.bytes().await.map_err(|e| not_understood(path, e.to_string()))?.into())
}

/// Gives an order, e.g. `hold`, to the control socket; the agent's answer when it followed.
///
/// # Errors
///
/// As [`ClientError`] says; [`ClientError::NotFollowed`] when the agent refused.
pub async fn order<B: Serialize>(path: &Path, verb: &str, body: &B) -> Result<ControlAnswer, ClientError> {
    let body = serde_json::to_vec(body).map_err(|e| not_understood(path, e.to_string()))?;
    Box::pin(give(path, verb, body)).await
}

async fn give(path: &Path, verb: &str, body: Vec<u8>) -> Result<ControlAnswer, ClientError> {
    let http = connect(path, Some(ORDER_WITHIN), "use sudo").await?;
    let ask = http.post(format!("http://agent/v1/{verb}"));
    let answer = ask.header("content-type", "application/json").body(body).send().await;
    let not_in_time = |error: reqwest::Error| match error.is_timeout() {
        true => ClientError::Busy,
        false => no_answer(path, &error),
    };
    let answer = answer.map_err(not_in_time)?;
    let answer: ControlAnswer = answer.json().await.map_err(|e| not_understood(path, e.to_string()))?;
    check_version(path, answer.schema_version)?;
    match answer.code.as_str() {
        "done" => Ok(answer),
        _ => Err(ClientError::NotFollowed { code: answer.code, message: answer.message }),
    }
}

pub(super) async fn connect(
    path: &Path,
    within: Option<Duration>,
    advice: &'static str,
) -> Result<reqwest::Client, ClientError> {
    let no_agent = |why: String| ClientError::NoAgent { path: path.to_path_buf(), why };
    match tokio::net::UnixStream::connect(path).await {
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            return Err(ClientError::NotPermitted { path: path.to_path_buf(), advice });
        }
        // The queue of a listener that accepts nobody is full: Linux then refuses a connection that would have to wait.
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
            let why = "it accepts no connection".to_owned();
            return Err(ClientError::NoAnswer { path: path.to_path_buf(), why });
        }
        Err(error) => return Err(no_agent(error.to_string())),
    }
    let http = reqwest::Client::builder().unix_socket(path).tls_certs_only([]);
    let http = match within {
        Some(within) => http.timeout(within).build(),
        None => http.build(),
    };
    http.map_err(|e| no_agent(e.to_string()))
}

/// The answer to a question, if it is one.
pub(super) async fn sent(
    path: &Path,
    ask: reqwest::RequestBuilder,
) -> Result<reqwest::Response, ClientError> {
    let answer = ask.send().await.map_err(|error| no_answer(path, &error))?;
    if answer.status().is_success() {
        return Ok(answer);
    }
    let status = answer.status();
    let refused: Result<ControlAnswer, _> = answer.json().await;
    let refused = refused.map_err(|_| not_understood(path, format!("it answers with status {status}")))?;
    Err(ClientError::NotFollowed { code: refused.code, message: refused.message })
}

fn no_answer(path: &Path, error: &reqwest::Error) -> ClientError {
    let path = path.to_path_buf();
    if error.is_timeout() {
        return ClientError::NoAnswer { path, why: format!("not within {} s", ANSWER_WITHIN.as_secs()) };
    }
    ClientError::NoAgent { path, why: error.to_string() }
}

pub(super) fn not_understood(path: &Path, why: String) -> ClientError {
    ClientError::NotUnderstood { path: path.to_path_buf(), why }
}

fn check_version(path: &Path, version: u32) -> Result<(), ClientError> {
    let is_ours = version == SCHEMA_VERSION;
    is_ours.then_some(()).ok_or_else(|| not_understood(path, format!("its schema has version {version}")))
}

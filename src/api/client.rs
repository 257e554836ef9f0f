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
    #[error("socket {path} may not be used by you; {advice}")]
    NotPermitted { path: PathBuf, advice: &'static str },
    #[error("what answers at {path} is no agent of this version: {why}")]
    NotUnderstood { path: PathBuf, why: String },
    #[error("the agent is busy and did not follow the order within {} s; try again", ORDER_WITHIN.as_secs())]
    Busy,
    /// The agent answered that it does not follow the order.
    #[error("{message}")]
    NotFollowed { code: String, message: String },
}

/// What lets somebody read the status socket.
pub(super) const READERS: &str = "use sudo, or become a member of group cotter";

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
    let no_agent = |e: reqwest::Error| ClientError::NoAgent { path: path.to_path_buf(), why: e.to_string() };
    let mut ask = http.get(format!("http://agent/v1/events?follow={follow}"));
    if let Some(last) = last.as_ref() {
        ask = ask.header("last-event-id", last);
    }
    let mut answer = ask.send().await.map_err(no_agent)?;
    if !answer.status().is_success() {
        let answer: ControlAnswer = answer.json().await.map_err(|e| not_understood(path, e.to_string()))?;
        return Err(ClientError::NotFollowed { code: answer.code, message: answer.message });
    }
    let mut bytes = Vec::new();
    while let Some(more) = answer.chunk().await.map_err(no_agent)? {
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
    let http = connect(path, Some(Duration::from_secs(5)), READERS).await?;
    let answer = http.get(format!("http://agent/v1/{what}")).send().await;
    let answer = answer.map_err(|e| ClientError::NoAgent { path: path.to_path_buf(), why: e.to_string() })?;
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
    let answer = answer.map_err(|error| {
        let why = error.to_string();
        if error.is_timeout() { ClientError::Busy } else { ClientError::NoAgent { path: path.into(), why } }
    })?;
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
        Err(error) => return Err(no_agent(error.to_string())),
    }
    let http = reqwest::Client::builder().unix_socket(path).tls_certs_only([]);
    let http = match within {
        Some(within) => http.timeout(within).build(),
        None => http.build(),
    };
    http.map_err(|e| no_agent(e.to_string()))
}

pub(super) fn not_understood(path: &Path, why: String) -> ClientError {
    ClientError::NotUnderstood { path: path.to_path_buf(), why }
}

fn check_version(path: &Path, version: u32) -> Result<(), ClientError> {
    let is_ours = version == SCHEMA_VERSION;
    is_ours.then_some(()).ok_or_else(|| not_understood(path, format!("its schema has version {version}")))
}

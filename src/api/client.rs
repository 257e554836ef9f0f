//! Asks the agent of this machine.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::document::{SCHEMA_VERSION, StatusDocument};

/// Why the agent did not tell.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error(
        "no agent answers at {path} ({why}); is it running? `systemctl status cotter-agent`, or name its socket with --socket"
    )]
    NoAgent { path: PathBuf, why: String },
    #[error("socket {0} may not be used by you; use sudo, or join the group cotter")]
    NotPermitted(PathBuf),
    #[error("what answers at {path} is no agent of this version: {why}")]
    NotUnderstood { path: PathBuf, why: String },
}

/// Asks for the status, for 5 s at most.
///
/// # Errors
///
/// As [`ClientError`] says.
pub async fn status(path: &Path) -> Result<StatusDocument, ClientError> {
    let no_agent = |why: String| ClientError::NoAgent { path: path.to_path_buf(), why };
    match tokio::net::UnixStream::connect(path).await {
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            return Err(ClientError::NotPermitted(path.to_path_buf()));
        }
        Err(error) => return Err(no_agent(error.to_string())),
    }
    let http = reqwest::Client::builder().unix_socket(path).timeout(Duration::from_secs(5)).build();
    let http = http.map_err(|e| no_agent(e.to_string()))?;
    let answer = http.get("http://agent/v1/status").send().await.map_err(|e| no_agent(e.to_string()))?;
    let not_understood = |why: String| ClientError::NotUnderstood { path: path.to_path_buf(), why };
    let document: StatusDocument = answer.json().await.map_err(|e| not_understood(e.to_string()))?;
    if document.schema_version != SCHEMA_VERSION {
        return Err(not_understood(format!("its schema has version {}", document.schema_version)));
    }
    Ok(document)
}

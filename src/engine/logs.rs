//! What containers write, as the engine kept it. Changes nothing.

use bollard::query_parameters::LogsOptions;
use futures_util::{Stream, StreamExt};

use super::docker::Docker;
use super::{EngineError, secrets};
use crate::model::ContainerId;

/// How much of a container's log is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LogSpan {
    /// Only the last so many lines; `None`: all.
    pub tail: Option<u32>,
    /// Only from then on, in seconds since 1970; 0: from the beginning.
    pub since: i32,
    /// Whether to wait for what is still to come, until the container ends.
    pub is_followed: bool,
}

impl Docker {
    /// What a container has written, standard output and error in the order in which they came, each item some
    /// bytes of it. Ends with the container, or before when it is not followed.
    ///
    /// # Errors
    ///
    /// As [`EngineError`] says, also for log drivers that cannot be read.
    pub async fn logs(
        &self,
        id: &ContainerId,
        span: LogSpan,
    ) -> Result<impl Stream<Item = Result<Vec<u8>, EngineError>> + Send + 'static, EngineError> {
        let options = LogsOptions {
            follow: span.is_followed,
            stdout: true,
            stderr: true,
            since: span.since,
            tail: span.tail.map_or_else(|| "all".to_owned(), |lines| lines.to_string()),
            ..LogsOptions::default()
        };
        let client = self.client().await?;
        let socket = self.socket();
        let written = client.logs(id.as_str(), Some(options));
        Ok(written.map(move |output| match output {
            Ok(output) => Ok(output.into_bytes().to_vec()),
            Err(error) => Err(super::docker::sort(&socket, "logs", &error).map_message(said)),
        }))
    }
}

/// Why there is no log, in the engine's words where those are known. Others may quote the options of the log's
/// driver.
fn said(message: &str) -> String {
    let known = [
        "configured logging driver does not support reading",
        "can not get logs from container which is dead or marked for removal",
        "No such container",
    ];
    match known.into_iter().find(|known| message.contains(known)) {
        Some(known) => known.to_owned(),
        None => secrets::withheld(message),
    }
}

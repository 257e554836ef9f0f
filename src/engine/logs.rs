//! What containers write, as the engine kept it. Changes nothing.

use futures_util::{Stream, TryStreamExt};

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
        let (since, tail) = (span.since.to_string(), span.tail.map(|lines| lines.to_string()));
        let query = [
            ("follow", if span.is_followed { "true" } else { "false" }),
            ("stdout", "true"),
            ("stderr", "true"),
            ("since", &since),
            ("tail", tail.as_deref().unwrap_or("all")),
        ];
        let socket = self.socket();
        let client = self.client().await?;
        let written = client.written(id.as_str(), &query).await;
        let failed = move |error| super::docker::sort(&socket, "logs", &error).map_message(said);
        let written = written.map_err(&failed)?;
        Ok(written.map_err(failed))
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

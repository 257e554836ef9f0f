//! Logs of containers, as the engine stores them. Changes nothing.

use futures_util::{Stream, StreamExt, TryStreamExt};

use super::docker::Docker;
use super::{EngineError, FollowedLog, secrets};
use crate::model::{ContainerId, LogTime};

/// What the engine says of a log driver that cannot be read.
pub const UNREADABLE: &str = "configured logging driver does not support reading";

/// How much of a container's log is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LogSpan {
    /// The number of earlier lines to read, the latest ones; `None`: all.
    pub tail: Option<u32>,
    /// Only lines since then, in seconds since 1970; 0: from the beginning.
    pub since: i32,
    /// Whether to continue with new lines until the container ends.
    pub is_followed: bool,
}

impl Docker {
    /// Returns the log of a container as a stream of bytes, standard output and error in the order of their writing. A
    /// followed log ends with the container.
    ///
    /// # Errors
    ///
    /// As [`EngineError`] says, also if the log driver cannot be read.
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
        let failed = move |error| super::docker::sort(&socket, "logs", error).map_message(said);
        let written = written.map_err(&failed)?;
        Ok(written.map_err(failed))
    }
}

/// Follows a log, as [`Inspect::follow_log`](super::Inspect::follow_log) says.
pub(super) async fn follow(
    docker: &Docker,
    id: &ContainerId,
    since: Option<LogTime>,
    tail: u32,
) -> Result<FollowedLog, EngineError> {
    let since = since.map(asked).unwrap_or_default();
    let tail = tail.to_string();
    let query = [
        ("follow", "true"),
        ("stdout", "true"),
        ("stderr", "true"),
        ("timestamps", "true"),
        ("since", since.as_str()),
        ("tail", tail.as_str()),
    ];
    let query = if since.is_empty() { [&query[..4], &query[5..]].concat() } else { query.to_vec() };
    let socket = docker.socket();
    let client = docker.client().await?;
    let written = client.written_lines(id.as_str(), &query).await;
    let failed = move |error| super::docker::sort(&socket, "logs", error).map_message(said);
    let written = written.map_err(&failed)?;
    Ok(written.map_err(failed).boxed())
}

/// Returns the parameter `since` for lines of this time and later ones, in seconds since 1970. It is one nanosecond earlier,
/// because podman leaves out the lines of the very time.
fn asked(since: LogTime) -> String {
    const SECOND: u64 = 1_000_000_000;
    let since = since.saturating_sub(1);
    format!("{}.{:09}", since / SECOND, since % SECOND)
}

/// Returns the error of a log. Only known messages of the engine are kept: others may quote options of the log driver,
/// which may be secret.
fn said(message: &str) -> String {
    let known = [
        UNREADABLE,
        "can not get logs from container which is dead or marked for removal",
        "No such container",
    ];
    match known.into_iter().find(|known| message.contains(known)) {
        Some(known) => known.to_owned(),
        None => secrets::withheld(message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_very_time_are_asked_for() {
        for (since, expected) in [(0, "0.000000000"), (1_796_000_000_000_000_000, "1795999999.999999999")] {
            assert_eq!(asked(since), expected);
        }
    }
}

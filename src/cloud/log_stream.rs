//! Uploads logs: one endless request with a compressed body (docs/dev/protocol.md, "Log streaming").
//!
//! An answer while the body is being sent means that the cloud has ended the stream. The answer to a complete body is the only
//! sign that the cloud has taken it. The module decides neither what is sent nor when.

use std::io::{self, Write};
use std::pin::Pin;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use tokio::sync::mpsc;

use super::client::Client;
use super::error::CloudError;
use crate::http::header::CONTENT_ENCODING;
use crate::http::{Bytes, Failure, Method, Request};
use crate::model::{DeviceUuid, LogMessage};
use crate::wire::log_line;

/// Pieces that are compressed before the network has taken them.
const AHEAD: usize = 1;

/// How long the network may take none.
const STALLED: Duration = Duration::from_secs(60);

/// How long the answer to a complete stream may take.
const ENDS_WITHIN: Duration = Duration::from_secs(5);

/// The answer to the stream. If it is a success, it confirms a complete stream and ends an incomplete one.
type Answering = Pin<Box<dyn Future<Output = Result<Success, CloudError>> + Send>>;

/// An answer with a status of success.
struct Success {
    status: u16,
    retry_after: Option<Duration>,
}

/// An open stream. Dropping it closes its connection.
pub struct LogStream {
    client: Client,
    answering: Answering,
    pieces: mpsc::Sender<Bytes>,
    encoder: GzEncoder<Vec<u8>>,
}

impl Client {
    /// Opens a stream for logs. The connection is made while [`LogStream::ended`] or another of its functions is awaited.
    #[must_use]
    pub fn stream_logs(&self, uuid: &DeviceUuid, device_key: &str) -> LogStream {
        let (pieces, receiver) = mpsc::channel(AHEAD);
        let url = format!("{}/device/v2/{uuid}/log-stream", self.endpoint());
        let request = Request::new(Method::POST, url, Duration::ZERO).without_deadline().bearer(device_key);
        let request = request.pieces("application/x-ndjson", receiver).header(CONTENT_ENCODING, "gzip");
        let client = self.clone();
        let answering = Box::pin(async move { client.answer_to(request).await });
        let encoder = GzEncoder::new(Vec::new(), Compression::fast());
        LogStream { client: self.clone(), answering, pieces, encoder }
    }

    /// Sends the request, and returns its answer. An error may begin and never end, so it has a deadline of its own.
    async fn answer_to(&self, request: Request) -> Result<Success, CloudError> {
        match self.http().send(request).await {
            Ok(answer) if answer.status().is_success() => {
                Ok(Success { status: answer.status().as_u16(), retry_after: answer.retry_after() })
            }
            Ok(answer) => Err(tokio::time::timeout(ENDS_WITHIN, self.refused(REQUEST, answer))
                .await
                .unwrap_or_else(|_| self.failed(REQUEST, Failure::Late))),
            Err(failure) => Err(self.failed(REQUEST, failure)),
        }
    }
}

impl LogStream {
    /// Returns once the cloud has ended the stream, or the connection is lost: with the reason. It may be dropped and called
    /// again until it has returned.
    pub async fn ended(&mut self) -> CloudError {
        let answer = (&mut self.answering).await;
        answer.map_or_else(|error| error, |success| success.too_early(&self.client))
    }

    /// Sends messages, and returns how many bytes they had before they were compressed. Waits while the cloud does not take
    /// more, for up to a minute.
    ///
    /// # Errors
    ///
    /// As [`ended`](Self::ended). Some of the messages may have been sent.
    pub async fn send(&mut self, messages: &[LogMessage]) -> Result<u64, CloudError> {
        let mut bytes = 0;
        for message in messages {
            let line = log_line::encode(message);
            bytes += line.len() as u64;
            self.encoder.write_all(&line).map_err(|error| self.broken(&error))?;
        }
        self.encoder.flush().map_err(|error| self.broken(&error))?;
        let piece = std::mem::take(self.encoder.get_mut());
        let pieces = self.pieces.clone();
        tokio::select! {
            sent = tokio::time::timeout(STALLED, pieces.send(piece.into())) => match sent {
                Ok(Ok(())) => return Ok(bytes),
                Ok(Err(_)) => {}
                Err(_) => return Err(self.client.failed(REQUEST, Failure::Late)),
            },
            error = self.ended() => return Err(error),
        }
        // The body is not sent any more, so the answer is there or the connection is lost.
        Err(tokio::time::timeout(ENDS_WITHIN, self.ended())
            .await
            .unwrap_or_else(|_| self.client.failed(REQUEST, Failure::Late)))
    }

    /// Ends the stream, and waits for the cloud to confirm that it has taken it.
    ///
    /// # Errors
    ///
    /// If it does not within this time, or answers with an error. It may have taken the stream or a part of it.
    pub async fn finish(mut self, within: Duration) -> Result<(), CloudError> {
        self.encoder.try_finish().map_err(|error| self.broken(&error))?;
        let rest = std::mem::take(self.encoder.get_mut());
        let Self { client, mut answering, pieces, .. } = self;
        let confirmed = async {
            tokio::select! {
                biased;
                sent = pieces.send(rest.into()) => drop(sent),
                answer = &mut answering => return answer.and_then(|success| Err(success.too_early(&client))),
            }
            drop(pieces);
            answering.await.map(drop)
        };
        let confirmed = tokio::time::timeout(within, confirmed).await;
        confirmed.unwrap_or_else(|_| Err(client.failed(REQUEST, Failure::Late)))
    }

    fn broken(&self, error: &io::Error) -> CloudError {
        let (endpoint, request) = (self.client.endpoint().to_owned(), REQUEST);
        CloudError::Refused { endpoint, request, status: 0, message: error.to_string(), retry_after: None }
    }
}

impl Success {
    /// Makes the error that it is while the stream is not complete.
    fn too_early(self, client: &Client) -> CloudError {
        let Self { status, retry_after } = self;
        let (endpoint, message) = (client.endpoint().to_owned(), "it ended the stream".to_owned());
        CloudError::Refused { endpoint, request: REQUEST, status, message, retry_after }
    }
}

/// What the cloud is asked, in messages.
const REQUEST: &str = "log stream";

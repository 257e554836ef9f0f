//! Answers of any length, made while they are sent.

use std::error::Error;
use std::io;

use axum::body::{Body, Bytes};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use tokio::sync::mpsc;

use super::answer::log_failure;

/// Bytes that are sent at once.
const PIECE: usize = 64 * 1024;

/// Pieces that are made before the client has read them.
const AHEAD: usize = 4;

/// Why an answer ends early.
pub(super) type Broken = Box<dyn Error + Send + Sync>;

/// Takes the lines of an answer.
pub(super) struct Lines {
    piece: Vec<u8>,
    to: mpsc::Sender<Result<Bytes, io::Error>>,
}

impl Lines {
    /// Takes bytes. Returns `false` once the client has gone.
    pub(super) fn take(&mut self, bytes: &[u8]) -> bool {
        self.piece.extend_from_slice(bytes);
        self.piece.len() < PIECE || self.send()
    }

    fn send(&mut self) -> bool {
        self.to.blocking_send(Ok(std::mem::take(&mut self.piece).into())).is_ok()
    }
}

/// Answers with the JSON lines that `make` makes, on a thread of its own. If it fails, the connection is cut, so that no
/// client takes the beginning for all of it.
pub(super) fn json_lines(make: impl FnOnce(&mut Lines) -> Result<(), Broken> + Send + 'static) -> Response {
    let (to, receiver) = mpsc::channel(AHEAD);
    tokio::task::spawn_blocking(move || {
        let mut lines = Lines { piece: Vec::new(), to };
        match make(&mut lines) {
            Ok(()) => {
                lines.send();
            }
            Err(error) => {
                log_failure(error.as_ref());
                let _gone = lines.to.blocking_send(Err(io::Error::other(error)));
            }
        }
    });
    let pieces = stream::unfold(receiver, async |mut receiver| {
        let piece = receiver.recv().await?;
        Some((piece, receiver))
    });
    ([(CONTENT_TYPE, "application/jsonl")], Body::from_stream(Box::pin(pieces))).into_response()
}

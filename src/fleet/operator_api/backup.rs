//! `/api/v1/backup`: a copy of all records at one moment.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use tokio::sync::mpsc;

use super::answer::log_failure;
use crate::fleet::backup::Writer;
use crate::fleet::clock;
use crate::fleet::policy::World;
use crate::fleet::records::Records;

/// Bytes that are sent at once.
const PIECE: usize = 64 * 1024;

/// Pieces that are made before the client has read them.
const AHEAD: usize = 4;

/// Sends a backup of the records as they are now. It is made while it is sent, so it takes little memory. An answer that ends
/// early has no last line, and so is no good backup.
pub(super) async fn download(State(records): State<Arc<Records>>) -> Response {
    let (sender, receiver) = mpsc::channel::<Bytes>(AHEAD);
    tokio::task::spawn_blocking(move || {
        if let Err(error) = write(&records.world(), &sender) {
            log_failure(&error);
        }
    });
    let pieces = stream::unfold(receiver, async |mut receiver| {
        let piece = receiver.recv().await?;
        Some((Ok::<_, std::convert::Infallible>(piece), receiver))
    });
    ([(CONTENT_TYPE, "application/jsonl")], Body::from_stream(Box::pin(pieces))).into_response()
}

/// Writes until the end, or until the client has gone.
fn write(world: &World, to: &mpsc::Sender<Bytes>) -> serde_json::Result<()> {
    let (mut writer, mut piece) = Writer::begin(clock::now())?;
    for record in world.records() {
        piece.extend(writer.record(&record)?);
        if piece.len() >= PIECE && to.blocking_send(std::mem::take(&mut piece).into()).is_err() {
            return Ok(());
        }
    }
    piece.extend(writer.end());
    let _gone = to.blocking_send(piece.into());
    Ok(())
}

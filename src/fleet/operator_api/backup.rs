//! `/api/v1/backup`: a copy of all records at one moment.

use std::error::Error;

use axum::body::{Body, Bytes};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use tokio::sync::mpsc;

use super::answer::log_failure;
use super::desk::Desk;
use crate::fleet::access::Which;
use crate::fleet::backup::Writer;
use crate::fleet::clock;
use crate::fleet::policy::Change;

/// Bytes that are sent at once.
const PIECE: usize = 64 * 1024;

/// Pieces that are made before the client has read them.
const AHEAD: usize = 4;

/// Records of the audit trail that are read at once.
const OF_THE_TRAIL: usize = 1000;

/// Sends a backup of the records as they are now. It is made while it is sent, so it takes little memory. An answer that ends
/// early has no last line, and so is no good backup.
pub(super) async fn download(desk: Desk) -> Response {
    let (sender, receiver) = mpsc::channel::<Bytes>(AHEAD);
    tokio::task::spawn_blocking(move || {
        if let Err(error) = write(&desk, &sender) {
            log_failure(error.as_ref());
        }
    });
    let pieces = stream::unfold(receiver, async |mut receiver| {
        let piece = receiver.recv().await?;
        Some((Ok::<_, std::convert::Infallible>(piece), receiver))
    });
    ([(CONTENT_TYPE, "application/jsonl")], Body::from_stream(Box::pin(pieces))).into_response()
}

/// Writes until the end, or until the client has gone. The audit trail is as old as the other records.
fn write(desk: &Desk, to: &mpsc::Sender<Bytes>) -> Result<(), Box<dyn Error + Send + Sync>> {
    let world = desk.world();
    let (mut writer, mut piece) = Writer::begin(clock::now())?;
    let mut take = |piece: &mut Vec<u8>, record: &Change| {
        piece.extend(writer.record(record)?);
        if piece.len() < PIECE {
            return Ok(true);
        }
        // The client may take long to read, and its token may end meanwhile.
        desk.check_token()?;
        Ok::<_, Box<dyn Error + Send + Sync>>(to.blocking_send(std::mem::take(piece).into()).is_ok())
    };
    for record in world.records() {
        if !take(&mut piece, &record)? {
            return Ok(());
        }
    }
    let mut below = Some(world.audited() + 1);
    while let Some(number) = below {
        let page = desk.audit_page(&Which::default(), number, OF_THE_TRAIL)?;
        for entry in page.entries {
            if !take(&mut piece, &entry.into())? {
                return Ok(());
            }
        }
        below = page.below;
    }
    desk.check_token()?;
    piece.extend(writer.end());
    let _gone = to.blocking_send(piece.into());
    Ok(())
}

//! Reads bodies of admitted requests, up to a size and within a time. All requests of a rank share a budget of bytes.

use std::ops::Deref;
use std::sync::Arc;

#[cfg(any(feature = "server", test))]
use axum::body::Bytes;
use axum::body::{Body, HttpBody};
use http_body_util::BodyExt;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout_at};

use super::Admitted;

/// Initial capacity for a body without a length.
const USUAL: usize = 4 << 10;

/// A body. It uses its share of the budget while it lives.
#[derive(Debug)]
pub struct Received {
    bytes: Vec<u8>,
    _share: OwnedSemaphorePermit,
}

impl Deref for Received {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Why a body was not read completely.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unread {
    /// Answered with 413.
    #[error("the body is too large")]
    TooLarge,
    /// Answered with 408.
    #[error("the body did not arrive in time")]
    TooSlow,
    /// Answered with 503: other bodies used up the budget for too long.
    #[error("too many bodies are being read; try again")]
    Busy,
    /// Answered with 400, if the client is still connected.
    #[error("the body is incomplete")]
    Broken,
}

/// A body without end, read piece by piece. It takes no more of the client than its reader takes.
#[cfg(any(feature = "server", test))]
pub struct Pieces {
    body: Body,
    _place: Admitted,
}

#[cfg(any(feature = "server", test))]
impl Pieces {
    /// Returns the next piece; `None` at the end. Waits as long as the client does.
    ///
    /// # Errors
    ///
    /// [`Unread::Broken`].
    pub async fn next(&mut self) -> Result<Option<Bytes>, Unread> {
        loop {
            let Some(frame) = self.body.frame().await else { return Ok(None) };
            if let Ok(piece) = frame.map_err(|_| Unread::Broken)?.into_data() {
                return Ok(Some(piece));
            }
        }
    }
}

impl Admitted {
    /// Reads a body without end. The caller bounds what it keeps, and for how long.
    #[cfg(any(feature = "server", test))]
    #[must_use]
    pub fn pieces(self, body: Body) -> Pieces {
        Pieces { body, _place: self }
    }

    /// Reads a body of at most `largest` bytes.
    ///
    /// The bytes are copied as they arrive, so a client that sends single bytes uses no more memory.
    ///
    /// # Errors
    ///
    /// [`Unread`]. A body whose length header is too large is refused before anything is read.
    pub async fn read(&self, body: Body, largest: usize) -> Result<Received, Unread> {
        let hint = body.size_hint();
        if hint.lower() > largest as u64 {
            return Err(Unread::TooLarge);
        }
        let declared = hint.exact().and_then(|length| usize::try_from(length).ok());
        let deadline = Instant::now() + self.0.shared.limits.body;
        let kib = u32::try_from(declared.unwrap_or(largest).div_ceil(1024)).unwrap_or(u32::MAX);
        let share = timeout_at(deadline, Arc::clone(self.bodies()).acquire_many_owned(kib));
        let share = share.await.map_err(|_| Unread::Busy)?.map_err(|_| Unread::Busy)?;
        let mut bytes = Vec::with_capacity(declared.unwrap_or(USUAL.min(largest)));
        let mut body = body;
        while let Some(frame) = timeout_at(deadline, body.frame()).await.map_err(|_| Unread::TooSlow)? {
            let Ok(part) = frame.map_err(|_| Unread::Broken)?.into_data() else { continue };
            if bytes.len() + part.len() > largest {
                return Err(Unread::TooLarge);
            }
            bytes.extend_from_slice(&part);
        }
        Ok(Received { bytes, _share: share })
    }
}

//! Takes the log stream of a device (docs/dev/protocol.md, "Log streaming").

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Extension, Path, RawQuery, State};
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use tokio::time::{Instant, sleep_until, timeout};

use super::{NotServed, key_of};
use crate::fleet::clock;
use crate::fleet::logs::{BadStream, Intake, Place, Shelf};
use crate::fleet::records::Records;
use crate::listen::{Pieces, Rank, Unread, Visit};
use crate::model::DeviceUuid;

/// The header of the answer to a poll that tells a device whether to upload its logs.
const LOGS: HeaderName = HeaderName::from_static("cotter-logs");

/// How long lines wait for others before they are kept.
const GATHER: Duration = Duration::from_millis(300);

/// How often a stream checks that its device still exists, and that its logs are wanted.
const CHECK: Duration = Duration::from_secs(10);

/// When a device whose logs are not wanted may ask again, in seconds.
const NOT_WANTED: u64 = 60;

/// The answer to a stream that is not read to its end because the server stops.
const STOPPING: StatusCode = StatusCode::SERVICE_UNAVAILABLE;

/// Says whether the device is to upload its logs.
pub(super) fn wanted(records: &Records, uuid: &DeviceUuid) -> [(HeaderName, &'static str); 1] {
    [(LOGS, if records.logs.wants(uuid) { "on" } else { "off" })]
}

pub(super) async fn stream(
    State(records): State<Arc<Records>>,
    Extension(visit): Extension<Visit>,
    Path(uuid): Path<String>,
    query: RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let world = records.world();
    let key = key_of(&headers, &query);
    let device = DeviceUuid::parse(&uuid).ok().and_then(|uuid| world.device(&uuid));
    let Some(device) = device.filter(|device| key.as_ref() == Some(&device.key)) else {
        return StatusCode::UNAUTHORIZED.into_response();
    };
    let uuid = device.uuid.clone();
    drop(world);
    let is = |name, value: &str| headers.get(name).is_some_and(|given| given.as_bytes() == value.as_bytes());
    if !is(CONTENT_TYPE, "application/x-ndjson") {
        return StatusCode::UNSUPPORTED_MEDIA_TYPE.into_response();
    }
    let is_compressed = headers.contains_key(CONTENT_ENCODING);
    if is_compressed && !is(CONTENT_ENCODING, "gzip") {
        return StatusCode::UNSUPPORTED_MEDIA_TYPE.into_response();
    }
    if !records.logs.takes(&uuid) {
        return (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, NOT_WANTED)]).into_response();
    }
    let admitted = match visit.admit(Rank::Ordinary) {
        Ok(admitted) => admitted,
        Err(busy) => return NotServed::from(busy).into_response(),
    };
    let Some(place) = records.logs.enter(&uuid) else { return NotServed::Busy.into_response() };
    drop((query, headers));
    let shelf = records.logs.shelf(&uuid);
    let intake = Intake::new(is_compressed, place.pace());
    let mut stream = Stream { records, uuid, shelf, intake, place, pieces: admitted.pieces(body) };
    stream.run().await.into_response()
}

/// Waits. Returns `false` if the device opens another stream meanwhile.
///
/// # Errors
///
/// The server stops.
async fn has_waited(records: &Records, place: &Place, wait: Duration) -> Result<bool, StatusCode> {
    tokio::select! {
        biased;
        () = records.logs.closed() => Err(STOPPING),
        () = place.replaced() => Ok(false),
        () = tokio::time::sleep(wait) => Ok(true),
    }
}

struct Stream {
    records: Arc<Records>,
    uuid: DeviceUuid,
    shelf: Arc<Shelf>,
    intake: Intake,
    place: Place,
    pieces: Pieces,
}

impl Stream {
    /// Reads until the stream ends, and returns the status of the answer.
    async fn run(&mut self) -> StatusCode {
        // What the device's streams before owe is waited for by this one, so a new stream is read no sooner.
        let owed = self.place.owed();
        match has_waited(&self.records, &self.place, owed).await {
            Ok(true) => {}
            Ok(false) => return StatusCode::CREATED,
            Err(status) => return status,
        }
        let status = loop {
            match self.turn().await {
                Ok(true) => {}
                Ok(false) => break StatusCode::CREATED,
                Err(status) => break status,
            }
        };
        match self.keep().await {
            Ok(()) => status,
            Err(_) => StatusCode::BAD_REQUEST,
        }
    }

    /// Reads for a short time, and keeps what has come. Returns `false` at the end of the stream, and when it is not wanted any
    /// more, or the device has opened another one.
    ///
    /// # Errors
    ///
    /// The status of the answer. A server that stops confirms nothing, because it has not read the rest.
    async fn turn(&mut self) -> Result<bool, StatusCode> {
        let logs = &self.records.logs;
        let first = tokio::select! {
            biased;
            () = logs.closed() => return Err(STOPPING),
            () = self.place.replaced() => return Ok(false),
            piece = timeout(CHECK, self.pieces.next()) => piece,
        };
        let Ok(first) = first else { return Ok(self.is_wanted()) };
        let mut next = first;
        let until = Instant::now() + GATHER;
        let mut wait = Duration::ZERO;
        loop {
            let Some(piece) = next.map_err(|_: Unread| StatusCode::BAD_REQUEST)? else { return Ok(false) };
            wait = wait.max(self.intake.feed(&piece).map_err(|_| StatusCode::BAD_REQUEST)?);
            tokio::select! {
                () = sleep_until(until) => break,
                piece = self.pieces.next(), if wait.is_zero() => next = piece,
            }
        }
        self.keep().await.map_err(|_| StatusCode::BAD_REQUEST)?;
        // A device that sends too much is not read for a while, so that its own connection holds it up.
        Ok(has_waited(&self.records, &self.place, wait).await? && self.is_wanted())
    }

    fn is_wanted(&self) -> bool {
        self.records.logs.takes(&self.uuid) && self.records.world().device(&self.uuid).is_some()
    }

    /// Keeps the lines that have come.
    async fn keep(&mut self) -> Result<(), BadStream> {
        if !self.intake.has_lines() {
            return Ok(());
        }
        let world = self.records.world();
        // Without a fleet the device is deleted, and the stream ends.
        let fleet = world.device(&self.uuid).and_then(|device| world.fleet(device.fleet));
        let Some(fleet) = fleet else { return Ok(()) };
        let name = |number| {
            let services = &fleet.services;
            services.iter().find(|(_, known)| **known == number).map(|(name, _)| name.to_string())
        };
        let (lines, dropped) = self.intake.lines(fleet.number, name, clock::now())?;
        self.records.logs.drop_lines(dropped);
        if lines.is_empty() {
            return Ok(());
        }
        let (records, shelf) = (Arc::clone(&self.records), Arc::clone(&self.shelf));
        // If the thread cannot be had, the server stops.
        let _stopping = tokio::task::spawn_blocking(move || records.logs.keep(&shelf, lines)).await;
        Ok(())
    }
}

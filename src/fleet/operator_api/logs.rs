//! `/api/v1/devices/{device}/logs`: what services of a device wrote.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::HeaderName;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::Deserialize;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};

use super::answer::{ApiError, Params, Path};
use super::desk::Desk;
use crate::fleet::logs::{Line, News, Shelf};
use crate::fleet::places::Place;
use crate::model::DeviceUuid;
use crate::wire::operator_api::Code;

/// How many lines are shown, and how many at most.
const USUAL: usize = 100;
const MOST: usize = 10_000;

/// Maximum number of services that one request names.
const MOST_SERVICES: usize = 50;

/// How long a device that was just asked may take to send lines, and how long after the last of them none may come.
const FIRST: Duration = Duration::from_secs(15);
const SETTLED: Duration = Duration::from_secs(1);

/// How often a reader who follows is sent an empty line, which shows whether it is still there, and asks the device again.
const ALIVE: Duration = Duration::from_secs(30);

/// Lines that the client has not read yet.
const AHEAD: usize = 16;

/// Tells nginx to pass lines on as they come.
const UNBUFFERED: (HeaderName, &str) = (HeaderName::from_static("x-accel-buffering"), "no");

/// Which lines.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    /// Names with commas between them.
    service: Option<String>,
    lines: Option<usize>,
    #[serde(default)]
    follow: bool,
}

pub(super) async fn show(
    desk: Desk,
    Path(device): Path<String>,
    Params(which): Params<Which>,
) -> Result<Response, ApiError> {
    let (uuid, fleet) = {
        let world = desk.world();
        let device = world.find_device(&device)?;
        (device.uuid.clone(), device.fleet)
    };
    let most = which.lines.unwrap_or(USUAL);
    let named = which.service.as_deref().unwrap_or_default();
    let services: Vec<String> =
        named.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect();
    if most > MOST || services.len() > MOST_SERVICES {
        let wrong = format!("lines may be up to {MOST}, and service up to {MOST_SERVICES} names");
        return Err(ApiError::bad_request(wrong));
    }
    let logs = Arc::clone(desk.logs());
    if logs.is_off() {
        let remedy = "set logs = \"asked\" or \"on\" in the settings of the server";
        return Err(ApiError::with_remedy(Code::BadRequest, "this server takes no logs of devices", remedy));
    }
    let following = match which.follow {
        true => {
            let who = desk.who();
            Some(logs.follow(&who).ok_or_else(|| ApiError::too_many_follow(&who))?)
        }
        false => None,
    };
    let shelf = logs.shelf(&uuid);
    let is_waited_for = !logs.wants(&uuid);
    let news = shelf.news();
    logs.ask(&uuid);
    let reader = Reader { desk, uuid, fleet, shelf, services };
    match following {
        Some(place) => Ok(reader.follow(most, place)),
        None => {
            if is_waited_for {
                settle(news).await;
            }
            Ok(answer(Body::from(join(reader.read(most).await?.0))))
        }
    }
}

/// Waits until a device that was just asked has sent its last lines.
async fn settle(mut news: News) {
    let until = Instant::now() + FIRST;
    if timeout_at(until, news.recv()).await.is_err() {
        return;
    }
    while Instant::now() < until && timeout(SETTLED, news.recv()).await.is_ok() {}
}

struct Reader {
    desk: Desk,
    uuid: DeviceUuid,
    /// Number of its fleet when the request came.
    fleet: u64,
    shelf: Arc<Shelf>,
    services: Vec<String>,
}

impl Reader {
    async fn read(&self, most: usize) -> Result<(Vec<Line>, News), ApiError> {
        let (shelf, fleet, services) = (Arc::clone(&self.shelf), self.fleet, self.services.clone());
        let reading = tokio::task::spawn_blocking(move || shelf.read(most, fleet, &services));
        reading.await.map_err(|error| ApiError::failed(&error))
    }

    /// Answers with the last lines and then new ones, until the client goes, the device is moved, its place is given to another
    /// user, or the server stops.
    fn follow(self, most: usize, place: Place) -> Response {
        let (to, receiver) = mpsc::channel(AHEAD);
        let sending = async move {
            let given_away = place.given_away();
            tokio::select! {
                () = self.send(most, &to) => {}
                () = given_away.cancelled() => {}
                () = to.closed() => {}
                () = self.desk.logs().closed() => {}
            }
            drop(place);
        };
        let pieces = stream::unfold((receiver, Box::pin(sending), false), async |state| {
            let (mut receiver, mut sending, mut is_over) = state;
            let piece: Bytes = loop {
                tokio::select! {
                    biased;
                    piece = receiver.recv() => break piece?,
                    () = &mut sending, if !is_over => is_over = true,
                }
            };
            Some((Ok::<_, io::Error>(piece), (receiver, sending, is_over)))
        });
        answer(Body::from_stream(Box::pin(pieces)))
    }

    async fn send(&self, most: usize, to: &mpsc::Sender<Bytes>) {
        let Ok((lines, mut news)) = self.read(most).await else { return };
        if to.send(join(lines)).await.is_err() {
            return;
        }
        let mut checked = Instant::now();
        loop {
            if checked.elapsed() >= ALIVE {
                // Its token may have ended, and the device may have been moved to another fleet.
                let world = self.desk.world();
                let is_there =
                    world.find_device(self.uuid.as_str()).is_ok_and(|device| device.fleet == self.fleet);
                if !is_there || self.desk.check_token().is_err() {
                    return;
                }
                self.desk.logs().ask(&self.uuid);
                checked = Instant::now();
            }
            let piece = match timeout(ALIVE, news.recv()).await {
                Ok(Ok(lines)) => join(
                    lines.iter().filter(|line| line.is_of(self.fleet, &self.services)).cloned().collect(),
                ),
                // It was too slow, and goes on with the oldest lines that are still there.
                Ok(Err(RecvError::Lagged(_))) => continue,
                Ok(Err(RecvError::Closed)) => return,
                Err(_) => Bytes::from_static(b"\n"),
            };
            if !piece.is_empty() && to.send(piece).await.is_err() {
                return;
            }
        }
    }
}

fn join(lines: Vec<Line>) -> Bytes {
    lines.into_iter().flat_map(|line| line.json).collect::<Vec<u8>>().into()
}

fn answer(body: Body) -> Response {
    ([(CONTENT_TYPE, "application/jsonl"), UNBUFFERED], body).into_response()
}

//! The event stream of an open page: a small message whenever something in its fleet has changed. The message has no content;
//! the page then reloads itself, so permissions are checked as for every page. A page for which there is no place is sent that,
//! and reloads itself every few seconds.

use std::io;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::Extension;
use axum::http::HeaderName;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::fields::Fields;
use super::site::Visitor;
use crate::fleet::places::Place;
use crate::fleet::pulse::Beats;

/// The shortest time between two messages.
const PAUSE: Duration = Duration::from_millis(500);
/// A sign of life, by which the page sees that the connection still works.
const SIGN: Duration = Duration::from_secs(15);
/// A stream ends after so long, and the page opens another one. The server lets no answer take longer than two minutes.
const LONGEST: Duration = Duration::from_secs(90);

/// How often a page without a place reloads itself, in seconds.
const RELOAD: u64 = 20;

/// A page that follows.
struct Follower {
    visitor: Visitor,
    beats: watch::Receiver<Beats>,
    fleet: Option<u64>,
    said: Option<u64>,
    until: Instant,
    place: Place,
}

pub(super) async fn events(
    Extension(visitor): Extension<Visitor>,
    Extension(fields): Extension<Fields>,
) -> Response {
    let Some(place) = visitor.site.streams.enter(&visitor.who()) else { return no_place() };
    let fleet = fields.get("fleet").and_then(|fleet| fleet.parse().ok());
    let fleet = fleet.filter(|fleet| visitor.caller.scope.has(*fleet));
    let beats = visitor.site.gate.records().parked().pulse().follow();
    let follower = Follower { visitor, beats, fleet, said: None, until: Instant::now() + LONGEST, place };
    let messages = stream::unfold(Some(follower), async |follower| {
        let mut follower = follower?;
        let given_away = follower.place.given_away();
        tokio::select! {
            biased;
            () = given_away.cancelled() => Some((Ok::<_, io::Error>(Bytes::from(full())), None)),
            message = follower.next() => Some((Ok(Bytes::from(message?)), Some(follower))),
        }
    });
    answer(Body::from_stream(Box::pin(messages)))
}

/// Tells a page that there is no place for it, and how often to reload. A script cannot read the status of a stream, so it is a
/// message.
fn full() -> String {
    format!("event: full\ndata: {RELOAD}\n\n")
}

pub(super) fn no_place() -> Response {
    answer(Body::from(full()))
}

fn answer(body: Body) -> Response {
    // A proxy must not keep messages until it has many.
    let unbuffered = HeaderName::from_static("x-accel-buffering");
    ([(CONTENT_TYPE, "text/event-stream"), (unbuffered, "no")], body).into_response()
}

impl Follower {
    /// Waits for the next message; `None` ends the stream, also when the token has ended.
    async fn next(&mut self) -> Option<String> {
        let Some(said) = self.said else {
            let now = self.beats.borrow_and_update().of(self.fleet);
            self.said = Some(now);
            return Some(format!("retry: 1000\nevent: hello\ndata: {now}\n\n"));
        };
        sleep(PAUSE).await;
        let until = Instant::now() + SIGN;
        loop {
            self.visitor.caller.check(&self.visitor.site.gate.records().world()).ok()?;
            let (now, is_over) = {
                let beats = self.beats.borrow_and_update();
                (beats.of(self.fleet), beats.is_over)
            };
            if is_over {
                return None;
            }
            if now != said {
                self.said = Some(now);
                let fleet = self.fleet.map_or_else(|| "null".to_owned(), |fleet| fleet.to_string());
                return Some(format!("event: changed\ndata: {{\"fleet\":{fleet},\"position\":{now}}}\n\n"));
            }
            if Instant::now() >= self.until {
                return None;
            }
            if timeout(until.saturating_duration_since(Instant::now()), self.beats.changed()).await.is_err() {
                return Some(": still here\n\n".to_owned());
            }
        }
    }
}

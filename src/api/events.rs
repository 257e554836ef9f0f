//! `GET /v1/events`: events of the device, as server-sent events.
//!
//! A reader gets the kept events first, and then new ones as they come. A reader that is too slow misses some, gets
//! their number in a `missed` event, and delays no other. With `Last-Event-ID` it continues after that event.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Extension, Query, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::Deserialize;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio_util::sync::CancellationToken;

use super::answer::{busy, reply};
use super::document::{EventStatus, SCHEMA_VERSION};
use super::readers::READERS;
use super::sources::Sources;
use crate::listen::Visit;
use crate::model::quantity::counted;
use crate::model::{Event, EventKind, Events, Report, Step, text};

/// How many events are written at once.
const AT_ONCE: usize = 8;
/// The longest time without a line for a reader.
const ALIVE: Duration = Duration::from_secs(15);

/// The query of the request.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Ask {
    /// Continues with new events after the kept ones.
    follow: bool,
}

impl Default for Ask {
    fn default() -> Self {
        Self { follow: true }
    }
}

/// A reader and its position.
struct Reader {
    events: watch::Receiver<Events>,
    /// For the names of apps.
    report: watch::Receiver<Report>,
    /// The last event that it got.
    last: u64,
    run: Arc<str>,
    is_following: bool,
    stop: CancellationToken,
    _place: OwnedSemaphorePermit,
}

pub(super) async fn events(
    State(sources): State<Sources>,
    Extension(visit): Extension<Visit>,
    ask: Result<Query<Ask>, QueryRejection>,
    headers: HeaderMap,
) -> Response {
    let Ok(Query(ask)) = ask else {
        let why = "the only parameter is follow=true or follow=false".to_owned();
        return reply("bad_request", why).into_response();
    };
    let Some(place) = sources.readers.take(&visit) else {
        return busy(&format!("{READERS} clients read events already")).into_response();
    };
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok());
    // The events of an earlier run of the agent are gone. Its reader gets all events that are kept.
    let last = last.and_then(|id| id.strip_prefix(&*sources.run)?.strip_prefix('-')?.parse().ok());
    let reader = Reader {
        events: sources.events,
        report: sources.report,
        last: last.unwrap_or(0),
        run: sources.run,
        is_following: ask.follow,
        stop: sources.stop,
        _place: place,
    };
    let body = Body::from_stream(stream::unfold(reader, |mut reader| async {
        let text = reader.next().await?;
        Some((Ok::<_, std::convert::Infallible>(text), reader))
    }));
    let headers = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store")];
    (headers, body).into_response()
}

impl Reader {
    /// The next text; `None` at the end.
    async fn next(&mut self) -> Option<String> {
        loop {
            let (news, missed) = self.events.borrow_and_update().after(self.last);
            if !news.is_empty() {
                return Some(self.written(&news, missed));
            }
            if !self.is_following {
                return None;
            }
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return None,
                changed = self.events.changed() => changed.ok()?,
                () = tokio::time::sleep(ALIVE) => return Some(": nothing new\n\n".to_owned()),
            }
        }
    }

    fn written(&mut self, news: &[Arc<Event>], missed: u64) -> String {
        let mut text = String::new();
        if missed > 0 {
            let status = missed_status(missed);
            write(&mut text, &status);
        }
        for event in news.iter().take(AT_ONCE) {
            self.last = event.id;
            // Writing to a string cannot fail.
            let _ = writeln!(text, "id: {}-{}", self.run, event.id);
            write(&mut text, &status(event, &self.report.borrow()));
        }
        text
    }
}

fn write(to: &mut String, status: &EventStatus) {
    let json = text::json(&serde_json::to_string(status).unwrap_or_default());
    let _ = write!(to, "event: {}\ndata: {json}\n\n", status.kind);
}

fn missed_status(count: u64) -> EventStatus {
    EventStatus {
        schema_version: SCHEMA_VERSION,
        at: None,
        kind: "missed".to_owned(),
        word: None,
        outcome: None,
        app: None,
        app_name: None,
        service: None,
        what: counted(count, "event"),
    }
}

fn status(event: &Event, report: &Report) -> EventStatus {
    let at = Some(event.at.clone());
    let bare = |kind: &str, outcome: &str, what: String| EventStatus {
        at: at.clone(),
        kind: kind.to_owned(),
        outcome: Some(outcome.to_owned()),
        what,
        ..missed_status(0)
    };
    match &event.kind {
        EventKind::Step { step, failure } => {
            let app_name = step.app().and_then(|app| report.app_name(app));
            let done = bare("step", "done", step.for_people(app_name));
            of_step(EventStatus { app_name: app_name.map(str::to_owned), ..done }, step, failure.as_ref())
        }
        EventKind::Waiting { waiting, is_over } => EventStatus {
            word: Some(waiting.reason.as_str().to_owned()),
            app: waiting.app.as_ref().map(ToString::to_string),
            app_name: waiting.app.as_ref().and_then(|app| report.app_name(app)).map(str::to_owned),
            service: waiting.service.as_ref().map(ToString::to_string),
            ..bare("waiting", if *is_over { "over" } else { "begun" }, waiting.why.clone())
        },
        EventKind::Target { apps } => bare("target", "received", counted(*apps, "app")),
        EventKind::Order { verb, is_followed, answer } => EventStatus {
            word: Some((*verb).to_owned()),
            ..bare("order", if *is_followed { "followed" } else { "refused" }, answer.clone())
        },
        EventKind::Engine { error } => of_error(&bare, "engine", error.as_ref()),
        EventKind::Store { error } => of_error(&bare, "store", error.as_ref()),
    }
}

fn of_step(status: EventStatus, step: &Step, failure: Option<&String>) -> EventStatus {
    let (outcome, what) = match failure {
        None => ("done", status.what),
        Some(why) => ("failed", format!("{}: {why}", status.what)),
    };
    EventStatus {
        word: Some(step.verb().to_owned()),
        outcome: Some(outcome.to_owned()),
        app: step.app().map(ToString::to_string),
        service: step.service().map(|(_, service)| service.to_string()),
        what,
        ..status
    }
}

fn of_error(
    bare: &impl Fn(&str, &str, String) -> EventStatus,
    kind: &str,
    error: Option<&String>,
) -> EventStatus {
    let outcome = if error.is_some() { "lost" } else { "back" };
    bare(kind, outcome, error.cloned().unwrap_or_default())
}

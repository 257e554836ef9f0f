//! The host's journal: `journalctl` with the options that balena's API has, each checked.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::Supervisor;
use super::answers::failed;
use super::caller::Caller;
use super::request::Parameters;
use crate::model::{AppId, ServiceName};

/// The output of a program, piece by piece. Dropping it ends the program.
pub type Journal = BoxStream<'static, Vec<u8>>;

/// Runs `journalctl` with these arguments. An error is a line for people.
pub type OpenJournal = fn(Vec<String>) -> BoxFuture<'static, Result<Journal, String>>;

/// Lines if the request does not say, and most of them.
const USUAL_LINES: u64 = 1000;
const MOST_LINES: u64 = 10_000;

/// Most bytes of a response, and the longest time for it.
const MOST_BYTES: usize = 4 << 20;
const LONGEST: Duration = Duration::from_secs(300);

/// Responses at a time, of all services: each has a process.
const AT_ONCE: usize = 4;

/// Responses at a time to one service, so that another one finds a place.
const OF_ONE: usize = 2;

/// The formats of `journalctl` that are texts.
const FORMATS: [&str; 12] = [
    "short",
    "short-full",
    "short-iso",
    "short-iso-precise",
    "short-precise",
    "short-monotonic",
    "short-unix",
    "with-unit",
    "verbose",
    "cat",
    "json",
    "json-pretty",
];

/// Answers with the journal, if the owner allows that. `place` is that of the service, taken until the response ends.
pub(super) async fn read(
    supervisor: &Supervisor,
    parameters: &Parameters,
    (caller, place): (&Caller, OwnedSemaphorePermit),
) -> Response {
    if !supervisor.allowed.journal {
        let why = "the journal has the logs of the host and of all apps, and the owner of this device does not show it to apps: \
                   policy.features = \"yes\" allows it";
        return failed(StatusCode::FORBIDDEN, why);
    }
    let arguments = match arguments(parameters) {
        Ok(arguments) => arguments,
        Err(why) => return failed(StatusCode::BAD_REQUEST, &why),
    };
    let seat = match supervisor.journals.take(caller) {
        Ok(seat) => seat,
        Err(why) => return failed(StatusCode::SERVICE_UNAVAILABLE, why),
    };
    match (supervisor.journal)(arguments).await {
        Ok(journal) => {
            let body = bounded(journal, (place, seat)).map(Ok::<_, Infallible>);
            ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], Body::from_stream(body)).into_response()
        }
        Err(why) => {
            failed(StatusCode::NOT_IMPLEMENTED, &format!("the journal of this host cannot be read: {why}"))
        }
    }
}

/// The readers of the journal: how many each service has, and how many the cloud.
#[derive(Debug, Clone, Default)]
pub(super) struct Seats(Arc<Mutex<BTreeMap<Who, usize>>>);

/// An app and one of its services; `None` for the cloud.
type Who = Option<(AppId, ServiceName)>;

/// A place for one reader, until it is dropped.
pub(super) struct Seat {
    seats: Seats,
    of: Who,
}

impl Seats {
    /// Takes a place.
    ///
    /// # Errors
    ///
    /// Why there is none, for people.
    fn take(&self, caller: &Caller) -> Result<Seat, &'static str> {
        let of = caller.service().map(|(app, service)| (app.clone(), service.clone()));
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.get(&of).is_some_and(|count| *count >= OF_ONE) {
            return Err("this service reads the journal twice already; end a response, then try again");
        }
        if taken.values().sum::<usize>() >= AT_ONCE {
            return Err("the journal is read by others already; try again");
        }
        *taken.entry(of.clone()).or_default() += 1;
        Ok(Seat { seats: self.clone(), of })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = taken.get_mut(&self.of) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.of);
            }
        }
    }
}

/// Ends a journal after [`MOST_BYTES`] and after [`LONGEST`]. Keeps `places` until then.
fn bounded<P: Send + 'static>(journal: Journal, places: P) -> BoxStream<'static, Vec<u8>> {
    let until = Instant::now() + LONGEST;
    stream::unfold((journal, MOST_BYTES, places), move |(mut journal, left, places)| async move {
        if left == 0 {
            return None;
        }
        let mut piece = tokio::time::timeout_at(until, journal.next()).await.ok()??;
        piece.truncate(left);
        let left = left - piece.len();
        Some((piece, (journal, left, places)))
    })
    .boxed()
}

/// Returns the arguments of `journalctl` for a request. Every value is checked, and is part of its option.
fn arguments(parameters: &Parameters) -> Result<Vec<String>, String> {
    let lines = match parameters.text("count") {
        None => USUAL_LINES,
        Some(_) => {
            let count = parameters.number("count").filter(|count| (1..=MOST_LINES).contains(count));
            count.ok_or_else(|| format!("count must be a number from 1 to {MOST_LINES}"))?
        }
    };
    let format = parameters.text("format").unwrap_or_else(|| "short".to_owned());
    if !FORMATS.contains(&format.as_str()) {
        return Err(format!("format must be one of {}", FORMATS.join(", ")));
    }
    let mut all = vec!["--no-pager".to_owned(), format!("--lines={lines}"), format!("--output={format}")];
    all.extend(parameters.is_set("all").then(|| "--all".to_owned()));
    all.extend(parameters.is_set("follow").then(|| "--follow".to_owned()));
    for (name, accepts) in [
        ("unit", "the name of a unit of systemd, such as docker.service"),
        ("since", "a time of systemd, such as 2026-01-31 12:00:00 or -1h"),
        ("until", "a time of systemd, such as 2026-01-31 12:00:00 or -1h"),
    ] {
        let Some(value) = parameters.text(name) else { continue };
        let is_good = |c: char| match name {
            "unit" => c.is_ascii_alphanumeric() || "@._:-\\".contains(c),
            _ => c.is_ascii_alphanumeric() || " :.+@/_-".contains(c),
        };
        if value.is_empty() || value.len() > 255 || !value.chars().all(is_good) {
            return Err(format!("{name} must be {accepts}"));
        }
        all.push(format!("--{name}={value}"));
    }
    if let Some(id) = parameters.text("containerId") {
        let field = match (id.len(), id.chars().all(|c| c.is_ascii_hexdigit())) {
            (64, true) => "CONTAINER_ID_FULL",
            (12, true) => "CONTAINER_ID",
            _ => return Err("containerId must have 12 or 64 hex digits".to_owned()),
        };
        all.push(format!("{field}={}", id.to_ascii_lowercase()));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ApiClient, ApiKey};

    fn parsed(body: &str) -> Result<String, String> {
        arguments(&Parameters::parse("apikey=x", body.as_bytes(), false).unwrap()).map(|all| all.join(" "))
    }

    #[test]
    fn options_become_arguments_and_no_others() {
        let id = "0123456789AB";
        for (body, expected) in [
            ("", "--no-pager --lines=1000 --output=short"),
            (
                r#"{"all": true, "follow": "true", "count": 5, "format": "json", "unit": "docker.service", "since": "-1h"}"#,
                "--no-pager --lines=5 --output=json --all --follow --unit=docker.service --since=-1h",
            ),
            (
                &format!(r#"{{"containerId": "{id}"}}"#),
                "--no-pager --lines=1000 --output=short CONTAINER_ID=0123456789ab",
            ),
            (r#"{"vacuum-time": "1s", "file": "/etc/shadow"}"#, "--no-pager --lines=1000 --output=short"),
        ] {
            assert_eq!(parsed(body).as_deref(), Ok(expected), "{body}");
        }
        for (body, expected) in [
            (r#"{"count": 0}"#, "count must be"),
            (r#"{"count": 20000}"#, "count must be"),
            (r#"{"format": "export"}"#, "format must be one of short,"),
            (r#"{"unit": "a b"}"#, "unit must be"),
            (r#"{"unit": ""}"#, "unit must be"),
            (r#"{"since": "now\n--file=/x"}"#, "since must be"),
            (r#"{"until": "$(reboot)"}"#, "until must be"),
            (r#"{"containerId": "web"}"#, "containerId must have"),
        ] {
            assert!(parsed(body).unwrap_err().starts_with(expected), "{body}");
        }
    }

    #[test]
    fn no_service_takes_all_places() {
        let seats = Seats::default();
        let client = |service: &str| {
            Caller::Service(ApiClient {
                app: AppId::parse("ab".repeat(16)).unwrap(),
                service: ServiceName::parse(service).unwrap(),
                key: ApiKey { id: String::new(), secret: String::new() },
            })
        };
        let first = seats.take(&client("web")).unwrap();
        let _second = seats.take(&client("web")).unwrap();
        assert!(seats.take(&client("web")).is_err_and(|why| why.starts_with("this service")));
        let _others = [seats.take(&client("db")).unwrap(), seats.take(&Caller::Cloud).unwrap()];
        assert!(seats.take(&client("mail")).is_err_and(|why| why.contains("by others")));
        drop(first);
        assert!(seats.take(&client("mail")).is_ok());
        assert!(seats.take(&client("web")).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_journal_ends_after_its_bytes_and_after_its_time() {
        let endless = stream::repeat(vec![b'x'; 1 << 20]).boxed();
        let pieces: Vec<_> = bounded(endless, ()).collect().await;
        assert_eq!(pieces.iter().map(Vec::len).sum::<usize>(), MOST_BYTES);
        let begun = Instant::now();
        let silent = stream::once(async { b"x".to_vec() }).chain(stream::pending()).boxed();
        let pieces: Vec<_> = bounded(silent, ()).collect().await;
        assert_eq!((pieces.len(), begun.elapsed()), (1, LONGEST));
    }
}

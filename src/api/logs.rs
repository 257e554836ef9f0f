//! `GET /v1/logs` of the status socket: the log of a service.
//!
//! | query | |
//! | --- | --- |
//! | `service` | its name in the compose file |
//! | `app` | uuid or name, where several apps have such a service |
//! | `tail` | the last so many lines, 10,000 at most; 100 |
//! | `since` | only lines from then on, in seconds since 1970 |
//! | `follow` | `true`: continues with new lines, also from the container that replaces this one |
//!
//! The body is the bytes that the service wrote. A slow reader delays only itself, and nothing is buffered for it.

use std::fmt;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Extension, Query, State};
use axum::response::{IntoResponse, Response};
use futures_util::future::BoxFuture;
use futures_util::stream::{BoxStream, StreamExt};
use serde::{Deserialize, Serialize};

use super::answer::{busy, reply};
use super::readers::Readers;
use crate::listen::Visit;

/// How many earlier lines are sent if the request does not say.
const USUAL_TAIL: u32 = 100;
/// The most earlier lines that are sent.
const LONGEST_TAIL: u32 = 10_000;
/// The most logs that are read at a time, by privileged clients and as many by others. Each needs a connection to the
/// engine.
const AT_ONCE: usize = 8;

/// Which log, and how much of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogRequest {
    pub service: String,
    /// Uuid or name; absent: the only app that has such a service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tail: Option<u32>,
    /// Seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<i32>,
    #[serde(default)]
    pub follow: bool,
}

/// Why there is no log: a code of [`super::ControlAnswer`], and a line for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoLog {
    pub code: &'static str,
    pub why: String,
}

/// The bytes of a log, piece by piece. An error ends it.
pub type Log = BoxStream<'static, Result<Vec<u8>, String>>;

type Opened = BoxFuture<'static, Result<Log, NoLog>>;

/// Where logs come from.
#[derive(Clone)]
pub struct Logs {
    open: Arc<dyn Fn(LogRequest) -> Opened + Send + Sync>,
    readers: Readers,
}

impl Logs {
    /// Logs as `open` gives them.
    pub fn new(open: impl Fn(LogRequest) -> Opened + Send + Sync + 'static) -> Self {
        Self { open: Arc::new(open), readers: Readers::new(AT_ONCE) }
    }
}

impl fmt::Debug for Logs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Logs").finish_non_exhaustive()
    }
}

pub(super) async fn log(
    State(logs): State<Logs>,
    Extension(visit): Extension<Visit>,
    request: Result<Query<LogRequest>, axum::extract::rejection::QueryRejection>,
) -> Response {
    let mut request = match request {
        Ok(Query(request)) => request,
        Err(wrong) => return reply("bad_request", wrong.body_text()).into_response(),
    };
    request.tail = Some(request.tail.unwrap_or(USUAL_TAIL).min(LONGEST_TAIL));
    let Some(place) = logs.readers.take(&visit) else {
        return busy(&format!("{AT_ONCE} logs are read already")).into_response();
    };
    match (logs.open)(request).await {
        Ok(log) => {
            let log = log.map(move |piece| {
                let _until_the_end = &place;
                piece.map_err(std::io::Error::other)
            });
            Body::from_stream(log).into_response()
        }
        Err(NoLog { code, why }) => reply(code, why).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;
    use futures_util::{FutureExt, stream};

    use super::*;

    /// The answer to a query, whose body shows the request that the source of logs got.
    async fn asked(query: &str) -> (StatusCode, String) {
        let logs = Logs::new(|request| {
            let text = format!("{request:?}");
            async move { Ok(stream::iter([Ok(text.into_bytes())]).boxed()) }.boxed()
        });
        let query = Query::try_from_uri(&format!("http://a/v1/logs?{query}").parse().unwrap());
        let answer = log(State(logs), Extension(Visit::privileged()), query).await;
        let status = answer.status();
        let body = axum::body::to_bytes(answer.into_body(), 4096).await.unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn the_number_of_lines_is_bounded_and_unknown_fields_are_refused() {
        let request = LogRequest { service: "web".to_owned(), tail: Some(100), ..LogRequest::default() };
        assert_eq!(asked("service=web").await, (StatusCode::OK, format!("{request:?}")));
        let request = LogRequest { tail: Some(10_000), since: Some(7), follow: true, ..request };
        assert_eq!(
            asked("service=web&tail=4000000000&since=7&follow=true").await,
            (StatusCode::OK, format!("{request:?}"))
        );
        for wrong in ["", "service=web&tail=-1", "service=web&colour=red", "service=web&follow=maybe"] {
            let (status, body) = asked(wrong).await;
            assert_eq!(status, StatusCode::BAD_REQUEST, "{wrong}");
            assert!(body.contains("bad_request"), "{body}");
        }
    }

    #[tokio::test]
    async fn only_so_many_logs_are_read_at_once_and_one_that_ends_makes_room() {
        let logs = Logs::new(|_| async { Ok(stream::pending().boxed()) }.boxed());
        let ask = || async {
            let request = LogRequest { service: "web".to_owned(), ..LogRequest::default() };
            log(State(logs.clone()), Extension(Visit::privileged()), Ok(Query(request))).await
        };
        let mut open = Vec::new();
        for _ in 0..AT_ONCE {
            let answer = ask().await;
            assert_eq!(answer.status(), StatusCode::OK);
            open.push(answer);
        }
        assert_eq!(ask().await.status(), StatusCode::SERVICE_UNAVAILABLE);
        drop(open.pop());
        assert_eq!(ask().await.status(), StatusCode::OK);
    }
}

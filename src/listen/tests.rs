//! A real server on real sockets, with short times, and clients that behave badly.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Extension, Request};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use futures_util::{StreamExt, stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::*;

/// Times that no test reaches by chance.
const LONG: Duration = Duration::from_secs(60);
/// A time that is over soon.
pub(super) const SOON: Duration = Duration::from_millis(200);

pub(super) const LIMITS: Limits = Limits {
    ordinary: 4,
    privileged: 2,
    per_user: 4,
    spare: 2,
    head: LONG,
    idle: LONG,
    stalled: LONG,
    response: None,
    body: LONG,
    ordinary_bodies: 8 << 10,
    privileged_bodies: 8 << 10,
    linger: Duration::from_secs(2),
};

/// More than any socket takes.
pub(super) const LARGE: usize = 64 << 20;
/// What the routes below read of a body at most.
const LARGEST: usize = 4 << 10;

/// A server whose clients tell their rank by a header, as keys do: `a` admits as an ordinary client, `b` as a privileged one.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    stop: CancellationToken,
    tasks: JoinSet<Ended>,
}

impl Server {
    fn start(limits: Limits) -> Self {
        Self::start_at(Listener::tcp("127.0.0.1:0".parse().unwrap()).unwrap(), limits)
    }

    pub(super) fn start_at(listener: Listener, limits: Limits) -> Self {
        let address = listener.address().unwrap();
        let routes = Router::new()
            .route("/echo", any(echo))
            .route("/endless", get(endless))
            .route("/late", get(late))
            .route("/client", get(client))
            .route(
                "/large",
                get(async |Extension(v): Extension<Visit>| admit(&v, "a").map(|_| "x".repeat(LARGE))),
            );
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(listener, routes, limits, Admission::ByRoutes, stop.clone(), "test"));
        Self { address, stop, tasks }
    }

    async fn open(&self, text: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        stream
    }

    /// All that is answered to `text`; the server closes the connection.
    async fn ask(&self, text: &str) -> String {
        all(self.open(text).await).await
    }

    pub(super) async fn end(mut self) -> Ended {
        self.stop.cancel();
        self.tasks.join_next().await.unwrap().unwrap()
    }
}

/// What comes until the other side closes the connection, in whichever way.
async fn all(mut stream: TcpStream) -> String {
    let mut bytes = Vec::new();
    let read = async {
        let mut part = [0; 4096];
        while let Ok(n @ 1..) = stream.read(&mut part).await {
            bytes.extend_from_slice(&part[..n]);
        }
    };
    let is_closed = tokio::time::timeout(Duration::from_secs(20), read).await.is_ok();
    let text = String::from_utf8(bytes).unwrap();
    assert!(is_closed, "the server does not close the connection after {text:?}");
    text
}

#[expect(clippy::result_large_err, reason = "few tests")]
fn admit(visit: &Visit, key: &str) -> Result<Admitted, Response> {
    let rank = match key {
        "a" => Rank::Ordinary,
        "b" => Rank::Privileged,
        _ => return Err(StatusCode::UNAUTHORIZED.into_response()),
    };
    let busy = |_| (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, RETRY_AFTER)]).into_response();
    visit.admit(rank).map_err(busy)
}

async fn echo(Extension(visit): Extension<Visit>, request: Request) -> Result<Vec<u8>, Response> {
    let key = request.headers().get("key").and_then(|key| key.to_str().ok()).unwrap_or_default();
    let admitted = admit(&visit, key)?;
    let read = admitted.read(request.into_body(), LARGEST).await;
    read.map(|body| body.to_vec()).map_err(|unread| match unread {
        Unread::TooLarge => StatusCode::PAYLOAD_TOO_LARGE.into_response(),
        Unread::TooSlow => StatusCode::REQUEST_TIMEOUT.into_response(),
        Unread::Busy => StatusCode::SERVICE_UNAVAILABLE.into_response(),
        Unread::Broken => StatusCode::BAD_REQUEST.into_response(),
    })
}

/// Keeps its place until the client goes.
async fn endless(Extension(visit): Extension<Visit>, request: Request) -> Result<Body, Response> {
    let key = request.headers().get("key").and_then(|key| key.to_str().ok()).unwrap_or_default();
    admit(&visit, key)?;
    Ok(Body::from_stream(stream::iter([Ok::<_, io::Error>("begun")]).chain(stream::pending())))
}

/// Says who asks.
async fn client(Extension(visit): Extension<Visit>) -> Result<String, Response> {
    admit(&visit, "a")?;
    Ok(visit.client().map_or_else(|| "none".to_owned(), |client| client.to_string()))
}

/// A response whose second half comes when nothing has come for long.
async fn late(Extension(visit): Extension<Visit>) -> Result<Body, Response> {
    admit(&visit, "a")?;
    let late = stream::once(async {
        tokio::time::sleep(SOON * 3).await;
        Ok("second")
    });
    Ok(Body::from_stream(stream::iter([Ok::<_, io::Error>("first, ")]).chain(late)))
}

const ENDLESS: &str = "GET /endless HTTP/1.1\r\nHost: a\r\nkey: a\r\n\r\n";

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or("closed")
}

/// A request whose response has begun.
async fn begun(server: &Server, text: &str) -> TcpStream {
    let mut stream = server.open(text).await;
    let mut received = Vec::new();
    while !received.ends_with(b"begun\r\n") {
        assert_ne!(
            stream.read_buf(&mut received).await.unwrap(),
            0,
            "{}",
            String::from_utf8_lossy(&received)
        );
    }
    stream
}

#[tokio::test]
async fn silent_connections_make_room_for_newcomers() {
    let server = Server::start(LIMITS);
    let mut silent = Vec::new();
    for text in ["", "GET", "GET /echo HTTP/1.1\r\nkey:", ""].iter().cycle().take(40) {
        silent.push(server.open(text).await);
    }
    let ask = "GET /echo HTTP/1.0\r\nkey: a\r\n\r\n";
    assert_eq!(status(&server.ask(ask).await), "200");
    let first = silent.remove(0);
    assert_eq!(all(first).await, "", "the oldest was closed");
    assert_eq!(server.end().await, Ended::Complete);
}

#[tokio::test]
async fn places_of_requests_are_kept_apart_by_rank() {
    let server = Server::start(LIMITS);
    let mut taken = Vec::new();
    for _ in 0..LIMITS.ordinary {
        taken.push(begun(&server, ENDLESS).await);
    }
    let silent = server.open("GET").await;
    let refused = server.ask("GET /echo HTTP/1.0\r\nkey: a\r\n\r\n").await;
    assert_eq!(status(&refused), "503", "{refused}");
    assert!(refused.contains("retry-after: 5"), "{refused}");
    assert_eq!(status(&server.ask("GET /echo HTTP/1.0\r\n\r\n").await), "401", "strangers need no place");
    for _ in 0..LIMITS.privileged {
        taken.push(begun(&server, &ENDLESS.replace("key: a", "key: b")).await);
    }
    assert_eq!(status(&server.ask("GET /echo HTTP/1.0\r\nkey: b\r\n\r\n").await), "503");
    drop(silent);
    // A client that goes gives its place back.
    drop(taken.remove(0));
    let mut answer = String::new();
    while status(&answer) != "200" {
        answer = server.ask("GET /echo HTTP/1.0\r\nkey: a\r\n\r\n").await;
    }
    assert_eq!(server.end().await, Ended::Cut, "who does not end is cut off");
}

#[tokio::test]
async fn a_kept_connection_gives_its_place_back_after_each_response() {
    let server = Server::start(Limits { ordinary: 1, ..LIMITS });
    let ask = "POST /echo HTTP/1.1\r\nkey: a\r\nContent-Length: 2\r\n\r\nhi";
    let mut kept = server.open("").await;
    for _ in 0..3 {
        kept.write_all(ask.as_bytes()).await.unwrap();
        let mut received = Vec::new();
        while !received.ends_with(b"\r\n\r\nhi") {
            assert_ne!(kept.read_buf(&mut received).await.unwrap(), 0);
        }
        assert_eq!(status(&server.ask("GET /echo HTTP/1.0\r\nkey: a\r\n\r\n").await), "200");
    }
    // Several at once are answered one after the other, and take one place.
    let last = ask.replace("\r\nkey", "\r\nConnection: close\r\nkey");
    kept.write_all(format!("{ask}{ask}{last}").as_bytes()).await.unwrap();
    assert_eq!(all(kept).await.matches("HTTP/1.1 200 OK").count(), 3);
    assert_eq!(server.end().await, Ended::Complete);
}

#[tokio::test]
async fn whoever_is_too_slow_is_closed() {
    let limits = Limits { head: SOON, idle: SOON * 2, body: SOON, ..LIMITS };
    let server = Server::start(limits);
    let body = "POST /echo HTTP/1.1\r\nkey: a\r\nContent-Length: 9\r\n\r\nhalf";
    for (why, text, expected) in [
        ("silent", "", "closed"),
        ("half a head", "GET /echo HTTP/1.1\r\nHos", "closed"),
        ("half a body", body, "408"),
        ("half a chunk", "POST /echo HTTP/1.1\r\nkey: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nha", "408"),
        ("a kept connection", "GET /echo HTTP/1.1\r\nkey: a\r\n\r\n", "200"),
        ("half a head after that", "GET /echo HTTP/1.1\r\nkey: a\r\n\r\nGET /ec", "200"),
    ] {
        assert_eq!(status(&server.ask(text).await), expected, "{why}");
    }
    // A head that trickles in has no longer than one that stands still.
    let mut trickle = server.open("G").await;
    let mut sent = 0_usize;
    while trickle.write_all(b"E").await.is_ok() {
        sent += 1;
        assert!(sent < 1000, "it is closed at last");
        tokio::time::sleep(SOON / 10).await;
    }
    // A response may take its time.
    let late = server.ask("GET /late HTTP/1.0\r\n\r\n").await;
    assert!(late.ends_with("first, second"), "{late}");
    assert_eq!(server.end().await, Ended::Complete);
}

#[tokio::test]
async fn whoever_does_not_read_is_closed() {
    for limits in [Limits { stalled: SOON, ..LIMITS }, Limits { response: Some(SOON), ..LIMITS }] {
        let server = Server::start(limits);
        let mut large = server.open("GET /large HTTP/1.1\r\nHost: a\r\n\r\n").await;
        for _ in 0..100 {
            tokio::time::sleep(SOON / 10).await;
            // Where the whole response has its time, reading a little is not enough.
            if limits.response.is_some() {
                let _some = large.read(&mut [0; 16]).await;
            }
        }
        let got = all(large).await.len();
        assert!(got > 0 && got < LARGE - 101 * 16, "{got}");
        assert_eq!(server.end().await, Ended::Complete);
    }
}

/// As a download over a slow line.
#[tokio::test]
async fn whoever_reads_a_long_response_steadily_is_not_closed() {
    let server = Server::start(Limits { response: Some(SOON * 3), ..LIMITS });
    let mut large = server.open("GET /large HTTP/1.0\r\n\r\n").await;
    let mut part = vec![0; 64 << 10];
    let (begun, mut got) = (tokio::time::Instant::now(), 0);
    while let Ok(read @ 1..) = large.read(&mut part).await {
        got += read;
        if begun.elapsed() < SOON * 15 {
            tokio::time::sleep(SOON / 20).await;
        }
    }
    assert!(begun.elapsed() >= SOON * 15 && got > LARGE, "{got} in {:?}", begun.elapsed());
    assert_eq!(server.end().await, Ended::Complete);
}

/// Sends requests one after the other, and reads no response.
#[tokio::test]
async fn whoever_only_asks_is_closed() {
    let server = Server::start(Limits { stalled: SOON, ..LIMITS });
    let mut stream = server.open("").await;
    let many = "GET /echo HTTP/1.1\r\nHost: a\r\n\r\n".repeat(1000);
    let closed = async { while stream.write_all(many.as_bytes()).await.is_ok() {} };
    tokio::time::timeout(Duration::from_secs(20), closed).await.expect("the server closes the connection");
    assert_eq!(server.end().await, Ended::Complete);
}

#[tokio::test]
async fn a_body_is_read_only_of_who_was_admitted() {
    let server = Server::start(LIMITS);
    let post = |key: &str, more: &str| format!("POST /echo HTTP/1.1\r\nkey: {key}\r\n{more}");
    // The body of the first never comes: the answer does not wait for it.
    for (why, text, expected) in [
        ("a stranger", post("x", "Content-Length: 4000\r\n\r\n"), "401"),
        ("with Expect", post("x", "Content-Length: 4000\r\nExpect: 100-continue\r\n\r\n"), "401"),
        ("in chunks", post("x", "Transfer-Encoding: chunked\r\n\r\n"), "401"),
        ("too large", post("a", "Content-Length: 5000\r\n\r\n"), "413"),
        (
            "too large by its chunks",
            post("a", &format!("Transfer-Encoding: chunked\r\n\r\n1389\r\n{}", "x".repeat(5001))),
            "413",
        ),
    ] {
        let answer = server.ask(&text).await;
        assert_eq!(status(&answer), expected, "{why}: {answer}");
        assert_eq!(
            answer.contains("connection: close"),
            expected == "401" || why.contains("chunks"),
            "{why}: {answer}"
        );
    }
    let answer = server
        .ask(&post("a", "Connection: close\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nhi"))
        .await;
    assert!(
        answer.starts_with("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n") && answer.ends_with("hi"),
        "{answer}"
    );
    // A body that a stranger goes on sending does not destroy the answer.
    let answer =
        server.ask(&post("x", &format!("Content-Length: 200000\r\n\r\n{}", "x".repeat(200_000)))).await;
    assert_eq!(status(&answer), "401", "{answer}");
    assert_eq!(server.end().await, Ended::Complete);
}

#[tokio::test]
async fn bodies_share_a_budget() {
    let server = Server::start(Limits { body: SOON, ordinary_bodies: 3 << 10, ..LIMITS });
    let head = |key: &str, length: usize| {
        format!("POST /echo HTTP/1.1\r\nConnection: close\r\nkey: {key}\r\nContent-Length: {length}\r\n\r\n")
    };
    let post = |key: &str, length: usize| head(key, length) + &"x".repeat(length);
    for (why, key, length, expected) in [
        ("it fits", "a", 3 << 10, "200"),
        ("what was given back is there again", "a", 3 << 10, "200"),
        ("more than there is never fits", "a", 4 << 10, "503"),
        ("the other rank has a budget of its own", "b", 4 << 10, "200"),
    ] {
        assert_eq!(status(&server.ask(&post(key, length)).await), expected, "{why}");
    }
    // Those that do not come to an end give their share back after their time.
    for _ in 0..3 {
        assert_eq!(status(&server.ask(&head("a", 1 << 10)).await), "408");
    }
    assert_eq!(status(&server.ask(&post("a", 3 << 10)).await), "200");
    assert_eq!(server.end().await, Ended::Complete);
}

/// Sends a request and reads its answer, whose body is one line without an end.
async fn who(stream: &mut TcpStream, forwarded: &str) -> String {
    let request = format!("GET /client HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: {forwarded}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut received = Vec::new();
    loop {
        let text = String::from_utf8(received.clone()).unwrap();
        if let Some((head, body)) = text.split_once("\r\n\r\n")
            && head.contains(&format!("content-length: {}", body.len()))
        {
            return body.to_owned();
        }
        assert_ne!(stream.read_buf(&mut received).await.unwrap_or(0), 0, "closed after {text:?}");
    }
}

#[tokio::test]
async fn only_a_trusted_proxy_names_its_clients() {
    for (proxy, expected) in [("127.0.0.0/8", "192.0.2.1"), ("127.0.0.2", "127.0.0.1")] {
        let listener = Listener::tcp("127.0.0.1:0".parse().unwrap()).unwrap();
        let server = Server::start_at(listener.behind([proxy.parse().unwrap()].into()), LIMITS);
        let mut stream = server.open("").await;
        assert_eq!(who(&mut stream, "198.51.100.1, 192.0.2.1").await, expected, "{proxy}");
        drop(stream);
        assert_eq!(server.end().await, Ended::Complete);
    }
}

/// The oldest connection is that of a client that has only this one, behind the same proxy as another that has many.
#[tokio::test]
async fn clients_behind_a_proxy_make_room_by_their_own_number() {
    let listener = Listener::tcp("127.0.0.1:0".parse().unwrap()).unwrap();
    let server = Server::start_at(listener.behind(["127.0.0.1".parse().unwrap()].into()), LIMITS);
    let mut lone = server.open("").await;
    assert_eq!(who(&mut lone, "192.0.2.1").await, "192.0.2.1");
    let mut many = Vec::new();
    for _ in 0..20 {
        let mut stream = server.open("").await;
        assert_eq!(who(&mut stream, "192.0.2.2").await, "192.0.2.2");
        many.push(stream);
    }
    assert_eq!(all(many.remove(0)).await, "", "the oldest of the many was closed");
    assert_eq!(who(&mut lone, "192.0.2.1").await, "192.0.2.1", "the lone one is still open");
    drop((lone, many));
    assert_eq!(server.end().await, Ended::Complete);
}

/// What a proxy and a server could read in two ways, and what is no request at all.
#[tokio::test]
async fn what_is_not_quite_http_is_refused() {
    let server = Server::start(LIMITS);
    let long = "x".repeat(20_000);
    let many: String = (0..200).map(|n| format!("h{n}: x\r\n")).collect();
    let get = |more: &str| format!("GET /echo HTTP/1.1\r\nkey: a\r\n{more}\r\n");
    for (why, text, expected) in [
        ("the greeting of TLS", "\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}\u{0}".to_owned(), "400"),
        ("the preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), "closed"),
        ("a long header", get(&format!("x: {long}\r\n")), "431"),
        ("many headers", get(&many), "431"),
        ("a long path", format!("GET /{long} HTTP/1.1\r\n\r\n"), "431"),
        ("two lengths", get("Content-Length: 1\r\nContent-Length: 2\r\n"), "400"),
        ("a length that is none", get("Content-Length: +1\r\n"), "400"),
        ("chunks that do not end it", get("Transfer-Encoding: chunked, identity\r\n"), "400"),
        ("chunks in HTTP/1.0", get("Transfer-Encoding: chunked\r\n").replace("1.1", "1.0"), "400"),
        ("a space before the colon", get("Content-Length : 1\r\n"), "400"),
        ("a chunk whose size is none", format!("{}zz\r\n", get("Transfer-Encoding: chunked\r\n")), "400"),
    ] {
        let answer = server.ask(&text).await;
        assert_eq!(status(&answer), expected, "{why}: {answer}");
    }
    // Both lengths: the chunks count, and nothing is read after them.
    for both in [
        "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n",
    ] {
        let smuggled = format!("{}2\r\nhi\r\n0\r\n\r\n{}", get(both), get(""));
        let answer = server.ask(&smuggled).await;
        assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
        assert!(answer.contains("connection: close") && answer.ends_with("hi"), "{answer}");
    }
    assert_eq!(server.end().await, Ended::Complete);
}

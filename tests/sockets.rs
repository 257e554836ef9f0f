//! The sockets of the real agent, as programs see them: their document, their bounds, and readers that do not read. No
//! engine answers here, and none is needed.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use support::{Program, eventually, http_get, metrics, schema, unix_get};

/// An agent without an engine and without a cloud.
struct Alone {
    program: Option<Program>,
    folder: tempfile::TempDir,
}

impl Alone {
    fn new(more: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().display();
        let settings = format!(
            "instance = \"alone\"\nstate_dir = \"{dir}/state\"\nruntime_dir = \"{dir}/run\"\n[engine]\nsocket = \"{dir}/none.sock\"\n{more}"
        );
        std::fs::write(folder.path().join("agent.toml"), settings).unwrap();
        let mut alone = Self { program: None, folder };
        alone.start();
        alone
    }

    fn start(&mut self) {
        let mut command = Program::cotter();
        command.arg("agent").arg("--config").arg(self.path("agent.toml"));
        self.program = Some(Program::start("agent", command, &self.path("agent.log")));
        eventually("an agent that answers", Duration::from_secs(10), || {
            unix_get(&self.path("run/status.sock"), "/v1/status")
        });
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn get(&self, path: &str) -> support::Answer {
        unix_get(&self.path("run/status.sock"), path).expect("an answer")
    }

    /// Sends `text` over a socket and leaves the connection open.
    fn open(&self, socket: &str, text: &str) -> UnixStream {
        let mut stream = UnixStream::connect(self.path(socket)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.write_all(text.as_bytes()).unwrap();
        stream
    }

    /// Status and JSON of a POST to the control socket.
    fn post(&self, path: &str, body: &str) -> (u64, Value) {
        let length = body.len();
        let text = format!("POST {path} HTTP/1.0\r\nHost: agent\r\nContent-Length: {length}\r\n\r\n{body}");
        let mut answer = String::new();
        self.open("run/control.sock", &text).read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), serde_json::from_str(body).unwrap())
    }

    fn order(&self, args: &[&str]) -> std::process::Output {
        Program::cotter().args(args).arg("--socket").arg(self.path("run/control.sock")).output().unwrap()
    }
}

/// A reader of server-sent events: the messages, each as its lines.
fn events(stream: UnixStream) -> impl Iterator<Item = Vec<String>> {
    let mut lines = BufReader::new(stream).lines();
    std::iter::from_fn(move || {
        let mut message = Vec::new();
        loop {
            // Lengths of chunks stand between; what is meant has a colon.
            let line = lines.next()?.ok()?;
            match line.trim_end() {
                "" if !message.is_empty() => return Some(message),
                line if line.starts_with("id: ")
                    || line.starts_with("event: ")
                    || line.starts_with("data: ") =>
                {
                    message.push(line.to_owned());
                }
                // There is nothing more for now.
                line if line.starts_with(':') => return None,
                _ => {}
            }
        }
    })
}

const FOLLOW: &str = "GET /v1/events HTTP/1.1\r\nHost: agent\r\n\r\n";

#[test]
fn the_document_is_true() {
    let alone = Alone::new("");
    let document = alone.get("/v1/openapi.json").json();
    let described = |path: &str, method: &str, status: u64| {
        let answer = &document["paths"][path][method]["responses"][status.to_string()];
        let shared = answer["$ref"].as_str().and_then(|r| document.pointer(r.trim_start_matches('#')));
        let answer = shared.unwrap_or(answer).clone();
        assert!(answer.is_object(), "{method} {path} may answer {status}, which the document does not have");
        answer["content"].clone()
    };
    assert!(alone.order(&["hold", "--reason", "for the schema"]).status.success());
    let lock = alone.post("/v1/locks", r#"{"reason": "r", "ttl_s": 60}"#);
    for (path, operations) in document["paths"].as_object().unwrap() {
        if operations.get("get").is_some() {
            let answer = alone.get(&path.replace("events", "events?follow=false"));
            let content = described(path, "get", answer.status.into());
            let (kind, schema) = content.as_object().unwrap().iter().next().unwrap();
            let mut schema = &schema["schema"];
            let printed: Vec<Value> = match kind.as_str() {
                "application/json" => vec![answer.json()],
                "text/event-stream" => {
                    schema = &schema["properties"]["data"]["contentSchema"];
                    let data = answer.body.lines().filter_map(|line| line.strip_prefix("data: "));
                    data.map(|data| serde_json::from_str(data).unwrap()).collect()
                }
                other => {
                    assert_eq!(other, "text/plain");
                    continue;
                }
            };
            assert!(!printed.is_empty(), "{path}");
            for value in printed {
                // Of the document itself only that it is one is said.
                if path != "/v1/openapi.json" {
                    assert_eq!(schema::wrong(&document, schema, &value), Vec::<String>::new(), "{path}");
                }
            }
            continue;
        }
        // An unknown field is refused, and the answer names those that are known.
        let (status, answer) = alone.post(path, r#"{"no-such-field": 1}"#);
        let printed = answer["message"].as_str().unwrap();
        let known: BTreeSet<_> = printed.split('`').skip(3).step_by(2).map(str::to_owned).collect();
        let body = &operations["post"]["requestBody"]["content"]["application/json"]["schema"];
        let name = body["$ref"].as_str().map(|r| r.trim_start_matches('#'));
        let properties = name.and_then(|name| document.pointer(name)).map(|s| s["properties"].clone());
        let documented = properties.iter().flat_map(|p| p.as_object().unwrap().keys().cloned()).collect();
        assert_eq!(known, documented, "{path}: {printed}");
        let content = described(path, "post", status);
        let schema = &content["application/json"]["schema"];
        assert_eq!(schema::wrong(&document, schema, &answer), Vec::<String>::new(), "{path}");
    }
    let schema = &document["components"]["schemas"]["Answer"];
    assert_eq!(schema::wrong(&document, schema, &lock.1), Vec::<String>::new());
    assert_eq!(alone.get("/v1/events?follow=maybe").status, 400);
    assert_eq!(alone.get("/v2").json()["code"], "not_found");
    let (status, answer) = alone.post("/v1/unhold", "[]");
    assert_eq!((status, &answer["code"]), (400, &json!("bad_request")), "{answer}");
    assert_eq!(alone.post("/v1/status", "{}").1["code"], "not_found", "it is asked elsewhere");
}

#[test]
fn metrics_are_served_at_an_address_only_when_one_is_set() {
    let alone = Alone::new("");
    // The agent may answer before it has looked at the engine for the first time.
    let page = eventually("an engine that is away", Duration::from_secs(10), || {
        let page = metrics::Page::read(&alone.get("/v1/metrics").body);
        (page.value("cotter_engine_up") == Some(0.0)).then_some(page)
    });
    assert_eq!(page.value("cotter_store_up"), Some(1.0));
    drop(alone);
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut alone = Alone::new(&format!("[metrics]\nlisten = \"{port}\"\n"));
    let page = eventually("metrics", Duration::from_secs(10), || http_get(&port.to_string(), "/metrics"));
    assert_eq!(page.status, 200);
    assert!(metrics::Page::read(&page.body).value("cotter_held").is_some(), "{}", page.body);
    assert_eq!(http_get(&port.to_string(), "/v1/status").unwrap().status, 404, "and nothing else");
    assert!(alone.program.take().unwrap().stop().success());
}

#[test]
fn events_go_on_where_a_reader_was_and_over_a_restart() {
    let mut alone = Alone::new("");
    let mut reader = events(alone.open("run/status.sock", FOLLOW));
    let mut until = |word: &str| loop {
        let message = reader.next().expect("it goes on");
        if message.iter().any(|line| line.contains(&format!("\"word\":\"{word}\""))) {
            return message[0].strip_prefix("id: ").unwrap().to_owned();
        }
    };
    assert!(alone.order(&["hold"]).status.success());
    let held = until("hold");
    assert!(alone.order(&["unhold"]).status.success());
    until("unhold");
    drop(reader);

    let resume = format!("GET /v1/events?follow=false HTTP/1.0\r\nLast-Event-ID: {held}\r\n\r\n");
    let words = |text: &str| {
        let stream = alone.open("run/status.sock", text);
        let data = events(stream).map(|m| m.last().unwrap().strip_prefix("data: ").unwrap().to_owned());
        let json = data.map(|data| serde_json::from_str::<Value>(&data).unwrap());
        json.filter(|e| e["kind"] == "order").map(|e| e["word"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(words(&resume), [json!("unhold")]);

    // After a restart the ids are others, and all that is kept is news.
    alone.program.take().unwrap().cut();
    alone.start();
    assert!(alone.order(&["retry"]).status.success());
    let words = {
        let stream = alone.open("run/status.sock", &resume);
        events(stream).filter(|m| m.iter().any(|line| line.contains("\"word\":\"retry\""))).count()
    };
    assert_eq!(words, 1);
}

#[test]
fn a_client_that_does_not_read_delays_no_other() {
    let mut alone = Alone::new("");
    // Readers that never read, and as many connections that never say anything.
    let readers: Vec<_> = (0..8).map(|_| alone.open("run/status.sock", FOLLOW)).collect();
    eventually("all places of readers are taken", Duration::from_secs(10), || {
        (alone.get("/v1/events?follow=false").status == 503).then_some(())
    });
    let silent: Vec<_> = (0..12).map(|_| alone.open("run/status.sock", "")).collect();
    let halves: Vec<_> =
        (0..8).map(|_| alone.open("run/control.sock", "POST /v1/hold HTTP/1.1\r\nHost: a")).collect();
    // Far more events than a socket takes.
    let unknown = format!("{{\"app\": \"{}\"}}", "x".repeat(255));
    for _ in 0..1500 {
        assert_eq!(alone.post("/v1/retry", &unknown).0, 404);
    }
    assert_eq!(alone.post("/v1/hold", "").0, 200, "an order is followed all the same");
    assert!(alone.get("/v1/status").json()["hold"].is_object());
    let printed = |stream: &UnixStream| {
        let mut messages = events(stream.try_clone().unwrap());
        messages.find(|m| m[0] == "event: missed").map(|m| m[1].clone())
    };
    let missed = printed(&readers[0]).expect("it is informed that it missed some");
    assert!(missed.contains(" events\""), "{missed}");

    // They do not keep the agent from its end either.
    assert!(alone.program.take().unwrap().stop().success());
    assert!(!std::fs::read_to_string(alone.path("agent.log")).unwrap().contains("did not end in time"));
    drop((readers, silent, halves));
}

/// Another user of this machine, who may use the status socket.
const NOBODY: u32 = 65534;

/// What `act` gives when a thread of another user does it.
fn as_user<T: Send>(user: u32, act: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            rustix::thread::set_thread_uid(rustix::fs::Uid::from_raw(user)).expect("the tests run as root");
            act()
        });
        thread.join().unwrap()
    })
}

impl Alone {
    /// Lets every user of this machine use the status socket.
    fn let_all_in(&self) {
        use std::os::unix::fs::PermissionsExt;
        for (path, mode) in [("", 0o755), ("run", 0o755), ("run/status.sock", 0o666)] {
            std::fs::set_permissions(self.path(path), std::fs::Permissions::from_mode(mode)).unwrap();
        }
    }

    fn status(&self) -> std::process::Output {
        let socket = self.path("run/status.sock");
        Program::cotter().arg("status").arg("--socket").arg(socket).output().unwrap()
    }

    fn times_logged(&self, words: &str) -> usize {
        self.program.as_ref().unwrap().log().lines().filter(|line| line.contains(words)).count()
    }
}

/// Half requests of another user, many times more than there are places.
#[test]
fn half_requests_keep_no_client_out() {
    let mut alone = Alone::new("");
    alone.let_all_in();
    let half = "GET /v1/status HTTP/1.1\r\nHost: a";
    let mut halves: Vec<_> = as_user(NOBODY, || {
        let texts = [half, "", "G"].into_iter().cycle().take(300);
        texts.map(|text| alone.open("run/status.sock", text)).collect()
    });
    halves.extend((0..100).map(|_| alone.open("run/control.sock", "POST /v1/hold HTTP/1.1\r\nHost: a")));
    let printed = alone.status();
    assert!(printed.status.success(), "{}", String::from_utf8_lossy(&printed.stderr));
    assert!(alone.order(&["hold"]).status.success(), "orders are followed");
    for user in [NOBODY, NOBODY - 1] {
        let printed = as_user(user, || alone.get("/v1/status"));
        assert_eq!(printed.status, 200, "newcomers take the places of those who wait");
    }
    let warnings = alone.times_logged("too many clients");
    assert_eq!(warnings, 2, "one for each socket");
    assert!(alone.program.take().unwrap().stop().success());
    drop(halves);
}

/// Another user takes all places for readers of events. Root and other users go on.
#[test]
fn readers_of_one_user_keep_no_other_user_out() {
    let alone = Alone::new("");
    alone.let_all_in();
    let readers: Vec<_> =
        as_user(NOBODY, || (0..20).map(|_| alone.open("run/status.sock", FOLLOW)).collect());
    let refused = eventually("all places of readers are taken", Duration::from_secs(10), || {
        let printed = as_user(NOBODY, || alone.get("/v1/events?follow=false"));
        (printed.status == 503).then_some(printed)
    });
    assert_eq!(refused.json()["code"], "busy");
    let own = as_user(NOBODY, || alone.get("/v1/status").status);
    assert_eq!(own, 200, "events have places of their own");
    assert_eq!(as_user(NOBODY - 1, || alone.get("/v1/status").status), 200);
    assert!(alone.status().status.success());
    assert_eq!(alone.get("/v1/events?follow=false").status, 200, "and so has root");
    drop(readers);
}

/// Requests that trickle in are closed after their time, and so are bodies.
#[test]
fn a_request_that_does_not_come_to_an_end_is_closed() {
    let alone = Alone::new("");
    let mut head = alone.open("run/status.sock", "GET /v1/status HTTP/1.1\r\nHost: a");
    let mut body =
        alone.open("run/control.sock", "POST /v1/hold HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n{");
    let mut printed = String::new();
    assert_eq!(head.read_to_string(&mut printed).unwrap_or_default(), 0, "{printed}");
    body.read_to_string(&mut printed).unwrap();
    assert!(printed.starts_with("HTTP/1.1 408") && printed.contains("did not arrive in time"), "{printed}");
}

/// What the command line says of an agent that is there and gives no answer, and of one that is busy.
#[test]
fn an_agent_that_does_not_answer_differs_from_a_missing_one() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("status.sock");
    let ask = |verb: &str| {
        let printed = Program::cotter().arg(verb).arg("--socket").arg(&socket).output().unwrap();
        assert_eq!(printed.status.code(), Some(3), "{printed:?}");
        String::from_utf8(printed.stderr).unwrap()
    };
    assert!(ask("status").contains("no agent answers at"));
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let printed = ask("status");
    assert!(printed.contains("does not answer (not within 5 s)"), "{printed}");
    drop(listener);
    std::fs::remove_file(&socket).unwrap();
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, mut head) = (stream.unwrap(), [0; 1024]);
            // The command line looks first whether it may connect.
            if stream.read(&mut head).is_ok_and(|n| n > 0) {
                let body = r#"{"schema_version":1,"code":"busy","message":"the agent is busy: so it is"}"#;
                let length = body.len();
                let head = "HTTP/1.1 503 Service Unavailable\r\nConnection: close";
                let _gone = write!(stream, "{head}\r\nContent-Length: {length}\r\n\r\n{body}");
            }
        }
    });
    for verb in ["status", "plan", "history", "events", "explain"] {
        let printed = ask(verb);
        assert!(printed.contains("the agent is busy: so it is"), "{verb}: {printed}");
    }
}

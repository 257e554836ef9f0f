//! The engine's API without a client: its events, and swaps as fast as the engine makes them.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::support::{Answer, eventually};

/// What happened to a container.
#[derive(Debug, Clone)]
pub struct Event {
    /// Nanoseconds of the wall clock, as the engine says.
    pub at: u64,
    /// "start", "die", ...
    pub action: String,
    pub id: String,
    pub service: String,
}

/// The wall clock now, in nanoseconds, which is what the engine's events bear.
pub fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970");
    u64::try_from(since.as_nanos()).expect("it is before 2554")
}

/// One request over a unix socket.
///
/// # Panics
///
/// When there is no whole answer within 60 s.
#[track_caller]
pub fn request(socket: &Path, method: &str, path: &str, body: Option<&Value>) -> Answer {
    let mut stream = UnixStream::connect(socket).expect("the socket answers");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout can be set");
    let body = body.map(Value::to_string).unwrap_or_default();
    let length = body.len();
    // HTTP/1.0: the answer is never chunked, and ends with the connection.
    let head = format!(
        "{method} {path} HTTP/1.0\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    );
    stream.write_all(format!("{head}{body}").as_bytes()).expect("it listens");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("it answers");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
    let status = head.split_whitespace().nth(1).and_then(|word| word.parse().ok());
    Answer { status: status.expect("a status"), body: body.to_owned() }
}

/// Everything but letters and digits as `%XX`.
fn escaped(text: &str) -> String {
    let byte =
        |b: u8| if b.is_ascii_alphanumeric() { char::from(b).to_string() } else { format!("%{b:02X}") };
    text.bytes().map(byte).collect()
}

/// Listens to what happens to the containers of an instance.
pub struct Events {
    seen: Arc<Mutex<Vec<Event>>>,
    stream: UnixStream,
}

impl Events {
    /// Begins to listen; returns once the engine tells.
    #[track_caller]
    pub fn listen(engine: &Path, instance: &str) -> Self {
        let filters = json!({ "type": ["container"], "label": [format!("io.cotter.instance={instance}")] });
        let mut stream = UnixStream::connect(engine).expect("the engine answers");
        let path = format!("/events?filters={}", escaped(&filters.to_string()));
        write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").expect("the engine listens");
        let mut lines = BufReader::new(stream.try_clone().expect("a second handle")).lines();
        // The head comes at once, the first event when there is one.
        while lines.next().expect("a head").is_ok_and(|line| !line.is_empty()) {}
        let seen = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&seen);
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if let Some(event) = event(&line) {
                    noted.lock().expect("no thread panics").push(event);
                }
            }
        });
        Self { seen, stream }
    }

    /// What happened from `from` on.
    pub fn since(&self, from: u64) -> Vec<Event> {
        let seen = self.seen.lock().expect("no thread panics");
        seen.iter().filter(|event| event.at >= from).cloned().collect()
    }

    /// Waits until `count` containers were started since `from`, two minutes at most.
    #[track_caller]
    pub fn swap(&self, from: u64, count: usize) -> Swap {
        let starts = || self.since(from).iter().filter(|event| event.action == "start").count();
        eventually("all successors run", Duration::from_secs(120), || (starts() >= count).then_some(()));
        Swap::of(from, &self.since(from))
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        // Ends the thread; it fails only when the engine has closed first.
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

fn event(line: &str) -> Option<Event> {
    let value: Value = serde_json::from_str(line).ok()?;
    let labels = value.pointer("/Actor/Attributes")?;
    let service = labels.get("io.cotter.service").or_else(|| labels.get("com.docker.compose.service"))?;
    Some(Event {
        at: value.get("timeNano")?.as_u64()?,
        action: value.get("Action")?.as_str()?.to_owned(),
        id: value.pointer("/Actor/ID")?.as_str()?.to_owned(),
        service: service.as_str()?.to_owned(),
    })
}

/// How a swap went, in seconds.
#[derive(Debug, Clone, Default)]
pub struct Swap {
    /// From the switch to the last start.
    pub whole: f64,
    /// Of each service: from the end of its old container to the start of the new one.
    pub down: Vec<f64>,
}

impl Swap {
    fn of(from: u64, events: &[Event]) -> Self {
        let seconds = |from: u64, to: u64| (to.saturating_sub(from)) as f64 / 1e9;
        let starts = events.iter().filter(|event| event.action == "start");
        let whole = starts.clone().map(|start| seconds(from, start.at)).fold(0.0, f64::max);
        let down = starts.filter_map(|start| {
            let is_old = |e: &&Event| e.action == "die" && e.service == start.service && e.id != start.id;
            events.iter().find(is_old).map(|old| seconds(old.at, start.at))
        });
        Self { whole, down: down.collect() }
    }
}

/// Containers that are swapped by nothing but calls: what the engine takes, whoever calls it.
pub struct Floor {
    socket: PathBuf,
    instance: String,
    services: usize,
    /// Of each service, its container.
    running: Vec<String>,
    made: usize,
}

impl Floor {
    /// Makes a network and starts a container of `image` for each service.
    #[track_caller]
    pub fn start(socket: &Path, instance: &str, services: usize, image: &str) -> Self {
        let mut floor = Self {
            socket: socket.to_owned(),
            instance: instance.to_owned(),
            services,
            running: Vec::new(),
            made: 0,
        };
        let body = json!({ "Name": instance, "Labels": { "io.cotter.instance": instance } });
        floor.call("POST", "/networks/create", Some(&body));
        floor.running = floor.create(image);
        for id in &floor.running {
            floor.call("POST", &format!("/containers/{id}/start"), None);
        }
        floor
    }

    /// Creates successors of `image`, then swaps `at_once` services at a time, then removes the
    /// predecessors. When the swap began.
    #[track_caller]
    pub fn swap(&mut self, image: &str, at_once: usize) -> u64 {
        let successors = self.create(image);
        let pairs: Vec<_> = self.running.iter().zip(&successors).collect();
        let waiting = Mutex::new(pairs.iter());
        let begun = now();
        std::thread::scope(|scope| {
            for _ in 0..at_once {
                scope.spawn(|| {
                    while let Some((old, new)) = { waiting.lock().expect("no thread panics").next() } {
                        self.call("POST", &format!("/containers/{old}/stop?t=3"), None);
                        self.call("POST", &format!("/containers/{new}/start"), None);
                    }
                });
            }
        });
        for id in &self.running {
            self.call("DELETE", &format!("/containers/{id}?v=1"), None);
        }
        self.running = successors;
        begun
    }

    #[track_caller]
    fn create(&mut self, image: &str) -> Vec<String> {
        self.made += 1;
        let create = |service: usize| {
            let name = format!("{}_s{service}_{}", self.instance, self.made);
            let body = json!({
                "Image": image,
                "Labels": { "io.cotter.instance": self.instance, "io.cotter.service": format!("s{service}") },
                "ExposedPorts": { "8080/tcp": {} },
                "HostConfig": {
                    "NetworkMode": self.instance,
                    "RestartPolicy": { "Name": "unless-stopped" },
                    "PortBindings": { "8080/tcp": [{ "HostIp": "127.0.0.1", "HostPort": "" }] },
                },
            });
            let answer = self.call("POST", &format!("/containers/create?name={name}"), Some(&body));
            answer.json()["Id"].as_str().expect("an id").to_owned()
        };
        (1..=self.services).map(create).collect()
    }

    #[track_caller]
    fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Answer {
        let answer = request(&self.socket, method, path, body);
        assert!(answer.status < 300, "{method} {path}: {answer:?}");
        answer
    }
}

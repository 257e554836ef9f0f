//! A cloud that says what a test tells it to, for what our fleet server never says.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::log_stream::{self, LogStreams};
use super::{Fleet, Lab};

/// Answers registrations, polls and reports on a loopback port, and notes each request.
#[derive(Debug)]
pub struct FakeCloud {
    pub url: String,
    shared: Arc<Mutex<Shared>>,
}

/// What a poll is answered with. `UUID` in the body becomes the uuid of who asks.
#[derive(Debug, Clone, Default)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: String,
}

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Asked {
    pub at: Instant,
    pub method: String,
    pub path: String,
    pub etag: Option<String>,
    /// Its bearer token.
    pub key: Option<String>,
    pub body: String,
}

#[derive(Debug, Default)]
struct Shared {
    reply: Reply,
    /// The answer to a change of tags; `None`: 200.
    of_tags: Option<u16>,
    asked: Vec<Asked>,
    logs: LogStreams,
    has_forgotten: bool,
    /// The answer to `GET /os/v1/config`; `None`: 404.
    os_config: Option<String>,
}

impl FakeCloud {
    /// Starts one that has no target for anybody yet (304, as to a device it does not know).
    #[track_caller]
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
        let url = format!("http://{}", listener.local_addr().expect("its address"));
        let shared = Arc::new(Mutex::new(Shared { reply: Reply::bare(304), ..Shared::default() }));
        let cloud = Self { url, shared: Arc::clone(&shared) };
        // It ends with the test process: its connections are short and its port is its own.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || answer(stream, &shared));
            }
        });
        cloud
    }

    /// What a device needs to know to register here.
    pub fn fleet(&self, lab: &Lab) -> Fleet {
        let key_file = lab.file("provisioning.key", "any");
        Fleet { name: "any".to_owned(), number: 1, uuid: String::new(), key_file }
    }

    /// From now on polls are answered so.
    pub fn say(&self, reply: Reply) {
        self.shared.lock().expect("no thread panics").reply = reply;
    }

    /// From now on it has no device, as a balena API shows that: polls are answered with 304 and no etag.
    pub fn forget_devices(&self) {
        self.say(Reply::bare(304));
        self.shared.lock().expect("no thread panics").has_forgotten = true;
    }

    /// From now on the target is `apps`, under `etag`.
    pub fn target(&self, etag: &str, apps: &Value) {
        let body = json!({ "UUID": { "name": "fake", "config": {}, "apps": apps } }).to_string();
        self.say(Reply { status: 200, headers: vec![("ETag", format!("\"{etag}\""))], body });
    }

    /// As [`target`](Self::target), with configuration variables.
    pub fn target_with(&self, etag: &str, config: &Value, apps: &Value) {
        let body = json!({ "UUID": { "name": "fake", "config": config, "apps": apps } }).to_string();
        self.say(Reply { status: 200, headers: vec![("ETag", format!("\"{etag}\""))], body });
    }

    /// From now on it has a VPN, or says so: the configuration for openvpn, and the certificates.
    pub fn offer_vpn(&self, config: &str, ca: &str) {
        let body = json!({ "services": { "openvpn": { "config": config, "ca": ca } } }).to_string();
        self.shared.lock().expect("no thread panics").os_config = Some(body);
    }

    /// From now on changes of tags are answered with this status.
    pub fn answer_tags(&self, status: u16) {
        self.shared.lock().expect("no thread panics").of_tags = Some(status);
    }

    /// The bodies of the changes of tags so far.
    pub fn tags(&self) -> Vec<String> {
        let asked = self.asked(|asked| asked.method == "PATCH" && asked.path == "/device/v3/tags");
        asked.into_iter().map(|asked| asked.body).collect()
    }

    /// The polls so far.
    pub fn polls(&self) -> Vec<Asked> {
        self.asked(|asked| asked.method == "GET" && asked.path.ends_with("/state"))
    }

    /// The polls that came after this moment, once there are `count`.
    #[track_caller]
    pub fn next_polls(&self, count: usize) -> Vec<Asked> {
        let before = self.polls().len();
        super::eventually("polls", Duration::from_secs(10), || {
            let polls = self.polls();
            (polls.len() >= before + count).then(|| polls[before..].to_vec())
        })
    }

    /// The bodies of the registrations so far.
    pub fn registrations(&self) -> Vec<String> {
        let asked = self.asked(|asked| asked.method == "POST" && asked.path == "/device/register");
        asked.into_iter().map(|asked| asked.body).collect()
    }

    /// The bodies of the reports so far.
    pub fn reports(&self) -> Vec<String> {
        let asked = self.asked(|asked| asked.method == "PATCH" && asked.path == "/device/v3/state");
        asked.into_iter().map(|asked| asked.body).collect()
    }

    /// What devices have uploaded to the log stream. `change` may also set how it answers.
    pub fn logs<T>(&self, change: impl FnOnce(&mut LogStreams) -> T) -> T {
        change(&mut self.shared.lock().expect("no thread panics").logs)
    }

    fn asked(&self, which: impl Fn(&Asked) -> bool) -> Vec<Asked> {
        let shared = self.shared.lock().expect("no thread panics");
        shared.asked.iter().filter(|asked| which(asked)).cloned().collect()
    }
}

impl Reply {
    /// A status without a body.
    pub fn bare(status: u16) -> Self {
        Self { status, ..Self::default() }
    }
}

fn answer(stream: TcpStream, shared: &Mutex<Shared>) -> Option<()> {
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, path) = (words.next()?, words.next()?);
    let (mut length, mut etag, mut key) = (0, None, None);
    let mut head = String::new();
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let Some((name, value)) = header.trim_end().split_once(':') else { break };
        head.push_str(&header.to_lowercase());
        match name.to_lowercase().as_str() {
            "content-length" => length = value.trim().parse().ok()?,
            "if-none-match" => etag = Some(value.trim().to_owned()),
            "authorization" => key = value.trim().strip_prefix("Bearer ").map(str::to_owned),
            _ => {}
        }
    }
    if path.ends_with("/log-stream") {
        let shared = |change: &mut dyn FnMut(&mut LogStreams)| {
            change(&mut shared.lock().expect("no thread panics").logs);
        };
        return log_stream::answer(reader, stream, (&method, &path, &head), &shared);
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let body = String::from_utf8_lossy(&body).into_owned();
    let asked = Asked { at: Instant::now(), method, path, etag, key, body };
    let reply = {
        let mut shared = shared.lock().expect("no thread panics");
        shared.asked.push(asked.clone());
        match (asked.method.as_str(), asked.path.as_str()) {
            // As the real API does.
            ("POST", "/device/register") if !asked.body.contains("\"uuid\"") => Reply::bare(400),
            ("POST", "/device/register") => {
                Reply { status: 201, body: r#"{"id":1}"#.to_owned(), ..Reply::default() }
            }
            ("GET", path) if path.ends_with("/state") => poll(&shared.reply, &asked),
            ("PATCH", "/device/v3/tags") => Reply::bare(shared.of_tags.unwrap_or(200)),
            ("GET", path) if path.starts_with("/v7/device_tag?") => Reply {
                status: 200,
                body: r#"{"d":[{"id":5,"tag_key":"site","value":"zurich"}]}"#.to_owned(),
                ..Reply::default()
            },
            ("GET", path) if path.starts_with("/v7/device?") && shared.has_forgotten => {
                Reply { status: 200, body: r#"{"d":[]}"#.to_owned(), ..Reply::default() }
            }
            ("GET", "/os/v1/config") => match &shared.os_config {
                Some(body) => Reply { status: 200, body: body.clone(), ..Reply::default() },
                None => Reply::bare(404),
            },
            ("PATCH", _) | ("GET", "/ping") => Reply::bare(200),
            _ => Reply::bare(404),
        }
    };
    let headers: String = reply.headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let length = reply.body.len();
    let mut stream = stream;
    write!(
        stream,
        "HTTP/1.1 {} Said\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n{}",
        reply.status, reply.body
    )
    .ok()
}

fn poll(reply: &Reply, asked: &Asked) -> Reply {
    let etag = reply.headers.iter().find(|(name, _)| *name == "ETag").map(|(_, value)| value);
    if etag.is_some() && etag == asked.etag.as_ref() {
        return Reply { status: 304, headers: reply.headers.clone(), body: String::new() };
    }
    let uuid = asked.path.rsplit('/').nth(1).unwrap_or_default();
    Reply { body: reply.body.replace("UUID", uuid), ..reply.clone() }
}

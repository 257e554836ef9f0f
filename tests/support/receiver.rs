//! A receiver of webhooks: a real HTTP server on a loopback port, whose answers a test chooses.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;

/// What a receiver answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Say {
    /// A status and a body.
    Status(u16, &'static str),
    /// Nothing, for a minute.
    Hang,
    Redirect(String),
    /// A status, and a body of a gigabyte.
    Endless(u16),
}

/// A request that was received.
#[derive(Debug, Clone)]
pub struct Received {
    /// By their names in lower case.
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

impl Received {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    pub fn id(&self) -> &str {
        &self.headers["webhook-id"]
    }

    /// "rollout.start"
    pub fn kind(&self) -> String {
        self.json()["type"].as_str().unwrap().to_owned()
    }
}

/// It ends with the process of the test.
#[derive(Debug)]
pub struct Receiver {
    /// "http://127.0.0.1:5000/hook"
    pub url: String,
    received: Arc<Mutex<Vec<Received>>>,
    say: Arc<Mutex<Vec<Say>>>,
    sent: Arc<Mutex<usize>>,
}

impl Receiver {
    /// Answers with these, one after the other, and then with the last one for ever.
    pub fn start(say: &[Say]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let receiver = Self {
            url,
            received: Arc::default(),
            say: Arc::new(Mutex::new(say.to_vec())),
            sent: Arc::default(),
        };
        let (received, say, sent) =
            (Arc::clone(&receiver.received), Arc::clone(&receiver.say), Arc::clone(&receiver.sent));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (received, say, sent) = (Arc::clone(&received), Arc::clone(&say), Arc::clone(&sent));
                std::thread::spawn(move || serve(stream, &received, &say, &sent));
            }
        });
        receiver
    }

    /// Answers so from now on.
    pub fn says(&self, say: Say) {
        *self.say.lock().unwrap() = vec![say];
    }

    /// All requests so far.
    pub fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }

    /// Their types, in order: "rollout.start rollout.wave"
    pub fn kinds(&self) -> String {
        self.received().iter().map(Received::kind).collect::<Vec<_>>().join(" ")
    }

    /// Bytes of endless bodies that were taken.
    pub fn sent(&self) -> usize {
        *self.sent.lock().unwrap()
    }
}

fn serve(
    mut stream: TcpStream,
    received: &Mutex<Vec<Received>>,
    say: &Mutex<Vec<Say>>,
    sent: &Mutex<usize>,
) -> Option<()> {
    stream.set_read_timeout(Some(Duration::from_secs(30))).ok()?;
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut headers = BTreeMap::new();
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
    loop {
        line.clear();
        reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let mut body = vec![0; headers.get("content-length")?.parse().ok()?];
    reader.read_exact(&mut body).ok()?;
    let body = String::from_utf8(body).ok()?;
    received.lock().unwrap().push(Received { headers, body });
    let said = {
        let mut say = say.lock().unwrap();
        if say.len() > 1 { say.remove(0) } else { say[0].clone() }
    };
    match said {
        Say::Status(status, body) => {
            let length = body.len();
            write!(
                stream,
                "HTTP/1.1 {status} X\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
            )
            .ok()
        }
        Say::Redirect(to) => write!(
            stream,
            "HTTP/1.1 307 X\r\nLocation: {to}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        )
        .ok(),
        Say::Hang => {
            std::thread::sleep(Duration::from_secs(60));
            None
        }
        Say::Endless(status) => {
            write!(stream, "HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n", 1 << 30).ok()?;
            let piece = [b'x'; 64 * 1024];
            for _ in 0..(1 << 30) / piece.len() {
                stream.write_all(&piece).ok()?;
                *sent.lock().unwrap() += piece.len();
            }
            Some(())
        }
    }
}

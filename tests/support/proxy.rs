//! Stands between an agent and the engine, counts what passes, and refuses what a test tells it to.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};

/// A unix socket that passes everything on to the engine's, and notes each request.
/// Without it (dropped) the engine is away for those who use the socket.
pub struct EngineProxy {
    socket: PathBuf,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    engine: PathBuf,
    is_over: AtomicBool,
    connections: AtomicUsize,
    calls: Mutex<Vec<String>>,
    open: Mutex<Vec<UnixStream>>,
    refused: Mutex<Option<Rule>>,
    held: Mutex<Option<Hold>>,
    changed: Condvar,
}

/// Which calls are not answered until another one is asked.
struct Hold {
    rule: Rule,
    until: Rule,
}

/// Which calls the engine is never asked.
type Rule = Box<dyn Fn(&str) -> bool + Send>;

impl EngineProxy {
    /// Listens on `socket`, which must not be there, in front of `engine`.
    #[track_caller]
    pub fn start(engine: &Path, socket: &Path) -> Self {
        let listener = UnixListener::bind(socket).expect("the proxy's socket is free");
        let shared = Arc::new(Shared { engine: engine.to_owned(), ..Shared::default() });
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                if accepting.is_over.load(Ordering::SeqCst) {
                    return;
                }
                if let Ok(client) = client {
                    // An engine that is away closes the connection, as a proxy's client must expect.
                    let _ = join(&accepting, client);
                }
            }
        });
        Self { socket: socket.to_owned(), shared }
    }

    /// Every request so far, e.g. "GET /containers/json", without API version and query.
    pub fn calls(&self) -> Vec<String> {
        self.shared.calls.lock().expect("no thread panics").clone()
    }

    /// From now on the calls that `rule` names are refused with status 500, and the engine never hears of them.
    pub fn refuse(&self, rule: impl Fn(&str) -> bool + Send + 'static) {
        *self.shared.refused.lock().expect("no thread panics") = Some(Box::new(rule));
    }

    /// From now on the calls that `rule` names are not answered, though the engine hears of them, until a call is
    /// asked that `until` names.
    pub fn hold(
        &self,
        rule: impl Fn(&str) -> bool + Send + 'static,
        until: impl Fn(&str) -> bool + Send + 'static,
    ) {
        let hold = Hold { rule: Box::new(rule), until: Box::new(until) };
        *self.shared.held.lock().expect("no thread panics") = Some(hold);
    }

    /// From now on everything passes.
    pub fn let_pass(&self) {
        *self.shared.refused.lock().expect("no thread panics") = None;
    }

    /// How many connections were made so far.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }
}

impl Drop for EngineProxy {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::SeqCst);
        *self.shared.held.lock().unwrap_or_else(|e| e.into_inner()) = None;
        self.shared.changed.notify_all();
        // Wakes the listener, which then ends; no client can connect once the socket is gone.
        let _ = UnixStream::connect(&self.socket);
        let _ = std::fs::remove_file(&self.socket);
        for stream in self.shared.open.lock().unwrap_or_else(|e| e.into_inner()).drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

/// Passes bytes both ways until both sides have ended.
fn join(shared: &Arc<Shared>, client: UnixStream) -> std::io::Result<()> {
    shared.connections.fetch_add(1, Ordering::SeqCst);
    let engine = UnixStream::connect(&shared.engine)?;
    shared.open.lock().expect("no thread panics").extend([client.try_clone()?, engine.try_clone()?]);
    let (from, to) = (client.try_clone()?, engine.try_clone()?);
    let (asked, answered) = (Arc::clone(shared), Arc::clone(shared));
    let call = Arc::new(Mutex::new(String::new()));
    let last = Arc::clone(&call);
    std::thread::spawn(move || pass_requests(&asked, &last, from, to));
    std::thread::spawn(move || pass_answers(&answered, &call, engine, client));
    Ok(())
}

/// Passes what the engine answers to `call`, the last that was asked on this connection, unless it is held.
fn pass_answers(shared: &Shared, call: &Mutex<String>, mut from: UnixStream, mut to: UnixStream) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(n @ 1..) = from.read(&mut buffer) {
        let call = call.lock().expect("no thread panics").clone();
        let mut held = shared.held.lock().expect("no thread panics");
        while held.as_ref().is_some_and(|hold| (hold.rule)(&call)) {
            held = shared.changed.wait(held).expect("no thread panics");
        }
        drop(held);
        if to.write_all(&buffer[..n]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

/// A client waits for each answer before it asks again, so a refusal never comes in between another's bytes.
fn pass_requests(shared: &Shared, last: &Mutex<String>, mut from: UnixStream, mut to: UnixStream) {
    let mut requests = Requests::default();
    let mut buffer = [0; 16 * 1024];
    while let Ok(n @ 1..) = from.read(&mut buffer) {
        let mut is_refused = |call: &str| {
            shared.calls.lock().expect("no thread panics").push(call.to_owned());
            call.clone_into(&mut last.lock().expect("no thread panics"));
            if shared.held.lock().expect("no thread panics").take_if(|hold| (hold.until)(call)).is_some() {
                shared.changed.notify_all();
            }
            shared.refused.lock().expect("no thread panics").as_ref().is_some_and(|rule| rule(call))
        };
        for part in requests.feed(&buffer[..n], &mut is_refused) {
            let written = match part {
                Part::Pass(bytes) => to.write_all(&bytes),
                Part::Refused => from.write_all(refusal().as_bytes()),
            };
            if written.is_err() {
                break;
            }
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

/// What a refused call is answered with.
const REFUSAL: &str = r#"{"message":"the engine does not want"}"#;

fn refusal() -> String {
    let length = REFUSAL.len();
    format!(
        "HTTP/1.1 500 Internal Server Error\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{REFUSAL}"
    )
}

/// What becomes of some bytes of a client.
enum Part {
    Pass(Vec<u8>),
    /// They are a request that is refused.
    Refused,
}

/// Finds the requests in what one client sends.
#[derive(Debug, Default)]
struct Requests {
    head: Vec<u8>,
    body_left: usize,
    /// The body under way belongs to a request that was refused.
    is_dropped: bool,
    /// The connection is no HTTP any more, or its length is not in its head.
    is_opaque: bool,
}

impl Requests {
    fn feed(&mut self, mut bytes: &[u8], is_refused: &mut impl FnMut(&str) -> bool) -> Vec<Part> {
        let mut parts = Vec::new();
        while !bytes.is_empty() {
            if self.is_opaque || self.body_left > 0 {
                let n = if self.is_opaque { bytes.len() } else { self.body_left.min(bytes.len()) };
                self.body_left -= n.min(self.body_left);
                if !self.is_dropped {
                    parts.push(Part::Pass(bytes[..n].to_vec()));
                }
                bytes = &bytes[n..];
                continue;
            }
            self.head.push(bytes[0]);
            bytes = &bytes[1..];
            if self.head.ends_with(b"\r\n\r\n") {
                let head = std::mem::take(&mut self.head);
                let call = self.begin(&String::from_utf8_lossy(&head));
                self.is_dropped = is_refused(&call);
                parts.push(if self.is_dropped { Part::Refused } else { Part::Pass(head) });
            }
        }
        parts
    }

    fn begin(&mut self, head: &str) -> String {
        for line in head.lines().map(str::to_lowercase) {
            if let Some(length) = line.strip_prefix("content-length:") {
                self.body_left = length.trim().parse().unwrap_or(0);
            }
            self.is_opaque |= line.starts_with("transfer-encoding:") || line.starts_with("upgrade:");
        }
        let mut words = head.split_whitespace();
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let path = target.split('?').next().unwrap_or_default();
        let path = match path.strip_prefix("/v1.").and_then(|rest| rest.split_once('/')) {
            Some((_, rest)) => format!("/{rest}"),
            None => path.to_owned(),
        };
        format!("{method} {path}")
    }
}

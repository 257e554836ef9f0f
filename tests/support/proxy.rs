//! Stands between an agent and the engine, and counts what passes.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// A unix socket that passes everything on to the engine's, and notes each request.
/// Without it (dropped) the engine is away for those who use the socket.
#[derive(Debug)]
pub struct EngineProxy {
    socket: PathBuf,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    engine: PathBuf,
    is_over: AtomicBool,
    connections: AtomicUsize,
    calls: Mutex<Vec<String>>,
    open: Mutex<Vec<UnixStream>>,
}

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

    /// How many connections were made so far.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }
}

impl Drop for EngineProxy {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::SeqCst);
        // Wakes the listener, which then ends; nobody can connect any more once the socket is gone.
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
    let (mut from, mut to) = (client.try_clone()?, engine.try_clone()?);
    let noted = Arc::clone(shared);
    std::thread::spawn(move || {
        let mut requests = Requests::default();
        pass(&mut from, &mut to, |bytes| {
            let lines = requests.feed(bytes);
            noted.calls.lock().expect("no thread panics").extend(lines);
        });
    });
    let (mut from, mut to) = (engine, client);
    std::thread::spawn(move || pass(&mut from, &mut to, |_| ()));
    Ok(())
}

fn pass(from: &mut UnixStream, to: &mut UnixStream, mut note: impl FnMut(&[u8])) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(n @ 1..) = from.read(&mut buffer) {
        note(&buffer[..n]);
        if to.write_all(&buffer[..n]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

/// Finds the requests in what one client sends.
#[derive(Debug, Default)]
struct Requests {
    head: Vec<u8>,
    body_left: usize,
    /// The connection is no HTTP any more, or its length is not told beforehand.
    is_opaque: bool,
}

impl Requests {
    fn feed(&mut self, mut bytes: &[u8]) -> Vec<String> {
        let mut found = Vec::new();
        while !bytes.is_empty() && !self.is_opaque {
            if self.body_left > 0 {
                let n = self.body_left.min(bytes.len());
                self.body_left -= n;
                bytes = &bytes[n..];
                continue;
            }
            self.head.push(bytes[0]);
            bytes = &bytes[1..];
            if self.head.ends_with(b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&std::mem::take(&mut self.head)).into_owned();
                found.push(self.begin(&head));
            }
        }
        found
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

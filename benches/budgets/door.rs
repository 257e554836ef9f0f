//! Stands between an agent and its cloud: when the first request came, and how many bytes passed.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// A loopback port that passes everything on to a fleet server.
pub struct Door {
    pub url: String,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    up: AtomicU64,
    down: AtomicU64,
    requests: AtomicU64,
    first_answer: Mutex<Option<Instant>>,
}

impl Door {
    /// Opens one to the server at `url`. It ends with this process: its port is its own.
    #[track_caller]
    pub fn open(url: &str) -> Self {
        let server = url.trim_start_matches("http://").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
        let url = format!("http://{}", listener.local_addr().expect("its address"));
        let shared = Arc::new(Shared::default());
        let passing = Arc::clone(&shared);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                // A server that is away closes the connection, as clients must expect.
                let _ = join(&passing, client, &server);
            }
        });
        Self { url, shared }
    }

    /// Forgets what passed.
    pub fn reset(&self) {
        for count in [&self.shared.up, &self.shared.down, &self.shared.requests] {
            count.store(0, Ordering::SeqCst);
        }
        *self.shared.first_answer.lock().expect("no thread panics") = None;
    }

    /// When the first answer passed since the last [`reset`](Self::reset).
    pub fn first_answer(&self) -> Option<Instant> {
        *self.shared.first_answer.lock().expect("no thread panics")
    }

    /// Requests, bytes to the server and bytes from it, since the last [`reset`](Self::reset).
    pub fn passed(&self) -> (u64, u64, u64) {
        let count = |of: &AtomicU64| of.load(Ordering::SeqCst);
        (count(&self.shared.requests), count(&self.shared.up), count(&self.shared.down))
    }
}

fn join(shared: &Arc<Shared>, client: TcpStream, server: &str) -> std::io::Result<()> {
    let server = TcpStream::connect(server)?;
    server.set_nodelay(true)?;
    client.set_nodelay(true)?;
    let (from, to, noted) = (client.try_clone()?, server.try_clone()?, Arc::clone(shared));
    std::thread::spawn(move || {
        pass(from, to, |bytes| {
            // Requests at rest have no body and are written at once.
            noted.requests.fetch_add(1, Ordering::SeqCst);
            noted.up.fetch_add(bytes, Ordering::SeqCst);
        });
    });
    let noted = Arc::clone(shared);
    std::thread::spawn(move || {
        pass(server, client, |bytes| {
            noted.down.fetch_add(bytes, Ordering::SeqCst);
            noted.first_answer.lock().expect("no thread panics").get_or_insert_with(Instant::now);
        });
    });
    Ok(())
}

fn pass(mut from: TcpStream, mut to: TcpStream, note: impl Fn(u64)) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(n @ 1..) = from.read(&mut buffer) {
        note(n as u64);
        if to.write_all(&buffer[..n]).is_err() {
            break;
        }
    }
    // Fails only when the other side has closed first.
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}

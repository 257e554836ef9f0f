//! Stands between a server and its database, and lets through what a test says: all, nothing, or all but the end of a
//! transaction.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// A port that passes connections on. Ends with its value.
#[derive(Debug)]
pub struct Wall {
    pub port: u16,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    to: u16,
    mode: AtomicU8,
    open: Mutex<Vec<TcpStream>>,
}

const OPEN: u8 = 0;
/// Nothing passes, and no connection ends: the network between has lost its route.
const SILENT: u8 = 1;
/// The next transaction ends, but the connection is cut before that is answered.
const CUT_AFTER_COMMIT: u8 = 2;
/// The connection is cut when the next transaction would end.
const CUT_BEFORE_COMMIT: u8 = 3;
/// The connection is cut when the next transaction would be rolled back.
const CUT_BEFORE_ROLLBACK: u8 = 4;
/// The next transaction ends, and then nothing passes.
const SILENT_AFTER_COMMIT: u8 = 5;
const OVER: u8 = 6;

impl Wall {
    /// Listens on a free port in front of port `to`.
    #[track_caller]
    pub fn start(to: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let shared = Arc::new(Shared { to, mode: AtomicU8::new(OPEN), open: Mutex::default() });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming() {
                if accepting.mode() == OVER {
                    return;
                }
                let _ends_for_its_client = client.and_then(|client| accepting.join(client));
            }
        });
        Self { port, shared }
    }

    pub fn open(&self) {
        self.shared.set(OPEN);
    }

    pub fn silence(&self) {
        self.shared.set(SILENT);
    }

    pub fn cut_after_commit(&self) {
        self.shared.set(CUT_AFTER_COMMIT);
    }

    pub fn cut_before_commit(&self) {
        self.shared.set(CUT_BEFORE_COMMIT);
    }

    pub fn cut_before_rollback(&self) {
        self.shared.set(CUT_BEFORE_ROLLBACK);
    }

    pub fn silence_after_commit(&self) {
        self.shared.set(SILENT_AFTER_COMMIT);
    }

    /// Whether nothing passes.
    pub fn is_silent(&self) -> bool {
        self.shared.mode() == SILENT
    }

    /// Whether the connection was cut that a test asked for.
    pub fn has_cut(&self) -> bool {
        self.shared.mode() == OPEN
    }
}

impl Shared {
    fn mode(&self) -> u8 {
        self.mode.load(Ordering::SeqCst)
    }

    fn set(&self, mode: u8) {
        self.mode.store(mode, Ordering::SeqCst);
    }

    fn join(self: &Arc<Self>, client: TcpStream) -> std::io::Result<()> {
        let server = TcpStream::connect(("127.0.0.1", self.to))?;
        let mut open = self.open.lock().unwrap();
        open.extend([client.try_clone()?, server.try_clone()?]);
        drop(open);
        let (up, down) = (Arc::clone(self), Arc::clone(self));
        let (from_client, to_server) = (client.try_clone()?, server.try_clone()?);
        thread::spawn(move || up.pass(from_client, to_server, true));
        thread::spawn(move || down.pass(server, client, false));
        Ok(())
    }

    /// Passes on until one side ends.
    fn pass(&self, mut from: TcpStream, mut to: TcpStream, is_up: bool) {
        let mut bytes = [0; 64 * 1024];
        while let Ok(count) = from.read(&mut bytes) {
            while self.mode() == SILENT {
                thread::sleep(Duration::from_millis(10));
            }
            let piece = &bytes[..count];
            let mode = self.mode();
            let has = |end: &[u8]| piece.windows(end.len()).any(|word| word == end);
            let is_cut = is_up
                && match mode {
                    CUT_AFTER_COMMIT | CUT_BEFORE_COMMIT => has(b"COMMIT"),
                    CUT_BEFORE_ROLLBACK => has(b"ROLLBACK"),
                    _ => false,
                };
            if is_cut {
                self.set(OPEN);
                // Whoever waits for an answer gets none.
                let _gone = from.shutdown(Shutdown::Both);
                if mode == CUT_AFTER_COMMIT {
                    let _sent = to.write_all(piece);
                    thread::sleep(Duration::from_millis(300));
                }
                break;
            }
            if is_up && mode == SILENT_AFTER_COMMIT && has(b"COMMIT") {
                // Before it is sent, so that its answer does not pass.
                self.set(SILENT);
            }
            if count == 0 || to.write_all(piece).is_err() {
                break;
            }
        }
        let _both_ends = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
    }
}

impl Drop for Wall {
    fn drop(&mut self) {
        self.shared.set(OVER);
        for stream in self.shared.open.lock().unwrap().drain(..) {
            let _ended = stream.shutdown(Shutdown::Both);
        }
        let _wakes = TcpStream::connect(("127.0.0.1", self.port));
    }
}

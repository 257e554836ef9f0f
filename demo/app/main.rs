//! The demo app: one service that does what its release tells it to.
//!
//! A static HTTP server without dependencies, built by a single `rustc` call and
//! put into an image `FROM scratch`, so that a release can be made without any
//! network. It knows nothing of Cotter: its whole world is its environment.
//!
//! | variable | default | meaning |
//! | --- | --- | --- |
//! | `DEMO_RELEASE` | `none` | the label it answers with |
//! | `DEMO_BEHAVIOUR` | `well` | `well`, `crash`, `exit`, `unhealthy` or `slow` |
//! | `DEMO_EXIT_ON` | | `exit` where `DEMO_HARDWARE` is this |
//! | `DEMO_DELAY` | `2` | seconds until it crashes, or until a slow one is healthy |
//! | `DEMO_EXIT_CODE` | `1` | exit code of `crash` and `exit` |
//! | `DEMO_PORT` | `8080` | port, on all addresses |
//! | `DEMO_DATA` | `/data` | folder of the counter, a volume if it shall survive |
//!
//! `GET /` says which release serves, `GET /healthz` is 200, or 500 also while there is a file `sick` in
//! `DEMO_DATA`, `/write?N` adds
//! N to the counter and stores it, `/env?NAME` answers one environment variable, `/make?PATH` and
//! `/take?PATH` make an empty file and take it away, and `/exit?N` ends the process with
//! code N. `/app check` asks `/healthz` and exits 0 or 1.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::exit;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use std::{env, fs, thread};

/// How long a client may take to send its request or to read the answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// How many connections are served at once; more are closed unanswered.
const CONNECTIONS: u64 = 64;

fn main() {
    stop_on_sigterm();
    let app = App::from_environment();
    match env::args().nth(1).as_deref() {
        None => app.run(),
        Some("check") => exit(i32::from(!is_healthy(app.port))),
        Some(other) => {
            eprintln!("unknown command {other:?}: use no command, or check");
            exit(2);
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Behaviour {
    Well,
    Crash,
    Exit,
    Unhealthy,
    Slow,
}

struct App {
    release: String,
    service: String,
    behaviour: Behaviour,
    delay: Duration,
    exit_code: i32,
    port: u16,
    counter_file: PathBuf,
    /// Held while the counter is read, added to and written.
    counter: Mutex<()>,
    started: Instant,
    started_unix_ms: u128,
    connections: AtomicU64,
}

impl App {
    fn from_environment() -> Self {
        let behaviour = match text("DEMO_BEHAVIOUR", "well").as_str() {
            "well" => Behaviour::Well,
            "crash" => Behaviour::Crash,
            "exit" => Behaviour::Exit,
            "unhealthy" => Behaviour::Unhealthy,
            "slow" => Behaviour::Slow,
            other => {
                eprintln!("DEMO_BEHAVIOUR is {other:?}: use well, crash, exit, unhealthy or slow");
                exit(2);
            }
        };
        let bad_hardware = env::var("DEMO_EXIT_ON").ok();
        let is_bad = bad_hardware.is_some() && bad_hardware == env::var("DEMO_HARDWARE").ok();
        let behaviour = if is_bad { Behaviour::Exit } else { behaviour };
        Self {
            release: text("DEMO_RELEASE", "none"),
            service: text("BALENA_SERVICE_NAME", "app"),
            behaviour,
            delay: Duration::from_secs(number("DEMO_DELAY", 2)),
            exit_code: number("DEMO_EXIT_CODE", 1),
            port: number("DEMO_PORT", 8080),
            counter_file: PathBuf::from(text("DEMO_DATA", "/data")).join("counter"),
            counter: Mutex::new(()),
            started: Instant::now(),
            started_unix_ms: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis()),
            connections: AtomicU64::new(0),
        }
    }

    /// Serves until the process ends.
    fn run(self) {
        println!("release {} of {} begins", self.release, self.service);
        if self.behaviour == Behaviour::Exit {
            println!("exiting with {}, as told", self.exit_code);
            exit(self.exit_code);
        }
        let listener = match TcpListener::bind((Ipv4Addr::UNSPECIFIED, self.port)) {
            Ok(listener) => listener,
            Err(error) => {
                eprintln!("cannot listen on port {}: {error}", self.port);
                exit(1);
            }
        };
        let app = &self;
        thread::scope(|scope| {
            if app.behaviour == Behaviour::Crash {
                scope.spawn(|| {
                    thread::sleep(app.delay);
                    eprintln!("crashing with {}, as told", app.exit_code);
                    exit(app.exit_code);
                });
            }
            for stream in listener.incoming() {
                match stream {
                    Ok(stream) if app.connections.fetch_add(1, Ordering::Relaxed) < CONNECTIONS => {
                        scope.spawn(move || {
                            // A client that goes away is no concern of ours.
                            let _ = app.answer(stream);
                            app.connections.fetch_sub(1, Ordering::Relaxed);
                        });
                    }
                    Ok(_) => {
                        app.connections.fetch_sub(1, Ordering::Relaxed);
                    }
                    Err(_) => thread::sleep(Duration::from_millis(20)),
                }
            }
        });
    }

    fn answer(&self, mut stream: TcpStream) -> std::io::Result<()> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut lines = BufReader::new(stream.try_clone()?.take(16 * 1024));
        let mut request = String::new();
        lines.read_line(&mut request)?;
        // Headers are read and dropped: closing with unread bytes would reset the connection.
        let mut header = String::new();
        while lines.read_line(&mut header)? > 2 {
            header.clear();
        }
        let mut words = request.split_whitespace();
        let (method, target) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let (status, body) = match (method, path) {
            ("GET", "/") => ("200 OK", self.about()),
            ("GET", "/healthz") if self.is_well_now() => ("200 OK", "healthy\n".to_owned()),
            ("GET", "/healthz") => ("500 Internal Server Error", "not healthy\n".to_owned()),
            ("GET", "/write") => match self.add_to_counter(query.parse().unwrap_or(1)) {
                Ok(count) => ("200 OK", format!("{{\"count\":{count}}}\n")),
                Err(error) => ("500 Internal Server Error", format!("{error}\n")),
            },
            ("GET", "/env") => match env::var(query) {
                Ok(value) => ("200 OK", format!("{value}\n")),
                Err(_) => ("404 Not Found", "not set\n".to_owned()),
            },
            ("GET", "/make") => told(fs::File::create_new(query).map(drop)),
            ("GET", "/take") => told(fs::remove_file(query)),
            ("GET", "/exit") => exit(query.parse().unwrap_or(1)),
            ("GET", _) => ("404 Not Found", "no such page\n".to_owned()),
            _ => ("405 Method Not Allowed", "only GET\n".to_owned()),
        };
        write!(
            stream,
            "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        )
    }

    /// One line of JSON: which release serves, under which name, since when (Unix milliseconds).
    fn about(&self) -> String {
        format!(
            "{{\"release\":{},\"service\":{},\"started\":{},\"count\":{}}}\n",
            quoted(&self.release),
            quoted(&self.service),
            self.started_unix_ms,
            self.count().unwrap_or(0),
        )
    }

    fn is_well_now(&self) -> bool {
        let is_well = match self.behaviour {
            Behaviour::Well | Behaviour::Crash | Behaviour::Exit => true,
            Behaviour::Unhealthy => false,
            Behaviour::Slow => self.started.elapsed() >= self.delay,
        };
        is_well && !self.counter_file.with_file_name("sick").exists()
    }

    fn count(&self) -> std::io::Result<u64> {
        match fs::read_to_string(&self.counter_file) {
            Ok(text) => Ok(text.trim().parse().unwrap_or(0)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(0),
            Err(error) => Err(error),
        }
    }

    fn add_to_counter(&self, more: u64) -> std::io::Result<u64> {
        let _held = self.counter.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let count = self.count()?.saturating_add(more);
        let new = self.counter_file.with_extension("new");
        fs::write(&new, format!("{count}\n"))?;
        fs::rename(&new, &self.counter_file)?;
        Ok(count)
    }
}

/// What became of something.
fn told(done: std::io::Result<()>) -> (&'static str, String) {
    match done {
        Ok(()) => ("200 OK", "done\n".to_owned()),
        Err(error) => ("500 Internal Server Error", format!("{error}\n")),
    }
}

/// Whether `/healthz` on our own port answers 200.
fn is_healthy(port: u16) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer.starts_with("HTTP/1.1 200 "))
    };
    match ask() {
        Ok(healthy) => healthy,
        Err(error) => {
            eprintln!("{error}");
            false
        }
    }
}

fn text(name: &str, default: &str) -> String {
    env::var(name).ok().filter(|value| !value.is_empty()).unwrap_or_else(|| default.to_owned())
}

fn number<T: std::str::FromStr>(name: &str, default: T) -> T {
    match env::var(name) {
        Ok(value) if !value.is_empty() => value.parse().unwrap_or_else(|_| {
            eprintln!("{name} is {value:?}: a number is wanted");
            exit(2);
        }),
        Ok(_) | Err(_) => default,
    }
}

/// `text` as a JSON string.
fn quoted(text: &str) -> String {
    let mut out = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Ends the process at SIGTERM and SIGINT.
///
/// The kernel ignores a signal to process 1 of a container unless the process has a
/// handler for it, and then every stop would last until the engine's SIGKILL. The
/// standard library has no call for it, so these two C functions are declared here.
fn stop_on_sigterm() {
    const SIGINT: i32 = 2;
    const SIGTERM: i32 = 15;
    // SAFETY: both are in every C library, with these signatures on every Linux target.
    unsafe extern "C" {
        fn signal(signal: i32, handler: extern "C" fn(i32)) -> usize;
        fn _exit(code: i32) -> !;
    }
    extern "C" fn stop(_signal: i32) {
        // SAFETY: `_exit` is on the list of functions a signal handler may call.
        unsafe { _exit(0) }
    }
    // SAFETY: the handler calls nothing but `_exit` and touches no memory.
    unsafe {
        signal(SIGTERM, stop);
        signal(SIGINT, stop);
    }
}

//! A TCP server on loopback that answers HTTP as it likes: it keeps no rule of the protocol, and counts what is taken.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

/// The most that an endless answer sends: enough to break every limit, and an end.
const MOST: u64 = 1 << 30;
/// The longest that an answer goes on.
const LONGEST: Duration = Duration::from_secs(60);

/// A request as it came, headers in lower case.
#[derive(Debug, Clone)]
pub struct Asked {
    pub method: String,
    /// With its query.
    pub path: String,
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

impl Asked {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// All of it, as text: a key has no place to hide.
    pub fn text(&self) -> String {
        format!("{} {} {:?} {}", self.method, self.path, self.headers, self.body)
    }
}

/// How a request is answered. It writes what it likes; the connection ends afterwards.
pub type Rule = Box<dyn Fn(&Asked, &mut Taker) -> std::io::Result<()> + Send + Sync>;

/// Listens until the test's process ends.
#[derive(Clone)]
pub struct Evil {
    /// "127.0.0.1:4711".
    pub address: String,
    shared: Arc<Shared>,
}

struct Shared {
    asked: Mutex<Vec<Asked>>,
    rule: Mutex<Arc<Rule>>,
    /// The most bytes of one answer that anybody took.
    taken: AtomicU64,
}

impl Evil {
    /// One on a free port of `host`, a loopback address.
    #[track_caller]
    pub fn at(
        host: &str,
        rule: impl Fn(&Asked, &mut Taker) -> std::io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind((host, 0)).expect("a loopback port");
        let address = listener.local_addr().expect("its address").to_string();
        let rule: Rule = Box::new(rule);
        let rule = Mutex::new(Arc::new(rule));
        let shared = Arc::new(Shared { asked: Mutex::default(), rule, taken: AtomicU64::new(0) });
        let evil = Self { address, shared: Arc::clone(&shared) };
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || answer(stream, &shared));
            }
        });
        evil
    }

    /// One that answers 200 and nothing, and is there to see who comes.
    #[track_caller]
    pub fn witness(host: &str) -> Self {
        Self::at(host, |_, to| to.answer(200, "", b"{}"))
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on it answers so.
    pub fn rule(&self, rule: impl Fn(&Asked, &mut Taker) -> std::io::Result<()> + Send + Sync + 'static) {
        let rule: Rule = Box::new(rule);
        *self.shared.rule.lock().expect("no thread panics") = Arc::new(rule);
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.shared.asked.lock().expect("no thread panics").clone()
    }

    /// The most bytes of one answer that anybody took so far.
    pub fn taken_at_least(&self) -> u64 {
        self.shared.taken.load(Ordering::SeqCst)
    }

    /// The most bytes of one answer that anybody took until now; it begins again with 0.
    pub fn taken(&self) -> u64 {
        self.shared.taken.swap(0, Ordering::SeqCst)
    }
}

/// Who asked, and takes what it is sent.
pub struct Taker {
    stream: TcpStream,
    begun: Instant,
    sent: u64,
}

impl Taker {
    /// An answer with its length. `headers` are whole lines with their ends.
    pub fn answer(&mut self, status: u16, headers: &str, body: &[u8]) -> std::io::Result<()> {
        let length = body.len();
        self.send(
            format!(
                "HTTP/1.1 {status} Said\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n"
            )
            .as_bytes(),
        )?;
        self.send(body)
    }

    /// An answer that does not end before the other side does, or 1 GiB, or a minute.
    pub fn endless(&mut self, status: u16, headers: &str) -> std::io::Result<()> {
        self.send(
            format!("HTTP/1.1 {status} Said\r\n{headers}Transfer-Encoding: chunked\r\n\r\n").as_bytes(),
        )?;
        let chunk = [b"10000\r\n".as_slice(), &[b' '; 0x10000], b"\r\n"].concat();
        self.repeat(&chunk, Duration::ZERO)
    }

    /// Sends the same again and again, with a pause each time.
    pub fn repeat(&mut self, bytes: &[u8], pause: Duration) -> std::io::Result<()> {
        while self.sent < MOST && self.begun.elapsed() < LONGEST {
            self.send(bytes)?;
            std::thread::sleep(pause);
        }
        Ok(())
    }

    pub fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes)?;
        self.sent += bytes.len() as u64;
        Ok(())
    }
}

fn answer(stream: TcpStream, shared: &Shared) -> Option<()> {
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    stream.set_write_timeout(Some(LONGEST)).ok()?;
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, path) = (words.next()?, words.next()?);
    let mut headers = BTreeMap::new();
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let Some((name, value)) = header.trim_end().split_once(':') else { break };
        headers.insert(name.to_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").and_then(|n| n.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let asked = Asked { method, path, headers, body: String::from_utf8_lossy(&body).into_owned() };
    shared.asked.lock().ok()?.push(asked.clone());
    let rule = Arc::clone(&*shared.rule.lock().ok()?);
    let mut to = Taker { stream, begun: Instant::now(), sent: 0 };
    // An error is the other side's, which has had enough.
    let _ = rule(&asked, &mut to);
    shared.taken.fetch_max(to.sent, Ordering::SeqCst);
    Some(())
}

/// 512 MiB of spaces as half a MiB of gzip.
pub fn bomb() -> &'static [u8] {
    static BOMB: OnceLock<Vec<u8>> = OnceLock::new();
    BOMB.get_or_init(|| {
        let mut gzip = Command::new("gzip");
        let mut gzip =
            gzip.arg("-c").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("gzip runs");
        let mut into = gzip.stdin.take().expect("its input");
        let writer = std::thread::spawn(move || {
            let spaces = vec![b' '; 1 << 20];
            for _ in 0..512 {
                into.write_all(&spaces).expect("gzip takes it");
            }
        });
        let mut bomb = Vec::new();
        gzip.stdout.take().expect("its output").read_to_end(&mut bomb).expect("it is read");
        writer.join().expect("it was written");
        assert!(gzip.wait().expect("gzip ends").success());
        bomb
    })
}

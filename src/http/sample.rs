//! Servers for tests: what each says is scripted, and it may go on for ever, or slowly.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The failure of TLS with a server whose certificate no known authority has signed, as reqwest wraps it.
pub(crate) fn untrusted() -> super::Broken {
    let error = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
    std::io::Error::new(std::io::ErrorKind::InvalidData, error).into()
}

/// What a server answers to one request. Each closes its connection.
pub(crate) enum Say {
    /// Head and body as they are.
    Whole(Vec<u8>),
    /// The head, and then the piece again and again, up to [`ENDLESS`] bytes.
    Endless(String, Vec<u8>),
    /// The head, and then the piece every 20 ms, for a minute.
    Drip(String, Vec<u8>),
}

/// What stands for an endless body: far more than anybody may read, and yet an end for who reads it all.
pub(crate) const ENDLESS: usize = 256 << 20;

/// A server on a loopback port. It ends with the test process.
pub(crate) struct Server {
    /// `127.0.0.1:5000`.
    pub(crate) address: String,
    log: Arc<Mutex<Log>>,
}

#[derive(Default)]
struct Log {
    requests: Vec<String>,
    /// Bytes of endless bodies that were sent when the reader went away.
    sent: usize,
}

impl Server {
    /// Answers each request, first line and headers, by `answer`.
    pub(crate) fn start(answer: impl Fn(&str) -> Say + Send + Sync + 'static) -> Self {
        Self::with_body(move |request, _| answer(request))
    }

    /// Answers each request, first line and headers, and its body, by `answer`.
    pub(crate) fn with_body(answer: impl Fn(&str, &[u8]) -> Say + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (log, answer) = (Arc::new(Mutex::new(Log::default())), Arc::new(answer));
        let server = Self { address, log: Arc::clone(&log) };
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (log, answer) = (Arc::clone(&log), Arc::clone(&answer));
                std::thread::spawn(move || serve(stream, &log, &*answer));
            }
        });
        server
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// First line and headers of each request so far, without line breaks of their own kind.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.log.lock().unwrap().requests.clone()
    }

    /// How much of endless bodies was taken, with what was still on its way.
    pub(crate) fn sent(&self) -> usize {
        self.log.lock().unwrap().sent
    }
}

/// An answer with this status, e.g. `200 OK`, and more header lines.
pub(crate) fn answer(status: &str, headers: &[String], body: &[u8]) -> Say {
    let mut whole = head(status, headers, &format!("Content-Length: {}", body.len())).into_bytes();
    whole.extend_from_slice(body);
    Say::Whole(whole)
}

/// The head of an answer whose body ends with the connection.
pub(crate) fn endless_head(status: &str, headers: &[String]) -> String {
    head(status, headers, "X-Sample: endless")
}

pub(crate) fn redirect(status: u16, to: &str) -> Say {
    answer(&format!("{status} Elsewhere"), &[format!("Location: {to}")], b"")
}

fn head(status: &str, headers: &[String], length: &str) -> String {
    let more: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
    format!("HTTP/1.1 {status}\r\n{length}\r\n{more}Connection: close\r\n\r\n")
}

/// `bytes` of zeros in gzip, a thousandth of their size.
pub(crate) fn bomb(bytes: usize) -> Vec<u8> {
    let zeros = format!("head -c {bytes} /dev/zero | gzip -9");
    let made = std::process::Command::new("sh").args(["-c", &zeros]).output().unwrap();
    assert!(made.status.success() && !made.stdout.is_empty(), "gzip is here");
    made.stdout
}

fn serve(
    mut stream: TcpStream,
    log: &Mutex<Log>,
    answer: &(dyn Fn(&str, &[u8]) -> Say + Send + Sync),
) -> Option<()> {
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let (mut request, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
        if line == "\r\n" {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        request.push_str(&line.replace('\r', ""));
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    log.lock().unwrap().requests.push(request.clone());
    let said = answer(&request, &body);
    match said {
        Say::Whole(whole) => stream.write_all(&whole).ok(),
        Say::Endless(head, piece) => {
            stream.write_all(head.as_bytes()).ok()?;
            let mut sent = 0;
            while sent < ENDLESS && stream.write_all(&piece).is_ok() {
                sent += piece.len();
            }
            log.lock().unwrap().sent += sent;
            Some(())
        }
        Say::Drip(head, piece) => {
            stream.write_all(head.as_bytes()).ok()?;
            for _ in 0..3000 {
                stream.write_all(&piece).ok()?;
                std::thread::sleep(Duration::from_millis(20));
            }
            Some(())
        }
    }
}

//! Stands before the real registry, and answers in its place what a test tells it to.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::Lab;

/// A registry on a loopback port: the lab's, but for what is answered otherwise.
pub struct RegistryProxy {
    /// "127.0.0.1:5000".
    pub address: String,
    shared: Arc<Shared>,
}

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Question {
    pub at: Instant,
    /// "GET /v2/demo/app/manifests/sha256:…".
    pub line: String,
    /// "docker/20.10 …", "cotter/0.1.0".
    pub agent: String,
}

/// What is answered in the registry's place; `None`: what the registry says.
type Rule = Box<dyn Fn(&Question) -> Option<Instead> + Send>;

/// What a registry that does not serve does.
#[derive(Debug, Clone, Copy)]
pub enum Instead {
    /// It closes the connection.
    Away,
    /// It serves, with this many bytes a second.
    Slow(u32),
    /// Status 429; in how many seconds it may be asked again, if it says so.
    TooMany(Option<u32>),
}

struct Shared {
    registry: String,
    questions: Mutex<Vec<Question>>,
    rule: Mutex<Rule>,
}

impl RegistryProxy {
    /// Starts one before the lab's registry. It ends with the test process.
    #[track_caller]
    pub fn start(lab: &Lab) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
        let address = listener.local_addr().expect("its address").to_string();
        let shared = Arc::new(Shared {
            registry: lab.parts.registry.clone(),
            questions: Mutex::default(),
            rule: Mutex::new(Box::new(|_| None)),
        });
        let proxy = Self { address, shared: Arc::clone(&shared) };
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || answer(&shared, stream));
            }
        });
        proxy
    }

    /// An image of the lab's registry, as it is called here.
    pub fn image(&self, image: &str) -> String {
        image.replacen(&self.shared.registry, &self.address, 1)
    }

    /// From now on `rule` says what is answered.
    pub fn answer(&self, rule: impl Fn(&Question) -> Option<Instead> + Send + 'static) {
        *self.shared.rule.lock().expect("no thread panics") = Box::new(rule);
    }

    /// What it was asked so far.
    pub fn questions(&self) -> Vec<Question> {
        self.shared.questions.lock().expect("no thread panics").clone()
    }
}

/// Answers one request, and closes: only requests without a body are read.
fn answer(shared: &Shared, mut client: TcpStream) -> Option<()> {
    client.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    let mut reader = BufReader::new(client.try_clone().ok()?);
    let (mut line, mut head, mut agent) = (String::new(), String::new(), String::new());
    reader.read_line(&mut line).ok()?;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let Some((name, value)) = header.trim_end().split_once(':') else { break };
        match name.to_lowercase().as_str() {
            "user-agent" => value.trim().clone_into(&mut agent),
            "connection" => continue,
            _ => {}
        }
        head += &header;
    }
    let asked = line.rsplit_once(' ').map_or("", |(asked, _)| asked).to_owned();
    let question = Question { at: Instant::now(), line: asked, agent };
    let instead = shared.rule.lock().expect("no thread panics")(&question);
    shared.questions.lock().expect("no thread panics").push(question);
    let pass_on = |mut client: TcpStream, bytes_per_s: Option<u32>| {
        let mut registry = TcpStream::connect(&shared.registry).ok()?;
        write!(registry, "{line}{head}Connection: close\r\n\r\n").ok()?;
        match bytes_per_s {
            None => std::io::copy(&mut registry, &mut client).map(drop).ok()?,
            Some(bytes_per_s) => slowly(&mut registry, &mut client, bytes_per_s).ok()?,
        }
        client.shutdown(Shutdown::Both).ok()
    };
    let after = match instead {
        None => return pass_on(client, None),
        Some(Instead::Slow(bytes_per_s)) => return pass_on(client, Some(bytes_per_s)),
        Some(Instead::Away) => return None,
        Some(Instead::TooMany(after)) => after.map(|s| format!("Retry-After: {s}\r\n")).unwrap_or_default(),
    };
    write!(client, "HTTP/1.1 429 Too Many Requests\r\n{after}Content-Length: 0\r\nConnection: close\r\n\r\n")
        .ok()
}

/// Copies in twenty pieces a second.
fn slowly(from: &mut TcpStream, to: &mut TcpStream, bytes_per_s: u32) -> std::io::Result<()> {
    let mut piece = vec![0; bytes_per_s as usize / 20 + 1];
    while let n @ 1.. = from.read(&mut piece)? {
        to.write_all(&piece[..n])?;
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

//! Against an engine whose responses do not end.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt;
use tokio::sync::mpsc;

use super::{Docker, DockerSettings, EngineError, Inspect, LogSpan, Operate};
use crate::model::{ContainerId, ImageRef, Instance, RegistryPass};

/// The length that stands for an endless response: far more than may be read.
const ENDLESS: usize = 256 << 20;

/// An engine at a socket. It ends with the test process.
struct Engine {
    _folder: tempfile::TempDir,
    docker: Docker,
    /// The bytes of endless responses that were read.
    taken: Arc<Mutex<usize>>,
}

impl Engine {
    /// Answers every call except that for the version with this head, and repeats the piece without end.
    fn start(head: &'static str, piece: Vec<u8>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("engine.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let taken = Arc::<Mutex<usize>>::default();
        let noted = Arc::clone(&taken);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (noted, piece) = (Arc::clone(&noted), piece.clone());
                std::thread::spawn(move || serve(stream, head, &piece, &noted));
            }
        });
        let docker = Docker::new(DockerSettings {
            socket,
            instance: Instance::parse("default").unwrap(),
            services_dir: folder.path().to_owned(),
            stall_timeout: Duration::from_secs(30),
        });
        Self { _folder: folder, docker, taken }
    }

    #[track_caller]
    fn assert_left_alone(&self) {
        assert!(*self.taken.lock().unwrap() < ENDLESS, "bytes beyond the limit are not read");
    }
}

fn serve(mut stream: UnixStream, head: &str, piece: &[u8], taken: &Mutex<usize>) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    loop {
        let mut first = String::new();
        reader.read_line(&mut first).ok().filter(|read| *read > 0)?;
        let mut line = String::new();
        while reader.read_line(&mut line).ok().filter(|read| *read > 2).is_some() {
            line.clear();
        }
        if first.contains("/version") {
            let body = r#"{"ApiVersion":"1.41","MinAPIVersion":"1.12"}"#;
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).ok()?;
            continue;
        }
        stream.write_all(head.as_bytes()).ok()?;
        let mut sent = 0;
        while sent < ENDLESS && stream.write_all(piece).is_ok() {
            sent += piece.len();
        }
        *taken.lock().unwrap() += sent;
        return None;
    }
}

const GOOD: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n";
const BAD: &str = "HTTP/1.1 500 Oh\r\nContent-Type: application/json\r\n\r\n";

fn id() -> ContainerId {
    ContainerId::parse("e".repeat(64)).unwrap()
}

async fn pull(engine: &Engine) -> EngineError {
    let image = ImageRef::parse("r.example/a").unwrap();
    engine.docker.pull(&image, None, &RegistryPass::Nothing, mpsc::channel(1).0).await.unwrap_err()
}

#[tokio::test]
async fn an_answer_is_taken_up_to_16_mib() {
    let (good, bad) = (Engine::start(GOOD, vec![b'x'; 0x10000]), Engine::start(BAD, vec![b'x'; 0x10000]));
    for (why, error) in [
        ("one that we read", good.docker.observe().await.unwrap_err()),
        ("an error that we read", bad.docker.observe().await.unwrap_err()),
        ("an error that bollard reads", bad.docker.start(&id()).await.unwrap_err()),
        ("an error in place of a stream", pull(&bad).await),
    ] {
        assert!(error.to_string().contains("it sends more than 16 MiB in one answer"), "{why}: {error}");
    }
    good.assert_left_alone();
    bad.assert_left_alone();
}

#[tokio::test]
async fn a_line_of_a_stream_is_taken_up_to_1_mib() {
    let engine = Engine::start(GOOD, vec![b'x'; 0x10000]);
    let error = pull(&engine).await;
    assert!(error.to_string().contains("it sends a line of more than 1 MiB"), "{error}");
    let error = pin!(engine.docker.events()).next().await.unwrap().unwrap_err();
    assert!(error.to_string().contains("it sends a line of more than 1 MiB"), "{error}");
    engine.assert_left_alone();
    // The number of lines is not limited.
    let engine = Engine::start(GOOD, b"{\"status\":\"Downloading\",\"id\":\"a\"}\n".repeat(1000));
    let image = ImageRef::parse("r.example/a").unwrap();
    let pulled = engine.docker.pull(&image, None, &RegistryPass::Nothing, mpsc::channel(1).0);
    assert!(tokio::time::timeout(Duration::from_millis(500), pulled).await.is_err());
}

#[tokio::test]
async fn a_log_without_a_line_break_comes_piece_by_piece() {
    let engine = Engine::start(GOOD, vec![b'x'; 0x10000]);
    let mut log = pin!(engine.docker.logs(&id(), LogSpan::default()).await.unwrap());
    let mut read = 0;
    while read < 32 << 20 {
        let piece = log.next().await.unwrap().unwrap();
        assert!(piece.len() <= 1 << 20, "{}", piece.len());
        read += piece.len();
    }
}

/// A permanent error counts as success, because otherwise the call would be repeated for ever.
#[tokio::test]
async fn an_image_whose_name_no_engine_accepts_counts_as_removed() {
    let body = r#"{"message":"invalid reference format"}"#;
    let answer = format!("HTTP/1.1 400 Bad\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let engine = Engine::start("", answer.into_bytes());
    let image = ImageRef::parse("r.example/a").unwrap();
    engine.docker.remove_image(&image).await.unwrap();
    // The path would lead to something other than an image, so no request is made.
    let engine = Engine::start("HTTP/1.1 500 Oh\r\n\r\n", b"asked".to_vec());
    let stored: ImageRef = serde_json::from_str(r#""r.example/../../containers/web""#).unwrap();
    engine.docker.remove_image(&stored).await.unwrap();
}

/// Messages of an engine are shown in the status, in events and in the journal.
#[tokio::test]
async fn a_message_is_kept_short() {
    let body = format!("{{\"message\":\"{}\"}}", "no ".repeat(100_000));
    let whole = format!("HTTP/1.1 400 Bad\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let engine = Engine::start("", whole.into_bytes());
    for error in [engine.docker.start(&id()).await.unwrap_err(), pull(&engine).await] {
        assert!(error.to_string().len() < 2500, "{}", error.to_string().len());
    }
}

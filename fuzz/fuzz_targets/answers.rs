//! Any bytes as the answers of a cloud and of a registry: each call ends with a value or an error.
//!
//! A thread listens on loopback and answers every connection. The first byte chooses the call. Two newlines and a
//! `~` part the answers to the call's requests, in order; the last one answers all that follow. An answer that does
//! not begin with `H` gets a first line and a length, so that the fuzzer need not find them.

#![no_main]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::{LazyLock, Mutex};
use std::time::Duration;

use cotter::cloud::{Client, Registration};
use cotter::http::Http;
use cotter::model::{DeviceUuid, FleetRef, ImageRef, RegistryLogin};
use cotter::registry;
use tokio::runtime::Runtime;

const DEVICE: &str = "0123456789abcdef0123456789abcdef";
const BETWEEN: &[u8] = b"\n\n~";

static ANSWERS: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

/// The server's port.
static PORT: LazyLock<u16> = LazyLock::new(|| {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port of loopback");
    let port = listener.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            // A client that went away is its own business.
            let _ = stream.set_read_timeout(Some(Duration::from_millis(200)));
            let mut request = [0; 4096];
            let _ = stream.read(&mut request);
            let mut answers = ANSWERS.lock().expect("no thread panics while it has them");
            let answer = if answers.len() > 1 { answers.remove(0) } else { answers[0].clone() };
            drop(answers);
            let _ = stream.write_all(&answer);
        }
    });
    port
});

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
});
static HTTP: LazyLock<Http> = LazyLock::new(|| Http::new().expect("TLS"));

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((call, bytes)) = bytes.split_first() else { return };
    let mut answers = Vec::new();
    let mut rest = bytes;
    while let Some(at) = rest.windows(BETWEEN.len()).position(|window| window == BETWEEN) {
        answers.push(whole(&rest[..at]));
        rest = &rest[at + BETWEEN.len()..];
    }
    answers.push(whole(rest));
    *ANSWERS.lock().expect("no thread panics while it has them") = answers;
    RUNTIME.block_on(ask(*call));
});

/// An answer with a first line and a length, unless it brings its own.
fn whole(bytes: &[u8]) -> Vec<u8> {
    if bytes.first() == Some(&b'H') {
        return bytes.to_vec();
    }
    let (status, bytes) = match bytes.split_first() {
        Some((b'0', rest)) => ("201 Created", rest),
        Some((b'1', rest)) => ("401 Unauthorized", rest),
        Some((b'2', rest)) => ("503 Service Unavailable", rest),
        _ => ("200 OK", bytes),
    };
    // Headers of the fuzzer's own stand before an empty line.
    let at = bytes.windows(2).position(|window| window == b"\n\n");
    let (headers, body) = at.map_or((&b""[..], bytes), |at| (&bytes[..at + 1], &bytes[at + 2..]));
    let length = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n", body.len());
    [length.as_bytes(), headers, b"\r\n", body].concat()
}

async fn ask(call: u8) {
    let host = format!("127.0.0.1:{}", *PORT);
    let client = Client::new(HTTP.clone(), &format!("http://{host}"), Duration::from_secs(1));
    let device = DeviceUuid::parse(DEVICE).expect("a uuid");
    let image = ImageRef::parse(&format!("{host}/a/b:1")).expect("an image");
    let login = RegistryLogin {
        username: "user".to_owned(),
        password: "password".to_owned(),
        registries: vec![format!("http://{host}")],
    };
    // Values and errors are both fine: the process must live, and each call must end.
    match call % 6 {
        0 => drop(client.state(&device, "key", Some("etag")).await),
        1 => drop(client.find(&device, "key").await),
        2 => {
            let registration = Registration {
                fleet: &FleetRef::Number(1),
                tags: &BTreeMap::new(),
                device_type: "generic-amd64",
                device_name: None,
                uuid: &device,
                device_key: "key",
            };
            drop(client.register(registration, "provisioning-key").await);
        }
        3 => drop(registry::measure_image(&HTTP, &image, "amd64", Some(&login)).await),
        4 => drop(registry::pass(&HTTP, &image, &login).await),
        _ => drop(registry::resolve(&HTTP, &image).await),
    }
}

//! Measures polls that wait at a fleet server: the memory of each, and how long news take to all of them.
//!
//! ```sh
//! cargo build --profile server --bin cotter-fleet
//! cargo run --release --example parked_load -- target/server/cotter-fleet 15000
//! ```
//!
//! Needs a little more than a file per device (`ulimit -n`), in the server and here. Each 10,000 devices have a loopback
//! address of their own.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a measurement fails by panicking and reads the real clock"
)]

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

/// Devices that one provisioning key registers here.
const PER_KEY: usize = 5000;
/// Devices that connect at the same time.
const AT_ONCE: usize = 64;

struct Server {
    child: Child,
    address: SocketAddr,
    token: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// An answer: status, etag and body.
struct Answer {
    status: u16,
    etag: String,
    body: Vec<u8>,
}

async fn connect(to: SocketAddr, device: usize) -> TcpStream {
    let own = u8::try_from(2 + device / 10_000).unwrap();
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((Ipv4Addr::new(127, 0, 0, own), 0).into()).unwrap();
    socket.connect(to).await.expect("a connection")
}

fn request(method: &str, path: &str, key: &str, more: &str, body: &str) -> String {
    format!(
        "{method} {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n{more}\r\n{body}",
        body.len()
    )
}

async fn answer(stream: &mut TcpStream) -> Answer {
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
            let header = |name: &str| {
                let mut lines = head.lines().filter_map(|line| line.split_once(": "));
                lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned())
            };
            let status = head.split(' ').nth(1).unwrap().parse().unwrap();
            let length = header("content-length").map_or(0, |length| length.parse().unwrap());
            let mut body = bytes.split_off(end + 4);
            while status != 304 && body.len() < length {
                assert_ne!(stream.read_buf(&mut body).await.unwrap(), 0, "the body ends too soon");
            }
            return Answer { status, etag: header("etag").unwrap_or_default(), body };
        }
        assert_ne!(stream.read_buf(&mut bytes).await.unwrap(), 0, "no answer");
    }
}

impl Server {
    async fn start(binary: &str, folder: &Path, devices: usize) -> Self {
        // Seven of eight connections may wait.
        let connections = (devices * 8 / 7 + 16).to_string();
        let log = folder.join("log");
        let mut command = Command::new(binary);
        command.args([
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--poll-interval",
            "1h",
            "--connections",
            &connections,
        ]);
        command.arg("--data-dir").arg(folder.join("data")).env("NO_COLOR", "1");
        let output = std::fs::File::create(&log).unwrap();
        let child = command.stdout(Stdio::null()).stderr(output).spawn().expect("the server starts");
        for _ in 0..200 {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let text = std::fs::read_to_string(&log).unwrap();
            let Some(rest) = text.split_once("url=http://").map(|(_, rest)| rest.to_owned()) else {
                continue;
            };
            let address = rest.split(' ').next().unwrap().parse().unwrap();
            let token = std::fs::read_to_string(folder.join("data/operator.token")).unwrap();
            return Self { child, address, token: token.trim().to_owned() };
        }
        panic!("the server does not listen: {}", std::fs::read_to_string(&log).unwrap());
    }

    async fn operate(&self, method: &str, path: &str, body: &Value) -> Value {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let text = request(method, path, &self.token, "", &body);
        stream.write_all(text.as_bytes()).await.unwrap();
        let answer = answer(&mut stream).await;
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        assert!(answer.status < 300, "{path}: {} {text}", answer.status);
        serde_json::from_str(&text).unwrap_or(Value::String(text))
    }

    async fn parked(&self) -> usize {
        let page = self.operate("GET", "/metrics", &Value::Null).await;
        let (_, rest) = page.as_str().unwrap().split_once("\ncotter_fleet_parked_polls ").unwrap();
        rest.lines().next().unwrap().parse().unwrap()
    }

    /// Resident memory in KiB.
    fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }
}

/// Pages of all TCP sockets of this machine, in KiB: both ends are here.
fn kernel() -> u64 {
    let text = std::fs::read_to_string("/proc/net/sockstat").unwrap_or_default();
    let pages = text.lines().find(|line| line.starts_with("TCP:")).and_then(|line| line.rsplit(' ').next());
    pages.and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * 4
}

fn device(number: usize) -> (String, String) {
    (format!("{number:032x}"), format!("a-random-key-{number:08}"))
}

fn release(commit: &str) -> Value {
    let services: Vec<String> = (0..10).map(|n| format!("service-{n}")).collect();
    let image = |service: &String| format!("registry.example.com/lab/{service}");
    let composition: serde_json::Map<_, _> = services
        .iter()
        .map(|service| {
            let image = image(service);
            (service.clone(), json!({ "image": image, "restart": "always", "environment": { "A": "b" } }))
        })
        .collect();
    let images: serde_json::Map<_, _> = services
        .iter()
        .map(|service| (service.clone(), json!(format!("{}@sha256:{}", image(service), "a".repeat(64)))))
        .collect();
    json!({ "commit": commit, "composition": { "services": composition }, "images": images })
}

/// Runs `each` for all devices, some at a time.
async fn for_all<F, T>(devices: usize, each: impl Fn(usize) -> F) -> Vec<T>
where
    F: Future<Output = T> + Send + 'static,
    T: Send + 'static,
{
    let (mut tasks, mut done) = (JoinSet::new(), Vec::with_capacity(devices));
    for number in 0..devices {
        if tasks.len() >= AT_ONCE {
            done.push(tasks.join_next().await.unwrap().unwrap());
        }
        tasks.spawn(each(number));
    }
    while let Some(task) = tasks.join_next().await {
        done.push(task.unwrap());
    }
    done
}

async fn register(server: &Server, devices: usize) {
    let created = server.operate("POST", "/api/v1/fleets", &json!({ "name": "lab" })).await;
    for commit in ["one", "two"] {
        server.operate("POST", "/api/v1/fleets/lab/releases", &release(commit)).await;
    }
    let mut keys = Vec::new();
    for _ in 0..devices.div_ceil(PER_KEY) {
        let key = json!({ "per_minute": 6000 });
        let key = server.operate("POST", "/api/v1/fleets/lab/provisioning-keys", &key).await;
        keys.push(key["provisioning_key"].as_str().unwrap().to_owned());
    }
    let (keys, address, fleet) = (Arc::new(keys), server.address, created["fleet"]["number"].clone());
    for_all(devices, |number| {
        let (keys, fleet) = (Arc::clone(&keys), fleet.clone());
        async move {
            let (uuid, key) = device(number);
            let body =
                json!({ "application": fleet, "device_type": "generic-amd64", "uuid": uuid, "api_key": key });
            let mut stream = connect(address, number).await;
            let text = request("POST", "/device/register", &keys[number / PER_KEY], "", &body.to_string());
            stream.write_all(text.as_bytes()).await.unwrap();
            let answer = answer(&mut stream).await;
            assert_eq!(answer.status, 201, "{}", String::from_utf8_lossy(&answer.body));
        }
    })
    .await;
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut words = std::env::args().skip(1);
    let usage = "parked_load PATH-OF-COTTER-FLEET DEVICES";
    let (binary, devices) = (words.next().expect(usage), words.next().expect(usage).parse().expect(usage));
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(&binary, folder.path(), devices).await;
    let address = server.address;
    register(&server, devices).await;
    let poll = async move |number: usize, more: String| {
        let (uuid, key) = device(number);
        let mut stream = connect(address, number).await;
        let text = request("GET", &format!("/device/v3/{uuid}/state"), &key, &more, "");
        stream.write_all(text.as_bytes()).await.unwrap();
        stream
    };
    let etags = for_all(devices, |number| async move {
        let mut stream = poll(number, String::new()).await;
        (number, answer(&mut stream).await.etag)
    })
    .await;
    let (before, kernel_before) = (server.memory(), kernel());
    let etags: Arc<std::collections::HashMap<usize, String>> = Arc::new(etags.into_iter().collect());
    let begun = Instant::now();
    let parked = for_all(devices, |number| {
        let etags = Arc::clone(&etags);
        async move { poll(number, format!("If-None-Match: {}\r\nPrefer: wait=300\r\n", etags[&number])).await }
    })
    .await;
    while server.parked().await < devices {
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(begun.elapsed() < Duration::from_secs(200), "only {} wait", server.parked().await);
    }
    let parked_after = begun.elapsed();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (after, kernel_after) = (server.memory(), kernel());
    let mut waiting = JoinSet::new();
    for mut stream in parked {
        waiting.spawn(async move {
            let answer = answer(&mut stream).await;
            (answer.status, Instant::now())
        });
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let pinned = Instant::now();
    server.operate("POST", "/api/v1/fleets/lab/pin", &json!({ "release": "one" })).await;
    let acknowledged = pinned.elapsed();
    let mut news = Vec::with_capacity(devices);
    while let Some(answered) = waiting.join_next().await {
        let (status, at) = answered.unwrap();
        assert_eq!(status, 200);
        news.push(at - pinned);
    }
    news.sort_unstable();
    let peak = server.memory();
    // A table for people; the numbers are of this machine.
    let lines = [
        format!("devices that wait                  {devices}, after {:.1} s", parked_after.as_secs_f64()),
        format!(
            "memory of the server               {before} KiB, then {after} KiB, after the news {peak} KiB"
        ),
        format!(
            "memory of each that waits          {:.1} KiB",
            float(after.saturating_sub(before)) / float(devices as u64)
        ),
        format!(
            "kernel, both ends of each          {:.1} KiB",
            float(kernel_after.saturating_sub(kernel_before)) / float(devices as u64)
        ),
        format!("pin acknowledged                   {} ms", acknowledged.as_millis()),
        format!("news at the first device           {} ms", news[0].as_millis()),
        format!(
            "news at half, 99 %, all            {}, {}, {} ms",
            news[devices / 2].as_millis(),
            news[devices * 99 / 100].as_millis(),
            news[devices - 1].as_millis()
        ),
    ];
    #[allow(clippy::print_stdout, reason = "the result of a measurement")]
    {
        println!("{}", lines.join("\n"));
    }
}

#[allow(clippy::cast_precision_loss, reason = "a measurement")]
fn float(number: u64) -> f64 {
    number as f64
}

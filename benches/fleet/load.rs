//! The load: requests over plain sockets, so that it costs less than what it measures.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use crate::seed::device;

/// Connections of a load.
const CONNECTIONS: u32 = 32;

pub struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
}

pub struct Answer {
    pub status: u16,
    pub etag: Option<String>,
    pub body: Vec<u8>,
}

impl Client {
    pub async fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address).await.expect("the server accepts a connection")
    }

    pub async fn try_connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: vec![0; 64 * 1024] })
    }

    /// As [`Self::connect`], from this address, for one request.
    pub async fn connect_from(source: Ipv4Addr, address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((source, 0).into()).expect("a loopback address");
        let stream = socket.connect(address).await.expect("the server accepts a connection");
        Self { stream, buffer: vec![0; 4 * 1024] }
    }

    /// Sends a request, and reads all of its answer.
    pub async fn send(&mut self, request: &[u8]) -> Answer {
        self.try_send(request).await.expect("an answer")
    }

    /// As [`Self::send`], while the server may end.
    pub async fn try_send(&mut self, request: &[u8]) -> io::Result<Answer> {
        self.stream.write_all(request).await?;
        let mut length = 0;
        let (head, status, etag, whole) = loop {
            length += self.read(length).await?;
            let Some(end) = self.buffer[..length].windows(4).position(|four| four == b"\r\n\r\n") else {
                continue;
            };
            let text = std::str::from_utf8(&self.buffer[..end]).unwrap();
            let header = |name: &str| {
                let mut lines = text.lines().filter_map(|line| line.split_once(": "));
                lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned())
            };
            let status = text.split(' ').nth(1).unwrap().parse().unwrap();
            let is_chunked = header("transfer-encoding").is_some();
            assert!(!is_chunked, "answers have a length");
            let body: usize = header("content-length").map_or(0, |length| length.parse().unwrap());
            break (end + 4, status, header("etag"), body);
        };
        let whole = if status == 304 { 0 } else { whole };
        let mut body = self.buffer[head..length].to_vec();
        while body.len() < whole {
            let read = self.read(0).await?;
            body.extend_from_slice(&self.buffer[..read]);
        }
        Ok(Answer { status, etag, body })
    }

    async fn read(&mut self, at: usize) -> io::Result<usize> {
        match self.stream.read(&mut self.buffer[at..]).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            count => Ok(count),
        }
    }
}

pub fn poll(number: u32, etag: Option<&str>) -> Vec<u8> {
    let (uuid, key) = device(number);
    let known = etag.map_or_else(String::new, |etag| format!("If-None-Match: {etag}\r\n"));
    format!("GET /device/v3/{uuid}/state HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {key}\r\n{known}\r\n")
        .into_bytes()
}

/// A poll that waits for a new target.
pub fn parked_poll(number: u32, etag: &str) -> Vec<u8> {
    let mut request = poll(number, Some(etag));
    request.truncate(request.len() - "\r\n".len());
    request.extend_from_slice(b"Prefer: wait=300\r\n\r\n");
    request
}

fn report(number: u32, n: u64) -> Vec<u8> {
    report_with(number, n, "")
}

/// A report whose number can be read in the records.
pub fn numbered_report(number: u32, n: u64) -> Vec<u8> {
    report_with(number, n, &format!("\"cpu_id\":\"n{n}\","))
}

fn report_with(number: u32, n: u64, more: &str) -> Vec<u8> {
    let (uuid, key) = device(number);
    let body = format!(
        "{{\"{uuid}\":{{{more}\"status\":\"Idle\",\"cpu_temp\":{},\"memory_usage\":{},\"memory_total\":1000,\"os_version\":\"Debian 12\",\"supervisor_version\":\"0.2.0\"}}}}",
        n % 90,
        n % 1000
    );
    let head = format!(
        "PATCH /device/v3/state HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.into_bytes(), body.into_bytes()].concat()
}

/// Answers in a time.
pub struct Measured {
    answers: u64,
    within: Duration,
}

impl Measured {
    pub fn per_second(&self) -> f64 {
        self.answers as f64 / self.within.as_secs_f64()
    }
}

/// How many polls without news are answered, by as many as the server can take.
pub async fn rate(address: SocketAddr, etags: &[String], is_new: bool, window: Duration) -> Measured {
    let answers = Arc::new(AtomicU64::new(0));
    let end = Instant::now() + window;
    let tasks = (0..CONNECTIONS).map(|n| {
        let answers = Arc::clone(&answers);
        let number = n + 1;
        let request = poll(number, Some(&etags[n as usize]));
        tokio::spawn(async move {
            let mut client = Client::connect(address).await;
            while Instant::now() < end {
                if is_new {
                    client = Client::connect(address).await;
                }
                assert_eq!(client.send(&request).await.status, 304);
                answers.fetch_add(1, Ordering::Relaxed);
            }
        })
    });
    futures_util::future::join_all(tasks).await.into_iter().for_each(|ended| ended.expect("a load ends"));
    Measured { answers: answers.load(Ordering::Relaxed), within: window }
}

/// The times of answers, in order.
pub struct Times(Vec<Duration>);

impl Times {
    pub fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        Self(times)
    }

    /// The time that so many percent of the answers took at most.
    pub fn at(&self, percent: usize) -> String {
        let last = self.0.len() - 1;
        format!("{:.1} ms", self.0[(last * percent).div_ceil(100).min(last)].as_secs_f64() * 1000.0)
    }
}

/// The times of polls of so many a second, of devices whose target does not change.
pub async fn paced(address: SocketAddr, etags: &[String], window: Duration, per_second: u32) -> Times {
    let gap = Duration::from_secs(1) * CONNECTIONS / per_second;
    let begun = Instant::now();
    let tasks = (0..CONNECTIONS).map(|n| {
        // Devices with odd numbers are not pinned.
        let number = n * 2 + 1;
        let request = poll(number, Some(&etags[number as usize - 1]));
        tokio::spawn(async move {
            let mut client = Client::connect(address).await;
            let mut times = Vec::new();
            let mut next = begun + gap * n / CONNECTIONS;
            while next < begun + window {
                tokio::time::sleep_until(next.into()).await;
                assert_eq!(client.send(&request).await.status, 304);
                // From when it should have been sent: a server that holds up one holds up the next ones, too.
                times.push(next.elapsed());
                next += gap;
            }
            times
        })
    });
    let mut all = Vec::new();
    for times in futures_util::future::join_all(tasks).await {
        all.extend(times.expect("a load ends"));
    }
    Times::of(all)
}

/// How many reports are stored, each of which changes something.
pub async fn reports(address: SocketAddr, connections: u32, devices: u32, window: Duration) -> Measured {
    reports_from(address, connections, 0, devices, window).await
}

/// As [`reports`], of the devices after the first ones.
pub async fn reports_from(
    address: SocketAddr,
    connections: u32,
    first: u32,
    devices: u32,
    window: Duration,
) -> Measured {
    let stored = Arc::new(AtomicU64::new(0));
    let end = Instant::now() + window;
    let tasks = (0..connections).map(|n| {
        let stored = Arc::clone(&stored);
        tokio::spawn(async move {
            let mut client = Client::connect(address).await;
            // A device may report once a second, so each connection is the way of many.
            let own = devices / connections;
            for round in 0.. {
                if Instant::now() >= end {
                    break;
                }
                let number = first + n * own + u32::try_from(round % u64::from(own)).unwrap() + 1;
                assert_eq!(client.send(&report(number, round)).await.status, 200);
                stored.fetch_add(1, Ordering::Relaxed);
            }
        })
    });
    futures_util::future::join_all(tasks).await.into_iter().for_each(|ended| ended.expect("a load ends"));
    Measured { answers: stored.load(Ordering::Relaxed), within: window }
}

pub fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

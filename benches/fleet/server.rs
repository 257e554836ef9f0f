//! The server that is measured.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Resource, getrlimit};

use crate::load::{Answer, Client};

/// The processors of the server and of the load.
pub const OF_SERVER: usize = 0;

/// A database without its password, and the file that has it.
pub struct Store {
    pub url: String,
    pub password_file: PathBuf,
}

pub struct Server {
    child: Child,
    pub address: SocketAddr,
    pub started: Duration,
    /// How many polls may wait at once.
    pub parked: usize,
    token: String,
}

/// Restores the backup into the data folder, or into a database.
pub fn restore(binary: &Path, folder: &Path, store: Option<&Store>) {
    let mut command = Command::new(binary);
    command.arg("restore").arg(folder.join("backup.jsonl"));
    match store {
        None => command.arg("--data-dir").arg(folder.join("data")),
        Some(Store { url, password_file }) => {
            command.args(["--store", url]).arg("--password-file").arg(password_file)
        }
    };
    assert!(command.status().expect("the server's binary runs").success(), "the backup is restored");
}

/// A command that runs on one processor.
pub fn on_processor(processor: usize, program: &Path) -> Command {
    let mut command = Command::new("taskset");
    command.arg("--cpu-list").arg(processor.to_string()).arg(program);
    command
}

impl Server {
    pub fn start(binary: &Path, folder: &Path) -> Self {
        Self::start_at(binary, folder, "data", None)
    }

    /// Starts one with this data folder in `folder`, and its records there or in a database.
    pub fn start_at(binary: &Path, folder: &Path, data: &str, store: Option<&Store>) -> Self {
        let log = folder.join(format!("{data}.log"));
        let data = folder.join(data);
        // A file for each, on both sides; and some more.
        let files = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
        let connections = usize::try_from(files).unwrap_or(usize::MAX).saturating_sub(500).min(24_000);
        let mut command = on_processor(OF_SERVER, binary);
        command.args(["serve", "--listen", "127.0.0.1:0", "--poll-interval", "1h", "--connections"]);
        command.arg(connections.to_string());
        command.arg("--data-dir").arg(&data).env("NO_COLOR", "1");
        if let Some(Store { url, password_file }) = store {
            command.args(["--store", url]).arg("--store-password-file").arg(password_file);
        }
        command.stderr(fs::File::create(&log).unwrap()).stdout(Stdio::null());
        let begun = Instant::now();
        let mut child = command.spawn().expect("taskset runs");
        let address = loop {
            let text = fs::read_to_string(&log).unwrap();
            if let Some((_, rest)) = text.split_once("url=http://") {
                break rest.split(' ').next().unwrap().parse().unwrap();
            }
            assert!(child.try_wait().unwrap().is_none(), "the server ended: {text}");
            std::thread::sleep(Duration::from_millis(5));
        };
        let started = begun.elapsed();
        let token = fs::read_to_string(data.join("operator.token")).unwrap().trim().to_owned();
        // The server leaves an eighth of its connections to other requests.
        Self { child, address, started, parked: connections / 8 * 7 - 100, token }
    }

    fn of_status(&self, name: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    pub fn memory_kib(&self) -> u64 {
        self.of_status("VmRSS:")
    }

    pub fn peak_kib(&self) -> u64 {
        self.of_status("VmHWM:")
    }

    /// Waits until so many polls wait.
    pub async fn until_parked(&self, polls: usize) {
        let begun = Instant::now();
        loop {
            let page = self.page("/metrics").await;
            let count = page.lines().find_map(|line| line.strip_prefix("cotter_fleet_parked_polls "));
            if count.is_some_and(|count| count.parse() == Ok(polls)) {
                return;
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "{polls} polls do not wait: {count:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// How long an operator waits for `path`, below `/api/v1` or `metrics`.
    pub async fn get(&self, path: &str) -> Duration {
        let path = if path.starts_with('/') { format!("/api/v1{path}") } else { format!("/{path}") };
        let begun = Instant::now();
        self.ask("GET", &path, "").await;
        begun.elapsed()
    }

    /// The text at `path`.
    pub async fn page(&self, path: &str) -> String {
        String::from_utf8(self.ask("GET", path, "").await.body).unwrap()
    }

    pub async fn act(&self, path: &str, body: &str) -> Duration {
        let begun = Instant::now();
        self.ask("POST", &format!("/api/v1{path}"), body).await;
        begun.elapsed()
    }

    /// An act while servers end: whether it was acknowledged.
    pub async fn try_act(address: SocketAddr, token: &str, path: &str, body: &str) -> bool {
        let Ok(mut client) = Client::try_connect(address).await else { return false };
        let request = Self::request(token, "POST", &format!("/api/v1{path}"), body);
        client.try_send(request.as_bytes()).await.is_ok_and(|answer| (200..300).contains(&answer.status))
    }

    pub fn token(&self) -> &str {
        &self.token
    }

    /// Ends it with SIGKILL.
    pub fn kill(mut self) {
        let _gone = self.child.kill();
        let _ended = self.child.wait();
    }

    async fn ask(&self, method: &str, path: &str, body: &str) -> Answer {
        let mut client = Client::connect(self.address).await;
        let request = Self::request(&self.token, method, path, body);
        let answer = client.send(request.as_bytes()).await;
        let text = String::from_utf8_lossy(&answer.body);
        assert!((200..300).contains(&answer.status), "{method} {path}: {} {text}", answer.status);
        answer
    }

    fn request(token: &str, method: &str, path: &str, body: &str) -> String {
        format!(
            "{method} {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _ended = self.child.wait();
    }
}

pub fn machine() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = text.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or(": a processor");
    model.trim_start_matches([' ', '\t', ':']).to_owned()
}

pub fn this_program() -> PathBuf {
    std::env::current_exe().expect("this program has a path")
}

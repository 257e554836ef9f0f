//! Strangers and stolen devices against the real fleet server: whatever they open, send or leave undone, devices are
//! answered, operators get in, and memory stays within what the unit allows.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit, setrlimit};
use serde_json::{Value, json};
use support::{Program, eventually};

/// The memory that the unit gives the server.
const UNIT_KIB: u64 = 512 * 1024;
const PATIENCE: Duration = Duration::from_secs(20);

/// A fleet server with a fleet `lab`.
struct Server {
    program: Program,
    address: String,
    key: String,
    folder: tempfile::TempDir,
}

impl Server {
    /// With the usual limits of a shell: 1024 open files, which the process may raise.
    fn start(more: &[&str]) -> Self {
        Self::start_under("ulimit -Sn 1024", more)
    }

    fn start_under(limits: &str, more: &[&str]) -> Self {
        // Of all tests together.
        let most = getrlimit(Resource::Nofile).maximum;
        setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most }).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!("{limits}; exec \"$0\" \"$@\"")).arg(Program::fleet_binary());
        command.args(["serve", "--listen", "127.0.0.1:0", "--poll-interval", "1h", "--data-dir"]);
        command.arg(folder.path().join("data")).args(more).env("NO_COLOR", "1");
        let log = folder.path().join("log");
        let mut program = Program::start("the fleet server", command, &log);
        let address = eventually("the fleet server listens", PATIENCE, || {
            assert!(program.is_running(), "it ended: {}", program.log());
            Some(program.log().split_once("url=http://")?.1.split_once(' ')?.0.to_owned())
        });
        let mut server = Self { program, address, key: String::new(), folder };
        assert!(server.cli(&["fleet", "create", "lab"]).status.success(), "{}", server.program.log());
        // A key for as many devices as a test needs at once.
        let key = ["fleet", "provisioning-key", "create", "lab", "--per-minute", "1000", "--json"];
        let created: Value = serde_json::from_slice(&server.cli(&key).stdout).expect("a key was created");
        server.key = created["created"]["provisioning_key"].as_str().unwrap().to_owned();
        server
    }

    fn cli(&self, args: &[&str]) -> Output {
        let mut command = Program::cotter();
        command.args(args).env("COTTER_FLEET_URL", format!("http://{}", self.address));
        command.env("COTTER_TOKEN_FILE", self.token_file()).output().unwrap()
    }

    fn token_file(&self) -> PathBuf {
        self.folder.path().join("data/operator.token")
    }

    /// Opens a connection, sends `text`, and leaves it open.
    fn open(&self, text: &str) -> TcpStream {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(text.as_bytes()).unwrap();
        stream
    }

    /// All that is answered to `text`.
    fn ask(&self, text: &str) -> String {
        answer(self.open(text))
    }

    fn register(&self, number: u32) {
        let (uuid, key) = device(number);
        let body = json!({ "application": 1, "device_type": "generic-amd64", "uuid": uuid, "api_key": key });
        let answer = self.ask(&request("POST /device/register", &self.key, &body.to_string()));
        assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    }

    fn poll(&self, number: u32) -> String {
        let (uuid, key) = device(number);
        self.ask(&request(&format!("GET /device/v3/{uuid}/state"), &key, ""))
    }

    /// The most memory that it ever had, in KiB.
    fn peak_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.program.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    fn times_logged(&self, words: &str) -> usize {
        self.program.log().lines().filter(|line| line.contains(words)).count()
    }
}

/// Uuid and key.
fn device(number: u32) -> (String, String) {
    (format!("{number:032x}"), format!("the-key-of-device-{number}"))
}

fn head(line: &str, key: &str, length: usize) -> String {
    let key = if key.is_empty() { String::new() } else { format!("Authorization: Bearer {key}\r\n") };
    format!(
        "{line} HTTP/1.1\r\nHost: a\r\n{key}Content-Type: application/json\r\nContent-Length: {length}\r\n"
    )
}

fn request(line: &str, key: &str, body: &str) -> String {
    format!("{}Connection: close\r\n\r\n{body}", head(line, key, body.len()))
}

/// A report of this device that is as large as a report may be.
fn largest_report(number: u32) -> String {
    let (uuid, key) = device(number);
    let body = format!("{{\"{uuid}\":{{\"status\":\"Idle\",\"os_version\":\"{}\"}}}}", "x".repeat(511 << 10));
    request("PATCH /device/v3/state", &key, &body)
}

/// What comes until the server closes the connection, in whichever way.
fn answer(mut stream: TcpStream) -> String {
    let mut bytes = Vec::new();
    let mut part = [0; 4096];
    while let Ok(n @ 1..) = stream.read(&mut part) {
        bytes.extend_from_slice(&part[..n]);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or("none")
}

#[test]
fn silent_connections_keep_out_neither_devices_nor_operators() {
    let server = Server::start(&[]);
    server.register(1);
    let texts = ["", "GET /device/v3/", "POST /device/register HTTP/1.1\r\nHost: a\r\n"];
    let silent: Vec<_> = texts.iter().cycle().take(1100).map(|text| server.open(text)).collect();
    let poll = server.poll(1);
    assert_eq!(status(&poll), "200", "{poll}");
    let list = server.cli(&["fleet", "list"]);
    assert!(list.status.success(), "{}", String::from_utf8_lossy(&list.stderr));
    assert_eq!(server.times_logged("too many clients"), 1, "{}", server.program.log());
    drop(silent);
    eventually("the end of it in the log", PATIENCE, || {
        (server.times_logged("client overload is over") == 1).then_some(())
    });
    assert!(server.program.stop().success());
}

/// Devices whose reports do not come to an end take all places, but for those of operators.
#[test]
fn requests_that_find_no_place_are_refused_at_once_and_operators_get_in() {
    let server = Server::start(&["--connections", "16"]);
    for number in 1..=17 {
        server.register(number);
    }
    // A report whose body is asked for has its place. Only then comes the next one, and the poll after all of them.
    let half = |number: u32| {
        let head = head("PATCH /device/v3/state", &device(number).1, 100);
        let mut report = server.open(&format!("{head}Expect: 100-continue\r\n\r\n"));
        let mut asked = [0; 12];
        report.read_exact(&mut asked).unwrap();
        assert_eq!(&asked, b"HTTP/1.1 100", "report {number}");
        report.write_all(b"{").unwrap();
        report
    };
    let reports: Vec<_> = (1..=16).map(half).collect();
    let poll = server.poll(17);
    assert_eq!(status(&poll), "503", "{poll}");
    assert!(poll.contains("retry-after: 5\r\n"), "{poll}");
    // Unknown devices get 401, and silent connections keep no client out.
    let silent: Vec<_> = (0..100).map(|_| server.open("")).collect();
    assert_eq!(status(&server.ask(&request("POST /device/register", "unknown-key", "{}"))), "401");
    let list = server.cli(&["fleet", "list"]);
    assert!(list.status.success(), "{}", String::from_utf8_lossy(&list.stderr));
    drop((reports, silent));
    eventually("places are free again", PATIENCE, || Some(()).filter(|()| status(&server.poll(17)) == "200"));
}

/// Every route that takes a body, asked without a key. The body never comes, and is not waited for.
#[test]
fn a_body_is_not_waited_for_before_the_key_is_known() {
    let server = Server::start(&[]);
    server.register(1);
    let (key, device_key) = (server.key.clone(), device(1).1);
    // All of the operators' routes, as the source has them, and one that is none.
    let source = include_str!("../src/fleet/operator_api/table.rs");
    let rows = source.lines().filter_map(|line| line.trim().trim_start_matches('(').strip_prefix("\"/"));
    let paths = rows.map(|row| format!("/{}", row.split('"').next().unwrap()));
    let paths: Vec<_> = paths.chain(["/nope".to_owned()]).map(|path| path.replace(['{', '}'], "")).collect();
    assert!(paths.len() > 15, "{paths:?}");
    let methods = ["GET", "POST", "PATCH", "DELETE"];
    let operators: Vec<_> =
        paths.iter().flat_map(|path| methods.map(|method| format!("{method} /api/v1{path}"))).collect();
    let devices = ["POST /device/register", "PATCH /device/v3/state"].map(str::to_owned);
    let mut asked = Vec::new();
    for key in ["", "unknown-key", &"x".repeat(10_000), &key, &device_key] {
        asked.extend(operators.iter().map(|line| (line, key.to_owned())));
    }
    for key in ["", "unknown-key", &"x".repeat(10_000)] {
        asked.extend(devices.iter().map(|line| (line, key.to_owned())));
    }
    asked.push((&devices[0], device_key));
    asked.push((&devices[1], key));
    for (line, key) in asked {
        for more in ["", "Expect: 100-continue\r\n"] {
            let answer = server.ask(&format!("{}{more}\r\n", head(line, &key, 200_000)));
            // Too many wrong tokens from one address are answered so, without a look at the body, too.
            let is_limited = line.contains("/api/") && answer.starts_with("HTTP/1.1 429 ");
            assert!(is_limited || answer.starts_with("HTTP/1.1 401 "), "{line} {key}: {answer}");
            assert!(answer.contains("connection: close\r\n"), "{line} {key}: {answer}");
        }
    }
}

/// 900 clients, each with as large a body as a report may have.
#[test]
fn bodies_do_not_fill_the_memory() {
    let mut server = Server::start(&[]);
    for number in 1..=100 {
        server.register(number);
    }
    let before = server.peak_kib();
    for (why, key_of) in [
        ("an unknown key", None),
        ("one device's key", Some((|_| 1) as fn(u32) -> u32)),
        ("the keys of a hundred", Some((|n| n % 100 + 1) as fn(u32) -> u32)),
    ] {
        let texts = (0..900).map(|n| match key_of {
            None => largest_report(1_000 + n),
            Some(key_of) => largest_report(key_of(n)),
        });
        // All but the last byte is sent by all, as far as the server takes it, before any is answered.
        let streams: Vec<_> = texts
            .map(|text| {
                let mut stream = server.open("");
                stream.set_nonblocking(true).unwrap();
                let taken = stream.write(&text.as_bytes()[..text.len() - 1]).unwrap_or(0);
                (stream, text, taken)
            })
            .collect();
        let senders: Vec<_> = streams
            .into_iter()
            .map(|(mut stream, text, taken)| {
                std::thread::Builder::new().stack_size(128 << 10).spawn(move || {
                    stream.set_nonblocking(false).unwrap();
                    // Who is refused need not be read to the end.
                    let _refused = stream.write_all(&text.as_bytes()[taken..]);
                    status(&answer(stream)).to_owned()
                })
            })
            .collect();
        let printed: Vec<_> = senders.into_iter().map(|sender| sender.unwrap().join().unwrap()).collect();
        let count = |word: &str| printed.iter().filter(|status| *status == word).count();
        let (stored, refused) = (count("200"), count("401") + count("429") + count("503") + count("408"));
        let cut = count("none");
        eprintln!("{why}: {stored} stored, {refused} refused, {cut} cut off, peak {} KiB", server.peak_kib());
        assert_eq!(stored > 0, key_of.is_some(), "{why}: {printed:?}");
        assert!(stored + refused > 800, "{why}: {printed:?}");
        // A quarter of what the unit has, though the bodies are 450 MiB together.
        let grown = server.peak_kib() - before;
        assert!(grown < UNIT_KIB / 4, "{why}: the memory grew by {grown} KiB");
    }
    assert!(server.program.is_running());
    assert_eq!(status(&server.poll(1)), "200");
}

#[test]
fn a_device_that_reports_without_end_is_asked_to_wait() {
    let server = Server::start(&[]);
    server.register(1);
    server.register(2);
    let report = |number: u32, n: u32| {
        let (uuid, key) = device(number);
        let body = json!({ uuid: { "cpu_temp": n } }).to_string();
        server.ask(&request("PATCH /device/v3/state", &key, &body))
    };
    let answers: Vec<_> = (0..200).map(|n| report(1, n)).collect();
    let refused: Vec<_> = answers.iter().filter(|answer| status(answer) == "429").collect();
    assert!(!refused.is_empty());
    assert!(refused.iter().all(|answer| answer.contains("retry-after: ")), "{}", refused[0]);
    assert!(answers[..60].iter().all(|answer| status(answer) == "200"), "a burst is fine");
    assert_eq!(server.times_logged("device makes too many requests"), 1, "{}", server.program.log());
    assert_eq!(status(&report(2, 0)), "200", "it is one device's own trouble");
    // Polls go on: they write nothing. Without an etag each makes the whole target anew, and so is bounded, too.
    let poll = server.poll(1);
    let etag = poll.split_once("etag: ").unwrap().1.split_once('\r').unwrap().0.to_owned();
    let polls: Vec<_> = (0..200).map(|_| server.poll(1)).collect();
    let refused: Vec<_> = polls.iter().filter(|answer| status(answer) == "429").collect();
    assert!(!refused.is_empty() && refused[0].contains("retry-after: "), "{}", polls[199]);
    let (uuid, key) = device(1);
    let usual = head(&format!("GET /device/v3/{uuid}/state"), &key, 0);
    let usual = format!("{usual}If-None-Match: {etag}\r\nConnection: close\r\n\r\n");
    assert!((0..200).all(|_| status(&server.ask(&usual)) == "304"));
}

/// The system has no files left: the server neither ends nor spins, and goes on once there are some.
#[test]
fn a_server_without_files_goes_on() {
    let mut server = Server::start(&[]);
    server.register(1);
    let pid = Pid::from_raw(i32::try_from(server.program.id()).unwrap()).unwrap();
    let open = std::fs::read_dir(format!("/proc/{}/fd", server.program.id())).unwrap().count() as u64;
    let usual = prlimit(Some(pid), Resource::Nofile, Rlimit { current: Some(open + 3), maximum: Some(4096) })
        .unwrap();
    let silent: Vec<_> = (0..50).map(|_| server.open("")).collect();
    eventually("the log has it", PATIENCE, || {
        Some(()).filter(|()| server.times_logged("too many clients") == 1)
    });
    // Those that wait are closed to make room, so that a device gets its turn.
    assert_eq!(status(&server.poll(1)), "200");
    assert!(server.program.is_running());
    assert!(server.program.log().contains("connections cannot be accepted: Too many open files"));
    drop(silent);
    prlimit(
        Some(pid),
        Resource::Nofile,
        Rlimit { current: Some(4096), maximum: usual.maximum.min(Some(4096)) },
    )
    .unwrap();
    assert_eq!(status(&server.poll(1)), "200");
    assert_eq!(server.times_logged("too many clients"), 1, "{}", server.program.log());
}

#[test]
fn connections_that_do_not_fit_the_files_are_refused() {
    let serve = |limits: &str, more: &[&str]| {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!("{limits}; exec \"$0\" \"$@\"")).arg(Program::fleet_binary());
        command.args(["serve", "--listen", "127.0.0.1:0", "--data-dir"]).arg(folder.path()).args(more);
        command.output().unwrap()
    };
    let refused = serve("ulimit -n 1024", &["--connections", "1024"]);
    let printed = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(78), "{printed}");
    assert!(
        printed.contains("needs 1152 open files, but this process may open 1024; raise LimitNOFILE="),
        "{printed}"
    );
    // Without a number the default fits.
    let server = Server::start_under("ulimit -n 200", &[]);
    server.register(1);
    assert_eq!(server.times_logged("connections are limited"), 1);
    assert!(server.program.log().contains("connections=72"), "{}", server.program.log());
    let silent: Vec<_> = (0..300).map(|_| server.open("")).collect();
    assert_eq!(status(&server.poll(1)), "200");
    assert!(!server.program.log().contains("cannot be accepted"), "{}", server.program.log());
    drop(silent);
}

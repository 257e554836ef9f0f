//! Hostile clients: of the fleet server, of the agent's sockets, and whoever waits for an operator's token.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::evil::Evil;
use crate::lab::{Victim, polite};
use crate::support::{Fleet, FleetServer, Lab, Program, eventually, eventually_or};
use crate::unit::{Cage, peak_of};

/// One request; status and body. `key` is a bearer token, none where it is empty. Status 0: there was no answer.
pub fn ask(url: &str, method: &str, path: &str, key: &str, body: &Value) -> (u16, String) {
    let address = url.trim_start_matches("http://");
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let login = if key.is_empty() { String::new() } else { format!("Authorization: Bearer {key}\r\n") };
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\n{login}Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    let asked = || -> Option<(u16, String)> {
        let mut stream = TcpStream::connect(address).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(20))).ok()?;
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok()?;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let (head, body) = answer.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
    };
    asked().unwrap_or_default()
}

/// A fleet server with its unit's limits.
struct Fortress {
    // The cage goes after the server in it.
    server: FleetServer,
    cage: Cage,
}

impl Fortress {
    #[track_caller]
    fn start(lab: &Lab) -> Self {
        let cage = Cage::of("cotter-fleet.service");
        Self { server: FleetServer::start_limited(lab, cage.words()), cage }
    }

    fn address(&self) -> String {
        self.server.url.trim_start_matches("http://").to_owned()
    }

    /// Connections that each have sent `text`; those that the server does not take are left out.
    fn connections(&self, count: usize, text: &[u8]) -> Vec<TcpStream> {
        let address = self.address();
        let connect = |_| {
            let to = address.parse().expect("an address");
            let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(2)).ok()?;
            stream.set_write_timeout(Some(Duration::from_millis(200))).ok()?;
            // What does not fit, or is not wanted, stays unsent.
            let _ = stream.write_all(text);
            Some(stream)
        };
        (0..count).filter_map(connect).collect()
    }

    /// An operator is answered within `patience`, and so is a device.
    #[track_caller]
    fn assert_answers(&self, fleet: &Fleet, patience: Duration) {
        let answered = eventually_or(patience, || {
            let out = self.server.try_cli(&["fleet", "list"]);
            out.status.success().then(|| String::from_utf8_lossy(&out.stdout).contains(&fleet.name))
        });
        assert_eq!(answered, Some(true), "an operator is answered: {}", self.server.log());
    }

    #[track_caller]
    fn assert_held(&mut self) {
        self.cage.assert_held(self.server.program());
    }

    #[track_caller]
    fn device(&self, fleet: &Fleet, uuid: &str, key: &str) -> (u16, String) {
        register(&self.server.url, fleet, &json!({ "uuid": uuid, "api_key": key }))
    }
}

/// Registers a device; `more` takes the place of what is usual.
pub fn register(url: &str, fleet: &Fleet, more: &Value) -> (u16, String) {
    let key = std::fs::read_to_string(&fleet.key_file).expect("the key is there");
    let mut body = json!({ "application": fleet.number, "device_type": "generic-amd64" });
    for (name, value) in more.as_object().expect("fields") {
        body[name] = value.clone();
    }
    ask(url, "POST", "/device/register", key.trim(), &body)
}

/// A device's uuid, and a key that is as long as an agent's and does not contain the uuid.
pub fn device(number: usize) -> (String, String) {
    (format!("{number:032x}"), format!("{}-{number}", "key-9f3a1c7e5b2d4860".repeat(2)))
}

#[test]
fn silent_connections_shut_out_no_other_client() {
    let lab = Lab::new("silent");
    let mut fortress = Fortress::start(&lab);
    let fleet = fortress.server.create_fleet(&lab, "shop");
    let (uuid, key) = device(1);
    assert_eq!(fortress.device(&fleet, &uuid, &key).0, 201);
    for (what, text) in [
        ("silent", b"".as_slice()),
        ("half a request", b"GET /ping HTTP/1.1\r\nHost: a\r\nX-Y: "),
        ("an idle connection after an answer", b"GET /ping HTTP/1.1\r\nHost: a\r\n\r\n"),
        (
            "half a body of a stranger",
            b"POST /device/register HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{",
        ),
    ] {
        let connections = fortress.connections(1100, text);
        assert!(connections.len() >= 300, "{what}: {} connections stood", connections.len());
        fortress.assert_answers(&fleet, Duration::from_secs(20));
        fortress.assert_held();
        drop(connections);
        // A device, too, once they are gone.
        eventually(what, Duration::from_secs(20), || {
            (ask(&fortress.server.url, "GET", &format!("/device/v3/{uuid}/state"), &key, &Value::Null).0
                == 200)
                .then_some(())
        });
    }
    // It says so, once or a few times, and not for each.
    let lines = fortress.server.log().lines().filter(|line| line.contains("connections")).count();
    assert!((1..=20).contains(&lines), "{lines} lines: {}", fortress.server.log());
}

#[test]
fn who_sends_slowly_is_sent_away() {
    let lab = Lab::new("slow");
    let mut fortress = Fortress::start(&lab);
    let fleet = fortress.server.create_fleet(&lab, "shop");
    let parts = [
        ("GET /ping HTTP/1.1\r\nHost: a\r\nX-Y: ", "headers"),
        ("POST /device/register HTTP/1.1\r\nHost: a\r\nContent-Length: 60000\r\n\r\n", "a body"),
    ];
    let mut held: Vec<_> = parts
        .iter()
        .flat_map(|(text, what)| {
            fortress.connections(50, text.as_bytes()).into_iter().map(|stream| (*what, stream))
        })
        .collect();
    for (_, stream) in &held {
        stream.set_nonblocking(true).unwrap();
    }
    let begun = Instant::now();
    // A byte each second keeps no connection for ever.
    while !held.is_empty() && begun.elapsed() < Duration::from_secs(120) {
        held.retain_mut(|(_, stream)| {
            let mut answer = [0; 256];
            let is_closed = matches!(stream.read(&mut answer), Ok(0))
                || stream.read(&mut answer).is_err_and(|e| e.kind() != std::io::ErrorKind::WouldBlock);
            let is_gone = stream.write_all(b"x").is_err_and(|e| e.kind() != std::io::ErrorKind::WouldBlock);
            !is_closed && !is_gone
        });
        std::thread::sleep(Duration::from_secs(1));
    }
    let left: Vec<_> = held.iter().map(|(what, _)| *what).collect();
    assert!(left.is_empty(), "{} are still served: {:?}", left.len(), left.first());
    fortress.assert_answers(&fleet, Duration::from_secs(20));
    fortress.assert_held();
}

#[test]
fn bodies_of_strangers_fill_no_memory() {
    let lab = Lab::new("bodies");
    let mut fortress = Fortress::start(&lab);
    let fleet = fortress.server.create_fleet(&lab, "shop");
    let body = vec![b' '; 511 << 10];
    for (what, login) in [("no key", ""), ("a wrong key", "Authorization: Bearer wrong\r\n")] {
        for path in [
            "PATCH /device/v3/state",
            "POST /device/register",
            "POST /api/v1/fleets",
            "POST /device/v3/x/logs",
            "PATCH /nowhere",
        ] {
            let head = format!(
                "{path} HTTP/1.1\r\nHost: a\r\n{login}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
                body.len() + 1
            );
            let text = [head.as_bytes(), &body].concat();
            let count = if path.starts_with("PATCH /device") { 900 } else { 200 };
            let connections = fortress.connections(count, &text);
            fortress.assert_answers(&fleet, Duration::from_secs(30));
            fortress.assert_held();
            let peak = peak_of(fortress.server.program().id());
            assert!(peak < 256 << 20, "{path} with {what}: {} MiB", peak >> 20);
            drop(connections);
        }
    }
}

#[test]
fn bodies_of_devices_fill_no_memory_either() {
    let lab = Lab::new("reports");
    let mut fortress = Fortress::start(&lab);
    let fleet = fortress.server.create_fleet(&lab, "shop");
    let (uuid, key) = device(1);
    assert_eq!(fortress.device(&fleet, &uuid, &key).0, 201);
    // One stolen device with many connections.
    let body = vec![b' '; 511 << 10];
    let head = format!(
        "PATCH /device/v3/state HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len() + 1
    );
    let connections = fortress.connections(900, &[head.as_bytes(), &body].concat());
    fortress.assert_answers(&fleet, Duration::from_secs(30));
    fortress.assert_held();
    drop(connections);
    // A report of deep and wide JSON, and one of texts as long as may be.
    let deep = format!("{{\"{uuid}\":{}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
    let wide = json!({ &uuid: { "apps": { "a": { "services": (0..20_000).map(|n| (format!("s{n}"), json!({ "status": "x" }))).collect::<serde_json::Map<_, _>>() } } } });
    let long = json!({ &uuid: { "os_version": "x".repeat(400_000) } });
    for text in [deep, wide.to_string(), long.to_string()] {
        let head = format!(
            "PATCH /device/v3/state HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            text.len()
        );
        drop(fortress.connections(20, &[head.as_bytes(), text.as_bytes()].concat()));
        fortress.assert_answers(&fleet, Duration::from_secs(30));
        fortress.assert_held();
    }
    let shown = ask(
        &fortress.server.url,
        "GET",
        &format!("/api/v1/devices/{uuid}"),
        &token(&fortress.server),
        &Value::Null,
    )
    .1;
    assert!(shown.len() < 100_000, "what is kept of a device has {} bytes", shown.len());
}

fn token(server: &FleetServer) -> String {
    std::fs::read_to_string(server.token_file()).unwrap().trim().to_owned()
}

#[test]
fn a_data_folder_that_was_open_is_closed() {
    let lab = Lab::new("modes");
    let open = |dir: &Path, mode: u32| {
        std::fs::create_dir_all(dir).unwrap();
        std::fs::set_permissions(dir, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    // The lab itself is closed to others; a data folder in production stands in an open one.
    open(lab.dir(), 0o755);
    open(&lab.dir().join("fleet"), 0o755);
    // An administrator's shell: files of 0644, folders of 0755.
    let usual = ["sh", "-c", "umask 022 && exec \"$@\"", "sh"].map(std::path::PathBuf::from).to_vec();
    let server = FleetServer::start_limited(&lab, usual.clone());
    let fleet = server.create_fleet(&lab, "shop");
    server.create_release(
        &fleet,
        "r1",
        &lab.compose("r1.yml", &[("web", "r1")], "environment: { SECRET: geheim-91ab }"),
    );
    assert_eq!(open_to_others(server.data_dir()), Vec::<String>::new());
    drop(server);
    // Once more over a folder and files that an older version left open.
    let everything =
        Command::new("chmod").args(["-R", "a+rX"]).arg(lab.dir().join("fleet")).status().unwrap();
    assert!(everything.success());
    // A token file that others could read is refused (tests/private_files.rs), so the operator closes that one.
    std::fs::set_permissions(lab.dir().join("fleet/operator.token"), std::fs::Permissions::from_mode(0o600))
        .unwrap();
    let server = FleetServer::start_limited(&lab, usual.clone());
    assert_eq!(open_to_others(server.data_dir()), Vec::<String>::new());
    // The agent's state, with the device's key in it.
    let cloud = Evil::at("127.0.0.1", polite(&json!({})));
    let mut victim = Victim::prepare(&lab, &cloud.url(), "till");
    open(&lab.dir().join("till"), 0o755);
    open(&victim.agent.state_dir(), 0o755);
    victim.agent.limit(usual);
    victim.agent.start_again();
    victim.until_it_answers();
    eventually("it has a target", Duration::from_secs(30), || {
        (victim.agent.status_value("/has_target") == true).then_some(())
    });
    assert_eq!(open_to_others(&victim.agent.state_dir()), Vec::<String>::new());
}

/// What the user `nobody` can read below a folder.
fn open_to_others(dir: &Path) -> Vec<String> {
    let mut find = Command::new("setpriv");
    find.args(["--reuid=65534", "--regid=65534", "--clear-groups", "find"]).arg(dir).args([
        "-type",
        "f",
        "-readable",
    ]);
    let out = find.output().expect("setpriv runs (util-linux)");
    String::from_utf8_lossy(&out.stdout).lines().map(str::to_owned).collect()
}

#[test]
fn an_operators_token_is_shown_to_no_plain_address() {
    let lab = Lab::new("token");
    let witness = Evil::witness("127.0.0.1");
    let token = lab.file("token", "the-operators-token");
    let verb = |url: &str, more: &[&str]| {
        let mut command = Program::cotter();
        command.args(["fleet", "list", "--url", url, "--token-file"]).arg(&token).args(more);
        // A name that leads nowhere is asked of a proxy, as in many offices.
        for name in ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"] {
            command.env(name, witness.url());
        }
        command.env_remove("no_proxy").env_remove("NO_PROXY");
        let out = command.output().expect("it runs");
        (out.status.success(), String::from_utf8_lossy(&out.stderr).into_owned())
    };
    for url in [
        "http://fleet.example",
        "http://10.1.2.3:7300",
        "http://127.0.0.1.example:80",
        "http://localhost.example",
        "http://[2001:db8::1]:80",
        "http://0x7f.1.example",
    ] {
        let (is_done, printed) = verb(url, &[]);
        assert!(!is_done && printed.contains("--insecure"), "{url}: {printed}");
        assert_eq!(
            witness.asked().len(),
            0,
            "{url}: {:?}",
            witness.asked().first().map(crate::evil::Asked::text)
        );
    }
    // A server that sends an operator on gets no token to another place.
    let server = Evil::at("127.0.0.1", |_, to| to.answer(200, "", b"[]"));
    let away = witness.url();
    server.rule(move |asked, to| {
        to.answer(
            307,
            &format!("Location: {}{}\r\n", away.replace("127.0.0.1", "127.0.0.2"), asked.path),
            b"",
        )
    });
    let other = Evil::witness("127.0.0.2");
    let away = other.url();
    server.rule(move |asked, to| to.answer(307, &format!("Location: {away}{}\r\n", asked.path), b""));
    let mut command = Program::cotter();
    command.args(["fleet", "list", "--url", &server.url(), "--token-file"]).arg(&token);
    let out = command.output().unwrap();
    assert!(!out.status.success());
    assert_eq!(other.asked().len(), 0);
    // Loopback needs no word.
    let honest = Evil::at("127.0.0.1", |_, to| to.answer(200, "Content-Type: application/json\r\n", b"[]"));
    let mut command = Program::cotter();
    command.args(["fleet", "list", "--url", &honest.url(), "--token-file"]).arg(&token);
    assert!(command.output().unwrap().status.success());
}

#[test]
fn a_fleet_server_without_an_end_hurts_no_operator() {
    let lab = Lab::new("operator");
    let token = lab.file("token", "the-operators-token");
    let server = Evil::at("127.0.0.1", |_, to| to.endless(500, ""));
    for n in 0..3 {
        server.rule(move |_, to| match n {
            0 => to.endless(500, ""),
            1 => to.endless(200, "Content-Type: application/json\r\n"),
            _ => to.answer(200, "Content-Encoding: gzip\r\n", crate::evil::bomb()),
        });
        server.taken();
        let mut command = Program::cotter();
        command.args(["fleet", "list", "--url", &server.url(), "--token-file"]).arg(&token);
        let mut program = Program::start("an operator", command, &lab.dir().join("operator.log"));
        let status = program.ended(Duration::from_secs(60));
        assert!(!status.success());
        let taken = eventually("it was taken", Duration::from_secs(60), || match server.taken() {
            0 => None,
            n => Some(n),
        });
        assert!(taken < 256 << 20, "{n}: {} MiB", taken >> 20);
    }
}

#[test]
fn half_a_request_keeps_no_operator_from_the_status() {
    let lab = Lab::new("half");
    let cloud = Evil::at("127.0.0.1", polite(&json!({})));
    let mut victim = Victim::start(&lab, &cloud, "till");
    let sockets = [victim.agent.status_socket(), victim.agent.control_socket()];
    for text in
        ["", "GET /v1/status HTTP/1.1\r\nHost: a\r\nX: ", "GET /v1/events HTTP/1.1\r\nHost: agent\r\n\r\n"]
    {
        let held: Vec<_> =
            sockets.iter().flat_map(|socket| (0..200).map(move |_| connect(socket, text))).collect();
        let out = victim.agent.cli(&["status"]);
        let printed = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(out.status.success(), "{text:?}: {printed}");
        assert!(!printed.contains("no agent answers"), "{printed}");
        let (is_done, printed) = victim.agent.order(&["hold", "--reason", "an order under attack"]);
        assert!(is_done, "{text:?}: {printed}");
        assert!(victim.agent.order(&["unhold"]).0);
        victim.cage.assert_held(victim.agent.program());
        drop(held);
    }
    victim.assert_on_duty(&cloud);
}

/// A connection that has sent `text`; `None` where the queue is full.
fn connect(socket: &Path, text: &str) -> Option<UnixStream> {
    // A connection that waits in a full queue would wait for ever.
    let (sender, receiver) = std::sync::mpsc::channel();
    let (socket, text) = (socket.to_owned(), text.to_owned());
    std::thread::spawn(move || {
        let connected = UnixStream::connect(socket).ok().and_then(|mut stream| {
            stream.write_all(text.as_bytes()).ok()?;
            Some(stream)
        });
        let _ = sender.send(connected);
    });
    receiver.recv_timeout(Duration::from_millis(200)).ok().flatten()
}

#[test]
fn an_unencrypted_cloud_is_warned_of() {
    let lab = Lab::new("plain");
    let key = lab.file("device.key", "a-key-of-this-device\n");
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let known = format!("uuid = \"{}\"\ndevice_key_file = \"{}\"\n", "0".repeat(32), key.display());
    let settings = lab.file("agent.toml", &format!("[cloud]\nendpoint = \"http://fleet.example\"\n{known}"));
    let out = Program::cotter().args(["config", "check"]).arg(&settings).output().unwrap();
    let printed = String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned();
    assert!(printed.contains("http://fleet.example") && printed.to_lowercase().contains("warn"), "{printed}");
}

//! Two fleet servers on one PostgreSQL behind Debian's nginx, set up by the blocks of docs/postgresql.md as they are in the
//! page. Servers end and lose their database while operators act and devices poll: no act is lost or done twice, and no
//! device or operator has to know which server is there.
//!
//! Names and every rule stay as the pages have them. Ports, addresses and certificates are the test's own. Without nginx or
//! PostgreSQL the tests are skipped; with `COTTER_SKIP_NOTHING=1` they fail.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and has an environment of its own"
)]

#[path = "support/nginx.rs"]
mod nginx;
mod support;
#[path = "support/upload.rs"]
mod upload;

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nginx::{FLEET, block, blocks, certificates, find, free_port, localized, replaced, start_nginx, tunnel};
use reqwest::{Client, Method};
use serde_json::{Value, json};
use support::{FleetServer, Postgres, Program, Wall, eventually, number};
use tempfile::TempDir;
use tokio::task::JoinSet;
use upload::{Upload, until, upload};

const PATIENCE: Duration = Duration::from_secs(60);

/// What nginx is told about the servers with these addresses: docs/server.md with the blocks of docs/postgresql.md.
fn sites(addresses: [&str; 2]) -> String {
    let parts = blocks("docs/postgresql.md", "nginx");
    let [top, devices, logs, operators] = parts.as_slice() else { panic!("four blocks of nginx: {parts:?}") };
    let alone = "        proxy_pass http://127.0.0.1:7300;\n";
    let page = block("docs/server.md", "nginx");
    assert_eq!(page.matches(alone).count(), 3, "one in each location");
    let page = page.replacen(alone, devices, 2).replacen(alone, operators, 1);
    let (before, api) = page.split_once("location / {").unwrap();
    assert!(before.matches(devices).count() == 2 && api.contains(operators), "each in its location");
    let page = replaced(&page, "    location / {", &format!("{logs}\n    location / {{"));
    let top = replaced(top, "10.0.0.11:7300", addresses[0]);
    replaced(&top, "10.0.0.12:7300", addresses[1]) + &replaced(&page, "127.0.0.1:5000", "127.0.0.1:9")
}

struct Site {
    dir: TempDir,
    /// The second one has its database behind the wall.
    servers: [FleetServer; 2],
    wall: Wall,
    postgres: Postgres,
    _proxy: Program,
    port: u16,
    token: String,
    provisioning_key: String,
}

impl Site {
    /// `None` where nginx or PostgreSQL is missing.
    async fn start() -> Option<Self> {
        let nginx = find("nginx")?;
        let postgres = Postgres::start()?;
        let dir = tempfile::Builder::new().prefix("cotter-").tempdir_in("/tmp").unwrap();
        let wall = Wall::start(postgres.port);
        let servers = [
            FleetServer::start_on(&postgres.url("fleet"), dir.path(), "a"),
            FleetServer::start_on(&postgres.url_by(wall.port), dir.path(), "b"),
        ];
        certificates(dir.path());
        let port = free_port();
        let addresses = servers.each_ref().map(|server| server.url.trim_start_matches("http://"));
        let text = localized(&sites(addresses), dir.path(), port);
        let proxy = start_nginx(&nginx, dir.path(), &text, port);
        // A token in the database is accepted by both.
        servers[0].cli(&["user", "add", "anna"]);
        let created = servers[0].cli_json(&["token", "create", "anna", "--role", "admin"]);
        let token = created["created"]["secret"].as_str().or(created["created"]["token"].as_str());
        let token = token.unwrap_or_else(|| panic!("{created}")).to_owned();
        fs::write(dir.path().join("anna.token"), &token).unwrap();
        let (key, none) = (String::new(), Value::Null);
        let mut site =
            Self { dir, servers, wall, postgres, _proxy: proxy, port, token, provisioning_key: key };
        let operator = site.operator();
        let (status, created) = operator.act("/fleets", &json!({ "name": "lab" }), None).await;
        assert_eq!(status, 201, "{created}");
        site.provisioning_key = created["provisioning_key"].as_str().unwrap().to_owned();
        assert_ne!(operator.get("/fleets").await.1, none);
        Some(site)
    }

    /// A client that reaches the proxy under its name, from this address.
    fn client(&self, from: Ipv4Addr) -> Client {
        drop(rustls::crypto::ring::default_provider().install_default());
        let authority = fs::read(self.dir.path().join("ca.pem")).unwrap();
        let authority = reqwest::Certificate::from_pem(&authority).unwrap();
        let to = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        let builder = Client::builder().no_proxy().tls_certs_only([authority]).resolve(FLEET, to);
        builder.local_address(IpAddr::V4(from)).build().unwrap()
    }

    fn url(&self) -> String {
        format!("https://{FLEET}:{}", self.port)
    }

    fn operator(&self) -> Operator {
        Operator { client: self.client(Ipv4Addr::LOCALHOST), url: self.url(), token: self.token.clone() }
    }

    async fn device(&self, number: u64) -> Device {
        let from = Ipv4Addr::new(127, 0, 2, u8::try_from(number).unwrap());
        let device = Device { client: self.client(from), url: self.url(), number };
        let body = json!({ "application": 1, "device_type": "generic-amd64", "uuid": uuid(number),
                           "api_key": key_of(number), "device_name": format!("board-{number}") });
        let register = device.client.post(format!("{}/device/register", device.url));
        let answer = register.bearer_auth(&self.provisioning_key).json(&body).send().await.unwrap();
        assert_eq!(answer.status().as_u16(), 201);
        device
    }

    /// Waits until a server answers and has its database.
    async fn until_ready(&self, server: usize, expected: bool) {
        let url = format!("{}/readyz", self.servers[server].url);
        let client = Client::builder().no_proxy().build().unwrap();
        let ready = async {
            while client.get(&url).send().await.is_ok_and(|answer| answer.status().is_success()) != expected {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::time::timeout(PATIENCE, ready).await.unwrap_or_else(|_| panic!("ready is never {expected}"));
    }

    /// A real agent. It has no engine, and needs none to register and to poll.
    fn agent(&self) -> Program {
        let dir = self.dir.path().display();
        fs::write(self.dir.path().join("provisioning.key"), &self.provisioning_key).unwrap();
        Command::new("chmod").arg("600").arg(self.dir.path().join("provisioning.key")).status().unwrap();
        let settings = format!(
            "state_dir = \"{dir}/state\"\nruntime_dir = \"{dir}/run\"\n[engine]\nsocket = \"{dir}/no-engine\"\n\
             [cloud]\nendpoint = \"https://{FLEET}\"\nfleet = 1\nprovisioning_key_file = \"{dir}/provisioning.key\"\n\
             device_name = \"kitchen\"\n"
        );
        let file = self.dir.path().join("agent.toml");
        fs::write(&file, settings).unwrap();
        let mut command = Program::cotter();
        command.arg("agent").arg("--config").arg(file);
        let tunnel = tunnel(Ipv4Addr::new(127, 0, 3, 1), self.port);
        command.env("HTTPS_PROXY", format!("http://{tunnel}")).env("NO_PROXY", "");
        command.env("SSL_CERT_FILE", self.dir.path().join("ca.pem"));
        Program::start("the agent", command, &self.dir.path().join("agent.log"))
    }
}

#[derive(Clone)]
struct Operator {
    client: Client,
    url: String,
    token: String,
}

impl Operator {
    async fn act(&self, path: &str, body: &Value, key: Option<&str>) -> (u16, Value) {
        let mut request = self.client.post(format!("{}/api/v1{path}", self.url)).bearer_auth(&self.token);
        if let Some(key) = key {
            request = request.header("Idempotency-Key", key);
        }
        let answer = request.json(body).send().await.expect("nginx answers");
        let status = answer.status().as_u16();
        (status, serde_json::from_str(&answer.text().await.unwrap()).unwrap_or_default())
    }

    /// An act that no failure of one server may refuse. The limit of the page for one address is no failure.
    async fn acts(&self, path: &str, body: &Value) {
        let begun = Instant::now();
        loop {
            match self.act(path, body, None).await {
                (429, _) if begun.elapsed() < PATIENCE => {
                    tokio::time::sleep(Duration::from_millis(100)).await
                }
                (status, answer) => {
                    assert!((200..300).contains(&status), "{path} {body}: {status} {answer}");
                    return;
                }
            }
        }
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        let request = self.client.request(Method::GET, format!("{}/api/v1{path}", self.url));
        let answer = request.bearer_auth(&self.token).send().await.expect("nginx answers");
        let status = answer.status().as_u16();
        (status, serde_json::from_str(&answer.text().await.unwrap()).unwrap_or_default())
    }

    /// Imports a file, whatever its size.
    async fn import(&self, file: String) -> (u16, String) {
        let request = self.client.post(format!("{}/api/v1/import", self.url)).bearer_auth(&self.token);
        let answer = request.header("Content-Type", "application/jsonl").body(file).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    /// Follows the logs of a device.
    async fn logs(&self, device: u64) -> reqwest::Response {
        let url = format!("{}/api/v1/devices/{}/logs?follow=true", self.url, uuid(device));
        loop {
            let answer = self.client.get(&url).bearer_auth(&self.token).send().await.unwrap();
            match answer.status().as_u16() {
                200 => return answer,
                // The device has registered at the other server a moment ago.
                404 => tokio::time::sleep(Duration::from_millis(100)).await,
                status => panic!("{status}"),
            }
        }
    }

    async fn release(&self, sequence: u64) {
        self.acts("/fleets/lab/releases", &Self::new_release(sequence)).await;
    }

    fn new_release(sequence: u64) -> Value {
        let commit = commit(sequence);
        let image = format!("127.0.0.1:5000/lab/{commit}");
        json!({
            "commit": commit,
            "composition": { "services": { "web": { "image": image } } },
            "images": { "web": format!("{image}@sha256:{}", "a".repeat(64)) },
        })
    }
}

fn commit(sequence: u64) -> String {
    format!("c{sequence:05}")
}

struct Device {
    client: Client,
    url: String,
    number: u64,
}

impl Device {
    /// A poll: status, etag, and the number of the release.
    async fn poll(&self, etag: Option<&str>, wait: u64) -> (u16, String, Option<u64>) {
        let url = format!("{}/device/v3/{}/state", self.url, uuid(self.number));
        let mut poll = self.client.get(url).bearer_auth(key_of(self.number));
        poll = poll.header("Prefer", format!("wait={wait}"));
        if let Some(etag) = etag {
            poll = poll.header("If-None-Match", etag);
        }
        let answer = poll.send().await.expect("nginx answers");
        let status = answer.status().as_u16();
        let etag = answer.headers().get("etag").map_or("", |etag| etag.to_str().unwrap()).to_owned();
        let body: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap_or_default();
        let apps = body[uuid(self.number)]["apps"].as_object();
        let releases = apps.and_then(|apps| apps.values().next()?.get("releases")?.as_object());
        let release = releases.and_then(|releases| releases.keys().next()?.strip_prefix('c')?.parse().ok());
        (status, etag, release)
    }

    async fn report(&self, temperature: u64) -> u16 {
        let body = json!({ uuid(self.number): { "cpu_temp": temperature } });
        let report = self.client.patch(format!("{}/device/v3/state", self.url)).json(&body);
        report.bearer_auth(key_of(self.number)).send().await.unwrap().status().as_u16()
    }

    /// Polls until it has the release `last`, each time with what it has, as an agent does. It never gets an older one.
    async fn follow(self, last: Arc<AtomicU64>) {
        let (_, mut etag, mut has) = self.poll(None, 0).await;
        loop {
            let (status, new, release) = self.poll(Some(&etag), 5).await;
            match status {
                200 => {
                    assert!(release >= has, "device {}: {release:?} after {has:?}", self.number);
                    (etag, has) = (new, release);
                }
                304 => {}
                other => panic!("device {}: {other}", self.number),
            }
            // Whatever is refused is sent again.
            self.report(release.unwrap_or_default()).await;
            if has.is_some_and(|has| has == last.load(Ordering::Relaxed)) {
                return;
            }
        }
    }
}

/// A stream of logs that stays open.
fn log_stream(device: &Device) -> Upload {
    let url = format!("{}/device/v2/{}/log-stream", device.url, uuid(device.number));
    upload(device.client.post(url).bearer_auth(key_of(device.number)))
}

fn uuid(device: u64) -> String {
    format!("{device:032x}")
}

fn key_of(device: u64) -> String {
    format!("the-key-of-device-{device}")
}

/// Asserts that each act of `acknowledged` was done once, and no act twice: their names, by the audit trail.
fn assert_once(server: &FleetServer, what: &str, acknowledged: &BTreeSet<String>) {
    let records = server.cli(&["audit", "--json"]);
    let done: Vec<Value> = records.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let created = done.iter().filter(|act| act["result"] == "done" && act["what"] == what);
    let kind = what.rsplit(' ').next();
    let name = |act: &Value| {
        let thing = act["things"].as_array()?.iter().find(|thing| thing["kind"].as_str() == kind)?;
        Some(thing["name"].as_str().or(thing["id"].as_str())?.to_owned())
    };
    let names: Vec<String> = created.map(|act| name(act).unwrap_or_else(|| panic!("{act}"))).collect();
    let once: BTreeSet<String> = names.iter().cloned().collect();
    assert_eq!(once.len(), names.len(), "an act was done twice");
    let lost: Vec<_> = acknowledged.difference(&once).collect();
    assert!(lost.is_empty(), "of {} were lost: {lost:?}", acknowledged.len());
}

/// Operators who create fleets until `is_over`; each of them knows which ones were acknowledged. Every act succeeds.
fn acting(site: &Site, is_over: &Arc<AtomicBool>) -> (JoinSet<()>, Arc<Mutex<BTreeSet<String>>>) {
    let acknowledged = Arc::new(Mutex::new(BTreeSet::new()));
    let mut acting = JoinSet::new();
    for part in 0..3 {
        let (operator, is_over, acknowledged) =
            (site.operator(), Arc::clone(is_over), Arc::clone(&acknowledged));
        acting.spawn(async move {
            for n in 0..10_000 {
                if is_over.load(Ordering::Relaxed) {
                    return;
                }
                let name = format!("f-{part}-{n}");
                // A second act of this name would be refused.
                let key = (part == 0).then(|| format!("key of {name}"));
                match operator.act("/fleets", &json!({ "name": name }), key.as_deref()).await {
                    // The answer has a key that is not kept: it was done before the server ended.
                    (409, answer) if answer["error"]["code"] == "shown_once" => {}
                    (429, _) => {
                        tokio::time::sleep(Duration::from_millis(100)).await;
                        continue;
                    }
                    (status, answer) => assert_eq!(status, 201, "{name}: {answer}"),
                }
                acknowledged.lock().unwrap().insert(name);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
    }
    (acting, acknowledged)
}

async fn all(mut tasks: JoinSet<()>) {
    while let Some(ended) = tokio::time::timeout(PATIENCE, tasks.join_next()).await.expect("they end") {
        ended.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_are_killed_behind_nginx_and_nobody_notices() {
    let Some(mut site) = Site::start().await else { return };
    let last = Arc::new(AtomicU64::new(0));
    let mut devices = JoinSet::new();
    for number in 1..=8 {
        devices.spawn(site.device(number).await.follow(Arc::clone(&last)));
    }
    let mut agent = site.agent();
    let is_over = Arc::new(AtomicBool::new(false));
    let (operators, acknowledged) = acting(&site, &is_over);
    let releasing = {
        let (operator, is_over) = (site.operator(), Arc::clone(&is_over));
        tokio::spawn(async move {
            let mut sequence = 0;
            while !is_over.load(Ordering::Relaxed) {
                sequence += 1;
                operator.release(sequence).await;
                tokio::time::sleep(Duration::from_millis(150)).await;
            }
            sequence
        })
    };
    for turn in 0..number("COTTER_KILLS").unwrap_or(2) {
        tokio::time::sleep(Duration::from_millis(1500)).await;
        let server = usize::try_from(turn).unwrap() % 2;
        site.servers[server].cut();
        // The other one serves alone.
        tokio::time::sleep(Duration::from_secs(2)).await;
        site.servers[server].start_again();
        site.until_ready(server, true).await;
        // nginx asks a server again 5 s after it has failed.
        tokio::time::sleep(Duration::from_secs(6)).await;
    }
    is_over.store(true, Ordering::Relaxed);
    all(operators).await;
    let newest = releasing.await.unwrap();
    last.store(newest, Ordering::Relaxed);
    all(devices).await;
    let operator = site.operator();
    eventually("the agent has the last release as its target, too", PATIENCE, || {
        assert!(agent.is_running(), "the agent ended: {}", agent.log());
        let shown = site.servers[0].cli_json(&["device", "show", "kitchen"])["device"].clone();
        (shown["target"] == commit(newest).as_str() && shown["is_online"] == true).then_some(())
    });
    let acknowledged = acknowledged.lock().unwrap().clone();
    println!("{} acts and {newest} releases", acknowledged.len());
    assert!(acknowledged.len() > 50 && newest > 10, "{} acts, {newest} releases", acknowledged.len());
    for server in &site.servers {
        assert_once(server, "create a fleet", &acknowledged);
    }
    assert_eq!(operator.get("/releases?limit=1000").await.1.as_array().unwrap().len() as u64, newest);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_lost_the_database_costs_no_act_and_no_poll() {
    let Some(mut site) = Site::start().await else { return };
    let device = site.device(1).await;
    let operator = site.operator();
    operator.release(1).await;
    // Without an etag a server answers with what it has, which may be a second old.
    let first_release = async {
        loop {
            let (_, etag, release) = device.poll(None, 0).await;
            if release == Some(1) {
                return (etag, release);
            }
        }
    };
    let (etag, first) =
        tokio::time::timeout(PATIENCE, first_release).await.expect("the device gets release 1");

    // The database of one server cannot be reached: nginx asks the other one.
    site.wall.silence();
    site.until_ready(1, false).await;
    let is_over = Arc::new(AtomicBool::new(false));
    let (operators, acknowledged) = acting(&site, &is_over);
    tokio::time::sleep(Duration::from_secs(4)).await;
    is_over.store(true, Ordering::Relaxed);
    all(operators).await;
    operator.release(2).await;
    // A device whose polls that server answers keeps its release until the server can read the database again.
    let (mut etag, mut has) = (etag, first);
    let (mut polls, begun) = (0, Instant::now());
    while has != Some(2) {
        assert!(begun.elapsed() < PATIENCE, "the device has {has:?}");
        let (status, new, release) = device.poll(Some(&etag), 1).await;
        assert!(matches!(status, 200 | 304), "{status}");
        if status == 200 {
            assert!(release >= has);
            (etag, has) = (new, release);
        }
        polls += 1;
        if polls == 3 {
            site.wall.open();
        }
    }
    site.wall.open();
    site.until_ready(1, true).await;

    // Without the database itself both refuse acts, and both go on answering polls.
    site.postgres.stop();
    site.until_ready(0, false).await;
    site.until_ready(1, false).await;
    for turn in 0..10 {
        let (status, answer) = operator.act("/fleets", &json!({ "name": "never" }), None).await;
        assert_eq!((status, answer["error"]["code"].as_str()), (503, Some("database_lost")), "{answer}");
        assert_eq!(operator.get("/fleets").await.0, 200, "lists are shown");
        assert_eq!(device.report(turn).await, 503);
        assert_eq!((device.poll(Some(&etag), 0).await.0, device.poll(None, 0).await.2), (304, has));
    }
    site.postgres.start_again();
    site.until_ready(0, true).await;
    site.until_ready(1, true).await;
    operator.acts("/fleets", &json!({ "name": "after" })).await;
    assert_eq!(device.report(1).await, 200);
    let acknowledged = acknowledged.lock().unwrap().clone();
    assert!(acknowledged.len() > 20, "{} acts", acknowledged.len());
    assert_once(&site.servers[0], "create a fleet", &acknowledged);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_act_whose_server_ends_before_it_answers_is_repeated_and_done_once() {
    let Some(mut site) = Site::start().await else { return };
    let operator = site.operator();
    // The transaction of one act ends in the database, and its server never knows it.
    site.wall.silence_after_commit();
    let mut sequence = 0;
    let unanswered = loop {
        sequence += 1;
        let (operator, release) = (operator.clone(), Operator::new_release(sequence));
        let act = tokio::spawn(async move { operator.act("/fleets/lab/releases", &release, None).await });
        let begun = Instant::now();
        while !act.is_finished() && !site.wall.is_silent() {
            assert!(begun.elapsed() < PATIENCE, "act {sequence} has no end");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        if !act.is_finished() {
            break act;
        }
        assert_eq!(act.await.unwrap().0, 201, "the other server answers");
        assert!(sequence < 20, "nginx asks both");
    };
    eventually("the database has the act", PATIENCE, || {
        let audit = format!(
            "SELECT count(*) FROM cotter_audit WHERE cotter_audit::text LIKE '%{}%'",
            commit(sequence)
        );
        (site.postgres.psql("fleet", &audit) == "1").then_some(())
    });
    assert!(!unanswered.is_finished());
    site.servers[1].cut();
    let (status, answer) = tokio::time::timeout(PATIENCE, unanswered).await.unwrap().unwrap();
    assert_eq!((status, answer["release"]["commit"].as_str()), (201, Some(&*commit(sequence))), "{answer}");
    let acknowledged = (1..=sequence).map(commit).collect();
    assert_once(&site.servers[0], "create a release", &acknowledged);
}

/// What nginx would hold back or refuse without the lines of the page for it.
#[tokio::test(flavor = "multi_thread")]
async fn logs_come_line_by_line_and_a_large_import_is_taken() {
    let Some(site) = Site::start().await else { return };
    let operator = site.operator();
    for number in 1..=2 {
        let device = site.device(number).await;
        let mut reader = operator.logs(number).await;
        // The server that was asked for the logs is the one that takes them.
        let stream = log_stream(&device);
        for message in ["first", "second"] {
            stream.line(message).await;
            let seen = until(&mut reader, message).await;
            assert!(seen.is_some() && !stream.answer.is_finished(), "{message}, while the stream is open");
        }
        assert_eq!(stream.end().await, 201);
    }

    // More than a megabyte, which is what nginx takes by itself. It is no import, and that is what the server says of it.
    let (status, answer) = operator.import(format!("{}\n", "x".repeat(3 << 20))).await;
    assert_eq!(status, 400, "{answer}");
    assert!(answer.contains("\"code\""), "the fleet server answers: {answer}");
    let (status, _) = operator.import("x".repeat(17 << 20)).await;
    assert_eq!(status, 413);
}

//! Real fleet servers that share a real PostgreSQL: what one does is seen by all, and what fails loses nothing.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking"
)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Output;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};
use support::{Chance, FleetServer, PASSWORD, Postgres, Program, Receiver, Say, Wall, eventually, number};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(40);

/// One server, for requests of operators and devices.
#[derive(Clone)]
struct Site {
    client: Client,
    url: String,
    token: String,
}

impl Site {
    fn of(server: &FleetServer) -> Self {
        let token = fs::read_to_string(server.token_file()).unwrap().trim().to_owned();
        drop(rustls::crypto::ring::default_provider().install_default());
        Self { client: Client::builder().no_proxy().build().unwrap(), url: server.url.clone(), token }
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.url))
    }

    /// An act of an operator: the status and the answer; `None` if the connection ended without one.
    async fn act(&self, method: Method, path: &str, body: &Value) -> Option<(u16, Value)> {
        let request = self.request(method, &format!("/api/v1{path}")).bearer_auth(&self.token).json(body);
        let answer = request.send().await.ok()?;
        let status = answer.status().as_u16();
        Some((status, serde_json::from_str(&answer.text().await.ok()?).unwrap_or_default()))
    }

    async fn did(&self, method: Method, path: &str, body: Value) -> Value {
        let (status, answer) = self.act(method, path, &body).await.expect("an answer");
        assert!((200..300).contains(&status), "{path}: {status} {answer}");
        answer
    }

    async fn get(&self, path: &str) -> Value {
        self.did(Method::GET, path, json!({})).await
    }

    /// A fleet with its provisioning key.
    async fn create_fleet(&self, name: &str) -> String {
        let created = self.did(Method::POST, "/fleets", json!({ "name": name })).await;
        created["provisioning_key"].as_str().unwrap().to_owned()
    }

    async fn create_release(&self, fleet: &str, commit: &str) {
        let image = format!("127.0.0.1:5000/lab/{commit}");
        let release = json!({
            "commit": commit,
            "composition": { "services": { "web": { "image": image } } },
            "images": { "web": format!("{image}@sha256:{}", "a".repeat(64)) },
        });
        self.did(Method::POST, &format!("/fleets/{fleet}/releases"), release).await;
    }

    async fn register(&self, key: &str, device: u64) {
        let body = json!({ "application": 1, "device_type": "generic-amd64", "uuid": uuid(device),
                           "api_key": key_of(device), "device_name": format!("board-{device}") });
        let answer = self.request(Method::POST, "/device/register").bearer_auth(key).json(&body).send().await;
        let answer = answer.unwrap();
        assert_eq!(answer.status().as_u16(), 201, "{}", answer.text().await.unwrap());
    }

    /// A poll: status, etag and body.
    async fn poll(&self, device: u64, etag: Option<&str>, wait: u64) -> (u16, String, String) {
        let mut poll = self.request(Method::GET, &format!("/device/v3/{}/state", uuid(device)));
        poll = poll.bearer_auth(key_of(device)).header("Prefer", format!("wait={wait}"));
        if let Some(etag) = etag {
            poll = poll.header("If-None-Match", etag);
        }
        let answer = poll.send().await.unwrap();
        let etag = answer.headers().get("etag").map(|etag| etag.to_str().unwrap().to_owned());
        (answer.status().as_u16(), etag.unwrap_or_default(), answer.text().await.unwrap())
    }

    async fn report(&self, device: u64, temperature: u64) -> u16 {
        let body = json!({ uuid(device): { "cpu_temp": temperature } });
        let report = self.request(Method::PATCH, "/device/v3/state").bearer_auth(key_of(device)).json(&body);
        report.send().await.unwrap().status().as_u16()
    }

    /// A page of the dashboard, for somebody who signs in here.
    async fn page(&self, path: &str) -> String {
        let form = format!("token={}&to=%2Ffleets", self.token);
        let sign_in = self.request(Method::POST, "/sign-in").header("origin", &self.url).body(form);
        let http = Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        let sign_in = sign_in.header("content-type", "application/x-www-form-urlencoded").build().unwrap();
        let answer = http.execute(sign_in).await.unwrap();
        let cookie = answer.headers()["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
        let page = self.request(Method::GET, path).header("cookie", cookie).send().await.unwrap();
        page.text().await.unwrap()
    }

    async fn is_ready(&self) -> bool {
        self.request(Method::GET, "/readyz").send().await.is_ok_and(|answer| answer.status().as_u16() == 200)
    }

    async fn until_ready(&self, expected: bool) {
        let ready = async {
            while self.is_ready().await != expected {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::time::timeout(PATIENCE, ready).await.unwrap_or_else(|_| panic!("ready is never {expected}"));
    }

    async fn fleets(&self) -> BTreeSet<String> {
        let list = self.get("/fleets?limit=1000").await;
        list.as_array().unwrap().iter().map(|fleet| fleet["name"].as_str().unwrap().to_owned()).collect()
    }
}

fn uuid(device: u64) -> String {
    format!("{device:032x}")
}

fn key_of(device: u64) -> String {
    format!("the-key-of-device-{device}")
}

/// All records of a server, by its own backup, without the lines of its beginning and end.
fn records(server: &FleetServer, dir: &Path) -> Vec<String> {
    let file = dir.join("compared.jsonl");
    let mut command = Program::fleet();
    command.arg("backup").arg(&file).env("COTTER_FLEET_URL", &server.url);
    let saved = command.env("COTTER_TOKEN_FILE", server.token_file()).output().unwrap();
    assert!(saved.status.success(), "{saved:?}");
    let text = fs::read_to_string(&file).unwrap();
    let mut lines: Vec<_> = text.lines().skip(1).map(str::to_owned).collect();
    lines.pop();
    lines.sort();
    lines
}

/// Asserts that all servers have the same records, as soon as they have followed the log.
#[track_caller]
fn assert_same(servers: &[&FleetServer], dir: &Path) {
    let mut last = Vec::new();
    for _ in 0..50 {
        last = servers.iter().map(|server| records(server, dir)).collect::<Vec<_>>();
        if last.windows(2).all(|pair| pair[0] == pair[1]) {
            return;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    let first: BTreeSet<_> = last[0].iter().collect();
    for other in &last[1..] {
        let other: BTreeSet<_> = other.iter().collect();
        let differs: Vec<_> = first.symmetric_difference(&other).take(4).collect();
        assert!(differs.is_empty(), "servers differ: {differs:#?}");
    }
}

/// The acts that the audit trail says were done, in its order.
async fn done(site: &Site, what: &str) -> Vec<String> {
    let mut requests = Vec::new();
    let mut cursor = String::new();
    loop {
        let path = format!("/api/v1/audit?limit=1000{cursor}");
        let answer = site.request(Method::GET, &path).bearer_auth(&site.token).send().await.unwrap();
        let next = answer.headers().get("cotter-next").map(|next| next.to_str().unwrap().to_owned());
        let page: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
        for entry in page.as_array().unwrap() {
            if entry["result"] == "done" && entry["what"] == what {
                let thing = entry["things"][0]["name"].as_str().unwrap_or_default();
                requests.push(thing.to_owned());
            }
        }
        let Some(next) = next else { return requests };
        cursor = format!("&cursor={next}");
    }
}

fn serve(dir: &Path, args: &[&str], store: Option<&str>) -> Output {
    let mut command = Program::fleet();
    command.args(["serve", "--listen", "127.0.0.1:0", "--data-dir"]).arg(dir.join("refused")).args(args);
    if let Some(store) = store {
        command.env("COTTER_FLEET_STORE", store);
    }
    command.output().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_server_does_is_seen_by_the_devices_of_the_other() {
    let Some(postgres) = Postgres::start() else { return };
    let dir = TempDir::new().unwrap();
    let store = postgres.url("fleet");
    let servers =
        [FleetServer::start_on(&store, dir.path(), "a"), FleetServer::start_on(&store, dir.path(), "b")];
    let [a, b] = servers.each_ref().map(Site::of);

    // Each step at another server, and at once.
    let key = a.create_fleet("lab").await;
    b.register(&key, 1).await;
    let (status, first, _) = a.poll(1, None, 1).await;
    assert_eq!(status, 200);
    b.create_release("lab", "one").await;
    let (status, one, body) = a.poll(1, Some(&first), 30).await;
    assert!(status == 200 && body.contains("\"one\""), "{status} {body}");
    assert_eq!(b.poll(1, Some(&one), 0).await.0, 304, "both have the same etags");

    // A poll that waits at one server is answered when the other one gets an act.
    let waiting = {
        let (b, one) = (b.clone(), one.clone());
        tokio::spawn(async move { b.poll(1, Some(&one), 300).await })
    };
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!waiting.is_finished());
    a.create_release("lab", "two").await;
    let (status, two, body) = tokio::time::timeout(PATIENCE, waiting).await.unwrap().unwrap();
    assert!(status == 200 && body.contains("\"two\""), "{status} {body}");

    // Reports are merged, whichever server gets them.
    assert_eq!((a.report(1, 40).await, b.report(1, 41).await, a.report(1, 42).await), (200, 200, 200));
    let logged = postgres.psql("fleet", "SELECT count(*) FROM cotter_log WHERE changes LIKE '%cpu_temp%'");
    assert_eq!(logged, "0", "no report is in the log");
    assert_same(&[&servers[0], &servers[1]], dir.path());

    // Each server knows that a device polls the other one.
    b.register(&key, 2).await;
    assert_eq!(b.poll(2, None, 0).await.0, 200);
    let seen = async {
        // Until the other server has read the registration, it does not know the device.
        let path = format!("/devices/{}", uuid(2));
        while a.act(Method::GET, &path, &json!({})).await.unwrap().1["last_seen"].is_null() {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::time::timeout(PATIENCE, seen).await.expect("the poll is known to the other server");

    // A page with logs says that it has those of one server.
    let page = a.page(&format!("/devices/{}?logs=1", uuid(2))).await;
    assert!(page.contains("Several servers share these devices"), "{page}");

    // A device that an operator deletes at one server is unknown to the other.
    b.did(Method::DELETE, &format!("/devices/{}", uuid(1)), json!({})).await;
    let gone = async {
        while !a.poll(1, Some(&two), 0).await.1.is_empty() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.expect("the device is deleted at both");
    assert_same(&[&servers[0], &servers[1]], dir.path());
    assert_eq!(done(&a, "create a release").await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_device_gets_an_older_target_from_a_server_that_is_cut_off() {
    let Some(postgres) = Postgres::start() else { return };
    let dir = TempDir::new().unwrap();
    let wall = Wall::start(postgres.port);
    let a_server = FleetServer::start_on(&postgres.url("fleet"), dir.path(), "a");
    let b_server = FleetServer::start_on(&postgres.url_by(wall.port), dir.path(), "b");
    let (a, b) = (Site::of(&a_server), Site::of(&b_server));
    let key = a.create_fleet("lab").await;
    a.create_release("lab", "old").await;
    for device in [1, 2] {
        b.register(&key, device).await;
    }
    let (_, old, _) = b.poll(1, None, 0).await;
    assert_eq!(b.poll(2, None, 0).await.0, 200);

    wall.silence();
    a.create_release("lab", "new").await;
    let (status, new, body) = a.poll(1, Some(&old), 0).await;
    assert!(status == 200 && body.contains("\"new\""), "{body}");
    b.until_ready(false).await;

    // The device asks the server that knows only the older release, and keeps what it has.
    assert_eq!(b.poll(1, Some(&new), 0).await, (304, new.clone(), String::new()));
    assert_eq!(b.poll(1, Some(&new), 5).await.0, 304);
    // Others are answered from memory, and acts are refused with the reason.
    assert_eq!(b.poll(1, Some(&old), 0).await.0, 304);
    let (status, _, body) = b.poll(2, None, 0).await;
    assert!(status == 200 && body.contains("\"old\""), "{status} {body}");
    assert_eq!(b.report(2, 40).await, 503);
    let (status, answer) = b.act(Method::POST, "/fleets", &json!({ "name": "never" })).await.unwrap();
    assert_eq!((status, answer["error"]["code"].as_str()), (503, Some("database_lost")), "{answer}");
    let refused = b_server.try_cli(&["fleet", "create", "never"]);
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(20) && words.contains("does not answer"), "{words}");
    assert!(b_server.log().contains("the database is lost: polls are answered from memory"));
    let metrics = b.request(Method::GET, "/metrics").bearer_auth(&b.token).send().await.unwrap();
    assert!(metrics.text().await.unwrap().contains("cotter_fleet_store_up 0"));
    a.did(Method::POST, "/fleets", json!({ "name": "meanwhile" })).await;

    wall.open();
    b.until_ready(true).await;
    let (status, _, body) = b.poll(1, Some(&old), 30).await;
    assert!(status == 200 && body.contains("\"new\""), "{status} {body}");
    assert_eq!(b.poll(1, Some(&new), 0).await.0, 304);
    b.did(Method::POST, "/fleets", json!({ "name": "after" })).await;
    assert_same(&[&a_server, &b_server], dir.path());
    assert_eq!(a.fleets().await, ["lab", "meanwhile", "after"].map(str::to_owned).into());
}

/// A server holds the lock and cannot be reached any more: the database frees the lock, and the others go on.
#[tokio::test(flavor = "multi_thread")]
async fn an_act_whose_end_is_not_answered_is_done_once_or_not_at_all() {
    let Some(postgres) = Postgres::start() else { return };
    let dir = TempDir::new().unwrap();
    let wall = Wall::start(postgres.port);
    let a_server = FleetServer::start_on(&postgres.url_by(wall.port), dir.path(), "a");
    let b_server = FleetServer::start_on(&postgres.url("fleet"), dir.path(), "b");
    let (a, b) = (Site::of(&a_server), Site::of(&b_server));
    a.create_fleet("before").await;

    wall.cut_after_commit();
    a.did(Method::POST, "/fleets", json!({ "name": "done" })).await;
    assert!(wall.has_cut(), "the answer was lost");
    assert!(
        a_server.log().contains("did not say whether a group of changes was written"),
        "{}",
        a_server.log()
    );

    wall.cut_before_commit();
    let (status, answer) = a.act(Method::POST, "/fleets", &json!({ "name": "undone" })).await.unwrap();
    assert!(wall.has_cut(), "the transaction was lost");
    assert_eq!((status, answer["error"]["code"].as_str()), (503, Some("database_lost")), "{answer}");

    b.did(Method::POST, "/fleets", json!({ "name": "other" })).await;
    a.did(Method::POST, "/fleets", json!({ "name": "after" })).await;
    assert_same(&[&a_server, &b_server], dir.path());
    let mut created = done(&b, "create a fleet").await;
    created.reverse();
    assert_eq!(created, ["before", "done", "other", "after"]);
    assert_eq!(b.fleets().await, ["before", "done", "other", "after"].map(str::to_owned).into());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_database_is_restarted_and_servers_go_on() {
    let Some(mut postgres) = Postgres::start() else { return };
    let dir = TempDir::new().unwrap();
    let store = postgres.url("fleet");
    let mut servers =
        [FleetServer::start_on(&store, dir.path(), "a"), FleetServer::start_on(&store, dir.path(), "b")];
    let [a, b] = servers.each_ref().map(Site::of);
    let key = a.create_fleet("lab").await;
    a.create_release("lab", "one").await;
    a.register(&key, 1).await;
    let (_, etag, _) = b.poll(1, None, 0).await;

    postgres.stop();
    a.until_ready(false).await;
    assert_eq!((b.poll(1, None, 0).await.0, b.poll(1, Some(&etag), 0).await.0), (200, 304));
    let (status, answer) =
        b.act(Method::POST, "/fleets/lab/pin", &json!({ "release": "one" })).await.unwrap();
    assert_eq!((status, answer["error"]["code"].as_str()), (503, Some("database_lost")), "{answer}");
    // A server that starts now says why it does not.
    let refused = serve(dir.path(), &[], Some(&store));
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(20) && words.contains("does not answer"), "{words}");

    postgres.start_again();
    a.until_ready(true).await;
    b.until_ready(true).await;
    b.did(Method::POST, "/fleets/lab/pin", json!({ "release": "one" })).await;
    a.create_release("lab", "two").await;
    assert_eq!(b.report(1, 40).await, 200);
    assert_same(&[&servers[0], &servers[1]], dir.path());
    assert!(servers[0].log().contains("the database is back"));

    // A short restart between two acts costs no error.
    postgres.stop();
    postgres.start_again();
    a.did(Method::POST, "/fleets", json!({ "name": "site" })).await;
    assert_same(&[&servers[0], &servers[1]], dir.path());
    // What was acknowledged is there after a restart of both.
    let before = records(&servers[0], dir.path());
    servers.iter_mut().for_each(FleetServer::cut);
    servers[1].start_again();
    assert_eq!(records(&servers[1], dir.path()), before);
}

/// The database can be read and not written, as a standby.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_not_ready_while_acts_are_not_written_although_it_can_read() {
    let Some(postgres) = Postgres::start() else { return };
    let dir = TempDir::new().unwrap();
    let server = FleetServer::start_on(&postgres.url("fleet"), dir.path(), "a");
    let site = Site::of(&server);
    site.create_fleet("lab").await;
    let read_only = |is_so: &str| {
        postgres.psql("fleet", &format!("ALTER ROLE cotter SET default_transaction_read_only = {is_so}"));
        let ended = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = 'cotter'";
        postgres.psql("fleet", ended);
    };

    read_only("on");
    let act = |name: &'static str| {
        let site = site.clone();
        async move { site.act(Method::POST, "/fleets", &json!({ "name": name })).await.unwrap() }
    };
    let (status, answer) = act("never").await;
    assert_eq!((status, answer["error"]["code"].as_str()), (503, Some("database_lost")), "{answer}");
    // The server reads the database once a second.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(!site.is_ready().await);
    let log = server.log();
    assert!(log.contains("the database accepts no changes") && log.contains("only allows reading"), "{log}");
    assert!(!log.contains("the database is back"), "{log}");

    read_only("off");
    assert_eq!(act("after").await.0, 201);
    site.until_ready(true).await;
    assert!(server.log().contains("the database is back"));
    assert_eq!(site.fleets().await, ["lab", "after"].map(str::to_owned).into());
}

/// Acts go to both servers while one after the other is killed.
#[tokio::test(flavor = "multi_thread")]
async fn servers_are_killed_in_the_middle_of_acts_and_none_is_lost_or_done_twice() {
    let Some(postgres) = Postgres::start() else { return };
    let dir = TempDir::new().unwrap();
    let store = postgres.url("fleet");
    let mut servers =
        [FleetServer::start_on(&store, dir.path(), "a"), FleetServer::start_on(&store, dir.path(), "b")];
    let is_over = Arc::new(AtomicBool::new(false));
    let acknowledged = Arc::new(Mutex::new(BTreeSet::new()));
    let mut acting = tokio::task::JoinSet::new();
    for (side, server) in servers.iter().enumerate() {
        for part in 0..2 {
            let (site, is_over, acknowledged) =
                (Site::of(server), Arc::clone(&is_over), Arc::clone(&acknowledged));
            acting.spawn(async move {
                for n in 0..100_000 {
                    if is_over.load(Ordering::Relaxed) {
                        return;
                    }
                    let name = format!("f-{side}-{part}-{n}");
                    match site.act(Method::POST, "/fleets", &json!({ "name": name })).await {
                        Some((status, _)) if (200..300).contains(&status) => {
                            acknowledged.lock().unwrap().insert(name);
                        }
                        Some((503, _)) | None => tokio::time::sleep(Duration::from_millis(20)).await,
                        Some(other) => panic!("{other:?}"),
                    }
                }
            });
        }
    }
    let (mut chance, seed) = Chance::seeded("COTTER_KILLS_SEED");
    println!("COTTER_KILLS_SEED={seed}");
    for turn in 0..number("COTTER_KILLS").unwrap_or(6) {
        tokio::time::sleep(Duration::from_millis(100 + chance.below(400))).await;
        let server = &mut servers[usize::try_from(turn).unwrap() % 2];
        server.cut();
        server.start_again();
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    is_over.store(true, Ordering::Relaxed);
    while let Some(ended) = acting.join_next().await {
        ended.unwrap();
    }
    assert_same(&[&servers[0], &servers[1]], dir.path());
    let site = Site::of(&servers[0]);
    let (done, acknowledged) = (done(&site, "create a fleet").await, acknowledged.lock().unwrap().clone());
    let once: BTreeSet<_> = done.iter().cloned().collect();
    assert_eq!(once.len(), done.len(), "an act was done twice");
    let lost: Vec<_> = acknowledged.difference(&once).collect();
    assert!(lost.is_empty() && acknowledged.len() > 20, "of {} were lost: {lost:?}", acknowledged.len());
    let numbers =
        postgres.psql("fleet", "SELECT count(*) = max(number) AND min(number) = 1 FROM cotter_audit");
    assert_eq!(numbers, "t", "the audit trail has no gap");
    let gaps = postgres.psql("fleet", "SELECT max(seq) - min(seq) + 1 - count(*) FROM cotter_log");
    assert_eq!(gaps, "0", "the log has no gap");
}

/// A random act: method, path and body.
fn random_act(chance: &mut Chance) -> (Method, String, Value) {
    let fleet = format!("f{}", chance.below(4));
    let device = uuid(1 + chance.below(12));
    let commit = format!("c{}{:04}", chance.below(4), chance.below(3));
    let image = format!("127.0.0.1:5000/lab/{commit}");
    match chance.below(11) {
        0 => (Method::POST, "/fleets".to_owned(), json!({ "name": fleet })),
        1 | 2 => {
            let release = json!({
                "commit": commit,
                "composition": { "services": { "web": { "image": image } } },
                "images": { "web": format!("{image}@sha256:{}", "a".repeat(64)) },
            });
            (Method::POST, format!("/fleets/{fleet}/releases"), release)
        }
        3 => (Method::POST, format!("/fleets/{fleet}/pin"), json!({ "release": commit })),
        4 => (Method::POST, format!("/fleets/{fleet}/track-latest"), json!({})),
        5 => (Method::POST, format!("/devices/{device}/pin"), json!({ "release": commit })),
        6 => (Method::POST, format!("/devices/{device}/track-fleet"), json!({})),
        7 => (
            Method::POST,
            format!("/devices/{device}/rename"),
            json!({ "name": format!("n{}", chance.below(9)) }),
        ),
        8 => (Method::POST, format!("/devices/{device}/move"), json!({ "fleet": fleet })),
        9 => (Method::DELETE, format!("/devices/{device}"), json!({})),
        _ => (Method::DELETE, format!("/fleets/{fleet}"), json!({})),
    }
}

/// The lists of a server, without what is random or a time.
async fn lists(site: &Site) -> Value {
    fn plain(value: &mut Value) {
        match value {
            Value::Object(fields) => {
                for name in [
                    "at",
                    "created",
                    "start_timestamp",
                    "last_seen",
                    "is_online",
                    "state",
                    "why",
                    "uuid",
                    "deleted",
                    "provisioning_key",
                ] {
                    fields.remove(name);
                }
                fields.values_mut().for_each(plain);
            }
            Value::Array(values) => values.iter_mut().for_each(plain),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    let mut lists = Vec::new();
    for path in ["/fleets", "/devices", "/releases"] {
        lists.push(site.get(path).await);
    }
    let mut lists = Value::Array(lists);
    plain(&mut lists);
    lists
}

#[tokio::test(flavor = "multi_thread")]
async fn random_acts_from_both_sides_end_as_one_after_the_other() {
    let Some(postgres) = Postgres::start() else { return };
    let dir = TempDir::new().unwrap();
    let store = postgres.url("fleet");
    let servers =
        [FleetServer::start_on(&store, dir.path(), "a"), FleetServer::start_on(&store, dir.path(), "b")];
    fs::create_dir(dir.path().join("alone")).unwrap();
    let alone = FleetServer::start_in(&dir.path().join("alone"), Vec::new());
    let (sides, one) = (servers.each_ref().map(Site::of), Site::of(&alone));
    let (mut chance, seed) = Chance::seeded("COTTER_ACTS_SEED");
    println!("COTTER_ACTS_SEED={seed}");
    let (first, second) = (sides[0].create_fleet("f0").await, one.create_fleet("f0").await);
    for device in 1..=12 {
        sides[usize::try_from(device).unwrap() % 2].register(&first, device).await;
        one.register(&second, device).await;
    }
    let mut refused = 0;
    for n in 0..number("COTTER_ACTS").unwrap_or(400) {
        let (method, path, body) = random_act(&mut chance);
        let side = &sides[usize::from(chance.below(2) == 1)];
        let (ours, expected) = (
            side.act(method.clone(), &path, &body).await.unwrap(),
            one.act(method, &path, &body).await.unwrap(),
        );
        assert_eq!((ours.0, &ours.1["error"]), (expected.0, &expected.1["error"]), "act {n}: {path} {body}");
        refused += u32::from(ours.0 >= 400);
    }
    assert!(refused > 10, "some acts are refused, on the newest records of both servers");
    assert_same(&[&servers[0], &servers[1]], dir.path());
    let expected = lists(&one).await;
    for side in &sides {
        assert_eq!(lists(side).await, expected);
    }

    // At the same time: whatever the order was, it is the same for all, and for one that reads all records.
    let mut acting = tokio::task::JoinSet::new();
    for (n, side) in sides.iter().cycle().take(6).enumerate() {
        let (side, mut chance) = (side.clone(), Chance::of(seed.wrapping_add(n as u64 + 1).wrapping_mul(7)));
        acting.spawn(async move {
            for _ in 0..number("COTTER_ACTS").unwrap_or(400) / 4 {
                let (method, path, body) = random_act(&mut chance);
                let (status, answer) = side.act(method, &path, &body).await.unwrap();
                assert!(status < 500, "{path} {body}: {status} {answer}");
                side.report(1 + chance.below(12), chance.below(100)).await;
            }
        });
    }
    while let Some(ended) = acting.join_next().await {
        ended.unwrap();
    }
    let third = FleetServer::start_on(&store, dir.path(), "c");
    assert_same(&[&servers[0], &servers[1], &third], dir.path());
}

#[test]
fn a_password_is_never_on_the_command_line() {
    let Some(postgres) = Postgres::start() else { return };
    let dir = TempDir::new().unwrap();
    let (with, without) = (postgres.url("fleet"), postgres.url("fleet").replace(&format!(":{PASSWORD}"), ""));
    let refused = |args: &[&str], code: i32, expected: &str| {
        let output = serve(dir.path(), args, None);
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(code) && words.contains(expected), "{args:?}: {output:?}");
        assert!(!words.contains(PASSWORD), "{words}");
    };
    let password = dir.path().join("password");
    fs::write(&password, format!("{PASSWORD}\n")).unwrap();
    let file = password.to_str().unwrap();
    fs::set_permissions(&password, fs::Permissions::from_mode(0o644)).unwrap();
    refused(&["--store", &with], 2, "can read a password on the command line");
    refused(&[&format!("--store={with}")], 2, "give a file that has it with --store-password-file");
    refused(&["--store", &without], 78, "does not accept this user");
    refused(&["--store", &without, "--store-password-file", file], 78, "run chmod o= on it");
    refused(
        &["--store", &without, "--store-password-file", "/none"],
        78,
        "cannot use store_password_file = /none",
    );
    refused(&["--store", "postgres://a@b/c?ssl=1"], 78, "\"ssl\" is unknown");
    refused(&["--store", "postgres://a@127.0.0.1:1/c"], 20, "start it, or correct the setting `store`");

    fs::set_permissions(&password, fs::Permissions::from_mode(0o600)).unwrap();
    let settings = dir.path().join("fleet.toml");
    fs::write(&settings, format!("store = \"{without}\"\nstore_password_file = \"{file}\"\n")).unwrap();
    let mut command = Program::fleet();
    command.args(["serve", "--listen", "127.0.0.1:0", "--data-dir"]).arg(dir.path().join("data"));
    command.arg("--config").arg(&settings);
    let program = Program::start("the fleet server", command, &dir.path().join("log"));
    eventually("it listens", PATIENCE, || program.log().contains("fleet server is listening").then_some(()));
}

fn tool(args: &[&str]) -> (i32, String) {
    let output = Program::fleet().args(args).output().unwrap();
    (output.status.code().unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn records_move_from_a_folder_into_a_database_and_back_and_over_nothing() {
    let Some(postgres) = Postgres::start() else { return };
    let dir = TempDir::new().unwrap();
    let mut alone = FleetServer::start_in(dir.path(), Vec::new());
    let site = Site::of(&alone);
    let key = site.create_fleet("lab").await;
    site.create_release("lab", "one").await;
    for device in 1..=3 {
        site.register(&key, device).await;
        assert_eq!(site.report(device, 40).await, 200);
    }
    site.did(Method::DELETE, &format!("/devices/{}", uuid(3)), json!({})).await;
    let (_, etag, _) = site.poll(1, None, 0).await;
    let before = records(&alone, dir.path());
    let folder = alone.data_dir().to_str().unwrap().to_owned();
    let (password, url) =
        (dir.path().join("password"), postgres.url("fleet").replace(&format!(":{PASSWORD}"), ""));
    fs::write(&password, PASSWORD).unwrap();
    fs::set_permissions(&password, fs::Permissions::from_mode(0o600)).unwrap();
    let with_password = ["--password-file", password.to_str().unwrap()];
    let migrate = |from: &str, to: &str| tool(&[&["migrate", from, to], &with_password[..]].concat());
    let refused = |(code, words): (i32, String), expected: i32, text: &str| {
        assert!(code == expected && words.contains(text) && words.lines().count() == 1, "{code}: {words}");
    };

    refused(migrate(&folder, &url), 75, "another `cotter-fleet serve` uses");
    alone.stop();
    refused(migrate(&folder, "/elsewhere"), 2, "one of both must be the URL of a database");
    refused(migrate(&folder, "postgres://a@b/c?x=1"), 2, "\"x\" is unknown");
    let (code, words) = migrate(&folder, "postgres://a:hush-hush@b/c?x=1");
    assert!(code == 2 && words.contains("\"x\" is unknown") && !words.contains("hush"), "{code}: {words}");
    refused(migrate("/none", &url), 5, "has no records of a fleet server");
    refused(
        tool(&["migrate", &folder, &postgres.url("fleet")]),
        2,
        "can read a password on the command line; give a file that has it with --password-file",
    );
    // The records are in the folder, and the database is empty.
    let mut forgotten = Program::fleet();
    forgotten.args(["serve", "--listen", "127.0.0.1:0", "--data-dir", &folder]);
    let forgotten = forgotten.env("COTTER_FLEET_STORE", postgres.url("fleet")).output().unwrap();
    let words = String::from_utf8_lossy(&forgotten.stderr).into_owned();
    assert!(forgotten.status.code() == Some(78) && words.contains("cotter-fleet migrate"), "{words}");

    let (code, words) = migrate(&folder, &url);
    assert!(code == 0 && words.contains("has 1 fleet, 1 release and 2 devices"), "{code}: {words}");
    refused(migrate(&folder, &url), 21, "has records already; name an empty one");
    let (a, b) = (
        FleetServer::start_on(&postgres.url("fleet"), dir.path(), "fleet"),
        FleetServer::start_on(&postgres.url("fleet"), dir.path(), "b"),
    );
    assert_eq!(records(&a, dir.path()), before);
    assert_eq!(Site::of(&a).poll(1, Some(&etag), 0).await.0, 304, "the etags are the same");
    Site::of(&b).create_release("lab", "two").await;
    assert_same(&[&a, &b], dir.path());
    let (after, file) = (records(&b, dir.path()), dir.path().join("kept.jsonl"));
    fs::rename(dir.path().join("compared.jsonl"), &file).unwrap();

    // Back into a folder, once no server uses the database.
    let back = dir.path().join("back/fleet");
    refused(migrate(&url, back.to_str().unwrap()), 75, "other connections of cotter-fleet use the database");
    drop((a, b));
    refused(migrate(&url, &folder), 21, "has records already");
    let (code, words) = migrate(&url, back.to_str().unwrap());
    assert!(code == 0, "{words}");
    let alone = FleetServer::start_in(&dir.path().join("back"), Vec::new());
    assert_eq!(records(&alone, dir.path()), after);

    // A backup into another database, and never into one that has records.
    postgres.create("other");
    let restore = |url: &str| {
        tool(&[&["restore", file.to_str().unwrap(), "--store", url], &with_password[..]].concat())
    };
    refused(restore(&url), 21, "has records already");
    let (code, words) = restore(&url.replace("/fleet", "/other"));
    assert!(code == 0 && words.contains("has 1 fleet, 2 releases and 2 devices"), "{code}: {words}");
    assert!(words.contains("warning: what was revoked, disabled or deleted after"), "{words}");
    let other = FleetServer::start_on(&postgres.url("other"), dir.path(), "other");
    let mut restored = records(&other, dir.path());
    let is_restoration = |record: &String| record.contains("restore a backup");
    assert_eq!(restored.iter().filter(|record| is_restoration(record)).count(), 1);
    restored.retain(|record| !is_restoration(record));
    assert_eq!(restored, after);
}

/// A device asks for its target, and reports that it runs it. Returns whether that is the new release.
async fn runs_new(site: &Site, device: u64) -> bool {
    let (status, _, body) = site.poll(device, None, 0).await;
    if status != 200 {
        // It asks too often.
        return false;
    }
    let target: Value = serde_json::from_str(&body).unwrap();
    let apps = target[uuid(device)]["apps"].as_object().unwrap();
    let (app, state) = apps.iter().next().unwrap();
    let commit = state["releases"].as_object().unwrap().keys().next().unwrap();
    let report = json!({ uuid(device): {
        "apps": { app: { "release_uuid": commit } },
        "cotter": { "agent": "0.2.0", "target": commit, "waiting": [] },
    } });
    let report = site.request(Method::PATCH, "/device/v3/state").bearer_auth(key_of(device)).json(&report);
    assert_eq!(report.send().await.unwrap().status().as_u16(), 200);
    commit == "2222new"
}

/// Both servers decide, and each decision is made once: the one that is killed again and again leaves none half made.
#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_goes_on_while_a_server_is_killed_and_exposes_and_announces_nothing_twice() {
    const DEVICES: u64 = 6;
    let Some(postgres) = Postgres::start() else { return };
    let dir = TempDir::new().unwrap();
    let store = postgres.url("fleet");
    let mut killed = FleetServer::start_on(&store, dir.path(), "killed");
    let server = FleetServer::start_on(&store, dir.path(), "other");
    let (site, receiver) = (Site::of(&server), Receiver::start(&[Say::Status(204, "")]));
    let key = site.create_fleet("lab").await;
    site.create_release("lab", "1111old").await;
    for device in 1..=DEVICES {
        site.register(&key, device).await;
        assert!(!runs_new(&site, device).await);
    }
    let image = "127.0.0.1:5000/lab/new";
    let release = json!({
        "commit": "2222new",
        "composition": { "services": { "web": { "image": image } } },
        "images": { "web": format!("{image}@sha256:{}", "b".repeat(64)) },
        "is_final": false,
    });
    site.did(Method::POST, "/fleets/lab/releases", release).await;
    site.did(Method::POST, "/webhooks", json!({ "name": "ci", "url": receiver.url })).await;
    let definition = json!({ "waves": ["2", "4", "100%"], "soak": "1s", "observe": "1s" });
    let start = json!({ "release": "2222new", "definition": definition });
    site.did(Method::POST, "/fleets/lab/rollouts", start).await;

    let (mut exposed, mut kills) = (BTreeMap::<u64, String>::new(), 0);
    let running = async {
        loop {
            killed.cut();
            killed.start_again();
            kills += 1;
            tokio::time::sleep(Duration::from_millis(300 + 170 * (kills % 5))).await;
            for device in 1..=DEVICES {
                runs_new(&site, device).await;
                let shown = site.get(&format!("/devices/{}", uuid(device))).await;
                if let Some(at) = shown["rollout"]["exposed"].as_str() {
                    let first = exposed.entry(device).or_insert_with(|| at.to_owned());
                    assert_eq!(first, at, "device {device} is exposed once");
                }
            }
            let rollout = site.get("/fleets/lab/rollouts/current").await;
            let most = [2, 4, 6][usize::try_from(rollout["wave"].as_u64().unwrap()).unwrap() - 1];
            assert!(exposed.len() <= most, "{exposed:?}: {rollout:#}");
            match rollout["phase"].as_str().unwrap() {
                "running" => {}
                "completed" => return,
                other => panic!("{other}: {rollout:#}"),
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(120), running).await.expect("the rollout completes");
    assert!(kills > 2, "{kills}");

    let begun = std::time::Instant::now();
    let messages = loop {
        let mut messages = BTreeMap::new();
        for one in receiver.received() {
            let (id, kind) = (one.id().to_owned(), one.kind());
            let before = messages.insert(id, (kind, one.body.clone()));
            assert!(before.is_none_or(|(_, body)| body == one.body), "a message that came twice is the same");
        }
        if messages.len() >= 4 && site.get("/webhooks/ci").await["waiting"] == 0 {
            break messages;
        }
        assert!(begun.elapsed() < PATIENCE, "{messages:#?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    let mut kinds: Vec<_> = messages.values().map(|(kind, _)| kind.as_str()).collect();
    kinds.sort_unstable();
    assert_eq!(kinds, ["rollout.complete", "rollout.start", "rollout.wave", "rollout.wave"]);
    for what in ["rollout: wave 2 begins", "rollout: wave 3 begins", "rollout completed"] {
        assert_eq!(done(&site, what).await.len(), 1, "{what}");
    }
    assert_same(&[&killed, &server], dir.path());
}

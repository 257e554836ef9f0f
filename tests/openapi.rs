//! The OpenAPI documents, held against the real servers: the status socket and the control socket of an agent, and a fleet
//! server. No engine answers here, and none is needed.
//!
//! schemathesis makes requests from a document, some that fit and some that do not, and looks whether each is answered as
//! the document says. `scripts/prepare.sh` installs it. `COTTER_OPENAPI=500` tries more requests of each kind, and
//! `COTTER_OPENAPI_SEED` others.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use support::{FakeCloud, FleetServer, Program, eventually, number, unix_get};
use tempfile::TempDir;

const AGENT: &str = include_str!("../docs/openapi.json");
const FLEET: &str = include_str!("../docs/openapi-fleet.json");

/// Of the devices of the fleet: one to work with, one that was deleted, and one to be deleted.
const DEVICE: &str = "0123456789abcdef0123456789abcdef";
const BARRED: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";
const DOOMED: &str = "dddddddddddddddddddddddddddddddd";
const DEVICE_KEY: &str = "fedcba9876543210fedcba9876543210";

/// Requests that are made of each operation at random, by far not all that are made.
const EXAMPLES: u64 = 15;
const SEED: u64 = 1;

/// An agent with a target of one app, and a lock.
struct Agent {
    _program: Program,
    _cloud: FakeCloud,
    folder: TempDir,
    lock: String,
}

impl Agent {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().display();
        let cloud = FakeCloud::start();
        cloud.target("1", &target());
        let settings = format!(
            "instance = \"openapi\"\nstate_dir = \"{dir}/state\"\nruntime_dir = \"{dir}/run\"\n[engine]\nsocket = \
             \"{dir}/none.sock\"\n[cloud]\nendpoint = \"{}\"\nuuid = \"{DEVICE}\"\ndevice_key_file = \"{dir}/key\"\n",
            cloud.url
        );
        private(&folder.path().join("key"), DEVICE_KEY);
        std::fs::write(folder.path().join("agent.toml"), settings).unwrap();
        let mut command = Program::cotter();
        command.arg("agent").arg("--config").arg(folder.path().join("agent.toml"));
        let program = Program::start("agent", command, &folder.path().join("agent.log"));
        let socket = folder.path().join("run/status.sock");
        eventually("a target", Duration::from_secs(20), || {
            (unix_get(&socket, "/v1/status")?.json()["has_target"] == true).then_some(())
        });
        let mut agent = Self { _program: program, _cloud: cloud, folder, lock: String::new() };
        let lock = r#"{"reason": "to be renewed", "ttl_s": 86400}"#;
        let locked = ask(&agent.control(), "POST", "/v1/locks", "", lock);
        agent.lock = locked.json()["id"].as_str().unwrap().to_owned();
        agent
    }

    /// Addresses on loopback that lead to the sockets.
    fn status(&self) -> String {
        forwarded(self.folder.path().join("run/status.sock"))
    }

    fn control(&self) -> String {
        forwarded(self.folder.path().join("run/control.sock"))
    }
}

fn target() -> Value {
    let image = format!("registry.example/x@sha256:{}", "a".repeat(64));
    let service = json!({
        "id": 1, "image_id": 1, "image": image, "running": true, "environment": {}, "labels": {}, "composition": {},
    });
    let release =
        json!({ "id": 1, "services": { "db": service, "web": service }, "networks": {}, "volumes": {} });
    let app =
        json!({ "id": 1, "name": "shop", "is_host": false, "class": "fleet", "releases": { "r1": release } });
    json!({ "1".repeat(32): app })
}

/// A fleet server with one fleet, devices, releases and provisioning keys.
struct Fleet {
    server: FleetServer,
    folder: TempDir,
    provisioning_key: String,
}

impl Fleet {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let server = FleetServer::start_in(folder.path(), Vec::new());
        let mut fleet = Self { server, folder, provisioning_key: String::new() };
        fleet.order("POST", "/fleets", &json!({ "name": "lab" }));
        fleet.order("POST", "/fleets", &json!({ "name": "lost" }));
        let keys = "/fleets/lab/provisioning-keys";
        fleet.order("POST", keys, &json!({ "name": "spare" }));
        let key = fleet.order("POST", keys, &json!({ "name": "line", "per_minute": 6000 }));
        key["provisioning_key"].as_str().unwrap().clone_into(&mut fleet.provisioning_key);
        for commit in ["third", "fourth", "first", "second"] {
            let image = format!("registry.example/web@sha256:{}", "a".repeat(64));
            let release = json!({
                "commit": commit, "composition": { "services": { "web": {} } }, "images": { "web": image },
            });
            fleet.order("POST", "/fleets/lab/releases", &release);
        }
        let image = format!("registry.example/web@sha256:{}", "a".repeat(64));
        let draft = json!({
            "commit": "draft", "is_final": false, "composition": { "services": { "web": {} } }, "images": { "web": image },
        });
        fleet.order("POST", "/fleets/lab/releases", &draft);
        let rollout = json!({ "release": "draft", "definition": { "waves": ["100%"] } });
        fleet.order("POST", "/fleets/lab/rollouts", &rollout);
        for (uuid, key) in [(DEVICE, DEVICE_KEY), (BARRED, "fedcba98bbbbbbbb"), (DOOMED, "fedcba98dddddddd")]
        {
            let body = json!({ "application": 1, "uuid": uuid, "device_type": "board", "api_key": key });
            let answer =
                ask(&fleet.address(), "POST", "/device/register", &fleet.provisioning_key, &body.to_string());
            assert_eq!(answer.status, 201, "{answer:?}");
        }
        fleet.order("DELETE", &format!("/devices/{BARRED}"), &Value::Null);
        for name in ["anna", "leaver"] {
            fleet.order("POST", "/users", &json!({ "name": name }));
        }
        fleet.order("POST", "/tokens", &json!({ "user": "anna", "role": "operator", "name": "lost-one" }));
        fleet
    }

    fn address(&self) -> String {
        self.server.url.trim_start_matches("http://").to_owned()
    }

    fn token(&self) -> String {
        std::fs::read_to_string(self.server.token_file()).unwrap().trim().to_owned()
    }

    fn order(&self, method: &str, path: &str, body: &Value) -> Value {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let answer = ask(&self.address(), method, &format!("/api/v1{path}"), &self.token(), &body);
        assert!((200..300).contains(&answer.status), "{method} {path}: {answer:?}");
        answer.json()
    }

    /// Lets schemathesis ask the operations that fit these filters.
    fn fuzz(&self, schemathesis: &Path, filters: &[&str]) -> Value {
        // Only the device itself may report, which the document cannot know.
        let mut document: Value = serde_json::from_str(FLEET).unwrap();
        document["components"]["schemas"]["Report"]["propertyNames"] = json!({ "const": DEVICE });
        // The fuzzer would use one key for many requests. tests/fleet_repeats.rs has cases for keys.
        let key = json!({ "$ref": "#/components/parameters/IdempotencyKey" });
        let operations = document["paths"].as_object_mut().unwrap().values_mut();
        for operation in operations.flat_map(|methods| methods.as_object_mut().unwrap().values_mut()) {
            if let Some(parameters) = operation.get_mut("parameters").and_then(Value::as_array_mut) {
                parameters.retain(|parameter| *parameter != key);
            }
        }
        let path = self.folder.path().join("openapi-fleet.json");
        std::fs::write(&path, document.to_string()).unwrap();
        let variables = [
            ("OPERATOR_TOKEN", self.token()),
            ("PROVISIONING_KEY", self.provisioning_key.clone()),
            ("DEVICE_KEY", DEVICE_KEY.to_owned()),
        ];
        let config = include_str!("openapi/fleet.toml");
        fuzz(schemathesis, config, &path, &self.address(), filters, &variables)
    }
}

#[test]
fn the_status_socket_keeps_to_its_document() {
    let Some(schemathesis) = schemathesis() else { return };
    let agent = Agent::start();
    let report = agent_fuzz(&schemathesis, &agent, &agent.status(), "status");
    // There is no engine that would have a log.
    assert_all_done(&report, &["GET /v1/logs"]);
}

#[test]
fn the_control_socket_keeps_to_its_document() {
    let Some(schemathesis) = schemathesis() else { return };
    let agent = Agent::start();
    let report = agent_fuzz(&schemathesis, &agent, &agent.control(), "control");
    // Without an engine no container runs, no volume is known, and no release was accepted.
    assert_all_done(&report, &["POST /v1/rollback", "POST /v1/services/restart", "POST /v1/purge"]);
}

#[test]
fn the_fleet_server_keeps_to_its_document() {
    let Some(schemathesis) = schemathesis() else { return };
    let fleet = Fleet::start();
    // What deletes devices comes last: they are needed.
    let many = "/api/v1/devices/delete";
    let delete = "DELETE /api/v1/devices/{device}";
    // Logs may be followed without end, and their lines are no form that it can make: tests/logs.rs.
    // A device that deletes itself is one device less: tests/join_fleet.rs.
    let leave = "/device/v3/{uuid}";
    // Tags are set of the own device only, by its uuid in the body: tests/fleet_leave.rs.
    let tags = "/device/v3/tags";
    let (logs, stream) = ("/api/v1/devices/{device}/logs", "/device/v2/{uuid}/log-stream");
    for filters in [
        // No file of an import is made by chance: tests/fleet_exchange.rs has them.
        &[
            ["--exclude-path", many],
            ["--exclude-name", delete],
            ["--exclude-path", "/api/v1/import"],
            ["--exclude-path", logs],
            ["--exclude-path", stream],
            ["--exclude-path", leave],
            ["--exclude-path", tags],
        ]
        .concat()[..],
        &["--include-name", delete],
        &["--include-path", many],
    ] {
        let report = fleet.fuzz(&schemathesis, filters);
        // What can be done depends on what the rollout goes through: tests/fleet_rollout.rs.
        let of_rollouts = ["", "/current/pause", "/current/resume", "/current/approve", "/current/abort"]
            .into_iter()
            .chain(["/current/pull-back", "/current/complete"])
            .map(|act| format!("POST /api/v1/fleets/{{fleet}}/rollouts{act}"));
        // No URL and no name is one by chance: tests/fleet_webhooks.rs.
        let of_webhooks = ["POST /api/v1/webhooks", "POST /api/v1/webhooks/{webhook}/test"]
            .into_iter()
            .chain(["GET /api/v1/webhooks/{webhook}", "DELETE /api/v1/webhooks/{webhook}"])
            .map(str::to_owned);
        let rarely: Vec<String> = of_rollouts.chain(of_webhooks).collect();
        assert_all_done(&report, &rarely.iter().map(String::as_str).collect::<Vec<_>>());
    }
}

fn agent_fuzz(schemathesis: &Path, agent: &Agent, address: &str, tag: &str) -> Value {
    let document = agent.folder.path().join("openapi.json");
    std::fs::write(&document, AGENT).unwrap();
    let variables = [("LOCK", agent.lock.clone())];
    let config = include_str!("openapi/agent.toml");
    fuzz(schemathesis, config, &document, address, &["--include-tag", tag], &variables)
}

/// The schemathesis that scripts/prepare.sh installs. Without it the tests are skipped, but not where all of them must run.
fn schemathesis() -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(".cross/schemathesis/bin/schemathesis");
    if path.exists() {
        return Some(path);
    }
    let why = "schemathesis is not installed; scripts/prepare.sh does it where there are python3 and PyPI";
    assert!(std::env::var_os("COTTER_SKIP_NOTHING").is_none(), "{why}");
    eprintln!("skipped: {why}");
    None
}

/// Runs it, and returns its report.
fn fuzz(
    schemathesis: &Path,
    config: &str,
    document: &Path,
    address: &str,
    filters: &[&str],
    variables: &[(&str, String)],
) -> Value {
    let folder = document.parent().unwrap();
    let mut settings = config.to_owned();
    for (name, value) in variables {
        settings = settings.replace(&format!("${{{name}}}"), value);
    }
    let config = folder.join("schemathesis.toml");
    private(&config, &settings);
    let report = folder.join("report.json");
    let examples = number("COTTER_OPENAPI").unwrap_or(EXAMPLES).to_string();
    let seed = number("COTTER_OPENAPI_SEED").unwrap_or(SEED).to_string();
    let mut command = Command::new(schemathesis);
    command.current_dir(folder).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.arg("--config-file").arg(config).arg("run").arg(document);
    command.args(["--url", &format!("http://{address}"), "--seed", &seed, "--max-examples", &examples]);
    command.args(["--continue-on-failure", "--request-timeout", "30"]);
    command.args(["--generation-database", "none", "--no-color", "--output-sanitize", "false"]);
    command.args(["--report", "json", "--report-json-path"]).arg(&report).args(filters);
    let output = command.output().expect("schemathesis runs");
    let said = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "the server and {} differ (COTTER_OPENAPI={examples} COTTER_OPENAPI_SEED={seed}):\n{said}\n{stderr}",
        document.file_name().unwrap().display()
    );
    let report: Value = serde_json::from_slice(&std::fs::read(&report).unwrap()).unwrap();
    let operations = &report["operations"];
    assert_eq!(operations["tested"], operations["selected"], "{said}");
    report
}

/// Asserts that each operation was done at least once, except these: one that is refused always is hardly tested. Another
/// seed may have no luck.
#[track_caller]
fn assert_all_done(report: &Value, except: &[&str]) {
    if number("COTTER_OPENAPI_SEED").is_some_and(|seed| seed != SEED) {
        return;
    }
    let rates = report["valid_rates"].as_object().unwrap();
    let is_done = |phases: &Value| {
        let phases = phases.as_object().unwrap().values();
        phases.filter_map(|phase| phase["accepted"].as_u64()).sum::<u64>() > 0
    };
    let never: Vec<_> = rates.iter().filter(|(_, phases)| !is_done(phases)).map(|(name, _)| name).collect();
    assert_eq!(rates.len() as u64, report["operations"]["tested"].as_u64().unwrap());
    assert!(never.iter().all(|name| except.contains(&name.as_str())), "never done: {never:?}");
}

/// The fuzzer may miss a bound by one, above all where something else is wrong with the request, too.
#[test]
fn every_bound_of_a_body_is_the_one_of_its_document() {
    let agent = Agent::start();
    let fleet = Fleet::start();
    let documents: [Value; 2] = [AGENT, FLEET].map(|text| serde_json::from_str(text).unwrap());
    let (control, server, token) = (agent.control(), fleet.address(), fleet.token());
    let keys = "/api/v1/fleets/lab/provisioning-keys";
    let rename = format!("/api/v1/devices/{DEVICE}/rename");
    let tags = format!("/api/v1/devices/{DEVICE}/tags");
    let variables = format!("/api/v1/devices/{DEVICE}/variables");
    let mut wrong = Vec::new();
    // Where `BOUND` stands, each of the values next to a bound is sent.
    for (path, body, schema) in [
        ("/v1/hold", json!({ "reason": "BOUND" }), "HoldRequest/properties/reason"),
        ("/v1/retry", json!({ "app": "BOUND" }), "AppRequest/properties/app"),
        ("/v1/services/start", json!({ "service": "BOUND" }), "Name"),
        ("/v1/locks/release", json!({ "id": "BOUND" }), "Name"),
        ("/v1/locks", json!({ "reason": "r", "ttl_s": "BOUND" }), "LockRequest/properties/ttl_s"),
        ("/v1/locks", json!({ "reason": "BOUND", "ttl_s": 1 }), "LockRequest/properties/reason"),
        ("/v1/locks", json!({ "reason": "r", "owner": "BOUND", "ttl_s": 1 }), "LockRequest/properties/owner"),
        ("/v1/purge", json!({ "app": "shop", "volume": "BOUND" }), "PurgeRequest/properties/volume"),
        ("/api/v1/fleets", json!({ "name": "BOUND" }), "FleetName"),
        (&rename, json!({ "name": "BOUND" }), "DeviceName"),
        (&tags, json!({ "set": { "a": "BOUND" } }), "TagDevice/properties/set/additionalProperties"),
        (
            &variables,
            json!({ "set": { "a": "BOUND" } }),
            "ChangeVariables/properties/set/additionalProperties",
        ),
        ("/api/v1/devices/track-fleet", json!({ "filter": "BOUND" }), "TagFilter"),
        ("/api/v1/users", json!({ "name": "BOUND" }), "AccountName"),
        (keys, json!({ "name": "BOUND" }), "CreateKey/properties/name/oneOf/0"),
        (keys, json!({ "uses": "BOUND" }), "CreateKey/properties/uses"),
        (keys, json!({ "per_minute": "BOUND" }), "CreateKey/properties/per_minute"),
    ] {
        let is_fleet = path.starts_with("/api");
        let address = if is_fleet { &server } else { &control };
        let schema =
            documents[usize::from(is_fleet)].pointer(&format!("/components/schemas/{schema}")).unwrap();
        let bound = |name: &str| schema.get(name).and_then(Value::as_i64);
        let number = |n: i64| n.to_string();
        // A filter of one condition has a shorter key than it may be long.
        let text = |length: i64| {
            let text = "wx,".repeat(usize::try_from(length).unwrap().div_ceil(3));
            let text = if path.ends_with("track-fleet") { text } else { text.replace(',', "y") };
            json!(&text[..usize::try_from(length).unwrap()]).to_string()
        };
        let (least, most, make): (_, _, &dyn Fn(i64) -> String) = match bound("maximum") {
            Some(most) => (bound("minimum"), most, &number),
            None => (bound("minLength"), bound("maxLength").unwrap(), &text),
        };
        let outside = [least.map(|least| least - 1), Some(most + 1)];
        let inside = [least, Some(most)];
        for (value, is_inside) in outside.iter().map(|n| (n, false)).chain(inside.iter().map(|n| (n, true))) {
            let Some(value) = value else { continue };
            let body = body.to_string().replace("\"BOUND\"", &make(*value));
            let answer = ask(address, "POST", path, &token, &body);
            if (answer.status != 400) != is_inside {
                wrong.push(format!("{path} with {value} in {schema}: {answer:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_path_has_the_methods_that_its_document_says() {
    let agent = Agent::start();
    let fleet = Fleet::start();
    let token = fleet.token();
    let mut wrong = Vec::new();
    for (document, sockets) in [
        (AGENT, vec![("status", agent.status()), ("control", agent.control())]),
        (FLEET, vec![("", fleet.address())]),
    ] {
        let document: Value = serde_json::from_str(document).unwrap();
        for (path, operations) in document["paths"].as_object().unwrap() {
            let tag = operations.as_object().unwrap().values().next().unwrap()["tags"][0].as_str().unwrap();
            let (_, address) = sockets.iter().find(|(socket, _)| [tag, ""].contains(socket)).unwrap();
            let mut documented: BTreeSet<_> =
                operations.as_object().unwrap().keys().map(|method| method.to_uppercase()).collect();
            if documented.contains("GET") {
                documented.insert("HEAD".to_owned());
            }
            let answer = ask(address, "BREW", &path.replace(['{', '}'], ""), &token, "");
            let allowed = answer.header("allow").unwrap_or_default();
            let allowed: BTreeSet<_> = allowed.split(',').map(|method| method.trim().to_owned()).collect();
            if answer.status != 405 || allowed != documented {
                wrong.push(format!("{path}: {documented:?} are documented: {answer:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// An answer, its headers as they came.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("no JSON ({e}): {self:?}"))
    }

    fn header(&self, name: &str) -> Option<String> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.filter(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned()).next()
    }
}

/// Asks with a bearer token and a body of JSON, if there are any.
#[track_caller]
fn ask(address: &str, method: &str, path: &str, token: &str, body: &str) -> Answer {
    let mut stream = TcpStream::connect(address).expect("a server");
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let kind = if body.is_empty() { "" } else { "Content-Type: application/json\r\n" };
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.0\r\nHost: a\r\nAuthorization: Bearer {token}\r\n{kind}Content-Length: {length}\r\n\r\n"
    );
    stream.write_all((head + body).as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").expect("a whole answer");
    let status = head.split_whitespace().nth(1).unwrap().parse().unwrap();
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}

/// Listens on a port of loopback and forwards to a unix socket. It ends with the process of the test.
fn forwarded(socket: PathBuf) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for near in listener.incoming().flatten() {
            let Ok(far) = UnixStream::connect(&socket) else { continue };
            let (mut near_read, mut far_write) = (near.try_clone().unwrap(), far.try_clone().unwrap());
            std::thread::spawn(move || {
                let _broken = std::io::copy(&mut near_read, &mut far_write);
                let _ended = far_write.shutdown(std::net::Shutdown::Write);
            });
            let (mut far_read, mut near_write) = (far, near);
            std::thread::spawn(move || {
                let _broken = std::io::copy(&mut far_read, &mut near_write);
                let _ended = near_write.shutdown(std::net::Shutdown::Both);
            });
        }
    });
    address
}

/// Writes a file that its owner alone may read.
fn private(path: &Path, text: &str) {
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = std::fs::OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes())).unwrap();
}

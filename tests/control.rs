//! The operator's orders on the real binary: command line, control socket, agent, store. No engine
//! answers here, and none is needed.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use support::{FakeCloud, Program, eventually, unix_get};

const UUID: &str = "0123456789abcdef0123456789abcdef";

/// An agent without an engine, and without a cloud unless it is given one.
struct Alone {
    // Dropped first: its log is shown when a test fails.
    program: Option<Program>,
    folder: tempfile::TempDir,
}

impl Alone {
    fn new() -> Self {
        Self::with("")
    }

    /// With these settings, too; `DIR` in them is its folder.
    fn with(settings: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let dir = folder.path().display();
        let settings = format!(
            "instance = \"alone\"\nstate_dir = \"{dir}/state\"\nruntime_dir = \"{dir}/run\"\n\n[engine]\nsocket = \"{dir}/none.sock\"\n{}",
            settings.replace("DIR", &dir.to_string())
        );
        let key = folder.path().join("key");
        std::fs::write(&key, "0123456789abcdef0123456789abcdef").expect("a key");
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).expect("its mode");
        std::fs::write(folder.path().join("agent.toml"), settings).expect("the settings can be written");
        let mut alone = Self { program: None, folder };
        alone.start();
        alone
    }

    fn start(&mut self) {
        let mut command = Program::cotter();
        command.arg("agent").arg("--config").arg(self.path("agent.toml"));
        self.program = Some(Program::start("agent", command, &self.path("agent.log")));
        eventually("an agent that answers", Duration::from_secs(10), || self.status());
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn status(&self) -> Option<Value> {
        Some(unix_get(&self.path("run/status.sock"), "/v1/status")?.json())
    }

    /// Exit code, and what was said on either stream.
    fn order(&self, args: &[&str]) -> (Option<i32>, String) {
        self.cli("run/control.sock", args)
    }

    /// With a cloud that wants the services db and web of the apps with these names.
    fn with_target(apps: &[&str]) -> (Self, FakeCloud) {
        let cloud = FakeCloud::start();
        let image = format!("registry.example/x@sha256:{}", "a".repeat(64));
        let service = json!({
            "id": 1, "image_id": 1, "image": image, "running": true, "environment": {}, "labels": {},
            "composition": {},
        });
        let release =
            json!({ "id": 1, "services": { "db": service, "web": service }, "networks": {}, "volumes": {} });
        let app = |(n, name): (usize, &&str)| {
            let app = json!({ "id": n, "name": name, "is_host": false, "class": "fleet", "releases": { "r1": release } });
            (n.to_string().repeat(32), app)
        };
        let apps: serde_json::Map<String, Value> = apps.iter().enumerate().map(app).collect();
        cloud.target("1", &Value::Object(apps));
        let alone = Self::with(&format!(
            "\n[cloud]\nendpoint = \"{}\"\nuuid = \"{UUID}\"\ndevice_key_file = \"DIR/key\"\n",
            cloud.url
        ));
        let has_target = || (alone.status()?["has_target"] == true).then_some(());
        eventually("a target", Duration::from_secs(10), has_target);
        (alone, cloud)
    }

    fn locks(&self) -> Value {
        self.status().expect("a status")["locks"].clone()
    }

    /// Gives a lock; its id.
    fn lock(&self, args: &[&str]) -> String {
        let mut command = Program::cotter();
        command.args(["lock", "acquire"]).args(args).arg("--socket").arg(self.path("run/control.sock"));
        let output = command.output().expect("the binary runs");
        assert!(output.status.success(), "{output:?}");
        let id = String::from_utf8(output.stdout).expect("text").trim_end().to_owned();
        let printed = String::from_utf8(output.stderr).expect("text");
        assert_eq!(printed, format!("updates are locked; `cotter lock release {id}` unlocks them\n"));
        id
    }

    /// `cotter lock run ARGS -- sh -c SCRIPT`, where `$COTTER` is the binary and `$RUN` the folder of the sockets.
    fn locked(&self, args: &[&str], script: &str) -> Command {
        let mut command = Program::cotter();
        let binary = command.get_program().to_owned();
        command.args(["lock", "run", "--socket"]).arg(self.path("run/control.sock")).args(args);
        command.args(["--", "sh", "-c", script]).env("COTTER", binary).env("RUN", self.path("run"));
        command
    }

    /// Sends a body to the control socket: the status and the answer.
    fn post(&self, path: &str, body: &str) -> (u16, Value) {
        self.ask("POST", path, "", body)
    }

    /// As [`post`](Self::post) with any method, and with `more` headers.
    fn ask(&self, method: &str, path: &str, more: &str, body: &str) -> (u16, Value) {
        let mut stream = UnixStream::connect(self.path("run/control.sock")).expect("a socket");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
        let length = body.len();
        // One that is refused for its length is not read to its end.
        let _cut = write!(
            stream,
            "{method} {path} HTTP/1.0\r\nHost: agent\r\n{more}Content-Length: {length}\r\n\r\n{body}"
        );
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a whole answer");
        let status = head.split_whitespace().nth(1).expect("a status").parse().expect("a number");
        (status, serde_json::from_str(body).unwrap_or_else(|e| panic!("no JSON ({e}): {body}")))
    }

    fn cli(&self, socket: &str, args: &[&str]) -> (Option<i32>, String) {
        let output = Program::cotter().args(args).arg("--socket").arg(self.path(socket)).output();
        let output = output.expect("the binary runs");
        let printed = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(printed).expect("text").trim_end().to_owned())
    }
}

fn done(printed: &str) -> (Option<i32>, String) {
    (Some(0), printed.to_owned())
}

#[test]
fn a_hold_is_shown_and_outlives_the_agent() {
    let mut alone = Alone::new();
    let held = done("the device is held: nothing is swapped until `cotter unhold`");
    assert_eq!(alone.order(&["hold", "--reason", "audit\nof today"]), held);
    let hold = alone.status().expect("a status")["hold"].clone();
    assert_eq!(hold["reason"], "audit of today");
    let since = hold["since"].as_str().expect("a time").to_owned();
    assert!(since.ends_with('Z') && since.len() == 20, "{since}");

    // A power cut, then an orderly end.
    alone.program.take().expect("it runs").cut();
    alone.start();
    assert!(alone.program.take().expect("it runs").stop().success());
    alone.start();
    assert_eq!(alone.status().expect("a status")["hold"], hold);
    let (code, shown) = alone.cli("run/status.sock", &["status"]);
    assert_eq!(code, Some(0));
    assert!(shown.contains(&format!("since {since}, ")) && shown.contains(" ago: audit of today"), "{shown}");

    let (code, printed) = alone.order(&["rollback"]);
    assert_eq!(code, Some(11), "{printed}");
    assert!(printed.contains("audit of today"), "{printed}");
    assert_eq!(
        alone.order(&["unhold"]),
        done(&format!("the device is no longer held (it was held since {since})"))
    );
    assert_eq!(alone.order(&["unhold"]), done("the device was not held"));
    assert_eq!(alone.status().expect("a status")["hold"], Value::Null);
}

/// The engine accepts a connection and never answers, so the first observation does not end.
#[test]
fn a_hold_is_shown_before_the_engine_has_answered() {
    let mut alone = Alone::new();
    assert_eq!(alone.order(&["hold", "--reason", "audit"]).0, Some(0));
    assert!(alone.program.take().expect("it runs").stop().success());
    let silent = UnixListener::bind(alone.path("none.sock")).expect("a socket in its folder");
    alone.start();
    let status = alone.status().expect("a status");
    assert_eq!(status["hold"]["reason"], "audit", "{status:#}");
    drop(silent);
}

#[test]
fn orders_that_change_nothing_say_so() {
    let mut alone = Alone::new();
    let mode = std::fs::metadata(alone.path("run/control.sock")).expect("a socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(alone.order(&["retry"]), done("nothing to retry"));
    let (code, printed) = alone.order(&["retry", "--app", "web"]);
    assert_eq!(
        (code, printed.ends_with("this device has no app web; `cotter status` names its apps")),
        (Some(5), true),
        "{printed}"
    );
    let (code, printed) = alone.order(&["rollback"]);
    assert_eq!(
        (code, printed.contains("the release to roll back to is not known")),
        (Some(21), true),
        "{printed}"
    );
    let (code, printed) = alone.order(&["update"]);
    assert_eq!((code, printed.ends_with("no cloud is configured")), (Some(21), true), "{printed}");
    let (code, printed) = alone.order(&["hold", "--reason", &"x".repeat(201)]);
    assert_eq!((code, printed.lines().count()), (Some(2), 1), "{printed}");
    assert_eq!(alone.status().expect("a status")["hold"], Value::Null);
    alone.program.take().expect("it runs").cut();
    let (code, printed) = alone.order(&["unhold"]);
    assert_eq!((code, printed.lines().count()), (Some(3), 1), "{printed}");
}

/// A cloud that has no news, and how often it was polled.
fn cloud_without_news() -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let polls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&polls);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut head = [0; 4096];
            let read = stream.read(&mut head).unwrap_or(0);
            if head[..read].starts_with(b"GET /device/v3/") {
                counted.fetch_add(1, Ordering::SeqCst);
            }
            // Who hangs up early gets no answer.
            let _ = stream.write_all(b"HTTP/1.1 304 Not Modified\r\nconnection: close\r\n\r\n");
        }
    });
    (format!("http://{address}"), polls)
}

#[test]
fn an_update_asks_the_cloud_at_once() {
    let (endpoint, polls) = cloud_without_news();
    let alone = Alone::with(&format!(
        "\n[cloud]\nendpoint = \"{endpoint}\"\nuuid = \"{UUID}\"\ndevice_key_file = \"DIR/key\"\npoll_interval = \"1h\"\n"
    ));
    let until = |count| {
        let look = || (polls.load(Ordering::SeqCst) >= count).then_some(());
        eventually(&format!("poll {count}"), Duration::from_secs(10), look);
    };
    until(1);
    for count in 2..=3 {
        // The answer to the last poll may be on its way; an order in that time is not lost.
        assert_eq!(alone.order(&["update"]), done("asking the cloud for the target now"));
        until(count);
    }
    support::stays("polls", Duration::from_secs(1), || polls.load(Ordering::SeqCst));
    assert_eq!(polls.load(Ordering::SeqCst), 3);
}

#[test]
fn a_lock_is_given_shown_renewed_and_released() {
    let mut alone = Alone::new();
    assert_eq!(alone.cli("run/status.sock", &["lock", "list"]), done("updates are not locked"));
    let id = alone.lock(&["--reason", "print\njob", "--ttl", "1h", "--owner", "kiosk"]);
    assert!(id.len() == 16 && id.chars().all(|c| c.is_ascii_hexdigit()), "{id}");
    let leases = alone.locks()["leases"].clone();
    assert_eq!((&leases[0]["id"], &leases[0]["owner"]), (&json!(id), &json!("kiosk")));
    assert_eq!(leases[0]["reason"], "print job");
    let rest = leases[0]["expires_in_s"].as_u64().expect("seconds");
    assert!((3500..=3600).contains(&rest), "{rest}");

    // The end of the agent is not the end of a lock.
    alone.program.take().expect("it runs").cut();
    alone.start();
    let (code, shown) = alone.cli("run/status.sock", &["status"]);
    assert_eq!(code, Some(0));
    let line = format!("by kiosk: print job ({id}, ends in ");
    assert!(shown.lines().any(|l| l.starts_with("locked ") && l.contains(&line)), "{shown}");
    let (code, shown) = alone.cli("run/status.sock", &["lock", "list"]);
    assert_eq!(code, Some(0));
    let lines: Vec<_> = shown.lines().collect();
    assert_eq!(lines.len(), 2, "{shown}");
    assert!(lines[0].starts_with("LOCK ") && lines[1].starts_with(&format!("{id}  kiosk  print job  in ")));
    let (_, shown) = alone.cli("run/status.sock", &["lock", "list", "--json"]);
    let shown: Value = serde_json::from_str(&shown).expect("JSON");
    assert_eq!((&shown["schema_version"], &shown["locks"]["leases"][0]["id"]), (&json!(1), &json!(id)));

    let renewed = done(&format!("lock {id} of kiosk is renewed"));
    assert_eq!(alone.order(&["lock", "renew", &id, "--ttl", "2min"]), renewed);
    let rest = alone.locks()["leases"][0]["expires_in_s"].as_u64().expect("seconds");
    assert!((60..=120).contains(&rest), "{rest}");
    let released = done(&format!("lock {id} of kiosk is released"));
    assert_eq!(alone.order(&["lock", "release", &id]), released);
    for verb in ["release", "renew"] {
        let (code, printed) = alone.order(&["lock", verb, &id]);
        assert_eq!((code, printed), (Some(5), format!("error: there is no lock {id}; it may have ended")));
    }
    assert_eq!(alone.locks(), json!({ "leases": [], "files": [] }));
}

#[test]
fn a_lock_ends_by_itself() {
    let alone = Alone::new();
    alone.lock(&["--reason", "short", "--ttl", "1s"]);
    let is_over = || (alone.locks()["leases"] == json!([])).then_some(());
    eventually("the end of the lock", Duration::from_secs(10), is_over);
}

#[test]
fn a_command_runs_under_a_lock() {
    let alone = Alone::new();
    let list = "\"$COTTER\" lock list --json --socket \"$RUN/status.sock\"";
    let output =
        alone.locked(&["--reason", "backup", "--owner", "cron"], &format!("{list}; exit 7")).output();
    let output = output.expect("it runs");
    assert_eq!(output.status.code(), Some(7), "{output:?}");
    let shown: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let lease = &shown["locks"]["leases"][0];
    assert_eq!((&lease["owner"], &lease["reason"]), (&json!("cron"), &json!("backup")));
    let rest = lease["expires_in_s"].as_u64().expect("seconds");
    assert!((1..=60).contains(&rest), "the lock ends within a minute: {rest}");
    assert_eq!(alone.locks()["leases"], json!([]), "it is released");

    // Longer than the lock lasts, so it is renewed. It is taken again after an operator released it.
    let script =
        format!("sleep 2; {list} | grep '\"id\"'; touch \"$RUN/go\"; sleep 5; {list} | grep '\"id\"'");
    let running = alone.locked(&["--reason", "long", "--ttl", "2s"], &script).stdout(Stdio::piped()).spawn();
    let running = running.expect("it runs");
    eventually("the middle of the command", Duration::from_secs(10), || {
        alone.path("run/go").exists().then_some(())
    });
    let id = eventually("a lock", Duration::from_secs(5), || {
        alone.locks()["leases"][0]["id"].as_str().map(str::to_owned)
    });
    assert_eq!(alone.order(&["lock", "release", &id]).0, Some(0));
    let output = running.wait_with_output().expect("it ends");
    let shown = String::from_utf8(output.stdout).expect("text");
    assert_eq!((output.status.code(), shown.matches("\"id\"").count()), (Some(0), 2), "{shown}");
    assert_eq!(alone.locks()["leases"], json!([]));
}

#[test]
fn a_command_under_a_lock_that_does_not_end_well() {
    let mut alone = Alone::new();
    let code = |command: &mut Command| command.stderr(Stdio::null()).status().expect("it runs").code();
    assert_eq!(code(&mut alone.locked(&["--reason", "r"], "kill -9 $$")), Some(137));
    let mut missing = Program::cotter();
    missing.args(["lock", "run", "--reason", "r", "--socket"]).arg(alone.path("run/control.sock"));
    missing.args(["--", "/no/such/command"]);
    assert_eq!(code(&mut missing), Some(127));
    assert_eq!(alone.locks()["leases"], json!([]));

    // Who asks us to end asks the command.
    let script = "trap 'exit 3' TERM; touch \"$RUN/ready\"; while :; do sleep 0.1; done";
    let mut running = alone.locked(&["--reason", "r"], script).spawn().expect("it runs");
    let ready = || alone.path("run/ready").exists().then_some(());
    eventually("a command that waits", Duration::from_secs(10), ready);
    let killed = Command::new("kill").args(["-s", "TERM", &running.id().to_string()]).status();
    assert!(killed.expect("kill runs").success());
    let ended = eventually("its end", Duration::from_secs(10), || running.try_wait().expect("a child"));
    assert_eq!(ended.code(), Some(3));
    assert_eq!(alone.locks()["leases"], json!([]));

    // Without an agent nothing is run.
    alone.program.take().expect("it runs").cut();
    assert_eq!(code(&mut alone.locked(&["--reason", "r"], "touch \"$RUN/never\"")), Some(3));
    assert!(!alone.path("run/never").exists());
}

#[test]
fn an_operator_stops_and_starts_a_service() {
    let (mut alone, _cloud) = Alone::with_target(&["demo"]);
    let stopped = done(
        "service db of demo is stopped and stays so until `cotter start db` or a release that changes it",
    );
    assert_eq!(alone.order(&["stop", "db"]), stopped);
    let halted = || alone.status().expect("a status")["apps"][0]["halted"].clone();
    let before = halted();
    assert_eq!(before[0]["service"], "db");
    let since = before[0]["since"].as_str().expect("a time").to_owned();
    assert_eq!(
        alone.order(&["stop", "db"]),
        done(&format!("service db of demo is stopped already, since {since}"))
    );
    let (_, shown) = alone.cli("run/status.sock", &["status"]);
    assert!(shown.contains(&format!("db of demo, since {since}")), "{shown}");
    alone.program.take().expect("it runs").cut();
    alone.start();
    let target = || (alone.status()?["apps"][0]["halted"] == before).then_some(());
    eventually("the stop, after a power cut", Duration::from_secs(10), target);
    let started = done(&format!("service db of demo is started again (it was stopped since {since})"));
    assert_eq!(alone.order(&["start", "db"]), started);
    let again = done("there is nothing to start: no operator stopped service db of demo");
    assert_eq!(alone.order(&["start", "db"]), again);

    let (code, printed) = alone.order(&["stop", "cache"]);
    assert_eq!(
        (code, printed.as_str()),
        (Some(5), "error: this device has no service cache: demo has db, web")
    );
    let (code, printed) = alone.order(&["restart", "web"]);
    assert_eq!(
        (code, printed.contains("the running containers are not known")),
        (Some(21), true),
        "{printed}"
    );
    let id = alone.lock(&["--reason", "show", "--owner", "kiosk"]);
    let (code, printed) = alone.order(&["stop", "web"]);
    let expected = format!("error: updates are locked by kiosk: show (lock {id}); --force passes this");
    assert_eq!((code, printed), (Some(11), expected));
    assert_eq!(alone.order(&["stop", "web", "--force"]).0, Some(0));
    let (code, printed) = alone.order(&["update", "--force"]);
    let expected = "release r1 of demo passes locks and windows once; asking the cloud for the target now";
    assert_eq!((code, printed.as_str()), (Some(0), expected));
    assert_eq!(alone.status().expect("a status")["apps"][0]["forced"], "r1");
}

#[test]
fn a_service_that_several_apps_have_is_named_with_its_app() {
    let (alone, _cloud) = Alone::with_target(&["one", "two"]);
    let (code, printed) = alone.order(&["stop", "web"]);
    let expected = "error: several apps have a service web; name one with --app: one, two";
    assert_eq!((code, printed.as_str()), (Some(21), expected));
    assert_eq!(alone.order(&["stop", "web", "--app", "two"]).0, Some(0));
    let apps = alone.status().expect("a status")["apps"].clone();
    assert_eq!(
        (apps[0]["halted"].as_array().map(Vec::len), &apps[1]["halted"][0]["service"]),
        (Some(0), &json!("web"))
    );
    let (code, printed) = alone.order(&["start", "web", "--app", "three"]);
    assert_eq!(
        (code, printed.as_str()),
        (Some(5), "error: this device has no app three; `cotter status` names its apps")
    );
}

#[test]
fn an_order_that_is_not_understood_is_refused_with_a_reason() {
    let alone = Alone::new();
    let long = "x".repeat(201);
    for (path, body, printed) in [
        (
            "hold",
            r#"{"why": "x"}"#.to_owned(),
            "the body is not understood: unknown field `why`, expected `reason`",
        ),
        ("hold", "reason".to_owned(), "the body is not understood: expected value at line 1 column 1"),
        ("hold", format!(r#"{{"reason": "{long}"}}"#), "a reason has 200 characters at most"),
        ("hold", format!("{{\"reason\": \"{}\"}}", " ".repeat(201)), "a reason has 200 characters at most"),
        ("hold", r#"["by a list"]"#.to_owned(), "the body is not understood: invalid type: sequence"),
        ("unhold", r#"{"x": 1}"#.to_owned(), "the body is not understood: unknown field `x`"),
        ("retry", r#"{"app": ""}"#.to_owned(), "an app's name has 1 to 255 characters, without line breaks"),
        ("services/stop", "{}".to_owned(), "the body is not understood: missing field `service`"),
        (
            "services/stop",
            r#"{"service": 1}"#.to_owned(),
            "the body is not understood: invalid type: integer",
        ),
        (
            "services/start",
            r#"{"service": "a\nb"}"#.to_owned(),
            "a service's name has 1 to 255 characters, without line breaks",
        ),
        (
            "services/restart",
            format!("{{\"service\": \"{}\"}}", "s".repeat(256)),
            "a service's name has 1 to 255",
        ),
        ("locks", r#"{"reason": "r"}"#.to_owned(), "the body is not understood: missing field `ttl_s`"),
        (
            "locks",
            r#"{"ttl_s": 60}"#.to_owned(),
            "a lock needs a reason, so that others know why updates wait",
        ),
        ("locks", r#"{"reason": " \n ", "ttl_s": 60}"#.to_owned(), "a lock needs a reason"),
        ("locks", r#"{"reason": "r", "ttl_s": 0}"#.to_owned(), "ttl_s must be from 1 to 86400"),
        ("locks", r#"{"reason": "r", "ttl_s": 86401}"#.to_owned(), "ttl_s must be from 1 to 86400"),
        ("locks", r#"{"reason": "r", "ttl_s": -1}"#.to_owned(), "the body is not understood: invalid value"),
        ("locks", format!(r#"{{"reason": "{long}", "ttl_s": 1}}"#), "a reason has 200 characters at most"),
        (
            "locks",
            format!(r#"{{"reason": "r", "owner": "{long}", "ttl_s": 1}}"#),
            "an owner has 100 characters at most",
        ),
        (
            "locks",
            r#"{"id": "a", "reason": "r", "ttl_s": 1}"#.to_owned(),
            "a lock that is renewed keeps its reason and owner; leave them out",
        ),
        ("locks/release", r#"{"id": ""}"#.to_owned(), "a lock's id has 1 to 255 characters"),
        ("update", r#"{"force": "yes"}"#.to_owned(), "the body is not understood: invalid type"),
        (
            "locks",
            r#"{"reason": "r", "ttl_s": 60.5}"#.to_owned(),
            "the body is not understood: invalid type: floating point",
        ),
    ] {
        let (status, answer) = alone.post(&format!("/v1/{path}"), &body);
        let shown = format!("{path} {body:.80}: {answer}");
        assert_eq!((status, &answer["code"]), (400, &json!("bad_request")), "{shown}");
        assert!(
            answer["message"].as_str().is_some_and(|m| m.starts_with(printed) && !m.contains('\n')),
            "{shown}"
        );
    }
    assert_eq!(alone.post("/v1/retry", "").1["message"], "nothing to retry");
    assert_eq!(alone.post("/v1/unhold", "null").0, 200);
    let whole = alone.post("/v1/locks", r#"{"reason": "r", "ttl_s": 60.0}"#);
    assert_eq!(whole.0, 200, "{}", whole.1);
    let invisible = alone.post("/v1/retry", "{\"app\": \"ad\u{200b}min\"}");
    assert_eq!((invisible.0, &invisible.1["code"]), (404, &json!("not_found")));
    let large = format!(r#"{{"reason": "{}"}}"#, "x".repeat(70_000));
    for (method, path, more, body, status, code, printed) in [
        ("POST", "hold", "", large.as_str(), 413, "too_large", "the body has more than 65536 bytes"),
        (
            "POST",
            "hold",
            "Content-Type: application/x-www-form-urlencoded\r\n",
            "{}",
            415,
            "unsupported_media_type",
            "the body must be JSON, with the header `Content-Type: application/json`",
        ),
        ("POST", "hold", "Content-Type: application/json; charset=utf-8\r\n", "{}", 200, "done", ""),
        ("POST", "unhold", "Content-Type: text/plain\r\n", "", 200, "done", ""),
        (
            "GET",
            "hold",
            "",
            "",
            405,
            "no_such_method",
            "/v1/hold does not take GET; see /v1/openapi.json on the status socket",
        ),
        ("POST", "status", "", "", 404, "not_found", "there is no POST /v1/status"),
    ] {
        let (got, answer) = alone.ask(method, &format!("/v1/{path}"), more, body);
        assert_eq!((got, &answer["code"]), (status, &json!(code)), "{answer}");
        assert!(answer["message"].as_str().is_some_and(|m| m.starts_with(printed)), "{answer}");
    }
    let (status, answer) = alone.post("/v1/locks/release", r#"{"id": "a"}"#);
    assert_eq!((status, &answer["code"]), (404, &json!("not_found")));
    let (status, answer) = alone.post("/v1/update", r#"{"force": true}"#);
    assert_eq!((status, &answer["message"]), (409, &json!("no release is wanted that could pass locks")));
}

//! The commands of an operator at a prepared server: what cannot be made again is deleted after a question only, a wait
//! outlives a restart of the fleet server, and arguments are checked first.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::io::Write as _;
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tempfile::TempDir;

use stub::{Found, answer};

#[path = "support/stub.rs"]
mod stub;

const UUID: &str = "aaaa0000aaaa0000aaaa0000aaaa0000";
const TIME: &str = "2026-12-01T08:00:00Z";
const COMMIT: &str = "1111111111111111111111111111111111111111";

fn device(state: &str) -> Value {
    json!({ "uuid": UUID, "number": 1, "name": "porch", "device_type": "generic-amd64", "fleet": "lab", "target": COMMIT,
            "is_online": true, "state": state, "why": "", "tags": {}, "created": TIME, "waiting": [], "evidence": [],
            "services": [], "reported_at": null, "reported": {}, "pin": null, "running": null, "update_status": null,
            "agent": null, "last_seen": null, "provisioning_key": null, "provisioning_key_name": null })
}

fn release() -> Value {
    json!({ "number": 1, "fleet": "lab", "commit": COMMIT, "status": "success", "is_final": true, "is_invalidated": false,
            "is_passing_tests": true, "start_timestamp": TIME, "is_fleet_target": false, "pinned_devices": 0,
            "running_devices": 0, "services": {}, "composition": { "services": {} }, "build_log": null })
}

fn fleet() -> Value {
    json!({ "number": 1, "uuid": "u", "name": "lab", "is_tracking_latest": true, "target": null, "devices": 0, "states": {},
            "releases": 0, "registry": null, "created": TIME })
}

/// A new key, whose answer has its secret.
fn key() -> Value {
    let details = json!({ "id": "1234", "fleet": "lab", "name": null, "state": "active", "uses": 0, "most_uses": null,
                          "per_minute": 60, "devices": 0, "created": TIME, "expires": null, "revoked": null, "last_used": null });
    json!({ "fleet": "lab", "provisioning_key": "secret", "details": details })
}

/// A server that answers with `find`, and notes every request as `METHOD path`.
struct Stub {
    url: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Stub {
    fn start(find: impl Fn(&str, &str) -> Found + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&requests);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                answer(stream.unwrap(), |method, path| {
                    noted.lock().unwrap().push(format!("{method} {path}"));
                    find(method, path)
                });
            }
        });
        Self { url, requests }
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("COTTER_FLEET_URL", &self.url)
            .env("COTTER_TOKEN", "t");
        command.stdin(Stdio::null());
        command
    }

    /// Runs `cotter` without a terminal: its exit code and all that it printed.
    fn run(&self, words: &str) -> (i32, String) {
        let out = self.command(env!("CARGO_BIN_EXE_cotter")).args(words.split(' ')).output().unwrap();
        let text = [out.stdout, out.stderr].concat();
        (out.status.code().unwrap(), String::from_utf8(text).unwrap())
    }

    /// Runs `cotter` on a terminal on which `typed` is typed.
    fn type_into(&self, words: &str, typed: &str) -> (i32, String) {
        let command = format!("{} {words}", env!("CARGO_BIN_EXE_cotter"));
        let mut script = self.command("script");
        script.args(["--quiet", "--return", "--command", &command, "/dev/null"]);
        let mut child =
            script.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("script, of bsdutils");
        child.stdin.take().unwrap().write_all(typed.as_bytes()).unwrap();
        let out = child.wait_with_output().unwrap();
        (out.status.code().unwrap(), String::from_utf8(out.stdout).unwrap())
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().drain(..).collect()
    }
}

fn ok(body: &Value) -> Found {
    (200, body.to_string().into_bytes())
}

#[test]
fn a_device_and_a_release_are_deleted_after_a_question() {
    let stub = Stub::start(|method, path| match (method, path.contains("/devices/")) {
        (_, true) => ok(&device("on-target")),
        (_, false) => ok(&release()),
    });
    let of_device = format!("/api/v1/devices/{UUID}");
    let of_release = format!("/api/v1/releases/{COMMIT}?fleet=lab");
    for (words, asks, question, deletes) in [
        (
            "device delete porch",
            "get /api/v1/devices/porch",
            format!(
                "Device porch ({UUID}) of fleet lab will be deleted, and its key barred. Type yes to continue: "
            ),
            format!("delete {of_device}"),
        ),
        (
            "release delete 1111",
            "get /api/v1/releases/1111",
            format!("Release {COMMIT} of fleet lab will be deleted. Type yes to continue: "),
            format!("delete {of_release}"),
        ),
    ] {
        // Nothing can be asked here.
        for (more, why) in
            [("", "without a terminal this needs --yes"), (" --json", "with --json this needs --yes")]
        {
            let (code, said) = stub.run(&format!("{words}{more}"));
            assert!(
                code == 2 && said.contains(&format!("nothing was deleted; {why}")),
                "{words}{more}: {said}"
            );
            assert_eq!(stub.requests(), [asks], "{words}{more}");
        }
        let (code, said) = stub.type_into(words, "no\n");
        assert!(code == 2 && said.contains("error: nothing was deleted; answer yes, or use --yes"), "{said}");
        assert_eq!(stub.requests(), [asks]);

        let (code, said) = stub.type_into(words, "yes\n");
        assert!(code == 0 && said.contains(&question) && said.contains("deleted "), "{said}");
        // The one that was shown, whatever its name is by then.
        assert_eq!(stub.requests(), [asks.to_owned(), deletes]);

        assert_eq!(stub.run(&format!("{words} --yes --json")).0, 0);
        assert_eq!(stub.requests(), [asks.replacen("get", "delete", 1)]);
    }
}

/// A server that answers the list of devices with each of these in turn, and with the last one from then on.
fn in_turn(answers: Vec<Found>) -> Stub {
    let turn = Mutex::new(0);
    Stub::start(move |_, _| {
        let mut turn = turn.lock().unwrap();
        let found = answers[(*turn).min(answers.len() - 1)].clone();
        *turn += 1;
        found
    })
}

#[test]
fn a_wait_goes_on_when_the_server_is_away_for_a_moment() {
    let list = |state: &str| ok(&json!([device(state)]));
    let busy = json!({ "error": { "code": "busy", "message": "the server is busy" } });
    let away = [(502, b"<html>".to_vec()), (503, busy.to_string().into_bytes())];
    let answers = [&[list("updating")][..], &away, &[list("updating"), list("on-target")]].concat();
    let stub = in_turn(answers);
    let (code, said) = stub.run("device wait");
    assert_eq!(code, 0, "{said}");
    let lines: Vec<_> = said.lines().map(|line| line.replace(&stub.url, "<url>")).collect();
    // An outage is said once, and its end.
    for line in [
        "note: the fleet server behind <url>/ does not answer (status 502 Bad Gateway); the devices continue, and this goes \
         on trying for 5 min",
        "note: the fleet server answers again",
        "porch is updating",
        "porch is on-target",
        "1 of 1 done",
    ] {
        assert_eq!(lines.iter().filter(|said| *said == line).count(), 1, "{line}: {lines:#?}");
    }
    assert_eq!((lines.len(), stub.requests().len()), (5, 5));
}

#[test]
fn a_wait_ends_with_an_error_that_does_not_pass() {
    let updating = ok(&json!([device("updating")]));
    let away = (502, Vec::new());
    let wrong = json!({ "error": { "code": "not_permitted", "message": "no" } }).to_string().into_bytes();
    for (why, answers, words, code, requests) in [
        ("a wrong address is said at once", vec![away.clone()], "device wait", 20, 1),
        ("another token", vec![updating.clone(), (401, wrong)], "device wait", 4, 2),
        ("no fleet server any more", vec![updating.clone(), (200, b"<html>".to_vec())], "device wait", 1, 2),
        ("no time is left", vec![updating, away], "device wait --timeout 1s", 20, 2),
    ] {
        let stub = in_turn(answers);
        let (found, said) = stub.run(words);
        assert_eq!((found, stub.requests().len()), (code, requests), "{why}: {said}");
    }
}

#[test]
fn arguments_are_checked_before_the_token_is_read() {
    for (words, expected) in [
        ("device pin north", "give a device and a commit, or --filter and a commit"),
        ("device pin --filter a=b north 1111", "with --filter, give the commit alone"),
        ("device tag north", "give tags to set, KEY=VALUE, or to remove, --remove KEY"),
        ("device tag north ring", "\"ring\" is not a tag"),
        ("device track-fleet", "arguments were not provided: <DEVICE>"),
        ("fleet provisioning-key", "use `create FLEET`"),
        ("fleet join-file lab --endpoint lab", "\"lab\" is not the address of a fleet server"),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cotter"));
        command.env_clear().args(words.split(' ')).args(["--token-file", "/nowhere/operator.token"]);
        let out = command.output().unwrap();
        let said = String::from_utf8(out.stderr).unwrap();
        assert!(out.status.code() == Some(2) && said.contains(expected), "{words}: {said}");
    }
}

#[test]
fn a_push_checks_its_arguments_before_the_token_is_read() {
    let folder = TempDir::new().unwrap();
    let image = format!("services: {{ web: {{ image: \"r.example/a@sha256:{}\" }} }}", "c".repeat(64));
    std::fs::write(folder.path().join("compose.yaml"), image).unwrap();
    for (more, expected) in [
        (["--registry", "lab"], "--registry: \"lab\" cannot be a registry"),
        (["--commit", "a/b"], "--commit: "),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cotter"));
        command.env_clear().args(["push", "lab"]).arg(folder.path()).args(more);
        let out = command.args(["--token-file", "/nowhere/operator.token"]).output().unwrap();
        let said = String::from_utf8(out.stderr).unwrap();
        assert!(out.status.code() == Some(2) && said.contains(expected), "{more:?}: {said}");
    }
}

#[test]
fn the_end_of_a_key_has_one_name_and_its_old_one() {
    for (words, is_json) in
        [("fleet provisioning-key create lab", false), ("fleet join-file lab --json", true)]
    {
        for option in ["--expires-in", "--expires"] {
            let stub = Stub::start(|method, _| if method == "get" { ok(&fleet()) } else { ok(&key()) });
            let (code, said) = stub.run(&format!("{words} {option} 1h"));
            assert_eq!((code, said.contains('{')), (0, is_json), "{words} {option}: {said}");
        }
        let mut help = Command::new(env!("CARGO_BIN_EXE_cotter"));
        let help = help.args(words.split(' ').take(3)).arg("--help").output().unwrap();
        let help = String::from_utf8(help.stdout).unwrap();
        assert!(!help.contains("--expires "), "{help}");
    }
}

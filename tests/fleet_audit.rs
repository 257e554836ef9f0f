//! The audit trail of a real fleet server that is killed, and the commands for users, tokens and the trail.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Output};
use std::sync::Mutex;
use std::time::Duration;

use serde_json::{Value, json};
use support::{Chance, FleetServer, Program};

/// How often the server is killed.
const ROUNDS: u64 = 8;

/// Sends a request with a reason. `None` without a complete answer.
fn send(address: &str, token: &str, path: &str, body: &Value, reason: &str) -> Option<u16> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(20))).ok()?;
    let body = body.to_string();
    let head = format!(
        "POST /api/v1{path} HTTP/1.0\r\nHost: a\r\nAuthorization: Bearer {token}\r\nCotter-Reason: {reason}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all((head + &body).as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, _) = answer.split_once("\r\n\r\n")?;
    head.split_whitespace().nth(1)?.parse().ok()
}

/// Acts until the server is gone. Each act has its own name, and gives it as its reason. Returns those that were answered:
/// what was done, and what was refused.
fn act_until_gone(address: &str, token: &str, who: &str) -> (Vec<String>, Vec<String>) {
    let (mut done, mut refused) = (Vec::new(), Vec::new());
    for n in 0..100_000 {
        let name = format!("{who}-{n}");
        let body = json!({ "name": name });
        match send(address, token, "/fleets/lab/provisioning-keys", &body, &name) {
            Some(status) => {
                assert_eq!(status, 201, "{name}");
                done.push(name.clone());
            }
            None => return (done, refused),
        }
        let again = format!("again-{name}");
        match send(address, token, "/fleets/lab/provisioning-keys", &body, &again) {
            Some(status) => {
                assert_eq!(status, 409, "{again}");
                refused.push(again);
            }
            None => return (done, refused),
        }
    }
    (done, refused)
}

/// Whenever the server is killed: what was done and answered is in the trail, and so is what was refused; and what is not in
/// the trail was not done.
#[test]
fn a_killed_server_has_a_record_of_every_act_and_an_act_for_every_record() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = FleetServer::start_in(folder.path(), Vec::new());
    server.cli(&["fleet", "create", "lab"]);
    let token = std::fs::read_to_string(server.token_file()).unwrap().trim().to_owned();
    let (mut chance, seed) = Chance::seeded("COTTER_AUDIT_SEED");
    println!("COTTER_AUDIT_SEED={seed} kills at the same moments");
    let (mut done, mut refused) = (BTreeSet::new(), BTreeSet::new());
    for round in 0..ROUNDS {
        let address = server.url.trim_start_matches("http://").to_owned();
        let answered = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for client in 0..3 {
                let (address, token, answered) = (&address, &token, &answered);
                scope.spawn(move || {
                    let found = act_until_gone(address, token, &format!("r{round}c{client}"));
                    answered.lock().unwrap().push(found);
                });
            }
            std::thread::sleep(Duration::from_millis(200 + chance.below(400)));
            server.cut();
        });
        for (did, did_not) in answered.into_inner().unwrap() {
            done.extend(did);
            refused.extend(did_not);
        }
        server.start_again();
    }
    assert!(done.len() > 20 && refused.len() > 20, "{} {}", done.len(), refused.len());
    let keys = server.cli_json(&["fleet", "provisioning-key", "list", "lab"]);
    let names = keys["keys"].as_array().unwrap().iter().filter_map(|key| key["name"].as_str());
    let kept: BTreeSet<_> = names.map(str::to_owned).collect();
    let trail = server.cli(&["audit", "--json"]);
    let entries: Vec<Value> = trail.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let whys = |result: &str, what: &str| -> BTreeSet<String> {
        let such = entries.iter().filter(|entry| entry["result"] == result && entry["what"] == what);
        such.filter_map(|entry| Some(entry["why"].as_str()?.to_owned())).collect()
    };
    let recorded = whys("done", "create a provisioning key");
    assert_eq!(recorded, kept, "a record for each change, and a change for each record");
    assert!(done.is_subset(&recorded), "{:?}", done.difference(&recorded).collect::<Vec<_>>());
    let denied = whys("refused", "create a provisioning key");
    // Of the refused requests of one token only the first ones of a day are recorded, so that they displace no act.
    assert!(denied.len() >= 20 && denied.len() < refused.len(), "{} of {}", denied.len(), refused.len());
    let numbers: Vec<_> = entries.iter().map(|entry| entry["number"].as_u64().unwrap()).collect();
    let expected: Vec<_> = (1..=numbers.len() as u64).rev().collect();
    assert_eq!(numbers, expected, "no number is missing, and none is there twice");
}

/// Runs a command with a token.
fn run_as(server: &FleetServer, token: &str, args: &[&str]) -> Output {
    let mut command = Program::cotter();
    command.args(args).env("COTTER_FLEET_URL", &server.url).env("COTTER_TOKEN", token);
    command.output().unwrap()
}

#[test]
fn users_tokens_and_the_trail_have_their_commands() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = FleetServer::start_in(folder.path(), Vec::new());
    let said = server.cli(&["user", "list"]);
    assert!(said.starts_with("there is no user; the file operator.token"), "{said}");
    server.cli(&["fleet", "create", "lab"]);
    server.cli(&["fleet", "create", "vault"]);
    assert_eq!(
        server.cli(&["user", "add", "anna"]),
        "added anna; `cotter token create` makes a token of this user\n"
    );
    let token = server.cli(&[
        "token",
        "create",
        "anna",
        "--role",
        "release-engineer",
        "--fleet",
        "lab",
        "--expires-in",
        "90d",
    ]);
    let token = token.trim();
    let create = ["fleet", "create", "third"];
    for (args, code, expected) in [
        (&["fleet", "list"][..], 0, ""),
        (&["fleet", "track-latest", "lab", "--reason", "back to normal"], 0, ""),
        (
            &create,
            4,
            "error: this needs the role operator, or a higher one, and token release-engineer of anna has the role release-engineer; ask an admin",
        ),
        (
            &["fleet", "show", "vault"],
            4,
            "error: this token reaches fleet lab only, and not fleet \"vault\"; use a token of that fleet\n",
        ),
        (&["token", "list"], 4, "error: this needs the role admin, and token"),
        (
            &["fleet", "track-latest", "lab", "--reason", " "],
            2,
            "error: invalid value ' ' for '--reason <TEXT>': it must be 1 to 500",
        ),
    ] {
        let out = run_as(&server, token, args);
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(
            out.status.code() == Some(code) && said.starts_with(expected),
            "{args:?}: {} {said}",
            out.status
        );
    }
    let listed = String::from_utf8(run_as(&server, token, &["fleet", "list"]).stdout).unwrap();
    assert!(listed.contains("lab") && !listed.contains("vault"), "{listed}");

    let trail = server.cli(&["audit", "--by", "anna", "--since", "1h"]);
    let line = trail.lines().find(|line| line.contains("create a fleet")).unwrap();
    assert!(line.contains("anna/release-engineer") && line.contains("127.0.0.1"), "{line}");
    assert!(line.contains("refused (403): this needs the role operator"), "{line}");
    assert_eq!(server.cli(&["audit", "--until", "1h"]), "there is no such record\n");
    assert_eq!(server.cli(&["audit", "--limit", "2"]).lines().count(), 3, "with the headers");
    assert_eq!(server.cli(&["audit", "--limit", "2", "--json"]).lines().count(), 2);
    let bad = server.try_cli(&["audit", "--since", "soon"]);
    assert_eq!(bad.status.code(), Some(2), "{bad:?}");

    // A copy of the server has the same users, tokens and records.
    let file = folder.path().join("copy.jsonl");
    let before = (server.cli_json(&["token", "list"]), server.cli(&["audit", "--json"]));
    let mut backup = Command::new(Program::fleet_binary());
    backup
        .arg("backup")
        .arg(&file)
        .env("COTTER_FLEET_URL", &server.url)
        .env("COTTER_TOKEN_FILE", server.token_file());
    assert!(backup.output().unwrap().status.success());
    server.stop();
    let mut restore = Command::new(Program::fleet_binary());
    restore.arg("restore").arg(&file).arg("--replace").arg("--data-dir").arg(server.data_dir());
    let out = restore.output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    server.start_again();
    let trail = server.cli(&["audit", "--json"]);
    let (restored, trail) = trail.split_once('\n').unwrap();
    assert!(restored.contains("restore a backup"), "{restored}");
    assert_eq!((server.cli_json(&["token", "list"]), trail.to_owned()), before);
    assert_eq!(run_as(&server, token, &["fleet", "list"]).status.code(), Some(0));

    assert_eq!(server.cli(&["user", "disable", "anna"]), "disabled anna; all its tokens have ended\n");
    let out = run_as(&server, token, &["fleet", "list"]);
    let said = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(4));
    assert!(
        said.starts_with(
            "error: token release-engineer of anna has ended, because its user was disabled at "
        ),
        "{said}"
    );
    let out = run_as(&server, "no-token-of-this-server", &["fleet", "list"]);
    assert_eq!(out.status.code(), Some(4));
}

/// What a record says about a change beside the names of the things, and how records are chosen.
#[test]
fn the_trail_says_to_what_things_were_changed_and_never_a_value() {
    let folder = tempfile::tempdir().unwrap();
    let server = FleetServer::start_in(folder.path(), Vec::new());
    let created = server.cli_json(&["fleet", "create", "lab"]);
    let key = created["created"]["provisioning_key"].as_str().unwrap().to_owned();
    let address = server.url.trim_start_matches("http://").to_owned();
    let token = std::fs::read_to_string(server.token_file()).unwrap().trim().to_owned();
    let image = format!("r.example/x@sha256:{}", "a".repeat(64));
    for commit in ["one", "two"] {
        let release = json!({ "commit": commit, "composition": { "services": { "web": {} } }, "images": { "web": image } });
        assert_eq!(send(&address, &token, "/fleets/lab/releases", &release, "new"), Some(201));
    }
    register(&server, &key, "a");
    register(&server, &key, "b");
    server.cli(&["device", "pin", "a", "one"]);
    server.cli(&["device", "tag", "a", "ring=canary"]);
    server.cli(&["fleet", "pin", "lab", "one"]);
    server.cli(&["device", "track-fleet", "a"]);
    server.cli(&["env", "set", "--device", "a", "--service", "web", "RATE=hunter2"]);
    server.cli(&["env", "rm", "--device", "a", "--service", "web", "RATE"]);
    server.cli(&["device", "rename", "b", "south"]);
    server.cli(&["user", "add", "anna"]);
    server.cli(&["token", "create", "anna", "--role", "operator", "--fleet", "lab"]);
    let trail = server.cli(&["audit", "--json"]);
    assert!(!trail.contains("hunter2"), "{trail}");
    let entries: Vec<Value> = trail.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let details = |what: &str| -> Vec<&str> {
        let such = entries.iter().filter(|entry| entry["what"] == what);
        such.filter_map(|entry| entry["details"].as_str()).collect()
    };
    for (what, expected) in [
        ("pin a device", &["to one"][..]),
        ("tag a device", &["set tag ring=canary"]),
        ("pin a fleet", &["to one"]),
        ("unpin a device", &["was pinned to one"]),
        ("let a device follow its fleet", &[]),
        ("change variables of a device", &["removed RATE of web", "set RATE of web"]),
        ("rename a device", &["from b to south"]),
        ("create a token", &["of anna, operator, fleets lab"]),
    ] {
        assert_eq!(details(what), expected.to_vec(), "{what}");
    }
    let lines = |args: &[&str]| server.cli(&[&["audit"], args].concat()).lines().count() - 1;
    assert_eq!(
        (lines(&["--device", "south"]), lines(&["--device", "a"]), lines(&["--what", "PIN"])),
        (1, 5, 3)
    );
    let nobody = run_as(&server, &token, &["audit", "--by", "nobody"]);
    let words = String::from_utf8_lossy(&nobody.stderr).into_owned();
    assert!(
        nobody.status.code() == Some(5) && words.contains("no user and no token is called \"nobody\""),
        "{words}"
    );
    let cut = |args: &[&str]| {
        let shown = run_as(&server, &token, args);
        String::from_utf8_lossy(&shown.stderr).contains("there may be older ones")
    };
    assert!(!cut(&["audit"]));
    for n in 0..50 {
        server.cli(&["user", "add", &format!("user{n}")]);
    }
    assert!(cut(&["audit"]) && !cut(&["audit", "--limit", "5"]) && !cut(&["audit", "--json"]));
}

fn register(server: &FleetServer, key: &str, name: &str) {
    let body = json!({ "application": 1, "device_type": "board", "uuid": name.repeat(32), "device_name": name,
        "api_key": "0123456789abcdef0123" .to_owned() + name });
    let request = Command::new("curl")
        .args(["-s", "-f", "-X", "POST", "-H", "Content-Type: application/json", "-H"])
        .arg(format!("Authorization: Bearer {key}"))
        .args(["-d", &body.to_string(), &format!("{}/device/register", server.url)])
        .output();
    assert!(request.unwrap().status.success());
}

//! Text from outside does not reach a terminal unchanged: here an attacker's agent and fleet server answer every command
//! with texts that would move the cursor, reorder a line or begin one of their own.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use stub::{Found, answer, terminal};

#[path = "support/stub.rs"]
mod stub;

/// In every text of every answer.
const HOSTILE: &str = "x\nFORGED\r\x1b[2J\x1b]0;t\x07\u{9b}31m\u{202e}\u{2066}\u{200f}\u{61c}\u{200b}\u{200d}\u{feff}\u{2028}\u{e0041}\u{3164}\x7f";
/// As it is shown.
const SHOWN: &str = r"x\nFORGED\r\u{1b}[2J\u{1b}]0;t\u{7}\u{9b}31m\u{202e}\u{2066}\u{200f}\u{61c}\u{200b}\u{200d}\u{feff}\u{2028}\u{e0041}\u{3164}\u{7f}";

const TIME: &str = "2026-12-01T08:00:00Z";

/// The commands whose answers come from outside, with what they need to be called, and whether they know `--json`.
const OF_THE_AGENT: &[(&[&str], bool)] = &[
    (&["status"], true),
    (&["explain"], true),
    (&["events"], true),
    (&["plan"], true),
    (&["history"], true),
    (&["names", "services"], false),
    (&["lock", "list"], true),
    (&["lock", "acquire", "--reason", "r"], false),
    (&["lock", "renew", "a"], false),
    (&["lock", "release", "a"], false),
    (&["lock", "run", "--reason", "r", "--", "true"], false),
    (&["update"], false),
    (&["retry"], false),
    (&["rollback"], false),
    (&["hold"], false),
    (&["unhold"], false),
    (&["stop", "a"], false),
    (&["start", "a"], false),
    (&["restart", "a"], false),
    (&["purge", "a", "--yes"], false),
];

const OF_THE_FLEET: &[&[&str]] = &[
    &["fleet", "create", "a"],
    &["fleet", "list"],
    &["fleet", "show", "a"],
    &["fleet", "set", "a", "--registry", "r.example"],
    &["fleet", "rename", "a", "b"],
    &["fleet", "delete", "a", "--yes"],
    &["fleet", "pin", "a", "b"],
    &["fleet", "track-latest", "a"],
    &["fleet", "provisioning-key", "create", "a"],
    &["fleet", "join-file", "a", "--line"],
    &["fleet", "provisioning-key", "list", "a"],
    &["fleet", "provisioning-key", "revoke", "a", "b"],
    &["device", "list"],
    &["device", "list", "--columns", "name,type,update,agent,created,tags,why"],
    &["device", "show", "a"],
    &["device", "logs", "a"],
    &["device", "wait", "--timeout", "0s"],
    &["device", "pin", "a", "b"],
    &["device", "pin", "--filter", "a", "b"],
    &["device", "track-fleet", "a"],
    &["device", "tag", "a", "k=v"],
    &["device", "tag", "--filter", "a", "k=v"],
    &["device", "move", "a", "b"],
    &["device", "migrate", "a", "--cancel"],
    &["device", "rename", "a", "b"],
    &["device", "delete", "a", "--yes"],
    &["device", "delete", "--filter", "a", "--yes"],
    &["device", "barred"],
    &["device", "allow", "a"],
    &["release", "wait", "a", "--timeout", "0s"],
    &["release", "list"],
    &["release", "show", "a"],
    &["release", "finalize", "a"],
    &["release", "invalidate", "a"],
    &["release", "validate", "a"],
    &["release", "set-status", "a", "success"],
    &["release", "delete", "a", "--yes"],
    &["rollout", "start", "a", "b", "--waves", "100%"],
    &["rollout", "plan", "a", "b", "--waves", "100%"],
    &["rollout", "list", "a"],
    &["rollout", "list"],
    &["rollout", "show", "a"],
    &["rollout", "watch", "a", "--timeout", "0s"],
    &["rollout", "pause", "a"],
    &["rollout", "resume", "a"],
    &["rollout", "approve", "a"],
    &["rollout", "abort", "a"],
    &["rollout", "pull-back", "a"],
    &["rollout", "complete", "a"],
    &["webhook", "create", "a", "https://r.example"],
    &["webhook", "list"],
    &["webhook", "show", "a"],
    &["webhook", "test", "a"],
    &["webhook", "delete", "a"],
    &["user", "add", "a"],
    &["user", "list"],
    &["user", "disable", "a"],
    &["user", "enable", "a"],
    &["token", "create", "a", "--role", "admin"],
    &["token", "list"],
    &["token", "whoami"],
    &["token", "revoke", "a"],
    &["audit"],
    &["import", "/dev/null"],
    &["env", "list"],
    &["env", "set", "--fleet", "a", "k=v", "--dry-run"],
    &["env", "rm", "--device", "a", "k", "--dry-run"],
];

/// Commands that print nothing of others, or have a test of their own here.
const OTHERS: &[&[&str]] = &[
    // What an openBalena says: tests/to_openbalena.rs.
    &["fleet", "to-openbalena"],
    &["agent"],
    &["check"],
    &["support-bundle"],
    &["logs"],
    &["join"],
    &["leave"],
    &["config", "show"],
    &["config", "check"],
    &["completion"],
    &["version"],
    &["fleet", "serve"],
    &["release", "check"],
    &["release", "create"],
    &["push"],
    &["export"],
];

#[test]
fn every_command_is_tried_here_or_prints_nothing_of_others() {
    let root = cotter::cli::definitions();
    let (mut all, mut known) = (BTreeSet::new(), BTreeSet::new());
    let mut verbs: Vec<_> = root.get_subcommands().map(|verb| (verb.get_name().to_owned(), verb)).collect();
    while let Some((name, verb)) = verbs.pop() {
        let below = verb.get_subcommands().map(|below| (format!("{name} {}", below.get_name()), below));
        verbs.extend(below);
        if !verb.has_subcommands() {
            all.insert(name);
        }
    }
    let tried = OF_THE_AGENT.iter().map(|(words, _)| *words).chain(OF_THE_FLEET.iter().copied());
    for words in tried.chain(OTHERS.iter().copied()) {
        let begins = (1..=words.len()).map(|count| words[..count].join(" "));
        known.extend(begins.filter(|name| all.contains(name)));
    }
    assert_eq!(known, all);
}

/// The binary, deaf to the environment of whoever runs the tests.
fn cotter(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cotter"));
    let (before, after) = words.split_at(words.iter().position(|word| *word == "--").unwrap_or(words.len()));
    command.env_clear().env("PATH", "/usr/bin:/bin").args(before).stdin(Stdio::null());
    command.args(["--socket", "agent.sock"].iter().filter(|_| !is_of_fleet(words)));
    command.args(after);
    command
}

fn is_of_fleet(words: &[&str]) -> bool {
    ["fleet", "device", "release", "rollout", "webhook", "env", "user", "token", "audit", "import", "export"]
        .contains(&words[0])
}

/// Asserts that all output is printable ASCII, and that no line begins with the forged text.
#[track_caller]
fn assert_safe(out: &Output, what: &str) {
    for bytes in [&out.stdout, &out.stderr] {
        let said = std::str::from_utf8(bytes).unwrap_or_else(|_| panic!("{what} prints no UTF-8"));
        let bad = said.chars().find(|c| !matches!(c, '\n' | ' '..='~'));
        assert_eq!(bad, None, "{what}: {said}");
        assert!(!said.lines().any(|line| line.trim_start().starts_with("FORGED")), "{what}: {said}");
    }
}

/// Whether a JSON document has the hostile text whole somewhere, read as any reader of JSON does.
fn has_hostile(value: &Value) -> bool {
    match value {
        Value::String(text) => text == HOSTILE,
        Value::Array(items) => items.iter().any(has_hostile),
        Value::Object(map) => map.values().any(has_hostile),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

#[test]
fn what_an_agent_answers_is_shown_without_invisible_characters() {
    let folder = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(folder.path().join("agent.sock")).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            answer(stream, of_agent);
        }
    });
    for (words, knows_json) in OF_THE_AGENT {
        let out = cotter(words).current_dir(folder.path()).output().unwrap();
        let said = String::from_utf8_lossy(&[&out.stdout[..], &out.stderr].concat()).into_owned();
        assert_safe(&out, &format!("{words:?}"));
        let is_silent = words.starts_with(&["lock", "run"]);
        assert!(is_silent || said.contains(SHOWN), "{words:?}: {said}");
        if *knows_json {
            let out = cotter(&[*words, &["--json"]].concat()).current_dir(folder.path()).output().unwrap();
            assert_safe(&out, &format!("{words:?} as JSON"));
            let value: Value = serde_json::from_slice(&out.stdout).unwrap();
            assert!(has_hostile(&value), "{words:?}: {value}");
        }
    }
}

#[test]
fn what_a_fleet_server_answers_is_shown_without_invisible_characters() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            answer(stream, of_fleet);
        }
    });
    let run = |words: &[&str], path: &str| {
        cotter(words)
            .env("COTTER_TOKEN", "t")
            .env("COTTER_FLEET_URL", format!("{url}{path}"))
            .output()
            .unwrap()
    };
    for words in OF_THE_FLEET {
        let out = run(words, "");
        let said = String::from_utf8_lossy(&out.stdout).into_owned();
        assert_safe(&out, &format!("{words:?}"));
        assert!(out.status.success() && said.contains(SHOWN), "{words:?}: {said}{:?}", out.stderr);
        let out = run(&[*words, &["--json"]].concat(), "");
        assert_safe(&out, &format!("{words:?} as JSON"));
        assert!(has_hostile(&serde_json::from_slice(&out.stdout).unwrap()), "{words:?}");
        // Another server's refusal, and what is none.
        for path in ["/refuse", "/nonsense"] {
            let out = run(words, path);
            assert_safe(&out, &format!("{words:?} {path}"));
            assert!(!out.status.success() && out.stderr.starts_with(b"error: "), "{words:?} {path}");
            let out = run(&[*words, &["--json"]].concat(), path);
            assert_safe(&out, &format!("{words:?} {path} as JSON"));
            let error: Value = serde_json::from_slice(&out.stderr).unwrap();
            let code = out.status.code().unwrap();
            assert_eq!(error["error"]["exit"], code, "{words:?} {path}");
            assert!(error["error"]["code"].is_string() && error["error"]["message"].is_string());
            assert!(path != "/refuse" || has_hostile(&error), "{words:?}: {error}");
        }
    }
}

#[test]
fn what_a_fleet_server_answers_to_a_push_is_shown_without_invisible_characters() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            answer(stream, of_push);
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let image = format!("127.0.0.1:5000/a@sha256:{}", "a".repeat(64));
    fs::write(folder.path().join("compose.yaml"), format!("services: {{web: {{image: '{image}'}}}}\n"))
        .unwrap();
    for wanted in [0, 21] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cotter"));
        command
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("COTTER_TOKEN", "t")
            .env("COTTER_FLEET_URL", &url);
        command
            .args(["push", "a", "--commit", if wanted == 0 { "c1" } else { "taken" }, "--wait"])
            .arg(folder.path());
        let out = command.output().unwrap();
        assert_safe(&out, "push");
        let said = String::from_utf8_lossy(&[&out.stdout[..], &out.stderr].concat()).into_owned();
        assert_eq!(out.status.code(), Some(wanted), "{said}");
        assert!(said.contains(SHOWN), "{said}");
    }
}

/// A fleet with a hostile name, a release and a device of it that has accepted the new one.
fn of_push(method: &str, path: &str) -> Found {
    let (status, body) = of_fleet(method, "/api/v1/releases");
    let mut releases: Value = serde_json::from_slice(&body).unwrap();
    releases[0]["commit"] = "taken".into();
    if method == "post" {
        let mut release = releases[0].clone();
        release["commit"] = "c1".into();
        let warnings = json!([{ "path": HOSTILE, "why": HOSTILE }]);
        return (status, json!({ "release": release, "warnings": warnings }).to_string().into_bytes());
    }
    if path.contains("/devices") {
        let mut devices: Value = serde_json::from_slice(&of_fleet(method, "/api/v1/devices").1).unwrap();
        for (field, value) in
            [("target", "c1"), ("running", "c1"), ("update_status", "done"), ("state", "on-target")]
        {
            devices[0][field] = value.into();
        }
        return (200, devices.to_string().into_bytes());
    }
    if path.contains("/releases") {
        return (200, releases.to_string().into_bytes());
    }
    if path.contains("/logs?") {
        let line = json!({ "at": TIME, "service": HOSTILE, "stderr": true, "message": HOSTILE });
        return (200, format!("{line}\n").into_bytes());
    }
    let fleet = json!({ "number": 1, "uuid": HOSTILE, "name": HOSTILE, "is_tracking_latest": true, "target": HOSTILE,
                        "devices": 1, "states": { "offline": 1 }, "releases": 1, "registry": null, "created": TIME });
    (200, fleet.to_string().into_bytes())
}

fn of_agent(_: &str, path: &str) -> Found {
    let waiting = json!({ "app": HOSTILE, "service": HOSTILE, "reason": HOSTILE, "why": HOSTILE, "retry_in_s": 1, "since": HOSTILE });
    let rejected = json!({ "app": HOSTILE, "service": null, "reason": "rejected", "why": HOSTILE, "retry_in_s": null, "since": HOSTILE });
    let service = json!({ "name": HOSTILE, "release": HOSTILE, "image": HOSTILE, "status": HOSTILE, "detail": HOSTILE, "progress": 5 });
    let document = match path.split('?').next().unwrap() {
        "/v1/status" => json!({
            "schema_version": 1, "version": HOSTILE, "instance": HOSTILE, "device": { "uuid": HOSTILE, "name": HOSTILE },
            "cloud": { "endpoint": HOSTILE, "last_contact": HOSTILE, "next_poll": HOSTILE, "error": HOSTILE, "failures": 1, "polls": 2, "warning": HOSTILE, "moving": { "to": HOSTILE, "why": HOSTILE },
                       "logs": { "state": HOSTILE, "why_not": HOSTILE, "error": HOSTILE, "sent": 1, "suppressed": 2, "uncertain": 3, "repeated": 4,
                                 "gaps": 5, "waiting": 6, "failures": 7 },
                "vpn": { "state": HOSTILE, "address": null, "peer": null, "why": HOSTILE, "remedy": HOSTILE } },
            "engine_error": HOSTILE, "store_error": HOSTILE, "has_target": false, "is_busy": false,
            "hold": { "reason": HOSTILE, "since": HOSTILE },
            "evidence": [{ "app": HOSTILE, "release": HOSTILE, "service": HOSTILE, "at": HOSTILE, "restarts": 1,
                           "cause": HOSTILE, "exit_code": 1, "healthcheck": HOSTILE, "lines": [HOSTILE] }],
            "locks": {
                "leases": [{ "id": HOSTILE, "owner": HOSTILE, "reason": HOSTILE, "expires_in_s": 1 }],
                "files": [{ "app": HOSTILE, "service": HOSTILE, "path": HOSTILE }],
            },
            "apps": [{ "uuid": HOSTILE, "name": HOSTILE, "target": HOSTILE, "current": HOSTILE, "update": HOSTILE, "services": [service],
                       "halted": [{ "service": HOSTILE, "since": HOSTILE }], "forced": HOSTILE }],
            "waiting": [waiting, rejected],
        }),
        "/v1/plan" => json!({
            "schema_version": 1, "engine_error": null, "waiting": [waiting, rejected], "is_cut": false,
            "stages": [{ "after": [waiting], "steps": [{ "step": HOSTILE, "app": HOSTILE, "service": HOSTILE, "what": HOSTILE }] }],
        }),
        "/v1/history" => json!({ "schema_version": 1, "history": [
            { "at": HOSTILE, "app": HOSTILE, "name": HOSTILE, "release": HOSTILE, "what": HOSTILE, "why": HOSTILE },
        ]}),
        "/v1/events" => {
            let event = json!({ "schema_version": 1, "at": HOSTILE, "kind": HOSTILE, "word": HOSTILE, "outcome": HOSTILE,
                                "app": HOSTILE, "service": HOSTILE, "what": HOSTILE });
            return (200, format!("id: {}\ndata: {event}\n\n", "a").into_bytes());
        }
        "/v1/logs" => return (200, LOG.to_vec()),
        _ => json!({ "schema_version": 1, "code": "done", "message": HOSTILE, "id": HOSTILE }),
    };
    (200, document.to_string().into_bytes())
}

fn of_fleet(method: &str, path: &str) -> Found {
    if path.starts_with("/nonsense") {
        return (500, HOSTILE.as_bytes().to_vec());
    }
    if path.starts_with("/refuse") {
        let error = json!({ "error": { "code": HOSTILE, "message": HOSTILE, "refusals": [{ "path": HOSTILE, "why": HOSTILE }] } });
        return (400, error.to_string().into_bytes());
    }
    let fleet = json!({ "number": 1, "uuid": HOSTILE, "name": HOSTILE, "is_tracking_latest": true, "target": HOSTILE,
                        "devices": 1, "states": { "offline": 1 }, "releases": 1, "registry": HOSTILE, "created": TIME,
                        "pinned": { "at": TIME, "by": HOSTILE, "why": HOSTILE } });
    let device = json!({ "uuid": HOSTILE, "number": 1, "name": HOSTILE, "device_type": HOSTILE, "fleet": HOSTILE, "pin": HOSTILE,
                         "target": HOSTILE, "running": HOSTILE, "update_status": HOSTILE, "is_online": true, "state": "on-target", "why": HOSTILE,
                         "agent": HOSTILE, "waiting": [{ "service": HOSTILE, "reason": HOSTILE, "why": HOSTILE, "since": HOSTILE }],
                         "evidence": [{ "service": HOSTILE, "release": HOSTILE, "at": HOSTILE, "cause": HOSTILE, "lines": [HOSTILE] }], "last_seen": TIME,
                         "tags": { HOSTILE: HOSTILE }, "created": TIME, "provisioning_key": HOSTILE, "provisioning_key_name": HOSTILE,
                         "migration": { "to": HOSTILE, "fleet": HOSTILE, "ordered": TIME, "state": HOSTILE, "why": HOSTILE },
                         "pinned": { "at": TIME, "by": HOSTILE, "why": HOSTILE }, "reported_at": TIME, "reported": { HOSTILE: HOSTILE },
                         "services": [{ "service": HOSTILE, "release": HOSTILE, "status": HOSTILE, "download_progress": 1 }] });
    let release = json!({ "number": 1, "fleet": HOSTILE, "commit": HOSTILE, "status": "success", "is_final": true,
                          "is_invalidated": false, "is_passing_tests": true, "start_timestamp": TIME, "is_fleet_target": true,
                          "pinned_devices": 1, "running_devices": 1, "services": { HOSTILE: HOSTILE },
                          "composition": { "services": { HOSTILE: { HOSTILE: HOSTILE } } }, "build_log": HOSTILE });
    let key = json!({ "id": HOSTILE, "fleet": HOSTILE, "name": HOSTILE, "state": HOSTILE, "uses": 1, "most_uses": 2,
                      "per_minute": 3, "devices": 4, "created": TIME, "expires": TIME, "last_used": TIME, "revoked": TIME });
    let barred = json!({ "uuid": HOSTILE, "name": HOSTILE, "device_type": HOSTILE, "fleet": HOSTILE, "deleted": TIME,
                         "provisioning_key": HOSTILE });
    let user = json!({ "name": HOSTILE, "state": HOSTILE, "tokens": 1, "created": TIME, "disabled": TIME });
    let token = json!({ "id": HOSTILE, "user": HOSTILE, "name": HOSTILE, "role": HOSTILE, "fleets": [HOSTILE], "state": HOSTILE,
                        "created": TIME, "expires": TIME, "revoked": TIME, "last_used": TIME });
    let entry = json!({ "number": 1, "at": TIME, "user": HOSTILE, "token": HOSTILE, "token_id": HOSTILE, "from": HOSTILE,
                        "what": HOSTILE, "request": HOSTILE, "things": [{ "kind": HOSTILE, "id": HOSTILE, "name": HOSTILE }],
                        "count": 2, "fleets": [HOSTILE], "why": HOSTILE, "result": HOSTILE, "status": 403, "code": HOSTILE,
                        "message": HOSTILE });
    let variable = json!({ "name": HOSTILE, "value": HOSTILE, "secret": false, "fleet": HOSTILE, "device": HOSTILE,
                           "device_name": HOSTILE, "service": HOSTILE, "overridden": true });
    let restart = json!({ "uuid": HOSTILE, "name": HOSTILE, "services": [HOSTILE] });
    let changed = json!({ "dry_run": true, "devices": 1, "restarts": [restart] });
    let (mut created, mut bulk) = (fleet.clone(), device.clone());
    created["fleet"] = fleet.clone();
    created["provisioning_key"] = HOSTILE.into();
    bulk["dry_run"] = true.into();
    bulk["devices"] = json!([{ "uuid": HOSTILE, "name": HOSTILE, "fleet": HOSTILE, "target_before": HOSTILE, "target_after": HOSTILE, "tags": { HOSTILE: HOSTILE } }]);
    let tally = json!({ "exposed": 1, "accepted": 1, "rejected": 0, "blocked": 0, "unhealthy": 0, "silent": 0,
                        "updating": 0, "waiting": 0, "fetching": 0, "unreached": 0 });
    let wave = json!({ "wave": HOSTILE, "has_begun": true, "devices": 1, "reachable": 1, "earliest_s": 0, "tally": tally });
    let rollout = json!({ "number": 1, "fleet": HOSTILE, "release": HOSTILE, "started": TIME, "ended": TIME, "phase": "completed",
                          "why": HOSTILE, "wave": 1, "settled": TIME, "next": HOSTILE, "devices": 1, "tally": tally, "waves": [wave],
                          "halted": [{ "segment": HOSTILE, "why": HOSTILE }], "definition": {} });
    let summary = json!({ "number": 1, "fleet": HOSTILE, "release": HOSTILE, "started": TIME, "ended": TIME, "phase": HOSTILE,
                          "why": HOSTILE, "wave": 1, "waves": 1, "tally": tally });
    let webhook = json!({ "name": HOSTILE, "url": HOSTILE, "fleets": [HOSTILE], "events": [HOSTILE], "created": TIME, "waiting": 1,
                          "next": TIME, "delivered": 1, "failed": 1, "given_up": 0, "last_success": TIME,
                          "last_failure": { "at": TIME, "why": HOSTILE } });
    if path.contains("/logs") {
        let line = json!({ "at": TIME, "service": HOSTILE, "stderr": false, "message": HOSTILE });
        return (200, format!("{line}\n").into_bytes());
    }
    let words: Vec<_> = path.split('?').next().unwrap().split('/').skip(3).collect();
    let document = match words[..] {
        ["rollouts"] => json!([summary]),
        ["webhooks"] if method == "get" => json!([webhook]),
        ["webhooks"] => json!({ "secret": HOSTILE, "webhook": webhook }),
        ["webhooks", _, "test"] => {
            json!({ "webhook": HOSTILE, "delivered": true, "status": 200, "why": null, "took_ms": 1 })
        }
        ["webhooks", ..] => webhook,
        ["variables"] => json!([variable]),
        [_, _, "variables"] => changed,
        ["fleets"] if method == "get" => json!([fleet]),
        ["fleets", _, "provisioning-keys"] if method == "get" => json!([key]),
        ["fleets", _, "provisioning-keys"] => {
            json!({ "fleet": HOSTILE, "provisioning_key": HOSTILE, "details": key })
        }
        ["fleets", _, "provisioning-keys", ..] => key,
        ["fleets", _, "delete"] => {
            json!({ "dry_run": false, "fleet": fleet, "keys": 1, "devices": bulk["devices"] })
        }
        ["fleets", _, "rollouts"] if method == "get" => json!([rollout]),
        ["fleets", _, "rollouts", ..] => rollout,
        ["fleets", ..] => created,
        ["devices"] => json!([device]),
        ["devices", "pin" | "track-fleet" | "tags" | "delete" | "migrate"] => bulk,
        ["barred-devices"] => json!([barred]),
        ["barred-devices", ..] => barred,
        ["devices", ..] => device,
        ["releases"] => json!([release]),
        ["users"] if method == "get" => json!([user]),
        ["users", ..] => user,
        ["tokens"] if method == "get" => json!([token]),
        ["tokens"] => json!({ "token": HOSTILE, "details": token }),
        ["tokens", ..] => token,
        ["whoami"] => {
            json!({ "user": HOSTILE, "token": HOSTILE, "token_id": HOSTILE, "role": HOSTILE, "fleets": [HOSTILE],
                              "expires": TIME })
        }
        ["audit"] => json!([entry]),
        ["import"] => {
            let counts = json!({ "fleets": 1, "releases": 1, "devices": 1, "variables": 1 });
            json!({ "dry_run": false, "created": counts, "unchanged": counts, "without_value": [HOSTILE] })
        }
        _ => release,
    };
    (200, document.to_string().into_bytes())
}

const LOG: &[u8] = b"plain\r\n\x1b[31mred\x1b[0m \x1b[2J\xe2\x80\xaegone\xff\n";

#[test]
fn an_export_is_shown_as_a_log_is() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            answer(stream, |_, _| (200, LOG.to_vec()));
        }
    });
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("token"), "t").unwrap();
    fs::set_permissions(folder.path().join("token"), std::os::unix::fs::PermissionsExt::from_mode(0o600))
        .unwrap();
    let args = format!("export --url {url} --token-file token");
    let words: Vec<_> = args.split(' ').collect();
    let out = cotter(&words).current_dir(folder.path()).output().unwrap();
    assert_eq!(out.stdout, LOG, "{out:?}");
    let shown = terminal(folder.path(), &args, &[]);
    assert_eq!(shown, b"plain\r\nred \\u{1b}[2J\\u{202e}gone\\xff\r\n");
}

#[test]
fn a_log_is_shown_as_it_is_to_files_and_programs_alone() {
    let folder = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(folder.path().join("agent.sock")).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            answer(stream, of_agent);
        }
    });
    let out = cotter(&["logs", "web"]).current_dir(folder.path()).output().unwrap();
    assert_eq!(out.stdout, LOG, "a pipe gets the bytes");
    let on_terminal =
        |more: &str| terminal(folder.path(), &format!("logs web --socket agent.sock {more}"), &[]);
    assert_eq!(on_terminal(""), b"plain\r\nred \\u{1b}[2J\\u{202e}gone\\xff\r\n");
    // The terminal makes each line's end two characters.
    assert_eq!(on_terminal("--raw"), b"plain\r\r\n\x1b[31mred\x1b[0m \x1b[2J\xe2\x80\xaegone\xff\r\n");
}

/// An agent whose engine answers every question with a message that would forge lines of its log, words to systemd
/// and a terminal's commands.
#[test]
fn what_an_engine_says_forges_no_line_of_the_log_and_no_word_to_systemd() {
    let folder = tempfile::Builder::new().prefix("cotter-").tempdir_in("/tmp").unwrap();
    let at = |name: &str| folder.path().join(name);
    let engine = UnixListener::bind(at("engine.sock")).unwrap();
    std::thread::spawn(move || {
        for stream in engine.incoming().flatten() {
            answer(stream, |_, _| (500, json!({ "message": FORGED }).to_string().into_bytes()));
        }
    });
    let systemd = UnixDatagram::bind(at("notify.sock")).unwrap();
    systemd.set_read_timeout(Some(PATIENCE)).unwrap();
    let setting = |key: &str, name: &str| format!("{key}={}", at(name).display());
    let mut agent = Command::new(env!("CARGO_BIN_EXE_cotter"));
    agent.env_clear().env("NOTIFY_SOCKET", at("notify.sock")).arg("agent");
    for (key, name) in [("state_dir", "state"), ("runtime_dir", "run"), ("engine.socket", "engine.sock")] {
        agent.args(["--set", &setting(key, name)]);
    }
    let agent = agent.stdin(Stdio::null()).stderr(fs::File::create(at("log")).unwrap());
    let agent = Ended(agent.spawn().unwrap());

    // The words to systemd, until the engine's are among them.
    let mut word = [0; 4096];
    let status = loop {
        let length = systemd.recv(&mut word).expect("the agent tells systemd of its engine");
        let text = String::from_utf8(word[..length].to_vec()).unwrap();
        assert_eq!(text.trim_end_matches('\n').lines().count(), 1, "{text}");
        if text.contains("FORGED") {
            break text;
        }
    };
    assert!(status.starts_with("STATUS=") && status.contains(r"x\nMAINPID=1\n<3>FORGED"), "{status}");

    // The document as it is on the socket, which people read by other programs, too.
    let mut socket = UnixStream::connect(at("run/status.sock")).unwrap();
    socket.write_all(b"GET /v1/status HTTP/1.0\r\n\r\n").unwrap();
    let mut document = String::new();
    socket.read_to_string(&mut document).unwrap();
    let body = document.split_once("\r\n\r\n").unwrap().1;
    assert!(body.chars().all(|c| matches!(c, ' '..='~')), "{body}");
    let error = serde_json::from_str::<Value>(body).unwrap()["engine_error"].as_str().unwrap().to_owned();
    assert!(error.contains(FORGED), "{error:?}");

    drop(agent);
    let log = fs::read_to_string(at("log")).unwrap();
    assert!(log.contains(r"x\nMAINPID=1\n<3>FORGED\u{1b}[2J\u{202e}"), "{log}");
    for line in log.lines() {
        let is_ours =
            line.starts_with("20") && [" INFO ", " WARN ", "ERROR "].iter().any(|l| line.contains(l));
        assert!(is_ours && line.chars().all(|c| matches!(c, ' '..='~')), "{line:?}");
    }
}

/// A process that ends with this.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

const PATIENCE: Duration = Duration::from_secs(30);
const FORGED: &str = "x\nMAINPID=1\n<3>FORGED\x1b[2J\u{202e}";

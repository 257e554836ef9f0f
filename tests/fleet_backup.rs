//! Backups of a real fleet server: made while it serves and is acted on, checked, restored, and never half restored.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use support::{FleetServer, Program};

fn json_of(server: &FleetServer, args: &[&str]) -> Value {
    serde_json::from_str(&server.cli(args)).unwrap()
}

fn backup(server: &FleetServer, file: &Path) -> Output {
    let mut command = Command::new(Program::fleet_binary());
    command.arg("backup").arg(file).env("COTTER_FLEET_URL", &server.url);
    command.env("COTTER_TOKEN_FILE", server.token_file()).output().unwrap()
}

fn register(server: &FleetServer, key: &str, number: u32) {
    let answer = try_to_register(server, key, number);
    assert!(answer.contains("api_key"), "{answer}");
}

/// The answer to a registration.
fn try_to_register(server: &FleetServer, key: &str, number: u32) -> String {
    let body = json!({
        "application": 1,
        "device_type": "generic-amd64",
        "uuid": format!("{number:032x}"),
        "api_key": format!("the-key-of-device-{number}"),
        "device_name": format!("board-{number}"),
    });
    let url = format!("{}/device/register", server.url);
    let key = format!("Authorization: Bearer {key}");
    curl(&["-X", "POST", "-H", &key, "-d", &body.to_string(), &url])
}

/// The status that device `number` gets for a poll.
fn poll(server: &FleetServer, number: u32) -> String {
    let url = format!("{}/device/v3/{number:032x}/state", server.url);
    let key = format!("Authorization: Bearer the-key-of-device-{number}");
    curl(&["-o", "/dev/null", "-w", "%{http_code}", "-H", &key, &url])
}

fn curl(args: &[&str]) -> String {
    let output = Command::new("curl")
        .args(["-s", "-H", "Content-Type: application/json"])
        .args(args)
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap()
}

fn tool(args: &[&str]) -> Output {
    Command::new(Program::fleet_binary()).args(args).output().unwrap()
}

fn code_and_words(output: &Output) -> (i32, String) {
    (output.status.code().unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// A server with a fleet and devices, and the backup of it.
fn with_devices(dir: &Path, devices: u32) -> (FleetServer, PathBuf, String) {
    let server = FleetServer::start_in(dir, Vec::new());
    let created = json_of(&server, &["fleet", "create", "lab", "--json"]);
    let key = created["created"]["provisioning_key"].as_str().unwrap().to_owned();
    for number in 1..=devices {
        register(&server, &key, number);
    }
    server.cli(&["device", "tag", "board-1", "ring=canary"]);
    let file = dir.join("backup.jsonl");
    let saved = backup(&server, &file);
    assert!(saved.status.success(), "{saved:?}");
    (server, file, key)
}

#[test]
fn what_was_saved_is_served_after_it_was_restored() {
    let dir = tempfile::tempdir().unwrap();
    let (server, file, key) = with_devices(dir.path(), 5);
    for of in [["--fleet", "lab"], ["--device", "board-1"], ["--device", "board-5"]] {
        server.cli(&["env", "set", of[0], of[1], "RATE=5"]);
    }
    server.cli(&["device", "delete", "board-5", "--yes"]);
    register(&server, &key, 6);
    assert!(backup(&server, &file).status.success(), "an older backup is replaced");
    let devices = json_of(&server, &["device", "list", "--json"]);
    let variables = json_of(&server, &["env", "list", "--json"]);
    assert_eq!(variables["variables"].as_array().unwrap().len(), 2);
    drop(server);

    let good = tool(&["verify", file.to_str().unwrap()]);
    let (code, words) = code_and_words(&good);
    assert!(code == 0 && words.contains("1 fleet, 0 releases and 5 devices of"), "{words}");

    // To an empty folder, by a user who wants to look at it.
    let elsewhere = dir.path().join("elsewhere/fleet");
    let args = ["restore", file.to_str().unwrap(), "--data-dir", elsewhere.to_str().unwrap()];
    assert_eq!(code_and_words(&tool(&args)).0, 0);
    // Restored records are known to be there: a server that does not find them says so.
    let (records, away) = (elsewhere.join("records"), elsewhere.join("away"));
    fs::rename(&records, &away).unwrap();
    let lost = tool(&["serve", "--listen", "127.0.0.1:0", "--data-dir", elsewhere.to_str().unwrap()]);
    assert!(code_and_words(&lost).1.contains("they are gone, and were not empty"), "{lost:?}");
    fs::rename(&away, &records).unwrap();
    let server = FleetServer::start_in(&dir.path().join("elsewhere"), Vec::new());
    let mut restored = json_of(&server, &["device", "list", "--json"]);
    // Who polled when is not in a backup.
    let mut before = devices.clone();
    for list in [&mut restored, &mut before] {
        for device in list["devices"].as_array_mut().unwrap() {
            for field in ["last_seen", "is_online", "state", "why"] {
                device.as_object_mut().unwrap().remove(field);
            }
        }
    }
    assert_eq!(restored, before);
    assert_eq!(json_of(&server, &["env", "list", "--json"]), variables);
    assert_eq!(
        (poll(&server, 1), poll(&server, 5)),
        ("200".to_owned(), "304".to_owned()),
        "a device goes on; a deleted one is barred"
    );
    let refused = try_to_register(&server, &key, 5);
    assert!(refused.contains("was deleted"), "a deleted device is barred after it, too: {refused}");
    register(&server, &key, 7);
    drop(server);

    // To a folder that is used, and never by mistake.
    let data = dir.path().join("fleet");
    let args = ["restore", file.to_str().unwrap(), "--data-dir", data.to_str().unwrap()];
    let (code, words) = code_and_words(&tool(&args));
    assert!(
        code == 21 && words.contains("has records already") && words.contains("--replace"),
        "{code}: {words}"
    );
    let (code, words) = code_and_words(&tool(&[&args[..], &["--replace"]].concat()));
    assert!(code == 0 && words.contains("records.before-"), "{code}: {words}");
    let server = FleetServer::start_in(dir.path(), Vec::new());
    assert_eq!(poll(&server, 1), "200");
}

/// What a restoration undoes is said, tokens can be revoked with it, and devices can be left as they are.
#[test]
fn a_restoration_warns_is_in_the_trail_and_can_be_looked_at_first() {
    let dir = tempfile::tempdir().unwrap();
    let (server, file, _key) = with_devices(dir.path(), 3);
    server.cli(&["user", "add", "anna"]);
    let secret = dir.path().join("anna.token");
    let said =
        server.cli(&["token", "create", "anna", "--role", "operator", "--out", secret.to_str().unwrap()]);
    assert_eq!(said, "", "the token is in the file");
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&secret).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let mut quiet = Command::new(Program::fleet_binary());
    quiet.args(["backup", "--quiet"]).arg(&file).env("COTTER_FLEET_URL", &server.url);
    let quiet = quiet.env("COTTER_TOKEN_FILE", server.token_file()).output().unwrap();
    assert!(quiet.status.success() && quiet.stderr.is_empty() && quiet.stdout.is_empty(), "{quiet:?}");
    server.cli(&["token", "revoke", "operator"]);
    let data = server.data_dir().to_owned();
    drop(server);

    let settings = dir.path().join("fleet.toml");
    fs::write(&settings, format!("data_dir = {:?}\n", data.to_str().unwrap())).unwrap();
    let args = ["restore", file.to_str().unwrap(), "--config", settings.to_str().unwrap(), "--replace"];
    let (code, words) = code_and_words(&tool(&args));
    assert_eq!(code, 0, "{words}");
    let warned = "is as it was then: 1 token (--revoke-tokens would revoke them), 1 user, 1 provisioning key and 3 devices";
    assert!(words.contains(warned) && words.contains("serve --paused"), "{words}");
    let server = FleetServer::start_in(dir.path(), Vec::new());
    let tokens = json_of(&server, &["token", "list", "--json"]);
    assert_eq!(tokens["tokens"][0]["state"], "active", "it was revoked, and works again");
    drop(server);

    // Two restorations within a second would move the records to the same name.
    for entry in fs::read_dir(&data).unwrap().map(Result::unwrap) {
        if entry.file_name().to_string_lossy().starts_with("records.before-") {
            fs::remove_file(entry.path()).unwrap();
        }
    }
    let (code, words) = code_and_words(&tool(&[&args[..], &["--revoke-tokens"]].concat()));
    assert!(code == 0 && words.contains("1 token (revoked now)"), "{words}");
    let server = FleetServer::start_in(dir.path(), Vec::new());
    let tokens = json_of(&server, &["token", "list", "--json"]);
    assert_eq!(tokens["tokens"][0]["state"], "revoked");
    let trail = server.cli(&["audit", "--by", "cotter-fleet"]);
    assert!(trail.contains("restore a backup") && trail.contains("1 token revoked"), "{trail}");
}

#[test]
fn a_backup_that_is_cut_short_or_changed_is_never_restored() {
    let dir = tempfile::tempdir().unwrap();
    let (server, file, _key) = with_devices(dir.path(), 3);
    let text = fs::read_to_string(&file).unwrap();
    let lines: Vec<_> = text.lines().collect();
    let without_end = format!("{}\n", lines[..lines.len() - 1].join("\n"));
    let newer = text.replacen("\"format\":3", "\"format\":99", 1);
    let swapped = text.replacen("canary", "stable", 1);
    let cases = [
        ("", "first line does not say so"),
        ("{}\n", "first line does not say so"),
        ("hello", "first line does not say so"),
        (&without_end, "it is cut short after line"),
        (&text[..text.len() - 10], "it is cut short"),
        (&text[..text.len() / 2], "it is cut short"),
        (&newer, "a newer version of cotter-fleet wrote it"),
        (&swapped, "its content does not fit its checksum"),
        (&text.replacen("\"kind\":\"device\"", "\"kind\":\"devices\"", 1), "unknown kind of record"),
        (&format!("{text}{{}}\n"), "there is more text after line"),
    ];
    let bad = dir.path().join("bad.jsonl");
    let empty = dir.path().join("empty");
    for (text, why) in cases {
        let why = if text == "hello" { "cut short" } else { why };
        fs::write(&bad, text).unwrap();
        for verb in [&["verify"][..], &["restore", "--data-dir", empty.to_str().unwrap()]] {
            let (code, words) = code_and_words(&tool(&[verb, &[bad.to_str().unwrap()]].concat()));
            assert!(code == 2 && words.contains(why), "{why}: {code}: {words}");
        }
    }
    assert!(!empty.exists(), "nothing was written");
    let (code, words) = code_and_words(&tool(&["verify", "/nowhere/backup.jsonl"]));
    assert!(code != 0 && words.contains("cannot read /nowhere/backup.jsonl"), "{words}");

    // A server that runs keeps its folder.
    let args =
        ["restore", file.to_str().unwrap(), "--replace", "--data-dir", server.data_dir().to_str().unwrap()];
    let (code, words) = code_and_words(&tool(&args));
    assert!(code == 75 && words.contains("another `cotter-fleet serve` uses"), "{code}: {words}");
    assert_eq!(poll(&server, 1), "200");
}

/// Whenever a restoration is killed, the folder has the records before or the new ones, or a server says that they are gone;
/// and a second attempt succeeds.
#[test]
fn a_restoration_that_is_killed_leaves_a_folder_that_can_be_restored() {
    let dir = tempfile::tempdir().unwrap();
    let (server, file, _key) = with_devices(dir.path(), 30);
    let data = server.data_dir().to_owned();
    drop(server);
    for delay_ms in [0, 2, 5, 10, 20, 40] {
        let mut command = Command::new(Program::fleet_binary());
        command.args(["restore", "--replace", "--data-dir"]).arg(&data).arg(&file);
        let mut restoring = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(delay_ms));
        let _ended = restoring.kill();
        restoring.wait().unwrap();
        let server = FleetServer::start_in(dir.path(), Vec::new());
        assert_eq!(poll(&server, 30), "200", "killed after {delay_ms} ms");
    }
}

/// A backup is of one moment, whatever is changed meanwhile; and a server that is killed while it sends leaves no file.
#[test]
fn a_backup_of_a_busy_server_is_of_one_moment() {
    let dir = tempfile::tempdir().unwrap();
    let (server, _, key) = with_devices(dir.path(), 20);
    std::thread::scope(|scope| {
        let (server, key) = (&server, &key);
        scope.spawn(move || (100..130).for_each(|number| register(server, key, number)));
        for n in 0..10 {
            let file = dir.path().join(format!("{n}.jsonl"));
            assert!(backup(server, &file).status.success());
            let text = fs::read_to_string(&file).unwrap();
            let devices = text.lines().filter(|line| line.starts_with("{\"kind\":\"device\"")).count();
            let counters = text.lines().find(|line| line.starts_with("{\"kind\":\"counters\"")).unwrap();
            assert!(counters.contains(&format!("\"device\":{devices},")), "{devices}: {counters}");
        }
    });
    let mut server = server;
    server.cut();
    let (code, words) = code_and_words(&backup(&server, &dir.path().join("none.jsonl")));
    assert!(code == 20 && words.contains("no fleet server answers"), "{code}: {words}");
    let left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().contains("none")), "{left:?}");
}

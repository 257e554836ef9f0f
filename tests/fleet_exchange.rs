//! Exports and imports at real fleet servers: what is read into an empty server comes out the same, and what is wrong changes
//! nothing.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};
use support::FleetServer;

fn curl(args: &[&str]) -> String {
    let output =
        Command::new("curl").args(["-s", "-H", "Content-Type: application/json"]).args(args).output();
    String::from_utf8(output.unwrap().stdout).unwrap()
}

/// A registration of device `number` with this key; returns the status.
fn register(server: &FleetServer, key: &str, number: u32, device_key: &str) -> String {
    let fleet = server.cli_json(&["fleet", "show", "lab"])["fleet"]["number"].clone();
    let body = json!({
        "application": fleet, "device_type": "generic-amd64", "uuid": uuid(number), "api_key": device_key,
        "device_name": "asked-name",
    });
    let (url, key) = (format!("{}/device/register", server.url), format!("Authorization: Bearer {key}"));
    curl(&["-o", "/dev/null", "-w", "%{http_code}", "-X", "POST", "-H", &key, "-d", &body.to_string(), &url])
}

fn uuid(number: u32) -> String {
    format!("{number:032x}")
}

fn server(dir: &Path) -> FleetServer {
    fs::create_dir_all(dir).unwrap();
    FleetServer::start_in(dir, Vec::new())
}

fn write(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    fs::write(&path, text).unwrap();
    path
}

fn release(server: &FleetServer, dir: &Path, commit: &str, compose: &str, more: &[&str]) {
    let file = write(dir, "compose.yml", compose);
    let mut args = vec!["release", "create", "lab", "--file", file.to_str().unwrap(), "--commit", commit];
    args.extend(more);
    server.cli(&args);
}

fn image(name: &str, digit: char) -> String {
    format!("registry.example/{name}@sha256:{}", digit.to_string().repeat(64))
}

/// A server with two fleets, releases of every kind, devices, tags, pins and variables at all levels.
fn full(dir: &Path) -> FleetServer {
    let server = server(dir);
    let created = server.cli_json(&["fleet", "create", "lab", "--registry", "registry.example/lab"]);
    server.cli(&["fleet", "create", "empty"]);
    let key = created["created"]["provisioning_key"].as_str().unwrap();
    let web = |digit| format!("services:\n  web:\n    image: {}\n    ports: [\"80\"]\n", image("web", digit));
    let two = format!(
        "{}    volumes: [data:/data]\n  old:\n    image: {}\nvolumes:\n  data:\nnetworks:\n  back: {{internal: true}}\n",
        web('a'),
        image("old", 'b')
    );
    release(&server, dir, "1111", &two, &[]);
    release(&server, dir, "2222", &web('c'), &["--draft"]);
    release(&server, dir, "3333", &web('d'), &[]);
    release(&server, dir, "4444", &web('e'), &[]);
    server.cli(&["release", "invalidate", "4444"]);
    for number in 1..=3 {
        assert_eq!(register(&server, key, number, &format!("the-key-of-device-{number}")), "201");
    }
    server.cli(&["device", "rename", &uuid(1), "north"]);
    server.cli(&["device", "pin", &uuid(1), "1111"]);
    server.cli(&["device", "tag", &uuid(2), "ring=canary", "site=zurich"]);
    server.cli(&["env", "set", "--fleet", "lab", "RATE=5"]);
    server.cli(&["env", "set", "--fleet", "lab", "--service", "old", "MODE=slow"]);
    let secret = write(dir, "secret.env", "TOKEN=hunter2\n");
    server.cli(&["env", "set", "--device", &uuid(1), "--secret", "--file", secret.to_str().unwrap()]);
    server.cli(&["env", "set", "--device", &uuid(1), "--service", "web", "UNIT=lux"]);
    server
}

fn export(server: &FleetServer, more: &[&str]) -> String {
    server.cli(&[&["export"], more].concat())
}

fn import(server: &FleetServer, file: &Path, more: &[&str]) -> Output {
    server.try_cli(&[&["import", file.to_str().unwrap()], more].concat())
}

fn imported(server: &FleetServer, file: &Path) -> Value {
    server.cli_json(&["import", file.to_str().unwrap()])["import"].clone()
}

fn refusal(output: &Output, code: i32) -> String {
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn what_is_imported_into_an_empty_server_is_exported_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let old = full(dir.path());
    let text = export(&old, &["--secrets"]);
    let kinds = |kind: &str| text.matches(&format!("\"kind\":\"{kind}\"")).count();
    let found = (kinds("fleet"), kinds("release"), kinds("device"), kinds("variable"));
    assert_eq!(found, (2, 4, 3, 4), "{text}");
    let file = write(dir.path(), "export.jsonl", &text);

    let new = server(&dir.path().join("new"));
    let tried = new.cli(&["import", file.to_str().unwrap(), "--dry-run"]);
    assert_eq!(tried, "would create 2 fleets, 4 releases, 3 devices and 4 variables\n");
    assert_eq!(export(&new, &[]), "{\"cotter_export\":1,\"secrets\":false}\n", "a dry run changes nothing");
    let done = imported(&new, &file);
    let all = json!({ "fleets": 2, "releases": 4, "devices": 3, "variables": 4 });
    assert_eq!((&done["created"], &done["without_value"]), (&all, &json!([])));
    assert_eq!(export(&new, &["--secrets"]), text);

    let again = imported(&new, &file);
    let none = json!({ "fleets": 0, "releases": 0, "devices": 0, "variables": 0 });
    assert_eq!((&again["created"], &again["unchanged"]), (&none, &all), "a second time changes nothing");
    assert_eq!(export(&new, &["--secrets"]), text);

    // It is an act as any other.
    let records = new.cli(&["audit", "--json"]);
    assert_eq!(records.matches("\"what\":\"import\"").count(), 1, "{records}");
    assert!(!records.contains("hunter2"), "{records}");
}

#[test]
fn an_export_has_secrets_only_where_an_admin_asks_for_them() {
    let dir = tempfile::tempdir().unwrap();
    let server = full(dir.path());
    let text = export(&server, &[]);
    assert!(!text.contains("hunter2"), "{text}");
    let line =
        format!("{{\"kind\":\"variable\",\"device\":\"{}\",\"name\":\"TOKEN\",\"secret\":true}}\n", uuid(1));
    assert!(text.contains(&line), "{text}");
    server.cli(&["user", "add", "anna"]);
    let created = server.cli_json(&["token", "create", "anna", "--role", "operator"]);
    let token = created["created"]["secret"].as_str().or(created["created"]["token"].as_str());
    let token = write(dir.path(), "anna.token", token.unwrap_or_else(|| panic!("{created}")));
    drop(Command::new("chmod").arg("600").arg(&token).status());
    let of_anna = ["--token-file", token.to_str().unwrap()];
    assert_eq!(export(&server, &of_anna), text);
    let refused = server.try_cli(&["export", "--secrets", of_anna[0], of_anna[1]]);
    assert!(refusal(&refused, 4).contains("role admin"), "{refused:?}");
    let file = dir.path().join("out.jsonl");
    server.cli(&["export", "--secrets", file.to_str().unwrap()]);
    assert!(fs::read_to_string(&file).unwrap().contains("hunter2"));
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&file).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);

    // Without its value a secret is named, and all else is imported.
    let plain = write(dir.path(), "plain.jsonl", &text);
    let new = self::server(&dir.path().join("new"));
    let done = imported(&new, &plain);
    assert_eq!(done["without_value"], json!([format!("TOKEN of {}", uuid(1))]));
    assert_eq!(done["created"]["variables"], 3);
}

#[test]
fn a_device_that_was_imported_takes_its_place_when_it_registers() {
    let dir = tempfile::tempdir().unwrap();
    let old = full(dir.path());
    let file = write(dir.path(), "export.jsonl", &export(&old, &["--secrets"]));
    let new = server(&dir.path().join("new"));
    imported(&new, &file);
    let show = || new.cli_json(&["device", "show", "north"])["device"].clone();
    assert_eq!(show()["state"], "silent");
    assert_eq!(show()["why"], "it was imported, and has not registered here yet");
    let key_for = |fleet| {
        let key = new.cli_json(&["fleet", "provisioning-key", "create", fleet]);
        let text = key.to_string();
        let at = text.split("\"provisioning_key\":\"").nth(1).unwrap_or_else(|| panic!("{text}"));
        at.split('"').next().unwrap().to_owned()
    };
    let state = |device_key: &str| {
        let url = format!("{}/device/v3/{}/state", new.url, uuid(1));
        curl(&["-w", "\n%{http_code}", "-H", &format!("Authorization: Bearer {device_key}"), &url])
    };
    assert!(state("expected:00000000000000000000000000000001").ends_with("401"));
    assert!(state("the-key-of-device-1").ends_with("401"), "an export has no key");
    let lab = key_for("lab");
    assert_eq!(register(&new, &lab, 1, "another-key-of-device-1"), "201");
    let target = state("another-key-of-device-1");
    assert!(target.contains("\"1111\"") && target.contains("hunter2"), "{target}");
    assert_eq!((&show()["pin"], &show()["name"]), (&json!("1111"), &json!("north")));
    assert_eq!(register(&new, &lab, 1, "a-third-key-of-device-1"), "409", "only once");
    assert!(state("a-third-key-of-device-1").ends_with("401"));
}

#[test]
fn lines_that_are_wrong_are_named_and_nothing_is_imported() {
    let dir = tempfile::tempdir().unwrap();
    let new = server(dir.path());
    let head = "{\"cotter_export\":1}\n";
    let fleet = "{\"kind\":\"fleet\",\"name\":\"lab\"}\n";
    let device = |number, more: &str| {
        let uuid = uuid(number);
        format!(
            "{{\"kind\":\"device\",\"uuid\":\"{uuid}\",\"name\":\"d{number}\",\"device_type\":\"t\",\"fleet\":\"lab\"{more}}}\n"
        )
    };
    let release = |image: &str| {
        json!({ "kind": "release", "fleet": "lab", "commit": "abcd", "images": { "web": image },
            "composition": { "services": { "web": {} } } })
        .to_string()
    };
    for (text, code, words) in [
        (String::new(), 2, "this is not an export of a fleet server"),
        ("{\"cotter_export\":2}\n".to_owned(), 2, "this export has version 2, and this server reads 1"),
        (format!("{head}{fleet}\n{{\"kind\":"), 21, "line 4: it is not JSON"),
        (format!("{head}{fleet}{{\"name\":\"x\"}}"), 21, "line 3: it has no kind"),
        (format!("{head}{{\"kind\":\"user\"}}\n{fleet}"), 21, "line 2: there is no kind \"user\""),
        (
            format!("{head}{fleet}{{\"kind\":\"fleet\",\"name\":\"b\",\"nmae\":1}}"),
            21,
            "line 3: unknown field `nmae`",
        ),
        (
            format!(
                "{head}{fleet}{{\"kind\":\"variable\",\"fleet\":\"lab\",\"name\":\"A\",\"value\":{{\"hunter\":2}}}}"
            ),
            21,
            "line 3: a variable has name, fleet or device",
        ),
        (
            format!("{head}{fleet}{{\"kind\":\"variable\",\"fleet\":\"lab\",\"name\":\"A\"}}"),
            21,
            "line 3: \"A\" has no value",
        ),
        (
            format!("{head}{fleet}{}", release("web:1")),
            21,
            "line 3: devices would refuse this release: images.web: web:1 has no digest",
        ),
        (format!("{head}{}", device(1, "")), 21, "line 2: there is no fleet \"lab\""),
        (
            format!("{head}{fleet}{}", device(1, ",\"pin\":\"abcd\"")),
            21,
            "line 3: there is no release \"abcd\"",
        ),
        (
            format!("{head}{fleet}{}{}", device(1, ""), device(2, "").replace("d2", "d1")),
            21,
            "line 4: device",
        ),
        (
            format!("{head}{fleet}{}", device(1, "").replace("d1", "abcd")),
            21,
            "line 3: \"abcd\" cannot be a device name",
        ),
        (
            format!("{head}{{\"kind\":\"fleet\",\"name\":\"b\",\"target\":\"abcd\"}}"),
            21,
            "line 2: there is no release \"abcd\"",
        ),
    ] {
        let file = write(dir.path(), "bad.jsonl", &text);
        let said = refusal(&import(&new, &file, &[]), code);
        assert!(said.contains(words), "{text}\n{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(!said.contains("hunter"), "{said}");
        assert_eq!(export(&new, &[]).lines().count(), 1, "{text}");
    }
    let many: String = (1..=8).map(|number| device(number, "")).collect();
    let file = write(dir.path(), "bad.jsonl", &format!("{head}{many}"));
    assert!(refusal(&import(&new, &file, &[]), 21).trim_end().ends_with("; and 3 more"));
}

#[test]
fn what_is_on_the_server_and_differs_refuses_the_import() {
    let dir = tempfile::tempdir().unwrap();
    let server = full(dir.path());
    let text = export(&server, &["--secrets"]);
    let (canary, north) = ("\"ring\":\"canary\"", "\"name\":\"north\"");
    for (from, to, words) in [
        (
            "\"registry\":\"registry.example/lab\"",
            "\"registry\":\"other.example/lab\"",
            "fleet lab is on this server already, and its registry is not as in the file",
        ),
        ("\"target\":\"3333\"", "\"target\":\"1111\"", "its target is not"),
        (
            "hunter2",
            "hunter3",
            "variable TOKEN of 00000000000000000000000000000001 is on this server already, and its value is not",
        ),
        (canary, "\"ring\":\"x\"", "its tags is not"),
        (north, "\"name\":\"south\"", "its name is not"),
        (
            "\"internal\":true",
            "\"internal\":false",
            "release 1111 of lab is on this server already, and its content is not",
        ),
        ("\"is_invalidated\":true", "\"is_invalidated\":false", "release 4444 of lab"),
    ] {
        assert!(text.contains(from), "{from}");
        let file = write(dir.path(), "other.jsonl", &text.replace(from, to));
        let said = refusal(&import(&server, &file, &[]), 21);
        assert!(said.contains(words) && !said.contains("hunter"), "{said}");
        assert_eq!(export(&server, &["--secrets"]), text);
    }
    // More releases do not change what a fleet of the file should run.
    let newer = "{\"kind\":\"release\",\"fleet\":\"lab\",\"commit\":\"5555\",\"images\":{\"web\":\"IMAGE\"},\"composition\":{\"services\":{\"web\":{}}}}\n";
    let file =
        write(dir.path(), "more.jsonl", &format!("{text}{}", newer.replace("IMAGE", &image("web", 'f'))));
    assert_eq!(imported(&server, &file)["created"]["releases"], 1);
    assert_eq!(server.cli_json(&["fleet", "show", "lab"])["fleet"]["target"], "3333");
}

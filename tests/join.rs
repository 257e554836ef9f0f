//! `cotter join` on the real binary: what it writes, what it refuses, and an agent that begins with it.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use support::{FakeCloud, FleetServer, Lab, Program, eventually, unix_get};

const SECRET: &str = "hunter2hunter2";
const UUID: &str = "0123456789abcdef0123456789abcdef";

/// A folder with settings of its own, and a config.json.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let place = Self { folder: tempfile::tempdir().expect("a folder") };
        let dir = place.folder.path().display();
        place.write("agent.toml", &format!("state_dir = \"{dir}/state\"\nruntime_dir = \"{dir}/run\"\n"));
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).expect("a file");
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_else(|e| format!("({e})"))
    }

    fn mode(&self, name: &str) -> u32 {
        self.path(name).metadata().expect("a file").permissions().mode() & 0o777
    }

    /// Joins with `config`: exit code, and what was said, with `DIR` for the folder.
    fn join(&self, config: &Value, more: &[&str]) -> (Option<i32>, String) {
        self.write("config.json", &config.to_string());
        let mut command = Program::cotter();
        command
            .arg("join")
            .arg(self.path("config.json"))
            .arg("--config")
            .arg(self.path("agent.toml"))
            .args(more);
        let output = command.output().expect("the binary runs");
        let said = String::from_utf8([output.stdout, output.stderr].concat()).expect("text");
        assert!(!said.contains(SECRET), "{said}");
        (output.status.code(), said.trim_end().replace(&self.folder.path().display().to_string(), "DIR"))
    }
}

fn of_fleet(endpoint: &str) -> Value {
    json!({
        "apiEndpoint": endpoint, "applicationId": 7, "apiKey": SECRET, "deviceType": "raspberrypi4-64",
        "registryEndpoint": "registry2.a.example", "listenPort": 48484,
    })
}

fn of_device(uuid: &str) -> Value {
    json!({ "apiEndpoint": "https://api.a.example", "uuid": uuid, "deviceApiKey": SECRET, "deviceId": 1 })
}

#[test]
fn a_file_of_a_fleet_becomes_settings_and_a_key() {
    let place = Place::new();
    let config = of_fleet("https://api.a.example/");
    let (code, said) = place.join(&config, &["--dry-run"]);
    let expected = "\
would write DIR/provisioning.key
would write DIR/agent.d/50-join.toml
cloud.endpoint = https://api.a.example
cloud.fleet = 7
cloud.provisioning_key_file = DIR/provisioning.key
cloud.device_type = raspberrypi4-64
cloud.registries = registry2.a.example
without --dry-run, this device registers with fleet 7 of https://api.a.example";
    assert_eq!((code, said.as_str()), (Some(0), expected));
    assert!(!place.path("agent.d").exists() && !place.path("provisioning.key").exists());

    let (code, said) = place.join(&config, &[]);
    let expected = "\
wrote DIR/provisioning.key
wrote DIR/agent.d/50-join.toml
this device registers with fleet 7 of https://api.a.example; \
start its agent with `systemctl enable cotter-agent && systemctl restart cotter-agent`
note: DIR/config.json still has the key in it: remove the file, or a thief of this device can use the key";
    assert_eq!((code, said.as_str()), (Some(0), expected));
    assert_eq!((place.mode("provisioning.key"), place.mode("agent.d/50-join.toml")), (0o600, 0o644));
    assert_eq!(place.read("provisioning.key"), format!("{SECRET}\n"));
    let text = place.read("agent.d/50-join.toml").replace(&place.folder.path().display().to_string(), "DIR");
    let expected = "\
# Made by `cotter join`.
[cloud]
endpoint = \"https://api.a.example\"
fleet = 7
provisioning_key_file = \"DIR/provisioning.key\"
device_type = \"raspberrypi4-64\"
registries = \"registry2.a.example\"
";
    assert_eq!(text, expected);

    // Again: nothing is written. Another one: only by force.
    let written = place.path("agent.d/50-join.toml").metadata().expect("a file").modified().expect("a time");
    let (code, said) = place.join(&config, &[]);
    let expected = "this device registers with fleet 7 of https://api.a.example; no file had to be changed\n\
                    note: DIR/config.json still has the key in it: remove the file, or a thief of this device can use the key";
    assert_eq!((code, said.as_str()), (Some(0), expected));
    assert_eq!(
        place.path("agent.d/50-join.toml").metadata().expect("a file").modified().expect("a time"),
        written
    );
    let mut other = config;
    other["applicationId"] = json!("8");
    let (code, said) = place.join(&other, &[]);
    let expected = "error: DIR/agent.d/50-join.toml has other content already; --force replaces it with what \
                    DIR/config.json says";
    assert_eq!((code, said.as_str()), (Some(21), expected));
    let (code, _) = place.join(&other, &["--force"]);
    assert_eq!((code, place.read("agent.d/50-join.toml").contains("fleet = 8\n")), (Some(0), true));

    // A file of a device takes the place of one of a fleet.
    assert_eq!(place.join(&of_device(UUID), &["--force"]).0, Some(0));
    let text = place.read("agent.d/50-join.toml");
    assert!(text.contains(&format!("uuid = \"{UUID}\"")) && !text.contains("fleet"), "{text}");
    assert_eq!((place.mode("device.key"), place.read("device.key")), (0o600, format!("{SECRET}\n")));
}

#[test]
fn settings_that_stand_against_it_are_named() {
    let place = Place::new();
    let file = place.read("agent.toml");
    place.write("agent.toml", &format!("{file}[cloud]\nuuid = \"{UUID}\"\ndevice_key_file = \"/k\"\n"));
    let (code, said) = place.join(&of_fleet("https://api.a.example"), &["--force"]);
    let expected = "error: cloud.uuid is set in DIR/agent.toml, line 4, which would override what is joined; remove it there";
    assert_eq!((code, said.as_str()), (Some(21), expected));

    place.write("agent.toml", &format!("{file}[cloud]\nendpoint = \"https://b.example\"\n"));
    let (code, said) = place.join(&of_device(UUID), &[]);
    let expected = "error: cloud.endpoint is https://b.example already; --force replaces it with what DIR/config.json \
                    says";
    assert_eq!((code, said.as_str()), (Some(21), expected));

    place.write("agent.toml", &file);
    std::fs::create_dir(place.path("agent.d")).expect("a folder");
    place.write("agent.d/60-mine.toml", "[cloud]\nendpoint = \"https://b.example\"\n");
    let (code, said) = place.join(&of_device(UUID), &["--force"]);
    let expected = "error: cloud.endpoint is set in DIR/agent.d/60-mine.toml, line 2, which would override what is \
                    joined; remove it there";
    assert_eq!((code, said.as_str()), (Some(21), expected));
    assert!(!place.path("agent.d/50-join.toml").exists() && !place.path("device.key").exists());
}

#[test]
fn files_that_cannot_be_joined_with_are_refused_with_a_reason() {
    let place = Place::new();
    for (config, expected) in [
        (json!([SECRET]), "it is not a JSON object"),
        (json!({ "apiEndpoint": "https://a", "apiKey": SECRET }), "it has apiKey, but not applicationId"),
    ] {
        let answer = format!("error: DIR/config.json is not a config.json to join with: {expected}");
        assert_eq!(place.join(&config, &[]), (Some(2), answer));
    }
    let (code, said) = place.join(&of_fleet("ftp://a"), &[]);
    let expected = "error: cloud.endpoint = \"ftp://a\" is not accepted: it must be a URL with http:// or https://, e.g. \
                    https://api.example.com";
    assert_eq!((code, said.as_str()), (Some(2), expected));
    for (source, expected) in [
        ("/nowhere/config.json", "there is no file /nowhere/config.json"),
        ("config.json", "there is no file config.json"),
        // An address without its scheme.
        (
            "fleet.example.com",
            "there is no file fleet.example.com; if it is the address of a fleet server, write https://fleet.example.com",
        ),
        (
            "fleet.example.com:7300/",
            "there is no file fleet.example.com:7300/; if it is the address of a fleet server, write \
             https://fleet.example.com:7300/",
        ),
        ("/", "/ cannot be read: Is a directory (os error 21)"),
    ] {
        let output = Program::cotter().args(["join", source]).output().expect("the binary runs");
        let said = String::from_utf8(output.stderr).expect("text");
        assert_eq!((output.status.code(), said), (Some(2), format!("error: {expected}\n")));
    }
    // Nothing was begun.
    assert!(!place.path("agent.d").exists() && !place.path("provisioning.key").exists());
}

/// The same words as those of `cotter check` and `cotter config check`; the agent tells them in its journal and status.
#[test]
fn a_cloud_without_tls_is_warned_of() {
    let place = Place::new();
    let exposed = "http://0.0.0.0:1: this device's key goes there in the clear";
    let warning = format!("warning: {exposed}; put TLS before the cloud and set an https:// address");
    for more in [&["--dry-run"][..], &[]] {
        let (code, said) = place.join(&of_fleet("http://0.0.0.0:1"), more);
        assert_eq!(code, Some(0), "{said}");
        assert!(said.ends_with(&warning), "{said}");
    }
    let agent = start(&place.path("agent.toml"), &place.path("agent.log"));
    let status = eventually("an agent that answers", Duration::from_secs(20), || {
        let status = unix_get(&place.path("run/status.sock"), "/v1/status")?.json();
        (status["cloud"]["endpoint"] == "http://0.0.0.0:1").then_some(status)
    });
    assert_eq!(status["cloud"]["warning"], exposed);
    let log = agent.log();
    let warned = log.lines().filter(|line| line.contains("the cloud is asked without TLS")).count();
    assert_eq!(warned, 1, "{log}");

    let here = Place::new();
    let (code, said) = here.join(&of_fleet("http://127.0.0.1:1"), &[]);
    assert_eq!((code, said.contains("warning")), (Some(0), false), "{said}");
}

#[test]
fn an_agent_begins_with_what_was_joined_and_keeps_it() {
    let lab = Lab::new("join");
    let server = FleetServer::start(&lab);
    let fleet = server.create_fleet(&lab, "f");
    let place = Place::new();
    let dir = place.folder.path().display().to_string();
    place.write(
        "agent.toml",
        &format!(
            "instance = \"{}\"\nstate_dir = \"{dir}/state\"\nruntime_dir = \"{dir}/run\"\n[engine]\nsocket = \"{}\"\n",
            lab.instance("a"),
            lab.docker().socket().display()
        ),
    );
    let key = std::fs::read_to_string(&fleet.key_file).expect("a key");
    let config = json!({ "apiEndpoint": server.url, "applicationId": fleet.number, "apiKey": key.trim(), "deviceType": "generic-amd64" });
    // By standard input.
    let mut command = Program::cotter();
    command.args(["join", "-", "--config"]).arg(place.path("agent.toml")).stdin(Stdio::piped());
    let mut join = command.spawn().expect("the binary runs");
    join.stdin.take().expect("its input").write_all(config.to_string().as_bytes()).expect("it reads");
    assert!(join.wait().expect("it ends").success());

    let agent = start(&place.path("agent.toml"), &place.path("agent.log"));
    let uuid = eventually("a device that is known", Duration::from_secs(20), || {
        let status = unix_get(&place.path("run/status.sock"), "/v1/status")?.json();
        status["cloud"]["last_contact"].as_str()?;
        Some(status["device"]["uuid"].as_str()?.to_owned())
    });
    assert!(server.cli(&["device", "list"]).contains(&uuid[..12]));

    // It is a device of that cloud now, and has no use for the key any more.
    eventually("the key is gone", Duration::from_secs(20), || {
        (!place.path("provisioning.key").exists()).then_some(())
    });
    let log = std::fs::read_to_string(place.path("agent.log")).expect("a log");
    assert!(log.contains("provisioning key removed: the device is registered"), "{log}");
    assert!(!log.contains(key.trim()), "{log}");
    let (code, said) = place.join(&config, &[]);
    let answer = format!(
        "this device registers with fleet {} of {}; no file had to be changed\nnote: apiKey was left out",
        fleet.number, server.url
    );
    assert_eq!((code, said.starts_with(&answer)), (Some(0), true), "{said}");
    assert!(!place.path("provisioning.key").exists());
    std::fs::remove_dir_all(place.path("agent.d")).expect("a folder");
    let (code, said) = place.join(&of_device(UUID), &[]);
    let answer = format!("error: this device is {uuid} of {} already; --force replaces it", server.url);
    assert_eq!((code, said.starts_with(&answer)), (Some(21), true), "{said}");
    drop(agent);
}

fn start(settings: &Path, log: &Path) -> Program {
    let mut command = Program::cotter();
    command.arg("agent").arg("--config").arg(settings);
    Program::start("agent", command, log)
}

/// A lab with a fleet, and an agent that is registered there.
struct Desk {
    place: Place,
    server: FleetServer,
    config: Value,
    uuid: String,
    agent: Option<Program>,
    lab: Lab,
}

impl Desk {
    fn new(name: &str) -> Self {
        let lab = Lab::new(name);
        let server = FleetServer::start(&lab);
        let fleet = server.create_fleet(&lab, "f");
        let place = Place::new();
        let dir = place.folder.path().display();
        let (instance, socket) = (lab.instance("a"), lab.docker().socket().display().to_string());
        let text = format!(
            "instance = \"{instance}\"\nstate_dir = \"{dir}/state\"\nruntime_dir = \"{dir}/run\"\n[engine]\nsocket = \"{socket}\"\n"
        );
        place.write("agent.toml", &text);
        let key = std::fs::read_to_string(&fleet.key_file).expect("a key");
        let config = json!({
            "apiEndpoint": server.url, "applicationId": fleet.number, "apiKey": key.trim(), "deviceType": "generic-amd64",
        });
        assert_eq!(place.join(&config, &[]).0, Some(0));
        Self { place, server, config, uuid: String::new(), agent: None, lab }
    }

    /// Starts the agent, once more if it runs.
    fn start(&mut self) {
        self.start_with(&[]);
    }

    fn start_with(&mut self, more: &[&str]) {
        self.agent = None;
        let mut command = Program::cotter();
        command.arg("agent").arg("--config").arg(self.place.path("agent.toml")).args(more);
        self.agent = Some(Program::start("agent", command, &self.place.path("agent.log")));
    }

    fn status(&self, pointer: &str) -> Option<Value> {
        let status = unix_get(&self.place.path("run/status.sock"), "/v1/status")?.json();
        status.pointer(pointer).cloned()
    }

    /// Waits until the agent has heard from its cloud since `before`, and has no complaint.
    fn until_polled(&mut self) {
        self.uuid = eventually("a poll that went well", Duration::from_secs(30), || {
            let is_well =
                self.status("/cloud/error")?.is_null() && self.status("/cloud/last_contact")?.is_string();
            is_well.then(|| self.status("/device/uuid")?.as_str().map(str::to_owned))?
        });
    }

    fn until_cloud_error(&self, words: &str) -> String {
        eventually(words, Duration::from_secs(30), || {
            let error = self.status("/cloud/error")?.as_str()?.to_owned();
            error.contains(words).then_some(error)
        })
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.place.path("agent.log")).expect("a log")
    }

    fn cli(&self, args: &[&str]) -> String {
        let mut command = Program::cotter();
        let socket = self.place.path("run/status.sock");
        let output = command.args(args).arg("--socket").arg(socket).output().expect("the binary runs");
        String::from_utf8(output.stdout).expect("text")
    }

    /// Has the agent update and waits: the exit code, and what was said.
    fn update(&self) -> (Option<i32>, String) {
        let mut command = Program::cotter();
        command
            .args(["update", "--wait", "--timeout", "60s", "--socket"])
            .arg(self.place.path("run/control.sock"));
        let output = command.output().expect("the binary runs");
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(said).expect("text"))
    }

    /// What a check of this device found: level and evidence.
    fn found(&self, id: &str) -> String {
        let mut command = Program::cotter();
        command.args(["check", "--json", "--config"]).arg(self.place.path("agent.toml"));
        let output = command.output().expect("the binary runs");
        let document: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let checks = document["checks"].as_array().expect("checks");
        let it = checks.iter().find(|check| check["id"] == id).expect("the check");
        format!(
            "{}: {}",
            it["level"].as_str().unwrap_or_default(),
            it["evidence"].as_str().unwrap_or_default()
        )
    }

    fn has_key(&self) -> bool {
        self.place.path("provisioning.key").metadata().is_ok_and(|metadata| metadata.len() > 0)
    }
}

/// From its deletion on the device says what happened to it, goes on polling slowly, and comes back both ways that
/// an operator has.
#[test]
fn a_deleted_device_says_so_and_comes_back_when_it_may() {
    let mut desk = Desk::new("deleted");
    desk.start();
    desk.until_polled();
    let uuid = desk.uuid.clone();
    assert!(!desk.has_key());
    assert_eq!(desk.found("state-key"), "ok: it was removed after the registration");
    desk.server.cli(&["device", "delete", &uuid, "--yes"]);
    let expected = format!(
        "this device was deleted from its fleet at {}; an operator must allow it again: `cotter device allow {uuid} \
         --restore`",
        desk.server.url
    );
    assert_eq!(desk.until_cloud_error("deleted"), expected);
    let (explained, status) = (desk.cli(&["explain"]), desk.cli(&["status"]));
    assert!(explained.contains(&format!("deleted\n  {expected}\n  next try: in ")), "{explained}");
    assert!(status.contains(&expected) && !status.contains("as it should"), "{status}");
    let page = unix_get(&desk.place.path("run/status.sock"), "/v1/metrics").expect("metrics").body;
    assert!(page.contains("\ncotter_cloud_deleted 1\n"), "{page}");
    let (code, said) = desk.update();
    assert!(
        code == Some(20) && said.contains(&format!("this device gets no new targets: {expected}")),
        "{said}"
    );
    assert_eq!(desk.found("cloud-answers"), format!("error: {expected}"));

    // Put back as it was: its own key works again, and nothing is to be done on the device.
    desk.server.cli(&["device", "allow", &uuid, "--restore"]);
    desk.until_polled();

    // Only allowed: it needs a provisioning key, and stays itself.
    desk.server.cli(&["device", "delete", &uuid, "--yes"]);
    desk.until_cloud_error("deleted");
    let (code, said) = desk.place.join(&desk.config, &["--force"]);
    assert!(code == Some(0) && said.contains("wrote DIR/provisioning.key"), "{said}");
    desk.start();
    let refused = "the cloud does not know this device, and does not take it back";
    eventually("it is refused", Duration::from_secs(30), || desk.log().contains(refused).then_some(()));
    assert!(desk.has_key(), "a key that may be needed yet is kept");
    desk.server.cli(&["device", "allow", &uuid]);
    desk.start();
    desk.until_polled();
    assert_eq!(desk.uuid, uuid);
    eventually("the key is gone", Duration::from_secs(20), || (!desk.has_key()).then_some(()));
    assert!(desk.server.cli(&["device", "list"]).contains(&uuid[..12]));
    assert!(desk.log().contains("device registered again"));
    desk.agent = None;
}

/// A device that is registered elsewhere waits for a key of its new cloud, and takes it without a restart.
#[test]
fn a_device_with_another_cloud_waits_for_its_key() {
    let mut desk = Desk::new("moved");
    desk.start();
    desk.until_polled();
    eventually("the key is gone", Duration::from_secs(20), || (!desk.has_key()).then_some(()));
    let cloud = FakeCloud::start();
    cloud.target("1", &json!({}));
    desk.start_with(&["--set", &format!("cloud.endpoint={}", cloud.url)]);
    let answer = desk.until_cloud_error("registration: cloud.provisioning_key_file: key file ");
    assert!(answer.ends_with("(os error 2); write the key into it, with mode 600"), "{answer}");
    assert!(cloud.polls().is_empty(), "the key of one cloud's device is not shown to another one");
    desk.place.write("provisioning.key", "another");
    std::fs::set_permissions(desk.place.path("provisioning.key"), std::fs::Permissions::from_mode(0o600))
        .expect("its mode");
    desk.until_polled();
    eventually("the key is gone", Duration::from_secs(20), || (!desk.has_key()).then_some(()));
    assert!(!cloud.polls().is_empty());
}

/// What is removed with the apps is what this agent has on the engine; volumes stay.
#[test]
fn who_leaves_may_take_the_apps_along() {
    let mut desk = Desk::new("leaves");
    desk.start();
    desk.until_polled();
    let compose = desk.lab.compose("r1.yml", &[("web", "r1")], "stop_grace_period: 2s");
    let file = compose.to_str().expect("text");
    desk.server.cli(&["release", "create", "f", "--file", file, "--commit", "r1"]);
    let instance = desk.lab.instance("a");
    eventually("the app runs", Duration::from_secs(60), || {
        (!desk.lab.docker().running(&instance).is_empty()).then_some(())
    });
    desk.agent = None;
    let leave = |more: &[&str]| {
        let mut command = Program::cotter();
        command.args(["leave", "--config"]).arg(desk.place.path("agent.toml")).args(more);
        let output = command.output().expect("the binary runs");
        let said = String::from_utf8([output.stdout, output.stderr].concat()).expect("text");
        (output.status.code(), said)
    };
    let (code, said) = leave(&["--remove-apps", "--dry-run"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains("  1 container and 1 network are removed; volumes and images are kept\n"),
        "{said}"
    );
    assert_eq!(desk.lab.docker().running(&instance).len(), 1);
    let (code, said) = leave(&["--remove-apps", "--yes"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("removed 1 container and 1 network\n"), "{said}");
    assert!(desk.lab.docker().containers(&instance).is_empty());
    assert!(!desk.place.path("agent.d/50-join.toml").exists());
}

/// Mounts by `mount ARGS`; `None`, and a line that says so, where that is not permitted.
fn mount(args: &[&str], at: &Path) -> Option<Mounted> {
    let done = std::process::Command::new("mount").args(args).arg(at).status().expect("mount is there");
    if done.success() {
        return Some(Mounted(at.to_owned()));
    }
    println!("skipped: mounting is not permitted here");
    None
}

struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// As in the unit, that may write this one file and nothing beside it: it is made empty. A device that is known
/// starts without a key as well, and a check tells of one that cannot go.
#[test]
fn a_key_that_cannot_be_removed_is_made_empty_or_reported() {
    let mut desk = Desk::new("emptied");
    let file = desk.place.path("provisioning.key");
    let shown = file.to_str().expect("text").to_owned();
    let Some(mounted) = mount(&["--bind", &shown], &file) else { return };
    desk.start();
    desk.until_polled();
    eventually("the key is gone", Duration::from_secs(20), || (!desk.has_key()).then_some(()));
    assert!(file.exists(), "a file that is mounted cannot be removed");
    let removed = "provisioning key removed: the device is registered";
    eventually("the log has it", Duration::from_secs(20), || desk.log().contains(removed).then_some(()));
    assert!(!desk.log().contains("cannot be removed"), "{}", desk.log());
    assert_eq!(desk.found("state-key"), "ok: it was removed after the registration");
    desk.start();
    desk.until_polled();
    drop(mounted);

    std::fs::write(&file, "left behind").expect("a key");
    let Some(mounted) = mount(&["--bind", &shown], &file) else { return };
    assert!(mount(&["-o", "remount,bind,ro"], &file).is_some_and(|again| {
        std::mem::forget(again);
        true
    }));
    desk.start();
    let answer =
        "the provisioning key cannot be removed; remove it, or whoever takes this device can register others";
    eventually("the log has it", Duration::from_secs(30), || desk.log().contains(answer).then_some(()));
    desk.until_polled();
    let found = desk.found("state-key");
    let left =
        format!("warning: {shown} still has the key: a thief of this device can register others with it");
    assert_eq!(found, left);
    desk.agent = None;
    drop(mounted);
    assert!(!desk.log().contains("left behind"));
    let _lab = &desk.lab;
}

#[test]
fn a_device_that_its_cloud_does_not_register_says_why_at_once() {
    let mut desk = Desk::new("refused");
    desk.place.write("provisioning.key", "of-another-fleet\n");
    desk.start();
    let error = desk.until_cloud_error("registration");
    let guess = "is the provisioning key still valid, and of this cloud, and is cloud.fleet the fleet that it is for?";
    assert!(error.ends_with(guess), "{error}");
    let (code, said) = desk.update();
    assert!(code == Some(20) && said.contains(&format!("the poll failed: {error}")), "{said}");
    let found = desk.found("cloud-contact");
    assert!(found.starts_with("error: last contact never, failed ") && found.contains(guess), "{found}");
    let explained = desk.cli(&["explain"]);
    assert!(explained.contains(&format!("cloud\n  {error}\n  next try: in ")), "{explained}");
}

//! `cotter join` on the real binary: what it writes, what it refuses, and an agent that begins with it.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use support::{FleetServer, Lab, Program, eventually, unix_get};

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
this device registers with fleet 7 of https://api.a.example, without --dry-run";
    assert_eq!((code, said.as_str()), (Some(0), expected));
    assert!(!place.path("agent.d").exists() && !place.path("provisioning.key").exists());

    let (code, said) = place.join(&config, &[]);
    let expected = "\
wrote DIR/provisioning.key
wrote DIR/agent.d/50-join.toml
this device registers with fleet 7 of https://api.a.example; \
`systemctl enable cotter-agent && systemctl restart cotter-agent` lets it begin";
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
    let expected = "this device registers with fleet 7 of https://api.a.example: so it was already";
    assert_eq!((code, said.as_str()), (Some(0), expected));
    assert_eq!(
        place.path("agent.d/50-join.toml").metadata().expect("a file").modified().expect("a time"),
        written
    );
    let mut other = config;
    other["applicationId"] = json!("8");
    let (code, said) = place.join(&other, &[]);
    let expected = "error: DIR/agent.d/50-join.toml says something else; --force makes this device what \
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
    let expected =
        "error: cloud.uuid is set in DIR/agent.toml, line 4, which stands against it; take it out there";
    assert_eq!((code, said.as_str()), (Some(21), expected));

    place.write("agent.toml", &format!("{file}[cloud]\nendpoint = \"https://b.example\"\n"));
    let (code, said) = place.join(&of_device(UUID), &[]);
    let expected = "error: cloud.endpoint is https://b.example already; --force makes this device what DIR/config.json \
                    says";
    assert_eq!((code, said.as_str()), (Some(21), expected));

    place.write("agent.toml", &file);
    std::fs::create_dir(place.path("agent.d")).expect("a folder");
    place.write("agent.d/60-mine.toml", "[cloud]\nendpoint = \"https://b.example\"\n");
    let (code, said) = place.join(&of_device(UUID), &["--force"]);
    let expected = "error: cloud.endpoint is set in DIR/agent.d/60-mine.toml, line 2, which stands against it; take it \
                    out there";
    assert_eq!((code, said.as_str()), (Some(21), expected));
    assert!(!place.path("agent.d/50-join.toml").exists() && !place.path("device.key").exists());
}

#[test]
fn files_that_cannot_be_joined_with_are_told() {
    let place = Place::new();
    for (config, expected) in [
        (json!([SECRET]), "it is not a JSON object"),
        (json!({ "apiEndpoint": "https://a", "apiKey": SECRET }), "apiKey has no applicationId beside it"),
    ] {
        let told = format!("error: DIR/config.json is no config.json to join with: {expected}");
        assert_eq!(place.join(&config, &[]), (Some(2), told));
    }
    let (code, said) = place.join(&of_fleet("ftp://a"), &[]);
    let expected = "error: cloud.endpoint = \"ftp://a\" is not accepted: it must be a URL with http:// or https://, e.g. \
                    https://api.example.com";
    assert_eq!((code, said.as_str()), (Some(2), expected));
    let output = Program::cotter().args(["join", "/nowhere/config.json"]).output().expect("the binary runs");
    let said = String::from_utf8(output.stderr).expect("text");
    let expected = "error: /nowhere/config.json cannot be read: No such file or directory (os error 2)\n";
    assert_eq!((output.status.code(), said.as_str()), (Some(2), expected));
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

    // It is a device of that cloud now.
    let (code, said) = place.join(&config, &[]);
    assert_eq!((code, said.ends_with(": so it was already")), (Some(0), true), "{said}");
    std::fs::remove_dir_all(place.path("agent.d")).expect("a folder");
    let (code, said) = place.join(&of_device(UUID), &[]);
    let told = format!("error: this device is {uuid} of {} already; --force makes", server.url);
    assert_eq!((code, said.starts_with(&told)), (Some(21), true), "{said}");
    drop(agent);
}

fn start(settings: &Path, log: &Path) -> Program {
    let mut command = Program::cotter();
    command.arg("agent").arg("--config").arg(settings);
    Program::start("agent", command, log)
}

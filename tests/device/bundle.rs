//! `cotter support-bundle`: what is in it, and that no secret is.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Agent, FakeCloud, Lab, Program, eventually};
use crate::{app, service, uuid};

/// Each stands in a place of its own, and in no file of the bundle.
const SECRETS: [&str; 7] = [
    "hunter2environment",
    "hunter2label",
    "hunter2command",
    "hunter2probe",
    "hunter2provisioning",
    "hunter2variable",
    "hunter2comment",
];

/// `cotter support-bundle` of an agent: exit code, and what was said.
fn bundle(agent: &Agent<'_>, output: &Path, more: &[&str]) -> (Option<i32>, String) {
    let mut command = Program::cotter();
    command.args(["support-bundle", "--output"]).arg(output).arg("--config").arg(agent.settings_file());
    command.args(more).env("HUNTER", SECRETS[5]).env("COTTER_TOKEN", SECRETS[5]);
    let output = command.output().expect("the binary runs");
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(said).expect("text"))
}

#[test]
fn a_bundle_tells_all_but_secrets() {
    let lab = Lab::new("bundle");
    let cloud = FakeCloud::start();
    let mut fleet = cloud.fleet(&lab);
    fleet.key_file = lab.file("provisioning.key", SECRETS[4]);
    let mut web = service(
        lab.image("r1"),
        json!({
            "healthcheck": { "test": ["CMD", "/app", "check", SECRETS[3]], "interval": "1s" },
            "environment": { "TOKEN": SECRETS[0] },
            "volumes": ["data:/data"],
            "entrypoint": ["/app"], "stop_signal": "SIGTERM",
        }),
    );
    web["environment"] = json!({ "OTHER": SECRETS[0], "DATABASE_URL": format!("sql://u:{}@db", SECRETS[0]) });
    web["labels"]["my.secret"] = json!(SECRETS[1]);
    let mut worker = service(lab.image("r1"), json!({ "command": ["/app", SECRETS[2]], "restart": "no" }));
    worker["labels"] = json!({ SECRETS[1]: "x" });
    cloud.target("1", &json!({ uuid(1): app(1, "shop", "one", &[("web", web), ("worker", worker)]) }));
    let mut agent = Agent::prepare(&lab, &cloud.url, &fleet, "a");
    let settings = std::fs::read_to_string(agent.settings_file()).expect("settings");
    agent.write_settings(&format!("# {}\n{settings}", SECRETS[6]));
    agent.start_again();
    eventually("a container", Duration::from_secs(60), || agent.service("web"));
    eventually("the other one ended", Duration::from_secs(60), || {
        let all = agent.containers();
        all.iter().find(|container| container.service() == "worker" && container.exit_code == 2).map(drop)
    });

    let file = lab.dir().join("bundle.tar");
    let (code, said) = bundle(&agent, &file, &[]);
    assert_eq!(code, Some(0), "{said}");
    let pages = "about.json, checks.json, settings.json, status.json, history.json, plan.json, engine.json, containers.json, ";
    assert!(said.contains(pages), "{said}");
    let mode = std::os::unix::fs::PermissionsExt::mode(&file.metadata().expect("a file").permissions());
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(bundle(&agent, &file, &[]).0, Some(21), "a file that is there stays");

    let whole = std::fs::read(&file).expect("a file");
    let whole = String::from_utf8_lossy(&whole);
    let mirror = std::fs::read_to_string(agent.dir().join("state/mirror-a.json")).expect("a mirror");
    let key = mirror.split_once("device_key\\\":\\\"").expect("a key").1.split('\\').next().expect("a key");
    assert_eq!(key.len(), 32, "the device's own key");
    for secret in SECRETS.iter().copied().chain([key]) {
        assert!(!whole.contains(secret), "{secret} is in the bundle");
    }

    // And it is worth reading.
    let extracted = lab.dir().join("extracted");
    std::fs::create_dir(&extracted).expect("a folder");
    let args = ["--strip-components=1", "-C"];
    let tar = Command::new("tar").args(args).arg(&extracted).arg("-xf").arg(&file).status();
    assert!(tar.expect("tar runs").success());
    let page = |name: &str| -> Value {
        let text = std::fs::read_to_string(extracted.join(name)).expect("a page");
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{name}: {e}"))
    };
    let containers = page("containers.json");
    let container = containers.as_array().expect("containers").iter().find(|c| c["service"] == "web");
    let container = container.expect("the service");
    assert_eq!((&container["release"], &container["status"]), (&json!("one"), &json!("running")));
    let names = container["environment"].as_array().expect("names");
    assert!(names.contains(&json!("TOKEN")) && names.contains(&json!("DATABASE_URL")), "{container}");
    assert_eq!(
        container["mounts"].as_array().expect("mounts").iter().filter(|m| m["target"] == "/data").count(),
        1
    );
    assert_eq!(page("status.json")["apps"][0]["name"], "shop");
    assert!(page("engine.json")["storage_driver"].is_string());
    assert!(page("checks.json").as_array().expect("checks").len() >= 20);
    assert!(page("explain.json").is_array());
    let settings = page("settings.json");
    assert!(
        settings.as_array().expect("settings").iter().any(|s| s["key"] == "cloud.fleet" && s["value"] == "1")
    );

    // Without an agent it says so.
    agent.cut();
    let (code, said) = bundle(&agent, &lab.dir().join("later.tar"), &["--set", "engine.socket=/nowhere"]);
    assert_eq!(code, Some(0), "{said}");
    let later = std::fs::read(lab.dir().join("later.tar")).expect("a file");
    let later = String::from_utf8_lossy(&later);
    assert!(later.contains("no agent answers at") && later.contains("engine at /nowhere does not answer"));
}

//! `cotter release check`: what it prints, and with which code it ends. It needs no server, registry or network.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use insta::assert_snapshot;
use serde_json::Value;

const PROJECT: &str = "services:
  web:
    image: r.example/web:1
    environment: {VER: 1.10}
    volumes: ['/srv/data:/data', 'typo:/cache']
";

/// What it prints and says, and its code.
fn check(folder: &Path, words: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cotter"));
    command.args(["release", "check"]).args(words).current_dir(folder).env_clear().stdin(Stdio::null());
    let out = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    format!("{}--- stderr\n{}--- exit {}", text(out.stdout), text(out.stderr), out.status.code().unwrap())
}

#[test]
fn errors_and_warnings_have_their_lines() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("compose.yaml"), PROJECT).unwrap();
    assert_snapshot!(check(folder.path(), &[]), @r#"
    --- stderr
    warning: compose.yaml:4: services.web.environment.VER: Compose would change this value; devices get it as it is written: put it into quotes ("1.10") so that both agree
    error: compose.yaml:5: services.web.volumes: there is no volume typo: declare it under volumes, or correct the name
    --- exit 21
    "#);
    fs::write(folder.path().join("compose.yaml"), format!("{PROJECT}volumes: {{typo: {{}}}}\n")).unwrap();
    assert_snapshot!(check(folder.path(), &[]), @r#"
    devices accept the project: 1 service, 2 warnings
    --- stderr
    warning: compose.yaml:4: services.web.environment.VER: Compose would change this value; devices get it as it is written: put it into quotes ("1.10") so that both agree
    warning: compose.yaml:5: services.web.volumes: devices refuse it unless their settings allow it: "/srv/data" is a path of the host that releases may not mount: use a named volume, or put the files into the image, or add it to policy.host_paths on the device
    --- exit 0
    "#);
}

#[test]
fn it_judges_for_a_device_by_its_settings() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("compose.yaml"), format!("{PROJECT}volumes: {{typo: {{}}}}\n")).unwrap();
    fs::write(folder.path().join("strict.toml"), "[policy]\npreset = \"strict\"\n").unwrap();
    fs::write(folder.path().join("allows.toml"), "[policy]\nhost_paths = \"/srv\"\n").unwrap();
    assert_snapshot!(check(folder.path(), &["--device-policy", "strict.toml"]), @r#"
    --- stderr
    warning: compose.yaml:4: services.web.environment.VER: Compose would change this value; devices get it as it is written: put it into quotes ("1.10") so that both agree
    error: compose.yaml:5: services.web.volumes: "/srv/data" is a path of the host that releases may not mount: use a named volume, or put the files into the image, or add it to policy.host_paths on the device
    --- exit 21
    "#);
    assert_snapshot!(check(folder.path(), &["--device-policy", "allows.toml"]), @r#"
    devices accept the project: 1 service, 1 warning
    --- stderr
    warning: compose.yaml:4: services.web.environment.VER: Compose would change this value; devices get it as it is written: put it into quotes ("1.10") so that both agree
    --- exit 0
    "#);
}

#[test]
fn json_has_files_lines_paths_and_reasons() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("compose.yaml"), PROJECT).unwrap();
    let printed = check(folder.path(), &["--json"]);
    let (json, rest) = printed.split_once("--- stderr\n").unwrap();
    let document: Value = serde_json::from_str(json).unwrap();
    assert_eq!(document["check"]["is_accepted"], false);
    let error = &document["check"]["errors"][0];
    assert_eq!((&error["file"], &error["line"]), (&"compose.yaml".into(), &5.into()));
    assert_eq!(error["path"], "services.web.volumes");
    assert_eq!(document["check"]["warnings"][0]["path"], "services.web.environment.VER");
    assert!(rest.ends_with("--- exit 21"), "{rest}");
}

//! Names are completed by a real bash, with a real fleet server.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use support::{FleetServer, Program};

/// What bash offers for the last of `words`.
fn offered(folder: &Path, url: &str, words: &[&str]) -> Vec<String> {
    let script = "source <($0 completion bash); COMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1)); _cotter_names \"$0\" \
                  \"${COMP_WORDS[COMP_CWORD]}\" \"${COMP_WORDS[COMP_CWORD - 1]}\"; printf '%s\\n' \"${COMPREPLY[@]}\"";
    let mut bash = Program::cotter_by(&["bash".into(), "-c".into(), script.into()]);
    let binary = Program::binary();
    let bin = binary.parent().expect("a folder").display();
    bash.args(["cotter", "cotter"])
        .args(words)
        .current_dir(folder)
        .env("PATH", format!("{bin}:/usr/bin:/bin"));
    bash.env("COTTER_FLEET_URL", url).env("COTTER_TOKEN_FILE", folder.join("fleet/operator.token"));
    let said =
        bash.env("COTTER_STATUS_SOCKET", folder.join("agent.sock")).output().expect("bash is everywhere");
    assert!(said.stderr.is_empty(), "{words:?}: {}", String::from_utf8_lossy(&said.stderr));
    let offered = String::from_utf8(said.stdout).expect("text");
    offered.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

#[test]
fn bash_offers_names_that_the_server_knows() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let mut server = FleetServer::start_in(folder, Vec::new());
    for name in ["greenhouse", "green hall", "orchard"] {
        server.cli(&["fleet", "create", name]);
    }
    let image = format!("127.0.0.1:1/web@sha256:{}", "a".repeat(64));
    let file = folder.join("compose.yml");
    std::fs::write(&file, format!("services: {{ web: {{ image: '{image}' }} }}\n")).expect("a file");
    let file = file.display().to_string();
    for commit in ["v1.0", "v1.1", "w2"] {
        server.cli(&["release", "create", "greenhouse", "--file", &file, "--commit", commit]);
    }
    server.cli(&["env", "set", "--fleet", "orchard", "RATE=5", "UNIT=lux"]);
    let (url, greens) = (server.url.clone(), &["green\\ hall", "greenhouse"][..]);
    let rows: &[(&[&str], &[&str])] = &[
        (&["fleet", "show", "gr"], greens),
        (&["fleet", "show", ""], &["green\\ hall", "greenhouse", "orchard"]),
        (&["push", "gr"], greens),
        (&["release", "create", "o"], &["orchard"]),
        (&["device", "list", "--fleet", "o"], &["orchard"]),
        (&["fleet", "provisioning-key", "create", "o"], &["orchard"]),
        (&["fleet", "pin", "greenhouse", "v"], &["v1.0", "v1.1"]),
        (&["release", "show", "w"], &["w2"]),
        (&["device", "pin", "kitchen", "w"], &["w2"]),
        (&["device", "pin", "--filter", "ring=canary", "v1.1"], &["v1.1"]),
        (&["device", "move", "kitchen", "o"], &["orchard"]),
        (&["env", "set", "--fleet", "o"], &["orchard"]),
        (&["env", "rm", "--fleet", "orchard", "R"], &["RATE"]),
        // What clap knows stays.
        (&["fleet", "track"], &["track-latest"]),
        (&["fleet", "provisioning-key", "revo"], &["revoke"]),
        (&["fleet", "show", "--js"], &["--json"]),
    ];
    for (words, expected) in rows {
        assert_eq!(offered(folder, &url, words), *expected, "{words:?}");
    }
    // No device is there, so the options are offered.
    assert!(offered(folder, &url, &["device", "show", ""]).contains(&"--json".to_owned()));

    server.stop();
    assert!(!offered(folder, &url, &["fleet", "show", ""]).contains(&"orchard".to_owned()));
}

/// A status of two apps that have a service in common.
#[test]
fn bash_offers_services_that_the_agent_knows() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let listener = UnixListener::bind(folder.join("agent.sock")).expect("a socket");
    std::thread::spawn(move || {
        let service = |name: &str| serde_json::json!({ "name": name, "release": "r", "image": "i", "status": "s", "detail": "d", "progress": 5 });
        let app = |names: &[&str]| serde_json::json!({ "uuid": "u", "name": "n", "target": "r", "current": "r", "update": "done", "services": names.iter().map(|name| service(name)).collect::<Vec<_>>() });
        let body = serde_json::json!({
            "schema_version": 1, "version": "v", "instance": "i", "device": { "uuid": "u", "name": "n" },
            "cloud": { "endpoint": "e", "last_contact": null, "next_poll": null, "error": null, "failures": 0, "polls": 0, "warning": null },
            "engine_error": null, "store_error": null, "has_target": true, "is_busy": false, "hold": null, "evidence": [],
            "locks": { "leases": [], "files": [] }, "apps": [app(&["web", "worker"]), app(&["web", "db"])], "waiting": [],
        })
        .to_string();
        for mut stream in listener.incoming().flatten() {
            let (mut head, mut byte) = (Vec::new(), [0]);
            while !head.ends_with(b"\r\n\r\n") && matches!(stream.read(&mut byte), Ok(1)) {
                head.push(byte[0]);
            }
            let head =
                format!("HTTP/1.1 200 x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
            let _ = stream.write_all(&[head.as_bytes(), body.as_bytes()].concat());
        }
    });
    for verb in ["logs", "stop", "start", "restart", "explain"] {
        assert_eq!(offered(folder, "http://127.0.0.1:1", &[verb, "w"]), ["web", "worker"], "{verb}");
        assert_eq!(offered(folder, "http://127.0.0.1:1", &[verb, ""]), ["db", "web", "worker"], "{verb}");
    }
}

#[test]
fn without_an_answer_there_are_no_names_and_no_error() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("none"), "").expect("a file");
    let silent = format!("http://{}", silent.local_addr().expect("its address"));
    for kind in ["fleets", "devices", "releases", "services", "variables"] {
        for url in [&silent, "http://127.0.0.1:1", "nonsense"] {
            let mut command: Command = Program::cotter();
            command.args(["names", kind, "--url", url, "--socket"]).arg(folder.path().join("none"));
            let out = command.env("COTTER_TOKEN", "t").output().expect("it runs");
            assert!(
                out.status.success() && out.stdout.is_empty() && out.stderr.is_empty(),
                "{kind} {url}: {out:?}"
            );
        }
    }
}

//! The device's commands as the binary runs them: one line for what is wrong, and the exit code.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking and reads the real clock"
)]

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};

/// The binary, deaf to the environment of whoever runs the tests.
fn cotter() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cotter"));
    command.env_clear().stdin(Stdio::null());
    command
}

/// Runs it: exit code, and all that it said, with `DIR` in place of `dir`.
#[track_caller]
fn run(mut command: Command, dir: &Path) -> (i32, String) {
    let out = command.output().unwrap();
    let said = [out.stdout, out.stderr].concat();
    let said = String::from_utf8_lossy(&said).replace(&dir.display().to_string(), "DIR");
    (out.status.code().unwrap(), said.trim_end().to_owned())
}

/// A folder for one test, with a short path: sockets live in it.
fn folder() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("cotter-").tempdir_in("/tmp").unwrap()
}

fn write(path: &Path, text: &str, mode: u32) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn settings_that_are_wrong_end_the_agent_with_78_and_a_line() {
    let dir = folder();
    let path = |name: &str| dir.path().join(name);
    write(&path("good.key"), "secret", 0o600);
    write(&path("open.key"), "secret", 0o644);
    write(&path("empty.key"), "\nsecret", 0o600);
    fs::create_dir(path("folder.toml")).unwrap();
    let register = |key: &str| {
        format!(
            "[cloud]\nendpoint = \"http://127.0.0.1:1\"\nfleet = 1\nprovisioning_key_file = \"{}\"",
            path(key).display()
        )
    };
    for (file, printed) in [
        (
            "colour = \"red\"".to_owned(),
            "settings in DIR/agent.toml, line 1 are invalid: unknown field `colour`, expected one of `instance`, `state_dir`, `runtime_dir`, `engine`, `cloud`, `update`, `heal`, `policy`, `limits`, `supervisor_api`, `metrics`, `vpn`, `logs`, `log`",
        ),
        (
            "\n[engine]\nsockte = \"/x\"".to_owned(),
            "settings in DIR/agent.toml, line 3 are invalid: unknown field `sockte`, expected `socket` or `resync`",
        ),
        (
            "[cloud]\nreport_lines = \"one\"".to_owned(),
            "settings in DIR/agent.toml, line 2 are invalid: invalid type: string \"one\", expected a whole number",
        ),
        (
            "[cloud]\nfleet = true".to_owned(),
            "settings in DIR/agent.toml, line 2 are invalid: expected the number or the name of a fleet, found boolean",
        ),
        (
            "[cloud]\npoll_interval = 60".to_owned(),
            "settings in DIR/agent.toml, line 2 are invalid: invalid type: integer `60`, expected a string",
        ),
        (
            "state_dir = 1".to_owned(),
            "settings in DIR/agent.toml, line 1 are invalid: invalid type: integer `1`, expected a string",
        ),
        (
            "[cloud]\npoll_interval = \"soon\"".to_owned(),
            "cloud.poll_interval = \"soon\" is not accepted: it must be a duration such as 15min, from 1s to 1day; it is set in DIR/agent.toml, line 2",
        ),
        (
            "[engine]\nresync = \"1s\"".to_owned(),
            "engine.resync = \"1s\" is not accepted: it must be a duration such as 5min, from 10s to 1day; it is set in DIR/agent.toml, line 2",
        ),
        (
            "instance = \"My Lab\"".to_owned(),
            "instance = \"My Lab\" is not accepted: it must be lower-case letters, digits and '-', at most 32, beginning with a letter or digit; it is set in DIR/agent.toml, line 1",
        ),
        (
            "[update]\nparallel_pulls = 99".to_owned(),
            "update.parallel_pulls = \"99\" is not accepted: it must be a whole number from 1 to 16; it is set in DIR/agent.toml, line 2",
        ),
        (
            "[log]\nlevel = \"loud\"".to_owned(),
            "log.level = \"loud\" is not accepted: it must be error, warn, info, debug or trace, or a filter such as info,cotter::reconcile=debug; it is set in DIR/agent.toml, line 2",
        ),
        (
            "[cloud]\nendpoint = \"fleet.example.com\"".to_owned(),
            "cloud.endpoint = \"fleet.example.com\" is not accepted: it must be a URL with http:// or https://, e.g. https://api.example.com; it is set in DIR/agent.toml, line 2",
        ),
        (
            "[cloud]\nfleet = 1".to_owned(),
            "cloud.fleet and cloud.provisioning_key_file go together; set both or neither",
        ),
        (
            register("open.key"),
            "cloud.provisioning_key_file: key file DIR/open.key cannot be used: other users can read it (mode 644); chmod 600 it; it is set in DIR/agent.toml, line 4",
        ),
        (
            register("no.key"),
            "cloud.provisioning_key_file: key file DIR/no.key cannot be used: No such file or directory (os error 2); write the key into it, with mode 600; it is set in DIR/agent.toml, line 4",
        ),
        (
            register("empty.key"),
            "cloud.provisioning_key_file: key file DIR/empty.key cannot be used: its first line is empty; write the key there; it is set in DIR/agent.toml, line 4",
        ),
    ] {
        write(&path("agent.toml"), &file, 0o644);
        for check in [&["--check"][..], &[]] {
            let mut command = cotter();
            command.args(["agent", "--config"]).arg(path("agent.toml")).args(check);
            assert_eq!(run(command, dir.path()), (78, format!("error: {printed}")), "{file}");
        }
    }
    for (file, printed) in [
        (
            "nowhere.toml",
            "settings file DIR/nowhere.toml cannot be read (No such file or directory (os error 2)); make it readable, or name another file",
        ),
        (
            "folder.toml",
            "settings file DIR/folder.toml cannot be read (it is not a regular file; write the settings into one); make it readable, or name another file",
        ),
    ] {
        let mut command = cotter();
        command.args(["agent", "--config"]).arg(path(file));
        assert_eq!(run(command, dir.path()), (78, format!("error: {printed}")));
    }
    write(&path("agent.toml"), &register("good.key"), 0o644);
    let mut command = cotter();
    command.args(["agent", "--check", "--config"]).arg(path("agent.toml"));
    assert_eq!(run(command, dir.path()), (0, "the settings are fine".to_owned()));
}

#[test]
fn errors_in_flags_and_variables_name_them() {
    let dir = folder();
    let file = dir.path().join("agent.toml");
    write(&file, "", 0o644);
    let agent = |more: &[&str]| {
        let mut command = cotter();
        command.args(["agent", "--check", "--config"]).arg(&file).args(more);
        command
    };
    let (code, said) = run(agent(&["--set", "colour=red"]), dir.path());
    assert_eq!(code, 78);
    assert!(
        said.starts_with("error: settings in --set colour are invalid: there is no such setting; the settings are instance, state_dir, "),
        "{said}"
    );
    assert_eq!(said.lines().count(), 1);
    assert_eq!(
        run(agent(&["--set", "cloud.report_lines=one"]), dir.path()),
        (
            78,
            "error: settings in --set cloud.report_lines are invalid: \"one\" is not a whole number"
                .to_owned()
        )
    );
    let mut command = agent(&[]);
    command.env("COTTER_CLOUD_REPORT_LINES", "one");
    assert_eq!(
        run(command, dir.path()),
        (
            78,
            "error: settings in variable COTTER_CLOUD_REPORT_LINES are invalid: \"one\" is not a whole number"
                .to_owned()
        )
    );
    let (code, said) = run(agent(&["--set", "heal.restarts=101"]), dir.path());
    assert_eq!(code, 78);
    assert!(said.ends_with("from 0 to 100; it is set in --set heal.restarts"), "{said}");
    let (code, said) = run(agent(&["--set", "instance"]), dir.path());
    assert_eq!(code, 2);
    assert!(said.contains("write KEY=VALUE, e.g. instance=lab"), "{said}");
    let mut command = cotter();
    command.arg("agnet");
    let (code, said) = run(command, dir.path());
    assert_eq!(code, 2);
    assert!(said.contains("agnet") && said.contains("'agent'"), "{said}");
}

#[test]
fn folders_that_cannot_be_used_end_the_agent_with_75() {
    let dir = folder();
    write(&dir.path().join("file"), "", 0o600);
    let agent = |setting: &str, other: &str| {
        let mut command = cotter();
        let inside = |key: &str, name: &str| format!("{key}={}", dir.path().join(name).display());
        command.args(["agent", "--set", &inside(setting, "file/in")]);
        command.args(["--set", &inside(other, "good")]);
        command
    };
    let (code, said) = run(agent("state_dir", "runtime_dir"), dir.path());
    assert_eq!((code, said.lines().count()), (75, 1), "{said}");
    assert!(said.starts_with("error: the state folder DIR/file/in "), "{said}");
    let (code, said) = run(agent("runtime_dir", "state_dir"), dir.path());
    assert_eq!((code, said.lines().count()), (75, 1), "{said}");
    assert_eq!(
        said,
        "error: socket DIR/file/in/status.sock cannot be created (Not a directory (os error 20)); is runtime_dir a folder that we may write?"
    );
}

#[test]
fn a_status_that_cannot_be_had_says_why() {
    let dir = folder();
    let socket = dir.path().join("status.sock");
    let status = || {
        let mut command = cotter();
        command.args(["status", "--socket"]).arg(&socket);
        command
    };
    let no_agent = |why: &str| {
        let printed = "is it running? `systemctl status cotter-agent`, or name its socket with --socket";
        (3, format!("error: no agent answers at DIR/status.sock ({why}); {printed}"))
    };
    assert_eq!(run(status(), dir.path()), no_agent("No such file or directory (os error 2)"));
    // What a killed agent leaves.
    drop(UnixListener::bind(&socket).unwrap());
    assert_eq!(run(status(), dir.path()), no_agent("Connection refused (os error 111)"));
    fs::remove_file(&socket).unwrap();

    // Somebody else's socket.
    let listener = UnixListener::bind(&socket).unwrap();
    let other = std::thread::spawn(move || {
        for answer in ["HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}", "nonsense\r\n\r\n"] {
            // The client looks whether it may connect at all, and then asks.
            drop(listener.accept().unwrap());
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 1024]).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
        }
        listener
    });
    let (code, said) = run(status(), dir.path());
    assert_eq!((code, said.lines().count()), (1, 1), "{said}");
    assert!(
        said.starts_with("error: the service at DIR/status.sock is not a cotter agent of this version: "),
        "{said}"
    );
    let (code, said) = run(status(), dir.path());
    assert_eq!((code, said.lines().count()), (3, 1), "{said}");
    let _listener = other.join().unwrap();

    // A socket that others may not use.
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o660)).unwrap();
    let mut stranger = Command::new("setpriv");
    stranger.args(["--reuid=65534", "--regid=65534", "--clear-groups", env!("CARGO_BIN_EXE_cotter")]);
    let is_possible = stranger.arg("--version").output().is_ok_and(|out| out.status.success());
    if !is_possible {
        println!(
            "skipped: only root with setpriv, and a binary that all may run, can try it as another user"
        );
        return;
    }
    let mut stranger = Command::new("setpriv");
    stranger.args(["--reuid=65534", "--regid=65534", "--clear-groups", env!("CARGO_BIN_EXE_cotter")]);
    stranger.args(["status", "--socket"]).arg(&socket);
    assert_eq!(
        run(stranger, dir.path()),
        (4, "error: socket DIR/status.sock may not be used by you; use sudo, or become a member of group cotter".to_owned())
    );
}

#[test]
fn orders_that_cannot_be_given_say_why() {
    let dir = folder();
    let said = |args: &[&str]| {
        let mut command = cotter();
        command.args(args).env("NO_COLOR", "1");
        run(command, dir.path())
    };
    let missing = |what: &str, usage: &str| {
        let printed = "error: the following required arguments were not provided:";
        (2, format!("{printed} {what}; usage: cotter {usage}; try '--help'"))
    };
    for (args, expected) in [
        (&["stop"][..], missing("<SERVICE>", "stop <SERVICE>")),
        (&["lock", "acquire"], missing("--reason <TEXT>", "lock acquire --reason <TEXT>")),
        (&["lock", "renew"], missing("<ID>", "lock renew <ID>")),
        (
            &["lock", "run", "--reason", "r"],
            missing("<COMMAND>...", "lock run --reason <TEXT> -- <COMMAND>..."),
        ),
    ] {
        assert_eq!(said(args), expected, "{args:?}");
    }
    let printed = "error: invalid value 'yesterday' for '--since <TIME>': write a time such as 2026-12-01T08:00:00Z, or how \
                long ago, such as 10min; try '--help'";
    assert_eq!(said(&["logs", "web", "--since", "yesterday"]), (2, printed.to_owned()));
    let printed =
        "error: invalid value '10001' for '--tail <LINES>': 10001 is not in 0..=10000; try '--help'";
    assert_eq!(said(&["logs", "web", "--tail", "10001"]), (2, printed.to_owned()));
    let printed = "error: unrecognized subcommand 'stauts'; tip: some similar subcommands exist: 'audit', 'restart', 'start', 'status'; \
                usage: cotter <COMMAND>; try '--help'";
    assert_eq!(said(&["stauts"]), (2, printed.to_owned()));
    let (code, help) = said(&[]);
    assert!(code == 2 && help.contains("\n\nUsage: cotter <COMMAND>\n\nStart here:\n"), "{help}");
    for ttl in ["0s", "1500ms", "25h", "10", "soon"] {
        let printed = format!(
            "error: invalid value '{ttl}' for '--ttl <DURATION>': write a duration such as 10min, from 1s to \
             24h; try '--help'"
        );
        assert_eq!(said(&["lock", "acquire", "--reason", "r", "--ttl", ttl]), (2, printed));
    }
    let socket = dir.path().join("none.sock");
    let socket = socket.to_str().unwrap();
    let printed = "error: no agent answers at DIR/none.sock (No such file or directory (os error 2)); is it running? \
                `systemctl status cotter-agent`, or name its socket with --socket";
    for args in [
        &["stop", "db"][..],
        &["start", "db"],
        &["restart", "db", "--force"],
        &["update", "--force"],
        &["lock", "acquire", "--reason", "r"],
        &["lock", "renew", "a"],
        &["lock", "release", "a"],
        &["lock", "list"],
        &["logs", "web"],
        &["logs", "web", "--follow", "--since", "10min"],
    ] {
        assert_eq!(said(&[args, &["--socket", socket]].concat()), (3, printed.to_owned()), "{args:?}");
    }
    assert_eq!(
        said(&["lock", "run", "--reason", "r", "--socket", socket, "--", "true"]),
        (3, printed.to_owned())
    );
}

#[test]
fn the_help_of_lock_run_says_what_becomes_of_the_command() {
    let dir = folder();
    let mut command = cotter();
    command.args(["lock", "run", "--help"]).env("NO_COLOR", "1");
    let (code, said) = run(command, dir.path());
    assert_eq!(code, 0);
    let begins = "Locks updates while a command runs, and ends with the command's exit code\n";
    let ends = "\nExample: cotter lock run --reason backup -- /usr/local/bin/backup --full";
    assert!(said.starts_with(begins) && said.ends_with(ends), "{said}");
    assert!(said.contains("Usage: cotter lock run [OPTIONS] --reason <TEXT> -- <COMMAND>..."), "{said}");
}

#[test]
fn settings_are_shown_with_their_origin_and_checked() {
    let dir = folder();
    let path = |name: &str| dir.path().join(name);
    write(&path("agent.toml"), "instance = \"lab\"\n[cloud]\nendpoint = \"https://a.example\"\n", 0o600);
    fs::create_dir(path("agent.d")).unwrap();
    write(&path("agent.d/10-key.toml"), "[cloud]\nfleet = 7\nprovisioning_key_file = \"/k\"\n", 0o600);
    let mut command = cotter();
    command.args(["config", "show", "--config"]).arg(path("agent.toml"));
    command.args(["--set", "update.soak=1s"]).env("COTTER_ENGINE_RESYNC", "1min");
    let (code, said) = run(command, dir.path());
    assert_eq!(code, 0);
    let begins = "\
SETTING                      VALUE                 FROM
instance                     lab                   DIR/agent.toml, line 1
state_dir                    /var/lib/cotter       default
runtime_dir                  /run/cotter           default
engine.socket                /var/run/docker.sock  default
engine.resync                1min                  variable COTTER_ENGINE_RESYNC
cloud.endpoint               https://a.example     DIR/agent.toml, line 3
cloud.fleet                  7                     DIR/agent.d/10-key.toml, line 2
cloud.provisioning_key_file  /k                    DIR/agent.d/10-key.toml, line 3
cloud.uuid                   -                     default
";
    assert!(said.starts_with(begins), "{said}");
    assert!(
        said.contains("update.soak                  1s                    --set update.soak\n"),
        "{said}"
    );

    let mut command = cotter();
    command.args(["config", "show", "--json", "--config"]).arg(path("agent.toml"));
    let (code, said) = run(command, dir.path());
    let document: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, &document["schema_version"]), (0, &1.into()));
    let fleet = serde_json::json!({ "key": "cloud.fleet", "value": "7", "from": "DIR/agent.d/10-key.toml", "line": 2 });
    assert!(document["settings"].as_array().unwrap().contains(&fleet), "{said}");

    let check = |name: &str| {
        let mut command = cotter();
        command.args(["config", "check"]).arg(path(name));
        run(command, dir.path())
    };
    let printed = "error: cloud.provisioning_key_file: key file /k cannot be used: No such file or directory (os error 2); \
                write the key into it, with mode 600; it is set in DIR/agent.d/10-key.toml, line 3";
    assert_eq!(check("agent.toml"), (78, printed.to_owned()));
    fs::remove_dir_all(path("agent.d")).unwrap();
    let nowhere = "error: cloud.endpoint is set, but this device is not known to any cloud yet; set cloud.fleet and \
                   cloud.provisioning_key_file, or cloud.uuid and cloud.device_key_file";
    assert_eq!(check("agent.toml"), (78, nowhere.to_owned()));
    write(&path("device.key"), "key\n", 0o600);
    let known =
        format!("uuid = \"{}\"\ndevice_key_file = \"{}\"\n", "0".repeat(32), path("device.key").display());
    write(&path("plain.toml"), &format!("[cloud]\nendpoint = \"http://fleet.example\"\n{known}"), 0o600);
    let warning = "warning: http://fleet.example: this device's key goes there in the clear; \
                   put TLS before the cloud and set an https:// address";
    assert_eq!(check("plain.toml"), (0, format!("the settings are fine\n{warning}")));
    let mut command = cotter();
    command.args(["agent", "--check", "--config"]).arg(path("plain.toml"));
    assert_eq!(run(command, dir.path()), (0, format!("the settings are fine\n{warning}")));
    let mut command = cotter();
    command.args(["config", "check", "--config"]).arg(path("plain.toml")).args(["--set", "update.soak=long"]);
    let (code, said) = run(command, dir.path());
    assert!(code == 78 && said.contains("update.soak"), "{said}");
    write(&path("zone.toml"), "[update]\nwindows = \"02:00-04:00 Europe/Zurihc\"\n", 0o600);
    let (code, said) = check("zone.toml");
    assert!(code == 78 && said.contains("Europe/Zurihc is none"), "{said}");
    let (code, said) = check("none.toml");
    assert_eq!((code, said.lines().count()), (78, 1), "{said}");
}

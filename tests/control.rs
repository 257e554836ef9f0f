//! The operator's orders on the real binary: command line, control socket, agent, store. No engine
//! answers here, and none is needed.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::io::{Read, Write};
use std::net::TcpListener;

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::Value;
use support::{Program, eventually, unix_get};

/// An agent without an engine, and without a cloud unless it is given one.
struct Alone {
    // Dropped first: its log is shown when a test fails.
    program: Option<Program>,
    folder: tempfile::TempDir,
}

impl Alone {
    fn new() -> Self {
        Self::with("")
    }

    /// With these settings, too; `DIR` in them is its folder.
    fn with(settings: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let dir = folder.path().display();
        let settings = format!(
            "instance = \"alone\"\nstate_dir = \"{dir}/state\"\nruntime_dir = \"{dir}/run\"\n\n[engine]\nsocket = \"{dir}/none.sock\"\n{}",
            settings.replace("DIR", &dir.to_string())
        );
        let key = folder.path().join("key");
        std::fs::write(&key, "0123456789abcdef0123456789abcdef").expect("a key");
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).expect("its mode");
        std::fs::write(folder.path().join("agent.toml"), settings).expect("the settings can be written");
        let mut alone = Self { program: None, folder };
        alone.start();
        alone
    }

    fn start(&mut self) {
        let mut command = Program::cotter();
        command.arg("agent").arg("--config").arg(self.path("agent.toml"));
        self.program = Some(Program::start("agent", command, &self.path("agent.log")));
        eventually("an agent that answers", Duration::from_secs(10), || self.status());
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn status(&self) -> Option<Value> {
        Some(unix_get(&self.path("run/status.sock"), "/v1/status")?.json())
    }

    /// Exit code, and what was said on either stream.
    fn order(&self, args: &[&str]) -> (Option<i32>, String) {
        self.cli("run/control.sock", args)
    }

    fn cli(&self, socket: &str, args: &[&str]) -> (Option<i32>, String) {
        let output = Program::cotter().args(args).arg("--socket").arg(self.path(socket)).output();
        let output = output.expect("the binary runs");
        let told = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(told).expect("text").trim_end().to_owned())
    }
}

fn done(told: &str) -> (Option<i32>, String) {
    (Some(0), told.to_owned())
}

#[test]
fn a_hold_is_shown_and_outlives_the_agent() {
    let mut alone = Alone::new();
    let held = done("the device is held: nothing is swapped until `cotter unhold`");
    assert_eq!(alone.order(&["hold", "--reason", "audit\nof today"]), held);
    let hold = alone.status().expect("a status")["hold"].clone();
    assert_eq!(hold["reason"], "audit of today");
    let since = hold["since"].as_str().expect("a time").to_owned();
    assert!(since.ends_with('Z') && since.len() == 20, "{since}");

    // A power cut, then an orderly end.
    alone.program.take().expect("it runs").cut();
    alone.start();
    assert!(alone.program.take().expect("it runs").stop().success());
    alone.start();
    assert_eq!(alone.status().expect("a status")["hold"], hold);
    let (code, shown) = alone.cli("run/status.sock", &["status"]);
    assert_eq!(code, Some(0));
    assert!(shown.contains(&format!("since {since}: audit of today")), "{shown}");

    let (code, told) = alone.order(&["rollback"]);
    assert_eq!(code, Some(11), "{told}");
    assert!(told.contains("audit of today"), "{told}");
    assert_eq!(
        alone.order(&["unhold"]),
        done(&format!("the device is not held any more (it was since {since})"))
    );
    assert_eq!(alone.order(&["unhold"]), done("the device was not held"));
    assert_eq!(alone.status().expect("a status")["hold"], Value::Null);
}

#[test]
fn orders_that_change_nothing_say_so() {
    let mut alone = Alone::new();
    let mode = std::fs::metadata(alone.path("run/control.sock")).expect("a socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(alone.order(&["retry"]), done("nothing to retry"));
    let (code, told) = alone.order(&["retry", "--app", "web"]);
    assert_eq!((code, told.ends_with("this device has no app web")), (Some(5), true), "{told}");
    let (code, told) = alone.order(&["rollback"]);
    assert_eq!((code, told.contains("what could be gone back to is not known")), (Some(21), true), "{told}");
    let (code, told) = alone.order(&["update"]);
    assert_eq!((code, told.ends_with("no cloud is set that could be asked")), (Some(21), true), "{told}");
    let (code, told) = alone.order(&["hold", "--reason", &"x".repeat(201)]);
    assert_eq!((code, told.lines().count()), (Some(2), 1), "{told}");
    assert_eq!(alone.status().expect("a status")["hold"], Value::Null);
    alone.program.take().expect("it runs").cut();
    let (code, told) = alone.order(&["unhold"]);
    assert_eq!((code, told.lines().count()), (Some(3), 1), "{told}");
}

/// A cloud that has no news, and how often it was polled.
fn cloud_without_news() -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let polls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&polls);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut head = [0; 4096];
            let read = stream.read(&mut head).unwrap_or(0);
            if head[..read].starts_with(b"GET /device/v3/") {
                counted.fetch_add(1, Ordering::SeqCst);
            }
            // Who hangs up early gets no answer.
            let _ = stream.write_all(b"HTTP/1.1 304 Not Modified\r\nconnection: close\r\n\r\n");
        }
    });
    (format!("http://{address}"), polls)
}

#[test]
fn an_update_asks_the_cloud_at_once() {
    let (endpoint, polls) = cloud_without_news();
    let uuid = "0123456789abcdef0123456789abcdef";
    let alone = Alone::with(&format!(
        "\n[cloud]\nendpoint = \"{endpoint}\"\nuuid = \"{uuid}\"\ndevice_key_file = \"DIR/key\"\npoll_interval = \"1h\"\n"
    ));
    let until = |count| {
        let look = || (polls.load(Ordering::SeqCst) >= count).then_some(());
        eventually(&format!("poll {count}"), Duration::from_secs(10), look);
    };
    until(1);
    for count in 2..=3 {
        // The answer to the last poll may be on its way; an order in that time is not lost.
        assert_eq!(alone.order(&["update"]), done("the cloud is asked for the target now"));
        until(count);
    }
    support::stays("polls", Duration::from_secs(1), || polls.load(Ordering::SeqCst));
    assert_eq!(polls.load(Ordering::SeqCst), 3);
}

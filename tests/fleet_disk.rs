//! A real fleet server on a disk that is full, and is not full any more.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use support::{FleetServer, Program, eventually};

/// A small disk in memory; `None` where this user may not mount one.
struct Disk(PathBuf);

impl Disk {
    fn mount(at: &Path) -> Option<Self> {
        fs::create_dir(at).unwrap();
        let mut mount = Command::new("mount");
        let mounted = mount.args(["-t", "tmpfs", "-o", "size=8m,mode=700", "tmpfs"]).arg(at).output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Self(at.to_owned()));
        }
        assert!(std::env::var_os("COTTER_SKIP_NOTHING").is_none(), "this user may mount no disk in memory");
        let _unseen =
            writeln!(std::io::stderr(), "skipped: a full disk: this user may mount no disk in memory");
        None
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _gone = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

fn status(server: &FleetServer, path: &str) -> String {
    let url = format!("{}{path}", server.url);
    let output =
        Command::new("curl").args(["-s", "-o", "/dev/null", "-w", "%{http_code}", &url]).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn on_a_full_disk_acts_fail_and_are_undone_and_polls_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("disk");
    let Some(_disk) = Disk::mount(&place) else { return };
    let mut server = FleetServer::start_in(&place, Vec::new());
    server.cli(&["fleet", "create", "lab"]);
    assert_eq!(
        (status(&server, "/healthz"), status(&server, "/readyz")),
        ("200".to_owned(), "200".to_owned())
    );

    // All that is left, after the backup of yesterday.
    let here = place.join("backup.jsonl");
    fs::write(&here, "the one before").unwrap();
    let filler = place.join("filler");
    let mut file = File::create(&filler).unwrap();
    while file.write_all(&[1; 4096]).is_ok() {}
    drop(file);
    let create = |n: usize| server.try_cli(&["fleet", "create", &format!("more-{n}")]);
    let refused = (0..200).find_map(|n| Some((n, create(n))).filter(|(_, output)| !output.status.success()));
    let (first, output) = refused.expect("a full disk is noticed");
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && words.contains("could not write its records"), "{words}");
    assert_eq!(
        (status(&server, "/healthz"), status(&server, "/readyz")),
        ("200".to_owned(), "503".to_owned())
    );
    assert_eq!(
        status(&server, "/device/v3/00000000000000000000000000000001/state"),
        "304",
        "polls are answered"
    );
    let fleets = |server: &FleetServer| server.cli(&["fleet", "list"]).matches("more-").count();
    assert_eq!(fleets(&server), first, "what failed is not there");
    assert!(!server.try_cli(&["fleet", "create", "lab"]).status.success(), "there is one");
    assert_eq!(status(&server, "/readyz"), "503", "an act that writes nothing shows nothing");

    // What only reads goes on.
    let trail = server.cli(&["audit", "--limit", "1000"]);
    assert!(trail.contains("more-0"), "{trail}");
    let backup = |file: &Path| {
        let mut command = Command::new(Program::fleet_binary());
        command
            .arg("backup")
            .arg(file)
            .args(["--url", &server.url])
            .arg("--token-file")
            .arg(server.token_file());
        command.output().unwrap()
    };
    let elsewhere = dir.path().join("backup.jsonl");
    let output = backup(&elsewhere);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let copied = fs::read_to_string(&elsewhere).unwrap();
    assert!(copied.contains(&format!("more-{}", first - 1)), "all that was acknowledged is in it");

    // A backup on a full disk fails, says so, and leaves the one before as it is.
    let output = backup(&here);
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1), "{words}");
    assert!(words.contains("cannot write ") && words.contains("No space left on device"), "{words}");
    assert_eq!(fs::read_to_string(&here).unwrap(), "the one before");
    let left =
        fs::read_dir(&place).unwrap().filter_map(|entry| entry.unwrap().file_name().into_string().ok());
    assert_eq!(left.filter(|name| name.contains("unfinished")).count(), 0);

    // With room again, it goes on by itself, and all that was acknowledged is there after a restart, too.
    fs::remove_file(&filler).unwrap();
    eventually("it is ready without an act", Duration::from_secs(60), || {
        (status(&server, "/readyz") == "200").then_some(())
    });
    server.cli(&["fleet", "create", "more-again"]);
    assert_eq!(fleets(&server), first + 1);
    server.cut();
    server.start_again();
    assert_eq!(fleets(&server), first + 1);
}

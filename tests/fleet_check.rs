//! `cotter-fleet serve --check` on the real binary: it says what a server would do, and changes nothing.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use support::{FleetServer, Program};

fn check(dir: &Path, more: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(Program::fleet_binary());
    command.args(["serve", "--check", "--data-dir"]).arg(dir).args(more);
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (status.code(), text(&stdout), text(&stderr))
}

#[test]
fn settings_certificate_and_records_are_checked() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path().join("fleet");
    let (code, said, _) = check(&dir, &["--listen", "127.0.0.1:7301"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("http://127.0.0.1:7301") && said.contains("which it creates"), "{said}");
    assert!(said.contains("there are none yet") && !dir.exists(), "{said}");

    for (more, why) in [
        (&["--listen", "nowhere"][..], "listen = \"nowhere\" is not an address"),
        (&["--listen", "0.0.0.0:7300"], "has no TLS"),
        (&["--tls-cert", "/none.pem", "--tls-key", "/none.key"], "/none.pem"),
        (&["--poll-interval", "never"], "poll_interval"),
    ] {
        let (code, _, said) = check(&dir, more);
        assert!(code == Some(78) && said.contains(why), "{more:?}: {code:?}: {said}");
    }

    let mut server = FleetServer::start_in(place.path(), Vec::new());
    server.cli(&["fleet", "create", "lab"]);
    let (code, said, _) = check(&dir, &[]);
    assert!(code == Some(0) && said.contains("a server that runs has them open"), "{said}");
    server.cli(&["fleet", "create", "site"]);
    server.cut();
    let before = fs::read(dir.join("records")).unwrap();
    let (code, said, _) = check(&dir, &[]);
    assert!(code == Some(0) && said.contains("they were not closed"), "{said}");
    assert!(fs::read(dir.join("records")).unwrap() == before, "nothing is written");

    server.start_again();
    server.stop();
    // Two fleets with a key each, the counters, and what else there is.
    let (code, said, _) = check(&dir, &[]);
    let count = said.lines().find_map(|line| line.rsplit_once("records: ")?.1.parse::<u64>().ok());
    assert!(code == Some(0) && count.is_some_and(|count| count >= 5), "{said}");
    fs::write(dir.join("records"), "what is this").unwrap();
    let (code, _, said) = check(&dir, &[]);
    assert!(code == Some(1) && said.contains("are damaged"), "{code:?}: {said}");
    fs::remove_file(dir.join("records")).unwrap();
    let (code, _, said) = check(&dir, &[]);
    assert!(code == Some(1) && said.contains("they are gone, and were not empty"), "{code:?}: {said}");
}

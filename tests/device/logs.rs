//! What services write, read through the agent.

use std::time::Duration;

use crate::support::{Agent, FleetServer, Lab, Program, eventually};
use crate::{release, until_done};

#[test]
fn a_log_is_read_and_followed_over_a_swap() {
    let lab = Lab::new("logs");
    let server = FleetServer::start(&lab);
    let fleet = server.create_fleet(&lab, "f");
    release(&lab, &server, &fleet, "one", &[("db", "r1"), ("web", "r1")]);
    let mut agent = Agent::start(&lab, &server, &fleet, "a");
    agent.until_serves("web", "one", "r1");
    until_done(&agent, "one");
    let said = |args: &[&str]| {
        let output = agent.cli(&[&["logs"], args].concat());
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(said).expect("text"))
    };

    let began = (Some(0), "release r1 of web begins\n".to_owned());
    assert_eq!(said(&["web"]), began);
    assert_eq!(said(&["web", "--app", "f", "--tail", "5", "--since", "1h"]), began);
    assert_eq!(said(&["web", "--tail", "0"]), (Some(0), String::new()));
    // The engine's clock ends in 2038.
    let (code, answer) = said(&["web", "--since", "2099-01-01T00:00:00Z"]);
    assert_eq!(
        (code, answer.contains("write a time such as 2026-12-01T08:00:00Z")),
        (Some(2), true),
        "{answer}"
    );
    let answer = "error: service wbe has no container here; these have: db, web\n";
    assert_eq!(said(&["wbe"]), (Some(5), answer.to_owned()));
    assert_eq!(
        said(&["web", "--app", "g"]),
        (Some(5), "error: this device has no app g; `cotter status` names its apps\n".to_owned())
    );

    // A reader that follows sees what the successor writes, and the predecessor's lines once.
    let mut command = Program::cotter();
    command.args(["logs", "web", "--follow", "--socket"]).arg(agent.dir().join("run/status.sock"));
    let mut reader = Program::start("the reader", command, &lab.dir().join("followed"));
    let followed = |reader: &Program, line: &str| {
        eventually(line, Duration::from_secs(20), || reader.log().contains(line).then_some(()));
    };
    followed(&reader, "release r1 of web begins\n");
    // One that goes away is no harm, and makes room for others.
    for _ in 0..12 {
        let mut command = Program::cotter();
        command.args(["logs", "db", "-f", "--socket"]).arg(agent.dir().join("run/status.sock"));
        let gone = Program::start("a reader that goes", command, &lab.dir().join("gone"));
        followed(&gone, "release r1 of db begins\n");
        gone.cut();
        std::fs::remove_file(lab.dir().join("gone")).expect("its output");
    }
    release(&lab, &server, &fleet, "two", &[("db", "r1"), ("web", "r2")]);
    agent.until_serves("web", "two", "r2");
    followed(&reader, "release r2 of web begins\n");
    let lines = reader.log();
    assert_eq!(lines, "release r1 of web begins\nrelease r2 of web begins\n");

    // The agent does not wait for readers when it ends.
    assert!(agent.stop().success());
    assert!(!agent.log().contains("did not end in time"), "{}", agent.log());
    eventually("the reader ends", Duration::from_secs(10), || reader.has_ended().then_some(()));
    assert!(!reader.is_running());
}

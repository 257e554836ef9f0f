//! What services write reaches the cloud: real agents and a real engine, a stand-in of balena's log endpoint, and our own fleet
//! server.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "helpers of tests; a test fails by panicking"
)]

mod support;

#[path = "faults/engine.rs"]
#[allow(dead_code, reason = "this test uses a part of it")]
mod engine;

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use engine::PrivateEngine;
use serde_json::{Value, json};
use support::{Agent, EngineProxy, FakeCloud, FleetServer, Lab, Parts, Program, eventually, stays};

const APP: &str = "0123456789abcdef0123456789abcdef";

/// Longest time for a line to arrive, with the pull of an image and the grace of a new stream.
const PATIENCE: Duration = Duration::from_secs(60);

/// Writes a line every 50 ms: `line 1`, `line 2`, ...
const COUNTS: &str = "i=0; while sleep 0.05; do i=$((i+1)); echo line $i; done";

/// A service that runs a script of a shell, and writes through the engine's driver.
fn shell(lab: &Lab, number: u64, script: &str, level: &str) -> Value {
    let composition = json!({
        "entrypoint": ["/busybox", "sh", "-c", script],
        "volumes": ["/usr/bin/busybox:/busybox:ro"],
        "environment": {"BALENA_LOGS_LEVEL": level, "PATH": "/"},
        "stop_grace_period": "1s",
    });
    json!({
        "id": number, "image_id": number, "image": lab.image("r1"), "environment": {},
        "labels": {"io.cotter.trial.soak": "0s"}, "composition": composition,
    })
}

fn apps(commit: &str, services: &[(&str, Value)]) -> Value {
    let services: serde_json::Map<_, _> =
        services.iter().map(|(name, service)| ((*name).to_owned(), service.clone())).collect();
    let release = json!({ "id": 1, "services": services, "networks": {}, "volumes": {} });
    json!({ APP: { "id": 1, "name": "shop", "class": "fleet", "releases": { commit: release } } })
}

/// An agent of a stand-in.
fn agent<'lab>(lab: &'lab Lab, cloud: &FakeCloud) -> Agent<'lab> {
    let mut agent = Agent::prepare(lab, &cloud.url, &cloud.fleet(lab), "a");
    agent.set("policy.host_paths=/usr/bin/busybox");
    agent.start_again();
    agent
}

/// Asserts that these are `line 1`, `line 2` and so on.
#[track_caller]
fn assert_complete(lines: &[String]) {
    for (at, line) in lines.iter().enumerate() {
        let near = &lines[at.saturating_sub(3)..(at + 3).min(lines.len())];
        assert_eq!(*line, format!("line {}", at + 1), "near {near:?}");
    }
}

#[track_caller]
fn until_lines(cloud: &FakeCloud, service: u64, count: usize) -> Vec<String> {
    let what = format!("{count} lines of service {service}");
    eventually(&what, PATIENCE, || {
        let lines = cloud.logs(|logs| logs.of(Some(service)));
        (lines.len() >= count).then_some(lines)
    })
}

/// The page of metrics of a server.
fn metrics(server: &FleetServer) -> String {
    let token = std::fs::read_to_string(server.token_file()).expect("its token");
    let mut stream = TcpStream::connect(server.url.trim_start_matches("http://")).expect("it listens");
    let token = token.trim();
    let head = format!(
        "GET /metrics HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).expect("it reads");
    let mut page = String::new();
    stream.read_to_string(&mut page).expect("it answers");
    page
}

#[test]
fn a_balena_cloud_gets_each_line_once_also_over_restarts_of_the_agent() {
    let lab = Lab::new("logs-cloud");
    let cloud = FakeCloud::start();
    let long = "printf '%20000s\\n' x; printf 'a\\000b\\377\\n'; echo to stderr >&2; echo; exec sleep 1000";
    let services = [
        ("counter", shell(&lab, 40, COUNTS, "")),
        ("errors", shell(&lab, 41, "while sleep 0.2; do echo no; echo yes >&2; done", "error")),
        ("quiet", shell(&lab, 42, "while sleep 0.2; do echo no; done", "none")),
        ("odd", shell(&lab, 43, long, "all")),
    ];
    cloud.target("1", &apps("one", &services));
    let mut agent = agent(&lab, &cloud);
    until_lines(&cloud, 40, 40);
    // A restart in the middle.
    assert!(agent.stop().success());
    let before = cloud.logs(|logs| (logs.of(Some(40)).len(), logs.complete));
    assert_eq!(before.1, 1, "the stream was ended, not cut");
    std::thread::sleep(Duration::from_secs(1));
    agent.start_again();
    let lines = until_lines(&cloud, 40, before.0 + 60);
    assert_complete(&lines);

    cloud.logs(|logs| {
        assert_eq!(logs.wrong, Vec::<String>::new());
        assert!(logs.begun.iter().all(|(_, head)| !head.contains("content-length")));
        let errors = logs.of(Some(41));
        assert!(!errors.is_empty() && errors.iter().all(|line| line == "yes"), "{errors:?}");
        assert_eq!(logs.of(Some(42)), Vec::<String>::new());
        let odd = logs.of(Some(43));
        assert_eq!(odd.len(), 4, "{odd:?}");
        // The engine reads output and errors one after the other.
        let (long, rest): (Vec<_>, Vec<_>) = odd.iter().partition(|line| line.ends_with("[...]"));
        assert_eq!(long.iter().map(|line| line.chars().count()).collect::<Vec<_>>(), [10_000]);
        let rest: BTreeSet<_> = rest.into_iter().map(String::as_str).collect();
        assert_eq!(rest, BTreeSet::from(["", "a\u{0}b\u{fffd}", "to stderr"]));
        let lines = logs.lines.iter().map(|(_, line)| line).filter(|line| line["serviceId"] == 43);
        assert!(lines.clone().all(|line| line["isStdErr"] == (line["message"] == "to stderr")));
        let own = logs.of(None);
        let has = |begin: &str| own.iter().any(|line| line.starts_with(begin));
        assert!(
            has("Supervisor starting")
                && has("Installed service 'counter ")
                && has("Started service 'counter "),
            "{own:?}"
        );
    });

    // The container is replaced: the last lines of the old one and all of the new one.
    let services = [("counter", shell(&lab, 40, "echo again; exec sleep 1000", ""))];
    cloud.target("2", &apps("two", &services));
    let mut lines = eventually("the next container", PATIENCE, || {
        let lines = cloud.logs(|logs| logs.of(Some(40)));
        lines.contains(&"again".to_owned()).then_some(lines)
    });
    assert_eq!(lines.pop().as_deref(), Some("again"));
    assert_complete(&lines);
    // The cloud turns it off.
    let body = json!({ "UUID": { "name": "fake", "config": {"BALENA_SUPERVISOR_LOG_CONTROL": "false"},
        "apps": apps("three", &[("counter", shell(&lab, 40, COUNTS, ""))]) } });
    cloud.say(support::Reply {
        status: 200,
        headers: vec![("ETag", "\"3\"".to_owned())],
        body: body.to_string(),
    });
    eventually("release three runs", PATIENCE, || {
        let running = agent.running();
        running.iter().any(|container| container.release() == "three").then_some(())
    });
    stays("nothing is uploaded", Duration::from_secs(2), || cloud.logs(|logs| logs.of(Some(40)).len()));
}

#[test]
fn a_cloud_that_ends_each_stream_at_once_is_asked_less_and_less_and_nothing_is_lost() {
    let lab = Lab::new("logs-refused");
    let cloud = FakeCloud::start();
    cloud.logs(|logs| logs.refuses = Some(503));
    cloud.target("1", &apps("one", &[("counter", shell(&lab, 40, COUNTS, ""))]));
    let agent = agent(&lab, &cloud);
    let times = eventually("three streams", PATIENCE, || {
        let times: Vec<_> = cloud.logs(|logs| logs.begun.iter().map(|(at, _)| *at).collect());
        (times.len() >= 3).then_some(times)
    });
    assert!(times[1] - times[0] >= Duration::from_secs(5), "{times:?}");
    assert!(times[2] - times[1] >= Duration::from_secs(10), "{times:?}");
    assert!(agent.log().contains("logs are not uploaded now"), "{}", agent.log());
    // 300 lines and more wait: some in the buffer, the others with the engine.
    cloud.logs(|logs| logs.refuses = None);
    assert_complete(&until_lines(&cloud, 40, 400));
}

#[test]
fn a_flood_is_bounded_and_takes_no_room_of_others() {
    let lab = Lab::new("logs-flood");
    let cloud = FakeCloud::start();
    let flood = "exec /busybox yes 'a line of a flood, which has some sixty characters in all'";
    let services = [
        ("flood", shell(&lab, 50, flood, "")),
        ("endless", shell(&lab, 51, "exec /busybox tr '\\\\n' x < /dev/zero", "")),
        ("counter", shell(&lab, 40, COUNTS, "")),
    ];
    cloud.target("1", &apps("one", &services));
    let mut agent = agent(&lab, &cloud);
    let lines = until_lines(&cloud, 40, 300);
    assert_complete(&lines);
    let (flood, own) = cloud.logs(|logs| (logs.of(Some(50)).len(), logs.of(None)));
    assert!((1000..=5000).contains(&flood), "{flood}");
    let gap = "Suppressed messages of service 'flood' due to high load";
    assert!(own.iter().any(|line| line.starts_with(gap)), "{own:?}");
    let peak = std::fs::read_to_string(format!("/proc/{}/status", agent.program().id())).expect("its status");
    let peak = peak.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("its peak").trim().to_owned();
    let kib: u64 = peak.trim_end_matches(" kB").parse().expect("a number");
    assert!(kib < 80 << 10, "the agent took {peak}");
    // It is still the agent's cloud that decides.
    cloud.target("2", &apps("two", &[("counter", shell(&lab, 40, "echo again; exec sleep 1000", ""))]));
    eventually("the swap", PATIENCE, || {
        let lines = cloud.logs(|logs| logs.of(Some(40)));
        lines.contains(&"again".to_owned()).then_some(())
    });
}

#[test]
fn an_operator_follows_a_device_of_our_own_server() {
    let lab = Lab::new("logs-fleet");
    let mut server = FleetServer::start(&lab);
    let fleet = server.create_fleet(&lab, "shop");
    let image = lab.image("r1");
    let service = |script: &str| {
        format!(
            "    image: {image}\n    entrypoint: [/busybox, sh, -c, {script:?}]\n    volumes: ['/usr/bin/busybox:/busybox:ro']\n    environment: {{PATH: /}}\n    stop_grace_period: 1s\n"
        )
    };
    let (counter, other) =
        (service(&COUNTS.replace('$', "$$")), service("while sleep 0.3; do echo other; done"));
    let text = format!("services:\n  counter:\n{counter}  other:\n{other}");
    server.create_release(&fleet, "one", &lab.file("compose.yml", &text));
    let mut agent = Agent::prepare(&lab, &server.url, &fleet, "a");
    agent.set("policy.host_paths=/usr/bin/busybox");
    agent.start_again();
    eventually("it runs", PATIENCE, || (agent.running().len() == 2).then_some(()));
    // Nobody asks.
    std::thread::sleep(Duration::from_secs(8));
    let kept = server.data_dir().join("logs");
    assert_eq!(std::fs::read_dir(&kept).expect("the folder").count(), 0);
    assert!(metrics(&server).contains("cotter_fleet_log_streams 0"));

    let said = server.cli(&["device", "logs", "a", "counter"]);
    let lines: Vec<_> = said.lines().filter_map(|line| Some(line.split_once(" counter: ")?.1)).collect();
    assert!(lines.len() > 50, "{said}");
    assert!(!said.contains("other") || !said.contains(" other: "), "{said}");
    let json = server.cli(&["device", "logs", "a", "--lines", "5", "--json"]);
    assert_eq!(json.lines().count(), 5);
    assert!(
        json.lines().all(|line| serde_json::from_str::<Value>(line).is_ok_and(|line| line["at"].is_string()))
    );

    let mut command = Program::cotter();
    command.args(["device", "logs", "a", "counter", "-f", "--lines", "10000"]);
    command.env("COTTER_FLEET_URL", &server.url).env("COTTER_TOKEN_FILE", server.token_file());
    let reader = Program::start("the reader", command, &lab.dir().join("followed"));
    let followed = |reader: &Program| -> Vec<String> {
        let log = reader.log();
        log.lines().filter_map(|line| Some(line.split_once(" counter: ")?.1.to_owned())).collect()
    };
    let count = eventually("lines", PATIENCE, || Some(followed(&reader).len()).filter(|count| *count > 100));
    // The agent restarts, and the reader misses nothing.
    assert!(agent.stop().success());
    agent.start_again();
    let lines = eventually("more lines", PATIENCE, || {
        let lines = followed(&reader);
        (lines.len() > count + 200).then_some(lines)
    });
    assert_complete(&lines);
    assert!(metrics(&server).contains("cotter_fleet_log_streams 1"));
    // The server stops although a device streams and an operator follows, and keeps what it has.
    server.stop();
    server.start_again();
    assert!(std::fs::read_dir(&kept).expect("the folder").count() >= 1);
    // With the device its logs go.
    server.cli(&["device", "delete", "a", "--yes"]);
    eventually("the files are gone", PATIENCE, || {
        (std::fs::read_dir(&kept).expect("the folder").count() == 0).then_some(())
    });
}

/// The engine is restarted, and then killed, while containers go on.
#[test]
fn lines_arrive_once_over_restarts_of_the_engine_which_is_not_asked_in_a_loop() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root can start an engine of its own");
        return;
    }
    let mut engine = PrivateEngine::start_with(&Parts::ensure().docker, &["--live-restore"]);
    let mut lab = Lab::new("logs-engine");
    lab.parts.docker = engine.docker().clone();
    let socket = lab.dir().join("engine.sock");
    let proxy = EngineProxy::start(engine.docker().socket(), &socket);
    let cloud = FakeCloud::start();
    cloud.target("1", &apps("one", &[("counter", shell(&lab, 40, COUNTS, ""))]));
    let mut agent = Agent::prepare(&lab, &cloud.url, &cloud.fleet(&lab), "a");
    agent.set("policy.host_paths=/usr/bin/busybox");
    agent.set(&format!("engine.socket={}", socket.display()));
    agent.start_again();
    let mut count = until_lines(&cloud, 40, 40).len();
    let opened = || proxy.calls().iter().filter(|call| call.ends_with("/logs")).count();
    for is_killed in [false, true] {
        let before = opened();
        if is_killed {
            engine.cut();
        } else {
            engine.stop();
        }
        std::thread::sleep(Duration::from_secs(6));
        engine.start_again();
        let lines = until_lines(&cloud, 40, count + 250);
        assert_complete(&lines);
        count = lines.len();
        let opened = opened() - before;
        assert!((1..=8).contains(&opened), "the log was opened {opened} times");
    }
    let starts = agent.running().len();
    assert_eq!(starts, 1, "it is the same container");
    let status = agent.status().expect("a status");
    let logs = &status["cloud"]["logs"];
    assert_eq!(
        (&logs["state"], &logs["error"], &logs["gaps"]),
        (&json!("on"), &json!(null), &json!(0)),
        "{logs}"
    );
}

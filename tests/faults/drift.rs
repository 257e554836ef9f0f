//! What only starts again is taken for what it was: no container is made anew, and none is stopped.

use std::time::Duration;

use crate::engine::PrivateEngine;
use crate::support::{Agent, FleetServer, Lab, Parts, eventually};

/// What an engine tells back in other words than it was asked, or adds to.
const FIELDS: &str = r#"ports: ["127.0.0.1::8080"]
stop_grace_period: 1500ms
hostname: kitchen
user: "0:0"
mem_limit: 48m
cpus: 0.5
shm_size: 1m
ulimits: {nofile: {soft: 500, hard: 900}}
sysctls: {net.core.somaxconn: "256"}
cap_drop: [all]
cap_add: [CAP_CHOWN, dac_override]
dns: [9.9.9.9]
extra_hosts: {printer: 192.0.2.9}
environment: {B: true, N: 5, S: " a  b "}
tmpfs: ["/t:size=1m"]
volumes: [data:/data, /scratch]
networks: {back: {aliases: [store]}, front: null}
healthcheck: {test: [CMD, /app, check], interval: 1s}
logging: {driver: json-file, options: {max-size: 1m}}
labels: {io.cotter.trial.soak: 1s}
"#;

#[test]
fn what_starts_again_is_left_as_it_is() {
    if !crate::is_root() {
        println!("skipped: only root can start an engine of its own");
        return;
    }
    let mut engine = PrivateEngine::start(&Parts::ensure().docker);
    let mut lab = Lab::new("drift");
    lab.parts.docker = engine.docker().clone();
    let server = FleetServer::start(&lab);
    let fleet = server.create_fleet(&lab, "shop");
    let mut text = "services:\n".to_owned();
    for service in ["db", "web"] {
        let fields = FIELDS.lines().fold(String::new(), |all, line| all + "    " + line + "\n");
        text += &format!("  {service}:\n    image: {}\n{fields}", lab.image("r1"));
    }
    text +=
        "networks: {back: {internal: true}, front: {driver_opts: {com.docker.network.driver.mtu: '1400'}}}\n";
    text += "volumes: {data: {}}\n";
    server.create_release(&fleet, "one", &lab.file("one.yml", &text));
    let mut agent = Agent::prepare(&lab, &server.url, &fleet, "till");
    agent.set("engine.resync=10s");
    agent.start_again();
    let ids = |agent: &Agent<'_>| agent.containers().into_iter().map(|c| c.id).collect::<Vec<_>>();
    let rest = |agent: &Agent<'_>, what: &str| {
        eventually(&format!("it is at rest after {what}"), Duration::from_secs(60), || {
            let status = agent.status()?;
            let is_done = status["apps"][0]["update"] == "done" && status["waiting"] == serde_json::json!([]);
            (is_done && agent.running().len() == 2).then_some(())
        });
    };
    rest(&agent, "the install");
    // The looks after an event are over.
    std::thread::sleep(Duration::from_secs(6));
    let (before, mut said) = (ids(&agent), steps(&agent).len());
    for what in [
        "a restart of a container",
        "a restart of the agent",
        "a kill of the agent",
        "a restart of the engine",
    ] {
        match what {
            "a restart of a container" => drop(lab.docker().run(&["restart", &before[0]])),
            "a restart of the agent" => {
                agent.stop();
                agent.start_again();
            }
            "a kill of the agent" => {
                agent.cut();
                agent.start_again();
            }
            _ => {
                engine.stop();
                engine.start_again();
            }
        }
        rest(&agent, what);
        std::thread::sleep(Duration::from_secs(6));
        rest(&agent, what);
        assert_eq!(ids(&agent), before, "{what}");
        let all = steps(&agent);
        // What it sees down for a moment it may start, as the engine does.
        let more: Vec<_> = all[said..].iter().filter(|line| !line.contains("step=\"start\"")).collect();
        assert!(more.is_empty(), "{what}: {more:#?}");
        said = all.len();
    }
}

/// What the agent has done, line by line.
fn steps(agent: &Agent<'_>) -> Vec<String> {
    agent.log().lines().filter(|line| line.contains("step done")).map(str::to_owned).collect()
}

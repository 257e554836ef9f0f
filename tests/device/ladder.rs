//! An engine that does not let go of a container. The engine is real; what stands before it refuses some calls.

use std::time::Duration;

use crate::support::{Agent, EngineProxy, Fleet, FleetServer, Lab, eventually};
use crate::{shop, until_done};

/// A device whose engine can be made to refuse calls.
fn device<'lab>(lab: &'lab Lab, server: &FleetServer, fleet: &Fleet) -> (Agent<'lab>, EngineProxy) {
    let socket = lab.dir().join("engine.sock");
    let proxy = EngineProxy::start(lab.docker().socket(), &socket);
    let mut agent = Agent::prepare(lab, &server.url, fleet, "till");
    agent.set(&format!("engine.socket={}", socket.display()));
    agent.start_again();
    (agent, proxy)
}

/// A release of `db`, always the same, and `web`, with more lines for it.
fn release(lab: &Lab, server: &FleetServer, fleet: &Fleet, commit: &str, image: &str, more: &str) {
    let text = format!(
        r#"services:
  db:
    image: {db}
    ports: ["127.0.0.1::8080"]
  web:
    image: {web}
    ports: ["127.0.0.1::8080"]
    stop_grace_period: 1s
    labels: {{ io.cotter.trial.soak: 1s }}
{more}"#,
        db = lab.image("r1"),
        web = lab.image(image),
    );
    server.create_release(fleet, commit, &lab.file(&format!("{commit}.yml"), &text));
}

/// How often the engine was asked for `call` of a container.
fn asked(proxy: &EngineProxy, call: &str) -> usize {
    proxy.calls().iter().filter(|asked| *asked == call).count()
}

#[test]
fn a_process_that_ignores_its_stop_signal_is_killed_after_its_grace() {
    let lab = Lab::new("deaf");
    let (server, fleet) = shop(&lab);
    // A signal that does nothing to a process that does not wait for it.
    release(&lab, &server, &fleet, "one", "r1", "    stop_signal: SIGWINCH\n");
    let agent = Agent::start(&lab, &server, &fleet, "till");
    agent.until_serves("web", "one", "r1");
    until_done(&agent, "one");
    let db = agent.service("db").unwrap().standing();
    let old = agent.service("web").unwrap().id;
    release(&lab, &server, &fleet, "two", "r2", "    stop_signal: SIGWINCH\n");
    let ended = eventually("its predecessor has ended", Duration::from_secs(30), || {
        agent.containers().into_iter().find(|c| c.id == old && !c.running)
    });
    assert_eq!(ended.exit_code, 137, "by SIGKILL");
    agent.until_serves("web", "two", "r2");
    until_done(&agent, "two");
    assert_eq!(agent.service("db").unwrap().standing(), db);
}

#[test]
fn a_container_that_the_engine_does_not_end_keeps_its_place_and_is_reported() {
    let lab = Lab::new("stuck");
    let (server, fleet) = shop(&lab);
    release(&lab, &server, &fleet, "one", "r1", "");
    let (mut agent, proxy) = device(&lab, &server, &fleet);
    agent.until_serves("web", "one", "r1");
    until_done(&agent, "one");
    let before = agent.standing();
    let old = agent.service("web").unwrap().id;

    let (stop, kill) = (format!("POST /containers/{old}/stop"), format!("POST /containers/{old}/kill"));
    let refused = [stop.clone(), kill.clone(), format!("DELETE /containers/{old}")];
    proxy.refuse(move |call| refused.iter().any(|one| one == call));
    release(&lab, &server, &fleet, "two", "r2", "");
    let output = agent.until_status("/waiting", "engine_stuck");
    assert!(output.contains("the engine does not want"), "{output}");
    // It is stopped, then killed, each with growing waits; and no other container of its service starts.
    eventually("it was tried to kill it more than once", Duration::from_secs(30), || {
        (asked(&proxy, &kill) >= 3).then_some(())
    });
    assert_eq!(asked(&proxy, &stop), 2, "{:#?}", proxy.calls());
    assert_eq!(agent.standing(), before, "no second container runs, and no other was touched");
    assert_eq!(agent.status_value("/apps/0/current"), "one");
    let warned = agent.log().matches("reason=\"engine_stuck\"").count();
    assert!((1..=4).contains(&warned), "{warned} times: {}", agent.log());
    // While it is just being tried again, nothing is waited for.
    eventually("it is explained", Duration::from_secs(10), || {
        let explained = String::from_utf8(agent.cli(&["explain", "web"]).stdout).ok()?;
        (explained.contains("engine_stuck web, since ") && explained.contains("`journalctl -u docker`"))
            .then_some(())
    });

    // The agent ends and comes again: it is found as it was.
    agent.stop();
    agent.start_again();
    agent.until_status("/waiting", "engine_stuck");
    assert_eq!(agent.standing(), before);
    let looked = proxy.calls().len();
    agent.until_polled(3);
    let calls = proxy.calls().split_off(looked);
    assert!(calls.len() < 60, "it spins: {calls:#?}");

    // The engine has thought better of it.
    proxy.let_pass();
    agent.until_serves("web", "two", "r2");
    until_done(&agent, "two");
    assert!(before.contains(&agent.service("db").unwrap().standing()));
    eventually("its predecessor is gone", Duration::from_secs(30), || {
        (agent.containers().len() == 2).then_some(())
    });
}

#[test]
fn a_container_that_the_engine_does_not_remove_is_put_aside_where_its_name_is_needed() {
    let lab = Lab::new("aside");
    let (server, fleet) = shop(&lab);
    release(&lab, &server, &fleet, "one", "r1", "");
    let (agent, proxy) = device(&lab, &server, &fleet);
    agent.until_serves("web", "one", "r1");
    until_done(&agent, "one");
    let before = agent.standing();

    // On two networks a container is made in steps. The second fails, and what was begun cannot be removed.
    proxy.refuse(|call| call.ends_with("/connect") || call.starts_with("DELETE /containers/"));
    let two = "    networks: [default, back]\nnetworks: { back: {} }\n";
    release(&lab, &server, &fleet, "two", "r2", two);
    let aside = eventually("it is put aside", Duration::from_secs(60), || {
        agent.containers().into_iter().find(|c| c.name.contains("parked"))
    });
    assert_eq!(agent.standing(), before, "nothing was stopped for it");
    proxy.refuse(|call| call.starts_with("DELETE /containers/"));
    agent.until_serves("web", "two", "r2");
    assert!(before.contains(&agent.service("db").unwrap().standing()));
    // The release is good; the status says what is left behind, and its removal is tried less and less often.
    agent.until_status("/waiting", "engine_stuck");
    assert_eq!(agent.status_value("/apps/0/current"), "two");
    let tried = asked(&proxy, &format!("DELETE /containers/{}", aside.id));
    agent.until_polled(3);
    let more = asked(&proxy, &format!("DELETE /containers/{}", aside.id)) - tried;
    assert!(more <= 3, "it was tried {more} times within three polls");
    proxy.let_pass();
    until_done(&agent, "two");
    eventually("all that is left is gone", Duration::from_secs(60), || {
        (agent.containers().len() == 2).then_some(())
    });
}

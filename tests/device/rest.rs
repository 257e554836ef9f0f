//! A device that is as it should be costs nothing.

use std::time::Duration;

use crate::support::{Agent, EngineProxy, Lab, eventually, stays};
use crate::{release, shop, until_done};

#[test]
fn at_rest_it_calls_no_engine_writes_nothing_and_restarts_no_container() {
    let lab = Lab::new("rest");
    let (server, fleet) = shop(&lab);
    release(&lab, &server, &fleet, "one", &[("db", "r1"), ("web", "r1")]);
    let socket = lab.dir().join("engine.sock");
    let proxy = EngineProxy::start(lab.docker().socket(), &socket);
    let mut agent = Agent::prepare(&lab, &server.url, &fleet, "till");
    agent.set(&format!("engine.socket={}", socket.display()));
    // On a busy machine five polls take more than ten seconds.
    agent.set("engine.resync=30s");
    agent.start_again();
    agent.until_serves("web", "one", "r1");
    until_done(&agent, "one");

    // Starting again is a start at rest: what it costs is the connection, the events and three looks.
    agent.stop();
    let (calls, connections) = (proxy.calls().len(), proxy.connections());
    agent.start_again();
    until_done(&agent, "one");
    let quiet = |what: &str, period| {
        eventually(what, Duration::from_secs(10), || {
            let before = proxy.calls();
            std::thread::sleep(period);
            (proxy.calls() == before).then_some(())
        });
    };
    eventually("the third look", Duration::from_secs(10), || {
        let looks = proxy.calls().split_off(calls).iter().filter(|c| *c == "GET /containers/json").count();
        (looks >= 3).then_some(())
    });
    quiet("a start ends in quiet", Duration::from_millis(700));
    let started = proxy.calls().split_off(calls);
    let count = |call: &str| started.iter().filter(|c| *c == call).count();
    assert_eq!((count("GET /events"), count("GET /containers/json")), (1, 3), "{started:?}");
    assert!(started.len() <= 1 + 1 + 3 * 4, "{started:?}");
    // One for the events, and one for all that is asked.
    let made = proxy.connections() - connections;
    assert!(made <= 3, "{made} connections: {started:?}");

    // Five polls. Meanwhile the time of a container goes on, although the engine is not asked for it.
    let runs_for =
        |agent: &Agent<'_>| agent.status_value("/apps/0/services/0/for_s").as_u64().expect("seconds");
    let ran_for = runs_for(&agent);
    let (calls, containers) = (proxy.calls(), agent.standing());
    let written = agent.program().io().disk_written;
    agent.until_polled(5);
    assert_eq!(proxy.calls(), calls, "the engine was called over five polls");
    let now = runs_for(&agent);
    assert!(now > ran_for, "it ran for {ran_for} s before, and for {now} s now");
    assert_eq!(agent.standing(), containers);
    assert_eq!(agent.program().io().disk_written, written, "bytes were written over five polls");

    // A look that changes nothing: the resync.
    let connections = proxy.connections();
    eventually("a resync", Duration::from_secs(40), || (proxy.calls().len() > calls.len()).then_some(()));
    quiet("a look ends in quiet", Duration::from_millis(700));
    let look = proxy.calls().split_off(calls.len());
    assert_eq!(proxy.connections(), connections, "a look opened a connection: {look:?}");
    assert!((1..=4).contains(&look.len()), "{look:?}");
    assert!(look.iter().all(|call| call.starts_with("GET ")), "{look:?}");
    stays("no container was touched", Duration::from_millis(300), || agent.standing() == containers);
    assert_eq!(agent.program().io().disk_written, written, "bytes were written by a look");
}

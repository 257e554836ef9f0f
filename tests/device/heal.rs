//! What goes wrong with a good release, and what is done for it.

use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Agent, Fleet, FleetServer, Lab, eventually, metrics, unix_get};
use crate::{shop, until_done};

/// While this file is there, the app says that it is not well.
const SICK: &str = "/data/sick";

/// The reason in the status when it is left unhealthy.
const WAITS_TO_RESTART: &str =
    "is unhealthy although it was restarted 2 times; the next restart is 20 s after the last one";

/// A release of `web`, which is checked every second, and `db`.
fn checked(lab: &Lab, server: &FleetServer, fleet: &Fleet, commit: &str, image: &str) {
    let text = format!(
        r#"services:
  db:
    image: {db}
    ports: ["127.0.0.1::8080"]
  web:
    image: {web}
    ports: ["127.0.0.1::8080"]
    volumes: ["data:/data"]
    stop_grace_period: 3s
    healthcheck: {{ test: ["CMD", "/app", "check"], interval: 1s, retries: 1 }}
volumes: {{ data: {{}} }}
"#,
        db = lab.image("r1"),
        web = lab.image(image),
    );
    server.create_release(fleet, commit, &lab.file(&format!("{commit}.yml"), &text));
}

/// How often `web` was restarted for its health so far.
fn heals(agent: &Agent<'_>) -> usize {
    agent.log().matches("what=heal ").count()
}

/// Waits until nothing more is done for `web`, which was restarted `count` times by then.
#[track_caller]
fn until_left(agent: &Agent<'_>, count: usize) {
    agent.until_status("/waiting", WAITS_TO_RESTART);
    let before = agent.standing();
    agent.until_polled(2);
    assert_eq!((heals(agent), agent.standing()), (count, before), "{}", agent.log());
}

#[test]
fn an_unhealthy_service_is_restarted_so_often_and_no_more() {
    let lab = Lab::new("heal");
    let (server, fleet) = shop(&lab);
    checked(&lab, &server, &fleet, "one", "r1");
    let mut agent = Agent::prepare(&lab, &server.url, &fleet, "till");
    agent.set("heal.restarts=2");
    agent.set("heal.window=20s");
    // Not an address of this machine, so nothing listens there. It is reported all the same.
    agent.set("metrics.listen=192.0.2.7:9599");
    agent.start_again();
    agent.until_serves("web", "one", "r1");
    until_done(&agent, "one");
    let (web, db) = (agent.service("web").unwrap(), agent.service("db").unwrap().standing());

    // It does not get well by restarts.
    assert_eq!(agent.get("web", &format!("/make?{SICK}")).unwrap().status, 200);
    until_left(&agent, 2);
    assert_eq!(agent.service("web").unwrap().id, web.id, "it is the same container");
    assert_eq!(agent.service("db").unwrap().standing(), db, "no other container was touched");
    let page = metrics::Page::read(&unix_get(&agent.status_socket(), "/v1/metrics").unwrap().body);
    let named = "name=\"till\",version=\"";
    let is_named = |line: &str| line.starts_with("cotter_device_info{uuid=\"") && line.contains(named);
    assert!(page.text.lines().any(is_named), "{}", page.text);
    eventually("the fleet server says where its metrics are", Duration::from_secs(20), || {
        let token = std::fs::read_to_string(server.token_file()).unwrap();
        let mut curl = Command::new("curl");
        curl.args(["-fsS", "-H", &format!("Authorization: Bearer {}", token.trim())]);
        let out = curl.arg(format!("{}/metrics/targets", server.url)).output().expect("curl is installed");
        let targets: Value = serde_json::from_slice(&out.stdout).ok()?;
        let labels = &targets[0]["labels"];
        let is_found = targets[0]["targets"] == json!(["192.0.2.7:9599"]);
        (is_found && labels["__meta_cotter_name"] == "till").then_some(())
    });
    let restarts = |service: &str, why: &str| {
        let all = page.text.lines().filter(|line| line.starts_with("cotter_service_restarts_total{"));
        let labels = format!("service=\"{service}\",why=\"{why}\"}} ");
        all.filter_map(|line| line.split_once(&labels)).map(|(_, value)| value.to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(
        (restarts("web", "unhealthy"), restarts("web", "ended")),
        (vec!["2".into()], vec!["0".into()])
    );
    assert_eq!((restarts("db", "unhealthy"), restarts("db", "ended")), (vec!["0".into()], vec!["0".into()]));
    let output = agent.log().matches(WAITS_TO_RESTART).count();
    assert_eq!(output, 1, "the journal says it once: {}", agent.log());
    let explained = String::from_utf8(agent.cli(&["explain", "web"]).stdout).unwrap();
    assert!(explained.contains(WAITS_TO_RESTART) && explained.contains("`cotter retry`"), "{explained}");

    // What was tried is not forgotten with the agent.
    agent.stop();
    agent.start_again();
    until_left(&agent, 2);

    // An operator lets it be tried again.
    let (is_done, output) = agent.order(&["retry"]);
    assert!(is_done && output.contains("unhealthy services of shop are restarted again"), "{output}");
    until_left(&agent, 4);

    // And so does time.
    eventually("the window is over", Duration::from_secs(60), || (heals(&agent) > 4).then_some(()));
    eventually("it is cured", Duration::from_secs(20), || {
        (agent.get("web", &format!("/take?{SICK}"))?.status == 200).then_some(())
    });
    until_done(&agent, "one");
    assert_eq!(agent.service("db").unwrap().standing(), db);

    // A new release begins anew, though the old one has used up some of its restarts.
    checked(&lab, &server, &fleet, "two", "r2");
    agent.until_serves("web", "two", "r2");
    until_done(&agent, "two");
    let before = heals(&agent);
    assert_eq!(agent.get("web", &format!("/make?{SICK}")).unwrap().status, 200);
    until_left(&agent, before + 2);
}

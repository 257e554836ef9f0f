//! What an operator sees and orders on a device that really updates.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Agent, FakeCloud, Lab, Program, Reply, eventually, metrics, schema, unix_get};
use crate::{app, service, until_done, uuid};

/// Exit code and what was printed.
fn cli(agent: &Agent<'_>, args: &[&str]) -> (Option<i32>, String) {
    let output = agent.cli(args);
    let answer = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(answer).expect("text").trim_end().to_owned())
}

/// An agent that runs release `one` of the app `shop` and is at rest, and its cloud.
fn shop<'lab>(lab: &'lab Lab, more: impl Fn(&mut Agent<'_>)) -> (Agent<'lab>, FakeCloud) {
    let cloud = FakeCloud::start();
    target(lab, &cloud, "one", "r1");
    let mut agent = Agent::prepare(lab, &cloud.url, &cloud.fleet(lab), "till");
    more(&mut agent);
    agent.start_again();
    agent.until_serves("web", "one", "r1");
    until_done(&agent, "one");
    (agent, cloud)
}

fn target(lab: &Lab, cloud: &FakeCloud, commit: &str, release: &str) {
    offer(cloud, commit, lab.image(release));
}

/// The image is one that the engine has or has not.
fn offer(cloud: &FakeCloud, commit: &str, image: &str) {
    let web = service(image, json!({}));
    cloud.target(commit, &json!({ uuid(1): app(1, "shop", commit, &[("web", web)]) }));
}

/// Holds all that the status socket says against its own document.
#[track_caller]
fn agrees_with_its_document(agent: &Agent<'_>) {
    let get = |path: &str| unix_get(&agent.status_socket(), path).unwrap();
    let document = get("/v1/openapi.json").json();
    let events = get("/v1/events?follow=false").body;
    let events = events.lines().filter_map(|line| line.strip_prefix("data: ")).map(str::to_owned);
    let answer = ["status", "plan", "history"].map(|path| (path, get(&format!("/v1/{path}")).body));
    for (path, body) in answer.into_iter().chain(events.map(|event| ("events", event))) {
        let content = &document["paths"][format!("/v1/{path}")]["get"]["responses"]["200"]["content"];
        let (_, content) = content.as_object().unwrap().iter().next().unwrap();
        let value = serde_json::from_str(&body).unwrap();
        let of_message = content.pointer("/schema/properties/data/contentSchema");
        let schema = of_message.unwrap_or(&content["schema"]);
        assert_eq!(schema::wrong(&document, schema, &value), Vec::<String>::new(), "{path}");
    }
}

#[test]
fn a_plan_is_what_then_happens() {
    let lab = Lab::new("plan");
    let (agent, cloud) = shop(&lab, |_| {});
    let rest = "nothing to do: the device runs what it should, or has no target";
    assert_eq!(cli(&agent, &["plan"]), (Some(0), rest.to_owned()));

    assert!(agent.order(&["hold", "--reason", "on stage"]).0);
    target(&lab, &cloud, "two", "r2");
    agent.until_status("/waiting/0/reason", "held");
    let (code, shown) = cli(&agent, &["plan"]);
    assert_eq!(code, Some(10), "{shown}");
    let held = shown.lines().nth(1).unwrap();
    assert!(held.starts_with("1      wait  held: held since ") && held.ends_with(": on stage"), "{shown}");
    let (code, shown) = cli(&agent, &["plan", "--json"]);
    assert_eq!(code, Some(10), "{shown}");
    let plan: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(plan["schema_version"], 1);
    let stages = plan["stages"].as_array().unwrap();
    let foreseen: Vec<_> = stages.iter().flat_map(|s| s["steps"].as_array().unwrap()).collect();
    let verbs: Vec<_> = foreseen.iter().map(|step| step["step"].as_str().unwrap()).collect();
    assert_eq!(verbs, ["try", "stop", "start", "commit", "remove", "unlock"]);
    let after: Vec<_> = stages.iter().map(|s| s["after"].as_array().unwrap().len()).collect();
    assert_eq!((after[0], &stages[2]["after"][0]["reason"]), (1, &json!("trial")), "{plan}");

    agrees_with_its_document(&agent);

    // The log has the steps that were foreseen, word for word, and no other.
    let before = agent.log().lines().count();
    assert!(agent.order(&["unhold"]).0);
    agent.until_serves("web", "two", "r2");
    until_done(&agent, "two");
    eventually("rest", Duration::from_secs(10), || (cli(&agent, &["plan"]).0 == Some(0)).then_some(()));
    let log = agent.log();
    let done: Vec<_> = log.lines().skip(before).filter_map(|l| l.split_once("step done ")).collect();
    for step in &foreseen {
        let what = format!("what={}", step["what"].as_str().unwrap());
        assert!(done.iter().any(|(_, line)| line.ends_with(&what)), "{what}: {done:?}");
    }
    assert_eq!(done.len(), foreseen.len(), "{log}");
}

#[test]
fn an_update_is_waited_for_and_counted_and_emits_its_events() {
    let lab = Lab::new("wait");
    let (mut agent, cloud) = shop(&lab, |agent| {
        agent.set("cloud.poll_interval=1h");
        agent.set("metrics.listen=127.0.0.1:0");
    });
    let update = |agent: &Agent<'_>, more: &[&str]| {
        let mut command = Program::cotter();
        command.args(["update", "--wait", "--socket"]).arg(agent.control_socket()).args(more);
        let out = command.output().unwrap();
        let answer = String::from_utf8([out.stdout, out.stderr].concat()).unwrap();
        (out.status.code(), answer.lines().map(str::to_owned).collect::<Vec<_>>())
    };
    let nothing_new = update(&agent, &[]);
    assert_eq!((nothing_new.0, nothing_new.1.last().unwrap().as_str()), (Some(0), "shop runs one"));

    let before = cli(&agent, &["events", "--json"]).1.lines().count();
    offer(&cloud, "two", &lab.fresh_image("r2"));
    let (code, lines) = update(&agent, &[]);
    assert_eq!((code, lines.last().unwrap().as_str()), (Some(0), "shop runs two"), "{lines:?}");
    assert!(lines.iter().any(|line| line == "shop: two is applying changes, trial"), "{lines:?}");
    assert_eq!(agent.serves("web").as_deref(), Some("r2"));
    // The command ends when the cloud knows it, too.
    let reported = cloud.reports().pop().unwrap_or_default();
    assert!(
        reported.contains(r#""release_uuid":"two""#) && reported.contains(r#""update_status":"done""#),
        "{reported}"
    );

    // What has happened, in its order.
    let (code, shown) = cli(&agent, &["events", "--json"]);
    assert_eq!(code, Some(0), "{shown}");
    let events: Vec<Value> = shown.lines().skip(before).map(|l| serde_json::from_str(l).unwrap()).collect();
    let word = |event: &Value| {
        format!("{} {}", event["word"].as_str().unwrap_or("-"), event["outcome"].as_str().unwrap())
    };
    let mut steps: Vec<_> = events.iter().filter(|e| e["kind"] == "step").map(word).collect();
    // The two at the end run beside each other.
    steps[6..].sort_unstable();
    assert_eq!(
        steps,
        [
            "pull done",
            "create done",
            "try done",
            "stop done",
            "start done",
            "commit done",
            "remove done",
            "unlock done"
        ]
    );
    let waits: Vec<_> = events.iter().filter(|e| e["kind"] == "waiting").map(word).collect();
    assert_eq!(waits[..2], ["downloading begun", "downloading over"], "{waits:?}");
    assert_eq!(waits[waits.len() - 2..], ["trial begun", "trial over"], "{waits:?}");

    // A release that is bad, one that is locked out, one whose image is not there.
    let mut crash = service(lab.image("crash"), json!({}));
    crash["labels"]["io.cotter.trial.soak"] = json!("5s");
    cloud.target("bad", &json!({ uuid(1): app(1, "shop", "bad", &[("web", crash)]) }));
    let (code, lines) = update(&agent, &[]);
    assert_eq!(code, Some(40), "{lines:?}");
    assert!(lines.last().unwrap().starts_with("rejected: release bad was rejected"), "{lines:?}");
    assert_eq!(agent.serves("web").as_deref(), Some("r2"));
    agrees_with_its_document(&agent);
    assert!(agent.order(&["hold"]).0);
    target(&lab, &cloud, "three", "r3");
    let (code, lines) = update(&agent, &[]);
    assert_eq!((code, lines.last().unwrap().starts_with("held: held since")), (Some(11), true), "{lines:?}");
    assert!(agent.order(&["unhold"]).0);
    let (code, lines) = update(&agent, &["--timeout", "60s"]);
    assert_eq!((code, lines.last().unwrap().as_str()), (Some(0), "shop runs three"), "{lines:?}");
    cloud.say(Reply::bare(401));
    assert_eq!(update(&agent, &[]).0, Some(20));

    let page = metrics::Page::read(&unix_get(&agent.status_socket(), "/v1/metrics").unwrap().body);
    let app = format!("app=\"{}\",app_name=\"shop\"", uuid(1));
    for (sample, value) in [
        ("cotter_update_duration_seconds_count{outcome=\"accepted\"}".to_owned(), 3.0),
        ("cotter_update_duration_seconds_count{outcome=\"rejected\"}".to_owned(), 1.0),
        ("cotter_rollbacks_total{by=\"trial\"}".to_owned(), 1.0),
        ("cotter_pulls_total{outcome=\"failed\"}".to_owned(), 0.0),
        ("cotter_engine_up".to_owned(), 1.0),
        (format!("cotter_app_at_target{{{app}}}"), 1.0),
        (format!("cotter_release_info{{{app},role=\"target\",release=\"three\"}}"), 1.0),
        (format!("cotter_release_info{{{app},role=\"good\",release=\"three\"}}"), 1.0),
        (format!("cotter_release_info{{{app},role=\"current\",release=\"three\"}}"), 1.0),
        (format!("cotter_service_up{{{app},service=\"web\",release=\"three\"}}"), 1.0),
        (format!("cotter_service_restarts_total{{{app},service=\"web\",why=\"unhealthy\"}}"), 0.0),
        ("cotter_cloud_failures_in_a_row".to_owned(), 1.0),
    ] {
        assert_eq!(page.value(&sample), Some(value), "{sample} in {}", page.text);
    }
    // The bad one ended three times before it was taken back, and was perhaps not started again after the third.
    let ended = format!("cotter_service_restarts_total{{{app},service=\"web\",why=\"ended\"}}");
    assert!(page.value(&ended).is_some_and(|count| (2.0..9.0).contains(&count)), "{}", page.text);
    for at_least_one in [
        "cotter_update_duration_seconds_sum{outcome=\"accepted\"}",
        "cotter_cloud_polls_total{outcome=\"failed\"}",
        "process_resident_memory_bytes",
        "cotter_steps_total{step=\"start\",outcome=\"done\"}",
    ] {
        assert!(page.value(at_least_one).is_some_and(|v| v > 0.0), "{at_least_one} in {}", page.text);
    }
    assert!(agent.stop().success());
}

#[test]
fn a_purge_and_nothing_else_removes_a_volume() {
    let lab = Lab::new("purge");
    let (agent, cloud) = shop(&lab, |_| {});
    let volumes = || {
        let filter = format!("label=io.cotter.instance={}", agent.instance());
        let names = lab.docker().run(&["volume", "ls", "--quiet", "--filter", &filter]);
        names.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let [volume] = &volumes()[..] else { panic!("one volume: {:?}", volumes()) };
    let made_at = || lab.docker().run(&["volume", "inspect", "--format", "{{.CreatedAt}}", volume]);
    let (before, first) = (agent.service("web").unwrap().id, made_at());

    // Nobody is asked here, and so nothing is removed.
    let (is_done, answer) = agent.order(&["purge", "shop"]);
    assert!(
        !is_done
            && answer.contains("would be purged: volumes of shop: data")
            && answer.contains("without a terminal this needs --yes"),
        "{answer}"
    );
    assert_eq!((volumes(), agent.service("web").unwrap().id), (vec![volume.clone()], before.clone()));
    assert_eq!(agent.order(&["purge"]), (true, "shop has data\n".to_owned()));

    let (is_done, answer) = agent.order(&["purge", "shop", "data", "--yes"]);
    assert!(
        is_done && answer.starts_with("purged: volumes of shop: data; containers are removed"),
        "{answer}"
    );
    agent.until_serves("web", "one", "r1");
    assert_ne!(agent.service("web").unwrap().id, before, "it was made anew");
    assert_ne!(made_at(), first, "and so was its volume");
    until_done(&agent, "one");
    assert_eq!(agent.status_value("/apps/0/current"), "one");

    // What a gone app leaves is kept, listed, and purged by its uuid.
    let web = service(lab.image("r1"), json!({}));
    cloud.target("gone", &json!({ uuid(2): app(2, "desk", "uno", &[("page", web)]) }));
    agent.until_serves("page", "uno", "r1");
    eventually("the app is gone", Duration::from_secs(15), || {
        (agent.service("web").is_none() && cli(&agent, &["plan"]).0 == Some(0)).then_some(())
    });
    assert_eq!(volumes().len(), 2);
    let (_, answer) = agent.order(&["purge"]);
    assert!(answer.contains(&format!("{} (no longer wanted) has data", uuid(1))), "{answer}");
    assert!(agent.order(&["purge", &uuid(1), "--yes"]).0);
    assert_eq!(volumes().len(), 1);
}

//! A host on which a balena supervisor ran: its containers and networks are taken over, and after the agent has left,
//! a supervisor finds what it needs.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Agent, FakeCloud, Lab, Program, eventually, http_get};
use crate::{app, service, uuid};

/// What the tests of this file make on the engine. They use the names of the instance `default`.
pub(crate) struct Remains<'lab>(pub &'lab Lab, pub Vec<String>);

impl Drop for Remains<'_> {
    fn drop(&mut self) {
        let docker = self.0.docker();
        for name in &self.1 {
            docker.try_run(&["rm", "--force", "--volumes", name]);
        }
        docker.remove_instance("default");
        for name in &self.1 {
            docker.try_run(&["volume", "rm", name]);
            docker.try_run(&["network", "rm", name]);
        }
    }
}

/// One test at a time has the instance `default` of the engine.
pub(crate) fn alone() -> std::sync::MutexGuard<'static, ()> {
    static DEFAULT: std::sync::Mutex<()> = std::sync::Mutex::new(());
    DEFAULT.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Number of the app, another one for each test.
fn number(more: u32) -> u64 {
    u64::from(more) * 10_000_000 + u64::from(std::process::id())
}

/// Arguments of `docker run` for a container as a balena supervisor creates it.
fn original<'a>(labels: &'a [String], name: &'a str, network: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let mut args = vec!["run", "--detach", "--name", name, "--restart", "always", "--network", network];
    args.extend(labels.iter().flat_map(|label| ["--label", label.as_str()]));
    args.extend(more);
    args
}

fn labels(number: u64, service: &str) -> Vec<String> {
    vec![
        "io.balena.supervised=true".to_owned(),
        format!("io.balena.app-uuid={}", uuid(1)),
        format!("io.balena.app-id={number}"),
        format!("io.balena.service-name={service}"),
    ]
}

/// Waits until the app runs this release and nothing is left to do.
#[track_caller]
fn until_runs(agent: &Agent<'_>, commit: &str) {
    eventually(&format!("{commit} runs"), Duration::from_secs(60), || {
        let status = agent.status()?;
        (status["apps"][0]["current"] == commit && status["waiting"] == json!([])).then_some(())
    });
}

/// `cotter agent` in the instance `default`.
fn prepared<'lab>(lab: &'lab Lab, cloud: &FakeCloud) -> Agent<'lab> {
    let mut agent = Agent::prepare(lab, &cloud.url, &cloud.fleet(lab), "till");
    agent.set("instance=default");
    agent
}

/// The seconds between the stop signal 18 to a container and its SIGKILL.
fn grace(lab: &Lab, container: &str, since: &str) -> Option<f64> {
    let filter = format!("container={container}");
    let events = lab.docker().run(&[
        "events",
        "--since",
        since,
        "--until",
        "0s",
        "--filter",
        &filter,
        "--filter",
        "event=kill",
        "--format",
        "{{json .}}",
    ]);
    let events: Vec<Value> = events.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let at = |signal: &str| {
        let is_it = |event: &&Value| event["Actor"]["Attributes"]["signal"] == signal;
        events.iter().find(is_it)?["timeNano"].as_f64()
    };
    Some((at("9")? - at("18")?) / 1e9)
}

#[test]
fn a_supervisors_container_has_its_own_grace_and_its_old_network_is_adopted() {
    let lab = Lab::new("adopted");
    let _alone = alone();
    let (cloud, docker, number) = (FakeCloud::start(), lab.docker(), number(8));
    let (old, network) = (format!("web_71_{number}_one"), format!("{number}_default"));
    let _remains = Remains(&lab, vec![old.clone(), network.clone(), format!("{number}_data")]);
    docker.run(&["network", "create", "--label", "io.balena.supervised=true", &network]);
    let network_id = docker.run(&["network", "inspect", "--format", "{{.Id}}", &network]);
    let since = docker.run(&["info", "--format", "{{.SystemTime}}"]);
    // It ignores its stop signal.
    let (image, labels) = (lab.image("r1"), labels(number, "web"));
    let ignoring = ["--stop-signal", "SIGCONT", "--stop-timeout", "2", image];
    let id = docker.run(&original(&labels, &old, &network, &ignoring));

    let mut agent = prepared(&lab, &cloud);
    let web = service(image, json!({ "stop_grace_period": "2s" }));
    cloud.target("one", &json!({ uuid(1): app(number, "shop", "one", &[("web", web)]) }));
    agent.start_again();
    until_runs(&agent, "one");
    let is_gone = || (!docker.try_run(&["inspect", &old]).status.success()).then_some(());
    eventually("it is removed", Duration::from_secs(20), is_gone);
    let waited = grace(&lab, &id, &since).expect("a stop signal, and then SIGKILL");
    assert!((1.5..6.0).contains(&waited), "its own 2 s, and not the 10 s of others: {waited}");
    let ours = docker.running("default");
    let connected = ours[0].raw["NetworkSettings"]["Networks"][&network]["NetworkID"].clone();
    assert_eq!(connected, network_id.as_str(), "the network is the supervisor's");
    assert!(agent.stop().success());
}

/// What balena's supervisor lists on the engine as its own (docs/dev/protocol.md, "Labels of containers").
fn supervised(lab: &Lab, kind: &str) -> Vec<String> {
    let what = if kind == "container" { "{{.Names}}" } else { "{{.Name}}" };
    let mut args = vec![kind, "ls", "--filter", "label=io.balena.supervised", "--format", what];
    if kind == "container" {
        args.push("--all");
    }
    let listed = lab.docker().run(&args);
    // Labs of tests that run beside this one are t, a process and a number.
    let is_of_a_test =
        |name: &str| name.starts_with('t') && name.contains("-") && name[1..].starts_with(char::is_numeric);
    listed.lines().filter(|name| !is_of_a_test(name)).map(str::to_owned).collect()
}

#[test]
fn after_the_agent_has_left_a_supervisor_finds_its_volumes_and_nothing_in_its_way() {
    let lab = Lab::new("backagain");
    let _alone = alone();
    let (cloud, docker, number) = (FakeCloud::start(), lab.docker(), number(9));
    let volumes = ["data", "more"].map(|name| format!("{number}_{name}"));
    let (name, network) = (format!("web_71_{number}_one"), format!("{}_default", uuid(1)));
    let mut made = vec![name.clone(), network.clone()];
    made.extend(volumes.clone());
    let _remains = Remains(&lab, made);
    let before = ["container", "network", "volume"].map(|kind| supervised(&lab, kind));
    let tags = || {
        docker.run(&["image", "ls", "--all", "--no-trunc", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}"])
    };

    // The agent is the first on this host, so all of this is its own.
    let agent = joined(&lab, &cloud, number);
    let image = lab.fresh_image("r1");
    let tagged = tags();
    let mut agent = agent;
    let web =
        service(&image, json!({ "volumes": ["data:/data", "more:/more"], "networks": ["default", "lan"] }));
    let mut shop = app(number, "shop", "one", &[("web", web)]);
    let release = &mut shop["releases"]["one"];
    release["networks"]["lan"] = json!({ "ipam": { "config": [{ "subnet": "10.213.77.0/24" }] } });
    release["volumes"]["more"] = json!({ "labels": { "backup": "weekly" } });
    cloud.target("one", &json!({ uuid(1): shop }));
    agent.start_again();
    until_runs(&agent, "one");
    let web = docker.running("default").pop().unwrap();
    let address = web.ports["8080/tcp"].clone();
    eventually("it has written", Duration::from_secs(20), || {
        http_get(&address, "/write?1").filter(|answer| answer.status == 200)
    });
    let count = http_get(&address, "/").unwrap().json()["count"].clone();
    assert!(agent.stop().success());
    let mut leave = Program::cotter();
    leave.args(["leave", "--remove-apps", "--yes", "--config"]).arg(agent.settings_file());
    let left = leave.output().unwrap();
    assert!(left.status.success(), "{left:?}");

    // Containers and networks: none, so none is removed or in the way of a name or an address.
    assert_eq!(supervised(&lab, "container"), before[0]);
    assert_eq!(supervised(&lab, "network"), before[1]);
    for kind in ["container", "network", "volume"] {
        assert_eq!(docker.ids(kind, "default"), Vec::<String>::new(), "{kind}s");
    }
    // Volumes: with the supervisor's own labels and the author's, because it removes one with others.
    let of = |volume: &str| {
        let shown = docker.run(&["volume", "inspect", "--format", "{{json .}}", volume]);
        let shown: Value = serde_json::from_str(&shown).unwrap();
        // None and no object are the same to the supervisor.
        let has_options = shown["Options"].as_object().is_some_and(|options| !options.is_empty());
        (shown["Labels"].clone(), shown["Driver"].clone(), has_options)
    };
    let own = json!({ "io.balena.supervised": "true", "io.balena.app-uuid": uuid(1) });
    let mut labelled = own.clone();
    labelled["backup"] = json!("weekly");
    for (volume, labels) in volumes.iter().zip([own, labelled]) {
        assert_eq!(of(volume), (labels, json!("local"), false), "{volume}");
    }
    let mut here = supervised(&lab, "volume");
    here.retain(|volume| !before[2].contains(volume));
    here.sort();
    assert_eq!(here, volumes, "no other volume is left for it to account for");
    // Images: by digest as in the release, without a tag of anybody. It removes images without either.
    assert!(docker.try_run(&["image", "inspect", &image]).status.success(), "nothing is downloaded again");
    let id = docker.run(&["image", "inspect", "--format", "{{.Id}}", &image]);
    let new: Vec<_> = tags().lines().filter(|line| line.ends_with(&id)).map(str::to_owned).collect();
    assert!(!new.is_empty() && !new.iter().any(|line| tagged.contains(line)), "{new:?}");
    assert!(new.iter().all(|line| line.contains(":<none> ") && !line.starts_with("<none>:")), "{new:?}");

    // It creates its own with the same names, addresses and volumes, and the data is there.
    let lan = format!("{}_lan", uuid(1));
    let _lan = Remains(&lab, vec![lan.clone()]);
    let label = ["--label", "io.balena.supervised=true"];
    docker.run(&["network", "create", label[0], label[1], &network]);
    docker.run(&["network", "create", label[0], label[1], "--subnet", "10.213.77.0/24", &lan]);
    let mounts = [format!("{}:/data", volumes[0]), format!("{}:/more", volumes[1])];
    let port = address.rsplit_once(':').unwrap().1;
    let published = format!("127.0.0.1:{port}:8080");
    let more = ["--volume", &mounts[0], "--volume", &mounts[1], "--publish", &published, &image];
    docker.run(&original(&labels(number, "web"), &name, &network, &more));
    let found = eventually("the supervisor's container serves", Duration::from_secs(20), || {
        http_get(&address, "/").filter(|answer| answer.status == 200)
    });
    assert_eq!(found.json()["count"], count);
}

/// An agent in the instance `default` that has joined with the device's own config.json.
fn joined<'lab>(lab: &'lab Lab, cloud: &FakeCloud, number: u64) -> Agent<'lab> {
    let agent = Agent::prepare(lab, &cloud.url, &cloud.fleet(lab), "till");
    let settings = std::fs::read_to_string(agent.settings_file()).unwrap();
    let (local, _) = settings.split_once("[cloud]").unwrap();
    let (_, local) = local.split_once('\n').unwrap();
    agent.write_settings(&format!("instance = \"default\"\n{local}"));
    let config = json!({
        "apiEndpoint": cloud.url, "applicationId": number, "uuid": "0123456789abcdef".repeat(2),
        "deviceApiKey": "fedcba9876543210", "deviceType": "generic-amd64", "appUpdatePollInterval": 1000,
    });
    let file = lab.file("config.json", &config.to_string());
    let mut join = Program::cotter();
    join.args(["join", "--no-start", "--config"]).arg(agent.settings_file()).arg(file);
    let joined = join.output().unwrap();
    assert!(joined.status.success(), "{joined:?}");
    agent
}

#[test]
fn a_network_of_somebody_else_with_the_name_of_ours_is_named_with_a_remedy() {
    let lab = Lab::new("foreignnet");
    let _alone = alone();
    let (cloud, docker, number) = (FakeCloud::start(), lab.docker(), number(7));
    let network = format!("{number}_default");
    let _remains = Remains(&lab, vec![network.clone(), format!("{number}_data")]);
    docker.run(&["network", "create", &network]);
    let web = service(lab.image("r1"), json!({}));
    cloud.target("one", &json!({ uuid(1): app(number, "shop", "one", &[("web", web)]) }));
    let mut agent = prepared(&lab, &cloud);
    agent.start_again();
    let remedy = format!("docker network rm {network}");
    agent.until_status("/waiting", &remedy);
    docker.run(&["network", "rm", &network]);
    until_runs(&agent, "one");
    assert!(agent.stop().success());
}

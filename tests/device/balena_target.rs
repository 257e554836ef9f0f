//! What a balena cloud gives a device beside one app: configuration variables, apps that are not for this agent, several
//! apps; a device that the cloud has registered before; and a host on which a balena supervisor ran.

use std::time::Duration;

use serde_json::{Value, json};

use crate::balena_host::{Remains, alone};
use crate::support::{Agent, FakeCloud, Lab, Program, eventually, http_get};
use crate::{app, service, until_done, uuid};

/// The supervisor of balena for amd64.
const SUPERVISOR: &str = "52e35121417640b1b28a680504e4039b";

fn prepared<'lab>(lab: &'lab Lab, cloud: &FakeCloud) -> Agent<'lab> {
    Agent::prepare(lab, &cloud.url, &cloud.fleet(lab), "till")
}

/// Waits until this app runs its release, and nothing is left to do.
#[track_caller]
fn until_runs(agent: &Agent<'_>, name: &str, commit: &str) {
    eventually(&format!("{name} runs {commit}"), Duration::from_secs(60), || {
        let status = agent.status()?;
        let app = status["apps"].as_array()?.iter().find(|app| app["name"] == name)?.clone();
        (app["current"] == commit && status["waiting"] == json!([])).then_some(())
    });
}

fn checked(agent: &Agent<'_>, id: &str) -> Value {
    let mut command = Program::cotter();
    command.args(["check", "--json", "--dont-run", "engine", "--config"]).arg(agent.settings_file());
    let output = command.output().expect("the binary runs");
    let document: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let found = document["checks"].as_array().expect("checks").iter().find(|found| found["id"] == id);
    found.expect("the check").clone()
}

#[test]
fn every_variable_has_an_answer_and_apps_of_the_host_are_left_alone() {
    let lab = Lab::new("variables");
    let cloud = FakeCloud::start();
    let web = service(lab.image("r1"), json!({}));
    let page = service(lab.image("r2"), json!({ "volumes": ["files:/data"] }));
    let main = service(lab.image("r3"), json!({}));
    let mut host = app(9, "balenaos", "h1", &[("hostapp", main.clone())]);
    host["is_host"] = json!(true);
    let apps = json!({
        uuid(1): app(1, "shop", "one", &[("web", web)]),
        uuid(2): app(2, "desk", "uno", &[("page", page)]),
        SUPERVISOR: app(8, "balena-supervisor", "s1", &[("main", main)]),
        uuid(9): host,
    });
    let config = json!({
        "RESIN_SUPERVISOR_POLL_INTERVAL": "1000",
        "BALENA_SUPERVISOR_POLL_INTERVAL": "soon",
        "BALENA_SUPERVISOR_VPN_CONTROL": "false",
        "BALENA_HOST_CONFIG_gpu_mem": "16",
        "BALENA_SUPERVISOR_SOMETHING_NEW": "1",
    });
    cloud.target_with("one", &config, &apps);
    let mut agent = prepared(&lab, &cloud);
    agent.start_again();
    until_runs(&agent, "shop", "one");
    until_runs(&agent, "desk", "uno");

    // Two apps run, each with its own volume; the others have no container.
    let mut services: Vec<_> = agent.containers().iter().map(|c| c.service().to_owned()).collect();
    services.sort();
    assert_eq!(services, ["page", "web"]);
    let status = agent.status().unwrap();
    let names: Vec<_> = status["left_alone"].as_array().unwrap().iter().map(|app| &app["name"]).collect();
    assert_eq!(names, ["balenaos", "balena-supervisor"]);

    let standings: Vec<_> = status["variables"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| format!("{} {}", it["standing"].as_str().unwrap(), it["name"].as_str().unwrap()))
        .collect();
    assert_eq!(
        standings,
        [
            "not_applicable BALENA_HOST_CONFIG_gpu_mem",
            "bad_value BALENA_SUPERVISOR_POLL_INTERVAL",
            "unknown BALENA_SUPERVISOR_SOMETHING_NEW",
            "honoured BALENA_SUPERVISOR_VPN_CONTROL",
            "honoured RESIN_SUPERVISOR_POLL_INTERVAL",
        ]
    );
    let shown = String::from_utf8(agent.cli(&["status"]).stdout).unwrap();
    for words in [
        "BALENA_HOST_CONFIG_gpu_mem: not applicable here: config.txt",
        "\"soon\" is not accepted",
        "balenaos (",
        "balena's supervisor",
    ] {
        let shown = shown.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(shown.contains(words), "{words}: {shown}");
    }
    assert!(!shown.contains("VPN_CONTROL"), "what has its effect is not listed: {shown}");
    let found = checked(&agent, "cloud-variables");
    let evidence = found["evidence"].as_str().unwrap();
    assert!(
        found["level"] == "warning" && evidence.contains("RESIN_SUPERVISOR_POLL_INTERVAL is in force"),
        "{found}"
    );

    // An app that goes takes its containers along, and no other's.
    let before = agent.service("web").unwrap().standing();
    let web = service(lab.image("r1"), json!({}));
    cloud.target_with("two", &json!({}), &json!({ uuid(1): app(1, "shop", "one", &[("web", web)]) }));
    eventually("the other app is gone", Duration::from_secs(30), || {
        agent.service("page").is_none().then_some(())
    });
    until_done(&agent, "one");
    assert_eq!(agent.service("web").unwrap().standing(), before);
    assert_eq!(agent.status_value("/variables"), json!([]));
    assert_eq!(checked(&agent, "cloud-variables")["level"], "skip");
}

#[test]
fn a_device_that_the_cloud_has_registered_before_polls_with_its_uuid_and_key() {
    let lab = Lab::new("preregistered");
    let cloud = FakeCloud::start();
    let web = service(lab.image("r1"), json!({}));
    cloud.target("one", &json!({ uuid(1): app(1, "shop", "one", &[("web", web)]) }));
    let mut agent = prepared(&lab, &cloud);
    // As `balena config generate --device` makes it.
    let known = "0123456789abcdef".repeat(2);
    let config = json!({
        "apiEndpoint": cloud.url, "applicationId": 1, "uuid": known, "deviceApiKey": "fedcba9876543210",
        "deviceType": "generic-amd64", "appUpdatePollInterval": 1000,
    });
    let without_cloud = std::fs::read_to_string(agent.settings_file()).unwrap();
    agent.write_settings(without_cloud.split("[cloud]").next().unwrap());
    let settings = agent.settings_file();
    let join = |config: &Value, more: &[&str]| {
        let file = lab.file("config.json", &config.to_string());
        let mut command = Program::cotter();
        command.args(["join", "--no-start", "--config"]).arg(&settings).args(more).arg(file);
        let output = command.output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let joined = join(&config, &[]);
    assert!(joined.0, "{joined:?}");
    agent.start_again();
    let web = agent.until_serves("web", "one", "r1");
    assert_eq!(cloud.registrations(), Vec::<String>::new());
    let is_its =
        |key: &str| cloud.polls().iter().all(|it| it.path.contains(&known) && it.key.as_deref() == Some(key));
    assert!(is_its("fedcba9876543210"));
    assert_eq!(agent.status_value("/device/uuid"), known.as_str());

    // Its key was changed in the cloud: the new one is joined with, and no container is touched.
    let mut config = config;
    config["deviceApiKey"] = json!("0000111122223333");
    let (is_joined, said) = join(&config, &[]);
    assert!(!is_joined && said.contains("--force"), "{said}");
    let joined = join(&config, &["--force"]);
    assert!(joined.0, "{joined:?}");
    assert!(agent.stop().success());
    agent.start_again();
    let polls = cloud.next_polls(2);
    assert!(polls.iter().all(|poll| poll.key.as_deref() == Some("0000111122223333")), "{polls:?}");
    assert!(polls.iter().all(|poll| poll.path.contains(&known)));
    until_done(&agent, "one");
    assert_eq!(agent.service("web").unwrap().standing(), web.standing());
}

#[test]
fn containers_of_a_balena_supervisor_are_replaced_and_their_volumes_stay() {
    let lab = Lab::new("original");
    let _alone = alone();
    let (cloud, docker) = (FakeCloud::start(), lab.docker());
    let number = 700_000 + u64::from(std::process::id());
    let (image, volume, network) =
        (lab.image("r1"), format!("{number}_data"), format!("{}_default", uuid(1)));
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let published = format!("127.0.0.1:{port}:8080");
    let more = format!("{number}_more");
    let (old, other) = (format!("web_71_{number}_one"), format!("side_72_{number}_uno"));
    let _remains =
        Remains(&lab, vec![old.clone(), other.clone(), volume.clone(), more.clone(), network.clone()]);

    // As a balena supervisor leaves them: of this app, and of one that the target does not have.
    docker.run(&["network", "create", "--label", "io.balena.supervised=true", &network]);
    let of_app = format!("io.balena.app-uuid={}", uuid(1));
    docker.run(&["volume", "create", "--label", "io.balena.supervised=true", "--label", &of_app, &volume]);
    let original = |name: &str, service: &str, app: u8, more: &[&str]| {
        let labels = [
            "io.balena.supervised=true".to_owned(),
            format!("io.balena.app-uuid={}", uuid(app)),
            format!("io.balena.app-id={number}"),
            format!("io.balena.service-name={service}"),
        ];
        let mut args = vec!["run", "--detach", "--name", name, "--restart", "always", "--network", &network];
        args.extend(labels.iter().flat_map(|label| ["--label", label.as_str()]));
        args.extend(more);
        args.push(image);
        docker.run(&args)
    };
    original(
        &old,
        "web",
        1,
        &["--volume", &format!("{volume}:/data"), "--volume", "/unnamed", "--publish", &published],
    );
    let mounts = "{{range .Mounts}}{{if eq .Destination \"/unnamed\"}}{{.Name}}{{end}}{{end}}";
    let unnamed = docker.run(&["inspect", "--format", mounts, &old]);
    let _unnamed = Remains(&lab, vec![unnamed.clone()]);
    original(&other, "side", 2, &[]);
    let address = format!("127.0.0.1:{port}");
    let get = |path: &str| http_get(&address, path);
    eventually("the original serves", Duration::from_secs(20), || {
        get("/write?1").filter(|it| it.status == 200)
    });
    let count = get("/").unwrap().json()["count"].clone();

    let mut agent = prepared(&lab, &cloud);
    agent.set("instance=default");
    // While the target does not have the app, nothing changes.
    cloud.target("none", &json!({}));
    agent.start_again();
    agent.until_polled(2);
    let web = service(image, json!({ "ports": [published], "volumes": ["data:/data", "more:/more"] }));
    let standing = |name: &str| {
        docker.run(&["inspect", "--format", "{{.Id}} {{.State.StartedAt}} {{.State.Running}}", name])
    };
    let side = standing(&other);
    assert!(standing(&old).ends_with("true"));
    // A first release that fails leaves the original there: there is no other way back.
    let bad = service(lab.image("exit"), json!({ "restart": "no" }));
    cloud.target("bad", &json!({ uuid(1): app(number, "shop", "bad", &[("web", bad)]) }));
    eventually("the first release has failed", Duration::from_secs(60), || {
        agent.log().contains("release degraded").then_some(())
    });
    agent.until_polled(2);
    assert!(docker.try_run(&["inspect", &old]).status.success(), "it stays until a release is accepted");
    cloud.target("one", &json!({ uuid(1): app(number, "shop", "one", &[("web", web)]) }));
    until_runs(&agent, "shop", "one");

    assert!(docker.try_run(&["volume", "inspect", &unnamed]).status.success(), "no data is removed with it");
    let ours = docker.running("default");
    assert_eq!(ours.iter().map(|c| c.service().to_owned()).collect::<Vec<_>>(), ["web"]);
    let gone = docker.try_run(&["inspect", &old]);
    assert!(!gone.status.success(), "it is removed");
    assert_eq!(get("/").unwrap().json()["count"], count, "its volume is the same");
    assert_eq!(standing(&other), side, "a container of another app is left alone");
    // Balena's supervisor would remove a volume with other labels than these.
    let labels = docker.run(&["volume", "inspect", "--format", "{{json .Labels}}", &more]);
    let labels: Value = serde_json::from_str(&labels).unwrap();
    assert_eq!(labels, json!({ "io.balena.supervised": "true", "io.balena.app-uuid": uuid(1) }));
    let (is_done, listed) = agent.order(&["purge"]);
    assert!(is_done && listed.contains("shop has data, more"), "{listed}");
    let log = agent.log();
    assert!(!log.contains(&format!("what=pull {image}")), "the image is there already: {log}");
    assert!(agent.stop().success());
}

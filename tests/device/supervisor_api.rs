//! The supervisor API, called from inside containers.

use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Agent, Container, FakeCloud, Lab, Parts, Podman, eventually};
use crate::{app, uuid};

/// Debian's busybox as an image in the tests' registry; the image of the demo app has no shell.
fn busybox(lab: &Lab) -> String {
    let root = lab.dir().join("busybox");
    std::fs::create_dir_all(root.join("bin")).unwrap();
    std::fs::create_dir_all(root.join("tmp")).unwrap();
    std::fs::copy("/bin/busybox", root.join("bin/busybox"))
        .expect("busybox-static is here: scripts/prepare.sh installs it");
    for command in ["sh", "nc", "printf", "sleep", "env", "cat", "touch", "rm", "ls", "mkfifo"] {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(command)).unwrap();
    }
    let (archive, root) = (lab.dir().join("busybox.tar").display().to_string(), root.display().to_string());
    let packed =
        Command::new("tar").args(["--owner=0", "--group=0", "-C", &root, "-cf", &archive, "."]).status();
    assert!(packed.unwrap().success());
    // By Docker also where podman runs it.
    let parts = Parts::ensure();
    let image = format!("{}/supervisor/busybox:{}", parts.registry, lab.instance("box"));
    let label = format!("LABEL io.cotter.demo={}", parts.label);
    parts.docker.run(&["import", "--change", &label, &archive, &image]);
    let pushed = parts.docker.run(&["push", &image]);
    let digest = pushed.split("digest: ").nth(1).and_then(|rest| rest.split(' ').next()).expect("a digest");
    parts.docker.run(&["rmi", &image]);
    format!("{}@{digest}", image.rsplit_once(':').unwrap().0)
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A service that sleeps. `labels` are those of features.
fn sleeper(image: &str, number: u64, labels: &[&str], more: Value) -> Value {
    let mut composition = json!({
        "command": ["sleep", "100000"], "stop_signal": "SIGKILL", "stop_grace_period": "1s", "volumes": ["data:/data"],
    });
    for (key, value) in more.as_object().cloned().unwrap_or_default() {
        composition[key] = value;
    }
    let mut all = json!({ "io.cotter.trial.soak": "1s" });
    for label in labels {
        all[format!("io.balena.features.{label}")] = json!("1");
    }
    json!({
        "id": number, "image_id": 70 + number, "image": image, "environment": {}, "labels": all,
        "composition": composition,
    })
}

fn start<'lab>(lab: &'lab Lab, cloud: &FakeCloud, more: &[&str]) -> (Agent<'lab>, u16) {
    let mut agent = Agent::prepare(lab, &cloud.url, &cloud.fleet(lab), "till");
    let port = free_port();
    agent.set(&format!("supervisor_api.port={port}"));
    more.iter().for_each(|setting| agent.set(setting));
    agent.start_again();
    (agent, port)
}

#[track_caller]
fn container(agent: &Agent<'_>, service: &str) -> Container {
    eventually(&format!("{service} runs"), Duration::from_secs(60), || agent.service(service))
}

fn variable(container: &Container, name: &str) -> Option<String> {
    let env = container.raw.pointer("/Config/Env").and_then(Value::as_array)?;
    let prefix = format!("{name}=");
    env.iter().find_map(|line| line.as_str()?.strip_prefix(&prefix).map(str::to_owned))
}

/// Sends a request from inside a container, with its own key unless `key` is given. Returns status and body.
#[track_caller]
fn ask(lab: &Lab, from: &Container, request: &str, body: &str, key: Option<&str>) -> (u16, String) {
    ask_at("$BALENA_SUPERVISOR_HOST", lab, from, request, body, key)
}

/// As [`ask`], at another address.
fn ask_at(
    host: &str,
    lab: &Lab,
    from: &Container,
    request: &str,
    body: &str,
    key: Option<&str>,
) -> (u16, String) {
    let key = key.map_or("$BALENA_SUPERVISOR_API_KEY".to_owned(), str::to_owned);
    // A client that closes its side takes its request back, so the pipe stays open until the answer is here.
    let script = format!(
        "cd /tmp; rm -f p; mkfifo p; printf '%s\\r\\n' '{request} HTTP/1.1' 'Host: s' 'Connection: close' \
         \"Authorization: Bearer {key}\" 'Content-Type: application/json' 'Content-Length: {}' '' > r; \
         printf '%s' '{body}' >> r; (cat r; exec sleep 20) > p & \
         nc -w 20 {host} $BALENA_SUPERVISOR_PORT < p; kill $!",
        body.len()
    );
    let out = lab.docker().try_run(&["exec", &from.id, "sh", "-c", &script]);
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    (status, text.split_once("\r\n\r\n").map_or(text.clone(), |(_, body)| body.to_owned()))
}

fn shell(lab: &Lab, inside: &Container, script: &str) -> String {
    lab.docker().run(&["exec", &inside.id, "sh", "-c", script])
}

/// The apps `shop` (1) with `web`, which has the API, and `db`, which has not; and `other` (2).
fn two_apps(cloud: &FakeCloud, image: &str) {
    let services = [
        ("web", sleeper(image, 1, &["supervisor-api", "balena-api"], json!({}))),
        ("db", sleeper(image, 2, &[], json!({}))),
    ];
    let solo = [("solo", sleeper(image, 3, &["supervisor-api"], json!({})))];
    let apps = json!({ uuid(1): app(1, "shop", "one", &services), uuid(2): app(2, "other", "two", &solo) });
    cloud.target("one", &apps);
}

#[track_caller]
fn until_applied(lab: &Lab, web: &Container) {
    eventually("the release is applied", Duration::from_secs(60), || {
        let (_, text) = ask(lab, web, "GET /v2/state/status", "", None);
        text.contains(r#""appState":"applied""#).then_some(())
    });
}

#[test]
fn every_row_is_answered_inside_a_container() {
    let lab = Lab::new("rows");
    let (cloud, image) = (FakeCloud::start(), busybox(&lab));
    two_apps(&cloud, &image);
    let (agent, port) = start(&lab, &cloud, &["policy.reboot=no", "policy.other_apps=no"]);
    let web = container(&agent, "web");
    let of = |name: &str| variable(&web, name).unwrap_or_else(|| panic!("no {name}"));
    for prefix in ["BALENA", "RESIN"] {
        assert_eq!(of(&format!("{prefix}_SUPERVISOR_PORT")), port.to_string());
        let host = of(&format!("{prefix}_SUPERVISOR_HOST"));
        assert_eq!(of(&format!("{prefix}_SUPERVISOR_ADDRESS")), format!("http://{host}:{port}"));
        assert_eq!(of(&format!("{prefix}_SUPERVISOR_API_KEY")).len(), 32);
        assert_eq!(of(&format!("{prefix}_API_URL")), cloud.url);
        assert_eq!(of(&format!("{prefix}_API_KEY")).len(), 32);
        assert_eq!(of(&format!("{prefix}_DEVICE_UUID")).len(), 32);
        assert_eq!(of(&format!("{prefix}_DEVICE_TYPE")), "generic-amd64");
        assert!(!of(&format!("{prefix}_DEVICE_ARCH")).is_empty());
    }
    assert_eq!(variable(&container(&agent, "db"), "BALENA_SUPERVISOR_API_KEY"), None);
    until_applied(&lab, &web);
    for (request, body, status, expected) in [
        ("GET /ping", "", 200, "OK"),
        ("GET /v1/healthy", "", 200, "OK"),
        ("GET /v2/version", "", 200, r#"{"status":"success","version":"#),
        ("GET /v2/device/name", "", 200, r#"{"deviceName":"#),
        ("GET /v1/device", "", 200, r#"{"api_port":"#),
        ("GET /v2/applications/state", "", 200, r#"{"shop":{"#),
        ("GET /v2/applications/1/state", "", 200, r#"{"commit":"one","local":{"1":"#),
        ("GET /v2/state/status", "", 200, r#"{"appState":"applied","#),
        ("GET /v2/containerId", "", 200, r#"{"services":{"db":""#),
        ("GET /v1/apps/1", "", 400, "Some v1 endpoints"),
        ("POST /v1/apps/1/stop", "", 400, "Some v1 endpoints"),
        ("POST /v1/update", r#"{"force": true}"#, 204, ""),
        ("POST /v2/applications/1/stop-service", r#"{"serviceName": "db"}"#, 200, "OK"),
        ("POST /v2/applications/1/start-service", r#"{"imageId": 72}"#, 200, "OK"),
        ("POST /v1/reboot", "", 403, r#"{"Data":"","Error":"the owner"#),
        ("POST /v1/shutdown", "", 403, r#"{"Data":"","Error":"the owner"#),
        ("POST /v2/applications/2/restart", "", 401, r#"{"message":"Application is not available"#),
        ("GET /v2/cleanup-volumes", "", 200, "OK"),
        (
            "GET /v2/device/tags",
            "",
            200,
            r#"{"status":"success","tags":[{"id":5,"name":"site","value":"zurich"}]}"#,
        ),
    ] {
        let (got, text) = ask(&lab, &web, request, body, None);
        assert_eq!((got, text.starts_with(expected)), (status, true), "{request}: {got} {text}");
    }
    let db = container(&agent, "db");
    // Who has no key, or only the address of another network.
    assert_eq!(ask(&lab, &web, "GET /v2/version", "", Some("guessed")).0, 401);
    let solo = container(&agent, "solo");
    let (own, host) = (variable(&solo, "BALENA_SUPERVISOR_API_KEY").unwrap(), of("BALENA_SUPERVISOR_HOST"));
    assert_eq!(ask(&lab, &solo, "GET /v2/version", "", None).0, 200);
    for (request, body, expected) in [
        ("POST /v2/journal-logs", r#"{"format": "export"}"#, r#"{"message":"format must be one of"#),
        ("PATCH /v2/device/tags", r#"{"a b": "x"}"#, r#"{"message":"the key "#),
    ] {
        let (status, text) = ask(&lab, &solo, request, body, None);
        assert_eq!((status, text.starts_with(expected)), (400, true), "{request}: {text}");
    }
    assert_eq!(
        ask(&lab, &web, "POST /v2/applications/1/restart", "", Some(&own)).0,
        401,
        "another app's key"
    );
    assert_eq!(ask_at(&host, &lab, &solo, "GET /ping", "", None).0, 401, "from another network");
    assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err(), "nothing listens on loopback");

    // A lock of the app holds everything up that stops a container; force passes it.
    shell(&lab, &web, "touch /tmp/balena/updates.lock");
    let restart = "POST /v2/applications/1/restart-service?serviceName=db";
    let (status, text) = ask(&lab, &web, restart, "", None);
    assert_eq!((status, text.contains("updates.lock")), (423, true), "{text}");
    assert_eq!(ask(&lab, &web, restart, r#"{"force": true}"#, None).0, 200);
    eventually("db is started again", Duration::from_secs(30), || {
        agent.service("db").filter(|now| now.started_at != db.started_at)
    });
    shell(&lab, &web, "rm -f /tmp/balena/updates.lock");
}

#[test]
fn what_a_service_orders_happens_and_its_key_outlives_the_agent() {
    let lab = Lab::new("orders");
    let (cloud, image) = (FakeCloud::start(), busybox(&lab));
    two_apps(&cloud, &image);
    let (mut agent, _) = start(&lab, &cloud, &[]);
    let web = container(&agent, "web");
    until_applied(&lab, &web);
    // A restart of the agent changes no container, and the key in it stays good.
    assert!(agent.stop().success());
    agent.start_again();
    eventually("the API is back", Duration::from_secs(30), || {
        (ask(&lab, &web, "GET /v2/version", "", None).0 == 200).then_some(())
    });
    assert_eq!(container(&agent, "web").standing(), web.standing());

    // A service that regenerates its key gets a new container with it.
    let (status, key) = ask(&lab, &web, "POST /v1/regenerate-api-key", "", None);
    assert_eq!((status, key.len()), (200, 32), "{key}");
    let web = eventually("web is created again", Duration::from_secs(60), || {
        agent.service("web").filter(|now| now.id != web.id)
    });
    assert_eq!(variable(&web, "BALENA_SUPERVISOR_API_KEY"), Some(key));
    until_applied(&lab, &web);

    // A purge empties the volumes and starts the services anew.
    shell(&lab, &web, "touch /data/old");
    let db = container(&agent, "db");
    _ = ask(&lab, &web, "POST /v1/purge", r#"{"appId": 1}"#, None);
    let db = eventually("db is created again", Duration::from_secs(60), || {
        agent.service("db").filter(|now| now.id != db.id)
    });
    let web = container(&agent, "web");
    assert_eq!(shell(&lab, &web, "ls /data"), "");
    until_applied(&lab, &web);

    // Another app, which the preset allows; then all of its own, itself among them.
    let solo = container(&agent, "solo");
    assert_eq!(ask(&lab, &web, "POST /v1/restart", r#"{"appId": 2}"#, None).0, 200);
    eventually("solo is started again", Duration::from_secs(30), || {
        agent.service("solo").filter(|now| now.started_at != solo.started_at)
    });
    assert_eq!(ask(&lab, &web, "POST /v2/applications/1/restart", "", None).0, 200);
    for (service, before) in [("web", web), ("db", db)] {
        eventually(&format!("{service} is started again"), Duration::from_secs(30), || {
            agent.service(service).filter(|now| now.started_at != before.started_at)
        });
    }
}

#[test]
fn tags_that_a_service_sets_reach_the_cloud_also_after_a_restart() {
    let lab = Lab::new("tags");
    let (cloud, image) = (FakeCloud::start(), busybox(&lab));
    two_apps(&cloud, &image);
    cloud.answer_tags(503);
    let (mut agent, _) = start(&lab, &cloud, &[]);
    let web = container(&agent, "web");
    until_applied(&lab, &web);
    let set = |body: &str| ask(&lab, &web, "PATCH /v2/device/tags", body, None).0;
    assert_eq!(set(r#"{"site": "bern", "ring": "canary"}"#), 202);
    eventually("the cloud was asked", Duration::from_secs(20), || (!cloud.tags().is_empty()).then_some(()));
    assert_eq!(set(r#"{"site": "basel"}"#), 202);
    agent.cut();
    let before = cloud.tags().len();
    cloud.answer_tags(200);
    agent.start_again();
    let body =
        eventually("the cloud has the tags", Duration::from_secs(30), || cloud.tags().get(before).cloned());
    let tags: Value = serde_json::from_str(&body).unwrap();
    let (_, tags) = tags.as_object().unwrap().iter().next().unwrap();
    assert_eq!(*tags, json!({ "ring": "canary", "site": "basel" }));
    // Once it has them, they are not sent again.
    agent.until_polled(2);
    assert!(agent.stop().success());
    agent.start_again();
    agent.until_polled(3);
    assert_eq!(cloud.tags().len(), before + 1);
}

#[test]
fn a_gateway_that_changes_reaches_the_containers_with_their_next_start() {
    let lab = Lab::new("gateway");
    let (cloud, image) = (FakeCloud::start(), busybox(&lab));
    let web = [("web", sleeper(&image, 1, &["supervisor-api"], json!({})))];
    cloud.target("one", &json!({ uuid(1): app(1, "shop", "one", &web) }));
    let (agent, _) = start(&lab, &cloud, &[]);
    let web = container(&agent, "web");
    until_applied(&lab, &web);
    let network = &lab.docker().ids("network", agent.instance())[0].clone();
    let subnet =
        lab.docker().run(&["network", "inspect", "--format", "{{(index .IPAM.Config 0).Subnet}}", network]);
    // Its network goes, another one takes its addresses, and it is killed.
    let taken = lab.instance("taken");
    lab.docker().run(&["network", "disconnect", "--force", network, &web.id]);
    lab.docker().run(&["network", "rm", network]);
    let label = format!("io.cotter.instance={taken}");
    lab.docker().run(&["network", "create", "--subnet", &subnet, "--label", &label, &taken]);
    lab.docker().run(&["kill", &web.id]);
    let host = variable(&web, "BALENA_SUPERVISOR_HOST");
    let web = eventually("web is created again", Duration::from_secs(60), || {
        agent.service("web").filter(|now| variable(now, "BALENA_SUPERVISOR_HOST") != host)
    });
    until_applied(&lab, &web);
}

#[test]
fn services_on_the_hosts_network_and_in_anothers_reach_it() {
    reaches(&Lab::new("modes"));
}

#[test]
fn with_podman_too() {
    let Some((_podman, lab)) = Podman::with_lab("modes-podman") else { return };
    reaches(&lab);
}

/// Calls the API from containers in each kind of network.
fn reaches(lab: &Lab) {
    let (cloud, image) = (FakeCloud::start(), busybox(lab));
    let with = |number: u64, more: Value| sleeper(&image, number, &["supervisor-api"], more);
    let services = [
        ("web", with(1, json!({}))),
        ("kiosk", with(2, json!({ "network_mode": "host" }))),
        ("side", with(3, json!({ "network_mode": "service:web" }))),
        ("inner", with(4, json!({ "networks": ["closed"] }))),
        ("bridged", with(5, json!({ "network_mode": "bridge" }))),
        ("alone", with(6, json!({ "network_mode": "none" }))),
    ];
    let mut shop = app(1, "shop", "one", &services);
    shop["releases"]["one"]["networks"] = json!({ "closed": { "internal": true } });
    cloud.target("one", &json!({ uuid(1): shop }));
    let (agent, _) = start(lab, &cloud, &[]);
    for service in ["web", "kiosk", "side", "inner", "bridged"] {
        let inside = container(&agent, service);
        let answered = eventually(&format!("{service} reaches it"), Duration::from_secs(60), || {
            let (status, text) = ask(lab, &inside, "GET /v2/device/name", "", None);
            (status == 200).then_some(text)
        });
        assert!(answered.contains("deviceName"), "{service}: {answered}");
    }
    assert_eq!(variable(&container(&agent, "kiosk"), "BALENA_SUPERVISOR_HOST").as_deref(), Some("127.0.0.1"));
    assert_eq!(variable(&container(&agent, "alone"), "BALENA_SUPERVISOR_HOST"), None);
}

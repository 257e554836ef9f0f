//! The API over real connections, with a reconciler that only answers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{FutureExt, StreamExt, stream};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::model::{
    ApiClient, ApiContainer, App, AppId, AppReport, Commit, ContainerId, ContainerState, Delivered,
    DeviceTag, Door, Health, ImageRef, Release, ServiceName, ServiceReport, ServiceSpec, ServiceStatus,
    SpecHash, Target, TargetApp, TrialSpec, UpdateStatus, VpnAddresses, VpnTrouble, WantedApp,
};

const ALL: Allowed = Allowed { reboot: true, other_apps: true, tags: true, journal: true };
const OWN: Allowed = Allowed { reboot: false, other_apps: false, tags: false, journal: false };

/// Answers to give, by the verb of the order. Other orders are done.
type Answers = BTreeMap<&'static str, Answer>;

/// A served API, for the services `web` and `db` of app 7 and `solo` of app 8. The key of a service is `key-` and its name.
struct Lab {
    port: u16,
    view: watch::Sender<ApiView>,
    report: watch::Sender<Report>,
    orders: Arc<Mutex<Vec<Order>>>,
    poll_now: Arc<Notify>,
    vpn: watch::Sender<VpnState>,
    cloud_key: watch::Sender<Option<ApiKey>>,
    stop: CancellationToken,
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn app_id(number: u64) -> AppId {
    AppId::parse(format!("{number:032x}")).unwrap()
}

fn name(text: &str) -> ServiceName {
    ServiceName::parse(text).unwrap()
}

fn image(service: &str) -> String {
    format!("r.example/{service}@sha256:{}", "a".repeat(64))
}

fn wanted(number: u64, services: &[&str]) -> TargetApp {
    let app = App { id: app_id(number), number, name: format!("app{number}") };
    let spec = |service: &str, at: usize| {
        let image = ImageRef::parse(&image(service)).unwrap();
        let mut spec = ServiceSpec::bare(SpecHash::from_sha256(1, [1; 32]), image);
        (spec.service_id, spec.image_id) = (at as u64 + 1, at as u64 + 71);
        spec.environment.insert("A".into(), "1".into());
        (name(service), spec)
    };
    let release = Release {
        commit: Commit::parse("c1").unwrap(),
        number: 9,
        services: services.iter().enumerate().map(|(at, service)| spec(service, at)).collect(),
        networks: BTreeMap::new(),
        volumes: BTreeMap::new(),
        trial: TrialSpec::default(),
        windows: BTreeSet::new(),
    };
    TargetApp::Wanted(WantedApp { app, release: Some(release), warnings: Vec::new() })
}

fn report() -> Report {
    let apps = [(7, &["db", "web"][..]), (8, &["solo"])];
    let commit = Commit::parse("c1").unwrap();
    let service = |service: &&str| ServiceReport {
        service: name(service),
        release: commit.clone(),
        image: image(service),
        status: ServiceStatus::Running,
        detail: String::new(),
        since: None,
        container: None,
        health: Health::Unchecked,
        progress: None,
    };
    let of_app = |number: u64, services: &[&str]| AppReport {
        name: format!("app{number}"),
        target: Some(commit.clone()),
        current: Some(commit.clone()),
        update: BTreeMap::from([(commit.clone(), UpdateStatus::Done)]),
        services: services.iter().map(service).collect(),
        ..AppReport::default()
    };
    let target = Target {
        device_name: "quiet-lake".into(),
        apps: apps.iter().map(|(number, services)| (app_id(*number), wanted(*number, services))).collect(),
        poll_interval: None,
        is_lock_overridden: false,
        has_logs: false,
        has_instant_updates: true,
        has_metrics: true,
        has_vpn: true,
        moves_to: None,
        variables: Vec::new(),
        left_alone: Vec::new(),
    };
    Report {
        has_target: true,
        apps: apps.iter().map(|(number, services)| (app_id(*number), of_app(*number, services))).collect(),
        delivered: Some(Arc::new(Delivered { target: Arc::new(target), record: None, etag: None })),
        ..Report::default()
    }
}

fn view(doors: &[Door]) -> ApiView {
    let services = [(7, "web"), (7, "db"), (8, "solo")];
    let client = |(app, service): &(u64, &str)| ApiClient {
        app: app_id(*app),
        service: name(service),
        key: ApiKey { id: (*service).to_owned(), secret: format!("key-{service}") },
    };
    let container = |(app, service): &(u64, &str)| ApiContainer {
        app: app_id(*app),
        service: name(service),
        id: ContainerId::parse(format!("id-{service}")).unwrap(),
        image: image(service),
        state: ContainerState::Running,
        created: 1_764_000_000,
    };
    ApiView {
        doors: doors.iter().cloned().collect(),
        clients: services.iter().map(client).collect(),
        containers: services.iter().map(container).collect(),
    }
}

fn new_key() -> Option<ApiKey> {
    Some(ApiKey { id: "2".into(), secret: "another".into() })
}

impl Lab {
    async fn new(allowed: Allowed, answers: Answers) -> Self {
        Self::at(Door::loopback(), allowed, answers).await
    }

    #[expect(clippy::disallowed_methods, reason = "the tests' own tasks end with the tests")]
    async fn at(door: Door, allowed: Allowed, answers: Answers) -> Self {
        let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let (sender, mut received) = mpsc::channel::<(Order, oneshot::Sender<Answer>)>(8);
        let (view, report) = (watch::Sender::new(view(&[door])), watch::Sender::new(report()));
        let (orders, poll_now, stop) = (Arc::default(), Arc::new(Notify::new()), CancellationToken::new());
        let (tags, mut tags_asked) = mpsc::channel(8);
        let key = ApiKey { id: "cloud".into(), secret: "key-cloud".into() };
        let (vpn, cloud_key) = (watch::Sender::new(VpnState::Off), watch::Sender::new(Some(key)));
        let wires = Wires {
            view: view.subscribe(),
            report: report.subscribe(),
            orders: sender,
            poll_now: Some(Arc::clone(&poll_now)),
            tags: Some(tags),
            cloud: CloudAccess {
                state: vpn.subscribe(),
                key: cloud_key.subscribe(),
                device: "lo".to_owned(),
                is_for_services: true,
            },
            journal: |arguments| {
                async move { Ok(stream::iter([arguments.join(" ").into_bytes(), b"\n".to_vec()]).boxed()) }
                    .boxed()
            },
        };
        tokio::spawn(async move {
            // The cloud has one tag, and takes all but `full`.
            while let Some(asked) = tags_asked.recv().await {
                match asked {
                    TagRequest::Read(answer) => {
                        let tag = DeviceTag { id: 5, key: "site".into(), value: "zurich".into() };
                        _ = answer.send(Ok(vec![tag]));
                    }
                    TagRequest::Set(tags, answer) => {
                        let is_full = tags.contains_key("full");
                        _ = answer.send(if is_full { Err("no room".to_owned()) } else { Ok(()) });
                    }
                }
            }
        });
        let supervisor =
            Supervisor::new(wires, allowed, (port, "Debian".into()), |_| "now".to_owned(), new_key);
        tokio::spawn(run(supervisor, stop.clone()));
        let noted: Arc<Mutex<Vec<Order>>> = Arc::clone(&orders);
        tokio::spawn(async move {
            while let Some((order, answer)) = received.recv().await {
                let done = Answer::Done("done".to_owned());
                let answered = answers.get(order.verb()).cloned().unwrap_or(done);
                noted.lock().unwrap().push(order);
                _ = answer.send(answered);
            }
        });
        Self { port, view, report, orders, poll_now, vpn, cloud_key, stop }
    }

    async fn connect(&self, address: &str) -> TcpStream {
        for _ in 0..500 {
            if let Ok(stream) = TcpStream::connect((address, self.port)).await {
                return stream;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("nothing listens at {address}:{}", self.port)
    }

    /// Sends a request with the key of a service, and returns status, head and body of the response.
    async fn ask(&self, service: &str, request: &str, body: &str) -> (u16, String, String) {
        let key = if service.is_empty() {
            String::new()
        } else {
            format!("Authorization: Bearer key-{service}\r\n")
        };
        let length = body.len();
        let text = format!(
            "{request} HTTP/1.1\r\nHost: s\r\nConnection: close\r\n{key}Content-Type: application/json\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        );
        self.send(&text).await
    }

    async fn send(&self, text: &str) -> (u16, String, String) {
        self.send_to("127.0.0.1", text).await
    }

    /// Asks at the address of the VPN.
    async fn ask_at_vpn(&self, key: &str, request: &str, body: &str) -> (u16, String) {
        let (method, path) = request.split_once(' ').unwrap();
        let length = body.len();
        let text = format!(
            "{method} {path}?apikey={key} HTTP/1.1\r\nHost: s\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        let (status, _, body) = self.send_to("127.0.0.2", &text).await;
        (status, body)
    }

    async fn send_to(&self, address: &str, text: &str) -> (u16, String, String) {
        let mut stream = self.connect(address).await;
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).await.unwrap();
        let (head, body) = response.split_once("\r\n\r\n").unwrap_or((&response, ""));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        (status, head.to_owned(), body.to_owned())
    }

    fn verbs(&self) -> Vec<&'static str> {
        self.orders.lock().unwrap().drain(..).map(|order| order.verb()).collect()
    }
}

#[tokio::test]
async fn every_row_answers_as_balenas_does() {
    for (request, body, status, expected, verbs) in [
        ("GET /ping", "", 200, "OK", &[][..]),
        ("GET /v1/healthy", "", 200, "OK", &[]),
        ("POST /v1/regenerate-api-key", "", 200, "another", &["new key"]),
        ("POST /v1/update", "", 204, "", &[]),
        ("POST /v1/update", r#"{"force": true}"#, 204, "", &["force"]),
        ("POST /v1/reboot", "", 202, r#"{"Data":"OK","Error":null}"#, &["reboot"]),
        ("POST /v1/shutdown", r#"{"force": true}"#, 202, r#"{"Data":"OK","Error":null}"#, &["shutdown"]),
        ("POST /v1/restart", r#"{"appId": 7}"#, 200, "OK", &["restart"]),
        ("POST /v1/restart", "", 400, "Missing app id", &[]),
        ("POST /v1/purge", r#"{"appId": "7"}"#, 200, r#"{"Data":"OK","Error":""}"#, &["purge"]),
        ("POST /v1/purge", r#"{"appId": "x"}"#, 400, "Invalid or missing appId", &[]),
        ("POST /v2/applications/7/restart", "", 200, "OK", &["restart"]),
        ("POST /v2/applications/7/purge", "", 200, "OK", &["purge"]),
        ("POST /v2/applications/7/restart-service", r#"{"serviceName": "db"}"#, 200, "OK", &["restart"]),
        ("POST /v2/applications/7/stop-service", r#"{"imageId": 72}"#, 200, "OK", &["stop"]),
        ("POST /v2/applications/7/start-service?serviceName=db", "", 200, "OK", &["start"]),
        ("POST /v2/applications/7/start-service", "", 400, "This endpoint requires one", &[]),
        ("POST /v2/applications/7/start-service", r#"{"imageId": 1}"#, 404, "Service not found", &[]),
        ("POST /v2/applications/5/start-service", r#"{"imageId": 1}"#, 404, "App not found", &[]),
        ("POST /v1/apps/7/stop", "", 400, "Some v1 endpoints", &[]),
        ("POST /v1/apps/8/stop", "", 200, r#"{"containerId":"id-solo"}"#, &["stop"]),
        ("POST /v1/apps/8/start", "", 200, r#"{"containerId":"id-solo"}"#, &["start"]),
        ("GET /v2/version", "", 200, r#"{"status":"success","version":"#, &[]),
        ("GET /v2/device/name", "", 200, r#"{"deviceName":"quiet-lake","status":"success"}"#, &[]),
        ("GET /v2/containerId?service=db", "", 200, r#"{"containerId":"id-db","status":"success"}"#, &[]),
        ("GET /v2/containerId?serviceName=x", "", 503, r#"{"message":"Could not find"#, &[]),
        ("GET /v2/cleanup-volumes", "", 200, "OK", &["purge"]),
        ("GET /v2/applications/5/state", "", 409, r#"{"message":"#, &[]),
        ("GET /v1/apps/7", "", 400, "Some v1 endpoints", &[]),
        ("POST /v1/blink", "", 501, r#"{"message":"not supported"#, &[]),
        (
            "GET /v2/device/tags?apikey=key-web",
            "",
            200,
            r#"{"status":"success","tags":[{"id":5,"name":"site","value":"zurich"}]}"#,
            &[],
        ),
        ("PATCH /v2/device/tags?apikey=key-web", r#"{"site": "bern", "ring": "canary"}"#, 202, "", &[]),
        ("PATCH /v2/device/tags", r#"{"full": "1"}"#, 500, r#"{"message":"no room","status":"failed"}"#, &[]),
        ("PATCH /v2/device/tags?site=bern", "", 400, r#"{"message":"the body names no tag"#, &[]),
        (
            "PATCH /v2/device/tags",
            r#"{"a b": "1"}"#,
            400,
            r#"{"message":"the key \"a b\" is not accepted"#,
            &[],
        ),
        ("POST /v2/journal-logs", r#"{"count": 5}"#, 200, "", &[]),
        ("POST /v2/journal-logs", r#"{"count": "many"}"#, 400, r#"{"message":"count must be a number"#, &[]),
        ("GET /v9/x", "", 404, "Cannot GET /v9/x", &[]),
        ("POST /v1/restart", "{", 400, r#"{"message":"the body is not understood"#, &[]),
    ] {
        // Each is asked by a service that has asked nothing yet.
        let lab = Lab::new(ALL, Answers::new()).await;
        let (got, _, text) = lab.ask("web", request, body).await;
        assert_eq!((got, text.starts_with(expected)), (status, true), "{request} {body}: {got} {text}");
        assert_eq!(lab.verbs(), verbs, "{request} {body}");
    }
}

#[tokio::test]
async fn what_is_shown_has_the_fields_of_balenas() {
    let lab = Lab::new(OWN, Answers::new()).await;
    let shown = async |request: &str| {
        let (status, _, text) = lab.ask("web", request, "").await;
        assert_eq!(status, 200, "{request} {text}");
        serde_json::from_str::<Value>(&text).unwrap()
    };
    let service = |service: &str| json!({ "status": "Running", "image": image(service), "releaseId": 9, "downloadProgress": null });
    let apps = json!({ "app7": {
        "appId": 7, "appUuid": app_id(7).to_string(), "commit": "c1", "updateStatus": "done",
        "services": { "db": service("db"), "web": service("web") },
    } });
    assert_eq!(shown("GET /v2/applications/state").await, apps, "only its own app");
    let running = json!({ "status": "Running", "releaseId": 9, "download_progress": null });
    let app = json!({ "commit": "c1", "local": { "7": { "services": { "71": running, "72": running } } } });
    assert_eq!(shown("GET /v2/applications/7/state").await, app);
    let status = shown("GET /v2/state/status").await;
    assert_eq!(status["appState"], "applied");
    assert_eq!((&status["release"], &status["overallDownloadProgress"]), (&json!("c1"), &Value::Null));
    assert_eq!(status["containers"].as_array().unwrap().len(), 2);
    let container = json!({
        "status": "Running", "serviceName": "db", "appId": 7, "imageId": 71, "serviceId": 1,
        "containerId": "id-db", "createdAt": "2025-11-24T16:00:00Z",
    });
    assert_eq!(status["containers"][0], container);
    assert_eq!(status["images"][1]["name"], image("web"));
    let device = shown("GET /v1/device").await;
    assert_eq!((&device["commit"], &device["status"]), (&json!("c1"), &json!("Idle")));
    assert_eq!((&device["update_pending"], &device["os_version"]), (&json!(false), &json!("Debian")));
    assert_eq!(
        shown("GET /v2/containerId").await,
        json!({ "status": "success", "services": { "db": "id-db", "web": "id-web" } })
    );
    let (status, _, text) = lab.ask("solo", "GET /v1/apps/8", "").await;
    let single: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (status, &single["env"], &single["containerId"]),
        (200, &json!({ "A": "1" }), &json!("id-solo"))
    );
}

#[tokio::test]
async fn a_service_acts_on_its_own_app_only() {
    let lab = Lab::new(OWN, Answers::new()).await;
    for request in [
        "POST /v2/applications/8/restart",
        "POST /v2/applications/8/purge",
        "POST /v2/applications/8/stop-service?serviceName=solo",
        "POST /v1/restart?appId=8",
        "POST /v1/purge?appId=8",
        "POST /v1/apps/8/stop",
        "GET /v1/apps/8",
        "GET /v2/applications/8/state",
        // The answer does not say whether there is such an app.
        "GET /v2/applications/5/state",
        "POST /v2/applications/5/restart",
    ] {
        let (status, _, text) = lab.ask("web", request, "").await;
        assert_eq!((status, text.contains("policy.other_apps")), (401, true), "{request}: {text}");
    }
    for (request, setting) in [
        ("POST /v1/reboot", "policy.reboot"),
        ("POST /v1/shutdown?force=1", "policy.reboot"),
        ("GET /v2/device/tags", "policy.balena_api"),
        ("PATCH /v2/device/tags?site=bern", "the body names no tag"),
        ("POST /v2/journal-logs", "policy.features"),
    ] {
        let (status, _, text) = lab.ask("db", request, "").await;
        let expected = if setting.starts_with("policy") { 403 } else { 400 };
        assert_eq!((status, text.contains(setting)), (expected, true), "{request}: {text}");
    }
    assert_eq!(lab.ask("solo", "PATCH /v2/device/tags", r#"{"site": "bern"}"#).await.0, 403);
    assert_eq!(lab.verbs(), Vec::<&str>::new());
    assert!(!lab.ask("web", "GET /v2/state/status", "").await.2.contains("solo"));
    assert!(!lab.ask("web", "GET /v2/containerId", "").await.2.contains("solo"));
}

#[tokio::test]
async fn without_a_key_of_this_network_there_is_only_ping() {
    let lab = Lab::new(ALL, Answers::new()).await;
    for service in ["", "wrong", "we", "webb"] {
        let (status, _, text) = lab.ask(service, "GET /v2/version", "").await;
        assert_eq!((status, text.as_str()), (401, "Unauthorized"), "{service}");
        assert_eq!(lab.ask(service, "GET /ping", "").await.0, 200);
        assert_eq!(lab.ask(service, "GET /nothing", "").await.0, 401);
    }
    // A machine elsewhere that reaches the address of a bridge has the address of another network.
    let door = Door { address: [127, 0, 0, 1].into(), peers: vec!["172.18.0.0/16".to_owned()] };
    let lab = Lab::at(door, ALL, Answers::new()).await;
    for request in ["GET /ping", "GET /v2/version"] {
        assert_eq!(lab.ask("web", request, "").await.0, 401, "{request}");
    }
}

#[tokio::test]
async fn locks_and_refusals_have_their_statuses() {
    let held = Answer::Held("locked by x".to_owned());
    let refused = Answer::Refused("no".to_owned());
    let answers = BTreeMap::from([("restart", held.clone()), ("reboot", held), ("stop", refused)]);
    let lab = Lab::new(ALL, answers).await;
    let locked = r#"{"message":"locked by x","status":"failed"}"#;
    for (request, status, expected) in [
        ("POST /v1/restart?appId=7", 423, locked),
        ("POST /v2/applications/7/restart", 423, locked),
        ("POST /v2/applications/7/restart-service?serviceName=db", 423, locked),
        ("POST /v1/reboot", 423, r#"{"Data":"","Error":"locked by x"}"#),
        ("POST /v2/applications/7/stop-service?serviceName=db", 503, r#"{"message":"no","status":"failed"}"#),
    ] {
        let (got, _, text) = lab.ask("web", request, "").await;
        assert_eq!((got, text.as_str()), (status, expected), "{request}");
    }
}

#[tokio::test]
async fn an_update_asks_the_cloud_at_once() {
    let lab = Lab::new(OWN, Answers::new()).await;
    assert_eq!(lab.ask("web", "POST /v1/update", "").await.0, 204);
    lab.poll_now.notified().await;
}

#[tokio::test]
async fn a_cloud_without_instant_updates_is_polled_by_force_only() {
    let lab = Lab::new(OWN, Answers::new()).await;
    lab.report.send_modify(|report| {
        let delivered = Arc::make_mut(report.delivered.as_mut().unwrap());
        Arc::make_mut(&mut delivered.target).has_instant_updates = false;
    });
    assert_eq!(lab.ask("web", "POST /v1/update", "").await.0, 202);
    assert!(lab.poll_now.notified().now_or_never().is_none());
    assert_eq!(lab.ask("web", "POST /v1/update?force=true", "").await.0, 204);
    lab.poll_now.notified().await;
}

#[tokio::test]
async fn the_journal_is_a_text_in_pieces() {
    let lab = Lab::new(ALL, Answers::new()).await;
    let (status, head, text) = lab.ask("web", "POST /v2/journal-logs", r#"{"unit": "docker.service"}"#).await;
    assert!(status == 200 && head.to_lowercase().contains("content-type: text/plain"), "{head}");
    assert!(text.contains("--no-pager --lines=1000 --output=short --unit=docker.service"), "{text}");
}

#[tokio::test]
async fn a_body_of_20_mb_is_refused_without_being_read() {
    let lab = Lab::new(OWN, Answers::new()).await;
    let head = "POST /v2/applications/7/restart HTTP/1.1\r\nHost: s\r\nAuthorization: Bearer key-web\r\n\
                Content-Length: 20971520\r\n\r\n{";
    let (status, _, text) = lab.send(head).await;
    assert_eq!((status, text.contains("65536 bytes")), (413, true), "{text}");
    let stranger = head.replace("key-web", "guessed");
    assert_eq!(lab.send(&stranger).await.0, 401);
    assert_eq!(lab.verbs(), Vec::<&str>::new());
}

#[tokio::test]
async fn a_service_in_a_loop_is_told_to_wait_and_others_are_served() {
    let lab = Lab::new(OWN, Answers::new()).await;
    let restart = "POST /v2/applications/7/restart-service?serviceName=web";
    for _ in 0..10 {
        assert_eq!(lab.ask("web", restart, "").await.0, 200);
    }
    let (status, head, text) = lab.ask("web", restart, "").await;
    assert_eq!(status, 429, "{text}");
    assert!(
        head.to_lowercase().contains("retry-after: ") && text.contains("Nothing was changed"),
        "{head} {text}"
    );
    assert_eq!(lab.verbs().len(), 10);
    // What only shows something goes on, and so do other services.
    assert_eq!(lab.ask("web", "GET /v2/version", "").await.0, 200);
    assert_eq!(lab.ask("db", restart, "").await.0, 200);
    let mut statuses = Vec::new();
    for _ in 0..110 {
        statuses.push(lab.ask("web", "GET /v2/version", "").await.0);
    }
    assert!(statuses.contains(&429), "{statuses:?}");
    assert_eq!(lab.ask("db", "GET /v2/version", "").await.0, 200);
}

#[tokio::test]
async fn requests_that_do_not_end_keep_no_other_service_out() {
    let lab = Lab::new(OWN, Answers::new()).await;
    let half = "POST /v2/applications/7/restart HTTP/1.1\r\nHost: s\r\nAuthorization: Bearer key-web\r\n\
                Content-Length: 9\r\n\r\n{";
    let mut silent = Vec::new();
    for text in [half; 4].into_iter().chain(["GET /pi"; 40]) {
        let mut stream = lab.connect("127.0.0.1").await;
        stream.write_all(text.as_bytes()).await.unwrap();
        silent.push(stream);
    }
    let (status, _, text) = lab.ask("web", "GET /v2/version", "").await;
    assert_eq!((status, text.contains("in progress")), (429, true), "{text}");
    assert_eq!(lab.ask("db", "GET /v2/version", "").await.0, 200);
}

#[tokio::test]
async fn the_api_follows_a_gateway_that_changes() {
    let lab = Lab::new(OWN, Answers::new()).await;
    lab.connect("127.0.0.1").await;
    let door = Door { address: [127, 0, 0, 2].into(), peers: vec!["127.0.0.0/8".to_owned()] };
    lab.view.send_modify(|view| view.doors = BTreeSet::from([door]));
    lab.connect("127.0.0.2").await;
    for _ in 0..500 {
        if TcpStream::connect(("127.0.0.1", lab.port)).await.is_err() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it still listens at the address before");
}

fn tunnel(peer: [u8; 4]) -> VpnState {
    VpnState::Connected(VpnAddresses { own: [127, 0, 0, 2].into(), peer: peer.into() })
}

#[tokio::test]
async fn the_cloud_asks_at_the_vpn_and_all_apps_are_its_own() {
    let lab = Lab::new(OWN, Answers::new()).await;
    assert!(
        TcpStream::connect(("127.0.0.2", lab.port)).await.is_err(),
        "without a tunnel nothing listens there"
    );
    lab.vpn.send_replace(tunnel([127, 0, 0, 1]));
    for (request, body, status, expected, verbs) in [
        ("GET /ping", "", 200, "OK", &[][..]),
        ("POST /v1/update", r#"{"force": true}"#, 204, "", &["force"]),
        ("POST /v1/restart", r#"{"appId": 8}"#, 200, "OK", &["restart"]),
        ("POST /v1/purge", r#"{"appId": 7}"#, 200, r#"{"Data":"OK","Error":""}"#, &["purge"]),
        ("POST /v2/applications/8/restart-service", r#"{"serviceName": "solo"}"#, 200, "OK", &["restart"]),
        ("GET /v2/cleanup-volumes", "", 200, "OK", &["purge", "purge"]),
        ("POST /v1/reboot", "", 403, "the owner of this device does not let apps reboot it", &[]),
        ("POST /v1/regenerate-api-key", "", 501, "comes from the device's key", &[]),
        ("POST /v1/blink", "", 501, "no light", &[]),
        (
            "GET /v2/device/vpn",
            "",
            200,
            r#"{"status":"success","vpn":{"connected":true,"enabled":true}}"#,
            &[],
        ),
        ("GET /v2/applications/state", "", 200, r#""app8":{"#, &[]),
        ("GET /v1/device", "", 200, r#""status":"Idle""#, &[]),
        ("POST /v2/applications/9/restart", "", 404, "App not found", &[]),
    ] {
        let (answered, text) = lab.ask_at_vpn("key-cloud", request, body).await;
        assert_eq!(answered, status, "{request}: {text}");
        assert!(text.contains(expected), "{request}: {text}");
        assert_eq!(lab.verbs(), verbs, "{request}");
    }
}

#[tokio::test]
async fn each_key_is_good_at_its_own_door_only() {
    let lab = Lab::new(ALL, Answers::new()).await;
    lab.vpn.send_replace(tunnel([127, 0, 0, 1]));
    for key in ["", "key-web", "key-clou", "key-cloud2"] {
        assert_eq!(lab.ask_at_vpn(key, "POST /v1/update", "").await.0, 401, "{key}");
    }
    assert_eq!(
        lab.ask("cloud", "POST /v1/update", "").await.0,
        401,
        "a service has no use for the cloud's key"
    );
    let changed = ApiKey { id: "cloud".into(), secret: "key-new".into() };
    lab.cloud_key.send_replace(Some(changed));
    assert_eq!(lab.ask_at_vpn("key-cloud", "POST /v1/update", "").await.0, 401);
    assert_eq!(lab.ask_at_vpn("key-new", "POST /v1/update", "").await.0, 204);
    lab.cloud_key.send_replace(None);
    assert_eq!(lab.ask_at_vpn("", "POST /v1/update", "").await.0, 401);
    assert_eq!(lab.verbs(), [""; 0]);
}

#[tokio::test]
async fn only_the_server_of_the_vpn_is_answered_and_only_while_there_is_a_tunnel() {
    let lab = Lab::new(ALL, Answers::new()).await;
    lab.vpn.send_replace(tunnel([127, 0, 0, 9]));
    assert_eq!(lab.ask_at_vpn("key-cloud", "GET /ping", "").await.0, 401, "another address asks");
    lab.vpn.send_replace(tunnel([127, 0, 0, 1]));
    while lab.ask_at_vpn("key-cloud", "GET /ping", "").await.0 != 200 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    lab.vpn.send_replace(VpnState::Down(VpnTrouble::NotRunning));
    while TcpStream::connect(("127.0.0.2", lab.port)).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let (status, _, body) = lab.ask("web", "GET /v2/device/vpn", "").await;
    assert_eq!(
        (status, body.as_str()),
        (200, r#"{"status":"success","vpn":{"connected":false,"enabled":true}}"#)
    );
}

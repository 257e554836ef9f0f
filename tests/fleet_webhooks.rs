//! Webhooks of rollouts, with a real server and a real receiver.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking"
)]

mod support;

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use support::{FleetServer, Received, Receiver, Say};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(40);
const OK: Say = Say::Status(200, "{}");

fn uuid(number: u32) -> String {
    format!("{number:032x}")
}

fn key_of(uuid: &str) -> String {
    format!("some-secret-{}-key", &uuid[28..])
}

fn release(commit: &str, is_final: bool) -> Value {
    let image = format!("127.0.0.1:5000/lab/{commit}");
    json!({
        "commit": commit,
        "composition": { "services": { "web": { "image": image } } },
        "images": { "web": format!("{image}@sha256:{}", "a".repeat(64)) },
        "is_final": is_final,
    })
}

/// A fleet server, an operator, and devices.
struct Site {
    server: FleetServer,
    http: reqwest::Client,
    app: String,
    dir: TempDir,
}

impl Site {
    /// Fleet `lab` that runs `1111old`, with these devices, and the draft `2222new`.
    async fn open(devices: u32) -> Self {
        let dir = TempDir::new().unwrap();
        let server = FleetServer::start_in(dir.path(), Vec::new());
        drop(rustls::crypto::ring::default_provider().install_default());
        // The server is started again under its clients.
        let http = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).build().unwrap();
        let mut site = Self { server, http, app: String::new(), dir };
        let created = site.create_fleet("lab").await;
        created["fleet"]["uuid"].as_str().unwrap().clone_into(&mut site.app);
        let key = created["provisioning_key"].as_str().unwrap();
        for number in 1..=devices {
            let (uuid, number) = (uuid(number), &created["fleet"]["number"]);
            let device = json!({ "application": number, "device_type": "generic-amd64", "uuid": uuid, "api_key": key_of(&uuid) });
            let register = site.http.post(format!("{}/device/register", site.server.url)).bearer_auth(key);
            assert_eq!(register.json(&device).send().await.unwrap().status(), 201);
        }
        site.live(1..=devices).await;
        site
    }

    async fn create_fleet(&self, name: &str) -> Value {
        let created = self.did(Method::POST, "/fleets", json!({ "name": name })).await;
        for (commit, is_final) in [("1111old", true), ("2222new", false)] {
            self.did(Method::POST, &format!("/fleets/{name}/releases"), release(commit, is_final)).await;
        }
        created
    }

    async fn ask(&self, method: Method, path: &str, body: Value) -> (u16, Value) {
        let token = std::fs::read_to_string(self.server.token_file()).unwrap();
        self.ask_as(token.trim(), method, path, body).await
    }

    async fn ask_as(&self, token: &str, method: Method, path: &str, body: Value) -> (u16, Value) {
        let request =
            self.http.request(method, format!("{}/api/v1{path}", self.server.url)).bearer_auth(token);
        let request = if body.is_null() { request } else { request.json(&body) };
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.json().await.unwrap())
    }

    async fn did(&self, method: Method, path: &str, body: Value) -> Value {
        let (status, answer) = self.ask(method, path, body).await;
        assert!((200..300).contains(&status), "{path}: {status} {answer}");
        answer
    }

    async fn get(&self, path: &str) -> Value {
        self.did(Method::GET, path, Value::Null).await
    }

    /// Creates a webhook, and returns its secret.
    async fn webhook(&self, name: &str, url: &str, more: Value) -> String {
        let mut body = json!({ "name": name, "url": url });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let created = self.did(Method::POST, "/webhooks", body).await;
        created["secret"].as_str().unwrap().to_owned()
    }

    async fn start(&self, fleet: &str, definition: Value) -> Value {
        let body = json!({ "release": "2222new", "definition": definition });
        self.did(Method::POST, &format!("/fleets/{fleet}/rollouts"), body).await
    }

    async fn rollout(&self, fleet: &str) -> Value {
        self.get(&format!("/fleets/{fleet}/rollouts/current")).await
    }

    /// Approves a wave. Returns the status, and the message of a refusal.
    async fn approve(&self, fleet: &str, body: Value) -> (u16, String) {
        let path = format!("/fleets/{fleet}/rollouts/current/approve");
        let (status, answer) = self.ask(Method::POST, &path, body).await;
        (status, answer["error"]["message"].as_str().unwrap_or_default().to_owned())
    }

    async fn steer(&self, fleet: &str, act: &str) -> Value {
        self.did(Method::POST, &format!("/fleets/{fleet}/rollouts/current/{act}"), json!({})).await
    }

    async fn until<T>(&self, what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
        let begun = Instant::now();
        loop {
            if let Some(found) = look().await {
                return found;
            }
            assert!(begun.elapsed() < PATIENCE, "waited in vain: {what}\n{}", self.server.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn until_why(&self, fleet: &str, why: &str) -> Value {
        let look = async || Some(self.rollout(fleet).await).filter(|it| it["why"] == why);
        self.until(why, look).await
    }

    /// Lets devices ask for their target, and report that they run it. Returns how many should run the new release.
    async fn live(&self, devices: std::ops::RangeInclusive<u32>) -> usize {
        let mut exposed = 0;
        for uuid in devices.map(uuid) {
            let poll = self.http.get(format!("{}/device/v3/{uuid}/state", self.server.url));
            let target: Value = poll.bearer_auth(key_of(&uuid)).send().await.unwrap().json().await.unwrap();
            let Some(releases) = target[&uuid]["apps"][&self.app]["releases"].as_object() else { continue };
            let commit = releases.keys().next().unwrap();
            exposed += usize::from(commit == "2222new");
            let body = json!({ &uuid: {
                "apps": { &self.app: { "release_uuid": commit } },
                "cotter": { "agent": "0.2.0", "target": commit, "waiting": [] },
            } });
            let report = self.http.patch(format!("{}/device/v3/state", self.server.url));
            let answer = report.bearer_auth(key_of(&uuid)).json(&body).send().await.unwrap();
            assert_eq!(answer.status(), 200);
        }
        exposed
    }

    /// Waits until so many devices of fleet lab are exposed, and lets all report.
    async fn live_until(&self, devices: u32, exposed: usize) {
        self.until("the exposure", async || {
            let rollout = self.rollout("lab").await;
            let waves = rollout["waves"].as_array().unwrap().iter();
            let all: u64 = waves.map(|wave| wave["tally"]["exposed"].as_u64().unwrap()).sum();
            (all == exposed as u64).then_some(())
        })
        .await;
        assert_eq!(self.live(1..=devices).await, exposed);
    }
}

/// Runs the example of the page for people with a message.
fn python_accepts(secret: &str, received: &Received, body: &str, now: i64) -> Option<bool> {
    if Command::new("python3").arg("--version").output().is_err() {
        eprintln!("skipped: there is no python3");
        return None;
    }
    let page = include_str!("../docs/rollouts.md");
    let code = page.split("```python\n").nth(1).unwrap().split("```").next().unwrap();
    let script = format!(
        "{code}\nimport json, sys\nit = json.load(sys.stdin)\n\
         print(is_from_cotter(it['secret'], it['headers'], it['body'].encode(), it['now']))\n"
    );
    let mut python = Command::new("python3");
    let mut python =
        python.args(["-c", &script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let it = json!({ "secret": secret, "headers": received.headers, "body": body, "now": now });
    python.stdin.take().unwrap().write_all(it.to_string().as_bytes()).unwrap();
    let out = python.wait_with_output().unwrap();
    assert!(out.status.success());
    Some(String::from_utf8_lossy(&out.stdout).trim() == "True")
}

#[tokio::test]
async fn what_becomes_of_a_rollout_is_announced_signed_and_in_its_order() {
    let site = Site::open(3).await;
    let (all, some, other) = (Receiver::start(&[OK]), Receiver::start(&[OK]), Receiver::start(&[OK]));
    site.create_fleet("other").await;
    let secret = site.webhook("all", &all.url, json!({})).await;
    site.webhook("some", &some.url, json!({ "events": ["complete"], "fleets": ["lab"] })).await;
    site.webhook("other", &other.url, json!({ "fleets": ["other"] })).await;
    site.start("lab", json!({ "waves": ["1 approve", "100%"], "soak": "0s", "observe": "0s" })).await;
    site.live_until(3, 1).await;
    site.until("the pause", async || all.kinds().contains("rollout.pause").then_some(())).await;
    assert_eq!(site.approve("lab", json!({ "wave": 2 })).await, (200, String::new()));
    site.live_until(3, 3).await;
    site.until("the end", async || (all.received().len() == 5 && !some.received().is_empty()).then_some(()))
        .await;
    assert_eq!(all.kinds(), "rollout.start rollout.pause rollout.resume rollout.wave rollout.complete");
    assert_eq!((some.kinds().as_str(), other.kinds().as_str()), ("rollout.complete", ""));
    let received = all.received();
    let wave = received[3].json();
    let data = &wave["data"];
    assert_eq!((&data["fleet"], &data["release"]), (&json!("lab"), &json!("2222new")), "{wave}");
    assert_eq!((&data["wave"], &data["waves"], &data["rollout"]), (&json!(2), &json!(2), &json!(1)));
    assert_eq!((&data["devices"]["accepted"], &data["phase"]), (&json!(1), &json!("running")));
    assert_eq!(received[1].json()["data"]["why"], "the next wave needs an approval");
    for one in &received {
        let now: i64 = one.headers["webhook-timestamp"].parse().unwrap();
        assert_eq!(one.headers["content-type"], "application/json");
        for (body, now, secret, expected) in [
            (one.body.clone(), now, secret.as_str(), true),
            (one.body.replace("lab", "bal"), now, &secret, false),
            (one.body.clone(), now + 301, &secret, false),
            (one.body.clone(), now, "whsec_AAAA", false),
        ] {
            let accepted = python_accepts(secret, one, &body, now);
            assert!(accepted.is_none_or(|accepted| accepted == expected), "{one:?}");
        }
    }
    let ids: std::collections::BTreeSet<_> = received.iter().map(Received::id).collect();
    assert_eq!(ids.len(), 5, "each message has its own id");
    let shown = site.get("/webhooks/all").await;
    assert_eq!((&shown["delivered"], &shown["waiting"]), (&json!(5), &json!(0)), "{shown}");
    assert!(shown["last_success"].is_string() && shown["last_failure"].is_null(), "{shown}");
    let metrics = site.http.get(format!("{}/metrics", site.server.url));
    let token = std::fs::read_to_string(site.server.token_file()).unwrap();
    let metrics = metrics.bearer_auth(token.trim()).send().await.unwrap().text().await.unwrap();
    for line in [
        "cotter_fleet_webhook_deliveries_total{webhook=\"all\",result=\"delivered\"} 5",
        "cotter_fleet_rollout_phase{fleet=\"lab\",phase=\"completed\"} 1",
    ] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
}

/// Whatever a receiver does, the rollout and other webhooks go on, and its own message is sent again.
#[tokio::test]
async fn receivers_that_fail_hold_nothing_up_and_get_their_message_again() {
    let site = Site::open(1).await;
    let elsewhere = Receiver::start(&[OK]);
    let broken = Receiver::start(&[Say::Status(500, "no"), OK]);
    let hanging = Receiver::start(&[Say::Hang, OK]);
    let redirecting = Receiver::start(&[Say::Redirect(elsewhere.url.clone())]);
    let endless = Receiver::start(&[Say::Endless(200)]);
    let good = Receiver::start(&[OK]);
    for (name, receiver) in [
        ("a-hanging", &hanging),
        ("b-broken", &broken),
        ("c-redirecting", &redirecting),
        ("d-endless", &endless),
        ("e-good", &good),
    ] {
        site.webhook(name, &receiver.url, json!({ "events": ["start"] })).await;
    }
    site.webhook("f-closed", "http://127.0.0.1:1/hook", json!({ "events": ["start"] })).await;
    site.start("lab", json!({ "waves": ["100%"], "soak": "0s", "observe": "0s" })).await;
    site.live_until(1, 1).await;
    let look = async || Some(site.rollout("lab").await).filter(|it| it["phase"] == "completed");
    site.until("its end", look).await;
    assert_eq!(hanging.received().len(), 1, "it hangs still");
    assert_eq!(good.received().len(), 1);
    let why = async |name: &str| {
        let shown = site.get(&format!("/webhooks/{name}")).await;
        Some(shown["last_failure"]["why"].as_str()?.to_owned())
    };
    assert_eq!(site.until("500", async || why("b-broken").await).await, "it answered 500");
    let redirected = site.until("a redirect", async || why("c-redirecting").await).await;
    assert!(redirected.starts_with("it redirects to http://127.0.0.1:"), "{redirected}");
    let closed = site.until("a closed port", async || why("f-closed").await).await;
    assert!(closed.contains("Connection refused"), "{closed}");
    site.until("the second attempt", async || (broken.received().len() == 2).then_some(())).await;
    let received = broken.received();
    assert_eq!((received[0].id(), &received[0].body), (received[1].id(), &received[1].body));
    assert_eq!(site.until("the hang", async || why("a-hanging").await).await, "no answer in time");
    site.until("the attempt after it", async || (hanging.received().len() == 2).then_some(())).await;
    // The body of a gigabyte is not read, beyond what the kernel keeps.
    site.until("it is taken", async || {
        (site.get("/webhooks/d-endless").await["delivered"] == 1).then_some(())
    })
    .await;
    assert!(endless.sent() < 64 << 20, "{}", endless.sent());
    assert_eq!(elsewhere.received().len(), 0, "no redirect is followed");
    let waits = site.get("/webhooks/c-redirecting").await;
    assert_eq!(waits["waiting"], 1, "{waits}");
}

#[tokio::test]
async fn a_message_survives_the_server() {
    let mut site = Site::open(1).await;
    let receiver = Receiver::start(&[Say::Hang]);
    site.webhook("ci", &receiver.url, json!({ "events": ["start", "abort"] })).await;
    site.start("lab", json!({ "waves": ["100%"] })).await;
    site.until("the first attempt", async || (receiver.received().len() == 1).then_some(())).await;
    site.server.cut();
    receiver.says(OK);
    site.server.start_again();
    site.until("the message", async || (receiver.received().len() == 2).then_some(())).await;
    let received = receiver.received();
    assert_eq!((received[0].id(), &received[0].body), (received[1].id(), &received[1].body));
    site.until("its record", async || (site.get("/webhooks/ci").await["delivered"] == 1).then_some(())).await;
    // A fleet takes its rollout with it.
    site.did(Method::POST, "/fleets/lab/delete", json!({ "with_devices": true })).await;
    site.until("the end", async || receiver.kinds().ends_with("rollout.abort").then_some(())).await;
    assert_eq!(receiver.received()[2].json()["data"]["why"], "the fleet was deleted");
}

#[tokio::test]
async fn a_webhook_lets_each_wave_begin_or_holds_it() {
    let site = Site::open(2).await;
    let gate = Receiver::start(&[
        Say::Status(503, "later"),
        Say::Status(200, r#"{"proceed": false, "why": "freeze until monday"}"#),
        Say::Status(200, r#"{"proceed": true}"#),
    ]);
    let secret = site.webhook("gate", &gate.url, json!({ "events": [] })).await;
    let definition = json!({ "waves": ["1", "100%"], "soak": "0s", "observe": "0s", "confirm": "gate" });
    site.start("lab", definition).await;
    site.until_why("lab", "wave 1 waits for webhook gate: it answered 503").await;
    assert_eq!(site.live(1..=2).await, 0, "the wave has not begun");
    let device = site.get(&format!("/devices/{}", uuid(1))).await;
    let why = device["rollout"]["why"].as_str().unwrap();
    assert!(why.starts_with("wave 1 waits for webhook gate") || why == "it is in a later wave", "{why}");
    let held = site.until_why("lab", "wave 1 waits for webhook gate: it said no: freeze until monday").await;
    assert!(held["next"].as_str().unwrap().contains("is asked again at"), "{held}");
    assert_eq!(held["phase"], "running");
    site.live_until(2, 1).await;
    let received = gate.received();
    assert_eq!(received.len(), 3, "{received:?}");
    assert!(received.iter().all(|one| one.id() == received[0].id()), "one question has one id");
    let asked = received[0].json();
    assert_eq!((&asked["type"], &asked["data"]["wave"]), (&json!("rollout.confirm"), &json!(1)), "{asked}");
    let now = received[0].headers["webhook-timestamp"].parse().unwrap();
    assert_ne!(python_accepts(&secret, &received[0], &received[0].body, now), Some(false));
    // It says yes to the second wave, too, and is asked no more than that.
    site.live_until(2, 2).await;
    let look = async || Some(site.rollout("lab").await).filter(|it| it["phase"] == "completed");
    site.until("its end", look).await;
    assert_eq!(gate.received().len(), 4);
    assert_ne!(gate.received()[3].id(), received[0].id());
    let (status, answer) = site.ask(Method::DELETE, "/webhooks/gate", Value::Null).await;
    assert_eq!(status, 200, "{answer}");
}

#[tokio::test]
async fn whatever_else_a_webhook_answers_holds_the_wave_and_a_person_may_begin_it() {
    let site = Site::open(0).await;
    let elsewhere = Receiver::start(&[Say::Status(200, r#"{"proceed": true}"#)]);
    let told = |fleet: &str, why: &str| format!("wave 1 waits for webhook {fleet}: {why}");
    let cases = [
        (Say::Status(200, r#"{"proceed": false}"#), "it said no"),
        (Say::Status(200, "proceed"), "it answered 200, and neither yes nor no"),
        (Say::Status(200, r#"{"proceed": "true"}"#), "it answered 200, and neither yes nor no"),
        (Say::Status(204, ""), "it answered 204"),
        (Say::Endless(200), "its answer has more than 16384 bytes"),
        (Say::Hang, "no answer in time"),
    ];
    let mut receivers = Vec::new();
    for (number, (say, why)) in cases.iter().enumerate() {
        let (name, receiver) = (format!("f{number}"), Receiver::start(std::slice::from_ref(say)));
        site.create_fleet(&name).await;
        site.webhook(&name, &receiver.url, json!({ "events": [], "fleets": [name] })).await;
        site.start(&name, json!({ "waves": ["100%"], "confirm": name })).await;
        receivers.push((name, receiver, *why));
    }
    let redirecting = Receiver::start(&[Say::Redirect(elsewhere.url.clone())]);
    site.webhook("redirecting", &redirecting.url, json!({ "events": [] })).await;
    site.start("lab", json!({ "waves": ["100%"], "confirm": "redirecting" })).await;
    for (name, receiver, why) in &receivers {
        site.until_why(name, &told(name, why)).await;
        assert!(receiver.sent() < 64 << 20);
    }
    let look = async || {
        let rollout = site.rollout("lab").await;
        rollout["why"].as_str().is_some_and(|why| why.contains("it redirects to http")).then_some(())
    };
    site.until("a redirect", look).await;
    assert_eq!(elsewhere.received().len(), 0);
    let (status, answer) = site.ask(Method::DELETE, "/webhooks/f0", Value::Null).await;
    assert_eq!((status, &answer["error"]["rule"]), (409, &json!("webhook_needed")), "{answer}");
    assert!(answer["error"]["message"].as_str().unwrap().contains("cotter rollout abort f0"), "{answer}");
    for (body, status, said) in [
        (json!({ "wave": 1 }), 409, "waits for its webhook"),
        (json!({ "wave": 2, "without_webhook": true }), 409, "another wave waits"),
        (json!({ "wave": 0, "without_webhook": true }), 400, "waves are counted from 1"),
        (json!({ "without_webhook": true }), 400, "wave"),
        (json!({ "wave": 1, "without_webhook": true }), 200, ""),
        (json!({ "wave": 1, "without_webhook": true }), 409, "it runs already"),
    ] {
        let (found, message) = site.approve("f0", body.clone()).await;
        assert!(found == status && message.contains(said), "{body}: {found} {message}");
    }
    let begun = site.rollout("f0").await;
    assert_eq!((&begun["phase"], &begun["why"]), (&json!("running"), &Value::Null), "{begun}");
    let asked = receivers[0].1.received().len();
    site.steer("f1", "abort").await;
    site.did(Method::DELETE, "/webhooks/f1", Value::Null).await;
    // All rollouts at a glance, also for a token of one fleet.
    let open = site.get("/rollouts?open=true").await;
    let fleets = |list: &Value| {
        let list = list.as_array().unwrap().iter();
        list.map(|it| it["fleet"].as_str().unwrap().to_owned()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(fleets(&open), "lab f5 f4 f3 f2 f0", "{open}");
    assert_eq!(open[2]["why"], told("f4", "its answer has more than 16384 bytes"), "{open}");
    assert_eq!(fleets(&site.get("/rollouts?open=false").await), "f1");
    assert_eq!(fleets(&site.get("/rollouts?limit=2").await), "lab f5");
    site.did(Method::POST, "/users", json!({ "name": "ben" })).await;
    let token = json!({ "user": "ben", "role": "operator", "fleets": ["f2"] });
    let token = site.did(Method::POST, "/tokens", token).await["token"].as_str().unwrap().to_owned();
    let (_, seen) = site.ask_as(&token, Method::GET, "/rollouts", Value::Null).await;
    assert_eq!(fleets(&seen), "f2");
    let listed = site.server.cli(&["rollout", "list"]);
    assert!(listed.contains("it answered 204") && listed.contains("aborted"), "{listed}");
    assert_eq!(receivers[0].1.received().len(), asked, "it is asked no more");
}

/// The second of two clicks, or of two equal commands, decides nothing more.
#[tokio::test]
async fn an_approval_overrules_no_webhook_and_is_for_no_other_wave() {
    let site = Site::open(2).await;
    let gate = Receiver::start(&[Say::Status(200, r#"{"proceed": true}"#), Say::Status(503, "not yet")]);
    site.webhook("gate", &gate.url, json!({ "events": [] })).await;
    let definition =
        json!({ "waves": ["1 approve", "100%"], "soak": "0s", "observe": "0s", "confirm": "gate" });
    site.start("lab", definition).await;
    site.live_until(2, 1).await;
    let paused = site.until_why("lab", "the next wave needs an approval").await;
    assert_eq!((&paused["waits_for"], &paused["waits_for_wave"]), (&json!("approval"), &json!(2)));
    let (status, message) = site.approve("lab", json!({ "wave": 2, "without_webhook": true })).await;
    assert!(status == 409 && message.contains("for no webhook so far"), "{message}");
    site.server.cli(&["rollout", "approve", "lab"]);
    let held = site.until_why("lab", "wave 2 waits for webhook gate: it answered 503").await;
    assert_eq!((&held["waits_for"], &held["waits_for_wave"]), (&json!("webhook"), &json!(2)));
    // The same again, in all its forms.
    for args in [&["rollout", "approve", "lab"][..], &["rollout", "approve", "lab", "--wave", "2"]] {
        let out = site.server.try_cli(args);
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(!out.status.success() && said.contains("--without-webhook"), "{said}");
    }
    assert_eq!(site.approve("lab", json!({ "wave": 2 })).await.0, 409);
    assert_eq!(site.rollout("lab").await["wave"], 1, "the wave has not begun");
    site.server.cli(&["rollout", "approve", "lab", "--without-webhook"]);
    site.live_until(2, 2).await;
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_and_no_secret_is_shown_twice() {
    let site = Site::open(0).await;
    let secret = site.webhook("ci", "https://ci.example.com/s3cr3t-path", json!({})).await;
    assert!(secret.starts_with("whsec_") && secret.len() == 50, "{secret}");
    site.create_fleet("other").await;
    site.webhook("theirs", "https://ci.example.com/", json!({ "fleets": ["other"] })).await;
    for (body, status, rule, said) in [
        (json!({ "name": "ci", "url": "https://a.example/" }), 409, "webhook_taken", "\"ci\" already"),
        (json!({ "name": "x", "url": "http://ci.example.com/" }), 400, "bad_webhook", "it is not https"),
        (json!({ "name": "x", "url": "https://u:p@a.example/" }), 400, "bad_webhook", "a password"),
        (json!({ "name": "x", "url": "file:///etc/passwd" }), 400, "bad_webhook", "not a URL"),
        (json!({ "name": "X y", "url": "https://a.example/" }), 400, "bad_text", "name of a webhook"),
        (
            json!({ "name": "x", "url": "https://a.example/", "events": ["end"] }),
            400,
            "bad_text",
            "the events are start",
        ),
        (
            json!({ "name": "x", "url": "https://a.example/", "fleets": ["none"] }),
            404,
            "no_such_fleet",
            "\"none\"",
        ),
    ] {
        let (found, answer) = site.ask(Method::POST, "/webhooks", body.clone()).await;
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(
            found == status && answer["error"]["rule"] == rule && message.contains(said),
            "{body}: {answer}"
        );
    }
    for name in ["none", "theirs"] {
        let body = json!({ "release": "2222new", "definition": { "waves": ["100%"], "confirm": name } });
        let (status, answer) = site.ask(Method::POST, "/fleets/lab/rollouts", body).await;
        assert_eq!((status, &answer["error"]["rule"]), (404, &json!("no_such_webhook")), "{answer}");
        assert_eq!(
            answer["error"]["message"],
            format!("there is no webhook {name:?} for fleet lab; `cotter webhook list` shows them")
        );
    }
    // Whoever is on the way to it could say yes.
    for (name, url, status) in [("far", "http://ci.example.com/", 409), ("near", "http://127.0.0.1:1/", 200)]
    {
        site.webhook(name, url, json!({ "allow_http": true })).await;
        let body = json!({ "release": "2222new", "dry_run": true, "definition": { "waves": ["100%"], "confirm": name } });
        let (found, answer) = site.ask(Method::POST, "/fleets/lab/rollouts", body).await;
        assert_eq!(found, status, "{answer}");
        assert!(found == 200 || answer["error"]["rule"] == "webhook_not_encrypted", "{answer}");
    }
    // Nobody but an admin sees them.
    site.did(Method::POST, "/users", json!({ "name": "ben" })).await;
    let token = json!({ "user": "ben", "role": "operator" });
    let token = site.did(Method::POST, "/tokens", token).await["token"].as_str().unwrap().to_owned();
    for (method, path) in [
        (Method::GET, "/webhooks"),
        (Method::GET, "/webhooks/ci"),
        (Method::DELETE, "/webhooks/ci"),
        (Method::POST, "/webhooks/ci/test"),
    ] {
        assert_eq!(site.ask_as(&token, method, path, Value::Null).await.0, 403, "{path}");
    }
    let audit = site.get("/audit?limit=100").await.to_string();
    assert!(audit.contains("to https://ci.example.com; all fleets; start, wave"), "{audit}");
    let listed = site.get("/webhooks").await.to_string();
    let shown = [audit, listed, site.get("/webhooks/ci").await.to_string(), site.server.log()];
    assert!(shown.iter().all(|text| !text.contains(&secret)), "{shown:?}");
    assert!(!shown[0].contains("s3cr3t-path") && !shown[3].contains("s3cr3t-path"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_sees_what_becomes_of_messages() {
    let site = Site::open(0).await;
    let receiver = Receiver::start(&[Say::Status(204, ""), Say::Status(410, "")]);
    let cli = |args: &[&str]| {
        let out = site.server.try_cli(args);
        let said =
            format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        (out.status.code().unwrap(), said)
    };
    let file = site.dir.path().join("secret");
    let out = file.to_str().unwrap();
    let created = cli(&["webhook", "create", "ci", &receiver.url, "--event", "halt", "--out", out]);
    assert_eq!(created.0, 0, "{created:?}");
    let secret = std::fs::read_to_string(&file).unwrap().trim().to_owned();
    let (exit, said) = cli(&["webhook", "test", "ci"]);
    assert!(exit == 0 && said.starts_with("ci: it answered 204, after "), "{said}");
    let test = &receiver.received()[0];
    assert_eq!((test.kind(), &test.json()["data"]["webhook"]), ("webhook.test".to_owned(), &json!("ci")));
    let now = test.headers["webhook-timestamp"].parse().unwrap();
    assert_ne!(python_accepts(&secret, test, &test.body, now), Some(false));
    let (exit, said) = cli(&["webhook", "test", "ci"]);
    assert!(exit == 20 && said.starts_with("ci: it answered 410"), "{exit} {said}");
    let (_, said) = cli(&["webhook", "show", "ci"]);
    for line in [
        "webhook       ci",
        "fleets        all",
        "events        halt",
        "waiting       0",
        "last failure  never",
    ] {
        assert!(said.contains(line), "{line}: {said}");
    }
    assert!(cli(&["webhook", "list"]).1.contains(&receiver.url));
    assert_eq!(cli(&["webhook", "delete", "ci"]), (0, "deleted webhook ci\n".to_owned()));
    let (exit, said) = cli(&["webhook", "show", "ci"]);
    assert!(exit == 5 && said.contains("there is no webhook \"ci\"; `cotter webhook list`"), "{said}");
}

//! Rollouts at a real fleet server, with devices that poll and report as the test says.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking"
)]

mod support;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use support::FleetServer;
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(30);

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

/// How a device of the test ends with a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Accepts,
    Rejects,
}

/// An operator's desk, and the devices.
struct Site {
    url: String,
    token: String,
    http: reqwest::Client,
    app: String,
}

impl Site {
    /// Fleet `lab` that runs `old`, with these devices, which do so, too; and the draft `new`.
    async fn open(server: &FleetServer, devices: u32) -> Self {
        let url = server.url.clone();
        let token = std::fs::read_to_string(server.token_file()).unwrap().trim().to_owned();
        drop(rustls::crypto::ring::default_provider().install_default());
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let mut site = Self { url: url.to_owned(), token: token.to_owned(), http, app: String::new() };
        let created = site.did(Method::POST, "/fleets", json!({ "name": "lab" })).await;
        created["fleet"]["uuid"].as_str().unwrap().clone_into(&mut site.app);
        let key = created["provisioning_key"].as_str().unwrap();
        for (commit, is_final) in [("0000older", true), ("1111old", true), ("2222new", false)] {
            site.did(Method::POST, "/fleets/lab/releases", release(commit, is_final)).await;
        }
        for number in 1..=devices {
            let (uuid, number) = (uuid(number), &created["fleet"]["number"]);
            let device = json!({ "application": number, "device_type": "generic-amd64", "uuid": uuid, "api_key": key_of(&uuid) });
            let register = site.http.post(format!("{}/device/register", site.url)).bearer_auth(key);
            assert_eq!(register.json(&device).send().await.unwrap().status(), 201);
            assert_eq!(site.poll(&uuid).await, "1111old");
            site.report(&uuid, "1111old", Outcome::Accepts).await;
        }
        site
    }

    async fn ask(&self, method: Method, path: &str, body: Value) -> (u16, Value) {
        let request =
            self.http.request(method, format!("{}/api/v1{path}", self.url)).bearer_auth(&self.token);
        let request = if body.is_null() { request } else { request.json(&body) };
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.json().await.unwrap())
    }

    async fn did(&self, method: Method, path: &str, body: Value) -> Value {
        let (status, answer) = self.ask(method, path, body).await;
        assert!((200..300).contains(&status), "{path}: {status} {answer}");
        answer
    }

    async fn start(&self, definition: Value) -> Value {
        let body = json!({ "release": "2222new", "definition": definition });
        self.did(Method::POST, "/fleets/lab/rollouts", body).await
    }

    async fn steer(&self, act: &str) -> Value {
        self.did(Method::POST, &format!("/fleets/lab/rollouts/current/{act}"), json!({})).await
    }

    async fn rollout(&self) -> Value {
        self.did(Method::GET, "/fleets/lab/rollouts/current", Value::Null).await
    }

    /// Waits until the rollout is as `is_it` says.
    async fn until(&self, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        let begun = Instant::now();
        loop {
            let rollout = self.rollout().await;
            if is_it(&rollout) {
                return rollout;
            }
            assert!(begun.elapsed() < PATIENCE, "{what} never comes: {rollout:#}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn until_phase(&self, phase: &str) -> Value {
        self.until(phase, |rollout| rollout["phase"] == phase).await
    }

    async fn until_exposed(&self, devices: u64) -> Value {
        self.until("the exposure", |rollout| {
            let waves = rollout["waves"].as_array().unwrap().iter();
            waves.map(|wave| wave["tally"]["exposed"].as_u64().unwrap()).sum::<u64>() == devices
        })
        .await
    }

    /// The commit that a device should run.
    async fn poll(&self, uuid: &str) -> String {
        let poll = self.http.get(format!("{}/device/v3/{uuid}/state", self.url)).bearer_auth(key_of(uuid));
        let answer = poll.send().await.unwrap();
        assert_eq!(answer.status(), 200);
        let target: Value = answer.json().await.unwrap();
        let releases = &target[uuid]["apps"][&self.app]["releases"];
        releases.as_object().unwrap().keys().next().unwrap().clone()
    }

    async fn targets(&self, devices: u32) -> BTreeMap<String, String> {
        let mut targets = BTreeMap::new();
        for number in 1..=devices {
            targets.insert(uuid(number), self.poll(&uuid(number)).await);
        }
        targets
    }

    async fn report(&self, uuid: &str, target: &str, outcome: Outcome) {
        let running = if outcome == Outcome::Accepts { target } else { "1111old" };
        let why = format!("release {target} was rejected: web exited with code 1");
        let waiting = match outcome {
            Outcome::Accepts => json!([]),
            Outcome::Rejects => json!([{ "reason": "rejected", "why": why }]),
        };
        let body = json!({ uuid: {
            "apps": { &self.app: { "release_uuid": running } },
            "cotter": { "agent": "0.2.0", "target": target, "waiting": waiting },
        } });
        let report = self.http.patch(format!("{}/device/v3/state", self.url)).bearer_auth(key_of(uuid));
        let answer = report.json(&body).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{}", answer.text().await.unwrap());
    }

    /// Lets all devices ask for their target and report. Returns those that should run the new release.
    async fn live(&self, devices: u32, outcome: impl Fn(u32) -> Outcome) -> Vec<u32> {
        let mut exposed = Vec::new();
        for number in 1..=devices {
            let target = self.poll(&uuid(number)).await;
            let end = if target == "2222new" { outcome(number) } else { Outcome::Accepts };
            self.report(&uuid(number), &target, end).await;
            exposed.extend((target == "2222new").then_some(number));
        }
        exposed
    }
}

/// A server with so many devices.
async fn open(dir: &TempDir, devices: u32) -> (FleetServer, Site) {
    let server = FleetServer::start_in(dir.path(), Vec::new());
    let site = Site::open(&server, devices).await;
    (server, site)
}

#[tokio::test]
async fn a_good_release_becomes_the_target_of_its_fleet_wave_by_wave() {
    let dir = TempDir::new().unwrap();
    let (_server, site) = open(&dir, 6).await;
    site.did(Method::POST, &format!("/devices/{}/tags", uuid(1)), json!({ "set": { "ring": "canary" } }))
        .await;
    let started =
        site.start(json!({ "waves": ["ring=canary", "3", "100%"], "soak": "0s", "observe": "0s" })).await;
    assert_eq!((&started["phase"], &started["devices"]), (&json!("running"), &json!(6)), "{started}");
    site.until_exposed(1).await;
    assert_eq!(site.live(6, |_| Outcome::Accepts).await, [1]);
    site.until_exposed(4).await;
    let fleet = site.did(Method::GET, "/fleets/lab", Value::Null).await;
    assert_eq!(fleet["target"], "1111old", "the fleet has its old target until the end");
    assert_eq!(site.live(6, |_| Outcome::Accepts).await.len(), 4);
    site.until_exposed(6).await;
    assert_eq!(site.live(6, |_| Outcome::Accepts).await.len(), 6);
    let over = site.until_phase("completed").await;
    assert_eq!((&over["tally"]["accepted"], over["ended"].is_string()), (&json!(6), true), "{over}");
    let fleet = site.did(Method::GET, "/fleets/lab", Value::Null).await;
    assert_eq!((&fleet["target"], &fleet["is_tracking_latest"]), (&json!("2222new"), &json!(true)));
    let audit = site.did(Method::GET, "/audit?limit=50", Value::Null).await;
    for what in ["start a rollout", "rollout: wave 2 begins", "rollout: wave 3 begins", "rollout completed"] {
        assert!(audit.to_string().contains(what), "{what}: {audit}");
    }
    let again = json!({ "release": "2222new", "definition": { "waves": ["100%"] } });
    let (status, answer) = site.ask(Method::POST, "/fleets/lab/rollouts", again).await;
    assert_eq!((status, &answer["error"]["rule"]), (409, &json!("cannot_roll_out")), "{answer}");
}

#[tokio::test]
async fn a_bad_release_is_halted_and_pulled_back_and_the_reason_is_that_of_the_devices() {
    let dir = TempDir::new().unwrap();
    let (_server, site) = open(&dir, 8).await;
    site.start(json!({ "waves": ["4", "100%"], "on_halt": "pull-back" })).await;
    site.until_exposed(4).await;
    let exposed = site.live(8, |_| Outcome::Rejects).await;
    assert_eq!(exposed.len(), 4);
    let halted = site.until_phase("pulled-back").await;
    let why = halted["why"].as_str().unwrap();
    assert!(why.starts_with("4 of 4 devices failed") && why.contains("web exited with code 1"), "{why}");
    assert!(site.targets(8).await.values().all(|target| target == "1111old"));
    let device = site.did(Method::GET, &format!("/devices/{}", uuid(exposed[0])), Value::Null).await;
    assert_eq!(
        (&device["rollout"]["verdict"], &device["rollout"]["why"]),
        (&json!("rejected"), &json!("it was sent back"))
    );
    let (status, answer) = site.ask(Method::POST, "/fleets/lab/rollouts/current/resume", json!({})).await;
    assert_eq!((status, &answer["error"]["rule"]), (409, &json!("not_now")), "{answer}");
    assert_eq!(site.steer("abort").await["phase"], "aborted");
    let (status, answer) = site.ask(Method::POST, "/fleets/lab/rollouts/current/abort", json!({})).await;
    assert_eq!((status, &answer["error"]["rule"]), (404, &json!("no_rollout")), "{answer}");
}

#[tokio::test]
async fn a_person_pauses_resumes_approves_and_aborts() {
    let dir = TempDir::new().unwrap();
    let (_server, site) = open(&dir, 4).await;
    let started =
        site.start(json!({ "waves": ["1 approve", "2", "100%"], "soak": "0s", "rate": "1/d" })).await;
    assert_eq!(started["waves"][1]["earliest_s"], 86_400, "{started}");
    site.until_exposed(1).await;
    assert_eq!(site.steer("pause").await["phase"], "paused");
    assert_eq!(site.live(4, |_| Outcome::Accepts).await.len(), 1, "who is exposed keeps it");
    site.steer("resume").await;
    let paused = site.until_phase("paused").await;
    assert_eq!(paused["why"], "the next wave needs an approval");
    let (status, answer) = site.ask(Method::POST, "/fleets/lab/rollouts/current/resume", json!({})).await;
    assert_eq!(status, 409, "{answer}");
    let second = json!({ "wave": 2 });
    let approve =
        async || site.ask(Method::POST, "/fleets/lab/rollouts/current/approve", second.clone()).await;
    assert_eq!((&paused["waits_for"], &paused["waits_for_wave"]), (&json!("approval"), &json!(2)));
    assert_eq!(approve().await.0, 200);
    assert_eq!(approve().await.1["error"]["rule"], "not_now", "an approval is for one wave");
    site.until("the second wave", |rollout| rollout["wave"] == 2).await;
    // The rate lets one device a day.
    let waiting: Vec<_> =
        site.targets(4).await.into_iter().filter(|(_, target)| target == "1111old").collect();
    assert_eq!(waiting.len(), 3);
    let device = site.did(Method::GET, &format!("/devices/{}", waiting[0].0), Value::Null).await;
    let why = device["rollout"]["why"].as_str().unwrap();
    assert!(why.contains("wave 2, which has begun") || why == "it is in a later wave", "{why}");
    assert_eq!(site.steer("complete").await["phase"], "completed");
    assert!(site.targets(4).await.values().all(|target| target == "2222new"));
    let list = site.did(Method::GET, "/fleets/lab/rollouts", Value::Null).await;
    assert_eq!(list.as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn what_happens_to_the_fleet_in_mid_course() {
    // Its act, the phase after it, and what the exposed device should run then.
    let fleet = |path: &str| format!("/fleets/lab/{path}");
    for (path, body, phase, why, exposed) in [
        (
            fleet("pin"),
            json!({ "release": "0000older" }),
            "aborted",
            "the target of the fleet is 0000older now",
            "0000older",
        ),
        (fleet("pin"), json!({ "release": "2222new" }), "completed", "", "2222new"),
        (
            fleet("releases"),
            release("3333newer", true),
            "aborted",
            "the target of the fleet is 3333newer now",
            "3333newer",
        ),
        (
            "/releases/2222new".to_owned(),
            json!({ "is_invalidated": true }),
            "halted",
            "the release was invalidated",
            "2222new",
        ),
    ] {
        let dir = TempDir::new().unwrap();
        let (_server, site) = open(&dir, 2).await;
        site.start(json!({ "waves": ["1", "100%"] })).await;
        site.until_exposed(1).await;
        let device = site.live(2, |_| Outcome::Accepts).await[0];
        let method = if path.starts_with("/releases") { Method::PATCH } else { Method::POST };
        site.did(method, &path, body).await;
        let over = site.until_phase(phase).await;
        assert!(over["why"].as_str().unwrap_or_default().starts_with(why), "{over}");
        assert_eq!(site.poll(&uuid(device)).await, exposed, "{path}");
    }
}

#[tokio::test]
async fn a_device_that_leaves_takes_its_own_place_only() {
    let dir = TempDir::new().unwrap();
    let (_server, site) = open(&dir, 6).await;
    site.did(Method::POST, "/fleets", json!({ "name": "other" })).await;
    site.start(json!({ "waves": ["3", "100%"] })).await;
    site.until_exposed(3).await;
    let exposed = site.live(6, |_| Outcome::Accepts).await;
    site.did(Method::POST, &format!("/devices/{}/move", uuid(exposed[0])), json!({ "fleet": "other" })).await;
    site.did(Method::DELETE, &format!("/devices/{}", uuid(exposed[1])), Value::Null).await;
    site.did(Method::POST, &format!("/devices/{}/pin", uuid(exposed[2])), json!({ "release": "0000older" }))
        .await;
    let rollout = site.until("the end of their verdicts", |rollout| rollout["tally"]["exposed"] == 0).await;
    assert_eq!((&rollout["devices"], &rollout["phase"]), (&json!(3), &json!("running")), "{rollout}");
    assert_eq!(site.poll(&uuid(exposed[2])).await, "0000older", "a pin is stronger");
    site.did(Method::POST, &format!("/devices/{}/track-fleet", uuid(exposed[2])), json!({})).await;
    assert_eq!(site.poll(&uuid(exposed[2])).await, "2222new", "it is exposed");
    let (status, answer) = site.ask(Method::DELETE, "/releases/2222new", Value::Null).await;
    assert_eq!((status, &answer["error"]["rule"]), (409, &json!("rolled_out")), "{answer}");
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_and_begins_nothing() {
    let dir = TempDir::new().unwrap();
    let (_server, site) = open(&dir, 2).await;
    site.did(Method::POST, "/fleets", json!({ "name": "other" })).await;
    site.did(Method::POST, "/fleets/other/releases", release("9999other", true)).await;
    let all = json!({ "waves": ["100%"] });
    for (release, definition, status, said) in [
        ("2222new", json!({}), 400, "no wave is given"),
        ("2222new", json!({ "waves": ["10%"] }), 400, "the last wave is 10%, and must be 100%"),
        ("2222new", json!({ "waves": ["0%", "100%"] }), 400, "a share above 0%"),
        ("2222new", json!({ "waves": ["10%", "5%", "100%"] }), 400, "wave 2 (5%) is not larger"),
        ("2222new", json!({ "waves": ["100%"], "rate": "0/h" }), 400, "a rate from 1"),
        ("2222new", json!({ "waves": ["100%"], "soaks": "1m" }), 400, "unknown field `soaks`"),
        ("2222new", json!({ "waves": ["100%"], "windows": ["02:00-04:00 Mars/Olympus"] }), 400, "the window"),
        ("2222new", json!({ "waves": ["ring=canary", "100%"] }), 404, "no device matches \"ring=canary\""),
        ("2222new", json!({ "waves": ["100%"], "filter": "site=moon" }), 404, "no device matches"),
        ("2222new", json!({ "waves": ["100%"], "barriers": ["7777none"] }), 404, "there is no release"),
        ("9999other", all.clone(), 409, "belongs to fleet other"),
        ("1111old", all.clone(), 409, "the fleet runs it already"),
        ("0000older", all.clone(), 409, "the fleet tracks latest, and would not keep it"),
        ("7777none", all.clone(), 404, "there is no release"),
    ] {
        let body = json!({ "release": release, "definition": definition });
        let (found, answer) = site.ask(Method::POST, "/fleets/lab/rollouts", body).await;
        let message = answer["error"]["message"].as_str().unwrap_or_default();
        assert!(found == status && message.contains(said), "{definition}: {found} {answer}");
    }
    let dry = json!({ "release": "2222new", "definition": all, "dry_run": true });
    assert_eq!(site.ask(Method::POST, "/fleets/lab/rollouts", dry).await.0, 200);
    assert_eq!(site.ask(Method::GET, "/fleets/lab/rollouts/current", Value::Null).await.0, 404);
    site.start(all.clone()).await;
    let second = json!({ "release": "2222new", "definition": all });
    let (status, answer) = site.ask(Method::POST, "/fleets/lab/rollouts", second.clone()).await;
    assert_eq!((status, &answer["error"]["rule"]), (409, &json!("rollout_goes_on")), "{answer}");
    let mut superseding = second;
    superseding["supersede"] = json!(true);
    let started = site.did(Method::POST, "/fleets/lab/rollouts", superseding).await;
    assert_eq!(started["number"], 2);
    let list = site.did(Method::GET, "/fleets/lab/rollouts", Value::Null).await;
    assert_eq!((&list[0]["phase"], &list[1]["phase"]), (&json!("aborted"), &json!("running")), "{list}");
}

#[tokio::test]
async fn barriers_come_first_and_a_closed_window_exposes_no_device() {
    let dir = TempDir::new().unwrap();
    let (_server, site) = open(&dir, 1).await;
    site.did(Method::POST, "/fleets/lab/releases", release("1500barrier", false)).await;
    let hour = (jiff::Timestamp::now().as_second() / 3600 + 12) % 24;
    let closed = format!("{hour:02}:00-{hour:02}:01");
    site.start(json!({ "waves": ["100%"], "windows": [closed] })).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(site.poll(&uuid(1)).await, "1111old", "the window is closed");
    let body = json!({ "release": "2222new", "supersede": true,
                       "definition": { "waves": ["100%"], "barriers": ["1500barrier"], "windows": ["00:00-24:00"] } });
    site.did(Method::POST, "/fleets/lab/rollouts", body).await;
    site.until_exposed(1).await;
    assert_eq!(site.poll(&uuid(1)).await, "1500barrier");
    site.report(&uuid(1), "1500barrier", Outcome::Accepts).await;
    site.until("the barrier is passed", |rollout| rollout["tally"]["updating"] == 1).await;
    let begun = Instant::now();
    while site.poll(&uuid(1)).await != "2222new" {
        assert!(begun.elapsed() < PATIENCE, "{:#}", site.rollout().await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    site.report(&uuid(1), "2222new", Outcome::Accepts).await;
    site.until("the release is accepted", |rollout| rollout["tally"]["accepted"] == 1).await;
}

/// A rollout to some devices pins these at its end, and the fleet stays as it is.
#[tokio::test]
async fn a_rollout_to_some_devices_ends_with_their_pins() {
    let dir = TempDir::new().unwrap();
    let (_server, site) = open(&dir, 4).await;
    let tag = async |number: u32, tags: Value| {
        site.did(Method::POST, &format!("/devices/{}/tags", uuid(number)), tags).await;
    };
    for number in 1..=3 {
        tag(number, json!({ "set": { "site": "zurich" } })).await;
    }
    tag(3, json!({ "set": { "rollout": "never" } })).await;
    site.start(json!({ "waves": ["100%"], "filter": "site=zurich", "observe": "1h" })).await;
    site.until_exposed(2).await;
    assert_eq!(site.live(4, |_| Outcome::Accepts).await, [1, 2]);
    tag(2, json!({ "remove": ["site"] })).await;
    let over = site.steer("complete").await;
    assert_eq!(
        (&over["phase"], &over["waves"][0]["tally"]["exposed"]),
        (&json!("completed"), &json!(2)),
        "{over}"
    );
    let mut pins = Vec::new();
    for number in 1..=4 {
        let device = site.did(Method::GET, &format!("/devices/{}", uuid(number)), Value::Null).await;
        pins.push(device["pin"].as_str().unwrap_or("none").to_owned());
    }
    assert_eq!(
        pins,
        ["2222new", "2222new", "none", "none"],
        "an exposed device keeps it, whatever its tags are now"
    );
    let fleet = site.did(Method::GET, "/fleets/lab", Value::Null).await;
    assert_eq!(fleet["target"], "1111old");
    let trail = site.did(Method::GET, &format!("/audit?device={}", uuid(1)), Value::Null).await;
    assert!(trail.to_string().contains("complete a rollout"), "{trail}");
}

/// What the fleet would not keep is no end of a rollout: its devices would go back.
#[tokio::test]
async fn a_release_that_its_fleet_would_not_keep_does_not_complete() {
    let dir = TempDir::new().unwrap();
    let (_server, site) = open(&dir, 2).await;
    site.start(json!({ "waves": ["100%"], "soak": "0s", "observe": "0s" })).await;
    site.until_exposed(2).await;
    site.did(Method::PATCH, "/releases/2222new", json!({ "is_passing_tests": false })).await;
    site.live(2, |_| Outcome::Accepts).await;
    let paused = site.until_phase("paused").await;
    assert!(
        paused["why"].as_str().unwrap().contains("the fleet tracks latest, and would not keep it"),
        "{paused}"
    );
    assert_eq!(site.poll(&uuid(1)).await, "2222new", "it keeps the release");
    let (status, answer) = site.ask(Method::POST, "/fleets/lab/rollouts/current/complete", json!({})).await;
    assert_eq!((status, &answer["error"]["rule"]), (409, &json!("cannot_roll_out")), "{answer}");
    let (status, answer) = site.ask(Method::PATCH, "/releases/2222new", json!({ "status": "failed" })).await;
    assert_eq!((status, &answer["error"]["rule"]), (409, &json!("rolled_out")), "{answer}");
    // The next rollout begins with its own devices.
    site.steer("abort").await;
    site.did(Method::POST, "/fleets/lab/releases", release("4444next", false)).await;
    let plan = json!({ "release": "4444next", "definition": { "waves": ["1", "100%"] }, "dry_run": true });
    let plan = site.did(Method::POST, "/fleets/lab/rollouts", plan).await;
    assert_eq!(
        (&plan["waves"][0]["devices"], &plan["waves"][0]["tally"]["exposed"]),
        (&json!(1), &json!(0)),
        "{plan}"
    );
}

/// An exposed device stays exposed, and the rollout ends as it would have without the kills.
#[tokio::test]
async fn a_server_that_is_killed_goes_on_with_the_same_rollout() {
    const DEVICES: u32 = 30;
    let dir = TempDir::new().unwrap();
    let (mut server, mut site) = open(&dir, DEVICES).await;
    site.start(json!({ "waves": ["5%", "15%", "25%", "35%", "45%", "55%", "65%", "75%", "85%", "100%"], "soak": "0s", "observe": "0s" })).await;
    let mut exposed = Vec::new();
    let begun = Instant::now();
    let mut kills = 0;
    loop {
        assert!(begun.elapsed() < 4 * PATIENCE, "it never ends: {:#}", site.rollout().await);
        let now = site.live(DEVICES, |_| Outcome::Accepts).await;
        assert!(exposed.iter().all(|number| now.contains(number)), "{exposed:?}, then {now:?}");
        exposed = now;
        if site.rollout().await["phase"] == "completed" {
            break;
        }
        if kills < 6 {
            kills += 1;
            server.cut();
            server.start_again();
            site.url.clone_from(&server.url);
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    assert_eq!((exposed.len(), kills), (DEVICES as usize, 6));
}

#[tokio::test]
async fn as_it_is_typed() {
    let dir = TempDir::new().unwrap();
    let (server, site) = open(&dir, 5).await;
    let plan = server.cli(&["rollout", "plan", "lab", "2222new", "--waves", "2, 100%", "--soak", "10min"]);
    assert!(plan.contains("at once") && plan.contains("10 min"), "{plan}");
    let waves = ["--waves", "2 approve, 100%", "--soak", "0s", "--observe", "0s"];
    let started = server.cli(&[&["rollout", "start", "lab", "2222new"], &waves[..]].concat());
    assert!(started.contains("2 approve") && started.contains("running"), "{started}");
    site.until_exposed(2).await;
    site.live(5, |_| Outcome::Accepts).await;
    let watched = server.try_cli(&["rollout", "watch", "lab"]);
    assert_eq!(watched.status.code(), Some(11), "it waits for a person");
    let text = String::from_utf8_lossy(&watched.stdout).into_owned();
    assert!(text.contains("2 accepted") && text.contains("the next wave needs an approval"), "{text}");
    let device = server.cli(&["device", "show", &uuid(1)]);
    assert!(device.contains("rollout 1 of release 2222new is paused"), "{device}");
    server.cli(&["rollout", "approve", "lab", "--reason", "looks fine"]);
    site.until_exposed(5).await;
    site.live(5, |_| Outcome::Accepts).await;
    assert_eq!(server.try_cli(&["rollout", "watch", "lab", "--timeout", "1min"]).status.code(), Some(0));
    let list = server.cli(&["rollout", "list", "lab"]);
    assert!(list.contains("completed"), "{list}");
    let nothing = server.try_cli(&["rollout", "pause", "lab"]);
    let error = String::from_utf8_lossy(&nothing.stderr).into_owned();
    assert!(error.contains("fleet lab has no rollout that goes on"), "{error}");
}

//! Variables at a real fleet server: what operators are answered, what devices get, and `cotter env`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and its helpers read the environment"
)]

#[path = "support/desk.rs"]
mod desk;
mod support;

use std::io::Write as _;
use std::process::Stdio;

use cotter::fleet::RawConfig;
use desk::Desk;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use support::{FleetServer, Program};
use tempfile::TempDir;

const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const B: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

impl Desk {
    /// A fleet `lab` with a release of `db` and `web`, and the devices `north` and `south`.
    async fn lab(&self) {
        let created = self.did(Method::POST, "/fleets", json!({ "name": "lab" })).await;
        self.release("one").await;
        for (uuid, name) in [(A, "north"), (B, "south")] {
            let body =
                json!({ "application": 1, "device_type": "board", "uuid": uuid, "api_key": key(uuid) });
            let request = self.request(Method::POST, "/device/register").json(&body);
            let request = request.bearer_auth(created["provisioning_key"].as_str().unwrap());
            assert_eq!(request.send().await.unwrap().status(), StatusCode::CREATED);
            self.did(Method::POST, &format!("/devices/{uuid}/rename"), json!({ "name": name })).await;
        }
    }

    async fn release(&self, commit: &str) {
        let image = format!("r.example/x@sha256:{}", "a".repeat(64));
        let release = json!({
            "commit": commit, "composition": { "services": { "db": {}, "web": { "environment": { "RATE": "0" } } } },
            "images": { "db": image, "web": image },
        });
        self.did(Method::POST, "/fleets/lab/releases", release).await;
    }

    /// What a device gets that knows an etag: none with 304, or the environments by service.
    async fn poll(&self, uuid: &str, etag: &str) -> (String, Option<Value>) {
        let request = self.request(Method::GET, &format!("/device/v3/{uuid}/state")).bearer_auth(key(uuid));
        let answer = request.header("If-None-Match", etag).send().await.unwrap();
        let etag = answer.headers()["etag"].to_str().unwrap().to_owned();
        if answer.status() == StatusCode::NOT_MODIFIED {
            return (etag, None);
        }
        let state: Value = answer.json().await.unwrap();
        let app = state[uuid]["apps"].as_object().unwrap().values().next().unwrap();
        let release = app["releases"].as_object().unwrap().values().next().unwrap();
        let services = release["services"].as_object().unwrap().iter();
        let services = services.map(|(name, service)| (name.clone(), service["environment"].clone()));
        (etag, Some(Value::Object(services.collect())))
    }

    async fn refused(&self, path: &str, body: Value) -> (u16, String, String) {
        let (status, answer) = self.operate(Method::POST, path, body).await;
        let error = &answer["error"];
        let text = |name: &str| error[name].as_str().unwrap_or_default().to_owned();
        (status, text("rule"), text("message"))
    }
}

/// The key of a device.
fn key(uuid: &str) -> String {
    format!("{}0123456789abcdef", &uuid[..4])
}

#[tokio::test]
async fn a_device_is_told_of_variables_that_reach_it_and_of_no_others() {
    let dir = TempDir::new().unwrap();
    let desk = Desk::open(dir.path()).await;
    desk.lab().await;
    let (first, environments) = desk.poll(A, "").await;
    assert_eq!(environments.unwrap(), json!({ "db": {}, "web": {} }));
    let body = json!({ "set": { "RATE": "5", "UNIT": "lux" } });
    let changed = desk.did(Method::POST, "/fleets/lab/variables", body.clone()).await;
    assert_eq!(changed, json!({ "dry_run": false, "devices": 2, "restarts": [] }));
    let (etag, environments) = desk.poll(A, &first).await;
    assert_eq!(environments.unwrap(), json!({ "db": body["set"], "web": body["set"] }));
    assert_eq!(desk.did(Method::POST, "/fleets/lab/variables", body).await["devices"], 0, "they have it");
    desk.did(Method::POST, &format!("/devices/{B}/variables"), json!({ "set": { "RATE": "6" } })).await;
    assert_eq!(desk.poll(A, &etag).await, (etag.clone(), None), "that was another device");
    let of_web = json!({ "service": "web", "set": { "RATE": "7" }, "dry_run": true });
    let changed = desk.did(Method::POST, "/fleets/lab/variables", of_web.clone()).await;
    let restarts = json!([{ "uuid": A, "name": "north", "services": ["web"] }]);
    assert_eq!(
        changed,
        json!({ "dry_run": true, "devices": 1, "restarts": restarts }),
        "the other has its own"
    );
    assert_eq!(desk.poll(A, &etag).await.1, None, "nothing was changed");

    // It is on the disk.
    desk.close().await;
    let desk = Desk::open(dir.path()).await;
    assert_eq!(desk.poll(A, &etag).await.1, None);
    let south = desk.poll(B, "").await.1.unwrap();
    assert_eq!(south["db"], json!({ "RATE": "6", "UNIT": "lux" }));
    let removed = json!({ "remove": ["RATE", "UNIT"] });
    desk.did(Method::POST, "/fleets/lab/variables", removed).await;
    assert_eq!(desk.poll(A, &etag).await.0, first, "the target of before has its etag again");
    desk.close().await;
    let desk = Desk::open(dir.path()).await;
    assert_eq!(desk.did(Method::GET, "/variables", Value::Null).await.as_array().unwrap().len(), 1);
    desk.close().await;
}

/// Reports come before, between and after the device has its target with the new variables, and while it tries them.
#[tokio::test]
async fn a_device_is_on_target_only_once_it_has_accepted_the_new_variables() {
    let dir = TempDir::new().unwrap();
    let desk = Desk::open(dir.path()).await;
    desk.lab().await;
    let fleet = desk.did(Method::GET, "/fleets/lab", Value::Null).await;
    let app = fleet["uuid"].as_str().unwrap();
    let report = async |etag: Option<&str>, update: &str| {
        let release = json!({ "update_status": update, "services": {} });
        let app = json!({ app: { "release_uuid": "one", "releases": { "one": release } } });
        let mut account = json!({ "agent": "1.0.0", "target": "one" });
        account.as_object_mut().unwrap().extend(etag.map(|etag| ("etag".to_owned(), json!(etag))));
        let report = json!({ A: { "cotter": account, "apps": app } });
        let request = desk.request(Method::PATCH, "/device/v3/state").bearer_auth(key(A)).json(&report);
        assert_eq!(request.send().await.unwrap().status(), StatusCode::OK);
        let shown = desk.did(Method::GET, &format!("/devices/{A}"), Value::Null).await;
        shown["state"].as_str().unwrap().to_owned()
    };
    let state = async || {
        let shown = desk.did(Method::GET, &format!("/devices/{A}"), Value::Null).await;
        shown["state"].as_str().unwrap().to_owned()
    };
    let (first, _) = desk.poll(A, "").await;
    assert_eq!(report(Some(&first), "done").await, "on-target");
    let body = json!({ "set": { "RATE": "5" } });
    desk.did(Method::POST, "/fleets/lab/variables", body).await;
    assert_eq!(state().await, "pending", "it does not have them");
    assert_eq!(report(Some(&first), "downloaded").await, "pending", "a report of before comes late");
    let (second, _) = desk.poll(A, &first).await;
    assert_eq!(state().await, "pending", "it has them, and has said nothing about them");
    assert_eq!(report(Some(&second), "applying changes").await, "updating");
    assert_eq!(report(Some(&second), "done").await, "on-target");
    desk.did(Method::POST, &format!("/devices/{B}/variables"), json!({ "set": { "RATE": "6" } })).await;
    assert_eq!(state().await, "on-target", "that was another device");
    desk.did(Method::POST, "/fleets/lab/variables", json!({ "remove": ["RATE"] })).await;
    assert_eq!(state().await, "pending");
    assert_eq!(report(Some(&first), "done").await, "on-target", "the target of before has its etag again");
    assert_eq!(report(None, "done").await, "on-target", "an agent that does not report the etag");
    desk.close().await;
}

#[tokio::test]
async fn at_a_paused_server_a_device_keeps_the_target_that_it_has() {
    let dir = TempDir::new().unwrap();
    let desk = Desk::open(dir.path()).await;
    desk.lab().await;
    let (first, _) = desk.poll(A, "").await;
    desk.close().await;
    let paused = RawConfig { paused: Some(true), ..RawConfig::default() };
    let desk = Desk::open_with(dir.path(), paused).await;
    desk.did(Method::POST, "/fleets/lab/variables", json!({ "set": { "RATE": "5" } })).await;
    assert_eq!(desk.poll(A, &first).await, (first.clone(), None), "it gets no other target");
    let shown = desk.did(Method::GET, &format!("/devices/{A}"), Value::Null).await;
    assert_eq!(shown["is_online"], true, "and is seen");
    desk.close().await;
    let desk = Desk::open(dir.path()).await;
    assert!(desk.poll(A, &first).await.1.is_some());
    assert!(desk.poll(B, "\"paused\"").await.1.is_some(), "what a device without a target was answered");
    desk.close().await;
}

/// A data folder that is removed under a server that runs.
#[tokio::test]
async fn a_server_whose_records_are_gone_from_their_place_is_not_ready() {
    let dir = TempDir::new().unwrap();
    let desk = Desk::open(dir.path()).await;
    desk.lab().await;
    let ready = async || {
        let answer = desk.request(Method::GET, "/readyz").send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    assert_eq!(ready().await, (200, "OK".to_owned()));
    std::fs::rename(dir.path().join("records"), dir.path().join("away")).unwrap();
    let (status, words) = ready().await;
    assert!(status == 503 && words.contains("`cotter-fleet backup` still copies"), "{words}");
    std::fs::copy(dir.path().join("away"), dir.path().join("records")).unwrap();
    assert_eq!(ready().await.0, 503, "a copy is another file");
    desk.close().await;
}

#[tokio::test]
async fn a_list_of_variables_is_filtered_and_has_pages() {
    let dir = TempDir::new().unwrap();
    let desk = Desk::open(dir.path()).await;
    desk.lab().await;
    let north = format!("/devices/{A}/variables");
    for (path, body) in [
        ("/fleets/lab/variables", json!({ "set": { "A": "1", "B": "2" } })),
        ("/fleets/lab/variables", json!({ "service": "web", "set": { "A": "3" } })),
        (&north, json!({ "set": { "A": "4" } })),
        (&north, json!({ "service": "db", "set": { "B": "5" } })),
    ] {
        desk.did(Method::POST, path, body).await;
    }
    let rows = async |query: &str| {
        let rows = desk.did(Method::GET, &format!("/variables{query}"), Value::Null).await;
        let row = |row: &Value| {
            let of = if row["device"].is_null() { "lab" } else { row["device_name"].as_str().unwrap() };
            let service = row["service"].as_str().unwrap_or("*");
            let overridden = if row["overridden"] == true { "!" } else { "" };
            format!(
                "{of}/{service}/{}={}{overridden}",
                row["name"].as_str().unwrap(),
                row["value"].as_str().unwrap()
            )
        };
        rows.as_array().unwrap().iter().map(row).collect::<Vec<_>>().join(" ")
    };
    let of_lab = "lab/*/A=1 lab/*/B=2 lab/web/A=3";
    let of_north = "north/*/A=4 north/db/B=5";
    assert_eq!(rows("").await, format!("{of_lab} {of_north}"));
    assert_eq!(rows("?fleet=lab").await, of_lab);
    assert_eq!(rows("?device=south").await, of_lab);
    assert_eq!(rows("?device=north").await, format!("lab/*/A=1! lab/*/B=2 lab/web/A=3! {of_north}"));
    assert_eq!(rows("?service=web").await, "lab/web/A=3");
    assert_eq!(rows("?name=B").await, "lab/*/B=2 north/db/B=5");

    // Page by page it is the same list.
    let (mut cursor, mut paged) = (String::new(), Vec::new());
    for _ in 0..5 {
        let path = format!("/api/v1/variables?limit=1{cursor}");
        let answer = desk.request(Method::GET, &path).bearer_auth(&desk.token).send().await.unwrap();
        let next = answer.headers().get("cotter-next").map(|next| next.to_str().unwrap().to_owned());
        paged.extend(answer.json::<Vec<Value>>().await.unwrap());
        cursor = next.map_or_else(String::new, |next| format!("&cursor={next}"));
    }
    assert_eq!(cursor, "", "five pages");
    assert_eq!(json!(paged), desk.did(Method::GET, "/variables", Value::Null).await);
    for bad in ["?cursor=lab", "?cursor=device/x//A", "?limit=0", "?x=1"] {
        assert_eq!(desk.operate(Method::GET, &format!("/variables{bad}"), Value::Null).await.0, 400, "{bad}");
    }
    assert_eq!(desk.operate(Method::GET, "/variables?fleet=none", Value::Null).await.0, 404);
    assert_eq!(desk.did(Method::GET, "/variables?service=%20", Value::Null).await, json!([]));
    // A device that is not in the fleet is none of its devices.
    let both = async |fleet: &str| {
        desk.operate(Method::GET, &format!("/variables?fleet={fleet}&device=north"), Value::Null).await.0
    };
    assert_eq!((both("lab").await, both("none").await), (200, 404));
    desk.close().await;
}

#[tokio::test]
async fn what_is_refused_changes_nothing_and_no_answer_has_a_secret() {
    let dir = TempDir::new().unwrap();
    let desk = Desk::open(dir.path()).await;
    desk.lab().await;
    let path = format!("/devices/{A}/variables");
    let secret = json!({ "service": "web", "set": { "KEY": "hunter2" }, "secret": true });
    let mut answers = vec![desk.did(Method::POST, &path, secret).await.to_string()];
    for (body, status, rule, part) in [
        (json!({}), 400, "", "give set, remove, or both"),
        (json!({ "set": { "A": "1" }, "remove": ["A"] }), 400, "", "is in set and in remove"),
        (json!({ "set": { "A": "1", "BALENA_X": "1" } }), 400, "bad_text", "are reserved"),
        (json!({ "set": { "A": "1", "B": "hunter2\n" } }), 400, "bad_variable", "a line break"),
        (json!({ "set": { "A": "1" }, "remove": ["KEY"] }), 404, "no_such_variable", "at this level"),
        (json!({ "service": "wbe", "set": { "A": "1" } }), 404, "no_such_service", "it has db, web"),
        (json!({ "service": "", "set": { "A": "1" } }), 400, "", "service"),
    ] {
        let refused = desk.refused(&path, body.clone()).await;
        assert!(
            (refused.0, refused.1.as_str()) == (status, rule) && refused.2.contains(part),
            "{body}: {refused:?}"
        );
        answers.push(refused.2);
    }
    let huge = json!({ "set": { "A": "x".repeat(256 * 1024) } });
    assert_eq!(desk.operate(Method::POST, &path, huge).await.0, 413);
    let listed = desk.did(Method::GET, "/variables?device=north", Value::Null).await;
    let row = json!({ "name": "KEY", "secret": true, "fleet": "lab", "device": A, "device_name": "north", "service": "web",
                      "overridden": false });
    assert_eq!(listed, json!([row]), "nothing else was set, and it has no value");

    // Whatever can be read of the server, but for a backup and an export with secrets, which an admin asks for.
    let document: Value = serde_json::from_str(include_str!("../docs/openapi-fleet.json")).unwrap();
    let paths = document["paths"].as_object().unwrap().iter();
    let readable = paths.filter(|(path, operations)| {
        !operations["get"].is_null()
            && path.starts_with("/api/")
            && !["/backup", "/secrets"].iter().any(|end| path.ends_with(end))
    });
    let mut count = 0;
    for (path, _) in readable {
        let path = path.replace("{fleet}", "lab").replace("{device}", A).replace("{release}", "one");
        let answer = desk.request(Method::GET, &path).bearer_auth(&desk.token).send().await.unwrap();
        // There is no rollout; users and tokens have no secrets in their records.
        if path.contains('{') {
            continue;
        }
        let expected = if path.ends_with("/current") { StatusCode::NOT_FOUND } else { StatusCode::OK };
        assert_eq!(answer.status(), expected, "{path}");
        answers.push(answer.text().await.unwrap());
        count += 1;
    }
    assert!(count > 8, "{count}");
    for answer in answers {
        assert!(!answer.contains("hunter2"), "{answer}");
    }
    assert_eq!(desk.poll(A, "").await.1.unwrap()["web"], json!({ "KEY": "hunter2" }), "the device gets it");
    desk.close().await;
}

/// `cotter env ARGS...` with a text as its standard input: its exit code, and what it printed.
fn env(server: &FleetServer, args: &[&str], input: &str) -> (Option<i32>, String) {
    let mut command = Program::cotter();
    command
        .arg("env")
        .args(args)
        .env("COTTER_FLEET_URL", &server.url)
        .env("COTTER_TOKEN_FILE", server.token_file());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // A command that fails before it reads closes the pipe.
    let _closed = child.stdin.take().unwrap().write_all(input.as_bytes());
    let out = child.wait_with_output().unwrap();
    (out.status.code(), String::from_utf8([out.stdout, out.stderr].concat()).unwrap())
}

#[test]
fn env_reads_files_and_never_says_what_a_secret_is() {
    let dir = TempDir::new().unwrap();
    let server = FleetServer::start_in(dir.path(), Vec::new());
    server.cli(&["fleet", "create", "lab"]);
    let of_lab = ["set", "--fleet", "lab", "--secret", "--file", "-"];
    let text =
        "# a comment\nexport A=1 # and one more\nB='$hunter2'\nC=\"${A} \\\"two\\\"\"\nD=$$hunter2\nE=\n";
    let (code, said) = env(&server, &of_lab, text);
    assert_eq!((code, said.as_str()), (Some(0), "set 5 variables; no service restarts\n"));
    let (_, listed) = env(&server, &["list"], "");
    assert_eq!(listed.matches("(secret)").count(), 5, "{listed}");
    assert!(!listed.contains("hunter2"), "{listed}");

    for (text, part) in [
        ("A=hunter2$x", "line 1 is not accepted: A: its value has a \"$\" that is not a variable"),
        ("\nA=hunter2${", "line 2 is not accepted: A: its value has a \"$\" that is not a variable"),
        ("A=1\nhunter2", "line 2 is not accepted: it has a name without a value"),
        ("A='hunter2", "A: the quote ' is not closed"),
        ("hunter2 x=1", "line 1 is not accepted: it does not begin with the name"),
        ("BALENA_X=hunter2", "\"BALENA_X\" cannot be a variable name"),
        ("A=\"hunter2\\nx\"", "the variable A is not accepted: its value contains a line break"),
        ("", "give variables to set"),
    ] {
        let (code, said) = env(&server, &of_lab, text);
        assert!(code == Some(2) && said.contains(part), "{text:?}: {code:?} {said}");
        // A name alone may be one that is missing its value, or a value that is missing its name.
        assert!(!said.contains("hunter2"), "{text:?}: {said}");
    }
    for (args, wanted, part) in [
        (&["set", "--fleet", "lab", "hunter2"][..], 2, "variable 1 on the command line has no \"=\""),
        (&["set", "A=1"], 2, "--fleet"),
        (&["set", "--fleet", "lab", "--device", "x", "A=1"], 2, "cannot be used with"),
        (&["set", "--fleet", "lab", "--file", "/none", "A=1"], 2, "cannot read variables from /none"),
        (&["rm", "--fleet", "lab", "NONE"], 5, "there is no variable \"NONE\" at this level"),
        (&["set", "--fleet", "none", "A=1"], 5, "there is no fleet"),
        (&["set", "--fleet", "lab", "--service", "web", "A=1"], 5, "create a release with it first"),
    ] {
        let (code, said) = env(&server, args, "");
        assert!(
            code == Some(wanted) && said.contains(part) && !said.contains("hunter2"),
            "{args:?}: {code:?} {said}"
        );
    }
    let (_, said) = env(&server, &["rm", "--fleet", "lab", "A", "B", "C", "D", "E"], "");
    assert_eq!(said, "removed 5 variables; no service restarts\n");
    assert_eq!(env(&server, &["list"], "").1, "no variable\n");
    assert!(!server.log().contains("hunter2"));
}

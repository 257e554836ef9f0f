//! `Idempotency-Key`: a change is made once, however often its request is sent, also across a restart of the server; and
//! `cotter` repeats a change whose connection was lost half-way.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and its helpers read the environment"
)]

#[path = "support/desk.rs"]
mod desk;
mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::Stdio;
use std::sync::mpsc;
use std::time::Duration;

use desk::Desk;
use futures_util::future::join_all;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use support::{FleetServer, Program};

const DEVICE: &str = "0123456789abcdef0123456789abcdef";
const DOOMED: &str = "dddddddddddddddddddddddddddddddd";

/// The status of an answer, whether it says that the request was done before, and its body.
type Answer = (u16, bool, Value);

async fn ask(desk: &Desk, token: &str, key: &str, method: Method, path: &str, body: &Value) -> Answer {
    let request = desk.request(method, &format!("/api/v1{path}")).bearer_auth(token);
    let request = request.header("Idempotency-Key", key);
    let request = if body.is_null() { request } else { request.json(body) };
    let response = request.send().await.unwrap();
    let is_repeat = response.headers().get("cotter-repeated").is_some_and(|value| value == "true");
    (response.status().as_u16(), is_repeat, response.json().await.unwrap())
}

fn release(commit: &str) -> Value {
    let image = format!("registry.example/web@sha256:{}", "a".repeat(64));
    json!({ "commit": commit, "composition": { "services": { "web": {} } }, "images": { "web": image } })
}

/// A fleet with a release and two devices.
async fn set_up(desk: &Desk) {
    let fleet = desk.did(Method::POST, "/fleets", json!({ "name": "lab" })).await;
    desk.did(Method::POST, "/fleets/lab/releases", release("aaaa1")).await;
    for uuid in [DEVICE, DOOMED] {
        let body = json!({ "application": 1, "uuid": uuid, "device_type": "board", "api_key": format!("fedcba98{}", &uuid[..8]) });
        let register = desk.request(Method::POST, "/device/register").json(&body);
        let register = register.bearer_auth(fleet["provisioning_key"].as_str().unwrap());
        assert_eq!(register.send().await.unwrap().status(), StatusCode::CREATED);
    }
    desk.did(Method::POST, "/users", json!({ "name": "anna" })).await;
}

/// Changes in their order, each with the code of its repetition; `None`: the first answer again.
fn changes() -> Vec<(Method, String, Value, Option<&'static str>)> {
    let device = format!("/devices/{DEVICE}");
    vec![
        (Method::POST, "/fleets".into(), json!({ "name": "new" }), Some("shown_once")),
        (Method::POST, "/fleets/lab/releases".into(), release("bbbb2"), None),
        (Method::POST, "/fleets/lab/pin".into(), json!({ "release": "aaaa" }), None),
        (Method::POST, "/fleets/lab/provisioning-keys".into(), json!({ "name": "k" }), Some("shown_once")),
        (Method::POST, "/fleets/lab/provisioning-keys/k/revoke".into(), json!({}), None),
        (Method::PATCH, "/fleets/lab".into(), json!({ "registry": "r.example" }), None),
        (Method::POST, format!("{device}/pin"), json!({ "release": "bbbb" }), None),
        (Method::POST, format!("{device}/tags"), json!({ "set": { "a": "1" } }), None),
        (Method::POST, "/devices/tags".into(), json!({ "filter": "a=1", "set": { "a": "2" } }), None),
        (Method::POST, format!("{device}/variables"), json!({ "set": { "A": "1" } }), Some("done_already")),
        (Method::PATCH, "/releases/aaaa1".into(), json!({ "is_passing_tests": false }), None),
        (Method::POST, "/users".into(), json!({ "name": "ben" }), None),
        (Method::POST, "/tokens".into(), json!({ "user": "anna", "role": "admin" }), Some("shown_once")),
        (Method::POST, "/users/ben/disable".into(), json!({}), None),
        (Method::DELETE, format!("/devices/{DOOMED}"), Value::Null, None),
        (Method::POST, "/devices/delete".into(), json!({ "filter": "a=2" }), None),
        (Method::POST, "/fleets/new/delete".into(), json!({}), None),
    ]
}

/// How many changes the audit trail has.
async fn done(desk: &Desk) -> usize {
    let trail = desk.did(Method::GET, "/audit?limit=1000", Value::Null).await;
    trail.as_array().unwrap().iter().filter(|entry| entry["result"] == "done").count()
}

#[tokio::test]
async fn a_request_that_is_repeated_with_its_key_is_done_once_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut desk = Desk::open(dir.path()).await;
    set_up(&desk).await;
    for (n, (method, path, body, code)) in changes().into_iter().enumerate() {
        let (before, key) = (done(&desk).await, format!("key {n}"));
        let token = desk.token.clone();
        let first = ask(&desk, &token, &key, method.clone(), &path, &body).await;
        assert!((200..300).contains(&first.0) && !first.1, "{method} {path}: {first:?}");
        assert_eq!(done(&desk).await, before + 1, "{method} {path}");
        for is_restarted in [false, true] {
            if is_restarted {
                desk.close().await;
                desk = Desk::open(dir.path()).await;
            }
            let again = ask(&desk, &token, &key, method.clone(), &path, &body).await;
            match code {
                None => {
                    assert_eq!((again.0, again.1, &again.2), (first.0, true, &first.2), "{method} {path}")
                }
                Some(code) => {
                    let (status, said) = (again.0, &again.2["error"]["code"]);
                    assert_eq!(
                        (status, again.1, said),
                        (409, true, &json!(code)),
                        "{method} {path}: {again:?}"
                    );
                    assert!(again.2["error"]["remedy"].is_string() || code == "done_already", "{again:?}");
                }
            }
            assert_eq!(done(&desk).await, before + 1, "{method} {path}");
        }
        // The key is for this request alone.
        let other = ask(&desk, &token, &key, Method::POST, "/users", &json!({ "name": "carl" })).await;
        assert_eq!((other.0, &other.2["error"]["code"]), (422, &json!("key_reused")), "{other:?}");
    }
    desk.close().await;
}

#[tokio::test]
async fn a_key_belongs_to_its_user_and_what_was_refused_is_decided_again() {
    let dir = tempfile::tempdir().unwrap();
    let desk = Desk::open(dir.path()).await;
    set_up(&desk).await;
    let annas = desk.did(Method::POST, "/tokens", json!({ "user": "anna", "role": "admin" })).await;
    let (first, annas) = (desk.token.clone(), annas["token"].as_str().unwrap().to_owned());
    let pin = |commit: &str| json!({ "release": commit });
    let refused = ask(&desk, &first, "k", Method::POST, "/fleets/lab/pin", &pin("bbbb")).await;
    assert_eq!(refused.0, 404);
    desk.did(Method::POST, "/fleets/lab/releases", release("bbbb2")).await;
    // A refusal is not remembered, and neither is a request that changes nothing.
    let did = ask(&desk, &first, "k", Method::POST, "/fleets/lab/pin", &pin("bbbb")).await;
    assert_eq!((did.0, did.1), (200, false), "{did:?}");
    let other = ask(&desk, &annas, "k", Method::POST, "/fleets/lab/pin", &pin("aaaa")).await;
    assert_eq!((other.0, other.1), (200, false), "another user has keys of its own: {other:?}");
    for bad in ["", "a\tb", &"a".repeat(256)] {
        let answer = ask(&desk, &first, bad, Method::POST, "/fleets/lab/pin", &pin("bbbb")).await;
        assert_eq!((answer.0, &answer.2["error"]["code"]), (400, &json!("bad_request")), "{bad:?}");
    }
    // Many at once are one.
    let before = done(&desk).await;
    let body = pin("bbbb");
    let many = (0..12).map(|_| ask(&desk, &first, "many", Method::POST, "/fleets/lab/pin", &body));
    let answers = join_all(many).await;
    assert!(answers.iter().all(|answer| answer.0 == 200), "{answers:?}");
    assert_eq!(answers.iter().filter(|answer| !answer.1).count(), 1, "{answers:?}");
    assert_eq!(done(&desk).await, before + 1);
    desk.close().await;
}

/// Forwards connections to a server, and drops the first answer: the client never gets it. Says when it has come.
fn lossy(to: String) -> (String, mpsc::Receiver<()>, mpsc::Sender<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let ((answered, has_answered), (go_on, may_go_on)) = (mpsc::channel(), mpsc::channel::<()>());
    std::thread::spawn(move || {
        for (n, near) in listener.incoming().flatten().enumerate() {
            let Ok(mut far) = TcpStream::connect(&to) else { continue };
            let (mut near_read, mut far_write) = (near.try_clone().unwrap(), far.try_clone().unwrap());
            let upwards = std::thread::spawn(move || {
                let _broken = std::io::copy(&mut near_read, &mut far_write);
            });
            let mut near = near;
            if n == 0 {
                let mut answer = [0; 64];
                assert!(far.read(&mut answer).unwrap() > 0, "the server answers");
                answered.send(()).unwrap();
                may_go_on.recv_timeout(Duration::from_secs(20)).unwrap();
                near.shutdown(Shutdown::Both).unwrap();
                drop(upwards);
                continue;
            }
            std::thread::spawn(move || {
                let _broken = std::io::copy(&mut far, &mut near);
                let _ended = near.flush();
                let _ended = near.shutdown(Shutdown::Both);
            });
        }
    });
    (url, has_answered, go_on)
}

/// Runs a command whose first answer is lost; with a kill of the server after it has acted.
fn half_way(server: &mut FleetServer, arguments: &[&str], is_killed: bool) -> (i32, String, String) {
    let (url, answered, go_on) = lossy(server.url.trim_start_matches("http://").to_owned());
    let mut command = Program::cotter();
    command.args(arguments).env("COTTER_FLEET_URL", url).env("COTTER_TOKEN_FILE", server.token_file());
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    answered.recv_timeout(Duration::from_secs(20)).unwrap();
    if is_killed {
        server.cut();
        server.start_again();
    }
    go_on.send(()).unwrap();
    let out = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (out.status.code().unwrap(), text(out.stdout), text(out.stderr))
}

#[test]
fn a_change_whose_connection_is_lost_half_way_has_one_clear_end() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = FleetServer::start_in(dir.path(), Vec::new());
    let count =
        |server: &FleetServer| server.cli(&["audit", "--json"]).matches("\"result\":\"done\"").count();
    for is_killed in [false, true] {
        let name = if is_killed { "killed" } else { "cut" };
        let before = count(&server);
        let (code, _, said) = half_way(&mut server, &["fleet", "create", name], is_killed);
        assert!(
            code == 21 && said.contains("was done already") && said.contains("make another one with"),
            "{said}"
        );
        let renamed = format!("{name}-2");
        let (code, out, said) = half_way(&mut server, &["fleet", "rename", name, &renamed], is_killed);
        assert!(code == 0 && out.contains(&renamed) && said.is_empty(), "{code} {out} {said}");
        let (code, out, said) = half_way(&mut server, &["user", "add", name], is_killed);
        assert!(code == 0 && out.contains(name), "{code} {out} {said}");
        let token = ["token", "create", name, "--role", "operator"];
        let (code, out, said) = half_way(&mut server, &token, is_killed);
        assert!(
            code == 21 && out.is_empty() && said.contains("revoke it and make another one"),
            "{code} {said}"
        );
        assert_eq!(count(&server), before + 4, "each was done once");
    }
    // A server that stays away: what is known is said.
    let (url, answered, go_on) = lossy(server.url.trim_start_matches("http://").to_owned());
    let mut command = Program::cotter();
    command.args(["user", "add", "last"]).env("COTTER_FLEET_URL", url);
    command.env("COTTER_TOKEN_FILE", server.token_file());
    let child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    answered.recv_timeout(Duration::from_secs(20)).unwrap();
    server.cut();
    go_on.send(()).unwrap();
    let out = child.wait_with_output().unwrap();
    let said = String::from_utf8(out.stderr).unwrap();
    assert_eq!(out.status.code(), Some(20), "{said}");
    assert!(said.contains("it is unknown whether the change was made"), "{said}");
}

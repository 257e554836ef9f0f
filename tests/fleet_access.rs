//! Who may do what on the fleet server: users, tokens with roles and scopes, wrong tokens, and the audit trail. First the
//! rules alone, then the server over real HTTP.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

#[path = "support/desk.rs"]
mod desk;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cotter::fleet::access::{Accounts, NewToken, Role, Scope};
use cotter::fleet::policy::{
    Change, KeyHash, NewDevice, NewFleet, NewRelease, NewService, ReleasePatch, Reported, Sight, Tagging,
    World,
};
use cotter::model::{AppId, Commit, DeviceUuid, ImageRef, ReleaseStatus, ServiceName};
use desk::Desk;
use jiff::{SignedDuration, Timestamp};
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const B: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";
const ROLES: [&str; 4] = ["read-only", "release-engineer", "operator", "admin"];

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

/// A token of anna, with a change to a plain one.
fn new_token(hash: &str, tweak: impl FnOnce(&mut NewToken)) -> NewToken {
    let mut new = NewToken {
        hash: KeyHash(hash.to_owned()),
        user: "anna".into(),
        name: None,
        role: Role::Operator,
        scope: Scope::All,
        created: at(0),
        expires_in: None,
    };
    tweak(&mut new);
    new
}

/// Accounts with the user anna.
fn accounts() -> Accounts {
    let mut accounts = Accounts::default();
    for change in accounts.add_user("anna".into(), at(0)).unwrap() {
        accounts.apply(change);
    }
    accounts
}

fn add(accounts: &mut Accounts, new: NewToken) -> Result<(), String> {
    for change in accounts.create_token(new).map_err(|refusal| refusal.to_string())? {
        accounts.apply(change);
    }
    Ok(())
}

#[test]
fn a_token_is_accepted_until_its_time_a_revocation_or_the_end_of_its_user() {
    let mut accounts = accounts();
    add(&mut accounts, new_token("short", |new| new.expires_in = Some(SignedDuration::from_secs(60))))
        .unwrap();
    add(&mut accounts, new_token("long", |_| ())).unwrap();
    let end = |accounts: &Accounts, hash: &str, second| {
        let token = accounts.token(&KeyHash(hash.to_owned())).unwrap();
        accounts.end(token, at(second)).map_or("active", |end| end.as_str())
    };
    for (hash, second, expected) in
        [("short", 59, "active"), ("short", 60, "expired"), ("long", 1_000_000, "active")]
    {
        assert_eq!(end(&accounts, hash, second), expected, "{hash} {second}");
    }
    let user = accounts.find_user("anna").unwrap().clone();
    for change in accounts.disable_user(&user, at(30)) {
        accounts.apply(change);
    }
    assert_eq!((end(&accounts, "long", 30), end(&accounts, "short", 99)), ("user_disabled", "user_disabled"));
    let error = add(&mut accounts, new_token("more", |_| ())).unwrap_err();
    assert!(
        error.starts_with("user anna is disabled, and has no tokens; `cotter user enable anna`"),
        "{error}"
    );
    let user = accounts.find_user("anna").unwrap().clone();
    for change in accounts.enable_user(&user) {
        accounts.apply(change);
    }
    assert_eq!(end(&accounts, "long", 31), "revoked", "it does not come back");
    assert_eq!(add(&mut accounts, new_token("more", |_| ())), Ok(()));
}

#[test]
fn names_of_users_and_tokens_are_an_allow_list() {
    let mut accounts = accounts();
    for name in ["anna@example.com", "ci-1", "B", "a".repeat(64).replace('a', "x").as_str()] {
        assert!(accounts.add_user(name.to_owned(), at(0)).is_ok(), "{name}");
    }
    let long = "x".repeat(65);
    for name in ["", " anna", "an na", "-x", "ann\u{e4}", "a\nb", "beef", "1234", "operator.token", &long] {
        assert!(accounts.add_user(name.to_owned(), at(0)).is_err(), "{name:?}");
        assert!(accounts.create_token(new_token("x", |new| new.name = Some(name.to_owned()))).is_err());
    }
    assert!(accounts.add_user("anna".to_owned(), at(0)).is_err(), "it is taken");
    // Without a name it is called by its role, and no two active tokens of a user have one name.
    for expected in ["operator", "operator-2", "operator-3"] {
        add(&mut accounts, new_token(&format!("{expected:0>12}"), |_| ())).unwrap();
        let named = accounts.find_token(expected, at(0)).map(|token| token.name.clone());
        assert_eq!(named.as_deref(), Ok(expected));
    }
    let error = add(&mut accounts, new_token("y", |new| new.name = Some("operator".into()))).unwrap_err();
    assert!(error.starts_with("user anna has an active token \"operator\" already"), "{error}");
}

#[test]
fn an_admin_reaches_all_fleets_and_a_token_for_some_reaches_one_at_least() {
    let accounts = accounts();
    let some = |role, fleets: &[u64]| {
        let scope = Scope::Fleets(fleets.iter().copied().collect());
        let new = new_token("x", |new| (new.role, new.scope) = (role, scope));
        accounts.create_token(new).map(drop).map_err(|refusal| refusal.rule())
    };
    assert_eq!(some(Role::Admin, &[1]), Err("admin_of_some"));
    assert_eq!(some(Role::Operator, &[]), Err("no_fleets"));
    assert_eq!(some(Role::Operator, &[1]), Ok(()));
}

/// Two fleets, `lab` (number 1) and `vault` (2), with a device each; that of the vault was moved there from the lab.
fn two_fleets() -> World {
    let mut world = World::default();
    let put =
        |world: &mut World, changes: Vec<Change>| changes.into_iter().for_each(|change| world.apply(change));
    for name in ["lab", "vault"] {
        let uuid = AppId::parse(format!("uuid-of-{name}")).unwrap();
        let key = KeyHash(format!("key-of-{name}"));
        let new = NewFleet { uuid, name: name.into(), created: at(0), key, registry: None };
        let changes = world.create_fleet(new).unwrap();
        put(&mut world, changes);
    }
    let image = format!("registry.example/web@sha256:{}", "a".repeat(64));
    let web = NewService { image: ImageRef::parse(&image).unwrap(), composition: serde_json::Map::new() };
    let release = NewRelease {
        commit: Commit::parse("first").unwrap(),
        status: ReleaseStatus::Success,
        is_final: true,
        is_passing_tests: true,
        start_timestamp: at(0),
        services: [(ServiceName::parse("web").unwrap(), web)].into(),
        networks: BTreeMap::new(),
        volumes: BTreeMap::new(),
        build_log: None,
    };
    let (_, changes) = world.create_release(world.find_fleet("lab").unwrap(), release).unwrap();
    put(&mut world, changes);
    for (name, uuid) in [("porch", A), ("safe", B)] {
        let new = NewDevice {
            uuid: DeviceUuid::parse(uuid).unwrap(),
            name: name.into(),
            device_type: "board".into(),
            key: KeyHash(format!("of-{name}")),
            by: KeyHash("key-of-lab".into()),
            created: at(1),
            tags: BTreeMap::new(),
        };
        let (_, changes) = world.register(new).unwrap();
        put(&mut world, changes);
    }
    let running = Reported { running: Some(1), ..Reported::default() };
    put(&mut world, vec![Change::PutReports(DeviceUuid::parse(B).unwrap(), running)]);
    let moved = world.move_device(world.find_device("safe").unwrap(), world.find_fleet("vault").unwrap());
    put(&mut world, moved);
    world
}

/// The last check of every act: whatever a search may have found, a change out of scope is refused, with all of its act.
#[test]
fn no_change_out_of_scope_passes_the_last_check() {
    let world = two_fleets();
    let sight = Sight::new(&world, Arc::new(Scope::Fleets([1].into())));
    let fleet = |name: &str| world.find_fleet(name).unwrap();
    let device = |name: &str| world.find_device(name).unwrap();
    let release = world.find_release(None, "first").unwrap();
    let both = [device("porch"), device("safe")];
    let new_fleet = NewFleet {
        uuid: AppId::parse("uuid-of-third").unwrap(),
        name: "third".into(),
        created: at(0),
        key: KeyHash("key-of-third".into()),
        registry: None,
    };
    let tagging = Tagging { set: [("a".to_owned(), "b".to_owned())].into(), remove: Vec::new() };
    let key = |hash: &str| world.provisioning_key(&KeyHash(hash.to_owned())).unwrap();
    let user = accounts().add_user("ben".into(), at(0)).unwrap().remove(0);
    for (what, changes, is_within) in [
        ("its device", world.rename_device(device("porch"), "x".into()).unwrap(), true),
        ("another's device", world.rename_device(device("safe"), "x".into()).unwrap(), false),
        ("a device of each", world.tag_devices(&both, &tagging).unwrap(), false),
        ("a device that leaves", world.move_device(device("porch"), fleet("vault")), false),
        ("a device that comes", world.move_device(device("safe"), fleet("lab")), false),
        ("its device, deleted", world.delete_devices(&both[..1], at(2)).unwrap(), true),
        ("another's device, deleted", world.delete_devices(&both[1..], at(2)).unwrap(), false),
        (
            "its release, which another's device reports",
            world.delete_fleet(fleet("lab"), true, at(2)).unwrap(),
            true,
        ),
        ("another's fleet", world.delete_fleet(fleet("vault"), true, at(2)).unwrap(), false),
        ("a new fleet", world.create_fleet(new_fleet).unwrap(), false),
        ("its key", world.revoke_key(key("key-of-lab"), at(2)), true),
        ("another's key", world.revoke_key(key("key-of-vault"), at(2)), false),
        (
            "its release",
            world
                .patch_release(
                    release,
                    ReleasePatch { is_invalidated: Some(true), ..ReleasePatch::default() },
                )
                .unwrap(),
            true,
        ),
        ("a user", vec![Change::Access(user)], false),
    ] {
        assert!(!changes.is_empty(), "{what}");
        assert_eq!(sight.check(&changes).is_ok(), is_within, "{what}");
        let all = Sight::new(&world, Arc::new(Scope::All));
        assert_eq!(all.check(&changes), Ok(()), "{what}");
    }
}

/// A server with two fleets, `lab` and `vault`, each with a device, a release and a key.
struct Site {
    desk: Desk,
    dir: TempDir,
}

impl Site {
    async fn open() -> Self {
        let dir = TempDir::new().unwrap();
        let desk = Desk::open(dir.path()).await;
        let site = Self { desk, dir };
        for (fleet, device, uuid) in [("lab", "porch", A), ("vault", "safe", B)] {
            let created = site.did("/fleets", json!({ "name": fleet })).await;
            let key = created["provisioning_key"].as_str().unwrap().to_owned();
            let image = format!("registry.example/web@sha256:{}", "a".repeat(64));
            for commit in ["first", "second"] {
                let release = json!({
                    "commit": format!("{commit}-{fleet}"), "composition": { "services": { "web": {} } },
                    "images": { "web": image },
                });
                site.did(&format!("/fleets/{fleet}/releases"), release).await;
            }
            let old = format!("{}{}", &"f".repeat(31), &uuid[..1]);
            for (name, uuid) in [(device.to_owned(), uuid), (format!("{device}-old"), old.as_str())] {
                let body = json!({
                    "uuid": uuid, "device_type": "board", "application": created["fleet"]["number"],
                    "api_key": format!("key-of-{name}-0123456789"), "device_name": name,
                });
                let request =
                    site.desk.request(Method::POST, "/device/register").bearer_auth(&key).json(&body);
                assert_eq!(request.send().await.unwrap().status(), 201);
            }
            site.did(&format!("/devices/{device}/tags"), json!({ "set": { "ring": "canary" } })).await;
            site.desk.did(Method::DELETE, &format!("/devices/{device}-old"), Value::Null).await;
        }
        site.did("/users", json!({ "name": "anna" })).await;
        site
    }

    async fn did(&self, path: &str, body: Value) -> Value {
        self.desk.did(Method::POST, path, body).await
    }

    /// Makes a token of anna.
    async fn token(&self, more: Value) -> String {
        let mut body = json!({ "user": "anna" });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.did("/tokens", body).await["token"].as_str().unwrap().to_owned()
    }

    /// Asks with another token than the first.
    async fn ask(&self, token: &str, method: Method, path: &str, body: Value) -> (u16, Value) {
        let path = if path.starts_with("/metrics") { path.to_owned() } else { format!("/api/v1{path}") };
        let request = self.desk.request(method, &path).bearer_auth(token);
        let request = if body.is_null() { request } else { request.json(&body) };
        let response = request.send().await.unwrap();
        let (status, text) = (response.status().as_u16(), response.text().await.unwrap());
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    /// The whole audit trail, newest first.
    async fn audit(&self, query: &str) -> Vec<Value> {
        let found = self.desk.did(Method::GET, &format!("/audit?limit=1000{query}"), Value::Null).await;
        found.as_array().unwrap().clone()
    }
}

fn message(answer: &Value) -> &str {
    answer["error"]["message"].as_str().unwrap_or_default()
}

/// Every operation of the document, with the role and the reach that it says; paths with names that exist nowhere.
fn operations() -> Vec<(Method, String, String, bool)> {
    let document: Value = serde_json::from_str(include_str!("../docs/openapi-fleet.json")).unwrap();
    let mut operations = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let Some(role) = operation["x-role"].as_str() else { continue };
            let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
            let path = path.trim_start_matches("/api/v1").replace(['{', '}'], "");
            operations.push((method, path, role.to_owned(), operation["x-reach"] == "server"));
        }
    }
    assert!(operations.len() > 35, "{}", operations.len());
    operations
}

#[tokio::test]
async fn every_role_may_do_what_the_document_says_and_nothing_more() {
    let site = Site::open().await;
    let mut tokens = Vec::new();
    for role in ROLES {
        tokens.push((role, false, site.token(json!({ "role": role })).await));
        if role != "admin" {
            tokens.push((role, true, site.token(json!({ "role": role, "fleets": ["lab"] })).await));
        }
    }
    let rank = |role: &str| ROLES.iter().position(|known| *known == role).unwrap();
    for (method, path, needed, is_of_server) in operations() {
        for (role, is_of_some, token) in &tokens {
            let body = if method == Method::GET { Value::Null } else { json!({}) };
            let (status, answer) = site.ask(token, method.clone(), &path, body).await;
            let case = format!("{method} {path} as {role}, of some: {is_of_some}: {status} {answer}");
            let said = message(&answer);
            if rank(role) < rank(&needed) {
                assert_eq!((status, &answer["error"]["rule"]), (403, &json!("role")), "{case}");
                assert!(said.starts_with(&format!("this needs the role {needed}")), "{case}");
                assert!(said.contains(&format!("of anna has the role {role}")), "{case}");
            } else if *is_of_some && is_of_server {
                assert_eq!((status, &answer["error"]["rule"]), (403, &json!("out_of_scope")), "{case}");
                assert!(said.starts_with("this needs a token for all fleets"), "{case}");
            } else if *is_of_some {
                // What it names exists nowhere, and it is not told so.
                let is_fine = status != 401 && (status != 403 || answer["error"]["rule"] == "out_of_scope");
                assert!(is_fine, "{case}");
            } else {
                assert!(![401, 403, 405, 429].contains(&status), "{case}");
            }
        }
    }
    site.desk.close().await;
}

#[tokio::test]
async fn a_token_is_told_whose_it_is_and_what_it_may_do() {
    let site = Site::open().await;
    let body = json!({ "role": "operator", "fleets": ["lab"], "name": "laptop", "expires_in": "90d" });
    let token = site.token(body).await;
    let (status, who) = site.ask(&token, Method::GET, "/whoami", Value::Null).await;
    let said = ["user", "token", "role", "fleets"].map(|field| who[field].clone());
    assert_eq!((status, json!(said)), (200, json!(["anna", "laptop", "operator", ["lab"]])), "{who}");
    let listed = site.desk.did(Method::GET, "/tokens/laptop", Value::Null).await;
    assert_eq!((&who["expires"], &who["token_id"]), (&listed["expires"], &listed["id"]));
    let first = site.desk.did(Method::GET, "/whoami", Value::Null).await;
    let said = ["user", "role", "fleets", "expires"].map(|field| first[field].clone());
    assert_eq!(json!(said), json!([null, "admin", null, null]), "{first}");
    let (status, _) = site.ask("no-token", Method::GET, "/whoami", Value::Null).await;
    assert_eq!(status, 401);
    site.desk.close().await;
}

#[tokio::test]
async fn who_pinned_something_when_and_why_is_shown_with_it() {
    let site = Site::open().await;
    let token = site.token(json!({ "role": "operator" })).await;
    let pin = |path: &str| site.desk.request(Method::POST, &format!("/api/v1{path}"));
    for path in ["/devices/porch/pin", "/fleets/lab/pin"] {
        let request = pin(path).bearer_auth(&token).header("cotter-reason", "the pump sticks");
        let response = request.json(&json!({ "release": "first-lab" })).send().await.unwrap();
        assert_eq!(response.status(), 200, "{path}");
        let view: Value = response.json().await.unwrap();
        let said = ["by", "why"].map(|field| view["pinned"][field].clone());
        assert_eq!(json!(said), json!(["anna", "the pump sticks"]), "{view}");
        assert!(view["pinned"]["at"].is_string(), "{view}");
    }
    let device = site.desk.did(Method::GET, "/devices/porch", Value::Null).await;
    assert_eq!(device["pinned"]["by"], "anna");
    let device = site.desk.did(Method::POST, "/devices/porch/track-fleet", json!({})).await;
    assert_eq!(device["pinned"], Value::Null, "{device}");
    site.desk.close().await;
}

#[tokio::test]
async fn a_token_for_some_fleets_is_shown_nothing_of_others() {
    let site = Site::open().await;
    let scoped = site.token(json!({ "role": "operator", "fleets": ["lab"] })).await;
    let all = site.token(json!({ "role": "operator" })).await;
    // Every route that shows something, with what a fuller sight would show. A new one needs a row.
    let shows = [
        ("/fleets", true),
        ("/fleets/fleet", false),
        ("/fleets/fleet/provisioning-keys", false),
        ("/fleets/fleet/releases", false),
        ("/fleets/fleet/rollouts", false),
        ("/fleets/fleet/rollouts/current", false),
        // `tests/fleet_webhooks.rs` has some.
        ("/rollouts", false),
        ("/devices", true),
        ("/devices/device", false),
        ("/devices/device/logs", false),
        ("/barred-devices", true),
        ("/releases", true),
        ("/releases/release", false),
        ("/audit", true),
        ("/variables", true),
        ("/export", true),
        ("/openapi.json", false),
        ("/whoami", false),
    ];
    for fleet in ["lab", "vault"] {
        let body = json!({ "set": { "GREETING": "hello" } });
        let (status, answer) =
            site.ask(&all, Method::POST, &format!("/fleets/{fleet}/variables"), body).await;
        assert_eq!(status, 200, "{answer}");
    }
    let known: BTreeSet<_> = shows.iter().map(|(path, _)| (*path).to_owned()).collect();
    let listed = operations()
        .into_iter()
        .filter(|(method, _, _, is_of_server)| method == Method::GET && !is_of_server);
    assert_eq!(listed.map(|(_, path, ..)| path).collect::<BTreeSet<_>>(), known);
    for (path, _) in shows.iter().filter(|(_, is_list)| *is_list) {
        let (status, answer) = site.ask(&scoped, Method::GET, path, Value::Null).await;
        let text = answer.to_string();
        assert_eq!(status, 200, "{path}: {text}");
        assert!(!text.contains("vault") && !text.contains("safe") && !text.contains(B), "{path}: {text}");
        assert!(text.contains("lab"), "{path}: {text}");
        let (_, full) = site.ask(&all, Method::GET, path, Value::Null).await;
        assert!(full.to_string().contains("vault"), "{path}: {full}");
    }
    // By name, what exists elsewhere and what exists nowhere are answered alike.
    for (path, given) in [
        ("/fleets/vault", "vault"),
        ("/fleets/vault/provisioning-keys", "vault"),
        ("/fleets/vault/releases", "vault"),
        ("/devices/safe", "safe"),
        (&format!("/devices/{B}"), B),
        ("/devices/bbbb", "bbbb"),
        ("/devices/safe/logs", "safe"),
        ("/releases/first-vault", "first-vault"),
        ("/releases?fleet=vault", "vault"),
        ("/devices?fleet=vault", "vault"),
        ("/devices?provisioning_key=none", "none"),
        ("/barred-devices?fleet=vault", "vault"),
        ("/audit?fleet=vault", "vault"),
    ] {
        let nothing = path.replace(given, "nothing-of-this");
        let (status, answer) = site.ask(&scoped, Method::GET, path, Value::Null).await;
        assert_eq!((status, &answer["error"]["code"]), (403, &json!("forbidden")), "{path}: {answer}");
        assert!(message(&answer).starts_with("this token reaches fleet lab only, and not "), "{answer}");
        let (other, same) = site.ask(&scoped, Method::GET, &nothing, Value::Null).await;
        assert_eq!(
            (other, message(&same)),
            (403, message(&answer).replace(given, "nothing-of-this").as_str())
        );
    }
    // In its own fleet it is told that a release does not exist.
    let (status, answer) =
        site.ask(&scoped, Method::GET, "/releases/first-vault?fleet=lab", Value::Null).await;
    assert_eq!(status, 404, "{answer}");
    site.desk.close().await;
}

#[tokio::test]
async fn a_token_for_some_fleets_changes_nothing_of_others() {
    let site = Site::open().await;
    let scoped = site.token(json!({ "role": "operator", "fleets": ["lab"] })).await;
    let world = async || {
        let mut all = Vec::new();
        for path in ["/fleets", "/devices", "/releases", "/barred-devices", "/fleets/vault/provisioning-keys"]
        {
            all.push(site.desk.did(Method::GET, path, Value::Null).await);
        }
        all
    };
    let before = world().await;
    let release = json!({ "release": "first-vault" });
    for (path, body) in [
        ("/fleets/vault/pin", release.clone()),
        ("/fleets/vault/rename", json!({ "name": "mine" })),
        ("/fleets/vault/delete", json!({ "with_devices": true })),
        ("/fleets/vault/provisioning-keys", json!({})),
        ("/fleets/2/track-latest", json!({})),
        ("/fleets/vault/rollouts", json!({ "release": "first-vault", "definition": { "waves": ["100%"] } })),
        ("/fleets/vault/rollouts/current/abort", json!({})),
        ("/devices/safe/pin", release.clone()),
        ("/devices/safe/move", json!({ "fleet": "lab" })),
        ("/devices/porch/move", json!({ "fleet": "vault" })),
        ("/devices/safe/rename", json!({ "name": "mine" })),
        ("/barred-devices/safe-old/allow", json!({ "restore": true })),
    ] {
        let (status, answer) = site.ask(&scoped, Method::POST, path, body).await;
        assert_eq!((status, &answer["error"]["rule"]), (403, &json!("out_of_scope")), "{path}: {answer}");
    }
    let (status, answer) =
        site.ask(&scoped, Method::POST, "/devices/porch/pin", json!({ "release": "first-vault" })).await;
    assert_eq!((status, message(&answer).contains("vault only")), (404, false), "{answer}");
    let (status, answer) =
        site.ask(&scoped, Method::POST, "/devices/porch/rename", json!({ "name": "safe" })).await;
    let said = "a device of another fleet has the name \"safe\" already; choose another";
    assert_eq!((status, message(&answer)), (409, said));
    assert_eq!(world().await, before, "nothing was changed so far");
    // Both fleets have such a device, and the token learns of neither whether there is one in the other.
    let only_there = json!({ "filter": "only=vault", "dry_run": true });
    let nowhere = json!({ "filter": "only=nowhere", "dry_run": true });
    site.did("/devices/safe/tags", json!({ "set": { "only": "vault" } })).await;
    let before = world().await;
    for filter in [only_there, nowhere] {
        let (status, answer) = site.ask(&scoped, Method::POST, "/devices/delete", filter).await;
        assert_eq!((status, &answer["error"]["code"]), (404, &json!("no_match")), "{answer}");
    }
    let tags = json!({ "filter": "ring=canary", "set": { "mine": "" } });
    let (status, answer) = site.ask(&scoped, Method::POST, "/devices/tags", tags).await;
    assert_eq!((status, answer["devices"].as_array().unwrap().len()), (200, 1), "{answer}");
    let found = world().await;
    let safe = |world: &[Value]| world[1].as_array().unwrap().iter().find(|d| d["name"] == "safe").cloned();
    assert_eq!(safe(&found).unwrap()["tags"], safe(&before).unwrap()["tags"]);
    // A fleet keeps its tokens when it is renamed, and gives them to no successor.
    site.did("/fleets/lab/rename", json!({ "name": "hall" })).await;
    assert_eq!(site.ask(&scoped, Method::GET, "/fleets/hall", Value::Null).await.0, 200);
    site.did("/fleets/hall/delete", json!({ "with_devices": true })).await;
    site.did("/fleets", json!({ "name": "hall" })).await;
    let (status, answer) = site.ask(&scoped, Method::GET, "/fleets/hall", Value::Null).await;
    assert_eq!((status, message(&answer).contains("no fleet that exists")), (403, true), "{answer}");
    site.desk.close().await;
}

/// A token that is refused again and again does not push all else out of the trail.
#[tokio::test]
async fn of_many_refused_requests_of_a_token_some_are_recorded_with_their_number() {
    let site = Site::open().await;
    let reader = site.token(json!({ "role": "read-only", "name": "reader" })).await;
    let other = site.token(json!({ "role": "read-only", "name": "other" })).await;
    for _ in 0..105 {
        let (status, _) = site.ask(&reader, Method::POST, "/devices/porch/track-fleet", json!({})).await;
        assert_eq!(status, 403);
    }
    assert_eq!(site.ask(&other, Method::POST, "/devices/porch/track-fleet", json!({})).await.0, 403);
    let refused: Vec<_> =
        site.audit("").await.into_iter().filter(|entry| entry["result"] == "refused").collect();
    let of = |token: &str| refused.iter().filter(|entry| entry["token"] == token).collect::<Vec<_>>();
    let (of_reader, of_other) = (of("reader"), of("other"));
    assert_eq!((of_reader.len(), of_other.len()), (21, 1), "{refused:?}");
    let said = of_reader[0]["message"].as_str().unwrap();
    assert!(said.contains("(100 requests of this token were refused since a day or less;"), "{said}");
    assert!(!of_reader[1]["message"].as_str().unwrap().contains("requests of this token"));
    site.desk.close().await;
}

#[tokio::test]
async fn after_a_restoration_it_is_unknown_whether_a_token_was_used() {
    let site = Site::open().await;
    site.token(json!({ "role": "operator", "name": "old" })).await;
    let uses = async |desk: &Desk| {
        let listed = desk.did(Method::GET, "/tokens", Value::Null).await;
        let rows = listed.as_array().unwrap().iter();
        rows.map(|row| format!("{} {}", row["name"].as_str().unwrap(), row["is_use_unknown"]))
            .collect::<Vec<_>>()
    };
    assert_eq!(uses(&site.desk).await, ["old false"]);
    let Site { desk, dir } = site;
    desk.close().await;
    // A backup does not have it.
    std::fs::remove_file(dir.path().join("tokens-used")).unwrap();
    let desk = Desk::open(dir.path()).await;
    let site = Site { desk, dir };
    let new = site.did("/tokens", json!({ "user": "anna", "role": "operator", "name": "new" })).await;
    assert_eq!(new["details"]["is_use_unknown"], false);
    assert_eq!(uses(&site.desk).await, ["old true", "new false"]);
    let Site { desk, dir } = site;
    desk.close().await;
    let desk = Desk::open(dir.path()).await;
    assert_eq!(uses(&desk).await, ["old true", "new false"], "it outlives a restart");
    desk.close().await;
}

#[tokio::test]
async fn a_token_that_has_ended_is_told_why() {
    let site = Site::open().await;
    let revoked = site.token(json!({ "role": "operator", "name": "laptop" })).await;
    let of_user = site.token(json!({ "role": "operator", "name": "phone" })).await;
    assert_eq!(site.ask(&revoked, Method::GET, "/fleets", Value::Null).await.0, 200);
    site.did("/tokens/laptop/revoke", json!({})).await;
    let refused = async |token: &str| {
        let (status, answer) = site.ask(token, Method::GET, "/fleets", Value::Null).await;
        assert_eq!((status, &answer["error"]["code"]), (401, &json!("token_ended")), "{answer}");
        message(&answer).to_owned()
    };
    let said = refused(&revoked).await;
    assert!(said.starts_with("token laptop of anna was revoked at "), "{said}");
    assert!(said.ends_with("; ask an admin for a new one (`cotter token create anna`)"), "{said}");
    let disabled = site.did("/users/anna/disable", json!({})).await;
    assert_eq!((&disabled["state"], &disabled["tokens"]), (&json!("disabled"), &json!(0)));
    let said = refused(&of_user).await;
    assert!(said.starts_with("token phone of anna has ended, because its user was disabled at "), "{said}");
    site.did("/users/anna/enable", json!({})).await;
    assert!(refused(&of_user).await.starts_with("token phone of anna was revoked at "));
    // It is known for long, so it counts as no wrong token.
    for _ in 0..30 {
        refused(&of_user).await;
    }
    let listed = site.desk.did(Method::GET, "/tokens", Value::Null).await;
    let states: Vec<_> = listed.as_array().unwrap().iter().map(|token| token["state"].clone()).collect();
    assert_eq!(states, ["revoked", "revoked"]);
    assert!(listed[0]["last_used"].is_string() && listed[1]["last_used"].is_null(), "{listed}");
    assert!(!listed.to_string().contains(&revoked), "a token is shown once");
    site.desk.close().await;

    // All of it is on the disk, and the time of the last use, too.
    let desk = Desk::open(site.dir.path()).await;
    assert_eq!(desk.did(Method::GET, "/tokens", Value::Null).await, listed);
    desk.close().await;
}

/// A token as this version writes it, which has expired meanwhile. Its time cannot be waited for.
#[tokio::test]
async fn a_token_expires() {
    let dir = TempDir::new().unwrap();
    let secret = "0123456789abcdef0123456789abcdef";
    let hash = {
        use sha2::Digest as _;
        sha2::Sha256::digest(secret).iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    {
        let db = sled::Config::new().path(dir.path().join("store")).open().unwrap();
        let put = |key: &str, value: String| db.insert(key.as_bytes(), value.into_bytes()).unwrap();
        put(
            "user/anna",
            r#"{"v":3,"record":{"name":"anna","created":"2026-01-01T00:00:00Z","disabled":null}}"#.into(),
        );
        put(
            &format!("token/{hash}"),
            format!(
                r#"{{"v":3,"record":{{"hash":"{hash}","user":"anna","name":"ci","role":"release-engineer","scope":{{"fleets":[7]}},"created":"2026-01-01T00:00:00Z","expires":"2026-01-31T00:00:00Z","revoked":null}}}}"#
            ),
        );
        db.flush().unwrap();
    }
    let desk = Desk::open(dir.path()).await;
    let answer = desk.request(Method::GET, "/api/v1/fleets").bearer_auth(secret).send().await.unwrap();
    assert_eq!(answer.status(), 401);
    let answer: Value = answer.json().await.unwrap();
    assert!(message(&answer).starts_with("token ci of anna expired at 2026-01-31T00:00:00Z; "), "{answer}");
    let tokens = desk.did(Method::GET, "/tokens", Value::Null).await;
    let fields = ["state", "role", "fleets", "user"].map(|field| tokens[0][field].clone());
    assert_eq!(json!(fields), json!(["expired", "release-engineer", ["7"], "anna"]), "{tokens}");
    desk.close().await;
}

#[tokio::test]
async fn too_many_wrong_tokens_are_slowed_down_and_lock_nobody_out() {
    let site = Site::open().await;
    let good = site.token(json!({ "role": "read-only" })).await;
    let mut answers = Vec::new();
    for n in 0..40 {
        let request = site.desk.request(Method::GET, "/api/v1/fleets").bearer_auth(format!("wrong-{n}"));
        let response = request.send().await.unwrap();
        let wait = response.headers().get("retry-after").map(|wait| wait.to_str().unwrap().to_owned());
        answers.push((response.status().as_u16(), wait));
        assert_eq!(site.ask(&good, Method::GET, "/fleets", Value::Null).await.0, 200, "after {n}");
    }
    assert!(answers[..20].iter().all(|answer| *answer == (401, None)), "{answers:?}");
    let (last, wait) = answers.last().unwrap();
    assert_eq!(*last, 429, "{answers:?}");
    assert!((1..=7).contains(&wait.as_ref().unwrap().parse::<u64>().unwrap()), "{answers:?}");
    // A request without a token guesses nothing.
    let none = site.desk.request(Method::GET, "/api/v1/fleets").send().await.unwrap();
    assert_eq!(none.status(), 401);
    site.desk.close().await;
}

#[tokio::test]
async fn every_act_is_in_the_audit_trail_with_who_why_and_what_became_of_it() {
    let site = Site::open().await;
    let ci = site.token(json!({ "role": "release-engineer", "name": "ci", "fleets": ["lab"] })).await;
    let before = site.audit("").await.len();
    let pin = |release: &str, reason: &'static str| {
        let request = site.desk.request(Method::POST, "/api/v1/fleets/lab/pin").bearer_auth(&ci);
        request.header("Cotter-Reason", reason).json(&json!({ "release": release })).send()
    };
    assert_eq!(pin("first-lab", "rückwärts").await.unwrap().status(), 200);
    assert_eq!(pin("first-lab", "again").await.unwrap().status(), 200, "which changes nothing");
    assert_eq!(pin("none", "a slip").await.unwrap().status(), 404);
    assert_eq!(pin("first-lab", "").await.unwrap().status(), 400);
    assert_eq!(site.ask(&ci, Method::POST, "/devices/porch/rename", json!({ "name": "x" })).await.0, 403);
    assert_eq!(site.ask(&ci, Method::POST, "/fleets/vault/pin", json!({ "release": "x" })).await.0, 403);
    let all = site.audit("").await;
    assert_eq!(all.len(), before + 4, "{all:#?}");
    let row = |entry: &Value| {
        let fields = [
            "user", "token", "from", "what", "request", "why", "result", "status", "code", "fleets", "count",
        ];
        Value::from_iter(fields.map(|field| entry[field].clone()))
    };
    let expected = [
        json!([
            "anna",
            "ci",
            "127.0.0.1",
            "pin a fleet",
            "POST /api/v1/fleets/vault/pin",
            null,
            "refused",
            403,
            "forbidden",
            [],
            0
        ]),
        json!([
            "anna",
            "ci",
            "127.0.0.1",
            "rename a device",
            "POST /api/v1/devices/porch/rename",
            null,
            "refused",
            403,
            "forbidden",
            [],
            0
        ]),
        json!([
            "anna",
            "ci",
            "127.0.0.1",
            "pin a fleet",
            "POST /api/v1/fleets/lab/pin",
            "a slip",
            "refused",
            404,
            "not_found",
            [],
            0
        ]),
        json!([
            "anna",
            "ci",
            "127.0.0.1",
            "pin a fleet",
            "POST /api/v1/fleets/lab/pin",
            "rückwärts",
            "done",
            null,
            null,
            ["lab"],
            1
        ]),
    ];
    assert_eq!(all[..4].iter().map(row).collect::<Vec<_>>(), expected);
    assert_eq!(
        (&all[3]["things"][0]["kind"], &all[3]["things"][0]["name"]),
        (&json!("fleet"), &json!("lab"))
    );
    assert!(all[1]["message"].as_str().unwrap().starts_with("this needs the role operator"), "{}", all[1]);
    assert_eq!(all.last().unwrap()["user"], Value::Null);
    assert_eq!(all.last().unwrap()["token"], "operator.token");

    // A dry run changes nothing; a bulk act names each thing.
    let tags = json!({ "filter": "ring=canary", "set": { "b": "" }, "dry_run": true });
    site.did("/devices/tags", tags.clone()).await;
    assert_eq!(site.audit("").await.len(), all.len());
    site.did("/devices/tags", json!({ "filter": "ring=canary", "set": { "b": "" } })).await;
    let newest = &site.audit("").await[0];
    let names: Vec<_> =
        newest["things"].as_array().unwrap().iter().map(|thing| thing["name"].clone()).collect();
    assert_eq!((names, &newest["count"]), (vec![json!("porch"), json!("safe")], &json!(2)));
    assert_eq!(newest["fleets"], json!(["lab", "vault"]));

    // Filters, and pages.
    assert_eq!(site.audit("&by=anna").await.len(), 4);
    assert_eq!(site.audit("&by=ci&fleet=lab").await.len(), 1);
    let (status, answer) = site.desk.operate(Method::GET, "/audit?by=nobody", Value::Null).await;
    assert!(status == 404 && message(&answer).contains("is called \"nobody\""), "{answer}");
    let at = newest["at"].as_str().unwrap();
    assert_eq!(site.audit(&format!("&since={at}")).await.first(), Some(newest));
    assert!(!site.audit(&format!("&until={at}")).await.contains(newest));
    let (mut pages, mut cursor, mut numbers) = (0, String::new(), Vec::new());
    loop {
        let path = format!("/api/v1/audit?limit=3{cursor}");
        let response =
            site.desk.request(Method::GET, &path).bearer_auth(&site.desk.token).send().await.unwrap();
        let next = response.headers().get("cotter-next").map(|next| next.to_str().unwrap().to_owned());
        let rows: Value = response.json().await.unwrap();
        numbers.extend(rows.as_array().unwrap().iter().map(|entry| entry["number"].as_u64().unwrap()));
        pages += 1;
        assert!(pages < 100);
        let Some(next) = next else { break };
        cursor = format!("&cursor={next}");
    }
    let all = site.audit("").await;
    assert_eq!(numbers, all.iter().map(|entry| entry["number"].as_u64().unwrap()).collect::<Vec<_>>());
    assert_eq!(pages, all.len().div_ceil(3), "no page is empty");
    for (query, status) in
        [("cursor=x", 400), ("limit=0", 400), ("since=soon", 400), ("cursor=1", 200), ("fleet=no", 404)]
    {
        assert_eq!(
            site.desk.operate(Method::GET, &format!("/audit?{query}"), Value::Null).await.0,
            status,
            "{query}"
        );
    }
    site.desk.close().await;
}

/// A secret that the server made or was sent is neither in the trail nor anywhere in its folder, but for its first token.
#[tokio::test]
async fn no_secret_is_in_the_audit_trail_or_on_the_disk() {
    let site = Site::open().await;
    let token = site.token(json!({ "role": "operator" })).await;
    let created = site.did("/fleets/lab/provisioning-keys", json!({ "name": "line" })).await;
    let key = created["provisioning_key"].as_str().unwrap().to_owned();
    let bad = json!({ "name": "x", "per_minute": 0, "api_key": "stray-secret-in-a-body" });
    assert_eq!(site.ask(&token, Method::POST, "/fleets/lab/provisioning-keys", bad).await.0, 400);
    let first = site.desk.token.clone();
    let trail = Value::from(site.audit("").await).to_string();
    site.desk.close().await;
    assert!(trail.contains("create a provisioning key") && trail.contains("create a token"));
    let mut files = vec![site.dir.path().to_owned()];
    let mut read = 0;
    while let Some(path) = files.pop() {
        if path.is_dir() {
            files.extend(std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
            continue;
        }
        let content = String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned();
        read += content.len();
        for secret in [&token, &key, "stray-secret-in-a-body", &first] {
            let is_its_file = path.ends_with("operator.token") && *secret == first;
            assert!(is_its_file || !content.contains(secret), "{}", path.display());
        }
    }
    assert!(read > 1000, "{read}");
    for secret in [&token, &key, "stray-secret-in-a-body", &first] {
        assert!(!trail.contains(secret), "{trail}");
    }
}

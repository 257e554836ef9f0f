//! Who may register with the fleet server: provisioning keys and their limits, devices that were deleted, and
//! what names and keys may look like. First the policy alone, then the server over real HTTP.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

#[path = "support/desk.rs"]
mod desk;

use std::collections::BTreeMap;

use cotter::fleet::policy::{
    Bar, Change, Device, Fleet, KeyHash, NewDevice, NewFleet, NewKey, ProvisioningKey, Refusal, Tagging,
    World, check_device_key,
};
use cotter::model::{AppId, DeviceUuid};
use desk::Desk;
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const B: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";
const C: &str = "cccccccccccccccccccccccccccccccc";

/// A world with one fleet, `lab`, whose first key is `first`. Its clock is in seconds and is an argument of each act.
struct Lab {
    world: World,
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn hash(text: &str) -> KeyHash {
    KeyHash(text.to_owned())
}

fn uuid(text: &str) -> DeviceUuid {
    DeviceUuid::parse(text).unwrap()
}

impl Lab {
    fn new() -> Self {
        let mut lab = Self { world: World::default() };
        let uuid = AppId::parse("uuid-of-lab").unwrap();
        let new = NewFleet { uuid, name: "lab".into(), created: at(0), key: hash("first"), registry: None };
        lab.change(lab.world.create_fleet(new)).unwrap();
        lab
    }

    fn change(&mut self, changes: Result<Vec<Change>, Refusal>) -> Result<(), Refusal> {
        for change in changes? {
            self.world.apply(change);
        }
        Ok(())
    }

    fn fleet(&self) -> Fleet {
        self.world.find_fleet("lab").unwrap().clone()
    }

    /// Makes the key `key`, with a change to a plain one.
    fn add_key(&mut self, key: &str, tweak: impl FnOnce(&mut NewKey)) -> Result<(), Refusal> {
        let mut new = NewKey::plain(hash(key), at(0));
        tweak(&mut new);
        self.change(self.world.create_key(&self.fleet(), new))
    }

    fn key(&self, key: &str) -> ProvisioningKey {
        self.world.provisioning_key(&hash(key)).unwrap().clone()
    }

    fn register_as(&mut self, key: &str, second: i64, device: &str, secret: &str) -> Result<(), Refusal> {
        let name = "board".to_owned();
        let (device_type, key, by) = ("generic-amd64".to_owned(), hash(secret), hash(key));
        let (uuid, created, tags) = (uuid(device), at(second), BTreeMap::new());
        let new = NewDevice { uuid, name, device_type, key, by, created, tags };
        self.change(self.world.register(new).map(|(_, changes)| changes))
    }

    /// Registers the `n`th device.
    fn register(&mut self, key: &str, second: i64, n: usize) -> Result<(), Refusal> {
        self.register_as(key, second, &format!("{n:032x}"), &format!("secret-{n}"))
    }

    fn device(&self, text: &str) -> Device {
        self.world.find_device(text).unwrap().clone()
    }

    fn bar(&self, text: &str) -> Bar {
        self.world.find_bar(text).unwrap().clone()
    }

    fn delete(&mut self, text: &str, second: i64) {
        let device = self.device(text);
        self.change(self.world.delete_devices(&[&device], at(second))).unwrap();
    }
}

/// What a refusal says, or "done".
fn outcome(result: Result<(), Refusal>) -> String {
    result.map_or_else(|refusal| refusal.to_string(), |()| "done".to_owned())
}

#[test]
fn a_key_tells_of_its_own_fleet_alone_and_only_while_it_registers_devices() {
    let mut lab = Lab::new();
    lab.add_key("a-minute", |new| new.expires_in = Some(SignedDuration::from_secs(60))).unwrap();
    let asked = |given: Option<&str>, second| {
        let key = lab.key("a-minute");
        let found = lab.world.admits(&key, given, at(second));
        found.map_or_else(|refusal| refusal.to_string(), |fleet| fleet.name.clone())
    };
    for given in [None, Some("lab"), Some("1")] {
        assert_eq!(asked(given, 1), "lab", "{given:?}");
    }
    for given in ["other", "2", "", "LAB"] {
        let expected = format!(
            "this provisioning key registers devices in fleet lab (number 1), not in {given:?}; join with --fleet lab, or with a \
             key of the fleet that you mean"
        );
        assert_eq!(asked(Some(given), 1), expected);
    }
    assert!(asked(Some("lab"), 60).starts_with("provisioning key a-minute expired at "));
}

/// A device may ask for tags as an operator may give them, and not for others.
#[test]
fn tags_of_a_registration_are_held_to_the_rules_of_tags() {
    let lab = Lab::new();
    let register = |tags: &[(String, String)]| {
        let new = NewDevice {
            uuid: uuid(&format!("{:032x}", 9)),
            name: "board".to_owned(),
            device_type: "generic-amd64".to_owned(),
            key: hash("a-secret"),
            by: hash("first"),
            created: at(1),
            tags: tags.iter().cloned().collect(),
        };
        lab.world.register(new).map(|_| ())
    };
    let tag = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    assert_eq!(register(&[tag("site", "zurich"), tag("rack", "")]), Ok(()));
    for (key, value) in [("a b", "x"), ("", "x"), ("a", "x,y"), ("a", " x"), ("a", "\u{1b}")] {
        assert!(matches!(register(&[tag(key, value)]), Err(Refusal::BadText { .. })), "{key:?} {value:?}");
    }
    let many: Vec<_> = (0..=100).map(|n| tag(&format!("k{n}"), "v")).collect();
    assert!(matches!(register(&many), Err(Refusal::OutOfRange { given: 101, most: 100, .. })));
    assert_eq!(register(&many[1..]), Ok(()));
}

#[test]
fn a_key_ends_by_its_uses_its_time_or_an_operator() {
    let mut lab = Lab::new();
    lab.add_key("two-uses", |new| {
        new.name = Some("desk".into());
        new.most_uses = Some(2);
    })
    .unwrap();
    lab.add_key("a-minute", |new| new.expires_in = Some(SignedDuration::from_secs(60))).unwrap();
    lab.add_key("gone", |_| {}).unwrap();
    let more = "make another with `cotter fleet provisioning-key create lab`";

    assert_eq!(outcome(lab.register("two-uses", 1, 1)), "done");
    assert_eq!(outcome(lab.register("two-uses", 2, 2)), "done");
    let expected =
        format!("provisioning key two-uses (desk) has registered all 2 devices that it may register; {more}");
    assert_eq!(outcome(lab.register("two-uses", 3, 3)), expected);
    let desk = lab.key("two-uses");
    assert_eq!((desk.uses, desk.last_used), (2, Some(at(2))), "what is refused is no use");

    assert_eq!(outcome(lab.register("a-minute", 59, 3)), "done");
    let expected = format!("provisioning key a-minute expired at 2027-01-15T08:01:00Z; {more}");
    assert_eq!(outcome(lab.register("a-minute", 60, 4)), expected);

    assert_eq!(outcome(lab.register("gone", 60, 4)), "done");
    lab.change(Ok(lab.world.revoke_key(&lab.key("gone"), at(61)))).unwrap();
    lab.change(Ok(lab.world.revoke_key(&lab.key("gone"), at(99)))).unwrap();
    let expected = format!("provisioning key gone was revoked at 2027-01-15T08:01:01Z; {more}");
    assert_eq!(outcome(lab.register("gone", 62, 5)), expected, "the first revocation counts");

    assert!(outcome(lab.register("unknown", 62, 5)).starts_with("there is no provisioning key \"unknown\""));
    assert_eq!(outcome(lab.register("first", 62, 5)), "done", "the others go on to work");
    let came_by = |n: usize| lab.device(&format!("{n:032x}")).provisioned_by;
    assert_eq!([1, 3, 4, 5].map(came_by), ["two-uses", "a-minute", "gone", "first"].map(|k| Some(hash(k))));
}

#[test]
fn a_key_registers_a_minutes_worth_at_once_and_then_one_by_one() {
    let mut lab = Lab::new();
    let mut n = 0;
    let mut burst = |lab: &mut Lab, key: &str, second: i64| {
        let mut done = 0;
        loop {
            n += 1;
            match lab.register(key, second, n) {
                Ok(()) => done += 1,
                Err(Refusal::TooManyRegistrations { retry_after_s, .. }) => return (done, retry_after_s),
                Err(other) => panic!("{other}"),
            }
            assert!(done < 1_000, "there is no end to it");
        }
    };
    assert_eq!(burst(&mut lab, "first", 0), (60, 1), "60 a minute unless something else is said");
    assert_eq!(burst(&mut lab, "first", 0), (0, 1));
    assert_eq!(burst(&mut lab, "first", 1), (1, 1));
    assert_eq!(burst(&mut lab, "first", 11), (10, 1));
    assert_eq!(burst(&mut lab, "first", 1_000), (60, 1), "and no more after a long rest");
    assert_eq!(
        burst(&mut lab, "first", -5_000),
        (60, 1),
        "a clock that was set back stops no device for long"
    );

    lab.add_key("slow", |new| new.per_minute = Some(2)).unwrap();
    assert_eq!(burst(&mut lab, "slow", 0), (2, 30), "each key counts for itself");
    assert_eq!(burst(&mut lab, "slow", 29), (0, 1));
    assert_eq!(burst(&mut lab, "slow", 30), (1, 30));
    assert_eq!(lab.key("slow").uses, 3);
    let refusal = lab.register("slow", 30, 999).unwrap_err().to_string();
    let expected =
        "provisioning key slow registers 2 devices a minute, and more have come; try again in 30 s";
    assert_eq!(refusal, expected);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whenever devices come, and however the clock jumps: no more than a minute's worth at once, and what the
    /// time since the first one allows. A retry that waits as long as the answer said is not refused.
    #[test]
    fn the_rate_holds(rate in 1..200_u32, waits in prop::collection::vec(0..90_i64, 1..150)) {
        let mut lab = Lab::new();
        lab.add_key("k", |new| new.per_minute = Some(rate)).unwrap();
        let (mut now, mut done) = (0, 0_usize);
        for (n, wait) in waits.into_iter().enumerate() {
            now += wait / 10;
            match lab.register("k", now, n) {
                Ok(()) => done += 1,
                Err(Refusal::TooManyRegistrations { retry_after_s, .. }) => {
                    prop_assert!((1..=60).contains(&retry_after_s));
                    now += i64::try_from(retry_after_s).unwrap();
                    prop_assert!(lab.register("k", now, n).is_ok());
                    done += 1;
                }
                Err(other) => panic!("{other}"),
            }
            let most = i64::from(rate) + now * i64::from(rate) / 60 + 1;
            prop_assert!(i64::try_from(done).unwrap() <= most, "{done} in {now} s at {rate}");
        }
    }
}

#[test]
fn limits_and_names_of_keys_are_held_against_rules() {
    let mut lab = Lab::new();
    lab.add_key("k1", |new| new.name = Some("factory".into())).unwrap();
    for (tweak, expected) in [
        (
            (|new| new.most_uses = Some(0)) as fn(&mut NewKey),
            "0 cannot be the number of uses: it must be from 1 to 1000000",
        ),
        (
            |new| new.per_minute = Some(6_001),
            "6001 cannot be the number of registrations per minute: it must be from 1 to 6000",
        ),
        (
            |new| new.name = Some("factory".into()),
            "fleet lab has a provisioning key \"factory\" already; choose another name",
        ),
        (
            |new| new.name = Some("beef".into()),
            "\"beef\" cannot be a key name: 4 or more hex digits alone would be taken",
        ),
        (
            |new| new.name = Some("a\u{202e}b".into()),
            "\"a\\u{202e}b\" cannot be a key name: it has 1 to 255 characters",
        ),
    ] {
        let refused = outcome(lab.add_key("k2", tweak));
        assert!(refused.starts_with(expected), "{refused}");
    }
    let found = |text: &str| lab.world.find_key(None, text).map(|key| key.hash.0.clone());
    assert_eq!(found("factory").unwrap(), "k1");
    assert_eq!(found("firs").unwrap(), "first");
    assert!(matches!(found("fir"), Err(Refusal::NoSuchKey { .. })), "too short");
    assert!(
        matches!(lab.world.find_key(Some(7), "factory"), Err(Refusal::NoSuchKey { .. })),
        "another fleet's"
    );
}

#[test]
fn a_deleted_device_stays_out_until_an_operator_lets_it_in() {
    let mut lab = Lab::new();
    lab.register_as("first", 0, A, "secret-a").unwrap();
    lab.register_as("first", 0, B, "secret-b").unwrap();
    let tagging = Tagging { set: BTreeMap::from([("ring".into(), "canary".into())]), remove: vec![] };
    lab.change(lab.world.tag_device(&lab.device(A), &tagging)).unwrap();
    let before = lab.device(A);
    lab.delete(A, 5);
    assert!(lab.world.device_with_key(&hash("secret-a")).is_none());
    assert_eq!(lab.bar("aaaa").at, at(5));
    let barred = |device: &str| {
        format!(
            "device {device} was deleted from its fleet, or has the key of one that was; an operator must allow it \
             again with `cotter device allow {device}`"
        )
    };
    for (why, device, secret) in
        [("as it was", A, "secret-a"), ("with a new key", A, "secret-x"), ("with a new uuid", C, "secret-a")]
    {
        assert_eq!(outcome(lab.register_as("first", 6, device, secret)), barred(device), "{why}");
    }
    assert_eq!(lab.key("first").uses, 2, "what is refused is no use");

    lab.change(Ok(lab.world.allow_device(&lab.bar("board")))).unwrap();
    assert!(matches!(lab.world.find_bar(A), Err(Refusal::NoSuchBar { .. })));
    assert_eq!(outcome(lab.register_as("first", 7, A, "secret-a")), "done", "uuid and key are free again");
    assert_eq!(lab.device(A).tags, BTreeMap::new(), "it is a new device");

    // Put back as it was.
    lab.delete(A, 8);
    let renamed = lab.world.rename_device(&lab.device(B), "board".into());
    lab.change(renamed).unwrap();
    let deleted = lab.bar(A).device;
    lab.change(lab.world.restore_device(&lab.bar(A))).unwrap();
    let after = lab.device(A);
    assert_eq!(
        after,
        Device { name: "board-2".into(), ..deleted },
        "as it was, but for a name that is taken"
    );
    assert_eq!((after.fleet, &after.key), (before.fleet, &before.key));
    assert!(lab.world.device_with_key(&hash("secret-a")).is_some());
    assert_eq!(lab.world.bars_after(None).count(), 0);
}

#[test]
fn names_are_checked_and_shown_with_odd_characters_escaped() {
    let mut lab = Lab::new();
    lab.register_as("first", 0, A, "secret-a").unwrap();
    lab.register_as("first", 0, B, "secret-b").unwrap();
    let long = "x".repeat(256);
    let rename = |lab: &Lab, name: &str| lab.world.rename_device(&lab.device(B), name.into()).map(|_| ());
    for name in [
        "porch",
        "Küche 2",
        "キッチン",
        "מטבח",
        "unit #7 (left)",
        "a/b:c",
        "x",
        "7",
        "abc",
        "cafes",
        "Ku\u{308}che",
        "विद्यालय",
        "🏠",
    ] {
        assert_eq!(outcome(rename(&lab, name)), "done", "{name}");
    }
    for (name, shown) in [
        ("", r#""""#),
        (" porch", r#"" porch""#),
        ("porch ", r#""porch ""#),
        ("por  ch", r#""por  ch""#),
        ("por\u{a0}ch", r#""por\u{a0}ch""#),
        ("por\tch", r#""por\tch""#),
        ("por\nch", r#""por\nch""#),
        ("\u{1b}[31mred", r#""\u{1b}[31mred""#),
        ("por\u{202e}hc", r#""por\u{202e}hc""#),
        ("por\u{2066}hc", r#""por\u{2066}hc""#),
        ("por\u{200b}ch", r#""por\u{200b}ch""#),
        ("por\u{200f}ch", r#""por\u{200f}ch""#),
        ("por\u{feff}ch", r#""por\u{feff}ch""#),
        ("\u{3164}", "\"\u{3164}\""),
        ("-porch", r#""-porch""#),
        ("por<ch>", r#""por<ch>""#),
        ("porch`id`", r#""porch`id`""#),
        ("por\u{200d}ch", r#""por\u{200d}ch""#),
        ("🏠<", r#""🏠<""#),
    ] {
        let refused = outcome(rename(&lab, name));
        let expected =
            format!("{shown} cannot be a device name: it has 1 to 255 characters, which are letters, digits");
        assert!(refused.starts_with(&expected), "{refused}");
    }
    assert!(outcome(rename(&lab, &long)).contains("cannot be a device name"));
    for name in [A, C, "aaaa", "AAAA", "12345", "deadbeef"] {
        let refused = outcome(rename(&lab, name));
        assert!(refused.contains("hex digits alone would be taken for the beginning of a uuid"), "{refused}");
    }
    let taken = outcome(rename(&lab, "board"));
    assert_eq!(
        taken,
        format!("device {A} has the name \"board\" already; choose another, or rename that one first")
    );
    for (name, expected) in [
        ("12", "digits alone would be taken for a fleet's number"),
        (A, "32 hex digits for its uuid"),
        ("lab\u{202e}", "cannot be a fleet name: it has 1 to 255"),
    ] {
        let uuid = AppId::parse("other").unwrap();
        let new = NewFleet { uuid, name: name.into(), created: at(0), key: hash("other"), registry: None };
        let refused = lab.world.create_fleet(new).unwrap_err().to_string();
        assert!(refused.contains(expected), "{refused}");
    }
    for (value, is_good) in [
        ("", true),
        ("Zürich 8001", true),
        ("https://a.example/x?y#z", true),
        ("a,b", false),
        ("a=b", false),
        ("!a", false),
        (" a", false),
        ("a\u{202e}b", false),
        ("a\u{7}b", false),
    ] {
        let tagging = Tagging { set: BTreeMap::from([("k".into(), value.into())]), remove: vec![] };
        assert_eq!(lab.world.tag_device(&lab.device(A), &tagging).is_ok(), is_good, "{value:?}");
    }
    let many = (0..101).map(|n| (format!("k{n}"), String::new())).collect();
    let refused = lab.world.tag_device(&lab.device(A), &Tagging { set: many, remove: vec![] }).unwrap_err();
    assert_eq!(refused.to_string(), "101 cannot be the number of tags of a device: it must be from 0 to 100");
}

/// A record that an older version stored goes on to work, is not judged by the rules, and can be mended.
#[test]
fn a_record_that_breaks_a_rule_can_be_renamed() {
    let mut lab = Lab::new();
    lab.register_as("first", 0, A, "secret-a").unwrap();
    let old = Device { name: "bbbb\u{202e}".into(), ..lab.device(A) };
    lab.world.apply(Change::PutDevice(old));
    let device = lab.device("aaaa");
    let tagging = Tagging { set: BTreeMap::from([("ring".into(), "canary".into())]), remove: vec![] };
    assert!(lab.world.tag_device(&device, &tagging).is_ok());
    assert_eq!(lab.world.rename_device(&device, device.name.clone()), Ok(vec![]), "the name that it has");
    assert_eq!(outcome(lab.change(lab.world.rename_device(&device, "porch".into()))), "done");
    assert_eq!(lab.device("porch").uuid, uuid(A));
}

#[test]
fn device_keys_must_be_hard_to_guess() {
    let random = "0f3a9c1d2e4b5a6978877665544332f1";
    for (key, expected) in [
        (random, "done"),
        ("0123456789abcdef", "done"),
        ("AbC-_.~+/=0123456789", "done"),
        ("a", "it has 16 to 255 characters"),
        ("", "it has 16 to 255 characters"),
        ("0123456789abcde", "it has 16 to 255 characters"),
        ("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "fewer than 5 different"),
        ("abababababababababababab", "fewer than 5 different"),
        (&format!("{A}-0123"), "or contains the device's uuid"),
        ("0123456789abcdef ", "is made of the letters"),
        ("0123456789abcdef\u{202e}", "is made of the letters"),
        (&"0123456789abcdef".repeat(16), "it has 16 to 255 characters"),
    ] {
        let said = outcome(check_device_key(key, A));
        let expected = expected.replace("it has 16", "a device key has 16");
        assert!(said.contains(&expected), "{said}");
        assert!(key.is_empty() || key.len() < 5 || !said.contains(key), "the key is in no message: {said}");
    }
}

impl Desk {
    async fn post(&self, path: &str, body: Value) -> Value {
        self.did(Method::POST, path, body).await
    }

    async fn get(&self, path: &str) -> Value {
        self.did(Method::GET, path, Value::Null).await
    }

    /// Status, `Retry-After`, whether it says that the device is deleted, and the body.
    async fn register(&self, key: &str, device: &str, more: Value) -> (u16, Option<String>, bool, String) {
        let mut body = json!({
            "application": 1, "device_type": "generic-amd64", "uuid": device, "api_key": device_key(device),
        });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let request = self.request(Method::POST, "/device/register").bearer_auth(key).json(&body);
        let response = request.send().await.unwrap();
        let header = |name: &str| response.headers().get(name).map(|v| v.to_str().unwrap().to_owned());
        let (wait, is_deleted) = (header("retry-after"), header("cotter-device") == Some("deleted".into()));
        (response.status().as_u16(), wait, is_deleted, response.text().await.unwrap())
    }

    /// Registers a device that is accepted.
    async fn registered(&self, key: &str, device: &str, more: Value) {
        let answer = self.register(key, device, more).await;
        assert_eq!(answer.0, 201, "{answer:?}");
    }

    /// The status of a poll, and whether it says that the device is deleted.
    async fn poll(&self, device: &str, key: &str) -> (u16, bool) {
        let request = self.request(Method::GET, &format!("/device/v3/{device}/state"));
        let response = request.bearer_auth(key).send().await.unwrap();
        let is_deleted = response.headers().get("cotter-device").is_some_and(|v| v == "deleted");
        (response.status().as_u16(), is_deleted)
    }

    /// The names of the devices that a query lists.
    async fn names(&self, query: &str) -> Vec<String> {
        let devices = self.get(&format!("/devices{query}")).await;
        let names =
            devices.as_array().unwrap().iter().map(|device| device["name"].as_str().unwrap().to_owned());
        names.collect()
    }
}

fn device_key(device: &str) -> String {
    format!("{}-0123456789", &device[24..])
}

#[tokio::test]
async fn operators_make_list_and_revoke_keys() {
    let dir = TempDir::new().unwrap();
    let desk = Desk::open(dir.path()).await;
    let first = desk.post("/fleets", json!({ "name": "lab" })).await;
    let first = first["provisioning_key"].as_str().unwrap().to_owned();
    let keys = "/fleets/lab/provisioning-keys";
    let plain = desk.post(keys, json!({})).await;
    assert_eq!((&plain["fleet"], plain["provisioning_key"].as_str().unwrap().len()), (&json!("lab"), 32));
    let wanted = json!({ "name": "factory", "expires_in": "30d", "uses": 1, "per_minute": 5 });
    let factory = desk.post(keys, wanted).await;
    let key = factory["provisioning_key"].as_str().unwrap().to_owned();
    desk.registered(&key, A, json!({ "device_name": "porch" })).await;
    desk.registered(&first, B, json!({ "device_name": "attic" })).await;

    let listed = desk.get(keys).await;
    let listed = listed.as_array().unwrap();
    assert_eq!(listed.len(), 3);
    let it = listed.iter().find(|key| key["name"] == "factory").unwrap();
    let fields = ["id", "fleet", "name", "state", "uses", "most_uses", "per_minute", "devices"];
    let id = factory["details"]["id"].as_str().unwrap();
    let values = json!([id, "lab", "factory", "used_up", 1, 1, 5, 1]);
    assert_eq!(Value::from_iter(fields.map(|field| it[field].clone())), values);
    assert!(it["last_used"].is_string() && it["expires"].is_string() && it["revoked"].is_null(), "{it}");
    let all = serde_json::to_string(listed).unwrap();
    assert!(!all.contains(&key) && !all.contains(&first), "no key is shown again");

    // A device says which key it came with, and is found by it.
    let porch = desk.get("/devices/porch").await;
    assert_eq!(
        (&porch["provisioning_key"], &porch["provisioning_key_name"]),
        (&json!(id), &json!("factory"))
    );
    assert_eq!(desk.names("?provisioning_key=factory").await, ["porch"]);
    assert_eq!(desk.names(&format!("?provisioning_key={}", &id[..4])).await, ["porch"]);
    assert_eq!(desk.operate(Method::GET, "/devices?provisioning_key=none", Value::Null).await.0, 404);

    let (status, _, _, body) = desk.register(&key, C, json!({})).await;
    let expected = format!(
        "{{\"error\":\"provisioning key {id} (factory) has registered the one device that it may register; make another with \
         `cotter fleet provisioning-key create lab`\"}}"
    );
    assert_eq!((status, body), (401, expected));
    let plain_id = plain["details"]["id"].as_str().unwrap();
    let revoked = desk.post(&format!("{keys}/{plain_id}/revoke"), json!({})).await;
    assert_eq!((&revoked["state"], &revoked["id"]), (&json!("revoked"), &json!(plain_id)));
    let plain_key = plain["provisioning_key"].as_str().unwrap();
    let (status, _, _, body) = desk.register(plain_key, C, json!({})).await;
    assert!(status == 401 && body.contains("was revoked at "), "{status} {body}");

    for (body, expected) in [
        (
            json!({ "expires_in": "soon" }),
            "expires_in = \"soon\" is not accepted; write a time such as 12h, 30d",
        ),
        (json!({ "expires_in": "1s" }), "from 1min to 10 years"),
        (json!({ "expires_in": "1000y" }), "from 1min to 10 years"),
        (json!({ "uses": 0 }), "0 cannot be the number of uses"),
        (json!({ "uses": -1 }), "invalid value: integer `-1`"),
        (json!({ "per_minute": 0 }), "0 cannot be the number of registrations per minute"),
        (json!({ "name": "" }), "\"\" cannot be a key name"),
        (json!({ "colour": "red" }), "unknown field `colour`"),
    ] {
        let (status, answer) = desk.operate(Method::POST, keys, body).await;
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(status == 400 && message.contains(expected), "{status} {message}");
    }
    desk.close().await;
}

#[tokio::test]
async fn a_device_that_registers_too_fast_gets_a_time_to_retry() {
    let dir = TempDir::new().unwrap();
    let desk = Desk::open(dir.path()).await;
    desk.post("/fleets", json!({ "name": "lab" })).await;
    let key = desk.post("/fleets/lab/provisioning-keys", json!({ "per_minute": 2 })).await;
    let key = key["provisioning_key"].as_str().unwrap();
    for device in [A, B] {
        desk.registered(key, device, json!({})).await;
    }
    let (status, wait, _, body) = desk.register(key, C, json!({})).await;
    let wait: u64 = wait.expect("Retry-After").parse().unwrap();
    assert!(status == 429 && (1..=30).contains(&wait), "{status} {wait} {body}");
    assert!(body.contains("registers 2 devices a minute"), "{body}");
    assert_eq!(desk.register(key, A, json!({})).await.0, 409, "who has registered hears so at any rate");
    desk.close().await;
}

#[tokio::test]
async fn a_deleted_device_gets_a_reason_and_is_kept_out_over_a_restart() {
    let dir = TempDir::new().unwrap();
    let desk = Desk::open(dir.path()).await;
    let first = desk.post("/fleets", json!({ "name": "lab" })).await;
    let key = first["provisioning_key"].as_str().unwrap().to_owned();
    desk.registered(&key, A, json!({ "device_name": "porch" })).await;
    desk.registered(&key, B, json!({ "device_name": "attic" })).await;
    let own = device_key(A);
    assert_eq!(desk.poll(A, &own).await, (200, false));
    assert_eq!(desk.operate(Method::DELETE, "/devices/porch", Value::Null).await.0, 200);

    // The answer of a real balena API, and only to the device itself the reason.
    assert_eq!(desk.poll(A, &own).await, (304, true));
    assert_eq!(desk.poll(A, "unknown-key-0123456789").await, (304, false));
    assert_eq!(desk.poll(C, &own).await, (304, false));
    desk.close().await;

    let desk = Desk::open(dir.path()).await;
    let other = json!({ "api_key": "another-key-0123456789" });
    let stolen = json!({ "api_key": own });
    for (device, more) in [(A, json!({})), (A, other), (C, stolen)] {
        let (status, _, is_deleted, body) = desk.register(&key, device, more).await;
        assert_eq!((status, is_deleted), (403, true), "{body}");
        assert!(body.contains(&format!("with `cotter device allow {device}`")), "{body}");
    }
    let barred = desk.get("/barred-devices").await;
    assert_eq!(barred.as_array().unwrap().len(), 1);
    let it = &barred[0];
    assert_eq!((&it["uuid"], &it["name"], &it["fleet"]), (&json!(A), &json!("porch"), &json!("lab")));
    assert_eq!(desk.get("/barred-devices?fleet=lab").await, barred);
    assert_eq!(desk.operate(Method::GET, "/barred-devices?fleet=no", Value::Null).await.0, 404);

    // Put back: its own key works at once. Deleted and allowed: it may register.
    desk.post("/barred-devices/porch/allow", json!({ "restore": true })).await;
    assert_eq!(desk.poll(A, &own).await, (200, false));
    assert_eq!(desk.operate(Method::DELETE, "/devices/porch", Value::Null).await.0, 200);
    desk.post("/barred-devices/aaaa/allow", json!({})).await;
    assert_eq!(desk.poll(A, &own).await, (304, false), "an unknown device");
    desk.registered(&key, A, json!({})).await;
    assert_eq!(desk.poll(A, &own).await, (200, false));
    let (status, answer) = desk.operate(Method::POST, "/barred-devices/aaaa/allow", json!({})).await;
    let expected = "there is no deleted device \"aaaa\"; give its uuid";
    assert!(status == 404 && answer["error"]["message"].as_str().unwrap().starts_with(expected), "{answer}");
    desk.close().await;
}

#[tokio::test]
async fn many_devices_are_deleted_at_once_or_none() {
    let dir = TempDir::new().unwrap();
    let desk = Desk::open(dir.path()).await;
    let first = desk.post("/fleets", json!({ "name": "lab" })).await;
    let first = first["provisioning_key"].as_str().unwrap().to_owned();
    let leaked = desk.post("/fleets/lab/provisioning-keys", json!({ "name": "leaked" })).await;
    let leaked = leaked["provisioning_key"].as_str().unwrap().to_owned();
    for (n, key) in [(1, &first), (2, &first), (3, &leaked), (4, &leaked), (5, &leaked)] {
        desk.registered(key, &format!("{n:032x}"), json!({ "device_name": format!("d{n}") })).await;
    }
    for n in [1, 3] {
        desk.post(&format!("/devices/d{n}/tags"), json!({ "set": { "ring": "canary" } })).await;
    }
    let delete = async |body: Value| desk.operate(Method::POST, "/devices/delete", body).await;
    for (body, status, expected) in [
        (json!({}), 400, "no devices are named; give filter"),
        (json!({ "fleet": "lab" }), 400, "no devices are named; give filter"),
        (json!({ "filter": "ring=none" }), 404, "no device matches \"ring=none\""),
        (json!({ "provisioning_key": "none" }), 404, "there is no provisioning key \"none\""),
        (
            json!({ "filter": "ring=x", "provisioning_key": "leaked" }),
            404,
            "no device matches \"ring=x with provisioning key leaked\"",
        ),
        (
            json!({ "provisioning_key": "leaked", "expected": 2 }),
            409,
            "the number of devices that match has changed from 2 to 3; nothing was changed",
        ),
    ] {
        let (got, answer) = delete(body).await;
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(got == status && message.starts_with(expected), "{got} {message}");
    }
    let (_, dry) = delete(json!({ "provisioning_key": "leaked", "dry_run": true })).await;
    assert_eq!((&dry["dry_run"], dry["devices"].as_array().unwrap().len()), (&json!(true), 3));
    assert_eq!(desk.names("").await, ["d1", "d2", "d3", "d4", "d5"], "nothing was changed so far");
    let (status, _) = delete(json!({ "filter": "ring=canary", "provisioning_key": "leaked" })).await;
    assert_eq!((status, desk.names("").await), (200, ["d1", "d2", "d4", "d5"].map(str::to_owned).to_vec()));
    let (status, _) = delete(json!({ "provisioning_key": "leaked", "expected": 2 })).await;
    assert_eq!((status, desk.names("").await), (200, ["d1", "d2"].map(str::to_owned).to_vec()));
    assert_eq!(desk.get("/barred-devices").await.as_array().unwrap().len(), 3);
    desk.close().await;
}

/// Devices that were set up from one image bring one name, and are all let in.
#[tokio::test]
async fn names_of_devices_are_unique() {
    let dir = TempDir::new().unwrap();
    let desk = Desk::open(dir.path()).await;
    let first = desk.post("/fleets", json!({ "name": "lab" })).await;
    let key = first["provisioning_key"].as_str().unwrap().to_owned();
    for device in [A, B, C] {
        desk.registered(&key, device, json!({ "device_name": "kitchen" })).await;
    }
    assert_eq!(desk.names("").await, ["kitchen", "kitchen-2", "kitchen-3"]);
    let fresh = "dddddddddddddddddddddddddddddddd";
    for (more, expected) in [
        (json!({ "device_name": A }), "4 or more hex digits alone"),
        (json!({ "device_name": "por\u{202e}hc" }), "\"por\\u{202e}hc\" cannot be a device name"),
        (json!({ "device_type": "a b" }), "\"a b\" cannot be a device type"),
        (
            json!({ "api_key": "x" }),
            "this device's key is not accepted: a device key has 16 to 255 characters",
        ),
        (
            json!({ "api_key": "xxxxxxxxxxxxxxxxxxxxx" }),
            "this device's key is not accepted: a device key must be random",
        ),
    ] {
        let (status, _, _, body) = desk.register(&key, fresh, more).await;
        assert!(status == 400 && body.contains(expected), "{status} {body}");
    }
    let rename = async |device: &str, name: &str| {
        let (status, answer) =
            desk.operate(Method::POST, &format!("/devices/{device}/rename"), json!({ "name": name })).await;
        (status, answer["name"].as_str().or(answer["error"]["message"].as_str()).unwrap().to_owned())
    };
    assert_eq!(rename("kitchen-3", "pantry").await, (200, "pantry".to_owned()));
    let (status, output) = rename("kitchen-2", "pantry").await;
    assert!(
        status == 409 && output.starts_with(&format!("device {C} has the name \"pantry\" already")),
        "{output}"
    );
    desk.close().await;
}

/// Records as version 0.1.0 wrote them, byte for byte: they are read, and what is new has its default.
#[tokio::test]
async fn records_of_an_older_version_are_read() {
    let dir = TempDir::new().unwrap();
    let old_key = "0b3e0a6a3b7d4f0e9d7c6b5a49382716";
    let of = |text: &str| {
        use sha2::Digest as _;
        sha2::Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    {
        let db = sled::Config::new().path(dir.path().join("store")).open().unwrap();
        let put = |key: String, value: String| db.insert(key.as_bytes(), value.into_bytes()).unwrap();
        put(
            "counters/".into(),
            r#"{"v":1,"record":{"fleet":1,"device":1,"release":0,"service":0,"image":0}}"#.into(),
        );
        put(
            format!("fleet/{:020}", 1),
            r#"{"v":1,"record":{"number":1,"uuid":"c1e6d44ed31f099f3066283d20a8f3ae","name":"lab","is_tracking_latest":true,"target":null,"created":"2026-01-01T00:00:00Z","services":{}}}"#.into(),
        );
        put(
            format!("key/{}", of(old_key)),
            format!(
                r#"{{"v":1,"record":{{"hash":"{}","fleet":1,"created":"2026-01-01T00:00:00Z"}}}}"#,
                of(old_key)
            ),
        );
        put(
            format!("device/{A}"),
            format!(
                r#"{{"v":1,"record":{{"number":1,"uuid":"{A}","name":"{B}","device_type":"my board","fleet":1,"key":"{}","pin":null,"tags":{{"a":"b"}},"created":"2026-01-02T00:00:00Z","reported":{{"at":"2026-01-03T00:00:00Z","fields":{{"os_version":"Old 1"}},"running":null,"update_status":null,"services":[]}}}}}}"#,
                of("k")
            ),
        );
        put(format!("retired/{}", of("gone")), format!(r#"{{"v":1,"record":"{}"}}"#, of("gone")));
        db.flush().unwrap();
    }
    let desk = Desk::open(dir.path()).await;
    let keys = desk.get("/fleets/lab/provisioning-keys").await;
    let fields =
        ["name", "state", "uses", "most_uses", "per_minute", "devices", "expires", "revoked", "last_used"];
    let expected = json!([null, "active", 0, null, 60, 0, null, null, null]);
    assert_eq!(Value::from_iter(fields.map(|field| keys[0][field].clone())), expected);
    let device = desk.get(&format!("/devices/{A}")).await;
    assert_eq!((&device["name"], &device["provisioning_key"]), (&json!(B), &Value::Null));
    assert_eq!(desk.poll(A, "k").await, (200, false), "its short key goes on to work");
    desk.post(&format!("/devices/{A}/rename"), json!({ "name": "porch" })).await;
    desk.registered(old_key, C, json!({})).await;
    assert_eq!(desk.get("/fleets/lab/provisioning-keys").await[0]["uses"], 1);
    assert_eq!(desk.get("/devices/porch").await["tags"], json!({ "a": "b" }));
    desk.close().await;

    let desk = Desk::open(dir.path()).await;
    let keys = desk.get("/fleets/lab/provisioning-keys").await;
    assert_eq!((&keys[0]["uses"], &keys[0]["devices"]), (&json!(1), &json!(1)));
    assert_eq!(desk.names("").await[0], "porch");
    // The rename wrote the device without its reports, which have a record of their own by now.
    let device = desk.get("/devices/porch").await;
    assert_eq!(
        (&device["reported_at"], &device["reported"]["os_version"]),
        (&json!("2026-01-03T00:00:00Z"), &json!("Old 1"))
    );
    desk.close().await;
}

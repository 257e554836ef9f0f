//! Rollouts as the policy sees them: who gets which release meanwhile and at the end, and what is refused.

use std::collections::BTreeMap;

use super::*;
use crate::fleet::policy::{Choice, KeyHash, NewDevice, NewFleet, NewRelease, NewService, Tagging};
use crate::fleet::rollout::{Segment, Tally};
use crate::model::{AppId, Commit, ImageRef, MOST_TAGS, ServiceName};

/// Fleet `lab` (1) tracks latest. It has the releases `one` (1), `two` (2), which is its target, and the draft `three` (3).
/// Fleet `other` (2) has none.
struct Site {
    world: World,
    devices: u32,
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn new_release(commit: &str, second: i64) -> NewRelease {
    let web = NewService {
        image: ImageRef::parse(&format!("r/web@sha256:{}", "a".repeat(64))).unwrap(),
        composition: serde_json::Map::new(),
    };
    NewRelease {
        commit: Commit::parse(commit).unwrap(),
        status: ReleaseStatus::Success,
        is_final: true,
        is_passing_tests: true,
        start_timestamp: at(second),
        services: BTreeMap::from([(ServiceName::parse("web").unwrap(), web)]),
        networks: BTreeMap::new(),
        volumes: BTreeMap::new(),
        build_log: None,
    }
}

impl Site {
    fn new() -> Self {
        let mut site = Self { world: World::default(), devices: 0 };
        for name in ["lab", "other"] {
            let fleet = NewFleet {
                uuid: AppId::parse(name).unwrap(),
                name: name.to_owned(),
                created: at(0),
                key: KeyHash(name.to_owned()),
                registry: None,
            };
            site.done(|world| world.create_fleet(fleet));
        }
        site.release(new_release("one", 1));
        site.release(new_release("two", 2));
        site.release(NewRelease { is_final: false, ..new_release("three", 3) });
        site
    }

    #[track_caller]
    fn done(&mut self, act: impl FnOnce(&World) -> Result<Vec<Change>, Refusal>) {
        let changes = act(&self.world).unwrap();
        changes.into_iter().for_each(|change| self.world.apply(change));
    }

    fn fleet(&self, name: &str) -> Fleet {
        self.world.find_fleet(name).unwrap().clone()
    }

    fn release(&mut self, new: NewRelease) {
        let fleet = self.fleet("lab");
        self.done(|world| Ok(world.create_release(&fleet, new)?.1));
    }

    fn device(&self, name: &str) -> Device {
        self.world.find_device(name).unwrap().clone()
    }

    /// Registers a device in `lab`.
    fn join(&mut self, name: &str, tags: &[(&str, &str)]) {
        self.devices += 1;
        let device = NewDevice {
            uuid: DeviceUuid::parse(format!("{:032x}", self.devices)).unwrap(),
            name: name.to_owned(),
            device_type: "generic-amd64".to_owned(),
            key: KeyHash(format!("of {name}")),
            by: KeyHash("lab".to_owned()),
            created: at(0),
            tags: tags.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        };
        self.done(|world| Ok(world.register(device)?.1));
    }

    fn start(&mut self, commit: &str, json: &str) -> Result<Rollout, Refusal> {
        let definition = serde_json::from_str(json).unwrap();
        let new = NewRollout { definition, supersedes: true, who: "anna".to_owned() };
        let release = Release::clone(self.world.find_release(None, commit).unwrap());
        let (rollout, changes) = self.world.start_rollout(&self.fleet("lab"), &release, new, at(9))?;
        changes.into_iter().for_each(|change| self.world.apply(change));
        Ok(rollout)
    }

    fn put(&mut self, rollout: &Rollout) {
        self.world.apply(Change::PutRollout(Box::new(rollout.clone())));
    }

    fn open(&self) -> Rollout {
        self.world.open_rollout(1).unwrap().as_ref().clone()
    }

    fn member() -> ExposedDevice {
        let member = serde_json::json!({
            "wave": 0, "exposed": at(9), "is_reachable": true, "verdict": "updating", "since": at(9),
        });
        serde_json::from_value(member).unwrap()
    }

    /// Exposes a device to the release of this rollout.
    fn expose(&mut self, rollout: u64, name: &str) {
        let member = RolloutExposure { rollout, member: Self::member() };
        self.world.apply(Change::PutMember(self.device(name).uuid, member));
    }

    fn steer(&self, steering: &Steering) -> Result<Vec<Change>, Refusal> {
        self.world.steer_rollout(&self.fleet("lab"), steering, "anna", at(20))
    }

    /// The commit that a device should run, and that of its pin.
    fn runs(&self, name: &str) -> (String, Option<String>) {
        let device = self.device(name);
        let commit = |release: &Release| release.commit.to_string();
        let pin = device.pin.and_then(|pin| self.world.release(pin)).map(|release| commit(release));
        (self.world.target_of(&device).map_or_else(String::new, |release| commit(release)), pin)
    }

    fn pin_fleet(&mut self, commit: &str) {
        let (fleet, release) =
            (self.fleet("lab"), Release::clone(self.world.find_release(None, commit).unwrap()));
        self.done(|world| world.pin_fleet(&fleet, &release));
    }
}

fn runs(commit: &str, pin: Option<&str>) -> (String, Option<String>) {
    (commit.to_owned(), pin.map(str::to_owned))
}

const ALL: &str = r#"{"waves": ["100%"]}"#;

#[test]
fn a_pin_is_stronger_than_a_rollout_and_a_rollout_than_the_target_of_the_fleet() {
    let mut site = Site::new();
    site.join("board", &[]);
    assert_eq!(site.runs("board"), runs("two", None));
    let rollout = site.start("three", ALL).unwrap();
    assert_eq!(site.runs("board"), runs("two", None), "it is not exposed yet");
    site.expose(rollout.number, "board");
    assert_eq!(site.runs("board"), runs("three", None));
    let (device, one) = (site.device("board"), Release::clone(site.world.release(1).unwrap()));
    site.done(|world| world.pin_devices(&[&device], &one));
    assert_eq!(site.runs("board"), runs("one", Some("one")));
}

#[test]
fn only_the_newest_rollout_of_a_fleet_counts() {
    let mut site = Site::new();
    site.join("board", &[]);
    let first = site.start("three", ALL).unwrap();
    site.expose(first.number, "board");
    let second = site.start("three", ALL).unwrap();
    assert_eq!(site.runs("board"), runs("two", None), "the new rollout has not exposed it");
    // A record of the older one that is written later, e.g. by another server, does not bring it back.
    site.put(&first);
    assert_eq!(site.world.rollout(1).map(|rollout| rollout.number), Some(second.number));
    assert_eq!(site.runs("board"), runs("two", None));
}

#[test]
fn of_two_latest_releases_the_one_that_was_created_later_counts() {
    let mut site = Site::new();
    site.release(new_release("twin", 2));
    assert_eq!(site.world.latest_trackable(1).unwrap().commit.as_str(), "twin");
    assert_eq!(
        site.fleet("lab").target,
        site.world.find_release(None, "twin").ok().map(|release| release.number)
    );
}

#[test]
fn a_release_that_a_rollout_gives_to_devices_is_not_deleted() {
    let mut site = Site::new();
    let rollout = site.start("three", r#"{"waves": ["100%"], "barriers": ["one"]}"#).unwrap();
    assert_eq!((rollout.before, rollout.barriers.as_slice()), (Some(2), &[1][..]));
    for commit in ["three", "one"] {
        let release = Release::clone(site.world.find_release(None, commit).unwrap());
        let refused = site.world.delete_release(&release).unwrap_err();
        assert_eq!(refused.rule(), "rolled_out", "{commit}");
    }
}

#[test]
fn at_the_end_every_device_has_what_the_rollout_meant_for_it() {
    let mut site = Site::new();
    site.join("plain", &[]);
    site.join("bad", &[("hw", "2")]);
    site.join("never", &[("rollout", "never")]);
    let mut rollout = site.start("three", r#"{"waves": ["100%"], "segments": ["hw"]}"#).unwrap();
    for name in ["plain", "bad"] {
        site.expose(rollout.number, name);
    }
    let halt = Halt { cause: Cause::Invalidated, failures: 1, verdicts: 1, evidence: Vec::new() };
    rollout.halted.insert(Segment::new("hw", "2"), halt);
    site.put(&rollout);
    let changes = site.steer(&Steering::Complete);
    site.done(|_| changes);
    assert_eq!(site.runs("plain"), runs("three", None));
    assert_eq!(site.runs("bad"), runs("three", Some("three")), "its segment keeps what it should run now");
    assert_eq!(site.runs("never"), runs("two", Some("two")));
    assert!(site.world.release(3).unwrap().is_final, "else the fleet would not track it");
    assert!(site.fleet("lab").is_tracking_latest && site.fleet("lab").target == Some(3));
}

#[test]
fn a_rollout_to_some_devices_leaves_the_others_as_they_are() {
    let mut site = Site::new();
    site.join("in", &[("ring", "beta")]);
    site.join("was-in", &[("ring", "beta")]);
    site.join("out", &[]);
    let rollout = site.start("three", r#"{"waves": ["100%"], "filter": "ring=beta"}"#).unwrap();
    for name in ["in", "was-in"] {
        site.expose(rollout.number, name);
    }
    let device = site.device("was-in");
    let tagging = Tagging { remove: vec!["ring".to_owned()], ..Tagging::default() };
    site.done(|world| world.tag_device(&device, &tagging));
    let changes = site.steer(&Steering::Complete);
    site.done(|_| changes);
    assert_eq!(site.runs("in"), runs("three", Some("three")));
    assert_eq!(site.runs("was-in"), runs("three", Some("three")), "it has the release already");
    assert_eq!(site.runs("out"), runs("two", None), "it still follows its fleet");
    assert!(!site.world.release(3).unwrap().is_final);
}

#[test]
fn the_usual_failure_rate_is_that_of_the_rollout_that_was_completed_last() {
    let mut site = Site::new();
    for rejected in [5, 1] {
        let mut rollout = site.start("three", ALL).unwrap();
        rollout.tally = Tally { accepted: 10 - rejected, rejected, ..Tally::default() };
        rollout.end(Phase::Completed, at(10));
        site.put(&rollout);
    }
    let mut aborted = site.start("three", ALL).unwrap();
    assert_eq!(aborted.base.unwrap().to_string(), "10%");
    aborted.tally = Tally { rejected: 9, ..Tally::default() };
    aborted.end(Phase::Aborted { why: String::new() }, at(10));
    site.put(&aborted);
    assert_eq!(site.start("three", ALL).unwrap().base.unwrap().to_string(), "10%", "that one did not end");
}

#[test]
fn a_rollout_that_could_not_end_does_not_begin() {
    let mut site = Site::new();
    site.release(NewRelease { is_final: false, is_passing_tests: false, ..new_release("red", 4) });
    site.release(NewRelease { is_final: false, status: ReleaseStatus::Failed, ..new_release("broken", 5) });
    for (why, commit, json, rule) in [
        ("it is the target", "two", ALL, "cannot_roll_out"),
        ("a newer one is tracked", "one", ALL, "cannot_roll_out"),
        ("its tests fail", "red", ALL, "cannot_roll_out"),
        ("it was not built", "broken", ALL, "not_successful"),
        (
            "a barrier was not built",
            "three",
            r#"{"waves": ["100%"], "barriers": ["broken"]}"#,
            "not_successful",
        ),
    ] {
        assert_eq!(site.start(commit, json).map_err(|refusal| refusal.rule()), Err(rule), "{why}");
    }
    assert!(site.world.may_be_rolled_out(3) && !site.world.may_be_rolled_out(5));
    let three = Release::clone(site.world.release(3).unwrap());
    let invalid = ReleasePatch { is_invalidated: Some(true), ..ReleasePatch::default() };
    site.done(|world| world.patch_release(&three, invalid));
    assert!(!site.world.may_be_rolled_out(3));
    assert_eq!(site.start("three", ALL).map_err(|refusal| refusal.rule()), Err("cannot_roll_out"));
}

#[test]
fn a_new_target_of_the_fleet_ends_a_rollout() {
    let ended = |commit: &str| {
        let mut site = Site::new();
        site.start("three", ALL).unwrap();
        site.pin_fleet(commit);
        let change = site.world.ended_by_target(&site.open(), at(30));
        change.map(|change| {
            let Change::PutRollout(rollout) = change else { panic!("{change:?}") };
            (rollout.phase.as_str(), rollout.phase.why().unwrap_or_default(), rollout.ended)
        })
    };
    assert_eq!(ended("two"), None, "it had that before");
    assert_eq!(ended("three"), Some(("completed", String::new(), Some(at(30)))));
    let why = "the target of the fleet is one now".to_owned();
    assert_eq!(ended("one"), Some(("aborted", why, Some(at(30)))));
}

#[test]
fn a_device_that_was_moved_meanwhile_is_not_noted() {
    let mut site = Site::new();
    site.join("stays", &[]);
    site.join("moves", &[]);
    let rollout = site.start("three", ALL).unwrap();
    let members = ["stays", "moves"].map(|name| (site.device(name).uuid, Site::member()));
    let (device, other) = (site.device("moves"), site.fleet("other"));
    site.done(|world| Ok(world.move_device(&device, &other)));
    let changes = site.world.changes_for_decision(rollout, members.into(), at(30));
    let of = |change: &Change| {
        let Change::PutMember(uuid, _) = change else { return None };
        Some(uuid.clone())
    };
    let noted: Vec<_> = changes.iter().filter_map(of).collect();
    assert_eq!(noted, [site.device("stays").uuid]);
}

#[test]
fn a_wave_that_waits_for_an_approval_begins_by_its_approval_alone() {
    let mut site = Site::new();
    let mut rollout = site.start("three", r#"{"waves": ["50% approve", "100%"]}"#).unwrap();
    rollout.phase = Phase::Paused { why: Pause::Approval };
    site.put(&rollout);
    let approve = |wave| Steering::Approve { wave, without_webhook: false };
    for steering in [Steering::Resume, approve(0), approve(2)] {
        let refused = site.steer(&steering).err().map(|refusal| refusal.rule());
        assert_eq!(refused, Some("not_now"), "{steering:?}");
    }
    let changes = site.steer(&approve(1));
    site.done(|_| changes);
    assert_eq!((site.open().phase, site.open().approved), (Phase::Running, Some(0)));
}

#[test]
fn devices_are_chosen_by_the_key_that_they_registered_with() {
    let mut site = Site::new();
    site.join("board", &[]);
    let chosen = |key: &str| {
        let choice = Choice { key: Some(KeyHash(key.to_owned())), ..Choice::default() };
        site.world.matching(&choice).len()
    };
    assert_eq!((chosen("lab"), chosen("other")), (1, 0));
}

#[test]
fn a_device_with_too_many_tags_may_change_them_but_get_no_more() {
    let mut site = Site::new();
    site.join("board", &[]);
    let mut device = site.device("board");
    device.tags = (0..MOST_TAGS + 5).map(|n| (format!("k{n}"), "v".to_owned())).collect();
    site.world.apply(Change::PutDevice(device.clone()));
    let set = |key: &str| Tagging {
        set: BTreeMap::from([(key.to_owned(), "new".to_owned())]),
        ..Tagging::default()
    };
    assert_eq!(site.world.tag_device(&device, &set("k1")).map(|changes| changes.len()), Ok(1));
    assert!(site.world.tag_device(&device, &set("more")).is_err());
}

#[test]
fn a_restored_device_has_its_pin_only_while_that_release_can_run() {
    for (status, pin) in [(ReleaseStatus::Success, Some(1)), (ReleaseStatus::Failed, None)] {
        let mut site = Site::new();
        site.join("board", &[]);
        let (device, one) = (site.device("board"), Release::clone(site.world.release(1).unwrap()));
        site.done(|world| world.pin_devices(&[&device], &one));
        let device = site.device("board");
        site.done(|world| world.delete_devices(&[&device], at(30)));
        let patch = ReleasePatch { status: Some(status), ..ReleasePatch::default() };
        site.done(|world| world.patch_release(&one, patch));
        let bar = site.world.bar(&device.uuid).unwrap().clone();
        site.done(|world| world.restore_device(&bar));
        assert_eq!(site.device("board").pin, pin, "{status:?}");
    }
}

#[test]
fn a_device_that_an_import_announced_registers_in_that_fleet_alone() {
    let mut site = Site::new();
    site.join("board", &[]);
    let board = site.device("board");
    let key = KeyHash::of_expected(board.uuid.as_str());
    site.world.apply(Change::PutDevice(Device { key, provisioned_by: None, ..board.clone() }));
    let register = |fleet: &str| {
        let new = NewDevice {
            uuid: board.uuid.clone(),
            name: "another".to_owned(),
            device_type: "generic-amd64".to_owned(),
            key: KeyHash("its own".to_owned()),
            by: KeyHash(fleet.to_owned()),
            created: at(30),
            tags: BTreeMap::new(),
        };
        site.world.register(new).map(|(number, _)| number).map_err(|refusal| refusal.rule())
    };
    assert_eq!((register("other"), register("lab")), (Err("uuid_taken"), Ok(board.number)));
}

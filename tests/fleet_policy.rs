//! The fleet's policy: the acts that were recorded on a real open-balena-api, done again on
//! ours, must leave every device with the release that is in the recording; and properties.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

#[path = "support/recorded.rs"]
mod recorded;

use std::collections::{BTreeMap, BTreeSet};

use cotter::fleet::policy::{
    Change, Choice, Device, Fleet, FleetPatch, KeyHash, NewDevice, NewFleet, NewRelease, NewService, Refusal,
    Release, ReleasePatch, Reported, TagFilter, Tagging, VariableChange, VariableHolder, World,
};
use cotter::model::{AppId, Commit, DeviceUuid, ImageRef, ReleaseStatus, ServiceName};
use jiff::Timestamp;
use proptest::prelude::*;
use recorded::{Act as Recorded, Kind, LIST, Line, files, recorded};

const TRACKED: ReleaseStatus = ReleaseStatus::Success;

/// A world that is spoken to in the words of the recordings' README.
#[derive(Default)]
struct Desk {
    world: World,
    clock: i64,
}

impl Desk {
    fn change(&mut self, changes: Result<Vec<Change>, Refusal>) -> Result<(), Refusal> {
        for change in changes? {
            self.world.apply(change);
        }
        Ok(())
    }

    fn now(&mut self) -> Timestamp {
        self.clock += 60;
        Timestamp::from_second(1_800_000_000 + self.clock).unwrap()
    }

    fn fleet(&self, name: &str) -> Fleet {
        self.world.find_fleet(name).unwrap().clone()
    }

    fn device(&self, name: &str) -> Device {
        self.world.find_device(name).unwrap().clone()
    }

    /// Number of the release that a device reports as running.
    fn running(&self, name: &str) -> Option<u64> {
        self.world.reported(&self.device(name).uuid).running
    }

    fn release(&self, commit: &str) -> Release {
        Release::clone(self.world.find_release(None, commit).unwrap())
    }

    fn add_fleet(&mut self, name: &str) {
        let created = self.now();
        let uuid = AppId::parse(format!("uuid-of-{name}")).unwrap();
        let new = NewFleet {
            uuid,
            name: name.into(),
            created,
            key: KeyHash(format!("key-of-{name}")),
            registry: None,
        };
        self.change(self.world.create_fleet(new)).unwrap();
    }

    fn add_device(&mut self, name: &str, fleet: &str) {
        let uuid = DeviceUuid::parse(format!("{:0>32}", self.clock)).unwrap();
        let created = self.now();
        let (key, by) = (KeyHash(format!("device-key-of-{name}")), KeyHash(format!("key-of-{fleet}")));
        let (name, device_type, tags) = (name.into(), "generic-amd64".into(), BTreeMap::new());
        let new = NewDevice { uuid, name, device_type, key, by, created, tags };
        let registered = self.world.register(new).map(|(_, changes)| changes);
        self.change(registered).unwrap();
    }

    /// A release whose name is its commit; `tweak` says what is special about it.
    fn add_release(&mut self, fleet: &str, name: &str, tweak: impl FnOnce(&mut NewRelease)) {
        let image = ImageRef::parse(&format!("r/{name}@sha256:{}", "a".repeat(64))).unwrap();
        let web = NewService { image, composition: serde_json::Map::new() };
        let mut new = NewRelease {
            commit: Commit::parse(name).unwrap(),
            status: ReleaseStatus::Success,
            is_final: true,
            is_passing_tests: true,
            start_timestamp: self.now(),
            services: BTreeMap::from([(ServiceName::parse("web").unwrap(), web)]),
            networks: BTreeMap::new(),
            volumes: BTreeMap::new(),
            build_log: None,
        };
        tweak(&mut new);
        let created = self.world.create_release(&self.fleet(fleet), new).map(|(_, changes)| changes);
        self.change(created).unwrap();
    }

    /// A release of which there is only the log of its build.
    fn add_failed(&mut self, fleet: &str, name: &str) {
        self.add_release(fleet, name, |new| {
            new.status = ReleaseStatus::Failed;
            new.services.clear();
            new.build_log = Some("COPY failed".into());
        });
    }

    fn patch_release(&mut self, name: &str, patch: ReleasePatch) -> Result<(), Refusal> {
        self.change(self.world.patch_release(&self.release(name), patch))
    }

    fn invalidate(&mut self, name: &str, is_invalidated: bool) {
        let is_invalidated = Some(is_invalidated);
        self.patch_release(name, ReleasePatch { is_invalidated, ..ReleasePatch::default() }).unwrap();
    }

    fn patch_fleet(&mut self, fleet: &str, patch: FleetPatch) {
        self.change(self.world.patch_fleet(&self.fleet(fleet), patch)).unwrap();
    }

    fn pin_fleet(&mut self, fleet: &str, release: &str) -> Result<(), Refusal> {
        self.change(self.world.pin_fleet(&self.fleet(fleet), &self.release(release)))
    }

    fn pin(&mut self, device: &str, release: &str) -> Result<(), Refusal> {
        self.change(self.world.pin_devices(&[&self.device(device)], &self.release(release)))
    }

    fn unpin(&mut self, device: &str) {
        self.change(Ok(self.world.track_fleet(&[&self.device(device)]))).unwrap();
    }

    fn tag(&mut self, device: &str, key: &str, value: &str) {
        let tagging = Tagging { set: BTreeMap::from([(key.into(), value.into())]), remove: vec![] };
        self.change(self.world.tag_device(&self.device(device), &tagging)).unwrap();
    }

    fn pin_by_tag(&mut self, filter: &str, release: Option<&str>) -> Result<(), Refusal> {
        let filter: TagFilter = filter.parse().unwrap();
        let devices = self.world.matching(&Choice { filter: Some(filter), ..Choice::default() });
        let changes = match release {
            Some(release) => self.world.pin_devices(&devices, &self.release(release)),
            None => Ok(self.world.track_fleet(&devices)),
        };
        self.change(changes)
    }

    fn move_device(&mut self, device: &str, fleet: &str) {
        self.change(Ok(self.world.move_device(&self.device(device), &self.fleet(fleet)))).unwrap();
    }

    fn target(&self, device: &str) -> Option<String> {
        let target = self.world.target_of(self.world.find_device(device).unwrap());
        target.map(|release| release.commit.to_string())
    }

    /// Does an act of the recordings.
    fn act(&mut self, act: Recorded) -> Result<(), Refusal> {
        match act {
            Recorded::Fleet(name) => self.add_fleet(name),
            Recorded::Device(name) => self.add_device(name, "fleet1"),
            Recorded::Release(fleet, name, kind) => self.add_release(fleet, name, |release| match kind {
                Kind::Plain => {}
                Kind::Draft => release.is_final = false,
                Kind::Failed => release.status = ReleaseStatus::Failed,
                Kind::Running => release.status = ReleaseStatus::Running,
                Kind::Older => release.start_timestamp = Timestamp::from_second(1_700_000_000).unwrap(),
            }),
            Recorded::Finalize(name) => {
                self.patch_release(name, ReleasePatch { is_final: Some(true), ..ReleasePatch::default() })?;
            }
            Recorded::Invalidate(name, is_so) => self.invalidate(name, is_so),
            Recorded::FailsTests(name) => {
                let patch = ReleasePatch { is_passing_tests: Some(false), ..ReleasePatch::default() };
                self.patch_release(name, patch)?;
            }
            Recorded::Delete(name) => self.change(self.world.delete_release(&self.release(name)))?,
            Recorded::PinFleet(fleet, release) => self.pin_fleet(fleet, release)?,
            Recorded::TrackLatest(fleet) => self.change(self.world.track_latest(&self.fleet(fleet)))?,
            Recorded::TrackFlag(fleet) => {
                let patch = FleetPatch { is_tracking_latest: Some(true), ..FleetPatch::default() };
                self.patch_fleet(fleet, patch);
            }
            Recorded::NoTarget(fleet) => {
                self.patch_fleet(fleet, FleetPatch { target: Some(None), ..FleetPatch::default() });
            }
            Recorded::Pin(device, release) => self.pin(device, release)?,
            Recorded::Unpin(device) => self.unpin(device),
            Recorded::Tag(device, key, value) => self.tag(device, key, value),
            Recorded::PinByTag(filter, release) => self.pin_by_tag(filter, release)?,
            Recorded::Move(device, fleet) => self.move_device(device, fleet),
        }
        Ok(())
    }
}

fn plain(_: &mut NewRelease) {}

/// Every recorded step of policy, in order. `tests/fleet_recorded.rs` does the same at servers.
#[test]
fn every_recorded_step_resolves_to_the_recorded_release() {
    let mut seen = BTreeSet::new();
    let mut desk = Desk::default();
    for line in LIST {
        match *line {
            Line::Do(act) => desk.act(act).unwrap(),
            Line::Refused(act) => {
                assert!(matches!(desk.act(act), Err(Refusal::InUse { .. })), "{act:?}");
            }
            Line::Like(step) => {
                for (file, device, release) in recorded(step) {
                    assert_eq!(desk.target(device), release, "{file}");
                    seen.insert(file);
                }
            }
            Line::Has(device, release) => assert_eq!(desk.target(device).as_deref(), Some(release)),
        }
    }
    assert_eq!(seen, files(), "each recorded state was compared");
    assert_eq!(seen.len(), 88);
}

/// A fleet with three releases, and two devices; a second fleet with one of each.
fn two_fleets() -> Desk {
    let mut desk = Desk::default();
    desk.add_fleet("lab");
    desk.add_fleet("site");
    for device in ["one", "two"] {
        desk.add_device(device, "lab");
    }
    desk.add_device("far", "site");
    for release in ["rel1", "rel2", "rel3"] {
        desk.add_release("lab", release, plain);
    }
    desk.add_release("site", "away", plain);
    desk
}

#[test]
fn what_is_refused_and_with_which_message() {
    let mut d = two_fleets();
    d.add_release("lab", "broken", |release| release.status = ReleaseStatus::Failed);
    d.add_release("lab", "building", |release| release.status = ReleaseStatus::Running);
    d.pin("one", "rel1").unwrap();
    let one = d.device("one").uuid;
    let outcome = |result: Result<(), Refusal>| result.unwrap_err().to_string();
    let status = |status| ReleasePatch { status: Some(status), ..ReleasePatch::default() };
    let draft = ReleasePatch { is_final: Some(false), ..ReleasePatch::default() };
    let said = [
        outcome(d.pin("two", "broken")),
        outcome(d.pin_fleet("lab", "building")),
        outcome(d.pin("two", "away")),
        outcome(d.pin_fleet("lab", "away")),
        outcome(d.patch_release("rel2", draft)),
        outcome(d.change(d.world.delete_release(&d.release("rel1")))),
        outcome(d.change(d.world.delete_release(&d.release("rel3")))),
        outcome(d.patch_release("rel3", status(ReleaseStatus::Failed))),
    ];
    let expected = [
        "release broken is failed, and only a successful release can be a target; wait for its build, or pick another".to_owned(),
        "release building is running, and only a successful release can be a target; wait for its build, or pick another".to_owned(),
        "release away belongs to fleet site, not to lab, and a device runs only releases of its own fleet; pick a release of lab, or move the device first".to_owned(),
        "release away belongs to fleet site, not to lab, and a device runs only releases of its own fleet; pick a release of lab, or move the device first".to_owned(),
        "release rel2 is final, and a final release cannot become a draft again; create a new draft".to_owned(),
        format!("release rel1 is pinned by device {one}, so it cannot be deleted; pin or track another release there first"),
        "release rel3 is the target of its fleet, so it cannot be deleted; pin or track another release there first".to_owned(),
        "release rel3 is the target of its fleet, so it cannot be marked other than successful; pin or track another release there first".to_owned(),
    ];
    assert_eq!(said, expected);
}

#[test]
fn names_find_one_thing_or_say_why_not() {
    let mut d = two_fleets();
    d.add_release("site", "rel1", plain);
    let release = |fleet: Option<&str>, text: &str| {
        let found = d.world.find_release(fleet.map(|fleet| d.fleet(fleet).number), text);
        found.map(|release| release.number).map_err(|refusal| refusal.to_string())
    };
    assert_eq!(release(Some("lab"), "rel1"), Ok(1), "exact, in its fleet");
    assert_eq!(release(Some("lab"), "rel"), Err("there is no release \"rel\"; give its commit or the first 4 or more characters of it (`cotter release list`)".into()));
    assert_eq!(release(None, "away"), Ok(4));
    assert!(
        release(None, "rel1")
            .unwrap_err()
            .contains("matches more than one release: rel1 of lab, rel1 of site")
    );
    assert!(release(Some("lab"), "away").unwrap_err().contains("belongs to fleet site"));
    assert!(release(None, "rel9").unwrap_err().contains("there is no release"));
    let device =
        |text: &str| d.world.find_device(text).map(|device| device.name.clone()).map_err(|e| e.to_string());
    assert_eq!(device("one").unwrap(), "one");
    assert!(device("000").unwrap_err().contains("no device"), "too short a prefix");
    assert!(device("0000").unwrap_err().contains("matches more than one device"));
}

/// With no trackable release left the target stays, as the real API does it.
#[test]
fn losing_the_last_trackable_release_stops_no_device() {
    let mut d = Desk::default();
    d.add_fleet("lab");
    d.add_device("one", "lab");
    d.add_release("lab", "only", plain);
    d.invalidate("only", true);
    assert_eq!(d.target("one").as_deref(), Some("only"));
    d.change(d.world.track_latest(&d.fleet("lab"))).unwrap();
    assert_eq!(d.target("one").as_deref(), Some("only"));
}

#[test]
fn a_bulk_pin_with_one_device_that_may_not_pins_none() {
    let mut d = two_fleets();
    for device in ["one", "two", "far"] {
        d.tag(device, "ring", "canary");
    }
    assert!(matches!(d.pin_by_tag("ring=canary", Some("rel1")), Err(Refusal::OtherFleet { .. })));
    assert_eq!(["one", "two", "far"].map(|device| d.device(device).pin), [None, None, None]);
}

#[test]
fn tag_filters() {
    let tags = |text: &str| -> BTreeMap<String, String> {
        text.split_whitespace()
            .map(|pair| pair.split_once('=').unwrap())
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect()
    };
    for (filter, device, matches) in [
        ("ring=canary", "ring=canary", true),
        ("ring=canary", "ring=prod", false),
        ("ring=canary", "", false),
        ("ring!=canary", "ring=canary", false),
        ("ring!=canary", "ring=prod", true),
        ("ring!=canary", "", true),
        ("ring", "ring=prod", true),
        ("ring", "site=hq", false),
        ("!ring", "ring=prod", false),
        ("!ring", "", true),
        ("ring=", "ring=", true),
        ("ring=", "ring=x", false),
        ("ring=canary,site!=hq", "ring=canary site=hq", false),
        ("ring=canary,site!=hq", "ring=canary", true),
        (" ring = canary , !site ", "ring=canary", true),
        ("ring=canary,ring=prod", "ring=canary", false),
    ] {
        let parsed: TagFilter = filter.parse().unwrap();
        assert_eq!(parsed.matches(&tags(device)), matches, "{filter} on {device:?}");
        assert_eq!(parsed.to_string().parse::<TagFilter>().unwrap(), parsed, "{filter} as text");
    }
    for bad in
        ["", ",", "ring=canary,", "=x", "!=x", "!", "a b=c", "a=b=c", "a=!b", "!a=b", "a==b", "r\u{1}=x"]
    {
        let output = bad.parse::<TagFilter>().unwrap_err().to_string();
        assert!(output.contains("conditions are key=value, key!=value, key and !key"), "{bad:?}: {output}");
    }
}

/// Its devices are barred, its keys and releases are gone, and a device that was moved away forgets what it runs.
#[test]
fn a_deleted_fleet_leaves_nothing_behind_and_touches_no_other_fleet() {
    let mut d = two_fleets();
    let (fleet, release) = (d.fleet("lab"), d.release("rel1"));
    let reported = Reported { running: Some(release.number), ..Reported::default() };
    d.change(Ok(d.world.report(&d.device("one"), reported))).unwrap();
    d.move_device("one", "site");
    let others = |d: &Desk| d.world.releases_of(d.fleet("site").number).count();
    let (of_others, now) = (others(&d), d.now());
    let has_devices = d.world.devices().any(|device| device.fleet == fleet.number);
    let refused = d.world.delete_fleet(&fleet, false, now).unwrap_err();
    assert!(has_devices && matches!(refused, Refusal::FleetHasDevices { .. }), "{refused}");
    d.change(d.world.delete_fleet(&fleet, true, now)).unwrap();
    assert!(d.world.find_fleet("lab").is_err() && d.world.fleet_with_uuid(fleet.uuid.as_str()).is_none());
    assert_eq!(d.world.releases_of(fleet.number).count(), 0);
    assert!(d.world.provisioning_key(&KeyHash("key-of-lab".to_owned())).is_none());
    assert!(d.world.devices().all(|device| device.fleet != fleet.number));
    assert!(d.world.bars_after(None).count() > 0);
    assert_eq!((d.running("one"), others(&d)), (None, of_others));
    assert_sound(&d);
}

#[test]
fn a_release_may_be_deleted_while_it_runs_and_is_then_unknown() {
    let mut d = two_fleets();
    let reported = Reported { running: Some(d.release("rel1").number), ..Reported::default() };
    d.change(Ok(d.world.report(&d.device("one"), reported))).unwrap();
    d.change(d.world.delete_release(&d.release("rel1"))).unwrap();
    assert_eq!(d.running("one"), None);
}

/// An act at random, on a desk with two fleets, four devices and at most ten releases.
#[derive(Debug, Clone)]
enum Act {
    Release { fleet: usize, status: u8, is_final: bool, passes: bool, started: i64 },
    Finalize(usize),
    Invalidate(usize, bool),
    Tests(usize, bool),
    Delete(usize),
    PinFleet(usize, usize),
    TrackLatest(usize),
    Pin(usize, usize),
    Unpin(usize),
    Move(usize, usize),
    Tag(usize, bool),
    PinCanaries(usize),
    UnpinCanaries,
}

fn act() -> impl Strategy<Value = Act> {
    let release = || 0..10_usize;
    prop_oneof![
        4 => (0..2_usize, 0..6_u8, any::<bool>(), any::<bool>(), 0..100_i64).prop_map(
            |(fleet, status, is_final, passes, started)| Act::Release { fleet, status, is_final, passes, started }
        ),
        1 => release().prop_map(Act::Finalize),
        2 => (release(), any::<bool>()).prop_map(|(r, is)| Act::Invalidate(r, is)),
        1 => (release(), any::<bool>()).prop_map(|(r, is)| Act::Tests(r, is)),
        1 => release().prop_map(Act::Delete),
        1 => (0..2_usize, release()).prop_map(|(f, r)| Act::PinFleet(f, r)),
        1 => (0..2_usize).prop_map(Act::TrackLatest),
        2 => (0..4_usize, release()).prop_map(|(d, r)| Act::Pin(d, r)),
        1 => (0..4_usize).prop_map(Act::Unpin),
        1 => (0..4_usize, 0..2_usize).prop_map(|(d, f)| Act::Move(d, f)),
        1 => (0..4_usize, any::<bool>()).prop_map(|(d, is)| Act::Tag(d, is)),
        1 => release().prop_map(Act::PinCanaries),
        1 => Just(Act::UnpinCanaries),
    ]
}

const FLEETS: [&str; 2] = ["lab", "site"];
const DEVICES: [&str; 4] = ["one", "two", "three", "four"];

fn perform(d: &mut Desk, act: &Act) -> Result<(), Refusal> {
    let named =
        |d: &Desk, n: usize| d.world.find_release(None, &format!("rel{n}")).map(|r| Release::clone(r));
    match *act {
        Act::Release { fleet, status, is_final, passes, started } => {
            let n = d.world.releases().map(|release| release.number).max().unwrap_or(0);
            if n < 10 && d.world.find_release(None, &format!("rel{n}")).is_err() {
                d.add_release(FLEETS[fleet], &format!("rel{n}"), |release| {
                    release.status = match status {
                        0 => ReleaseStatus::Failed,
                        1 => ReleaseStatus::Running,
                        _ => TRACKED,
                    };
                    release.is_final = is_final;
                    release.is_passing_tests = passes;
                    release.start_timestamp = Timestamp::from_second(started).unwrap();
                });
            }
            Ok(())
        }
        Act::Finalize(n) => {
            let release = named(d, n)?;
            let patch = ReleasePatch { is_final: Some(true), ..ReleasePatch::default() };
            d.change(d.world.patch_release(&release, patch))
        }
        Act::Invalidate(n, is) => {
            let release = named(d, n)?;
            let patch = ReleasePatch { is_invalidated: Some(is), ..ReleasePatch::default() };
            d.change(d.world.patch_release(&release, patch))
        }
        Act::Tests(n, is) => {
            let release = named(d, n)?;
            let patch = ReleasePatch { is_passing_tests: Some(is), ..ReleasePatch::default() };
            d.change(d.world.patch_release(&release, patch))
        }
        Act::Delete(n) => {
            let release = named(d, n)?;
            d.change(d.world.delete_release(&release))
        }
        Act::PinFleet(fleet, n) => {
            let release = named(d, n)?;
            d.change(d.world.pin_fleet(&d.fleet(FLEETS[fleet]), &release))
        }
        Act::TrackLatest(fleet) => d.change(d.world.track_latest(&d.fleet(FLEETS[fleet]))),
        Act::Pin(device, n) => {
            let release = named(d, n)?;
            d.change(d.world.pin_devices(&[&d.device(DEVICES[device])], &release))
        }
        Act::Unpin(device) => {
            d.unpin(DEVICES[device]);
            Ok(())
        }
        Act::Move(device, fleet) => {
            d.move_device(DEVICES[device], FLEETS[fleet]);
            Ok(())
        }
        Act::Tag(device, is_canary) => {
            d.tag(DEVICES[device], "ring", if is_canary { "canary" } else { "prod" });
            Ok(())
        }
        Act::PinCanaries(n) => {
            let release = named(d, n)?;
            d.pin_by_tag("ring=canary", Some(release.commit.as_str()))
        }
        Act::UnpinCanaries => d.pin_by_tag("ring=canary", None),
    }
}

/// What must be true of the world at any time.
fn assert_sound(d: &Desk) {
    // What is found by an index is what a look at all records finds.
    for device in d.world.devices() {
        assert_eq!(d.world.find_device(&device.name).unwrap().uuid, device.uuid);
        assert_eq!(d.world.device_with_key(&device.key).unwrap().uuid, device.uuid);
    }
    for fleet in d.world.fleets() {
        assert_eq!(d.world.find_fleet(&fleet.name).unwrap().number, fleet.number);
        assert_eq!(d.world.fleet_with_uuid(fleet.uuid.as_str()).unwrap().number, fleet.number);
        let all = d.world.releases().filter(|release| release.fleet == fleet.number);
        let all: Vec<_> = all.map(|release| release.number).collect();
        let indexed = d.world.releases_of(fleet.number).map(|release| release.number).collect::<Vec<_>>();
        assert_eq!(indexed, all);
        for release in d.world.releases_of(fleet.number) {
            assert_eq!(d.world.release_of(fleet.number, &release.commit).unwrap().number, release.number);
        }
    }
    for device in d.world.devices() {
        let target = d.world.target_of(device);
        if let Some(pin) = device.pin {
            assert_eq!(target.map(|release| release.number), Some(pin), "a pin wins, and its release exists");
        } else {
            let fleet = d.world.fleet(device.fleet).unwrap();
            assert_eq!(target.map(|release| release.number), fleet.target, "without a pin, the fleet's");
        }
        if let Some(target) = target {
            assert_eq!(target.status, ReleaseStatus::Success, "only successful releases are targets");
            assert_eq!(target.fleet, device.fleet, "only releases of its own fleet");
        }
    }
    for fleet in d.world.fleets().filter(|fleet| fleet.is_tracking_latest) {
        let trackable = |release: &&std::sync::Arc<Release>| {
            release.status == ReleaseStatus::Success
                && release.is_final
                && release.is_passing_tests
                && !release.is_invalidated
        };
        let newest = d.world.releases_of(fleet.number).filter(trackable).map(|r| r.start_timestamp).max();
        let target = fleet.target.and_then(|number| d.world.release(number));
        match (newest, target) {
            (Some(newest), Some(target)) => {
                assert!(trackable(&target), "{} is tracked, and must not be", target.commit);
                assert_eq!(target.start_timestamp, newest, "the newest by start");
            }
            (Some(_), None) => panic!("there is a trackable release, and the fleet has none"),
            (None, _) => {}
        }
    }
}

/// What a failed build left gets to no device, and gives way to the release that is built next.
#[test]
fn the_record_of_a_failed_build_never_becomes_a_release() {
    let mut desk = Desk::default();
    desk.add_fleet("lab");
    desk.add_release("lab", "good", |_| {});
    desk.add_device("a", "lab");
    desk.add_failed("lab", "bad");
    assert_eq!(desk.target("a").as_deref(), Some("good"));
    let commit = Commit::parse("bad").unwrap();
    for status in [ReleaseStatus::Success, ReleaseStatus::Running] {
        let patch = ReleasePatch { status: Some(status), ..ReleasePatch::default() };
        assert_eq!(desk.patch_release("bad", patch), Err(Refusal::NoImages { commit: commit.clone() }));
    }
    let failed = ReleaseStatus::Failed;
    assert_eq!(desk.pin("a", "bad"), Err(Refusal::NotSuccessful { commit: commit.clone(), status: failed }));
    assert!(desk.pin_fleet("lab", "bad").is_err());
    // Whoever says that nothing failed must say what runs.
    let fleet = desk.fleet("lab");
    let empty = NewRelease {
        commit: Commit::parse("empty").unwrap(),
        status: ReleaseStatus::Success,
        is_final: true,
        is_passing_tests: true,
        start_timestamp: desk.now(),
        services: BTreeMap::new(),
        networks: BTreeMap::new(),
        volumes: BTreeMap::new(),
        build_log: None,
    };
    assert!(matches!(desk.world.create_release(&fleet, empty), Err(Refusal::NoImages { .. })));
    // The same commit fails again, and then it is built.
    let first = desk.release("bad").number;
    desk.add_failed("lab", "bad");
    assert!(desk.release("bad").number > first);
    desk.add_release("lab", "bad", |_| {});
    assert_eq!(desk.world.releases().count(), 2);
    assert_eq!(desk.target("a").as_deref(), Some("bad"));
    assert_eq!(desk.release("bad").build_log, None);
    // From now on the commit is taken.
    let fleet = desk.fleet("lab");
    let again = Release::clone(&desk.release("bad"));
    let failed = NewRelease {
        commit: again.commit,
        status: ReleaseStatus::Failed,
        is_final: true,
        is_passing_tests: true,
        start_timestamp: again.start_timestamp,
        services: BTreeMap::new(),
        networks: BTreeMap::new(),
        volumes: BTreeMap::new(),
        build_log: None,
    };
    assert!(matches!(desk.world.create_release(&fleet, failed), Err(Refusal::CommitTaken { .. })));
}

#[test]
fn a_fleet_has_the_registry_that_was_set_last() {
    let mut desk = Desk::default();
    desk.add_fleet("lab");
    assert_eq!(desk.fleet("lab").registry, None);
    for (registry, wanted) in
        [("r.example/lab", Some("r.example/lab")), ("localhost:5000", Some("localhost:5000")), ("", None)]
    {
        desk.change(desk.world.set_registry(&desk.fleet("lab"), registry)).unwrap();
        assert_eq!(desk.fleet("lab").registry.as_deref(), wanted);
    }
    for bad in ["lab", "https://r.example", "r.example/", "r.example/A"] {
        assert!(
            matches!(desk.world.set_registry(&desk.fleet("lab"), bad), Err(Refusal::BadText { .. })),
            "{bad}"
        );
    }
}

impl Desk {
    fn vary_fleet(&mut self, fleet: &str, change: &VariableChange) -> Result<(), Refusal> {
        self.change(self.world.change_fleet_variables(&self.fleet(fleet), change))
    }

    fn vary_device(&mut self, device: &str, change: &VariableChange) -> Result<(), Refusal> {
        self.change(self.world.change_device_variables(&self.device(device), change))
    }

    /// The environment of a service of a device, "A=1 B=2".
    fn environment(&self, device: &str, service: &str) -> String {
        let service = ServiceName::parse(service).unwrap();
        let all = self.world.variables_for(&self.device(device)).environment(&service);
        all.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
    }
}

/// Variables to set, of a service or of all ("").
fn variables(service: &str, set: &[(&str, &str)]) -> VariableChange {
    VariableChange {
        service: (!service.is_empty()).then(|| ServiceName::parse(service).unwrap()),
        set: set.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        ..VariableChange::default()
    }
}

fn without(service: &str, name: &str) -> VariableChange {
    VariableChange { remove: BTreeSet::from([name.to_owned()]), ..variables(service, &[]) }
}

#[test]
fn of_four_levels_the_nearest_one_wins() {
    let mut d = two_fleets();
    d.vary_fleet("lab", &variables("", &[("A", "fleet"), ("B", "fleet"), ("C", "fleet"), ("D", "fleet")]))
        .unwrap();
    d.vary_fleet("lab", &variables("web", &[("B", "fleet-web"), ("C", "fleet-web"), ("D", "fleet-web")]))
        .unwrap();
    d.vary_device("one", &variables("", &[("C", "one"), ("D", "one")])).unwrap();
    d.vary_device("one", &variables("web", &[("D", "one-web")])).unwrap();
    assert_eq!(d.environment("one", "web"), "A=fleet B=fleet-web C=one D=one-web");
    assert_eq!(d.environment("one", "db"), "A=fleet B=fleet C=one D=one");
    assert_eq!(d.environment("two", "web"), "A=fleet B=fleet-web C=fleet-web D=fleet-web");
    assert_eq!(d.environment("far", "web"), "", "another fleet");
    d.vary_device("one", &without("web", "D")).unwrap();
    assert_eq!(d.environment("one", "web"), "A=fleet B=fleet-web C=one D=one");
}

#[test]
fn which_variables_are_refused_and_with_which_message() {
    let mut d = two_fleets();
    d.vary_fleet("lab", &variables("", &[("KEPT", "1")])).unwrap();
    let long = "x".repeat(256);
    let mut refused = |change: &VariableChange| {
        let why = d.vary_fleet("lab", change).unwrap_err().to_string();
        assert_eq!(d.environment("one", "web"), "KEPT=1", "nothing was changed");
        why
    };
    for name in ["", "1A", "A-B", "A B", "A.B", "\u{e4}", "A\n", &long] {
        let why = refused(&variables("", &[("GOOD", "1"), (name, "")]));
        assert!(
            why.contains("a name of a variable is not accepted: it has 1 to 255 of the letters"),
            "{why}"
        );
    }
    for name in ["BALENA", "RESIN", "USER", "BALENA_X", "RESIN_DEVICE_UUID", "BALENA_"] {
        let why = refused(&variables("web", &[(name, "")]));
        assert!(why.contains("are reserved: the agent sets them; choose another"), "{why}");
    }
    let huge = "x".repeat(32 * 1024 + 1);
    for (value, part) in [
        ("hunter2\nx", "a line break"),
        ("hunter2\rx", "a line break"),
        ("hunter2\0", "the character NUL"),
        (&huge, "more than 32,768 bytes"),
    ] {
        let why = refused(&variables("", &[("A", value)]));
        assert!(why.starts_with("the variable A is not accepted: its value ") && why.contains(part), "{why}");
        assert!(!why.contains("hunter2"), "a message has no value: {why}");
    }
    assert_eq!(
        refused(&variables("wbe", &[("A", "1")])),
        "no release of fleet lab ever had a service \"wbe\"; it has web"
    );
    assert!(refused(&without("", "KEPTT")).starts_with("there is no variable \"KEPTT\" at this level"));
    assert!(refused(&without("web", "KEPT")).starts_with("there is no variable \"KEPT\" at this level"));
    let names: Vec<String> = (0..200).map(|n| format!("N{n}")).collect();
    let many: Vec<_> = names.iter().map(|name| (name.as_str(), "")).collect();
    assert!(refused(&variables("", &many)).starts_with("201 cannot be the number of variables"));
    let half = "x".repeat(32 * 1024);
    let large = variables("", &[("A", &half), ("B", &half)]);
    assert!(refused(&large).contains("would have more than 65536 bytes"));
    // As many as there may be, of all levels of a fleet together; a device has as many of its own.
    d.vary_fleet("lab", &variables("", &many[..100])).unwrap();
    d.vary_fleet("lab", &variables("web", &many[..99])).unwrap();
    assert!(d.vary_fleet("lab", &variables("web", &many[..100])).is_err());
    d.vary_device("one", &variables("", &many)).unwrap();
    for name in ["a", "_", "BALENAX", "USERS", "Resin_x", &long[..255]] {
        d.vary_device("two", &variables("", &[(name, "any = value # of \"text\"\t\u{1f4a1}")])).unwrap();
    }
}

#[test]
fn a_secret_stays_secret_until_it_is_removed() {
    let mut d = two_fleets();
    let secret = VariableChange { is_secret: true, ..variables("", &[("KEY", "hunter2")]) };
    let is_secret =
        |d: &Desk| d.world.variables(&VariableHolder::Device(d.device("one").uuid)).all["KEY"].is_secret;
    d.vary_device("one", &secret).unwrap();
    d.vary_device("one", &variables("", &[("KEY", "hunter3")])).unwrap();
    assert!(is_secret(&d) && d.environment("one", "web") == "KEY=hunter3");
    assert!(!format!("{:?}", d.world).contains("hunter3"), "nor does a debug log show it");
    d.vary_device("one", &without("", "KEY")).unwrap();
    d.vary_device("one", &variables("", &[("KEY", "plain")])).unwrap();
    assert!(!is_secret(&d));
}

#[test]
fn variables_go_with_their_device_and_fleet() {
    let mut d = two_fleets();
    d.vary_fleet("site", &variables("", &[("A", "site")])).unwrap();
    d.vary_fleet("lab", &variables("", &[("A", "lab")])).unwrap();
    d.vary_device("one", &variables("", &[("B", "one")])).unwrap();
    d.vary_device("one", &variables("web", &[("C", "one-web")])).unwrap();
    // As on openBalena: the services of the old fleet are others, also where they have the same name.
    d.move_device("one", "site");
    assert_eq!(d.environment("one", "web"), "A=site B=one");
    let (one, now) = (d.device("one"), d.now());
    d.change(d.world.delete_devices(&[&one], now)).unwrap();
    let bar = d.world.bar(&one.uuid).unwrap().clone();
    d.change(d.world.restore_device(&bar)).unwrap();
    assert_eq!(d.environment("one", "web"), "A=site", "a deleted device has no variables any more");
    let (lab, now) = (d.fleet("lab"), d.now());
    d.change(d.world.delete_fleet(&lab, true, now)).unwrap();
    let holders: Vec<_> = d.world.variable_holders(None).map(|(holder, _)| holder.clone()).collect();
    assert_eq!(holders, [VariableHolder::Fleet(d.fleet("site").number)]);
}

/// An act on variables at random.
#[derive(Debug, Clone)]
enum Vary {
    Set { of: usize, service: usize, name: usize, value: u8 },
    Remove { of: usize, service: usize, name: usize },
    Move(usize, usize),
}

fn vary() -> impl Strategy<Value = Vary> {
    let place = || (0..6_usize, 0..3_usize, 0..3_usize);
    prop_oneof![
        5 => (place(), any::<u8>()).prop_map(|((of, service, name), value)| Vary::Set { of, service, name, value }),
        2 => place().prop_map(|(of, service, name)| Vary::Remove { of, service, name }),
        1 => (0..4_usize, 0..2_usize).prop_map(|(device, fleet)| Vary::Move(device, fleet)),
    ]
}

const SERVICES: [&str; 3] = ["", "db", "web"];
const NAMES: [&str; 3] = ["A", "B", "C"];

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// Every environment is the one that a plain look at all that was set gives, and equal variables have equal digests.
    #[test]
    fn environments_follow_from_what_was_set(acts in prop::collection::vec(vary(), 1..60)) {
        let mut d = Desk::default();
        for fleet in FLEETS {
            d.add_fleet(fleet);
            d.add_release(fleet, &format!("of-{fleet}"), |release| {
                let web = release.services.first_key_value().unwrap().1.clone();
                release.services.insert(ServiceName::parse("db").unwrap(), web);
            });
        }
        for (n, device) in DEVICES.iter().enumerate() {
            d.add_device(device, FLEETS[n % 2]);
        }
        let mut set: BTreeMap<[String; 3], String> = BTreeMap::new();
        let key = |of: &str, service: &str, name: &str| [of, service, name].map(str::to_owned);
        let holders = [&FLEETS[..], &DEVICES[..]].concat();
        for act in &acts {
            let (of, change) = match *act {
                Vary::Move(device, fleet) => {
                    let (device, fleet) = (DEVICES[device], FLEETS[fleet]);
                    if d.device(device).fleet != d.fleet(fleet).number {
                        set.retain(|[of, service, _], _| *of != device || service.is_empty());
                    }
                    d.move_device(device, fleet);
                    continue;
                }
                Vary::Set { of, service, name, value } => {
                    let value = value.to_string();
                    let change = variables(SERVICES[service], &[(NAMES[name], &value)]);
                    set.insert(key(holders[of], SERVICES[service], NAMES[name]), value);
                    (holders[of], change)
                }
                Vary::Remove { of, service, name } => {
                    set.remove(&key(holders[of], SERVICES[service], NAMES[name]));
                    (holders[of], without(SERVICES[service], NAMES[name]))
                }
            };
            let _refused = if FLEETS.contains(&of) { d.vary_fleet(of, &change) } else { d.vary_device(of, &change) };
        }
        for device in DEVICES {
            let fleet = d.world.fleet(d.device(device).fleet).unwrap().name.clone();
            for service in ["db", "web"] {
                let value = |name: &str| {
                    let levels = [(device, service), (device, ""), (fleet.as_str(), service), (fleet.as_str(), "")];
                    levels.iter().find_map(|(of, service)| set.get(&key(of, service, name)))
                };
                let wanted = NAMES.iter().filter_map(|name| Some(format!("{name}={}", value(name)?)));
                prop_assert_eq!(d.environment(device, service), wanted.collect::<Vec<_>>().join(" "));
            }
        }
        for (one, other) in DEVICES.iter().zip(&DEVICES[1..]) {
            let levels = |device: &str| d.world.variables_for(&d.device(device)).of_device();
            let own = |device: &str| d.world.variables(&VariableHolder::Device(d.device(device).uuid)).clone();
            prop_assert_eq!(levels(one) == levels(other), own(one) == own(other));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is done in whatever order, the world stays sound, a refused act changes
    /// nothing, and only the act that may moves a device.
    #[test]
    fn the_world_stays_sound(acts in prop::collection::vec(act(), 1..60)) {
        let mut d = Desk::default();
        for fleet in FLEETS {
            d.add_fleet(fleet);
        }
        for (n, device) in DEVICES.iter().enumerate() {
            d.add_device(device, FLEETS[n % 2]);
        }
        for act in &acts {
            let before: Vec<Device> = d.world.devices().cloned().collect();
            let targets: Vec<Option<String>> = DEVICES.iter().map(|device| d.target(device)).collect();
            let fleets: Vec<Fleet> = d.world.fleets().cloned().collect();
            let result = perform(&mut d, act);
            assert_sound(&d);
            let after: Vec<Device> = d.world.devices().cloned().collect();
            for (old, new) in fleets.iter().zip(d.world.fleets()) {
                if !old.is_tracking_latest && !matches!(act, Act::PinFleet(..) | Act::TrackLatest(_)) {
                    prop_assert_eq!(old, &Fleet { services: old.services.clone(), ..new.clone() }, "a pinned fleet stays");
                }
            }
            if result.is_err() {
                prop_assert_eq!(&before, &after, "a refused act changes no device");
                prop_assert_eq!(&fleets, &d.world.fleets().cloned().collect::<Vec<_>>(), "and no fleet");
            }
            for ((old, new), target) in before.iter().zip(&after).zip(&targets) {
                match act {
                    Act::Move(..) if old.fleet != new.fleet => prop_assert_eq!(new.pin, None, "a move clears the pin"),
                    Act::Pin(..) | Act::Unpin(..) | Act::PinCanaries(..) | Act::UnpinCanaries => {}
                    Act::Release { .. }
                    | Act::Finalize(_)
                    | Act::Invalidate(..)
                    | Act::Tests(..)
                    | Act::Delete(_)
                    | Act::PinFleet(..)
                    | Act::TrackLatest(_)
                    | Act::Move(..)
                    | Act::Tag(..) => prop_assert_eq!(old.pin, new.pin, "only pin, unpin and move touch a pin"),
                }
                if old.pin.is_some() && old.pin == new.pin {
                    prop_assert_eq!(&d.target(&new.name), target, "a pin outlives what happens to the fleet");
                }
            }
            if let Act::PinCanaries(_) = act {
                let canaries = after.iter().filter(|device| device.tags.get("ring").is_some_and(|r| r == "canary"));
                let pins: BTreeSet<Option<u64>> = canaries.map(|device| device.pin).collect();
                prop_assert!(result.is_err() || pins.len() <= 1, "all or none");
            }
        }
        // Without pins, all follow their fleets again.
        for device in DEVICES {
            d.unpin(device);
            let fleet = d.world.fleet(d.device(device).fleet).unwrap().target;
            prop_assert_eq!(d.world.target_of(&d.device(device)).map(|r| r.number), fleet);
        }
    }
}

/// Each of them is compared with each tag of each device.
#[test]
fn no_more_tags_are_removed_than_a_device_may_have() {
    let mut d = two_fleets();
    d.tag("one", "ring", "canary");
    let removing = |count: usize| Tagging {
        set: BTreeMap::new(),
        remove: (1..count).map(|n| format!("k{n}")).chain(["ring".to_owned()]).collect(),
    };
    let refused = d.world.tag_device(&d.device("one"), &removing(101)).unwrap_err();
    assert_eq!(refused.rule(), "out_of_range");
    d.change(d.world.tag_device(&d.device("one"), &removing(100))).unwrap();
    assert!(d.device("one").tags.is_empty());
}

//! Rollouts step by step, and properties of all of them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use proptest::prelude::*;

use super::simulation::{self, End, Model, ModelSegment};
use super::tally::Verdict;
use super::*;

mod confirm;
mod edges;

/// A fleet of the test: its devices, their records, and the time.
struct Story {
    rollout: Rollout,
    devices: BTreeMap<String, TestDevice>,
    now: Timestamp,
    listening_since: Timestamp,
    is_in_window: bool,
    is_release_valid: bool,
}

struct TestDevice {
    tags: BTreeMap<String, String>,
    is_pinned: bool,
    member: Option<ExposedDevice>,
    stands: Stands,
    why: String,
    is_reachable: bool,
    last_contact: Option<Timestamp>,
    barriers_passed: usize,
}

fn definition(json: &str) -> Definition {
    let definition: Definition = serde_json::from_str(json).unwrap();
    definition.check().unwrap();
    definition
}

fn tags(text: &str) -> BTreeMap<String, String> {
    let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

fn uuid(number: u32) -> String {
    format!("{number:032x}")
}

fn subjects(devices: &BTreeMap<String, TestDevice>) -> impl Iterator<Item = Subject<'_>> {
    devices.iter().map(|(uuid, device)| Subject {
        uuid,
        tags: &device.tags,
        is_pinned: device.is_pinned,
        member: device.member.as_ref(),
        stands: device.stands,
        why: &device.why,
        last_contact: device.last_contact,
        is_reachable: device.is_reachable,
        barriers_passed: device.barriers_passed,
    })
}

impl Story {
    fn new(json: &str, devices: u32) -> Self {
        let now: Timestamp = "2026-01-05T12:00:00Z".parse().unwrap();
        let mut story = Self {
            rollout: Rollout::new(1, 1, 1, definition(json), now),
            devices: BTreeMap::new(),
            now,
            listening_since: now,
            is_in_window: true,
            is_release_valid: true,
        };
        (0..devices).for_each(|number| story.join(number, ""));
        story
    }

    fn join(&mut self, number: u32, with: &str) {
        let device = TestDevice {
            tags: tags(with),
            is_pinned: false,
            member: None,
            stands: Stands::Updating,
            why: String::new(),
            is_reachable: true,
            last_contact: Some(self.now),
            barriers_passed: 0,
        };
        self.devices.insert(uuid(number), device);
    }

    fn device(&mut self, number: u32) -> &mut TestDevice {
        self.devices.get_mut(&uuid(number)).unwrap()
    }

    /// One decision; it is stored.
    fn decide(&mut self) -> Tally {
        let conditions = Conditions {
            now: self.now,
            listening_since: self.listening_since,
            is_in_window: self.is_in_window,
            is_release_valid: self.is_release_valid,
        };
        let decision = decide(&self.rollout, subjects(&self.devices), conditions);
        let tally = decision.survey.all;
        let changed: Vec<_> =
            decision.members.into_iter().map(|(uuid, member)| (uuid.to_owned(), member)).collect();
        // What is stored is what is read again.
        let stored = serde_json::to_string(&decision.rollout).unwrap();
        self.rollout = serde_json::from_str(&stored).unwrap();
        assert_eq!(self.rollout, decision.rollout);
        for (uuid, member) in changed {
            self.devices.get_mut(&uuid).unwrap().member = Some(member);
        }
        tally
    }

    fn wait(&mut self, minutes: u64) {
        self.now = self.now.checked_add(Duration::from_secs(60 * minutes)).unwrap();
        for device in self.devices.values_mut().filter(|device| device.is_reachable) {
            device.last_contact = Some(self.now);
        }
    }

    /// Lets all exposed devices that are reachable end so.
    fn all_exposed(&mut self, stands: Stands) {
        for device in self.devices.values_mut() {
            if device.member.is_some() && device.is_reachable {
                device.stands = stands;
            }
        }
    }

    fn exposed(&self) -> BTreeSet<String> {
        let exposed = self.devices.iter().filter(|(_, device)| device.member.is_some());
        exposed.map(|(uuid, _)| uuid.clone()).collect()
    }

    fn pause(&self) -> String {
        let Phase::Paused { why } = &self.rollout.phase else { panic!("it is {:?}", self.rollout.phase) };
        why.to_string()
    }

    fn halt(&self) -> String {
        let Phase::Halted { why, .. } = &self.rollout.phase else { panic!("it is {:?}", self.rollout.phase) };
        why.to_string()
    }
}

const THREE_WAVES: &str = r#"{"waves": ["ring=canary", "50%", "100%"], "soak": "10m", "observe": "20m"}"#;

#[test]
fn a_good_release_goes_wave_by_wave_to_all() {
    let mut story = Story::new(THREE_WAVES, 20);
    story.join(100, "ring=canary");
    story.decide();
    assert_eq!(story.exposed(), BTreeSet::from([uuid(100)]));
    story.decide();
    assert_eq!((story.rollout.wave, story.rollout.settled), (0, None), "it updates");
    story.all_exposed(Stands::OnTarget);
    story.decide();
    story.wait(9);
    story.decide();
    assert_eq!(story.rollout.wave, 0, "it soaks");
    story.wait(1);
    story.decide();
    assert_eq!((story.rollout.wave, story.exposed().len()), (1, 1));
    let exposed = story.decide().exposed();
    let half = story.exposed().len();
    assert!(exposed == 1 && (6..16).contains(&half), "{half} of 21");
    story.all_exposed(Stands::OnTarget);
    story.decide();
    story.wait(10);
    story.decide();
    story.decide();
    assert_eq!(story.exposed().len(), 21);
    story.all_exposed(Stands::OnTarget);
    story.decide();
    story.wait(19);
    story.decide();
    assert_eq!(story.rollout.phase, Phase::Running, "all are watched for a while");
    story.wait(1);
    story.decide();
    assert_eq!(story.rollout.phase, Phase::Completed);
    story.join(200, "ring=canary");
    story.decide();
    assert_eq!(story.exposed().len(), 21, "a rollout that is over exposes no device");
}

#[test]
fn a_bad_release_halts_with_its_reasons() {
    let mut story = Story::new(r#"{"waves": ["100%"]}"#, 8);
    story.decide();
    for number in 0..3 {
        story.device(number).stands = Stands::Rejected;
        story.device(number).why = format!("web exited with code {}", number.min(1));
    }
    story.decide();
    assert_eq!(
        story.halt(),
        "3 of 3 devices failed: more likely a failure rate of 5% than the usual 0.5%; most frequent: \
         2 × web exited with code 1, 1 × web exited with code 0"
    );
    assert!(story.rollout.phase.keeps_release(), "they keep it by default");
    let mut story = Story::new(r#"{"waves": ["100%"], "on_halt": "pull-back"}"#, 8);
    story.decide();
    story.all_exposed(Stands::Rejected);
    story.decide();
    assert!(!story.rollout.phase.keeps_release());
}

#[test]
fn limits_of_the_operator_halt_it_as_well() {
    for (limit, failed, expected) in [
        (r#""max_failures": 2"#, 2, "2 of 30 devices failed: max_failures is 2"),
        (
            r#""max_failure_rate": "3%", "min_sample": 10"#,
            1,
            "1 of 30 devices failed: max_failure_rate is 3%",
        ),
    ] {
        let mut story = Story::new(&format!(r#"{{"waves": ["100%"], {limit}}}"#), 30);
        story.decide();
        story.all_exposed(Stands::OnTarget);
        (0..failed - 1).for_each(|number| story.device(number).stands = Stands::Blocked);
        story.decide();
        assert_eq!(story.rollout.phase, Phase::Running, "{limit}");
        story.device(failed - 1).stands = Stands::Rejected;
        story.decide();
        assert!(story.halt().starts_with(expected), "{}", story.halt());
    }
}

#[test]
fn verdicts_that_say_nothing_pause_it_and_a_person_goes_on() {
    let mut story =
        Story::new(r#"{"waves": ["50%", "100%"], "advance": "90%", "soak": "1m", "strict": true}"#, 60);
    story.decide();
    story.all_exposed(Stands::OnTarget);
    let first = u32::from_str_radix(story.exposed().first().unwrap(), 16).unwrap();
    story.device(first).stands = Stands::Rejected;
    story.decide();
    story.wait(1);
    story.decide();
    let said = story.pause();
    assert!(
        said.starts_with("1 of ") && said.contains("further devices that accept it would say it is"),
        "{said}"
    );
    let stricter = story.rollout.clone();
    story.rollout.resume(story.now);
    story.decide();
    assert_eq!((&story.rollout.phase, story.rollout.wave), (&Phase::Running, 0), "it soaks once more");
    story.wait(1);
    story.decide();
    assert_eq!(story.rollout.wave, 1);
    // Without `strict` it goes on by itself as long as the verdicts do not speak against it.
    story.rollout = Rollout { phase: Phase::Running, ..stricter };
    story.rollout.definition.is_strict = false;
    story.decide();
    assert_eq!((&story.rollout.phase, story.rollout.wave), (&Phase::Paused { why: doubt() }, 0));
}

/// One failure among 32 devices is more than the usual rate.
fn doubt() -> Pause {
    Pause::Inconclusive { failures: 1, verdicts: 32, needs: 134 }
}

#[test]
fn too_few_that_accept_pause_it() {
    let mut story = Story::new(r#"{"waves": ["100%"], "test": {"detect": "90%"}}"#, 10);
    story.decide();
    story.all_exposed(Stands::OnTarget);
    story.device(0).stands = Stands::Blocked;
    story.device(1).stands = Stands::Waiting;
    story.decide();
    assert_eq!(story.rollout.phase, Phase::Running, "one still waits");
    story.device(1).stands = Stands::OnTarget;
    story.decide();
    assert_eq!(story.pause(), "9 of 10 reachable devices accepted the release, 10 are needed");
    story.device(0).stands = Stands::OnTarget;
    story.decide();
    assert!(matches!(story.rollout.phase, Phase::Paused { .. }), "a person decides");
}

#[test]
fn who_is_offline_never_blocks_and_who_falls_silent_has_failed() {
    let mut story = Story::new(r#"{"waves": ["100%"], "silent_after": "1h", "observe": "3h"}"#, 40);
    (0..12).for_each(|number| story.device(number).is_reachable = false);
    story.decide();
    let tally = story.decide();
    assert_eq!((tally.unreached, tally.updating), (12, 28));
    story.all_exposed(Stands::OnTarget);
    story.device(39).is_reachable = false;
    story.device(39).stands = Stands::Updating;
    story.decide();
    story.wait(59);
    assert_eq!(story.decide().silent, 0);
    story.wait(1);
    assert_eq!(story.decide().silent, 1);
    let member = story.devices[&uuid(39)].member.clone().unwrap();
    assert_eq!((member.verdict, member.since), (Verdict::Silent, story.now));
    story.device(39).is_reachable = true;
    story.wait(1);
    story.device(39).stands = Stands::OnTarget;
    let tally = story.decide();
    assert_eq!((tally.silent, tally.unreached, tally.accepted), (0, 12, 28), "it is here again");
    story.wait(180);
    story.decide();
    assert_eq!(story.rollout.phase, Phase::Completed);
}

#[test]
fn what_becomes_unhealthy_after_it_was_accepted_counts() {
    let mut story = Story::new(r#"{"waves": ["100%"], "observe": "1h"}"#, 10);
    story.decide();
    story.all_exposed(Stands::Unhealthy);
    assert_eq!(story.decide().updating, 10, "a trial may still end well");
    story.all_exposed(Stands::OnTarget);
    assert_eq!(story.decide().accepted, 10);
    (0..4).for_each(|number| story.device(number).stands = Stands::Unhealthy);
    story.decide();
    assert!(story.halt().starts_with("4 of 10 devices failed"), "{}", story.halt());
    story.all_exposed(Stands::OnTarget);
    assert_eq!(story.decide().unhealthy, 4, "once is enough");
}

#[test]
fn a_rate_and_a_number_at_once_bound_who_is_exposed() {
    let mut story = Story::new(r#"{"waves": ["100%"], "rate": "2/min"}"#, 10);
    story.decide();
    assert_eq!(story.exposed().len(), 1);
    story.wait(1);
    story.decide();
    assert_eq!(story.exposed().len(), 3);
    story.wait(60);
    story.decide();
    assert_eq!(story.exposed().len(), 6, "at most a minute is saved up");
    let mut story = Story::new(r#"{"waves": ["100%"], "at_once": 3}"#, 10);
    story.device(4).is_reachable = false;
    story.decide();
    story.decide();
    assert_eq!(story.exposed().len(), 4, "three that update, and the one that is offline");
    story.device(0).stands = Stands::OnTarget;
    story.all_exposed(Stands::OnTarget);
    story.decide();
    assert_eq!(story.exposed().len(), 7);
}

#[test]
fn no_device_is_exposed_outside_the_windows() {
    let mut story = Story::new(r#"{"waves": ["100%"], "windows": ["00:00-04:00"]}"#, 3);
    story.is_in_window = false;
    story.decide();
    assert_eq!(story.exposed().len(), 0);
    story.is_in_window = true;
    story.decide();
    assert_eq!(story.exposed().len(), 3);
}

#[test]
fn a_wave_waits_for_an_approval() {
    let mut story = Story::new(r#"{"waves": ["1 approve", "100%"], "soak": "0s"}"#, 5);
    story.decide();
    story.decide();
    assert_eq!(story.exposed().len(), 1, "a number of devices is exact");
    story.all_exposed(Stands::OnTarget);
    story.decide();
    assert_eq!(story.pause(), "the next wave needs an approval");
    story.rollout.approve();
    story.decide();
    assert_eq!((&story.rollout.phase, story.rollout.wave), (&Phase::Running, 1));
    story.decide();
    assert_eq!(story.exposed().len(), 5);
}

#[test]
fn an_invalid_release_halts_it() {
    let mut story = Story::new(r#"{"waves": ["100%"]}"#, 2);
    story.is_release_valid = false;
    story.decide();
    assert_eq!(
        (story.exposed().len(), story.halt()),
        (0, "the release was invalidated; 0 of 0 devices failed".to_owned())
    );
}

#[test]
fn devices_decide_when_they_are_reached_and_pins_are_stronger() {
    let mut story = Story::new(r#"{"waves": ["1%", "60%", "100%"], "soak": "0s", "filter": "!lab"}"#, 0);
    story.join(1, "rollout=early");
    story.join(2, "rollout=late");
    story.join(3, "rollout=never");
    story.join(4, "lab=");
    story.join(5, "rollout=early");
    story.device(5).is_pinned = true;
    let mut seen = Vec::new();
    for _ in 0..12 {
        story.decide();
        story.all_exposed(Stands::OnTarget);
        seen.push((story.rollout.wave, story.exposed().len()));
    }
    assert_eq!(story.exposed(), BTreeSet::from([uuid(1), uuid(2)]));
    story.device(1).tags = tags("rollout=never");
    assert_eq!(story.decide().accepted, 2, "an exposed device is counted, whatever becomes of its tags");
    assert!(seen.contains(&(0, 1)) && seen.contains(&(1, 1)) && seen.contains(&(2, 2)), "{seen:?}");
}

#[test]
fn a_device_passes_the_barriers_first() {
    let mut story = Story::new(r#"{"waves": ["100%"], "barriers": ["b1"]}"#, 2);
    story.device(1).barriers_passed = 1;
    story.decide();
    let barriers = |story: &Story, n| story.devices[&uuid(n)].member.clone().unwrap().barriers;
    assert_eq!((barriers(&story, 0), barriers(&story, 1)), (0, 1));
    story.all_exposed(Stands::OnTarget);
    // It runs the barrier now, which is not the release.
    story.device(0).barriers_passed = 1;
    let tally = story.decide();
    assert_eq!((barriers(&story, 0), tally.accepted, tally.updating), (1, 1, 1));
    assert_eq!(story.decide().accepted, 2);
}

#[test]
fn failures_of_one_segment_halt_that_segment() {
    let json = r#"{"waves": ["100%"], "segments": ["hw"], "on_halt": "pull-back", "soak": "1m", "observe": "1m",
        "advance": "99%"}"#;
    let mut story = Story::new(json, 0);
    (0..200).for_each(|number| story.join(number, if number < 20 { "hw=rev2" } else { "hw=rev1" }));
    story.decide();
    story.all_exposed(Stands::OnTarget);
    (0..10).for_each(|number| story.device(number).stands = Stands::Rejected);
    story.decide();
    assert_eq!(story.rollout.phase, Phase::Running);
    let halted: Vec<_> =
        story.rollout.halted.iter().map(|(segment, halt)| format!("{segment}: {halt}")).collect();
    assert_eq!(
        halted,
        ["hw=rev2: 10 of 20 devices failed: more likely a failure rate of 5% than the usual 0.5%; \
          most frequent: 10 × rejected"]
    );
    story.decide();
    let is_back = |story: &Story, n| story.devices[&uuid(n)].member.as_ref().unwrap().is_pulled_back;
    assert!((0..20).all(|n| is_back(&story, n)) && (20..200).all(|n| !is_back(&story, n)));
    story.join(300, "hw=rev2");
    story.wait(1);
    story.decide();
    assert_eq!(story.exposed().len(), 200, "no other device of it is exposed");
    assert_eq!(story.pause(), "all devices have the release but for the halted segments");
    // The same failures spread over both.
    let mut story = Story::new(json, 0);
    (0..200).for_each(|number| story.join(number, if number < 20 { "hw=rev2" } else { "hw=rev1" }));
    story.decide();
    story.all_exposed(Stands::OnTarget);
    (0..10).for_each(|number| story.device(number * 20).stands = Stands::Rejected);
    story.decide();
    (0..30).for_each(|number| story.device(number * 6).stands = Stands::Rejected);
    story.decide();
    assert!(story.halt().contains("of 200 devices failed"), "{}", story.halt());
}

#[test]
fn a_halted_segment_says_nothing_of_other_segments() {
    let json = r#"{"waves": ["100%"], "segments": ["hw", "site"]}"#;
    let mut story = Story::new(json, 0);
    // All of rev2 are at site a, which has others, too.
    (0..200).for_each(|n| {
        let (hw, site) = (if n < 20 { "rev2" } else { "rev1" }, if n < 60 { "a" } else { "b" });
        story.join(n, &format!("hw={hw},site={site}"));
    });
    story.decide();
    story.all_exposed(Stands::OnTarget);
    (0..20).for_each(|number| story.device(number).stands = Stands::Rejected);
    for _ in 0..5 {
        story.decide();
    }
    let halted: Vec<String> = story.rollout.halted.keys().map(ToString::to_string).collect();
    assert_eq!(halted, ["hw=rev2"]);
}

#[test]
fn after_a_resume_only_new_failures_count() {
    let mut story = Story::new(r#"{"waves": ["100%"], "max_failures": 2, "segments": ["hw"]}"#, 0);
    (0..100).for_each(|number| story.join(number, if number < 10 { "hw=rev2" } else { "hw=rev1" }));
    story.decide();
    story.all_exposed(Stands::OnTarget);
    // A segment halts with ten failures, and then the rollout with two others.
    (0..10).for_each(|number| story.device(number).stands = Stands::Rejected);
    story.decide();
    assert_eq!(story.rollout.halted.len(), 1);
    (10..12).for_each(|number| story.device(number).stands = Stands::Rejected);
    story.decide();
    assert!(story.halt().starts_with("2 of 90 devices failed"), "{}", story.halt());
    story.rollout.resume(story.now);
    story.wait(1);
    story.decide();
    assert!(!matches!(story.rollout.phase, Phase::Halted { .. }), "{:?}", story.rollout.phase);
    story.rollout.phase = Phase::Running;
    story.device(12).stands = Stands::Rejected;
    story.decide();
    assert!(!matches!(story.rollout.phase, Phase::Halted { .. }), "one is not two");
    story.rollout.phase = Phase::Running;
    story.device(13).stands = Stands::Rejected;
    story.decide();
    assert!(story.halt().starts_with("2 of 2 devices failed"), "{}", story.halt());
}

#[test]
fn no_device_was_silent_while_the_server_was_away() {
    let mut story = Story::new(r#"{"waves": ["100%"], "silent_after": "1h"}"#, 10);
    story.decide();
    // The server is started again after two hours, before any device has asked.
    story.devices.values_mut().for_each(|device| device.is_reachable = false);
    story.wait(120);
    story.listening_since = story.now;
    assert_eq!(story.decide().silent, 0);
    story.wait(59);
    assert_eq!(story.decide().silent, 0);
    story.wait(1);
    assert_eq!(story.decide().silent, 10);
}

#[test]
fn who_was_sent_back_accepts_nothing_any_more() {
    let mut story = Story::new(r#"{"waves": ["100%"]}"#, 2);
    story.decide();
    let why = Halt { cause: Cause::Invalidated, failures: 0, verdicts: 0, evidence: Vec::new() };
    story.rollout.phase = Phase::Halted { why, is_pulled_back: true };
    // It runs its target, which is the old release again.
    story.all_exposed(Stands::OnTarget);
    let tally = story.decide();
    assert_eq!((tally.accepted, tally.updating), (0, 2));
}

#[test]
fn devices_that_join_do_not_begin_the_soak_anew() {
    let mut story = Story::new(r#"{"waves": ["100%"], "soak": "30m", "observe": "30m"}"#, 10);
    story.decide();
    story.all_exposed(Stands::OnTarget);
    story.decide();
    for number in 100..106 {
        story.wait(5);
        story.join(number, "");
        story.decide();
    }
    assert_eq!(story.rollout.phase, Phase::Completed);
}

#[test]
fn the_stored_verdicts_are_counted_for_people() {
    let mut story = Story::new(THREE_WAVES, 20);
    story.join(100, "ring=canary");
    story.decide();
    story.all_exposed(Stands::OnTarget);
    story.decide();
    story.rollout.end(Phase::Aborted { why: String::new() }, story.now);
    let survey = survey(&story.rollout, subjects(&story.devices));
    assert_eq!((survey.all.accepted, survey.waves[&0].accepted), (1, 1));
}

fn model(devices: u32) -> Model {
    Model {
        devices,
        fail: None,
        base: None,
        offline: None,
        daily: None,
        segments: Vec::new(),
        update: (Duration::from_secs(120), Duration::from_secs(900)),
    }
}

fn share(text: &str) -> Option<Share> {
    Some(text.parse().unwrap())
}

/// `make bench` does the same with 100,000 devices and 1,000 runs.
#[test]
fn simulated_fleets_end_as_they_should() {
    let waves = r#"{"waves": ["4%", "20%", "100%"], "segments": ["hw"], "soak": "10m", "observe": "10m"}"#;
    let definition = definition(waves);
    let ends = |model: &Model| {
        let runs: Vec<_> = (0..12).map(|seed| simulation::run(&definition, model, seed)).collect();
        simulation::summary(&runs)
    };
    let good =
        ends(&Model { fail: share("0.5%"), base: share("0.5%"), offline: share("30%"), ..model(3_000) });
    assert!(good.ends["completed"] >= 11, "{good:?}");
    let bad = ends(&Model { fail: share("20%"), ..model(3_000) });
    assert_eq!(bad.ends["halted"], 12, "{bad:?}");
    assert!(bad.exposed_at_stop.unwrap()[2] < 200, "{bad:?}");
    let (key, value) = ("hw".to_owned(), "rev2".to_owned());
    let segment = ModelSegment { key, value, share: share("10%").unwrap(), fail: share("60%") };
    let mixed = ends(&Model { segments: vec![segment], ..model(3_000) });
    assert_eq!((mixed.ends["segments-halted"], mixed.segments["hw=rev2"]), (12, 12), "{mixed:?}");
    let daily = ends(&Model { daily: share("60%"), ..model(3_000) });
    assert_eq!(daily.ends["completed"], 12, "{daily:?}");
}

#[test]
fn a_run_is_decided_by_its_seed() {
    let definition = definition(r#"{"waves": ["10%", "100%"]}"#);
    let model = Model { fail: share("3%"), ..model(500) };
    let run = |seed| simulation::run(&definition, &model, seed);
    assert_eq!(run(7), run(7));
    assert!((0..20).map(run).any(|other| other != run(7)));
    assert_ne!(run(3).end, End::Unfinished);
}

#[derive(Debug, Clone)]
enum Act {
    Join(u32, bool),
    Leave(u32),
    Retag(u32, bool),
    Pin(u32, bool),
    Stand(u32, u8),
    Offline(u32, bool),
    Wait(u8),
}

fn act() -> impl Strategy<Value = Act> {
    let device = 0..40_u32;
    prop_oneof![
        (40..60_u32, any::<bool>()).prop_map(|(n, canary)| Act::Join(n, canary)),
        device.clone().prop_map(Act::Leave),
        (device.clone(), any::<bool>()).prop_map(|(n, canary)| Act::Retag(n, canary)),
        (device.clone(), any::<bool>()).prop_map(|(n, pinned)| Act::Pin(n, pinned)),
        (device.clone(), 0..7_u8).prop_map(|(n, stands)| Act::Stand(n, stands)),
        (device, any::<bool>()).prop_map(|(n, offline)| Act::Offline(n, offline)),
        (1..30_u8).prop_map(Act::Wait),
    ]
}

const CANARY: &str = "ring=canary";

impl Story {
    fn act(&mut self, act: &Act) {
        let all = [
            Stands::OnTarget,
            Stands::Updating,
            Stands::Waiting,
            Stands::Fetching,
            Stands::Blocked,
            Stands::Rejected,
            Stands::Unhealthy,
        ];
        let ring = |canary: bool| if canary { CANARY } else { "" };
        match act {
            Act::Join(n, canary) if !self.devices.contains_key(&uuid(*n)) => self.join(*n, ring(*canary)),
            Act::Join(..) => {}
            Act::Leave(n) => drop(self.devices.remove(&uuid(*n))),
            Act::Wait(minutes) => self.wait(u64::from(*minutes)),
            Act::Retag(n, _) | Act::Pin(n, _) | Act::Stand(n, _) | Act::Offline(n, _) => {
                let Some(device) = self.devices.get_mut(&uuid(*n)) else { return };
                match act {
                    Act::Retag(_, canary) => device.tags = tags(ring(*canary)),
                    Act::Pin(_, pinned) => device.is_pinned = *pinned,
                    Act::Stand(_, stands) => device.stands = all[usize::from(*stands)],
                    Act::Offline(_, offline) => device.is_reachable = !offline,
                    Act::Join(..) | Act::Leave(_) | Act::Wait(_) => {}
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Whatever happens to some devices: no device loses the release but by a halt, none beyond the waves is exposed, and the wave of
    /// each device depends on itself alone.
    #[test]
    fn no_act_on_a_device_moves_another(acts in proptest::collection::vec(act(), 1..60)) {
        let mut story = Story::new(THREE_WAVES, 40);
        (0..4).for_each(|number| story.device(number).tags = tags(CANARY));
        story.decide();
        for act in &acts {
            let before: BTreeMap<String, ExposedDevice> =
                story.devices.iter().filter_map(|(id, one)| Some((id.clone(), one.member.clone()?))).collect();
            let wave = story.rollout.wave;
            story.act(act);
            story.decide();
            prop_assert!(story.rollout.wave >= wave);
            for (id, member) in &before {
                let Some(device) = story.devices.get(id) else { continue };
                let now = device.member.as_ref().unwrap();
                prop_assert_eq!((now.wave, now.exposed, now.is_pulled_back), (member.wave, member.exposed, false));
            }
            for (id, device) in &story.devices {
                let Some(member) = &device.member else { continue };
                if before.contains_key(id) {
                    continue;
                }
                let is_canary = device.tags.contains_key("ring");
                let Some(Position::Usual(point)) = position(1, id, &device.tags) else { panic!("a usual device") };
                let half = share("50%").unwrap().contains(point);
                let least = if is_canary { 0 } else if half { 1 } else { 2 };
                prop_assert_eq!(member.wave, least, "its own wave");
                prop_assert!(member.wave <= story.rollout.wave && !device.is_pinned);
                prop_assert!(!story.rollout.phase.is_over());
            }
        }
    }
}

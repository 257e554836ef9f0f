//! Where one decision turns into another: each limit from both sides.

use super::*;

/// All exposed devices accept it.
fn all_accept(story: &mut Story) {
    story.decide();
    story.all_exposed(Stands::OnTarget);
    story.decide();
}

fn member(story: &Story, number: u32) -> &ExposedDevice {
    story.devices[&uuid(number)].member.as_ref().unwrap()
}

/// Devices of two kinds of hardware: those with a number below `rev2` and the others.
fn two_kinds(json: &str, rev2: u32, devices: u32) -> Story {
    let mut story = Story::new(json, 0);
    (0..devices).for_each(|number| story.join(number, if number < rev2 { "hw=rev2" } else { "hw=rev1" }));
    all_accept(&mut story);
    story
}

const SEGMENTS: &str = r#"{"waves": ["100%"], "segments": ["hw"]}"#;

#[test]
fn the_last_wave_is_watched_for_the_longer_time_from_its_own_begin() {
    for times in [r#""soak": "10m", "observe": "30m""#, r#""soak": "30m", "observe": "10m""#] {
        let mut story = Story::new(&format!(r#"{{"waves": ["100%"], {times}}}"#), 3);
        all_accept(&mut story);
        story.wait(29);
        story.decide();
        assert_eq!(story.rollout.phase, Phase::Running, "{times}");
        story.wait(1);
        story.decide();
        assert_eq!(story.rollout.phase, Phase::Completed, "{times}");
    }
    // The wave before it has exposed all.
    let json = r#"{"waves": ["ring=canary", "100%"], "soak": "10m", "observe": "20m"}"#;
    let mut story = Story::new(json, 0);
    story.join(1, CANARY);
    all_accept(&mut story);
    story.wait(10);
    story.decide();
    assert_eq!(story.rollout.wave, 1);
    story.decide();
    story.wait(19);
    story.decide();
    assert_eq!(story.rollout.phase, Phase::Running);
    story.wait(1);
    story.decide();
    assert_eq!(story.rollout.phase, Phase::Completed);
}

#[test]
fn a_wave_without_devices_has_no_soak() {
    let json = r#"{"waves": ["ring=canary", "ring=beta", "100%"], "soak": "10m"}"#;
    let mut story = Story::new(json, 3);
    story.join(9, CANARY);
    all_accept(&mut story);
    story.wait(10);
    story.decide();
    assert_eq!(story.rollout.wave, 1);
    story.decide();
    assert_eq!(story.rollout.wave, 2);
}

#[test]
fn each_wave_has_its_own_approval() {
    let mut story = Story::new(r#"{"waves": ["1 approve", "2 approve", "100%"], "soak": "0s"}"#, 5);
    story.decide();
    all_accept(&mut story);
    story.pause();
    story.rollout.approve();
    story.decide();
    story.decide();
    all_accept(&mut story);
    assert_eq!((story.rollout.wave, story.pause().as_str()), (1, "the next wave needs an approval"));
}

#[test]
fn a_resumed_wave_may_end_whatever_comes_and_the_next_one_may_not() {
    let json = r#"{"waves": ["50%", "100%"], "advance": "100%", "soak": "1m", "observe": "1m"}"#;
    let mut story = Story::new(json, 40);
    story.decide();
    story.all_exposed(Stands::OnTarget);
    let exposed: Vec<u32> =
        story.exposed().iter().map(|uuid| u32::from_str_radix(uuid, 16).unwrap()).collect();
    story.device(exposed[0]).stands = Stands::Blocked;
    story.device(exposed[1]).stands = Stands::Updating;
    story.decide();
    assert_eq!(story.rollout.phase, Phase::Running, "one still updates");
    story.device(exposed[1]).stands = Stands::OnTarget;
    story.decide();
    assert!(story.pause().ends_with("are needed"));
    story.rollout.resume(story.now);
    story.device(exposed[1]).stands = Stands::Unhealthy;
    story.decide();
    assert_eq!(story.rollout.phase, Phase::Running);
    story.wait(1);
    story.decide();
    assert_eq!((&story.rollout.phase, story.rollout.wave), (&Phase::Running, 1));
    all_accept(&mut story);
    story.wait(1);
    story.decide();
    assert!(matches!(story.rollout.phase, Phase::Paused { .. }), "{:?}", story.rollout.phase);
}

#[test]
fn a_segment_is_halted_later_the_more_segments_there_are() {
    // 3 of 30 are enough for a test by itself, and not for one of two.
    let mut story = two_kinds(SEGMENTS, 30, 200);
    (0..3).for_each(|number| story.device(number).stands = Stands::Unhealthy);
    story.decide();
    assert_eq!((story.rollout.halted.len(), &story.rollout.phase), (0, &Phase::Running));
    story.device(3).stands = Stands::Unhealthy;
    story.decide();
    assert_eq!((story.rollout.halted.len(), &story.rollout.phase), (1, &Phase::Running));
    // If all of the fleet together is bad, and only because of it, the segment is halted and not the fleet.
    let mut story = two_kinds(SEGMENTS, 30, 35);
    (0..3).for_each(|number| story.device(number).stands = Stands::Unhealthy);
    story.decide();
    assert_eq!((story.rollout.halted.len(), &story.rollout.phase), (1, &Phase::Running));
}

#[test]
fn a_segment_of_all_devices_is_the_fleet() {
    let mut story = two_kinds(SEGMENTS, 0, 20);
    story.all_exposed(Stands::Unhealthy);
    story.decide();
    assert!(story.halt().starts_with("20 of 20 devices failed"));
    assert_eq!(story.rollout.halted.len(), 0);
}

#[test]
fn the_worst_segment_is_halted_first() {
    let mut story = two_kinds(SEGMENTS, 600, 600);
    (600..620).for_each(|number| story.join(number, "hw=a"));
    (620..640).for_each(|number| story.join(number, "hw=b"));
    all_accept(&mut story);
    (600..608).chain(620..624).for_each(|number| story.device(number).stands = Stands::Unhealthy);
    story.decide();
    let halted = |story: &Story| story.rollout.halted.keys().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(halted(&story), ["hw=a"]);
    story.decide();
    assert_eq!(halted(&story), ["hw=a", "hw=b"]);
    assert!((600..640).all(|n| !member(&story, n).is_pulled_back), "they keep it by default");
}

#[test]
fn reasons_are_those_of_live_segments_and_an_invalid_release_is_invalid_for_all() {
    let mut story = two_kinds(SEGMENTS, 20, 200);
    (0..10).for_each(|number| {
        story.device(number).stands = Stands::Unhealthy;
        story.device(number).why = "of rev2".to_owned();
    });
    let mut invalid = two_kinds(SEGMENTS, 20, 200);
    (0..10).for_each(|number| invalid.device(number).stands = Stands::Unhealthy);
    invalid.is_release_valid = false;
    invalid.decide();
    assert!(invalid.halt().starts_with("the release was invalidated"));
    assert_eq!(invalid.rollout.halted.len(), 0);
    story.decide();
    assert_eq!(story.rollout.halted.len(), 1);
    (20..40).for_each(|number| {
        story.device(number).stands = Stands::Unhealthy;
        story.device(number).why = "of rev1".to_owned();
    });
    story.decide();
    assert!(story.halt().starts_with("20 of 180 devices failed"), "{}", story.halt());
    assert!(story.halt().ends_with("most frequent: 20 × of rev1"), "{}", story.halt());
}

#[test]
fn a_failure_rate_counts_from_the_least_sample_on() {
    let json = r#"{"waves": ["100%"], "max_failure_rate": "3%", "min_sample": 10}"#;
    let mut story = Story::new(json, 30);
    story.decide();
    (0..8).for_each(|number| story.device(number).stands = Stands::OnTarget);
    story.device(8).stands = Stands::Rejected;
    story.decide();
    assert_eq!(story.rollout.phase, Phase::Running, "1 of 9");
    story.device(9).stands = Stands::OnTarget;
    story.decide();
    assert!(story.halt().starts_with("1 of 10 devices failed"));
}

#[test]
fn only_a_strict_rollout_needs_a_proof_and_only_after_a_failure() {
    let ends = |strict: bool, failures: u32| {
        let json = format!(
            r#"{{"waves": ["100%"], "advance": "90%", "soak": "0s", "observe": "0s", "strict": {strict}}}"#
        );
        let mut story = Story::new(&json, 100);
        story.decide();
        story.all_exposed(Stands::OnTarget);
        (0..failures).for_each(|number| story.device(number).stands = Stands::Rejected);
        story.decide();
        story.rollout.phase
    };
    assert_eq!(ends(false, 1), Phase::Completed);
    assert!(matches!(ends(true, 1), Phase::Paused { why: Pause::Inconclusive { .. } }));
    assert_eq!(ends(true, 0), Phase::Completed);
}

#[test]
fn a_paused_rollout_still_halts() {
    let mut story = Story::new(r#"{"waves": ["100%"], "on_halt": "pull-back"}"#, 8);
    all_accept(&mut story);
    story.rollout.phase = Phase::Paused { why: Pause::Person { who: "anna".to_owned() } };
    story.all_exposed(Stands::Unhealthy);
    story.decide();
    assert!(story.halt().starts_with("8 of 8 devices failed"));
}

#[test]
fn offline_devices_take_no_place_of_those_at_once() {
    let mut story = Story::new(r#"{"waves": ["100%"], "at_once": 2}"#, 14);
    (0..10).for_each(|number| story.device(number).is_reachable = false);
    story.decide();
    assert_eq!(story.exposed().len(), 12);
}

#[test]
fn earlier_waves_are_exposed_first() {
    let json = r#"{"waves": ["ring=canary", "100%"], "at_once": 1, "soak": "0s"}"#;
    let mut story = Story::new(json, 5);
    story.decide();
    story.join(99, CANARY);
    story.decide();
    assert_eq!((story.rollout.wave, story.exposed()), (1, BTreeSet::from([uuid(99)])));
}

#[test]
fn silence_counts_from_the_last_contact_or_from_its_exposure() {
    let mut story = Story::new(r#"{"waves": ["100%"], "silent_after": "1h"}"#, 20);
    // Its last contact is older, and recent enough to count as here.
    let before = story.now.checked_sub(Duration::from_secs(600)).unwrap();
    story.device(0).last_contact = Some(before);
    story.decide();
    story.device(0).is_reachable = false;
    story.wait(30);
    story.device(1).is_reachable = false;
    story.wait(29);
    assert_eq!(story.decide().silent, 0);
    story.wait(1);
    assert_eq!(story.decide().silent, 1, "an hour after its exposure");
    story.wait(29);
    assert_eq!(story.decide().silent, 1);
    story.wait(1);
    assert_eq!(story.decide().silent, 2, "an hour after its last contact");
    story.device(2).last_contact = Some(before);
    assert_eq!(story.decide().silent, 2, "its poll waits, and it is here");
}

#[test]
fn verdicts_that_last_and_those_that_do_not() {
    let mut story = Story::new(r#"{"waves": ["100%"]}"#, 100);
    story.device(2).is_reachable = false;
    story.device(2).last_contact = None;
    story.decide();
    story.device(0).stands = Stands::Rejected;
    story.device(1).stands = Stands::OnTarget;
    let at = story.now;
    story.decide();
    story.wait(1);
    story.device(0).stands = Stands::OnTarget;
    story.device(1).stands = Stands::Waiting;
    let tally = story.decide();
    assert_eq!((tally.rejected, tally.accepted, tally.unreached), (1, 1, 1), "once is enough");
    assert_eq!([0, 1].map(|number| member(&story, number).since), [at, at]);
    story.device(2).is_reachable = true;
    story.wait(1);
    assert_eq!(story.decide().unreached, 0, "it came back and has its target");
    story.device(2).stands = Stands::OnTarget;
    assert_eq!(story.decide().accepted, 2);
}

#[test]
fn who_was_sent_back_is_not_judged_by_what_it_runs_then() {
    let json = r#"{"waves": ["100%"], "segments": ["hw"], "on_halt": "pull-back"}"#;
    let mut story = two_kinds(json, 20, 200);
    story.join(300, "hw=rev2");
    story.decide();
    (0..10).for_each(|number| story.device(number).stands = Stands::Unhealthy);
    story.decide();
    story.decide();
    assert_eq!((member(&story, 300).is_pulled_back, member(&story, 300).verdict), (true, Verdict::Updating));
    story.device(300).stands = Stands::OnTarget;
    story.decide();
    assert_eq!(member(&story, 300).verdict, Verdict::Updating);
}

#[test]
fn a_barrier_that_was_passed_stays_passed() {
    let mut story = Story::new(r#"{"waves": ["100%"], "barriers": ["b1"]}"#, 1);
    story.device(0).barriers_passed = 1;
    story.decide();
    story.device(0).barriers_passed = 0;
    story.decide();
    assert_eq!(member(&story, 0).barriers, 1, "it says now and then that it runs nothing");
}

#[test]
fn a_member_gets_its_barrier_the_release_or_what_its_fleet_has() {
    let mut story = Story::new(r#"{"waves": ["100%"]}"#, 1);
    story.decide();
    let mut member = member(&story, 0).clone();
    story.rollout.barriers = vec![7];
    assert_eq!(story.rollout.release_for(&member), Some(7));
    member.barriers = 1;
    assert_eq!(story.rollout.release_for(&member), Some(1));
    member.is_pulled_back = true;
    assert_eq!(story.rollout.release_for(&member), None);
}

#[test]
fn a_wave_of_a_number_has_so_many_devices_of_all() {
    let json = r#"{"waves": ["3", "5", "100%"], "soak": "0s"}"#;
    for (devices, expected) in [(10, [3, 5, 10]), (3, [3, 3, 3])] {
        let mut story = Story::new(json, devices);
        let mut exposed = [0; 3];
        for _ in 0..12 {
            story.decide();
            story.all_exposed(Stands::OnTarget);
            exposed[story.rollout.wave] = story.exposed().len();
        }
        assert_eq!(exposed, expected, "of {devices}");
    }
}

#[test]
fn a_plan_counts_members_in_the_wave_in_which_they_were_exposed() {
    let mut story = Story::new(r#"{"waves": ["ring=canary", "100%"]}"#, 4);
    story.join(9, CANARY);
    story.decide();
    story.device(9).tags = BTreeMap::new();
    assert_eq!(plan(&story.rollout, subjects(&story.devices)), [(1, 1), (4, 4)]);
}

#[test]
fn after_a_setback_the_soak_begins_anew() {
    let json = r#"{"waves": ["100%"], "advance": "90%", "soak": "10m", "observe": "10m", "test": {"detect": "90%"}}"#;
    let mut story = Story::new(json, 10);
    story.decide();
    story.all_exposed(Stands::OnTarget);
    story.device(9).stands = Stands::Updating;
    story.decide();
    assert_eq!(story.rollout.settled, Some(story.now), "nine of ten are enough");
    story.wait(5);
    story.device(0).stands = Stands::Unhealthy;
    story.decide();
    assert_eq!(
        (&story.rollout.phase, story.rollout.settled),
        (&Phase::Running, None),
        "eight of nine are not"
    );
    story.wait(1);
    story.device(9).stands = Stands::OnTarget;
    story.decide();
    assert_eq!(story.rollout.settled, Some(story.now), "nine of ten again");
    story.wait(9);
    story.decide();
    assert_eq!(story.rollout.phase, Phase::Running);
    story.wait(1);
    story.decide();
    assert_eq!(story.rollout.phase, Phase::Completed);
}

#[test]
fn a_resumed_wave_is_not_paused_again_by_doubt() {
    let json =
        r#"{"waves": ["50%", "100%"], "advance": "90%", "soak": "1m", "observe": "1m", "strict": true}"#;
    let mut story = Story::new(json, 60);
    story.decide();
    story.all_exposed(Stands::OnTarget);
    let exposed: Vec<u32> =
        story.exposed().iter().map(|uuid| u32::from_str_radix(uuid, 16).unwrap()).collect();
    story.device(exposed[0]).stands = Stands::Rejected;
    story.decide();
    story.wait(1);
    story.decide();
    assert!(story.pause().starts_with("1 of "));
    story.rollout.resume(story.now);
    story.decide();
    story.wait(1);
    story.device(exposed[1]).stands = Stands::Unhealthy;
    story.decide();
    assert_eq!(
        (&story.rollout.phase, story.rollout.wave),
        (&Phase::Running, 1),
        "a person wants it to go on"
    );
    all_accept(&mut story);
    story.wait(60);
    story.decide();
    assert!(story.pause().starts_with("1 of "), "but not beyond that wave");
}

#[test]
fn within_a_wave_the_order_is_that_of_the_positions() {
    let mut story = Story::new(r#"{"waves": ["100%"], "at_once": 1}"#, 0);
    story.join(0, "rollout=late");
    (1..5).for_each(|number| story.join(number, ""));
    story.join(9, "rollout=early");
    let mut order = Vec::new();
    for _ in 0..6 {
        let before = story.exposed();
        story.decide();
        order.extend(story.exposed().difference(&before).cloned());
        story.all_exposed(Stands::OnTarget);
    }
    assert_eq!((&order[0], &order[5], order.len()), (&uuid(9), &uuid(0), 6));
    // By their places in rollout 1. Their uuids would give another order.
    assert_eq!(order[1..5], [3, 4, 1, 2].map(uuid));
}

#[test]
fn late_devices_are_in_no_share_but_the_last() {
    let mut story = Story::new(r#"{"waves": ["99%", "100%"], "soak": "1m"}"#, 1);
    (10..40).for_each(|number| story.join(number, "rollout=late"));
    all_accept(&mut story);
    assert_eq!(story.exposed(), BTreeSet::from([uuid(0)]));
    story.wait(1);
    story.decide();
    story.decide();
    assert_eq!(story.exposed().len(), 31);
}

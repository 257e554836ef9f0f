use super::*;
use crate::fleet::policy::Release;
use crate::fleet::rollout::{Pause, RolloutExposure};
use crate::fleet::standing::tests::world as site;

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

/// A rollout of release `one` to the fleet of the site, whose target is `two`.
fn rollout(json: &str) -> Rollout {
    let mut rollout = Rollout::new(1, 1, 1, serde_json::from_str(json).unwrap(), NOW);
    rollout.before = Some(2);
    rollout
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

#[test]
fn devices_are_exposed_while_one_of_the_windows_is_open() {
    let world = site(|_| {});
    let exposed = |windows: &str, now: &str| {
        let rollout = rollout(&format!(r#"{{"waves": ["100%"], "windows": {windows}}}"#));
        let sighted = Sighted::new(&world, &rollout, |_| (Some(NOW), Contact::Recent));
        sighted.decide(&rollout, NOW, at(now)).members.len()
    };
    let windows = r#"["02:00-04:00 UTC", "Sun 00:00-24:00 UTC"]"#;
    for (why, windows, now, expected) in [
        ("none is set", "[]", "2026-01-05T12:00:00Z", 1),
        ("a Monday, in the first", windows, "2026-01-05T03:00:00Z", 1),
        ("a Monday, in neither", windows, "2026-01-05T12:00:00Z", 0),
        ("a Sunday, in the second", windows, "2026-01-04T12:00:00Z", 1),
    ] {
        assert_eq!(exposed(windows, now), expected, "{why}");
    }
}

#[test]
fn a_device_that_runs_a_barrier_or_a_later_release_has_passed_it() {
    for (running, passed) in [(None, 0), (Some(1), 1), (Some(2), 2)] {
        let mut world = site(|reported| reported.running = running);
        let later = Release {
            start_timestamp: at("1970-01-01T00:00:01Z"),
            ..Release::clone(world.release(2).unwrap())
        };
        world.apply(Change::PutRelease(later));
        let rollout = Rollout { barriers: vec![1, 2], ..rollout(r#"{"waves": ["100%"]}"#) };
        let sighted = Sighted::new(&world, &rollout, |_| (Some(NOW), Contact::Recent));
        let seen: Vec<_> = sighted.subjects().map(|subject| subject.barriers_passed).collect();
        assert_eq!(seen, [passed], "it runs {running:?}");
    }
}

#[test]
fn a_device_is_judged_by_reports_about_its_new_target_alone() {
    let mut world = site(|reported| reported.running = Some(1));
    let rollout = rollout(r#"{"waves": ["100%"]}"#);
    world.apply(Change::PutRollout(Box::new(rollout.clone())));
    let stands = |world: &World, contact: Contact| {
        let sighted = Sighted::new(world, &rollout, |_| (Some(NOW), contact));
        sighted.subjects().map(|subject| (subject.stands, subject.is_reachable)).next().unwrap()
    };
    assert_eq!(stands(&world, Contact::Recent), (Stands::Updating, true), "it is not exposed yet");
    let member = serde_json::json!({
        "wave": 0, "exposed": NOW, "is_reachable": true, "verdict": "updating", "since": NOW,
    });
    let member = RolloutExposure { rollout: 1, member: serde_json::from_value(member).unwrap() };
    let uuid = world.find_device("board").unwrap().uuid.clone();
    world.apply(Change::PutMember(uuid, member));
    assert_eq!(stands(&world, Contact::Recent), (Stands::OnTarget, true));
    assert_eq!(stands(&world, Contact::Outdated), (Stands::Updating, true), "it has not heard of its target");
}

#[test]
fn a_decision_is_stored_only_if_nothing_has_changed_since() {
    let before = rollout(r#"{"waves": ["50%", "100%"]}"#);
    let next = || {
        let (before, after) = (Arc::new(before.clone()), Rollout { wave: 1, ..before.clone() });
        Next::Decided(Box::new(Decided { before, after, members: Vec::new(), is_release_valid: true }))
    };
    let changes = |change: Option<Change>| {
        let mut world = site(|_| {});
        world.apply(Change::PutRollout(Box::new(before.clone())));
        change.into_iter().for_each(|change| world.apply(change));
        changes_of(&world, 1, next(), NOW).0.len()
    };
    assert_eq!(changes(None), 2, "the rollout, and its record in the audit trail");
    let why = Pause::Person { who: "anna".to_owned() };
    let paused = Rollout { phase: Phase::Paused { why }, ..before.clone() };
    assert_eq!(changes(Some(Change::PutRollout(Box::new(paused)))), 0, "a person has paused it");
    let one = Release::clone(site(|_| {}).release(1).unwrap());
    let invalid = Change::PutRelease(Release { is_invalidated: true, ..one });
    assert_eq!(changes(Some(invalid)), 0, "its release was invalidated");
}

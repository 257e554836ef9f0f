use std::collections::BTreeSet;

use super::*;
use crate::fleet::rollout::{Pause, Question};
use crate::fleet::standing::tests::world as site;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn apply(world: &mut World, changes: Vec<Change>) {
    changes.into_iter().for_each(|change| world.apply(change));
}

fn new(name: &str, scope: Scope) -> NewWebhook {
    NewWebhook {
        name: name.to_owned(),
        url: "https://ci.example.com/".to_owned(),
        allows_http: false,
        secret: Secret::of(&[1; 32]),
        scope,
        events: None,
        created: at(0),
    }
}

/// A world with a rollout and the webhooks `all`, and `other` of another fleet.
fn world() -> World {
    let mut world = site(|_| ());
    for (name, scope) in [("all", Scope::All), ("other", Scope::Fleets(BTreeSet::from([2])))] {
        let changes = world.create_webhook(new(name, scope)).unwrap();
        apply(&mut world, changes);
    }
    let rollout = Rollout::new(1, 1, 1, Definition::default(), at(0));
    world.apply(Change::PutRollout(Box::new(rollout)));
    world
}

/// Stores a rollout as an act does, with its messages.
fn put(world: &mut World, rollout: Rollout, now: Timestamp) {
    let mut changes = vec![Change::PutRollout(Box::new(rollout))];
    let messages = world.announcements(&changes, now);
    changes.extend(messages);
    apply(world, changes);
}

/// Pauses and resumes the rollout of the world.
fn toggle(world: &mut World, second: i64) {
    let mut rollout = world.rollout(1).unwrap().as_ref().clone();
    rollout.phase = match rollout.phase {
        Phase::Running => Phase::Paused { why: Pause::Approval },
        Phase::Paused { .. } | Phase::Halted { .. } | Phase::Completed | Phase::Aborted { .. } => {
            Phase::Running
        }
    };
    put(world, rollout, at(second));
}

#[test]
fn the_oldest_messages_are_given_up_when_too_many_wait() {
    let mut world = world();
    for second in 0..100 {
        toggle(&mut world, second);
    }
    let waiting = |world: &World| world.messages().map(|message| message.number).collect::<Vec<_>>();
    assert_eq!(waiting(&world), (1..=100).collect::<Vec<_>>());
    assert_eq!(world.webhook("all").unwrap().deliveries.given_up, 0);
    toggle(&mut world, 100);
    assert_eq!(waiting(&world), (2..=101).collect::<Vec<_>>());
    assert_eq!(world.webhook("all").unwrap().deliveries.given_up, 1);
    assert!(world.messages().all(|message| message.webhook == "all"), "the other one is of another fleet");
    let ids: BTreeSet<_> = world.messages().map(|message| message.id.clone()).collect();
    assert_eq!(ids.len(), 100);
    assert_eq!(world.counters.message, 101);
}

#[test]
fn an_attempt_ends_a_message_or_lets_it_wait_until_it_is_given_up() {
    let mut world = world();
    toggle(&mut world, 0);
    let failed = || Err(Attempt { why: "it answered 500".to_owned(), retry_after: None });
    let mut now = at(0);
    for attempt in 1..=12 {
        let changes = world.delivered(1, failed(), now);
        apply(&mut world, changes);
        let message = world.messages().next().unwrap();
        assert_eq!(message.failures, attempt);
        assert!(message.next > now);
        now = now.checked_add(Duration::from_secs(1)).unwrap();
    }
    let changes = world.delivered(1, failed(), now);
    apply(&mut world, changes);
    let its = &world.webhook("all").unwrap().deliveries;
    assert_eq!((world.messages().count(), its.failed, its.given_up, its.delivered), (0, 13, 1, 0));
    assert_eq!(its.last_failure.as_ref().map(|last| last.why.as_str()), Some("it answered 500"));
    toggle(&mut world, 100);
    let number = world.messages().next().unwrap().number;
    assert_eq!(number, 2);
    let changes = world.delivered(number, Ok(()), at(101));
    apply(&mut world, changes);
    let its = &world.webhook("all").unwrap().deliveries;
    assert_eq!((world.messages().count(), its.delivered, its.last_success), (0, 1, Some(at(101))));
    assert_eq!(world.delivered(number, Ok(()), at(102)), [], "it was delivered by another server");
}

#[test]
fn a_claim_keeps_a_message_from_others_for_a_while() {
    let mut world = world();
    toggle(&mut world, 0);
    let message = world.messages().next().unwrap().as_ref().clone();
    let changes = world.claim_message(&message, at(10));
    assert_eq!(changes.len(), 1);
    apply(&mut world, changes);
    assert_eq!(world.claim_message(&message, at(10)), [], "the other one was first");
    assert_eq!(world.messages().next().unwrap().next, at(30));
}

#[test]
fn a_question_is_asked_once_at_a_time_and_its_answer_is_of_that_question() {
    let mut world = world();
    let mut rollout = world.rollout(1).unwrap().as_ref().clone();
    rollout.definition.confirm = Some("all".to_owned());
    rollout.question = Some(Question { wave: 1, since: at(0), asked: 0, next: at(0), why: None });
    put(&mut world, rollout, at(0));
    let (asked, changes) = world.ask_webhook(1, 1, at(0)).unwrap();
    apply(&mut world, changes);
    assert!(world.ask_webhook(1, 1, at(1)).is_none(), "another server has asked");
    let refused = || Err(Attempt { why: "it said no".to_owned(), retry_after: None });
    let changes = world.answer_webhook(&asked, refused(), at(2));
    apply(&mut world, changes);
    let question = world.rollout(1).unwrap().question.clone().unwrap();
    assert_eq!((question.asked, question.why.as_deref()), (1, Some("it said no")));
    assert!(question.next >= at(6) && question.next <= at(8), "{question:?}");
    assert_eq!(world.answer_webhook(&asked, Ok(()), at(3)), [], "the answer of an old question");
    let (asked, changes) = world.ask_webhook(1, 1, at(8)).unwrap();
    apply(&mut world, changes);
    let changes = world.answer_webhook(&asked, Ok(()), at(9));
    apply(&mut world, changes);
    let rollout = world.rollout(1).unwrap();
    assert_eq!((rollout.confirmed, &rollout.question), (Some(1), &None));
    // A paused rollout asks nothing.
    let mut paused = rollout.as_ref().clone();
    paused.phase = Phase::Paused { why: Pause::Approval };
    paused.question = Some(Question { wave: 2, since: at(0), asked: 0, next: at(0), why: None });
    put(&mut world, paused, at(10));
    assert!(world.ask_webhook(1, 1, at(11)).is_none());
    let asked = world.rollout(1).unwrap().as_ref().clone();
    assert_eq!(world.answer_webhook(&asked, Ok(()), at(12)), [], "an answer that comes after the pause");
}

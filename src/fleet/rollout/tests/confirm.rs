//! Rollouts whose waves a webhook lets begin.

use super::*;

const CONFIRMED: &str =
    r#"{"waves": ["2", "100%"], "soak": "10m", "observe": "0s", "confirm": "ci", "advance": "100%"}"#;

fn exposed(story: &Story) -> usize {
    story.devices.values().filter(|device| device.member.is_some()).count()
}

#[test]
fn no_wave_begins_before_its_webhook_says_yes() {
    let mut story = Story::new(CONFIRMED, 6);
    for _ in 0..3 {
        story.decide();
        story.wait(60);
    }
    let asked = story.rollout.question.clone().unwrap();
    assert_eq!((asked.wave, asked.asked, exposed(&story)), (0, 0, 0), "it is asked, and nothing begins");
    assert_eq!(
        story.rollout.waits_for_webhook().as_deref(),
        Some("wave 1 waits for webhook ci: it has not answered yet")
    );
    story.join(6, "");
    story.rollout.confirm();
    story.decide();
    story.decide();
    assert_eq!((exposed(&story), story.rollout.question.clone()), (2, None));
    // Those of the first wave accept it, and have soaked.
    for device in story.devices.values_mut().filter(|device| device.member.is_some()) {
        device.stands = Stands::OnTarget;
    }
    story.decide();
    assert_eq!(story.rollout.question, None, "nothing is asked before the wave has soaked");
    story.wait(10);
    story.decide();
    let asked = story.rollout.question.clone().unwrap();
    assert_eq!((asked.wave, story.rollout.wave, exposed(&story)), (1, 0, 2));
    assert_eq!(story.rollout.phase, Phase::Running);
    story.rollout.question.as_mut().unwrap().why = Some("it answered 503".to_owned());
    story.decide();
    assert_eq!(
        story.rollout.waits_for_webhook().as_deref(),
        Some("wave 2 waits for webhook ci: it answered 503"),
        "the question stays the same"
    );
    story.rollout.confirm();
    story.decide();
    assert_eq!((story.rollout.wave, story.rollout.question.clone()), (1, None));
    story.decide();
    assert_eq!(exposed(&story), 7);
    // The end is no wave.
    story.devices.values_mut().for_each(|device| device.stands = Stands::OnTarget);
    story.decide();
    story.wait(10);
    story.decide();
    assert_eq!(story.rollout.phase, Phase::Completed);
}

/// Devices of a wave that waits for its webhook still count.
#[test]
fn a_question_does_not_keep_a_rollout_from_its_halt() {
    let mut story = Story::new(&CONFIRMED.replace("\"100%\"}", "\"100%\", \"max_failures\": 1}"), 6);
    story.decide();
    story.rollout.confirm();
    story.decide();
    story.decide();
    story.devices.values_mut().for_each(|device| device.stands = Stands::OnTarget);
    story.decide();
    story.wait(10);
    story.decide();
    assert!(story.rollout.question.is_some());
    let first = story.devices.values_mut().find(|device| device.member.is_some()).unwrap();
    first.stands = Stands::Unhealthy;
    story.decide();
    assert!(matches!(story.rollout.phase, Phase::Halted { .. }));
    assert_eq!(story.rollout.question, None, "nothing is asked any more");
}

#[test]
fn nothing_is_asked_while_the_window_is_closed_or_the_rollout_pauses() {
    let mut story = Story::new(CONFIRMED, 2);
    story.is_in_window = false;
    story.decide();
    assert_eq!(story.rollout.question, None);
    story.is_in_window = true;
    story.rollout.phase = Phase::Paused { why: Pause::Person { who: "anna".into() } };
    story.decide();
    assert_eq!(story.rollout.question, None);
    story.rollout.resume(story.now);
    story.decide();
    assert!(story.rollout.question.is_some());
}

/// A person resumes it perhaps days later, when the answer holds no more.
#[test]
fn after_a_resume_the_webhook_is_asked_again() {
    let mut story = Story::new(CONFIRMED, 4);
    story.decide();
    story.rollout.confirm();
    story.rollout.phase = Phase::Paused { why: Pause::Person { who: "anna".into() } };
    story.rollout.resume(story.now);
    let asked = |story: &Story| story.rollout.question.as_ref().map(|question| question.wave);
    story.decide();
    assert_eq!((exposed(&story), asked(&story)), (0, Some(0)));
    story.rollout.confirm();
    story.decide();
    story.decide();
    assert_eq!((exposed(&story), asked(&story)), (2, None));
    story.all_exposed(Stands::OnTarget);
    story.decide();
    story.wait(10);
    story.decide();
    assert_eq!(asked(&story), Some(1));
    story.rollout.confirm();
    story.rollout.phase = Phase::Paused { why: Pause::Person { who: "anna".into() } };
    story.rollout.resume(story.now);
    // The wave that has begun goes on, and the next one is asked for once it has soaked again.
    story.decide();
    assert_eq!((exposed(&story), asked(&story)), (2, None));
    story.wait(10);
    story.decide();
    assert_eq!((story.rollout.wave, asked(&story)), (0, Some(1)));
}

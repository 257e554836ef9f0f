//! Registries that want to be asked less often.

use std::time::Duration;

use serde_json::json;

use crate::support::{Agent, FakeCloud, Instead, Lab, Question, RegistryProxy, eventually};
use crate::{app, postponed, service, until_done, uuid};

fn is_ours(question: &Question) -> bool {
    question.agent.starts_with("cotter/")
}

#[test]
fn a_registry_that_is_asked_too_often_is_left_alone_for_as_long_as_it_says() {
    let lab = Lab::new("patience");
    let cloud = FakeCloud::start();
    let registry = RegistryProxy::start(&lab);
    let target = |commit: &str, image: &str| {
        let web = service(&registry.image(image), json!({}));
        cloud.target(commit, &json!({ uuid(1): app(1, "shop", commit, &[("web", web)]) }));
    };
    target("one", lab.image("r1"));
    let mut agent = Agent::prepare(&lab, &cloud.url, &cloud.fleet(&lab), "till");
    agent.start_again();
    agent.until_serves("web", "one", "r1");
    until_done(&agent, "one");
    let before = agent.standing();

    // It says for how long: when the image is weighed.
    registry.answer(|asked| is_ours(asked).then_some(Instead::TooMany(Some(6))));
    let known = registry.questions().len();
    target("two", lab.image("r2"));
    let (why, again) = postponed(&agent, "429");
    assert!(why.starts_with("weigh 127.0.0.1:") && why.contains("failed once"), "{why}");
    assert!((1..=6).contains(&again), "again in {again} s");
    let asked = || registry.questions().split_off(known);
    eventually("it is asked again", Duration::from_secs(20), || (asked().len() >= 2).then_some(()));
    let gap = asked()[1].at - asked()[0].at;
    assert!(gap >= Duration::from_millis(5900), "asked again after {gap:?}");
    assert_eq!(agent.standing(), before);
    registry.answer(|_| None);
    agent.until_serves("web", "two", "r2");
    until_done(&agent, "two");
    let before = agent.standing();

    // The engine does not pass on for how long: a minute is enough for most.
    registry.answer(|asked| (!is_ours(asked)).then_some(Instead::TooMany(Some(2))));
    target("three", lab.image("r3"));
    let (why, again) = postponed(&agent, "wants to be asked less often");
    assert!(why.starts_with("pull 127.0.0.1:"), "{why}");
    assert!((40..=60).contains(&again), "again in {again} s");
    let asked = registry.questions().len();
    agent.until_polled(3);
    assert_eq!(registry.questions().len(), asked, "it is left alone");
    assert_eq!(agent.standing(), before);
    registry.answer(|_| None);
    let (is_done, output) = agent.order(&["retry"]);
    assert!(is_done, "{output}");
    agent.until_serves("web", "three", "r3");
    until_done(&agent, "three");
}

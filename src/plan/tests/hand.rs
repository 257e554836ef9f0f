//! The operator's hand: hold, rollback, retry.

use proptest::prelude::*;

use super::{Device, app, check, hash, name, release};
use crate::model::{Answer, ContainerId, ContainerState, Order, Plan, Step};
use crate::plan::{obey, violations};

/// What becomes of the device when its operator gives an order.
fn ordered(text: &str, order: &Order) -> (Device, Answer) {
    let mut device = Device::parse(text);
    let (ledger, answer) = obey(&device.situation(), order);
    device.ledger = ledger;
    (device, answer)
}

#[test]
fn a_held_device_stays_as_it_is() {
    check(&[
        ("fetch", "hold, target 2, good 1, db@1 running, web@1 running", "pull r/db:2, pull r/web:2"),
        (
            "create",
            "hold, target 2, good 1, have 2, db@1 running, web@1 running",
            "create db@2, create web@2",
        ),
        (
            "no trial begins",
            "hold, target 2, good 1, db@1 running, web@1 running, db@2 created, web@2 created",
            "wait all held",
        ),
        (
            "the good release is kept alive",
            "hold, target 2, good 1, have 1, db@1 exited, db@2 created, web@2 created",
            "start db db-1, create web@1, wait all held",
        ),
        (
            "also when the wanted release is the good one",
            "hold, target 1, good 1, db@1 exited, web@1 running",
            "start db db-1",
        ),
        (
            "half swapped: what runs goes on, what was cut comes back as it was",
            "hold, target 2, good 1, trial 2, db@1 exited, stopped db@1, db@2 running, web@1 exited, stopped web@1, web@2 created",
            "start web web-1, wait all held",
        ),
        (
            "a bad trial is not judged",
            "hold, target 2, good 1, trial 2 900, db@1 exited, web@1 exited, db@2 running, web@2 unhealthy",
            "wait web unhealthy",
        ),
        (
            "a good one is accepted",
            "hold, target 2, good 1, trial 2, steady 10, db@1 exited, web@1 exited, db@2 running, web@2 healthy",
            "commit 2",
        ),
        (
            "and what it replaced goes",
            "hold, target 2, good 2, db@1 exited, web@1 exited, db@2 running, web@2 healthy",
            "remove db db-1, remove web web-1",
        ),
        (
            "a way back waits, too",
            "hold, target 2, good 1, rejected 2, db@1 running, web@1 exited, stopped web@1, db@2 exited, web@2 running",
            "wait all rejected, wait all held",
        ),
        ("a first release does not start", "hold, target 1, db@1 created, web@1 created", "wait all held"),
        (
            "one that has begun goes on",
            "hold, target 1, trial 1, db@1 running, web@1 created",
            "start web web-1",
        ),
        ("a service that is dropped", "hold, target 3, good 3, db@1 running, web@3 running", "wait all held"),
        (
            "an app without a release",
            "hold, target none, db@1 running, web@1 exited, good 1",
            "wait all held",
        ),
        ("of which nothing runs", "hold, target none, web@1 exited, good 1", "remove web web-1"),
        ("an app that is gone", "hold, target other, db@1 running, good 1", "wait all held"),
    ]);
}

#[test]
fn the_checker_knows_what_a_hold_forbids() {
    let (app, service) = (app(), name("db"));
    let container = |id: &str| ContainerId::parse(id).unwrap();
    let stop = Step::Stop {
        app: app.clone(),
        service: service.clone(),
        container: container("db-1"),
        grace: std::time::Duration::ZERO,
    };
    let start = Step::Start { app: app.clone(), service, container: container("db-2") };
    let begin = Step::Try { app, release: release(2).commit };
    for (text, step) in [("running", stop), ("exited", start), ("exited", begin)] {
        let text = format!("target 2, good 1, db@1 {text}, db@2 created, web@2 created");
        let plan = Plan { stage: vec![step.clone()], waiting: Vec::new() };
        assert_eq!(violations(&Device::parse(&text).situation(), &plan), Vec::<String>::new(), "{text}");
        let device = Device::parse(&format!("hold, {text}"));
        assert_eq!(violations(&device.situation(), &plan), [format!("{step}: the device is held")]);
    }
}

#[test]
fn images_of_the_release_before_stay() {
    check(&[
        (
            "they stay",
            "target 2, good 2, previous 1, db@2 running, web@2 running, have 1 2 4, pulled 1 2 4",
            "remove-image r/db:4, remove-image r/web:4",
        ),
        ("at rest", "target 2, good 2, previous 1, db@2 running, web@2 running, have 1 2, pulled 1 2", ""),
    ]);
    let device = Device::parse("target 2, good 2, previous 1, have 1 2, pulled 1 2");
    let image = super::image("db", 1);
    let step = Step::RemoveImage { image };
    let plan = Plan { stage: vec![step.clone()], waiting: Vec::new() };
    assert_eq!(violations(&device.situation(), &plan), [format!("{step}: a release needs it")]);
}

#[test]
fn an_operator_takes_a_release_back() {
    let rows = [
        (
            "after its commit: the one before is made again from its images",
            "target 2, good 2, previous 1, have 1 2, db@2 running, web@2 running",
            Ok("create db@1, create web@1, wait all rejected"),
        ),
        (
            "on trial: the good one comes back from its stopped containers",
            "target 2, good 1, trial 2, db@1 exited, stopped db@1, web@1 exited, stopped web@1, db@2 running, web@2 running",
            Ok("stop db db-2, start db db-1, stop web web-2, start web web-1, wait all rejected"),
        ),
        ("before it began", "target 2, good 1, have 1, db@1 running, web@1 running", Ok("wait all rejected")),
        (
            "nothing before it",
            "target 2, good 2, have 1 2, db@2 running, web@2 running",
            Err(Answer::Refused("there is no earlier good release of demo to go back to".into())),
        ),
        (
            "a first release",
            "target 2, trial 2, db@2 running, web@2 running",
            Err(Answer::Refused("there is no earlier good release of demo to go back to".into())),
        ),
        (
            "an image was taken away",
            "target 2, good 2, previous 1, have 2 db@1, db@2 running, web@2 running",
            Err(Answer::Refused("image r/web:1 of release 1 is not here any more".into())),
        ),
        (
            "twice",
            "target 2, good 1, previous 3, have 3, rejected 2, db@1 running, web@1 running",
            Err(Answer::Refused("release 2 was taken back already: it was bad".into())),
        ),
        (
            "held",
            "hold, target 2, good 1, db@1 running, web@1 running",
            Err(Answer::Held("the device is held since noon: audit; `cotter unhold` first".into())),
        ),
        (
            "no release",
            "target none, good 1, previous 2, have 1 2",
            Err(Answer::Refused("no release is wanted that could be taken back".into())),
        ),
        (
            "no target",
            "good 1, previous 2, have 1 2",
            Err(Answer::Refused("no release is wanted that could be taken back".into())),
        ),
    ];
    for (why, text, expected) in rows {
        let (device, answer) = ordered(text, &Order::Rollback { app: None });
        match expected {
            Ok(plan) => {
                assert!(matches!(answer, Answer::Done(_)), "{why}: {answer:?}");
                assert_eq!(device.told(), plan, "{why}");
            }
            Err(refusal) => {
                assert_eq!(answer, refusal, "{why}");
                assert_eq!(device.ledger, Device::parse(text).ledger, "{why}: nothing is changed");
            }
        }
    }
}

#[test]
fn an_operator_tries_again() {
    let retry = Order::Retry { app: None };
    let (device, _) = ordered("target 2, good 1, rejected 2, have 2, db@1 running, web@1 running", &retry);
    assert_eq!(device.told(), "create db@2, create web@2");
    let text = "target 6, good 1, rejected 6, web@1 running, job@6 failed, web@6 exited, stopped web@6";
    let (device, _) = ordered(text, &retry);
    assert_eq!(device.told(), "try 6");
    let mut device = device;
    let plan = device.plan();
    device.apply(&plan.stage[0], |_| true);
    assert_eq!(
        device.told(),
        "start job job-6, stop web web-1, start web web-6",
        "how it ended before is past"
    );
    let (_, answer) = ordered("target 2, good 1, db@1 running", &retry);
    assert_eq!(answer, Answer::Done("nothing to retry".into()));
    let (_, answer) = ordered("hold, target 2, good 1, rejected 2", &retry);
    let told = "release 2 of demo is tried again; nothing is swapped before `cotter unhold`";
    assert_eq!(answer, Answer::Done(told.into()));
}

proptest! {
    /// Whatever is wanted and whatever happens, a held device stops nothing that is up; when it is
    /// held no longer, it runs what is wanted.
    #[test]
    fn a_held_device_stops_nothing_that_is_up(
        before in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
        acts in prop::collection::vec((0_u8..5, 0_u8..6, any::<prop::sample::Index>()), 0..40),
    ) {
        let mut device = Device::parse("target 2, good 1, have 1, db@1 running, web@1 running");
        let run = |device: &mut Device, upto: usize| {
            for step in &device.plan().stage[..upto] { device.apply(step, |_| true); }
        };
        // The hold comes anywhere in an update.
        for cut in before {
            device.pass();
            let upto = cut.index(device.plan().stage.len() + 1);
            run(&mut device, upto);
        }
        device.ledger.hold = Device::parse("hold").ledger.hold;
        for (act, number, which) in acts {
            device.steady.clear();
            let count = device.observed.services.len();
            match act {
                0 => device.retarget(number + 1),
                1 if count > 0 => device.observed.services[which.index(count)].state = ContainerState::Exited { code: 137 },
                2 => device.pass(),
                _ => {
                    let stops = device.plan().stage.iter().any(|s| matches!(s, Step::Stop { .. }));
                    prop_assert!(!stops, "{}", device.shown());
                    let upto = which.index(device.plan().stage.len() + 1);
                    run(&mut device, upto);
                }
            }
        }
        device.ledger.hold = None;
        device.retarget(2);
        for _ in 0..40 {
            device.pass();
            let upto = device.plan().stage.len();
            run(&mut device, upto);
        }
        for service in ["db", "web"] {
            let is_it = |s: &&crate::model::ObservedService| {
                s.spec == hash(service, 2) && s.state == ContainerState::Running
            };
            prop_assert!(device.observed.services.iter().any(|s| is_it(&s)), "{}", device.shown());
        }
        prop_assert_eq!(device.observed.services.len(), 2);
    }
}

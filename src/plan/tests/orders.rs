//! An operator's orders: hold, rollback, retry, force; services stopped and started; leases.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use super::{Device, app, check, hash, name, release};
use crate::model::{
    Answer, App, AppId, ContainerId, ContainerState, FileLock, Lease, OfService, Order, Plan, Step,
    TargetApp, WantedApp,
};
use crate::plan::{apply_order, report, violations};

/// Gives an order. Returns the device afterwards, and the answer.
fn ordered(text: &str, order: &Order) -> (Device, Answer) {
    let mut device = Device::parse(text);
    let (ledger, answer) = apply_order(&device.situation(), order);
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
            "fence db db-2, start db db-1, create web@1, wait all held",
        ),
        (
            "also when the wanted release is the good one",
            "hold, target 1, good 1, db@1 exited, web@1 running",
            "start db db-1",
        ),
        (
            "half swapped: what runs goes on, what was cut comes back as it was",
            "hold, target 2, good 1, trial 2, db@1 exited, stopped db@1, db@2 running, web@1 exited, stopped web@1, web@2 created",
            "fence web web-2, start web web-1, wait all held",
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
            "a rollback waits, too",
            "hold, target 2, good 1, rejected 2, db@1 running, web@1 exited, stopped web@1, db@2 exited, web@2 running",
            "wait all rejected, wait all held",
        ),
        ("a first release does not start", "hold, target 1, db@1 created, web@1 created", "wait all held"),
        (
            "one that has begun goes on",
            "hold, target 1, trial 1, db@1 running, web@1 created",
            "start web web-1",
        ),
        (
            "what is unwell of a trial that was cut off stays up",
            "hold, target 3, good 1, pulling web@3, db@1 exited, stopped db@1, web@1 exited, stopped web@1, db@2 running, web@2 restarting",
            "wait web downloading",
        ),
        (
            "what runs of a trial that was cut off is not tried",
            "hold, target 5, good 1, db@5 running, web@1 running",
            "wait all held",
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
    for (text, step) in [("running", stop), ("removing", start), ("exited", begin)] {
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
            Err(Answer::Refused("there is no earlier accepted release of demo to roll back to".into())),
        ),
        (
            "a first release",
            "target 2, trial 2, db@2 running, web@2 running",
            Err(Answer::Refused("there is no earlier accepted release of demo to roll back to".into())),
        ),
        (
            "an image was taken away",
            "target 2, good 2, previous 1, have 2 db@1, db@2 running, web@2 running",
            Err(Answer::Refused("image r/web:1 of release 1 is no longer on this device".into())),
        ),
        (
            "twice",
            "target 2, good 1, previous 3, have 3, rejected 2, db@1 running, web@1 running",
            Err(Answer::Refused("release 2 was rejected already: it was bad".into())),
        ),
        (
            "held",
            "hold, target 2, good 1, db@1 running, web@1 running",
            Err(Answer::Held("the device is held since noon: audit; `cotter unhold` first".into())),
        ),
        (
            "no release",
            "target none, good 1, previous 2, have 1 2",
            Err(Answer::Refused("no release is wanted that could be rolled back".into())),
        ),
        (
            "no target",
            "good 1, previous 2, have 1 2",
            Err(Answer::Refused("no release is wanted that could be rolled back".into())),
        ),
    ];
    for (why, text, expected) in rows {
        let (device, answer) = ordered(text, &Order::Rollback { app: None });
        match expected {
            Ok(plan) => {
                assert!(matches!(answer, Answer::Done(_)), "{why}: {answer:?}");
                assert_eq!(device.planned(), plan, "{why}");
                let entry = &device.ledger.apps[&app()];
                assert_eq!(
                    (&entry.good, &entry.previous),
                    (&Some(release(1)), &None),
                    "{why}: it is used once"
                );
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
    assert_eq!(device.planned(), "create db@2, create web@2");
    let text = "target 6, good 1, rejected 6, web@1 running, job@6 failed, web@6 exited, stopped web@6";
    let (device, _) = ordered(text, &retry);
    assert_eq!(device.planned(), "try 6");
    let mut device = device;
    let plan = device.plan();
    device.apply(&plan.stage[0], |_| true);
    assert_eq!(
        device.planned(),
        "start job job-6, stop web web-1, start web web-6",
        "how it ended before is past"
    );
    let text = "target 5, good 1, rejected 5, db@1 running, db@5 failed, web@1 exited";
    let (device, _) = ordered(text, &retry);
    let stopped: Vec<_> =
        device.ledger.apps[&app()].stopped_by_agent.iter().map(ToString::to_string).collect();
    assert_eq!(stopped, ["db-5"], "web is of the good release, too, and has ended for it");
    let (_, answer) = ordered("target 2, good 1, db@1 running", &retry);
    assert_eq!(answer, Answer::Done("nothing to retry".into()));
    let (_, answer) = ordered("hold, target 2, good 1, rejected 2", &retry);
    let line = "release 2 of demo is tried again; nothing is swapped before `cotter unhold`";
    assert_eq!(answer, Answer::Done(line.into()));
}

proptest! {
    /// A held device stops nothing that is up, whatever is wanted and whatever happens. After the hold it runs what is
    /// wanted.
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

fn of_service(service: &str) -> OfService {
    OfService { app: None, service: service.into() }
}

fn stop(service: &str) -> Order {
    Order::Stop { service: of_service(service), is_forced: false, since: "noon".into() }
}

fn restart(service: &str) -> Order {
    Order::Restart { service: of_service(service), is_forced: false }
}

fn lease(id: &str, until: u64) -> Lease {
    Lease {
        id: id.into(),
        owner: "kiosk".into(),
        reason: "show".into(),
        boot_id: "boot".into(),
        until: Duration::from_secs(until),
    }
}

/// What operators' orders have changed in the app's ledger, in words.
fn left(device: &Device) -> String {
    let entry = device.ledger.apps.get(&app()).cloned().unwrap_or_default();
    let mut left: Vec<String> = Vec::new();
    let number = |service: &str, spec: &_| (1..=8).find(|n| hash(service, *n) == *spec).unwrap();
    left.extend(
        entry
            .stopped_by_operator
            .iter()
            .map(|(s, halt)| format!("halted {s}@{}", number(s.as_str(), &halt.spec))),
    );
    left.extend(entry.restart.iter().map(|id| format!("restart {id}")));
    left.extend(entry.heals.iter().map(|(s, n)| format!("heals {s} {n}")));
    left.extend(entry.forced.iter().map(|key| format!("forced {}", key.commit)));
    left.extend(device.ledger.leases.iter().map(|l| format!("lease {} {}", l.id, l.until.as_secs())));
    left.join(", ")
}

/// Gives an order. Returns the answer, and what it changed in the ledger.
fn give(device: &mut Device, order: &Order) -> (Answer, String) {
    let (ledger, answer) = apply_order(&device.situation(), order);
    device.ledger = ledger;
    (answer, left(device))
}

#[test]
fn an_operator_stops_a_service() {
    let done = |line: &str| Answer::Done(line.into());
    let db =
        "service db of demo is stopped and stays so until `cotter start db` or a release that changes it";
    for (why, text, service, answer, expected) in [
        ("what runs", "target 1, good 1, db@1 running, web@1 running", "db", done(db), "halted db@1"),
        (
            "while the next is fetched",
            "target 2, good 1, db@1 running, web@1 running",
            "db",
            done(db),
            "halted db@1",
        ),
        ("on trial", "target 2, good 1, trial 2, db@1 exited, db@2 running", "db", done(db), "halted db@2"),
        (
            "between stop and start",
            "target 2, good 1, trial 2, db@1 exited, db@2 created",
            "db",
            done(db),
            "halted db@2",
        ),
        (
            "after its trial failed",
            "target 2, good 1, trial 2, rejected 2, db@1 exited, db@2 exited",
            "db",
            done(db),
            "halted db@1",
        ),
        ("before anything runs", "target 2", "db", done(db), "halted db@2"),
        ("of a refused app", "target refused, good 1, db@1 running", "db", done(db), "halted db@1"),
        (
            "one that there is not",
            "target 1, good 1, db@1 running",
            "cache",
            Answer::NotFound("this device has no service cache: demo has db, web".into()),
            "",
        ),
        (
            "without anything",
            "target none",
            "db",
            Answer::NotFound("this device has no service db: there is none".into()),
            "",
        ),
        (
            "held",
            "hold, target 1, good 1, db@1 running",
            "db",
            Answer::Held("the device is held since noon: audit; `cotter unhold` first".into()),
            "",
        ),
    ] {
        let mut device = Device::parse(text);
        assert_eq!(give(&mut device, &stop(service)), (answer, expected.to_owned()), "{why}");
    }
    let mut device = Device::parse("target 1, good 1, db@1 running, web@1 running");
    give(&mut device, &restart("db"));
    give(&mut device, &stop("db"));
    assert_eq!(left(&device), "halted db@1", "a restart that was not made yet is not made any more");
    let again = give(&mut device, &stop("db"));
    assert_eq!(again, (done("service db of demo is stopped already, since noon"), "halted db@1".into()));
    device.retarget(2);
    device.ledger.apps.get_mut(&app()).unwrap().good = Some(release(2));
    device.observed.services.clear();
    let changed = give(&mut device, &stop("db"));
    assert_eq!(changed, (done(db), "halted db@2".into()), "another spec is another service");
}

#[test]
fn an_operator_starts_a_service() {
    let start = |service| Order::Start { service: of_service(service) };
    let mut device = Device::parse("target 1, good 1, db@1 running, web@1 running");
    let (answer, _) = give(&mut device, &start("db"));
    assert_eq!(
        answer,
        Answer::Done("there is nothing to start: no operator stopped service db of demo".into())
    );
    give(&mut device, &stop("db"));
    device.ledger.hold = Device::parse("hold").ledger.hold;
    device.ledger.leases.push(lease("a1", 60));
    let line = "service db of demo is started again (it was stopped since noon)";
    assert_eq!(give(&mut device, &start("db")), (Answer::Done(line.into()), "lease a1 60".into()));
    // Also one that no release has any more.
    device.ledger.hold = None;
    device.ledger.leases.clear();
    give(&mut device, &stop("db"));
    device.target = Device::parse("target none").target;
    device.ledger.apps.get_mut(&app()).unwrap().good = None;
    let gone = "service db of demo is in no release that this device runs or wants";
    assert_eq!(give(&mut device, &stop("db")).0, Answer::NotFound(gone.into()));
    assert_eq!(give(&mut device, &start("db")), (Answer::Done(line.into()), String::new()));
}

#[test]
fn an_operator_restarts_a_service() {
    let done = Answer::Done("service db of demo is stopped and started again".into());
    let nothing = Answer::Refused("service db of demo has no container that runs".into());
    for (why, text, answer, expected) in [
        ("what runs", "target 1, good 1, db@1 running", done.clone(), "restart db-1"),
        ("one that the engine restarts", "target 1, good 1, db@1 restarting", done.clone(), "restart db-1"),
        (
            "of the successor that runs beside its predecessor, the one wanted",
            "target 2, good 1, trial 2, db@1 running, db@2 running",
            done,
            "restart db-2",
        ),
        ("that has ended", "target 1, good 1, db@1 exited", nothing.clone(), ""),
        ("without a container", "target 1, good 1", nothing, ""),
        (
            "held",
            "hold, target 1, good 1, db@1 running",
            Answer::Held("the device is held since noon: audit; `cotter unhold` first".into()),
            "",
        ),
    ] {
        let mut device = Device::parse(text);
        assert_eq!(give(&mut device, &restart("db")), (answer, expected.to_owned()), "{why}");
    }
    let mut device = Device::parse("target 1, good 1, db@1 running");
    give(&mut device, &stop("db"));
    let line = "service db of demo is stopped since noon; `cotter start db` starts it";
    assert_eq!(give(&mut device, &restart("db")), (Answer::Refused(line.into()), "halted db@1".into()));
}

#[test]
fn a_locked_service_is_stopped_only_by_force() {
    let by_file = "updates are locked by service web of demo: /tmp/balena/updates.lock; --force passes this";
    let by_lease = "updates are locked by kiosk: show (lock a1); --force passes this";
    let with_file = |device: &mut Device| {
        let lock = FileLock { path: "/tmp/balena/updates.lock".into() };
        device.facts.locks.insert(app(), BTreeMap::from([(name("web"), lock)]));
    };
    let of_stopped = |device: &mut Device| {
        with_file(device);
        device.read("halted web@1");
        device.observed.services.retain(|seen| seen.service == name("db"));
    };
    let with_lease = |device: &mut Device| device.ledger.leases.push(lease("a1", 60));
    let ended = |device: &mut Device| {
        device.ledger.leases.push(lease("a1", 60));
        device.facts.uptime = Duration::from_secs(60);
    };
    let overridden = |device: &mut Device| {
        with_file(device);
        with_lease(device);
        device.target.as_mut().unwrap().is_lock_overridden = true;
    };
    type Case<'a> = (&'a str, &'a dyn Fn(&mut Device), Option<&'a str>);
    let cases: [Case<'_>; 5] = [
        ("a file", &with_file, Some(by_file)),
        ("a file of a service that an operator stopped", &of_stopped, None),
        ("a lease", &with_lease, Some(by_lease)),
        ("a lease that has ended", &ended, None),
        ("the cloud passes over locks", &overridden, None),
    ];
    for (why, lock, held) in cases {
        for (is_forced, is_stop) in [(false, true), (false, false), (true, true), (true, false)] {
            let mut device = Device::parse("target 1, good 1, db@1 running, web@1 running");
            lock(&mut device);
            let service = of_service("db");
            let order = if is_stop {
                Order::Stop { service, is_forced, since: "noon".into() }
            } else {
                Order::Restart { service, is_forced }
            };
            let (_, answer) = apply_order(&device.situation(), &order);
            match held {
                Some(line) if !is_forced => assert_eq!(answer, Answer::Held(line.into()), "{why}"),
                _ => assert!(matches!(answer, Answer::Done(_)), "{why} {is_forced}: {answer:?}"),
            }
        }
    }
}

#[test]
fn a_service_of_several_apps_is_named_with_its_app() {
    let mut device = Device::parse("target 1, good 1, db@1 running, web@1 running");
    let other = AppId::parse("b".repeat(32)).unwrap();
    let wanted = WantedApp {
        app: App { id: other.clone(), number: 2, name: "second".into() },
        release: Some(release(2)),
        warnings: Vec::new(),
    };
    device.target.as_mut().unwrap().apps.insert(other.clone(), TargetApp::Wanted(wanted));
    let (answer, _) = give(&mut device, &stop("db"));
    let Answer::Refused(line) = answer else { panic!("{answer:?}") };
    assert!(line.starts_with("several apps have a service db; name one with --app: "), "{line}");
    let of = |app: &str| OfService { app: Some(app.into()), service: "db".into() };
    let order = Order::Stop { service: of("second"), is_forced: false, since: "noon".into() };
    assert!(matches!(give(&mut device, &order).0, Answer::Done(_)));
    assert_eq!(device.ledger.apps[&other].stopped_by_operator[&name("db")].spec, hash("db", 2));
    assert_eq!(left(&device), "", "the first app is not touched");
    let order = Order::Start { service: of("third") };
    assert_eq!(
        give(&mut device, &order).0,
        Answer::NotFound("this device has no app third; `cotter status` names its apps".into())
    );
}

#[test]
fn leases_are_given_renewed_and_ended() {
    let renew = |id: &str, until| Order::Renew { id: id.into(), until: Duration::from_secs(until) };
    let end = |id: &str| Order::Unlock { id: id.into() };
    let none = Answer::NotFound("there is no lock a1; it may have ended".into());
    let mut device = Device::parse("target 1, good 1, db@1 running");
    assert_eq!(give(&mut device, &renew("a1", 90)), (none.clone(), String::new()));
    let line = "updates are locked; `cotter lock release a1` unlocks them";
    assert_eq!(
        give(&mut device, &Order::Lock(lease("a1", 60))),
        (Answer::Done(line.into()), "lease a1 60".into())
    );
    assert_eq!(give(&mut device, &Order::Lock(lease("a1", 70))).1, "lease a1 70", "the same id once");
    let line = "lock a1 of kiosk is renewed";
    assert_eq!(give(&mut device, &renew("a1", 90)), (Answer::Done(line.into()), "lease a1 90".into()));
    device.facts.uptime = Duration::from_secs(89);
    assert_eq!(give(&mut device, &renew("a1", 80)).1, "lease a1 80", "it may end sooner");
    assert_eq!(give(&mut device, &renew("a1", 100)).0, none, "it has ended");
    give(&mut device, &Order::Lock(lease("b2", 200)));
    assert_eq!(left(&device), "lease b2 200", "what has ended goes with the next order");
    give(&mut device, &Order::Lock(lease("c3", 200)));
    give(&mut device, &Order::Lock(lease("d4", 200)));
    for (id, line) in [
        ("b2", "lock b2 of kiosk is released; others are in force"),
        ("c3", "lock c3 of kiosk is released; another one is in force"),
        ("d4", "lock d4 of kiosk is released"),
    ] {
        assert_eq!(give(&mut device, &end(id)).0, Answer::Done(line.into()));
    }
    assert_eq!(give(&mut device, &end("a1")), (none.clone(), String::new()));
    // Those of another boot.
    device.ledger.leases.push(Lease { boot_id: "before".into(), ..lease("a1", 500) });
    assert_eq!(give(&mut device, &renew("a1", 600)).0, none);
    give(&mut device, &Order::Unhold);
    assert_eq!(left(&device), "");
}

#[test]
fn no_lease_is_given_while_an_update_is_under_way() {
    let held = || Answer::Held("an update of demo is under way; ask again when it is done".into());
    let lock = Order::Lock(lease("a1", 60));
    for (why, text, is_given) in [
        ("on trial", "target 2, good 1, trial 2, db@2 running, web@1 running", false),
        ("in its rollback", "target 2, good 1, rejected 2, own, db@1 running, web@2 running", false),
        ("back", "target 2, good 1, rejected 2, db@1 running, web@1 running", true),
        ("a first release", "target 2, trial 2, db@2 running", true),
        ("not begun", "target 2, good 1, db@1 running, web@1 running, pulling web@2", true),
    ] {
        let mut device = Device::parse(text);
        let (answer, left) = give(&mut device, &lock);
        assert_eq!((answer == held(), !left.is_empty()), (!is_given, is_given), "{why}: {answer:?}");
    }
}

#[test]
fn there_are_no_more_than_64_leases() {
    let mut device = Device::parse("target 1");
    for n in 0..64 {
        assert!(matches!(give(&mut device, &Order::Lock(lease(&format!("l{n}"), 60))).0, Answer::Done(_)));
    }
    let before = device.ledger.clone();
    let full = Answer::Refused("there are 64 locks already; release one first".into());
    assert_eq!(give(&mut device, &Order::Lock(lease("more", 60))).0, full);
    assert_eq!(device.ledger, before);
    device.facts.uptime = Duration::from_secs(60);
    give(&mut device, &Order::Lock(lease("more", 99)));
    assert_eq!(left(&device), "lease more 99", "those that have ended do not count");
}

#[test]
fn an_operator_lets_a_release_pass() {
    let force = |app: Option<&str>| Order::Force { app: app.map(str::to_owned) };
    let done = |line: &str| Answer::Done(line.into());
    for (text, app, answer, expected) in [
        ("target 2, good 1", None, done("release 2 of demo passes locks and windows once"), "forced 2"),
        (
            "target 2, good 1",
            Some("demo"),
            done("release 2 of demo passes locks and windows once"),
            "forced 2",
        ),
        (
            "hold, target 2, good 1, rejected 2",
            None,
            done(
                "release 2 of demo passes locks and windows once; 2 was rejected, and `cotter retry` tries it again; \
                 nothing is swapped before `cotter unhold`",
            ),
            "forced 2",
        ),
        (
            "target 2",
            Some("other"),
            Answer::NotFound("this device has no app other; `cotter status` names its apps".into()),
            "",
        ),
        (
            "target none, good 1",
            None,
            Answer::Refused("no release is wanted that could pass locks".into()),
            "",
        ),
        (
            "target none, good 1",
            Some("demo"),
            Answer::Refused("no release of demo is wanted that could pass locks".into()),
            "",
        ),
        ("good 1", None, Answer::Refused("no release is wanted that could pass locks".into()), ""),
    ] {
        let mut device = Device::parse(text);
        assert_eq!(give(&mut device, &force(app)), (answer, expected.to_owned()), "{text}");
    }
}

#[test]
fn a_retry_lets_unhealthy_services_be_restarted_again() {
    let mut device = Device::parse("target 1, good 1, web@1 unhealthy");
    device.ledger.apps.get_mut(&app()).unwrap().heals.insert(name("web"), 3);
    let line = "unhealthy services of demo are restarted again";
    let retry = Order::Retry { app: None };
    assert_eq!(give(&mut device, &retry), (Answer::Done(line.into()), String::new()));
    assert_eq!(give(&mut device, &retry).0, Answer::Done("nothing to retry".into()));
}

#[test]
fn the_report_tells_what_the_hand_did() {
    let mut device = Device::parse("target 2, good 1, db@1 running, web@1 running");
    give(&mut device, &stop("db"));
    give(&mut device, &Order::Lock(lease("a1", 60)));
    give(&mut device, &Order::Force { app: None });
    let report = report(&device.situation(), &device.plan());
    assert_eq!(report.leases, [lease("a1", 60)]);
    let reported = &report.apps[&app()];
    assert_eq!(reported.stopped_by_operator.keys().collect::<Vec<_>>(), [&name("db")]);
    assert_eq!(reported.forced, Some(release(2).commit));
    device.ledger.apps.get_mut(&app()).unwrap().good = Some(release(2));
    let report = crate::plan::report(&device.situation(), &device.plan());
    assert!(report.apps[&app()].stopped_by_operator.is_empty(), "the spec that was stopped is gone");
}

#[test]
fn what_a_rejected_release_has_in_common_is_reported_as_the_accepted_ones() {
    let device = Device::parse("target 5, good 1, rejected 5, db@1 running, web@1 running");
    let plan = device.plan();
    let reported = report(&device.situation(), &plan).apps.remove(&app()).unwrap();
    let rows: Vec<_> =
        reported.services.iter().map(|it| (it.service.to_string(), it.release.clone())).collect();
    let accepted = release(1).commit;
    assert_eq!(rows, [("db".to_owned(), accepted.clone()), ("web".to_owned(), accepted)]);
}

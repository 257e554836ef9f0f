//! Tables and properties of the planner. `story.rs` has the language of the tables.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

mod downloads;
mod engine;
mod forecast;
mod gate;
mod joined;
mod leftovers;
mod networks;
mod orders;
mod preflight;
mod purge;
mod record;
mod restart;
mod story;
mod strategies;

use super::{plan, violations};
use crate::model::*;
use story::{Device, app, hash, image, lan, name, release, target};

#[track_caller]
fn check(rows: &[(&str, &str, &str)]) {
    for (why, device, expected) in rows {
        assert_eq!(Device::parse(device).planned(), *expected, "{why}");
    }
}

#[test]
fn a_first_install() {
    check(&[
        ("pull two at once", "bare, target 1", "pull r/db:1, pull r/web:1"),
        (
            "and no more",
            "bare, target 13, have a@13 b@13 c@13",
            "pull r/d:13, pull r/e:13, wait f downloading",
        ),
        (
            "a pull under way is not begun again",
            "bare, target 1, pulling db@1, have web@1",
            "wait db downloading",
        ),
        ("then networks", "bare, target 1, have 1", "create-network default"),
        ("then all containers", "target 1, have 1", "create db@1, create web@1"),
        ("then write down that it is tried", "target 1, have 1, db@1 created, web@1 created", "try 1"),
        (
            "then start them",
            "target 1, trial 1, have 1, db@1 created, web@1 created",
            "start db db-1, start web web-1",
        ),
        ("watch them", "target 1, trial 1, db@1 running, web@1 running", "wait all trial"),
        (
            "commit when all were well for long enough",
            "target 1, trial 1, steady 10, db@1 running, web@1 running",
            "commit 1",
        ),
        ("rest", "target 1, have 1, db@1 running, web@1 running, good 1", ""),
        (
            "images are not needed once there is a container",
            "target 1, db@1 running, web@1 running, good 1",
            "",
        ),
    ]);
}

#[test]
fn from_release_1_to_2() {
    check(&[
        ("pull first", "target 2, good 1, have 1, db@1 running, web@1 running", "pull r/db:2, pull r/web:2"),
        (
            "create all before stopping any",
            "target 2, good 1, have 1 2, db@1 running, web@1 running, db@2 created",
            "create web@2",
        ),
        (
            "a container that the engine is removing is created again later",
            "target 2, good 1, have 1 2, db@1 running, web@1 running, db@2 created, web@2 removing",
            "wait web starting",
        ),
        (
            "write down that it is tried",
            "target 2, good 1, have 1 2, db@1 running, web@1 running, db@2 created, web@2 created",
            "try 2",
        ),
        (
            "the trial of another release says nothing of this one",
            "target 2, good 1, trial 3 400 3, have 1 2, db@1 running, web@1 running, db@2 created, web@2 created",
            "try 2",
        ),
        (
            "stop and start service by service",
            "target 2, good 1, trial 2, db@1 running, web@1 running, db@2 created, web@2 created",
            "stop db db-1, start db db-2, stop web web-1, start web web-2",
        ),
        (
            "cut between stop and start",
            "target 2, good 1, trial 2, db@1 exited, stopped db@1, web@1 running, db@2 created, web@2 created",
            "fence db db-1, start db db-2, stop web web-1, start web web-2",
        ),
        (
            "nothing is removed before all run",
            "target 2, good 1, trial 2, db@1 exited, web@1 exited, db@2 running, web@2 starting",
            "wait web starting",
        ),
        (
            "watch them",
            "target 2, good 1, trial 2, steady 9, db@1 exited, web@1 exited, db@2 running, web@2 healthy",
            "wait all trial",
        ),
        (
            "commit",
            "target 2, good 1, trial 2, steady 10, db@1 exited, web@1 exited, db@2 running, web@2 healthy",
            "commit 2",
        ),
        (
            "then the predecessors go",
            "target 2, good 2, db@1 exited, web@1 exited, db@2 running, web@2 healthy",
            "remove db db-1, remove web web-1",
        ),
        (
            "but not while a service is unhealthy",
            "target 2, good 2, db@1 exited, web@1 exited, db@2 running, web@2 unhealthy, healed web 3",
            "wait web unhealthy",
        ),
        (
            "then images that we pulled and nothing needs",
            "target 2, good 2, db@2 running, web@2 healthy, have 1 2, pulled 1 2",
            "remove-image r/db:1, remove-image r/web:1",
        ),
        (
            "but not the image of a container that the engine is still removing",
            "target 2, good 2, db@2 running, web@2 healthy, web@1 removing, have 1 2, pulled 1 2",
            "remove-image r/db:1",
        ),
        (
            "not before other steps",
            "target 2, good 2, db@2 exited, web@2 healthy, have 1 2, pulled 1 2",
            "start db db-2",
        ),
        (
            "nor during a pull",
            "target 2, good 2, db@2 running, web@2 healthy, have 1 2, pulled 1 2, pulling x@9",
            "",
        ),
        ("images of others stay", "target 2, good 2, db@2 running, web@2 healthy, have 1 2, pulled 2", ""),
    ]);
}

#[test]
fn what_does_not_change_is_not_touched() {
    check(&[
        (
            "release 5 keeps web",
            "target 5, good 1, trial 5, have 5, db@1 running, web@1 running, db@5 created",
            "stop db db-1, start db db-5",
        ),
        ("same specs under another commit", "target 23, good 1, db@1 running, web@1 running", "commit 23"),
        (
            "what runs of it since a trial that another target cut off is tried",
            "target 5, good 1, db@5 running, web@1 running",
            "try 5",
        ),
        (
            "also when it is all well",
            "target 2, good 1, db@1 exited, stopped db@1, web@1 exited, stopped web@1, db@2 running, web@2 healthy",
            "try 2",
        ),
        (
            "where no release is known to be good, what runs is watched, and nothing could be gone back to",
            "target 2, db@2 running, web@2 running",
            "wait all trial",
        ),
        (
            "a service that the release drops",
            "target 3, good 1, trial 3, have 3, db@1 running, web@1 running, web@3 created",
            "stop web web-1, start web web-3, stop db db-1",
        ),
        ("and is removed after", "target 3, good 3, db@1 exited, web@3 running", "remove db db-1"),
    ]);
}

#[test]
fn a_bad_release_is_taken_back() {
    let on = |state| {
        format!(
            "target 2, good 1, trial 2 5, db@1 exited, stopped db@1, web@1 exited, stopped web@1, db@2 running, {state}"
        )
    };
    for (why, state, expected) in [
        ("unhealthy", "web@2 unhealthy", "reject 2: web is unhealthy"),
        ("one restart may be bad luck", "web@2 restarting, restarts 2", "wait web unhealthy"),
        (
            "three are a crash loop",
            "web@2 restarting, restarts 3",
            "reject 2: db was restarted 3 times by the engine",
        ),
        ("still starting", "web@2 starting", "wait web starting"),
    ] {
        assert_eq!(Device::parse(&on(state)).planned(), expected, "{why}");
    }
    check(&[
        (
            "not good by the deadline",
            "target 2, good 1, trial 2 300, db@1 exited, web@1 exited, db@2 running, web@2 starting",
            "reject 2: not accepted within 5 min",
        ),
        (
            "a service that exits is started again",
            "target 2, good 1, trial 2 5, db@1 exited, web@1 exited, db@2 running, web@2 failed",
            "fence web web-1, start web web-2",
        ),
        (
            "a container that failed to start twice is tried again",
            "target 2, good 1, trial 2 5, db@1 exited, web@1 exited, db@2 running, web@2 created, tried start web@2 2",
            "fence web web-1, start web web-2",
        ),
        (
            "one that failed to start three times",
            "target 2, good 1, trial 2 5, db@1 exited, web@1 exited, db@2 running, web@2 created, tried start web@2 3",
            "reject 2: web does not start: no",
        ),
        (
            "it reboots the device",
            "target 2, good 1, trial 2 5 3, db@1 exited, web@1 exited, db@2 running, web@2 starting",
            "reject 2: the device booted 3 times during its trial",
        ),
        (
            "the whole good release comes back, and nothing is pulled",
            "target 2, good 1, rejected 2, db@1 exited, stopped db@1, web@1 exited, stopped web@1, db@2 running, web@2 unhealthy",
            "stop db db-2, start db db-1, stop web web-2, start web web-1, wait all rejected",
        ),
        (
            "what ended with an error before, and is not started again, is no reason to stay",
            "target 7, good 6, rejected 7, job@6 failed, web@6 exited, stopped web@6, job@7 running, web@7 unhealthy",
            "stop job job-7, stop web web-7, start web web-6, wait all rejected",
        ),
        (
            "cut in the middle of it",
            "target 2, good 1, rejected 2, db@1 running, web@1 exited, stopped web@1, db@2 exited, web@2 unhealthy",
            "stop web web-2, start web web-1, wait all rejected",
        ),
        (
            "then the rejected containers go",
            "target 2, good 1, rejected 2, db@1 running, web@1 running, db@2 exited, web@2 exited",
            "remove db db-2, remove web web-2, wait all rejected",
        ),
        ("and it rests", "target 2, good 1, rejected 2, db@1 running, web@1 running", "wait all rejected"),
        (
            "if the rollback fails, too, a wait says so, and what runs is left running",
            "target 2, good 1, rejected 2, db@1 running, web@1 exited, stopped web@1, web@2 exited, putoff start web@1 2",
            "wait all rejected, wait web backoff, wait all degraded",
        ),
        (
            "the good release is kept alive meanwhile",
            "target 2, good 1, rejected 2, have 1, db@1 running",
            "create web@1, wait all rejected",
        ),
        (
            "with nothing to roll back to it stays up",
            "target 2, trial 2 300, db@2 running, web@2 unhealthy",
            "wait all degraded, wait web unhealthy",
        ),
        (
            "and is good when it comes good",
            "target 2, trial 2 400, steady 10, db@2 running, web@2 healthy",
            "commit 2",
        ),
        (
            "a kept service is not judged",
            "target 5, good 1, trial 5, db@1 exited, db@5 running, web@1 unhealthy",
            "wait web unhealthy, wait all trial",
        ),
        (
            "one that is well late is given its soak",
            "target 2, good 1, trial 2 400, steady 3, db@1 exited, web@1 exited, db@2 running, web@2 healthy",
            "wait all trial",
        ),
        (
            "one whose image and container vanished is judged all the same",
            "target 2, good 1, trial 2 300, db@1 exited, web@1 exited, db@2 running",
            "reject 2: not accepted within 5 min",
        ),
        (
            "a release that only drops a service is tried, too",
            "target 8, good 1, db@1 running, web@1 running",
            "try 8",
        ),
        (
            "with nothing to roll back to, a failed job replaces no container",
            "target 6, trial 6, job@6 failed, job@1 running, web@6 running",
            "wait all degraded, wait job unhealthy",
        ),
        (
            "a job that fails",
            "target 6, good 1, trial 6, job@6 failed, web@1 exited, web@6 running",
            "reject 6: job exited with code 1",
        ),
    ]);
}

#[test]
fn a_trial_that_a_new_target_cuts_off_does_not_stay_half_done() {
    let between = |state| {
        format!(
            "good 1, have 1, db@1 exited, stopped db@1, web@1 exited, stopped web@1, db@2 running, web@2 {state}"
        )
    };
    for (why, target, state, expected) in [
        (
            "what is well goes on until the next is here",
            "target 3, pulling web@3",
            "healthy",
            "wait web downloading",
        ),
        (
            "what is not gives way to the good release",
            "target 3, pulling web@3",
            "restarting",
            "stop db db-2, start db db-1, stop web web-2, start web web-1, wait web downloading",
        ),
        (
            "also where a gap is",
            "target 3, pulling web@3",
            "exited",
            "stop db db-2, start db db-1, fence web web-2, start web web-1, wait web downloading",
        ),
        (
            "but not while an app has locked updates",
            "target refused, lock web",
            "healthy",
            "wait all refused, wait web locked",
        ),
        (
            "and when the next one is refused",
            "target refused",
            "healthy",
            "stop db db-2, start db db-1, stop web web-2, start web web-1, wait all refused",
        ),
    ] {
        assert_eq!(Device::parse(&format!("{target}, {}", between(state))).planned(), expected, "{why}");
    }
    check(&[(
        "half of a release is not what may go on",
        "target 3, good 1, pulling web@3, db@1 exited, stopped db@1, db@2 running, web@1 running, web@2 created",
        "stop db db-2, start db db-1, wait web downloading",
    )]);
}

#[test]
fn dependencies_order_the_swap() {
    check(&[
        (
            "web waits for db",
            "target 4, good 1, trial 4, have 4, db@1 running, web@1 running, db@4 created, web@4 created",
            "stop db db-1, start db db-4, wait web dependency",
        ),
        (
            "until it is healthy",
            "target 4, good 1, trial 4, web@1 running, db@4 starting, web@4 created",
            "wait web dependency",
        ),
        (
            "web waits for a job",
            "target 7, good 1, trial 7, web@1 running, job@7 running, web@7 created",
            "wait web dependency",
        ),
        (
            "one that failed has not completed",
            "target 7, trial 7, job@7 failed, web@7 created",
            "wait all degraded, wait web dependency",
        ),
        (
            "until it has completed",
            "target 7, good 1, trial 7, web@1 running, job@7 exited, web@7 created",
            "stop web web-1, start web web-7",
        ),
        (
            "then it goes on",
            "target 4, good 1, trial 4, web@1 running, db@4 healthy, web@4 created",
            "stop web web-1, start web web-4",
        ),
    ]);
}

#[test]
fn a_dependency_that_has_started_need_not_run_any_more() {
    for (why, state, expected) in [
        ("it was not started yet", "created", "start job job-7, wait web dependency"),
        ("it runs", "running", "stop web web-1, start web web-7"),
        ("it has ended since", "exited", "stop web web-1, start web web-7"),
    ] {
        let mut device =
            Device::parse(&format!("good 1, trial 7, web@1 running, job@7 {state}, web@7 created"));
        let mut wanted = release(7);
        let web = wanted.services.get_mut(&name("web")).unwrap();
        web.depends_on = BTreeMap::from([(name("job"), Condition::Started)]);
        device.target = Some(target(Some(wanted)));
        assert_eq!(device.planned(), expected, "{why}");
    }
}

#[test]
fn a_release_has_a_soak_and_a_deadline_of_its_own() {
    let own = |text: &str, soak: u64, deadline: u64| {
        let mut device = Device::parse(&format!("good 1, db@1 exited, web@1 exited, db@2 running, {text}"));
        let [soak, deadline] = [soak, deadline].map(|seconds| Some(Duration::from_secs(seconds)));
        let trial = TrialSpec { soak, deadline };
        device.target = Some(target(Some(Release { trial, ..release(2) })));
        device.planned()
    };
    assert_eq!(own("trial 2 11, steady 10, web@2 healthy", 30, 300), "wait all trial", "a longer soak");
    assert_eq!(own("trial 2 31, steady 30, web@2 healthy", 30, 300), "commit 2");
    assert_eq!(own("trial 2 3, steady 2, web@2 healthy", 2, 300), "commit 2", "a shorter soak");
    assert_eq!(own("trial 2 400, web@2 starting", 10, 401), "wait web starting", "a later deadline");
    let rejected = "reject 2: not accepted within 20 s";
    assert_eq!(own("trial 2 20, web@2 starting", 10, 20), rejected, "an earlier deadline");
}

#[test]
fn no_target_touches_nothing() {
    check(&[
        ("none ever", "db@1 running, web@1 running, good 1", ""),
        ("one that names no app", "target empty, db@1 running, web@1 exited, good 1", ""),
        (
            "a refused app stays as it is",
            "target refused, db@1 running, web@1 exited, good 1",
            "wait all refused",
        ),
        (
            "an app without a release stops",
            "target none, db@1 running, web@1 exited, good 1",
            "stop db db-1, remove db db-1, remove web web-1",
        ),
        ("then its networks go", "target none, good 1", "remove-network default"),
        ("an app that is gone", "target other, db@1 running, good 1", "stop db db-1, remove db db-1"),
    ]);
}

#[test]
fn what_ends_comes_back() {
    check(&[
        ("stopped by hand", "target 1, good 1, db@1 exited, web@1 running", "start db db-1"),
        ("removed by hand", "target 1, good 1, have 1, web@1 running", "create db@1"),
        ("the engine is at it", "target 1, good 1, db@1 restarting, web@1 running", "wait db unhealthy"),
        ("dead", "target 1, good 1, db@1 dead, web@1 running", "remove db db-1"),
        (
            "also while a newer release is fetched",
            "target 2, good 1, pulling db@2, have web@2, db@1 failed, web@1 running",
            "start db db-1, wait db downloading",
        ),
        (
            "one that can never be used again is removed meanwhile, too",
            "target 3, good 1, pulling web@3, db@1 dead, web@1 running",
            "remove db db-1, wait web downloading",
        ),
        (
            "nor is a container created twice that both releases have",
            "target 5, good 1, have 1 5, db@1 running",
            "create db@5, create web@5",
        ),
        (
            "but never beside its successor",
            "target 3, good 1, pulling web@3, db@1 running, web@1 exited, web@2 running",
            "wait web downloading",
        ),
        ("a job that is done stays done", "target 6, good 6, job@6 exited, web@6 running", ""),
        ("a failed job is reported", "target 6, good 6, job@6 failed, web@6 running", "wait job unhealthy"),
        (
            "a job that we stopped goes on",
            "target 6, good 6, job@6 failed, stopped job@6, web@6 running",
            "start job job-6",
        ),
    ]);
}

#[test]
fn of_two_containers_with_one_spec_the_one_that_runs_stays() {
    let mut device = Device::parse("target 1, good 1, db@1 running, web@1 exited");
    let mut second = device.observed.services[1].clone();
    second.container = ContainerId::parse("web-1b").unwrap();
    second.state = ContainerState::Running;
    device.observed.services.push(second);
    assert_eq!(device.planned(), "remove web web-1");
}

#[test]
fn a_service_that_its_author_does_not_run_is_stopped() {
    let mut device = Device::parse("target 1, db@1 running, web@1 running");
    let mut wanted = release(1);
    wanted.services.get_mut(&name("web")).unwrap().is_running = false;
    device.target = Some(target(Some(wanted.clone())));
    device.ledger.apps.get_mut(&app()).unwrap().good = Some(wanted);
    assert_eq!(device.planned(), "stop web web-1");
}

#[test]
fn an_accepted_release_is_not_rejected_by_an_older_rejection() {
    check(&[("at rest", "target 2, good 2, rejected 2, db@2 running, web@2 running", "")]);
}

#[test]
fn what_failed_waits_its_time() {
    let device = Device::parse("target 2, good 1, db@1 running, web@1 running, failed db@2");
    assert_eq!(device.planned(), "pull r/web:2, wait db backoff");
    let plan = device.plan();
    assert_eq!(plan.waiting[0].why, "pull r/db:2 failed 2 times: gone");
    assert_eq!(plan.waiting[0].retry_in, Some(Duration::from_secs(9)));
    assert_eq!(plan.waiting[0].reason, Reason::Backoff);
}

#[test]
fn at_most_so_many_at_once() {
    let created: Vec<_> = ["a", "b", "c", "d", "e", "f"].map(|name| format!("{name}@13 created")).into();
    let mut device = Device::parse(&format!("target 13, trial 13, {}", created.join(", ")));
    device.settings = PlanSettings { parallel_swaps: 1, ..PlanSettings::default() };
    assert_eq!(
        device.planned(),
        "start a a-13, start b b-13, start c c-13, start d d-13, start e e-13",
        "one after the other, then a look"
    );
    let mut device = Device::parse("target 1, pulling x@9");
    device.settings = PlanSettings { parallel_pulls: 1, parallel_swaps: 1, ..PlanSettings::default() };
    assert_eq!(device.planned(), "wait db downloading, wait web downloading");
    device.read("failed db@1");
    assert_eq!(device.planned(), "wait db backoff, wait web downloading", "the failure says more");
}

#[test]
fn the_checker_knows_an_unsafe_plan() {
    let unsafe_plans = [
        ("db@1 running", "stop db", "there is no target, or one that names no app"),
        ("target refused, db@1 running", "stop db", "its app is refused and must stay as it is"),
        ("target 2, good 1, db@1 running", "stop db", "its release is not replaced by one that is ready"),
        ("target 2, good 1, db@1 exited", "remove db", "its successor is not accepted yet"),
        ("target 1, good 1, db@1 running", "remove db", "the container runs"),
        ("target 1, good 1, db@1 exited", "remove db", "it is the one that should run"),
        ("target 3, good 3, db@1 exited", "start db", "no release we know of has this spec"),
        (
            "target 2, good 1, db@1 running, db@2 created, web@2 created, lock db",
            "stop db",
            "updates are locked",
        ),
        ("target 1, good 1, db@1 created, db@2 running", "start db", "another container of the service runs"),
        (
            "target 11, good 11, web@11 created, web@1 running",
            "start web",
            "another container of the service runs",
        ),
        (
            "target 1, good 1, db@1 exited, db@2 created",
            "start db",
            "another container of the service may still come up",
        ),
        (
            "target 1, good 1, db@1 created, db@2 exited",
            "start db",
            "another container of the service may still come up",
        ),
        ("target 2, good 1, db@1 running", "fence db", "the container runs"),
        ("target 2, good 1, db@1 exited", "fence db", "nothing starts in its place"),
        ("target 1, good 1, db@1 running, healed db 3", "heal db", "it was restarted often enough"),
    ];
    let network = |text: &str| {
        let device = Device::parse(text);
        let id = device.observed.networks[0].id.clone();
        let step = Step::RemoveNetwork { app: app(), network: NetworkName::parse("default").unwrap(), id };
        violations(&device.situation(), &Plan { stage: vec![step], waiting: Vec::new() })
    };
    assert_eq!(network("target 2, good 1"), ["remove-network default: a release needs it"]);
    assert_eq!(network("target none, good 1"), Vec::<String>::new(), "its app goes");
    for (text, step, why) in unsafe_plans {
        let device = Device::parse(text);
        let (verb, service) = step.split_once(' ').unwrap();
        let container = format!("{service}-{}", if service == "web" { 11 } else { 1 });
        let (app, service, container) = (app(), name(service), ContainerId::parse(container).unwrap());
        let step = match verb {
            "stop" => Step::Stop { app, service, container, grace: Duration::ZERO },
            "fence" => Step::Fence { app, service, container, grace: Duration::ZERO },
            "remove" => Step::Remove { app, service, container },
            "heal" => Step::Heal { app, service },
            _ => Step::Start { app, service, container },
        };
        let found = violations(&device.situation(), &Plan { stage: vec![step.clone()], waiting: Vec::new() });
        assert_eq!(found, vec![format!("{step}: {why}")], "{text}");
    }
}

/// Lets something happen to the device, by number.
fn meet(device: &mut Device, act: u8, number: u8, which: prop::sample::Index) {
    let services = device.observed.services.len();
    match act {
        0 => device.retarget(number + 1),
        1 if services > 0 => drop(device.observed.services.remove(which.index(services))),
        2 if services > 0 => {
            let n = which.index(services);
            device.observed.services[n].state = ContainerState::Exited { code: 137 };
        }
        3 => device.pass(),
        // A lock, a lease, a window or an order.
        4 => {
            let words = ["lock web", "lease now", "window 60", "clock", "hold", "halted web@1", "port 80 *"];
            device.read(words[which.index(words.len())]);
        }
        5 => device.clear_the_way(),
        6 if services > 0 => {
            let n = which.index(services);
            if device.observed.services[n].state == ContainerState::Running {
                device.observed.services[n].health = Health::Unhealthy;
            }
        }
        // Networks on which nothing runs are removed.
        9 => {
            let runs = |s: &&ObservedService| s.state == ContainerState::Running;
            let used: Vec<_> = device.observed.services.iter().filter(runs).collect();
            let used: Vec<_> = used.iter().flat_map(|s| s.networks.values().flatten().cloned()).collect();
            device.observed.networks.retain(|n| used.contains(&n.id) || n.name == "default");
        }
        7 => drop(device.facts.handed_over.insert((app(), name("web")))),
        // The agent is killed right after it has sent a call.
        10 => {
            let plan = device.plan();
            let upto = which.index(plan.stage.len() + 1);
            plan.stage[..upto].iter().for_each(|step| device.apply(step, |_| true));
            plan.stage.get(upto).into_iter().for_each(|step| device.send(step));
        }
        11 => device.finish_late_starts(),
        // A network of a container is removed and created again.
        8 if services > 0 => device.observed.services[which.index(services)].is_cut_off = true,
        _ => {
            // A power cut: only the first steps of the stage happen.
            let plan = device.plan();
            let upto = which.index(plan.stage.len() + 1);
            for step in &plan.stage[..upto] {
                device.apply(step, |_| true);
            }
        }
    }
}

proptest! {
    /// Every plan is safe, two containers of one service never run, and in the end the device is at rest and runs exactly
    /// the wanted release. Before that anything may happen: steps lost to a power cut, calls carried out after their
    /// caller was killed, other targets, containers that are removed, stopped or unhealthy, locks, windows, holds.
    #[test]
    fn always_converges(
        acts in prop::collection::vec((0_u8..14, 0_u8..22, any::<prop::sample::Index>()), 0..80),
        last in 1_u8..=22,
    ) {
        let mut device = Device::parse("bare, target 1");
        for (act, number, which) in acts {
            device.plan();
            device.steady.clear();
            meet(&mut device, act, number, which);
            prop_assert_eq!(device.doubles(), Vec::<String>::new(), "{}", device.shown());
        }
        device.finish_late_starts();
        device.retarget(last);
        device.clear_the_way();
        // Rejected releases are tried again, as `cotter retry` does.
        device.ledger.apps.values_mut().for_each(|ledger| ledger.rejected = None);
        for seen in &mut device.observed.services {
            seen.health = Health::Unchecked;
        }
        // A job that was killed has failed. Its release may be rejected, or wait for a person.
        let job_failed = device.observed.services.iter().any(|s| {
            s.service.as_str() == "job" && s.state == ContainerState::Exited { code: 137 }
        });
        let mut rounds = 0;
        loop {
            for seen in &mut device.observed.services {
                // A one-shot ends well, once it runs.
                if seen.service.as_str() == "job" && seen.state == ContainerState::Running {
                    seen.state = ContainerState::Exited { code: 0 };
                }
            }
            device.pass();
            let plan = device.plan();
            let hands_over = plan.waiting.iter().any(|w| w.reason == Reason::HandOver);
            if plan.stage.is_empty() && !hands_over { break; }
            for step in &plan.stage { device.apply(step, |_| true); }
            prop_assert_eq!(device.doubles(), Vec::<String>::new(), "{}", device.shown());
            if hands_over { device.facts.handed_over.insert((app(), name("web"))); }
            rounds += 1;
            prop_assert!(rounds < 40, "no rest: {}", device.planned());
        }
        if !job_failed {
            prop_assert_eq!(device.planned(), "", "{} stopped {:?}", device.shown(), device.ledger.apps[&app()].stopped_by_agent);
            let mut runs: Vec<_> = device.observed.services.iter().map(|s| s.spec.clone()).collect();
            let mut wanted: Vec<_> = release(last).services.values().map(|s| s.hash.clone()).collect();
            runs.sort();
            wanted.sort();
            prop_assert_eq!(runs, wanted);
            prop_assert_eq!(device.ledger.apps[&app()].good.as_ref().unwrap(), &release(last));
            prop_assert!(device.facts.own_locks.is_empty());
            let is_of = |n: &ObservedNetwork| {
                release(last).networks.get(&n.network).is_some_and(|spec| spec.config_hash == n.config_hash)
            };
            prop_assert!(device.observed.networks.iter().all(is_of), "no other network is left");
            prop_assert_eq!(device.observed.networks.len(), release(last).networks.len());
        }
    }

    /// A release that crashes is never accepted. Wherever the power is cut, the device goes back to all services of the
    /// release before it, without a download.
    #[test]
    fn a_bad_release_is_never_good(
        bad in prop::sample::select(vec![2_u8, 9, 11]),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 40),
    ) {
        let text = format!("target {bad}, good 1, have 1 {bad}, pulled 1 {bad}, db@1 running, web@1 running");
        let mut device = Device::parse(&text);
        let bad = hash("web", bad);
        for cut in cuts.into_iter().map(Some).chain([None; 30]) {
            let plan = device.plan();
            let upto = cut.map_or(plan.stage.len(), |cut| cut.index(plan.stage.len() + 1));
            for step in &plan.stage[..upto] {
                prop_assert!(!matches!(step, Step::Pull { .. }), "no download");
                device.apply(step, |spec| *spec != bad);
            }
            for seen in &mut device.observed.services {
                seen.restarts += u64::from(seen.state == ContainerState::Restarting);
            }
        }
        prop_assert_eq!(device.planned(), "wait all rejected");
        let runs: Vec<_> = device.observed.services.iter().map(|s| s.container.to_string()).collect();
        prop_assert_eq!(runs.len(), 2);
        prop_assert!(device.observed.services.iter().all(|s| s.state == ContainerState::Running));
        prop_assert_eq!(device.ledger.apps[&app()].good.as_ref().unwrap(), &release(1));
        for service in ["db", "web"] {
            let spec = hash(service, 1);
            prop_assert!(device.observed.services.iter().any(|s| s.spec == spec), "{} is kept", service);
        }
    }
}

//! What delays a swap: locks, windows, a clock that cannot be trusted.

use super::{Device, check};

/// Release 1 runs, and the containers of release 2 are created.
const READY: &str = "target 2, good 1, db@1 running, web@1 running, db@2 created, web@2 created";

#[track_caller]
fn check_ready(rows: &[(&str, &str, &str)]) {
    for (why, more, expected) in rows {
        assert_eq!(Device::parse(&format!("{READY}, {more}")).planned(), *expected, "{why}");
    }
}

#[test]
fn a_lock_keeps_a_swap_from_beginning() {
    check_ready(&[
        ("an app's lock file", "lock web", "wait web locked"),
        ("a lease", "lease now", "wait all locked"),
        ("both are reported", "lock db, lease now", "wait db locked, wait all locked"),
        ("a lease that is over", "lease over", "try 2"),
        ("a lease of another boot", "lease old", "try 2"),
        ("an order for this release passes them", "lock web, lease now, forced 2", "try 2"),
        ("one for another release does not", "lock web, forced 3", "wait web locked"),
        ("the cloud's order passes them", "lock web, override", "try 2"),
    ]);
    check(&[
        (
            "images and containers come all the same",
            "target 2, good 1, lock web, db@1 running, web@1 running",
            "pull r/db:2, pull r/web:2",
        ),
        (
            "one that crashed comes back before anything else, and holds its lock",
            "target 2, good 1, lock web, db@1 running, web@1 exited, db@2 created, web@2 created",
            "fence web web-2, start web web-1, wait web locked",
        ),
        (
            "a lock that a job has left counts for nothing",
            "target 2, good 6, lock job, job@6 exited, web@6 running, db@2 created, web@2 created",
            "try 2",
        ),
        (
            "nor does one of a service that an operator stopped",
            "target 2, good 1, lock web, halted web@1, db@1 running, web@1 exited, db@2 created, web@2 created",
            "try 2",
        ),
        (
            "a swap that has begun goes on",
            "target 2, good 1, trial 2, own, lease now, db@1 exited, stopped db@1, web@1 running, db@2 running, web@2 created",
            "stop web web-1, start web web-2",
        ),
        (
            "so does the rollback from it",
            "target 2, good 1, rejected 2, own, lease now, db@1 exited, stopped db@1, web@1 running, db@2 running",
            "stop db db-2, start db db-1, wait all rejected",
        ),
        (
            "a rollback by hand waits",
            "target 2, good 1, rejected 2, lock db, db@1 created, web@1 created, db@2 running, web@2 running",
            "wait all rejected, wait db locked",
        ),
        (
            "what crashed comes back",
            "target 1, good 1, lock web, lock db, db@1 exited, web@1 running",
            "start db db-1",
        ),
        ("a first release starts", "target 1, lease now, db@1 created, web@1 created", "try 1"),
        ("an app that goes", "target none, good 1, lock web, web@1 running", "wait web locked"),
        ("an app that is gone", "target other, good 1, lease now, web@1 running", "wait all locked"),
    ]);
}

#[test]
fn our_own_locks_go_when_nothing_is_touched_any_more() {
    check(&[
        (
            "not while a release is on trial",
            "target 2, good 1, trial 2, own, db@2 running, web@2 running, db@1 exited, web@1 exited",
            "wait all trial",
        ),
        (
            "a first release has nothing to be taken back for",
            "target 2, trial 2 400, own, db@2 running, web@2 unhealthy",
            "unlock app, wait all degraded, wait web unhealthy",
        ),
        (
            "nor in its rollback, where one waits for another",
            "target 2, good 4, rejected 2, own, db@4 starting, web@4 exited, stopped web@4, db@2 exited, web@2 running",
            "wait all rejected, wait web dependency",
        ),
        (
            "when the target is refused",
            "target refused, own, good 1, db@1 running, web@1 running",
            "unlock app, wait all refused",
        ),
        ("when it was accepted", "target 2, good 2, own, db@2 running, web@2 running", "unlock app"),
        (
            "when it was taken back, and not before",
            "target 2, good 1, rejected 2, own, db@1 running, web@1 exited, stopped web@1, db@2 exited, web@2 running",
            "stop web web-2, start web web-1, wait all rejected",
        ),
        (
            "nor while one that does not stop is killed",
            "target 2, good 1, rejected 2, own, tried stop web@2 2, db@1 running, web@1 running, db@2 exited, web@2 running",
            "kill web web-2, wait all rejected",
        ),
        (
            "then",
            "target 2, good 1, rejected 2, own, db@1 running, web@1 running",
            "unlock app, wait all rejected",
        ),
        (
            "when another release is wanted",
            "target 3, good 1, own, pulling web@3, db@1 running, web@1 running",
            "unlock app, wait web downloading",
        ),
    ]);
}

#[test]
fn a_window_keeps_a_swap_from_beginning() {
    check_ready(&[
        ("closed", "window 600", "wait all window"),
        ("open", "window open", "try 2"),
        ("an order passes it", "window 600, forced 2", "try 2"),
        ("a clock that is wrong", "window open, clock", "wait all clock"),
        ("without windows no clock is needed", "clock", "try 2"),
        ("it does not stay closed for ever", "window open, clock, waited 24", "try 2"),
        ("a zone that is not known", "window unknown", "wait all window"),
        ("for ever", "window unknown, waited 24", "wait all window"),
    ]);
    let device = Device::parse(&format!("{READY}, window 600"));
    let waiting = &device.plan().waiting[0];
    assert_eq!(waiting.why, "outside of 02:00-04:00 UTC");
    assert_eq!(waiting.retry_in, Some(std::time::Duration::from_secs(600)));
    check(&[
        ("a first release does not wait", "target 1, window 600, db@1 created, web@1 created", "try 1"),
        (
            "nor does what has begun",
            "target 2, good 1, trial 2, window 600, db@1 running, web@1 running, db@2 created, web@2 created",
            "stop db db-1, start db db-2, stop web web-1, start web web-2",
        ),
        (
            "nor does the rollback",
            "target 2, good 1, rejected 2, window 600, db@1 running, web@1 exited, stopped web@1, db@2 exited, web@2 running",
            "stop web web-2, start web web-1, wait all rejected",
        ),
        (
            "what crashed comes back",
            "target 1, good 1, window 600, db@1 exited, web@1 running",
            "start db db-1",
        ),
        (
            "what is accepted cleans up",
            "target 2, good 2, window 600, db@1 exited, db@2 running, web@2 running",
            "remove db db-1",
        ),
        ("an app that goes waits", "target none, good 1, window 600, web@1 running", "wait all window"),
    ]);
}

#[test]
fn of_several_closed_windows_the_first_to_open_counts() {
    use crate::model::{Window, WindowState};
    let second = Window::parse("Sun 00:00-24:00").unwrap();
    for (why, text, state) in [
        (
            "it opens later",
            "window 600",
            WindowState::Closed { opens_in: std::time::Duration::from_secs(900) },
        ),
        ("the time zone is unknown", "window 600", WindowState::Unknown("no zone is known".into())),
    ] {
        let mut device = Device::parse(&format!("{READY}, {text}"));
        device.settings.windows.insert(second.clone());
        device.facts.windows.insert(second.clone(), state);
        assert_eq!(device.planned(), "wait all window", "{why}");
        let left = device.plan().waiting[0].retry_in;
        assert_eq!(left, Some(std::time::Duration::from_secs(600)), "{why}");
    }
}

#[test]
fn a_release_has_windows_of_its_own() {
    use super::{app, release, target};
    use crate::model::{Window, WindowState};
    let mut device = Device::parse(&format!("{READY}, window 600"));
    let own = Window::parse("Sun 00:00-24:00").unwrap();
    let mut wanted = release(2);
    wanted.windows = [own.clone()].into();
    device.target = Some(target(Some(wanted)));
    device.facts.windows.insert(own, WindowState::Open);
    assert_eq!(device.planned(), "try 2", "they take the place of the device's");
    assert!(device.ledger.apps[&app()].forced.is_none());
}

//! Restarts and stops of single services: on an operator's order, when unhealthy, and when a container does not end.

use super::check;

#[test]
fn a_service_that_an_operator_stopped_stays_so() {
    check(&[
        ("it is stopped", "target 1, good 1, halted web@1, db@1 running, web@1 running", "stop web web-1"),
        (
            "also while something comes",
            "target 2, good 1, halted web@1, pulling db@2, have web@2, db@1 running, web@1 running",
            "stop web web-1",
        ),
        (
            "and stays so",
            "target 1, good 1, halted web@1, db@1 running, web@1 exited, stopped web@1",
            "wait web stopped",
        ),
        (
            "its container is made, and not started",
            "target 1, good 1, have 1, halted web@1, db@1 running",
            "create web@1",
        ),
        ("then", "target 1, good 1, have 1, halted web@1, db@1 running, web@1 created", "wait web stopped"),
        (
            "a stop that has failed does not delay other services",
            "target 1, good 1, halted web@1, putoff stop web@1 1, db@1 exited, web@1 running",
            "start db db-1, wait web backoff",
        ),
        ("another spec runs on", "target 2, good 2, halted web@1, db@2 running, web@2 running", ""),
        (
            "another spec is another service",
            "target 2, good 1, trial 2, halted web@1, db@1 running, web@1 exited, stopped web@1, db@2 created, web@2 created",
            "stop db db-1, start db db-2, fence web web-1, start web web-2",
        ),
        (
            "one that a release keeps stays stopped, and is not waited for",
            "target 5, good 1, trial 5, steady 10, halted web@1, db@1 exited, db@5 running, web@1 exited, stopped web@1",
            "commit 5, wait web stopped",
        ),
        (
            "not while held",
            "target 1, good 1, hold, halted web@1, db@1 running, web@1 running",
            "wait all held",
        ),
    ]);
}

#[test]
fn an_operator_stops_starts_and_restarts_services_of_a_refused_app() {
    check(&[
        (
            "it is stopped",
            "target refused, good 1, halted web@1, db@1 running, web@1 running",
            "stop web web-1, wait all refused",
        ),
        (
            "and stays so",
            "target refused, good 1, halted web@1, db@1 running, web@1 exited, stopped web@1",
            "wait all refused",
        ),
        (
            "until it is started",
            "target refused, good 1, db@1 running, web@1 exited, stopped web@1",
            "start web web-1, wait all refused",
        ),
        (
            "it is restarted",
            "target refused, good 1, restart web@1, db@1 running, web@1 running",
            "stop web web-1, start web web-1, wait all refused",
        ),
        (
            "what ended by itself stays as it is",
            "target refused, good 1, db@1 running, web@1 exited",
            "wait all refused",
        ),
        (
            "not while held",
            "target refused, good 1, hold, halted web@1, web@1 running, db@1 running",
            "wait all refused",
        ),
    ]);
}

#[test]
fn a_service_that_an_operator_restarts() {
    check(&[
        (
            "stop and start",
            "target 1, good 1, restart web@1, db@1 running, web@1 running",
            "stop web web-1, start web web-1",
        ),
        (
            "and reconnect, if it has lost a network",
            "target 1, good 1, restart web@1, db@1 running, web@1 running, cut web@1",
            "stop web web-1, reconnect web web-1, start web web-1",
        ),
        (
            "and remove, if its variables are outdated: it is created again",
            "target 1, good 1, restart web@1, db@1 running, web@1 running, outdated web@1",
            "stop web web-1, remove web web-1",
        ),
        (
            "which is no reason to stop it",
            "target 1, good 1, db@1 running, web@1 running, outdated web@1",
            "",
        ),
        (
            "but it is not started again",
            "target 1, good 1, db@1 running, web@1 exited, stopped web@1, outdated web@1",
            "remove web web-1",
        ),
        (
            "an outdated one is removed while another release is downloaded",
            "target 2, good 1, restart web@1, pulling db@2, have web@2, db@1 running, web@1 running, outdated web@1",
            "stop web web-1, remove web web-1",
        ),
        (
            "and while updates are locked",
            "target 1, good 1, lock web, restart web@1, db@1 running, web@1 running, outdated web@1",
            "stop web web-1, remove web web-1",
        ),
        (
            "not if it belongs to no release that is known",
            "target 1, good 1, restart web@2, db@1 running, web@2 running, web@1 running",
            "stop web web-2",
        ),
        (
            "cut in between",
            "target 1, good 1, restart web@1, db@1 running, web@1 exited, stopped web@1",
            "start web web-1",
        ),
        ("not while held", "target 1, good 1, hold, restart web@1, db@1 running, web@1 running", ""),
        (
            "one that is stopped is not started by it",
            "target 1, good 1, restart web@1, halted web@1, db@1 running, web@1 running",
            "stop web web-1",
        ),
    ]);
}

#[test]
fn an_unhealthy_service_is_restarted_so_often_and_no_more() {
    check(&[
        (
            "first",
            "target 1, good 1, db@1 running, web@1 unhealthy",
            "heal web, stop web web-1, start web web-1, wait web unhealthy",
        ),
        (
            "last",
            "target 1, good 1, healed web 2, db@1 running, web@1 unhealthy",
            "heal web, stop web web-1, start web web-1, wait web unhealthy",
        ),
        (
            "then it is reported and left running",
            "target 1, good 1, healed web 3, db@1 running, web@1 unhealthy",
            "wait web unhealthy",
        ),
        (
            "another service has restarts of its own",
            "target 1, good 1, healed db 3, db@1 running, web@1 unhealthy",
            "heal web, stop web web-1, start web web-1, wait web unhealthy",
        ),
        ("not while held", "target 1, good 1, hold, db@1 running, web@1 unhealthy", "wait web unhealthy"),
        (
            "also while something comes",
            "target 2, good 1, pulling db@2, have web@2, db@1 running, web@1 unhealthy",
            "heal web, stop web web-1, start web web-1, wait db downloading",
        ),
        (
            "a lock does not keep it",
            "target 1, good 1, lock db, lease now, db@1 running, web@1 unhealthy",
            "heal web, stop web web-1, start web web-1, wait web unhealthy",
        ),
        (
            "what is on trial is judged instead",
            "target 2, good 1, trial 2, db@1 exited, web@1 exited, db@2 running, web@2 unhealthy",
            "reject 2: web is unhealthy",
        ),
        (
            "a first release stays up",
            "target 2, trial 2, db@2 running, web@2 unhealthy",
            "wait all degraded, wait web unhealthy",
        ),
    ]);
}

#[test]
fn a_container_that_does_not_end_climbs_a_ladder() {
    let swap =
        "target 2, good 1, trial 2, db@1 exited, stopped db@1, db@2 running, web@1 running, web@2 created";
    let gone = "target none, good 1, web@1 running";
    let dead = "target 1, good 1, have 1, db@1 running, web@1 dead";
    for (why, device, more, expected) in [
        ("once may be bad luck", swap, "tried stop web@1 1", "stop web web-1, start web web-2"),
        ("twice: SIGKILL", swap, "tried stop web@1 2", "kill web web-1, start web web-2"),
        (
            "and again; what may come back is never removed",
            swap,
            "tried stop web@1 2, tried kill web@1 2",
            "kill web web-1, start web web-2",
        ),
        ("one that goes: stop", gone, "", "stop web web-1, remove web web-1"),
        ("kill", gone, "tried stop web@1 2", "kill web web-1, remove web web-1"),
        ("by force", gone, "tried stop web@1 2, tried kill web@1 2", "remove-by-force web web-1"),
        ("one that is dead: remove", dead, "", "remove web web-1"),
        ("by force", dead, "tried remove web@1 2", "remove-by-force web web-1"),
        (
            "then it is put aside",
            dead,
            "tried remove web@1 2, tried remove-by-force web@1 2",
            "park web web-1",
        ),
    ] {
        assert_eq!(super::Device::parse(&format!("{device}, {more}")).planned(), expected, "{why}");
    }
    check(&[
        (
            "its service comes back beside it",
            "target 1, good 1, have 1, db@1 running, parked web@1",
            "create web@1",
        ),
        (
            "and its removal is tried on",
            "target 1, good 1, db@1 running, web@1 running, parked web@1",
            "remove-by-force web web-1",
        ),
        ("also of an app that is gone", "target other, parked web@1", "remove-by-force web web-1"),
    ]);
    let stuck = "target 1, good 1, db@1 running, web@1 running, parked web@1";
    let mut device = super::Device::parse(stuck);
    let step = device.plan().stage[0].clone();
    let failure = crate::model::FailedStep {
        attempts: 9,
        why: "busy".into(),
        remaining: Some(std::time::Duration::from_secs(60)),
    };
    device.failed_steps.insert(step, failure);
    assert_eq!(device.planned(), "wait web engine_stuck");
}

#[test]
fn a_container_whose_network_was_replaced_is_connected_to_the_new_one() {
    let cut = "target 1, good 1, have 1, db@1 running, web@1 exited, cut web@1";
    check(&[
        ("and keeps all else", cut, "reconnect web web-1, start web web-1"),
        ("once more", &format!("{cut}, tried reconnect web@1 1"), "reconnect web web-1, start web web-1"),
        ("where it cannot be, it goes", &format!("{cut}, spent reconnect web@1 2"), "remove web web-1"),
        (
            "or is put aside",
            &format!("{cut}, tried reconnect web@1 2, tried remove web@1 2, tried remove-by-force web@1 2"),
            "park web web-1",
        ),
        ("then as ever", "target 1, good 1, have 1, db@1 running", "create web@1"),
        (
            "one that runs is left alone",
            "target 1, good 1, have 1, db@1 running, web@1 running, cut web@1",
            "",
        ),
        (
            "and so is one that is to stay as it is",
            "target 1, good 1, halted web@1, db@1 running, web@1 exited, stopped web@1, cut web@1",
            "wait web stopped",
        ),
        ("or is done", "target 6, good 6, job@6 exited, cut job@6, web@6 running", ""),
        (
            "in a rollback",
            "target 2, good 1, rejected 2, have 1, db@1 exited, stopped db@1, web@1 exited, stopped web@1, cut web@1, \
             db@2 running, web@2 running",
            "stop db db-2, start db db-1, stop web web-2, reconnect web web-1, start web web-1, wait all rejected",
        ),
        (
            "while something comes",
            "target 2, good 1, have 1 web@2, pulling db@2, db@1 running, web@1 exited, cut web@1",
            "reconnect web web-1, start web web-1, wait db downloading",
        ),
        (
            "while something comes, and before its network is there again",
            "target 3, good 18, pulling web@3, db@18 running, web@18 exited",
            "create-network lan, wait web downloading",
        ),
    ]);
}

//! Leftovers of releases that are no longer wanted and were never accepted.

use super::{Device, check, name};
use crate::model::{ContainerId, Plan, SpecHash, Step};
use crate::plan::violations;

#[test]
fn what_was_never_accepted_goes_before_more_is_made() {
    check(&[
        (
            "two targets came since",
            "target 4, good 1, have 1 4, db@1 running, web@1 running, db@2 created, web@2 created, web@3 exited",
            "remove db db-2, remove web web-2, remove web web-3, create db@4, create web@4",
        ),
        (
            "the good release is kept to come back to",
            "target 2, good 1, have 1 2, trial 2, db@1 exited, web@1 exited, db@2 running, web@2 running",
            "wait all trial",
        ),
        (
            "what was tried when the target changed is kept while anything of it runs",
            "target 4, good 1, have 1 2 4, db@1 running, web@1 exited, stopped web@1, web@2 running, db@2 created",
            "create db@4, create web@4",
        ),
        (
            "there is no good one yet, and what runs of the first is all there is",
            "target 2, have 1 2, db@1 exited, web@1 running",
            "create db@2, create web@2",
        ),
        (
            "nothing of the first runs",
            "target 2, have 1 2, db@1 exited, web@1 created",
            "remove db db-1, remove web web-1, create db@2, create web@2",
        ),
        (
            "the good release is not remembered, and the replaced one may have been it",
            "target 2, have 1 2, trial 2, db@1 exited, web@1 exited, db@2 running, web@2 running",
            "wait all trial",
        ),
        (
            "a network without containers",
            "target 20, good 3, have 20 3, lan 1, web@3 running",
            "remove-network lan, create-network lan",
        ),
    ]);
}

#[test]
fn the_checker_keeps_what_is_no_debris() {
    let remove = |container: &str| Step::Remove {
        app: super::app(),
        service: name("web"),
        container: ContainerId::parse(container).unwrap(),
    };
    for (text, step, why) in [
        ("target 4, good 1, web@1 exited", remove("web-1"), Some("its successor is not accepted yet")),
        ("target 4, good 1, web@4 created", remove("web-4"), Some("its successor is not accepted yet")),
        (
            "target 4, good 1, db@2 running, web@2 exited",
            remove("web-2"),
            Some("its successor is not accepted yet"),
        ),
        ("target 4, good 1, web@2 running", remove("web-2"), Some("the container runs")),
        ("target 4, good 1, web@2 exited", remove("web-2"), None),
    ] {
        let device = Device::parse(text);
        let found = violations(&device.situation(), &Plan { stage: vec![step.clone()], waiting: Vec::new() });
        let expected: Vec<_> = why.iter().map(|why| format!("{step}: {why}")).collect();
        assert_eq!(found, expected, "{text}");
    }
}

/// A container of another supervisor has no spec of ours.
#[test]
fn what_another_supervisor_left_stays_until_the_first_release_is_accepted() {
    let planned = |text: &str| {
        let mut device = Device::parse(text);
        device.observed.services[0].spec = SpecHash::of_original();
        device.planned()
    };
    let waiting = "target 2, have 2, db@1 exited, db@2 created, web@2 created";
    assert_eq!(planned(waiting), "try 2", "nothing of the first release runs yet");
    assert_eq!(Device::parse(waiting).planned(), "remove db db-1, try 2", "unlike what we created");
    assert_eq!(planned("target 2, good 2, db@1 exited, db@2 running, web@2 running"), "remove db db-1");
}

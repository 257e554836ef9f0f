//! Services that join the namespaces of others: they are created, started and restarted with them.

use super::{Device, check, name};
use crate::model::{Commit, Plan, Step};
use crate::plan::violations;

#[test]
fn whoever_joins_another_one_is_created_and_started_after_it() {
    check(&[
        ("the other one first", "target 14, have 14", "create vpn@14"),
        ("then it", "target 14, have 14, vpn@14 created", "create web@14"),
        (
            "started in that order, too",
            "target 14, trial 14, vpn@14 created, web@14 created",
            "start vpn vpn-14, wait web dependency",
        ),
        (
            "once the other one runs",
            "target 14, trial 14, vpn@14 running, web@14 created",
            "start web web-14",
        ),
        (
            "not while that one keeps exiting",
            "target 14, trial 14, vpn@14 restarting, web@14 created",
            "wait web dependency",
        ),
        (
            "nor when it has ended",
            "target 14, trial 14, vpn@14 exited, web@14 created, halted vpn@14",
            "wait web dependency",
        ),
    ]);
}

#[test]
fn the_accepted_release_is_kept_running_in_the_same_order() {
    let down = "target 3, good 14, pulling web@3, web@14 exited";
    let pulling = "wait web downloading";
    for (vpn, expected) in [("exited", "start vpn vpn-14, "), ("running", "start web web-14, ")] {
        let planned = Device::parse(&format!("{down}, vpn@14 {vpn}")).planned();
        assert_eq!(planned, format!("{expected}{pulling}"), "{vpn}");
    }
}

#[test]
fn whoever_joins_another_one_is_swapped_with_it() {
    let both = "good 14, have 14 15, vpn@14 running, web@14 running";
    for (why, device, expected) in [
        ("created one after the other", "target 15", "create vpn@15"),
        ("beside those that run", "target 15, vpn@15 created", "create web@15"),
        (
            "the other one is swapped first",
            "target 15, trial 15, vpn@15 created, web@15 created",
            "stop vpn vpn-14, start vpn vpn-15, wait web dependency",
        ),
        ("alone it changes alone", "target 16, have 16", "create web@16"),
        (
            "and the other one goes on",
            "target 16, trial 16, web@16 created",
            "stop web web-14, start web web-16",
        ),
    ] {
        assert_eq!(Device::parse(&format!("{both}, {device}")).planned(), expected, "{why}");
    }
    check(&[
        (
            "then it",
            "target 15, good 14, trial 15, vpn@14 exited, web@14 running, vpn@15 running, web@15 created",
            "stop web web-14, start web web-15",
        ),
        (
            "and back",
            "target 15, good 14, rejected 15, vpn@14 exited, stopped vpn@14, web@14 exited, stopped web@14, \
             vpn@15 restarting, web@15 running",
            "stop vpn vpn-15, start vpn vpn-14, wait all rejected, wait web dependency",
        ),
        (
            "to the end",
            "target 15, good 14, rejected 15, vpn@14 running, web@14 exited, stopped web@14, vpn@15 exited, \
             web@15 running",
            "stop web web-15, start web web-14, wait all rejected",
        ),
    ]);
}

#[test]
fn who_was_left_behind_joins_anew() {
    let both = "have 14, vpn@14 running, web@14 running, left web@14";
    for (why, device, expected) in [
        ("of the good release", "target 14, good 14", "stop web web-14, start web web-14"),
        ("of one on trial", "target 14, trial 14", "stop web web-14, start web web-14"),
        (
            "while another one is fetched",
            "target 3, good 14, pulling web@3",
            "stop web web-14, start web web-14, wait web downloading",
        ),
        ("not while the device is held", "target 14, good 14, hold", "wait all held"),
        ("not of a refused app", "target refused, good 14", "wait all refused"),
    ] {
        assert_eq!(Device::parse(&format!("{both}, {device}")).planned(), expected, "{why}");
    }
}

/// A container joins another one by its id.
#[test]
fn an_orphan_is_made_anew() {
    check(&[
        (
            "it goes, and the other one comes",
            "target 14, good 14, have 14, web@14 running",
            "create vpn@14, stop web web-14, remove web web-14",
        ),
        ("then it", "target 14, good 14, have 14, vpn@14 running", "create web@14"),
        (
            "not while the device is held",
            "target 14, good 14, have 14, web@14 running, hold",
            "create vpn@14, wait all held",
        ),
        (
            "one that has ended goes all the same",
            "target 14, good 14, have 14, web@14 exited, hold",
            "create vpn@14, remove web web-14",
        ),
        (
            "on trial, too",
            "target 15, good 14, have 14 15, trial 15, vpn@14 exited, web@14 exited, web@15 running",
            "create vpn@15, stop web web-15, remove web web-15",
        ),
        (
            "and in a rollback",
            "target 15, good 14, have 14, rejected 15, web@14 exited, stopped web@14, vpn@15 running, web@15 running",
            "create vpn@14, remove web web-14, wait all rejected",
        ),
        (
            "also while another release is fetched",
            "target 3, good 14, have 14, pulling web@3, web@14 exited",
            "create vpn@14, remove web web-14, wait web downloading",
        ),
    ]);
}

#[test]
fn a_predecessor_that_makes_room_takes_those_with_it_that_joined_it() {
    let both = "target 17, good 14, vpn@14 running, web@14 running";
    for (why, device, expected) in [
        ("all but its own image comes before", "have 14", "pull r/web:17"),
        ("then the trial begins", "have 14 web@17", "try 17"),
        ("and both stop", "have 14 web@17, trial 17", "stop vpn vpn-14, stop web web-14"),
    ] {
        assert_eq!(Device::parse(&format!("{both}, {device}")).planned(), expected, "{why}");
    }
    let stopped =
        "target 17, good 14, trial 17, vpn@14 exited, stopped vpn@14, web@14 exited, stopped web@14";
    for (why, device, expected) in [
        ("then its image comes", "have 14 web@17", "pull r/vpn:17"),
        ("then the containers", "have 14 17", "create vpn@17"),
        ("one after the other", "have 14 17, vpn@17 created", "create web@17"),
        (
            "then they start",
            "have 14 17, vpn@17 created, web@17 created",
            "fence vpn vpn-14, start vpn vpn-17, wait web dependency",
        ),
    ] {
        assert_eq!(Device::parse(&format!("{stopped}, {device}")).planned(), expected, "{why}");
    }
}

#[test]
fn the_checker_wants_the_one_that_is_joined() {
    let device = Device::parse("target 14, have 14");
    let (app, service, release) = (super::app(), name("web"), Commit::parse("14").unwrap());
    let step = Step::Create { app, service, release, spec: super::hash("web", 14) };
    let found = violations(&device.situation(), &Plan { stage: vec![step], waiting: Vec::new() });
    assert_eq!(found, ["create web@14: a service that it joins has no container"]);
}

/// There are far too many paths from the last service to the first one to walk them all.
#[test]
fn a_long_chain_of_services_that_join_each_other_twice_is_planned() {
    let named = |n: usize| super::name(&format!("s{n:03}"));
    let mut wanted = super::release(3);
    wanted.services = (0..200)
        .map(|n| {
            let spec_hash = super::SpecHash::parse(format!("v1:{n:064x}")).unwrap();
            let mut spec = super::ServiceSpec::bare(spec_hash, super::image("web", 3));
            if n > 1 {
                spec.network_mode = super::NetworkMode::Service(named(n - 1));
                spec.isolation.pid_of = Some(named(n - 2));
            }
            (named(n), spec)
        })
        .collect();
    let mut device = Device::parse("target 3, have 3");
    device.target = Some(super::target(Some(wanted)));
    let stage = super::plan(&device.situation()).stage;
    assert_eq!(
        super::violations(&device.situation(), &super::Plan { stage: stage.clone(), waiting: Vec::new() }),
        [""; 0]
    );
    assert_eq!(stage.len(), 2, "the two that join no other: {stage:?}");
}

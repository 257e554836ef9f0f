//! What steps change in the ledger.

use super::{Device, app, hash, name, release, target};
use crate::model::*;
use crate::plan::{record_done, record_intent};

/// The ledger's entry of the app after its wanted release was accepted.
fn accepted(text: &str, wanted: Release) -> AppLedger {
    let mut ledger = Device::parse(text).ledger;
    let step = Step::Accept { app: app(), release: wanted.commit.clone() };
    record_done(&mut ledger, &target(Some(wanted)), "boot", "now", &step);
    ledger.apps.remove(&app()).unwrap()
}

#[test]
fn an_accepted_release_keeps_the_one_that_it_replaces() {
    let after = accepted("good 1, previous 3, trial 2, rejected 2, forced 2", release(2));
    assert_eq!((after.good, after.previous), (Some(release(2)), Some(release(1))));
    assert_eq!((after.trial, after.rejected, after.forced), (None, None, None));
    // openBalena may give the same release another number, e.g. after its database was restored.
    let renumbered = Release { number: 77, ..release(1) };
    let after = accepted("good 1, previous 3", renumbered.clone());
    assert_eq!((after.good, after.previous), (Some(renumbered), Some(release(3))), "it replaces nothing");
}

#[test]
fn orders_for_services_end_with_the_release_that_changes_them() {
    let after = accepted("good 1, halted db@1, halted web@1, healed web 2", release(5));
    assert_eq!(
        after.stopped_by_operator.keys().collect::<Vec<_>>(),
        [&name("web")],
        "release 5 has web of release 1"
    );
    assert_eq!(after.stopped_by_operator[&name("web")].spec, hash("web", 1));
    assert!(after.heals.is_empty(), "a new release may be restarted as often");
}

#[test]
fn only_a_container_that_had_no_chance_to_end_is_noted_as_stopped() {
    let device = Device::parse("db@1 created, web@1 exited");
    let fence = |number: usize| {
        let seen = &device.observed.services[number];
        let (service, container) = (seen.service.clone(), seen.container.clone());
        Step::Fence { app: app(), service, container, grace: seen.grace }
    };
    let mut ledger = Ledger::default();
    record_intent(&mut ledger, &device.observed, &[fence(0), fence(1)]);
    let noted: Vec<_> = ledger.apps[&app()].stopped_by_agent.iter().map(ToString::to_string).collect();
    assert_eq!(noted, ["db-1"], "web has ended by itself");
}
